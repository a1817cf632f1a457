"""Simulated shops: demand with profiles, promotions, prices, events, stock-outs and leading clicks.

Dimensions: B rows, S steps (context and horizon together), P past slots, K known slots.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS
from freshet.model.features import CLOSED, EFFECT, FIRST_FREE, WEEK_SHIFT_MS, YEAR_MS, month_turn
from freshet.model.synthetic.seeded import Seeded
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS


class Series(NamedTuple):
    """Synthetic rows: everything over context and horizon, NaN where not observed."""

    target_BS: Tensor
    past_BSP: Tensor
    known_BSK: Tensor
    log_price_B: Tensor
    age_days_B: Tensor


def empty_slots(rows: int, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Past and known slots with nothing in them."""
    past = torch.full((rows, steps, len(PAST_SLOTS)), math.nan, device=device)
    return past, torch.full((rows, steps, len(KNOWN_SLOTS)), math.nan, device=device)


def retail(draw: Seeded, start_ms_B: Tensor, steps: int, resolution_ms: int) -> Series:
    """Rows of one shop-like process each."""
    time_BS = start_ms_B[:, None] + torch.arange(steps, device=draw.device) * resolution_ms
    past_BSP, known_BSK = empty_slots(draw.rows, steps, draw.device)
    level_B = (
        draw.log_uniform(0.03, 300.0)
        if resolution_ms < DAY_MS
        else draw.log_uniform(0.05, 15_000.0)
    )
    log_rate_BS = level_B.log()[:, None] + calendar_profile(draw, time_BS, resolution_ms)
    # Four shops of ten are calm: without them the network would never dare to be sure.
    unrest_B1 = draw.choice([0.2, 1.0], [0.4, 0.6])[:, None]
    log_rate_BS += wander(draw, steps) * unrest_B1
    planned_BS = planned_effects(draw, known_BSK, time_BS, resolution_ms)
    closed_BS = closed_days(draw, known_BSK, time_BS, resolution_ms)
    special_BS = special_days(draw, time_BS, closed_BS, resolution_ms)
    free_BS = free_effects(draw, known_BSK)
    tell_effect(draw, known_BSK, special_BS, planned_BS + free_BS)
    log_rate_BS += planned_BS + special_BS + free_BS
    noise_BS = draw.normal(1.0, steps) * draw.log_uniform(0.01, 0.3, 1) * draw.chance(0.6, 1)
    hidden_BS = log_rate_BS + (surprises(draw, steps) + noise_BS) * unrest_B1
    rate_BS = hidden_BS.clamp(-12.0, 11.0).exp() * (1.0 - closed_BS)
    target_BS = counts(draw, rate_BS)
    clicks(draw, past_BSP, rate_BS)
    target_BS = stock(draw, target_BS, past_BSP)
    log_price_B = 3.0 - 0.3 * level_B.log() + draw.normal(1.0)
    return Series(target_BS, past_BSP, known_BSK, log_price_B, draw.log_uniform(1.0, 2000.0))


def calendar_profile(draw: Seeded, time_BS: Tensor, resolution_ms: int) -> Tensor:
    """Log effect of time of day, of week and of year, mean zero over time: [B, S]."""
    effect_BS = year_profile(draw, time_BS)
    if resolution_ms <= DAY_MS:
        effect_BS = effect_BS + week_profile(draw, time_BS)
    if resolution_ms * 2 <= DAY_MS:
        weekday_BS = day_profile(draw, time_BS)
        other_BS = day_profile(draw, time_BS)
        # In four shops of ten the weekend has another shape of the day.
        weekend_BS = (
            (weekday(time_BS) >= 5).float() * draw.chance(0.4, 1) * draw.uniform(0.2, 1.0, 1)
        )
        effect_BS = effect_BS + weekday_BS + weekend_BS * (other_BS - weekday_BS)
        # A new day profile from some moment on: a drift which nothing announces.
        index_S = torch.arange(time_BS.shape[1], device=draw.device)
        late_BS = (index_S > draw.uniform(0.0, 1.0, 1) * time_BS.shape[1]).float() * draw.chance(
            0.06, 1
        )
        effect_BS = effect_BS + late_BS * (other_BS - weekday_BS)
    return effect_BS


def weekday(time_BS: Tensor) -> Tensor:
    """Day of the week, 0 for Monday: int64 [B, S]."""
    return (time_BS + WEEK_SHIFT_MS).remainder(WEEK_MS) // DAY_MS


