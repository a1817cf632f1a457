"""The source on a real protocol: what it sends is in the logs, and never runs ahead of ingest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from freshet.stream.config import KafkaSettings, RedisSettings, Settings, Topics
from freshet.stream.errors import BrokerError
from freshet.stream.ingest.process import run as run_ingest
from freshet.stream.kafka import consumer, ensure_topics, log_range, partitions_of
from freshet.stream.kafka.servers import EmbeddedBroker
from freshet.stream.process import Stop
from freshet.stream.source.batches import SourceBatch
from freshet.stream.source.outlet import MAX_UNREAD_BYTES, KafkaOutlet
from freshet.stream.source.process import Tempo, run_source
from freshet.stream.source.simulator import SimulatedShop, find_scenario
from freshet.stream.store.clock import read_anchor
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.starved import Stopwatch

EVENTS = ("orders", "clicks")


@pytest.fixture
def settings(mock_broker: str, redis_server: str) -> Settings:
    """Topics of this test's own, since the mock cluster is shared."""
    mark = uuid.uuid4().hex[:8]
    topics = Topics(**{name: f"{mark}.{name}" for name in Topics.model_fields})
    made = Settings(
        kafka=KafkaSettings(bootstrap_servers=mock_broker, topics=topics, session_timeout_ms=2_000),
        redis=RedisSettings(url=redis_server),  # type: ignore[arg-type]
    )
    ensure_topics(made, live=False)
    return made


