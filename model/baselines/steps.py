"""What a learner is told of each step ahead, relative to a series' usual sales at such a step.

The target of learning is the logarithm of sales less those usual sales, which are taken from before
the origin, and less the effect of events, which was learnt before the window's cutoff: who sells
how much on which weekday under which promotion needs no learning, and zeros are no trouble.
Dimensions: N series, T context steps, H horizon steps, S = T + H, F flags, X rows to learn from, K
features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from freshet.model.effects.closed import closed_steps
from freshet.model.effects.days import flag_columns
from freshet.model.effects.features import bridged
from freshet.model.effects.levels import cells, usual
from freshet.model.effects.shared import shared_effects
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints, Singles
from freshet.stream.units import DAY_MS, WEEK_MS

HALF_YEAR_WEEKS = 26
FEWEST_RECENT = 12  # steps of the usual sales where half a year has fewer
LONGEST_WEEKS_OF_HOURS, LONGEST_WEEKS = 52, 260  # history that is looked at
RECENT_WEEKS = (1, 2, 4, 8, 13)
NEIGHBOURS = (-2, -1, 1, 2)
MAX_KNOWN = 40
MAX_RUN = 30


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
        week = max(1, round(WEEK_MS / step_ms))
        recent = max(FEWEST_RECENT, round(HALF_YEAR_WEEKS * WEEK_MS / step_ms))
        year = 0 if step_ms < DAY_MS else max(1, round(52 * WEEK_MS / step_ms))
        weeks = LONGEST_WEEKS_OF_HOURS if step_ms < DAY_MS else LONGEST_WEEKS
        return cls(week, recent, year, max(recent, round(weeks * WEEK_MS / step_ms)))


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
        T = window.context_length
        closed_NS = closed_steps(window)
        slot_NS = np.zeros(window.time_ms_NS.shape, np.int64)
        flags = flag_columns(window, closed_NS)
        if window.resolution_ms <= DAY_MS:
            slot_NS = window.time_ms_NS % WEEK_MS // window.resolution_ms
        bridges = [bridged(window.known_NSK[:, :, column], closed_NS) > 0.5 for column in flags]
        flags_NSF = np.stack(bridges, -1) if bridges else np.zeros((*closed_NS.shape, 0), bool)
        log_NT = np.where(closed_NS[:, :T], np.nan, np.log1p(window.target_NT))
        cell_NS, _ = cells(log_NT, slot_NS, flags_NSF)
        # Fitted on what a learner is trained on: leaving each half-year out instead costs a tenth,
        # since the learner then sees last Christmas as unexplained and learns a second one on top
        # of the events' own.
        effect_NS, _ = shared_effects(window, closed_NS)
        return cls(window, pace, closed_NS, log_NT, effect_NS, slot_NS, cell_NS, flags_NSF)

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


@dataclass(frozen=True, slots=True)
class Ahead:
    """Steps ahead of one origin.

    Attributes:
        names: of the K features.
        features_NHK: what a learner sees, NaN where unknown.
        base_NH: usual sales and events, log units: what the learner's answer is added to.
        target_NH: what it should answer, NaN where unknown.
        spread_N: root mean square of what the recent past left over its usual sales.
    """

    names: tuple[str, ...]
    features_NHK: Singles
    base_NH: Floats
    target_NH: Floats
    spread_N: Floats


@dataclass(frozen=True, slots=True)
class Codes:
    """Numbers for the texts of static columns, as they were when a learner was trained."""

    names: tuple[str, ...]
    numbers: dict[str, dict[str, int]]

    @classmethod
    def of(cls, window: Window, most: int = 50) -> Codes:
        """Columns that are numbers, and texts with few enough values to be categories."""
        numbers: dict[str, dict[str, int]] = {}
        names = []
        for name, values in window.static.items():
            if values.dtype == object:
                found = sorted({str(value) for value in values})
                numbers[name] = {text: number for number, text in enumerate(found)}
            if len(numbers.get(name, {})) <= most:
                names.append(name)
        return cls(tuple(names), numbers)

    def columns(self, window: Window) -> Mapping[str, Floats]:
        """Each static column as numbers [N], NaN for values that were not there in training."""
        columns = {}
        for name in self.names:
            values, numbers = window.static.get(name), self.numbers.get(name)
            if values is None:
                columns[name] = np.full(len(window), np.nan)
            elif numbers is None:
                columns[name] = values.astype(np.float64)
            else:
                columns[name] = np.array(
                    [numbers.get(str(value), np.nan) for value in values], np.float64
                )
        return columns


def ahead(past: Past, codes: Codes, origin: int) -> Ahead:
    """The H steps from `origin` on, seen from there: of later steps only the target is looked at.

    Args:
        past: the window.
        codes: numbers for texts.
        origin: context steps before the first step ahead; T for the horizon of the window itself.
    """
    H, T = past.window.horizon, past.window.context_length
    plain_NT = past.log_NT[:, :origin] - past.effect_NS[:, :origin]
    usual_NS = usual(plain_NT, past.cell_NS[:, : origin + H], past.pace.recent)
    left_NT = plain_NT - usual_NS[:, :origin]
    base_NH = usual_NS[:, origin:] + past.effect_NS[:, origin : origin + H]
    target_NH = np.full(base_NH.shape, np.nan)
    target_NH[:, : T - origin] = past.log_NT[:, origin : origin + H] - base_NH[:, : T - origin]
    features = _features(past, codes, origin, left_NT)
    columns = [np.broadcast_to(values, base_NH.shape) for values in features.values()]
    features_NHK = np.stack([column.astype(np.float32) for column in columns], -1)
    spread_N = np.sqrt(_mean(left_NT[:, -past.pace.recent :] ** 2, 0.0))
    return Ahead(tuple(features), features_NHK, base_NH, target_NH, spread_N)


def _features(
    past: Past, codes: Codes, origin: int, left_NT: Floats
) -> dict[str, NDArray[np.generic]]:
    """Each feature by name, in a shape that broadcasts to [N, H]."""
    window, H = past.window, past.window.horizon
    span = slice(origin, origin + H)
    known = {
        f"known {name}": window.known_NSK[:, span, column]
        for column, name in enumerate(window.known_names[:MAX_KNOWN])
    }
    static = {
        f"static {name}": values_N[:, None] for name, values_N in codes.columns(window).items()
    }
    return {
        "ahead": np.arange(H)[None],
        **_calendar(past, span),
        **known,
        **_neighbours(past, origin),
        **_recent(past, origin, left_NT),
        **static,
    }


def _calendar(past: Past, span: slice) -> dict[str, NDArray[np.generic]]:
    """Place in the week and in the month; the month of the year where a step is one."""
    time_NH = past.window.time_ms_NS[:, span]
    step_ms = past.window.resolution_ms
    stamps_NH = time_NH.astype("datetime64[ms]")
    month_NH = stamps_NH.astype("datetime64[M]")
    if step_ms > DAY_MS:
        # Weeks of the year are told by events and by last year; as a number they only name single
        # weeks.
        return {"month": month_NH.astype(np.int64) % 12} if step_ms > 2 * WEEK_MS else {}
    dates_NH = stamps_NH.astype("datetime64[D]")
    features: dict[str, NDArray[np.generic]] = {
        "weekday": time_NH // DAY_MS % 7,
        "day of month": (dates_NH - month_NH.astype("datetime64[D]")).astype(np.int64),
        "days left": ((month_NH + 1).astype("datetime64[D]") - dates_NH).astype(np.int64),
    }
    return features | ({"hour": time_NH % DAY_MS // step_ms} if step_ms < DAY_MS else {})


def _neighbours(past: Past, origin: int) -> dict[str, NDArray[np.generic]]:
    """Closed steps around, and how far each flag's last and next change are; none beyond H."""
    end = origin + past.window.horizon
    features: dict[str, NDArray[np.generic]] = {}
    for offset in NEIGHBOURS:
        at_H = np.arange(origin, end) + offset
        inside_H = (at_H >= 0) & (at_H < end)
        features[f"closed {offset:+}"] = past.closed_NS[:, at_H.clip(0, end - 1)] & inside_H
    for flag in range(past.flags_NSF.shape[2]):
        since_NS, until_NS = _runs(past.flags_NSF[:, :end, flag])
        features[f"since flag {flag}"] = since_NS[:, origin:]
        features[f"until flag {flag}"] = until_NS[:, origin:]
    return features


