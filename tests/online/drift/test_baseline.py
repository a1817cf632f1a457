"""What is usual is a shrunk mean, a bias for each phase of the day, and a spread; by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from freshet.online.drift.baseline import STABLE_BUCKETS, Baseline, block_noise
from freshet.stream.units import DAY_MS, HOUR_MS


def test_a_stream_nobody_has_seen_is_taken_for_standard_normal() -> None:
    baseline = Baseline(HOUR_MS)
    assert baseline.standardise(7 * HOUR_MS, 1.5) == 1.5 and len(baseline) == 0


def test_mean_bias_and_spread_are_drawn_towards_the_prior() -> None:
    baseline = Baseline(HOUR_MS)
    # Hour 2 of two days, and hour 5 of one.
    for hour, value in ((2, 6.0), (26, 4.0), (5, 4.0)):
        baseline.learn(hour * HOUR_MS, value)
    mean = (6 + 4 + 4) / (3 + 4)
    bias_2 = ((6 - mean) + (4 - mean)) / (2 + 3)
    rest = (6 - mean - bias_2, 4 - mean - bias_2, 4 - mean)
    spread = math.sqrt((sum(each**2 for each in rest) + 4) / (3 + 4))
    assert baseline.mean == pytest.approx(mean) and baseline.spread == pytest.approx(spread)
    assert baseline.standardise(50 * HOUR_MS, 9.0) == pytest.approx((9 - mean - bias_2) / spread)
    # A phase that was seen once or never has no bias.
    assert baseline.standardise(29 * HOUR_MS, 9.0) == pytest.approx((9 - mean) / spread)
    assert baseline.standardise(3 * HOUR_MS, 9.0) == pytest.approx((9 - mean) / spread)
    expected = [each / spread for each in rest]
    assert baseline.standardised().tolist() == pytest.approx(expected)


def test_days_have_the_phases_of_a_week_and_hours_those_of_a_day() -> None:
    for phase_ms, num_phases in ((HOUR_MS, 24), (DAY_MS, 7)):
        baseline = Baseline(phase_ms)
        for season in range(2):
            for phase in range(num_phases):
                at_ms = (season * num_phases + phase) * phase_ms
                baseline.learn(at_ms, 7.0 if phase == 0 else -7.0 / (num_phases - 1))
        later = [baseline.standardise((9 * num_phases + phase) * phase_ms, 0.0) for phase in (0, 1)]
        assert later[0] < 0 < later[1]


def test_luck_does_not_make_the_spread_smaller_than_a_floor() -> None:
    baseline = Baseline(HOUR_MS)
    for hour in range(100):
        baseline.learn(hour * HOUR_MS, 0.0)
    assert baseline.spread == 0.7


def test_what_is_older_than_two_weeks_of_hours_is_no_longer_usual() -> None:
    old, young = Baseline(HOUR_MS), Baseline(HOUR_MS)
    for hour in range(48):
        old.learn(hour * HOUR_MS, 50.0)
    for hour in range(48, 48 + 336):
        old.learn(hour * HOUR_MS, float(hour % 5))
        young.learn(hour * HOUR_MS, float(hour % 5))
    assert len(old) == STABLE_BUCKETS == 336
    assert (old.mean, old.spread) == (young.mean, young.spread)


def test_new_weights_keep_the_spread_alone() -> None:
    baseline = Baseline(HOUR_MS)
    for hour in range(48):
        baseline.learn(hour * HOUR_MS, 9.0 if hour % 24 == 3 else -9.0 * (hour % 2))
    spread = baseline.spread
    baseline.forget()
    assert (len(baseline), baseline.mean, baseline.spread) == (0, 0.0, spread)
    assert baseline.standardise(3 * HOUR_MS, spread) == 1.0


def test_the_noise_of_a_mean_is_measured_on_whole_blocks_of_the_newest_values() -> None:
    # Twelve values in blocks of two: 1 or -1 throughout a block, so their means spread by 1.
    stable = np.repeat([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], 2)
    assert block_noise(stable, 2) == 1.0
    # The first of thirteen belongs to no whole block.
    assert block_noise(np.concatenate([[99.0], stable]), 2) == 1.0


def test_long_blocks_are_taken_for_several_shorter_ones() -> None:
    stable = np.repeat([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], 2)
    assert block_noise(stable, 4) == pytest.approx(math.sqrt(2 / 4))
    # A sixth of thirty values are five.
    fives = np.repeat([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], 5)
    assert block_noise(fives, 6) == pytest.approx(math.sqrt(5 / 6))


def test_a_mean_is_never_less_noisy_than_that_of_independent_values() -> None:
    assert block_noise(np.zeros(60), 4) == 0.5
    assert block_noise(np.tile([3.0, -3.0], 30), 4) == 0.5


def test_of_fewer_than_three_blocks_nothing_can_be_told() -> None:
    assert block_noise(np.array([5.0, -5.0]), 1) == 1.0
    assert block_noise(np.array([6.0, 0.0, 0.0]), 1) == pytest.approx(math.sqrt(8))
