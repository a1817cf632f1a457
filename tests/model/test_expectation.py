"""What is expected, against loops that a reader can follow; channels as their docstrings say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from freshet.model import features, profiles
from freshet.model.batch import KNOWN_SLOTS
from freshet.model.expectation import _with_neighbours, cycles_ago, expect, short_season, slopes
from freshet.model.features import (
    CLOSED,
    DISCOUNT,
    EFFECT,
    EVENT,
    FIRST_FREE,
    PROMOTION,
    Scaled,
    Scaling,
)
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS

K = len(KNOWN_SLOTS)


def scaled_of(z_BT: torch.Tensor, seen_BT: torch.Tensor | None = None) -> Scaled:
    ones = torch.ones(len(z_BT))
    seen_BT = torch.ones_like(z_BT) if seen_BT is None else seen_BT
    return Scaled(z_BT * seen_BT, seen_BT, Scaling(ones, 0 * ones, ones))


def world(
    seed: int = 0, rows: int = 2, context: int = 100, horizon: int = 20
) -> tuple[Scaled, torch.Tensor]:
    """Noise with gaps, promotions, discounts and effects over context and horizon."""
    generator = torch.Generator().manual_seed(seed)
    z_BT = torch.randn(rows, context, generator=generator)
    seen_BT = (torch.rand(rows, context, generator=generator) > 0.2).float()
    known_BSK = torch.zeros(rows, context + horizon, K)
    for slot, share in ((PROMOTION, 0.2), (DISCOUNT, 0.1), (EVENT, 0.05)):
        known_BSK[..., slot] = (
            torch.rand(rows, context + horizon, generator=generator) < share
        ).float()
    known_BSK[..., FIRST_FREE] = torch.randn(rows, context + horizon, generator=generator)
    known_BSK[..., EFFECT] = 0.3 * torch.randn(rows, context + horizon, generator=generator)
    return scaled_of(z_BT, seen_BT), known_BSK


def naive_season(
    z: list[float], weights: list[float], period: int, steps: int, half_life: float
) -> list[float]:
    """The season of one row and memory as the docstrings of `expectation` tell it."""
    T = len(z)
    memory = [2.0 ** -((T - 1 - t) // period / half_life) for t in range(T)]
    weight = [w * m for w, m in zip(weights, memory, strict=True)]
    level = sum(w * value for w, value in zip(weight, z, strict=True)) / (sum(weight) + 1e-6)
    told = []
    for step in range(steps):
        same = [t for t in range(T) if (t - step) % period == 0 and t != step]
        total = sum(weight[t] * z[t] for t in same)
        count = sum(weight[t] for t in same)
        told.append((total + 0.5 * level) / (count + 0.5) - level)
    proof = sum(weight[t] * told[t] * (z[t] - level) for t in range(T)) + 2.0 * 0.8
    claim = sum(weight[t] * told[t] ** 2 for t in range(T)) + 2.0
    belief = min(max(proof / claim, 0.0), 1.0)
    return [level + belief * value for value in told]


def test_the_season_is_the_mean_of_other_cycles_as_far_as_such_telling_came_true() -> None:
    for seed, swing in ((0, 0.0), (1, 3.0)):
        scaled, known_BSK = world(seed)
        wave_T = swing * torch.sin(torch.arange(100) * 2 * math.pi / 7)
        z_BT = (scaled.z_BT + wave_T) * scaled.observed_BT
        found = expect(
            scaled_of(z_BT, scaled.observed_BT), 0 * known_BSK, torch.zeros(2).long(), DAY_MS
        )
        for row in range(2):
            arguments = (z_BT[row].tolist(), scaled.observed_BT[row].tolist(), 7, 120)
            for memory, half_life in enumerate((math.inf, 16.0, 3.0)):
                expected = naive_season(*arguments, half_life)
                np.testing.assert_allclose(found.season_BMS[row, memory], expected, atol=1e-4)
        # How many steps are behind it: those seen of the same weekday, itself left out.
        seen_T = scaled.observed_BT[0]
        assert found.season_count_BS[0, 100].item() == pytest.approx(seen_T[2::7].sum().item())
        assert found.season_count_BS[0, 2].item() == pytest.approx(seen_T[9::7].sum().item())


def test_the_total_is_season_and_effects_and_what_its_own_kind_of_step_left_over() -> None:
    scaled, known_BSK = world(3)
    found = expect(scaled, known_BSK, torch.zeros(2).long(), DAY_MS)
    effect_BS = (known_BSK @ found.slope_BK[..., None])[..., 0]
    assert not found.weekday_BS.any(), "a day has no weekday beside its season"
    np.testing.assert_allclose(
        found.total_BS, found.season_BMS[:, 1] + effect_BS + found.cell_BS, atol=1e-5
    )
    loud_BS = (known_BSK[..., [PROMOTION, DISCOUNT, EVENT]] != 0).any(-1)
    left_BT = scaled.z_BT - (found.season_BMS[:, 1] + effect_BS)[:, :100]
    for step in (5, 50, 100, 119):
        total = count = 0.0
        for t in range(100):
            if (t - step) % 7 == 0 and t != step and loud_BS[0, t] == loud_BS[0, step]:
                weight = scaled.observed_BT[0, t].item() * 2.0 ** (-(99 - t) / 7 / 16)
                total += weight * left_BT[0, t].item()
                count += weight
        assert found.cell_BS[0, step].item() == pytest.approx(total / (count + 2.0), abs=1e-4)
        assert found.cell_count_BS[0, step].item() == pytest.approx(count, abs=1e-4)


def test_slopes_are_one_ridge_regression_beside_what_the_effect_says() -> None:
    scaled, known_BSK = world(4)
    found_BK = slopes(scaled.z_BT, scaled.observed_BT, known_BSK)
    for row in range(2):
        seen_T = scaled.observed_BT[row].numpy() > 0
        design_XK = known_BSK[row, :100].numpy()[seen_T].astype(float)
        y_X = scaled.z_BT[row].numpy()[seen_T] - design_XK[:, EFFECT]
        design_XK = np.column_stack([design_XK, np.ones(len(y_X))])
        # A number that is larger than 1.5 is held back as if it were so much closer to none.
        large_K = np.maximum(np.abs(design_XK).max(0) / 1.5, 1.0)
        large_K[EFFECT] = 1.0
        squares = design_XK.T @ design_XK + 2.0 * np.diag(large_K**2)
        expected = np.linalg.solve(squares, design_XK.T @ y_X)[:K]
        expected[EFFECT] += 1.0
        np.testing.assert_allclose(found_BK[row], expected, atol=1e-4)


def test_own_slopes_do_half_as_much_again_as_they_ever_did_and_the_effect_all_it_says() -> None:
    z_BT = torch.zeros(1, 80)
    z_BT[0, 1::2] = 2.0
    known_BSK = torch.zeros(1, 84, K)
    known_BSK[0, 1:80:2, FIRST_FREE] = 1.0
    known_BSK[0, 80:, FIRST_FREE] = torch.tensor([1.0, 9.0, -9.0, 0.0])
    known_BSK[0, 83, EFFECT] = 3.0
    found = expect(scaled_of(z_BT), known_BSK, torch.zeros(1).long(), WEEK_MS)
    ahead_H = found.total_BS[0, 80:] - found.season_BMS[0, 1, 80:] - found.cell_BS[0, 80:]
    does = float(found.slope_BK[0, FIRST_FREE])
    assert does > 1.0
    assert ahead_H.tolist() == pytest.approx([does, 1.5 * does, -0.5 * does, 3.0], abs=1e-4)


def test_slopes_are_learnt_from_what_the_profile_of_plain_days_leaves_over() -> None:
    scaled, known_BSK = world(7)
    found = expect(scaled, known_BSK, torch.zeros(2).long(), DAY_MS)
    loud_BT = (known_BSK[:, :100, [PROMOTION, DISCOUNT, EVENT]] != 0).any(-1)
    left_BT = torch.zeros(2, 100)
    for row in range(2):
        # A day with a promotion, a discount or an event counts a twentieth of a plain one.
        weights = [
            seen * (0.05 if loud else 1.0)
            for seen, loud in zip(
                scaled.observed_BT[row].tolist(), loud_BT[row].tolist(), strict=True
            )
        ]
        plain = naive_season(scaled.z_BT[row].tolist(), weights, 7, 100, 16.0)
        left_BT[row] = scaled.z_BT[row] - torch.tensor(plain)
    expected_BK = slopes(left_BT, scaled.observed_BT, known_BSK)
    np.testing.assert_allclose(found.slope_BK, expected_BK, atol=1e-4)


def test_a_weekday_of_hours_has_a_level_of_its_own() -> None:
    steps = 24 * 28
    weekday_T = torch.arange(steps) // 24 % 7
    z_BT = (2.0 * (weekday_T == 2)).float()[None]
    # 1970-01-01 was a Thursday, so the third day is a Saturday; the horizon is a Thursday.
    found = expect(scaled_of(z_BT), torch.zeros(1, steps + 72, K), torch.zeros(1).long(), HOUR_MS)
    left_T = (z_BT[0] - (found.total_BS - found.weekday_BS)[0, :steps]).tolist()
    for day in (0, 1, 2):
        total = count = 0.0
        for hour in (hour for hour in range(steps) if hour // 24 % 7 == day):
            weight = 2.0 ** (-(steps - 1 - hour) / 24 / 16)
            total += weight * left_T[hour]
            count += weight
        ahead = found.weekday_BS[0, steps + 24 * day : steps + 24 * (day + 1)].tolist()
        assert ahead == pytest.approx([total / (count + 4.0)] * 24, abs=1e-4)
        own = 2.0 ** (-(steps - 1 - 24 * day) / 24 / 16)
        others = (total - own * left_T[24 * day]) / (count - own + 4.0)
        assert found.weekday_BS[0, 24 * day].item() == pytest.approx(others, abs=1e-4)
    total_SD = found.total_BS[0].reshape(-1, 24)
    assert total_SD[-1].min() > 1.4 and total_SD[-3:-1].max() < 0.5


def test_steps_of_half_a_day_have_weekdays_and_longer_ones_do_not() -> None:
    z_BT = torch.randn(1, 60, generator=torch.Generator().manual_seed(0))
    for resolution_ms, some in ((DAY_MS // 2, True), (DAY_MS // 2 + 1, False)):
        known_BSK = torch.zeros(1, 80, K)
        found = expect(scaled_of(z_BT), known_BSK, torch.zeros(1).long(), resolution_ms)
        assert bool(found.weekday_BS.any()) == some


def test_a_phase_of_a_long_season_hears_its_neighbours_at_half_their_weight() -> None:
    values_B1T = torch.tensor([[[1.0, 10.0, 100.0, 1000.0]]])
    # Half of itself and a quarter of each neighbour; beyond the ends there is nothing.
    found = _with_neighbours(values_B1T)[0, 0].tolist()
    assert found == [3.0, 30.25, 302.5, 525.0]
    # A week of weeks a year ago, alone in its year, is told to the weeks beside it too.
    z_BT = torch.zeros(1, 104)
    z_BT[0, 60] = 8.0
    season = expect(scaled_of(z_BT), torch.zeros(1, 156, K), torch.zeros(1).long(), WEEK_MS)
    told_H = season.season_BMS[0, 0, 104:]
    assert told_H[8] > told_H[7] > told_H[6] + 0.05
    assert told_H[7].item() == pytest.approx(told_H[9].item(), rel=1e-3)


def test_cycles_are_counted_back_from_the_last_step() -> None:
    values = torch.zeros(1, 15)
    assert cycles_ago(values, DAY_MS)[[0, 7, 14]].tolist() == [2.0, 1.0, 0.0]
    assert cycles_ago(values, WEEK_MS)[1].item() == 1.0, "a year of weeks is remembered by quarters"
    assert cycles_ago(values, 30 * DAY_MS)[[2, 11]].tolist() == [4.0, 1.0]
    assert cycles_ago(values, 91 * DAY_MS)[11].item() == 1.0, "three quarters, not one"
    assert [short_season(step) for step in (HOUR_MS, DAY_MS, WEEK_MS)] == [24, 7, 52]


def test_no_step_ahead_and_no_later_covariate_moves_what_the_past_taught() -> None:
    scaled, known_BSK = world(5)
    found = expect(scaled, known_BSK, torch.zeros(2).long(), DAY_MS)
    other_BSK = known_BSK.clone()
    other_BSK[:, 100:] = 9.0
    other = expect(scaled, other_BSK, torch.zeros(2).long(), DAY_MS)
    assert torch.equal(other.slope_BK, found.slope_BK)
    assert torch.equal(other.season_BMS, found.season_BMS)
    assert torch.equal(other.total_BS[:, :100], found.total_BS[:, :100])


# Profiles -----------------------------------------------------------------------------------------


def profile(seed: int = 6) -> tuple[Scaled, torch.Tensor, profiles.Profiles]:
    scaled, known_BSK = world(seed)
    return scaled, known_BSK, profiles.profiles(scaled, known_BSK, torch.zeros(2).long(), DAY_MS)


def test_noise_levels_and_surprises_are_means_that_forget() -> None:
    scaled, _, found = profile()
    left_BT = (scaled.z_BT - found.expected_BS[:, :100]) * scaled.observed_BT
    ago_T = torch.arange(99, -1, -1) / 7
    for row in range(2):
        weight_T = scaled.observed_BT[row] * 2.0 ** (-ago_T / 32.0)
        noise = ((left_BT[row].abs() * weight_T).sum() + 1.0) / (weight_T.sum() + 2.0)
        assert found.noise_B[row].item() == pytest.approx(noise.item(), rel=1e-4)
        levels = []
        for half_life in (0.4, 2.0, 8.0):
            weight_T = scaled.observed_BT[row] * 2.0 ** (-ago_T / half_life)
            levels.append(((left_BT[row] * weight_T).sum() / (weight_T.sum() + 1.0)).item())
        seen = math.log1p(scaled.observed_BT[row].sum().item()) / 3.0
        facts = [*levels, math.log(noise.item()), seen]
        assert found.facts_BX[row].tolist() == pytest.approx(facts, abs=1e-4)
    np.testing.assert_allclose(found.surprise_BT, left_BT / found.noise_B[:, None], atol=1e-4)


def test_each_channel_of_the_horizon_is_the_part_that_it_is_named_for() -> None:
    scaled, known_BSK, found = profile()
    parts = expect(scaled, known_BSK, torch.zeros(2).long(), DAY_MS)
    left_BT = (scaled.z_BT - parts.total_BS[:, :100]) * scaled.observed_BT
    channels_BCH = found.channels_BHC.mT
    assert channels_BCH.shape[1] == profiles.NUM_PROFILE_CHANNELS
    np.testing.assert_allclose(channels_BCH[:, 0], parts.total_BS[:, 100:], atol=1e-5)
    np.testing.assert_allclose(channels_BCH[:, 1:4], parts.season_BMS[..., 100:], atol=1e-5)
    np.testing.assert_allclose(channels_BCH[:, 4], parts.cell_BS[:, 100:], atol=1e-5)
    np.testing.assert_allclose(channels_BCH[:, 5], parts.weekday_BS[:, 100:], atol=1e-5)
    # A year of days ago there was nothing yet.
    assert not channels_BCH[:, 6].any() and not channels_BCH[:, 11].any()
    assert (found.period_B == 2 * 120).all()
    assert not channels_BCH[:, [7, 8, 12]].any(), "no period was found in noise"
    counts = (parts.season_count_BS, parts.cell_count_BS)
    for channel, count_BS in zip((9, 10), counts, strict=True):
        np.testing.assert_allclose(channels_BCH[:, channel], count_BS[:, 100:].log1p(), atol=1e-5)
    for step in (0, 9):
        same_T = torch.arange(100) % 7 == (100 + step) % 7
        size = left_BT[0, same_T].abs().sum() + found.noise_B[0]
        expected = size / (scaled.observed_BT[0, same_T].sum() + 1.0)
        assert channels_BCH[0, 13, step].item() == pytest.approx(expected.item(), abs=1e-4)
    effects_BKH = (parts.slope_BK[:, None] * known_BSK[:, 100:]).mT
    np.testing.assert_allclose(channels_BCH[:, 14:], effects_BKH, atol=1e-5)


def test_pay_every_ten_days_is_found_beside_the_week_and_told_for_the_days_ahead() -> None:
    steps, horizon = 214, 20  # no whole number of either season
    z_BT = (torch.arange(steps) % 10 == 3).float()[None] * 3.0
    known_BSK = torch.zeros(1, steps + horizon, K)
    found = profiles.profiles(scaled_of(z_BT), known_BSK, torch.zeros(1).long(), DAY_MS)
    assert found.period_B.tolist() == [10]
    whole_H, recent_H = found.channels_BHC[0, :, 7:9].unbind(-1)
    days = range(steps, steps + horizon)
    pay_H = [day % 10 == 3 for day in days]
    assert [value > 1.5 for value in whole_H.tolist()] == pay_H
    assert [value > 0.5 for value in recent_H.tolist()] == pay_H
    seen_H = [22 if day % 10 < 4 else 21 for day in days]
    counts = [math.log1p(seen) for seen in seen_H]
    assert found.channels_BHC[0, :, 12].tolist() == pytest.approx(counts)
    left_T = (z_BT - found.expected_BS[:, :steps])[0].tolist()
    for step in (0, 9, 12):
        # Newest first: the last of them lies in the newest cycle.
        values = left_T[(steps + step) % 10 :: 10][::-1]
        assert whole_H[step].item() == pytest.approx(sum(values) / (len(values) + 1.0), abs=1e-4)
        fade = [0.6**cycle for cycle in range(len(values))]
        recent = sum(f * value for f, value in zip(fade, values, strict=True))
        assert recent_H[step].item() == pytest.approx(recent / (sum(fade) + 1.0), abs=1e-4)


def test_what_a_week_of_hours_ago_left_over_is_told_by_three_hours() -> None:
    steps, horizon = 24 * 21, 24
    scaled, known_BSK = world(8, rows=1, context=steps, horizon=horizon)
    found = profiles.profiles(scaled, 0 * known_BSK, torch.zeros(1).long(), HOUR_MS)
    left_T = ((scaled.z_BT - found.expected_BS[:, :steps]) * scaled.observed_BT)[0].tolist()
    seen_T = scaled.observed_BT[0].tolist()
    for step in (1, 10):
        total = count = 0.0
        for week in (1, 2, 3):
            for hour in (-1, 0, 1):
                at = steps + step - 168 * week + hour
                total += left_T[at] / 3
                count += seen_T[at] / 3
        assert found.channels_BHC[0, step, 6].item() == pytest.approx(
            total / (count + 0.5), abs=1e-4
        )
        assert found.channels_BHC[0, step, 11].item() == pytest.approx(math.log1p(count), abs=1e-4)


def test_a_wild_slope_and_a_wild_surprise_are_bounded() -> None:
    z_BT = torch.zeros(1, 60)
    known_BSK = torch.zeros(1, 70, K)
    known_BSK[0, 65, EFFECT] = 50.0
    known_BSK[0, 66, EFFECT] = -50.0
    for scale in (1.0, 0.5):
        one = torch.ones(1)
        scaled = scaled_of(z_BT)._replace(scaling=Scaling(one, 0 * one, scale * one))
        found = profiles.profiles(scaled, known_BSK, torch.zeros(1).long(), DAY_MS)
        # Four log units, whatever they are on the network's scale; also where that is told apart.
        bounds = [4.0 / scale, -4.0 / scale]
        assert found.expected_BS[0, 65:67].tolist() == bounds
        assert found.channels_BHC[0, 5:7, 0].tolist() == bounds
    # A mean of nothing but one, over some sixty steps, would be .017.
    assert found.noise_B.item() == pytest.approx(0.02)
    assert found.facts_BX[0, -2].item() == pytest.approx(math.log(0.02))
    z_BT[0, [30, 40]] = torch.tensor([1e4, -1e4])
    wild = profiles.profiles(scaled_of(z_BT), 0 * known_BSK, torch.zeros(1).long(), DAY_MS)
    assert (wild.surprise_BT.min().item(), wild.surprise_BT.max().item()) == (-8.0, 8.0)


# Covariates ---------------------------------------------------------------------------------------


def test_every_known_slot_has_its_own_scale() -> None:
    known_BSK = torch.full((1, 4, K), math.nan)
    known_BSK[0, :, 0] = torch.tensor([0.8, 1.0, 1e-9, 1e9])
    known_BSK[0, :, PROMOTION] = torch.tensor([1.0, 0.25, 99.0, -99.0])
    known_BSK[0, :, EFFECT] = torch.tensor([0.4, -0.4, 99.0, math.nan])
    known_BSK[0, :, FIRST_FREE] = torch.tensor([1.0, 2.0, 3.0, 1e6])
    scaled = scaled_of(torch.zeros(1, 4))
    scaled = scaled._replace(scaling=scaled.scaling._replace(scale_B=torch.tensor([0.5])))
    values, mask = features.known_channels(known_BSK, scaled)
    price = [2 * math.log(0.8), 0.0, 2 * math.log(0.25), 2 * math.log(4.0)]
    assert values[0, :, 0].tolist() == pytest.approx(price, rel=1e-5)
    assert values[0, :, PROMOTION].tolist() == [1.0, 0.25, 1.0, 0.0]
    assert values[0, :, EFFECT].tolist() == pytest.approx([0.8, -0.8, 10.0, 0.0])
    assert mask[0].sum(0)[[0, PROMOTION, EFFECT, FIRST_FREE, CLOSED]].tolist() == [4, 4, 3, 4, 0]
    free = np.array([1.0, 2.0, 3.0, 1e6])
    expected = np.arcsinh((free - free.mean()) / free.std())
    np.testing.assert_allclose(values[0, :, FIRST_FREE], expected, rtol=1e-4)
    assert not values[0, :, CLOSED].any()


def test_counts_are_standardised_logarithms_over_what_was_seen() -> None:
    counts = torch.tensor([[[0.0], [math.nan], [9.0], [99.0], [-5.0]]])
    values, mask = features.log_standardise(counts)
    seen = np.log1p([0.0, 9.0, 99.0, 0.0])
    expected = (seen - seen.mean()) / seen.std()
    assert values[0, [0, 2, 3, 4], 0].tolist() == pytest.approx(expected, rel=1e-5)
    assert (values[0, 1, 0].item(), mask[0, :, 0].tolist()) == (0.0, [1, 0, 1, 1, 1])
    # Log 2 apart, they have a spread of .35: half a unit at least is divided by.
    values, _ = features.log_standardise(torch.tensor([[[0.0], [1.0]]]))
    assert values[0, :, 0].tolist() == pytest.approx([-math.log(2), math.log(2)])


def test_scaling_by_hand() -> None:
    scaled = features.scale_target(torch.tensor([[8.0, math.nan, 16.0, 0.0]]))
    # A mean of 8 has a unit of 2; arcsinh of 4, 8 and 0.
    arcs = [math.asinh(4.0), math.asinh(8.0), 0.0]
    loc = sum(arcs) / 3
    scale = (sum(abs(arc - loc) for arc in arcs) + 2.0) / (3 + 2.0)
    assert [value.item() for value in scaled.scaling] == pytest.approx([2.0, loc, scale])
    expected = [(arc - loc) / scale for arc in arcs]
    assert scaled.z_BT[0, [0, 2, 3]].tolist() == pytest.approx(expected, abs=1e-6)
    assert features.to_z(torch.tensor([[16.0]]), scaled.scaling).item() == pytest.approx(
        expected[1]
    )
    assert features.from_z(scaled.z_BT, scaled.scaling)[0, 2].item() == pytest.approx(
        16.0, rel=1e-5
    )
    constant = features.scale_target(torch.full((1, 100), 9.0))
    assert constant.scaling.scale_B.item() == pytest.approx(0.05), "and not 2 / 102"


def test_units_up_to_a_tenth_are_none_and_more_are_some() -> None:
    one = torch.ones(1)
    scaling = Scaling(one, 0 * one, one)
    z_BHQ = torch.tensor([[[math.asinh(0.11), math.asinh(0.099), 50.0]]])
    units = features.to_units(z_BHQ, scaling)[0, 0].tolist()
    assert units[:2] == pytest.approx([0.0, 0.11]) and units[0] == 0.0
    assert units[2] == pytest.approx(math.sinh(18.0), rel=1e-4)
    # Of a large seller a hundred-thousandth of the unit is what arithmetic leaves of nothing.
    large = Scaling(1e6 * one, 0 * one, one)
    assert features.to_units(torch.tensor([[[0.9e-5, 1.1e-5]]]), large)[
        0, 0
    ].tolist() == pytest.approx([0.0, 11.0], rel=1e-2)
