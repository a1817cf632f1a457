"""Forecasts of windows, dressed or yet to be dressed for the network, at any levels.

Dimensions: N series, T context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from freshet.model.effects.shared import SharedEffects, find_shared
from freshet.model.effects.slots import Dressed, dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.levels import at_levels
from freshet.model.predict.cluster import Cluster
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats

ROWS: Final = 512
"""Series that are dressed and forecast at a time: what a table takes beside itself is bounded."""
SENT_ROWS: Final = 128
"""Series that another process forecasts at a time; whole portions of what is computed at once, so
that all of them are computed beside the same others wherever they are."""


def forecast_window(
    forecaster: BatchForecaster,
    window: Window,
    levels: tuple[float, ...],
    *,
    done: Callable[[int], None] = lambda series: None,
    cluster: Cluster | None = None,
) -> Floats:
    """Quantiles of a window's horizon: [N, H, Q], sorted and >= 0, in its own units.

    What all series do alike is learnt from the whole window, here; then each is dressed alone, on
    a cluster where there is one. `done` hears how many are.

    Raises:
        InvalidInputError: as `dress`.
    """
    work = partial(_portion, forecaster, find_shared(window), levels)
    rows = ROWS if cluster is None else SENT_ROWS
    firsts = range(0, len(window), rows)
    portions = (
        window.rows(slice(first, first + rows)).newest(forecaster.context_length)
        for first in firsts
    )
    made = map(work, portions) if cluster is None else cluster.map(work, list(portions))
    made_NHQ = np.empty((len(window), window.horizon, len(levels)))
    for first, made_BHQ in zip(firsts, made, strict=True):
        made_NHQ[first : first + rows] = made_BHQ
        done(min(first + rows, len(window)))
    return made_NHQ


def _portion(
    forecaster: BatchForecaster, shared: SharedEffects, levels: tuple[float, ...], window: Window
) -> Floats:
    return forecast(forecaster, dress(window, shared), window.horizon, levels)


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
