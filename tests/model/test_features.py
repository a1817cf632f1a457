"""Scaling, covariates and profiles against naive counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.model import cycles, expectation, features, profiles
from freshet.model.batch import KNOWN_SLOTS
from freshet.stream.units import HOUR_MS


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e9) | st.just(math.nan), min_size=4, max_size=40))
def test_scaling_there_and_back_gives_the_same_units(values: list[float]) -> None:
    target_BT = torch.tensor([values])
    scaled = features.scale_target(target_BT)
    back = features.from_z(scaled.z_BT, scaled.scaling)
    seen = torch.isfinite(target_BT)
    assert scaled.scaling.unit_B.item() >= 1.0
    torch.testing.assert_close(
        back[seen], target_BT[seen], rtol=1e-3, atol=scaled.scaling.unit_B.item() * 1e-3
    )
    assert bool((scaled.z_BT[~seen] == 0).all())


def test_a_row_without_history_has_unit_one_level_zero_and_spread_one() -> None:
    scaled = features.scale_target(torch.full((1, 8), math.nan))
    assert [value.item() for value in scaled.scaling] == [1.0, 0.0, 1.0]
    assert bool((scaled.z_BT == 0).all())


def test_doubled_sales_lie_equally_far_above_large_levels() -> None:
    levels = torch.tensor([[1_000.0, 500.0, 2_000.0] * 10, [10_000.0, 5_000.0, 20_000.0] * 10])
    z = features.scale_target(levels).z_BT
    torch.testing.assert_close(z[0], z[1], rtol=1e-4, atol=1e-4)


def test_closed_steps_count_as_missing() -> None:
    closed = torch.tensor([[False, True, False, False]])
    scaled = features.scale_target(torch.tensor([[8.0, 0.0, 8.0, 8.0]]), closed)
    assert scaled.observed_BT.tolist() == [[1.0, 0.0, 1.0, 1.0]]
    assert scaled.scaling.unit_B.item() == 2.0


def test_units_come_back_sorted_and_never_negative() -> None:
    scaling = features.Scaling(torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([1.0]))
    units = features.to_units(torch.tensor([[[3.0, -50.0, -1.0]]]), scaling)[0, 0].tolist()
    assert units == sorted(units)
    assert units[:2] == [0.0, 0.0]
    assert units[2] == pytest.approx(math.sinh(4.0))


def test_a_promotion_counts_its_days_from_both_ends_and_closed_days_cast_shadows() -> None:
    known = torch.zeros(1, 8, len(KNOWN_SLOTS))
    known[0, 2:5, features.PROMOTION] = 1.0
    known[0, 6, features.CLOSED] = 1.0
    begun, after, ending, before = features.run_channels(known)[0].unbind(-1)
    assert begun.tolist() == pytest.approx([0, 0, 1, 1 / 2, 1 / 3, 0, 0, 0])
    assert ending.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2, 1, 0, 0, 0])
    assert after.tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0, 1])
    assert before.tolist() == pytest.approx([1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1, 0, 0])


def test_a_discount_is_a_run_that_may_reach_over_both_ends_and_other_slots_are_none() -> None:
    known = torch.zeros(2, 6, len(KNOWN_SLOTS))
    known[0, :2, features.DISCOUNT] = 0.3
    known[0, 4:, features.PROMOTION] = -1.0  # scaled values may lie below zero
    known[0, :, features.EVENT] = 1.0
    known[1, 2, features.CLOSED] = 1.0
    begun, after, ending, before = features.run_channels(known).unbind(-1)
    assert begun[0].tolist() == pytest.approx([1, 1 / 2, 0, 0, 1, 1 / 2])
    assert ending[0].tolist() == pytest.approx([1 / 2, 1, 0, 0, 1 / 2, 1])
    assert not after[0].any() and not before[0].any() and not begun[1].any()
    assert after[1].tolist() == pytest.approx([0, 0, 0, 1, 1 / 2, 1 / 3])
    assert before[1].tolist() == pytest.approx([1 / 2, 1, 0, 0, 0, 0])


def test_each_step_has_its_levels_sorted_and_keeps_its_place() -> None:
    one = torch.ones(1)
    scaling = features.Scaling(2.0 * one, 0.5 * one, 3.0 * one)
    z_BHQ = torch.tensor([[[0.4, 0.1, 0.2], [0.3, 0.9, -9.0], [math.nan, 0.1, 0.2]]])
    units_HQ = features.to_units(z_BHQ, scaling)[0]
    by_hand = [
        [2.0 * math.sinh(0.5 + 3.0 * z) for z in row] for row in ([0.1, 0.2, 0.4], [0.3, 0.9])
    ]
    assert units_HQ[0].tolist() == pytest.approx(by_hand[0])
    assert units_HQ[1].tolist() == pytest.approx([0.0, *by_hand[1]])
    assert bool(units_HQ[2].isnan().any()), "what is not a number stays visible"
    there_BX = features.to_z(torch.tensor([by_hand[0]]), scaling)
    assert there_BX[0].tolist() == pytest.approx([0.1, 0.2, 0.4], abs=1e-5)


def row_of(scale: list[float], observed_BT: torch.Tensor) -> features.Scaled:
    ones = torch.ones(len(scale))
    scaling = features.Scaling(ones, 0 * ones, torch.tensor(scale))
    return features.Scaled(0 * observed_BT, observed_BT, scaling)


def test_a_free_number_stays_where_sales_were_seen_and_one_never_seen_is_left_alone() -> None:
    known = torch.zeros(2, 6, len(KNOWN_SLOTS))
    known[:, :, features.FIRST_FREE] = torch.tensor([-7.0, 2.0, math.nan, 4.0, 9.0, 3.0])
    observed = torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    values, mask = features.known_channels(known, row_of([1.0, 1.0], observed))
    assert mask[:, :, features.FIRST_FREE].tolist() == [[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]] * 2
    for row, told in ((0, [2.0, 2.0, 4.0, 4.0, 3.0]), (1, [-7.0, 2.0, 4.0, 9.0, 3.0])):
        away = np.array(told) - np.mean(told)
        expected = np.arcsinh(away / np.sqrt(np.mean(away**2)))
        found = values[row, [0, 1, 3, 4, 5], features.FIRST_FREE]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_effect_counts_up_to_a_factor_of_e_to_the_fifth_on_the_targets_own_scale() -> None:
    known = torch.zeros(2, 5, len(KNOWN_SLOTS))
    known[:, :, features.EFFECT] = torch.tensor([-9.0, -5.0, -4.5, 4.5, 9.0])
    values, mask = features.known_channels(known, row_of([1.0, 2.0], torch.ones(2, 4)))
    expected = [-5.0, -5.0, -4.5, 4.5, 5.0]
    assert values[0, :, features.EFFECT].tolist() == expected
    assert values[1, :, features.EFFECT].tolist() == [value / 2.0 for value in expected]
    assert mask[:, :, features.EFFECT].all()


def test_gaps_between_counts_are_neither_steps_nor_values() -> None:
    values, mask = features._standardise(
        torch.tensor([[[1.0, math.nan, 5.0, math.nan, 9.0]]]), floor=0.1
    )
    spread = math.sqrt((16 + 0 + 16) / 3)
    assert values[0, 0].tolist() == pytest.approx([-4 / spread, 0, 0, 0, 4 / spread])
    assert mask[0, 0].tolist() == [1, 0, 1, 0, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 100))
def test_sums_by_phase_and_by_group_equal_a_naive_loop(seed: int, period: int) -> None:
    values = np.random.default_rng(seed).normal(size=40)
    groups = np.arange(-40, 16) % min(period, 64)
    naive = [
        sum(value for value, group in zip(values, groups, strict=False) if group == own)
        for own in groups
    ]
    stacked = torch.tensor(values)[None, None]
    by_phase = cycles.by_phase(stacked, period, 16)[0, 0]
    by_group = cycles.by_group(stacked, torch.tensor(groups)[None], 64)[0, 0]
    np.testing.assert_allclose(by_phase.numpy(), naive[40:], atol=1e-9)
    np.testing.assert_allclose(by_group.numpy(), naive, atol=1e-9)
    others = cycles.by_phase_of_others(stacked, period, 56)[0, 0]
    np.testing.assert_allclose(others.numpy(), naive - np.pad(values, (0, 16)), atol=1e-9)


def test_a_shape_of_the_day_is_expected_again_over_the_horizon() -> None:
    hours = torch.arange(21 * 24 + 48)
    shape = torch.sin(hours % 24 * 0.37)
    found = profiles_of(shape[None, : 21 * 24], torch.zeros(1, len(hours), len(KNOWN_SLOTS)))
    torch.testing.assert_close(found.expected_BS[0], shape, rtol=0, atol=0.06)
    assert found.noise_B.item() < 0.05


def test_a_profile_has_as_many_channels_and_facts_as_the_network_is_built_for() -> None:
    found = profiles_of(torch.zeros(1, 240), torch.zeros(1, 252, len(KNOWN_SLOTS)))
    assert found.channels_BHC.shape == (1, 12, 26) and profiles.NUM_PROFILE_CHANNELS == 26
    assert found.facts_BX.shape == (1, 5) and profiles.NUM_FACTS == 5


def test_recent_cycles_count_more_in_the_shorter_memory() -> None:
    found = profiles_of(
        torch.cat([torch.zeros(240), torch.ones(96)])[None], torch.zeros(1, 384, len(KNOWN_SLOTS))
    )
    whole, shorter, shortest = found.channels_BHC[0, -1, 1:4].tolist()
    assert whole < shorter < shortest
    assert whole == pytest.approx(96 / 336, abs=0.02)


def test_a_promotion_leaves_the_profile_alone_and_shows_where_it_runs_again() -> None:
    known = torch.zeros(1, 15 * 24, len(KNOWN_SLOTS))
    known[0, 72:144, features.PROMOTION] = 1.0
    known[0, 14 * 24 + 3, features.PROMOTION] = 1.0
    z_BT = torch.zeros(1, 14 * 24)
    z_BT[0, 72:144] = 2.0
    ahead = profiles_of(z_BT, known).expected_BS[0, 14 * 24 :]
    assert ahead[3].item() == pytest.approx(2.0, abs=0.3)
    assert ahead[[2, 4]].abs().max().item() < 0.15, "a plain mean would say 0.43"


def test_two_slots_that_tell_one_story_share_its_effect() -> None:
    known = torch.zeros(1, 15 * 24, len(KNOWN_SLOTS))
    known[0, 72:144, [features.PROMOTION, features.EVENT]] = 1.0
    z_BT = torch.zeros(1, 14 * 24)
    z_BT[0, 72:144] = 2.0
    slope = expectation.slopes(z_BT, torch.ones_like(z_BT), known)[0]
    promotion, event = slope[features.PROMOTION].item(), slope[features.EVENT].item()
    assert promotion + event == pytest.approx(2.0, abs=0.1)
    assert promotion == pytest.approx(event)


def test_an_effect_told_from_outside_is_believed_where_the_row_has_not_seen_it() -> None:
    known = torch.zeros(1, 15 * 24, len(KNOWN_SLOTS))
    known[0, 14 * 24 + 3, features.EFFECT] = 1.5
    ahead = profiles_of(torch.zeros(1, 14 * 24), known).expected_BS[0, 14 * 24 :]
    assert ahead[3].item() == pytest.approx(1.5)
    assert ahead[4].item() == pytest.approx(0.0)


def profiles_of(z_BT: torch.Tensor, known_BSK: torch.Tensor) -> profiles.Profiles:
    ones = torch.ones(1)
    scaled = features.Scaled(
        z_BT, torch.ones_like(z_BT), features.Scaling(ones, torch.zeros(1), ones)
    )
    return profiles.profiles(scaled, known_BSK, torch.tensor([0]), HOUR_MS)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e9, width=32), min_size=1, max_size=40))
def test_the_fast_inverse_hyperbolic_sine_is_torchs_and_rises_at_zero(values: list[float]) -> None:
    sizes = torch.tensor([*values, 0.0], requires_grad=True)
    fast = features.arcsinh(sizes)
    torch.testing.assert_close(fast, torch.arcsinh(sizes.detach()), rtol=2e-6, atol=1e-7)
    (slope,) = torch.autograd.grad(fast.sum(), sizes)
    torch.testing.assert_close(
        slope, 1.0 / torch.sqrt(1.0 + sizes.detach().square()), rtol=1e-4, atol=1e-9
    )


def test_infinite_and_missing_numbers_count_as_missing_wherever_they_stand() -> None:
    known = torch.zeros(1, 4, len(KNOWN_SLOTS))
    known[0, :, features.FIRST_FREE] = torch.tensor([1.0, math.nan, math.inf, 3.0])
    known[0, :, 0] = torch.tensor([1.0, math.nan, 1.0, 1.0])
    values, mask = features.known_channels(known, row_of([1.0], torch.ones(1, 4)))
    assert mask[0, :, features.FIRST_FREE].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert mask[0, :, 0].tolist() == [1.0, 0.0, 1.0, 1.0]
    one = math.asinh(1.0)
    assert values[0, :, features.FIRST_FREE].tolist() == pytest.approx([-one, 0.0, 0.0, one])
