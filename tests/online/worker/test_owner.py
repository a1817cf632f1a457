"""A worker starts the owner of effects where there is none, seldom, and says where that lasts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from freshet.online.worker.owner import (
    FIRST_WAIT_S,
    LOOK_S,
    MISSING_S,
    STOP_S,
    OwnerKeeper,
)
from freshet.stream.errors import StoreUnavailableError
from freshet.stream.health import Health
from freshet.stream.process import Stop


class FakeChild:
    def __init__(self) -> None:
        self.alive = True
        self.stopped_s: list[float] = []

    def stop(self, timeout_s: float = STOP_S) -> None:
        self.alive = False
        self.stopped_s.append(timeout_s)


class Rig:
    """A keeper with a lease and a clock that the test sets."""

    def __init__(self) -> None:
        self.at_s, self.free, self.looks = 50.0, True, 0
        self.children: list[FakeChild] = []
        self.health = Health(Stop(), "start")
        self.keeper = OwnerKeeper(self._free, self._start, self.health, lambda: self.at_s)

    def _free(self) -> bool:
        self.looks += 1
        if self.free is None:
            raise StoreUnavailableError("away")
        return self.free

    def _start(self) -> FakeChild:
        self.children.append(FakeChild())
        return self.children[-1]

    def look(self, later_s: float = LOOK_S) -> None:
        self.at_s += later_s
        self.keeper.look()


def test_a_free_lease_has_one_child_started_and_a_held_one_none() -> None:
    rig = Rig()
    rig.free = False
    rig.look()
    assert not rig.children
    rig.free = True
    rig.look()
    rig.look()
    assert len(rig.children) == 1


def test_the_lease_is_looked_at_every_other_second_however_often_the_loop_turns() -> None:
    rig = Rig()
    for _ in range(40):
        rig.look(0.125)
    assert rig.looks == 3 and LOOK_S == 2


def test_a_child_that_ends_is_started_again_later_and_later_until_one_lasts() -> None:
    rig = Rig()
    started_s = []
    for _ in range(60):
        rig.look()
        if rig.children and rig.children[-1].alive:
            started_s.append(rig.at_s)
            rig.children[-1].alive = False
    waits_s = [b - a for a, b in pairwise(started_s)]
    # 5, 10, 20 and 40 seconds, each at the next look.
    assert FIRST_WAIT_S == 5 and waits_s == [6, 10, 20, 40]
    rig.free = False
    rig.look()
    rig.free = True
    rig.look(60)
    assert len(rig.children) == len(started_s) + 1


def test_a_minute_without_owner_is_said_until_there_is_one() -> None:
    rig = Rig()
    rig.look()
    rig.look(MISSING_S)
    assert rig.health.trouble("owner") is None and MISSING_S == 60
    rig.look()
    assert "nobody has owned shared effects and drift for 62 s" in (
        rig.health.trouble("owner") or ""
    )
    rig.free = False
    rig.look()
    assert rig.health.trouble("owner") is None


def test_a_child_that_has_no_lease_for_a_minute_hangs_and_another_takes_its_place() -> None:
    rig = Rig()
    rig.look()
    rig.look(MISSING_S)
    assert rig.children[0].alive
    rig.look()
    assert rig.children[0].stopped_s == [0.0] and len(rig.children) == 2


def test_a_redis_that_is_away_starts_and_says_nothing() -> None:
    rig = Rig()
    unknown: Any = None
    rig.free = unknown
    rig.look()
    rig.look(2 * MISSING_S)
    assert not rig.children and rig.health.trouble("owner") is None


@pytest.mark.parametrize("started", [False, True])
def test_a_worker_that_ends_ends_its_child(started: bool) -> None:
    rig = Rig()
    if started:
        rig.look()
    rig.keeper.close()
    assert [child.stopped_s for child in rig.children] == [[STOP_S]] * started