def closed_days(draw: Seeded, known_BSK: Tensor, time_BS: Tensor, resolution_ms: int) -> Tensor:
    """1.0 where a shop is closed and says so in its slot: a weekday, single days, a long pause: [B,
    S].
    """
    if resolution_ms > DAY_MS:
        return torch.zeros_like(known_BSK[..., 0])
    day_BS = (time_BS // DAY_MS - time_BS[:, :1] // DAY_MS).long()
    num_days = day_BS.shape[1] * resolution_ms // DAY_MS + 2
    free_BS = draw.chance(0.025, num_days).gather(1, day_BS)
    rest_BS = (weekday(time_BS) == 6).float() * draw.chance(0.6, 1)
    pause_BNS, _ = draw.intervals(
        time_BS.shape[1], 1, WEEK_MS / resolution_ms, 60 * DAY_MS / resolution_ms
    )
    pause_BS = pause_BNS[:, 0] * draw.chance(0.1, 1)
    closed_BS = torch.maximum(torch.maximum(free_BS, rest_BS), pause_BS) * draw.chance(0.22, 1)
    known_BSK[..., CLOSED] = closed_BS
    return closed_BS


def special_days(draw: Seeded, time_BS: Tensor, closed_BS: Tensor, resolution_ms: int) -> Tensor:
    """Log effect of dates that come back: feasts of the year, edges of the month, days next to
    closed ones.
    """
    year_BS = time_BS.remainder(YEAR_MS).double().div(YEAR_MS).float()
    effect_BS = torch.zeros_like(year_BS)
    for _ in range(3):
        # Sales rise for weeks towards a feast and fall within days after it.
        ahead_BS = (draw.uniform(0.0, 1.0, 1) - year_BS + 0.5).remainder(1.0) - 0.5
        rise_B1, fall_B1 = draw.log_uniform(0.005, 0.08, 1), draw.log_uniform(0.002, 0.03, 1)
        peak_BS = torch.exp(-ahead_BS.abs() / torch.where(ahead_BS > 0, rise_B1, fall_B1))
        effect_BS += peak_BS * draw.normal(0.6, 1) * draw.chance(0.35, 1)
    if resolution_ms <= DAY_MS:
        turn_BS = month_turn(time_BS).float()
        effect_BS += (
            draw.normal(0.15, 1)
            * draw.chance(0.4, 1)
            * (turn_BS < draw.uniform(0.05, 0.3, 1)).float()
        )
        effect_BS += (
            draw.normal(0.15, 1)
            * draw.chance(0.4, 1)
            * (turn_BS > draw.uniform(0.7, 0.95, 1)).float()
        )
        day = max(DAY_MS // resolution_ms, 1)
        for shift in (day, -day):
            effect_BS += (
                draw.normal(0.25, 1)
                * draw.chance(0.6, 1)
                * closed_BS.roll(shift, 1)
                * (1.0 - closed_BS)
            )
    return effect_BS


def tell_effect(draw: Seeded, known_BSK: Tensor, special_BS: Tensor, planned_BS: Tensor) -> None:
    """Fill the slot `effect` for a third of the rows: what all series of a shop share, as its past
    would tell it.

    That is what special days do, and in half of those rows also what the covariates do to the
    average series, of which each has its own share.
    """
    wrong_BS = draw.walk(
        draw.log_uniform(0.005, 0.1), special_BS.shape[1], draw.log_uniform(2.0, 60.0)
    )
    usual_BS = planned_BS * draw.uniform(0.4, 1.4, 1) * draw.chance(0.5, 1)
    told_BS = special_BS * draw.uniform(0.5, 1.3, 1) + usual_BS + wrong_BS
    known_BSK[..., EFFECT] = torch.where(draw.chance(0.35, 1) > 0, told_BS, math.nan)


def day_profile(draw: Seeded, time_BS: Tensor) -> Tensor:
    """A day as harmonics, and for half of the rows one or two rush hours or closed hours."""
    turn_BS = time_BS.remainder(DAY_MS).float() / DAY_MS
    strength_B1 = draw.choice([0.0, 0.4, 1.0, 1.6], [0.1, 0.25, 0.45, 0.2])[:, None]
    effect_BS = torch.zeros_like(turn_BS)
    for harmonic, size in ((1, 1.0), (2, 0.5), (3, 0.3), (4, 0.2)):
        phase_B1 = draw.uniform(0.0, 1.0, 1)
        effect_BS += (
            size
            * draw.uniform(0.2, 1.0, 1)
            * torch.cos(2 * math.pi * harmonic * (turn_BS - phase_B1))
        )
    for _ in range(2):
        distance_BS = (turn_BS - draw.uniform(0.0, 1.0, 1) + 0.5).remainder(1.0) - 0.5
        width_B1 = draw.log_uniform(0.02, 0.12, 1)
        rush_BS = torch.exp(-0.5 * (distance_BS / width_B1).square())
        effect_BS += draw.chance(0.5, 1) * draw.uniform(0.0, 1.5, 1) * rush_BS
    closed_BS = (turn_BS - draw.uniform(0.0, 1.0, 1)).remainder(1.0) < draw.uniform(0.2, 0.6, 1)
    # A closed shop sells nothing at all: five log units below its mean.
    return effect_BS * strength_B1 - 6.0 * closed_BS.float() * draw.chance(0.1, 1)


def week_profile(draw: Seeded, time_BS: Tensor) -> Tensor:
    """One level for each day of the week; weekends differ most."""
    spread_B1 = draw.choice([0.0, 0.1, 0.25, 0.5], [0.1, 0.3, 0.4, 0.2])[:, None]
    level_B7 = draw.normal(1.0, 7) * spread_B1
    level_B7[:, 5:] += draw.normal(1.5, 1) * spread_B1
    level_B7[:, 6:] -= 8.0 * draw.chance(0.06, 1)
    return level_B7.gather(1, weekday(time_BS)) - level_B7[:, :5].mean(1, keepdim=True)


def year_profile(draw: Seeded, time_BS: Tensor) -> Tensor:
    """A slow wave or two over the year."""
    turn_BS = time_BS.remainder(YEAR_MS).double().div(YEAR_MS).float()
    effect_BS = torch.zeros_like(turn_BS)
    for harmonic in (1, 2, 4):
        size_B1 = draw.uniform(0.0, 0.5 / harmonic, 1) * draw.chance(0.6, 1)
        effect_BS += size_B1 * torch.cos(
            2 * math.pi * (harmonic * turn_BS - draw.uniform(0.0, 1.0, 1))
        )
    return effect_BS


def wander(draw: Seeded, steps: int) -> Tensor:
    """Trend, slow drift and short memory of the level: [B, S], unannounced but lasting."""
    index_S = torch.arange(steps, device=draw.device) / steps
    trend_B1 = draw.normal(0.5, 1) * draw.chance(0.5, 1)
    slow_BS = draw.walk(
        draw.uniform(0.0, 0.4) * draw.chance(0.6), steps, draw.log_uniform(30.0, 600.0)
    )
    short_BS = draw.walk(
        draw.uniform(0.0, 0.3) * draw.chance(0.5), steps, draw.log_uniform(1.0, 24.0)
    )
    moment_BS = (index_S > draw.uniform(0.0, 1.1, 1)).float()
    shift_BS = moment_BS * draw.normal(0.8, 1) * draw.chance(0.15, 1)
    fading_BS = (
        -6.0 * (index_S - draw.uniform(0.5, 1.0, 1)).clamp(min=0.0) * 3.0 * draw.chance(0.03, 1)
    )
    return trend_B1 * (index_S - 0.5) + slow_BS + short_BS + shift_BS + fading_BS


def planned_effects(draw: Seeded, known_BSK: Tensor, time_BS: Tensor, resolution_ms: int) -> Tensor:
    """Promotions, flash sales, price steps and events: fills slots 0 to 3 and returns their log
    effect.
    """
    steps = known_BSK.shape[1]
    hour = max(HOUR_MS / resolution_ms, 0.0)
    elasticity_B1 = draw.log_uniform(0.3, 6.0, 1) * draw.chance(0.85, 1)
    depth_BS, flash_BS = promotions(draw, steps, hour)
    promotion_BS = (depth_BS > 0).float()
    banner_B1 = draw.uniform(0.0, 1.0, 1) * draw.chance(0.7, 1)
    uplift_BS = -elasticity_B1 * torch.log1p(-depth_BS) + banner_B1 * promotion_BS
    uplift_BS = uplift_BS * promotion_shape(draw, promotion_BS, time_BS, hour)
    uplift_BS += draw.uniform(0.0, 1.8, 1) * flash_BS
    # Who bought during the promotion doesn't buy right after it.
    ended_BS = (promotion_BS.roll(int(max(24 * hour, 1)), 1) - promotion_BS).clamp(min=0.0)
    uplift_BS -= draw.uniform(0.0, 0.6, 1) * draw.chance(0.3, 1) * ended_BS
    price_BNS, _ = draw.intervals(steps, 3, 1e9, 2e9)
    ratio_BS = (price_BNS * draw.normal(0.15, 3, 1) * draw.chance(0.4, 3, 1)).sum(1)
    event_BNS, _ = draw.intervals(steps, 3, 12 * hour, max(72 * hour, 1.5))
    event_BS = (event_BNS * draw.chance(0.5, 3, 1)).amax(1)
    event_effect_B1 = draw.normal(0.7, 1) * draw.chance(0.7, 1)
    includes_B1 = draw.chance(0.5, 1)
    known_BSK[..., 0] = (ratio_BS + includes_B1 * torch.log1p(-depth_BS)).exp()
    known_BSK[..., 1] = promotion_BS
    # Many shops flag a promotion and do not say how deep it is.
    known_BSK[..., 2] = torch.where(draw.chance(0.35, 1) > 0, math.nan, depth_BS)
    known_BSK[..., 3] = event_BS
    return (
        uplift_BS.clamp(max=4.0)
        - (elasticity_B1 * ratio_BS).clamp(-2.0, 2.0)
        + event_effect_B1 * event_BS
    )


def promotions(draw: Seeded, steps: int, hour: float) -> tuple[Tensor, Tensor]:
    """Depth of discount at every step, and where a flash sale runs: single ones, or a fixed rhythm
    of weeks.
    """
    sales_BNS, _ = draw.intervals(steps, 4, 6 * hour, max(24 * 14 * hour, 4.0))
    flash_BNS, _ = draw.intervals(steps, 4, 1 * hour, max(8 * hour, 2.0))
    sales_BNS = sales_BNS * draw.chance(0.5, 4, 1) * draw.chance(0.7, 1, 1)
    flash_BNS = flash_BNS * draw.chance(0.5, 4, 1) * draw.chance(0.5, 1, 1)
    week = max(round(168 * hour), 4)
    rhythm_B1 = draw.choice([1.0, 2.0, 3.0, 4.0], [0.2, 0.5, 0.15, 0.15])[:, None] * week
    turn_BS = (
        (torch.arange(steps, device=draw.device) + draw.uniform(0.0, 1.0, 1) * rhythm_B1)
        % rhythm_B1
        / rhythm_B1
    )
    rhythmic_BS = (turn_BS < draw.uniform(0.15, 0.6, 1)).float() * draw.uniform(0.05, 0.4, 1)
    depth_BS = (sales_BNS * draw.uniform(0.05, 0.4, 4, 1)).amax(1)
    depth_BS = torch.where(draw.chance(0.3, 1) > 0, rhythmic_BS, depth_BS)
    return torch.maximum(
        depth_BS, (flash_BNS * draw.uniform(0.2, 0.7, 4, 1)).amax(1)
    ), flash_BNS.amax(1)


def promotion_shape(draw: Seeded, promotion_BS: Tensor, time_BS: Tensor, hour: float) -> Tensor:
    """How a promotion's effect varies within its run and over the week, around one: [B, S]."""
    index_S = torch.arange(promotion_BS.shape[1], device=draw.device)
    begun_BS = torch.where(promotion_BS > 0, -1, index_S).cummax(1).values
    days_BS = (index_S - begun_BS).clamp(min=0) / max(24 * hour, 1.0)
    fading_BS = (
        draw.normal(0.4, 1) * draw.chance(0.5, 1) * torch.exp(-days_BS / draw.uniform(0.7, 4.0, 1))
    )
    weekly_BS = (draw.normal(0.25, 7) * draw.chance(0.4, 1)).gather(1, weekday(time_BS))
    return (1.0 + fading_BS + weekly_BS).clamp(0.0, 2.0)


def free_effects(draw: Seeded, known_BSK: Tensor) -> Tensor:
    """What a shop defines itself (weather, footfall, days open): some of it matters, some is pure
    noise.
    """
    steps = known_BSK.shape[1]
    effect_BS = torch.zeros_like(known_BSK[..., 0])
    for slot in range(FIRST_FREE, known_BSK.shape[2]):
        smooth_BS = draw.walk(
            torch.ones(draw.rows, device=draw.device), steps, draw.log_uniform(2.0, 60.0)
        )
        flag_BS = draw.intervals(steps, 6, 1.0, 24.0)[0].amax(1)
        # Of seven days a few are lost now and then, and sales with them.
        lost_BS = draw.chance(0.15, steps) * draw.integers(1, 4, steps)
        kind_B1 = draw.uniform(0.0, 1.0, 1)
        value_BS = torch.where(
            kind_B1 < 0.45, smooth_BS, torch.where(kind_B1 < 0.8, flag_BS, 7.0 - lost_BS)
        )
        told_BS = torch.where(kind_B1 < 0.8, value_BS, (value_BS / 7.0).log() * 2.5)
        size_B1 = torch.where(
            kind_B1 < 0.8, draw.normal(0.4, 1), draw.uniform(0.2, 0.5, 1)
        ) * draw.chance(0.6, 1)
        present_B1 = draw.chance(0.12, 1)
        effect_BS += size_B1 * told_BS * present_B1
        scale_B1 = draw.log_uniform(0.1, 100.0, 1)
        known_BSK[..., slot] = torch.where(present_B1 > 0, value_BS * scale_B1, math.nan)
    return effect_BS


def surprises(draw: Seeded, steps: int) -> Tensor:
    """Bursts that nobody announced: a mention, a bot, a competitor out of stock."""
    burst_BNS, _ = draw.intervals(steps, 3, 1.0, 12.0)
    return (
        burst_BNS * draw.normal(1.0, 3, 1) * draw.chance(0.25, 3, 1) * draw.chance(0.4, 1, 1)
    ).sum(1)


def counts(draw: Seeded, rate_BS: Tensor) -> Tensor:
    """Units from rates: Poisson, negative binomial, hurdle, order multiples or smooth amounts."""
    kind_B1 = draw.choice([0.0, 1.0, 2.0, 3.0], [0.45, 0.37, 0.09, 0.09])[:, None]
    shape_B1 = draw.log_uniform(0.4, 100.0, 1)
    mixed_BS = draw.gamma(shape_B1.expand_as(rate_BS)) / shape_B1
    multiple_B1 = torch.where(
        draw.chance(0.1, 1) > 0,
        draw.choice([2.0, 3.0, 6.0, 12.0], [0.4, 0.2, 0.25, 0.15])[:, None],
        1.0,
    )
    mean_BS = torch.where((kind_B1 == 1) | (kind_B1 == 2), rate_BS * mixed_BS, rate_BS)
    open_BS = (draw.uniform(0.0, 1.0, rate_BS.shape[1]) < draw.uniform(0.2, 0.9, 1)).float()
    mean_BS = torch.where(kind_B1 == 2, mean_BS * open_BS, mean_BS)
    count_BS = draw.poisson(mean_BS / multiple_B1) * multiple_B1
    smooth_BS = (rate_BS * (1.0 + 0.15 * draw.normal(1.0, rate_BS.shape[1]))).clamp(min=0.0)
    return torch.where(kind_B1 == 3, smooth_BS, count_BS)


def clicks(draw: Seeded, past_BSP: Tensor, rate_BS: Tensor) -> None:
    """Fill views, carts, favourites and checkouts: noisy signals that lead the demand by a few
    steps.
    """
    steps = rate_BS.shape[1]
    index_S = torch.arange(steps, device=draw.device)
    ratio_B1 = draw.log_uniform(3.0, 60.0, 1)
    for slot, share in enumerate((1.0, 0.2, 0.1, 0.08)):
        ahead_B1 = draw.integers(0, 4 - slot if slot < 3 else 1, 1)
        lead_BS = (index_S + ahead_B1).clamp(max=steps - 1)
        noise_BS = draw.walk(draw.uniform(0.0, 0.3), steps, draw.log_uniform(1.0, 200.0)).exp()
        past_BSP[..., slot] = draw.poisson(rate_BS.gather(1, lead_BS) * ratio_B1 * share * noise_BS)


def stock(draw: Seeded, target_BS: Tensor, past_BSP: Tensor) -> Tensor:
    """Stock-outs become missing targets; in_stock says so where the shop reports it."""
    steps = target_BS.shape[1]
    out_BNS, _ = draw.intervals(steps, 3, 2.0, 72.0)
    out_BS = (out_BNS * draw.chance(0.4, 3, 1) * draw.chance(0.3, 1, 1)).amax(1)
    past_BSP[..., 4] = 1.0 - out_BS
    return torch.where(out_BS > 0, math.nan, target_BS)
