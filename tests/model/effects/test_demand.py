"""What covariates do to each series by weeks, against sales that were planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from freshet.model.effects.demand import Demand, fit_demand
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from freshet.stream.units import DAY_MS, WEEK_MS
from tests.model.tables.windows import window_of

SERIES, CONTEXT, HORIZON = 60, 40, 2


def weeks(target_NT: Floats, known_NSK: Floats, names: tuple[str, ...]) -> Window:
    window = window_of(target_NT, horizon=known_NSK.shape[1] - target_NT.shape[1])
    return replace(
        window,
        frequency="W-SUN",
        resolution_ms=WEEK_MS,
        time_ms_NS=window.time_ms_NS // DAY_MS * WEEK_MS,
        known_NSK=known_NSK,
        known_names=names,
    )


def effects(demand: Demand, window: Window) -> Floats:
    return demand.effects(window, np.zeros(window.time_ms_NS.shape, bool))


def fitted(window: Window) -> Demand:
    demand = fit_demand(window, np.zeros(window.time_ms_NS.shape, bool))
    assert demand is not None
    return demand


class Shop:
    """Items of different prices, cut by a fifth now and then, each of an elasticity of its own."""

    def __init__(self, spread: float, noise: float = 0.02) -> None:
        rng = np.random.default_rng(7)
        self.elasticity_N = -2.0 + spread * rng.normal(size=SERIES)
        usual_N1 = np.exp(rng.normal(1.0, 1.0, (SERIES, 1)))
        ratio_NS = np.where(rng.random((SERIES, CONTEXT + HORIZON)) < 0.2, 0.8, 1.0)
        ratio_NS[:, CONTEXT:] = 0.8, 1.0
        ratio_NS[0, :CONTEXT] = 1.0  # the first item was never cut
        log_NS = 6.0 + self.elasticity_N[:, None] * np.log(ratio_NS)
        log_NS += noise * rng.normal(size=log_NS.shape)
        target_NT = np.exp(log_NS[:, :CONTEXT])
        self.window = weeks(target_NT, (usual_N1 * ratio_NS)[..., None], ("shelf",))


def test_each_item_has_its_own_elasticity_and_one_never_cut_that_of_all() -> None:
    shop = Shop(spread=0.5)
    effect_NS = effects(fitted(shop.window), shop.window)
    # Of a cut by a fifth, over the usual price beside it.
    cut_N = effect_NS[:, CONTEXT] - effect_NS[:, CONTEXT + 1]
    np.testing.assert_allclose(cut_N[1:], shop.elasticity_N[1:] * np.log(0.8), atol=0.06)
    assert cut_N[0] == pytest.approx(shop.elasticity_N[1:].mean() * np.log(0.8), abs=0.03)


def test_where_items_are_alike_noise_gives_none_an_elasticity_of_its_own() -> None:
    shop = Shop(spread=0.0, noise=0.5)
    effect_NS = effects(fitted(shop.window), shop.window)
    cut_N = effect_NS[:, CONTEXT] - effect_NS[:, CONTEXT + 1]
    # Alone, each would be off by .5 / sqrt(40 * .2 * .8) = .2.
    assert cut_N.std() < 0.1
    assert cut_N.mean() == pytest.approx(-2.0 * np.log(0.8), abs=0.06)


def test_what_one_series_says_is_the_posterior_of_its_own_slope() -> None:
    price_S = np.array([1.0, 1.0, 1.0, 0.5, 1.0, 0.5])
    target_T = np.array([90.0, 110.0, 100.0, 300.0, 95.0])
    window = weeks(target_T[None], price_S[None, :, None], ("price",))
    no = np.zeros(1)
    demand = Demand((0,), (True,), no, no, no, np.array([-1.0]), np.array([0.25]), noise=0.04)
    unit = target_T.mean() / 4.0
    shown = 4.0 / 17.0**0.5  # the slope of arcsinh(y / unit) on the logarithm, at the mean
    ratios = [0.0, 0.0, 0.0, np.log(0.5), 0.0]
    x = [shown * (ratio - np.log(0.5) / 5.0) for ratio in ratios]
    arcs = [float(np.arcsinh(sold / unit)) for sold in target_T]
    y = [arc - sum(arcs) / 5.0 for arc in arcs]
    left = sum((b + a) ** 2 for a, b in zip(x, y, strict=True))
    noise = (left + 10.0 * 0.04) / 15.0
    product = sum(a * (b + a) for a, b in zip(x, y, strict=True))
    own = product / (sum(a * a for a in x) + noise / 0.25)
    expected = (-1.0 + own) * (np.log(0.5) - np.log(0.5) / 5.0)
    assert effects(demand, window)[0, 5] == pytest.approx(expected, rel=1e-9)


def test_a_series_is_the_same_to_the_last_bit_in_any_company() -> None:
    window = Shop(spread=0.5).window
    demand = fitted(window)
    alone_NS = effects(demand, window.rows(slice(3, 4)))
    np.testing.assert_array_equal(alone_NS, effects(demand, window)[3:4])


def test_prices_are_told_from_degrees_by_where_they_differ() -> None:
    rng = np.random.default_rng(3)
    price_NS = np.exp(rng.normal(size=(20, 1))) * rng.uniform(0.8, 1.0, (20, 32))
    degrees_NS = np.broadcast_to(rng.uniform(5.0, 25.0, 32), (20, 32))
    share_NS = rng.integers(0, 3, (20, 32)) / 7.0
    known_NSK = np.stack([price_NS, degrees_NS, share_NS], -1)
    names = ("price", "degrees", "promotion")
    window = weeks(rng.poisson(9.0, (20, 30)).astype(float), known_NSK, names)
    demand = fitted(window)
    relative = dict(zip(demand.columns, demand.relative, strict=True))
    assert relative == {0: True, 1: False, 2: False}


def test_the_week_after_a_deal_is_told_by_the_deal_before_it() -> None:
    rng = np.random.default_rng(11)
    deal_NS = (rng.random((40, 42)) < 0.25).astype(float)
    deal_NS[:, 38:] = 0.0, 0.0, 1.0, 0.0
    before_NS = np.hstack([deal_NS[:, :1], deal_NS[:, :-1]])
    log_NS = 5.0 + 0.7 * deal_NS - 0.3 * before_NS + 0.02 * rng.normal(size=(40, 42))
    window = weeks(np.exp(log_NS[:, :40]), deal_NS[..., None], ("deal",))
    effect_NS = effects(fitted(window), window)
    np.testing.assert_allclose(effect_NS[:, 40] - effect_NS[:, 39], 0.7, atol=0.08)
    np.testing.assert_allclose(effect_NS[:, 41] - effect_NS[:, 39], -0.3, atol=0.08)


def test_closed_and_missing_weeks_teach_nothing() -> None:
    window = Shop(spread=0.5).window
    closed_NS = np.zeros(window.time_ms_NS.shape, bool)
    closed_NS[:, 5] = True
    wild_NT, missing_NT = window.target_NT.copy(), window.target_NT.copy()
    wild_NT[:, 5], missing_NT[:, 5] = 1e6, np.nan
    found = [
        fit_demand(replace(window, target_NT=target_NT), closed_NS)
        for target_NT in (wild_NT, missing_NT)
    ]
    assert found[0] is not None and found[1] is not None
    np.testing.assert_array_equal(found[0].slope_K, found[1].slope_K)


def test_a_price_of_nothing_is_an_unknown_one() -> None:
    window = Shop(spread=0.0).window
    free_NSK = window.known_NSK.copy()
    free_NSK[2, CONTEXT] = 0.0
    free = replace(window, known_NSK=free_NSK)
    demand = fitted(window)
    usual = effects(demand, window)[2, CONTEXT + 1]
    assert effects(demand, free)[2, CONTEXT] == pytest.approx(usual)


def test_columns_that_never_change_and_tables_of_a_few_weeks_say_nothing() -> None:
    window = Shop(spread=0.5).window
    closed_NS = np.zeros(window.time_ms_NS.shape, bool)
    assert fit_demand(replace(window, known_NSK=np.ones_like(window.known_NSK)), closed_NS) is None
    assert fit_demand(window.rows(slice(0, 4)), closed_NS[:4]) is None
