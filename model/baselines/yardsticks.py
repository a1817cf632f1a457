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
    mean_N = _mean_or_nan(recent_NT)
    # The unbiased variance: the mean is estimated from the same steps, which takes one away.
    count_N = np.isfinite(recent_NT).sum(1)
    deviation_NT = recent_NT - mean_N[:, None]
    square_N = np.nansum(deviation_NT**2, 1) / np.maximum(count_N - 1, 1)
    spread_N = np.sqrt(square_N)
    # A mean says the same of all steps ahead.
    point_NH = np.repeat(mean_N[:, None], horizon, 1)
    spread_NH = np.repeat(spread_N[:, None], horizon, 1)
    quantiles_NHQ = normal_quantiles(point_NH, spread_NH, levels)
    return quantiles_NHQ.clip(min=0.0)


def _mean_or_nan(target_NT: Reals) -> Floats:
    """The mean of each series' observed steps, NaN without any: [N]."""
    count_N = np.isfinite(target_NT).sum(1)
    return np.where(count_N > 0, mean_of(target_NT), np.nan)


def _repeated(cycle_NM: Reals, spread_N: Reals, horizon: int, levels: Levels) -> Floats:
    """One season again and again: [N, H, Q].

    Each repetition adds one more seasonal difference, all of the same variance, so the spread grows
    with the square root of the seasons ahead.
    """
    steps_H = np.arange(horizon)
    season_length = cycle_NM.shape[1]
    phase_H = steps_H % season_length
    seasons_ahead_H = steps_H // season_length + 1
    point_NH = cycle_NM[:, phase_H]
    spread_NH = spread_N[:, None] * np.sqrt(seasons_ahead_H)
    return normal_quantiles(point_NH, spread_NH, levels)


def _latest_cycle(target_NT: Reals, season_length: int) -> Reals:
    """The newest observed value of each phase: [N, M]; a row's mean where a phase has none."""
    # Whole cycles, the newest of which ends at the cutoff.
    N, T = target_NT.shape
    cycles = -(-T // season_length)
    length = cycles * season_length
    padded_NT = np.full((N, length), np.nan)
    padded_NT[:, length - T :] = target_NT
    mean_N = _mean_or_nan(target_NT)
    latest_NM = np.repeat(mean_N[:, None], season_length, 1)
    # From the oldest on, each cycle writes over what older ones said.
    for values_NM in np.split(padded_NT, cycles, axis=1):
        seen_NM = np.isfinite(values_NM)
        latest_NM = np.where(seen_NM, values_NM, latest_NM)
    return latest_NM


def _last_season(filled_NT: Floats, season_length: int) -> Floats:
    """The last value of each phase, the phase after the cutoff first: [N, M]."""
    N, T = filled_NT.shape
    taken = min(T, season_length)
    last_NM = np.full((N, season_length), np.nan)
    last_NM[:, season_length - taken :] = filled_NT[:, T - taken :]
    mean_N1 = mean_of(filled_NT)[:, None]
    return np.where(np.isnan(last_NM), mean_N1, last_NM)


def _seasonal_spread(target_NT: Reals, season_length: int, *, lost: int) -> Floats:
    """Root mean square of each row's seasonal differences: [N], 0 without a pair.

    Args:
        lost: degrees of freedom by which the mean's divisor is smaller than the number of pairs.
    """
    later_NT = target_NT[:, season_length:]
    earlier_NT = target_NT[:, :-season_length]
    difference_NT = later_NT - earlier_NT
    count_N = np.isfinite(difference_NT).sum(1)
    freedom_N = np.maximum(count_N - lost, 1)
    square_N = np.nansum(difference_NT**2, 1) / freedom_N
    spread_N: Floats = np.sqrt(square_N)
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
        quantiles_NHQ = moving_average(window.target_NT, window.horizon, span, levels)
        return tidy(quantiles_NHQ, window)


def make(name: str) -> SeasonalNaive | MovingAverage:
    """The yardstick of a name."""
    if name == "moving_average":
        return MovingAverage()
    return SeasonalNaive(name, 1 if name == "naive" else None)


def _begun(window: Window) -> Floats:
    """The targets [N, T], where missing values at a series' own beginning count as 0, as in fev."""
    if window.length_N is None:
        return window.target_NT
    seen_NT = np.isfinite(window.target_NT)
    begun_NT = np.logical_or.accumulate(seen_NT, axis=1)
    # A series' own beginning, apart from the padding that a longer neighbour caused.
    steps_T = np.arange(window.context_length)
    first_N = window.context_length - window.length_N
    inside_NT = steps_T >= first_N[:, None]
    return np.where(inside_NT & ~begun_NT, 0.0, window.target_NT)
