"""The second forecast of weeks, against laws that sales were drawn from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from freshet.model.batch import QUANTILE_LEVELS
from freshet.model.effects.newcomers import Newcomers
from freshet.model.effects.second import Opinion, Second, beside, find_second, second_forecast
from freshet.model.effects.shared import find_shared
from freshet.model.effects.slots import dress
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from freshet.stream.units import DAY_MS
from tests.model.effects.test_demand import weeks

LEVELS_Q = np.array(QUANTILE_LEVELS)
HALF = QUANTILE_LEVELS.index(0.5)


def deals(size: float, level: float = 40.0, items: int = 80) -> tuple[Window, Floats]:
    """Deals that double what sells by a negative binomial of this size; the next week is one."""
    rng = np.random.default_rng(2)
    deal_NS = (rng.random((items, 54)) < 0.3).astype(float)
    deal_NS[:, 52:] = 1.0, 0.0
    mean_NS = level * 2.0**deal_NS
    sold_NS = rng.poisson(mean_NS * rng.gamma(size, 1.0 / size, mean_NS.shape)).astype(float)
    return weeks(sold_NS[:, :52], deal_NS[..., None], ("deal",)), mean_NS[:, 52:]


def asked(window: Window, second: Second | None = None) -> Opinion:
    closed_NS = np.zeros(window.time_ms_NS.shape, bool)
    second = find_second(window, closed_NS) if second is None else second
    found = second_forecast(window, closed_NS, np.ones(len(window), bool), second)
    assert found is not None
    return found


def test_it_knows_deals_and_chance() -> None:
    window, mean_NH = deals(size=10.0)
    quantiles_HQ = asked(window).quantiles_NHQ.mean(0)
    for step, mean in enumerate(mean_NH[0]):
        expected_Q = stats.nbinom.ppf(LEVELS_Q, 10.0, 10.0 / (10.0 + mean))
        # Levels are known to a tenth, which widens what is told a little.
        np.testing.assert_allclose(quantiles_HQ[step, HALF], expected_Q[HALF], rtol=0.06)
        np.testing.assert_allclose(quantiles_HQ[step, 1:-1], expected_Q[1:-1], rtol=0.15)


def test_a_level_that_moved_is_followed() -> None:
    window, _ = deals(size=1e4, level=100.0)
    target_NT, known_NSK = window.target_NT.copy(), window.known_NSK.copy()
    # Every third week a deal, so that deals have nothing to do with the move.
    known_NSK[:2, :52, 0] = np.arange(52) % 3 == 0
    target_NT[:2] = 100.0 * 2.0 ** known_NSK[:2, :52, 0]
    target_NT[0, 26:] *= 2.0
    window = replace(window, target_NT=target_NT, known_NSK=known_NSK)
    moved = asked(window).quantiles_NHQ[:, 1, HALF]
    # Weights of newer weeks, by half-lives of 13, and four of the year's mean of 150 beside them.
    weights = 0.5 ** (np.arange(52) / 13.0)
    sold = weights[:26].sum() * 200.0 + weights[26:].sum() * 100.0
    assert moved[0] == pytest.approx((sold + 4.0 * 150.0) / (weights.sum() + 4.0), rel=0.05)
    assert moved[1] == pytest.approx(100.0, rel=0.03)


def test_it_counts_less_where_sales_are_calm_and_where_seasons_were_seen() -> None:
    calm, noisy = asked(deals(size=1e4, level=1e4)[0]), asked(deals(size=2.0)[0])
    # Of a chance of .01 (the least) and 1 / 10,000: .6 * .0101 / .0601 * 208 / 260.
    np.testing.assert_allclose(calm.share_N, 0.6 * 0.0101 / 0.0601 * 208.0 / 260.0, rtol=0.01)
    assert noisy.share_N.min() > 0.35 and noisy.share_N.max() < 0.6 * 208.0 / 260.0


def test_only_weeks_with_known_columns_have_one() -> None:
    window, _ = deals(size=10.0)
    closed_NS = np.zeros(window.time_ms_NS.shape, bool)
    days = replace(window, resolution_ms=DAY_MS, frequency="D")
    bare = replace(window, known_NSK=window.known_NSK[..., :0], known_names=())
    for other in (days, bare):
        assert find_second(other, closed_NS) is None
    assert second_forecast(window, closed_NS, np.ones(len(window), bool), None) is None
    assert beside(None, None) is None


def test_closed_weeks_sell_nothing_and_who_never_sold_has_none() -> None:
    window, _ = deals(size=10.0)
    closed_NS = np.zeros(window.time_ms_NS.shape, bool)
    closed_NS[:, 53] = True
    second = find_second(window, closed_NS)
    target_NT = window.target_NT.copy()
    target_NT[4] = np.nan
    counts_N = np.ones(len(window), bool)
    found = second_forecast(replace(window, target_NT=target_NT), closed_NS, counts_N, second)
    assert found is not None
    assert not found.quantiles_NHQ[:, 1].any() and found.quantiles_NHQ[:4, 0].all()
    assert found.share_N[4] == 0.0 and found.share_N[:4].all()


def test_siblings_speak_for_the_young_and_the_second_forecast_for_what_is_their_own() -> None:
    siblings = Newcomers(np.array([0.25, 1.0], np.float32), np.full((2, 1, 1), 8.0, np.float32))
    opinion = Opinion(np.array([0.4, 0.4]), np.full((2, 1, 1), 2.0))
    found = beside(siblings, opinion)
    assert found is not None
    # A quarter is its own, of which the network has .6: .15. The rest is .75 of 8 and .1 of 2.
    np.testing.assert_allclose(found.own_N, [0.15, 0.6], rtol=1e-6)
    np.testing.assert_allclose(found.pooled_NHQ[:, 0, 0], [(6.0 + 0.2) / 0.85, 2.0], rtol=1e-6)
    alone = beside(None, opinion)
    assert alone is not None
    np.testing.assert_allclose(alone.own_N, 0.6)
    assert beside(siblings, None) is siblings


def test_a_dressed_series_has_the_same_second_forecast_in_any_company() -> None:
    window, _ = deals(size=10.0, items=40)
    shared = find_shared(window)
    whole, one = dress(window, shared), dress(window.rows(slice(7, 8)), shared)
    assert whole.own_N is not None and one.own_N is not None
    assert whole.own_N.min() > 0.4 and whole.own_N.max() < 1.0
    np.testing.assert_array_equal(whole.own_N[7:8], one.own_N)
    assert whole.pooled_NHQ is not None and one.pooled_NHQ is not None
    np.testing.assert_array_equal(whole.pooled_NHQ[7:8], one.pooled_NHQ)
