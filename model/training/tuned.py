"""freshet's network as a model of windows: used as it is, or fine-tuned on what lies before a
cutoff.

Dimensions: N series, T context steps, H horizon steps, Q quantile levels, B rows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.effects.slots import Dressed, dress
from freshet.model.features import CLOSED, known_channels, scale_target
from freshet.model.forecaster import BatchForecaster
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.predict.windows import forecast
from freshet.model.profiles import profiles
from freshet.model.tables.panel import Window
from freshet.model.training.train import (
    FineTuneSettings,
    choose_factor,
    fine_tune,
    held_out_loss,
    interpolate,
)
from freshet.model.weights import BASE_WEIGHTS, verify_weights
from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.units import DAY_MS, WEEK_MS

SHORTEST_CONTEXT = 32  # steps of history before a training window
SHIFT_WEEKS = 150
# How far to go from base to tuned; no way at all is among them, since no gate looks at the result.
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0)
# What a factor of one must gain on the hold-out to be worth it: one horizon's luck is worth a per
# cent or two.
PRUDENCE = 0.04
HOLD_OUT_ROWS = 512
SHOCK_ROWS_MIN, SHOCK_ROWS_MAX = 30, 256
SHOCK_WEEKS = 4
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
        """Fine-tune a copy of the base weights on the window's past, always starting from the
        base.
        """
        if self.needs_fit:
            tuned = tune(self.base.network, dress(window), window.horizon, settings=self.settings)
            self.forecaster = BatchForecaster(
                tuned.network, device=str(self.base.device), dtype="float32"
            )

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles in units at `levels`, sorted and >= 0: [N, H, Q]."""
        return forecast(self.forecaster, dress(window), window.horizon, levels)


