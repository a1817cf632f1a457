"""A small shop for tests with real servers: its settings, its records, an ingest in a thread."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from freshet.stream.config import Settings, load
from freshet.stream.ingest.process import Ingest
from freshet.stream.kafka import Publisher, TableReader, TableRecord
from freshet.stream.schemas import SHOP_TABLES
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import OUTCOMES
from freshet.stream.store.redis import WindowStore

START_MS = 1_767_225_600_000
TIMEOUT_S = 240.0
# As short as a busy machine bears: after a kill a group waits so long for the dead member, and a
# mock cluster waits a second less before it answers a second join.
SESSION_MS = "2000"


def environ_for(bootstrap_servers: str, redis_url: str, name: str, **over: str) -> dict[str, str]:
    """Own topics and an own group for each test; idle soon, so that idleness can be waited for."""
    name = f"t{abs(hash(name)) % 10**8}"
    environ = {
        "FRESHET_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "FRESHET_KAFKA__GROUP_PREFIX": name,
        "FRESHET_KAFKA__REQUEST_TIMEOUT_MS": "3000",
        "FRESHET_KAFKA__SESSION_TIMEOUT_MS": SESSION_MS,
        "FRESHET_REDIS__URL": redis_url,
        "FRESHET_REDIS__TIMEOUT_MS": "1000",
        "FRESHET_WINDOWS__IDLE_MS": "600",
    }
    for topic in ("orders", "clicks", "late", "windows", "alerts", *SHOP_TABLES):
        environ[f"FRESHET_KAFKA__TOPICS__{topic.upper()}"] = f"{name}.{topic}"
    return environ | over


def settings_for(bootstrap_servers: str, redis_url: str, name: str, **over: str) -> Settings:
    return load(environ=environ_for(bootstrap_servers, redis_url, name, **over)).settings


def order(number: int, *, sku: str = "a", event_time_ms: int = 0) -> bytes:
    event = {
        "event_id": f"o{number}",
        "sku": sku,
        "region": "north",
        "quantity": 2,
        "unit_price": 1.5,
        "event_time": event_time_ms or START_MS + number * 100,
    }
    return json.dumps(event).encode()


def send(settings: Settings, values: Sequence[bytes | None], *, partition: int = 0) -> None:
    """Records onto one partition of the orders topic, a tenth of a second apart by their stamps."""
    with Publisher(settings, message_max_bytes=4_000_000) as publisher:
        for number, value in enumerate(values):
            publisher.produce(
                settings.kafka.topics.orders,
                value,
                key=b"key",
                partition=partition,
                headers=[("trace", b"t1")],
                timestamp_ms=START_MS + number * 100,
            )
        publisher.flush()


def read(settings: Settings, topic: str) -> list[TableRecord]:
    with TableReader(settings, [topic]) as reader:
        return reader.read_to_end()


def books(settings: Settings, partition: int = 0) -> dict[str, int]:
    """How many records of an orders partition were read, and what became of them."""
    header = store_of(settings).header(settings.kafka.topics.orders, partition)
    return {} if header is None else {name: getattr(header, name) for name in ("read", *OUTCOMES)}


def booked(**counts: int) -> dict[str, int]:
    """The books that hold these counts and nothing else."""
    return {"read": sum(counts.values())} | {name: counts.get(name, 0) for name in OUTCOMES}


def store_of(settings: Settings) -> WindowStore:
    return WindowStore(connect(settings.redis), settings.redis.generation)


@contextmanager
def running(
    settings: Settings, into: int | None = None, made: Ingest | None = None
) -> Iterator[Ingest]:
    """An ingest in a thread of this process; what it raised is raised here."""
    ingest = made or Ingest(settings, into)
    failures: list[Exception] = []

    def target() -> None:
        try:
            ingest.run()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=target, name="ingest")
    thread.start()
    try:
        yield ingest
    finally:
        ingest.stop()
        thread.join(TIMEOUT_S)
        ingest.close()
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def wait_for(claim: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Until something is so."""
    deadline_s = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline_s, "it did not come about in time"
        time.sleep(0.02)


def never(claim: Callable[[], object], watched_s: float) -> bool:
    """Whether something does not come about for so long."""
    end_s = time.monotonic() + watched_s
    while time.monotonic() < end_s:
        if claim():
            return False
        time.sleep(0.02)
    return True
