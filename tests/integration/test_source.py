"""The source on a real protocol: what it sends is in the logs, and never runs ahead of ingest."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path

import msgspec
import pytest
import redis

from freshet.stream.config import KafkaSettings, RedisSettings, Settings, Topics
from freshet.stream.ingest.process import run as run_ingest
from freshet.stream.kafka import consumer, ensure_topics, log_range, partitions_of
from freshet.stream.source.outlet import MAX_UNREAD_BYTES, KafkaOutlet
from freshet.stream.source.process import Tempo, run_source
from freshet.stream.source.simulator import SimulatedShop, find_scenario
from freshet.stream.store.clock import read_anchor
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import DAY_MS, HOUR_MS

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
    deadline = time.monotonic() + 60
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
        deadline = time.monotonic() + 60
        while not (plan_file.exists() and b'"waiting_for_ingest":true' in plan_file.read_bytes()):
            assert time.monotonic() < deadline, "the source never held back"
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    topic = settings.kafka.topics.clicks
    ends = log_ends(settings, topic)
    assert all(low == 0 for low, _ in ends.values()), "the broker has dropped unread records"
    assert sum(high for _, high in ends.values()) == sent[topic] > 10_000
    outlet = KafkaOutlet(settings)
    try:
        for batch in shop.batches():
            outlet.send(batch)
            if outlet.produced[topic] >= 2_000:
                break
        assert not outlet.drained() and 0 < outlet.unread_bytes() < 2 * MAX_UNREAD_BYTES
    finally:
        outlet.close()
