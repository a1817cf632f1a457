"""What a series' own past says about every step: what is expected, how surely, what else recurs.

Masked sums and one small ridge regression before the network, computed before the cutoff and given
for every step of context and horizon. The network forecasts what they leave over, in units of the
noise they leave, so that it need not learn to average over patches whose length divides no day.
Nothing here is learnt, and each row stands alone.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K known slots, X stacked values,
C channels of one step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS
from freshet.model.cycles import by_group, by_phase
from freshet.model.expectation import Expectation, cycles_ago, expect, short_season
from freshet.model.features import Scaled
from freshet.model.phases import calendar_periods, detect_period
from freshet.stream.units import DAY_MS

# An expectation further from the row's usual level than a factor of fifty is a slope gone wild.
EXPECTED_LOG_MAX = 4.0
SURPRISE_MAX = 8.0  # in units of noise
# Memories of the level and of the noise, as half-lives in cycles: a level moves faster than the
# shape of the season, noise hardly at all.
LEVEL_HALF_LIVES = (0.4, 2.0, 8.0)
NOISE_HALF_LIFE = 32.0
NOISE_FLOOR = 0.02  # without it the smallest surprise of a series that never varied is a huge one
# Steps on which nothing was left over that stand beside the observed ones.
LONG_AGO_DOUBT = 0.5
DETECTED_DOUBT = 1.0
DETECTED_FADE = 0.6  # what one more cycle of a detected period leaves of a step's recent weight

NUM_PROFILE_CHANNELS = 14 + len(KNOWN_SLOTS)
NUM_FACTS = len(LEVEL_HALF_LIVES) + 2


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


class _Leftover(NamedTuple):
    """What the expectation leaves over of the context, and what recurs in it."""

    left_BT: Tensor
    seen_BT: Tensor
    noise_B: Tensor
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
    seen_BT = scaled.observed_BT
    T = seen_BT.shape[1]
    S = known_BSK.shape[1]
    expectation = expect(scaled, known_BSK, start_ms_B, resolution_ms)
    # A slope from quiet weeks may promise anything, so the sum ends where belief does.
    bound_B1 = EXPECTED_LOG_MAX / scaled.scaling.scale_B[:, None]
    expected_BS = expectation.total_BS.clamp(-bound_B1, bound_B1)
    expectation = expectation._replace(total_BS=expected_BS)

    # What is left over, how large it usually is, and what it has been lately.
    left_BT = (scaled.z_BT - expected_BS[:, :T]) * seen_BT
    level_BX, noise_B = _level_and_noise(left_BT, seen_BT, cycles_ago(left_BT, resolution_ms))
    surprise_BT = (left_BT / noise_B[:, None]).clamp(-SURPRISE_MAX, SURPRISE_MAX)
    seen_B = torch.log1p(seen_BT.sum(1)) / 3.0
    facts_BX = torch.cat([level_BX, torch.stack([noise_B.log(), seen_B], -1)], -1)

    # A season that the calendar does not know, such as pay every ten days.
    period_B = detect_period(left_BT, seen_BT, none=2 * S)
    leftover = _Leftover(left_BT, seen_BT, noise_B, period_B)
    channels_BHC = _channels(expectation, leftover, known_BSK[:, T:], resolution_ms)
    return Profiles(expected_BS, surprise_BT, noise_B, channels_BHC, facts_BX, period_B)


def _level_and_noise(left_BT: Tensor, seen_BT: Tensor, cycles_T: Tensor) -> tuple[Tensor, Tensor]:
    """What was left over lately, and how large it usually is: both are means that forget.

    Returns:
        Its mean for each of LEVEL_HALF_LIVES, shrunk: [B, X]. The mean of its size, as if two more
        steps of half the row's spread had been seen, and at least a floor: [B].
    """
    half_lives = (*LEVEL_HALF_LIVES, NOISE_HALF_LIFE)
    memory_TX = torch.stack([torch.exp2(-cycles_T / half_life) for half_life in half_lives], -1)
    weight_BX = seen_BT @ memory_TX
    level_BX = left_BT @ memory_TX[:, :-1] / (weight_BX[:, :-1] + 1.0)
    noise_B = (left_BT.abs() @ memory_TX[:, -1] + 1.0) / (weight_BX[:, -1] + 2.0)
    return level_BX, noise_B.clamp(min=NOISE_FLOOR)


def _channels(
    expectation: Expectation, leftover: _Leftover, known_BHK: Tensor, resolution_ms: int
) -> Tensor:
    """All that is told of each step of the horizon: [B, H, NUM_PROFILE_CHANNELS]."""
    T = leftover.left_BT.shape[1]
    H = known_BHK.shape[1]
    # [B, S] each: the expectation, three seasons, and what is added to the second of them.
    own = [expectation.total_BS, *expectation.season_BMS.unbind(1)]
    own += [expectation.cell_BS, expectation.weekday_BS]
    season_count_BH = expectation.season_count_BS[:, T:]
    long_BH, long_count_BH = _long_ago(leftover, H, resolution_ms)
    detected_B2H, detected_count_BH = _detected(leftover, H)
    # A mean of many steps deserves more trust than one of few, and only a count tells which it is.
    counts = [season_count_BH, expectation.cell_count_BS[:, T:], long_count_BH, detected_count_BH]
    phase_noise_BH = _phase_noise(leftover, season_count_BH, short_season(resolution_ms))
    channels = [
        *(part_BS[:, T:] for part_BS in own),
        long_BH,
        *detected_B2H.unbind(1),
        *(torch.log1p(count_BH) for count_BH in counts),
        phase_noise_BH,
    ]
    # The effects again, apart: the network may trust a promotion's more than a price's.
    parts_BHK = expectation.slope_BK[:, None] * known_BHK
    return torch.cat([torch.stack(channels, -1), parts_BHK], -1)


def _long_ago(leftover: _Leftover, horizon: int, resolution_ms: int) -> tuple[Tensor, Tensor]:
    """What was left over around the same phase of the long season, shrunk; and the weight: [B, H].

    That is a week of hours or a year of days ago, seen once or a few times, so its neighbours are
    averaged with it: of days a whole week, or the weekday would count as the season.
    """
    width = 7 if resolution_ms == DAY_MS else 3 if resolution_ms < DAY_MS else 1
    long_season = round(calendar_periods(resolution_ms)[1])
    values_B2T = torch.stack([leftover.left_BT, leftover.seen_BT], 1)
    smooth_B2T = F.avg_pool1d(values_B2T, width, stride=1, padding=width // 2)
    sum_BH, count_BH = by_phase(smooth_B2T, long_season, horizon).unbind(1)
    return sum_BH / (count_BH + LONG_AGO_DOUBT), count_BH


def _detected(leftover: _Leftover, horizon: int) -> tuple[Tensor, Tensor]:
    """Means at the same phase of the detected period, of all cycles and of recent ones: [B, 2, H].

    Returns:
        The means, shrunk, 0 where no period was found; and the weight behind the first: [B, H].
    """
    left_BT, seen_BT, _, period_B = leftover
    T = left_BT.shape[1]
    S = T + horizon
    from_cutoff_S = torch.arange(-T, horizon, device=left_BT.device)
    phase_BS = from_cutoff_S.remainder(period_B[:, None])
    cycles_ago_BT = (-1 - from_cutoff_S[:T]).div(period_B[:, None], rounding_mode="floor")
    weights_B2T = torch.stack([seen_BT, seen_BT * DETECTED_FADE**cycles_ago_BT], 1)
    stacked_B4T = torch.cat([left_BT[:, None] * weights_B2T, weights_B2T], 1)
    # Every row has its own period, so that no reshape serves them all.
    sums_B4H = by_group(stacked_B4T, phase_BS, 2 * S)[..., T:]
    found_B11 = (period_B < 2 * S)[:, None, None]
    sums_B2H, count_B2H = (sums_B4H * found_B11).chunk(2, 1)
    return sums_B2H / (count_B2H + DETECTED_DOUBT), count_B2H[:, 0]


def _phase_noise(leftover: _Leftover, count_BH: Tensor, period: int) -> Tensor:
    """How large what is left over usually is at this phase, one step at the row's noise beside it.

    Nights are calmer than noons, also relative to what they sell.
    """
    size_B1T = leftover.left_BT.abs()[:, None]
    size_BH = by_phase(size_B1T, period, count_BH.shape[1])[:, 0]
    return (size_BH + leftover.noise_B[:, None]) / (count_BH + 1.0)
