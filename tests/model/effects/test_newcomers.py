"""Series without much of a past: near what siblings sell, then what they sell themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from freshet.model.batch import QUANTILE_LEVELS
from freshet.model.effects.newcomers import Newcomers, full_steps, newcomers, own_share
from freshet.model.effects.pools import NO_POOLS, Pool, Pools
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.model.effects.test_pools import pools_of, texts, window_of

HALF, MOST = QUANTILE_LEVELS.index(0.5), QUANTILE_LEVELS.index(0.99)
LEVELS_Q = np.array(QUANTILE_LEVELS)


def asked(pools: Pools, target_NT: Any, **over: Any) -> Newcomers:
    window = window_of(target_NT, **over)
    steps = window.time_ms_NS.shape
    closed_NS = over.get("closed_NS", np.zeros(steps, bool))
    found = newcomers(window, np.ones(len(window)), closed_NS, np.zeros(steps), pools)
    assert found is not None
    return found


def pool_of(level_K: Any, size: float = 1e3, shape: float = 1e3) -> Pools:
    """Pools of one, as few would find them."""
    pool = Pool((), np.ones(7), np.asarray(level_K, float), np.full(8, shape), size)
    return Pools((), (pool,))


def test_without_a_past_it_is_a_mixture_of_what_siblings_sell() -> None:
    found = asked(pool_of([2.0] * 4 + [20.0] * 4), np.full((1, 9), np.nan))
    # An oracle of Poisson sales: half of the siblings sell 2 a day and half 20.
    value_G = np.arange(60)
    below_G = 0.5 * stats.poisson.cdf(value_G, 2.0) + 0.5 * stats.poisson.cdf(value_G, 20.0)
    expected_Q = value_G[np.searchsorted(below_G, LEVELS_Q)]
    assert found.own_N.tolist() == [0.0]
    np.testing.assert_allclose(found.pooled_NHQ[0, 0], expected_Q, atol=1)
    assert np.abs(found.pooled_NHQ[0, 0] - expected_Q).mean() < 0.3


def test_a_step_by_a_known_level_is_negative_binomial() -> None:
    found = asked(pool_of([30.0] * 8, size=2.0), np.full((1, 9), np.nan))
    expected_Q = stats.nbinom.ppf(LEVELS_Q, 2.0, 2.0 / 32.0)
    np.testing.assert_allclose(found.pooled_NHQ[0, 3], expected_Q, rtol=0.03, atol=1)


def test_one_among_a_hundred_that_sell_ten_a_day_is_near_ten() -> None:
    rng = np.random.default_rng(5)
    siblings_NT = rng.poisson(10.0, (100, 56))
    found = asked(pools_of(window_of(siblings_NT)), np.full((1, 56), np.nan))
    assert np.abs(found.pooled_NHQ[0, :, HALF] - 10.0).max() <= 1.0
    assert found.pooled_NHQ[0, :, MOST].max() <= siblings_NT.max()


def test_its_own_sales_tell_its_level_and_the_more_the_more() -> None:
    pools = pool_of(np.geomspace(1.0, 100.0, 8), size=20.0, shape=4.0)
    target_NT = np.full((4, 80), np.nan)
    target_NT[1, -1:] = 60.0
    target_NT[2, -3:] = 60.0
    target_NT[3, -14:] = 60.0
    median_N = asked(pools, target_NT).pooled_NHQ[:, 0, HALF]
    spread_N = np.ptp(asked(pools, target_NT).pooled_NHQ[:, 0], axis=1)
    assert median_N[0] < 20 and 35 < median_N[1] < 65
    assert np.abs(median_N[2:] - 60.0).max() < 6
    assert (np.diff(spread_N) <= 0).all() and spread_N[3] < 0.6 * spread_N[0]


def test_one_that_sells_as_no_sibling_does_is_believed_after_some_days() -> None:
    pools = pool_of([10.0] * 8, size=50.0, shape=20.0)
    target_NT = np.full((2, 80), np.nan)
    target_NT[0, -10:] = 200.0
    target_NT[1, -10:] = 0.0
    median_N = asked(pools, target_NT).pooled_NHQ[:, 0, HALF]
    assert median_N[0] > 100 and median_N[1] < 4


def test_sales_are_compared_with_what_their_own_slots_sell() -> None:
    week = np.ones(7)
    week[2] = 11.0  # Saturdays: slots begin with a Thursday
    (usual,) = pool_of([10.0] * 8, shape=2.0).pools
    pools = Pools((), (replace(usual, profile_W=week),))
    target_NT = np.full((1, 13), np.nan)
    target_NT[0, -1] = 110.0  # the second Saturday
    found = asked(pools, target_NT, ahead=7)
    assert 7 <= found.pooled_NHQ[0, 0, HALF] <= 13
    assert 80 <= found.pooled_NHQ[0, 6, HALF] <= 130


def test_nothing_sells_while_closed_and_what_all_share_counts() -> None:
    window = window_of(np.full((1, 9), np.nan))
    steps = window.time_ms_NS.shape
    closed_NS, effect_NS = np.zeros(steps, bool), np.zeros(steps)
    closed_NS[0, 9] = True
    effect_NS[0, 10] = np.log(3.0)
    found = newcomers(window, np.ones(1), closed_NS, effect_NS, pool_of([20.0] * 8))
    assert found is not None and not found.pooled_NHQ[0, 0].any()
    assert found.pooled_NHQ[0, 1:3, HALF].tolist() == [60.0, 20.0]


def test_amounts_come_in_their_own_size_times_their_factor() -> None:
    pools = replace(pool_of([100.0] * 8), unit=0.01)
    window = window_of(np.full((1, 9), np.nan))
    steps = window.time_ms_NS.shape
    found = newcomers(window, np.full(1, 50.0), np.zeros(steps, bool), np.zeros(steps), pools)
    assert found is not None
    np.testing.assert_allclose(found.pooled_NHQ[0, :, HALF], 50.0, rtol=0.02)


@pytest.mark.parametrize(
    ("resolution_ms", "seen", "share"),
    [(HOUR_MS, 12, 0.25), (HOUR_MS, 48, 1.0), (DAY_MS, 14, 0.5), (DAY_MS, 40, 1.0)],
)
def test_its_own_forecast_counts_the_more_the_more_steps_were_seen(
    resolution_ms: int, seen: int, share: float
) -> None:
    target_NT = np.full((2, 240), np.nan)
    target_NT[:, -seen:] = [[1.0], [0.0]]
    # That nothing sold says as much.
    assert own_share(target_NT, np.zeros((2, 240), bool), resolution_ms).tolist() == [share] * 2


def test_closed_steps_are_no_history_and_a_short_context_may_be_full() -> None:
    target_NT, closed_NT = np.full((1, 40), 2.0), np.zeros((1, 40), bool)
    closed_NT[0, ::2] = True
    assert own_share(target_NT, closed_NT, DAY_MS).tolist() == [1.0]
    twice = np.tile(target_NT, 2), np.tile(closed_NT, 2) | (np.arange(80) < 40)
    assert own_share(*twice, DAY_MS).tolist() == [20 / 28]
    few_NT = np.array([[np.nan] * 5 + [1.0] * 3])
    assert own_share(few_NT, np.zeros((1, 8), bool), DAY_MS).tolist() == [0.75]
    assert full_steps(60_000) == 24


def test_where_nobody_is_known_nothing_is_said() -> None:
    window = window_of(np.full((1, 9), np.nan))
    steps = window.time_ms_NS.shape
    assert newcomers(window, np.ones(1), np.zeros(steps, bool), np.zeros(steps), NO_POOLS) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_each_series_gets_the_same_bits_whoever_is_beside_it(seed: int, few: int) -> None:
    rng = np.random.default_rng(seed)
    target_NT = rng.poisson(rng.lognormal(1.0, 2.0, (24, 1)), (24, 40)).astype(float)
    target_NT[np.arange(24)[:, None] * 40 // 24 > np.arange(40)] = np.nan
    target_NT[::5] = np.nan
    category = texts(*["a", "b"] * 12)
    pools = pools_of(window_of(target_NT, category=category))
    everyone = asked(pools, target_NT, category=category)
    rows = rng.permutation(24)[:few]
    some = asked(pools, target_NT[rows], category=category[rows])
    assert some.pooled_NHQ.tobytes() == everyone.pooled_NHQ[rows].tobytes()
    assert some.own_N.tobytes() == everyone.own_N[rows].tobytes()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_quantiles_rise_are_finite_and_within_what_siblings_or_it_can_explain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    level = rng.lognormal(1.0, 3.0)
    siblings_NT = rng.poisson(level * rng.gamma(1.0, 1.0, (20, 1)) * rng.gamma(2.0, 0.5, (20, 56)))
    target_NT = np.full((3, 80), np.nan)
    target_NT[1, -1] = rng.poisson(level * 1000.0)
    target_NT[2, -20:] = 0.0
    found = asked(pools_of(window_of(siblings_NT)), target_NT).pooled_NHQ
    assert np.isfinite(found).all() and (found >= 0).all() and (np.diff(found) >= 0).all()
    most = max(siblings_NT.max(), 5)
    assert found[0].max() <= 4 * most and found[1].max() <= 10 * max(target_NT[1, -1], most)
