"""When to send which batch, and what time it is: history when folded, then live at one speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from freshet.stream.process import Stop
from freshet.stream.source.batches import SourceBatch

Phase = Literal["history", "live", "done"]

SETTLE_MS = 250.0
ROOM_WAIT_MS = 20.0
MAX_AHEAD_MS = 100.0


class Outlet(Protocol):
    """Where batches go, and the clock that goes with them."""

    def room_for(self, batch: SourceBatch) -> bool:
        """Whether readers have kept up enough for this batch too."""

    def drained(self) -> bool:
        """Whether everything sent has been folded."""

    def send(self, batch: SourceBatch) -> None:
        """Queue a batch."""

    def flush(self) -> None:
        """Return when all that was queued is acknowledged."""

    def set_clock(self, simulated_ms: int, speed: float) -> None:
        """From now on it is `simulated_ms`; speed 0 holds the clock."""


class Timer:
    """Wall time that can be told to stop."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    @property
    def stopped(self) -> bool:
        """Whether somebody asked to stop."""
        return self._stop.is_set()

    def now_ms(self) -> float:
        """Monotonic milliseconds."""
        return time.monotonic() * 1_000

    def wait(self, duration_ms: float) -> None:
        """Sleep, or return early when asked to stop."""
        self._stop.wait(duration_ms / 1_000)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a source has come; `sent_ms` is the end of the newest batch sent, None before any."""

    phase: Phase
    sent_ms: int | None
    history_folded: bool
    waiting: bool = False


class Pump:
    """Sends batches in order; one use.

    During history the clock is held at what was sent and acknowledged. Live, a batch is sent when
    the clock reaches its start, so the clock never shows a time whose events have not been sent;
    when sending is held back, so is the clock.

    Args:
        outlet: Where to.
        timer: Wall time.
        live_from_ms: Batches that end by then are history.
        speed: Clock milliseconds per wall millisecond, live.
        live_wall_ms: Stop after so much wall time of live; None goes on until the batches end.
        on_progress: Called after each batch and while waiting; must be quick.
    """

    def __init__(
        self,
        outlet: Outlet,
        timer: Timer,
        *,
        live_from_ms: float,
        speed: float,
        live_wall_ms: float | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._outlet = outlet
        self._timer = timer
        self._live_from_ms = live_from_ms
        self._speed = speed
        self._live_wall_ms = live_wall_ms
        self._on_progress = on_progress
        self._phase: Phase = "history"
        self._sent_ms: int | None = None
        self._history_folded = False
        self._live_since_ms = 0.0
        self._settled_ms = float("-inf")
        # The clock as a straight line: at this wall time it showed that simulated time.
        self._line = (0.0, 0)

    def run(self, batches: Iterable[SourceBatch]) -> None:
        """Send until the batches end, the time is up, or the timer is stopped.

        What was sent is acknowledged then.

        Raises:
            BrokerError: Records were not acknowledged.
        """
        for batch in batches:
            if self._phase == "history" and batch.end_ms > self._live_from_ms:
                self._go_live(batch.start_ms)
            if self._phase == "live":
                self._wait_until_due(batch)
            self._wait_for_room(batch)
            if self._over():
                break
            self._outlet.send(batch)
            self._sent_ms = batch.end_ms
            self._settle()
            self._tell()
        self._finish()

    def _go_live(self, at_ms: int) -> None:
        self._outlet.flush()
        if self._sent_ms is not None:
            self._outlet.set_clock(self._sent_ms, 0.0)
            self._wait_for(self._outlet.drained)
        if self._over():
            return
        self._history_folded = True
        self._phase, self._live_since_ms = "live", self._timer.now_ms()
        self._run_clock(at_ms)
        self._tell()

    def _wait_until_due(self, batch: SourceBatch) -> None:
        wall_ms, simulated_ms = self._line
        due_ms = wall_ms + (batch.start_ms - simulated_ms) / self._speed
        if self._live_wall_ms is not None:
            due_ms = min(due_ms, self._live_since_ms + self._live_wall_ms)
        while not self._over() and (left_ms := due_ms - self._timer.now_ms()) > 0:
            self._timer.wait(left_ms)

    def _wait_for_room(self, batch: SourceBatch) -> None:
        if self._over() or self._outlet.room_for(batch):
            return
        held_ms = batch.start_ms if self._sent_ms is None else self._sent_ms
        self._outlet.flush()
        self._outlet.set_clock(held_ms, 0.0)
        self._wait_for(lambda: self._outlet.room_for(batch))
        if self._phase == "live":
            self._run_clock(held_ms)

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        """Until it is so, or there is no time left."""
        while not self._over() and not ready():
            self._tell(waiting=True)
            self._timer.wait(ROOM_WAIT_MS)

    def _settle(self) -> None:
        """Bring the clock in line with what the broker has."""
        assert self._sent_ms is not None
        now_ms = self._timer.now_ms()
        if self._phase == "history" and now_ms - self._settled_ms < SETTLE_MS:
            return
        self._outlet.flush()
        self._settled_ms = now_ms
        if self._phase == "history":
            self._outlet.set_clock(self._sent_ms, 0.0)
            return
        wall_ms, simulated_ms = self._line
        clock_ms = simulated_ms + (self._timer.now_ms() - wall_ms) * self._speed
        if clock_ms > self._sent_ms + MAX_AHEAD_MS * self._speed:
            self._run_clock(self._sent_ms)

    def _run_clock(self, simulated_ms: int) -> None:
        self._line = (self._timer.now_ms(), simulated_ms)
        self._outlet.set_clock(simulated_ms, self._speed)

    def _over(self) -> bool:
        if self._timer.stopped:
            return True
        if self._phase != "live" or self._live_wall_ms is None:
            return False
        return self._timer.now_ms() - self._live_since_ms >= self._live_wall_ms

    def _finish(self) -> None:
        self._outlet.flush()
        if self._sent_ms is not None:
            self._outlet.set_clock(self._sent_ms, 0.0)
            if self._phase == "history":
                self._wait_for(self._outlet.drained)
        self._history_folded = self._history_folded or not self._timer.stopped
        self._phase = "done"
        self._tell()

    def _tell(self, *, waiting: bool = False) -> None:
        self._on_progress(Progress(self._phase, self._sent_ms, self._history_folded, waiting))
