"""What an event costs ingest as items and partitions grow; Kafka left out, a real Redis.

Items: clicks of one partition, each batch of 100,000 spread evenly over all items, one day of
history behind it. Partitions: one stream of 10,000 items divided over 1 to 64 partitions, 50,000
records a turn in all, as ingest reads. CPU is this process's, which is ingest without Kafka.

Run: python -m bench.scale [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.report import write_result
from bench.shop_log import START_MS, zipf
from freshet.stream.config import RedisSettings, Settings
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.ingest.process import GC_THRESHOLDS
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.units import DAY_MS, HOUR_MS

ITEMS = (1_000, 10_000, 100_000, 1_000_000)
PARTITIONS = (1, 4, 16, 64)
BATCH = 100_000
TURN = 50_000
RATE = 5_000
WARM_UP, MEASURED = 2, 4
CLICK = (
    b'{"event_id":"c-%016x","session_id":"s-%010x","event_time":%d,'
    b'"sku":"sku-%07d","region":"north","kind":"view"}'
)
PAST_CLICK = b'{"event_id":"h-%d","event_time":%d,"sku":"sku-%07d","region":"north","kind":"view"}'


def clicks(
    items: int, start: int, count: int, time_ms: int, dice: np.random.Generator, *, even: bool
) -> list[bytes]:
    """Clicks on items drawn evenly, or by zipf, RATE a second from `time_ms` on."""
    drawn = dice.integers(0, items, count) if even else zipf(dice, items, count)
    times = time_ms + np.arange(count) * 1_000 // RATE
    pairs = zip(times.tolist(), drawn.tolist(), strict=True)
    return [CLICK % (start + n, n, at, item) for n, (at, item) in enumerate(pairs)]


def raw(values: list[bytes], offset: int) -> RawBatch:
    """A batch that begins at an offset; no record is from the future, by its late stamp."""
    count = len(values)
    return RawBatch(
        values=values,
        keys=[None] * count,
        timestamps_ms=np.full(count, START_MS + 2 * DAY_MS),
        offsets=np.arange(offset, offset + count),
        next_offset=offset + count,
    )


def history(items: int, dice: np.random.Generator) -> Iterator[list[bytes]]:
    """One day before the measurement: every item once, and some batches in each hour."""
    everyone = np.arange(items)
    for first in range(0, items, BATCH):
        names = everyone[first : first + BATCH].tolist()
        yield [PAST_CLICK % (item, START_MS, item) for item in names]
    for hour in range(1, 24):
        yield clicks(items, hour << 32, BATCH // 10, START_MS + hour * HOUR_MS, dice, even=True)


def apply(windows: PartitionWindows, values: list[bytes]) -> float:
    """Fold and write one batch; CPU seconds."""
    batch = raw(values, windows.next_offset)
    started = time.process_time()
    assert windows.apply(windows.fold(batch)) is Answer.APPLIED
    return time.process_time() - started


def claimed(url: str, partitions: int) -> list[PartitionWindows]:
    """Partitions of an empty Redis."""
    settings = Settings(redis=RedisSettings(url=url))
    client = connect(settings.redis)
    client.flushall()
    store = WindowStore(client, 0)
    found = [
        PartitionWindows.claim(store, "clicks", "freshet.clicks.v1", n, settings)
        for n in range(partitions)
    ]
    for windows in found:
        windows.start_at(0)
    return found


def by_items(url: str, items: int) -> dict[str, Any]:
    """Batches of 100,000 over so many items."""
    dice = np.random.default_rng(items)
    (windows,) = claimed(url, 1)
    for values in history(items, dice):
        apply(windows, values)
    costs = []
    for n in range(WARM_UP + MEASURED):
        at_ms = START_MS + DAY_MS + n * BATCH * 1_000 // RATE
        costs.append(apply(windows, clicks(items, (n + 64) << 32, BATCH, at_ms, dice, even=True)))
    assert windows.header.items == items
    memory = connect(RedisSettings(url=url)).info("memory")["used_memory"]
    cost_us = 1e6 * float(np.median(costs[WARM_UP:])) / BATCH
    return {
        "items": items,
        "batch": BATCH,
        "cpu_us_an_event": round(cost_us, 3),
        "redis_mib": round(memory / 2**20),
    }


def by_partitions(url: str, partitions: int) -> dict[str, Any]:
    """Turns of 50,000 over so many partitions."""
    dice = np.random.default_rng(1)
    parts = claimed(url, partitions)
    costs = []
    for n in range(WARM_UP + MEASURED):
        at_ms = START_MS + n * TURN * 1_000 // RATE
        values = clicks(10_000, n << 32, TURN, at_ms, dice, even=False)
        shares = [values[first::partitions] for first in range(partitions)]
        costs.append(sum(map(apply, parts, shares)))
    cost_us = 1e6 * float(np.median(costs[WARM_UP:])) / TURN
    return {"partitions": partitions, "turn": TURN, "cpu_us_an_event": round(cost_us, 3)}


def main() -> None:
    """Measure, print and write bench/results/scale.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=ITEMS)
    parser.add_argument("--partitions", type=int, nargs="+", default=PARTITIONS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    with TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as server:
        rows = [by_items(server.url, items) for items in arguments.items]
        more = [by_partitions(server.url, partitions) for partitions in arguments.partitions]
    cost = {row["items"]: row["cpu_us_an_event"] for row in rows}
    numbers: dict[str, Any] = {"by_items": rows, "by_partitions": more}
    if {10_000, 1_000_000} <= cost.keys():
        numbers["million_items_over_ten_thousand"] = round(cost[1_000_000] / cost[10_000], 2)
    path = write_result("scale", numbers, ["numpy", "msgspec", "redis", "xxhash"])
    if arguments.json:
        print(json.dumps(numbers, indent=2))
        return
    for row in [*rows, *more]:
        print("  ".join(f"{name} {value:,}" for name, value in row.items()))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
