"""A cluster that makes the log of its groups when it is first asked is asked again."""

from __future__ import annotations

from concurrent.futures import Future
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import Cluster

module: Any = import_module("freshet.stream.kafka.questions")
SETTINGS = Settings(kafka=KafkaSettings(request_timeout_ms=150))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the broker answers, one by one, its last answer for ever."""
    left: list[Any] = []

    def describe(groups: list[str], **over: Any) -> dict[str, Future[Any]]:
        answer: Future[Any] = Future()
        said = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(said, int):
            error = KafkaError(said, "ConsumerGroupDescribe: ")
            answer.set_exception(KafkaException(error))
        else:
            answer.set_result(SimpleNamespace(members=said))
        return {groups[0]: answer}

    monkeypatch.setattr(module, "cluster", lambda settings: Cluster(1, True, {}, ()))
    monkeypatch.setattr(
        module, "admin", lambda settings: SimpleNamespace(describe_consumer_groups=describe)
    )
    return left


def test_a_coordinator_that_is_not_there_yet_is_asked_again(answers: list[Any]) -> None:
    answers += [KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR, ["a", "b"]]
    assert module.group_members(SETTINGS, "g") == 2


def test_one_that_never_comes_is_named_with_its_reason(answers: list[Any]) -> None:
    answers += [KafkaError.COORDINATOR_NOT_AVAILABLE]
    with pytest.raises(BrokerError) as raised:
        module.group_members(SETTINGS, "g")
    assert str(raised.value).endswith("ConsumerGroupDescribe: Broker: Coordinator not available")


def test_a_group_that_nobody_was_ever_in_has_no_members_and_a_refusal_is_final(
    answers: list[Any],
) -> None:
    answers += [KafkaError.GROUP_ID_NOT_FOUND, KafkaError.GROUP_AUTHORIZATION_FAILED, []]
    assert module.group_members(SETTINGS, "g") == 0
    with pytest.raises(BrokerError, match="ConsumerGroupDescribe: Broker: Group authorization"):
        module.group_members(SETTINGS, "g")