def _runs(up_NS: Bools) -> tuple[Ints, Ints]:
    """Steps since a flag last changed and until it changes next: [N, S] each, at most MAX_RUN.

    >>> since, until = _runs(np.array([[False, True, True, False]]))
    >>> since.tolist(), until.tolist()
    ([[30, 0, 1, 0]], [[1, 2, 1, 30]])
    """
    N, S = up_NS.shape
    step_S = np.arange(S)
    changes_NS = np.diff(up_NS, axis=1, prepend=up_NS[:, :1])
    last_NS = np.maximum.accumulate(np.where(changes_NS, step_S, -MAX_RUN), 1)
    never = S + MAX_RUN
    coming_NS = np.where(changes_NS, step_S, never)
    # The nearest change from here on, looked up from the end; the next one begins a step later.
    next_NS = np.minimum.accumulate(coming_NS[:, ::-1], 1)[:, ::-1]
    next_NS = np.concatenate([next_NS[:, 1:], np.full((N, 1), never)], 1)
    return (step_S - last_NS).clip(max=MAX_RUN), (next_NS - step_S).clip(max=MAX_RUN)


def _recent(past: Past, origin: int, left_NT: Floats) -> dict[str, NDArray[np.generic]]:
    """What the past left over its usual sales: lately, at such steps, last year, in all series."""
    pace, H = past.pace, past.window.horizon
    cell_NS = past.cell_NS[:, : origin + H]
    features: dict[str, NDArray[np.generic]] = {}
    for weeks in RECENT_WEEKS:
        features[f"left {weeks}w"] = _mean(left_NT[:, -weeks * pace.week :])[:, None]
    lately = 8 * pace.week
    of_kind_NS = usual(left_NT[:, -lately:], cell_NS[:, -lately - H :])
    features["left kind"] = of_kind_NS[:, -H:]
    for weeks in (1, 4):
        of_all = left_NT[:, -weeks * pace.week :]
        of_all = of_all[np.isfinite(of_all)]
        middle = np.median(of_all) if len(of_all) else np.nan
        features[f"left all {weeks}w"] = np.full((1, 1), middle)
    recent_NT = left_NT[:, -pace.recent :]
    features["spread"] = np.sqrt(_mean(recent_NT**2))[:, None]
    features["seen"] = np.isfinite(recent_NT).sum(1)[:, None]
    if pace.year:
        features["last year"] = _last_year(pace, origin, left_NT, H)
    features["mean"] = _mean(past.log_NT[:, max(0, origin - pace.recent) : origin])[:, None]
    features["effect"] = past.effect_NS[:, origin : origin + H]
    return features


