"""Keeps one process of a shop busy with what all share: a child of whichever worker is first.

Each worker looks now and then whether anybody has the lease, and starts a child where nobody has.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable
from typing import Protocol

import redis

from freshet.stream.child import Child
from freshet.stream.config import Settings
from freshet.stream.errors import StoreError
from freshet.stream.health import Health
from freshet.stream.process import BackOff
from freshet.stream.store.layout import EFFECTS_OWNER_KEY
from freshet.stream.store.lease import is_free
from freshet.stream.telemetry import get_logger

LOOK_S = 2.0
LEASE_S = 15.0  # longer than Redis is ever away for a restart
FIRST_WAIT_S = 5.0  # before another child is started where one has failed
LONGEST_WAIT_S = 60.0
# Without an owner for so long something is wrong: a lease that ends, a start and a failure fit in.
MISSING_S = 60.0
STOP_S = 3.0
TROUBLE = "owner"
# Its products of matrices are small, and the cores are the forecasts'.
ENVIRON = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

log = get_logger(__name__)


class Process(Protocol):
    """A child as far as it is looked after."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End it."""


class OwnerKeeper:
    """Starts the owner of effects and drift where there is none, and says where that lasts.

    A child dies with the thread that called `look`.

    Args:
        free: Whether nobody has the lease; raises StoreError where Redis does not answer.
        start: Starts a child.
        health: Told when nobody does it.
        now_s: A clock that never goes back.
    """

    def __init__(
        self,
        free: Callable[[], bool],
        start: Callable[[], Process],
        health: Health,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._free, self._start, self._health, self._now_s = free, start, health, now_s
        self._child: Process | None = None
        self._back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S)
        self._look_at_s = self._start_at_s = -float("inf")
        self._free_since_s: float | None = None

    def look(self) -> None:
        """Start a child where nobody has the lease; cheap, for every turn."""
        now_s = self._now_s()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_S
        try:
            free = self._free()
        except StoreError:
            return  # Whoever needs Redis says so.
        if not free:
            self._free_since_s = None
            self._back_off.reset()
            self._health.over(TROUBLE)
            return
        if self._free_since_s is None:
            self._free_since_s = now_s
        self._without_owner(now_s, now_s - self._free_since_s)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.stop(STOP_S)

    def _without_owner(self, now_s: float, since_s: float) -> None:
        if since_s > MISSING_S:
            text = (
                f"nobody has owned shared effects and drift for {since_s:.0f} s; the log says why"
            )
            self._health.say(TROUBLE, text)
            if self._child is not None and self._child.alive:
                # It has no lease and does not end: it hangs.
                log.error("effects_owner_hangs")
                self._child.stop(0.0)
        if now_s >= self._start_at_s and not (self._child is not None and self._child.alive):
            self._start_at_s = now_s + self._back_off.grow()
            self._child = self._start()


def has_work(settings: Settings) -> bool:
    """Whether a shop has anything that one process does for all."""
    return settings.worker.effects or settings.drift.watch


def open_keeper(settings: Settings, client: redis.Redis, health: Health) -> OwnerKeeper:
    """A keeper that starts `python -m freshet.online.owner` with our own settings."""

    def start() -> Process:
        log.info("effects_owner_starts", lease_s=LEASE_S)
        command = [sys.executable, "-m", "freshet.online.owner", str(LEASE_S)]
        return Child(command, environ=ENVIRON, share_output=True, given=pickle.dumps(settings))

    return OwnerKeeper(lambda: is_free(client, EFFECTS_OWNER_KEY), start, health)
