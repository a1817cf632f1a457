"""Records go out until all of them are acknowledged, with a broker made up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from freshet.stream.errors import BrokerError, StoreUnavailableError
from freshet.stream.kafka import Delivery, Outgoing, Publisher
from freshet.stream.kafka import delivery as module
from freshet.stream.kafka.publisher import RecordsRefusedError, Refusal
from freshet.stream.process import Stop

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


def delivery_of(
    broker: Broker,
    stop: Stop | None = None,
    *,
    stops: bool = False,
    registry: CollectorRegistry | None = None,
) -> Delivery:
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
    return Delivery(broker, health, registry or CollectorRegistry())  # type: ignore[arg-type]


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

    def flush(self, *, stopped: Callable[[], bool]) -> None:
        assert not stopped(), "nobody told it to stop"
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


class Refuser(Broker):
    """Never takes what is too large, and for a while nothing of a missing topic."""

    def __init__(self, missing_for: int = 0) -> None:
        super().__init__()
        self.missing_for = missing_for
        self.attempts: list[list[bytes]] = []

    def flush(self, **_: Any) -> None:
        queued, self.queued = self.queued, []
        self.attempts.append([record.value for record in queued])
        large = [record for record in queued if record.value == b"large"]
        homeless = [record for record in queued if record.topic == "gone" and self.missing_for > 0]
        self.missing_for -= len(homeless)
        self.acknowledged.append([one for one in queued if one not in large + homeless])
        refusals = [Refusal("log", one.key, one.value, "too large", unfit=True) for one in large]
        refusals += [Refusal("gone", one.key, one.value, "none", unfit=False) for one in homeless]
        if refusals:
            raise RecordsRefusedError(refusals)


def refused(registry: CollectorRegistry, topic: str) -> float | None:
    return registry.get_sample_value("freshet_records_refused_total", {"topic": topic})


LARGE = Outgoing("log", b"\xff1", b"large")
GONE = Outgoing("gone", None, b"2")
FINE = Outgoing("log", b"k", b"3")


def test_what_is_unfit_is_logged_with_its_bytes_and_what_lacks_a_topic_alone_waits_for_it() -> None:
    broker, registry = Refuser(missing_for=3), CollectorRegistry()
    with capture_logs() as logs:
        assert delivery_of(broker, registry=registry).deliver([LARGE, GONE, FINE]) is True
    assert broker.attempts == [
        *([b"large", b"2", b"3"], [b"large"], [b"2"]),  # together, then the refused alone
        *([b"2"], [b"2"]),  # and again until its topic is there
    ]
    assert [len(sent) for sent in broker.acknowledged] == [1, 0, 0, 0, 1]
    assert [line.pop("reason") for line in logs] == ["too large"]
    assert logs == [
        {
            "event": "record_refused",
            "log_level": "error",
            "topic": "log",
            "key": "/zE=",
            "value": "bGFyZ2U=",
            "value_bytes": 5,
            "value_sha256": hashlib.sha256(b"large").hexdigest(),
        }
    ]
    assert (refused(registry, "log"), refused(registry, "gone")) == (1.0, None)
    assert registry.get_sample_value("freshet_delivery_retries_total") == 2.0


def test_what_may_be_lost_waits_for_no_topic_and_is_logged_instead() -> None:
    broker, registry = Refuser(missing_for=99), CollectorRegistry()
    with capture_logs() as logs:
        delivery = delivery_of(broker, registry=registry)
        assert delivery.deliver([LARGE, GONE, FINE], may_lose=True) is True
    assert len(broker.attempts) == 3 and broker.told == []
    assert [(line["topic"], line["key"], line["value"]) for line in logs] == [
        ("log", "/zE=", "bGFyZ2U="),
        ("gone", "", "Mg=="),
    ]
    assert (refused(registry, "log"), refused(registry, "gone")) == (1.0, 1.0)


def test_a_tombstone_that_is_refused_is_logged_as_nothing() -> None:
    with capture_logs() as logs:
        module.give_up(Refusal("log", b"k", None, "no", unfit=True))
    assert (logs[0]["key"], logs[0]["value"], logs[0]["value_bytes"]) == ("aw==", "", 0)
