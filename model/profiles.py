"""What each series is expected to do, from its own past: season, level, noise and answers to known
covariates.

Masked sums and one small ridge regression before the network, computed before the cutoff and given
for every step of context and horizon. The network forecasts what they leave over, in units of the
noise they leave, so that it need not learn to average over patches whose length divides no day.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K known slots, P steps of a period,
X stacked values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS
from freshet.model.features import (
    DISCOUNT,
    EFFECT,
    EVENT,
    PROMOTION,
    WEEK_SHIFT_MS,
    Scaled,
    calendar_periods,
    detect_period,
)
from freshet.stream.units import DAY_MS, WEEK_MS

LOUD_WEIGHT = 0.05  # what a step on promotion counts in the profile of plain days
# Steps of a season whose neighbouring phases tell nearly the same, each seen a few times at most.
LONG_SEASON = 26
FAITH, DOUBT = (
    0.8,
    2.0,
)  # how far a season is believed before it has shown anything, and what outweighs that
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
        channels_BHC: the parts that `expected` is made of and what else recurs,
            NUM_PROFILE_CHANNELS of them.
        facts_BX: numbers of the row: recent levels, log noise, how much was seen; NUM_FACTS of
            them.
        period_B: int64 the period found in what is left over; 2 S where there is none.
    """

    expected_BS: Tensor
    surprise_BT: Tensor
    noise_B: Tensor
    channels_BHC: Tensor
    facts_BX: Tensor
    period_B: Tensor


def profiles(scaled: Scaled, known_BSK: Tensor, start_ms_B: Tensor, resolution_ms: int) -> Profiles:
    """Return what the context says about context and horizon.

    Args:
        scaled: the scaled target and where it was observed.
        known_BSK: known covariates as `features.known_channels` gives them, 0 where neutral or
            missing.
        start_ms_B: start of the first context step.
        resolution_ms: length of a step.
    """
    z_BT, seen_BT = scaled.z_BT, scaled.observed_BT
    T, steps = z_BT.shape[1], known_BSK.shape[1]
    short, long = (round(length) for length in calendar_periods(resolution_ms))
    loud_BS = (
        known_BSK[..., PROMOTION].abs()
        + known_BSK[..., DISCOUNT].abs()
        + known_BSK[..., EVENT].abs()
        > 0
    )
    # A year is a season, but a level lasts no years: weeks and months are remembered by the
    # quarter.
    pace = short if resolution_ms <= DAY_MS else max(short / 4, 3.0)
    cycles_T = torch.arange(T - 1, -1, -1, device=z_BT.device) / pace
    recalled_BT = seen_BT * torch.exp2(-cycles_T / HALF_LIVES[1])

    quiet_BT = torch.where(loud_BS[:, :T], LOUD_WEIGHT * seen_BT, seen_BT)
    plain_BS = _season(z_BT, quiet_BT, short, steps, HALF_LIVES[1:2])[0][:, 0]
    slope_BK = slopes(z_BT - plain_BS[:, :T], seen_BT, known_BSK)
    effect_BS = (known_BSK @ slope_BK[..., None])[..., 0]
    season_BXS, count_BS = _season(z_BT - effect_BS[:, :T], seen_BT, short, steps, HALF_LIVES)
    expected_BS = season_BXS[:, 1] + effect_BS
    cell_BS, cell_count_BS = _loud_cells(z_BT - expected_BS[:, :T], recalled_BT, loud_BS, short)
    expected_BS = expected_BS + cell_BS
    weekday_BS = torch.zeros_like(expected_BS)
    if resolution_ms * 2 <= DAY_MS:
        weekday_BS = _weekday(
            z_BT - expected_BS[:, :T], recalled_BT, start_ms_B, steps, resolution_ms
        )
        expected_BS = expected_BS + weekday_BS

    # A slope from quiet weeks may promise anything: a factor of fifty is where belief ends.
    bound_B1 = EXPECTED_LOG_MAX / scaled.scaling.scale_B[:, None]
    expected_BS = expected_BS.clamp(-bound_B1, bound_B1)

    left_BT = (z_BT - expected_BS[:, :T]) * seen_BT
    recent_BX, noise_B = _recent(left_BT, seen_BT, cycles_T)
    surprise_BT = (left_BT / noise_B[:, None]).clamp(-8.0, 8.0)
    facts_BX = torch.cat(
        [recent_BX, torch.stack([noise_B.log(), torch.log1p(seen_BT.sum(1)) / 3.0], -1)], -1
    )

    # What follows is looked at over the horizon alone.
    period_B = detect_period(left_BT, seen_BT, none=2 * steps)
    ahead = slice(T, steps)
    long_BH, long_count_BH = _long_ago(left_BT, seen_BT, long, steps - T, resolution_ms)
    detected_BXH, detected_count_BH = _detected(left_BT, seen_BT, period_B, steps)
    count_BH = count_BS[:, ahead]
    noise_BH = (by_phase(left_BT.abs()[:, None], short, steps - T)[:, 0] + noise_B[:, None]) / (
        count_BH + 1.0
    )
    own_BXH = [x_BS[:, ahead] for x_BS in (expected_BS, *season_BXS.unbind(1), cell_BS, weekday_BS)]
    counts_BXH = torch.log1p(
        torch.stack([count_BH, cell_count_BS[:, ahead], long_count_BH, detected_count_BH], 1)
    )
    channels_BXH = [*own_BXH, long_BH, *detected_BXH.unbind(1), *counts_BXH.unbind(1), noise_BH]
    parts_BHK = slope_BK[:, None] * known_BSK[:, ahead]
    channels_BHC = torch.cat([torch.stack(channels_BXH, -1), parts_BHK], -1)
    return Profiles(expected_BS, surprise_BT, noise_B, channels_BHC, facts_BX, period_B)


