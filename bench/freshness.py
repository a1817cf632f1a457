"""How old a forecast is when a foreign program has it, on cores that others keep busy too.

A real Kafka (KAFKA_HOME), a real Redis, `freshet ingest` and `freshet worker` as they ship, and a
plain consumer that reads what is committed. Every item is forecast at the end of each minute. Age
is wall time from the end of the newest bucket used until the consumer has the record, so it holds
everything: events on their way, folding, the read of Redis, the network, the transaction.

Each of two workers is measured quiet, then beside two busy loops: one whose threads spin while they
wait for each other, as PyTorch has them, and one as it ships. The shop's clock may run faster than
the wall's, so that minutes end more often; events come at the same rate of wall time.

Run: KAFKA_HOME=... python -m bench.freshness [--cutoffs 6] [--speed 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer

from bench.report import write_result
from freshet.stream.child import free_port
from freshet.stream.config import Settings, load
from freshet.stream.cores import usable_threads
from freshet.stream.kafka import ensure_topics
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.store.clock import read_anchor, set_anchor
from freshet.stream.store.connection import connect
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.units import MINUTE_MS

ITEMS, RATE, ORDERS = 500, 2_000, 0.3
HISTORY_MINUTES = 90
TICK_S = 0.01
BUSY_LOOPS = 2
LONGEST_S = 400.0
# What libgomp takes where nobody says anything: 3 ms of looking before a thread sleeps.
WORKERS: dict[str, dict[str, str]] = {"spinning": {"GOMP_SPINCOUNT": "300000"}, "as_shipped": {}}
PLACE = b'"sku":"sku-%04d","region":"north"'
CLICK = b'{"event_id":"c-%x","session_id":"s-%x","event_time":%d,' + PLACE + b',"kind":"view"}'
ORDER = b'{"event_id":"o-%x","event_time":%d,' + PLACE + b',"quantity":1,"unit_price":9.5}'


@dataclass(frozen=True, slots=True)
class Line:
    """The shop's clock: wall time, faster by some factor."""

    wall_ms: int
    shop_ms: int
    speed: float

    def shop(self, wall_ms: float) -> int:
        """What the shop's clock shows."""
        return self.shop_ms + round((wall_ms - self.wall_ms) * self.speed)

    def wall(self, shop_ms: int) -> float:
        """When it shows that."""
        return self.wall_ms + (shop_ms - self.shop_ms) / self.speed


class Shop(threading.Thread):
    """Sends history, then events at a steady rate until told to stop."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self._topics = settings.kafka.topics
        # Waiting for company is part of what is measured.
        servers = settings.kafka.bootstrap_servers
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 20})
        self._dice = np.random.default_rng(1)
        self._sent = 0
        self._line: Line | None = None
        self.stopping = threading.Event()

    def send_history(self, end_ms: int) -> None:
        """Some events of every item in each of the last minutes."""
        for minute in range(HISTORY_MINUTES, 0, -1):
            for part in range(2):
                self._send(end_ms - minute * MINUTE_MS + part * 30_000, ITEMS)
        assert self._producer.flush(60) == 0

    def begin(self, line: Line) -> None:
        """Live from now on."""
        self._line = line
        self.start()

    def run(self) -> None:
        assert self._line is not None
        started_s, done = time.monotonic(), 0
        while not self.stopping.wait(TICK_S):
            due = int((time.monotonic() - started_s) * RATE)
            self._send(self._line.shop(time.time() * 1_000), due - done)
            done = due
        self._producer.flush(10)

    def _send(self, at_ms: int, count: int) -> None:
        items = self._dice.integers(0, ITEMS, count).tolist()
        orders = (self._dice.random(count) < ORDERS).tolist()
        for item, order in zip(items, orders, strict=True):
            n = self._sent = self._sent + 1
            topic = self._topics.orders if order else self._topics.clicks
            value = ORDER % (n, at_ms, item) if order else CLICK % (n, n, at_ms, item)
            # Of the shop's clock, or what a fast one says would soon be from the future.
            self._producer.produce(topic, value, b"sku-%04d" % item, timestamp=at_ms)
        self._producer.poll(0)


class Reader(threading.Thread):
    """A foreign program: when it had each forecast, by cutoff."""

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
        self.arrived_ms: dict[int, list[float]] = {}
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                now_ms = time.time() * 1_000
                cutoff_ms = msgspec.json.decode(message.value() or b"")["cutoff_ms"]
                self.arrived_ms.setdefault(cutoff_ms, []).append(now_ms)
        self._consumer.close()

    def wait_for(self, cutoffs: int, after_ms: int) -> list[int]:
        """The first so many cutoffs after a time of which every item's forecast has come."""
        deadline_s = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline_s:
            there = dict(self.arrived_ms)
            found = sorted(at for at in there if at > after_ms and len(there[at]) >= ITEMS)
            if len(found) >= cutoffs:
                break
            time.sleep(0.1)
        return found[:cutoffs]


