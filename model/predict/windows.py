"""Forecasts of windows that are dressed for the network, at any levels.

Dimensions: N series, T context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import numpy as np

from freshet.model.effects.slots import Dressed
from freshet.model.forecaster import BatchForecaster
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


def at_levels(quantiles_NHQ: Floats, own_Q: Floats, levels_Q: Floats) -> Floats:
    """Quantiles at other levels, on straight lines between the nearest two.

    Beyond the outermost level its own quantile is given.

    >>> at_levels(np.array([[[1.0, 3.0]]]), np.array([0.4, 0.6]), np.array([0.45, 0.9])).tolist()
    [[[1.5, 3.0]]]
    """
    place_Q = np.interp(levels_Q, own_Q, np.arange(len(own_Q)))
    below_Q = np.floor(place_Q).astype(np.int64)
    above_Q = np.minimum(below_Q + 1, len(own_Q) - 1)
    share_Q = place_Q - below_Q
    # Two products, not a difference: equal neighbours stay equal to the last bit, so that nothing
    # comes unsorted.
    from_below_NHQ = quantiles_NHQ[..., below_Q] * (1.0 - share_Q)
    from_above_NHQ = quantiles_NHQ[..., above_Q] * share_Q
    mixed_NHQ: Floats = from_below_NHQ + from_above_NHQ
    return np.maximum.accumulate(mixed_NHQ, axis=-1)
