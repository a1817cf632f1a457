"""Levels of several looks spend together what was said, and each attempt half of what is left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from freshet.online.judge.sequential import Plan, error_of_attempt, levels


def test_two_looks_are_those_of_the_bivariate_normal() -> None:
    """Scores of a trial that is looked at after a third correlate by the square root of that."""
    first, second = levels((1 / 3, 1.0), 0.09)
    assert first == pytest.approx(0.01)
    correlation = (1 / 3) ** 0.5
    both = multivariate_normal(cov=[[1.0, correlation], [correlation, 1.0]])
    stays = both.cdf([norm.isf(first), norm.isf(second)])
    assert 1.0 - stays == pytest.approx(0.09, abs=1e-5)


def test_a_walk_that_is_no_better_crosses_as_often_as_was_said() -> None:
    plan = Plan.of_days(0.05, first_days=1, num_looks=7)
    steps = np.diff([0.0, *plan.shares])
    walks = np.random.default_rng(0).normal(size=(400_000, 7)) * np.sqrt(steps)
    scores = walks.cumsum(1) / np.sqrt(plan.shares)
    bounds = norm.isf([plan.level(look) for look in range(7)])
    assert (scores > bounds).any(1).mean() == pytest.approx(0.05, abs=0.001)


@settings(max_examples=8)
@given(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=8), st.floats(0.001, 0.1))
def test_no_look_has_more_than_all_of_the_error(days: list[float], error: float) -> None:
    shares = (*(np.cumsum(days) / np.sum(days))[:-1].tolist(), 1.0)
    found = levels(shares, error)
    assert found[0] == pytest.approx(error * shares[0] ** 2)
    assert all(0.0 < level <= error * (1.0 + 1e-6) for level in found)


def test_the_plan_of_a_week() -> None:
    plan = Plan.of_days(0.049, first_days=1, num_looks=7)
    assert plan.shares == pytest.approx([day / 7 for day in range(1, 8)])
    # A forty-ninth of the error on the first day.
    assert (plan.last, plan.level(0)) == (6, pytest.approx(0.001))


def test_all_attempts_together_keep_the_error_of_an_alert() -> None:
    spent = [error_of_attempt(0.05, attempt) for attempt in range(20)]
    assert spent[:2] == [0.025, 0.0125]
    assert sum(spent) < 0.05
