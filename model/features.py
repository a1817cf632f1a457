"""Parameter-free inputs of the network that its numbers give: scaling and covariates.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K slots.
Every function works on float32 with masked sums and treats each row alone, so that a batch of
rows equals the rows one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS

NUM_RUN_CHANNELS = 4

# Below a quarter of its mean a series is seen linearly, above it by its logarithm: effects multiply
# sales, so they add up there, and zero stays at a finite distance.
UNIT_SHARE = 0.25
# A constant series has no spread, and one step tells none: two steps of a spread of one stand
# beside the observed ones, and no spread is below the floor.
PRIOR_STEPS = 2.0
SCALE_FLOOR = 0.05
# Units: who sells whole ones sells none where less is forecast. Without it a bucket without sales
# lay below the 80 % band of rare sales (car parts: 70 % inside, 92 % with it; WQL .933 to .927).
NOTHING = 0.1
ROUNDING = 1e-5  # of the unit: what arithmetic leaves of nothing
# sinh(18) is 3e7 units, each at least a quarter of the mean: only infinity would meet this cap.
ARC_MAX = 18.0
# Training knew prices between a third and twice the usual one.
PRICE_RATIO_MAX = 4.0

PROMOTION = KNOWN_SLOTS.index("promotion")
DISCOUNT = KNOWN_SLOTS.index("discount")
EVENT = KNOWN_SLOTS.index("event")
CLOSED = KNOWN_SLOTS.index("closed")
EFFECT = KNOWN_SLOTS.index("effect")
FIRST_FREE = KNOWN_SLOTS.index("free_1")


class Scaling(NamedTuple):
    """How a row's units become numbers around zero: z = (arcsinh(y / unit) - loc) / scale."""

    unit_B: Tensor
    loc_B: Tensor
    scale_B: Tensor


class Scaled(NamedTuple):
    """A target on the network's own scale, where it was observed, and the way back."""

    z_BT: Tensor
    observed_BT: Tensor
    scaling: Scaling


def scale_target(target_BT: Tensor, closed_BT: Tensor | None = None) -> Scaled:
    """Return z = (arcsinh(y / unit) - loc) / scale, 0 where missing or closed.

    unit is a quarter of the mean, at least one: effects that multiply sales add up in z, and zeros
    stay at a finite distance. loc is the mean of arcsinh(y / unit) and scale its mean absolute
    deviation, pulled towards one where little was observed.

    Args:
        target_BT: units, NaN where missing.
        closed_BT: steps at which nothing could be sold, as booleans; they count as missing.
    """
    observed_BT = _finite(target_BT)
    if closed_BT is not None:
        observed_BT = observed_BT * ~closed_BT
    filled_BT = _filled(target_BT.float()) * observed_BT
    count_B = observed_BT.sum(1)
    at_least_one_B = count_B.clamp(min=1.0)

    # At least one: counts have nothing between none and one that a finer unit would show.
    mean_B = filled_BT.sum(1) / at_least_one_B
    unit_B = (UNIT_SHARE * mean_B).clamp(min=1.0)
    arc_BT = arcsinh(filled_BT / unit_B[:, None])
    loc_B = arc_BT.sum(1) / at_least_one_B
    centred_BT = (arc_BT - loc_B[:, None]) * observed_BT

    # The absolute deviation, not the square: a promotion must not make plain days look flat.
    deviation_B = centred_BT.abs().sum(1)
    spread_B = (deviation_B + PRIOR_STEPS) / (count_B + PRIOR_STEPS)
    scale_B = spread_B.clamp(min=SCALE_FLOOR)
    z_BT = centred_BT / scale_B[:, None]
    scaling = Scaling(unit_B, loc_B, scale_B)
    return Scaled(z_BT, observed_BT, scaling)


def arcsinh(size: Tensor) -> Tensor:
    """The inverse hyperbolic sine of numbers >= 0, ten times as fast on a CPU as torch's.

    >>> # The last one is log 2.
    >>> [round(x, 5) for x in arcsinh(torch.tensor([0.0, 1e-4, 0.75])).tolist()]
    [0.0, 0.0001, 0.69315]
    """
    # log(size + root) loses all digits of a small size next to the one in it. log1p keeps them, and
    # root - 1 is square / (1 + root) without subtracting two numbers that are nearly the same.
    square = size.square()
    root = (1.0 + square) ** 0.5
    return torch.log1p(size + square / (1.0 + root))


