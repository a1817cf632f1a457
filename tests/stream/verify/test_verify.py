"""A log is read from where its windows begin, and each snapshot is compared at its own offset."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from freshet.stream.config import Resolution, Settings, WindowSettings
from freshet.stream.errors import BrokerError
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.generation import GENERATION_KEY
from freshet.stream.store.layout import Keys, partitions_key
from freshet.stream.store.tiles import encode
from freshet.stream.units import MINUTE_MS
from freshet.stream.verify.report import Difference, PartitionReport, Report
from freshet.stream.verify.verify import verify
from tests.stream.read.fake_windows import FakeRedis

T0 = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS
SECONDS, TENS, MINUTES = 1_000, 10_000, MINUTE_MS
SETTINGS = Settings(
    kafka={"topics": {"orders": "orders", "clicks": "clicks"}},
    windows=WindowSettings(
        out_of_order_ms=1_000,
        allowed_lateness_ms=MINUTE_MS,
        max_future_ms=5_000,
        resolutions=(
            Resolution(resolution_ms=SECONDS, buckets=10),
            Resolution(resolution_ms=TENS, buckets=10),
            Resolution(resolution_ms=MINUTES, buckets=10),
        ),
    ),
    worker={"resolution_ms": MINUTES},
)


def order(event_id: str, time_ms: int, sku: str = "a") -> bytes:
    event = {"event_id": event_id, "event_time": time_ms, "sku": sku, "region": "n"}
    return json.dumps(event | {"quantity": 1, "unit_price": 0}).encode()


def click(event_id: str, time_ms: int) -> bytes:
    event = {"event_id": event_id, "event_time": time_ms, "sku": "a", "region": "n"}
    return json.dumps(event | {"kind": "view"}).encode()


def redriven(*names: bytes) -> list[tuple[str, bytes]]:
    return [("freshet-redrive", name) for name in names]


@dataclass
class Log:
    """What a broker holds of each partition, and how it was read.

    `ends` are where partitions end, where that is not after their last record.
    """

    messages: dict[tuple[str, int], list[Message]] = field(default_factory=dict)
    starts: dict[tuple[str, int], int] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    batch: int = 2
    silent: bool = False
    lost: bool = False
    closed: int = 0

    def hold(
        self,
        topic: str,
        offset: int,
        value: bytes | None,
        timestamp_ms: int = T0,
        headers: Any = None,
    ) -> None:
        message = Message(
            topic=topic,
            partition=0,
            offset=offset,
            key=b"k",
            value=value,
            headers=headers,
            timestamp=(1, timestamp_ms),
        )
        self.messages.setdefault((topic, 0), []).append(message)

    def consumer(self, settings: Settings, group: str, **over: Any) -> Reader:
        assert (settings, group, over["enable_partition_eof"]) == (SETTINGS, "verify", True)
        return Reader(self)

    def range_of(self, at: tuple[str, int]) -> tuple[int, int]:
        messages = self.messages[at]
        start = self.starts.get(at, messages[0].offset())
        return start, self.ends.get(at, messages[-1].offset() + 1)


class Reader:
    """Reads a log a few records at a time, and says at its end that it ends."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._at = ("", 0)
        self._position = 0
        self._reads = 0

    def get_watermark_offsets(self, at: TopicPartition, timeout_s: float) -> tuple[int, int]:
        return self._log.range_of((at.topic, at.partition))

    def assign(self, places: list[TopicPartition]) -> None:
        (place,) = places
        self._at = (place.topic, place.partition)
        self._position = place.offset

    def consume(self, most: int, wait_s: float) -> list[Message]:
        topic, partition = self._at
        self._reads += 1
        assert self._reads < 50, "a log of a few records is read on and on"
        if self._log.lost:
            gone = KafkaError(KafkaError._AUTO_OFFSET_RESET)
            return [Message(topic=topic, partition=partition, offset=4, error=gone)]
        waiting = [m for m in self._log.messages[self._at] if m.offset() >= self._position]
        found = waiting[: min(most, self._log.batch)]
        if found:
            self._position = found[-1].offset() + 1
            return found
        if self._log.silent:
            return []
        eof = KafkaError(KafkaError._PARTITION_EOF)
        end = self._log.range_of(self._at)[1]
        return [Message(topic=topic, partition=partition, offset=end, error=eof)]

    def close(self) -> None:
        self._log.closed += 1


