"""Whether the worker is well: what it tells its probes, and how it waits for a server that is away.

Forecasts keep the time they were made for, so a worker that waits does no harm but being late.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from freshet.online.worker.metrics import WorkerMetrics
from freshet.stream.errors import BrokerError, StoreUnavailableError
from freshet.stream.process import BackOff, Stop
from freshet.stream.telemetry import get_logger

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
STUCK_S = 120.0  # a micro-batch takes seconds on a slow CPU, the longest wait for a server 5

log = get_logger(__name__)


class Health:
    """Troubles that last, the loop's heart beat, and the pauses after a failure.

    Args:
        stop: Ends the pauses.
        metrics: Counts the troubles.
        fallback: Why other weights serve than should, empty when all is well.
    """

    def __init__(self, stop: Stop, metrics: WorkerMetrics, fallback: Callable[[], str]) -> None:
        self._metrics = metrics
        self._fallback = fallback
        self._back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, stop.wait)
        self._beat_s = time.monotonic()
        self._troubles = {"start": "reading the catalogue and joining the worker group"}
        self.published_ms: int | None = None
        """The newest cutoff whose forecasts are out."""

    def live(self) -> str | None:
        """None while the loop turns."""
        silent_s = time.monotonic() - self._beat_s
        return f"the loop has not turned for {silent_s:.0f} s" if silent_s > STUCK_S else None

    def ready(self) -> str | None:
        """None while forecasts flow from the weights that should serve, else what is amiss."""
        # A copy, because probes ask from their own thread.
        troubles = list(self._troubles.values())
        return (troubles[0] if troubles else self._fallback()) or None

    def beat(self) -> None:
        """The loop still turns."""
        self._beat_s = time.monotonic()

    def turned(self) -> None:
        """A whole turn went well."""
        self._troubles.clear()

    def answered(self) -> None:
        """A server answered: the next pause is a short one again."""
        self._back_off.reset()

    def wait_out(self, error: BrokerError | StoreUnavailableError) -> None:
        """Say a failure once, count it, and pause a little longer each time."""
        what = "broker" if isinstance(error, BrokerError) else "redis"
        if what not in self._troubles:
            log.error("degraded", what=what, error=str(error), newest_cutoff_ms=self.published_ms)
        self._troubles[what] = str(error)
        self._metrics.troubles.labels(what).inc()
        self.beat()
        self._back_off.pause()
