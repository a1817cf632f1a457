"""A window as every origin in it needs it: pace, closed steps, events, kinds of steps.

All of it is found once for the whole window, since a learner looks at it from up to 18 origins.
Dimensions: N series, T context steps, S steps with the horizon, F flags.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from freshet.model.effects.closed import closed_steps
from freshet.model.effects.days import flag_columns
from freshet.model.effects.features import bridged
from freshet.model.effects.levels import cells
from freshet.model.effects.shared import shared_effects
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, WEEK_MS

HALF_YEAR_WEEKS = 26
FEWEST_RECENT = 12  # steps of the usual sales where half a year has fewer
# History that is looked at, for memory and time go with it: five years hold each feast five times,
# and one year of hours is 8,736 steps.
LONGEST_WEEKS = 260
LONGEST_WEEKS_OF_HOURS = 52


@dataclass(frozen=True, slots=True)
class Pace:
    """How many steps make a week, the recent past, a year of whole weeks, and all that is read.

    A year of 0 steps is not worth looking back so far.
    """

    week: int
    recent: int
    year: int
    longest: int

    @classmethod
    def of(cls, window: Window) -> Pace:
        """The pace of a window's steps.

        >>> day = np.zeros((1, 2), np.int64)
        >>> none = np.zeros((1, 2, 0)), np.zeros((1, 1, 0)), (), (), {}
        >>> Pace.of(Window(("a",), "D", DAY_MS, 7, day, np.zeros((1, 1)), *none))
        Pace(week=7, recent=182, year=364, longest=1820)
        """
        step_ms = window.resolution_ms
        hours = step_ms < DAY_MS
        week = round(WEEK_MS / step_ms)
        half_year = round(HALF_YEAR_WEEKS * WEEK_MS / step_ms)
        recent = max(FEWEST_RECENT, half_year)
        # 52 whole weeks and not 365 days, so that weekdays meet weekdays.
        year = 0 if hours else max(1, round(52 * WEEK_MS / step_ms))
        longest_weeks = LONGEST_WEEKS_OF_HOURS if hours else LONGEST_WEEKS
        longest = round(longest_weeks * WEEK_MS / step_ms)
        return cls(max(1, week), recent, year, max(recent, longest))


@dataclass(frozen=True, slots=True)
class Past:
    """A window, and what every origin in it needs.

    Attributes:
        window: its context no longer than the pace's longest.
        pace: steps per week and so on.
        closed_NS: steps on which nothing sells.
        log_NT: log(1 + target), NaN where missing or closed.
        effect_NS: what all series share, in log units.
        slot_NS: hour of the week or weekday, 0 for longer steps.
        cell_NS: number of the kind of step, for the usual sales.
        flags_NSF: flags among the known covariates.
    """

    window: Window
    pace: Pace
    closed_NS: Bools
    log_NT: Floats
    effect_NS: Floats
    slot_NS: Ints
    cell_NS: Ints
    flags_NSF: Bools

    @classmethod
    def of(cls, window: Window) -> Past:
        """Closed steps, events and kinds of steps of a window."""
        pace = Pace.of(window)
        if window.context_length > pace.longest:
            window = _newest(window, pace.longest)
        closed_NS = closed_steps(window)
        slot_NS = np.zeros(window.time_ms_NS.shape, np.int64)
        if window.resolution_ms <= DAY_MS:
            slot_NS = window.time_ms_NS % WEEK_MS // window.resolution_ms
        flags_NSF = _flags(window, closed_NS)
        # A closed step says nothing of demand, so it is missing and not 0.
        log_NT = np.log1p(window.target_NT)
        closed_NT = closed_NS[:, : window.context_length]
        log_NT = np.where(closed_NT, np.nan, log_NT)
        cell_NS, _ = cells(log_NT, slot_NS, flags_NSF)
        # Fitted on what a learner is trained on: leaving each half-year out instead costs a tenth,
        # since the learner then sees last Christmas as unexplained and learns a second one on top
        # of the events' own.
        effect_NS, _ = shared_effects(window, closed_NS)
        return cls(
            window=window,
            pace=pace,
            closed_NS=closed_NS,
            log_NT=log_NT,
            effect_NS=effect_NS,
            slot_NS=slot_NS,
            cell_NS=cell_NS,
            flags_NSF=flags_NSF,
        )

    def rows(self, index: Ints) -> Past:
        """Some of the series."""
        return replace(
            self,
            window=self.window.rows(index),
            closed_NS=self.closed_NS[index],
            log_NT=self.log_NT[index],
            effect_NS=self.effect_NS[index],
            slot_NS=self.slot_NS[index],
            cell_NS=self.cell_NS[index],
            flags_NSF=self.flags_NSF[index],
        )


def _flags(window: Window, closed_NS: Bools) -> Bools:
    """Where each flag among the known covariates is up, also over closed days: [N, S, F]."""
    up = []
    for column in flag_columns(window, closed_NS):
        bridged_NS = bridged(window.known_NSK[:, :, column], closed_NS)
        up.append(bridged_NS > 0.5)
    if not up:
        return np.zeros((*closed_NS.shape, 0), bool)
    return np.stack(up, -1)


def _newest(window: Window, steps: int) -> Window:
    """The window with only its newest context steps."""
    first = window.context_length - steps
    length_N = window.length_N
    if length_N is not None:
        length_N = np.minimum(length_N, steps)
    return replace(
        window,
        time_ms_NS=window.time_ms_NS[:, first:],
        target_NT=window.target_NT[:, first:],
        known_NSK=window.known_NSK[:, first:],
        past_NTP=window.past_NTP[:, first:],
        length_N=length_N,
    )
