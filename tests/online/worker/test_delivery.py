"""Records go out until all of them are acknowledged, or the worker is told to stop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from freshet.online.worker.delivery import Delivery, Outgoing
from freshet.stream.errors import BrokerError, StoreUnavailableError
from freshet.stream.process import Stop

OUTGOING: Outgoing = [("log", "a|n", b"1"), ("latest", "b|n", b"2")]


class Broker:
    """Refuses at the steps it is told; keeps what was produced before each flush."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = list(refusals)
        self.queued: list[tuple[str, str, bytes]] = []
        self.acknowledged: list[list[tuple[str, str, bytes]]] = []
        self.told: list[str] = []
        self.closed = False

    def produce(self, topic: str, value: bytes, *, key: str) -> None:
        self._may_refuse("produce")
        self.queued.append((topic, key, value))

    def flush(self) -> None:
        queued, self.queued = self.queued, []
        self._may_refuse("flush")
        self.acknowledged.append(queued)

    def close(self) -> None:
        self.closed = True

    def _may_refuse(self, step: str) -> None:
        if self.refusals and self.refusals[0] == step:
            self.refusals.pop(0)
            raise BrokerError(f"no {step}")


def delivery_of(broker: Broker, stop: Stop | None = None, *, stops: bool = False) -> Delivery:
    stop = stop or Stop()

    def wait_out(error: BrokerError) -> None:
        broker.told.append(str(error))
        if stops:
            stop.set()

    health: Any = SimpleNamespace(
        wait_out=wait_out, answered=lambda: broker.told.append("answered")
    )
    return Delivery(broker, health, stop)  # type: ignore[arg-type]


def test_all_records_are_acknowledged_under_their_topic_and_key() -> None:
    broker = Broker()
    assert delivery_of(broker).deliver(OUTGOING) is True
    assert broker.acknowledged == [OUTGOING] and broker.told == ["answered"]


def test_after_a_failure_all_are_sent_again_and_an_answer_is_told_once_all_are_there() -> None:
    broker = Broker("flush", "produce")
    assert delivery_of(broker).deliver(OUTGOING) is True
    assert broker.acknowledged == [OUTGOING]
    assert broker.told == ["no flush", "no produce", "answered"]


def test_when_told_to_stop_it_gives_up_what_the_broker_refuses_and_says_so() -> None:
    broker = Broker("flush", "flush")
    assert delivery_of(broker, stops=True).deliver(OUTGOING) is False
    assert broker.acknowledged == [] and broker.told == ["no flush"]
    stopped = Stop()
    stopped.set()
    broker = Broker()
    assert delivery_of(broker, stopped).deliver(OUTGOING) is True, "the portion in hand goes out"


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