def by_phase(values_BXT: Tensor, period: int, horizon: int) -> Tensor:
    """Sums of the context's values at the same phase of a period, at each step of the horizon: [B,
    X, H].

    Phases are counted from the cutoff, so that one reshape serves all rows.

    >>> by_phase(torch.tensor([[[1.0, 2.0, 3.0]]]), 2, 3).tolist()
    [[[2.0, 4.0, 2.0]]]
    """
    return _repeat(_fold(values_BXT, period, horizon).sum(2), horizon)


def apart(values_BXT: Tensor, period: int, steps: int) -> Tensor:
    """As `by_phase`, also at each context step, which hears only the other cycles: [B, X, S].

    >>> apart(torch.tensor([[[1.0, 2.0, 3.0]]]), 2, 5).tolist()
    [[[3.0, 0.0, 1.0, 2.0, 4.0]]]
    """
    T = values_BXT.shape[2]
    folded_BXCP = _fold(values_BXT, period, steps - T)
    sums_BXP = folded_BXCP.sum(2)
    others_BXT = (sums_BXP[:, :, None] - folded_BXCP).flatten(2)[..., -T:]
    return torch.cat([others_BXT, _repeat(sums_BXP, steps - T)], -1)


def _fold(values_BXT: Tensor, period: int, horizon: int) -> Tensor:
    """One row a cycle, the last of which ends at the cutoff: [B, X, cycles, P]."""
    B, X, T = values_BXT.shape
    period = min(period, T + horizon)  # Of a longer one, no two steps share a phase either.
    return F.pad(values_BXT, (-T % period, 0)).view(B, X, -1, period)


