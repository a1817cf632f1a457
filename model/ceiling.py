"""How much a series' own past can explain: what no quantile of its forecast exceeds.

A network that is told more than it was trained on may promise anything, and a few seen steps say
little of what a covariate does. Whatever it comes from, a forecast ends where neither the most that
was ever sold with the series' own noise on top, nor an effect that other series showed, nor a first
promotion leads.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K known slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freshet.model.features import DISCOUNT, EFFECT, EVENT, PROMOTION, Scaled

# On Rossmann, Online Retail, dunnhumby, hierarchical sales and car parts it meets one of two
# thousand quantiles of 99 % and leaves the losses as they are.
NOISES = 4.0  # mean absolute deviations from what was expected
# Log units beside that after one step of history; they fall with the square root of the steps.
UNKNOWN = 2.0
# Log units for a kind of step that the series has never seen, and at most for what others showed.
FIRST_TIME = 1.5
SIBLINGS = 2.0


def ceiling(scaled: Scaled, known_BSK: Tensor, noise_B: Tensor) -> Tensor:
    """The most that any quantile may say of each step ahead, on the network's scale: [B, H].

    In units that is unit * sinh(arc), where arc is the largest arcsinh(y / unit) that was seen,
    plus NOISES times the noise (at most the mean absolute deviation of the whole context) and
    UNKNOWN / sqrt(seen steps), plus by how much the shared effect is above any that was seen, at
    most SIBLINGS, and FIRST_TIME on the first promotion, discount or event. Without history there
    is no ceiling.

    Args:
        scaled: the scaled target and where it was observed.
        known_BSK: known covariates as `features.known_channels` gives them.
        noise_B: mean absolute difference from what was expected, on the network's scale.
    """
    T = scaled.z_BT.shape[1]
    scale_B1 = scaled.scaling.scale_B[:, None]
    seen_BT = scaled.observed_BT > 0
    peak_B = torch.where(seen_BT, scaled.z_BT, -torch.inf).amax(1)
    count_B = scaled.observed_BT.sum(1)
    unknown_B = UNKNOWN / count_B.clamp(min=1.0).sqrt()
    # What is expected may be wrong in the context too; the row's spread, one here, is its own.
    usual_B = peak_B + NOISES * noise_B.clamp(max=1.0)

    effect_BS = known_BSK[..., EFFECT]
    most_B1 = torch.where(seen_BT, effect_BS[:, :T], -torch.inf).amax(1, keepdim=True)
    above_BH = (effect_BS[:, T:] - most_B1).clamp(min=0.0)
    above_BH = above_BH.minimum(SIBLINGS / scale_B1)
    loud_BS = known_BSK[..., [PROMOTION, DISCOUNT, EVENT]].abs().sum(-1) > 0
    known_B1 = (loud_BS[:, :T] & seen_BT).any(1, keepdim=True)
    first_BH = FIRST_TIME * (loud_BS[:, T:] & ~known_B1)

    log_BH = unknown_B[:, None] + first_BH
    ceiling_BH = usual_B[:, None] + above_BH + log_BH / scale_B1
    return torch.where(count_B[:, None] > 0, ceiling_BH, torch.inf)
