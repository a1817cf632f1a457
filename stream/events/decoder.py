"""Bytes of the two event topics to columns; no Python object of an event outlives its slice.

What becomes of a record, in the order in which it is judged; the first thing wrong makes it a dead
letter: a key of at most 256 bytes and a value (not null) of at most `max_record_bytes`, nested at
most `max_depth` deep, UTF-8 and JSON throughout; an object. Then `skip_when` and `keep_when` say
whether it is ours. Then its fields, as `events.orders` and `events.clicks` map them: `event_id`,
`event_time` (from 1970 to 9999), and every `series_by` field, an item_id of at most 256 bytes;
clicks with a known `kind`; orders either with `quantity` and `unit_price`, or with `lines`, at
least one, each with its own (and its own sku; the other `series_by` fields may stand in the order).
Clicks have lines where the map says so. A line that cannot be used leaves the others
(`bad_lines`), and one that a header names stands alone. Of a record whose header says that it has
our own fields the map is not asked.

Every check is made once for a slice of records, and record by record only where a slice fails it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np
import xxhash

from freshet.stream.arrays import Bools, Hashes, Ints
from freshet.stream.config import EventSettings
from freshet.stream.events.click_fields import ClickFields
from freshet.stream.events.columns import Decoded, concatenate, without
from freshet.stream.events.item_names import ItemNames
from freshet.stream.events.judged import Judged
from freshet.stream.events.limits import ByteLimits, LineRefusal, Refusals, Skipped
from freshet.stream.events.lone_lines import in_own_fields, lines_alone, told_complete
from freshet.stream.events.map.compiler import Compiler
from freshet.stream.events.map.conditions import conditions
from freshet.stream.events.map.levels import Envelopes, Level
from freshet.stream.events.map.missing import NeverSeen, Watch, record_of
from freshet.stream.events.map.shapes import Shape
from freshet.stream.events.map.texts import TextField
from freshet.stream.events.map.times import MISSING, TimeField
from freshet.stream.events.order_lines import Index, Lines, OrderLines
from freshet.stream.events.redrive import NO_HEADERS, Headers
from freshet.stream.events.rows import RowReader
from freshet.stream.events.state_fields import StateFields

__all__ = ["Decoded", "EventDecoder", "EventKind"]

EventKind = Literal["orders", "clicks"]
# What a slice makes stays in a core's cache until it is columns: 20,000 records at once cost each
# twice as much.
SLICE_RECORDS: Final = 2_048

_NO_FLOATS: Final = np.empty(0)
_NO_INTS: Final = np.empty(0, np.int64)


class _Slice(NamedTuple):
    """Records that are decoded together, as `decode` takes them."""

    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    timestamps_ms: Ints | None
    headers: Mapping[int, Headers]

    def cut(self, start: int, stop: int) -> _Slice:
        """Some that follow each other."""
        stamps = None if self.timestamps_ms is None else self.timestamps_ms[start:stop]
        places = range(start, stop)
        some = {n - start: self.headers[n] for n in places if n in self.headers}
        return _Slice(self.values[start:stop], self.keys[start:stop], stamps, some)


class EventDecoder:
    """Decodes and validates one kind of event; a bad record never fails its batch."""

    def __init__(
        self,
        kind: EventKind,
        events: EventSettings,
        max_record_bytes: int = 1_000_000,
        *,
        items: ItemNames | None = None,
    ) -> None:
        self._kind = kind
        self._events = events
        self._max_record_bytes = max_record_bytes
        self._own: EventDecoder | None = None
        section = events.orders if kind == "orders" else events.clicks
        self._limits = ByteLimits(events.max_depth, max_record_bytes)
        state = kind == "orders" and events.orders.mode == "state"
        self._skip_tombstones = state or section.tombstones == "skip"
        self._whole = state or (kind == "orders" and events.orders.bad_lines == "whole")
        self._items = items or ItemNames(events.series_by)
        compiler = Compiler(kind, events)
        self._compiler = compiler
        self._id: TextField = compiler.text("order_id" if state else "event_id")
        self._time: TimeField = compiler.time("event_time")
        self._states = StateFields(compiler) if state else None
        setting = f"events.{kind}"
        self._skip_when = conditions(section.skip_when, compiler.slots, f"{setting}.skip_when")
        self._keep_when = conditions(section.keep_when, compiler.slots, f"{setting}.keep_when")
        self._lines: OrderLines | None = None
        self._clicks: ClickFields | None = None
        if kind == "orders":
            self._lines = OrderLines(kind, compiler, events, self._items)
            self._shape: Shape = self._lines.shape
        else:
            self._clicks = ClickFields(compiler, events, self._items)
            self._lines = self._clicks.lines
            self._shape = self._clicks.shape
        self._rows = RowReader(self._shape)
        self._watch = Watch(compiler)

    def never_seen(self) -> Iterator[NeverSeen]:
        """Paths that no record has had although enough came, each told once."""
        yield from self._watch.told()
        if self._lines is not None:
            yield from self._lines.watch.told()

    def unseen(self, records: Sequence[Any]) -> list[NeverSeen]:
        """Paths that no record has had so far, the nearest by some of them as plain JSON."""
        found = self._watch.unseen(records)
        if self._lines is not None:
            found += self._lines.watch.unseen(self._lines.some_lines(records))
        return found

    def ids(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        timestamps_ms: Ints,
        headers: Mapping[int, Headers] = NO_HEADERS,
    ) -> list[str | None]:
        """The id of each record, an order's where records are states; None where it has none."""
        own = {n: said for n, said in headers.items() if in_own_fields(said)}
        if own:
            rest = {n: said for n, said in headers.items() if n not in own}
            by_map = self.ids(values, keys, timestamps_ms, rest)
            by_own = self._own_decoder().ids(values, keys, timestamps_ms)
            return [by_own[n] if n in own else text for n, text in enumerate(by_map)]
        found: list[str | None] = [None] * len(values)
        nothing = {n: "" for n, value in enumerate(values) if value is None}
        index, rows = self._rows.read(values, Refusals(), nothing)
        envelopes = Envelopes(index.tolist(), keys, timestamps_ms, headers)
        texts = self._id.read(Level(rows, self._shape, envelopes)).values
        for n, text in zip(index.tolist(), texts, strict=True):
            found[n] = text
        return found

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        timestamps_ms: Ints | None = None,
        headers: Mapping[int, Headers] = NO_HEADERS,
    ) -> Decoded:
        """Columns of the good records; pure but for a bounded cache of item ids.

        Args:
            values: Of each record.
            keys: Of each record.
            timestamps_ms: Of each record, Kafka's; for maps that ask for them, and states.
            headers: Those of the records that have any, by their place.
        """
        self._items.forget_when_full()
        parts: list[Decoded] = []
        for start in range(0, max(len(values), 1), SLICE_RECORDS):
            own = slice(start, start + SLICE_RECORDS)
            stamps = None if timestamps_ms is None else timestamps_ms[own]
            places = range(start, start + SLICE_RECORDS)
            some = {n - start: headers[n] for n in places if n in headers} if headers else headers
            part = _Slice(values[own], keys[own], stamps, some)
            if some and any(map(in_own_fields, some.values())):
                parts += self._by_map_and_own(part)
            else:
                parts.append(self._decode_slice(*part))
        return concatenate(parts)

    def _by_map_and_own(self, part: _Slice) -> Iterator[Decoded]:
        """A slice some of whose records have our own fields: run by run."""
        by_own_fields = self._own_decoder()
        own = [in_own_fields(part.headers.get(n, ())) for n in range(len(part.values))]
        start = 0
        for by_own, run in groupby(own):
            stop = start + sum(1 for _ in run)
            decoder = by_own_fields if by_own else self
            yield decoder._decode_slice(*part.cut(start, stop))
            start = stop

    def _own_decoder(self) -> EventDecoder:
        if self._own is None:
            events = self._events.in_own_fields()
            size = self._max_record_bytes
            self._own = EventDecoder(self._kind, events, size, items=self._items)
        return self._own

    def _decode_slice(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        timestamps_ms: Ints | None,
        headers: Mapping[int, Headers],
    ) -> Decoded:
        refused = Refusals()
        complete = (n for n, own in headers.items() if told_complete(values[n], own))
        skipped = dict.fromkeys(complete, "history_complete")
        if self._skip_tombstones and None in values:
            skipped |= {n: "tombstone" for n, value in enumerate(values) if value is None}
        for refusal in self._limits.refusals(values, keys):
            if refusal.index not in skipped or refusal.error_class == "OversizedKey":
                refused.by_index.setdefault(refusal.index, refusal)
        skipped = {n: why for n, why in skipped.items() if n not in refused.by_index}
        index, rows = self._rows.read(values, refused, skipped)
        envelopes = Envelopes(index.tolist(), keys, timestamps_ms, headers)
        level = Level(rows, self._shape, envelopes)
        chosen = self._ours(level, index, skipped)
        if chosen is not None:
            index, level = index[chosen], level.where(chosen)
        self._watch.see(level, lambda: record_of(values[index[0]]))
        part = Judged(values, index, level, self._alone(headers, index, refused), refused)
        columns = self._columns(part)
        left_out = [Skipped(n, skipped[n]) for n in sorted(skipped)]
        columns = replace(columns, skipped=left_out) if left_out else columns
        found = refused.by_index
        return without(columns, [found[n] for n in sorted(found)]) if found else columns

    def _ours(self, level: Level, index: Index, skipped: dict[int, str]) -> Bools | None:
        """Which records are ours by what they say; None where all are."""
        if not level.size or (self._skip_when is None and self._keep_when is None):
            return None
        chosen = np.ones(level.size, np.bool_)
        if self._skip_when is not None:
            chosen &= ~np.array(self._skip_when.any(level))
            skipped |= dict.fromkeys(index[~chosen].tolist(), "skip_when")
        if self._keep_when is not None:
            left_out = chosen & ~np.array(self._keep_when.all(level))
            skipped |= dict.fromkeys(index[left_out].tolist(), "keep_when")
            chosen &= ~left_out
        return chosen

    def _alone(
        self, headers: Mapping[int, Headers], index: Index, refused: Refusals
    ) -> dict[int, int]:
        """Which records stand for one line, by their position among those judged."""
        if not headers or self._lines is None or self._states is not None:
            return {}
        only, wrong = lines_alone(headers)
        for n, why in wrong.items():
            refused.add(n, *why)
        return {n: only[place] for n, place in enumerate(index.tolist()) if place in only}

    def _columns(self, part: Judged) -> Decoded:
        """Columns of the records of a slice; those of a refused one mean nothing."""
        # The first thing wrong stands, so the order of these checks is part of what is promised.
        columns = Decoded(
            num_records=len(part.values),
            index=part.index,
            event_hash=self._hashes(part),
            event_time_ms=self._times(part),
            line_record=np.arange(len(part.index)),
            line_name=_NO_INTS,
            quantity=_NO_FLOATS,
            unit_price=_NO_FLOATS,
            channel=_NO_INTS,
            refusals=[],
            item_ids=self._items.item_ids,
        )
        if self._clicks is not None:
            columns = self._clicks.add_to(columns, part)
        if self._states is not None:
            columns = self._states.add_to(columns, part)
        return columns if self._lines is None else self._with_lines(columns, part, self._lines)

    def _hashes(self, part: Judged) -> Hashes:
        found = self._id.read(part.level)
        part.refuse(found.wrong)
        ids = found.values
        if found.lacking:
            part.refuse_missing(self._compiler, self._id.name, found.lacking)
            ids = ["" if text is None else text for text in ids]
        if part.only:
            ids = list(ids)
            for n, line in part.only.items():
                ids[n] = f"{ids[n]}#{line}"
        digests = b"".join(map(xxhash.xxh3_64_digest, map(str.encode, cast(Sequence[str], ids))))
        return np.frombuffer(digests, ">u8").astype(np.uint64)

    def _times(self, part: Judged) -> Ints:
        found = self._time.read(part.level)
        part.refuse(found.wrong)
        missing_places = np.flatnonzero(found.values == MISSING)
        if len(missing_places):
            part.refuse_missing(self._compiler, "event_time", missing_places.tolist())
        return found.values

    def _with_lines(self, columns: Decoded, part: Judged, reader: OrderLines) -> Decoded:
        level, index, record = part.level, part.index, None
        if columns.states is not None and columns.states.cancelled.any():
            # Nobody looks at the lines of what was given back.
            standing = ~columns.states.cancelled
            record = np.flatnonzero(standing)
            level, index = level.where(standing), index[standing]
        values = [part.values[n] for n in index.tolist()]
        lines, wrong = reader.read(level, values, part.only)
        if record is not None:
            lines = replace(lines, record=record[lines.record])
            wrong = {int(record[n]): why for n, why in wrong.items()}
        part.refuse(wrong)
        bad_lines = self._bad_lines(lines, part) if lines.wrong else []
        if lines.wrong:
            good = np.ones(len(lines.record), np.bool_)
            good[list(lines.wrong)] = False
            lines = lines.where(good)
        return replace(
            columns,
            line_record=lines.record,
            line_name=lines.name,
            quantity=lines.quantity,
            unit_price=lines.unit_price,
            channel=columns.channel[lines.record] if self._clicks else columns.channel,
            line_refusals=bad_lines,
        )

    def _bad_lines(self, lines: Lines, part: Judged) -> list[LineRefusal]:
        """The lines that records go without; a record that has no other is refused."""
        total = np.bincount(lines.record, minlength=len(part.index))
        bad = np.bincount(lines.record[sorted(lines.wrong)], minlength=len(part.index))
        found = []
        for n in sorted(lines.wrong):
            record = int(lines.record[n])
            index = int(part.index[record])
            if self._whole or bad[record] == total[record]:
                part.refused.add(index, *lines.wrong[n])
            else:
                found.append(LineRefusal(index, int(lines.number[n]), *lines.wrong[n]))
        return found
