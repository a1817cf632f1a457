"""Series that are no shop: trend and season, smooth paths, rare demand, walks, spikes.

Dimensions: B rows, S steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from freshet.model.phases import calendar_periods
from freshet.model.synthetic.seeded import Seeded


def periods(draw: Seeded, resolution_ms: int) -> Tensor:
    """A season length per row, half of them calendar ones: [B]."""
    short, long = calendar_periods(resolution_ms)
    own_B = draw.log_uniform(3.0, 200.0).round()
    return torch.where(draw.chance(0.5) > 0, draw.choice([short, long], [0.6, 0.4]), own_B)


def wave(draw: Seeded, steps: int, period_B: Tensor) -> Tensor:
    """A periodic shape of six harmonics, unit spread or so: [B, S]."""
    index_S = torch.arange(steps, device=draw.device)
    turn_BS = index_S / period_B[:, None] + draw.uniform(0.0, 1.0, 1)
    # How fast harmonics fade decides whether the shape is smooth or has corners.
    decay_B1 = draw.uniform(0.3, 2.0, 1)
    total_BS = torch.zeros_like(turn_BS)
    for harmonic in range(1, 7):
        size_B1 = draw.normal(1.0, 1) / harmonic**decay_B1
        phase_B1 = draw.uniform(0.0, 1.0, 1)
        total_BS += size_B1 * torch.cos(2 * math.pi * (harmonic * turn_BS + phase_B1))
    return total_BS


def trend_season(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """Trend plus up to two seasons plus drift plus noise."""
    index_S = torch.arange(steps, device=draw.device) / steps
    path_BS = draw.normal(1.0, 1) * index_S * draw.chance(0.6, 1)
    first_BS = wave(draw, steps, periods(draw, resolution_ms)) * draw.uniform(0.0, 0.8, 1)
    path_BS = path_BS + first_BS
    second_BS = wave(draw, steps, periods(draw, resolution_ms)) * draw.uniform(0.0, 0.5, 1)
    path_BS += second_BS * draw.chance(0.5, 1)
    drift_B = draw.uniform(0.0, 0.6) * draw.chance(0.5)
    path_BS += draw.walk(drift_B, steps, draw.log_uniform(5.0, 500.0))
    path_BS += draw.normal(1.0, steps) * draw.log_uniform(0.01, 0.7, 1)
    return positive(draw, path_BS)


def gaussian_process(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """Sums and products of smooth paths and periodic ones."""
    ones = torch.ones(draw.rows, device=draw.device)
    smooth_BS = draw.walk(ones, steps, draw.log_uniform(3.0, 400.0))
    gate_BS = draw.walk(ones, steps, draw.log_uniform(50.0, 800.0)) * 0.5 + 1.0
    season_BS = wave(draw, steps, periods(draw, resolution_ms)) * 0.7
    mixed_BS = torch.where(draw.chance(0.5, 1) > 0, season_BS * gate_BS, season_BS)
    path_BS = smooth_BS * draw.uniform(0.0, 1.0, 1) + mixed_BS * draw.uniform(0.0, 1.0, 1)
    return positive(draw, path_BS + draw.normal(1.0, steps) * draw.log_uniform(0.005, 0.5, 1))


def positive(draw: Seeded, path_BS: Tensor) -> Tensor:
    """A path around zero as amounts: offset and clipped, or exponential; half are counted."""
    size_B1 = draw.log_uniform(0.3, 3000.0, 1)
    added_BS = (path_BS + draw.uniform(0.5, 5.0, 1)).clamp(min=0.0)
    grown_BS = path_BS.clamp(-6.0, 4.0).exp()
    amount_BS = size_B1 * torch.where(draw.chance(0.5, 1) > 0, added_BS, grown_BS)
    return torch.where(draw.chance(0.5, 1) > 0, draw.poisson(amount_BS), amount_BS)


def intermittent(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """Demand that is mostly zero: its chance drifts slowly and may follow a season, sizes vary."""
    chance_B1 = draw.log_uniform(0.005, 0.5, 1)
    season_BS = wave(draw, steps, periods(draw, resolution_ms)) * draw.uniform(0.0, 0.7, 1)
    season_BS = season_BS * draw.chance(0.5, 1)
    drift_BS = draw.walk(draw.uniform(0.0, 0.7), steps, draw.log_uniform(50.0, 800.0))
    # A part is launched, or superseded: from some moment on it sells ever more, or ever less.
    turn_S = torch.arange(steps, device=draw.device) / steps
    since_BS = (turn_S - draw.uniform(0.0, 1.0, 1)).clamp(min=0.0)
    drift_BS = drift_BS + draw.normal(3.0, 1) * since_BS * draw.chance(0.35, 1)
    luck_BS = draw.uniform(0.0, 1.0, steps)
    happens_BS = luck_BS < chance_B1 * (season_BS + drift_BS).clamp(-6.0, 2.0).exp()
    # At least one piece each time; now and then many.
    more_B1 = draw.log_uniform(0.05, 20.0, 1)
    size_BS = 1.0 + draw.poisson(more_B1 * draw.normal(0.5, steps).exp())
    return happens_BS.float() * size_BS


def walks(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """Multiplicative random walks and mean-reverting ones."""
    shocks_BS = draw.normal(1.0, steps) * draw.log_uniform(0.005, 0.1, 1)
    path_BS = shocks_BS.cumsum(1)
    back_BS = path_BS - path_BS.mean(1, keepdim=True) * draw.uniform(0.0, 1.0, 1)
    return positive(draw, back_BS)


def spikes_and_steps(draw: Seeded, steps: int, resolution_ms: int) -> Tensor:
    """A constant with sudden steps, and regular or irregular spikes."""
    index_S = torch.arange(steps, device=draw.device)
    step_BNS, _ = draw.intervals(steps, 4, 1e9, 2e9)
    height_BN1 = draw.normal(0.7, 4, 1)
    path_BS = (step_BNS * height_BN1 * draw.chance(0.5, 4, 1)).sum(1)
    period_B1 = periods(draw, resolution_ms)[:, None]
    phase_BS = (index_S + draw.uniform(0.0, 1.0, 1) * period_B1).remainder(period_B1)
    regular_BS = (phase_BS < 1.0).float()
    random_BS = (draw.uniform(0.0, 1.0, steps) < draw.log_uniform(0.003, 0.03, 1)).float()
    spike_BS = torch.where(draw.chance(0.6, 1) > 0, regular_BS, random_BS)
    spike_BS = spike_BS * draw.uniform(0.5, 3.0, 1)
    noise_BS = draw.normal(1.0, steps) * draw.log_uniform(0.01, 0.4, 1)
    return positive(draw, path_BS + spike_BS + noise_BS)
