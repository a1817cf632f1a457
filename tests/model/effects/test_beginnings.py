"""Openings, ends, levels and profiles that moved: found where they are, and nowhere else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from freshet.model.effects.beginnings import begun, changes, silences
from freshet.model.effects.slots import dress
from freshet.stream.arrays import Floats
from tests.model.tables.windows import window_of

STEPS, NEW = 210, 25
WEEK = np.array([1.0, 1.0, 1.2, 1.2, 1.6, 2.0, 0.6])


def shop(seed: int = 0, series: int = 20, level: float = 200.0) -> Floats:
    """Sales by day whose weeks wander by a tenth."""
    draw = np.random.default_rng(seed)
    weeks = np.exp(0.1 * draw.normal(size=(series, STEPS // 7))).repeat(7, 1)
    return draw.poisson(level * WEEK[np.arange(STEPS) % 7] * weeks).astype(float)


def test_without_a_break_nothing_changes_to_the_last_bit() -> None:
    target_NT = shop(1, series=60)
    target_NT[::3, ::11] = np.nan
    np.testing.assert_array_equal(begun(target_NT, target_NT, 7), target_NT)
    rare_NT = np.random.default_rng(2).poisson(0.05, (60, STEPS)).astype(float)
    rare = begun(rare_NT, rare_NT, 7)
    assert np.array_equal(rare, rare_NT, equal_nan=True) or np.isnan(rare).any(1).mean() < 0.05


def test_zeros_before_the_first_sale_of_a_store_are_missing() -> None:
    target_NT = shop()
    target_NT[:, : STEPS - NEW] = 0.0
    found_NT = begun(target_NT, target_NT, 7)
    assert np.isnan(found_NT[:, : STEPS - NEW]).all()
    np.testing.assert_array_equal(found_NT[:, STEPS - NEW :], target_NT[:, STEPS - NEW :])


def test_after_the_last_sale_of_a_dead_item_only_zeros_are_left() -> None:
    target_NT = shop()
    target_NT[:, STEPS - NEW :] = 0.0
    found_NT = begun(target_NT, target_NT, 7)
    assert np.isnan(found_NT[:, : STEPS - NEW]).all()
    assert (found_NT[:, STEPS - NEW :] == 0.0).all()


def silence(gaps: list[int], trailing: int) -> Floats:
    """Sales of one with so many zeros after each."""
    return np.array([[value for gap in gaps for value in (1.0, *[0.0] * gap)] + [0.0] * trailing])


@pytest.mark.parametrize(
    ("gaps", "trailing", "begin"),
    [
        ([1] * 50, 20, 99),  # at one in two days, ln 1e-4 / ln .5 is 13.3 zeros
        ([1] * 50, 13, 99),
        ([1] * 50, 11, 0),
        ([1] * 25 + [15] + [1] * 25, 19, 0),  # it was silent for fifteen days before
        ([1] * 25 + [15] + [1] * 25, 23, 115),
        ([1, 1], 50, 0),  # two sales say nothing
    ],
)
def test_a_silence_counts_by_the_rate_and_by_the_longest_one_before(gaps, trailing, begin) -> None:
    assert silences(silence(gaps, trailing), 1).tolist() == [begin]


def test_missing_and_closed_steps_are_no_silence() -> None:
    target_NT = np.ones((1, 60))
    target_NT[0, 20:] = np.nan
    nothing_NT = np.stack([np.full(60, np.nan), np.zeros(60)])
    assert silences(target_NT, 7).tolist() == [0]
    assert silences(nothing_NT, 7).tolist() == [0, 0]


def test_an_empty_shelf_of_two_weeks_is_no_end() -> None:
    daily = np.r_[np.ones(60), np.zeros(15)]
    assert silences(np.stack([daily, np.r_[1.0, daily[:-1]]]), 7).tolist() == [60, 0]


def test_a_level_that_doubled_for_good_lifts_the_past() -> None:
    plain_NT = shop()
    target_NT = plain_NT.copy()
    target_NT[:, STEPS - NEW :] *= 2.0
    found_NT = begun(target_NT, target_NT, 7)
    np.testing.assert_array_equal(found_NT[:, STEPS - NEW + 3 :], target_NT[:, STEPS - NEW + 3 :])
    ratio_N = found_NT[:, : STEPS - 2 * NEW].sum(1) / plain_NT[:, : STEPS - 2 * NEW].sum(1)
    assert np.median(ratio_N) == pytest.approx(2.0, rel=0.1)
    assert (ratio_N > 1.5).mean() > 0.9
    # It is one factor for all weekdays: the season stays.
    factor_NT = found_NT[:, :100] / np.maximum(plain_NT[:, :100], 1.0)
    assert np.median(factor_NT.std(1) / factor_NT.mean(1)) < 0.1


def test_a_week_of_double_sales_is_no_level() -> None:
    target_NT = shop()
    target_NT[:, -7:] *= 2.0
    assert (changes(target_NT, 7).begin_N == 0).all()


def test_a_profile_that_moved_moves_the_past() -> None:
    target_NT = shop()
    plain_NT = target_NT.copy()
    moved_T = np.roll(WEEK, 3)[np.arange(STEPS) % 7] / WEEK[np.arange(STEPS) % 7]
    target_NT[:, STEPS - NEW :] *= moved_T[STEPS - NEW :]
    found_NT = begun(target_NT, target_NT, 7)
    factor_NT = found_NT[:, :140] / np.maximum(plain_NT[:, :140], 1.0)
    by_weekday_7 = np.median(factor_NT.reshape(20, 20, 7), (0, 1))
    level = np.exp(np.log(by_weekday_7 / moved_T[:7]).mean())
    np.testing.assert_allclose(by_weekday_7 / level, moved_T[:7], rtol=0.15)


def test_a_step_that_is_told_begins_a_series_and_none_leaves_it_as_it_is() -> None:
    plain_NT = np.tile(np.array([4.0, 9.0]), (3, 30))
    target_NT = plain_NT.copy()
    target_NT[:, 50:] *= 100.0
    found_NT = begun(target_NT, target_NT, 2, np.array([50, 0, 50]))
    np.testing.assert_array_equal(found_NT[1], target_NT[1])
    np.testing.assert_array_equal(found_NT[0, 50:], target_NT[0, 50:])
    # Hundredfold is no rescaled past: it is missing.
    assert np.isnan(found_NT[0, :50]).all()
    target_NT[:, 50:] /= 50.0
    found_NT = begun(target_NT, target_NT, 2, np.array([50, 0, -1]))
    # Roots of 32 and 35 beside one: 2 log((5 (2.83 + 4.24) + 1) / (5 (2 + 3) + 1)) = .6653.
    log_ratio = 2 * math.log((5 * 5 * math.sqrt(2) + 1) / 26)
    np.testing.assert_allclose(found_NT[0, :50] / plain_NT[0, :50], math.exp(log_ratio), rtol=0.02)


def test_a_series_begins_by_itself_whatever_stands_beside_it() -> None:
    target_NT = shop(3)
    target_NT[::2, STEPS - NEW :] *= 2.0
    target_NT[1::4, STEPS - NEW :] = 0.0
    together = begun(target_NT, target_NT, 7)
    for row in range(len(target_NT)):
        alone = begun(target_NT[[row]], target_NT[[row]], 7)
        np.testing.assert_array_equal(together[[row]], alone)


def test_dressing_begins_a_series_and_leaves_promotions_and_closed_days_out_of_it() -> None:
    target_NT = shop(4)
    target_NT[:, : STEPS - NEW] = 0.0
    window = window_of(target_NT, horizon=7)
    assert np.isnan(dress(window).target_NT[:, : STEPS - NEW]).all()
    kept = dress(window, begin_N=np.zeros(20, np.int64))
    np.testing.assert_array_equal(kept.target_NT, target_NT.astype(np.float32))
    # Closed all along before: nothing was seen, so nothing changed.
    closed_NS = np.zeros((20, STEPS + 7, 1))
    closed_NS[:, : STEPS - NEW] = 1.0
    closed = replace(window, known_NSK=closed_NS, known_names=("closed",))
    np.testing.assert_array_equal(dress(closed).target_NT, target_NT.astype(np.float32))
