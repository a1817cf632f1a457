"""Records that Kafka takes, takes later, or never takes: what becomes of each, on a real broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]
from prometheus_client import CollectorRegistry

from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.health import Health
from freshet.stream.kafka import Delivery, Outgoing, Publisher, TableReader, admin, ensure_topics
from freshet.stream.kafka import delivery as module
from freshet.stream.kafka.client import consumer
from freshet.stream.kafka.publisher import RecordsRefusedError
from freshet.stream.process import Stop
from freshet.stream.units import HOUR_MS
from tests.starved import Stopwatch


class Place:
    """A topic that takes at most 2,000 bytes, and no time over an hour ahead; one that is not."""

    def __init__(self, broker: str) -> None:
        kafka = KafkaSettings(bootstrap_servers=broker, request_timeout_ms=3_000)
        self.settings = Settings(kafka=kafka)
        self.topic = f"small-{uuid.uuid4().hex[:8]}"
        self.missing = f"missing-{uuid.uuid4().hex[:8]}"
        self.client = admin(self.settings)
        self.make(self.topic)
        self.stop, self.registry = Stop(), CollectorRegistry()
        self.health = Health(self.stop, "")
        self.health.over("start")
        # A missing topic is believed after a second, not after half a minute.
        self.publisher = Publisher(self.settings, topic_metadata_propagation_max_ms=500)
        self.delivery = Delivery(self.publisher, self.health, self.registry)

    def make(self, topic: str) -> None:
        config = {"max.message.bytes": "2000", "message.timestamp.type": "CreateTime"}
        self.client.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(10)

    def values(self, topic: str) -> list[bytes | None]:
        with TableReader(self.settings, [topic]) as reader:
            return [record.value for record in reader.read_to_end()]

    def refused(self, topic: str) -> float | None:
        return self.registry.get_sample_value("freshet_records_refused_total", {"topic": topic})


@pytest.fixture
def place(kafka_broker: str) -> Iterator[Place]:
    place = Place(kafka_broker)
    yield place
    place.publisher.close()


def test_new_topics_have_leaders_once_they_are_said_to_be_there(kafka_broker: str) -> None:
    """Else the first batch to a partition may be refused and lost behind the second one."""
    for _ in range(5):
        run = uuid.uuid4().hex[:8]
        names = {"orders": f"orders-{run}", "clicks": f"clicks-{run}"}
        kafka = KafkaSettings(bootstrap_servers=kafka_broker, topics=names)
        settings = Settings(kafka=kafka)
        ensure_topics(settings, live=False)
        client = consumer(settings, "leaders")
        for name in names.values():
            for number in range(kafka.partitions):
                assert client.get_watermark_offsets(TopicPartition(name, number), 5) == (0, 0)
        client.close()


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    log = SimpleNamespace(error=lambda event, **fields: said.append({"event": event, **fields}))
    monkeypatch.setattr(module, "log", log)
    return said


def test_what_is_too_large_is_logged_with_its_bytes_and_the_others_go_on(
    place: Place, given_up: list[dict[str, Any]]
) -> None:
    # Incompressible, or it would fit.
    large = bytes(hash(str(number)) % 256 for number in range(5_000))
    larger = bytes(2_000_000)
    sent = [Outgoing(place.topic, b"k", value) for value in (b"1", large, b"2", larger, b"3")]
    watch = Stopwatch()
    assert place.delivery.deliver(sent)
    assert watch.seconds() < 5, "it is not tried again"
    assert place.values(place.topic) == [b"1", b"2", b"3"]
    assert place.refused(place.topic) == 2
    sizes = [(one["event"], one["topic"], one["value_bytes"]) for one in given_up]
    refused = ("record_refused", place.topic)
    assert sorted(sizes) == sorted([(*refused, 5_000), (*refused, 2_000_000)])
    assert place.health.ready() is None


def test_a_time_that_the_broker_does_not_take_is_a_refusal(place: Place) -> None:
    ahead_ms = time.time_ns() // 1_000_000 + 3 * HOUR_MS
    place.publisher.produce(place.topic, b"ahead", key=b"k", timestamp_ms=ahead_ms)
    with pytest.raises(RecordsRefusedError) as caught:
        place.publisher.flush()
    (refusal,) = caught.value.refusals
    assert (refusal.topic, refusal.key, refusal.value) == (place.topic, b"k", b"ahead")
    assert refusal.unfit and not caught.value.retriable
    place.publisher.flush()


def test_what_may_be_lost_does_not_wait_for_a_topic_that_is_missing(
    place: Place, given_up: list[dict[str, Any]]
) -> None:
    letters = [Outgoing(place.missing, b"k", b"letter"), Outgoing(place.topic, b"k", b"other")]
    assert place.delivery.deliver(letters, may_lose=True)
    assert [one["value"] for one in given_up] == ["bGV0dGVy"], "base64 of b'letter'"
    assert place.refused(place.missing) == 1
    assert place.values(place.topic) == [b"other"]


def test_what_may_not_be_lost_waits_for_its_topic_and_is_sent_once_it_is_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str | None] = []

    def pause() -> bool:
        waited.append(place.health.ready())
        if len(waited) == 1:
            place.make(place.missing)
        return True

    monkeypatch.setattr(place.health, "_back_off", SimpleNamespace(pause=pause, reset=lambda: None))
    sent = [Outgoing(place.missing, b"k", b"kept"), Outgoing(place.topic, b"k", b"other")]
    assert place.delivery.deliver(sent)
    assert place.values(place.missing) == [b"kept"]
    assert place.values(place.topic) == [b"other"], "what was taken is not sent again"
    assert "1 records were refused for good" in (waited[0] or "")
    assert place.health.ready() is None


def test_told_to_stop_it_does_not_wait(place: Place) -> None:
    place.stop.set()
    watch = Stopwatch()
    assert not place.delivery.deliver([Outgoing(place.missing, b"k", b"lost")])
    assert watch.seconds() < 5
