"""The regular steps of a pandas frequency: which step a time lies in, and when a step starts.

A frequency of fixed length (hours, days, weeks) keeps each series' own phase where its times share
one, all but a few, so that daily sales stamped at noon stay at noon. Any other frequency (months,
quarters, business days) follows the calendar. Times of day before a label at the end of a period
("W-SUN", "ME") belong to that period.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

# Steps of the season that people look at first; the hour for seconds, the day for minutes and
# hours, the week for days.
_OF_DAYS = {"s": 3_600, "min": 1_440, "h": 24, "D": 7, "B": 5, "W": 1}
_OF_MONTHS = {"SM": 24, "M": 12, "Q": 4, "Y": 1}
_SEASONS = _OF_DAYS | _OF_MONTHS
# One time in ten may be off the steps, of a series that is long enough to tell.
_NEARLY_ALL = 0.9
_FEW = 5
_SUNDAY_MS = 3 * DAY_MS  # 1970-01-04
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


@dataclass(frozen=True, slots=True)
class Calendar:
    """Numbered steps of one frequency.

    Attributes:
        frequency: the pandas alias, as given.
        step_ms: length of a step, or 0 where it varies.
        anchor_ms: start of step 0 of a frequency that varies; the phase of one that does not.
        at_end: a step is labelled by the day on which it ends.
    """

    frequency: str
    step_ms: int
    anchor_ms: int
    at_end: bool

    @classmethod
    def of(cls, frequency: str, first_ms: int) -> Calendar:
        """The calendar of a frequency, for times from `first_ms` on.

        Raises:
            InvalidInputError: pandas does not know the frequency, or it runs backwards.
        """
        import pandas as pd

        offset = offset_of(frequency)
        at_end = _base(offset) in {"W"} or offset.name.split("-")[0].endswith("E")
        if isinstance(offset, pd.offsets.Tick):
            return cls(frequency, offset.nanos // 1_000_000, 0, at_end)
        if isinstance(offset, pd.offsets.Week):
            weekday = _WEEKDAYS.index(offset.name.split("-")[1]) if "-" in offset.name else 6
            anchor_ms = _SUNDAY_MS + (weekday - 6) * DAY_MS
            return cls(frequency, 7 * offset.n * DAY_MS, anchor_ms, at_end)
        first = pd.Timestamp(first_ms, unit="ms").normalize()
        return cls(frequency, 0, int(offset.rollback(first).value // 1_000_000), at_end)

    def phases(self, time_ms_R: Ints, code_R: Ints, num: int) -> Ints:
        """The phase of each of `num` series, in ms.

        Its own where its times share one, all but a few, else the calendar's.
        """
        phase_N = np.full(num, self.anchor_ms % self.step_ms if self.step_ms else 0)
        if self.step_ms:
            rest_R = time_ms_R % self.step_ms
            low_N = np.full(num, self.step_ms)
            high_N = np.full(num, -1)
            np.minimum.at(low_N, code_R, rest_R)
            np.maximum.at(high_N, code_R, rest_R)
            phase_N = np.where(low_N == high_N, low_N, phase_N)
            if (low_N < high_N).any():
                phase_N = _of_most(rest_R, code_R, phase_N)
        return phase_N

    def off_grid(self, time_ms_R: Ints, phase_R: Ints) -> Bools:
        """Which times are no start (or label) of a step."""
        if self.step_ms:
            return np.asarray(time_ms_R % self.step_ms != phase_R)
        return np.asarray(self.times(self.steps(time_ms_R, phase_R), phase_R) != time_ms_R)

    def nearest(self, time_ms_R: Ints, phase_R: Ints) -> Ints:
        """The number of the step whose start (or label) is nearest."""
        step_R = self.steps(time_ms_R, phase_R)
        around_XR = np.stack([step_R - 1, step_R, step_R + 1])
        distance_XR = np.abs(self.times(around_XR, phase_R[None, :]) - time_ms_R)
        found_R: Ints = step_R - 1 + distance_XR.argmin(0)
        return found_R

    def steps(self, time_ms_R: Ints, phase_R: Ints) -> Ints:
        """The number of the step that each time lies in."""
        if not self.step_ms:
            labels = self._labels(int(time_ms_R.max()))
            if self.at_end:
                return np.searchsorted(labels, time_ms_R - time_ms_R % DAY_MS, side="left")
            return np.searchsorted(labels, time_ms_R, side="right") - 1
        if self.at_end:
            # Sunday evening belongs to the week that is labelled Sunday.
            on_label_R = phase_R == time_ms_R % self.step_ms
            day_ms_R = time_ms_R - time_ms_R % DAY_MS
            whole_R = np.where(on_label_R, time_ms_R, day_ms_R)
            return -((phase_R - whole_R) // self.step_ms)
        return (time_ms_R - phase_R) // self.step_ms

    def times(self, step: Ints, phase: Ints) -> Ints:
        """The start (or the label) of numbered steps, UTC milliseconds.

        Steps before 0, which pad short series, have times too.
        """
        if self.step_ms:
            return step * self.step_ms + phase
        labels = self._labels(self.anchor_ms, int(step.max()) + 1)
        # Padding lies before the first label: it is stepped back by the nominal length.
        before = labels[0] + step * resolution_ms(self.frequency)
        return np.where(step >= 0, labels[np.maximum(step, 0)], before)

    def _labels(self, until_ms: int, periods: int = 0) -> Ints:
        import pandas as pd

        offset = offset_of(self.frequency)
        start = pd.Timestamp(self.anchor_ms, unit="ms")
        if periods:
            labels = pd.date_range(start, periods=periods, freq=offset)
        else:
            end = pd.Timestamp(until_ms, unit="ms")
            labels = pd.date_range(start, end.normalize() + offset, freq=offset)
        stamps: Ints = labels.as_unit("ms").asi8
        return stamps


def _of_most(rest_R: Ints, code_R: Ints, phase_N: Ints) -> Ints:
    """The phase that nearly all times of a series share; where they do not, as it was."""
    pairs, count_X = np.unique(np.stack([code_R, rest_R], 1), axis=0, return_counts=True)
    total_N = np.bincount(code_R, minlength=len(phase_N))
    steady_X = (count_X >= _NEARLY_ALL * total_N[pairs[:, 0]]) & (total_N[pairs[:, 0]] >= _FEW)
    found_N = phase_N.copy()
    found_N[pairs[steady_X, 0]] = pairs[steady_X, 1]
    return found_N


def season_length(frequency: str) -> int:
    """Steps of the season that a frequency suggests.

    1 where it has none, or where a whole number of steps does not fill it.

    >>> [season_length(name) for name in ("h", "15min", "D", "W-SUN", "MS", "QS", "B", "5h")]
    [24, 96, 7, 1, 12, 4, 5, 1]
    """
    offset = offset_of(frequency)
    cycle = _SEASONS.get(_base(offset), 1)
    return cycle // offset.n if cycle % offset.n == 0 else 1


def resolution_ms(frequency: str) -> int:
    """The nominal length of a step: a month counts 30.4375 days.

    >>> resolution_ms("h"), resolution_ms("MS") / DAY_MS
    (3600000, 30.4375)
    """
    import pandas as pd

    offset = offset_of(frequency)
    # Enough steps to hold whole leap cycles and weeks, few enough to end before the year 2262.
    count = 4 if _base(offset) == "Y" else 240
    labels = pd.date_range("2000-01-01", periods=count + 1, freq=offset).as_unit("ms").asi8
    return int((labels[-1] - labels[0]) // count)


def _base(offset: Any) -> str:
    """The unit without anchor, label and business prefix: "MS", "BME" and "ME" are all "M"."""
    name = str(offset.name).split("-")[0]
    if name in _SEASONS:
        return name
    return name.removeprefix("C").removeprefix("B").removesuffix("S").removesuffix("E")


def offset_of(frequency: str) -> Any:
    """The pandas offset of an alias.

    Raises:
        InvalidInputError: pandas does not know the frequency, or it runs backwards.
    """
    import pandas as pd

    try:
        with warnings.catch_warnings():
            # Older spellings ("H", "M") only warn, and mean what they always meant.
            warnings.simplefilter("ignore", FutureWarning)
            offset = pd.tseries.frequencies.to_offset(frequency)
    except ValueError:
        offset = None
    too_short = isinstance(offset, pd.offsets.Tick) and offset.nanos < 1_000_000
    if offset is None or offset.n < 1 or too_short:
        raise InvalidInputError(
            f"{frequency!r} is no frequency",
            hint="give a pandas alias such as h, D, W-SUN, MS, QS or 15min",
        )
    return offset
