"""freshet's network as a model of windows: used as it is, or fine-tuned on what precedes a cutoff.

Dimensions: N series, H horizon steps, Q quantile levels, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from freshet.model.adapter import Adapter
from freshet.model.batch import Batch
from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.effects.slots import Dressed, dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.network import FreshetNetwork
from freshet.model.predict.windows import forecast_window
from freshet.model.tables.panel import Window
from freshet.model.training.train import (
    Advanced,
    FineTuneSettings,
    choose_factor,
    fine_tune,
    held_out_loss,
    interpolate,
)
from freshet.model.training.windows import PastWindows
from freshet.model.weights import load_weights
from freshet.stream.arrays import Floats

# How far to go from base to tuned; no way at all is among them, since no gate looks at the result.
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0)
# What a factor of one must gain on the hold-out to be worth it: one horizon's luck is worth a per
# cent or two.
PRUDENCE = 0.04
SETTINGS = FineTuneSettings(steps=100, batch_size=128, learning_rate=5e-4, warmup_steps=10)


class FreshetModel:
    """The network behind the backtest's protocol.

    Args:
        forecaster: verified weights.
        tune: whether `fit` fine-tunes; else it does nothing.
        settings: how.
    """

    def __init__(
        self, forecaster: BatchForecaster, *, tune: bool, settings: FineTuneSettings = SETTINGS
    ) -> None:
        self.name = "freshet"
        self.needs_fit = tune
        self.base, self.forecaster = forecaster, forecaster
        self.settings = settings

    def fit(self, window: Window) -> None:
        """Fine-tune a copy of the base weights on the window's past; always starts at the base."""
        if self.needs_fit:
            # What a break taught of itself must not be its own label.
            dressed = dress(window, begin_N=np.zeros(len(window), np.int64))
            tuned = tune(self.base.network, dressed, window.horizon, settings=self.settings)
            self.forecaster = BatchForecaster(
                tuned.network, device=str(self.base.device), dtype="float32"
            )

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles in units at `levels`, sorted and >= 0: [N, H, Q]."""
        return forecast_window(self.forecaster, window, levels)


def make(weights: Path | None, fine_tune: str) -> FreshetModel:
    """The model of a folder of weights, or of the ones that ship with freshet.

    Raises:
        WeightsError: the weights are missing, corrupt or do not compute what they should.
    """
    verified = load_weights(BASE_WEIGHTS if weights is None else weights)
    network = BatchForecaster(verified.network, dtype="float32", sha256=verified.sha256)
    return FreshetModel(network, tune=fine_tune != "none")


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tuned copy and how it came about.

    Attributes:
        network: in evaluation mode.
        factor: how far it went from the base (0) to the tuned weights (1).
        held_out: hold-out loss of each factor that was tried.
        steps_made: optimiser steps of all runs.
        adapter: what low-rank tuning added, as far as it went; None for the other kinds.
    """

    network: FreshetNetwork
    factor: float
    held_out: dict[float, float]
    steps_made: int
    adapter: Adapter | None = None


def tune(
    base: FreshetNetwork, dressed: Dressed, horizon: int, *, settings: FineTuneSettings = SETTINGS
) -> Tuned:
    """Fine-tune on windows from anywhere in the past; the newest horizon decides how far to go.

    Training never sees a label of the hold-out. Series that begin less than SHORTEST_CONTEXT steps
    before it (or half of a shorter table) teach nothing; where all of them do, the base comes back.
    """
    windows = PastWindows(dressed, min(horizon, base.config.prediction_length), base.config)
    if not len(windows.rows):
        return Tuned(base, 0.0, {}, 0)
    return tune_on(base, windows, windows.hold_out(settings.seed), settings=settings)


def tune_on(
    base: FreshetNetwork,
    windows: PastWindows,
    hold_out: tuple[Batch, Tensor],
    *,
    settings: FineTuneSettings,
    stop_early: bool = False,
    advanced: Advanced = lambda steps, loss: None,
    looked: Callable[[float], None] = lambda loss: None,
) -> Tuned:
    """Fine-tune on some windows, and go as far from the base as does best on others.

    Args:
        base: is not touched.
        windows: some of them are long enough to learn from.
        hold_out: windows whose labels no step learns from, and their actuals.
        settings: how.
        stop_early: whether the hold-out also ends the training once it gains no more.
        advanced: called after every step.
        looked: called after every look at the hold-out while training, with its loss.
    """

    def loss_of(network: FreshetNetwork) -> float:
        return held_out_loss(network, *hold_out)

    def look(network: FreshetNetwork) -> float:
        loss = loss_of(network)
        looked(loss)
        return loss

    evaluate = look if stop_early else None
    tuned = fine_tune(base, windows, settings=settings, evaluate=evaluate, advanced=advanced)
    factor, held_out = choose_factor(
        FACTORS,
        lambda factor: loss_of(interpolate(base, tuned.network, factor)),
        prudence=PRUDENCE,
    )
    network = interpolate(base, tuned.network, factor)
    adapter = None if tuned.adapter is None else tuned.adapter.times(factor)
    return Tuned(network, factor, held_out, len(tuned.losses), adapter)
