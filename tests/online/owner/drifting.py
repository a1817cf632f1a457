"""A shop whose scores some workers write, hour after hour, to a log of four partitions.

Segment `b` sells more than forecast from an hour on, in items of all shards. Which worker has which
shard is the test's choice, and so is the order in which partitions are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from freshet.online.drift.monitor import DriftMonitor
from freshet.online.owner import process
from freshet.online.owner.watch import DriftWatch
from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import Outgoing, TableRecord, shard_of
from freshet.stream.schemas import DriftAlert, Score, ScoredStep, ShardScored
from freshet.stream.units import HOUR_MS

SETTINGS = Settings.model_validate(
    {
        "worker": {"season_length": 24, "prediction_length": 4, "score_steps": [1]},
        # A young shop, so that it takes few hours.
        "drift": {"false_alerts": 0.5, "clear_buckets": 3},
    }
)
TOPICS = SETTINGS.kafka.topics
PARTITIONS = SHARDS = 4
ITEMS = 8
SEGMENTS = ("a", "b", "c")
FIRST, DRIFT, BACK, LAST = 48, 60, 74, 96
"""Hours: of the first score, of the drift's first and of its end, and of the last score."""


def pit_of(segment: str, item: int, hour: int) -> float:
    """Where what was sold fell in its forecast."""
    place = np.random.default_rng([ord(segment), item, hour]).random()
    return 0.97 if segment == "b" and DRIFT <= hour < BACK else float(place)


def scores_of(hour: int) -> list[Score]:
    """All scores of the bucket that begins at an hour, which become known two hours later."""
    return [
        Score(
            item_id=f"{segment}{item}|n",
            segment=segment,
            resolution_ms=HOUR_MS,
            bucket_start_ms=hour * HOUR_MS,
            scored_at_ms=(hour + 2) * HOUR_MS + item,
            actual=5.0,
            steps=[
                ScoredStep(
                    forecast_id=f"{segment}{item}{hour}",
                    weights_version="base",
                    step=1,
                    pinball=1.0,
                    seasonal_naive_pinball=None,
                    pit=pit_of(segment, item, hour),
                    residual=0.5,
                    covered_80=True,
                    median=4.0,
                )
            ],
        )
        for segment in SEGMENTS
        for item in range(ITEMS)
    ]


def mark_of(shard: int, hour: int, num_shards: int = SHARDS) -> ShardScored:
    """That all buckets that end by an hour are scored."""
    return ShardScored(
        shard=shard,
        num_shards=num_shards,
        resolution_ms=HOUR_MS,
        scored_until_ms=hour * HOUR_MS,
        scored_at_ms=(hour + 1) * HOUR_MS + 7,
        begun_ms=0,
    )


def expected() -> list[DriftAlert]:
    """What one monitor says that is told all scores of an hour at once."""
    monitor = DriftMonitor(SETTINGS.drift, HOUR_MS)
    found = []
    for hour in range(FIRST, LAST):
        now_ms = (hour + 2) * HOUR_MS + ITEMS - 1
        found += monitor.update(hour * HOUR_MS, scores_of(hour), now_ms=now_ms)
    return found


