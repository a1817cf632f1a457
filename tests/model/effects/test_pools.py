"""Pools of siblings: who is in them, what they sell by slot and level, and how they lean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from freshet.model.effects.kinds import Column, articles, find_columns, paths
from freshet.model.effects.pools import MAX_POOLS, NO_POOLS, Pools, find_pools, slots_of
from freshet.model.tables.panel import Window
from freshet.stream.units import DAY_MS, HOUR_MS

MONDAY_MS = 19_723 * DAY_MS  # 2024-01-01


def window_of(target_NT: Any, ahead: int = 7, resolution_ms: int = DAY_MS, **static: Any) -> Window:
    target_NT = np.asarray(target_NT, np.float64)
    N, T = target_NT.shape
    time_S = MONDAY_MS + np.arange(T + ahead) * resolution_ms
    return Window(
        item_ids=tuple(f"i{row}" for row in range(N)),
        frequency="",
        resolution_ms=resolution_ms,
        season_length=1,
        time_ms_NS=np.broadcast_to(time_S, (N, T + ahead)),
        target_NT=target_NT,
        known_NSK=np.zeros((N, T + ahead, 0)),
        past_NTP=np.zeros((N, T, 0)),
        known_names=(),
        past_names=(),
        static={name: np.asarray(values) for name, values in static.items()},
    )


def pools_of(window: Window, **over: Any) -> Pools:
    steps = window.time_ms_NS.shape
    return find_pools(window, np.zeros(steps, bool), np.zeros(steps), **over)


def texts(*values: str | None) -> np.ndarray:
    return np.array(values, object)


def test_a_pool_knows_the_week_the_levels_and_the_chance_of_its_siblings() -> None:
    rng = np.random.default_rng(1)
    week = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.6, 0.4])
    levels = np.repeat([2.0, 8.0, 32.0, 128.0], 10)
    mean_NT = levels[:, None] * np.tile(week, 8)
    # Negative binomial of size 4: Poisson sales at a rate that is gamma distributed.
    target_NT = rng.poisson(mean_NT * rng.gamma(4.0, 0.25, mean_NT.shape))
    (pool,) = pools_of(window_of(target_NT)).pools
    # 2024-01-01 is a Monday, slots begin with the weekday of 1970-01-01, a Thursday.
    np.testing.assert_allclose(pool.profile_W, np.roll(week, -3), rtol=0.12)
    np.testing.assert_allclose(pool.level_K, np.repeat([2.0, 8.0, 32.0, 128.0], 2), rtol=0.15)
    assert 3.0 < pool.size < 5.5


def test_a_slot_is_told_by_the_clock_of_the_place() -> None:
    window = window_of(np.zeros((1, 24)), resolution_ms=HOUR_MS)
    assert slots_of(window)[0, :3].tolist() == [4 * 24, 4 * 24 + 1, 4 * 24 + 2]


def test_a_shop_of_a_few_hours_pools_what_there_is() -> None:
    window = window_of([[np.nan, 4.0, 6.0], [np.nan, 5.0, 5.0]], resolution_ms=HOUR_MS)
    (pool,) = pools_of(window).pools
    assert 4.5 < pool.level_K.mean() < 5.5
    assert len(pool.profile_W) == 168 and pool.profile_W.min() > 0.8


def test_closed_steps_and_shared_effects_are_no_habit_of_siblings() -> None:
    target_NT = np.tile([10.0, 10.0, 10.0, 10.0, 20.0, 0.0, 10.0], (6, 8))
    window = window_of(target_NT)
    steps = window.time_ms_NS.shape
    closed_NS, effect_NS = np.zeros(steps, bool), np.zeros(steps)
    closed_NS[:, 5::7] = True
    effect_NS[:, 4::7] = np.log(2.0)
    (pool,) = find_pools(window, closed_NS, effect_NS).pools
    np.testing.assert_allclose(pool.profile_W, 1.0, atol=0.01)
    np.testing.assert_allclose(pool.level_K, 10.0, rtol=0.01)


def test_who_sold_long_ago_or_has_hardly_begun_is_no_sibling() -> None:
    target_NT = np.full((6, 100), 10.0)
    target_NT[0, 20:] = 0.0
    target_NT[1, :90] = np.nan
    target_NT[1, 90:] = 500.0
    (pool,) = pools_of(window_of(target_NT)).pools
    np.testing.assert_allclose(pool.level_K, 10.0, rtol=0.01)


def test_minutes_have_no_pools_and_nobody_has_none_of_nothing() -> None:
    assert pools_of(window_of(np.ones((4, 90)), resolution_ms=60_000)) == NO_POOLS
    assert pools_of(window_of(np.full((4, 90), np.nan))) == NO_POOLS


def test_a_narrower_pool_leans_on_the_wider_one_by_how_little_it_saw() -> None:
    rng = np.random.default_rng(2)
    category = ["a"] * 40 + ["b"] * 40 + ["c"] * 4
    level_N = np.array([4.0] * 40 + [40.0] * 40 + [400.0] * 4) * rng.lognormal(0.0, 0.8, 84)
    target_NT = rng.poisson(np.repeat(level_N[:, None], 56, 1))
    pools = pools_of(window_of(target_NT, category=texts(*category)))
    named = {pool.path: pool for pool in pools.pools}
    assert pools.columns == (Column("category"),) and len(named) == 4
    for name, rows in (("a", slice(0, 40)), ("b", slice(40, 80))):
        # Geometric means, since levels are leaned on a logarithmic scale.
        own = np.exp(np.log(level_N[rows]).mean())
        found = np.exp(np.log(named[name,].level_K).mean())
        assert found == pytest.approx(own, rel=0.15)
    own = np.exp(np.log(level_N[80:]).mean())
    everyone = np.exp(np.log(named[()].level_K).mean())
    assert everyone < np.exp(np.log(named["c",].level_K).mean()) < own


def test_a_series_is_in_the_narrowest_pool_that_there_is() -> None:
    target_NT = np.repeat([[3.0]] * 8 + [[300.0]] * 8, 56, 1)
    category = texts(*["a"] * 8, *["b"] * 8)
    pools = pools_of(window_of(target_NT, category=category))
    asked = window_of(np.full((4, 5), np.nan), category=texts("b", "a", "new", None))
    paths_found = [pools.pools[place].path for place in pools.of(asked)]
    assert paths_found == [("b",), ("a",), (), ()]
    assert pools.of(window_of(np.full((1, 5), np.nan))).tolist() == [0]


def test_kinds_are_told_by_what_explains_levels_the_best_first() -> None:
    rng = np.random.default_rng(3)
    price_N = rng.lognormal(2.0, 1.0, 90)
    region = texts(*["n", "s", "w"] * 30)
    log_level_N = -1.5 * np.log(price_N) + np.where(region == "n", 0.8, 0.0)
    window = window_of(
        np.ones((90, 3)),
        title=texts(*(f"title {row}" for row in range(90))),
        region=region,
        noise=rng.normal(size=90),
        price=price_N,
    )
    columns = find_columns(window, log_level_N + 0.3 * rng.normal(size=90))
    assert [column.name for column in columns] == ["price", "region"]
    lower, upper = np.quantile(price_N, [1 / 3, 2 / 3])
    assert columns[0].edges == (lower, upper)
    price_N = np.array([lower / 2, np.nan, 2 * upper])
    few = window_of(np.ones((3, 3)), price=price_N, region=texts("n", "s", None))
    assert paths(few, columns) == [("0", "n"), ("", "s"), ("2", "")]


def test_regions_of_one_article_are_one_witness_of_what_a_price_does() -> None:
    rng = np.random.default_rng(6)
    # Twelve articles in ten regions; what they cost says nothing of what they sell.
    level_N = np.repeat(rng.lognormal(2.0, 1.5, 12), 10)
    window = window_of(
        np.ones((120, 3)),
        price=np.repeat(rng.lognormal(2.0, 1.0, 12), 10),
        region=texts(*[f"r{row % 10}" for row in range(120)]),
    )
    assert articles(window).max() == 11
    assert find_columns(window, np.log(level_N)) == ()


def test_there_are_never_more_pools_than_a_record_holds() -> None:
    rng = np.random.default_rng(4)
    names = [f"c{row % 60}" for row in range(600)]
    level_N = np.repeat(rng.lognormal(2.0, 1.5, 60)[None], 10, 0).ravel()
    window = window_of(
        rng.poisson(np.repeat(level_N[:, None], 56, 1)),
        category=texts(*names),
        region=texts(*[f"r{row // 300}" for row in range(600)]),
    )
    pools = pools_of(window)
    assert len(pools.pools) <= MAX_POOLS and pools.pools[0].path == ()
    known = {pool.path for pool in pools.pools}
    assert all(path[:-1] in known for path in known if path)


def test_amounts_are_counted_in_small_units() -> None:
    pools = pools_of(window_of(np.full((6, 56), 0.05)), continuous=True)
    assert pools.unit == pytest.approx(0.0005)
    np.testing.assert_allclose(pools.pools[0].level_K * pools.unit, 0.05, rtol=0.01)