def tile(cells: dict[str, tuple[int, ...]]) -> bytes:
    values_CN = np.zeros((len(CHANNELS), 2), np.int64)
    for channel, amounts in cells.items():
        values_CN[CHANNELS.index(channel), : len(amounts)] = amounts
    return encode(values_CN)


def store(
    client: FakeRedis,
    keys: Keys,
    header: dict[str, int],
    tiles: dict[tuple[int, int], dict[str, tuple[int, ...]]],
    item_ids: tuple[str, ...],
) -> None:
    """Windows of one partition; tiles by resolution and bucket."""
    client.values.setdefault(partitions_key(3), set()).add(
        f"{keys.topic}:{keys.partition}".encode()
    )
    client.values[keys.header] = {name.encode(): b"%d" % at for name, at in header.items()}
    names = {b"%d" % slot: item_id.encode() for slot, item_id in enumerate(item_ids)}
    client.values[keys.dictionary(0)] = names
    for (resolution_ms, bucket), cells in tiles.items():
        client.values[keys.tile(resolution_ms, bucket, 0)] = tile(cells)


ORDERS = Keys(3, "orders", 0)
# After the records at 4 and 5; the redriven one leaves the frontier alone.
HEADER = {
    "first_offset": 4,
    "next_offset": 7,
    "frontier_ms": T0 + 500,
    "origin_ms": T0 + 500,
    "first_event_ms": T0 + 500,
    "last_event_ms": T0 + 1_500,
    "read": 2,
    "applied": 2,
    "items": 2,
}
# The records at 7 and 8 changed nothing but the books.
LATER = HEADER | {"next_offset": 9, "read": 4, "duplicate": 1, "dead_letter": 1}
TILES = {
    (SECONDS, T0 // SECONDS): {"units": (1_000,), "orders": (1,)},
    (SECONDS, T0 // SECONDS + 1): {"units": (0, 1_000), "orders": (0, 1)},
    (TENS, T0 // TENS): {"units": (1_000, 1_000), "orders": (1, 1)},
    (MINUTES, T0 // MINUTES): {"units": (1_000, 1_000), "orders": (1, 1)},
}


@pytest.fixture
def log() -> Log:
    """Orders from offset 3 on, none at 6; windows begin at 4 and are read up to 7 and 9."""
    log = Log()
    log.hold("orders", 3, order("before", T0 + 9_000, "z"), T0 + 9_000)
    log.hold("orders", 4, order("e1", T0 + 500))
    log.hold(
        "orders",
        5,
        order("e2", T0 + 1_500, "b"),
        headers=[*redriven(b"one", b"two"), ("trace", b"1"), *redriven(b"")],
    )
    log.hold("orders", 7, order("e3", T0 + 600), headers=redriven(b"three", b"two"))
    log.hold("orders", 8, order("e4", T0 + 700), T0 - 4_301)
    log.hold("orders", 9, order("after", T0 + 900, "z"))
    return log


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, log: Log) -> FakeRedis:
    """Seconds and tens are read at offset 7, and minutes when ingest has come to 9."""
    client = FakeRedis()
    client.values[GENERATION_KEY] = b"3"
    store(client, ORDERS, HEADER, TILES, ("a|n", "b|n"))
    reads = count()

    def moved_on() -> None:
        if next(reads) == 2:
            store(client, ORDERS, LATER, TILES, ("a|n", "b|n"))

    client.before_transaction = moved_on
    monkeypatch.setattr("freshet.stream.verify.verify.connect", lambda redis: client)
    monkeypatch.setattr("freshet.stream.verify.verify.consumer", log.consumer)
    return client


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_each_snapshot_is_compared_when_its_own_offset_is_reached(
    client: FakeRedis, log: Log, batch: int
) -> None:
    log.batch = batch
    # Two of sales and two of orders, at each of three resolutions.
    part = PartitionReport("orders", 0, first_offset=4, next_offset=9, records=4, cells=12)
    assert verify(SETTINGS) == Report(generation=3, partitions=[part], shown=[])
    assert log.closed == 1


def test_partitions_are_recounted_each_by_its_kind_and_those_without_windows_are_left_out(
    client: FakeRedis, log: Log
) -> None:
    for offset in range(2):
        log.hold("clicks", offset, click(f"c{offset}", T0 + 100))
    header = HEADER | {"first_offset": 0, "next_offset": 2, "items": 1}
    header |= dict.fromkeys(
        ("frontier_ms", "origin_ms", "first_event_ms", "last_event_ms"), T0 + 100
    )
    tiles = {(width, T0 // width): {"views": (2,)} for width in (TENS, MINUTES)}
    tiles[SECONDS, T0 // SECONDS] = {"views": (5,)}
    store(client, Keys(3, "clicks", 0), header, tiles, ("a|n",))
    store(client, Keys(3, "elsewhere", 0), HEADER, {}, ())
    store(client, Keys(3, "orders", 1), {"epoch": 1}, {}, ())
    client.values[partitions_key(3)].add(b"orders:2")
    client.before_transaction = None
    store(client, ORDERS, LATER, TILES, ("a|n", "b|n"))
    report = verify(SETTINGS)
    assert report.partitions == [
        PartitionReport("clicks", 0, 0, 2, records=2, cells=3, differences=1),
        PartitionReport("orders", 0, 4, 9, records=4, cells=12),
    ]
    wrong = Difference("clicks", 0, "views", 5, 2, "a|n", SECONDS, T0)
    assert report.shown == [wrong]


@pytest.mark.parametrize(
    ("start", "end", "missing"),
    [
        (4, 9, None),
        (5, 9, "the log starts at 5, the state needs 4"),
        (4, 8, "the log ends at 8, the state needs 9"),
    ],
)
def test_a_log_that_lacks_a_record_of_the_state_is_not_recounted(
    client: FakeRedis, log: Log, start: int, end: int, missing: str | None
) -> None:
    log.starts["orders", 0] = start
    log.ends["orders", 0] = end
    report = verify(SETTINGS)
    (part,) = report.partitions
    assert part.log_missing == missing
    assert (part.records, part.cells) == ((4, 12) if missing is None else (0, 0))
    assert report.agrees is (missing is None)
    assert log.closed == 1


def test_a_log_that_is_cut_while_it_is_read_is_missing(client: FakeRedis, log: Log) -> None:
    log.lost = True
    (part,) = verify(SETTINGS).partitions
    assert part.log_missing is not None
    assert part.log_missing.startswith("orders:0: offset 4 is no longer in the log")
    assert (part.records, log.closed) == (0, 1)


def test_offsets_without_a_record_at_the_end_are_passed_when_the_broker_says_it_ends(
    client: FakeRedis, log: Log
) -> None:
    log.messages["orders", 0].pop()
    log.ends["orders", 0] = 12
    client.before_transaction = None
    store(client, ORDERS, LATER | {"next_offset": 12}, TILES, ("a|n", "b|n"))
    report = verify(SETTINGS)
    assert report.agrees
    assert report.partitions == [PartitionReport("orders", 0, 4, 12, records=4, cells=12)]


def test_a_broker_that_says_nothing_for_half_a_minute_is_not_waited_for(
    client: FakeRedis, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    del log.messages["orders", 0][4:]
    log.ends["orders", 0] = 9
    log.silent = True
    clock_s = count(1_000, 10)
    looks: list[int] = []

    def monotonic() -> int:
        looks.append(next(clock_s))
        return looks[-1]

    monkeypatch.setattr("freshet.stream.verify.messages.time", SimpleNamespace(monotonic=monotonic))
    with pytest.raises(BrokerError, match="orders:0 sent nothing after offset 8 for 30 s"):
        verify(SETTINGS)
    # At the start, after each of two reads, and after silences of 10, 20, 30 and 40 seconds.
    assert looks == [1_000, 1_010, 1_020, 1_030, 1_040, 1_050, 1_060]
    assert log.closed == 1
