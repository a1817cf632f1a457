"""What a learner is told of each step ahead, relative to a series' usual sales at such a step.

The target of learning is the logarithm of sales less those usual sales, which are taken from before
the origin, and less the effect of events, which was learnt before the window's cutoff: who sells
how much on which weekday under which promotion needs no learning, and zeros are no trouble.
Dimensions: N series, T context steps, H horizon steps, S = T + H, F flags, X rows to learn from, K
features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freshet.model.baselines.past import Pace, Past
from freshet.model.effects.levels import usual
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints, Singles
from freshet.stream.units import DAY_MS, WEEK_MS

RECENT_WEEKS = (1, 2, 4, 8, 13)
NEIGHBOURS = (-2, -1, 1, 2)
MAX_KNOWN = 40
MAX_RUN = 30

# By name, each in a shape that broadcasts to [N, H].
Features = dict[str, NDArray[np.generic]]


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
            values = window.static.get(name)
            numbers = self.numbers.get(name)
            if values is None:
                columns[name] = np.full(len(window), np.nan)
            elif numbers is None:
                columns[name] = values.astype(np.float64)
            else:
                found = [numbers.get(str(value), np.nan) for value in values]
                columns[name] = np.array(found, np.float64)
        return columns


def ahead(past: Past, codes: Codes, origin: int) -> Ahead:
    """The H steps from `origin` on, seen from there: of later steps only the target is looked at.

    Args:
        past: the window.
        codes: numbers for texts.
        origin: context steps before the first step ahead; T for the horizon of the window itself.
    """
    H = past.window.horizon
    end = origin + H
    # What a series sells at such steps, events apart, and what its past left over that.
    before_NT = past.log_NT[:, :origin]
    effect_NT = past.effect_NS[:, :origin]
    plain_NT = before_NT - effect_NT
    cell_NS = past.cell_NS[:, :end]
    usual_NS = usual(plain_NT, cell_NS, past.pace.recent)
    left_NT = plain_NT - usual_NS[:, :origin]
    effect_NH = past.effect_NS[:, origin:end]
    base_NH = usual_NS[:, origin:] + effect_NH
    # The context may end within the horizon, or right before it.
    known = past.window.context_length - origin
    came_NT = past.log_NT[:, origin:end]
    target_NH = np.full(base_NH.shape, np.nan)
    target_NH[:, :known] = came_NT - base_NH[:, :known]
    features = _features(past, codes, origin, left_NT)
    columns = []
    for values in features.values():
        values_NH = np.broadcast_to(values, base_NH.shape)
        columns.append(values_NH.astype(np.float32))
    recent_NT = left_NT[:, -past.pace.recent :]
    spread_N = np.sqrt(_mean(recent_NT**2, 0.0))
    return Ahead(
        names=tuple(features),
        features_NHK=np.stack(columns, -1),
        base_NH=base_NH,
        target_NH=target_NH,
        spread_N=spread_N,
    )


def _features(past: Past, codes: Codes, origin: int, left_NT: Floats) -> Features:
    window = past.window
    H = window.horizon
    span = slice(origin, origin + H)
    known = {}
    for column, name in enumerate(window.known_names[:MAX_KNOWN]):
        known[f"known {name}"] = window.known_NSK[:, span, column]
    static = {}
    for name, values_N in codes.columns(window).items():
        static[f"static {name}"] = values_N[:, None]
    return {
        "ahead": np.arange(H)[None],
        **_calendar(past, span),
        **known,
        **_neighbours(past, origin),
        **_recent(past, origin, left_NT),
        **static,
    }


def _calendar(past: Past, span: slice) -> Features:
    """Place in the week and in the month; the month of the year where a step is one."""
    time_NH = past.window.time_ms_NS[:, span]
    step_ms = past.window.resolution_ms
    stamps_NH = time_NH.astype("datetime64[ms]")
    month_NH = stamps_NH.astype("datetime64[M]")
    if step_ms > 2 * WEEK_MS:
        return {"month": month_NH.astype(np.int64) % 12}
    if step_ms > DAY_MS:
        # Weeks of the year are told by events and by last year; as a number they only name single
        # weeks.
        return {}
    # Wages and rents: days since the month began and until it ends.
    dates_NH = stamps_NH.astype("datetime64[D]")
    since_NH = dates_NH - month_NH.astype("datetime64[D]")
    until_NH = (month_NH + 1).astype("datetime64[D]") - dates_NH
    features: Features = {
        "weekday": time_NH // DAY_MS % 7,
        "day of month": since_NH.astype(np.int64),
        "days left": until_NH.astype(np.int64),
    }
    if step_ms < DAY_MS:
        features["hour"] = time_NH % DAY_MS // step_ms
    return features


def _neighbours(past: Past, origin: int) -> Features:
    """Closed steps around, and how far each flag's last and next change are; none beyond H."""
    end = origin + past.window.horizon
    features: Features = {}
    # Who finds a shop closed comes the day before or after.
    for offset in NEIGHBOURS:
        at_H = np.arange(origin, end) + offset
        inside_H = (at_H >= 0) & (at_H < end)
        clipped_H = at_H.clip(0, end - 1)
        closed_NH = past.closed_NS[:, clipped_H]
        features[f"closed {offset:+}"] = closed_NH & inside_H
    # The first day of a promotion sells more than its tenth, and the days before it sell less.
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
    # The newest change so far.
    changed_NS = np.where(changes_NS, step_S, -MAX_RUN)
    last_NS = np.maximum.accumulate(changed_NS, 1)
    since_NS = (step_S - last_NS).clip(max=MAX_RUN)
    # The nearest change from here on, looked up from the end; the next one begins a step later.
    never = S + MAX_RUN
    coming_NS = np.where(changes_NS, step_S, never)
    backwards_NS = coming_NS[:, ::-1]
    nearest_NS = np.minimum.accumulate(backwards_NS, 1)
    from_here_NS = nearest_NS[:, ::-1]
    never_N1 = np.full((N, 1), never)
    next_NS = np.concatenate([from_here_NS[:, 1:], never_N1], 1)
    until_NS = (next_NS - step_S).clip(max=MAX_RUN)
    return since_NS, until_NS


