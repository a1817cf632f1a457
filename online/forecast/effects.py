"""Which shared effects a round is dressed with, and how long it waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable

from freshet.online.effects.table import EffectsTable, Known
from freshet.stream.config import ServedResolution
from freshet.stream.units import DAY_MS, HOUR_MS

FIRST_WAIT_S = 120.0  # of wall time, for the first effects that there are of a resolution
MIDNIGHT_WAIT_S = 20.0  # by days: for those of the very midnight that ends the newest day
OLD_MS = 3 * DAY_MS  # effects come every midnight, so something is wrong where none came so long


def has_owner(served: ServedResolution) -> bool:
    """Whether effects are estimated by this resolution.

    Flash sales are of too few items, and of steps beyond a day there are too few.
    """
    return not served.flash_sales_only and served.resolution_ms <= DAY_MS


class RoundEffects:
    """The effects for rounds of one resolution.

    Args:
        table: What was published; None where nobody estimates any for this resolution.
        resolution_ms: Of the forecasts.
        now_s: A clock that never goes back.
    """

    def __init__(
        self,
        table: EffectsTable | None,
        resolution_ms: int,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table, self._resolution_ms, self._now_s = table, resolution_ms, now_s
        self.amiss = ""
        """What was amiss with the effects of the last round, for a person."""
        self._first_asked_s: float | None = None
        self._cutoff_ms: int | None = None
        self._cutoff_asked_s = 0.0

    def of(self, cutoff_ms: int) -> Known | None:
        """Those of a cutoff: the newest from before it, else the oldest that there are."""
        if self._table is None:
            return None
        return self._table.at_or_after(self._resolution_ms, cutoff_ms)

    def ready(self, cutoff_ms: int) -> bool:
        """Whether a round need not wait; asked again and again until it need not."""
        if self._table is None:
            return True
        known = self.of(cutoff_ms)
        if known is None:
            if self._first_asked_s is None:
                self._first_asked_s = self._now_s()
            return self._now_s() - self._first_asked_s >= FIRST_WAIT_S
        if self._resolution_ms < DAY_MS or known.as_of_ms >= cutoff_ms:
            return True
        if self._cutoff_ms != cutoff_ms:
            self._cutoff_ms, self._cutoff_asked_s = cutoff_ms, self._now_s()
        return self._now_s() - self._cutoff_asked_s >= MIDNIGHT_WAIT_S

    def missing(self, cutoff_ms: int) -> bool:
        """Whether there should be effects and are none at all."""
        return self._table is not None and self.of(cutoff_ms) is None

    def note(self, cutoff_ms: int) -> None:
        """A round has been made: say what was amiss with its effects."""
        self.amiss = "" if self._table is None else self._amiss(cutoff_ms)

    def _amiss(self, cutoff_ms: int) -> str:
        known = self.of(cutoff_ms)
        if known is None:
            return (
                f"forecasts by {self._resolution_ms} ms are made without shared effects, since "
                "none are on the topic"
            )
        if cutoff_ms - known.as_of_ms > OLD_MS:
            hours = (cutoff_ms - known.as_of_ms) // HOUR_MS
            return f"shared effects by {self._resolution_ms} ms are {hours} hours old"
        return ""
