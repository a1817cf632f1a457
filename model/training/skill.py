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
BATCHES, ROWS = 6, 256


def held_out(config: FreshetConfig, *, seed: int, device: str) -> list[tuple[Batch, Tensor]]:
    """Batches of the mixture that no training step draws."""
    generator = torch.Generator(device).manual_seed(HELD_OUT_SEED + seed)
    context, horizon = config.context_length, config.prediction_length
    return [
        sample(generator, ROWS, context_length=context, prediction_length=horizon)
        for _ in range(BATCHES)
    ]


@torch.no_grad()
def skill(network: FreshetNetwork, batches: list[tuple[Batch, Tensor]]) -> dict[str, float]:
    """Held-out loss, and 1 - WQL / WQL of seasonal naive as the median over the batches."""
    levels = np.array(network.config.quantile_levels)
    losses, skills = [], []
    for batch, actual_BH in batches:
        output = network(*batch.arguments())
        levels_Q = torch.tensor(levels, dtype=torch.float32, device=actual_BH.device)
        losses.append(float(network_loss(output, actual_BH, levels_Q)))
        ours_BHQ = output.units().cpu().numpy()
        skills.append(row_skill(batch, actual_BH.cpu().numpy(), ours_BHQ, levels))
    return {"held_out_loss": float(np.mean(losses)), "held_out_skill": float(np.median(skills))}


def row_skill(batch: Batch, actual_BH: Reals, quantiles_BHQ: Reals, levels: Reals) -> float:
    """1 - WQL / WQL of seasonal naive, every row brought to size one: else the largest decides."""
    target_BT = batch.target_BT.cpu().numpy()
    naive_BHQ = seasonal_naive(target_BT, actual_BH.shape[1], _season_length(batch), levels)
    rows = np.isfinite(naive_BHQ).all((1, 2)) & np.isfinite(actual_BH).any(1)
    size_B1 = np.maximum(np.nanmean(actual_BH[rows], 1, keepdims=True), 0.1)
    sized_BH = actual_BH[rows] / size_B1
    ours = wql(sized_BH, quantiles_BHQ[rows] / size_B1[..., None], levels)
    naive = wql(sized_BH, naive_BHQ[rows] / size_B1[..., None], levels)
    return 1.0 - ours / naive


def _season_length(batch: Batch) -> int:
    """The longest calendar season of which the context holds two cycles, else 1."""
    periods = [int(p) for p in calendar_periods(batch.resolution_ms)]
    return max([p for p in periods if 2 * p <= batch.context_length], default=1)
