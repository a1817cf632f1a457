"""Events written through the real fold into a real Redis, beside a dictionary of what was sold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import redis

from freshet.stream.config import Resolution, Settings, WindowSettings
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import DAY_MS, HOUR_MS

START_MS = 480_000 * HOUR_MS
ORDERS, CLICKS = "freshet.orders.v1", "freshet.clicks.v1"
RETAINED = 48
SLACK_MS = 5_000
UNITS, VIEWS = CHANNELS.index("units"), CHANNELS.index("views")
SETTINGS = Settings(
    windows=WindowSettings(
        resolutions=(Resolution(resolution_ms=HOUR_MS, buckets=RETAINED),),
        out_of_order_ms=SLACK_MS,
        allowed_lateness_ms=7 * DAY_MS,
    )
)
RULES = ReadRules.of(SETTINGS, HOUR_MS)


@dataclass
class World:
    """Writes events through the real fold, and keeps a dictionary of what must then be read.

    Attributes:
        truth: Sums by item, channel and bucket.
        frontiers: How far each partition has come; redriven events leave it alone.
        first_ms: The first event of each partition.
        newest_ms: The newest event of any, redriven ones too.
        origin_ms: The first event of each topic that was not redriven.
    """

    client: redis.Redis
    truth: dict[tuple[str, int, int], int] = field(default_factory=lambda: defaultdict(int))
    frontiers: dict[tuple[str, int], int] = field(default_factory=dict)
    first_ms: dict[tuple[str, int], int] = field(default_factory=dict)
    newest_ms: int = 0
    origin_ms: dict[str, int] = field(default_factory=dict)
    event_ids: Iterator[int] = field(default_factory=count)
    writers: dict[tuple[str, int], PartitionWindows] = field(default_factory=dict)
    whole_from_ms: int = 0

    def writer(self, topic: str, partition: int) -> PartitionWindows:
        at = (topic, partition)
        if at not in self.writers:
            kind = "orders" if topic == ORDERS else "clicks"
            store = WindowStore(self.client, 0)
            self.writers[at] = PartitionWindows.claim(store, kind, topic, partition, SETTINGS)  # type: ignore[arg-type]
            if self.writers[at].header.next_offset is None:
                self.writers[at].start_at(0)
        return self.writers[at]

    def write(
        self, topic: str, partition: int, events: list[tuple[str, int]], *, redriven: bool = False
    ) -> None:
        """One batch of (item, event time): each an order of two units, or a view."""
        writer = self.writer(topic, partition)
        first = writer.next_offset
        values = [self._event(topic, item, time_ms) for item, time_ms in events]
        offsets = np.arange(first, first + len(values), dtype=np.int64)
        times = np.array([time_ms for _, time_ms in events], dtype=np.int64)
        headers = {n: b"r%d" % next(self.event_ids) for n in range(len(values)) if redriven}
        batch = RawBatch(values, [None] * len(values), times, offsets, first + len(values), headers)
        assert writer.apply(writer.fold(batch)) is Answer.APPLIED
        for item, time_ms in events:
            self._note(topic, partition, item, time_ms, redriven=redriven)

    def _note(self, topic: str, partition: int, item: str, time_ms: int, *, redriven: bool) -> None:
        """What an event that was written must change."""
        at = (topic, partition)
        if not redriven:
            watermark_ms = self.frontiers.get(at, 0) - SLACK_MS
            if time_ms + SETTINGS.windows.allowed_lateness_ms < watermark_ms:
                return
            self.frontiers[at] = max(self.frontiers.get(at, 0), time_ms)
            self.origin_ms.setdefault(topic, time_ms)
        self.first_ms[at] = min(self.first_ms.get(at, time_ms), time_ms)
        self.newest_ms = max(self.newest_ms, time_ms)
        channel, amount = (UNITS, 2_000) if topic == ORDERS else (VIEWS, 1)
        self.truth[f"{item}|-", channel, time_ms // HOUR_MS] += amount

    def _event(self, topic: str, item: str, time_ms: int) -> bytes:
        event: dict[str, Any] = {
            "event_id": str(next(self.event_ids)),
            "event_time": time_ms,
            "sku": item,
            "region": "-",
        }
        what = {"quantity": 2, "unit_price": 1} if topic == ORDERS else {"kind": "view"}
        return json.dumps(event | what).encode()

    def check(self, reader: WindowReader, num_buckets: int = 24) -> None:
        """The right cells are observed, and each of them is what the dictionary says."""
        end = self.newest_ms // HOUR_MS + 2
        view = reader.window(end * HOUR_MS, num_buckets)
        assert view.start_ms == (end - num_buckets) * HOUR_MS
        assert view.values_ICB.shape == (reader.num_items, 8, num_buckets)
        assert view.observed_ICB.shape == view.values_ICB.shape
        for channel, topic in ((UNITS, ORDERS), (VIEWS, CLICKS)):
            for step in range(num_buckets):
                bucket = end - num_buckets + step
                known = self._known(reader, topic, bucket)
                observed_I = view.observed_ICB[:, channel, step]
                assert (observed_I == known).all(), (topic, bucket - end)
                for row, item_id in enumerate(reader.item_ids):
                    expected = self.truth.get((item_id, channel, bucket), 0) if known else 0
                    found = view.values_ICB[row, channel, step]
                    assert found == expected, (item_id, topic, bucket - end)

    def _known(self, reader: WindowReader, topic: str, bucket: int) -> bool:
        """Whether a reader knows a bucket, by the rules once more."""
        fronts = {at: front for at, front in self.frontiers.items() if at[0] == topic}
        if not fronts:
            return False
        return (
            (bucket + 1) * HOUR_MS <= min(fronts.values())
            and bucket * HOUR_MS >= self.origin_ms[topic]
            and bucket > max(self.frontiers.values()) // HOUR_MS - reader.num_buckets
            and (bucket + 1 + RETAINED) * HOUR_MS > max(fronts.values()) - SLACK_MS
            and (topic == CLICKS or bucket * HOUR_MS >= self.whole_from_ms)
        )


def reader_of(
    client: redis.Redis, num_buckets: int = 24, owns: Callable[[str], bool] | None = None
) -> WindowReader:
    return WindowReader(client, 0, HOUR_MS, num_buckets, owns=owns, rules=RULES)


def at(hours: float) -> int:
    return START_MS + round(hours * HOUR_MS)
