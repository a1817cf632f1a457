"""Steps further ahead than a network was trained for: as its last ones, and less and less sure.

Such a step is told to the network as if it were one of the last that it knows, with its own
calendar, profile and covariates. So it keeps its season, and nothing that was forecast is taken for
history. What a network cannot say of it is how much less sure it is: the variance of a forecast
goes on growing as it grew over the last cycles that the network knows.

Dimensions: B rows, H horizon steps, Q quantile levels, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LOW, HIGH = 0.1, 0.9  # the levels whose distance says how unsure a forecast is
# Growth below this share of a random walk's is what every fan shows whose level is not quite known;
# it comes to an end.
CALM_GROWTH = 0.2


class Fan(NamedTuple):
    """What is known of a horizon's steps.

    Attributes:
        reach: steps that the network was trained for.
        patch_length: steps that it takes together.
        cycle: steps of the season: a night is calmer than the noon before it, and no sign of calm.
    """

    reach: int
    patch_length: int
    cycle: int

    @property
    def span(self) -> int:
        """As many whole cycles as fit into half of the reach; half of it where none does."""
        half = self.reach // 2
        return half // self.cycle * self.cycle if self.cycle <= half else half


def listeners(num_tokens: int, num_known: int) -> Tensor:
    """Which tokens (columns) each token (row) listens to: bool [L, L].

    Those after the first `num_known` hear these and themselves, and nobody hears them: a forecast's
    first steps do not hang on how many come after them.

    >>> listeners(3, 1).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    """
    known_L = torch.arange(num_tokens) < num_known
    return known_L[None, :] | torch.eye(num_tokens, dtype=torch.bool)


def stand_ins(horizon: int, reach: int, patch_length: int) -> Tensor:
    """As which step each one is told to the network, from 0: its last patch again and again: [H].

    >>> stand_ins(8, 4, 2).tolist()
    [0, 1, 2, 3, 2, 3, 2, 3]
    """
    step_H = torch.arange(horizon)
    return torch.where(step_H < reach, step_H, reach - patch_length + step_H % patch_length)


def widened(left_BHQ: Tensor, closed_BH: Tensor, levels: Sequence[float], fan: Fan) -> Tensor:
    """Quantiles whose fan goes on widening after the steps that the network knows: [B, H, Q].

    Their variance is drawn on as a straight line through that of the last two spans of whole
    cycles: at least flat, at most in proportion to the steps, as a random walk's.

    Args:
        left_BHQ: quantiles around any centre; beyond the reach as wide as their `stand_ins`.
        closed_BH: steps that say nothing.
        levels: Q probabilities.
        fan: what is known of the steps.
    """
    low, middle, high = (_nearest(levels, level) for level in (LOW, 0.5, HIGH))
    width_BH = (left_BHQ[..., high] - left_BHQ[..., low]).clamp(min=0.0)
    variance_BH, open_BH = width_BH.square(), (~closed_BH).float()
    span, reach = fan.span, fan.reach
    early_B = _mean(variance_BH, open_BH, reach - 2 * span, reach - span)
    late_B = _mean(variance_BH, open_BH, reach - span, reach)

    # In shares of the late variance, which lies at the middle of its span: a random walk's is in
    # proportion to the steps, so one step adds to it what one step is of that middle.
    middle_step = reach - (span - 1) / 2
    growth_B = (1.0 - early_B / late_B.clamp(min=1e-9)) / span
    share_B = (growth_B * middle_step).clamp(0.0, 1.0)
    share_B1 = ((share_B - CALM_GROWTH) / (1 - CALM_GROWTH)).clamp(min=0.0)[:, None]
    step_H = torch.arange(left_BHQ.shape[1], device=left_BHQ.device)[reach:] + 1
    told_H = stand_ins(left_BHQ.shape[1], reach, fan.patch_length)[reach:].to(step_H) + 1
    wanted_BH = 1 + share_B1 * (step_H / middle_step - 1)
    given_BH = 1 + share_B1 * (told_H / middle_step - 1)
    factor_BH1 = (wanted_BH / given_BH).sqrt()[..., None]

    beyond_BHQ = left_BHQ[:, reach:]
    centre_BH1 = beyond_BHQ[..., middle : middle + 1]
    wider_BHQ = centre_BH1 + (beyond_BHQ - centre_BH1) * factor_BH1
    return torch.cat([left_BHQ[:, :reach], wider_BHQ], 1)


def _mean(values_BH: Tensor, weights_BH: Tensor, start: int, end: int) -> Tensor:
    """The weighted mean over some steps: [B]."""
    weights_BX = weights_BH[:, start:end]
    total_B = (values_BH[:, start:end] * weights_BX).sum(1)
    return total_B / weights_BX.sum(1).clamp(min=1.0)


def _nearest(levels: Sequence[float], level: float) -> int:
    return min(range(len(levels)), key=lambda index: abs(levels[index] - level))
