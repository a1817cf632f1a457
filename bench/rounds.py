"""How long rounds take: one worker, days and hours of all items and minutes of those on sale.

A real Kafka (KAFKA_HOME), a real Redis, `freshet worker` as it ships, and a plain consumer of what
is committed. Ingest keeps the shop's tables and ends; windows are then folded here by its own code,
so that nothing but the shop's events and the worker's turns are on the cores, and so that it is
known when each minute ends: what is measured begins right before the events that end it are
written. Minutes follow each other every few seconds, over an hour and over midnight.

Run: KAFKA_HOME=... python -m bench.rounds [--items 10000] [--pace 3]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer

from bench.freshness import cpu_s, process
from bench.report import write_result
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import encode
from freshet.stream.config import Settings, load
from freshet.stream.cores import usable_threads
from freshet.stream.events.decoder import EventKind
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.kafka import ensure_topics
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.read.shop import ShopFeed
from freshet.stream.schemas import WindowsAdvanced
from freshet.stream.store.clock import set_anchor
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

ON_SALE = 200
HISTORY_DAYS, HISTORY_HOURS = 400, 24 * 28
SOLD = 0.1  # of items in an hour of history
SOLD_A_DAY, UNITS_A_DAY = 0.8, 3  # the same a day: nothing opened when the hours begin
BEFORE_MINUTES = 66  # of midnight
AFTER_MINUTES = 18  # of an hour: its bucket becomes final, and is scored
LONGEST_S = 600.0
PLACE = b'"sku":"sku-%06d","region":"north"'
CLICK = b'{"event_id":"c-%x","session_id":"s-%x","event_time":%d,' + PLACE + b',"kind":"view"}'
ORDER = b'{"event_id":"o-%x","event_time":%d,' + PLACE + b',"quantity":%d,"unit_price":9.5}'
PROFILED = """
import cProfile, sys
from freshet.online.worker.process import run
from freshet.stream.config import load
profile = cProfile.Profile()
try:
    profile.runcall(run, load().settings)
finally:
    profile.dump_stats(sys.argv[1])
