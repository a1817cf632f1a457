"""Units sold within times: by the minute where minutes are held, by the hour before those.

Dimensions: B buckets, E edges of buckets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from freshet.dashboard.actuals import Actuals
from freshet.stream.arrays import Floats, Ints
from freshet.stream.read.few import FewCells
from freshet.stream.schemas import UNIT_SCALES


class Sold(NamedTuple):
    """Units, None where none of the time was observed.

    Before `by_minute_from_ms` they are those of whole hours, and shares of them.
    """

    units: float | None
    by_minute_from_ms: int | None = None


class SalesLog:
    """Units of items within times: of minutes where they are held, of hours before those.

    Of a bucket that is partly within, its share counts.
    """

    def __init__(self, actuals: Actuals, minutes: FewCells | None) -> None:
        self._actuals = actuals
        self._minutes = minutes
        self._known_from_ms = minutes.known_from_ms if minutes else None

    @property
    def counted_to_ms(self) -> int | None:
        """Up to when all that was sold is counted; None before data."""
        if self._minutes is not None and self._minutes.reached_ms is not None:
            return self._minutes.reached_ms
        return self._actuals.end_ms or None

    def sold(self, item_id: str, from_ms: int, to_ms: int) -> Sold:
        """Units within [from, to), as far as they are known."""
        if self._minutes is None or self._known_from_ms is None:
            return Sold(_rounded(self._hours(item_id, from_ms, to_ms)))
        switch_ms = self._switch_ms(from_ms, self._known_from_ms)
        newer = self._newer(self._minutes, item_id, max(from_ms, switch_ms), to_ms)
        if switch_ms <= from_ms:
            return Sold(_rounded(newer))
        older = self._hours(item_id, from_ms, min(switch_ms, to_ms))
        return Sold(_rounded(newer + (older or 0.0)), switch_ms)

    def _switch_ms(self, from_ms: int, known_from_ms: int) -> int:
        """From when on minutes are counted: the end of an hour, where hours are known so far."""
        if known_from_ms <= from_ms:
            return from_ms
        grid = self._actuals.grid
        hour_end_ms = grid.end_ms(grid.bucket(known_from_ms - 1))
        return hour_end_ms if hour_end_ms <= self._actuals.end_ms else known_from_ms

    def _newer(self, minutes: FewCells, item_id: str, from_ms: int, to_ms: int) -> float:
        units_B = minutes.of(item_id) / UNIT_SCALES["units"]
        buckets = range(minutes.first, minutes.first + len(units_B) + 1)
        share_B = _shares(minutes.grid.starts_ms(buckets), from_ms, to_ms)
        return float(share_B @ units_B)

    def _hours(self, item_id: str, from_ms: int, to_ms: int) -> float | None:
        if not self._actuals.num_buckets:
            return None
        _, units_B = self._actuals.series(item_id, "units", from_ms)
        share_B = _shares(self._actuals.edges_ms(from_ms), from_ms, to_ms)
        known_B = (share_B > 0) & ~np.isnan(units_B)
        return float(share_B[known_B] @ units_B[known_B]) if known_B.any() else None


def _shares(edge_ms_E: Ints, from_ms: int, to_ms: int) -> Floats:
    """The share of each bucket within [from, to)."""
    starts_B, ends_B = edge_ms_E[:-1], edge_ms_E[1:]
    inside_B = np.minimum(ends_B, to_ms) - np.maximum(starts_B, from_ms)
    shares_B: Floats = np.clip(inside_B / (ends_B - starts_B), 0.0, 1.0)
    return shares_B


def _rounded(units: float | None) -> float | None:
    return None if units is None else round(units, 1)
