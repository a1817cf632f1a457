"""Sums of the newest values against their measured variance; oracles are written apart."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from freshet.online.drift import scan as scan_module
from freshet.online.drift.scan import (
    LEARNT_AFTER,
    LEAST_VARIANCE,
    LENGTHS,
    LEVEL_VARIANCE,
    LOOKS,
    PRIOR_FREEDOM,
    Scan,
    height,
    unskewed,
)

ONE = np.array([True])


def fed(scan: Scan, values: list[float], *, learn: bool = False, weight: float = 1.0) -> Scan:
    for value in values:
        num = len(scan.age_N)
        scan.push(np.full(num, weight), np.full(num, value))
        if learn:
            scan.learn(np.ones(num, bool))
    return scan


def test_the_budget_is_shared_by_all_streams_and_all_looks() -> None:
    found = height(0.05, 10)
    assert 2 * (1 - NormalDist().cdf(found)) * LOOKS * 10 == pytest.approx(0.05)
    assert height(0.05, 1) < height(0.05, 10) < height(0.01, 10)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_a_score_is_that_of_a_t_distribution_of_few_degrees(weight: float) -> None:
    score_KN = fed(Scan(1, LEVEL_VARIANCE), [0.0] * 80 + [3.0] * 4, weight=weight).scores()
    # Four values of 3 make a sum of 12, whose variance is four times 1.4.
    number = LENGTHS.index(4)
    t = 12 / (4 * LEVEL_VARIANCE[number]) ** 0.5
    exact = -stats.norm.ppf(stats.t.sf(t, PRIOR_FREEDOM))
    assert score_KN[number, 0] == pytest.approx(exact, rel=0.02)
    assert score_KN[LENGTHS.index(9), 0] < score_KN[number, 0]


def test_less_sold_scores_below_zero_and_no_single_bucket_scores() -> None:
    score_KN = fed(Scan(1, LEVEL_VARIANCE), [-3.0] * 2).scores()
    assert score_KN[LENGTHS.index(2), 0] < -1.5
    assert score_KN[0, 0] == 0.0 and score_KN[2:].any() == np.False_


def test_the_variance_of_each_length_is_measured_with_what_neighbours_have_in_common() -> None:
    rng = np.random.default_rng(0)
    # Days with a mood of their own: of 1 in an hour's 2, and of a whole day's 24 + 24 ** 2.
    values_TN = rng.normal(size=(960, 60)) + np.repeat(rng.normal(size=(40, 60)), 24, axis=0)
    scan = Scan(60, LEVEL_VARIANCE)
    for value_N in values_TN:
        scan.push(np.ones(60), value_N)
        scan.learn(np.ones(60, bool))
    assert scan.variance_KN[0].mean() == pytest.approx(2.0, rel=0.1)
    # A sum that begins anywhere covers two days in part: 1 + 16 rather than 1 + 24, over 24.
    assert scan.variance_KN[LENGTHS.index(24)].mean() == pytest.approx(17.0, rel=0.1)


def test_a_variance_is_the_weighed_mean_of_what_was_expected_and_seen() -> None:
    scan = fed(Scan(1, LEVEL_VARIANCE), [2.0, -2.0] * 6 + [0.0] * LEARNT_AFTER, learn=True)
    # Every other of twelve single values was looked at: it had the square 4.
    freedom = 6.0
    expected = (PRIOR_FREEDOM * 1.0 + freedom * 4.0) / (PRIOR_FREEDOM + freedom)
    assert scan.variance_KN[0, 0] == pytest.approx(expected, rel=1e-5)
    # Pairs cancel out: five or six sums of nothing, drawn to 1.15 by ten degrees of freedom.
    less = [PRIOR_FREEDOM * LEVEL_VARIANCE[1] / (PRIOR_FREEDOM + pairs) for pairs in (5, 6)]
    assert min(less) - 1e-6 <= scan.variance_KN[1, 0] <= max(less) + 1e-6
    assert min(less) > LEAST_VARIANCE


def test_a_shift_does_not_explain_itself() -> None:
    scan = fed(Scan(1, LEVEL_VARIANCE), [1.0, -1.0] * 40, learn=True)
    before = scan.variance_KN.copy()
    fed(scan, [3.0] * (LEARNT_AFTER - 1), learn=True)
    assert (scan.variance_KN <= before).all()


def test_of_streams_that_are_not_calm_nothing_is_learnt() -> None:
    scan = Scan(1, LEVEL_VARIANCE)
    for _ in range(60):
        scan.push(np.ones(1), np.full(1, 3.0))
        scan.learn(~ONE)
    assert scan.variance_KN[:, 0].tolist() == pytest.approx(LEVEL_VARIANCE.tolist())


def test_a_young_stream_is_held_to_what_the_shop_shows() -> None:
    rng = np.random.default_rng(1)
    shop, alone = Scan(5, LEVEL_VARIANCE), Scan(1, LEVEL_VARIANCE)
    for _ in range(400):
        values = 3.0 * rng.normal(size=5)
        # The last one is new: it says nothing yet.
        shop.push(np.array([1.0, 1.0, 1.0, 1.0, 0.0]), values)
        shop.learn(np.array([True, True, True, True, False]))
        alone.push(np.zeros(1), values[:1])
        alone.learn(np.array([False]))
    assert shop.variance_KN[0, 4] == pytest.approx(9.0, rel=0.1)
    assert alone.variance_KN[0, 0] == 1.0


def test_sums_begin_anew_after_a_restart_and_variances_stay() -> None:
    scan = fed(Scan(2, LEVEL_VARIANCE), [1.0, -1.0] * 40 + [3.0] * 5, learn=True)
    kept = scan.variance_KN.copy()
    scan.restart(np.array([0]))
    assert not scan.scores()[:, 0].any() and scan.scores()[:, 1].any()
    assert (scan.variance_KN == kept).all()


def test_many_streams_score_as_each_of_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    values_TN = np.random.default_rng(2).normal(size=(150, 7))

    def scored(at_a_time: int) -> list[list[float]]:
        monkeypatch.setattr(scan_module, "STREAMS_AT_A_TIME", at_a_time)
        scan = Scan(7, LEVEL_VARIANCE)
        for value_N in values_TN:
            scan.push(np.ones(7), value_N)
            scan.learn(np.ones(7, bool))
        found: list[list[float]] = scan.scores().tolist()
        return found

    assert scored(2) == scored(100)


@pytest.mark.parametrize("variance", [1.0, 2.0])
def test_a_skewed_sum_scores_as_normal_as_its_chance_says(variance: float) -> None:
    shape, lengths = 2.0, np.array(LENGTHS)
    # Each sum is one that a gamma variable of its shape passes once in ten thousand times.
    shape_K = shape * lengths * variance
    sum_K = (stats.gamma.isf(1e-4, shape_K) - shape_K) / np.sqrt(shape_K) * variance**0.5
    sum_KN = np.asarray(sum_K[:, None], np.float32)
    found = unskewed(sum_KN, np.full_like(sum_KN, variance), shape)
    expected = stats.norm.isf(1e-4) * variance**0.5
    assert found[:, 0] == pytest.approx([expected] * len(LENGTHS), rel=0.02)
    assert sum_K[1] > 1.3 * expected


def test_a_skewed_stream_needs_more_above_and_less_below() -> None:
    plain, skewed = Scan(1, LEVEL_VARIANCE), Scan(1, LEVEL_VARIANCE, 2.0)
    for side in (1.0, -1.0):
        scores = [
            np.abs(fed(scan, [0.0] * 80 + [2.0 * side] * 4).scores()).max()
            for scan in (plain, skewed)
        ]
        assert (scores[0] > scores[1]) == (side > 0)
