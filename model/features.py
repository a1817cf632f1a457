"""Parameter-free inputs of the network: scaling, covariates, calendar phases, periods.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K slots, R phases.
Every function works on float32 with masked sums and treats each row alone, so that a batch of
rows equals the rows one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS
from freshet.stream.units import DAY_MS, WEEK_MS

YEAR_MS = 31_556_952_000
# 1970-01-01 was a Thursday: three days later than the Monday which starts our weeks.
WEEK_SHIFT_MS = 3 * DAY_MS
NUM_PHASE_CHANNELS = 10  # sine and cosine of day, week, month, year and the detected period
NUM_RUN_CHANNELS = 4
UNIT_SHARE = (
    0.25  # below a quarter of its mean a series is seen linearly, above it by its logarithm
)
SCALE_FLOOR = 0.05
NOTHING = 0.1  # units: who sells whole ones sells none where less is forecast
ROUNDING = 1e-5  # of the unit: what arithmetic leaves of nothing
PRIOR_STEPS = 2.0  # steps of a spread of one that stand beside the observed ones
ACF_THRESHOLD = 0.15  # a lower peak of the autocorrelation explains too little to be a season
ACF_SIGMAS = 4.0  # and one within so many standard errors of zero is noise
PROMOTION, DISCOUNT, EVENT, CLOSED, EFFECT = (
    KNOWN_SLOTS.index(name) for name in ("promotion", "discount", "event", "closed", "effect")
)
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
    weight_BT = _finite(target_BT)
    if closed_BT is not None:
        weight_BT = weight_BT * ~closed_BT
    filled_BT = torch.nan_to_num(target_BT.float(), nan=0.0, posinf=0.0, neginf=0.0) * weight_BT
    count_B = weight_BT.sum(1)
    unit_B = (UNIT_SHARE * filled_BT.sum(1) / count_B.clamp(min=1.0)).clamp(min=1.0)
    arc_BT = arcsinh(filled_BT / unit_B[:, None])
    loc_B = arc_BT.sum(1) / count_B.clamp(min=1.0)
    centred_BT = (arc_BT - loc_B[:, None]) * weight_BT
    scale_B = ((centred_BT.abs().sum(1) + PRIOR_STEPS) / (count_B + PRIOR_STEPS)).clamp(
        min=SCALE_FLOOR
    )
    return Scaled(centred_BT / scale_B[:, None], weight_BT, Scaling(unit_B, loc_B, scale_B))


def arcsinh(size: Tensor) -> Tensor:
    """The inverse hyperbolic sine of numbers >= 0, ten times as fast on a CPU as torch's.

    >>> # The last one is log 2.
    >>> [round(x, 5) for x in arcsinh(torch.tensor([0.0, 1e-4, 0.75])).tolist()]
    [0.0, 0.0001, 0.69315]
    """
    square = size.square()
    return torch.log1p(size + square / (1.0 + (1.0 + square) ** 0.5))


def to_z(units_BX: Tensor, scaling: Scaling) -> Tensor:
    """Units to the network's scale; NaN stays NaN."""
    arc_BX = arcsinh(units_BX / scaling.unit_B[:, None])
    return (arc_BX - scaling.loc_B[:, None]) / scaling.scale_B[:, None]


def from_z(z_BX: Tensor, scaling: Scaling) -> Tensor:
    """The network's scale back to units, however many dimensions follow the rows."""
    unit, loc, scale = (value.reshape(-1, *[1] * (z_BX.ndim - 1)) for value in scaling)
    # sinh(18) is 3e7 units, each at least a quarter of the mean: a cap that only infinity would
    # meet.
    return torch.sinh((z_BX.float() * scale + loc).clamp(-18.0, 18.0)) * unit


def to_units(z_BHQ: Tensor, scaling: Scaling) -> Tensor:
    """The network's scale back to units, sorted along the levels and never below zero; 0 below a
    tenth of a unit.
    """
    units_BHQ = from_z(z_BHQ, scaling).sort(dim=-1).values
    # A quantile of a count that is mostly zero is zero. What is not a number stays visible.
    nothing_B = (ROUNDING * scaling.unit_B).clamp(min=NOTHING)
    return torch.where(units_BHQ <= nothing_B[:, None, None], 0.0, units_BHQ)


def log_standardise(values_BTK: Tensor) -> tuple[Tensor, Tensor]:
    """Counts to standardised log1p and their mask, per row and slot; spread floored at 0.5."""
    values_BKT, mask_BKT = _standardise(
        torch.log1p(_slot_by_slot(values_BTK).clamp(min=0.0)), floor=0.5
    )
    return values_BKT.mT, mask_BKT.mT