def log_ends(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    client = consumer(settings, "test")
    try:
        return {
            p: log_range(client, topic, p) for p in range(partitions_of(settings, [topic])[topic])
        }
    finally:
        client.close()


def test_what_is_sent_is_in_the_logs_and_ingest_folds_all_of_it(
    settings: Settings, tmp_path: Path
) -> None:
    shop = SimulatedShop(1, 24, find_scenario("drift"), backfill_ms=DAY_MS, live_ms=4 * HOUR_MS)
    stop = threading.Event()
    outcome: dict[str, int] = {}

    def source() -> None:
        outcome.update(
            run_source(
                shop.batches(),
                settings,
                Tempo(shop.live_start_ms, speed=7_200.0, seconds=2),
                stop=stop,
                plan_file=tmp_path / "plan.json",
                plan=shop.plan.facts(),
            )
        )

    thread = threading.Thread(target=source)
    thread.start()
    deadline = time.monotonic() + 180
    while thread.is_alive():
        assert time.monotonic() < deadline, "the source did not end"
        run_ingest(settings, until_end=True)
    thread.join()
    run_ingest(settings, until_end=True)

    names = settings.kafka.topics
    for kind in EVENTS:
        topic = getattr(names, kind)
        assert sum(high for _, high in log_ends(settings, topic).values()) == outcome[topic] > 500
    client = redis.Redis.from_url(settings.redis.url.get_secret_value())
    store = WindowStore(client, settings.redis.generation)
    headers = [header for at in store.partitions() if (header := store.header(*at))]
    assert sum(header.read for header in headers) == sum(
        outcome[getattr(names, kind)] for kind in EVENTS
    )
    assert sum(header.duplicate for header in headers) > 0
    plan = msgspec.json.decode((tmp_path / "plan.json").read_bytes())
    assert plan["phase"] == "done" and plan["backfill_done"] and plan["produced"] == outcome
    assert plan["drift_at_ms"] == shop.plan.drift_at_ms and len(plan["flash_sales"]) == 1
    anchor = read_anchor(client)
    assert anchor is not None and (anchor.simulated_ms, anchor.speed) == (plan["sent_ms"], 0.0)
    assert plan["sent_ms"] > shop.live_start_ms
    client.close()


def test_without_ingest_the_source_holds_back_before_the_broker_forgets(
    settings: Settings, tmp_path: Path
) -> None:
    shop = SimulatedShop(1, 240, find_scenario("calm"))
    stop, plan_file = threading.Event(), tmp_path / "plan.json"
    sent: dict[str, int] = {}

    def source() -> None:
        sent.update(
            run_source(
                shop.batches(),
                settings,
                Tempo(shop.live_start_ms, speed=900.0),
                stop=stop,
                plan_file=plan_file,
            )
        )

    thread = threading.Thread(target=source)
    thread.start()
    try:
        deadline = time.monotonic() + 180
        while not (plan_file.exists() and b'"waiting_for_ingest":true' in plan_file.read_bytes()):
            assert time.monotonic() < deadline, "the source never held back"
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join(120)
    assert not thread.is_alive()
    topic = settings.kafka.topics.clicks
    ends = log_ends(settings, topic)
    assert all(low == 0 for low, _ in ends.values()), "the broker has dropped unread records"
    assert sum(high for _, high in ends.values()) == sent[topic] > 10_000
    outlet = KafkaOutlet(settings, Stop())
    try:
        for batch in shop.batches():
            outlet.send(batch)
            if outlet.produced[topic] >= 2_000:
                break
        assert not outlet.drained() and 0 < outlet.unread_bytes() < 2 * MAX_UNREAD_BYTES
    finally:
        outlet.close()


# Servers that go away -----------------------------------------------------------------------------

SLICE_MS = 50
ENDED_WITHIN_S = 10.0


def endless() -> Iterator[SourceBatch]:
    """One small order each `SLICE_MS`, too little for ingest to be missed."""
    start_ms = 1_000_000
    while True:
        yield SourceBatch(start_ms, start_ms + SLICE_MS, ["orders"], [b"a"], [b"order"], [start_ms])
        start_ms += SLICE_MS


def wait_for(so: object, timeout_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not so():  # type: ignore[operator]
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)


def test_a_redis_that_stalls_is_waited_for_and_the_source_goes_on(
    settings: Settings, tmp_path: Path
) -> None:
    stop, outcome = Stop(), []
    with EmbeddedRedis(tmp_path / "redis") as server:
        own = RedisSettings(url=server.url, timeout_ms=200)  # type: ignore[arg-type]
        made = settings.model_copy(update={"redis": own})
        client = redis.Redis.from_url(server.url, socket_timeout=30)

        def source() -> None:
            tempo = Tempo(0, speed=1.0)
            outcome.append(run_source(endless(), made, tempo, stop=stop))

        def clock_ms() -> int:
            anchor = read_anchor(client)
            return -1 if anchor is None else anchor.simulated_ms

        thread = threading.Thread(target=source)
        thread.start()
        try:
            wait_for(lambda: clock_ms() > 0)
            server.process.send_signal(signal.SIGSTOP)
            # Stopped for so long, the clock's next move runs into ten timeouts.
            thread.join(2.0)
            server.process.send_signal(signal.SIGCONT)
            assert thread.is_alive()
            before_ms = clock_ms()
            topic = settings.kafka.topics.orders
            sent = sum(high for _, high in log_ends(settings, topic).values())
            wait_for(lambda: sum(high for _, high in log_ends(settings, topic).values()) > sent)
        finally:
            server.process.send_signal(signal.SIGCONT)
            stop.set()
            thread.join(120)
        assert clock_ms() > before_ms
        (sent_by_topic,) = outcome
        assert sum(high for _, high in log_ends(settings, topic).values()) == sent_by_topic[topic]
        client.close()


def test_what_the_broker_did_not_take_is_sent_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet, batches = KafkaOutlet(settings, Stop()), endless()
    flush, failures = outlet._publisher.flush, [BrokerError("2 records were not acknowledged")]

    def failing(*given: Any, **more: Any) -> None:
        flush(*given, **more)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(outlet._publisher, "flush", failing)
    try:
        outlet.send(next(batches))
        outlet.send(next(batches))
        outlet.flush()
        outlet.send(next(batches))
        outlet.flush()
    finally:
        outlet.close()
    topic = settings.kafka.topics.orders
    # Two that were in the log although the broker did not say so, the same two again, and one.
    assert sum(high for _, high in log_ends(settings, topic).values()) == 2 + 2 + 1
    assert outlet.produced[topic] == 3


def test_sigterm_ends_simulate_within_10_s_while_broker_and_redis_are_stopped(
    tmp_path: Path,
) -> None:
    code = """
from pathlib import Path
from freshet.stream.config import load
from freshet.stream.source.process import simulate
simulate(load().settings, items=6, history_days=1, plan=Path("plan"))
"""
    with EmbeddedBroker() as broker, EmbeddedRedis(tmp_path / "redis") as server:
        environ = {
            **os.environ,
            "FRESHET_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "FRESHET_REDIS__URL": server.url,
        }
        process = subprocess.Popen([sys.executable, "-c", code], env=environ, cwd=tmp_path)
        try:
            wait_for(lambda: (tmp_path / "plan").exists())
            for one in (broker, server):
                one.process.send_signal(signal.SIGSTOP)
            time.sleep(1.0)  # It has met both by then: it asks every 20 ms.
            watch = Stopwatch(process.pid)
            process.terminate()
            took_s = watch.until_end(process.pid)
            process.wait()
        finally:
            process.kill()
            for one in (broker, server):
                one.process.send_signal(signal.SIGCONT)
        print(f"ended after {took_s:.1f} s with status {process.returncode}")
        assert took_s < ENDED_WITHIN_S
