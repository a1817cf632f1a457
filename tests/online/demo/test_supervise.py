"""Children are restarted with back-off, given up on when they keep dying, and all stopped."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from freshet.online.demo.supervise import MAX_FAILURES, Service, Supervisor
from freshet.stream.errors import FreshetError

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
DEADLINE_S = 120.0


class FakeTime:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str], clock: FakeTime) -> Supervisor:
    return Supervisor(tmp_path, say=said.append, monotonic_s=clock)


def test_a_killed_child_starts_again_after_its_back_off(
    supervisor: Supervisor, said: list[str], clock: FakeTime
) -> None:
    child = Service("sleeper", SLEEPER)
    supervisor.start(child)
    assert child.process
    child.process.process.send_signal(signal.SIGKILL)
    until(lambda: not child.running)
    supervisor.tend()
    assert not child.running
    assert "SIGKILL" in said[0]
    clock.now_s += 1.0
    supervisor.tend()
    assert child.running
    assert child.restarts == 1
    supervisor.stop()
    assert not child.running


def test_a_child_that_keeps_dying_ends_the_demo_with_its_last_words(
    supervisor: Supervisor, clock: FakeTime
) -> None:
    child = Service("broken", [sys.executable, "-c", "raise SystemExit('no such table')"])
    supervisor.start(child)

    def one_life() -> None:
        until(lambda: not child.running)
        supervisor.tend()
        clock.now_s += 11.0
        supervisor.tend()

    with pytest.raises(FreshetError, match="no such table"):
        for _ in range(MAX_FAILURES):
            one_life()


def test_a_child_whose_work_is_done_is_left_alone(supervisor: Supervisor, said: list[str]) -> None:
    child = Service("source", [sys.executable, "-c", "pass"], once=True)
    supervisor.start(child)
    until(lambda: child.finished)
    supervisor.tend()
    assert child.restarts == 0
    assert said == []


def test_one_child_can_be_stopped_for_good(supervisor: Supervisor) -> None:
    child = Service("sleeper", SLEEPER)
    supervisor.start(child)
    supervisor.stop("sleeper")
    assert not child.running
    assert supervisor.services == []
