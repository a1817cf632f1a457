"""Too many dead letters: ingest waits for a person, and says so in the log, in /readyz, as a metric
and as an alert.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from freshet.stream.clock import Clock
from freshet.stream.ingest.alerting import paused_alert
from freshet.stream.ingest.guard import DeadLetterGuard
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.ingest.outbox import Outbox
from freshet.stream.telemetry import get_logger

TROUBLE = "dead_letters"

log = get_logger(__name__)


class Pause:
    """The guard, and what happens when it trips.

    Args:
        guard: Judges batches.
        outbox: Where the alert goes.
        metrics: Has the gauge.
        troubles: What /readyz says, by name.
        clock: Times of the alert.
        subject: Whose alert it is: the consumer group's prefix.
    """

    def __init__(
        self,
        guard: DeadLetterGuard,
        outbox: Outbox,
        metrics: IngestMetrics,
        troubles: dict[str, str],
        clock: Clock,
        subject: str,
    ) -> None:
        self._guard, self._outbox, self._metrics, self._troubles = guard, outbox, metrics, troubles
        self._clock, self._subject = clock, subject
        self.lifted = False

    def judge(self, *, read: int, dead: int) -> str | None:
        """Count a batch; why ingest should pause before it, or None."""
        return self._guard.judge(time.monotonic(), read=read, dead=dead)

    def wait(self, reason: str, hold: Callable[[Callable[[], bool]], None]) -> None:
        """Read nothing until SIGHUP; none of the batch was published or applied, so it is read
        again then.

        Args:
            reason: What the guard said.
            hold: Waits without reading until what it is given is true, or ingest is told to stop.
        """
        hint = (
            f"mend the producer or the field map, then send SIGHUP to process {os.getpid()} "
            "(or restart it) to go on"
        )
        log.error("paused", reason=reason, hint=hint)
        self._troubles[TROUBLE] = f"paused: {reason}; {hint}"
        self._metrics.paused.set(1)
        self.lifted, since_ms = False, self._clock.now_ms()
        firing = paused_alert(
            "firing", self._subject, f"{reason}; {hint}", starts_at_ms=since_ms, at_ms=since_ms
        )
        self._outbox.alert(firing)
        hold(lambda: self.lifted)
        if self.lifted:
            self._guard.lift()
            self._metrics.paused.set(0)
            self._troubles.pop(TROUBLE, None)
            log.warning("resumed", reason="a person said so")
            now_ms = self._clock.now_ms()
            self._outbox.alert(
                paused_alert("resolved", self._subject, reason, starts_at_ms=since_ms, at_ms=now_ms)
            )