def _last_year(pace: Pace, origin: int, left_NT: Floats, horizon: int) -> Floats:
    """The same steps a year of whole weeks earlier, relative to the half-year around: [N, H]."""
    found_NH = np.full((len(left_NT), horizon), np.nan)
    at_H = np.arange(origin, origin + horizon) - pace.year
    begin = max(0, origin - pace.year - pace.recent // 2)
    around_N = _mean(left_NT[:, begin:][:, : pace.recent], 0.0)
    inside_H = (at_H >= 0) & (at_H < origin)
    found_NH[:, inside_H] = left_NT[:, at_H[inside_H]] - around_N[:, None]
    return found_NH


def _mean(values_NT: Floats, without: float = np.nan) -> Floats:
    """The mean of each row's finite values: [N]."""
    count_N = np.isfinite(values_NT).sum(1)
    return np.where(count_N > 0, np.nansum(values_NT, 1) / np.maximum(count_N, 1), without)


def _newest(window: Window, steps: int) -> Window:
    """The window with only its newest context steps."""
    first = window.context_length - steps
    return replace(
        window,
        time_ms_NS=window.time_ms_NS[:, first:],
        target_NT=window.target_NT[:, first:],
        known_NSK=window.known_NSK[:, first:],
        past_NTP=window.past_NTP[:, first:],
        length_N=None if window.length_N is None else np.minimum(window.length_N, steps),
    )
