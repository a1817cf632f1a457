"""Scaling, periods, phases and profiles against naive counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import features, profiles

HOUR_MS = 3_600_000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e9) | st.just(math.nan), min_size=4, max_size=40))
def test_scaling_there_and_back_gives_the_same_units(values: list[float]) -> None:
    target_BT = torch.tensor([values])
    scaled = features.scale_target(target_BT)
    back = torch.sinh(scaled.z_BT) * scaled.scale_B[:, None] + scaled.loc_B[:, None]
    seen = torch.isfinite(target_BT)
    assert scaled.scale_B.item() >= 1.0
    torch.testing.assert_close(back[seen], target_BT[seen], rtol=1e-3, atol=scaled.scale_B.item() * 1e-3)
    assert bool((scaled.z_BT[~seen] == 0).all())


def test_a_row_without_history_has_level_zero_and_scale_one() -> None:
    scaled = features.scale_target(torch.full((1, 8), math.nan))
    assert (scaled.loc_B.item(), scaled.scale_B.item()) == (0.0, 1.0)
    assert bool((scaled.z_BT == 0).all())


def test_units_come_back_sorted_and_never_negative() -> None:
    z_BHQ = torch.tensor([[[3.0, -50.0, 0.0]]])
    units = features.to_units(z_BHQ, torch.tensor([2.0]), torch.tensor([1.0]))[0, 0].tolist()
    assert units == sorted(units)
    assert units[0] == 0.0
    assert units[1] == 2.0


def test_the_detected_period_is_the_planted_one() -> None:
    steps = torch.arange(300)
    rows = [torch.cos(2 * math.pi * steps / period) for period in (7, 24, 52)]
    z_BT = torch.stack([*rows, torch.randn(300, generator=torch.Generator().manual_seed(1))])
    assert features.detect_period(z_BT, torch.ones_like(z_BT), none=9_999).tolist() == [7, 24, 52, 9_999]


def test_phases_tell_the_hour_and_the_monday() -> None:
    # 2024-01-01 00:00 UTC was a Monday.
    start_B = torch.tensor([1_704_067_200_000])
    channels = features.phase_channels(start_B, HOUR_MS, 4, 24, torch.tensor([10_000]))[0]
    sine_day, sine_week, cosine_day, cosine_week = (channels[:, i] for i in (0, 1, 4, 5))
    assert sine_day[6].item() == pytest.approx(1.0, abs=1e-6)
    assert cosine_day[12].item() == pytest.approx(-1.0, abs=1e-6)
    assert (sine_week[0].item(), cosine_week[0].item()) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert bool((channels[:, 3] == 0).all()), "no detected period: its phase stands still"


def naive_group_means(values: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """One loop per step, written apart from the scatter."""
    out = np.zeros(len(groups))
    for step, group in enumerate(groups):
        members = [t for t in range(len(values)) if groups[t] == group]
        weight = sum(weights[t] for t in members)
        out[step] = sum(values[t] * weights[t] for t in members) / weight if weight else 0.0
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_group_means_equal_a_naive_loop(seed: int, period: int) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=40), (rng.random(40) < 0.7).astype(float)
    groups = np.arange(-40, 16) % period
    tensors = [torch.tensor(x)[None, None] for x in (values, weights)]
    means, _ = profiles.group_means(*tensors, torch.tensor(groups)[None], 64)
    np.testing.assert_allclose(means[0, 0].numpy(), naive_group_means(values, weights, groups), atol=1e-9)


def test_a_weekly_shape_is_repeated_exactly_over_the_horizon() -> None:
    hours = torch.arange(3 * 168 + 48)
    shape = torch.sin(hours % 168 * 0.37)
    channels = channels_of(shape[None, : 3 * 168], torch.zeros(1, len(hours), 8))
    weekly, weekly_recent, weekly_count = channels[0, :, 3], channels[0, :, 4], channels[0, :, 5]
    torch.testing.assert_close(weekly, shape, rtol=0, atol=1e-6)
    torch.testing.assert_close(weekly_recent, shape, rtol=0, atol=1e-6)
    torch.testing.assert_close(weekly_count, torch.full_like(shape, math.log(4.0)))


def test_recent_cycles_count_more() -> None:
    channels = channels_of(torch.cat([torch.zeros(24), torch.ones(24)])[None], torch.zeros(1, 72, 8))
    assert channels[0, 60, 0].item() == pytest.approx(0.5)
    assert channels[0, 60, 1].item() == pytest.approx(1 / 1.6)


def test_a_promotion_leaves_the_profile_alone_and_shows_as_an_effect_where_it_runs_again() -> None:
    known = torch.zeros(1, 15 * 24, 8)
    known[0, 72:144, 1] = 1.0
    known[0, 14 * 24 + 3, 1] = 1.0
    z_BT = torch.zeros(1, 14 * 24)
    z_BT[0, 72:144] = 2.0
    channels = channels_of(z_BT, known)
    effect = channels[0, 14 * 24 :, -7]
    assert channels[0, 14 * 24 :, 0].max().item() < 0.05, "a plain mean would say 0.43"
    assert effect[3].item() == pytest.approx(2.0, abs=0.2)
    assert effect[[2, 4]].tolist() == [0.0, 0.0]


def channels_of(z_BT: torch.Tensor, known_BSK: torch.Tensor) -> torch.Tensor:
    scaled = features.Scaled(z_BT, torch.ones_like(z_BT), torch.zeros(1), torch.ones(1))
    none = torch.tensor([2 * known_BSK.shape[1]])
    return profiles.profile_channels(scaled, known_BSK, none, torch.tensor([0]), HOUR_MS)
