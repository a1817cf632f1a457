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
    last = len(level_Q) - 1

    # Between two levels the quantile function is straight: the share of the way from left to right.
    right_N = torch.searchsorted(level_Q, probability_N)
    right_N = right_N.clamp(1, last)
    left_N = right_N - 1
    left_level_N = level_Q[left_N]
    gap_N = level_Q[right_N] - left_level_N
    way_N = probability_N - left_level_N
    inside_N = (way_N / gap_N).clamp(0.0, 1.0)

    # An exponential tail is straight in the logarithm of what lies above: as many gaps between the
    # last two levels as that logarithm holds theirs.
    ratio = (1 - levels[-2]) / (1 - levels[-1])
    per_gap = math.log(ratio)
    thinner_N = (1.0 - level_Q[-1]) / (1.0 - probability_N)
    beyond_N = thinner_N.log() / per_gap
    in_tail_N = probability_N > level_Q[-1]
    share_N = torch.where(in_tail_N, 1.0 + beyond_N, inside_N)

    # Each value is a mixture of two quantiles; in the tail the share of the left one is negative.
    left_1N = left_N[None]
    right_1N = right_N[None]
    share_1N = share_N[None]
    weights_QN = torch.zeros(len(level_Q), len(probability_N), dtype=torch.float64)
    weights_QN.scatter_(0, left_1N, 1.0 - share_1N)
    weights_QN.scatter_(0, right_1N, share_1N)
    return weights_QN.float()


def distribution(
    value_BHK: Tensor,
    quantiles_BHQ: Tensor,
    levels: Sequence[float],
    *,
    included: bool,
) -> Tensor:
    """P(Y <= value), or P(Y < value) when the value itself is not included: [B, H, K]."""
    # Both tails go through the two outermost levels, as the upper one of `quantile_weights` does,
    # so that sums have the right mean (that one has no lower tail). The PIT of served forecasts has
    # wider ones (online/drift/score.py).
    Q = len(levels)
    quantiles_BHQ = quantiles_BHQ.contiguous()
    value_BHK = value_BHK.contiguous()
    level_Q = torch.tensor(levels, dtype=quantiles_BHQ.dtype, device=quantiles_BHQ.device)

    # How many quantiles lie below each value, and so between which two it lies. Where many
    # quantiles are alike, as the zeros of rare sales, a value that is included lies above them all.
    count_BHK = torch.searchsorted(quantiles_BHQ, value_BHK, right=included)
    left_BHK = (count_BHK - 1).clamp(min=0)
    right_BHK = count_BHK.clamp(max=Q - 1)
    q_left_BHK = quantiles_BHQ.gather(-1, left_BHK)
    q_right_BHK = quantiles_BHQ.gather(-1, right_BHK)

    # Inside, probability rises in proportion to the way between the two.
    width_BHK = (q_right_BHK - q_left_BHK).clamp(min=1e-12)
    share_BHK = (value_BHK - q_left_BHK) / width_BHK
    p_left_BHK = level_Q[left_BHK]
    rise_BHK = level_Q[right_BHK] - p_left_BHK
    inside_BHK = p_left_BHK + share_BHK * rise_BHK

    # Beyond the outermost quantiles: exponential, through the last two on that side.
    first_BH1 = quantiles_BHQ[..., :1]
    second_BH1 = quantiles_BHQ[..., 1:2]
    low_ratio = levels[0] / levels[1]
    low_tail_BHK = _tail(first_BH1 - value_BHK, second_BH1 - first_BH1, low_ratio)
    under_BHK = levels[0] * low_tail_BHK

    last_but_one_BH1 = quantiles_BHQ[..., -2:-1]
    last_BH1 = quantiles_BHQ[..., -1:]
    high_ratio = (1 - levels[-1]) / (1 - levels[-2])
    high_tail_BHK = _tail(value_BHK - last_BH1, last_BH1 - last_but_one_BH1, high_ratio)
    over_BHK = 1.0 - (1.0 - levels[-1]) * high_tail_BHK

    found_BHK = torch.where(count_BHK == 0, under_BHK, inside_BHK)
    found_BHK = torch.where(count_BHK == Q, over_BHK, found_BHK)
    # Nothing sells less than none, whatever the lower tail says.
    return torch.where(value_BHK < 0, 0.0, found_BHK)


def _tail(distance_BHK: Tensor, gap_BH1: Tensor, ratio: float) -> Tensor:
    """What an exponential tail leaves at some distance beyond its quantile, 1 before it: [B, H, K].

    Over the gap between the two outermost quantiles it falls by `ratio`.
    """
    # The units within which it falls by e; quantiles that are alike would make them none.
    scale_BH1 = gap_BH1 / -math.log(ratio)
    scale_BH1 = scale_BH1.clamp(min=1e-6)
    folds_BHK = (distance_BHK / scale_BH1).clamp(min=0.0)
    return torch.exp(-folds_BHK)


def places(
    actual_BH: Tensor,
    quantiles_BHQ: Tensor,
    levels: Sequence[float],
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
    whole_B = whole_rows(actual_BH)
    whole_B11 = whole_B[:, None, None]

    # How much places can vary at all: the places of values that the forecast thinks equally likely.
    probability_K = (torch.arange(MARGINAL_POINTS) + 0.5) / MARGINAL_POINTS
    weights_QK = quantile_weights(levels, probability_K)
    typical_BHK = quantiles_BHQ @ weights_QK.to(quantiles_BHQ)
    typical_BHK = torch.where(whole_B11, typical_BHK.round(), typical_BHK)
    typical_places_BHK = _places(typical_BHK, whole_B11, quantiles_BHQ, levels)
    # Places of a fine distribution are even over [-0.5, 0.5], whose variance is a twelfth.
    variance_BH = 12.0 * typical_places_BHK.square().mean(-1)

    actual_BH1 = actual_BH[..., None].to(quantiles_BHQ)
    place_BH1 = _places(actual_BH1, whole_B11, quantiles_BHQ, levels)
    place_BH = place_BH1[..., 0]
    missing_BH = ~torch.isfinite(actual_BH).to(place_BH.device)
    place_BH = place_BH.masked_fill(missing_BH, math.nan)
    variance_BH = variance_BH.masked_fill(missing_BH, math.nan)
    return place_BH, variance_BH


def whole_rows(units_BX: Tensor) -> Tensor:
    """Rows that count in whole units, as far as was observed: [B].

    >>> whole_rows(torch.tensor([[1.0, math.nan, 3.0], [0.5, 1.0, 2.0]])).tolist()
    [True, False]
    """
    filled_BX = torch.nan_to_num(units_BX)
    broken_BX = (filled_BX - filled_BX.round()).abs()
    return (broken_BX < 1e-6).all(1)


def _places(
    value_BHK: Tensor,
    whole_B11: Tensor,
    quantiles_BHQ: Tensor,
    levels: Sequence[float],
) -> Tensor:
    """The middle of the probability that a value, or its unit, stands for, less a half."""
    value_BHK = torch.nan_to_num(value_BHK)
    half_B11 = torch.where(whole_B11, 0.5, 0.0)
    lower_BHK = value_BHK - half_B11
    upper_BHK = value_BHK + half_B11
    low_BHK = distribution(lower_BHK, quantiles_BHQ, levels, included=False)
    high_BHK = distribution(upper_BHK, quantiles_BHQ, levels, included=True)
    middle_BHK = (low_BHK + high_BHK) / 2
    return middle_BHK - 0.5
