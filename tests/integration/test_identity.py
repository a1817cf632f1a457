"""A topic that was deleted and made again is refused, on a real Kafka; more partitions are fine."""

from __future__ import annotations

import random
import threading

import pytest
from confluent_kafka.admin import NewPartitions

from freshet.stream.config import EventSettings, Settings
from freshet.stream.errors import BrokerError, ConfigError, LogLostError
from freshet.stream.ingest.identity import TopicIdentity
from freshet.stream.ingest.process import run
from freshet.stream.kafka import Publisher, admin, cluster, ensure_topics, topic_ids
from freshet.stream.ops.redis_checks import check_windows
from freshet.stream.verify.verify import verify
from tests.integration.messy_log import START_MS, state_value
from tests.integration.shop import (
    books,
    order,
    running,
    send,
    settings_for,
    store_of,
    wait_for,
)


@pytest.fixture
def settings(kafka_broker: str, redis_server: str, request: pytest.FixtureRequest) -> Settings:
    settings = settings_for(kafka_broker, redis_server, request.node.name)
    ensure_topics(settings, live=False)
    return settings


def remake(settings: Settings, partitions: int) -> None:
    """Delete the orders topic and make it again."""
    topic, client = settings.kafka.topics.orders, admin(settings)
    client.delete_topics([topic])[topic].result(20)
    wait_for(lambda: topic not in cluster(settings).partitions)
    over = settings.kafka.model_copy(update={"partitions": partitions})
    ensure_topics(settings.model_copy(update={"kafka": over}), live=False)
    wait_for(lambda: cluster(settings).partitions.get(topic) == partitions)


def test_a_topic_made_again_is_refused_although_it_is_longer_than_the_old_one(
    settings: Settings,
) -> None:
    send(settings, [order(n) for n in range(5)])
    run(settings, until_end=True)
    remake(settings, 4)
    send(settings, [order(n) for n in range(100, 150)])
    before = store_of(settings).header(settings.kafka.topics.orders, 0)
    with pytest.raises(
        LogLostError, match=r"deleted and made again.*--from-beginning --into GENERATION"
    ):
        run(settings, until_end=True)
    assert store_of(settings).header(settings.kafka.topics.orders, 0) == before
    run(settings, until_end=True, into=1)
    report = verify(settings)
    assert report.agrees and report.generation == 1, report.as_text()


def test_fewer_partitions_are_refused_with_the_way_out(settings: Settings) -> None:
    send(settings, [order(1)], partition=3)
    run(settings, until_end=True)
    remake(settings, 2)
    with pytest.raises(
        LogLostError, match=r"has 2 partitions, and there are windows of partition 3.*--into"
    ):
        run(settings, until_end=True)


def test_another_shops_windows_are_not_added_to(settings: Settings) -> None:
    """Both read all that a generation holds, so each would forecast what both sell."""
    send(settings, [order(1)])
    run(settings, until_end=True)
    topics = settings.kafka.topics.model_copy(update={"orders": "other.orders"})
    kafka = settings.kafka.model_copy(update={"topics": topics})
    other = settings.model_copy(update={"kafka": kafka})
    ensure_topics(other, live=False)
    send(other, [order(2)])
    named = f"generation 0 in Redis holds windows of {settings.kafka.topics.orders}, which is not"
    with pytest.raises(ConfigError, match=f"{named} kafka.topics.orders.*redis.url may end in /1"):
        run(other, until_end=True)
    [check] = check_windows(other)
    assert (check.state, check.message.startswith(named)) == ("problem", True)
    assert store_of(other).header("other.orders", 0) is None, "nothing was claimed"
    run(other, until_end=True, into=1)
    assert verify(other).agrees


def test_more_partitions_are_taken_up(settings: Settings) -> None:
    send(settings, [order(1)])
    run(settings, until_end=True)
    topic = settings.kafka.topics.orders
    client = admin(settings)
    client.create_partitions([NewPartitions(topic, 6)])[topic].result(20)
    wait_for(lambda: cluster(settings).partitions.get(topic) == 6)
    send(settings, [order(2)], partition=5)
    run(settings, until_end=True)
    assert books(settings, 5)["applied"] == 1
    assert verify(settings).agrees


def test_more_partitions_are_refused_with_the_way_out_where_orders_are_states(
    settings: Settings,
) -> None:
    states = settings.model_copy(update={"events": EventSettings(orders={"mode": "state"})})
    topic = settings.kafka.topics.orders
    with Publisher(settings) as publisher:
        publisher.produce(topic, state_value(random.Random(1), 0, START_MS), key=b"r0")
    run(states, until_end=True)
    assert sum(books(settings, n).get("applied", 0) for n in range(4)) == 1
    client = admin(settings)
    client.create_partitions([NewPartitions(topic, 6)])[topic].result(20)
    wait_for(lambda: cluster(settings).partitions.get(topic) == 6)
    with pytest.raises(ConfigError, match=r"has 6 partitions and had 4 .*; send the orders"):
        run(states, until_end=True)
    run(states, until_end=True, into=1)
    assert verify(states).agrees


def test_a_topic_made_again_under_a_running_ingest_is_noticed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshet.stream.ingest.identity.CHECK_S", 0.2)
    send(settings, [order(1)])
    with pytest.raises((LogLostError, BrokerError)), running(settings):
        wait_for(lambda: books(settings).get("applied") == 1)
        remake(settings, 4)
        wait_for(
            lambda: not any(thread.name.startswith("ingest") for thread in threading.enumerate())
        )


def test_ids_stay_and_differ(settings: Settings) -> None:
    topics = [settings.kafka.topics.orders, settings.kafka.topics.clicks]
    ids = topic_ids(settings, topics)
    assert len(set(ids.values())) == 2 and ids == topic_ids(settings, topics)
    identity = TopicIdentity(settings, topics)
    identity.check(1e9)
    remake(settings, 4)
    with pytest.raises(LogLostError, match="deleted and made again"):
        identity.check(0.0, at_once=True)
