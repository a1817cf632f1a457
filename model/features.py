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

YEAR_MS = 31_556_952_000  # the mean Gregorian one
# 1970-01-01 was a Thursday: three days later than the Monday which starts our weeks.
WEEK_SHIFT_MS = 3 * DAY_MS
NUM_PHASE_CHANNELS = 10  # sine and cosine of day, week, month, year and the detected period
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

# A lower peak of the autocorrelation explains too little to be a season, and one within so many
# standard errors of zero is noise, which always has a highest peak somewhere.
ACF_THRESHOLD = 0.15
ACF_SIGMAS = 4.0
ACF_PAIRS = 8  # a lag that fewer pairs of steps tell of says nothing
# Multiples of a period peak as high as the period itself, chance deciding which is highest (147
# instead of 7): the shortest lag within so much of the highest peak is meant.
ACF_NEARLY = 0.9

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
    observed_BT = _finite(target_BT)
    if closed_BT is not None:
        observed_BT = observed_BT * ~closed_BT
    filled_BT = torch.nan_to_num(target_BT.float(), nan=0.0, posinf=0.0, neginf=0.0) * observed_BT
    count_B = observed_BT.sum(1)
    at_least_one_B = count_B.clamp(min=1.0)
    # At least one: counts have nothing between none and one that a finer unit would show.
    unit_B = (UNIT_SHARE * filled_BT.sum(1) / at_least_one_B).clamp(min=1.0)
    arc_BT = arcsinh(filled_BT / unit_B[:, None])
    loc_B = arc_BT.sum(1) / at_least_one_B
    centred_BT = (arc_BT - loc_B[:, None]) * observed_BT
    # The absolute deviation, not the square: a promotion must not make plain days look flat.
    spread_B = (centred_BT.abs().sum(1) + PRIOR_STEPS) / (count_B + PRIOR_STEPS)
    scale_B = spread_B.clamp(min=SCALE_FLOOR)
    return Scaled(centred_BT / scale_B[:, None], observed_BT, Scaling(unit_B, loc_B, scale_B))


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
    ones = [1] * (z_BX.ndim - 1)
    unit, loc, scale = (value.reshape(-1, *ones) for value in scaling)
    arc_BX = (z_BX.float() * scale + loc).clamp(-ARC_MAX, ARC_MAX)
    return torch.sinh(arc_BX) * unit


def to_units(z_BHQ: Tensor, scaling: Scaling) -> Tensor:
    """The network's scale back to units: sorted along the levels, 0 below a tenth of a unit.

    What is not a number stays visible.
    """
    # Quantiles that a network gives may cross; sorting them never makes their loss worse.
    units_BHQ = from_z(z_BHQ, scaling).sort(dim=-1).values
    nothing_B = (ROUNDING * scaling.unit_B).clamp(min=NOTHING)
    return torch.where(units_BHQ <= nothing_B[:, None, None], 0.0, units_BHQ)


def log_standardise(values_BTK: Tensor) -> tuple[Tensor, Tensor]:
    """Counts to standardised log1p and their mask, per row and slot; spread floored at 0.5."""
    log_BKT = torch.log1p(_slot_by_slot(values_BTK).clamp(min=0.0))
    values_BKT, mask_BKT = _standardise(log_BKT, floor=0.5)
    return values_BKT.mT, mask_BKT.mT


def known_channels(known_BSK: Tensor, scale_B: Tensor) -> tuple[Tensor, Tensor]:
    """Known covariates on a common scale, and their mask: [B, S, K] each.

    The price ratio becomes its logarithm, flags and depths stay as they are, the effect is brought
    to the target's own scale, the free slots are standardised over context and horizon together:
    all of it is known in advance.
    """
    known_BKS = _slot_by_slot(known_BSK)
    # On a scale like that of flags: a fifth off is -.45.
    price_B1S = known_BKS[:, :1].clamp(0.01, 100.0).log() * 2.0
    flags_BXS = known_BKS[:, 1:EFFECT].clamp(-10.0, 10.0)
    effect_B1S = known_BKS[:, EFFECT:FIRST_FREE].clamp(-5.0, 5.0) / scale_B[:, None, None]
    named_BXS = torch.cat([price_B1S, flags_BXS, effect_B1S], 1)
    free_BXS, free_mask_BXS = _standardise(known_BKS[:, FIRST_FREE:], floor=1e-3)
    # Free slots hold anything; arcsinh keeps a single huge value from drowning the others.
    tamed_BXS = free_BXS.sign() * arcsinh(free_BXS.abs())
    values_BKS = torch.cat([torch.nan_to_num(named_BXS), tamed_BXS], 1)
    mask_BKS = torch.cat([_finite(named_BXS), free_mask_BXS], 1)
    return values_BKS.mT, mask_BKS.mT


