"""Simulated shops: a rate with all that moves it, sales counted from it, clicks that lead them.

Dimensions: B rows, S steps (context and horizon together), P past slots, K known slots.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS
from freshet.model.features import FIRST_FREE
from freshet.model.synthetic.promotions import planned_effects
from freshet.model.synthetic.seasons import (
    calendar_profile,
    closed_days,
    special_days,
    tell_effect,
)
from freshet.model.synthetic.seeded import Seeded
from freshet.stream.units import DAY_MS

# How counts come about.
POISSON, MIXED, HURDLE, SMOOTH = 0.0, 1.0, 2.0, 3.0
COUNT_KINDS = (
    (POISSON, 0.45),
    (MIXED, 0.37),
    (HURDLE, 0.09),
    (SMOOTH, 0.09),
)
PACKS = (
    (2.0, 0.4),
    (3.0, 0.2),
    (6.0, 0.25),
    (12.0, 0.15),
)
IN_STOCK = PAST_SLOTS.index("in_stock")
# For each view: itself, carts, favourites and checkouts.
FUNNEL_SHARES = (1.0, 0.2, 0.1, 0.08)
# Log units within which exp neither vanishes nor overflows a count: 6e-6 to 60,000 a step.
MIN_LOG_RATE, MAX_LOG_RATE = -12.0, 11.0


class Series(NamedTuple):
    """Synthetic rows: everything over context and horizon, NaN where not observed."""

    target_BS: Tensor
    past_BSP: Tensor
    known_BSK: Tensor
    log_price_B: Tensor
    age_days_B: Tensor


def empty_slots(rows: int, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Past and known slots with nothing in them: [B, S, P] and [B, S, K]."""
    past_shape = (rows, steps, len(PAST_SLOTS))
    known_shape = (rows, steps, len(KNOWN_SLOTS))
    past_BSP = torch.full(past_shape, math.nan, device=device)
    known_BSK = torch.full(known_shape, math.nan, device=device)
    return past_BSP, known_BSK


def retail(draw: Seeded, start_ms_B: Tensor, steps: int, resolution_ms: int) -> Series:
    """Rows of one shop-like process each.

    A log rate is built up from what is announced (calendar, plans, closed days, the shop's own
    covariates) and what is not (drift, bursts, noise); sales are counts drawn from that rate, and
    clicks are drawn from the same rate a few steps ahead, so that they carry news of it.
    """
    from_start_S = draw.index(steps) * resolution_ms
    time_BS = start_ms_B[:, None] + from_start_S
    past_BSP, known_BSK = empty_slots(draw.rows, steps, draw.device)
    usual_B = usual_rate(draw, resolution_ms)
    season_BS = calendar_profile(draw, time_BS, resolution_ms)
    log_rate_BS = usual_B.log()[:, None] + season_BS
    # Four shops of ten are calm: without them the network would never dare to be sure.
    unrest_B = draw.choice([(0.2, 0.4), (1.0, 0.6)])
    unrest_B1 = unrest_B[:, None]
    log_rate_BS += wander(draw, steps) * unrest_B1
    # What is announced: it stands in the slots, and multiplies sales.
    planned_BS = planned_effects(draw, known_BSK, time_BS, resolution_ms)
    closed_BS = closed_days(draw, known_BSK, time_BS, resolution_ms)
    special_BS = special_days(draw, time_BS, closed_BS, resolution_ms)
    free_BS = free_effects(draw, known_BSK)
    tell_effect(draw, known_BSK, special_BS, planned_BS + free_BS)
    log_rate_BS += planned_BS + special_BS + free_BS
    # What nobody knows: only how wide the band must be can be learnt from it.
    noise_BS = draw.normal(1.0, steps)
    noise_BS = noise_BS * draw.log_uniform(0.01, 0.3, 1)
    noise_BS = noise_BS * draw.chance(0.6, 1)
    unknown_BS = surprises(draw, steps) + noise_BS
    log_rate_BS = log_rate_BS + unknown_BS * unrest_B1
    bounded_BS = log_rate_BS.clamp(MIN_LOG_RATE, MAX_LOG_RATE)
    rate_BS = bounded_BS.exp() * (1.0 - closed_BS)
    target_BS = counts(draw, rate_BS)
    clicks(draw, past_BSP, rate_BS)
    target_BS = stock(draw, target_BS, past_BSP)
    # What is dear sells less often: price and usual sales hang together, loosely.
    log_price_B = 3.0 - 0.3 * usual_B.log()
    log_price_B = log_price_B + draw.normal(1.0)
    age_days_B = draw.log_uniform(1.0, 2000.0)
    return Series(target_BS, past_BSP, known_BSK, log_price_B, age_days_B)


