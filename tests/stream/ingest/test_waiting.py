"""What is waited for, and what ends the wait, with a consumer and an assignment that remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from freshet.stream.errors import StoreUnavailableError
from freshet.stream.health import Health
from freshet.stream.ingest import waiting
from freshet.stream.ingest.assignment import Assignment
from freshet.stream.ingest.waiting import Waiting
from freshet.stream.kafka import Consumer
from freshet.stream.process import Stop


@dataclass
class Rig:
    """A wait whose servers fail some times before they answer."""

    failures: int = 0
    said: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    health: Health = field(default_factory=lambda: Health(Stop(), ""))

    def __post_init__(self) -> None:
        self.health.over("start")
        self.waiting = Waiting(
            cast("Consumer", self),
            cast("Assignment", self),
            health=self.health,
            ask_servers=self.ask,
        )

    def consume(self, max_records: int, max_wait_s: float) -> list[Any]:
        return []

    def suspend(self) -> None:
        self.said.append("suspend")

    def resume(self) -> None:
        self.said.append("resume")

    def ask(self) -> None:
        self.said.append("ask")
        self.seen.append(self.health.ready() or "")
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError(f"{self.failures} more")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_WAIT_S", 0.001)


def test_nothing_is_read_until_the_servers_answer_and_readiness_says_why() -> None:
    rig = Rig(failures=2)
    rig.waiting.for_servers(StoreUnavailableError("gone"))
    assert rig.said == ["suspend", "ask", "ask", "ask", "resume"]
    assert [text.split(" ")[0] for text in rig.seen] == ["gone", "1", "0"]
    assert rig.health.ready() is None


def test_a_wait_ends_when_told_to_stop_and_asks_no_more() -> None:
    rig = Rig(failures=10**6)
    rig.health.stop.set()
    rig.waiting.for_servers(StoreUnavailableError("gone"))
    assert rig.said == ["suspend", "resume"]


def test_a_person_is_waited_for_as_servers_are() -> None:
    rig = Rig()
    answers = iter([False, False, True])
    rig.waiting.until(lambda: next(answers))
    assert rig.said == ["suspend", "resume"]


def test_servers_are_asked_every_second_however_long_they_are_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(waiting, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(Waiting, "_stay", lambda self, wait_s: waited.append(wait_s))
    Rig(failures=6).waiting.for_servers(StoreUnavailableError("gone"))
    assert waited == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
