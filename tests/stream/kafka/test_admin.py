"""What a broker that has just started does not answer is asked again by another client."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, RefusedError
from freshet.stream.kafka.admin import ATTEMPTS

module: Any = import_module("freshet.stream.kafka.admin")


def asked(
    monkeypatch: pytest.MonkeyPatch, *answers: BrokerError | str
) -> tuple[list[object], list[Any]]:
    """Clients that were made, and what came of asking."""
    made: list[object] = []
    left = list(answers)

    def client(settings: Settings) -> object:
        made.append(object())
        return made[-1]

    def ask(given: object) -> str:
        assert given is made[-1]
        answer = left.pop(0)
        if isinstance(answer, BrokerError):
            raise answer
        return answer

    monkeypatch.setattr(module, "admin", client)
    try:
        return made, [module._asked(Settings(), ask)]
    except BrokerError as error:
        return made, [error]


def test_a_client_that_never_hears_of_the_controller_is_exchanged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, found = asked(monkeypatch, BrokerError("waiting for controller"), "settings")
    assert found == ["settings"] and len(made) == 2 and made[0] is not made[1]


def test_what_fails_every_time_is_said_and_what_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last = BrokerError("away")
    made, found = asked(monkeypatch, *[BrokerError("away")] * (ATTEMPTS - 1), last)
    assert found == [last] and len(made) == ATTEMPTS
    refused = RefusedError("no")
    made, found = asked(monkeypatch, refused)
    assert found == [refused] and len(made) == 1
