"""What each series did at the same phase lately: the network's view of season, level and noise.

Masked means over quiet steps and one slope per known covariate, computed before the cutoff and
given for every step of context and horizon, so that a small network need not learn to average over
patches whose length divides no day.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, G groups of steps, X stacked values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.batch import KNOWN_SLOTS
from model.features import DAY_MS, WEEK_MS, WEEK_SHIFT_MS, Scaled, calendar_periods

NUM_PERIODS = 3  # calendar short, calendar long, detected
NUM_PROFILE_CHANNELS = 3 * NUM_PERIODS + 8 + len(KNOWN_SLOTS)
RECENT_DECAY = 0.6  # what one more cycle of age leaves of a step's weight in the recent profile
LOUD_WEIGHT = 0.05  # what a step on promotion counts in profiles of the plain days
EFFECT_RIDGE = 2.0  # two neutral observations of size one stand beside the real ones


def group_means(values_BXT: Tensor, weights_BXT: Tensor, group_BS: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Weighted means of the context's values by group, given back at every step: means and weights [B, X, S].

    A group without weight has mean 0 and weight 0.
    """
    B, X, T = values_BXT.shape
    stacked_BXT = torch.cat([values_BXT * weights_BXT, weights_BXT], 1)
    sums_BXG = stacked_BXT.new_zeros(B, 2 * X, num_groups)
    sums_BXG.scatter_add_(2, group_BS[:, None, :T].expand(B, 2 * X, T), stacked_BXT)
    at_BXS = sums_BXG.gather(2, group_BS[:, None].expand(B, 2 * X, group_BS.shape[1]))
    total_BXS, weight_BXS = at_BXS.chunk(2, dim=1)
    return total_BXS / torch.where(weight_BXS > 0, weight_BXS, 1.0), weight_BXS


def profile_channels(
    scaled: Scaled, known_BSK: Tensor, detected_B: Tensor, start_ms_B: Tensor, resolution_ms: int
) -> Tensor:
    """Every profile of every series at every step: [B, S, NUM_PROFILE_CHANNELS].

    Args:
        scaled: the scaled target and where it was observed.
        known_BSK: known covariates as `features.known_channels` gives them, 0 where neutral or missing.
        detected_B: int64 detected period in steps; 2 S or more for none.
        start_ms_B: start of the first context step.
        resolution_ms: length of a step.
    """
    z_BT, T, steps = scaled.z_BT, scaled.z_BT.shape[1], known_BSK.shape[1]
    weights_BT = quiet_weights(scaled.observed_BT, known_BSK)
    ahead_S = torch.arange(-T, steps - T, device=z_BT.device)
    calendar = [min(round(length), 2 * steps) for length in calendar_periods(resolution_ms)]
    channels, spreads, phases = [], [], []
    for period_B in (*(torch.full_like(detected_B, length) for length in calendar), detected_B):
        phase_BS = ahead_S.remainder(period_B[:, None].clamp(max=2 * steps))
        profile_BSX = _seasonal(z_BT, weights_BT, phase_BS, ahead_S, period_B)
        channels.append(profile_BSX)
        phases.append(phase_BS)
        spreads.append(_weighted_mean((z_BT - profile_BSX[:, :T, 0]).abs(), weights_BT))
    time_BS = start_ms_B[:, None] + torch.arange(steps, device=z_BT.device) * resolution_ms
    sum_BS, count_BS = _with_weekday(z_BT, weights_BT, channels[0][..., 0], time_BS)
    left_BT = z_BT - sum_BS[:, :T]
    noise_B1S, _ = group_means(left_BT.abs()[:, None], weights_BT[:, None], phases[0], 2 * steps)
    constants = [*spreads, *_recent_levels(left_BT, weights_BT, calendar[0])]
    own_BSX = torch.stack([sum_BS, count_BS, noise_B1S[:, 0]], -1)
    constant_BSX = torch.stack(constants, -1)[:, None].expand(-1, steps, -1)
    return torch.cat([*channels, own_BSX, constant_BSX, effects(left_BT, scaled.observed_BT, known_BSK)], -1)


def quiet_weights(observed_BT: Tensor, known_BSK: Tensor) -> Tensor:
    """1 for observed steps without promotion, discount or event, little for the others, 0 for missing ones.

    Not nothing, so that a shop which is always on promotion has profiles too.
    """
    loud_BT = known_BSK[:, : observed_BT.shape[1], 1:4].abs().amax(-1) > 0
    return torch.where(loud_BT, LOUD_WEIGHT, 1.0) * observed_BT


def effects(left_BT: Tensor, observed_BT: Tensor, known_BSK: Tensor) -> Tensor:
    """What each known covariate did to this series so far, applied to every step: [B, S, K].

    One ridge slope through the origin per slot, of the residuals from the profile on the covariate.
    """
    seen_BTK = known_BSK[:, : left_BT.shape[1]] * observed_BT[..., None]
    slope_B1K = (seen_BTK * left_BT[..., None]).sum(1, keepdim=True) / (
        seen_BTK.square().sum(1, keepdim=True) + EFFECT_RIDGE
    )
    return slope_B1K * known_BSK


def _seasonal(z_BT: Tensor, weights_BT: Tensor, phase_BS: Tensor, ahead_S: Tensor, period_B: Tensor) -> Tensor:
    """Mean at the same phase, the same with recent cycles counting more, log1p of the weight: [B, S, 3]."""
    T, steps = z_BT.shape[1], len(ahead_S)
    cycle_BT = (-1 - ahead_S[:T]).div(period_B[:, None], rounding_mode="floor")
    weights_B2T = torch.stack([weights_BT, weights_BT * RECENT_DECAY**cycle_BT], 1)
    means_B2S, weights_B2S = group_means(z_BT[:, None].expand_as(weights_B2T), weights_B2T, phase_BS, 2 * steps)
    return torch.stack([means_B2S[:, 0], means_B2S[:, 1], torch.log1p(weights_B2S[:, 0])], -1)


def _with_weekday(z_BT: Tensor, weights_BT: Tensor, short_BS: Tensor, time_BS: Tensor) -> tuple[Tensor, Tensor]:
    """The short profile plus the weekday's own level, and log1p of the weight behind that: [B, S] each."""
    weekday_BS = (time_BS + WEEK_SHIFT_MS).remainder(WEEK_MS) // DAY_MS
    residual_BT = z_BT - short_BS[:, : z_BT.shape[1]]
    level_B1S, count_B1S = group_means(residual_BT[:, None], weights_BT[:, None], weekday_BS, 7)
    return short_BS + level_B1S[:, 0], torch.log1p(count_B1S[:, 0])


def _recent_levels(left_BT: Tensor, weights_BT: Tensor, period: int) -> list[Tensor]:
    """Mean residual of about the last cycle and of about the last four: [B] each."""
    age_T = torch.arange(left_BT.shape[1] - 1, -1, -1, device=left_BT.device)
    return [_weighted_mean(left_BT, weights_BT * torch.exp(-age_T / (cycles * period))) for cycles in (1, 4)]


def _weighted_mean(values_BT: Tensor, weights_BT: Tensor) -> Tensor:
    # A tiny prior weight: rows without history get 0, others lose nothing that matters.
    return (values_BT * weights_BT).sum(1) / (weights_BT.sum(1) + 1e-6)
