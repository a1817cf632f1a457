"""Seasonal naive, naive and moving average as models of windows.

Dimensions: N series, T context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshet.model.baselines.naive import SeasonalNaive
from freshet.model.baselines.simple import moving_average, tidy
from freshet.model.tables.panel import Floats, Window

SEASONS = 4  # of the moving average
SHORTEST_AVERAGE = 7


@dataclass(frozen=True, slots=True)
class MovingAverage:
    """The mean of the last four seasons (of the last seven steps at least), with normal
    quantiles.
    """

    name: str = "moving_average"
    needs_fit: bool = False

    def fit(self, window: Window) -> None:
        """Nothing to learn."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q]."""
        span = max(SHORTEST_AVERAGE, SEASONS * window.season_length)
        return tidy(
            moving_average(window.target_NT, window.horizon, span, np.array(levels)), window
        )


def make(name: str) -> SeasonalNaive | MovingAverage:
    """One of the three; the naive ones are those of published tables, whose quantiles may lie below
    0.
    """
    if name == "moving_average":
        return MovingAverage()
    return SeasonalNaive(name, 1 if name == "naive" else None)
