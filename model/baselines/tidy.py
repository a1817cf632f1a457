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
    mean_N = mean_of(window.target_NT)
    filled_NHQ = np.where(np.isfinite(quantiles_NHQ), quantiles_NHQ, mean_N[:, None, None])
    return np.sort(filled_NHQ.clip(min=0.0).astype(np.float64), -1)


def mean_of(target_NT: Reals) -> Floats:
    """The mean of each series' observed steps, 0 without any: [N]."""
    count_N = np.isfinite(target_NT).sum(1)
    mean_N: Floats = np.nansum(target_NT, 1) / np.maximum(count_N, 1)
    return mean_N


def forward_filled(target_NT: Floats) -> Floats:
    """Each gap filled by the value before it; NaN is left only before a series' first value.

    >>> forward_filled(np.array([[np.nan, 2.0, np.nan, 3.0]])).tolist()
    [[nan, 2.0, 2.0, 3.0]]
    """
    seen_NT = np.where(np.isnan(target_NT), 0, np.arange(target_NT.shape[1]))
    return np.take_along_axis(target_NT, np.maximum.accumulate(seen_NT, axis=1), axis=1)


def normal_quantiles(point_NH: Reals, spread_NH: Reals, levels: Iterable[float]) -> Floats:
    """Quantiles of normal distributions, also below 0: [N, H, Q]."""
    scores_Q = np.array([NormalDist().inv_cdf(float(level)) for level in levels])
    quantiles_NHQ: Floats = point_NH[..., None] + spread_NH[..., None] * scores_Q
    return quantiles_NHQ
