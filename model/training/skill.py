"""How good a network is on synthetic windows that no training step draws.

Dimensions: B rows, T context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from freshet.model.baselines.yardsticks import seasonal_naive
from freshet.model.batch import Batch
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.phases import calendar_periods
from freshet.model.quantiles.metrics import wql
from freshet.model.synthetic.mixture import sample
from freshet.model.training.loss import network_loss
from freshet.stream.arrays import Reals

HELD_OUT_SEED = 2**40  # far beyond the seeds of training steps
BATCHES = 6  # of one resolution each
ROWS = 256
SMALLEST_SIZE = 0.1  # units a step; dividing by less would let rows that sell nothing decide


def held_out(config: FreshetConfig, *, seed: int, device: str) -> list[tuple[Batch, Tensor]]:
    """Batches of the mixture that no training step draws."""
    generator = torch.Generator(device).manual_seed(HELD_OUT_SEED + seed)
    batches = []
    for _ in range(BATCHES):
        drawn = sample(
            generator,
            ROWS,
            context_length=config.context_length,
            prediction_length=config.prediction_length,
        )
        batches.append(drawn)
    return batches


@torch.no_grad()
def skill(network: FreshetNetwork, batches: list[tuple[Batch, Tensor]]) -> dict[str, float]:
    """Held-out loss, and 1 - WQL / WQL of seasonal naive as the median over the batches."""
    levels = np.array(network.config.quantile_levels)
    losses = []
    skills = []
    for batch, actual_BH in batches:
        output = network(*batch.arguments())
        levels_Q = torch.tensor(levels, dtype=torch.float32, device=actual_BH.device)
        loss = network_loss(output, actual_BH, levels_Q)
        losses.append(float(loss))
        ours_BHQ = output.units().cpu().numpy()
        actual = actual_BH.cpu().numpy()
        skills.append(row_skill(batch, actual, ours_BHQ, levels))
    # A median, since this skill has no bound below: one bad batch would hide five good ones.
    return {
        "held_out_loss": float(np.mean(losses)),
        "held_out_skill": float(np.median(skills)),
    }


def row_skill(batch: Batch, actual_BH: Reals, quantiles_BHQ: Reals, levels: Reals) -> float:
    """1 - WQL / WQL of seasonal naive, every row brought to size one: else the largest decides."""
    # What live forecasts are held against too, so that both skills mean the same.
    target_BT = batch.target_BT.cpu().numpy()
    horizon = actual_BH.shape[1]
    season_length = _season_length(batch)
    naive_BHQ = seasonal_naive(target_BT, horizon, season_length, levels)
    # Rows without a history have no naive forecast, rows without an actual have no score.
    answered_B = np.isfinite(naive_BHQ).all((1, 2))
    observed_B = np.isfinite(actual_BH).any(1)
    rows_B = answered_B & observed_B
    # WQL divides by the sum of the actuals, over all rows at once.
    mean_B1 = np.nanmean(actual_BH[rows_B], 1, keepdims=True)
    size_B1 = np.maximum(mean_B1, SMALLEST_SIZE)
    size_B11 = size_B1[..., None]
    sized_BH = actual_BH[rows_B] / size_B1
    ours = wql(sized_BH, quantiles_BHQ[rows_B] / size_B11, levels)
    naive = wql(sized_BH, naive_BHQ[rows_B] / size_B11, levels)
    return 1.0 - ours / naive


def _season_length(batch: Batch) -> int:
    """The longest calendar season of which the context holds two cycles, else 1."""
    longest = batch.context_length // 2
    periods = [int(period) for period in calendar_periods(batch.resolution_ms)]
    fitting = [period for period in periods if period <= longest]
    return max(fitting, default=1)
