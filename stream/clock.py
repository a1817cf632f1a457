"""What time it is for the shop: wall time, or the line of simulated time through an anchor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from freshet.stream.errors import StoreUnavailableError
from freshet.stream.units import DAY_MS, HOUR_MS

REREAD_MS = 200
AHEAD_MS = HOUR_MS
HELD_AHEAD_MS = 10 * 366 * DAY_MS
UNREAD_MS = 30_000


class Clock(Protocol):
    """What time it is for the shop, and how fast that time runs."""

    @property
    def speed(self) -> float:
        """Clock milliseconds per wall millisecond; 0 while the clock is held."""

    def now_ms(self) -> int:
        """Epoch milliseconds, UTC."""


def wall_now_ms() -> int:
    """Wall time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def latest_ms(clock: Clock) -> int:
    """When a record may say that something happened at the latest.

    An hour past the clock, and what it gains in half a minute: clocks of processes differ, and one
    that cannot be read follows its last line. A clock that is held stands behind a source that
    sends history, days in a second, and moves it only afterwards: ten years past it.
    """
    now_ms, speed = clock.now_ms(), clock.speed
    return now_ms + (AHEAD_MS + round(UNREAD_MS * speed) if speed else HELD_AHEAD_MS)


def when(at_ms: int) -> str:
    """A clock time as people read it.

    >>> when(0)
    'Thu 1 Jan 00:00'
    """
    at = datetime.fromtimestamp(at_ms / 1_000, UTC)
    return f"{at:%a} {at.day} {at:%b %H:%M}"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A point of the line that simulated time follows until the anchor moves.

    >>> Anchor(wall_ms=1_000, simulated_ms=50_000, speed=60.0).at(1_500)
    80000
    """

    wall_ms: int
    simulated_ms: int
    speed: float

    def at(self, wall_ms: int) -> int:
        """Simulated time at a wall time."""
        return self.simulated_ms + round((wall_ms - self.wall_ms) * self.speed)


class SimulatedClock:
    """Follows an anchor that somebody else moves; wall time while there is none.

    The anchor is read again at most every `REREAD_MS` of wall time, so a clock may run ahead of a
    source that was just held back. It then stands still until the new line has caught up, rather
    than running backwards; only an anchor set to an earlier time than the last one moves it back.
    When the anchor cannot be read, it keeps its line.

    Args:
        read_anchor: The anchor now, or None; may raise `StoreUnavailableError`.
        wall_now_ms: Wall time.
    """

    def __init__(
        self,
        read_anchor: Callable[[], Anchor | None],
        *,
        wall_now_ms: Callable[[], int] = wall_now_ms,
    ) -> None:
        self._read_anchor = read_anchor
        self._wall_now_ms = wall_now_ms
        self._anchor = read_anchor()
        self._read_at_ms = wall_now_ms()
        self._newest_ms: int | None = None

    @property
    def speed(self) -> float:
        """Simulated milliseconds per wall millisecond; 0 while held."""
        self._follow()
        return 1.0 if self._anchor is None else self._anchor.speed

    def now_ms(self) -> int:
        """Simulated epoch milliseconds, UTC."""
        self._follow()
        wall_ms = self._wall_now_ms()
        now_ms = wall_ms if self._anchor is None else self._anchor.at(wall_ms)
        self._newest_ms = now_ms if self._newest_ms is None else max(now_ms, self._newest_ms)
        return self._newest_ms

    def _follow(self) -> None:
        wall_ms = self._wall_now_ms()
        if 0 <= wall_ms - self._read_at_ms < REREAD_MS:
            return
        self._read_at_ms = wall_ms
        try:
            anchor = self._read_anchor()
        except StoreUnavailableError:
            return
        if _set_back(self._anchor, anchor):
            self._newest_ms = None
        self._anchor = anchor


def _set_back(old: Anchor | None, new: Anchor | None) -> bool:
    """Whether time was set to something else on purpose, rather than held back or resumed."""
    if old is None or new is None:
        return old is not new
    return new.simulated_ms < old.simulated_ms
