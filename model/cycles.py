"""Sums of a context's values over steps that share a phase of a cycle, or any group.

Phases are counted from the cutoff, which is step T of every row, so that one reshape serves all.

Dimensions: B rows, X stacked values, T context steps, H horizon steps, S = T + H,
C cycles of P steps, G groups.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def by_phase(values_BXT: Tensor, period: int, horizon: int) -> Tensor:
    """Sums over the context's steps of the same phase, at each step of the horizon: [B, X, H].

    >>> by_phase(torch.tensor([[[1.0, 2.0, 3.0]]]), 2, 3).tolist()
    [[[2.0, 4.0, 2.0]]]
    """
    sums_BXP = _fold(values_BXT, period, horizon).sum(2)
    return _repeat(sums_BXP, horizon)


def by_phase_of_others(values_BXT: Tensor, period: int, steps: int) -> Tensor:
    """As `by_phase`, also at each context step, which hears only the other cycles: [B, X, S].

    A context step that heard itself would be explained by itself where the history holds only a
    cycle or two, and would look unlike a step of the horizon, which hears only others.

    >>> by_phase_of_others(torch.tensor([[[1.0, 2.0, 3.0]]]), 2, 5).tolist()
    [[[3.0, 0.0, 1.0, 2.0, 4.0]]]
    """
    T = values_BXT.shape[2]
    folded_BXCP = _fold(values_BXT, period, steps - T)
    sums_BXP = folded_BXCP.sum(2)
    others_BXCP = sums_BXP[:, :, None] - folded_BXCP
    others_BXT = others_BXCP.flatten(2)[..., -T:]
    return torch.cat([others_BXT, _repeat(sums_BXP, steps - T)], -1)


def by_group(values_BXT: Tensor, group_BS: Tensor, num_groups: int) -> Tensor:
    """Sums over the context's steps of the same group, given back at every step: [B, X, S].

    Args:
        values_BXT: what is summed.
        group_BS: int64 each row's own groups of steps, from 0.
        num_groups: G, more than the highest of them.
    """
    B, X, T = values_BXT.shape
    sums_BXG = values_BXT.new_zeros(B, X, num_groups)
    sums_BXG.scatter_add_(2, group_BS[:, None, :T].expand(B, X, T), values_BXT)
    return sums_BXG.gather(2, group_BS[:, None].expand(B, X, group_BS.shape[1]))


def _fold(values_BXT: Tensor, period: int, horizon: int) -> Tensor:
    """One row a cycle, the last of which ends at the cutoff: [B, X, C, P].

    Before the context there are zeros. Of a period longer than context and horizon no two steps
    share a phase, so it may as well end there.
    """
    B, X, T = values_BXT.shape
    period = min(period, T + horizon)
    return F.pad(values_BXT, (-T % period, 0)).view(B, X, -1, period)


def _repeat(sums_BXP: Tensor, horizon: int) -> Tensor:
    """The sums of each phase at the horizon's steps, the first of which has phase 0: [B, X, H]."""
    num_cycles = -(-horizon // sums_BXP.shape[2])
    return sums_BXP.repeat(1, 1, num_cycles)[..., :horizon]
