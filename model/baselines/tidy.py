"""What all baselines share: gaps filled before a forecast, quantiles put in order after it.

Dimensions: N series, T context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist

import numpy as np

from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats, Reals


def tidy(quantiles_NHQ: Reals, window: Window) -> Floats:
    """The same quantiles as every model owes them: finite, sorted and >= 0.

    Gaps take the mean of their series.

    >>> window = Window(("a",), "D", 86_400_000, 7, np.zeros((1, 3), np.int64),
    ...     np.array([[1.0, 3.0]]), np.zeros((1, 3, 0)), np.zeros((1, 2, 0)), (), (), {})
    >>> tidy(np.array([[[np.nan, 0.5, -1.0]]]), window).tolist()
    [[[0.0, 0.5, 2.0]]]
    """
    mean_N11 = mean_of(window.target_NT)[:, None, None]
    known_NHQ = np.isfinite(quantiles_NHQ)
    filled_NHQ = np.where(known_NHQ, quantiles_NHQ, mean_N11)
    # Sorting crossed quantiles never makes their pinball loss larger (Chernozhukov 2010).
    sold_NHQ = filled_NHQ.clip(min=0.0).astype(np.float64)
    return np.sort(sold_NHQ, -1)


def mean_of(target_NT: Reals) -> Floats:
    """The mean of each series' observed steps, 0 without any: [N]."""
    count_N = np.isfinite(target_NT).sum(1)
    sum_N = np.nansum(target_NT, 1)
    mean_N: Floats = sum_N / np.maximum(count_N, 1)
    return mean_N


def forward_filled(target_NT: Floats) -> Floats:
    """Each gap filled by the value before it; NaN is left only before a series' first value.

    >>> forward_filled(np.array([[np.nan, 2.0, np.nan, 3.0]])).tolist()
    [[nan, 2.0, 2.0, 3.0]]
    """
    step_T = np.arange(target_NT.shape[1])
    # The step of the newest value so far; before the first one that is step 0, itself missing.
    seen_NT = np.where(np.isnan(target_NT), 0, step_T)
    newest_NT = np.maximum.accumulate(seen_NT, axis=1)
    return np.take_along_axis(target_NT, newest_NT, axis=1)


def normal_quantiles(point_NH: Reals, spread_NH: Reals, levels: Iterable[float]) -> Floats:
    """Quantiles of normal distributions, also below 0: [N, H, Q]."""
    normal = NormalDist()
    scores_Q = np.array([normal.inv_cdf(float(level)) for level in levels])
    around_NHQ = spread_NH[..., None] * scores_Q
    quantiles_NHQ: Floats = point_NH[..., None] + around_NHQ
    return quantiles_NHQ
