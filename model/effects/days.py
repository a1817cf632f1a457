"""A window by days, or by weeks where a step is a week: what events are fitted on.

Dimensions: N series, S context and horizon steps, D days or weeks, F flags.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, WEEK_MS

MIN_UP = 0.002  # a flag that is up on a smaller share of the open steps teaches nothing
MAX_FLAGS = 12
FULL_DAY = 0.9  # share of a day's steps that must be seen for their sum to be the day's


@dataclass(frozen=True, slots=True)
class Days:
    """Days of every series, aligned on the calendar: column d is the same day for all.

    Attributes:
        length_days: 1 for days, 7 for weeks.
        first_day: day number of the first column, from 1970-01-01.
        column_NS: the column of each step of the window.
        target_ND: sum of the day, NaN where the day is not, or not wholly, seen before the cutoff.
        closed_ND: days of which every step is closed.
        flags_NDF: share of the day that a flag is up, NaN where unknown.
    """

    length_days: int
    first_day: int
    column_NS: Ints
    target_ND: Floats
    closed_ND: Bools
    flags_NDF: Floats

    @property
    def day_D(self) -> Ints:
        """Day number of each column (of a week its first day)."""
        return self.first_day + self.length_days * np.arange(self.target_ND.shape[1])

    def rows(self, index: slice) -> Days:
        """Some of the series."""
        return replace(
            self,
            column_NS=self.column_NS[index],
            target_ND=self.target_ND[index],
            closed_ND=self.closed_ND[index],
            flags_NDF=self.flags_NDF[index],
        )

    def total(self) -> Days:
        """All series together as one.

        Closed when all are, a flag up as far as it is on their average.
        """
        seen_ND = np.isfinite(self.target_ND)
        flags_NDF = np.isfinite(self.flags_NDF)
        mean_DF = np.nansum(self.flags_NDF, 0) / _or_nan(flags_NDF.sum(0))
        return replace(
            self,
            target_ND=np.where(seen_ND.any(0), np.nansum(self.target_ND, 0), np.nan)[None],
            closed_ND=np.logical_and.reduce(self.closed_ND, 0)[None],
            flags_NDF=mean_DF[None],
        )


def days_of(window: Window, closed_NS: Bools, flag_columns: list[int]) -> Days | None:
    """The window by days or weeks; None where its steps are longer than a day and no week."""
    fits = window.resolution_ms <= DAY_MS or window.resolution_ms == WEEK_MS
    if not fits or window.time_ms_NS.size == 0:
        return None
    length_days = 7 if window.resolution_ms == WEEK_MS else 1
    # A week is labelled by its last day.
    day_NS = window.time_ms_NS // DAY_MS - (6 if window.frequency.startswith("W") else 0)
    first_day = int(day_NS.min())
    column_NS = (day_NS - first_day) // length_days
    shape = (len(window), int(column_NS.max()) + 1)

    def summed(values_NX: Floats | Ints | Bools) -> Floats:
        index_NX = np.arange(shape[0])[:, None] * shape[1] + column_NS[:, : values_NX.shape[1]]
        values_X = values_NX.astype(np.float64).ravel()
        sums = np.bincount(index_NX.ravel(), values_X, shape[0] * shape[1])
        return sums.astype(np.float64).reshape(shape)

    steps_ND = summed(np.ones_like(column_NS))
    seen_ND = summed(np.isfinite(window.target_NT))
    whole_ND = (seen_ND > 0) & (seen_ND >= FULL_DAY * max(1.0, float(seen_ND.max(initial=0))))
    flags_NDF = np.zeros((*shape, len(flag_columns)))
    for place, column in enumerate(flag_columns):
        flag_NS = window.known_NSK[:, :, column]
        known_ND = _or_nan(summed(np.isfinite(flag_NS)))
        flags_NDF[..., place] = summed(np.nan_to_num(flag_NS)) / known_ND
    return Days(
        length_days=length_days,
        first_day=first_day,
        column_NS=column_NS,
        target_ND=np.where(whole_ND, summed(np.nan_to_num(window.target_NT)), np.nan),
        closed_ND=(steps_ND > 0) & (summed(closed_NS) == steps_ND),
        flags_NDF=flags_NDF,
    )


def _or_nan(count_ND: Floats | Ints) -> Floats:
    return np.where(count_ND > 0, count_ND, np.nan)


def flag_columns(window: Window, closed_NS: Bools) -> list[int]:
    """Known covariates that are flags and vary over open steps: at most 12.

    None of weeks, which only hold shares of them.
    """
    if window.resolution_ms > DAY_MS:
        return []
    open_NT = ~closed_NS[:, : window.context_length]
    chosen: list[int] = []
    for column in range(window.known_NSK.shape[2]):
        values = window.known_NSK[:, : window.context_length, column][open_NT]
        values = values[np.isfinite(values)]
        if set(np.unique(values)) == {0, 1} and MIN_UP <= float(values.mean()) <= 1.0 - MIN_UP:
            chosen.append(column)
    return chosen[:MAX_FLAGS]