def _recent(past: Past, origin: int, left_NT: Floats) -> Features:
    """What the past left over its usual sales: lately, at such steps, last year, in all series."""
    pace = past.pace
    end = origin + past.window.horizon
    features: Features = {}
    # A level that has moved shows in means over ever longer pasts.
    for weeks in RECENT_WEEKS:
        newest_NT = left_NT[:, -weeks * pace.week :]
        features[f"left {weeks}w"] = _mean(newest_NT)[:, None]
    features["left kind"] = _left_of_kind(past, end, left_NT)
    # What moves all series, such as weather, is told more surely by all of them than by one.
    for weeks in (1, 4):
        newest_NT = left_NT[:, -weeks * pace.week :]
        seen = newest_NT[np.isfinite(newest_NT)]
        middle = np.median(seen) if len(seen) else np.nan
        left_11 = np.full((1, 1), middle)
        features[f"left all {weeks}w"] = left_11
    recent_NT = left_NT[:, -pace.recent :]
    spread_N = np.sqrt(_mean(recent_NT**2))
    features["spread"] = spread_N[:, None]
    seen_N = np.isfinite(recent_NT).sum(1)
    features["seen"] = seen_N[:, None]
    if pace.year:
        features["last year"] = _last_year(pace, origin, left_NT, past.window.horizon)
    first = max(0, origin - pace.recent)
    mean_N = _mean(past.log_NT[:, first:origin])
    features["mean"] = mean_N[:, None]
    features["effect"] = past.effect_NS[:, origin:end]
    return features


def _left_of_kind(past: Past, end: int, left_NT: Floats) -> Floats:
    """What steps of the same kind left over in the last eight weeks, for each step ahead: [N, H].

    A weekday that has become a better one is seen here first.
    """
    H = past.window.horizon
    lately = 8 * past.pace.week
    lately_NT = left_NT[:, -lately:]
    cell_NS = past.cell_NS[:, :end]
    around_NS = cell_NS[:, -lately - H :]
    of_kind_NS = usual(lately_NT, around_NS)
    return of_kind_NS[:, -H:]


def _last_year(pace: Pace, origin: int, left_NT: Floats, horizon: int) -> Floats:
    """The same steps a year of whole weeks earlier, relative to the half-year around: [N, H]."""
    found_NH = np.full((len(left_NT), horizon), np.nan)
    at_H = np.arange(origin, origin + horizon) - pace.year
    # Relative, since the level of a year ago is not today's.
    begin = max(0, origin - pace.year - pace.recent // 2)
    around_NT = left_NT[:, begin : begin + pace.recent]
    around_N = _mean(around_NT, 0.0)
    inside_H = (at_H >= 0) & (at_H < origin)
    then_NX = left_NT[:, at_H[inside_H]]
    found_NH[:, inside_H] = then_NX - around_N[:, None]
    return found_NH


def _mean(values_NT: Floats, without: float = np.nan) -> Floats:
    """The mean of each row's finite values: [N]."""
    count_N = np.isfinite(values_NT).sum(1)
    mean_N = np.nansum(values_NT, 1) / np.maximum(count_N, 1)
    return np.where(count_N > 0, mean_N, without)
