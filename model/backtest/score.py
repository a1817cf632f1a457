"""Scores of one forecast: over all series, and by stratum of what was known at the cutoff.

Dimensions: N series, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from freshet.model.quantiles import metrics
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints

METRICS = ("sql", "wql", "mase", "wape", "coverage_80", "bias")
# Groups by the share of steps without a sale, each up to its edge: fast movers, daily goods with
# gaps, slow movers, and spare parts, of which even the 90 % quantile is often 0.
_ZERO_SHARES = {
    "under 10 %": 0.1,
    "10 to 50 %": 0.5,
    "50 to 90 %": 0.9,
    "over 90 %": np.inf,
}
_VOLUMES = ("low third", "middle third", "high third")


class Scores(NamedTuple):
    """Metrics by name; the same for each stratum, with its number of series; and of all series."""

    overall: dict[str, float]
    strata: dict[str, dict[str, dict[str, float]]]
    series: int


def score(
    window: Window, actual_NH: Floats, quantiles_NHQ: Floats, levels: tuple[float, ...]
) -> Scores:
    """The metrics of a forecast, as fev defines them, and per stratum with its number of series."""
    seasonal_error = metrics.seasonal_error(window.target_NT, window.season_length)
    error_N = np.asarray(seasonal_error, np.float64)
    strata: dict[str, dict[str, dict[str, float]]] = {}
    for kind, groups in stratify(window).items():
        strata[kind] = {}
        for name, rows_N in groups.items():
            if not rows_N.any():
                continue
            found = measure(
                actual_NH[rows_N],
                quantiles_NHQ[rows_N],
                levels,
                error_N[rows_N],
            )
            found["series"] = float(rows_N.sum())
            strata[kind][name] = found
    overall = measure(actual_NH, quantiles_NHQ, levels, error_N)
    return Scores(overall, strata, len(window))


def measure(
    actual_NH: Floats,
    quantiles_NHQ: Floats,
    levels: tuple[float, ...],
    error_N: Floats,
) -> dict[str, float]:
    """All metrics of a forecast whose series have the seasonal errors `error_N`.

    The point forecast of MASE, WAPE and bias is the median; coverage is that of the levels 0.1 to
    0.9. What is over the sum of the actuals is NaN when nothing was sold.
    """
    levels_Q = np.array(levels)
    median_NH = quantiles_NHQ[..., levels.index(0.5)]
    lower_NH = quantiles_NHQ[..., levels.index(0.1)]
    upper_NH = quantiles_NHQ[..., levels.index(0.9)]
    found = {
        "sql": metrics.sql(actual_NH, quantiles_NHQ, levels_Q, error_N),
        "wql": np.nan,
        "mase": metrics.mase(actual_NH, median_NH, error_N),
        "wape": np.nan,
        "coverage_80": metrics.coverage(actual_NH, lower_NH, upper_NH),
        "bias": np.nan,
    }
    if np.nansum(actual_NH) > 0:
        found["wql"] = metrics.wql(actual_NH, quantiles_NHQ, levels_Q)
        found["wape"] = metrics.wape(actual_NH, median_NH)
        found["bias"] = metrics.bias(actual_NH, median_NH)
    return found


def stratify(window: Window) -> dict[str, dict[str, Bools]]:
    """Which series are in which group by what is known at the cutoff: kind -> group -> [N].

    Kinds: the share of observed steps on which nothing sold; the mean sold a step, in thirds; and
    whether a series is younger than two seasons and two horizons; and of a hierarchy the level.
    """
    target_NT = window.target_NT
    seen_NT = np.isfinite(target_NT)
    steps_N = np.maximum(seen_NT.sum(1), 1)
    # The share of zeros is what makes a series hard or easy, whatever its size.
    zero_NT = (target_NT == 0) & seen_NT
    zeros_N = zero_NT.sum(1) / steps_N
    edges = list(_ZERO_SHARES.values())
    share_N = np.searchsorted(edges, zeros_N, side="right")
    # Thirds of this window's own series, since units are of any size.
    mean_N = np.nansum(target_NT, 1) / steps_N
    volume_edges = np.quantile(mean_N, [1 / 3, 2 / 3])
    third_N = np.searchsorted(volume_edges, mean_N)
    # With less than two seasons and two horizons, a season can be guessed but not checked.
    since_first_N = window.context_length - seen_NT.argmax(1)
    age_N = np.where(seen_NT.any(1), since_first_N, 0)
    young_N = age_N < 2 * max(window.season_length, window.horizon)
    found = {
        "zero_share": _named(tuple(_ZERO_SHARES), share_N),
        "volume": _named(_VOLUMES, third_N),
        "history": {"cold start": young_N, "established": ~young_N},
    }
    if window.level_N is not None:
        level_N = np.array(window.level_N)
        found["level"] = {name: level_N == name for name in dict.fromkeys(window.level_N)}
    return found


def _named(names: tuple[str, ...], group_N: Ints) -> dict[str, Bools]:
    """Which series are in each group, by its name."""
    return {name: group_N == index for index, name in enumerate(names)}


def mean_over_windows(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over windows, left out where it is not defined.

    >>> mean_over_windows([{"sql": 1.0}, {"sql": 3.0}, {"sql": float("nan")}])
    {'sql': 2.0}
    """
    found = {}
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows])
        seen = values[np.isfinite(values)]
        found[name] = float(seen.mean()) if seen.size else float("nan")
    return found
