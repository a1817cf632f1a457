"""Classical methods of one series at a time (statsforecast): Croston SBA, TSB, AutoETS, AutoTheta.

Each series is fitted anew in `predict`, in this process alone. A series with too few steps, or one
that a method cannot fit, is forecast naively; gaps take the value before them. AutoETS and
AutoTheta try dozens of models a series: expect a fifth of a second each, more with long seasons.
Dimensions: N series, T steps of one series, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from freshet.model.baselines.tidy import forward_filled, tidy
from freshet.model.baselines.yardsticks import published_naive
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats

LONGEST = 1_000  # newest steps that are looked at; older ones only cost time
LONGEST_SEASON = 24  # AutoETS refuses longer ones, and so they are left out
FEWEST = 10
RUNAWAY = 100  # times the largest sale
# How fast TSB forgets. A size is seen only when something sells, so each one counts for more.
TSB_DEMAND = 0.2
TSB_PROBABILITY = 0.1


@dataclass(frozen=True, slots=True)
class Statistical:
    """One method for every series.

    Attributes:
        name: one of the methods below.
        forecast: quantiles [H, Q] of one series [T] without gaps, from its horizon, season and
            levels.
    """

    name: str
    forecast: Callable[[Floats, int, int, tuple[float, ...]], Floats]
    needs_fit: bool = False

    def fit(self, window: Window) -> None:
        """Nothing to keep: a series is fitted when it is forecast."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q]."""
        filled_NT = forward_filled(window.target_NT)
        quantiles_NHQ = published_naive(filled_NT, window.horizon, 1, levels)
        season_length = window.season_length
        if season_length > LONGEST_SEASON:
            season_length = 1
        fewest = max(FEWEST, 2 * season_length)
        for row, filled_T in enumerate(filled_NT):
            series_T = filled_T[np.isfinite(filled_T)][-LONGEST:]
            if len(series_T) < fewest or not series_T.any():
                continue
            found_HQ = self._guarded(series_T, window.horizon, season_length, levels)
            if found_HQ is not None:
                quantiles_NHQ[row] = found_HQ
        return tidy(quantiles_NHQ, window)

    def _guarded(
        self, series_T: Floats, horizon: int, season: int, levels: tuple[float, ...]
    ) -> Floats | None:
        """One series' quantiles, or None where the method fails on it or runs away."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found_HQ = self.forecast(series_T, horizon, season, levels)
            # Its optimisers raise whatever their numerics run into; one odd series must not end a
            # comparison.
            except Exception:
                return None
        most = RUNAWAY * series_T.max()
        sane = np.isfinite(found_HQ).all() and np.abs(found_HQ).max() < most
        return found_HQ if sane else None


def make(name: str) -> Statistical:
    """The method of a name."""
    methods = {
        "auto_ets": _auto_ets,
        "auto_theta": _auto_theta,
        "croston_sba": _croston_sba,
        "tsb": _tsb,
    }
    return Statistical(name, methods[name])


def _auto_ets(series_T: Floats, horizon: int, season: int, levels: tuple[float, ...]) -> Floats:
    from statsforecast.models import AutoETS

    return _interval_quantiles(AutoETS(season_length=season), series_T, horizon, levels)


def _auto_theta(series_T: Floats, horizon: int, season: int, levels: tuple[float, ...]) -> Floats:
    from statsforecast.models import AutoTheta

    # Its default decomposition divides by the season, which is 0 on days without sales.
    kind = "multiplicative" if series_T.min() > 0 else "additive"
    model = AutoTheta(season_length=season, decomposition_type=kind)
    return _interval_quantiles(model, series_T, horizon, levels)


def _croston_sba(series_T: Floats, horizon: int, season: int, levels: tuple[float, ...]) -> Floats:
    from statsforecast.models import CrostonSBA

    return _scaled_history(CrostonSBA(), series_T, horizon, levels)


def _tsb(series_T: Floats, horizon: int, season: int, levels: tuple[float, ...]) -> Floats:
    from statsforecast.models import TSB

    model = TSB(alpha_d=TSB_DEMAND, alpha_p=TSB_PROBABILITY)
    return _scaled_history(model, series_T, horizon, levels)


def _interval_quantiles(
    model: Any, series_T: Floats, horizon: int, levels: tuple[float, ...]
) -> Floats:
    """Quantiles as the edges of the model's own central intervals."""
    # The interval with an edge at .1 is the central 80 %; at .5 it has no width.
    widths = [round(100 * abs(2 * level - 1), 6) for level in levels]
    asked = sorted(set(widths) - {0.0})
    found = model.forecast(y=series_T, h=horizon, level=asked or None)
    columns = []
    for level, width in zip(levels, widths, strict=True):
        side = "lo" if level < 0.5 else "hi"
        columns.append(found[f"{side}-{width}"] if width else found["mean"])
    return np.stack(columns, -1)


def _scaled_history(
    model: Any, series_T: Floats, horizon: int, levels: tuple[float, ...]
) -> Floats:
    """The distribution of the series' own steps, moved to the rate that the model expects.

    These methods give a rate and no distribution; a normal one around it would put half its weight
    where no sale is.
    """
    rate = float(model.forecast(y=series_T, h=1)["mean"][0])
    mean = float(series_T.mean())
    # Quantiles that are values of the series: sales are counts, and most of them 0.
    own_Q = np.quantile(series_T, levels, method="inverted_cdf")
    quantiles_Q = own_Q * rate / mean
    return np.tile(quantiles_Q, (horizon, 1))
