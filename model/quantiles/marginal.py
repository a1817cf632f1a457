"""One step's distribution from its quantiles: straight between levels, exponential in the tails.

Dimensions: B rows, H horizon steps, Q quantile levels, K values per step, N probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MARGINAL_POINTS = 32  # probabilities at which a step's discreteness is measured


def quantile_weights(levels: Sequence[float], probability_N: Tensor) -> Tensor:
    """Weights that turn quantiles into values at other probabilities: [Q, N].

    `quantiles @ weights` are the values.

    Below the first level the first quantile stands; above the last the tail is the exponential one
    through the last two levels, so that a sum's mean does not miss its rare large parts.

    >>> quantile_weights([0.1, 0.5, 0.9],
    ...     torch.tensor([0.05, 0.5, 0.6])).round(decimals=2).T.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.75, 0.25]]
    """
    level_Q = torch.tensor(levels, dtype=torch.float64)
    probability_N = probability_N.double()
    right_N = torch.searchsorted(level_Q, probability_N).clamp(1, len(level_Q) - 1)
    left_N = right_N - 1
    gap_N = level_Q[right_N] - level_Q[left_N]
    share_N = ((probability_N - level_Q[left_N]) / gap_N).clamp(0.0, 1.0)
    # An exponential tail is straight in the logarithm of what lies above: as many gaps between the
    # last two levels as that logarithm holds theirs.
    per_gap = math.log((1 - levels[-2]) / (1 - levels[-1]))
    beyond_N = ((1.0 - level_Q[-1]) / (1.0 - probability_N)).log() / per_gap
    share_N = torch.where(probability_N > level_Q[-1], 1.0 + beyond_N, share_N)
    weights_QN = torch.zeros(len(level_Q), len(probability_N), dtype=torch.float64)
    weights_QN.scatter_(0, left_N[None], (1.0 - share_N)[None])
    weights_QN.scatter_(0, right_N[None], share_N[None])
    return weights_QN.float()


def distribution(
    value_BHK: Tensor, quantiles_BHQ: Tensor, levels: Sequence[float], *, included: bool
) -> Tensor:
    """P(Y <= value), or P(Y < value) when the value itself is not included: [B, H, K]."""
    # Both tails go through the two outermost levels, as the upper one of `quantile_weights` does,
    # so that sums have the right mean (that one has no lower tail). The PIT of served forecasts has
    # wider ones (online/drift/score.py).
    Q = len(levels)
    level_Q = torch.tensor(levels, dtype=quantiles_BHQ.dtype, device=quantiles_BHQ.device)
    # How many quantiles lie below each value, and so between which two it lies.
    count_BHK = torch.searchsorted(
        quantiles_BHQ.contiguous(), value_BHK.contiguous(), right=included
    )
    left_BHK = (count_BHK - 1).clamp(min=0)
    right_BHK = count_BHK.clamp(max=Q - 1)
    q_left_BHK = quantiles_BHQ.gather(-1, left_BHK)
    q_right_BHK = quantiles_BHQ.gather(-1, right_BHK)
    share_BHK = (value_BHK - q_left_BHK) / (q_right_BHK - q_left_BHK).clamp(min=1e-12)
    inside_BHK = level_Q[left_BHK] + share_BHK * (level_Q[right_BHK] - level_Q[left_BHK])
    # Beyond the outermost quantiles: exponential, through the last two on that side.
    first_BH1, second_BH1 = quantiles_BHQ[..., :1], quantiles_BHQ[..., 1:2]
    low_scale_BH1 = _tail_scale(first_BH1, second_BH1, levels[0] / levels[1])
    below_BHK = ((first_BH1 - value_BHK) / low_scale_BH1).clamp(min=0.0)
    under_BHK = levels[0] * torch.exp(-below_BHK)
    last_but_one_BH1, last_BH1 = quantiles_BHQ[..., -2:-1], quantiles_BHQ[..., -1:]
    high_scale_BH1 = _tail_scale(last_but_one_BH1, last_BH1, (1 - levels[-1]) / (1 - levels[-2]))
    above_BHK = ((value_BHK - last_BH1) / high_scale_BH1).clamp(min=0.0)
    over_BHK = 1.0 - (1.0 - levels[-1]) * torch.exp(-above_BHK)
    found_BHK = torch.where(count_BHK == 0, under_BHK, inside_BHK)
    found_BHK = torch.where(count_BHK == Q, over_BHK, found_BHK)
    return torch.where(value_BHK < 0, 0.0, found_BHK)


def _tail_scale(low_BH1: Tensor, high_BH1: Tensor, ratio: float) -> Tensor:
    """Units within which an exponential tail falls by e.

    It falls by `ratio` between these two quantiles.
    """
    return ((high_BH1 - low_BH1) / -math.log(ratio)).clamp(min=1e-6)


def places(
    actual_BH: Tensor, quantiles_BHQ: Tensor, levels: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Where each actual fell in its forecast, from -0.5 to 0.5, and how much that varies.

    In rows that count whole units, a number stands for the half unit on either side of it, and its
    place is the middle of that interval's probability: the randomised PIT of Czado, Gneiting and
    Held (2009) without its noise. Many zeros all have the same place, so places vary less than
    evenly spread ones: the second array is their variance over a twelfth, 1 where the distribution
    is fine, near 0 where almost everything is zero. NaN where the actual is missing.

    >>> three = torch.tensor([[[1.0, 2.0, 3.0]] * 2]), (0.25, 0.5, 0.75)
    >>> places(torch.tensor([[2.0, 1.5]]), *three)[0].tolist()
    [[0.0, -0.125]]
    """
    whole_B11 = whole_rows(actual_BH)[:, None, None]
    probability_K = (torch.arange(MARGINAL_POINTS) + 0.5) / MARGINAL_POINTS
    typical_BHK = quantiles_BHQ @ quantile_weights(levels, probability_K).to(quantiles_BHQ)
    typical_BHK = torch.where(whole_B11, typical_BHK.round(), typical_BHK)
    typical_places_BHK = _places(typical_BHK, whole_B11, quantiles_BHQ, levels)
    # Places of a fine distribution are even over [-0.5, 0.5], whose variance is a twelfth.
    variance_BH = 12.0 * typical_places_BHK.square().mean(-1)
    actual_BH1 = actual_BH[..., None].to(quantiles_BHQ)
    place_BH = _places(actual_BH1, whole_B11, quantiles_BHQ, levels)[..., 0]
    missing_BH = ~torch.isfinite(actual_BH).to(place_BH.device)
    return place_BH.masked_fill(missing_BH, math.nan), variance_BH.masked_fill(missing_BH, math.nan)


def whole_rows(units_BX: Tensor) -> Tensor:
    """Rows that count in whole units, as far as was observed: [B].

    >>> whole_rows(torch.tensor([[1.0, math.nan, 3.0], [0.5, 1.0, 2.0]])).tolist()
    [True, False]
    """
    filled_BX = torch.nan_to_num(units_BX)
    return ((filled_BX - filled_BX.round()).abs() < 1e-6).all(1)


def _places(
    value_BHK: Tensor, whole_B11: Tensor, quantiles_BHQ: Tensor, levels: Sequence[float]
) -> Tensor:
    """The middle of the probability that a value, or its unit, stands for, less a half."""
    value_BHK = torch.nan_to_num(value_BHK)
    half_B11 = torch.where(whole_B11, 0.5, 0.0)
    low_BHK = distribution(value_BHK - half_B11, quantiles_BHQ, levels, included=False)
    high_BHK = distribution(value_BHK + half_B11, quantiles_BHQ, levels, included=True)
    return (low_BHK + high_BHK) / 2 - 0.5