def usual_rate(draw: Seeded, resolution_ms: int) -> Tensor:
    """Units that a row sells in a usual step: [B].

    Rare sellers too: networks that saw none of them lose to seasonal naive on real shops.
    """
    if resolution_ms < DAY_MS:
        return draw.log_uniform(0.03, 300.0)
    return draw.log_uniform(0.05, 15_000.0)


def wander(draw: Seeded, steps: int) -> Tensor:
    """Trend, slow drift and short memory of the rate: log units [B, S], unannounced but lasting."""
    share_S = draw.index(steps) / steps
    # Half of the rows grow or shrink all along, by half a log unit or so over the series.
    trend_B1 = draw.normal(0.5, 1)
    trend_B1 = trend_B1 * draw.chance(0.5, 1)
    # Fashion: the level of some months ago is another one.
    slow_B = draw.uniform(0.0, 0.4)
    slow_B = slow_B * draw.chance(0.6)
    slow_memory_B = draw.log_uniform(30.0, 600.0)
    slow_BS = draw.walk(slow_B, steps, slow_memory_B)
    # Weather and word of mouth: what was above the usual a moment ago still is.
    short_B = draw.uniform(0.0, 0.3)
    short_B = short_B * draw.chance(0.5)
    short_memory_B = draw.log_uniform(1.0, 24.0)
    short_BS = draw.walk(short_B, steps, short_memory_B)
    # One sudden shift, such as a competitor that opens or a page that is found.
    moment_B1 = draw.uniform(0.0, 1.1, 1)
    after_BS = (share_S > moment_B1).float()
    shift_BS = after_BS * draw.normal(0.8, 1)
    shift_BS = shift_BS * draw.chance(0.15, 1)
    # An item at the end of its life: gone within a fraction of the steps that are left.
    last_B1 = draw.uniform(0.5, 1.0, 1)
    since_BS = (share_S - last_B1).clamp(min=0.0)
    ending_B1 = draw.chance(0.03, 1)
    fading_BS = -6.0 * since_BS * 3.0 * ending_B1
    return trend_B1 * (share_S - 0.5) + slow_BS + short_BS + shift_BS + fading_BS


def free_effects(draw: Seeded, known_BSK: Tensor) -> Tensor:
    """What a shop defines itself (weather, footfall, days open): some matters, some is noise."""
    effect_BS = torch.zeros_like(known_BSK[..., 0])
    for slot in range(FIRST_FREE, known_BSK.shape[2]):
        value_BS, counts_days_B1 = _free_values(draw, known_BSK.shape[1])
        # Sales go with the days that are open, so the effect of those is their logarithm.
        log_days_BS = (value_BS / 7.0).log() * 2.5
        told_BS = torch.where(counts_days_B1, log_days_BS, value_BS)
        # Weather may help or hurt; a day more to sell on always helps. Four of ten do nothing.
        some_B1 = draw.normal(0.4, 1)
        more_B1 = draw.uniform(0.2, 0.5, 1)
        size_B1 = torch.where(counts_days_B1, more_B1, some_B1)
        size_B1 = size_B1 * draw.chance(0.6, 1)
        present_B1 = draw.chance(0.12, 1)
        effect_BS += size_B1 * told_BS * present_B1
        # A covariate comes in any unit.
        scale_B1 = draw.log_uniform(0.1, 100.0, 1)
        scaled_BS = value_BS * scale_B1
        known_BSK[..., slot] = torch.where(present_B1 > 0, scaled_BS, math.nan)
    return effect_BS


def _free_values(draw: Seeded, steps: int) -> tuple[Tensor, Tensor]:
    """A smooth path, a flag or days open, and where it is days: [B, S] and bool [B, 1]."""
    ones_B = draw.ones()
    memory_B = draw.log_uniform(2.0, 60.0)
    smooth_BS = draw.walk(ones_B, steps, memory_B)
    flag_BNS = draw.intervals(steps, 6, 1.0, 24.0)
    flag_BS = flag_BNS.amax(1)
    # Of seven days a few are lost now and then, and sales with them.
    short_week_BS = draw.chance(0.15, steps)
    lost_BS = short_week_BS * draw.integers(1, 4, steps)
    days_BS = 7.0 - lost_BS
    # 45 % are paths, 35 % flags and 20 % days.
    kind_B1 = draw.unit(1)
    counts_days_B1 = kind_B1 >= 0.8
    value_BS = torch.where(kind_B1 < 0.45, smooth_BS, flag_BS)
    return torch.where(counts_days_B1, days_BS, value_BS), counts_days_B1


