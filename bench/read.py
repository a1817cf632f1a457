"""How long a reader takes: everything into arrays, one new bucket, a look that finds nothing new.

512 hourly buckets, 8 channels, two fifths of the unit cells not zero, one orders partition in a
real Redis. Beside it, in the same run, the layout that most feature stores use: one hash an item,
bucket -> value, for ONE channel.

Run: python -m bench.read
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import redis

from bench.report import write_result
from freshet.stream.arrays import Ints
from freshet.stream.config import RedisSettings
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Keys
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.store.tiles import CHUNK_ITEMS, encode
from freshet.stream.units import HOUR_MS

BUCKETS = 512
FIRST_BUCKET = 480_000
HASHES_A_TRIP = 500
MOST_HASHES = 10_000  # 100,000 would take minutes and say the same.
TOPIC = "freshet.orders.v1"
RULES = ReadRules(HOUR_MS, retained_buckets=2 * BUCKETS)
SHARES = (0.4, 0.4, 0.4, 0.02, 0.8, 0.5, 0.3, 0.45)
MEANS = (4_000, 400_000, 3, 1_000, 40, 6, 3, 4)


def values(generator: np.random.Generator, items: int) -> Ints:
    """One bucket of all items, int64[8, items]."""
    present = generator.random((8, items)) < np.array(SHARES)[:, None]
    level = generator.lognormal(0, 1, items)
    drawn = 1 + generator.poisson(np.array(MEANS)[:, None] * level)
    return np.where(present, drawn, 0).astype(np.int64)


class Shop:
    """A partition's windows, written tile by tile as the fold would leave them."""

    def __init__(self, client: redis.Redis, items: int) -> None:
        self._client = client
        self.items = items
        self._keys = Keys(0, TOPIC, 0)
        self._generator = np.random.default_rng(items)
        self.offset = 0
        client.sadd("freshet:g0:partitions", f"{TOPIC}:0")
        for chunk in range(-(-items // CHUNK_ITEMS)):
            slots = range(min(CHUNK_ITEMS, items - chunk * CHUNK_ITEMS))
            names = {str(slot): f"sku{chunk * CHUNK_ITEMS + slot}|north" for slot in slots}
            client.hset(self._keys.dictionary(chunk), mapping=names)
        self.units: list[Ints] = [
            self.write(bucket)[0] for bucket in range(FIRST_BUCKET, FIRST_BUCKET + BUCKETS)
        ]

    def write(self, bucket: int, chunks: int | None = None) -> Ints:
        """New values for a bucket, or for its first chunks only, and the header that says so."""
        values_CI = values(self._generator, self.items)
        self.offset += 1_000
        pipe = self._client.pipeline(transaction=True)
        for chunk in range(-(-self.items // CHUNK_ITEMS))[:chunks]:
            tile = encode(values_CI[:, chunk * CHUNK_ITEMS : (chunk + 1) * CHUNK_ITEMS])
            pipe.set(self._keys.tile(HOUR_MS, bucket, chunk), tile)
            pipe.zadd(self._keys.index(HOUR_MS), {f"{bucket}:{chunk}": self.offset})
        header = {
            "first_offset": 0,
            "next_offset": self.offset,
            "items": self.items,
            "index_floor": 0,
            "frontier_ms": (bucket + 1) * HOUR_MS - 1,
            "first_event_ms": FIRST_BUCKET * HOUR_MS,
        }
        pipe.hset(self._keys.header, mapping=header)
        pipe.execute()
        return values_CI


class Took(NamedTuple):
    """Seconds of one run: on the wall, and of our CPU, which other work leaves alone."""

    wall_s: float
    cpu_s: float


def timed(work: Callable[[], Any]) -> Took:
    """How long one run took."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def median(runs: list[Took]) -> dict[str, float]:
    """The median of some runs, in milliseconds."""
    wall_s, cpu_s = np.median(runs, axis=0)
    return {"wall_ms": round(1e3 * float(wall_s), 3), "cpu_ms": round(1e3 * float(cpu_s), 3)}


def measure_tiles(shop: Shop, client: redis.Redis, repeats: int) -> dict[str, Any]:
    """The reader's full read, window, delta and idle look."""
    end_ms = (FIRST_BUCKET + BUCKETS) * HOUR_MS
    units = slice(1)
    full, window, one_channel = [], [], []
    for _ in range(repeats):
        reader = WindowReader(client, 0, HOUR_MS, BUCKETS, rules=RULES)
        full.append(timed(reader.refresh))
        window.append(timed(partial(reader.sums, end_ms, BUCKETS)))
        one_channel.append(timed(partial(reader.sums, end_ms, BUCKETS, channels=units)))
    units_IB = reader.sums(end_ms, BUCKETS, channels=units)[:, 0]
    assert (units_IB == np.stack(shop.units, axis=1)).all()

    two_tiles, delta, changed_window = [], [], []
    for _ in range(20):
        shop.write(FIRST_BUCKET + BUCKETS - 1, chunks=2)
        two_tiles.append(timed(reader.refresh))
    for n in range(20):
        shop.write(FIRST_BUCKET + BUCKETS - 1 + n // 10)
        delta.append(timed(reader.refresh))
        changed_window.append(timed(partial(reader.sums, end_ms + HOUR_MS, 2)))
    return {
        "full_read": median(full),
        "full_window": median(window),
        "window_of_one_channel": median(one_channel),
        "read_of_two_changed_tiles": median(two_tiles),
        "read_of_one_changed_bucket": median(delta),
        "window_of_two_buckets": median(changed_window),
        "look_that_finds_nothing": median([timed(reader.refresh) for _ in range(200)]),
    }


def measure_hashes(shop: Shop, client: redis.Redis) -> dict[str, Any]:
    """One hash an item, one channel: write it, then read all of it into an array."""
    units_IB = np.stack(shop.units, axis=1)
    before = int(client.info("memory")["used_memory"])
    for first in range(0, shop.items, HASHES_A_TRIP):
        pipe = client.pipeline(transaction=False)
        for item in range(first, min(first + HASHES_A_TRIP, shop.items)):
            filled = np.flatnonzero(units_IB[item]).tolist()
            pipe.hset(
                f"hash:{item}",
                mapping={str(FIRST_BUCKET + b): int(units_IB[item, b]) for b in filled},
            )
        pipe.execute()
    used = int(client.info("memory")["used_memory"]) - before

    def read() -> None:
        read_IB = np.zeros((shop.items, BUCKETS), dtype=np.int64)
        for first in range(0, shop.items, HASHES_A_TRIP):
            pipe = client.pipeline(transaction=False)
            for item in range(first, min(first + HASHES_A_TRIP, shop.items)):
                pipe.hgetall(f"hash:{item}")
            for item, found in enumerate(pipe.execute(), start=first):
                for bucket, value in found.items():
                    read_IB[item, int(bucket) - FIRST_BUCKET] = int(value)
        assert (read_IB == units_IB).all()

    return {
        "full_read_one_channel": median([timed(read)]),
        "bytes_an_item_one_channel": round(used / shop.items),
    }


def measure(items: int, client: redis.Redis, repeats: int) -> dict[str, Any]:
    """All figures for a number of items."""
    client.flushall()
    empty = int(client.info("memory")["used_memory"])
    shop = Shop(client, items)
    stored = int(client.info("memory")["used_memory"]) - empty
    tiles = measure_tiles(shop, client, repeats)
    return {
        "items": items,
        "bytes_an_item": round(stored / items),
        "tiles": tiles,
        "hashes": measure_hashes(shop, client) if items <= MOST_HASHES else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as server:
        client = connect(RedisSettings(url=server.url))
        figures = [measure(items, client, arguments.repeats) for items in arguments.items]
        version = client.info("server")["redis_version"]
        client.close()
    numbers = {"redis_server": version, "buckets": BUCKETS, "channels": 8, "sizes": figures}
    print(f"wrote {write_result('read', numbers, ['redis', 'numpy'])}")


if __name__ == "__main__":
    main()
