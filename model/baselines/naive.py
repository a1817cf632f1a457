"""The yardstick that published tables use: seasonal naive, with the spread that statsforecast gives
it.

Dimensions: N series, T context steps, H horizon steps, Q quantile levels, M steps of a season.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from freshet.model.tables.panel import Floats, Window


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """Repeats the last season; `season_length` None takes the window's own, 1 repeats the last
    value.

    Quantiles may lie below 0, because the published figures are those of plain normal
    distributions.
    """

    name: str = "seasonal_naive"
    season_length: int | None = None
    needs_fit: bool = False

    def fit(self, window: Window) -> None:
        """Nothing to learn."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q]."""
        season_length = self.season_length or window.season_length
        return seasonal_naive(begun(window), window.horizon, season_length, levels)


def seasonal_naive(
    target_NT: Floats, horizon: int, season_length: int, levels: tuple[float, ...]
) -> Floats:
    """Quantiles [N, H, Q] around the value one season ago, gaps filled by the value before them.

    The spread is the root mean square of the seasonal differences, and grows with the square root
    of the seasons ahead, as in statsforecast's SeasonalNaive. A series younger than a season takes
    its mean for the phases it has not seen; one without any value is forecast as 0.

    >>> seasonal_naive(np.array([[1.0, 5.0, 1.0, 5.0]]), 3, 2, (0.5,))[0, :, 0].tolist()
    [1.0, 5.0, 1.0]
    >>> seasonal_naive(np.array([[3.0, np.nan]]), 1, 1, (0.1, 0.5)).tolist()
    [[[3.0, 3.0]]]
    """
    filled_NT = forward_filled(target_NT)
    steps_H = np.arange(horizon)
    point_NH = last_season(filled_NT, season_length)[:, steps_H % season_length]
    spread_NH = spread(filled_NT, season_length)[:, None] * np.sqrt(steps_H // season_length + 1)
    scores_Q = np.array([NormalDist().inv_cdf(level) for level in levels])
    quantiles_NHQ: Floats = point_NH[..., None] + spread_NH[..., None] * scores_Q
    return quantiles_NHQ


def begun(window: Window) -> Floats:
    """The targets [N, T], where a series that begins with missing values begins with 0 instead, as
    in fev.
    """
    if window.length_N is None:
        return window.target_NT
    steps_T = np.arange(window.context_length)
    unseen_NT = ~np.logical_or.accumulate(np.isfinite(window.target_NT), axis=1)
    inside_NT = steps_T >= window.context_length - window.length_N[:, None]
    return np.where(unseen_NT & inside_NT, 0.0, window.target_NT)


def forward_filled(target_NT: Floats) -> Floats:
    """Each gap filled by the value before it; NaN is left only before a series' first value.

    >>> forward_filled(np.array([[np.nan, 2.0, np.nan, 3.0]])).tolist()
    [[nan, 2.0, 2.0, 3.0]]
    """
    seen_NT = np.where(np.isnan(target_NT), 0, np.arange(target_NT.shape[1]))
    return np.take_along_axis(target_NT, np.maximum.accumulate(seen_NT, axis=1), axis=1)


def last_season(filled_NT: Floats, season_length: int) -> Floats:
    """The last value of each phase, the phase after the cutoff first: [N, M].

    >>> last_season(np.array([[7.0, 1.0, 2.0], [np.nan, 4.0, 6.0]]), 3).tolist()
    [[7.0, 1.0, 2.0], [5.0, 4.0, 6.0]]
    """
    N, T = filled_NT.shape
    last_NM = np.full((N, season_length), np.nan)
    taken = min(T, season_length)
    last_NM[:, season_length - taken :] = filled_NT[:, T - taken :]
    count_N = np.isfinite(filled_NT).sum(1)
    mean_N = np.nansum(filled_NT, 1) / np.maximum(count_N, 1)
    return np.where(np.isnan(last_NM), mean_N[:, None], last_NM)


def spread(filled_NT: Floats, season_length: int) -> Floats:
    """Root mean square of the seasonal differences: [N], 0 without a pair.

    >>> spread(np.array([[0.0, 1.0, 3.0, 5.0]]), 2).tolist()
    [3.5355339059327378]
    """
    gap_NT = filled_NT[:, season_length:] - filled_NT[:, :-season_length]
    count_N = np.isfinite(gap_NT).sum(1)
    spread_N: Floats = np.sqrt(np.nansum(gap_NT**2, 1) / np.maximum(count_N, 1))
    return spread_N
