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
    """Rows of one shop-like process each.

    A log rate is built up from what is announced (calendar, plans, closed days, the shop's own
    covariates) and what is not (drift, bursts, noise); sales are counts drawn from that rate, and
    clicks are drawn from the same rate a few steps ahead, so that they carry news of it.
    """
    time_BS = start_ms_B[:, None] + torch.arange(steps, device=draw.device) * resolution_ms
    past_BSP, known_BSK = empty_slots(draw.rows, steps, draw.device)
    # Rare sellers too: networks that saw none of them lose to seasonal naive on real shops.
    lowest, highest = (0.03, 300.0) if resolution_ms < DAY_MS else (0.05, 15_000.0)
    usual_B = draw.log_uniform(lowest, highest)
    log_rate_BS = usual_B.log()[:, None] + calendar_profile(draw, time_BS, resolution_ms)
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
    # What is dear sells less often: price and usual sales hang together, loosely.
    log_price_B = 3.0 - 0.3 * usual_B.log() + draw.normal(1.0)
    return Series(target_BS, past_BSP, known_BSK, log_price_B, draw.log_uniform(1.0, 2000.0))


def wander(draw: Seeded, steps: int) -> Tensor:
    """Trend, slow drift and short memory of the rate: log units [B, S], unannounced but lasting."""
    index_S = torch.arange(steps, device=draw.device) / steps
    trend_B1 = draw.normal(0.5, 1) * draw.chance(0.5, 1)
    slow_B = draw.uniform(0.0, 0.4) * draw.chance(0.6)
    slow_BS = draw.walk(slow_B, steps, draw.log_uniform(30.0, 600.0))
    short_B = draw.uniform(0.0, 0.3) * draw.chance(0.5)
    short_BS = draw.walk(short_B, steps, draw.log_uniform(1.0, 24.0))
    # One sudden shift, such as a competitor that opens or a page that is found.
    moment_BS = (index_S > draw.uniform(0.0, 1.1, 1)).float()
    shift_BS = moment_BS * draw.normal(0.8, 1) * draw.chance(0.15, 1)
    # An item at the end of its life: gone within a fraction of the steps that are left.
    since_BS = (index_S - draw.uniform(0.5, 1.0, 1)).clamp(min=0.0)
    fading_BS = -6.0 * since_BS * 3.0 * draw.chance(0.03, 1)
    return trend_B1 * (index_S - 0.5) + slow_BS + short_BS + shift_BS + fading_BS


def free_effects(draw: Seeded, known_BSK: Tensor) -> Tensor:
    """What a shop defines itself (weather, footfall, days open): some matters, some is noise."""
    steps = known_BSK.shape[1]
    ones_B = torch.ones(draw.rows, device=draw.device)
    effect_BS = torch.zeros_like(known_BSK[..., 0])
    for slot in range(FIRST_FREE, known_BSK.shape[2]):
        smooth_BS = draw.walk(ones_B, steps, draw.log_uniform(2.0, 60.0))
        flag_BS = draw.intervals(steps, 6, 1.0, 24.0)[0].amax(1)
        # Of seven days a few are lost now and then, and sales with them.
        open_BS = 7.0 - draw.chance(0.15, steps) * draw.integers(1, 4, steps)
        kind_B1 = draw.uniform(0.0, 1.0, 1)
        counts_days_B1 = kind_B1 >= 0.8
        value_BS = torch.where(kind_B1 < 0.45, smooth_BS, flag_BS)
        value_BS = torch.where(counts_days_B1, open_BS, value_BS)
        # Sales go with the days that are open, so the effect of those is their logarithm.
        told_BS = torch.where(counts_days_B1, (value_BS / 7.0).log() * 2.5, value_BS)
        some_B1, more_B1 = draw.normal(0.4, 1), draw.uniform(0.2, 0.5, 1)
        size_B1 = torch.where(counts_days_B1, more_B1, some_B1) * draw.chance(0.6, 1)
        present_B1 = draw.chance(0.12, 1)
        effect_BS += size_B1 * told_BS * present_B1
        # A covariate comes in any unit.
        scale_B1 = draw.log_uniform(0.1, 100.0, 1)
        known_BSK[..., slot] = torch.where(present_B1 > 0, value_BS * scale_B1, math.nan)
    return effect_BS


def surprises(draw: Seeded, steps: int) -> Tensor:
    """Bursts that nobody announced: a mention, a bot, a competitor out of stock."""
    burst_BNS, _ = draw.intervals(steps, 3, 1.0, 12.0)
    size_BN1 = draw.normal(1.0, 3, 1)
    happens_BN1 = draw.chance(0.25, 3, 1)
    return (burst_BNS * size_BN1 * happens_BN1 * draw.chance(0.4, 1, 1)).sum(1)


def counts(draw: Seeded, rate_BS: Tensor) -> Tensor:
    """Units from rates: Poisson, negative binomial, hurdle, order multiples or smooth amounts."""
    steps = rate_BS.shape[1]
    kind_B1 = draw.choice([POISSON, MIXED, HURDLE, SMOOTH], [0.45, 0.37, 0.09, 0.09])[:, None]
    # A Poisson whose rate is itself gamma is a negative binomial: sales scatter more than chance.
    shape_B1 = draw.log_uniform(0.4, 100.0, 1)
    mixed_BS = draw.gamma(shape_B1.expand_as(rate_BS)) / shape_B1
    in_packs_B1 = draw.chance(0.1, 1) > 0
    pack_B1 = draw.choice([2.0, 3.0, 6.0, 12.0], [0.4, 0.2, 0.25, 0.15])[:, None]
    multiple_B1 = torch.where(in_packs_B1, pack_B1, 1.0)
    scattered_B1 = (kind_B1 == MIXED) | (kind_B1 == HURDLE)
    mean_BS = torch.where(scattered_B1, rate_BS * mixed_BS, rate_BS)
    # A hurdle: on many steps nobody comes at all, on the others they buy as ever.
    open_BS = (draw.uniform(0.0, 1.0, steps) < draw.uniform(0.2, 0.9, 1)).float()
    mean_BS = torch.where(kind_B1 == HURDLE, mean_BS * open_BS, mean_BS)
    count_BS = draw.poisson(mean_BS / multiple_B1) * multiple_B1
    smooth_BS = (rate_BS * (1.0 + 0.15 * draw.normal(1.0, steps))).clamp(min=0.0)
    return torch.where(kind_B1 == SMOOTH, smooth_BS, count_BS)


def clicks(draw: Seeded, past_BSP: Tensor, rate_BS: Tensor) -> None:
    """Fill views, carts, favourites and checkouts: noisy signals a few steps before the demand."""
    steps = rate_BS.shape[1]
    index_S = torch.arange(steps, device=draw.device)
    ratio_B1 = draw.log_uniform(3.0, 60.0, 1)
    for slot, share in enumerate((1.0, 0.2, 0.1, 0.08)):
        # The earlier a signal stands in the funnel, the earlier it may come.
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
