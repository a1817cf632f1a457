"""Windows counted a second time, slowly and plainly: dictionaries, one record at a time.

It is written from the rules, not from the code that folds: it shares no code with
`stream/codec.py`, `stream/events/` or `stream/fold/`, and reads JSON with the standard library.
Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import xxhash

from freshet.stream.config import Settings
from freshet.stream.units import DAY_MS, MINUTE_MS
from freshet.stream.verify.event import (
    BadRecordError,
    Event,
    Kind,
    Line,
    SkippedRecordError,
    read_event,
)
from freshet.stream.verify.frontier import Frontier
from freshet.stream.verify.history import Loads, Settled
from freshet.stream.verify.map import Headers
from freshet.stream.verify.orders import Orders, OrderVersion

Verdict = Literal["applied", "duplicate", "late_dropped", "dead_letter", "skipped"]

CLEAN_UP_EVERY = 50_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Cell = tuple[int, str, str]
"""Bucket, item_id, channel."""


@dataclass(slots=True)
class Recount:
    """One partition, counted from its log."""

    kind: Kind
    settings: Settings
    timestamp_type: str = ""
    books: Counter[str] = field(default_factory=Counter)
    frontier: Frontier = field(init=False)
    loads: Loads = field(default_factory=Loads)
    origin_ms: int | None = None
    first_event_ms: int | None = None
    last_event_ms: int | None = None
    item_ids: dict[str, None] = field(default_factory=dict)
    orders: Orders = field(init=False)
    _redrives: set[bytes] = field(default_factory=set)
    _applied: dict[int, tuple[int, int]] = field(default_factory=dict)
    _sums: dict[int, dict[int, dict[tuple[str, str], int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        windows = self.settings.windows
        by_producers = self.timestamp_type == "CreateTime" and windows.frontier_rank > 1
        self.frontier = Frontier(windows, by_producers)
        self.orders = Orders(self.settings.events.orders.keep_ms)
        if windows.history_before is not None:
            self.frontier.begin(windows.history_before)
            self.origin_ms = windows.history_before

    @property
    def frontier_ms(self) -> int | None:
        """How far the log has come; None before any event counted for it."""
        return self.frontier.time_ms

    def take(
        self,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        redrive: bytes | None = None,
        history: bytes | None = None,
        headers: Headers = (),
    ) -> Verdict:
        """Judge and count the next record of the log.

        `redrive` is its header `freshet-redrive`, `history` its header `freshet-history`;
        `headers` are all that it has.
        """
        said = None
        if history is not None:
            headers = headers or [("freshet-history", history)]
            said = self.loads.take(history, redriven=redrive is not None)
        if said == "duplicate":
            verdict: Verdict = "duplicate"
        else:
            verdict = self._read(key, value, timestamp_ms, redrive, said, headers)
        self.books["read"] += 1
        self.books[verdict] += 1
        if self.books["read"] % CLEAN_UP_EVERY == 0:
            self._clean_up()
        return verdict

    def cells(self, resolution_ms: int) -> dict[Cell, int]:
        """Every cell that is not 0, of the buckets that are still retained."""
        oldest = self.oldest_bucket(resolution_ms)
        sums = self._sums.get(resolution_ms, {})
        return {
            (bucket, item_id, channel): amount
            for bucket, amounts in sums.items()
            if oldest is None or bucket >= oldest
            for (item_id, channel), amount in amounts.items()
        }

    def oldest_bucket(self, resolution_ms: int) -> int | None:
        """The first bucket whose end + n x resolution is after the watermark.

        None before the first event.
        """
        watermark_ms = self._watermark_ms
        if watermark_ms is None:
            return None
        kept = {width.resolution_ms: width.buckets for width in self.settings.windows.resolutions}
        count = kept[resolution_ms]
        bucket = watermark_ms // resolution_ms - count - 4
        while self._end_ms(bucket, resolution_ms) + count * resolution_ms <= watermark_ms:
            bucket += 1
        return bucket

    @property
    def _watermark_ms(self) -> int | None:
        if self.frontier_ms is None:
            return None
        return self.frontier_ms - self.settings.windows.out_of_order_ms

    def _read(
        self,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        redrive: bytes | None,
        history: Settled | None,
        headers: Headers,
    ) -> Verdict:
        try:
            event = read_event(self.kind, key, value, self.settings, timestamp_ms, headers)
        except SkippedRecordError:
            self.loads.complete |= history == "complete" and value == b""
            return "skipped"
        except BadRecordError:
            return "dead_letter"
        return self._judge(event, timestamp_ms, redrive, history)

    def _judge(
        self, event: Event, timestamp_ms: int, redrive: bytes | None, history: Settled | None
    ) -> Verdict:
        watermark_ms = self._watermark_ms  # As it stood before this record.
        if history in ("malformed", "complete"):
            return "dead_letter"
        patient = redrive is not None or history is not None
        if history is None and self._from_the_future(event, timestamp_ms, patient=patient):
            return "dead_letter"
        if not patient and self._too_late(event, watermark_ms):
            return "late_dropped"
        if event.version is not None:
            told_late = history is not None
            return self._judge_version(event, event.version, watermark_ms, patient=told_late)
        if redrive is not None:
            if redrive in self._redrives:
                return "duplicate"
            self._redrives.add(redrive)
        name = xxhash.xxh3_64_intdigest(event.event_id.encode())
        known = self._applied.get(name)
        if known is not None and self._counts_still(known[0], watermark_ms):
            if known[1] != hash(event.content):
                self.books["conflicting"] += 1
            return "duplicate"
        if not self._give_slots(line.item_id for line in event.lines):
            return "dead_letter"
        minute = event.event_time_ms // MINUTE_MS
        if known is None or minute >= known[0]:
            self._applied[name] = (minute, hash(event.content))
        self._apply(event, watermark_ms)
        if event.bad_lines:
            self.books["lines_dead"] += len(event.bad_lines)
        return "applied"

    def _judge_version(
        self,
        event: Event,
        version: OrderVersion,
        watermark_ms: int | None,
        *,
        patient: bool,
    ) -> Verdict:
        """A record that says what an order is: whether it is newer, and what it then changes."""
        outcome = self.orders.judge(version, watermark_ms, patient=patient)
        if outcome == "forgotten":
            return "late_dropped"
        if outcome != "new":
            self.books["conflicting"] += outcome == "conflicting"
            return "duplicate"
        if not self._give_slots(version.items):
            return "dead_letter"
        # The rule of exports: what history tells of an order first happened when it was made.
        first_told = patient and not self.orders.knows(version, watermark_ms)
        at_ms = version.created_ms if first_told else event.event_time_ms
        amounts = self.orders.change(version, watermark_ms, patient=patient)
        lines = [Line(item_id, added) for item_id, added in amounts.items()]
        self._apply(replace(event, event_time_ms=at_ms, lines=lines), watermark_ms)
        return "applied"

    def _from_the_future(self, event: Event, timestamp_ms: int, *, patient: bool) -> bool:
        """Whether it is not to be believed; what may be moves the frontier, but for the patient."""
        if event.event_time_ms > timestamp_ms + self.settings.windows.max_future_ms:
            return True
        too_far = self.frontier.too_far(event.event_time_ms)
        if not patient:
            self._move_frontier(event.event_time_ms)
        return too_far

    def _too_late(self, event: Event, watermark_ms: int | None) -> bool:
        if watermark_ms is None:
            return False
        return event.event_time_ms + self.settings.windows.allowed_lateness_ms < watermark_ms

    def _give_slots(self, item_ids: Iterable[str]) -> bool:
        """Whether new items among these still find room; if so, they are in."""
        told = dict.fromkeys(item_ids)
        new_items = [item_id for item_id in told if item_id not in self.item_ids]
        num_items = len(self.item_ids) + len(new_items)
        if num_items > self.settings.windows.max_items_per_partition:
            return False
        self.item_ids.update(dict.fromkeys(new_items))
        return True

    def _move_frontier(self, event_time_ms: int) -> None:
        self.frontier.count(event_time_ms)
        self.origin_ms = self.frontier_ms if self.origin_ms is None else self.origin_ms

    def _bucket(self, time_ms: int, resolution_ms: int) -> int:
        """Days by the local date, all else by division."""
        zone = self.settings.calendar.time_zone
        if resolution_ms != DAY_MS or zone == "UTC":
            return time_ms // resolution_ms
        moment = EPOCH + timedelta(milliseconds=time_ms)
        return moment.astimezone(ZoneInfo(zone)).toordinal() - EPOCH.toordinal()

    def _end_ms(self, bucket: int, resolution_ms: int) -> int:
        zone = self.settings.calendar.time_zone
        if resolution_ms != DAY_MS or zone == "UTC":
            return (bucket + 1) * resolution_ms
        midnight = (EPOCH + timedelta(days=bucket + 1)).replace(tzinfo=ZoneInfo(zone))
        return (midnight.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)

    def _counts_still(self, minute: int, watermark_ms: int | None) -> bool:
        """Whether an applied record of that minute still makes duplicates."""
        if watermark_ms is None:
            return True
        end_ms = (minute + 1) * MINUTE_MS
        return end_ms + self.settings.windows.allowed_lateness_ms > watermark_ms

    def _apply(self, event: Event, watermark_ms: int | None) -> None:
        if self.first_event_ms is None or event.event_time_ms < self.first_event_ms:
            self.first_event_ms = event.event_time_ms
        if self.last_event_ms is None or event.event_time_ms > self.last_event_ms:
            self.last_event_ms = event.event_time_ms
        for resolution in self.settings.windows.resolutions:
            width_ms = resolution.resolution_ms
            bucket = self._bucket(event.event_time_ms, width_ms)
            leaves_ms = self._end_ms(bucket, width_ms) + resolution.buckets * width_ms
            if watermark_ms is not None and leaves_ms <= watermark_ms:
                continue
            buckets = self._sums.setdefault(width_ms, {})
            amounts = buckets.setdefault(bucket, defaultdict(int))
            for line in event.lines:
                for channel, amount in line.amounts.items():
                    amounts[line.item_id, channel] += amount

    def _clean_up(self) -> None:
        """Free what can never matter again, since the watermark never falls."""
        for resolution_ms, buckets in self._sums.items():
            oldest = self.oldest_bucket(resolution_ms)
            gone = [bucket for bucket in buckets if oldest is not None and bucket < oldest]
            for bucket in gone:
                del buckets[bucket]
        watermark_ms = self._watermark_ms
        applied = self._applied.items()
        live = {name: one for name, one in applied if self._counts_still(one[0], watermark_ms)}
        self._applied = live
