"""Forecasts of windows that are dressed for the network, at any levels.

Dimensions: N series, T context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import numpy as np

from freshet.model.effects.slots import Dressed
from freshet.model.forecaster import BatchForecaster
from freshet.model.levels import at_levels
from freshet.stream.arrays import Floats


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