def _finite(values: Tensor) -> Tensor:
    """1 where a value is a number, 0 where it is missing or infinite."""
    return (values.abs() < torch.inf).float()


def _slot_by_slot(values_BSK: Tensor) -> Tensor:
    """The same as [B, K, S]: a CPU is faster where the steps of a slot are neighbours."""
    return values_BSK.float().mT.contiguous()


def _standardise(values_BKS: Tensor, *, floor: float) -> tuple[Tensor, Tensor]:
    """Mean 0 and standard deviation 1 for each row and slot, at least `floor` being divided by.

    Returns:
        The values, 0 where missing, and their mask: [B, K, S] each.
    """
    mask_BKS = _finite(values_BKS)
    filled_BKS = torch.nan_to_num(values_BKS, nan=0.0, posinf=0.0, neginf=0.0)
    count_BK1 = mask_BKS.sum(2, keepdim=True).clamp(min=1.0)
    mean_BK1 = filled_BKS.sum(2, keepdim=True) / count_BK1
    centred_BKS = (filled_BKS - mean_BK1) * mask_BKS
    variance_BK1 = centred_BKS.square().sum(2, keepdim=True) / count_BK1
    return centred_BKS / variance_BK1.sqrt().clamp(min=floor), mask_BKS


def run_channels(known_BSK: Tensor) -> Tensor:
    """Where a step lies in its promotion and next to closed days: [B, S, 4], 1 falling towards 0.

    How near the promotion's first step is and how near its last; how near the closed step before
    and the one after. 0 outside of promotions, and where no step is closed.

    Args:
        known_BSK: what `known_channels` gives, 0 where neutral or missing.
    """
    on_BS = known_BSK[..., PROMOTION].abs() + known_BSK[..., DISCOUNT].abs() > 0
    closed_BS = known_BSK[..., CLOSED] > 0
    # Distances are counted from the last mark before a step. Read backwards, the same count gives
    # the next mark after it: four rows of marks, two of them flipped.
    marks_B4S = torch.stack([~on_BS, ~on_BS.flip(1), closed_BS, closed_BS.flip(1)], 1)
    index_S = torch.arange(1.0, on_BS.shape[1] + 1.0, device=known_BSK.device)
    # A promotion may have begun before the first step; before the first closed step there is none
    # to be near.
    begun_2 = index_S.new_zeros(2)
    never_2 = index_S.new_full((2,), -torch.inf)
    before_first_41 = torch.stack([begun_2, never_2]).view(4, 1)
    last_B4S = torch.where(marks_B4S, index_S, before_first_41).cummax(2).values
    near_B4S = torch.where(marks_B4S, 0.0, 1.0 / (index_S - last_B4S))
    begun, ending, after, before = near_B4S.unbind(1)
    return torch.stack([begun, after, ending.flip(1), before.flip(1)], 1).mT


def calendar_periods(resolution_ms: int) -> tuple[float, float]:
    """The short and the long calendar season, in steps: the two shortest that hold two or more.

    >>> calendar_periods(3_600_000)
    (24.0, 168.0)
    >>> calendar_periods(86_400_000)
    (7.0, 365.0)
    """
    lengths = [DAY_MS / resolution_ms, WEEK_MS / resolution_ms, round(YEAR_MS / resolution_ms)]
    usable = [float(length) for length in lengths if length >= 2.0] or [2.0]
    short, long = usable[0], usable[:2][-1]
    return short, long