def known_channels(known_BSK: Tensor, scale_B: Tensor) -> tuple[Tensor, Tensor]:
    """Known covariates on a common scale, and their mask: [B, S, K] each.

    The price ratio becomes its logarithm, flags and depths stay as they are, the effect is brought
    to the target's own scale, the free slots are standardised over context and horizon together:
    all of it is known in advance.
    """
    known_BKS = _slot_by_slot(known_BSK)
    price_B1S = known_BKS[:, :1].clamp(0.01, 100.0).log() * 2.0
    named_BXS = known_BKS[:, 1:EFFECT].clamp(-10.0, 10.0)
    effect_B1S = known_BKS[:, EFFECT:FIRST_FREE].clamp(-5.0, 5.0) / scale_B[:, None, None]
    free_BXS, free_mask_BXS = _standardise(known_BKS[:, FIRST_FREE:], floor=1e-3)
    named_BXS = torch.cat([price_B1S, named_BXS, effect_B1S], 1)
    mask_BKS = torch.cat([_finite(named_BXS), free_mask_BXS], 1)
    values_BKS = torch.cat(
        [torch.nan_to_num(named_BXS), free_BXS.sign() * arcsinh(free_BXS.abs())], 1
    )
    return values_BKS.mT, mask_BKS.mT


def _finite(values: Tensor) -> Tensor:
    return (values.abs() < torch.inf).float()


def _slot_by_slot(values_BSK: Tensor) -> Tensor:
    """The same as [B, K, S]: a CPU is several times as fast where the steps of a slot are
    neighbours in memory.
    """
    return values_BSK.float().mT.contiguous()


def _standardise(values_BKS: Tensor, *, floor: float) -> tuple[Tensor, Tensor]:
    mask_BKS = _finite(values_BKS)
    filled_BKS = torch.nan_to_num(values_BKS, nan=0.0, posinf=0.0, neginf=0.0)
    count_BK1 = mask_BKS.sum(2, keepdim=True).clamp(min=1.0)
    centred_BKS = (filled_BKS - filled_BKS.sum(2, keepdim=True) / count_BK1) * mask_BKS
    spread_BK1 = (centred_BKS.square().sum(2, keepdim=True) / count_BK1).sqrt().clamp(min=floor)
    return centred_BKS / spread_BK1, mask_BKS


def run_channels(known_BSK: Tensor) -> Tensor:
    """Where a step lies in its promotion and next to closed days, from 1 falling towards 0: [B, S,
    4].

    The promotion's first step and its last, the first step after a closed one and the last before
    one; 0 outside of promotions and where no step is closed.

    Args:
        known_BSK: what `known_channels` gives, 0 where neutral or missing.
    """
    on_BS = known_BSK[..., PROMOTION].abs() + known_BSK[..., DISCOUNT].abs() > 0
    closed_BS = known_BSK[..., CLOSED] > 0
    marks_BXS = torch.stack([~on_BS, ~on_BS.flip(1), closed_BS, closed_BS.flip(1)], 1)
    index_S = torch.arange(1.0, on_BS.shape[1] + 1.0, device=known_BSK.device)
    # A promotion may have begun before the first step; before the first closed step there is none
    # to be near.
    never_X1 = torch.stack([index_S.new_zeros(2), index_S.new_full((2,), -torch.inf)]).view(4, 1)
    last_BXS = torch.where(marks_BXS, index_S, never_X1).cummax(2).values
    begun, ending, after, before = torch.where(marks_BXS, 0.0, 1.0 / (index_S - last_BXS)).unbind(1)
    return torch.stack([begun, after, ending.flip(1), before.flip(1)], 1).mT


def calendar_periods(resolution_ms: int) -> tuple[float, float]:
    """The short and the long calendar season, in steps.

    >>> calendar_periods(3_600_000)
    (24.0, 168.0)
    >>> calendar_periods(86_400_000)
    (7.0, 365.0)
    """
    lengths = [DAY_MS / resolution_ms, WEEK_MS / resolution_ms, round(YEAR_MS / resolution_ms)]
    usable = [float(length) for length in lengths if length >= 2.0] or [2.0]
    return usable[0], usable[min(1, len(usable) - 1)]


