"""Parameter-free inputs of the network: scaling, covariates, calendar phases, periods.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K slots, R phases.
Every function works on float32 with masked sums and treats each row alone, so that a batch of
rows equals the rows one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
YEAR_MS = 31_556_952_000
# 1970-01-01 was a Thursday: three days later than the Monday which starts our weeks.
WEEK_SHIFT_MS = 3 * DAY_MS
NUM_PHASE_CHANNELS = 8  # sine and cosine of day, week, year and the detected period
ACF_THRESHOLD = 0.15  # a lower peak of the autocorrelation explains too little to be a season
ACF_SIGMAS = 4.0  # and one within so many standard errors of zero is noise


class Scaled(NamedTuple):
    """A target on the network's own scale, with what is needed to come back."""

    z_BT: Tensor
    observed_BT: Tensor
    loc_B: Tensor
    scale_B: Tensor


def scale_target(target_BT: Tensor) -> Scaled:
    """Return arcsinh((y - loc) / scale), 0 where missing; scale is at least one unit.

    loc is the mean of the observed steps and scale their mean absolute deviation: unlike the
    standard deviation it survives a flash sale of a hundred times the level.
    """
    observed_BT = torch.isfinite(target_BT)
    filled_BT = torch.where(observed_BT, target_BT, 0.0).float()
    weight_BT = observed_BT.float()
    count_B = weight_BT.sum(1).clamp(min=1.0)
    loc_B = filled_BT.sum(1) / count_B
    deviation_BT = (filled_BT - loc_B[:, None]).abs() * weight_BT
    scale_B = (deviation_BT.sum(1) / count_B).clamp(min=1.0)
    return Scaled(to_z(filled_BT, loc_B, scale_B) * weight_BT, weight_BT, loc_B, scale_B)


def to_z(units_BX: Tensor, loc_B: Tensor, scale_B: Tensor) -> Tensor:
    """Units to the network's scale; NaN stays NaN."""
    return torch.arcsinh((units_BX - loc_B[:, None]) / scale_B[:, None])


def to_units(z_BHQ: Tensor, loc_B: Tensor, scale_B: Tensor) -> Tensor:
    """The network's scale back to units, sorted along the levels and never below zero."""
    # sinh(20) is 2.4e8 scales: a cap that no real forecast meets but infinity would.
    z_BHQ = z_BHQ.float().clamp(-20.0, 20.0).sort(dim=-1).values
    return (torch.sinh(z_BHQ) * scale_B[:, None, None] + loc_B[:, None, None]).clamp(min=0.0)


def log_standardise(values_BTK: Tensor) -> tuple[Tensor, Tensor]:
    """Counts to standardised log1p and their mask, per row and slot; spread floored at 0.5."""
    return _standardise(torch.log1p(values_BTK.float().clamp(min=0.0)), floor=0.5)


def known_channels(known_BSK: Tensor) -> tuple[Tensor, Tensor]:
    """Known covariates on a common scale, and their mask.

    Slot 0 is a price ratio (its logarithm), slots 1 to 3 are flags and depths (as they are), the
    free ones are standardised over context and horizon together: all of it is known in advance.
    """
    price_BS1 = known_BSK[..., :1].float().clamp(0.01, 100.0).log() * 2.0
    named_BS3 = known_BSK[..., 1:4].float().clamp(-10.0, 10.0)
    free_BSK, free_mask_BSK = _standardise(known_BSK[..., 4:].float(), floor=1e-3)
    named_BSK = torch.cat([price_BS1, named_BS3], -1)
    mask_BSK = torch.isfinite(named_BSK).float()
    values_BSK = torch.cat([torch.nan_to_num(named_BSK), torch.arcsinh(free_BSK)], -1)
    return values_BSK, torch.cat([mask_BSK, free_mask_BSK], -1)


def _standardise(values_BXK: Tensor, *, floor: float) -> tuple[Tensor, Tensor]:
    finite_BXK = torch.isfinite(values_BXK)
    mask_BXK = finite_BXK.float()
    filled_BXK = torch.where(finite_BXK, values_BXK, 0.0)
    count_B1K = mask_BXK.sum(1, keepdim=True).clamp(min=1.0)
    centred_BXK = (filled_BXK - filled_BXK.sum(1, keepdim=True) / count_B1K) * mask_BXK
    spread_B1K = (centred_BXK.square().sum(1, keepdim=True) / count_B1K).sqrt().clamp(min=floor)
    return centred_BXK / spread_B1K, mask_BXK


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
    """The shortest lag (int64, steps) with nearly the highest autocorrelation of each row, or `none`.

    Lags from 2 to half of the row's observed span count; a row whose best peak is below
    ACF_THRESHOLD or within ACF_SIGMAS standard errors has no period.
    """
    T = z_BT.shape[1]
    count_B1 = observed_BT.sum(1, keepdim=True).clamp(min=1.0)
    centred_BT = (z_BT - z_BT.sum(1, keepdim=True) / count_B1) * observed_BT
    pairs_BT = _autocorrelate(observed_BT)
    acf_BT = _autocorrelate(centred_BT) / pairs_BT.clamp(min=1.0)
    acf_BT = acf_BT / acf_BT[:, :1].clamp(min=1e-6)
    lags_T = torch.arange(T, device=z_BT.device)
    span_B1 = T - observed_BT.argmax(1, keepdim=True)
    usable_BT = (lags_T >= 2) & (lags_T <= span_B1 // 2) & (pairs_BT > 8)
    before_BT, after_BT = acf_BT.roll(1, 1), acf_BT.roll(-1, 1)
    peak_BT = usable_BT & (acf_BT >= before_BT) & (acf_BT >= after_BT)
    clear_BT = peak_BT & (acf_BT > ACF_THRESHOLD) & (acf_BT * pairs_BT.sqrt() > ACF_SIGMAS)
    height_BT = torch.where(clear_BT, acf_BT, 0.0)
    best_B1 = height_BT.amax(1, keepdim=True)
    # Multiples of a period peak nearly as high as the period itself: the shortest of them is meant.
    first_B = ((height_BT >= 0.9 * best_B1) & clear_BT).float().argmax(1)
    return torch.where(best_B1[:, 0] > 0, first_B, none)


def _autocorrelate(values_BT: Tensor) -> Tensor:
    T = values_BT.shape[1]
    spectrum_BF = torch.fft.rfft(values_BT, n=2 * T)
    products_BT: Tensor = torch.fft.irfft(spectrum_BF.abs().square(), n=2 * T)
    # Rounded, so that a tie between two lags does not hang on the last bit.
    return products_BT[:, :T].round(decimals=4)


def phase_channels(start_ms_B: Tensor, resolution_ms: int, context: int, steps: int, period_B: Tensor) -> Tensor:
    """Sine and cosine of time of day, of week, of year and of the detected period: [B, S, 8]."""
    step_S = torch.arange(steps, device=start_ms_B.device)
    time_BS = start_ms_B[:, None] + step_S * resolution_ms
    turns = [
        (time_BS + shift).remainder(length).double() / length
        for length, shift in ((DAY_MS, 0), (WEEK_MS, WEEK_SHIFT_MS), (YEAR_MS, 0))
    ]
    detected_BS = (step_S - context).remainder(period_B[:, None]).double() / period_B[:, None]
    # Without a period the phase stands still, whatever number stands for "none".
    detected_BS = torch.where(period_B[:, None] < 2 * steps, detected_BS, 0.0)
    angle_BSR = torch.stack([*turns, detected_BS], -1).float() * (2 * torch.pi)
    return torch.cat([angle_BSR.sin(), angle_BSR.cos()], -1)
