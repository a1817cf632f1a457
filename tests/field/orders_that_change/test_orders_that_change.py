"""A week of orders that change: windows equal a plain recount of what the orders are, each day."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
from pydantic import SecretStr

from freshet.stream.config import RedisSettings, Settings
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.tiles import decode
from freshet.stream.units import DAY_MS, HOUR_MS
from freshet.stream.verify.order_states import read_orders
from freshet.stream.verify.recount import Recount
from tests.field.orders_that_change.week import (
    DAYS,
    NUM_PARTITIONS,
    Sent,
    day_number,
    sold_by_the_end_of,
    week,
)

TOPIC = "freshet.orders.v1"
SETTINGS = Settings.model_validate(
    {
        "events": {
            "series_by": ["sku"],
            "orders": {
                "mode": "state",
                "fields": {
                    "order_id": "id",
                    "version": "updated_at",
                    "event_time": "created_at",
                    "cancelled": "cancelled_at",
                    "lines": "line_items",
                    "lines.quantity": "current_quantity",
                    "lines.unit_price": "price",
                },
            },
        },
        "calendar": {"time_zone": "Europe/Berlin"},
        "windows": {
            "resolutions": [
                {"resolution_ms": HOUR_MS, "buckets": 1_344},
                {"resolution_ms": DAY_MS, "buckets": 800},
            ]
        },
        "worker": {"resolution_ms": HOUR_MS},
    }
)


@pytest.fixture
def client(redis_server: str) -> Iterator[redis.Redis]:
    client = connect(RedisSettings(url=SecretStr(redis_server)))
    yield client
    client.close()


def fold(store: WindowStore, partition: int, log: list[Sent], draw: random.Random) -> None:
    """Fold a partition in batches of any size, by processes that die between any two calls."""
    windows: PartitionWindows | None = None
    while True:
        if windows is None or draw.random() < 0.2:
            windows = PartitionWindows.claim(store, "orders", TOPIC, partition, SETTINGS)
            if windows.header.next_offset is None:
                windows.start_at(0)
        start = windows.next_offset
        if start == len(log):
            return
        end = min(len(log), start + draw.choice([1, 7, 100, 1_000]))
        folded = windows.fold(batch(log, start, end))
        if draw.random() < 0.1:
            windows = None  # It dies before the call.
            continue
        assert windows.apply(folded) is Answer.APPLIED
        if draw.random() < 0.1:
            windows = None  # It dies after the call.


def batch(log: list[Sent], start: int, end: int) -> RawBatch:
    part = log[start:end]
    return RawBatch(
        values=[one.value for one in part],
        keys=[one.key for one in part],
        timestamps_ms=np.array([one.timestamp_ms for one in part], np.int64),
        offsets=np.arange(start, end),
        next_offset=end,
    )


def daily(client: redis.Redis, store: WindowStore) -> dict[int, Counter[tuple[str, str]]]:
    """Sums of all partitions by day, and by item and channel."""
    sums: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
    for partition in range(NUM_PARTITIONS):
        keys = store.keys(TOPIC, partition)
        header = store.header(TOPIC, partition)
        assert header is not None
        items = store.dictionary(TOPIC, partition, header.items)
        for name in client.zrange(keys.index(DAY_MS), 0, -1):
            bucket, chunk = map(int, name.split(b":"))
            values_CN = decode(client.get(keys.tile(DAY_MS, bucket, chunk)))
            for channel, slot in zip(*np.nonzero(values_CN), strict=True):
                cell = items[slot], CHANNELS[channel]
                sums[bucket][cell] += int(values_CN[channel, slot])
    return sums


def everything(client: redis.Redis, store: WindowStore) -> dict[str, Any]:
    """The content of every key of a generation, but who owns it."""
    read = {
        b"hash": client.hgetall,
        b"string": client.get,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"set": client.smembers,
    }
    found = {}
    for partition in range(NUM_PARTITIONS):
        prefix = store.keys(TOPIC, partition).prefix
        for key in client.keys("*"):
            if key.decode().startswith(prefix):
                name = f"{partition}{key.decode().removeprefix(prefix)}"
                found[name] = read[client.type(key)](key)
                if name.endswith(":h"):
                    for own in (b"epoch", b"owner", b"index_floor"):
                        found[name].pop(own, None)
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_windows_are_what_the_orders_are_as_of_each_day_and_a_replay_gives_the_same_bytes(
    client: redis.Redis, seed: int
) -> None:
    logs = week(seed)
    store, replay = WindowStore(client, 0), WindowStore(client, 1)
    for partition, log in enumerate(logs):
        fold(store, partition, log, random.Random(seed))
        fold(replay, partition, log, random.Random(seed + 100))
    sums = daily(client, store)
    net: Counter[str] = Counter()
    for day in DAYS:
        for (sku, channel), value in sums[day_number(day)].items():
            net[sku] += {"units": value, "returns": -value}.get(channel, 0)
        expected = sold_by_the_end_of(day, logs)
        assert {sku: n for sku, n in net.items() if n} == {
            sku: quantity * 1_000 for sku, quantity in expected.items()
        }, day
    assert any(channel == "returns" for cells in sums.values() for _, channel in cells)
    assert everything(client, store) == everything(client, replay)
    for partition, log in enumerate(logs):
        assert_recount_agrees(client, store, partition, log)


def assert_recount_agrees(
    client: redis.Redis, store: WindowStore, partition: int, log: list[Sent]
) -> None:
    recount = Recount("orders", SETTINGS)
    for one in log:
        recount.take(one.key, one.value, one.timestamp_ms)
    header = store.header(TOPIC, partition)
    assert header is not None
    books = ("read", "applied", "duplicate", "conflicting", "late_dropped", "dead_letter")
    assert {name: getattr(header, name) for name in books} == {
        name: recount.books[name] for name in books
    }
    assert header.late_dropped == header.dead_letter == header.conflicting == 0
    assert header.duplicate > 0
    keys = store.keys(TOPIC, partition)
    items = store.dictionary(TOPIC, partition, header.items)
    assert items == list(recount.item_ids)
    stored = {}
    for name in client.zrange(keys.index(HOUR_MS), 0, -1):
        bucket, chunk = map(int, name.split(b":"))
        values_CN = decode(client.get(keys.tile(HOUR_MS, bucket, chunk)))
        for channel, slot in zip(*np.nonzero(values_CN), strict=True):
            stored[bucket, items[slot], CHANNELS[channel]] = int(values_CN[channel, slot])
    assert stored == recount.cells(HOUR_MS)
    orders = read_orders(client, store, keys, SETTINGS)
    assert orders is not None
    assert orders.states == recount.orders.states(orders.watermark_ms)
    assert len(orders.states) == len({one.number for one in log})
