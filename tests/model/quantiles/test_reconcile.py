"""Coherent quantiles: they add up, and are what is known or another formula says."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy.sparse import csr_array

from freshet.model.batch import QUANTILE_LEVELS
from freshet.model.quantiles import reconcile as module
from freshet.model.quantiles.reconcile import normal_places, reconcile
from freshet.stream.arrays import Floats

LEVELS = tuple(QUANTILE_LEVELS)
MEMBERS = np.array([[1.0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]])
NO_PAST = np.zeros((7, 0))


def normal(mean_X: list[float], spread_X: list[float], steps: int = 1) -> Floats:
    """Quantiles of normal distributions: [X, H, Q]."""
    scores_Q = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    found_XQ = np.array(mean_X)[:, None] + np.array(spread_X)[:, None] * scores_Q
    return np.repeat(found_XQ[:, None], steps, axis=1)


def test_means_add_up_and_quantiles_rise() -> None:
    rng = np.random.default_rng(3)
    own_XHQ = np.sort(rng.gamma(1.0, 20.0, (7, 5, len(LEVELS))), -1)
    found = reconcile(own_XHQ, LEVELS, csr_array(MEMBERS), rng.standard_normal((7, 40)))
    np.testing.assert_allclose(MEMBERS @ found.mean_XH[3:], found.mean_XH[:3], rtol=1e-12)
    assert (np.diff(found.quantiles_XHQ, axis=-1) >= 0).all()
    assert (found.quantiles_XHQ >= 0).all()


def test_what_adds_up_already_stays() -> None:
    # Independent items with spreads 3 and 4: pairs spread by 5, all by the root of 50.
    own_XHQ = normal([400, 200, 200, 100, 100, 100, 100], [50**0.5, 5, 5, 3, 4, 3, 4])
    found = reconcile(own_XHQ, LEVELS, csr_array(MEMBERS), NO_PAST)
    # What paths cannot tell are the outermost levels.
    inner = slice(LEVELS.index(0.1), LEVELS.index(0.9) + 1)
    np.testing.assert_allclose(found.quantiles_XHQ[..., inner], own_XHQ[..., inner], atol=0.7)


@pytest.mark.parametrize(("correlation", "spread"), [(0.0, 20.0), (1.0, 40.0)])
def test_past_errors_say_how_wide_a_sum_is(monkeypatch, correlation, spread) -> None:
    # Nothing is known of groups themselves, so that items alone tell.
    monkeypatch.setattr(module, "GROUPS_VARIANCE", 1e9)
    monkeypatch.setattr(module, "BELIEVED", 1.0)
    rng = np.random.default_rng(1)
    common_1E, own_XE = rng.standard_normal((1, 4000)), rng.standard_normal((7, 4000))
    places_XE = correlation**0.5 * common_1E + (1 - correlation) ** 0.5 * own_XE
    own_XHQ = normal([400, 200, 200, 100, 100, 100, 100], [20, 14, 14, 10, 10, 10, 10])
    found = reconcile(own_XHQ, LEVELS, csr_array(MEMBERS), places_XE)
    low, high = LEVELS.index(0.1), LEVELS.index(0.9)
    width = found.quantiles_XHQ[0, 0, high] - found.quantiles_XHQ[0, 0, low]
    # Four of spread 10: 20 together where each errs alone, 40 where all err alike.
    assert width == pytest.approx(2 * 1.2816 * spread, rel=0.12)


def test_means_are_those_of_minimum_trace_in_its_textbook_form() -> None:
    mean_X = np.array([460.0, 210, 230, 100, 105, 120, 90])
    spread_X = np.array([20.0, 12, 16, 8, 10, 12, 6])
    # S (S' W^-1 S)^-1 S' W^-1 y, where W holds the variances.
    summing_XN = np.vstack([MEMBERS, np.eye(4)])
    weight_X = spread_X**2 * np.where(np.arange(7) < 3, module.GROUPS_VARIANCE, 1.0)
    weighted_NX = summing_XN.T / weight_X
    expected_X = summing_XN @ np.linalg.solve(weighted_NX @ summing_XN, weighted_NX @ mean_X)
    own_XHQ = normal(mean_X.tolist(), spread_X.tolist())
    found = reconcile(own_XHQ, LEVELS, csr_array(MEMBERS), NO_PAST)
    np.testing.assert_allclose(found.mean_XH[:, 0], expected_X, rtol=2e-3)


def test_what_one_group_of_four_items_says_is_shared_out_by_hand() -> None:
    # A group of 120 above items of 100 that spread alike: 4 and 1/4 * 16 share 20 as 4 to 8, so
    # that half of it goes to the items, a quarter of that to each.
    own_XHQ = normal([120, 25, 25, 25, 25], [4, 1, 1, 1, 1])
    found = reconcile(own_XHQ, LEVELS, csr_array(np.ones((1, 4))), np.zeros((5, 0)))
    np.testing.assert_allclose(found.mean_XH[:, 0], [110, 27.5, 27.5, 27.5, 27.5], rtol=2e-3)


def test_series_that_never_sell_stay_at_nothing() -> None:
    own_XHQ = np.zeros((7, 2, len(LEVELS)))
    found = reconcile(own_XHQ, LEVELS, csr_array(MEMBERS), NO_PAST)
    assert (found.quantiles_XHQ == 0).all()


def test_the_same_comes_out_each_time() -> None:
    own_XHQ = normal([400, 200, 200, 100, 100, 100, 100], [9, 5, 5, 3, 4, 3, 4])
    places_XE = np.random.default_rng(2).standard_normal((7, 9))
    first, second = (
        reconcile(own_XHQ, LEVELS, csr_array(MEMBERS), places_XE).quantiles_XHQ for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_places_are_normal_numbers_and_nothing_where_missing() -> None:
    quantiles_XEQ = normal([100.0], [10.0], steps=3)
    places_XE = normal_places(np.array([[100.5, 110.5, np.nan]]), quantiles_XEQ, LEVELS)
    np.testing.assert_allclose(places_XE, [[0.05, 1.05, 0.0]], atol=0.03)
