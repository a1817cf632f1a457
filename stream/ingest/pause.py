"""Too many dead letters: ingest stops before it sends them, tells people, and waits for a SIGHUP.

A bad deploy of a producer would otherwise drain a whole topic into dead letters.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from freshet.stream.clock import Clock
from freshet.stream.health import Health
from freshet.stream.ingest.alerts import ingest_alert
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.ingest.outbox import Outbox
from freshet.stream.schemas import Alert
from freshet.stream.telemetry import get_logger

WINDOW_S = 10.0
MIN_READ = 1_000
TROUBLE = "dead_letters"

PAUSED: Final = "paused"

log = get_logger(__name__)


class DeadLetterGuard:
    """Judges each batch, before it is sent, by the dead letters of the last ten seconds. Pure.

    A paused ingest reads nothing, so the share of bad records cannot fall by waiting, and going on
    by itself would drain the topic bit by bit while nobody looks. So a person decides: after `lift`
    everything passes until both limits are kept again, and then the guard is back.

    Args:
        per_s: Dead letters a second, averaged over the window, above which ingest pauses.
        share: Share of dead records, once 1,000 were read in the window, from which it pauses.

    >>> guard = DeadLetterGuard(per_s=5_000, share=0.5)
    >>> guard.judge(0.0, read=999, dead=999), guard.judge(1.0, read=1_000, dead=1)
    (None, '1000 of 1999 records were dead letters within 10 s')
    >>> guard.lift()
    >>> guard.judge(2.0, read=100, dead=100)
    """

    def __init__(self, per_s: int, share: float) -> None:
        self._max_dead = per_s * WINDOW_S
        self._share = share
        self._batches: deque[tuple[float, int, int]] = deque()
        self._lifted = False

    def judge(self, now_s: float, *, read: int, dead: int) -> str | None:
        """Count a batch; why ingest should pause before it, or None."""
        self._batches.append((now_s, read, dead))
        while self._batches[0][0] <= now_s - WINDOW_S:
            self._batches.popleft()
        reason = self._reason()
        if reason is None:
            self._lifted = False
        return None if self._lifted else reason

    def lift(self) -> None:
        """A person has looked and says go on."""
        self._lifted = True

    def _reason(self) -> str | None:
        read = sum(batch[1] for batch in self._batches)
        dead = sum(batch[2] for batch in self._batches)
        if dead > self._max_dead or (read >= MIN_READ and dead >= self._share * read):
            return f"{dead} of {read} records were dead letters within {WINDOW_S:g} s"
        return None


class Pause:
    """What happens when the guard trips: log, /readyz, a metric and an alert say so.

    Args:
        guard: Judges batches.
        outbox: Where the alert goes.
        metrics: Has the gauge.
        health: Says what /readyz answers.
        clock: Times of the alert.
        subject: Whose alert it is: the consumer group's prefix.
    """

    def __init__(
        self,
        guard: DeadLetterGuard,
        outbox: Outbox,
        *,
        metrics: IngestMetrics,
        health: Health,
        clock: Clock,
        subject: str,
    ) -> None:
        self._guard = guard
        self._outbox = outbox
        self._metrics = metrics
        self._health = health
        self._clock = clock
        self._subject = subject
        self.lifted = False

    def judge(self, *, read: int, dead: int) -> str | None:
        """Count a batch; why ingest should pause before it, or None."""
        return self._guard.judge(time.monotonic(), read=read, dead=dead)

    def wait(self, reason: str, hold: Callable[[Callable[[], bool]], None]) -> None:
        """Read nothing until SIGHUP; nothing of the batch was sent or applied, so it is read again.

        Args:
            reason: What the guard said.
            hold: Waits without reading until what it is given is true, or ingest is told to stop.
        """
        since_ms = self._begin(reason)
        hold(lambda: self.lifted)
        if self.lifted:
            self._end(reason, since_ms)

    def _begin(self, reason: str) -> int:
        hint = (
            "mend the producer or the field map, "
            f"then send SIGHUP to process {os.getpid()} (or restart it) to go on"
        )
        log.error("paused", reason=reason, hint=hint)
        self._health.say(TROUBLE, f"paused: {reason}; {hint}")
        self._metrics.paused.set(1)
        self.lifted = False
        now_ms = self._clock.now_ms()
        self._alert("firing", f"{reason}; {hint}", since_ms=now_ms, now_ms=now_ms)
        return now_ms

    def _end(self, reason: str, since_ms: int) -> None:
        self._guard.lift()
        self._metrics.paused.set(0)
        self._health.over(TROUBLE)
        log.warning("resumed", reason="a person said so")
        self._alert("resolved", reason, since_ms=since_ms, now_ms=self._clock.now_ms())

    def _alert(
        self, state: Literal["firing", "resolved"], text: str, *, since_ms: int, now_ms: int
    ) -> None:
        self._outbox.alert(
            paused_alert(state, self._subject, text, starts_at_ms=since_ms, at_ms=now_ms)
        )


def paused_alert(
    state: Literal["firing", "resolved"],
    subject: str,
    description: str,
    *,
    starts_at_ms: int,
    at_ms: int,
) -> Alert:
    """The alert that ingest raises by itself: it is paused, or goes on.

    Args:
        state: firing or resolved.
        subject: What it is about: the consumer group's prefix.
        description: Why, and what a person can do.
        starts_at_ms: Since when.
        at_ms: Now.

    >>> paused_alert("firing", "freshet", "why", starts_at_ms=0, at_ms=0).time
    '1970-01-01T00:00:00.000Z'
    """
    return ingest_alert(
        state,
        subject,
        kind=PAUSED,
        severity="critical",
        title="Ingest is paused by too many dead letters",
        description=description,
        starts_at_ms=starts_at_ms,
        at_ms=at_ms,
    )
