"""What is waited for, and what ends the wait, with a consumer and an assignment that remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from freshet.stream.errors import StoreUnavailableError
from freshet.stream.ingest import waiting
from freshet.stream.ingest.assignment import Assignment
from freshet.stream.ingest.waiting import Pulse, Waiting
from freshet.stream.kafka import Consumer


@dataclass
class Rig:
    """A wait whose servers fail some times before they answer."""

    failures: int = 0
    said: list[str] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    pulse: Pulse = field(default_factory=Pulse)

    def __post_init__(self) -> None:
        self.waiting = Waiting(
            cast("Consumer", self),
            cast("Assignment", self),
            pulse=self.pulse,
            ask_servers=self.ask,
            troubles=self.troubles,
        )

    def consume(self, max_records: int, max_wait_s: float) -> list[Any]:
        return []

    def suspend(self) -> None:
        self.said.append("suspend")

    def resume(self) -> None:
        self.said.append("resume")

    def ask(self) -> None:
        self.said.append("ask")
        self.seen += self.troubles.values()
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
    assert rig.troubles == {}


def test_a_wait_ends_when_told_to_stop_and_asks_no_more() -> None:
    rig = Rig(failures=10**6)
    rig.pulse.stop.set()
    rig.waiting.for_servers(StoreUnavailableError("gone"))
    assert rig.said == ["suspend", "resume"]


def test_a_person_is_waited_for_as_servers_are() -> None:
    rig = Rig()
    answers = iter([False, False, True])
    rig.waiting.until(lambda: next(answers))
    assert rig.said == ["suspend", "resume"]


def test_a_loop_that_does_not_turn_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse = Pulse()
    assert pulse.live() is None
    monkeypatch.setattr(waiting, "STUCK_S", -1.0)
    assert pulse.live() == "the loop has not turned for 0 s"
