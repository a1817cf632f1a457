"""When a simulated shop sells: the shape of its day, week and year, closed days and feasts.

Effects are logarithms of a factor, since seasons multiply: a Saturday sells half as much again in a
large shop and in a small one. Dimensions: B rows, S steps, D days, K known slots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from freshet.model.features import CLOSED, EFFECT
from freshet.model.phases import WEEK_SHIFT_MS, YEAR_MS, month_turn
from freshet.model.synthetic.seeded import Seeded
from freshet.stream.units import DAY_MS, WEEK_MS

SATURDAY, SUNDAY = 5, 6
# A closed shop sells next to nothing: six log units are a 400th of its usual rate.
CLOSED_HOURS = 6.0
CLOSED_SUNDAY = 8.0
MAX_FEASTS = 3
# The harmonics of a day and how strong each may be: a day is smooth but for its rush hours.
DAY_HARMONICS = ((1, 1.0), (2, 0.5), (3, 0.3), (4, 0.2))
YEAR_HARMONICS = (1, 2, 4)
# One row of ten sells alike at all hours, as a server does; a fifth has very sharp days.
DAY_STRENGTHS = (
    (0.0, 0.1),
    (0.4, 0.25),
    (1.0, 0.45),
    (1.6, 0.2),
)
# A tenth of the rows knows no week; in a fifth, good days sell three times what poor ones do.
WEEK_SPREADS = (
    (0.0, 0.1),
    (0.1, 0.3),
    (0.25, 0.4),
    (0.5, 0.2),
)


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
    # In four shops of ten the weekend has another shape of the day: people sleep longer.
    weekend_BS = (weekday(time_BS) >= SATURDAY).float()
    weekend_BS = weekend_BS * draw.chance(0.4, 1)
    weekend_BS = weekend_BS * draw.uniform(0.2, 1.0, 1)
    difference_BS = other_BS - usual_BS
    effect_BS = effect_BS + usual_BS + weekend_BS * difference_BS
    # A new profile from some moment on: a drift which nothing announces.
    steps = time_BS.shape[1]
    index_S = draw.index(steps)
    moment_B1 = draw.unit(1) * steps
    late_BS = (index_S > moment_B1).float()
    late_BS = late_BS * draw.chance(0.06, 1)
    return effect_BS + late_BS * difference_BS


def weekday(time_BS: Tensor) -> Tensor:
    """Day of the week, 0 for Monday: int64 [B, S]."""
    of_week_ms_BS = (time_BS + WEEK_SHIFT_MS).remainder(WEEK_MS)
    return of_week_ms_BS // DAY_MS


def day_profile(draw: Seeded, time_BS: Tensor) -> Tensor:
    """A day as harmonics, with up to two rush hours, and with closed hours in some rows: [B, S]."""
    turn_BS = time_BS.remainder(DAY_MS).float() / DAY_MS
    strength_B = draw.choice(DAY_STRENGTHS)
    strength_B1 = strength_B[:, None]
    effect_BS = torch.zeros_like(turn_BS)
    for harmonic, size in DAY_HARMONICS:
        phase_B1 = draw.unit(1)
        size_B1 = size * draw.uniform(0.2, 1.0, 1)
        angle_BS = math.tau * harmonic * (turn_BS - phase_B1)
        effect_BS += size_B1 * torch.cos(angle_BS)
    for _ in range(2):
        effect_BS += _rush_hour(draw, turn_BS)
    # A shop with opening hours: closed for a fifth to three fifths of the day.
    shutting_B1 = draw.unit(1)
    since_BS = (turn_BS - shutting_B1).remainder(1.0)
    closed_BS = since_BS < draw.uniform(0.2, 0.6, 1)
    has_hours_B1 = draw.chance(0.1, 1)
    return effect_BS * strength_B1 - CLOSED_HOURS * closed_BS.float() * has_hours_B1


def _rush_hour(draw: Seeded, turn_BS: Tensor) -> Tensor:
    """A bell around some time of the day, half an hour to three hours wide, or nothing: [B, S]."""
    middle_B1 = draw.unit(1)
    # Around midnight the shorter way counts, so that a rush hour may lie there.
    distance_BS = (turn_BS - middle_B1 + 0.5).remainder(1.0) - 0.5
    width_B1 = draw.log_uniform(0.02, 0.12, 1)
    bell_BS = torch.exp(-0.5 * (distance_BS / width_B1).square())
    happens_B1 = draw.chance(0.5, 1)
    height_B1 = draw.uniform(0.0, 1.5, 1)
    return happens_B1 * height_B1 * bell_BS


def week_profile(draw: Seeded, time_BS: Tensor) -> Tensor:
    """One effect for each day of the week: [B, S].

    Weekends differ most, and some Sundays sell nothing.
    """
    spread_B = draw.choice(WEEK_SPREADS)
    spread_B1 = spread_B[:, None]
    effect_B7 = draw.normal(1.0, 7) * spread_B1
    effect_B7[:, SATURDAY:] += draw.normal(1.5, 1) * spread_B1
    effect_B7[:, SUNDAY:] -= CLOSED_SUNDAY * draw.chance(0.06, 1)
    # About zero from Monday to Friday, so that a closed Sunday does not raise the other days.
    workday_B1 = effect_B7[:, :SATURDAY].mean(1, keepdim=True)
    return effect_B7.gather(1, weekday(time_BS)) - workday_B1


def year_profile(draw: Seeded, time_BS: Tensor) -> Tensor:
    """A slow wave or two over the year: [B, S]."""
    turn_BS = _turn_of_year(time_BS)
    effect_BS = torch.zeros_like(turn_BS)
    for harmonic in YEAR_HARMONICS:
        # Summer and winter weigh more than quarters, as in what is worn, drunk and heated.
        size_B1 = draw.uniform(0.0, 0.5 / harmonic, 1)
        size_B1 = size_B1 * draw.chance(0.6, 1)
        phase_B1 = draw.unit(1)
        angle_BS = math.tau * (harmonic * turn_BS - phase_B1)
        effect_BS += size_B1 * torch.cos(angle_BS)
    return effect_BS


def closed_days(
    draw: Seeded,
    known_BSK: Tensor,
    time_BS: Tensor,
    resolution_ms: int,
) -> Tensor:
    """1.0 where a shop is closed and its slot says so: a weekday, single days, a long pause."""
    if resolution_ms > DAY_MS:
        return torch.zeros_like(known_BSK[..., 0])
    steps = time_BS.shape[1]
    # Holidays fall on one day of forty. They are drawn by the day, so that all hours of a day are
    # closed together.
    day_BS = time_BS // DAY_MS
    from_first_BS = (day_BS - day_BS[:, :1]).long()
    num_days = steps * resolution_ms // DAY_MS + 2
    holiday_BD = draw.chance(0.025, num_days)
    holiday_BS = holiday_BD.gather(1, from_first_BS)
    sunday_BS = (weekday(time_BS) == SUNDAY).float()
    rest_BS = sunday_BS * draw.chance(0.6, 1)
    # Refurbishments and seasonal breaks last from a week to two months.
    week_steps = 7 * DAY_MS / resolution_ms
    two_months_steps = 60 * DAY_MS / resolution_ms
    pause_BNS = draw.intervals(steps, 1, week_steps, two_months_steps)
    pause_BS = pause_BNS[:, 0] * draw.chance(0.1, 1)
    closed_BS = torch.maximum(holiday_BS, rest_BS)
    closed_BS = torch.maximum(closed_BS, pause_BS)
    # Most of what is sold online never closes.
    closed_BS = closed_BS * draw.chance(0.22, 1)
    known_BSK[..., CLOSED] = closed_BS
    return closed_BS


def special_days(
    draw: Seeded,
    time_BS: Tensor,
    closed_BS: Tensor,
    resolution_ms: int,
) -> Tensor:
    """Effect of dates that come back: feasts, edges of the month, days next to closed ones."""
    effect_BS = _feasts(draw, time_BS)
    if resolution_ms > DAY_MS:
        return effect_BS
    # What the first and the last days of a month do: wages come, rents are due.
    turn_BS = month_turn(time_BS).float()
    begin_B1 = draw.normal(0.15, 1)
    begin_B1 = begin_B1 * draw.chance(0.4, 1)
    begin_ends_B1 = draw.uniform(0.05, 0.3, 1)
    effect_BS += begin_B1 * (turn_BS < begin_ends_B1).float()
    end_B1 = draw.normal(0.15, 1)
    end_B1 = end_B1 * draw.chance(0.4, 1)
    end_begins_B1 = draw.uniform(0.7, 0.95, 1)
    effect_BS += end_B1 * (turn_BS > end_begins_B1).float()
    # Who finds a shop closed comes the day before, or the day after.
    day_steps = max(DAY_MS // resolution_ms, 1)
    for shift in (day_steps, -day_steps):
        size_B1 = draw.normal(0.25, 1)
        size_B1 = size_B1 * draw.chance(0.6, 1)
        beside_BS = closed_BS.roll(shift, 1)
        effect_BS += size_B1 * beside_BS * (1.0 - closed_BS)
    return effect_BS


def _feasts(draw: Seeded, time_BS: Tensor) -> Tensor:
    """Up to three dates of the year towards which sales rise for weeks and then fall in days."""
    turn_BS = _turn_of_year(time_BS)
    effect_BS = torch.zeros_like(turn_BS)
    for _ in range(MAX_FEASTS):
        date_B1 = draw.unit(1)
        # The shorter way round the year, so that December's feast reaches into January.
        ahead_BS = (date_B1 - turn_BS + 0.5).remainder(1.0) - 0.5
        # Presents are bought over two days to a month before, and for eleven days after at most.
        rise_B1 = draw.log_uniform(0.005, 0.08, 1)
        fall_B1 = draw.log_uniform(0.002, 0.03, 1)
        width_BS = torch.where(ahead_BS > 0, rise_B1, fall_B1)
        peak_BS = torch.exp(-ahead_BS.abs() / width_BS)
        size_B1 = draw.normal(0.6, 1)
        happens_B1 = draw.chance(0.35, 1)
        effect_BS += peak_BS * size_B1 * happens_B1
    return effect_BS


def tell_effect(
    draw: Seeded,
    known_BSK: Tensor,
    special_BS: Tensor,
    planned_BS: Tensor,
) -> None:
    """Fill the slot `effect` for a third of the rows: what a shop's past tells of all its series.

    That is what special days do, and in half of those rows also what the covariates do to the
    average series, of which each has its own share. It is told a little wrong, as estimates are.
    """
    steps = special_BS.shape[1]
    error_B = draw.log_uniform(0.005, 0.1)
    error_memory_B = draw.log_uniform(2.0, 60.0)
    error_BS = draw.walk(error_B, steps, error_memory_B)
    # This row's share of what all series do: the network must learn how far to follow.
    own_share_B1 = draw.uniform(0.4, 1.4, 1)
    told_B1 = draw.chance(0.5, 1)
    covariates_BS = planned_BS * own_share_B1 * told_B1
    dates_BS = special_BS * draw.uniform(0.5, 1.3, 1)
    effect_BS = dates_BS + covariates_BS + error_BS
    filled_B1 = draw.chance(0.35, 1) > 0
    known_BSK[..., EFFECT] = torch.where(filled_B1, effect_BS, math.nan)


def _turn_of_year(time_BS: Tensor) -> Tensor:
    # In double precision: milliseconds of a year have more digits than a float32.
    of_year_BS = time_BS.remainder(YEAR_MS).double()
    return of_year_BS.div(YEAR_MS).float()