def to_z(units_BX: Tensor, scaling: Scaling) -> Tensor:
    """Units to the network's scale; NaN stays NaN."""
    unit_B1 = scaling.unit_B[:, None]
    loc_B1 = scaling.loc_B[:, None]
    scale_B1 = scaling.scale_B[:, None]
    arc_BX = arcsinh(units_BX / unit_B1)
    return (arc_BX - loc_B1) / scale_B1


def from_z(z_BX: Tensor, scaling: Scaling) -> Tensor:
    """The network's scale back to units, however many dimensions follow the rows."""
    # One number a row beside as many dimensions as z has: [B, 1, ...].
    ones = [1] * (z_BX.ndim - 1)
    unit_B1 = scaling.unit_B.reshape(-1, *ones)
    loc_B1 = scaling.loc_B.reshape(-1, *ones)
    scale_B1 = scaling.scale_B.reshape(-1, *ones)
    arc_BX = z_BX.float() * scale_B1 + loc_B1
    capped_BX = arc_BX.clamp(-ARC_MAX, ARC_MAX)
    return torch.sinh(capped_BX) * unit_B1


def to_units(z_BHQ: Tensor, scaling: Scaling) -> Tensor:
    """The network's scale back to units: sorted along the levels, 0 below a tenth of a unit.

    What is not a number stays visible.
    """
    # Quantiles that a network gives may cross; sorting them never makes their loss worse.
    crossed_BHQ = from_z(z_BHQ, scaling)
    units_BHQ = crossed_BHQ.sort(dim=-1).values
    nothing_B = (ROUNDING * scaling.unit_B).clamp(min=NOTHING)
    sells_none_BHQ = units_BHQ <= nothing_B[:, None, None]
    return torch.where(sells_none_BHQ, 0.0, units_BHQ)


def log_standardise(values_BTK: Tensor) -> tuple[Tensor, Tensor]:
    """Counts to standardised log1p and their mask, per row and slot; spread floored at 0.5."""
    counts_BKT = _slot_by_slot(values_BTK).clamp(min=0.0)
    log_BKT = torch.log1p(counts_BKT)
    values_BKT, mask_BKT = _standardise(log_BKT, floor=0.5)
    return values_BKT.mT, mask_BKT.mT


def known_channels(known_BSK: Tensor, scaled: Scaled) -> tuple[Tensor, Tensor]:
    """Known covariates on a common scale, and their mask: [B, S, K] each.

    The price ratio becomes its logarithm, flags and depths stay as they are, the effect is brought
    to the target's own scale, the free slots are standardised over context and horizon together:
    all of it is known in advance. Nothing is larger than what the network was trained on.
    """
    known_BKS = _slot_by_slot(known_BSK)

    # Ratios multiply sales, so their logarithm adds to z; doubled, it lies on a scale like that of
    # flags: a fifth off is -.45.
    price_B1S = known_BKS[:, :1].clamp(1.0 / PRICE_RATIO_MAX, PRICE_RATIO_MAX)
    log_price_B1S = price_B1S.log() * 2.0
    # Of a discount of ten the network makes a million times the sales.
    flags_BXS = known_BKS[:, 1:EFFECT].clamp(0.0, 1.0)
    # The effect comes in log units, as the target did before it was divided by its scale.
    log_effect_B1S = known_BKS[:, EFFECT:FIRST_FREE].clamp(-5.0, 5.0)
    effect_B1S = log_effect_B1S / scaled.scaling.scale_B[:, None, None]
    named_BXS = torch.cat([log_price_B1S, flags_BXS, effect_B1S], 1)
    named_mask_BXS = _finite(named_BXS)

    # Free slots hold anything; arcsinh keeps a single huge value from drowning the others.
    given_BXS = _within_seen(known_BKS[:, FIRST_FREE:], scaled.observed_BT)
    free_BXS, free_mask_BXS = _standardise(given_BXS, floor=1e-3)
    tamed_BXS = free_BXS.sign() * arcsinh(free_BXS.abs())

    values_BKS = torch.cat([torch.nan_to_num(named_BXS), tamed_BXS], 1)
    mask_BKS = torch.cat([named_mask_BXS, free_mask_BXS], 1)
    return values_BKS.mT, mask_BKS.mT