class Log:
    """Topics of four partitions in memory, and who reads and writes them."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.records: dict[tuple[str, int], list[TableRecord]] = {}
        self.fails: list[str] = []
        self.owners = 0

    def append(self, topic: str, key: bytes, value: bytes | None) -> None:
        at = (topic, sum(key) % PARTITIONS)
        held = self.records.setdefault(at, [])
        held.append(TableRecord(topic, key, value, 0, at[1], len(held)))

    def values(self, topic: str) -> list[bytes]:
        found = [self.records.get((topic, number), []) for number in range(PARTITIONS)]
        return [record.value for held in found for record in held if record.value is not None]

    def alerts(self) -> list[DriftAlert]:
        """Of the drift topic, in the order of what they are about."""
        found = [decode(DriftAlert, value) for value in self.values(TOPICS.drift)]
        return sorted(found, key=lambda one: (one.detected_at_ms, one.segment, one.alert_id))

    def pass_hour(self, hour: int, workers: Sequence[Sequence[int]] = (range(SHARDS),)) -> None:
        """Each worker writes the scores of its shards, in its own order, and then says so."""
        for shards in self.rng.permutation(np.arange(len(workers))):
            mine = [
                one for one in scores_of(hour) if shard_of(one.item_id, SHARDS) in workers[shards]
            ]
            for row in self.rng.permutation(len(mine)):
                key = mine[row].item_id.encode()
                self.append(TOPICS.scores, key, encode(mine[row]))
            for shard in workers[shards]:
                self.mark(shard, hour + 1)

    def mark(self, shard: int, hour: int) -> None:
        self.append(TOPICS.scored, f"{shard}@{HOUR_MS}".encode(), encode(mark_of(shard, hour)))

    # As a transactional writer ------------------------------------------------------------------

    def writer(self) -> Writer:
        """Shuts out the ones before it."""
        self.owners += 1
        return Writer(self, self.owners)


class Writer:
    """One owner's transactions: all of a write or nothing."""

    def __init__(self, log: Log, number: int) -> None:
        self.log, self.number = log, number

    def write(self, records: Sequence[Outgoing]) -> None:
        fails = self.log.fails.pop(0) if self.log.fails else ""
        if fails == "before":
            raise BrokerError("nothing was written")
        for record in records:
            self.log.append(record.topic, record.key or b"", record.value)
        if fails == "after":
            raise BrokerError("nobody answered")

    def close(self) -> None:
        pass


class Reader:
    """Reads topics of the log; partitions in an order that the log's dice choose."""

    def __init__(
        self, log: Log, topics: list[str], starts: Mapping[tuple[str, int], int] = {}
    ) -> None:
        self.log = log
        places = [(topic, number) for topic in topics for number in range(PARTITIONS)]
        self.next = {at: starts.get(at, 0) for at in places}

    def poll(self, max_wait_ms: int = 0) -> list[TableRecord]:
        open_ones = [at for at in self.next if self.next[at] < self._end(at)]
        if not open_ones:
            return []
        at = open_ones[int(self.log.rng.integers(len(open_ones)))]
        few = int(self.log.rng.integers(1, 6))
        found = self.log.records[at][self.next[at] :][:few]
        self.next[at] += len(found)
        return found

    def to_end(self) -> Iterator[TableRecord]:
        while found := self.poll():
            yield from found

    def next_offsets(self, topic: str) -> dict[int, int]:
        return {number: offset for (name, number), offset in self.next.items() if name == topic}

    def ends(self, topic: str) -> dict[tuple[str, int], int]:
        return {at: self._end(at) for at in self.next if at[0] == topic}

    def reached(self, ends: Mapping[tuple[str, int], int]) -> bool:
        return all(self.next[at] >= end for at, end in ends.items())

    def close(self) -> None:
        pass

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def _end(self, at: tuple[str, int]) -> int:
        return len(self.log.records.get(at, []))


def watch_of(
    monkeypatch: pytest.MonkeyPatch, log: Log, settings: Settings = SETTINGS
) -> DriftWatch:
    """An owner that begins now, from what the log holds."""

    def reader(_: Settings, topics: list[str], starts: Mapping[Any, int] = {}) -> Reader:
        return Reader(log, topics, starts)

    monkeypatch.setattr(process, "TableReader", reader)
    watch = process.open_watch(settings, log.writer(), lambda: True, lambda: 2**60, ExitStack())
    goes_on = watch._parts.monitor.state()["newest_ms"] >= 0
    assert goes_on == bool(log.values(TOPICS.owner) and settings is SETTINGS)
    return watch


def settle(watch: DriftWatch) -> None:
    """Turn until there is nothing to do."""
    while watch.turn():
        pass
