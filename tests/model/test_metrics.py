"""Metrics against their definitions, written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import metrics

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
    assert metrics.wql(actual, quantiles, LEVELS) == pytest.approx(naive_wql(actual, quantiles, LEVELS))


def test_the_true_quantiles_score_better_than_shifted_ones() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(10.0, 1.0, (1, 4000))
    true = np.quantile(actual, LEVELS)[None, None].repeat(4000, 1)
    assert metrics.wql(actual, true, LEVELS) < metrics.wql(actual, true + 0.5, LEVELS)


def test_coverage_counts_observed_steps_only() -> None:
    actual = np.array([[1.0, math.nan, 9.0]])
    assert metrics.coverage(actual, np.zeros((1, 3)), np.full((1, 3), 5.0)) == 0.5


def test_rows_without_a_seasonal_error_are_left_out_of_mase() -> None:
    history = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [math.nan] * 3])
    actual, median = np.array([[9.0], [4.0], [5.0]]), np.array([[0.0], [2.0], [0.0]])
    assert metrics.mase(actual, median, history, 1) == pytest.approx(2.0)


def test_a_week_without_sales_does_not_divide_by_zero() -> None:
    assert metrics.wql(np.zeros((1, 3)), np.zeros((1, 3, 3)), LEVELS) == 0.0
    assert metrics.wape(np.zeros((1, 3)), np.ones((1, 3))) == 3.0
