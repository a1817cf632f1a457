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
    # An actual above the quantile costs `level` a unit, one below it 1 - level: what balances the
    # two is the quantile itself, so no other forecast has a smaller expected loss.
    error_BHQ = actual_BH[..., None] - quantiles_BHQ
    above_BHQ = levels * error_BHQ
    below_BHQ = (levels - 1.0) * error_BHQ
    return np.maximum(above_BHQ, below_BHQ)


def wql(actual_BH: Reals, quantiles_BHQ: Reals, levels: Reals) -> float:
    """Weighted quantile loss: twice the pinball loss over summed |actual|, mean over the levels.

    >>> wql(np.array([[2.0, 0.0]]), np.array([[[1.0], [0.0]]]), np.array([0.5]))
    0.5
    """
    # Twice, so that at the median the loss is the absolute error.
    loss_BHQ = 2.0 * pinball(actual_BH, quantiles_BHQ, levels)
    mean_loss = np.nansum(loss_BHQ) / len(levels)
    return float(mean_loss / _total(actual_BH))


def wape(actual_BH: Reals, median_BH: Reals) -> float:
    """Summed absolute error over summed |actual|.

    >>> wape(np.array([[2.0, 2.0]]), np.array([[1.0, 2.0]]))
    0.25
    """
    error_BH = np.abs(actual_BH - median_BH)
    return float(np.nansum(error_BH) / _total(actual_BH))


def seasonal_error(target_BT: Reals, season_length: int) -> Reals:
    """Mean absolute seasonal difference of each row's history: [B], NaN without a single pair.

    >>> seasonal_error(np.array([[1.0, 3.0, 2.0, 6.0]]), 2).tolist()
    [2.0]
    """
    later_BX = target_BT[:, season_length:]
    earlier_BX = target_BT[:, :-season_length]
    gap_BX = np.abs(later_BX - earlier_BX)
    # What a forecast errs that only repeats the last season: the same unit for large and small.
    pairs_B = np.isfinite(gap_BX).sum(1)
    mean_gap_B = np.nansum(gap_BX, 1) / np.maximum(pairs_B, 1)
    return np.where(pairs_B > 0, mean_gap_B, np.nan)


def sql(actual_BH: Reals, quantiles_BHQ: Reals, levels: Reals, error_B: Reals) -> float:
    """Scaled quantile loss: twice the pinball loss over each row's `seasonal_error`.

    The mean over levels, then over all observed steps of all rows at once. Rows whose seasonal
    error is zero or unknown are dropped; NaN when all are.

    >>> sql(np.array([[2.0], [9.0]]), np.array([[[1.0]], [[1.0]]]), np.array([0.5]),
    ...     np.array([4.0, 0.0]))
    0.25
    """
    loss_BHQ = pinball(actual_BH, quantiles_BHQ, levels)
    loss_BH = 2.0 * loss_BHQ.mean(-1)
    return _mean_of_scaled(loss_BH, error_B)


def mase(actual_BH: Reals, median_BH: Reals, error_B: Reals) -> float:
    """Mean absolute error over each row's `seasonal_error`.

    Rows where that is zero or unknown are dropped.

    >>> mase(np.array([[4.0], [4.0]]), np.array([[3.0], [0.0]]), np.array([2.0, np.nan]))
    0.5
    """
    loss_BH = np.abs(actual_BH - median_BH)
    return _mean_of_scaled(loss_BH, error_B)


def coverage(actual_BH: Reals, lower_BH: Reals, upper_BH: Reals) -> float:
    """Share of actuals within [lower, upper], both ends inclusive; NaN without a single actual.

    >>> coverage(np.array([[1.0, 5.0]]), np.array([[0.0, 0.0]]), np.array([[1.0, 4.0]]))
    0.5
    """
    inside_BH = (actual_BH >= lower_BH) & (actual_BH <= upper_BH)
    # Comparisons with NaN are False, which would count as a miss.
    seen_BH = np.isfinite(actual_BH)
    return _mean(inside_BH[seen_BH])


def bias(actual_BH: Reals, mean_BH: Reals) -> float:
    """Summed (forecast - actual) over summed |actual|: above zero means too much was forecast.

    >>> bias(np.array([[2.0, 2.0]]), np.array([[3.0, 2.0]]))
    0.25
    """
    over_BH = mean_BH - actual_BH
    return float(np.nansum(over_BH) / _total(actual_BH))


def _mean_of_scaled(loss_BH: Reals, error_B: Reals) -> float:
    """Mean over all finite loss / error at once.

    A mean of the rows' means would weigh rows with gaps too high.
    """
    # A series that repeats its season to the unit has nothing to be scaled by.
    usable_B = error_B > 0
    error_B1 = error_B[usable_B, None]
    scaled_BH = loss_BH[usable_B] / error_B1
    seen_BH = np.isfinite(scaled_BH)
    return _mean(scaled_BH[seen_BH])


def _mean(values: Reals | Bools) -> float:
    if not values.size:
        return float("nan")
    return float(values.mean())


def _total(actual_BH: Reals) -> float:
    """Summed |actual|; 1 when nothing was sold, so that a loss over it stays finite."""
    size_BH = np.abs(actual_BH)
    return float(np.nansum(size_BH)) or 1.0
