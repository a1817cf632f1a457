"""Forecast metrics in numpy; NaN actuals are left out. Definitions follow fev's.

Dimensions: B rows, H horizon steps, Q quantile levels, T context steps.
"""

from __future__ import annotations

import numpy as np

from freshet.stream.arrays import Bools, Reals


def pinball(actual_BH: Reals, quantiles_BHQ: Reals, levels: Reals) -> Reals:
    """Pinball loss of each row, step and level: [B, H, Q], NaN where the actual is NaN.

    >>> pinball(np.array([[2.0]]), np.array([[[1.0, 3.0]]]), np.array([0.1, 0.9])).round(2).tolist()
    [[[0.1, 0.1]]]
    """
    error = actual_BH[..., None] - quantiles_BHQ
    return np.maximum(levels * error, (levels - 1.0) * error)


def wql(actual_BH: Reals, quantiles_BHQ: Reals, levels: Reals) -> float:
    """Weighted quantile loss: twice the pinball loss over summed |actual|, mean over the levels.

    >>> wql(np.array([[2.0, 0.0]]), np.array([[[1.0], [0.0]]]), np.array([0.5]))
    0.5
    """
    losses = 2.0 * pinball(actual_BH, quantiles_BHQ, levels)
    return float(np.nansum(losses) / len(levels) / _total(actual_BH))


def wape(actual_BH: Reals, median_BH: Reals) -> float:
    """Summed absolute error over summed |actual|.

    >>> wape(np.array([[2.0, 2.0]]), np.array([[1.0, 2.0]]))
    0.25
    """
    return float(np.nansum(np.abs(actual_BH - median_BH)) / _total(actual_BH))


def seasonal_error(target_BT: Reals, season_length: int) -> Reals:
    """Mean absolute seasonal difference of each row's history: [B], NaN without a single pair.

    >>> seasonal_error(np.array([[1.0, 3.0, 2.0, 6.0]]), 2).tolist()
    [2.0]
    """
    gap_BT = np.abs(target_BT[:, season_length:] - target_BT[:, :-season_length])
    count_B = np.isfinite(gap_BT).sum(1)
    return np.where(count_B > 0, np.nansum(gap_BT, 1) / np.maximum(count_B, 1), np.nan)


def sql(actual_BH: Reals, quantiles_BHQ: Reals, levels: Reals, error_B: Reals) -> float:
    """Scaled quantile loss: twice the pinball loss over each row's `seasonal_error`.

    The mean over levels, then over all observed steps of all rows at once. Rows whose seasonal
    error is zero or unknown are dropped; NaN when all are.

    >>> sql(np.array([[2.0], [9.0]]), np.array([[[1.0]], [[1.0]]]), np.array([0.5]),
    ...     np.array([4.0, 0.0]))
    0.25
    """
    return _mean_of_scaled(2.0 * pinball(actual_BH, quantiles_BHQ, levels).mean(-1), error_B)


def mase(actual_BH: Reals, median_BH: Reals, error_B: Reals) -> float:
    """Mean absolute error over each row's `seasonal_error`.

    Rows where that is zero or unknown are dropped.

    >>> mase(np.array([[4.0], [4.0]]), np.array([[3.0], [0.0]]), np.array([2.0, np.nan]))
    0.5
    """
    return _mean_of_scaled(np.abs(actual_BH - median_BH), error_B)


def coverage(actual_BH: Reals, lower_BH: Reals, upper_BH: Reals) -> float:
    """Share of actuals within [lower, upper], both ends inclusive; NaN without a single actual.

    >>> coverage(np.array([[1.0, 5.0]]), np.array([[0.0, 0.0]]), np.array([[1.0, 4.0]]))
    0.5
    """
    inside = (actual_BH >= lower_BH) & (actual_BH <= upper_BH)
    return _mean(inside[np.isfinite(actual_BH)])


def bias(actual_BH: Reals, mean_BH: Reals) -> float:
    """Summed (forecast - actual) over summed |actual|: above zero means too much was forecast.

    >>> bias(np.array([[2.0, 2.0]]), np.array([[3.0, 2.0]]))
    0.25
    """
    return float(np.nansum(mean_BH - actual_BH) / _total(actual_BH))


def _mean_of_scaled(loss_BH: Reals, error_B: Reals) -> float:
    """Mean over all finite loss / error at once.

    A mean of the rows' means would weigh rows with gaps too high.
    """
    usable_B = error_B > 0
    scaled_BH = loss_BH[usable_B] / error_B[usable_B, None]
    return _mean(scaled_BH[np.isfinite(scaled_BH)])


def _mean(values: Reals | Bools) -> float:
    return float(values.mean()) if values.size else float("nan")


def _total(actual_BH: Reals) -> float:
    """Summed |actual|; 1 when nothing was sold, so that a loss over it stays finite."""
    return float(np.nansum(np.abs(actual_BH))) or 1.0
