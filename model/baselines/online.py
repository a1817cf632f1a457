"""River's SNARIMAX: an autoregression that learns one step at a time, as a stream would feed it.

River's HoltWinters is left out because it divides by zero on leading zeros.
Dimensions: N series, T steps of one series, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from freshet.model.baselines.tidy import mean_of, normal_quantiles, tidy
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats

LAGS, SEASONAL_LAGS = 1, 2
LONGEST = 1_000  # newest steps that it learns from
REHEARSALS = 20  # newest forecasts of the past whose errors make the spread
WORST = 3.0  # a forecast beyond so many times the largest sale is one that ran away


@dataclass(frozen=True, slots=True)
class Snarimax:
    """One linear autoregression a series, on its last steps and those of the last two seasons."""

    name: str = "snarimax"
    needs_fit: bool = False

    def fit(self, window: Window) -> None:
        """Nothing to keep: a series is learnt when it is forecast."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q], normal with the spread that its own past forecasts had."""
        point_NH = np.repeat(mean_of(window.target_NT)[:, None], window.horizon, 1)
        spread_NH = np.zeros_like(point_NH)
        for row, target_T in enumerate(window.target_NT):
            series_T = target_T[np.isfinite(target_T)][-LONGEST:]
            if len(series_T) > 2 * window.season_length + LAGS and series_T.any():
                point_NH[row], spread_NH[row] = _forecast(
                    series_T, window.horizon, window.season_length
                )
        return tidy(normal_quantiles(point_NH, spread_NH, levels), window)


def make(name: str) -> Snarimax:
    """The only one."""
    return Snarimax(name)


def _forecast(series_T: Floats, horizon: int, season: int) -> tuple[Floats, Floats]:
    """The forecast [H] and its spread by step [H], from forecasts made along the way."""
    model = _model(season)
    largest = float(series_T.max())
    rehearsed: deque[Floats] = deque(maxlen=REHEARSALS)
    every = max(1, len(series_T) // (2 * REHEARSALS))
    for step, value in enumerate(series_T):
        if step > (SEASONAL_LAGS + 1) * season and step % every == 0:
            came = series_T[step : step + horizon]
            error_H = np.full(horizon, np.nan)
            error_H[: len(came)] = came - _ahead(model, horizon, largest)[: len(came)]
            rehearsed.append(error_H)
        # Sales in units of the largest keep the learner's steps from blowing up.
        model.learn_one(value / largest)
    errors_RH = np.array(rehearsed) if rehearsed else np.zeros((1, horizon))
    seen_H = np.isfinite(errors_RH).sum(0)
    pooled = float(np.sqrt(np.nanmean(errors_RH**2)))
    # Late steps have few rehearsals; each counts the spread over all steps as three more.
    spread_H = np.sqrt((np.nansum(errors_RH**2, 0) + 3 * pooled**2) / (seen_H + 3))
    return _ahead(model, horizon, largest), spread_H


def _model(season: int) -> Any:
    from river.linear_model import LinearRegression
    from river.optim import Adam
    from river.time_series import SNARIMAX

    seasonal = SEASONAL_LAGS if season > 1 else 0
    regressor = LinearRegression(Adam(0.01))
    return SNARIMAX(p=LAGS, d=0, q=0, m=season, sp=seasonal, regressor=regressor)


def _ahead(model: Any, horizon: int, largest: float) -> Floats:
    forecast_H = np.array(model.forecast(horizon=horizon), np.float64)
    finite_H = np.nan_to_num(forecast_H, nan=0.0, posinf=WORST, neginf=0.0)
    return finite_H.clip(0.0, WORST) * largest