def _repeat(sums_BXP: Tensor, horizon: int) -> Tensor:
    return sums_BXP.repeat(1, 1, -(-horizon // sums_BXP.shape[2]))[..., :horizon]


def group_sums(values_BXT: Tensor, group_BS: Tensor, num_groups: int) -> Tensor:
    """Sums of the context's values by each row's own groups of steps, given back at every step: [B,
    X, S].
    """
    B, X, T = values_BXT.shape
    sums_BXG = values_BXT.new_zeros(B, X, num_groups)
    sums_BXG.scatter_add_(2, group_BS[:, None, :T].expand(B, X, T), values_BXT)
    return sums_BXG.gather(2, group_BS[:, None].expand(B, X, group_BS.shape[1]))


def slopes(left_BT: Tensor, seen_BT: Tensor, known_BSK: Tensor) -> Tensor:
    """What a unit of each known covariate does to this series: [B, K].

    One ridge regression with an intercept for all slots together, so that slots which tell the same
    story share it. The slot `effect` is believed as it is, the regression may correct it.
    """
    T, K = left_BT.shape[1], known_BSK.shape[2]
    open_BT = left_BT - known_BSK[:, :T, EFFECT]
    # Each slot, the intercept, and what they are to explain: one product gives both sides of the
    # equation.
    design_BKT = torch.cat(
        [known_BSK[:, :T].mT, torch.ones_like(open_BT)[:, None], open_BT[:, None]], 1
    )
    moments_BKK = (design_BKT[:, :-1] * seen_BT[:, None]) @ design_BKT.mT
    ridge_KK = RIDGE * torch.eye(K + 1, device=left_BT.device)
    # Without the check that makes a GPU wait: the ridge keeps the matrix regular.
    solved_BK1 = torch.linalg.solve_ex(
        moments_BKK[..., :-1] + ridge_KK, moments_BKK[..., -1:]
    ).result
    believed_K = (torch.arange(K, device=left_BT.device) == EFFECT).to(left_BT.dtype)
    slope_BK: Tensor = solved_BK1[:, :K, 0] + believed_K
    return slope_BK


def _season(
    z_BT: Tensor, weights_BT: Tensor, period: int, steps: int, half_lives: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Mean at the same phase of other cycles for each memory, as far as it foretells; and the
    weight behind the first.

    The difference from that memory's level is multiplied by the slope of what came on what the
    other cycles said.
    """
    T = z_BT.shape[1]
    cycle_T = torch.arange(T - 1, -1, -1, device=z_BT.device).div(period, rounding_mode="floor")
    memory_XT = torch.stack([torch.exp2(-cycle_T / half_life) for half_life in half_lives])
    weights_BXT = weights_BT[:, None] * memory_XT
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
    belief_BX1 = (proof_BX1 / ((known_BXT * told_BXS[..., :T]).sum(2, keepdim=True) + DOUBT)).clamp(
        0.0, 1.0
    )
    return level_BX1 + belief_BX1 * told_BXS, count_BXS[:, 0]


def _loud_cells(
    left_BT: Tensor, weights_BT: Tensor, loud_BS: Tensor, period: int
) -> tuple[Tensor, Tensor]:
    """What promotions and plain days do at the same phase beyond their mean effect, shrunk; and the
    weight behind.
    """
    T, steps = left_BT.shape[1], loud_BS.shape[1]
    given_B2T = torch.stack([left_BT * weights_BT, weights_BT], 1)
    loud_BXT = given_B2T * loud_BS[:, None, :T]
    sums_BXS = apart(torch.cat([loud_BXT, given_B2T - loud_BXT], 1), period, steps)
    sum_BS, count_BS = torch.where(loud_BS[:, None], sums_BXS[:, :2], sums_BXS[:, 2:]).unbind(1)
    return sum_BS / (count_BS + 2.0), count_BS


def _weekday(
    left_BT: Tensor, weights_BT: Tensor, start_ms_B: Tensor, steps: int, resolution_ms: int
) -> Tensor:
    """Each weekday's own level beside the profile of the day, shrunk: [B, S]."""
    time_BS = start_ms_B[:, None] + torch.arange(steps, device=left_BT.device) * resolution_ms
    day_BS = (time_BS + WEEK_SHIFT_MS).remainder(WEEK_MS) // DAY_MS
    values_B2T = torch.stack([left_BT * weights_BT, weights_BT], 1)
    sums_B2S = group_sums(values_B2T, day_BS, 7)
    sums_B2S[..., : left_BT.shape[1]] -= values_B2T
    return sums_B2S[:, 0] / (sums_B2S[:, 1] + 4.0)


def _long_ago(
    left_BT: Tensor, seen_BT: Tensor, period: int, horizon: int, resolution_ms: int
) -> tuple[Tensor, Tensor]:
    """What was left over around the same phase of the long season, shrunk: [B, H]; and the weight
    behind.
    """
    width = 7 if resolution_ms == DAY_MS else 3 if resolution_ms < DAY_MS else 1
    smooth_B2T = F.avg_pool1d(
        torch.stack([left_BT, seen_BT], 1),
        width,
        stride=1,
        padding=width // 2,
        count_include_pad=True,
    )
    sum_BH, count_BH = by_phase(smooth_B2T, period, horizon).unbind(1)
    return sum_BH / (count_BH + 0.5), count_BH


def _detected(
    left_BT: Tensor, seen_BT: Tensor, period_B: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Mean and recent mean of what was left over at the same phase of the detected period, and the
    weight behind.
    """
    T = left_BT.shape[1]
    ahead_S = torch.arange(-T, steps - T, device=left_BT.device)
    phase_BS = ahead_S.remainder(period_B[:, None])
    cycle_BT = (-1 - ahead_S[:T]).div(period_B[:, None], rounding_mode="floor")
    weights_B2T = torch.stack([seen_BT, seen_BT * 0.6**cycle_BT], 1)
    stacked_BXT = torch.cat([left_BT[:, None] * weights_B2T, weights_B2T], 1)
    sums_BXH = group_sums(stacked_BXT, phase_BS, 2 * steps)[..., T:]
    # Without a period nothing was found.
    sums_B2H, count_B2H = (sums_BXH * (period_B < 2 * steps)[:, None, None]).chunk(2, 1)
    return sums_B2H / (count_B2H + 1.0), count_B2H[:, 0]


def _recent(left_BT: Tensor, seen_BT: Tensor, cycles_T: Tensor) -> tuple[Tensor, Tensor]:
    """Means of what was left over lately, pulled to zero where little was seen: [B, X]; and its
    mean size: [B].
    """
    memory_TX = torch.stack(
        [torch.exp2(-cycles_T / life) for life in (*RECENT_HALF_LIVES, NOISE_HALF_LIFE)], -1
    )
    weight_BX = seen_BT @ memory_TX
    recent_BX = left_BT @ memory_TX[:, :-1] / (weight_BX[:, :-1] + 1.0)
    noise_B = (left_BT.abs() @ memory_TX[:, -1] + 1.0) / (weight_BX[:, -1] + 2.0)
    return recent_BX, noise_B.clamp(min=NOISE_FLOOR)
