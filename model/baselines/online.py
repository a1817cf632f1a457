"""River's SNARIMAX: an autoregression that learns one step at a time, as a stream would feed it.

River's HoltWinters is left out because it divides by zero on leading zeros.
Dimensions: N series, T steps of one series, H horizon steps, R rehearsals, Q quantile levels.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from freshet.model.baselines.tidy import mean_of, normal_quantiles, tidy
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats

LAGS = 1
SEASONAL_LAGS = 2
PRIOR_REHEARSALS = 3  # how many the spread over all steps counts as
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
        # A series too short to learn from is forecast as its mean, without a spread.
        mean_N1 = mean_of(window.target_NT)[:, None]
        point_NH = np.repeat(mean_N1, window.horizon, 1)
        spread_NH = np.zeros_like(point_NH)
        season = window.season_length
        fewest = SEASONAL_LAGS * season + LAGS
        for row, target_T in enumerate(window.target_NT):
            series_T = target_T[np.isfinite(target_T)][-LONGEST:]
            if len(series_T) > fewest and series_T.any():
                point_H, spread_H = _forecast(series_T, window.horizon, season)
                point_NH[row] = point_H
                spread_NH[row] = spread_H
        quantiles_NHQ = normal_quantiles(point_NH, spread_NH, levels)
        return tidy(quantiles_NHQ, window)


def make(name: str) -> Snarimax:
    """The only one."""
    return Snarimax(name)


def _forecast(series_T: Floats, horizon: int, season: int) -> tuple[Floats, Floats]:
    """The forecast [H] and its spread by step [H], from forecasts made along the way."""
    model = _model(season)
    largest = float(series_T.max())
    rehearsed: deque[Floats] = deque(maxlen=REHEARSALS)
    every = max(1, len(series_T) // (2 * REHEARSALS))
    warm = (SEASONAL_LAGS + 1) * season
    for step, value in enumerate(series_T):
        # Each rehearsal is made before its own actuals are learnt from.
        if step > warm and step % every == 0:
            came = series_T[step : step + horizon]
            forecast_H = _ahead(model, horizon, largest)
            error_H = np.full(horizon, np.nan)
            error_H[: len(came)] = came - forecast_H[: len(came)]
            rehearsed.append(error_H)
        # Sales in units of the largest keep the learner's steps from blowing up.
        model.learn_one(value / largest)
    errors_RH = np.array(rehearsed) if rehearsed else np.zeros((1, horizon))
    return _ahead(model, horizon, largest), _spread(errors_RH)


def _spread(errors_RH: Floats) -> Floats:
    """Root mean square of the rehearsals' errors at each step: [H].

    Late steps have few rehearsals; each counts the spread over all steps as three more.
    """
    seen_H = np.isfinite(errors_RH).sum(0)
    square_RH = errors_RH**2
    pooled = float(np.sqrt(np.nanmean(square_RH)))
    sum_H = np.nansum(square_RH, 0) + PRIOR_REHEARSALS * pooled**2
    count_H = seen_H + PRIOR_REHEARSALS
    return np.asarray(np.sqrt(sum_H / count_H))


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
