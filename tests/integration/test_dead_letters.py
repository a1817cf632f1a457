"""Dead letters of every topic on a real Kafka: found, and sent again if nothing newer is there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings, Topics
from freshet.stream.errors import BrokerError
from freshet.stream.events.dead_letter import Source, dead_letter, limit_of
from freshet.stream.kafka import Publisher, TableReader, admin, ensure_topics
from freshet.stream.kafka.topics import dead_letter_topic, plan
from freshet.stream.ops.dead_letters import DeadLetterFilter, list_dead_letters, show_dead_letter
from freshet.stream.ops.kafka_checks import check_topics
from freshet.stream.ops.redrive import Redriven, redrive
from freshet.stream.process import BackOff, wait_until
from freshet.stream.schemas import RECORDS, Alert, DriftAlert, Promotion
from freshet.stream.units import HOUR_MS
from tests.integration.test_control import NOW_MS, Process, drift, states


@pytest.fixture
def control(kafka_broker: str, redis_server: str, tmp_path: Path) -> Iterator[Process]:
    process = Process(kafka_broker, redis_server, tmp_path)
    ensure_topics(process.settings, live=True)
    yield process
    if process.process is not None and process.process.poll() is None:
        process.process.kill()
        process.process.wait()


def put(settings: Settings, topic: str, key: str, value: bytes) -> Source:
    """A record on partition 0, as it lies there."""
    for last in (False, True):
        with Publisher(settings) as publisher:
            publisher.produce(topic, value, key=key, partition=0)
            try:
                publisher.flush()
            except BrokerError:
                # A starved broker may take longer than a record waits; once more, as processes do.
                if last:
                    raise
            else:
                break
    with TableReader(settings, [topic]) as reader:
        found = [record for record in reader.read_to_end() if record.partition == 0]
    record = max(found, key=lambda record: record.offset)
    at = topic, 0, record.offset, record.timestamp_ms
    return Source(*at, record.key, record.value, [])


def bury(settings: Settings, *sources: Source) -> None:
    """What a process does that could not use them."""
    limit = limit_of(settings.kafka)
    with Publisher(settings) as publisher:
        for source in sources:
            letter = dead_letter(source, "control", "EventError", "x", limit)
            publisher.produce(letter.topic, letter.value, key=letter.key, headers=letter.headers)
        publisher.flush()


def sale(sku: str, discount: float) -> bytes:
    return encode(
        Promotion(
            promotion_id=sku,
            sku=sku,
            kind="flash_sale",
            starts_at=NOW_MS - HOUR_MS,
            ends_at=NOW_MS + HOUR_MS,
            discount=discount,
        )
    )


def test_a_redriven_promotion_never_replaces_a_newer_one_and_its_header_disturbs_nobody(
    control: Process,
) -> None:
    settings, topics = control.settings, control.settings.kafka.topics
    old = put(settings, topics.promotions, "shoes", sale("shoes", 0.9))
    alone = put(settings, topics.promotions, "hats", sale("hats", 0.2))
    put(settings, topics.promotions, "shoes", sale("shoes", 0.3))
    bury(settings, old, alone)
    assert redrive(settings) == Redriven(sent=1, superseded=1)
    assert redrive(settings, from_start=True) == Redriven(superseded=2), "its own copy is newer"
    with TableReader(settings, [topics.promotions]) as reader:
        lying = sorted(reader.read_to_end(), key=lambda record: record.offset)
    assert [record.key for record in lying] == [b"shoes", b"hats", b"shoes", b"hats"]
    name = f"{topics.promotions}-0-{alone.offset}".encode()
    assert lying[-1].headers == (("freshet-redrive", name),)
    control.start()
    alerts = [decode(Alert, r.value or b"") for r in control.wait_for(topics.alerts, 2)]
    assert {alert.data.state for alert in alerts} == {"firing"}
    said = " ".join(alert.data.description for alert in alerts)
    assert "30" in said and "20" in said and "90" not in said


def test_a_redriven_drift_alert_has_its_effect_and_an_older_one_changes_nothing(
    control: Process,
) -> None:
    settings, topics = control.settings, control.settings.kafka.topics
    stale, fresh = drift("shoes", at_ms=NOW_MS - HOUR_MS), drift("hats")
    letters = [put(settings, topics.drift, "k", encode(alert)) for alert in (stale, fresh)]
    put(settings, topics.drift, "shoes", encode(drift("shoes", "stable", at_ms=NOW_MS)))
    bury(settings, *letters)
    assert redrive(settings, DeadLetterFilter(topics.drift)) == Redriven(sent=2)
    with TableReader(settings, [topics.drift]) as reader:
        again = sorted(reader.read_to_end(), key=lambda record: record.offset)[-2:]
    assert [decode(DriftAlert, record.value or b"") for record in again] == [stale, fresh]
    assert {record.partition for record in again} == {0}, "where they came from"
    control.start()
    control.wait_for(topics.retrain, 1)
    found = dict(states(control.wait_for(topics.alerts, 1)))
    assert found["hats"] == "firing"
    assert found.get("shoes", "resolved") == "resolved"


def test_the_doctor_names_a_topic_that_keeps_raw_records_for_longer_than_was_asked(
    control: Process,
) -> None:
    settings = control.settings
    topic = dead_letter_topic(settings.kafka.topics.orders)
    assert [check.state for check in check_topics(settings)] == ["ok"]
    client = admin(settings)
    for_ever = ConfigEntry("retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)
    asked = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[for_ever])
    for answer in client.incremental_alter_configs([asked]).values():
        answer.result(30)
    # The broker takes a change over from the controller's log a moment later.
    wait_until(lambda: check_topics(settings)[0].state == "warning", 20.0, BackOff(0.05, 0.5))
    (check,) = check_topics(settings)
    assert check.message == f"{topic}: retention.ms: expected 1209600000, found -1"
    assert "kafka.dead_letter_retention_ms" in check.hint


def test_a_cluster_that_was_set_up_before_lacks_most_dead_letter_topics(kafka_broker: str) -> None:
    tag = uuid.uuid4().hex[:8]
    names = {name: f"{tag}.{name}" for name in Topics.model_fields}
    settings = Settings(
        kafka={"bootstrap_servers": kafka_broker, "group_prefix": tag, "topics": names}  # type: ignore[arg-type]
    )
    topics = settings.kafka.topics
    ensure_topics(settings, live=True)
    kept = {dead_letter_topic(topics.orders), dead_letter_topic(topics.clicks)}
    letters = [dead_letter_topic(name) for name in topics.of(*RECORDS)]
    assert {topic.name for topic in plan(settings.kafka, live=True)} >= set(letters)
    client = admin(settings)
    for answer in client.delete_topics([name for name in letters if name not in kept]).values():
        answer.result(30)
    order = put(settings, topics.orders, "k", b"{}")
    bury(settings, order)
    (listed,) = list_dead_letters(settings)
    assert show_dead_letter(settings, listed.place).value == b"{}"
    assert redrive(settings) == Redriven(sent=1)