def _within_seen(values_BKS: Tensor, observed_BT: Tensor) -> Tensor:
    """Values no further than the range in which sales were seen; what never was stays as it is.

    What a value beyond it does nobody has seen, and a straight line may lead anywhere.
    """
    past_BKT = values_BKS[..., : observed_BT.shape[1]]
    seen_BKT = (past_BKT.abs() < torch.inf) & (observed_BT[:, None] > 0)
    low_BK1 = torch.where(seen_BKT, past_BKT, torch.inf).amin(2, keepdim=True)
    high_BK1 = torch.where(seen_BKT, past_BKT, -torch.inf).amax(2, keepdim=True)
    within_BKS = values_BKS.clamp(low_BK1, high_BK1)
    bounded_BKS = (low_BK1 <= high_BK1) & (values_BKS.abs() < torch.inf)
    return torch.where(bounded_BKS, within_BKS, values_BKS)


def _finite(values: Tensor) -> Tensor:
    """1 where a value is a number, 0 where it is missing or infinite."""
    return (values.abs() < torch.inf).float()


def _filled(values: Tensor) -> Tensor:
    """0 where a value is missing or infinite, so that sums pass over it."""
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _slot_by_slot(values_BSK: Tensor) -> Tensor:
    """The same as [B, K, S]: a CPU is faster where the steps of a slot are neighbours."""
    values_BKS = values_BSK.float().mT
    return values_BKS.contiguous()


def _standardise(values_BKS: Tensor, *, floor: float) -> tuple[Tensor, Tensor]:
    """Mean 0 and standard deviation 1 for each row and slot, at least `floor` being divided by.

    Returns:
        The values, 0 where missing, and their mask: [B, K, S] each.
    """
    mask_BKS = _finite(values_BKS)
    filled_BKS = _filled(values_BKS)
    count_BK1 = mask_BKS.sum(2, keepdim=True).clamp(min=1.0)
    mean_BK1 = filled_BKS.sum(2, keepdim=True) / count_BK1
    centred_BKS = (filled_BKS - mean_BK1) * mask_BKS
    squares_BKS = centred_BKS.square()
    variance_BK1 = squares_BKS.sum(2, keepdim=True) / count_BK1
    # A slot that hardly changes would be blown up to a spread of one, rounding errors and all.
    spread_BK1 = variance_BK1.sqrt().clamp(min=floor)
    return centred_BKS / spread_BK1, mask_BKS


def run_channels(known_BSK: Tensor) -> Tensor:
    """Where a step lies in its promotion and next to closed days: [B, S, 4], 1 falling towards 0.

    How near the promotion's first step is and how near its last; how near the closed step before
    and the one after. 0 outside of promotions, and where no step is closed.

    Args:
        known_BSK: what `known_channels` gives, 0 where neutral or missing.
    """
    promotion_BS = known_BSK[..., PROMOTION].abs()
    discount_BS = known_BSK[..., DISCOUNT].abs()
    on_BS = promotion_BS + discount_BS > 0
    off_BS = ~on_BS
    closed_BS = known_BSK[..., CLOSED] > 0

    # Distances are counted from the last mark before a step. Read backwards, the same count gives
    # the next mark after it: four rows of marks, two of them flipped.
    off_back_BS = off_BS.flip(1)
    closed_back_BS = closed_BS.flip(1)
    marks_B4S = torch.stack([off_BS, off_back_BS, closed_BS, closed_back_BS], 1)

    # A promotion may have begun before the first step; before the first closed step there is none
    # to be near.
    index_S = torch.arange(1.0, on_BS.shape[1] + 1.0, device=known_BSK.device)
    begun_2 = index_S.new_zeros(2)
    never_2 = index_S.new_full((2,), -torch.inf)
    before_first_41 = torch.stack([begun_2, never_2]).view(4, 1)
    marked_B4S = torch.where(marks_B4S, index_S, before_first_41)
    last_B4S = marked_B4S.cummax(2).values

    # One over the distance: the steps next to an edge differ most from each other.
    near_B4S = 1.0 / (index_S - last_B4S)
    near_B4S = torch.where(marks_B4S, 0.0, near_B4S)
    begun_BS, ending_back_BS, after_BS, before_back_BS = near_B4S.unbind(1)
    ending_BS = ending_back_BS.flip(1)
    before_BS = before_back_BS.flip(1)
    return torch.stack([begun_BS, after_BS, ending_BS, before_BS], 1).mT
