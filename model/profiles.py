"""What each series is expected to do, from its own past: season, level, noise and answers to known covariates.

Masked sums and one small ridge regression before the network, computed before the cutoff and given for every
step of context and horizon. The network forecasts what they leave over, in units of the noise they leave, so that it
need not learn to average over patches whose length divides no day.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K known slots, P steps of a period, X stacked values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch import KNOWN_SLOTS
from model.features import (
    DAY_MS,
    DISCOUNT,
    EFFECT,
    EVENT,
    PROMOTION,
    WEEK_MS,
    WEEK_SHIFT_MS,
    Scaled,
    calendar_periods,
    detect_period,
)

LOUD_WEIGHT = 0.05  # what a step on promotion counts in the profile of plain days
LONG_SEASON = 26  # steps of a season whose neighbouring phases tell nearly the same, each seen a few times at most
FAITH, DOUBT = 0.8, 2.0  # how far a season is believed before it has shown anything, and what outweighs that
RIDGE = 2.0  # two neutral observations of size one stand beside the real ones
HALF_LIVES = (float("inf"), 16.0, 3.0)  # of the seasonal profile's memory, in cycles
RECENT_HALF_LIVES = (0.4, 2.0, 8.0)  # of the level's memory, in cycles
NOISE_HALF_LIFE = 32.0
NOISE_FLOOR = 0.02
EXPECTED_LOG_MAX = 4.0
NUM_PROFILE_CHANNELS = 14 + len(KNOWN_SLOTS)
NUM_FACTS = len(RECENT_HALF_LIVES) + 2


class Profiles(NamedTuple):
    """What the past says about every step, on the network's scale.

    Attributes:
        expected_BS: season + level + effects of what is known in advance.
        surprise_BT: (z - expected) / noise, 0 where missing.
        noise_B: mean absolute difference of the two over the recent past.
        channels_BSC: the parts that `expected` is made of and what else recurs, NUM_PROFILE_CHANNELS of them.
        facts_BX: numbers of the row: recent levels, log noise, how much was seen; NUM_FACTS of them.
        period_B: int64 the period found in what is left over; 2 S where there is none.
    """

    expected_BS: Tensor
    surprise_BT: Tensor
    noise_B: Tensor
    channels_BSC: Tensor
    facts_BX: Tensor
    period_B: Tensor


def profiles(scaled: Scaled, known_BSK: Tensor, start_ms_B: Tensor, resolution_ms: int) -> Profiles:
    """Return what the context says about context and horizon.

    Args:
        scaled: the scaled target and where it was observed.
        known_BSK: known covariates as `features.known_channels` gives them, 0 where neutral or missing.
        start_ms_B: start of the first context step.
        resolution_ms: length of a step.
    """
    z_BT, seen_BT = scaled.z_BT, scaled.observed_BT
    T, steps = z_BT.shape[1], known_BSK.shape[1]
    short, long = (round(length) for length in calendar_periods(resolution_ms))
    loud_BS = known_BSK[..., [PROMOTION, DISCOUNT, EVENT]].abs().amax(-1) > 0
    quiet_BT = torch.where(loud_BS[:, :T], LOUD_WEIGHT, 1.0) * seen_BT
    # A year is a season, but a level lasts no years: weeks and months are remembered by the quarter.
    pace = short if resolution_ms <= DAY_MS else max(short / 4, 3.0)
    cycles_T = torch.arange(T - 1, -1, -1, device=z_BT.device) / pace
    memory_T = 0.5 ** (cycles_T / HALF_LIVES[1])

    plain_BS = _season(z_BT, quiet_BT, short, steps, HALF_LIVES[1:2])[0][:, 0]
    parts_BSK = effects(z_BT - plain_BS[:, :T], seen_BT, known_BSK)
    effect_BS = parts_BSK.sum(-1)
    season_BXS, count_BS = _season(z_BT - effect_BS[:, :T], seen_BT, short, steps, HALF_LIVES)
    expected_BS = season_BXS[:, 1] + effect_BS
    cell_BS, cell_count_BS = _loud_cells(z_BT - expected_BS[:, :T], seen_BT * memory_T, loud_BS, short)
    expected_BS = expected_BS + cell_BS
    weekday_BS = torch.zeros_like(expected_BS)
    if resolution_ms * 2 <= DAY_MS:
        weekday_BS = _weekday(z_BT - expected_BS[:, :T], seen_BT * memory_T, start_ms_B, steps, resolution_ms)
        expected_BS = expected_BS + weekday_BS

    # A slope from quiet weeks may promise anything: a factor of fifty is where belief ends.
    bound_B1 = EXPECTED_LOG_MAX / scaled.scaling.scale_B[:, None]
    expected_BS = expected_BS.clamp(-bound_B1, bound_B1)

    left_BT = (z_BT - expected_BS[:, :T]) * seen_BT
    weights_BT = seen_BT * 0.5 ** (cycles_T / NOISE_HALF_LIFE)
    noise_B = ((left_BT.abs() * weights_BT).sum(1) + 1.0) / (weights_BT.sum(1) + 2.0)
    noise_B = noise_B.clamp(min=NOISE_FLOOR)
    surprise_BT = (left_BT / noise_B[:, None]).clamp(-8.0, 8.0)
    long_BS, long_count_BS = _long_ago(left_BT, seen_BT, long, steps, resolution_ms)
    period_B = detect_period(left_BT, seen_BT, none=2 * steps)
    detected_BXS, detected_count_BS = _detected(left_BT, seen_BT, period_B, steps)
    noise_BS = (by_phase(left_BT.abs()[:, None], short, steps)[:, 0] + noise_B[:, None]) / (count_BS + 1.0)
    own_BXS = [expected_BS, *season_BXS.unbind(1), cell_BS, weekday_BS, long_BS, *detected_BXS.unbind(1)]
    counts_BXS = [torch.log1p(x_BS) for x_BS in (count_BS, cell_count_BS, long_count_BS, detected_count_BS)]
    channels_BSC = torch.cat([torch.stack([*own_BXS, *counts_BXS, noise_BS], -1), parts_BSK], -1)
    levels = [_recent(left_BT, seen_BT, cycles_T, half_life) for half_life in RECENT_HALF_LIVES]
    facts_BX = torch.stack([*levels, noise_B.log(), torch.log1p(seen_BT.sum(1)) / 3.0], -1)
    return Profiles(expected_BS, surprise_BT, noise_B, channels_BSC, facts_BX, period_B)


def by_phase(values_BXT: Tensor, period: int, steps: int) -> Tensor:
    """Sums of the context's values at the same phase of a period, at each of S steps: [B, X, S].

    Phases are counted from the cutoff, so that one reshape serves all rows.

    >>> by_phase(torch.tensor([[[1.0, 2.0, 3.0]]]), 2, 5).tolist()
    [[[4.0, 2.0, 4.0, 2.0, 4.0]]]
    """
    T = values_BXT.shape[2]
    cycles = -(-T // period)
    padded_BXCP = F.pad(values_BXT, (cycles * period - T, 0)).view(*values_BXT.shape[:2], cycles, period)
    sums_BXP: Tensor = padded_BXCP.sum(2)
    ahead_S = torch.arange(-T, steps - T, device=values_BXT.device).remainder(period)
    return sums_BXP[..., ahead_S]


def apart(values_BXT: Tensor, period: int, steps: int) -> Tensor:
    """As `by_phase`, but a context step hears only the other cycles, as a step of the horizon does: [B, X, S].

    >>> apart(torch.tensor([[[1.0, 2.0, 3.0]]]), 2, 5).tolist()
    [[[3.0, 0.0, 1.0, 2.0, 4.0]]]
    """
    sums_BXS = by_phase(values_BXT, period, steps)
    sums_BXS[..., : values_BXT.shape[2]] -= values_BXT
    return sums_BXS


def group_sums(values_BXT: Tensor, group_BS: Tensor, num_groups: int) -> Tensor:
    """Sums of the context's values by each row's own groups of steps, given back at every step: [B, X, S]."""
    B, X, T = values_BXT.shape
    sums_BXG = values_BXT.new_zeros(B, X, num_groups)
    sums_BXG.scatter_add_(2, group_BS[:, None, :T].expand(B, X, T), values_BXT)
    return sums_BXG.gather(2, group_BS[:, None].expand(B, X, group_BS.shape[1]))


def effects(left_BT: Tensor, seen_BT: Tensor, known_BSK: Tensor) -> Tensor:
    """What each known covariate does to this series, at every step: [B, S, K].

    One ridge regression with an intercept for all slots together, so that slots which tell the same story share
    it. The slot `effect` is believed as it is, the regression may correct it.
    """
    given_BS = known_BSK[..., EFFECT]
    T = left_BT.shape[1]
    design_BTK = torch.cat([known_BSK[:, :T], torch.ones_like(known_BSK[:, :T, :1])], -1)
    weighted_BKT = (design_BTK * seen_BT[..., None]).transpose(1, 2)
    ridge_KK = RIDGE * torch.eye(design_BTK.shape[-1], device=left_BT.device)
    right_BK1 = weighted_BKT @ (left_BT - given_BS[:, :T])[..., None]
    # Without the check that makes a GPU wait: the ridge keeps the matrix regular.
    slope_BK = torch.linalg.solve_ex(weighted_BKT @ design_BTK + ridge_KK, right_BK1).result[:, :-1, 0]
    parts_BSK: Tensor = slope_BK[:, None] * known_BSK
    parts_BSK[..., EFFECT] += given_BS
    return parts_BSK


def _season(
    z_BT: Tensor, weights_BT: Tensor, period: int, steps: int, half_lives: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Mean at the same phase of other cycles for each memory, as far as it foretells; and the weight behind the first.

    The difference from that memory's level is multiplied by the slope of what came on what the other cycles said.
    """
    T = z_BT.shape[1]
    cycle_T = torch.arange(T - 1, -1, -1, device=z_BT.device).div(period, rounding_mode="floor")
    weights_BXT = torch.stack([weights_BT * 0.5 ** (cycle_T / half_life) for half_life in half_lives], 1)
    values_BXT = z_BT[:, None] * weights_BXT
    level_BX1 = values_BXT.sum(2, keepdim=True) / (weights_BXT.sum(2, keepdim=True) + 1e-6)
    stacked_BXT = torch.cat([values_BXT, weights_BXT], 1)
    if period >= LONG_SEASON:
        beside_BXT = F.pad(stacked_BXT, (0, 1))[..., 1:] + F.pad(stacked_BXT, (1, 0))[..., :-1]
        stacked_BXT = 0.5 * stacked_BXT + 0.25 * beside_BXT
    sums_BXS, count_BXS = apart(stacked_BXT, period, steps).chunk(2, 1)
    told_BXS = (sums_BXS + 0.5 * level_BX1) / (count_BXS + 0.5) - level_BX1
    known_BXT = told_BXS[..., :T] * weights_BXT
    proof_BX1 = (known_BXT * (z_BT[:, None] - level_BX1)).sum(2, keepdim=True) + DOUBT * FAITH
    belief_BX1 = (proof_BX1 / ((known_BXT * told_BXS[..., :T]).sum(2, keepdim=True) + DOUBT)).clamp(0.0, 1.0)
    return level_BX1 + belief_BX1 * told_BXS, count_BXS[:, 0]


