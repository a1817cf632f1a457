"""The training loss: pinball over all quantile levels, where the target was observed."""

from __future__ import annotations

import torch
from torch import Tensor


def pinball_loss(quantiles_BHQ: Tensor, target_BH: Tensor, levels_Q: Tensor) -> Tensor:
    """Return the mean pinball loss over observed steps and levels, a scalar; 0 when nothing is observed.

    NaN in `target_BH` means not observed (a stock-out, not yet matured).

    >>> q = torch.tensor([[[1.0, 3.0]]]); y = torch.tensor([[2.0]])
    >>> round(pinball_loss(q, y, torch.tensor([0.1, 0.9])).item(), 3)
    0.1
    """
    observed_BH = torch.isfinite(target_BH)
    error_BHQ = torch.where(observed_BH, target_BH, 0.0)[..., None] - quantiles_BHQ.float()
    loss_BHQ = torch.maximum(levels_Q * error_BHQ, (levels_Q - 1.0) * error_BHQ)
    weight_BH = observed_BH.float()
    return (loss_BHQ.mean(-1) * weight_BH).sum() / weight_BH.sum().clamp(min=1.0)
