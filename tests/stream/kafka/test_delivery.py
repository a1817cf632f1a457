"""Records that Kafka takes, takes later, or never takes: what becomes of each, on a real broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]
from prometheus_client import CollectorRegistry

from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.errors import BrokerError, StoreUnavailableError
from freshet.stream.health import Health
from freshet.stream.kafka import Delivery, Outgoing, Publisher, TableReader, admin
from freshet.stream.kafka import delivery as module
from freshet.stream.kafka.publisher import RecordsRefusedError, Refusal
from freshet.stream.process import Stop
from freshet.stream.units import HOUR_MS


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
    started_s = time.monotonic()
    assert place.delivery.deliver(sent)
    assert time.monotonic() - started_s < 5, "it is not tried again"
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
    started_s = time.monotonic()
    assert not place.delivery.deliver([Outgoing(place.missing, b"k", b"lost")])
    assert time.monotonic() - started_s < 5


# With a broker made up ----------------------------------------------------------------------------

OUTGOING = [Outgoing("log", b"a|n", b"1"), Outgoing("latest", b"b|n", b"2")]


class Broker:
    """Fails at the steps it is told; keeps what was produced before each flush."""

    def __init__(self, *failures: str) -> None:
        self.failures = list(failures)
        self.queued: list[Outgoing] = []
        self.acknowledged: list[list[Outgoing]] = []
        self.told: list[str] = []
        self.closed = False

    def produce(self, topic: str, value: bytes, *, key: bytes, **_: Any) -> None:
        self._may_fail("produce")
        self.queued.append(Outgoing(topic, key, value))

    def flush(self, **_: Any) -> None:
        queued, self.queued = self.queued, []
        self._may_fail("flush")
        self.acknowledged.append(queued)

    def close(self) -> None:
        self.closed = True

    def _may_fail(self, step: str) -> None:
        if self.failures and self.failures[0] == step:
            self.failures.pop(0)
            raise BrokerError(f"no {step}")


def delivery_of(broker: Broker, stop: Stop | None = None, *, stops: bool = False) -> Delivery:
    stop = stop or Stop()

    def wait_out(error: BrokerError) -> bool:
        broker.told.append(str(error))
        return not stops

    health: Any = SimpleNamespace(
        wait_out=wait_out,
        answered=lambda: broker.told.append("answered"),
        over=lambda what: broker.told.append(f"{what} is over"),
        stop=stop,
    )
    return Delivery(broker, health, CollectorRegistry())  # type: ignore[arg-type]


def test_all_records_are_acknowledged_under_their_topic_and_key() -> None:
    broker = Broker()
    assert delivery_of(broker).deliver(OUTGOING) is True
    assert broker.acknowledged == [OUTGOING]
    assert broker.told == ["answered", "broker is over"]


def test_after_a_failure_all_are_sent_again_and_an_answer_is_told_once_all_are_there() -> None:
    broker = Broker("flush", "produce")
    assert delivery_of(broker).deliver(OUTGOING) is True
    assert broker.acknowledged == [OUTGOING]
    assert broker.told == ["no flush", "no produce", "answered", "broker is over"]


def test_when_told_to_stop_it_gives_up_what_the_broker_does_not_take_and_says_so() -> None:
    broker = Broker("flush", "flush")
    assert delivery_of(broker, stops=True).deliver(OUTGOING) is False
    assert broker.acknowledged == []
    assert broker.told == ["no flush"]
    stopped = Stop()
    stopped.set()
    assert delivery_of(Broker(), stopped).deliver(OUTGOING) is True, "the portion in hand goes out"


def test_nothing_to_send_asks_nothing_of_the_broker() -> None:
    broker = Broker("flush")
    assert delivery_of(broker).deliver([]) is True
    assert broker.acknowledged == [] == broker.told


def test_other_errors_are_not_waited_out() -> None:
    broker = Broker()

    def produce(*_: object, **__: object) -> None:
        raise StoreUnavailableError("not the broker")

    broker.produce = produce  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        delivery_of(broker).deliver(OUTGOING)


def test_closing_sends_what_is_queued() -> None:
    broker = Broker()
    delivery_of(broker).close()
    assert broker.closed


class Batches:
    """A publisher whose broker refuses a whole batch for one record that is too large."""

    def __init__(self) -> None:
        self.batch: list[Refusal] = []
        self.sizes: list[int] = []
        self.taken: list[bytes | None] = []

    def produce(self, topic: str, value: bytes, *, key: bytes, **_: Any) -> None:
        self.batch.append(Refusal(topic, key, value, "too large", unfit=True))

    def flush(self, **_: Any) -> None:
        batch, self.batch = self.batch, []
        self.sizes.append(len(batch))
        if any(record.value == b"large" for record in batch):
            raise RecordsRefusedError(batch)
        self.taken += [record.value for record in batch]


@pytest.mark.parametrize(
    ("values", "sizes"),
    [
        ([b"large"], [1]),
        ([b"1", b"large"], [2, 1, 1]),
        ([b"large", b"1", b"2"], [3, 1, 1, 1]),
    ],
)
def test_no_record_is_refused_for_the_one_beside_it_and_none_is_asked_twice_alone(
    values: list[bytes], sizes: list[int]
) -> None:
    broker = Batches()
    with pytest.raises(RecordsRefusedError) as caught:
        module.send(cast("Publisher", broker), [Outgoing("t", b"k", value) for value in values])
    assert [refusal.value for refusal in caught.value.refusals] == [b"large"]
    assert broker.taken == [value for value in values if value != b"large"]
    assert broker.sizes == sizes
