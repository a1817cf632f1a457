"""Waiting without reading, for servers or for a person; the group is served meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from freshet.stream.errors import BrokerError, FreshetError, StoreUnavailableError
from freshet.stream.ingest.assignment import Assignment
from freshet.stream.kafka import Consumer, take
from freshet.stream.process import BackOff, Stop
from freshet.stream.telemetry import get_logger

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
SLICE_MS = 100
CALM_S = 30.0
STUCK_S = 120.0
TROUBLE = "servers"

log = get_logger(__name__)


class Pulse:
    """Whether the loop was told to stop, and when it last turned."""

    def __init__(self) -> None:
        self.stop = Stop()
        self._beat_s = time.monotonic()

    def beat(self) -> None:
        """The loop turns."""
        self._beat_s = time.monotonic()

    def live(self) -> str | None:
        """None while the loop turns."""
        silent_s = time.monotonic() - self._beat_s
        return f"the loop has not turned for {silent_s:.0f} s" if silent_s > STUCK_S else None


class Waiting:
    """Stays in the group and keeps the claims, but reads nothing.

    Args:
        client: The group's consumer.
        assignment: Is suspended meanwhile; reads on after the last record applied.
        pulse: Ends every wait when told to stop.
        ask_servers: Asks Redis and the broker something; raises while one of them is away.
        troubles: What /readyz says, by name.
    """

    def __init__(
        self,
        client: Consumer,
        assignment: Assignment,
        *,
        pulse: Pulse,
        ask_servers: Callable[[], None],
        troubles: dict[str, str],
    ) -> None:
        self._client = client
        self._assignment = assignment
        self._pulse = pulse
        self._ask_servers = ask_servers
        self._troubles = troubles
        self._back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, self._stay)
        self._failed_at_s = 0.0

    def for_servers(self, error: FreshetError) -> None:
        """Wait until Redis and the broker answer; longer where they failed a moment ago too."""
        now_s = time.monotonic()
        if now_s - self._failed_at_s >= CALM_S:
            self._back_off.reset()
        self._failed_at_s = now_s
        log.warning("waiting", reason=str(error), wait_s=self._back_off.next_s)
        self._troubles[TROUBLE] = str(error)
        self._hold(self._servers_answer, self._back_off)
        self._troubles.pop(TROUBLE, None)
        log.info("going_on", after_s=round(time.monotonic() - now_s, 1))

    def until(self, so: Callable[[], bool]) -> None:
        """Wait until something is so, or ingest is told to stop."""
        self._hold(so, BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, self._stay))

    def _servers_answer(self) -> bool:
        try:
            self._ask_servers()
        except (StoreUnavailableError, BrokerError) as error:
            self._troubles[TROUBLE] = str(error)
            return False
        return True

    def _hold(self, until: Callable[[], bool], back_off: BackOff) -> None:
        self._assignment.suspend()
        while back_off.pause() and not until():
            pass
        self._assignment.resume()

    def _stay(self, wait_s: float) -> bool:
        """Serve the group for so long, without reading; whether we were told to stop."""
        stop = self._pulse.stop
        end_s = time.monotonic() + wait_s
        while not stop.is_set() and time.monotonic() < end_s:
            self._pulse.beat()
            try:
                take(self._client, 1, SLICE_MS)
            except BrokerError as error:
                log.debug("while_waiting", error=str(error))
                stop.wait(SLICE_MS / 1_000)
        return stop.is_set()
