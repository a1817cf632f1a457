"""What is expected of each step, from the series' own past: season, covariates' effects, weekdays.

Each part explains what the ones before it left over. Most are means that are *shrunk*:
sum / (weight + doubt), as if so many more steps had been seen on which nothing was left over.
A context step hears other cycles only, as a step of the horizon does, or a history of a cycle or
two would explain itself: the regression on covariates then sees a third of what they do (Rossmann
by week, MASE of six cutoffs .441 on average, .330 this way).

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K known slots, M memories,
X stacked values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from freshet.model.cycles import by_group, by_phase_of_others
from freshet.model.features import DISCOUNT, EFFECT, EVENT, PROMOTION, Scaled
from freshet.model.phases import calendar_periods
from freshet.stream.units import DAY_MS, WEEK_MS

# Memories, as half-lives in cycles of the short season: everything, the usual one, the latest.
# Between them the network sees whether the shape of the day or the week is changing.
HALF_LIVES = (float("inf"), 16.0, 3.0)
USUAL = 1  # index of the memory that the expectation is made of

# What a step on promotion counts in the first profile, that of plain days: promotions spoil it. Not
# nothing, since a series that is always on promotion needs a profile too.
LOUD_WEIGHT = 0.05
# In seasons of so many steps (the weeks of a year, not the days of a week) each phase is seen a few
# times at most, while neighbouring phases tell nearly the same: they are heard too, at half the
# weight together (Rossmann by week, MASE of four cutoffs .231 to .211; five say the same as three).
LONG_SEASON = 26
# A season is believed to .8 before it has shown anything, and that belief weighs as much as
# seasonal differences whose squares sum to 2.
FAITH = 0.8
DOUBT = 2.0
# Steps without a difference that stand beside the observed ones.
PHASE_DOUBT = 0.5
CELL_DOUBT = 2.0
WEEKDAY_DOUBT = 4.0
# The same for slopes: two neutral observations, of size one or, where a covariate has been larger
# than usual, as much larger.
RIDGE = 2.0
USUAL_SIZE = 1.5
# How far beyond what they ever did a series' covariates may take it, in shares of that range.
FURTHER = 0.5


class Expectation(NamedTuple):
    """The sum that is expected of each step, its parts, and the weights behind two of them.

    Attributes:
        total_BS: season of the usual memory + effects + cell + weekday.
        season_BMS: the season in each memory.
        season_count_BS: steps behind the season of the first memory.
        cell_BS: what this kind of step, loud or plain, does at this phase beyond that.
        cell_count_BS: steps behind it.
        weekday_BS: the weekday's own level; 0 where steps are no shorter than half a day.
        slope_BK: what a unit of each known covariate does.
    """

    total_BS: Tensor
    season_BMS: Tensor
    season_count_BS: Tensor
    cell_BS: Tensor
    cell_count_BS: Tensor
    weekday_BS: Tensor
    slope_BK: Tensor


def expect(
    scaled: Scaled, known_BSK: Tensor, start_ms_B: Tensor, resolution_ms: int
) -> Expectation:
    """The expectation of every step of context and horizon.

    Args:
        scaled: the scaled target and where it was observed.
        known_BSK: known covariates as `features.known_channels` gives them, 0 where neutral or
            missing.
        start_ms_B: start of the first context step.
        resolution_ms: length of a step.
    """
    z_BT, seen_BT = scaled.z_BT, scaled.observed_BT
    T = z_BT.shape[1]
    S = known_BSK.shape[1]
    period = short_season(resolution_ms)
    loud_BS = known_BSK[..., [PROMOTION, DISCOUNT, EVENT]].abs().sum(-1) > 0

    # Slopes are learnt from what the profile of plain days leaves over: one that held promotions
    # would already explain a part of what they do.
    quiet_BT = torch.where(loud_BS[:, :T], LOUD_WEIGHT * seen_BT, seen_BT)
    plain_BMS, _ = _season(z_BT, quiet_BT, period, S, HALF_LIVES[USUAL : USUAL + 1])
    slope_BK = slopes(z_BT - plain_BMS[:, 0, :T], seen_BT, known_BSK)
    effect_BS = _effects(known_BSK, slope_BK, seen_BT)

    # Without the effects every step may say what the season is, loud ones as well.
    season_BMS, season_count_BS = _season(z_BT - effect_BS[:, :T], seen_BT, period, S, HALF_LIVES)
    total_BS = season_BMS[:, USUAL] + effect_BS

    # The rest is looked for in what is left over, newer steps counting more.
    recalled_T = torch.exp2(-cycles_ago(z_BT, resolution_ms) / HALF_LIVES[USUAL])
    recalled_BT = seen_BT * recalled_T
    left_BT = z_BT - total_BS[:, :T]
    cell_BS, cell_count_BS = _loud_cells(left_BT, recalled_BT, loud_BS, period)
    total_BS = total_BS + cell_BS

    weekday_BS = torch.zeros_like(total_BS)
    if resolution_ms * 2 <= DAY_MS:
        time_BS = start_ms_B[:, None] + torch.arange(S, device=z_BT.device) * resolution_ms
        weekday_BS = _weekdays(z_BT - total_BS[:, :T], recalled_BT, time_BS)
        total_BS = total_BS + weekday_BS
    return Expectation(
        total_BS, season_BMS, season_count_BS, cell_BS, cell_count_BS, weekday_BS, slope_BK
    )


def _effects(known_BSK: Tensor, slope_BK: Tensor, seen_BT: Tensor) -> Tensor:
    """What the known covariates do together at each step, no more than they ever did: [B, S].

    The slot `effect` is believed beyond that: it speaks of other series as well.
    """
    T = seen_BT.shape[1]
    believed_BS = known_BSK[..., EFFECT]
    own_BS = (known_BSK @ slope_BK[..., None])[..., 0] - believed_BS
    # Steps that were not seen count as none, where nothing is done.
    own_BT = own_BS[:, :T] * seen_BT
    low_B1, high_B1 = own_BT.aminmax(dim=1, keepdim=True)
    further_B1 = FURTHER * (high_B1 - low_B1)
    return believed_BS + own_BS.clamp(low_B1 - further_B1, high_B1 + further_B1)


def slopes(left_BT: Tensor, seen_BT: Tensor, known_BSK: Tensor) -> Tensor:
    """What a unit of each known covariate does to this series: [B, K].

    One ridge regression with an intercept for all slots together, so that slots which tell the same
    story (price, discount and promotion) share it rather than each telling it in full. The slot
    `effect` is believed as it is, the regression may correct it.
    """
    T = left_BT.shape[1]
    K = known_BSK.shape[2]
    known_BTK = known_BSK[:, :T]
    unexplained_BT = left_BT - known_BTK[..., EFFECT]
    ones_BT = torch.ones_like(unexplained_BT)
    # X of the regression and, as a last row, y: one product then gives X'WX and X'Wy side by side.
    design_BXT = torch.cat([known_BTK.mT, ones_BT[:, None], unexplained_BT[:, None]], 1)
    weighted_BXT = design_BXT[:, :-1] * seen_BT[:, None]
    moments_BXX = weighted_BXT @ design_BXT.mT  # [B, K + 1, K + 2]
    squares_BXX, products_BX1 = moments_BXX[..., :-1], moments_BXX[..., -1:]
    # A number that stood out once was seen once, however far out it lies on its scale.
    largest_BX = weighted_BXT.abs().amax(2) / USUAL_SIZE
    largest_BX[:, EFFECT] = 1.0
    ridge_BXX = torch.diag_embed(RIDGE * largest_BX.clamp(min=1.0).square())
    # Without the check that makes a GPU wait: the ridge keeps the matrix regular.
    solved_BX1 = torch.linalg.solve_ex(squares_BXX + ridge_BXX, products_BX1).result
    believed_K = (torch.arange(K, device=left_BT.device) == EFFECT).to(left_BT.dtype)
    slope_BK: Tensor = solved_BX1[:, :K, 0] + believed_K
    return slope_BK


def _season(
    z_BT: Tensor, weights_BT: Tensor, period: int, steps: int, half_lives: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """The mean at the same phase of other cycles, for each memory: [B, M, S].

    It is the memory's level plus what the phase tells beyond it, as far as such telling came true.

    Returns:
        The season, and the weight behind it in the first memory: [B, S].
    """
    memory_MT = _memories(z_BT, period, half_lives)
    weights_BMT = weights_BT[:, None] * memory_MT
    values_BMT = z_BT[:, None] * weights_BMT
    level_BM1 = values_BMT.sum(2, keepdim=True) / (weights_BMT.sum(2, keepdim=True) + 1e-6)
    stacked_BXT = torch.cat([values_BMT, weights_BMT], 1)
    if period >= LONG_SEASON:
        stacked_BXT = _with_neighbours(stacked_BXT)
    sums_BMS, count_BMS = by_phase_of_others(stacked_BXT, period, steps).chunk(2, 1)
    # Half a step at the level stands beside what was seen, and is all there is for an unseen phase.
    told_BMS = (sums_BMS + PHASE_DOUBT * level_BM1) / (count_BMS + PHASE_DOUBT) - level_BM1
    came_BMT = z_BT[:, None] - level_BM1
    return level_BM1 + _belief(told_BMS, came_BMT, weights_BMT) * told_BMS, count_BMS[:, 0]


def _memories(z_BT: Tensor, period: int, half_lives: tuple[float, ...]) -> Tensor:
    """What each context step still counts in each memory, the same within a cycle: [M, T]."""
    T = z_BT.shape[1]
    steps_ago_T = torch.arange(T - 1, -1, -1, device=z_BT.device)
    cycles_ago_T = steps_ago_T.div(period, rounding_mode="floor")
    return torch.stack([torch.exp2(-cycles_ago_T / half_life) for half_life in half_lives])


def _with_neighbours(values_BXT: Tensor) -> Tensor:
    """Each step as half of itself and a quarter of each neighbour: [B, X, T]."""
    after_BXT = F.pad(values_BXT, (0, 1))[..., 1:]
    before_BXT = F.pad(values_BXT, (1, 0))[..., :-1]
    return 0.5 * values_BXT + 0.25 * (after_BXT + before_BXT)


def _belief(told_BMS: Tensor, came_BMT: Tensor, weights_BMT: Tensor) -> Tensor:
    """How far a season is believed, from 0 to 1: [B, M, 1].

    The slope of what came on what the other cycles told of it. Rare sales have phases that differ
    by chance alone, and such a season must not be forecast (car parts' error of z 2.19 to 2.13).
    """
    T = came_BMT.shape[2]
    told_BMT = told_BMS[..., :T]
    weighted_BMT = told_BMT * weights_BMT
    proof_BM1 = (weighted_BMT * came_BMT).sum(2, keepdim=True) + DOUBT * FAITH
    claim_BM1 = (weighted_BMT * told_BMT).sum(2, keepdim=True) + DOUBT
    return (proof_BM1 / claim_BM1).clamp(0.0, 1.0)


def _loud_cells(
    left_BT: Tensor, weights_BT: Tensor, loud_BS: Tensor, period: int
) -> tuple[Tensor, Tensor]:
    """What promotions, and plain days, do at the same phase beyond their mean effect, shrunk.

    A promotion may double a Saturday and leave a Monday alone, which one slope cannot say. So loud
    and plain steps of a phase are averaged apart, and each step hears those of its own kind.

    Returns:
        The mean, and the weight behind it: [B, S] each.
    """
    T, S = left_BT.shape[1], loud_BS.shape[1]
    all_B2T = torch.stack([left_BT * weights_BT, weights_BT], 1)
    loud_B2T = all_B2T * loud_BS[:, None, :T]
    plain_B2T = all_B2T - loud_B2T
    sums_B4S = by_phase_of_others(torch.cat([loud_B2T, plain_B2T], 1), period, S)
    own_B2S = torch.where(loud_BS[:, None], sums_B4S[:, :2], sums_B4S[:, 2:])
    sum_BS, count_BS = own_B2S.unbind(1)
    return sum_BS / (count_BS + CELL_DOUBT), count_BS


def _weekdays(left_BT: Tensor, weights_BT: Tensor, time_BS: Tensor) -> Tensor:
    """Each weekday's own level beside the profile of the day, shrunk: [B, S].

    For steps shorter than a day, whose short season is the day: an hour of the week of its own
    would be seen once in 168 steps, while a weekday's level is told by all its hours.
    """
    T = left_BT.shape[1]
    weekday_BS = time_BS.remainder(WEEK_MS) // DAY_MS
    values_B2T = torch.stack([left_BT * weights_BT, weights_BT], 1)
    sums_B2S = by_group(values_B2T, weekday_BS, 7)
    # A context step hears the others only, as everywhere.
    sums_B2S[..., :T] -= values_B2T
    return sums_B2S[:, 0] / (sums_B2S[:, 1] + WEEKDAY_DOUBT)


def cycles_ago(values_BT: Tensor, resolution_ms: int) -> Tensor:
    """How many cycles of the short season lie after each context step: float32 [T].

    A year is a season, but a level lasts no years: weeks and months are remembered by the quarter
    (Rossmann by week, mean MASE of six cutoffs .330 to .310).
    """
    T = values_BT.shape[1]
    cycle = float(short_season(resolution_ms))
    if resolution_ms > DAY_MS:
        cycle = max(cycle / 4, 3.0)
    return torch.arange(T - 1, -1, -1, device=values_BT.device) / cycle


def short_season(resolution_ms: int) -> int:
    """Steps of the season that profiles follow: 24 for hours, 7 for days, 52 for weeks."""
    return round(calendar_periods(resolution_ms)[0])