def _loud_cells(left_BT: Tensor, weights_BT: Tensor, loud_BS: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """What promotions and plain days do at the same phase beyond their mean effect, shrunk; and the weight behind."""
    T, steps = left_BT.shape[1], loud_BS.shape[1]
    loud_BT = loud_BS[:, :T].float()
    weights_B2T = torch.stack([weights_BT * loud_BT, weights_BT * (1.0 - loud_BT)], 1)
    sums_B2S, count_B2S = apart(torch.cat([left_BT[:, None] * weights_B2T, weights_B2T], 1), period, steps).chunk(2, 1)
    cell_B2S = sums_B2S / (count_B2S + 2.0)
    return _where(loud_BS, cell_B2S), _where(loud_BS, count_B2S)


def _where(first_BS: Tensor, pair_B2S: Tensor) -> Tensor:
    return torch.where(first_BS, pair_B2S[:, 0], pair_B2S[:, 1])


def _weekday(left_BT: Tensor, weights_BT: Tensor, start_ms_B: Tensor, steps: int, resolution_ms: int) -> Tensor:
    """Each weekday's own level beside the profile of the day, shrunk: [B, S]."""
    time_BS = start_ms_B[:, None] + torch.arange(steps, device=left_BT.device) * resolution_ms
    day_BS = (time_BS + WEEK_SHIFT_MS).remainder(WEEK_MS) // DAY_MS
    values_B2T = torch.stack([left_BT * weights_BT, weights_BT], 1)
    sums_B2S = group_sums(values_B2T, day_BS, 7)
    sums_B2S[..., : left_BT.shape[1]] -= values_B2T
    return sums_B2S[:, 0] / (sums_B2S[:, 1] + 4.0)


def _long_ago(left_BT: Tensor, seen_BT: Tensor, period: int, steps: int, resolution_ms: int) -> tuple[Tensor, Tensor]:
    """What was left over around the same phase of the long season, shrunk: [B, S]; and the weight behind."""
    width = 7 if resolution_ms == DAY_MS else 3 if resolution_ms < DAY_MS else 1
    smooth_B2T = F.avg_pool1d(
        torch.stack([left_BT, seen_BT], 1), width, stride=1, padding=width // 2, count_include_pad=True
    )
    sums_B2S = by_phase(smooth_B2T, period, steps)
    return sums_B2S[:, 0] / (sums_B2S[:, 1] + 0.5), sums_B2S[:, 1]


def _detected(left_BT: Tensor, seen_BT: Tensor, period_B: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Mean and recent mean of what was left over at the same phase of the detected period, and the weight behind."""
    T = left_BT.shape[1]
    ahead_S = torch.arange(-T, steps - T, device=left_BT.device)
    phase_BS = ahead_S.remainder(period_B[:, None].clamp(max=2 * steps))
    cycle_BT = (-1 - ahead_S[:T]).div(period_B[:, None], rounding_mode="floor")
    weights_B2T = torch.stack([seen_BT, seen_BT * 0.6**cycle_BT], 1)
    stacked_BXT = torch.cat([left_BT[:, None] * weights_B2T, weights_B2T], 1)
    sums_B2S, count_B2S = group_sums(stacked_BXT, phase_BS, 2 * steps).chunk(2, 1)
    found_B1S = (period_B < 2 * steps)[:, None, None].float()
    return sums_B2S / (count_B2S + 1.0) * found_B1S, count_B2S[:, 0] * found_B1S[:, 0]


def _recent(left_BT: Tensor, seen_BT: Tensor, cycles_T: Tensor, half_life: float) -> Tensor:
    """Mean of what was left over lately, pulled to zero where little was seen: [B]."""
    weights_BT = seen_BT * 0.5 ** (cycles_T / half_life)
    return (left_BT * weights_BT).sum(1) / (weights_BT.sum(1) + 1.0)
