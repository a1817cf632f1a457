"""When a simulated shop sells: the shape of its day, week and year, closed days and feasts.

Effects are logarithms of a factor. Dimensions: B rows, S steps, K known slots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from freshet.model.features import CLOSED, EFFECT
from freshet.model.phases import WEEK_SHIFT_MS, YEAR_MS, month_turn
from freshet.model.synthetic.seeded import Seeded
from freshet.stream.units import DAY_MS, WEEK_MS


def calendar_profile(draw: Seeded, time_BS: Tensor, resolution_ms: int) -> Tensor:
    """Effect of time of day, of week and of year, about zero over time: [B, S]."""
    effect_BS = year_profile(draw, time_BS)
    if resolution_ms <= DAY_MS:
        effect_BS = effect_BS + week_profile(draw, time_BS)
    if resolution_ms * 2 <= DAY_MS:
        effect_BS = with_day(draw, effect_BS, time_BS)
    return effect_BS


def with_day(draw: Seeded, effect_BS: Tensor, time_BS: Tensor) -> Tensor:
    """The effect and a profile of the day, another one at weekends or from some moment on."""
    usual_BS = day_profile(draw, time_BS)
    other_BS = day_profile(draw, time_BS)
    # In four shops of ten the weekend has another shape of the day.
    weekend_BS = (weekday(time_BS) >= 5).float()
    weekend_BS = weekend_BS * draw.chance(0.4, 1) * draw.uniform(0.2, 1.0, 1)
    effect_BS = effect_BS + usual_BS + weekend_BS * (other_BS - usual_BS)
    # A new profile from some moment on: a drift which nothing announces.
    steps = time_BS.shape[1]
    index_S = torch.arange(steps, device=draw.device)
    late_BS = (index_S > draw.uniform(0.0, 1.0, 1) * steps).float()
    late_BS = late_BS * draw.chance(0.06, 1)
    return effect_BS + late_BS * (other_BS - usual_BS)


def weekday(time_BS: Tensor) -> Tensor:
    """Day of the week, 0 for Monday: int64 [B, S]."""
    return (time_BS + WEEK_SHIFT_MS).remainder(WEEK_MS) // DAY_MS


def day_profile(draw: Seeded, time_BS: Tensor) -> Tensor:
    """A day as harmonics, and for half of the rows one or two rush hours or closed hours."""
    turn_BS = time_BS.remainder(DAY_MS).float() / DAY_MS
    strength_B1 = draw.choice([0.0, 0.4, 1.0, 1.6], [0.1, 0.25, 0.45, 0.2])[:, None]
    effect_BS = torch.zeros_like(turn_BS)
    for harmonic, size in ((1, 1.0), (2, 0.5), (3, 0.3), (4, 0.2)):
        phase_B1 = draw.uniform(0.0, 1.0, 1)
        size_B1 = size * draw.uniform(0.2, 1.0, 1)
        effect_BS += size_B1 * torch.cos(2 * math.pi * harmonic * (turn_BS - phase_B1))
    for _ in range(2):
        # Around midnight the shorter way counts, so that a rush hour may lie there.
        distance_BS = (turn_BS - draw.uniform(0.0, 1.0, 1) + 0.5).remainder(1.0) - 0.5
        width_B1 = draw.log_uniform(0.02, 0.12, 1)
        rush_BS = torch.exp(-0.5 * (distance_BS / width_B1).square())
        effect_BS += draw.chance(0.5, 1) * draw.uniform(0.0, 1.5, 1) * rush_BS
    since_BS = (turn_BS - draw.uniform(0.0, 1.0, 1)).remainder(1.0)
    closed_BS = since_BS < draw.uniform(0.2, 0.6, 1)
    # A closed shop sells next to nothing: six log units below its usual rate.
    return effect_BS * strength_B1 - 6.0 * closed_BS.float() * draw.chance(0.1, 1)


def week_profile(draw: Seeded, time_BS: Tensor) -> Tensor:
    """One effect for each day of the week; weekends differ most, and some Sundays sell nothing."""
    spread_B1 = draw.choice([0.0, 0.1, 0.25, 0.5], [0.1, 0.3, 0.4, 0.2])[:, None]
    effect_B7 = draw.normal(1.0, 7) * spread_B1
    effect_B7[:, 5:] += draw.normal(1.5, 1) * spread_B1
    effect_B7[:, 6:] -= 8.0 * draw.chance(0.06, 1)
    return effect_B7.gather(1, weekday(time_BS)) - effect_B7[:, :5].mean(1, keepdim=True)


def year_profile(draw: Seeded, time_BS: Tensor) -> Tensor:
    """A slow wave or two over the year."""
    turn_BS = _turn_of_year(time_BS)
    effect_BS = torch.zeros_like(turn_BS)
    for harmonic in (1, 2, 4):
        size_B1 = draw.uniform(0.0, 0.5 / harmonic, 1) * draw.chance(0.6, 1)
        phase_B1 = draw.uniform(0.0, 1.0, 1)
        effect_BS += size_B1 * torch.cos(2 * math.pi * (harmonic * turn_BS - phase_B1))
    return effect_BS


def closed_days(draw: Seeded, known_BSK: Tensor, time_BS: Tensor, resolution_ms: int) -> Tensor:
    """1.0 where a shop is closed and its slot says so: a weekday, single days, a long pause."""
    if resolution_ms > DAY_MS:
        return torch.zeros_like(known_BSK[..., 0])
    steps = time_BS.shape[1]
    day_BS = (time_BS // DAY_MS - time_BS[:, :1] // DAY_MS).long()
    # Drawn by the day, so that all hours of a day are closed together.
    num_days = steps * resolution_ms // DAY_MS + 2
    free_BS = draw.chance(0.025, num_days).gather(1, day_BS)
    rest_BS = (weekday(time_BS) == 6).float() * draw.chance(0.6, 1)
    week, two_months = 7 * DAY_MS / resolution_ms, 60 * DAY_MS / resolution_ms
    pause_BNS, _ = draw.intervals(steps, 1, week, two_months)
    pause_BS = pause_BNS[:, 0] * draw.chance(0.1, 1)
    closed_BS = torch.maximum(torch.maximum(free_BS, rest_BS), pause_BS) * draw.chance(0.22, 1)
    known_BSK[..., CLOSED] = closed_BS
    return closed_BS


def special_days(draw: Seeded, time_BS: Tensor, closed_BS: Tensor, resolution_ms: int) -> Tensor:
    """Effect of dates that come back: feasts, edges of the month, days next to closed ones."""
    effect_BS = _feasts(draw, time_BS)
    if resolution_ms <= DAY_MS:
        # What the first and the last days of a month do: wages come, rents are due.
        turn_BS = month_turn(time_BS).float()
        begin_B1 = draw.normal(0.15, 1) * draw.chance(0.4, 1)
        effect_BS += begin_B1 * (turn_BS < draw.uniform(0.05, 0.3, 1)).float()
        end_B1 = draw.normal(0.15, 1) * draw.chance(0.4, 1)
        effect_BS += end_B1 * (turn_BS > draw.uniform(0.7, 0.95, 1)).float()
        # Who finds a shop closed comes the day before, or the day after.
        day = max(DAY_MS // resolution_ms, 1)
        for shift in (day, -day):
            size_B1 = draw.normal(0.25, 1) * draw.chance(0.6, 1)
            effect_BS += size_B1 * closed_BS.roll(shift, 1) * (1.0 - closed_BS)
    return effect_BS


def _feasts(draw: Seeded, time_BS: Tensor) -> Tensor:
    """Up to three dates of the year towards which sales rise for weeks and then fall in days."""
    turn_BS = _turn_of_year(time_BS)
    effect_BS = torch.zeros_like(turn_BS)
    for _ in range(3):
        ahead_BS = (draw.uniform(0.0, 1.0, 1) - turn_BS + 0.5).remainder(1.0) - 0.5
        rise_B1 = draw.log_uniform(0.005, 0.08, 1)
        fall_B1 = draw.log_uniform(0.002, 0.03, 1)
        peak_BS = torch.exp(-ahead_BS.abs() / torch.where(ahead_BS > 0, rise_B1, fall_B1))
        effect_BS += peak_BS * draw.normal(0.6, 1) * draw.chance(0.35, 1)
    return effect_BS


def tell_effect(draw: Seeded, known_BSK: Tensor, special_BS: Tensor, planned_BS: Tensor) -> None:
    """Fill the slot `effect` for a third of the rows: what a shop's past tells of all its series.

    That is what special days do, and in half of those rows also what the covariates do to the
    average series, of which each has its own share. It is told a little wrong, as estimates are.
    """
    steps = special_BS.shape[1]
    wrong_BS = draw.walk(draw.log_uniform(0.005, 0.1), steps, draw.log_uniform(2.0, 60.0))
    usual_BS = planned_BS * draw.uniform(0.4, 1.4, 1) * draw.chance(0.5, 1)
    told_BS = special_BS * draw.uniform(0.5, 1.3, 1) + usual_BS + wrong_BS
    known_BSK[..., EFFECT] = torch.where(draw.chance(0.35, 1) > 0, told_BS, math.nan)


def _turn_of_year(time_BS: Tensor) -> Tensor:
    # In double precision: milliseconds of a year have more digits than a float32.
    return time_BS.remainder(YEAR_MS).double().div(YEAR_MS).float()
