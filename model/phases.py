"""Parameter-free inputs of the network that time gives: calendar phases and a row's own period.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, R phases, F frequencies, X what is
transformed together. Each row is treated alone, so that a batch of rows equals the rows one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freshet.stream.units import DAY_MS, WEEK_MS

YEAR_MS = 31_556_952_000  # the mean Gregorian one
# 1970-01-01 was a Thursday: three days later than the Monday which starts our weeks.
WEEK_SHIFT_MS = 3 * DAY_MS
NUM_PHASE_CHANNELS = 10  # sine and cosine of day, week, month, year and the detected period

# A lower peak of the autocorrelation explains too little to be a season, and one within so many
# standard errors of zero is noise, which always has a highest peak somewhere.
ACF_THRESHOLD = 0.15
ACF_SIGMAS = 4.0
ACF_PAIRS = 8  # a lag that fewer pairs of steps tell of says nothing
# Multiples of a period peak as high as the period itself, chance deciding which is highest (147
# instead of 7): the shortest lag within so much of the highest peak is meant.
ACF_NEARLY = 0.9


def calendar_periods(resolution_ms: int) -> tuple[float, float]:
    """The short and the long calendar season, in steps: the two shortest that hold two or more.

    >>> calendar_periods(3_600_000)
    (24.0, 168.0)
    >>> calendar_periods(86_400_000)
    (7.0, 365.0)
    """
    day = DAY_MS / resolution_ms
    week = WEEK_MS / resolution_ms
    year = float(round(YEAR_MS / resolution_ms))
    usable = [length for length in (day, week, year) if length >= 2.0]
    if not usable:
        return 2.0, 2.0
    short = usable[0]
    long = usable[:2][-1]
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
    both_2BT = torch.stack([observed_BT, centred_BT])
    pairs_BT, products_BT = _autocorrelate(both_2BT)
    covariance_BT = products_BT / pairs_BT.clamp(min=1.0)
    variance_B1 = covariance_BT[:, :1].clamp(min=1e-6)
    acf_BT = covariance_BT / variance_B1

    lags_T = torch.arange(T, device=z_BT.device)
    first_B1 = observed_BT.argmax(1, keepdim=True)
    half_B1 = (T - first_B1) // 2
    # Two whole periods must have been seen, or one of them says nothing of the next.
    within_BT = (lags_T >= 2) & (lags_T <= half_B1)
    usable_BT = within_BT & (pairs_BT > ACF_PAIRS)

    shorter_BT = acf_BT.roll(1, 1)
    longer_BT = acf_BT.roll(-1, 1)
    peak_BT = (acf_BT >= shorter_BT) & (acf_BT >= longer_BT)
    # The standard error of an autocorrelation is one over the root of its pairs.
    sigmas_BT = acf_BT * pairs_BT**0.5
    strong_BT = (acf_BT > ACF_THRESHOLD) & (sigmas_BT > ACF_SIGMAS)
    clear_BT = usable_BT & peak_BT & strong_BT

    height_BT = torch.where(clear_BT, acf_BT, 0.0)
    best_B1 = height_BT.amax(1, keepdim=True)
    nearly_BT = (height_BT >= ACF_NEARLY * best_B1) & clear_BT
    # Of zeros and ones argmax finds the first one: the shortest lag.
    shortest_B = nearly_BT.float().argmax(1)
    found_B = best_B1[:, 0] > 0
    return torch.where(found_B, shortest_B, none)


def _autocorrelate(values_XBT: Tensor) -> Tensor:
    """Sums of products of steps that lie 0, 1, ... T - 1 apart, all at once by a Fourier transform.

    Padded to twice the length, so that the end does not meet the beginning.
    """
    T = values_XBT.shape[2]
    spectrum_XBF = torch.fft.rfft(values_XBT, n=2 * T)
    parts_XBF2 = torch.view_as_real(spectrum_XBF)
    power_XBF = parts_XBF2.square().sum(-1)
    products_XBT: Tensor = torch.fft.irfft(power_XBF, n=2 * T)
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
    since_1970_BS = time_BS.div(DAY_MS, rounding_mode="floor")
    day_BS = since_1970_BS + 719_468
    of_era_BS = day_BS.remainder(146_097)

    # Every fourth year ends in a leap day, the last of a century does not, the last of an era does.
    leap_days_BS = of_era_BS // 1_460 - of_era_BS // 36_524 + of_era_BS // 146_096
    year_BS = (of_era_BS - leap_days_BS) // 365
    leap_days_before_BS = year_BS // 4 - year_BS // 100
    of_year_BS = of_era_BS - (365 * year_BS + leap_days_before_BS)

    # From March on, five months always have 153 days.
    month_BS = (5 * of_year_BS + 2) // 153
    next_month_BS = month_BS + 1
    first_BS = (153 * month_BS + 2) // 5
    next_first_BS = (153 * next_month_BS + 2) // 5
    of_day_BS = time_BS.remainder(DAY_MS).double() / DAY_MS
    behind_BS = of_year_BS - first_BS + of_day_BS
    return behind_BS / (next_first_BS - first_BS)


def phase_channels(
    start_ms_B: Tensor,
    resolution_ms: int,
    horizon: range,
    period_B: Tensor,
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
    month_BH = month_turn(time_BH)
    year_BH = _turn(time_BH, YEAR_MS)

    # Without a period the phase stands still, whatever number stands for "none".
    period_B1 = period_B[:, None]
    detected_BH = _turn(step_H - horizon.start, period_B1)
    has_period_B1 = period_B1 < 2 * horizon.stop
    detected_BH = torch.where(has_period_B1, detected_BH, 0.0)

    # Sine and cosine: the end of a cycle meets its beginning, and no two phases are alike.
    turns_BHR = torch.stack([day_BH, week_BH, month_BH, year_BH, detected_BH], -1)
    angle_BHR = turns_BHR.float() * (2 * torch.pi)
    return torch.cat([angle_BHR.sin(), angle_BHR.cos()], -1)


def _turn(place: Tensor, length: int | Tensor) -> Tensor:
    """How much of its cycle lies behind a whole number, from 0 to 1, as float64."""
    return place.remainder(length).double() / length
