"""Waiting without reading, for servers or for a person; the group is served meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from freshet.stream.errors import BrokerError, FreshetError, StoreUnavailableError
from freshet.stream.health import Health
from freshet.stream.ingest.assignment import Assignment
from freshet.stream.kafka import Consumer, take
from freshet.stream.process import BackOff
from freshet.stream.telemetry import get_logger

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 1.0  # who asks for readiness hears within 5 s that all answer again
SLICE_MS = 100
CALM_S = 30.0
TROUBLE = "servers"

log = get_logger(__name__)


class Waiting:
    """Stays in the group and keeps the claims, but reads nothing.

    Args:
        client: The group's consumer.
        assignment: Is suspended meanwhile; reads on after the last record applied.
        health: Ends every wait when told to stop; says what is waited for.
        ask_servers: Asks Redis and the broker something; raises while one of them is away.
    """

    def __init__(
        self,
        client: Consumer,
        assignment: Assignment,
        *,
        health: Health,
        ask_servers: Callable[[], None],
    ) -> None:
        self._client = client
        self._assignment = assignment
        self._health = health
        self._ask_servers = ask_servers
        self._back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, self._stay)
        self._failed_at_s = 0.0

    def for_servers(self, error: FreshetError) -> None:
        """Wait until Redis and the broker answer; longer where they failed a moment ago too."""
        now_s = time.monotonic()
        if now_s - self._failed_at_s >= CALM_S:
            self._back_off.reset()
        self._failed_at_s = now_s
        log.warning("waiting", reason=str(error), wait_s=self._back_off.next_s)
        self._health.say(TROUBLE, str(error))
        self._hold(self._servers_answer, self._back_off)
        self._health.over(TROUBLE)
        log.info("going_on", after_s=round(time.monotonic() - now_s, 1))

    def until(self, so: Callable[[], bool]) -> None:
        """Wait until something is so, or ingest is told to stop."""
        self._hold(so, BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, self._stay))

    def _servers_answer(self) -> bool:
        try:
            self._ask_servers()
        except (StoreUnavailableError, BrokerError) as error:
            self._health.say(TROUBLE, str(error))
            return False
        return True

    def _hold(self, until: Callable[[], bool], back_off: BackOff) -> None:
        self._assignment.suspend()
        while back_off.pause() and not until():
            pass
        self._assignment.resume()

    def _stay(self, wait_s: float) -> bool:
        """Serve the group for so long, without reading; whether we were told to stop."""
        stop = self._health.stop
        end_s = time.monotonic() + wait_s
        while not stop.is_set() and time.monotonic() < end_s:
            self._health.beat()
            try:
                take(self._client, 1, SLICE_MS)
            except BrokerError as error:
                log.debug("while_waiting", error=str(error))
                stop.wait(SLICE_MS / 1_000)
        return stop.is_set()