"""


class Published(msgspec.Struct):
    """What a foreign program wants to know of a forecast."""

    cutoff_ms: int
    resolution_ms: int


@dataclass(frozen=True, slots=True)
class Shop:
    """What is sold, by when.

    Attributes:
        items: All of them.
        midnight_ms: The one that rounds go over.
    """

    items: int
    midnight_ms: int

    @property
    def begin_ms(self) -> int:
        """When history ends and minutes follow each other."""
        return self.midnight_ms - BEFORE_MINUTES * MINUTE_MS

    def tables(self) -> Iterator[tuple[str, bytes, dict[str, Any], int]]:
        """Table, key, record and when it was sent."""
        long_ago_ms = self.midnight_ms - HISTORY_DAYS * DAY_MS
        for item in range(self.items):
            sku = f"sku-{item:06d}"
            category = "flash" if item < ON_SALE else f"category-{item % 40}"
            entry = {"sku": sku, "title": f"Item {item}", "category": category, "unit_price": 10.0}
            yield "catalog", sku.encode(), entry, long_ago_ms
            later = {**entry, "unit_price": 9.5}
            yield "catalog", sku.encode(), later, self.midnight_ms - (item % 200) * DAY_MS
            for days in (300, 60, 20, 2):
                at_ms = self.midnight_ms - days * DAY_MS - item * 1_000
                level = {"sku": sku, "region": "north", "on_hand": 500.0, "as_of": at_ms}
                yield "inventory", f"{sku}|north".encode(), level, at_ms
        for number in range(200):
            starts_ms = self.midnight_ms - number * 2 * DAY_MS
            yield "promotions", b"p-%d" % number, self._promotion(number, starts_ms), starts_ms
        sale = {
            "promotion_id": "sale",
            "kind": "flash_sale",
            "category": "flash",
            "discount": 0.3,
            "starts_at": self.midnight_ms - HOUR_MS,
            "ends_at": self.midnight_ms + 2 * HOUR_MS,
        }
        yield "promotions", b"sale", sale, self.midnight_ms - 20 * HOUR_MS

    def _promotion(self, number: int, starts_ms: int) -> dict[str, Any]:
        what = {"category": f"category-{number % 40}"} if number % 2 else {}
        what = what or {"sku": f"sku-{number * 7 % self.items:06d}"}
        times = {"starts_at": starts_ms, "ends_at": starts_ms + 3 * DAY_MS}
        return {"promotion_id": f"p-{number}", "discount": 0.2, **times, **what}


class Windows:
    """Folds events as ingest does, and tells the worker.

    Args:
        settings: Of the worker too.
        items: How many there are.
    """

    def __init__(self, settings: Settings, items: int) -> None:
        self._settings, self._items = settings, items
        self._topics = settings.kafka.topics
        self._producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
        self._shards = range(settings.kafka.partitions)
        store = WindowStore(connect(settings.redis), 0)
        kinds: dict[EventKind, str] = {"orders": self._topics.orders, "clicks": self._topics.clicks}
        self._parts = {
            (kind, n): PartitionWindows.claim(store, kind, topic, n, settings)
            for kind, topic in kinds.items()
            for n in self._shards
        }
        for windows in self._parts.values():
            if windows.header.next_offset is None:
                windows.start_at(0)
        self._sent = 0
        self._dice = np.random.default_rng(1)

    def happen(self, at_ms: int, items: Any, *, units: int = 1, ends: bool = False) -> None:
        """One order and one click of each; where a minute `ends` by it, in every partition."""
        chosen = {n: [i for i in items if i % len(self._shards) == n] for n in self._shards}
        for (kind, n), windows in self._parts.items():
            some = chosen[n] or ([n] if ends else [])
            if some:
                values = [self._event(kind, at_ms, item, units) for item in some]
                assert windows.apply(windows.fold(_raw(values, windows, at_ms))) is Answer.APPLIED

    def happen_by_chance(self, at_ms: int, share: float, units: int = 1) -> None:
        """The same of so many, drawn evenly."""
        chosen = np.flatnonzero(self._dice.random(self._items) < share).tolist()
        self.happen(at_ms, chosen, units=units)

    def tell(self) -> None:
        """One notice of each partition to each shard."""
        for windows in self._parts.values():
            notice = WindowsAdvanced(
                topic=windows.topic,
                partition=windows.partition,
                epoch=windows.header.epoch,
                offset=windows.next_offset,
                frontier_ms=windows.frontier_ms or 0,
            )
            for shard in self._shards:
                self._producer.produce(self._topics.windows, encode(notice), partition=shard)
        self._producer.flush(30)

    def _event(self, kind: str, at_ms: int, item: int, units: int) -> bytes:
        n = self._sent = self._sent + 1
        if kind == "orders":
            return ORDER % (n, at_ms, item, units)
        return CLICK % (n, n, at_ms, item)


def _raw(values: list[bytes], windows: PartitionWindows, at_ms: int) -> RawBatch:
    first, count = windows.next_offset, len(values)
    return RawBatch(
        values=values,
        keys=[None] * count,
        timestamps_ms=np.full(count, at_ms),
        offsets=np.arange(first, first + count),
        next_offset=first + count,
    )


class Reader(threading.Thread):
    """A foreign program: how many forecasts of each round it has, and since when the last."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        config = {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": "foreign",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
        self._consumer = Consumer(config)
        self._consumer.subscribe([settings.kafka.topics.forecasts])
        self._decoder = msgspec.json.Decoder(Published)
        self.came: dict[tuple[int, int], tuple[int, float]] = {}
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            for message in self._consumer.consume(500, 0.05):
                if message.error() is None:
                    found = self._decoder.decode(message.value() or b"")
                    key = found.resolution_ms, found.cutoff_ms
                    self.came[key] = self.came.get(key, (0, 0.0))[0] + 1, time.monotonic()
        self._consumer.close()

    def has(self, resolution_ms: int, cutoff_ms: int, count: int) -> bool:
        """Whether all of a round are there."""
        return self.came.get((resolution_ms, cutoff_ms), (0, 0.0))[0] >= count


