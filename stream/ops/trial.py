"""What would become of records under a map: the decoder and the judge of ingest, without a Redis.

Nothing is known before the first of them, so a record that live windows would call late or a
duplicate may count here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np

from freshet.stream.config import Settings
from freshet.stream.events.columns import Decoded
from freshet.stream.events.decoder import EventKind
from freshet.stream.events.formats.decoding import FormatDecoder
from freshet.stream.events.map.conditions import wanted
from freshet.stream.events.map.missing import NeverSeen, record_of
from freshet.stream.events.map.paths import dig, steps_of
from freshet.stream.events.redrive import Headers, redrive_name
from freshet.stream.fold.batches import DecodedBatch
from freshet.stream.fold.history import history_mark
from freshet.stream.fold.partition import PartitionWindows, TopicFacts
from freshet.stream.fold.verdicts import DeadLetter, Verdicts
from freshet.stream.schemas import CHANNEL_OF_CLICK, CHANNELS
from freshet.stream.store.layout import Header, Keys

Became = Literal["applied", "duplicate", "late_dropped", "dead_letter", "skipped"]
FILE_LOAD = b"try"
MAX_SHOWN_RECORDS = 200
"""So many records are looked into for the paths that they have."""

_KINDS = {CHANNELS.index(channel): kind for kind, channel in CHANNEL_OF_CLICK.items()}


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as it lies on a topic; `place` names it for people."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp_ms: int = 0
    partition: int = 0
    place: str = ""


@dataclass(frozen=True, slots=True)
class TriedLine:
    """One line of an event: `quantity` and `unit_price` of an order, `kind` of a click."""

    item_id: str
    quantity: float | None = None
    unit_price: float | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """What a record becomes.

    Attributes:
        place: The record's own.
        became: Under which name it stands in the books.
        event_id: The event's, or the order's where records are states; None where it has none.
        time_ms: When it happened; where records are states, when the order changed.
        lines: What it adds, or what the order is.
        created_ms: Where records are states: when the order was made.
        version: Where records are states: its number, and whether it gives everything back.
        cancelled: See `version`.
        reason: Why it does not count.
        bad_lines: Lines that it has to do without: their place, and why.
    """

    place: str
    became: Became
    event_id: str | None = None
    time_ms: int | None = None
    lines: tuple[TriedLine, ...] = ()
    created_ms: int | None = None
    version: int | None = None
    cancelled: bool = False
    reason: str = ""
    bad_lines: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """What all records become, in their order, and the paths that none of them has.

    `records` are some of them as plain JSON.
    """

    tried: list[Tried]
    never_seen: list[NeverSeen]
    records: list[Any] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """How many became what."""
        return Counter(one.became for one in self.tried)

    def reasons(self, most: int = 3) -> list[tuple[str, int]]:
        """The commonest reasons why records or lines do not count."""
        found = Counter(f"{one.became}: {one.reason}" for one in self.tried if one.reason)
        found.update(f"dead line: {why}" for one in self.tried for _, why in one.bad_lines)
        return found.most_common(most)


def trial(
    settings: Settings,
    kind: EventKind,
    records: Sequence[RawRecord],
    *,
    old: bool = False,
    timestamp_type: str = "",
) -> Trial:
    """What would become of records.

    Args:
        settings: With the map.
        kind: Of which topic they are.
        records: In log order within each partition.
        old: Judge them as `freshet history load` would send them: never late.
        timestamp_type: The topic's message.timestamp.type; empty is as Kafka stamps.

    Raises:
        ConfigError: The map cannot be.
        SchemaRegistryAwayError: A schema is not known, and nobody answers.
    """
    by_partition: dict[int, list[int]] = {}
    for n, record in enumerate(records):
        by_partition.setdefault(record.partition, []).append(n)
    tried: dict[int, Tried] = {}
    never_seen: dict[str, list[NeverSeen]] = {}
    shown: list[Any] = []
    for places in by_partition.values() or [[]]:
        part = _Part(settings, kind, [records[n] for n in places], old, timestamp_type)
        tried |= dict(zip(places, part.tried(), strict=True))
        for one in part.never_seen():
            never_seen.setdefault(one.field, []).append(one)
        shown += part.shown[: MAX_SHOWN_RECORDS - len(shown)]
    everywhere = [found[0] for found in never_seen.values() if len(found) == len(by_partition)]
    return Trial([tried[n] for n in range(len(records))], everywhere, shown)


class _Part:
    """The records of one partition."""

    def __init__(
        self,
        settings: Settings,
        kind: EventKind,
        records: Sequence[RawRecord],
        old: bool,
        timestamp_type: str,
    ) -> None:
        self._settings = settings
        self._kind: EventKind = kind
        self._records = records
        topic = getattr(settings.kafka.topics, kind)
        facts = TopicFacts(timestamp_type=timestamp_type)
        self._windows = PartitionWindows(
            cast(Any, _NoStore()), kind, topic, 0, settings, Header(), facts
        )
        self._windows.start_at(0)
        self._values = [record.value for record in records]
        self._keys = [record.key for record in records]
        self._stamps = np.array([record.timestamp_ms for record in records], np.int64)
        self._headers = {n: one.headers for n, one in enumerate(records) if one.headers}
        decoder = FormatDecoder(kind, settings)
        self._json, keys = decoder.as_json(self._values, self._keys, self._headers)
        self._ids = decoder.decoder.ids(self._json, keys, self._stamps, self._headers)
        found = (record_of(value) for value in self._json[:MAX_SHOWN_RECORDS])
        self.shown = [record for record in found if record is not None]
        self._old = old

    def tried(self) -> list[Tried]:
        """What each becomes."""
        decoded = self._windows.decode(self._values, self._keys, self._stamps, self._headers)
        verdicts, dead = self._windows.judge(self._batch(decoded))
        became: list[Became] = ["duplicate"] * len(self._records)
        reasons = dict.fromkeys(range(len(self._records)), "it came before")
        for mask, name, why in _STATES if decoded.states is not None else _EVENTS:
            for index in verdicts.decoded.index[getattr(verdicts, mask)].tolist():
                became[index], reasons[index] = name, why
        for skipped in verdicts.decoded.skipped:
            became[skipped.index] = "skipped"
            reasons[skipped.index] = self._why_skipped(skipped.index, skipped.reason)
        for letter in dead:
            if letter.line is None:
                became[letter.index] = "dead_letter"
                reasons[letter.index] = f"{letter.error_class}: {letter.message}"
        told = _Told(verdicts, dead)
        return [
            replace(
                told.one(n),
                place=record.place,
                became=became[n],
                event_id=self._ids[n],
                reason=reasons[n],
            )
            for n, record in enumerate(self._records)
        ]

    def never_seen(self) -> list[NeverSeen]:
        """Paths that none of them has, those that are unreadable or not ours left out."""
        return self._windows.unseen(self.shown)

    def _batch(self, decoded: Decoded) -> DecodedBatch:
        names = ((n, redrive_name(own)) for n, own in self._headers.items())
        marks = ((n, history_mark(own, self._values[n])) for n, own in self._headers.items())
        history = {n: mark for n, mark in marks if mark is not None}
        if self._old:
            history = {n: b"%s:%d" % (FILE_LOAD, n) for n in range(len(self._records))}
        return DecodedBatch(
            decoded=decoded,
            timestamps_ms=self._stamps,
            first_offset=0,
            next_offset=len(self._records),
            redrives={n: name for n, name in names if name is not None},
            history=history,
        )

    def _why_skipped(self, n: int, reason: str) -> str:
        """With the condition that skipped it, where one alone did."""
        section = self._settings.events.section(self._kind)
        said = {"skip_when": section.skip_when, "keep_when": section.keep_when}.get(reason)
        if not isinstance(said, dict):
            return reason if said is None else f"{reason}: {said}"
        record = record_of(self._json[n])
        for path, values in said.items():
            found = dig(record, steps_of(path, reason))
            if wanted(values)(found) == (reason == "skip_when"):
                return f"{reason}: {path} is {_short(found)}"
        return reason


_LATE: tuple[str, Became, str] = ("too_late", "late_dropped", "it came too late after the others")
_EVENTS: tuple[tuple[str, Became, str], ...] = (
    ("applied", "applied", ""),
    ("duplicate", "duplicate", "an event of this id came before"),
    ("conflicting", "duplicate", "an event of this id came before, and said otherwise"),
    _LATE,
)
_STATES: tuple[tuple[str, Became, str], ...] = (
    ("applied", "applied", ""),
    ("duplicate", "duplicate", "a version of this order that is not older came before"),
    ("conflicting", "duplicate", "this version came before, and said otherwise"),
    _LATE,
)


class _Told:
    """What good records say, by their place."""

    def __init__(self, verdicts: Verdicts, dead: Iterable[DeadLetter]) -> None:
        self._decoded = verdicts.decoded
        self._position = {n: at for at, n in enumerate(verdicts.decoded.index.tolist())}
        starts = np.searchsorted(self._decoded.line_record, np.arange(len(self._position) + 1))
        self._starts = starts.tolist()
        self._bad: dict[int, list[tuple[int, str]]] = {}
        for letter in dead:
            if letter.line is not None:
                why = f"{letter.error_class}: {letter.message}"
                self._bad.setdefault(letter.index, []).append((letter.line, why))

    def one(self, n: int) -> Tried:
        """Of the record at a place."""
        at = self._position.get(n)
        if at is None:
            return Tried("", "dead_letter")
        decoded = self._decoded
        lines = map(self._line, range(self._starts[at], self._starts[at + 1]))
        found = Tried("", "applied", time_ms=int(decoded.event_time_ms[at]), lines=tuple(lines))
        found = replace(found, bad_lines=tuple(self._bad.get(n, ())))
        if decoded.states is None:
            return found
        states = decoded.states
        return replace(
            found,
            created_ms=int(states.created_ms[at]),
            version=int(states.version[at]),
            cancelled=bool(states.cancelled[at]),
        )

    def _line(self, line: int) -> TriedLine:
        decoded = self._decoded
        item_id = decoded.item_of(line)
        if len(decoded.channel):
            return TriedLine(item_id, kind=_KINDS[int(decoded.channel[line])])
        return TriedLine(item_id, float(decoded.quantity[line]), float(decoded.unit_price[line]))


class _NoStore:
    """A store in which nothing is."""

    def keys(self, topic: str, partition: int) -> Keys:
        return Keys(0, topic, partition)

    def dictionary(self, topic: str, partition: int, items: int) -> list[str]:
        return []

    def redriven(self, topic: str, partition: int, names: Sequence[bytes]) -> set[bytes]:
        return set()

    def loaded(self, topic: str, partition: int, loads: Sequence[bytes]) -> Mapping[bytes, int]:
        return {}

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return [None] * len(keys)

    def read_fields(self, asked: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        return [[None] * len(fields) for _, fields in asked]


def _short(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]