def surprises(draw: Seeded, steps: int) -> Tensor:
    """Bursts that nobody announced: a mention, a bot, a competitor out of stock: [B, S]."""
    burst_BNS = draw.intervals(steps, 3, 1.0, 12.0)
    size_BN1 = draw.normal(1.0, 3, 1)
    happens_BN1 = draw.chance(0.25, 3, 1)
    # Most items never make the news.
    eventful_B11 = draw.chance(0.4, 1, 1)
    effect_BNS = burst_BNS * size_BN1 * happens_BN1 * eventful_B11
    return effect_BNS.sum(1)


def counts(draw: Seeded, rate_BS: Tensor) -> Tensor:
    """Units from rates [B, S]: Poisson, negative binomial, hurdle, order multiples, smooth amounts.

    Independent buyers make a Poisson. Real buyers come in crowds, on some days not at all, or buy
    whole packs; what a meter or a till of a chain adds up is smooth.
    """
    steps = rate_BS.shape[1]
    kind_B = draw.choice(COUNT_KINDS)
    kind_B1 = kind_B[:, None]
    # A Poisson whose rate is itself gamma is a negative binomial: sales scatter more than chance.
    shape_B1 = draw.log_uniform(0.4, 100.0, 1)
    gamma_BS = draw.gamma(shape_B1.expand_as(rate_BS))
    mixed_BS = gamma_BS / shape_B1
    # In packs the same units come in fewer and larger orders.
    in_packs_B1 = draw.chance(0.1, 1) > 0
    pack_B = draw.choice(PACKS)
    pack_B1 = pack_B[:, None]
    multiple_B1 = torch.where(in_packs_B1, pack_B1, 1.0)
    scattered_B1 = (kind_B1 == MIXED) | (kind_B1 == HURDLE)
    mean_BS = torch.where(scattered_B1, rate_BS * mixed_BS, rate_BS)
    # A hurdle: on many steps nobody comes at all, on the others they buy as ever.
    luck_BS = draw.unit(steps)
    open_share_B1 = draw.uniform(0.2, 0.9, 1)
    open_BS = (luck_BS < open_share_B1).float()
    hurdle_BS = mean_BS * open_BS
    mean_BS = torch.where(kind_B1 == HURDLE, hurdle_BS, mean_BS)
    count_BS = draw.poisson(mean_BS / multiple_B1) * multiple_B1
    # Smooth amounts scatter by a share of themselves, never below nothing.
    factor_BS = 1.0 + 0.15 * draw.normal(1.0, steps)
    smooth_BS = (rate_BS * factor_BS).clamp(min=0.0)
    return torch.where(kind_B1 == SMOOTH, smooth_BS, count_BS)


def clicks(draw: Seeded, past_BSP: Tensor, rate_BS: Tensor) -> None:
    """Fill views, carts, favourites and checkouts: noisy signals a few steps before the demand."""
    steps = rate_BS.shape[1]
    index_S = draw.index(steps)
    # Views for each unit sold: impulse buys take few, furniture many.
    views_B1 = draw.log_uniform(3.0, 60.0, 1)
    for slot, share in enumerate(FUNNEL_SHARES):
        # The earlier a signal stands in the funnel, the earlier it may come.
        longest_lead = 4 - slot if slot < 3 else 1
        ahead_B1 = draw.integers(0, longest_lead, 1)
        led_BS = index_S + ahead_B1
        led_BS = led_BS.clamp(max=steps - 1)
        # Conversion drifts too, so clicks are a hint and no second target.
        noise_B = draw.uniform(0.0, 0.3)
        memory_B = draw.log_uniform(1.0, 200.0)
        log_noise_BS = draw.walk(noise_B, steps, memory_B)
        demand_BS = rate_BS.gather(1, led_BS)
        mean_BS = demand_BS * views_B1 * share * log_noise_BS.exp()
        past_BSP[..., slot] = draw.poisson(mean_BS)


def stock(draw: Seeded, target_BS: Tensor, past_BSP: Tensor) -> Tensor:
    """Stock-outs become missing targets; in_stock says so where the shop reports it.

    Missing and not 0, since a forecast is of what would have sold.
    """
    steps = target_BS.shape[1]
    out_BNS = draw.intervals(steps, 3, 2.0, 72.0)
    out_BNS = out_BNS * draw.chance(0.4, 3, 1)
    out_BNS = out_BNS * draw.chance(0.3, 1, 1)
    out_BS = out_BNS.amax(1)
    past_BSP[..., IN_STOCK] = 1.0 - out_BS
    return torch.where(out_BS > 0, math.nan, target_BS)