class Bench:
    """The shop goes on, minute by minute, and rounds are watched."""

    def __init__(self, shop: Shop, windows: Windows, reader: Reader, pace_s: float) -> None:
        self._shop, self._windows, self._reader = shop, windows, reader
        self._pace_s = pace_s
        self.ended_s: dict[int, float] = {}

    def history(self) -> None:
        """Some of all items on every day, then in every hour, in the order of time."""
        shop, happen = self._shop, self._windows.happen_by_chance
        hours_from_ms = shop.begin_ms - HISTORY_HOURS * HOUR_MS
        self._windows.happen(shop.midnight_ms - HISTORY_DAYS * DAY_MS, range(shop.items))
        for day in range(HISTORY_DAYS - 1, 0, -1):
            at_ms = shop.midnight_ms - day * DAY_MS
            if at_ms < hours_from_ms:
                happen(at_ms, SOLD_A_DAY, UNITS_A_DAY)
        for hour in range(HISTORY_HOURS, 1, -1):
            happen(shop.begin_ms - hour * HOUR_MS, SOLD * min(1.0, 10_000 / shop.items))
        for minute in range(60, 0, -1):
            at_ms = shop.begin_ms - minute * MINUTE_MS
            self._windows.happen(at_ms, range(ON_SALE))
            happen(at_ms, SOLD / 60)

    def end_minute(self, cutoff_ms: int) -> None:
        """The first events of the next minute come, and the worker hears of them."""
        self.ended_s[cutoff_ms] = time.monotonic()
        self._windows.happen(cutoff_ms, (), ends=True)
        self._windows.tell()

    def go_on(self, cutoffs_ms: Iterable[int]) -> None:
        """Minutes end one after the other at the pace; half-way in each its events come."""
        for cutoff_ms in cutoffs_ms:
            begun_s = time.monotonic()
            self._windows.happen(cutoff_ms - MINUTE_MS // 2, range(ON_SALE))
            self._windows.happen_by_chance(cutoff_ms - MINUTE_MS // 2, SOLD / 60)
            self._windows.tell()
            time.sleep(self._pace_s / 2)
            self.end_minute(cutoff_ms)
            time.sleep(max(begun_s + self._pace_s - time.monotonic(), 0.0))

    def wait_for(self, resolution_ms: int, cutoff_ms: int, count: int) -> None:
        """Until all of a round's forecasts are there."""
        deadline_s = time.monotonic() + LONGEST_S
        while not self._reader.has(resolution_ms, cutoff_ms, count):
            assert time.monotonic() < deadline_s, self._reader.came
            time.sleep(0.02)

    def times_s(self, resolution_ms: int, cutoff_ms: int, count: int) -> tuple[float, float] | None:
        """The cutoff's end, and when its last forecast came; None of a round that was left out."""
        if not self._reader.has(resolution_ms, cutoff_ms, count):
            return None
        return self.ended_s[cutoff_ms], self._reader.came[resolution_ms, cutoff_ms][1]


class Cores(threading.Thread):
    """What the worker and everybody else took of the cores, several times a second."""

    def __init__(self, worker: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._worker = worker
        self._seen: list[tuple[float, float, float]] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(0.2):
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
            busy_s = sum(int(fields[n]) for n in (1, 2, 3, 6, 7)) / os.sysconf("SC_CLK_TCK")
            self._seen.append((time.monotonic(), cpu_s(self._worker), busy_s))

    def used(self, begun_s: float, ended_s: float) -> dict[str, float]:
        """CPU seconds of the worker, and the cores that all others kept busy meanwhile."""
        at_s, worker_s, busy_s = np.array(self._seen).T
        worker, busy = (
            float(np.diff(np.interp([begun_s, ended_s], at_s, counted))[0])
            for counted in (worker_s, busy_s)
        )
        others = (busy - worker) / (ended_s - begun_s)
        return {"worker_cpu_s": round(worker, 2), "cores_of_others": round(others, 2)}


def tables_kept(settings: Settings, shop: Shop, ingest: Callable[[], Any]) -> None:
    """Send the shop's tables, and have ingest keep them."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for table, key, record, at_ms in shop.tables():
        topic = getattr(settings.kafka.topics, table)
        producer.produce(topic, json.dumps(record).encode(), key, timestamp=at_ms)
        producer.poll(0)
    assert producer.flush(60) == 0
    with ingest():
        ShopFeed(connect(settings.redis), settings, ShopTables.of(settings)).read_to_end()


@contextmanager
def worker_of(
    environ: dict[str, str], log: Path, profile: Path | None
) -> Iterator[subprocess.Popen[bytes]]:
    """The worker, as it ships or with a profile written at its end."""
    if profile is None:
        with process("worker", environ, log) as child:
            yield child
        return
    argv = [sys.executable, "-c", PROFILED, str(profile)]
    with log.open("ab") as output:
        child = subprocess.Popen(argv, env={**os.environ, **environ}, stderr=output, stdout=output)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(60)


def memory_mib(child: subprocess.Popen[bytes]) -> dict[str, int]:
    """Resident memory of a process, now and at most."""
    lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {
        name: int(fields[field].split()[0]) // 1_024
        for name, field in (("now", "VmRSS"), ("peak", "VmHWM"))
    }


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """A worker's first rounds, an hour, midnight, and all minutes between."""
    today_ms = int(time.time() * 1_000) // DAY_MS * DAY_MS
    shop = Shop(asked.items, today_ms - DAY_MS)
    with ExitStack() as stack:
        kafka = stack.enter_context(RealKafka(Path(os.environ["KAFKA_HOME"]), folder / "kafka"))
        redis = stack.enter_context(EmbeddedRedis(folder / "redis"))
        environ = {
            "FRESHET_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "FRESHET_REDIS__URL": redis.url,
        }
        settings = load(environ=environ).settings
        ensure_topics(settings, live=False)
        # The clock is ahead of all that happens, so that nothing is from the future.
        set_anchor(connect(settings.redis), shop.midnight_ms + HOUR_MS, 1.0)
        tables_kept(settings, shop, lambda: process("ingest", environ, folder / "ingest.log"))
        reader = Reader(settings)
        reader.start()
        stack.callback(reader.stopping.set)
        bench = Bench(shop, Windows(settings, shop.items), reader, asked.pace)
        began_s = time.monotonic()
        bench.history()
        print(f"history {time.monotonic() - began_s:.0f} s", flush=True)
        bench.end_minute(shop.begin_ms)
        log = Path(asked.log) if asked.log else folder / "worker.log"
        with worker_of(environ, log, asked.profile) as worker:
            cores = Cores(worker)
            cores.start()
            found = first_rounds(bench, shop, worker)
            print(json.dumps(found), flush=True)
            found |= later_rounds(bench, shop, cores)
            found["memory_mib"] = memory_mib(worker)
            cores.stopping.set()
            cores.join()
        print(log.read_text("utf-8", "replace")[-2_000:], file=sys.stderr)
        return found


def first_rounds(bench: Bench, shop: Shop, worker: subprocess.Popen[bytes]) -> dict[str, Any]:
    """From the worker's start until its first rounds of all resolutions are out."""
    began_s = time.monotonic()
    midnight_ms = shop.midnight_ms - DAY_MS
    bench.wait_for(MINUTE_MS, shop.begin_ms, ON_SALE)
    minutes_s = time.monotonic() - began_s
    hour_ms = shop.begin_ms // HOUR_MS * HOUR_MS
    bench.wait_for(HOUR_MS, hour_ms, shop.items)
    hours_s = time.monotonic() - began_s
    bench.wait_for(DAY_MS, midnight_ms, shop.items)
    days_s = time.monotonic() - began_s
    return {
        "first_rounds_s": {
            "minutes": round(minutes_s, 2),
            "hours": round(hours_s, 2),
            "days": round(days_s, 2),
        },
        "memory_after_first_rounds_mib": memory_mib(worker),
    }


def later_rounds(bench: Bench, shop: Shop, cores: Cores) -> dict[str, Any]:
    """An hour, midnight, and the minutes before, meanwhile and after; what lies between is left."""
    midnight_ms, hour_ms = shop.midnight_ms, shop.midnight_ms - HOUR_MS
    after_ms = AFTER_MINUTES * MINUTE_MS
    minutes_ms = [
        *range(shop.begin_ms + MINUTE_MS, hour_ms + after_ms + 1, MINUTE_MS),
        *range(midnight_ms - 5 * MINUTE_MS, midnight_ms + after_ms + 1, MINUTE_MS),
    ]
    bench.go_on(minutes_ms)
    bench.wait_for(DAY_MS, midnight_ms, shop.items)
    bench.wait_for(HOUR_MS, midnight_ms, shop.items)
    bench.wait_for(MINUTE_MS, minutes_ms[-1], ON_SALE)

    hour = bench.times_s(HOUR_MS, hour_ms, shop.items)
    at_midnight = [bench.times_s(width, midnight_ms, shop.items) for width in (HOUR_MS, DAY_MS)]
    assert hour is not None and at_midnight[0] is not None and at_midnight[1] is not None
    both = (at_midnight[0][0], max(ended_s for _, ended_s in filter(None, at_midnight)))
    minutes: dict[str, list[float | None]] = {"calm": [], "in_a_longer_round": []}
    for cutoff_ms in minutes_ms:
        times = bench.times_s(MINUTE_MS, cutoff_ms, ON_SALE)
        inside = any(
            begun_s <= bench.ended_s[cutoff_ms] < ended_s for begun_s, ended_s in (hour, both)
        )
        took_s = times and times[1] - times[0]
        minutes["in_a_longer_round" if inside else "calm"].append(took_s)
    hour_s, worker_s = hour[1] - hour[0], cores.used(*hour)["worker_cpu_s"]
    return {
        "hours": {"s": round(hour_s, 2), **cores.used(*hour)},
        "midnight": {
            "hours_s": round(at_midnight[0][1] - both[0], 2),
            "days_s": round(at_midnight[1][1] - both[0], 2),
            **cores.used(*both),
        },
        "an_item_and_hour": {
            "ms": 1e3 * hour_s / shop.items,
            "cpu_ms": 1e3 * worker_s / shop.items,
        },
        "minutes_s": {name: _spread(times) for name, times in minutes.items()},
    }


def _spread(times: list[float | None]) -> dict[str, Any]:
    known = [one for one in times if one is not None]
    numbers = np.percentile(known, (50, 99, 100)) if known else [float("nan")] * 3
    found = dict(zip(("p50", "p99", "max"), (round(float(n), 2) for n in numbers), strict=True))
    return {"cutoffs": len(times), "left_out": len(times) - len(known), **found}


def main() -> None:
    """Measure, print and write bench/results/rounds.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--pace", type=float, default=3.0, help="Seconds of a minute.")
    parser.add_argument("--profile", type=Path, help="Write the worker's profile there.")
    parser.add_argument("--log", help="Where the worker's log goes.")
    parser.add_argument("--dry", action="store_true", help="Write no result.")
    asked = parser.parse_args()
    if not os.environ.get("KAFKA_HOME"):
        parser.error("set KAFKA_HOME to the folder of an unpacked Kafka")
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), asked)
    setting = {"items": asked.items, "on_sale": ON_SALE, "usable_cores": usable_threads()}
    numbers = {**setting, "pace_s": asked.pace, **found, "load": os.getloadavg()[0]}
    print(json.dumps(numbers, indent=2))
    if not asked.dry:
        write_result("rounds", numbers, ["torch", "confluent-kafka", "redis", "numpy"])


if __name__ == "__main__":
    main()
