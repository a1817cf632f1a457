"""Metrics against their definitions, written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.model.quantiles import metrics

LEVELS = np.array([0.1, 0.5, 0.9])


def naive_wql(actual: np.ndarray, quantiles: np.ndarray, levels: np.ndarray) -> float:
    losses, total = [0.0] * len(levels), 0.0
    for row in range(actual.shape[0]):
        for step in range(actual.shape[1]):
            if math.isnan(actual[row, step]):
                continue
            total += abs(actual[row, step])
            for k, level in enumerate(levels):
                error = actual[row, step] - quantiles[row, step, k]
                losses[k] += 2 * (level * error if error >= 0 else (level - 1) * error)
    return sum(losses) / len(levels) / total


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_wql_equals_a_naive_loop_and_leaves_out_missing_actuals(seed: int) -> None:
    rng = np.random.default_rng(seed)
    actual = rng.poisson(3.0, (4, 5)) + 1.0
    actual[rng.random((4, 5)) < 0.3] = math.nan
    actual[0, 0] = 2.0
    quantiles = np.sort(rng.gamma(2.0, 2.0, (4, 5, 3)), axis=-1)
    assert metrics.wql(actual, quantiles, LEVELS) == pytest.approx(
        naive_wql(actual, quantiles, LEVELS)
    )


def test_the_true_quantiles_score_better_than_shifted_ones() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(10.0, 1.0, (1, 4000))
    true = np.quantile(actual, LEVELS)[None, None].repeat(4000, 1)
    assert metrics.wql(actual, true, LEVELS) < metrics.wql(actual, true + 0.5, LEVELS)


def test_coverage_counts_observed_steps_only() -> None:
    actual = np.array([[1.0, math.nan, 9.0]])
    assert metrics.coverage(actual, np.zeros((1, 3)), np.full((1, 3), 5.0)) == 0.5


def test_rows_without_a_seasonal_error_are_left_out_of_mase_and_sql() -> None:
    history = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [math.nan] * 3])
    actual, median = np.array([[9.0], [4.0], [5.0]]), np.array([[0.0], [2.0], [0.0]])
    error = metrics.seasonal_error(history, 1)
    assert metrics.mase(actual, median, error) == pytest.approx(2.0)
    assert metrics.sql(actual, median[..., None], np.array([0.5]), error) == pytest.approx(2.0)
    assert math.isnan(metrics.mase(actual[:1], median[:1], error[:1]))


def test_sql_weighs_every_observed_step_the_same_and_not_every_row() -> None:
    actual = np.array([[2.0, 2.0, 2.0], [8.0, math.nan, math.nan]])
    forecast = np.array([[[1.0]] * 3, [[4.0]] * 3])
    # Three losses of 1 and one of 4, each over a seasonal error of 1: 7 / 4. A mean of the rows'
    # means would be 2.5.
    assert metrics.sql(actual, forecast, np.array([0.5]), np.ones(2)) == pytest.approx(1.75)


def test_the_seasonal_error_leaves_out_pairs_with_a_gap() -> None:
    assert metrics.seasonal_error(np.array([[1.0, math.nan, 5.0, 6.0]]), 1).tolist() == [1.0]
    assert np.isnan(metrics.seasonal_error(np.array([[1.0, 2.0]]), 7)).all()


def test_a_week_without_sales_does_not_divide_by_zero() -> None:
    assert metrics.wql(np.zeros((1, 3)), np.zeros((1, 3, 3)), LEVELS) == 0.0
    assert metrics.wape(np.zeros((1, 3)), np.ones((1, 3))) == 3.0


TWO_LEVELS = np.array([0.2, 0.9])


def test_each_metric_has_the_value_worked_out_by_hand() -> None:
    actual = np.array([[10.0, 0.0], [4.0, math.nan]])
    quantiles = np.array([[[8.0, 20.0], [0.0, 5.0]], [[5.0, 6.0], [0.0, 9.0]]])
    # Above a quantile the level a unit, below it one less the level.
    losses = [[[0.4, 1.0], [0.0, 0.5]], [[0.8, 0.2], [math.nan, math.nan]]]
    np.testing.assert_allclose(metrics.pinball(actual, quantiles, TWO_LEVELS), losses)
    assert metrics.wql(actual, quantiles, TWO_LEVELS) == pytest.approx(2 * 2.9 / 2 / 14)
    # Means over levels, twice: 1.4 and .5 of the first row over 2, 1.0 of the second over 0.5.
    error_B = np.array([2.0, 0.5])
    scaled = (1.4 / 2 + 0.5 / 2 + 1.0 / 0.5) / 3
    assert metrics.sql(actual, quantiles, TWO_LEVELS, error_B) == pytest.approx(scaled)
    median = quantiles[..., 0]
    assert metrics.mase(actual, median, error_B) == pytest.approx((2 / 2 + 0 / 2 + 1 / 0.5) / 3)
    assert metrics.wape(actual, median) == pytest.approx((2 + 0 + 1) / 14)
    assert metrics.bias(actual, median) == pytest.approx((-2 + 0 + 1) / 14)
    assert metrics.bias(actual, quantiles[..., 1]) == pytest.approx((10 + 5 + 2) / 14)


def test_returns_count_by_their_size() -> None:
    # Differences may be negative, and their sum would hide them.
    actual, forecast = np.array([[5.0, -5.0]]), np.zeros((1, 2))
    assert metrics.wape(actual, forecast) == 1.0
    assert metrics.bias(actual, forecast) == 0.0


def test_both_ends_of_an_interval_cover_and_nothing_beyond_them_does() -> None:
    actual = np.array([[1.0, 2.0, 0.999, 2.001, math.nan]])
    covered = metrics.coverage(actual, np.full((1, 5), 1.0), np.full((1, 5), 2.0))
    assert covered == 0.5
    # A forecast of nothing for nothing sold is right.
    assert metrics.coverage(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2))) == 1.0
    assert math.isnan(
        metrics.coverage(np.full((1, 2), math.nan), np.zeros((1, 2)), np.ones((1, 2)))
    )


def test_the_seasonal_error_is_the_mean_gap_to_the_season_before() -> None:
    history = np.array([[1.0, 10.0, 4.0, 30.0, 9.0, 20.0], [7.0] * 6])
    # |4 - 1|, |30 - 10|, |9 - 4|, |20 - 30|; a series without change has none.
    assert metrics.seasonal_error(history, 2).tolist() == [9.5, 0.0]
    assert metrics.seasonal_error(history, 5).tolist() == [19.0, 0.0]
    assert np.isnan(metrics.seasonal_error(history, 6)).all()
    assert metrics.seasonal_error(np.array([[3.0, math.nan, 3.5]]), 2).tolist() == [0.5]


def test_nothing_sold_and_nothing_known_has_a_loss_of_nothing() -> None:
    unknown = np.full((1, 2), math.nan)
    assert metrics.wape(unknown, np.ones((1, 2))) == 0.0
    assert metrics.bias(np.zeros((1, 2)), np.full((1, 2), 3.0)) == 6.0
    assert math.isnan(metrics.sql(np.ones((1, 1)), np.ones((1, 1, 1)), LEVELS[:1], np.zeros(1)))
    # A tiny error is one; only none at all leaves a row out.
    assert metrics.mase(np.ones((1, 1)), np.zeros((1, 1)), np.array([0.25])) == 4.0