def detect_period(z_BT: Tensor, observed_BT: Tensor, none: int) -> Tensor:
    """The period of each row, in steps: the shortest lag at which it is nearly most like itself.

    Lags from 2 to half of the row's observed span count; a row whose best peak is below
    ACF_THRESHOLD or within ACF_SIGMAS standard errors has no period.

    Returns:
        int64 [B], `none` where there is no period.
    """
    T = z_BT.shape[1]
    count_B1 = observed_BT.sum(1, keepdim=True).clamp(min=1.0)
    mean_B1 = z_BT.sum(1, keepdim=True) / count_B1
    centred_BT = (z_BT - mean_B1) * observed_BT
    # By lag from here on. The mask's own autocorrelation counts the pairs that were both observed.
    pairs_BT, products_BT = _autocorrelate(torch.stack([observed_BT, centred_BT]))
    covariance_BT = products_BT / pairs_BT.clamp(min=1.0)
    acf_BT = covariance_BT / covariance_BT[:, :1].clamp(min=1e-6)

    lags_T = torch.arange(T, device=z_BT.device)
    span_B1 = T - observed_BT.argmax(1, keepdim=True)
    usable_BT = (lags_T >= 2) & (lags_T <= span_B1 // 2) & (pairs_BT > ACF_PAIRS)
    peak_BT = usable_BT & (acf_BT >= acf_BT.roll(1, 1)) & (acf_BT >= acf_BT.roll(-1, 1))
    # The standard error of an autocorrelation is one over the root of its pairs.
    clear_BT = peak_BT & (acf_BT > ACF_THRESHOLD) & (acf_BT * pairs_BT**0.5 > ACF_SIGMAS)
    height_BT = torch.where(clear_BT, acf_BT, 0.0)
    best_B1 = height_BT.amax(1, keepdim=True)
    nearly_BT = (height_BT >= ACF_NEARLY * best_B1) & clear_BT
    shortest_B = nearly_BT.float().argmax(1)
    return torch.where(best_B1[:, 0] > 0, shortest_B, none)


def _autocorrelate(values_XBT: Tensor) -> Tensor:
    """Sums of products of steps that lie 0, 1, ... T - 1 apart, all at once by a Fourier transform.

    Padded to twice the length, so that the end does not meet the beginning.
    """
    T = values_XBT.shape[2]
    spectrum_XBF2 = torch.view_as_real(torch.fft.rfft(values_XBT, n=2 * T))
    products_XBT: Tensor = torch.fft.irfft(spectrum_XBF2.square().sum(-1), n=2 * T)
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
    # The calendar is counted from 1 March of the year 0, so that leap days end a year; 146,097 days
    # are an era of 400 years, after which everything repeats.
    day_BS = time_BS.div(DAY_MS, rounding_mode="floor") + 719_468
    of_era_BS = day_BS.remainder(146_097)
    leap_days_BS = of_era_BS // 1_460 - of_era_BS // 36_524 + of_era_BS // 146_096
    year_BS = (of_era_BS - leap_days_BS) // 365
    of_year_BS = of_era_BS - (365 * year_BS + year_BS // 4 - year_BS // 100)
    # From March on, five months always have 153 days.
    month_BS = (5 * of_year_BS + 2) // 153
    first_BS = (153 * month_BS + 2) // 5
    next_first_BS = (153 * (month_BS + 1) + 2) // 5
    of_day_BS = time_BS.remainder(DAY_MS).double() / DAY_MS
    return (of_year_BS - first_BS + of_day_BS) / (next_first_BS - first_BS)


def phase_channels(
    start_ms_B: Tensor, resolution_ms: int, horizon: range, period_B: Tensor
) -> Tensor:
    """Sine and cosine of time of day, week, month, year and of the detected period: [B, H, 10].

    Args:
        start_ms_B: start of the first context step.
        resolution_ms: length of a step.
        horizon: the steps that are asked for, the first context step being 0.
        period_B: steps; twice the steps of context and horizon, or more, where there is none.
    """
    step_H = torch.arange(horizon.start, horizon.stop, device=start_ms_B.device)
    time_BH = start_ms_B[:, None] + step_H * resolution_ms
    # Turns, from 0 to 1, in double precision: milliseconds since 1970 do not fit into a float.
    day_BH = _turn(time_BH, DAY_MS)
    week_BH = _turn(time_BH + WEEK_SHIFT_MS, WEEK_MS)
    year_BH = _turn(time_BH, YEAR_MS)
    detected_BH = _turn(step_H - horizon.start, period_B[:, None])
    # Without a period the phase stands still, whatever number stands for "none".
    detected_BH = torch.where(period_B[:, None] < 2 * horizon.stop, detected_BH, 0.0)
    turns_BHR = torch.stack([day_BH, week_BH, month_turn(time_BH), year_BH, detected_BH], -1)
    angle_BHR = turns_BHR.float() * (2 * torch.pi)
    return torch.cat([angle_BHR.sin(), angle_BHR.cos()], -1)


def _turn(place: Tensor, length: int | Tensor) -> Tensor:
    """How much of its cycle lies behind a whole number, from 0 to 1, as float64."""
    return place.remainder(length).double() / length