def make(weights: Path | None, fine_tune: str) -> FreshetModel:
    """The model of a folder of weights, or of the ones that ship with freshet.

    Raises:
        WeightsError: the weights are missing, corrupt or do not compute what they should.
    """
    verified = verify_weights(BASE_WEIGHTS if weights is None else weights)
    network = BatchForecaster(verified.network, dtype="float32", sha256=verified.sha256)
    return FreshetModel(network, tune=fine_tune != "none")


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tuned copy, how far it went from the base, and what the hold-out said of each
    factor.
    """

    network: FreshetNetwork
    factor: float
    held_out: dict[float, float]


def tune(
    base: FreshetNetwork, dressed: Dressed, horizon: int, *, settings: FineTuneSettings = SETTINGS
) -> Tuned:
    """Fine-tune on windows from anywhere in the past; the newest horizon decides how far to go from
    the base.

    Training never sees a label of the hold-out. Series that begin less than SHORTEST_CONTEXT steps
    before it (or half of a shorter table) teach nothing; where all of them do, the base comes back.
    """
    sampler = PastWindows(dressed, min(horizon, base.config.prediction_length), base.config)
    if not len(sampler.rows):
        return Tuned(base, 0.0, {})
    tuned = fine_tune(base, sampler, settings=settings).network
    return choose(base, tuned, *sampler.hold_out(settings.seed))


def choose(base: FreshetNetwork, tuned: FreshetNetwork, batch: Batch, actual_BH: Tensor) -> Tuned:
    """The weights between base and tuned that do best on a hold-out, the further ones having more
    to show.
    """
    factor, held_out = choose_factor(
        FACTORS,
        lambda factor: held_out_loss(interpolate(base, tuned, factor), batch, actual_BH),
        prudence=PRUDENCE,
    )
    return Tuned(interpolate(base, tuned, factor), factor, held_out)


class PastWindows:
    """Draws training windows whose labels end before the newest horizon.

    A history holds only a few hundred dates, however many series share them, and a network would
    learn them by heart. So dates are shifted by whole weeks, and what all series did alike on a
    date, beyond what is expected, is exchanged for what they did on another one: as much of it as
    the future holds to be unsure of, and nothing to remember.
    """

    def __init__(self, dressed: Dressed, horizon: int, config: FreshetConfig) -> None:
        context, self.patch = config.context_length, config.patch_length
        self.dressed, self.horizon = dressed, horizon + -horizon % self.patch
        T = dressed.target_NT.shape[1]
        self.last = max(T - horizon, 0)
        seen_NT = np.isfinite(dressed.target_NT) & (np.arange(T) < self.last)
        begin_N = np.where(seen_NT.any(1), seen_NT.argmax(1), T)
        shortest = min(SHORTEST_CONTEXT, max(self.last // 2, 1))
        self.rows = np.flatnonzero(begin_N + shortest + 1 < self.last)
        # Half of a long history as context: a window with little of it looks unlike what is
        # forecast.
        middle = min(self.last // 2, context // 2)
        self.lowest = np.minimum(np.maximum(begin_N[self.rows] + shortest, middle), self.last - 1)
        self.context = context
        self.shocks_T = shared_shocks(dressed, self.last)

    def __call__(
        self, generator: torch.Generator, rows: int = SETTINGS.batch_size
    ) -> tuple[Batch, Tensor]:
        """Windows at random; labels past the last one that may be learned are NaN."""
        pick = torch.randint(len(self.rows), (rows,), generator=generator).numpy()
        share = torch.rand(rows, generator=generator).numpy()
        # Ends near the newest label keep a part of their horizon.
        ends = (self.lowest[pick] + share * (self.last - self.lowest[pick])).astype(np.int64)
        context = min(self.context, int(ends.max()))
        context += -context % self.patch
        batch, actual_BH = self.dressed.batch(
            self.rows[pick], ends, context=context, horizon=self.horizon, train=True
        )
        if self.shocks_T is not None:
            actual_BH *= torch.from_numpy(self._swapped(ends, generator))
        late_BH = ends[:, None] + np.arange(self.horizon) >= self.last
        actual_BH[torch.from_numpy(late_BH)] = torch.nan
        weeks = SHIFT_WEEKS if self.dressed.resolution_ms <= WEEK_MS else 0
        shift_B = torch.randint(-weeks, weeks + 1, (rows,), generator=generator) * WEEK_MS
        return replace(batch, start_ms_B=batch.start_ms_B + shift_B), actual_BH

    def _swapped(self, ends: Ints, generator: torch.Generator) -> Singles:
        """What turns each label's shared shock into that of another stretch of the past with the
        same weekdays.
        """
        assert self.shocks_T is not None
        season = max(round(WEEK_MS / self.dressed.resolution_ms), 1)
        steps_H = np.arange(self.horizon)
        own_BH = np.minimum(ends[:, None] + steps_H, self.last - 1)
        cycles_B = torch.randint(2**31, (len(ends),), generator=generator).numpy()
        first_B = ends % season + season * (cycles_B % max((self.last - self.horizon) // season, 1))
        other_BH = np.minimum(first_B[:, None] + steps_H, self.last - 1)
        ratio_BH: Singles = np.exp(self.shocks_T[other_BH] - self.shocks_T[own_BH]).astype(
            np.float32
        )
        return ratio_BH

    def hold_out(self, seed: int) -> tuple[Batch, Tensor]:
        """The newest horizon of some of the series."""
        rows = np.sort(np.random.default_rng(seed).permutation(self.rows)[:HOLD_OUT_ROWS])
        ends = np.full(len(rows), self.last)
        return self.dressed.batch(
            rows, ends, context=self.context, horizon=self.horizon, train=True
        )


def shared_shocks(dressed: Dressed, end: int) -> Floats | None:
    """What all series did alike on each date before step `end`, beyond what is expected of each:
    log units [T].

    The median over series of what profiles leave over, less its own mean over the weeks around,
    bounded. None where steps are shorter than a day or longer than a week, or where the series are
    few or do not share their dates.
    """
    rows = np.linspace(
        0, len(dressed.target_NT) - 1, min(len(dressed.target_NT), SHOCK_ROWS_MAX)
    ).astype(np.int64)
    alike = bool((dressed.time_ms_NS[rows] == dressed.time_ms_NS[:1]).all())
    width = 1 + 2 * (SHOCK_WEEKS * WEEK_MS // dressed.resolution_ms)
    if not (
        alike
        and len(rows) >= SHOCK_ROWS_MIN
        and DAY_MS <= dressed.resolution_ms <= WEEK_MS
        and end > width
    ):
        return None
    batch, _ = dressed.batch(rows, np.full(len(rows), end), context=end, horizon=1, train=True)
    scaled = scale_target(batch.target_BT, batch.known_BSK[:, :end, CLOSED] > 0.5)
    values_BSK, _ = known_channels(batch.known_BSK, scaled.scaling.scale_B)
    own = profiles(scaled, values_BSK, batch.start_ms_B, batch.resolution_ms)
    left_BT = (scaled.z_BT - own.expected_BS[:, :end]) * scaled.scaling.scale_B[:, None]
    left_BT[scaled.observed_BT == 0] = torch.nan
    median_T = np.nan_to_num(left_BT.nanmedian(0).values.double().numpy())
    ones_T = np.ones_like(median_T)
    slow_T = np.convolve(median_T, np.ones(width), "same") / np.convolve(
        ones_T, np.ones(width), "same"
    )
    shocks_T: Floats = np.clip(median_T - slow_T, -1.0, 1.0)
    return shocks_T
