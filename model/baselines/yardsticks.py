"""What any forecast must beat: seasonal naive, naive and moving average.

There are two seasonal naives because they answer two questions. `seasonal_naive` is as fair to
gaps as it can be, and is what live forecasts and pre-training are held against. `published_naive`
does exactly what statsforecast and fev do, so that a backtest here can be laid beside their tables.
Dimensions: N series, T context steps, H horizon steps, Q quantile levels, M steps of a season.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freshet.model.baselines.tidy import forward_filled, mean_of, normal_quantiles, tidy
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats, Reals

SEASONS = 4  # of the moving average
SHORTEST_AVERAGE = 7

Levels = Sequence[float] | Reals


# On arrays ----------------------------------------------------------------------------------------


def seasonal_naive(target_NT: Reals, horizon: int, season_length: int, levels: Levels) -> Floats:
    """The value one season ago, with normal quantiles of the seasonal differences, floored at 0.

    A missing value one season ago is looked up further back: what sold at this hour a day earlier
    says more than what sold an hour ago. Rows without any history give NaN.

    >>> seasonal_naive(np.array([[1.0, 5.0, 1.0, 5.0]]), 3, 2, [0.5])[0, :, 0].tolist()
    [1.0, 5.0, 1.0]
    """
    season_length = min(season_length, target_NT.shape[1])
    cycle_NM = _latest_cycle(target_NT, season_length)
    # One degree of freedom less than statsforecast counts: the careful side for short histories.
    spread_N = _seasonal_spread(target_NT, season_length, lost=1)
    return _repeated(cycle_NM, spread_N, horizon, levels).clip(min=0.0)


def published_naive(target_NT: Floats, horizon: int, season_length: int, levels: Levels) -> Floats:
    """Quantiles [N, H, Q] as statsforecast's SeasonalNaive gives them, which may lie below 0.

    Gaps are filled by the value before them, and their differences count. A series younger than a
    season takes its mean for the phases it has not seen; one without any value is forecast as 0.

    >>> published_naive(np.array([[1.0, 5.0, 1.0, 5.0]]), 3, 2, (0.5,))[0, :, 0].tolist()
    [1.0, 5.0, 1.0]
    >>> published_naive(np.array([[3.0, np.nan]]), 1, 1, (0.1, 0.5)).tolist()
    [[[3.0, 3.0]]]
    """
    filled_NT = forward_filled(target_NT)
    cycle_NM = _last_season(filled_NT, season_length)
    spread_N = _seasonal_spread(filled_NT, season_length, lost=0)
    return _repeated(cycle_NM, spread_N, horizon, levels)


def moving_average(target_NT: Reals, horizon: int, window: int, levels: Levels) -> Floats:
    """The mean of the last `window` steps, with normal quantiles of the deviations from it.

    >>> moving_average(np.array([[9.0, 1.0, 3.0]]), 2, 2, [0.5])[0, :, 0].tolist()
    [2.0, 2.0]
    """
    recent_NT = target_NT[:, -window:]
    count_N = np.isfinite(recent_NT).sum(1)
    mean_N = np.where(count_N > 0, np.nansum(recent_NT, 1) / np.maximum(count_N, 1), np.nan)
    square_N = np.nansum((recent_NT - mean_N[:, None]) ** 2, 1) / np.maximum(count_N - 1, 1)
    point_NH = np.repeat(mean_N[:, None], horizon, 1)
    spread_NH = np.repeat(np.sqrt(square_N)[:, None], horizon, 1)
    return normal_quantiles(point_NH, spread_NH, levels).clip(min=0.0)


def _repeated(cycle_NM: Reals, spread_N: Reals, horizon: int, levels: Levels) -> Floats:
    """One season again and again: [N, H, Q].

    Each repetition adds one more seasonal difference, all of the same variance, so the spread grows
    with the square root of the seasons ahead.
    """
    steps_H = np.arange(horizon)
    season_length = cycle_NM.shape[1]
    growth_H = np.sqrt(steps_H // season_length + 1)
    point_NH = cycle_NM[:, steps_H % season_length]
    return normal_quantiles(point_NH, spread_N[:, None] * growth_H, levels)


def _latest_cycle(target_NT: Reals, season_length: int) -> Reals:
    """The newest observed value of each phase: [N, M]; a row's mean where a phase has none."""
    N, T = target_NT.shape
    cycles = -(-T // season_length)
    padded_NT = np.full((N, cycles * season_length), np.nan)
    padded_NT[:, cycles * season_length - T :] = target_NT
    count_N = np.isfinite(target_NT).sum(1)
    mean_N = np.where(count_N > 0, mean_of(target_NT), np.nan)
    latest_NM = np.repeat(mean_N[:, None], season_length, 1)
    for values_NM in np.split(padded_NT, cycles, axis=1):
        latest_NM = np.where(np.isfinite(values_NM), values_NM, latest_NM)
    return latest_NM


def _last_season(filled_NT: Floats, season_length: int) -> Floats:
    """The last value of each phase, the phase after the cutoff first: [N, M]."""
    N, T = filled_NT.shape
    taken = min(T, season_length)
    last_NM = np.full((N, season_length), np.nan)
    last_NM[:, season_length - taken :] = filled_NT[:, T - taken :]
    return np.where(np.isnan(last_NM), mean_of(filled_NT)[:, None], last_NM)


def _seasonal_spread(target_NT: Reals, season_length: int, *, lost: int) -> Floats:
    """Root mean square of each row's seasonal differences: [N], 0 without a pair.

    Args:
        lost: degrees of freedom by which the mean's divisor is smaller than the number of pairs.
    """
    gap_NT = target_NT[:, season_length:] - target_NT[:, :-season_length]
    count_N = np.isfinite(gap_NT).sum(1)
    spread_N: Floats = np.sqrt(np.nansum(gap_NT**2, 1) / np.maximum(count_N - lost, 1))
    return spread_N


# As models of windows -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """Repeats the last season; `season_length` None takes the window's own, 1 the last value."""

    name: str = "seasonal_naive"
    season_length: int | None = None
    needs_fit: bool = False

    def fit(self, window: Window) -> None:
        """Nothing to learn."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q] of plain normal distributions, as published: they may lie below 0."""
        season_length = self.season_length or window.season_length
        return published_naive(_begun(window), window.horizon, season_length, levels)


@dataclass(frozen=True, slots=True)
class MovingAverage:
    """The mean of the last four seasons (of seven steps at least), with normal quantiles."""

    name: str = "moving_average"
    needs_fit: bool = False

    def fit(self, window: Window) -> None:
        """Nothing to learn."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q]."""
        span = max(SHORTEST_AVERAGE, SEASONS * window.season_length)
        return tidy(moving_average(window.target_NT, window.horizon, span, levels), window)


def make(name: str) -> SeasonalNaive | MovingAverage:
    """The yardstick of a name."""
    if name == "moving_average":
        return MovingAverage()
    return SeasonalNaive(name, 1 if name == "naive" else None)


def _begun(window: Window) -> Floats:
    """The targets [N, T], where missing values at a series' own beginning count as 0, as in fev."""
    if window.length_N is None:
        return window.target_NT
    steps_T = np.arange(window.context_length)
    unseen_NT = ~np.logical_or.accumulate(np.isfinite(window.target_NT), axis=1)
    inside_NT = steps_T >= window.context_length - window.length_N[:, None]
    return np.where(unseen_NT & inside_NT, 0.0, window.target_NT)
