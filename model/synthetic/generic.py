"""Series that are no shop: trend and season, smooth paths, rare demand, walks, spikes.

A forecaster also meets car parts, energy and visits, and a network that saw shops alone would
find a shop in everything. Each kind here is one simple law, drawn in all its strengths.
Dimensions: B rows, S steps, N intervals.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from freshet.model.phases import calendar_periods
from freshet.model.synthetic.seeded import FOREVER, Seeded

HARMONICS = 6  # six draw a corner sharply enough; more are beyond what a short season shows


def periods(draw: Seeded, resolution_ms: int) -> Tensor:
    """A season length per row, half of them calendar ones: [B]."""
    short, long = calendar_periods(resolution_ms)
    # The other half has any length, or the network would learn the calendar instead of looking.
    own_B = draw.log_uniform(3.0, 200.0)
    own_B = own_B.round()
    follows_calendar_B = draw.chance(0.5) > 0
    shares = ((short, 0.6), (long, 0.4))
    calendar_B = draw.choice(shares)
    return torch.where(follows_calendar_B, calendar_B, own_B)


def wave(draw: Seeded, steps: int, period_B: Tensor) -> Tensor:
    """A periodic shape of six harmonics, unit spread or so: [B, S]."""
    index_S = draw.index(steps)
    cycles_BS = index_S / period_B[:, None]
    turn_BS = cycles_BS + draw.unit(1)
    # How fast harmonics fade decides whether the shape is smooth or has corners.
    decay_B1 = draw.uniform(0.3, 2.0, 1)
    total_BS = torch.zeros_like(turn_BS)
    for harmonic in range(1, HARMONICS + 1):
        size_B1 = draw.normal(1.0, 1)
        size_B1 = size_B1 / harmonic**decay_B1
        phase_B1 = draw.unit(1)
        angle_BS = harmonic * turn_BS + phase_B1
        total_BS += size_B1 * torch.cos(math.tau * angle_BS)
    return total_BS


def trend_season(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """Trend plus up to two seasons plus drift plus noise: [B, S]."""
    # A straight trend, measured over the whole series, in six rows of ten.
    share_S = draw.index(steps) / steps
    slope_B1 = draw.normal(1.0, 1)
    trending_B1 = draw.chance(0.6, 1)
    path_BS = slope_B1 * share_S * trending_B1
    # One season always and a weaker second one in half of the rows, as a day lies within a week.
    first_period_B = periods(draw, resolution_ms)
    first_BS = wave(draw, steps, first_period_B)
    first_size_B1 = draw.uniform(0.0, 0.8, 1)
    path_BS = path_BS + first_BS * first_size_B1
    second_period_B = periods(draw, resolution_ms)
    second_BS = wave(draw, steps, second_period_B)
    second_size_B1 = draw.uniform(0.0, 0.5, 1)
    twofold_B1 = draw.chance(0.5, 1)
    path_BS += second_BS * second_size_B1 * twofold_B1
    # A level that wanders, in half of the rows; the others do come back to where they were.
    drift_B = draw.uniform(0.0, 0.6)
    drift_B = drift_B * draw.chance(0.5)
    memory_B = draw.log_uniform(5.0, 500.0)
    path_BS += draw.walk(drift_B, steps, memory_B)
    # From hardly any noise to as much as the season, so that a band must be read off the series.
    noise_BS = draw.normal(1.0, steps)
    noise_size_B1 = draw.log_uniform(0.01, 0.7, 1)
    path_BS += noise_BS * noise_size_B1
    return positive(draw, path_BS)


def gaussian_process(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """Sums and products of smooth paths and periodic ones: [B, S]."""
    ones_B = draw.ones()
    smooth_memory_B = draw.log_uniform(3.0, 400.0)
    smooth_BS = draw.walk(ones_B, steps, smooth_memory_B)
    # A season whose swing grows and shrinks slowly: the product of two kernels.
    gate_memory_B = draw.log_uniform(50.0, 800.0)
    gate_BS = draw.walk(ones_B, steps, gate_memory_B)
    gate_BS = gate_BS * 0.5 + 1.0
    period_B = periods(draw, resolution_ms)
    season_BS = wave(draw, steps, period_B)
    season_BS = season_BS * 0.7
    gated_B1 = draw.chance(0.5, 1) > 0
    mixed_BS = torch.where(gated_B1, season_BS * gate_BS, season_BS)
    # Their sum, from one alone to the other alone.
    smooth_BS = smooth_BS * draw.unit(1)
    mixed_BS = mixed_BS * draw.unit(1)
    path_BS = smooth_BS + mixed_BS
    noise_BS = draw.normal(1.0, steps)
    noise_size_B1 = draw.log_uniform(0.005, 0.5, 1)
    noise_BS = noise_BS * noise_size_B1
    return positive(draw, path_BS + noise_BS)


def positive(draw: Seeded, path_BS: Tensor) -> Tensor:
    """A path around zero as amounts: offset and clipped, or exponential; half are counted."""
    size_B1 = draw.log_uniform(0.3, 3000.0, 1)
    # Seasons that add to a level, or that multiply it: real series do either.
    offset_B1 = draw.uniform(0.5, 5.0, 1)
    added_BS = path_BS + offset_B1
    added_BS = added_BS.clamp(min=0.0)
    bounded_BS = path_BS.clamp(-6.0, 4.0)
    grown_BS = bounded_BS.exp()
    adds_B1 = draw.chance(0.5, 1) > 0
    amount_BS = size_B1 * torch.where(adds_B1, added_BS, grown_BS)
    # Counted, small amounts scatter by themselves; the rest stays smooth, as megawatts do.
    counted_B1 = draw.chance(0.5, 1) > 0
    count_BS = draw.poisson(amount_BS)
    return torch.where(counted_B1, count_BS, amount_BS)


def intermittent(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """Demand that is mostly zero: its chance drifts slowly and may follow a season, sizes vary."""
    # The chance of a sale, from one step of two to one of two hundred, as spare parts have it.
    chance_B1 = draw.log_uniform(0.005, 0.5, 1)
    period_B = periods(draw, resolution_ms)
    season_BS = wave(draw, steps, period_B)
    season_BS = season_BS * draw.uniform(0.0, 0.7, 1)
    season_BS = season_BS * draw.chance(0.5, 1)
    drift_spread_B = draw.uniform(0.0, 0.7)
    drift_memory_B = draw.log_uniform(50.0, 800.0)
    drift_BS = draw.walk(drift_spread_B, steps, drift_memory_B)
    # A part is launched, or superseded: from some moment on it sells ever more, or ever less.
    share_S = draw.index(steps) / steps
    moment_B1 = draw.unit(1)
    since_BS = (share_S - moment_B1).clamp(min=0.0)
    slope_B1 = draw.normal(3.0, 1)
    turning_B1 = draw.chance(0.35, 1)
    drift_BS = drift_BS + slope_B1 * since_BS * turning_B1
    # Whether anything sells is a matter of its own, apart from how much (Croston 1972).
    luck_BS = draw.unit(steps)
    log_factor_BS = season_BS + drift_BS
    log_factor_BS = log_factor_BS.clamp(-6.0, 2.0)
    now_BS = chance_B1 * log_factor_BS.exp()
    happens_BS = luck_BS < now_BS
    # At least one piece each time; now and then many.
    more_B1 = draw.log_uniform(0.05, 20.0, 1)
    scatter_BS = draw.normal(0.5, steps).exp()
    size_BS = 1.0 + draw.poisson(more_B1 * scatter_BS)
    return happens_BS.float() * size_BS


def walks(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """Random walks, from none to all of whose mean is taken away: [B, S].

    Here the last value is the best forecast and the band must widen with the root of the steps.
    """
    shocks_BS = draw.normal(1.0, steps)
    shocks_BS = shocks_BS * draw.log_uniform(0.005, 0.1, 1)
    path_BS = shocks_BS.cumsum(1)
    mean_B1 = path_BS.mean(1, keepdim=True)
    centred_B1 = draw.unit(1)
    return positive(draw, path_BS - mean_B1 * centred_B1)


def spikes_and_steps(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """A constant with sudden steps, and regular or irregular spikes: [B, S]."""
    # Up to four jumps to another level that stays: old history must be forgotten then.
    after_BNS = draw.intervals(steps, 4, *FOREVER)
    height_BN1 = draw.normal(0.7, 4, 1)
    jumps_BN1 = draw.chance(0.5, 4, 1)
    jump_BNS = after_BNS * height_BN1 * jumps_BN1
    path_BS = jump_BNS.sum(1)
    # Spikes by the clock can be foretold, irregular ones only widen the band.
    index_S = draw.index(steps)
    period_B1 = periods(draw, resolution_ms)[:, None]
    shift_B1 = draw.unit(1) * period_B1
    shifted_BS = index_S + shift_B1
    phase_BS = shifted_BS.remainder(period_B1)
    regular_BS = (phase_BS < 1.0).float()
    luck_BS = draw.unit(steps)
    rate_B1 = draw.log_uniform(0.003, 0.03, 1)
    random_BS = (luck_BS < rate_B1).float()
    by_clock_B1 = draw.chance(0.6, 1) > 0
    spike_BS = torch.where(by_clock_B1, regular_BS, random_BS)
    spike_BS = spike_BS * draw.uniform(0.5, 3.0, 1)
    noise_BS = draw.normal(1.0, steps)
    noise_BS = noise_BS * draw.log_uniform(0.01, 0.4, 1)
    return positive(draw, path_BS + spike_BS + noise_BS)
