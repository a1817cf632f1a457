"""Forecasts of windows, dressed or yet to be dressed for the network, at any levels.

Dimensions: N series, T context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from freshet.model.effects.shared import find_shared
from freshet.model.effects.slots import Dressed, dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.levels import at_levels
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats

ROWS: Final = 512
"""Series that are dressed and forecast at a time: what a table takes beside itself is bounded."""


def forecast_window(
    forecaster: BatchForecaster,
    window: Window,
    levels: tuple[float, ...],
    *,
    done: Callable[[int], None] = lambda series: None,
) -> Floats:
    """Quantiles of a window's horizon: [N, H, Q], sorted and >= 0, in its own units.

    What all series do alike is learnt from the whole window; then each is dressed alone. `done`
    hears how many are.

    Raises:
        InvalidInputError: as `dress`.
    """
    shared = find_shared(window)
    made_NHQ = np.empty((len(window), window.horizon, len(levels)))
    for first in range(0, len(window), ROWS):
        rows = slice(first, first + ROWS)
        dressed = dress(window.rows(rows).newest(forecaster.context_length), shared)
        made_NHQ[rows] = forecast(forecaster, dressed, window.horizon, levels)
        done(min(first + ROWS, len(window)))
    return made_NHQ


def forecast(
    forecaster: BatchForecaster, dressed: Dressed, horizon: int, levels: tuple[float, ...]
) -> Floats:
    """Quantiles of the `horizon` steps after the last known one: [N, H, Q], sorted and >= 0.

    They are in the window's own units.
    """
    N, T = dressed.target_NT.shape
    context = forecaster.context_length
    batch, _ = dressed.batch(np.arange(N), np.full(N, T), context=context, horizon=horizon)
    own_NHQ = forecaster.forecast(batch).cpu().double().numpy()
    asked_NHQ = at_levels(own_NHQ, np.array(forecaster.quantile_levels), np.array(levels))
    return asked_NHQ / dressed.factor_N[:, None, None]