def detect_period(z_BT: Tensor, observed_BT: Tensor, none: int) -> Tensor:
    """The shortest lag (int64, steps) with nearly the highest autocorrelation of each row, or
    `none`.

    Lags from 2 to half of the row's observed span count; a row whose best peak is below
    ACF_THRESHOLD or within ACF_SIGMAS standard errors has no period.
    """
    T = z_BT.shape[1]
    count_B1 = observed_BT.sum(1, keepdim=True).clamp(min=1.0)
    centred_BT = (z_BT - z_BT.sum(1, keepdim=True) / count_B1) * observed_BT
    pairs_BT, products_BT = _autocorrelate(torch.stack([observed_BT, centred_BT]))
    acf_BT = products_BT / pairs_BT.clamp(min=1.0)
    acf_BT = acf_BT / acf_BT[:, :1].clamp(min=1e-6)
    lags_T = torch.arange(T, device=z_BT.device)
    span_B1 = T - observed_BT.argmax(1, keepdim=True)
    usable_BT = (lags_T >= 2) & (lags_T <= span_B1 // 2) & (pairs_BT > 8)
    before_BT, after_BT = acf_BT.roll(1, 1), acf_BT.roll(-1, 1)
    peak_BT = usable_BT & (acf_BT >= before_BT) & (acf_BT >= after_BT)
    clear_BT = peak_BT & (acf_BT > ACF_THRESHOLD) & (acf_BT * pairs_BT**0.5 > ACF_SIGMAS)
    height_BT = torch.where(clear_BT, acf_BT, 0.0)
    best_B1 = height_BT.amax(1, keepdim=True)
    # Multiples of a period peak nearly as high as the period itself: the shortest of them is meant.
    first_B = ((height_BT >= 0.9 * best_B1) & clear_BT).float().argmax(1)
    return torch.where(best_B1[:, 0] > 0, first_B, none)


def _autocorrelate(values_XBT: Tensor) -> Tensor:
    T = values_XBT.shape[2]
    spectrum_XBFC = torch.view_as_real(torch.fft.rfft(values_XBT, n=2 * T))
    products_XBT: Tensor = torch.fft.irfft(spectrum_XBFC.square().sum(-1), n=2 * T)
    # Rounded, so that a tie between two lags does not hang on the last bit.
    return products_XBT[..., :T].round(decimals=4)


def month_turn(time_BS: Tensor) -> Tensor:
    """How much of its calendar month (UTC) lies behind each moment, from 0 to 1, as float64.

    Days since 1970 to day of month by whole-number arithmetic (Hinnant, "chrono-compatible
    low-level date algorithms"); February counts as 30 days long.

    >>> # 1 and 16 January 2024.
    >>> month_turn(torch.tensor([[1_704_067_200_000, 1_705_363_200_000]])).tolist()
    [[0.0, 0.4838709677419355]]
    """
    day = time_BS.div(DAY_MS, rounding_mode="floor") + 719_468
    of_era = day.remainder(146_097)
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    first, following = (153 * month + 2) // 5, (153 * (month + 1) + 2) // 5
    return (of_year - first + time_BS.remainder(DAY_MS).double() / DAY_MS) / (following - first)


def phase_channels(
    start_ms_B: Tensor, resolution_ms: int, horizon: range, period_B: Tensor
) -> Tensor:
    """Sine and cosine of time of day, of week, of month, of year and of the detected period: [B, H,
    10].

    Args:
        start_ms_B: start of the first context step.
        resolution_ms: length of a step.
        horizon: the steps that are asked for, the first context step being 0.
        period_B: steps; twice the steps of context and horizon, or more, where there is none.
    """
    step_H = torch.arange(horizon.start, horizon.stop, device=start_ms_B.device)
    time_BH = start_ms_B[:, None] + step_H * resolution_ms
    day_BH, week_BH, year_BH = (
        (time_BH + shift).remainder(length).double() / length
        for length, shift in ((DAY_MS, 0), (WEEK_MS, WEEK_SHIFT_MS), (YEAR_MS, 0))
    )
    detected_BH = (step_H - horizon.start).remainder(period_B[:, None]).double() / period_B[:, None]
    # Without a period the phase stands still, whatever number stands for "none".
    detected_BH = torch.where(period_B[:, None] < 2 * horizon.stop, detected_BH, 0.0)
    turns_BHR = torch.stack([day_BH, week_BH, month_turn(time_BH), year_BH, detected_BH], -1)
    angle_BHR = turns_BHR.float() * (2 * torch.pi)
    return torch.cat([angle_BHR.sin(), angle_BHR.cos()], -1)