@contextmanager
def process(
    command: str, environ: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """One of freshet's commands, killed at the end."""
    argv = [sys.executable, "-m", "freshet", command]
    with log.open("ab") as output:
        child = subprocess.Popen(argv, env={**os.environ, **environ}, stderr=output, stdout=output)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(30)


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Other work for so many cores."""
    command = [sys.executable, "-c", "while True: pass"]
    children = [subprocess.Popen(command) for _ in range(loops)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def read_s(port: int) -> tuple[float, float]:
    """Seconds that the worker has spent reading Redis, and how often it did."""
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    name = "freshet_worker_stage_seconds_"
    found = {
        line.partition("{")[0].removeprefix(name): float(line.split()[-1])
        for line in page.splitlines()
        if line.startswith(name) and 'stage="read"' in line and "bucket" not in line
    }
    return found["sum"], found["count"]


def cpu_s(child: subprocess.Popen[bytes]) -> float:
    """CPU time of a process so far, all its threads."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def phase(
    reader: Reader, line: Line, worker: subprocess.Popen[bytes], port: int, cutoffs: int
) -> dict[str, Any]:
    """Ages of the forecasts of the next cutoffs, and what the worker took meanwhile."""
    began_s, cpu_before = time.monotonic(), cpu_s(worker)
    read_before, reads_before = read_s(port)
    found = reader.wait_for(cutoffs, line.shop(time.time() * 1_000))
    wall_s = time.monotonic() - began_s
    read_after, reads_after = read_s(port)
    ages_s = [
        (arrived_ms - line.wall(at_ms)) / 1_000
        for at_ms in found
        for arrived_ms in reader.arrived_ms[at_ms]
    ]
    numbers = np.percentile(ages_s, (50, 99, 100)) if ages_s else [float("nan")] * 3
    missed = (found[-1] - found[0]) // MINUTE_MS + 1 - len(found) if found else cutoffs
    return {
        "cutoffs": len(found),
        "cutoffs_missed": missed,
        **dict(
            zip(("p50_s", "p99_s", "max_s"), (round(float(n), 2) for n in numbers), strict=True)
        ),
        "worker_cores": round((cpu_s(worker) - cpu_before) / wall_s, 3),
        # Wall time: more than CPU time, above all where others want the core.
        "reading_share": round((read_after - read_before) / wall_s, 4),
        "reads_a_second": round((reads_after - reads_before) / wall_s, 2),
        "load": os.getloadavg()[0],
    }


def measure(folder: Path, cutoffs: int, speed: float, workers: list[str]) -> dict[str, Any]:
    """These workers, each quiet and beside busy loops."""
    with ExitStack() as stack:
        kafka = stack.enter_context(RealKafka(Path(os.environ["KAFKA_HOME"]), folder / "kafka"))
        redis = stack.enter_context(EmbeddedRedis(folder / "redis"))
        port = free_port()
        environ = {
            "FRESHET_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "FRESHET_REDIS__URL": redis.url,
            "FRESHET_WORKER__RESOLUTION_MS": str(MINUTE_MS),
            "FRESHET_WORKER__HTTP_PORT": str(port),
        }
        settings = load(environ=environ).settings
        ensure_topics(settings, live=False)
        line = begin_clock(settings, speed)
        shop, reader = Shop(settings), Reader(settings)
        shop.send_history(line.shop_ms)
        shop.begin(line)
        stack.callback(shop.stopping.set)
        reader.start()
        stack.callback(reader.stopping.set)
        stack.enter_context(process("ingest", environ, folder / "ingest.log"))
        found: dict[str, Any] = {}
        for name in workers:
            threads = WORKERS[name]
            with process("worker", {**environ, **threads}, folder / f"{name}.log") as worker:
                # The first rounds read everything and learn how steps move together.
                reader.wait_for(2, line.shop(time.time() * 1_000))
                quiet = phase(reader, line, worker, port, cutoffs)
                with busy(BUSY_LOOPS):
                    beside = phase(reader, line, worker, port, cutoffs)
            found[name] = {"quiet": quiet, f"beside_{BUSY_LOOPS}_busy_loops": beside}
            print(json.dumps({name: found[name]}, indent=2), flush=True)
    return found


def begin_clock(settings: Settings, speed: float) -> Line:
    """Have the shop's clock run from now on."""
    client = connect(settings.redis)
    set_anchor(client, int(time.time() * 1_000), speed)
    anchor = read_anchor(client)
    assert anchor is not None
    return Line(anchor.wall_ms, anchor.simulated_ms, anchor.speed)


def main() -> None:
    """Measure, print and write bench/results/freshness.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutoffs", type=int, default=6, help="Minutes of each phase.")
    parser.add_argument("--speed", type=float, default=2.0, help="Of the shop's clock.")
    parser.add_argument("--workers", nargs="+", choices=WORKERS, default=list(WORKERS))
    arguments = parser.parse_args()
    if not os.environ.get("KAFKA_HOME"):
        parser.error("set KAFKA_HOME to the folder of an unpacked Kafka")
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.cutoffs, arguments.speed, arguments.workers)
    setting = {"items": ITEMS, "events_a_second": RATE, "usable_cores": usable_threads()}
    numbers = {**setting, **vars(arguments), **found}
    print(write_result("freshness", numbers, ["torch", "confluent-kafka", "redis", "numpy"]))


if __name__ == "__main__":
    main()
