"""A window by days, or by weeks where a step is a week: what events are fitted on.

Dimensions: N series, S context and horizon steps, D days or weeks, F flags.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        column_D = np.arange(self.target_ND.shape[1])
        return self.first_day + self.length_days * column_D

    @property
    def weekday_D(self) -> Ints:
        """Weekday of each column, 0 for a Thursday; 0 for every week."""
        if self.length_days != 1:
            return np.zeros(len(self.day_D), np.int64)
        return self.day_D % 7

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
        seen_D = np.isfinite(self.target_ND).any(0)
        sum_D = np.nansum(self.target_ND, 0)
        known_DF = np.isfinite(self.flags_NDF).sum(0)
        mean_DF = np.nansum(self.flags_NDF, 0) / _or_nan(known_DF)
        target_D = np.where(seen_D, sum_D, np.nan)
        closed_D = np.logical_and.reduce(self.closed_ND, 0)
        return replace(
            self,
            target_ND=target_D[None],
            closed_ND=closed_D[None],
            flags_NDF=mean_DF[None],
        )


def days_of(window: Window, closed_NS: Bools, flags: Sequence[int]) -> Days | None:
    """The window by days or weeks; None where its steps are longer than a day and no week."""
    by_week = window.resolution_ms == WEEK_MS
    fits = by_week or window.resolution_ms <= DAY_MS
    if not fits or window.time_ms_NS.size == 0:
        return None
    length_days = 7 if by_week else 1
    day_NS = window.shown_ms_NS // DAY_MS
    # A week is labelled by its last day.
    if window.frequency.startswith("W"):
        day_NS = day_NS - 6
    first_day = int(day_NS.min())
    column_NS = (day_NS - first_day) // length_days
    num_days = int(column_NS.max()) + 1

    # Aligned on the calendar, so that a column is the same day in every series and what they share
    # on it can be told from what each does alone.
    def summed(values_NX: Floats | Ints | Bools) -> Floats:
        return _summed(values_NX, column_NS, num_days)

    # A day of which some hours are missing has no sum that could be compared with other days'.
    steps_ND = summed(np.ones_like(column_NS))
    seen_ND = summed(np.isfinite(window.target_NT))
    full_day_N1 = seen_ND.max(1, keepdims=True, initial=1.0)
    whole_ND = (seen_ND > 0) & (seen_ND >= FULL_DAY * full_day_N1)
    sum_ND = summed(np.nan_to_num(window.target_NT))

    flags_NDF = np.zeros((*steps_ND.shape, len(flags)))
    for place, column in enumerate(flags):
        flag_NS = window.known_NSK[:, :, column]
        up_ND = summed(np.nan_to_num(flag_NS))
        known_ND = summed(np.isfinite(flag_NS))
        flags_NDF[..., place] = up_ND / _or_nan(known_ND)
    return Days(
        length_days=length_days,
        first_day=first_day,
        column_NS=column_NS,
        target_ND=np.where(whole_ND, sum_ND, np.nan),
        closed_ND=(steps_ND > 0) & (summed(closed_NS) == steps_ND),
        flags_NDF=flags_NDF,
    )


def _summed(values_NX: Floats | Ints | Bools, column_NS: Ints, num_days: int) -> Floats:
    """Sums of the first X steps of each series by the day that they belong to: [N, D]."""
    N, X = values_NX.shape
    # One number for each series and day, so that a single count serves all of them.
    row_N1 = np.arange(N)[:, None]
    index_NX = row_N1 * num_days + column_NS[:, :X]
    values = values_NX.astype(np.float64).ravel()
    sums = np.bincount(index_NX.ravel(), values, N * num_days)
    return sums.astype(np.float64).reshape(N, num_days)


def _or_nan(count_ND: Floats | Ints) -> Floats:
    return np.where(count_ND > 0, count_ND, np.nan)


def flag_columns(window: Window, closed_NS: Bools) -> list[int]:
    """Known covariates that are flags and vary over open steps: at most 12.

    None of weeks, which only hold shares of them.
    """
    if window.resolution_ms > DAY_MS:
        return []
    T = window.context_length
    open_NT = ~closed_NS[:, :T]
    chosen: list[int] = []
    for column in range(window.known_NSK.shape[2]):
        values_NT = window.known_NSK[:, :T, column]
        values = values_NT[open_NT]
        values = values[np.isfinite(values)]
        if set(np.unique(values)) != {0, 1}:
            continue
        share = float(values.mean())
        if MIN_UP <= share <= 1.0 - MIN_UP:
            chosen.append(column)
    return chosen[:MAX_FLAGS]
