"""The training loss: pinball over all quantile levels, where the target was observed."""

from __future__ import annotations

import torch
from torch import Tensor

from freshet.model.features import to_z
from freshet.model.network import FreshetOutput

WEIGHT_BOUNDS = (0.3, 3.0)


def pinball_loss(
    quantiles_BHQ: Tensor, target_BH: Tensor, levels_Q: Tensor, weight_BH: Tensor | None = None
) -> Tensor:
    """The mean pinball loss over observed steps and levels, a scalar; 0 when nothing is observed.

    NaN in `target_BH` means not observed (a stock-out, not yet matured). `weight_BH` says how much
    a step counts beside the others; it must not depend on the target, or the quantiles would lean.

    >>> q = torch.tensor([[[1.0, 3.0]]]); y = torch.tensor([[2.0]])
    >>> round(pinball_loss(q, y, torch.tensor([0.1, 0.9])).item(), 3)
    0.1
    """
    observed_BH = torch.isfinite(target_BH)
    error_BHQ = torch.where(observed_BH, target_BH, 0.0)[..., None] - quantiles_BHQ.float()
    loss_BHQ = torch.maximum(levels_Q * error_BHQ, (levels_Q - 1.0) * error_BHQ)
    counted_BH = observed_BH.float() if weight_BH is None else observed_BH * weight_BH
    return (loss_BHQ.mean(-1) * counted_BH).sum() / observed_BH.sum().clamp(min=1)


def network_loss(output: FreshetOutput, actual_BH: Tensor, levels_Q: Tensor) -> Tensor:
    """The pinball loss on the network's own scale.

    The best quantiles are the same there: arcsinh keeps their order. But a miss of a thousand units
    would count little more than one of a hundred, while every metric in units counts it tenfold.
    So a step's weight is how many units one step of z is worth where sales are as expected, which
    is the slope of sinh, relative to the row's middle, and bounded.
    """
    loc_B1, scale_B1 = output.scaling.loc_B[:, None], output.scaling.scale_B[:, None]
    expected_BH = torch.sinh((output.expected_BH * scale_B1 + loc_B1).clamp(-10.0, 10.0))
    # The slope of sinh at x is cosh(x) = sqrt(sinh(x)^2 + 1).
    slopes_BH = (expected_BH.square() + 1.0) / (torch.sinh(loc_B1).square() + 1.0)
    weight_BH = torch.sqrt(slopes_BH).clamp(*WEIGHT_BOUNDS)
    return pinball_loss(output.z_BHQ, to_z(actual_BH, output.scaling), levels_Q, weight_BH)
