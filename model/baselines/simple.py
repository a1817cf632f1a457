"""Yardsticks: seasonal naive and moving average, with quantiles from their in-sample residuals.

Dimensions: B rows, N series, T context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from freshet.model.tables.panel import Floats, Window

Array = NDArray[np.floating]


def seasonal_naive(target_BT: Array, horizon: int, season_length: int, levels: Array) -> Array:
    """The value one season ago, with normal quantiles of the seasonal differences, floored at 0.

    The spread grows with the square root of the seasons ahead, as in statsforecast's SeasonalNaive.
    A missing value one season ago is looked up further back. Rows without any history give NaN.

    >>> seasonal_naive(np.array([[1.0, 5.0, 1.0, 5.0]]), 3, 2, np.array([0.5]))[0, :, 0].tolist()
    [1.0, 5.0, 1.0]
    """
    T = target_BT.shape[1]
    season_length = min(season_length, T)
    last_BS = latest_cycle(target_BT, season_length)
    spread_B = residual_spread(target_BT, season_length)
    steps_H = np.arange(horizon)
    point_BH = last_BS[:, steps_H % season_length]
    growth_H = np.sqrt(steps_H // season_length + 1)
    return normal_quantiles(point_BH, spread_B[:, None] * growth_H, levels)


def moving_average(target_BT: Array, horizon: int, window: int, levels: Array) -> Array:
    """The mean of the last `window` observed steps, with normal quantiles of the deviations from
    it.

    >>> moving_average(np.array([[9.0, 1.0, 3.0]]), 2, 2, np.array([0.5]))[0, :, 0].tolist()
    [2.0, 2.0]
    """
    recent_BT = target_BT[:, -window:]
    count_B = np.isfinite(recent_BT).sum(1)
    mean_B = np.where(count_B > 0, np.nansum(recent_BT, 1) / np.maximum(count_B, 1), np.nan)
    square_B = np.nansum((recent_BT - mean_B[:, None]) ** 2, 1) / np.maximum(count_B - 1, 1)
    return normal_quantiles(
        np.repeat(mean_B[:, None], horizon, 1),
        np.repeat(np.sqrt(square_B)[:, None], horizon, 1),
        levels,
    )


def latest_cycle(target_BT: Array, season_length: int) -> Array:
    """The newest observed value of each phase: [B, season_length]; a row's mean where a phase has
    none.
    """
    B, T = target_BT.shape
    cycles = -(-T // season_length)
    padded = np.full((B, cycles * season_length), np.nan)
    padded[:, cycles * season_length - T :] = target_BT
    stacked_BCS = padded.reshape(B, cycles, season_length)
    count_B = np.isfinite(target_BT).sum(1)
    mean_B = np.where(count_B > 0, np.nansum(target_BT, 1) / np.maximum(count_B, 1), np.nan)
    latest_BS = np.repeat(mean_B[:, None], season_length, 1)
    for cycle in range(cycles):
        seen = np.isfinite(stacked_BCS[:, cycle])
        latest_BS = np.where(seen, stacked_BCS[:, cycle], latest_BS)
    return latest_BS


def residual_spread(target_BT: Array, season_length: int) -> Array:
    """Root mean square of the seasonal differences of each row: [B]; 0 without a pair."""
    if season_length >= target_BT.shape[1]:
        return np.zeros(len(target_BT))
    gap_BT = target_BT[:, season_length:] - target_BT[:, :-season_length]
    count_B = np.isfinite(gap_BT).sum(1)
    # One degree of freedom less, as statsforecast counts it.
    spread_B: Array = np.sqrt(np.nansum(gap_BT**2, 1) / np.maximum(count_B - 1, 1))
    return spread_B


def normal_quantiles(point_BH: Array, spread_BH: Array, levels: Array) -> Array:
    """Quantiles of normal distributions, floored at 0: [B, H, Q]."""
    scores_Q = np.array([NormalDist().inv_cdf(float(level)) for level in levels])
    raised_BHQ: Array = point_BH[..., None] + spread_BH[..., None] * scores_Q
    return raised_BHQ.clip(min=0.0)


def tidy(quantiles_NHQ: Array, window: Window) -> Floats:
    """The same quantiles as every model owes them: finite, sorted and >= 0; gaps take the mean of
    their series.

    >>> window = Window(("a",), "D", 86_400_000, 7, np.zeros((1, 3), np.int64),
    ...     np.array([[1.0, 3.0]]),
    ...                 np.zeros((1, 3, 0)), np.zeros((1, 2, 0)), (), (), {})
    >>> tidy(np.array([[[np.nan, 0.5, -1.0]]]), window).tolist()
    [[[0.0, 0.5, 2.0]]]
    """
    filled_NHQ = np.where(
        np.isfinite(quantiles_NHQ), quantiles_NHQ, mean_of(window.target_NT)[:, None, None]
    )
    return np.sort(filled_NHQ.clip(min=0.0).astype(np.float64), -1)


def mean_of(target_NT: Floats) -> Floats:
    """The mean of each series' observed steps, 0 without any: [N]."""
    mean_N: Floats = np.nansum(target_NT, 1) / np.maximum(np.isfinite(target_NT).sum(1), 1)
    return mean_N
