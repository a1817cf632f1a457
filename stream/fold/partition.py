"""One partition's windows, as ingest drives them: claim, fold a batch, apply it, and again.

Nothing here is durable but what `apply` and `declare_idle` write. So a crash anywhere, and a Redis
that came back older, are the same case: claim again, seek to `header.next_offset`, fold the same
records into the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.config import UTC, Settings
from freshet.stream.errors import StoreError, StoreUnavailableError
from freshet.stream.events.decoder import Decoded, EventDecoder, EventKind
from freshet.stream.failpoints import failpoint
from freshet.stream.fold.additions import Additions, click_additions, order_additions
from freshet.stream.fold.verdicts import DeadLetter, ItemDictionary, Verdicts, dead_letters, judge
from freshet.stream.fold.watermark import NEVER_MS, TimeRules
from freshet.stream.fold.writes import ChangedTiles, MinuteLog, TileFolder
from freshet.stream.store.layout import Answer, Header, Update
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import MINUTE_MS

__all__ = [
    "Answer",
    "Counts",
    "DeadLetter",
    "EventKind",
    "Fold",
    "PartitionWindows",
    "RawBatch",
    "fingerprint",
]

FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Records of one partition in log order; `next_offset` is where the next batch begins.

    `redrives` are the redrive headers of the records that have one, by their place in the batch.
    """

    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    timestamps_ms: Ints
    offsets: Ints
    next_offset: int
    redrives: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """Records of one partition in log order, decoded; the others of `RawBatch` as they are
    there.
    """

    decoded: Decoded
    timestamps_ms: Ints
    first_offset: int
    next_offset: int
    redrives: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a batch's records; they add up: read = applied + duplicate + late_dropped +
    dead_letter.
    """

    read: int
    applied: int
    duplicate: int
    late_dropped: int
    dead_letter: int


@dataclass(frozen=True, slots=True)
class Fold:
    """A batch judged and added up, not yet written.

    `dead` and `too_late` name records by their place in the batch; publish them before `apply`.
    `touched_item_ids` are the items of all applied lines; `changed` and `header` are for `apply`.
    """

    update: Update
    dead: list[DeadLetter]
    too_late: list[int]
    touched_item_ids: list[str]
    counts: Counts
    next_offset: int
    frontier_ms: int | None
    header: Header
    changed: ChangedTiles


def fingerprint(kind: EventKind, settings: Settings) -> str:
    """The settings that decide what tiles hold, as canonical JSON; `windows.idle_ms` decides
    nothing.
    """
    windows = settings.windows.model_dump(mode="json", exclude={"idle_ms"})
    fields = settings.events.orders_fields if kind == "orders" else settings.events.clicks_fields
    parts: dict[str, Any] = {f"windows.{name}": value for name, value in windows.items()}
    parts |= {"format": FORMAT, "kind": kind, "events.series_by": list(settings.events.series_by)}
    parts[f"events.{kind}_fields"] = dict(fields)
    if settings.events.time_unit != "ms":
        parts["events.time_unit"] = settings.events.time_unit
    if settings.calendar.time_zone != UTC:
        parts["calendar.time_zone"] = settings.calendar.time_zone
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


class PartitionWindows:
    """The one writer of a partition's windows. Not thread-safe; each fold must be applied before
    the next.
    """

    def __init__(
        self,
        store: WindowStore,
        kind: EventKind,
        topic: str,
        partition: int,
        settings: Settings,
        header: Header,
    ) -> None:
        windows = settings.windows
        keys = store.keys(topic, partition)
        self.kind: EventKind = kind
        self.topic = topic
        self.partition = partition
        self.header = header
        self._store = store
        self._decoder = EventDecoder(kind, settings.events, settings.kafka.max_record_bytes)
        self._rules = TimeRules(
            windows.out_of_order_ms, windows.allowed_lateness_ms, windows.max_future_ms
        )
        self._tiles = TileFolder(
            store.read,
            keys,
            windows.resolutions,
            settings.ingest.max_cached_tiles,
            settings.calendar.time_zone,
        )
        self._minutes = MinuteLog(store.read, keys, windows.allowed_lateness_ms)
        self._max_items = windows.max_items_per_partition
        self._dictionary: ItemDictionary | None = None
        self._stale = False

    @classmethod
    def claim(
        cls,
        store: WindowStore,
        kind: EventKind,
        topic: str,
        partition: int,
        settings: Settings,
        *,
        topic_id: str = "",
    ) -> PartitionWindows:
        """Own a partition: its epoch rises, all earlier owners are fenced. Reads the header and
        nothing else.

        Seek to `header.next_offset`; where that is None, call `start_at` with the log's first
        offset.

        Raises:
            FingerprintError: The stored windows were folded under other settings; nothing was
                changed.
            LogLostError: They were folded from a topic with another id (empty is unknown); nothing
                was changed.
        """
        header = store.claim(topic, partition, fingerprint(kind, settings), topic_id)
        return cls(store, kind, topic, partition, settings, header)

    def start_at(self, log_start_offset: int) -> None:
        """Begin a partition that has no windows yet; nothing is written before the first apply."""
        assert self.header.next_offset is None, (
            f"{self.topic}:{self.partition} continues at {self.header.next_offset}"
        )
        self.header = replace(self.header, first_offset=log_start_offset)

    @property
    def next_offset(self) -> int:
        """Where the next batch begins."""
        offset = (
            self.header.first_offset if self.header.next_offset is None else self.header.next_offset
        )
        assert offset is not None, "start_at comes before the first fold"
        return offset

    @property
    def frontier_ms(self) -> int | None:
        """The largest event time so far, future events left out; None before the first."""
        return self.header.frontier_ms

    def decode(self, values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> Decoded:
        """The next records of the log as columns; parts that follow each other may be put together
        and folded once.
        """
        return self._decoder.decode(values, keys)

    def fold(self, batch: RawBatch) -> Fold:
        """Decode a batch and fold it as `fold_decoded` does."""
        decoded = self.decode(batch.values, batch.keys)
        first_offset = int(batch.offsets[0]) if len(batch.offsets) else self.next_offset
        return self.fold_decoded(
            DecodedBatch(
                decoded, batch.timestamps_ms, first_offset, batch.next_offset, batch.redrives
            )
        )

    def fold_decoded(self, batch: DecodedBatch) -> Fold:
        """Judge and add up a batch; reads Redis where it must, writes nothing, and changes nothing
        until `apply`.

        A bad record never fails its batch: it is in `dead`.

        Raises:
            StoreUnavailableError: Redis did not answer; fold again.
            StoreError: The stored windows are damaged.
        """
        assert batch.next_offset >= self.next_offset, "the batch ends before the windows"
        assert batch.first_offset >= self.next_offset, "the batch begins before the windows"
        dictionary, decoded = self._load(), batch.decoded
        names = list(map(batch.redrives.get, decoded.index.tolist())) if batch.redrives else []
        asked = [name for name in names if name is not None]
        judged = judge(
            decoded,
            batch.timestamps_ms[decoded.index],
            self.header.frontier_ms,
            rules=self._rules,
            seen=self._minutes.seen,
            dictionary=dictionary,
            redrives=names if asked else (),
            known_redrives=self._store.redriven(self.topic, self.partition, asked),
        )
        dead = dead_letters(
            decoded, judged, batch.timestamps_ms, max_future_ms=self._rules.max_future_ms
        )
        counts = Counts(
            read=decoded.num_records,
            applied=int(judged.applied.sum()),
            duplicate=int(judged.duplicate.sum()),
            late_dropped=int(judged.times.too_late.sum()),
            dead_letter=len(dead),
        )
        header = self._header_after(batch.next_offset, counts, judged, decoded)
        update, changed = self._update(decoded, judged, header)
        return Fold(
            update=update,
            dead=dead,
            too_late=decoded.index[judged.times.too_late].tolist(),
            touched_item_ids=_touched(decoded, judged, dictionary),
            counts=counts,
            next_offset=batch.next_offset,
            frontier_ms=header.frontier_ms,
            header=header,
            changed=changed,
        )

    def apply(self, fold: Fold) -> Answer:
        """Write a fold, whole or not at all, and move on when it is in.

        APPLIED, ALREADY: it is in. GAP: Redis is older than this object; claim again and seek.
        FENCED: another owner has the partition; drop it until it is reassigned. After GAP and
        FENCED this object must not be used.

        Raises:
            StoreUnavailableError: No answer; apply the same fold again, or claim again.
        """
        failpoint("before_apply")
        answer = self._why_stale() if self._stale else self._store.apply(fold.update)
        failpoint("after_apply")
        if answer in (Answer.APPLIED, Answer.ALREADY):
            self._remember(fold)
        return answer

    def declare_idle(self, idle_frontier_ms: int) -> Answer:
        """Say that the partition has nothing more to read as of this clock time; the offset stays.

        GAP and FENCED mean what they mean for `apply`.
        """
        answer = self._store.declare_idle(self.topic, self.partition, self.header, idle_frontier_ms)
        if answer is Answer.APPLIED:
            before = self.header.idle_frontier_ms
            idle_ms = idle_frontier_ms if before is None else max(before, idle_frontier_ms)
            self.header = replace(self.header, idle_frontier_ms=idle_ms)
        return answer

    def _load(self) -> ItemDictionary:
        """Dictionary and live dedupe minutes, once, at the first fold after a claim."""
        if self._dictionary is not None:
            return self._dictionary
        try:
            item_ids = self._store.dictionary(self.topic, self.partition, self.header.items)
        except StoreUnavailableError:
            raise
        except StoreError:
            if not self._moved():
                raise
            # Redis changed since the claim. The fold goes on, and `apply` will say so instead of
            # writing it.
            self._stale, item_ids = True, []
        first_ms, newest_ms = self.header.first_event_ms, self.header.newest_ms
        if first_ms is not None and newest_ms is not None:
            frontier_ms = NEVER_MS if self.header.frontier_ms is None else self.header.frontier_ms
            self._minutes.load(first_ms, newest_ms, frontier_ms - self._rules.out_of_order_ms)
        self._dictionary = ItemDictionary(self._max_items, item_ids)
        return self._dictionary

    def _moved(self) -> bool:
        """Whether the stored header is no longer the claimed one."""
        stored = self._store.header(self.topic, self.partition) or Header()
        mine = self.header
        return (stored.epoch, stored.owner, stored.next_offset) != (
            mine.epoch,
            mine.owner,
            mine.next_offset,
        )

    def _why_stale(self) -> Answer:
        stored = self._store.header(self.topic, self.partition) or Header()
        newer = stored.epoch > self.header.epoch
        other = stored.epoch == self.header.epoch and stored.owner != self.header.owner
        return Answer.FENCED if newer or other else Answer.GAP

    def _update(
        self, decoded: Decoded, judged: Verdicts, header: Header
    ) -> tuple[Update, ChangedTiles]:
        """The batch's absolute writes, and the tiles to remember once they are in."""
        newest_ms = NEVER_MS if self.header.newest_ms is None else self.header.newest_ms
        watermark_ms = judged.times.frontier_ms - self._rules.out_of_order_ms
        additions = self._additions(decoded, judged)
        writes, changed = self._tiles.fold(
            additions, newest_ms=newest_ms, watermark_ms=watermark_ms
        )
        minutes = decoded.event_time_ms[judged.applied] // MINUTE_MS
        update = Update(
            topic=self.topic,
            partition=self.partition,
            epoch=header.epoch,
            owner=header.owner,
            expected_offset=self.next_offset,
            next_offset=self.next_offset if header.next_offset is None else header.next_offset,
            watermark_ms=None if header.frontier_ms is None else watermark_ms,
            header=header.written_fields(),
            items_before=self.header.items,
            new_items=judged.new_items,
            redrives=judged.new_redrives,
            minutes=self._minutes.appends(
                decoded.event_hash[judged.applied], minutes, watermark_ms
            ),
            tiles=writes,
        )
        return update, changed

    def _additions(self, decoded: Decoded, judged: Verdicts) -> Additions:
        lines = judged.applied[decoded.line_record]
        slot, time_ms = judged.line_slot[lines], decoded.event_time_ms[decoded.line_record[lines]]
        if self.kind == "orders":
            return order_additions(
                slot, time_ms, decoded.quantity[lines], decoded.unit_price[lines]
            )
        return click_additions(slot, time_ms, decoded.channel[lines])

    def _header_after(
        self, next_offset: int, counts: Counts, judged: Verdicts, decoded: Decoded
    ) -> Header:
        before = self.header
        event_ms = decoded.event_time_ms[judged.applied]
        seen = [at for at in (before.first_event_ms, before.last_event_ms) if at is not None]
        if len(event_ms):
            seen += (int(event_ms.min()), int(event_ms.max()))
        return replace(
            before,
            first_offset=self.next_offset if before.first_offset is None else before.first_offset,
            next_offset=next_offset,
            frontier_ms=None if judged.times.frontier_ms == NEVER_MS else judged.times.frontier_ms,
            origin_ms=judged.times.first_ms if before.origin_ms is None else before.origin_ms,
            first_event_ms=min(seen, default=None),
            last_event_ms=max(seen, default=None),
            read=before.read + counts.read,
            applied=before.applied + counts.applied,
            duplicate=before.duplicate + counts.duplicate,
            late_dropped=before.late_dropped + counts.late_dropped,
            dead_letter=before.dead_letter + counts.dead_letter,
            items=before.items + len(judged.new_items),
        )

    def _remember(self, fold: Fold) -> None:
        # What others wrote to the header meanwhile can only be our own idle frontier.
        self.header = replace(fold.header, idle_frontier_ms=self.header.idle_frontier_ms)
        self._load().extend(fold.update.new_items)
        self._tiles.remember(fold.changed)
        watermark_ms = fold.update.watermark_ms
        self._minutes.remember(
            fold.update.minutes, NEVER_MS if watermark_ms is None else watermark_ms
        )


def _touched(decoded: Decoded, judged: Verdicts, dictionary: ItemDictionary) -> list[str]:
    known = len(dictionary)
    touched = np.zeros(known + len(judged.new_items), np.bool_)
    touched[judged.line_slot[judged.applied[decoded.line_record]]] = True
    slots = np.flatnonzero(touched).tolist()
    return [
        dictionary.item_ids[slot] if slot < known else judged.new_items[slot - known]
        for slot in slots
    ]
