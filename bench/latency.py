"""How long from sending an event until Redis holds it, and how long ingest is gone after a SIGKILL.

A real Kafka (KAFKA_HOME) and a real Redis; `freshet ingest` runs as it ships. An event is visible
when the stored offset of its partition has passed it; Redis is asked every two milliseconds.
Recovery is from the start of the new process to its first write, with a million events behind it in
Redis and new ones waiting in the log. The producer waits 20 ms for company, which is part of what
is measured: with 5 its many small requests keep the broker busy.

Run: KAFKA_HOME=... python -m bench.latency [--rate 20000] [--seconds 20] [--history 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, Message

from bench.report import write_result
from bench.shop_log import START_MS, Kind, ShopLog, publish
from freshet.stream.config import Settings, load
from freshet.stream.kafka import Key, ensure_topics, producer
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Keys
from freshet.stream.store.server import EmbeddedRedis

ROOT = Path(__file__).parent.parent
LOOK_S = 0.002
TICK_S = 0.005
LONGEST_S = 120.0


class Watcher(threading.Thread):
    """Notes when each partition's stored offset was first seen."""

    def __init__(self, settings: Settings, places: list[Key]) -> None:
        super().__init__(daemon=True)
        self._client = connect(settings.redis)
        self._headers = {place: Keys(settings.redis.generation, *place).header for place in places}
        self.seen: dict[Key, list[tuple[int, float]]] = {place: [] for place in places}
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(LOOK_S):
            pipe = self._client.pipeline(transaction=False)
            for header in self._headers.values():
                pipe.hget(header, "next_offset")
            offsets, now_s = pipe.execute(), time.monotonic()
            for place, offset in zip(self._headers, offsets, strict=True):
                seen = self.seen[place]
                if offset is not None and (not seen or seen[-1][0] != int(offset)):
                    seen.append((int(offset), now_s))

    def applied(self) -> int:
        """Offsets of all partitions together."""
        return sum(seen[-1][0] for seen in self.seen.values() if seen)


@contextmanager
def ingest(environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`freshet ingest`, killed at the end if it still runs."""
    command = [sys.executable, "-m", "freshet", "ingest"]
    child = subprocess.Popen(command, env={**os.environ, **environ}, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def wait_for(watcher: Watcher, offsets: int) -> None:
    """Until so many records are in the windows."""
    deadline_s = time.monotonic() + LONGEST_S
    while watcher.applied() < offsets:
        late = f"{watcher.applied()} of {offsets} after {LONGEST_S} s"
        assert time.monotonic() < deadline_s, late
        time.sleep(LOOK_S)


def send_steadily(
    settings: Settings, rate: int, seconds: int
) -> dict[Key, list[tuple[int, float]]]:
    """Events with wall-clock times at a steady rate.

    Returns:
        By partition, each event's offset and when it was handed to the client.
    """
    topics: dict[Kind, str] = {
        "orders": settings.kafka.topics.orders,
        "clicks": settings.kafka.topics.clicks,
    }
    sent: dict[Key, list[tuple[int, float]]] = {}
    client = producer(settings, queue_buffering_max_messages=1_000_000, linger_ms=20)
    records = ShopLog(rate * seconds, rate=rate, seed=7).records()
    shift_ms = int(time.time() * 1_000) - START_MS
    started_s, done = time.monotonic(), 0
    while done < rate * seconds:
        due = min(rate * seconds, int((time.monotonic() - started_s) * rate))
        for kind, key, value, _ in islice(records, due - done):

            def delivered(
                error: KafkaError | None, message: Message, at_s: float = time.monotonic()
            ) -> None:
                assert error is None, error
                place = message.topic() or "", message.partition() or 0
                sent.setdefault(place, []).append((message.offset() or 0, at_s))

            client.produce(topics[kind], _moved(value, shift_ms), key, on_delivery=delivered)
        done = due
        client.poll(0)
        time.sleep(TICK_S)
    assert client.flush(30) == 0
    return sent


def _moved(value: bytes, shift_ms: int) -> bytes:
    """The event at a later time."""
    head, _, rest = value.partition(b'"event_time":')
    return b'%s"event_time":%d%s' % (head, int(rest[:13]) + shift_ms, rest[13:])


def latencies_ms(
    sent: dict[Key, list[tuple[int, float]]], seen: dict[Key, list[tuple[int, float]]]
) -> dict[str, float]:
    """Percentiles over all events."""
    waited: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    for place, records in sent.items():
        offsets, at_s = (np.array(column) for column in zip(*seen[place], strict=True))
        record_offsets, sent_s = (np.array(column) for column in zip(*records, strict=True))
        waited.append(at_s[np.searchsorted(offsets, record_offsets, side="right")] - sent_s)
    found = np.percentile(np.concatenate(waited) * 1_000, (50, 90, 99, 99.9))
    names = ("p50", "p90", "p99", "p99_9")
    return {name: round(float(ms), 1) for name, ms in zip(names, found, strict=True)}


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """History, a kill, the recovery, then the steady stream."""
    kafka = RealKafka(Path(os.environ["KAFKA_HOME"]), folder / "kafka")
    with kafka, EmbeddedRedis(folder / "redis") as redis:
        environ = {
            "FRESHET_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "FRESHET_KAFKA__GROUP_INSTANCE_ID": "bench",
            "FRESHET_REDIS__URL": redis.url,
        }
        settings = load(environ=environ).settings
        ensure_topics(settings, live=False)
        watcher = Watcher(settings, event_partitions(settings))
        watcher.start()
        publish(ShopLog(arguments.history), settings)
        with ingest(environ):
            wait_for(watcher, arguments.history)
        waiting = ShopLog(1_000, seed=2)
        publish(waiting, settings)
        done = arguments.history + waiting.events
        started_s = time.monotonic()
        with ingest(environ):
            wait_for(watcher, arguments.history + 1)
            recovery_s = time.monotonic() - started_s
            wait_for(watcher, done)
            sent = send_steadily(settings, arguments.rate, arguments.seconds)
            wait_for(watcher, done + arguments.rate * arguments.seconds)
        watcher.stopping.set()
        watcher.join()
    return {"recovery_s": round(recovery_s, 2), "latency_ms": latencies_ms(sent, watcher.seen)}


def event_partitions(settings: Settings) -> list[Key]:
    """Every partition of the event topics."""
    topics = (settings.kafka.topics.orders, settings.kafka.topics.clicks)
    return [(topic, n) for topic in topics for n in range(settings.kafka.partitions)]


def main() -> None:
    """Measure, print and write bench/results/latency.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--history", type=int, default=1_000_000)
    arguments = parser.parse_args()
    if not os.environ.get("KAFKA_HOME"):
        parser.error(
            "set KAFKA_HOME to the folder of an unpacked Kafka: the embedded broker forgets history"
        )
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments)
    numbers = {**vars(arguments), **found}
    print(json.dumps(numbers, indent=2))
    print(write_result("latency", numbers, ["confluent-kafka", "redis", "numpy"]))


if __name__ == "__main__":
    main()
