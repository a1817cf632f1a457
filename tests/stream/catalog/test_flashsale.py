"""The sell-out estimate against a simulation, and its edges."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.catalog import flashsale
from freshet.stream.catalog.flashsale import Outlook, SellOut, estimate_sell_out
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import Cumulative
from freshet.stream.units import HOUR_MS

LEVELS = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]


def normal_steps(mean: float, deviation: float, steps: int = 12) -> list[list[float]]:
    return [[NormalDist(mean, deviation).inv_cdf(level) for level in LEVELS]] * steps


def estimate(
    quantiles: list[list[float]], cumulative: Cumulative | None = None, **over: Any
) -> SellOut:
    asked = {"on_hand": 100.0, "now_ms": 0, "ends_at_ms": 8 * HOUR_MS}
    return estimate_sell_out(Outlook(LEVELS, quantiles, 0, HOUR_MS, cumulative), **(asked | over))


def estimate_if_usual(correlation: float, quantiles: list[list[float]], **over: Any) -> SellOut:
    """The estimate if that were the usual correlation of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flashsale, "STEP_CORRELATION", correlation)
        return estimate(quantiles, **over)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("on_hand", [110.0, 120.0, 130.0])
def test_the_chance_is_that_of_a_simulation(correlation: float, on_hand: float) -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, 8))
    demand = (15.0 + 4.0 * (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)).sum(1)
    found = estimate_if_usual(correlation, normal_steps(15.0, 4.0), on_hand=on_hand)
    assert found.chance == pytest.approx((demand >= on_hand).mean(), abs=0.03)


def test_the_times_are_those_of_a_simulation() -> None:
    rng = np.random.default_rng(1)
    shared, own = rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, 12))
    demand = np.maximum(15.0 + 4.0 * (np.sqrt(0.3) * shared + np.sqrt(0.7) * own), 0.0).cumsum(1)
    hours = np.array([np.interp(100.0, row, np.arange(1, 13)) for row in demand])
    found = estimate(normal_steps(15.0, 4.0))
    for eta_ms, share in (
        (found.eta_ms_p10, 0.1),
        (found.eta_ms_p50, 0.5),
        (found.eta_ms_p90, 0.9),
    ):
        assert eta_ms is not None
        assert eta_ms / HOUR_MS == pytest.approx(np.quantile(hours, share), abs=0.3)


@given(st.floats(0.0, 400.0), st.floats(0.0, 1.0), st.integers(0, 12 * HOUR_MS))
def test_more_stock_means_later_and_less_likely(
    on_hand: float, correlation: float, now_ms: int
) -> None:
    steps = normal_steps(15.0, 4.0)
    less = estimate_if_usual(correlation, steps, on_hand=on_hand, now_ms=now_ms)
    more = estimate_if_usual(correlation, steps, on_hand=on_hand + 10.0, now_ms=now_ms)
    assert more.chance <= less.chance
    for early, late in zip(etas(less), etas(more), strict=True):
        assert late is None or (early is not None and now_ms <= early <= late)
    reached = [eta for eta in etas(less) if eta is not None]
    assert reached == sorted(reached)
    assert None not in etas(less)[: len(reached)], "the likelier times are missing first"


def etas(found: SellOut) -> list[int | None]:
    return [found.eta_ms_p10, found.eta_ms_p50, found.eta_ms_p90]


def test_an_empty_shelf_is_sold_out_now() -> None:
    found = estimate(normal_steps(15.0, 4.0), on_hand=0.0, now_ms=5)
    assert (etas(found), found.chance) == ([5, 5, 5], 1.0)


def test_a_forecast_that_ends_before_the_sale_says_until_when_it_speaks() -> None:
    found = estimate(normal_steps(15.0, 4.0, steps=4), ends_at_ms=100 * HOUR_MS)
    assert (found.until_ms, found.chance, etas(found)) == (4 * HOUR_MS, 0.0, [None, None, None])
    assert found.expected_units == pytest.approx(60.0, abs=0.1)


def test_demand_before_now_does_not_count() -> None:
    found = estimate(
        [[10.0] * 9] * 4, on_hand=5.0, now_ms=HOUR_MS + HOUR_MS // 2, ends_at_ms=2 * HOUR_MS
    )
    assert (found.eta_ms_p50, found.expected_units) == (2 * HOUR_MS, 5.0)
    assert estimate([[10.0] * 9] * 4, now_ms=9 * HOUR_MS).eta_ms_p10 is None


def test_nothing_is_sold_where_no_demand_is_forecast() -> None:
    found = estimate([[0.0] * 9] * 12, on_hand=1.0)
    assert (found.chance, etas(found), found.expected_units) == (0.0, [None, None, None], 0.0)


@pytest.mark.parametrize("quantiles", [[], [[1.0, 2.0]], [[1.0] * 9, [1.0] * 8]])
def test_arrays_that_do_not_fit_are_refused(quantiles: list[list[float]]) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        estimate(quantiles)


def test_falling_levels_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="rising levels"):
        estimate_sell_out(
            Outlook([0.9, 0.1], [[1.0, 2.0]], 0, 1), on_hand=1, now_ms=0, ends_at_ms=1
        )


# With sums ----------------------------------------------------------------------------------------

SUM_STEPS = [1, 2, 3, 4, 6, 8, 12]


def draws(correlation: float, mean: float = 15.0, deviation: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(2)
    shared, own = rng.normal(size=(40_000, 1)), rng.normal(size=(40_000, 12))
    return np.maximum(
        mean + deviation * (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own), 0.0
    )


def sums_of(demand: np.ndarray) -> Cumulative:
    table = np.quantile(demand.cumsum(1)[:, np.array(SUM_STEPS) - 1], LEVELS, axis=0).T
    return Cumulative(steps=SUM_STEPS, quantiles=table.tolist())


@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("starts", [0, 3 * HOUR_MS, 3 * HOUR_MS + HOUR_MS // 2])
def test_the_forecasts_own_sums_decide_from_now_on_too(correlation: float, starts: int) -> None:
    demand = draws(correlation)
    share = np.clip(np.arange(1, 13) - starts / HOUR_MS, 0.0, 1.0) * (np.arange(12) < 10)
    left = demand @ share
    for stock in np.quantile(left, [0.2, 0.6, 0.9]):
        over = {"on_hand": float(stock), "now_ms": starts, "ends_at_ms": 10 * HOUR_MS}
        found = estimate(normal_steps(15.0, 4.0), sums_of(demand), **over)
        assert found.chance == pytest.approx((left >= stock).mean(), abs=0.03)
        usual = estimate(normal_steps(15.0, 4.0), **over)
        assert abs(usual.chance - (left >= stock).mean()) + 0.01 > abs(
            found.chance - (left >= stock).mean()
        )


def test_a_skewed_sum_keeps_its_own_shape() -> None:
    rng = np.random.default_rng(4)
    demand = rng.gamma(0.5, 10.0, (40_000, 12))
    steps = [np.quantile(demand[:, 0], LEVELS).tolist()] * 12
    stock = float(np.quantile(demand.sum(1), 0.97))
    found = estimate(steps, sums_of(demand), on_hand=stock, ends_at_ms=12 * HOUR_MS)
    assert found.chance == pytest.approx(0.03, abs=0.01)


@given(st.floats(0.0, 400.0), st.sampled_from([0.0, 0.4, 0.9]), st.integers(0, 12 * HOUR_MS))
def test_with_sums_more_stock_means_later_and_less_likely(
    on_hand: float, correlation: float, now_ms: int
) -> None:
    sums = SUMS[correlation]
    less = estimate(normal_steps(15.0, 4.0), sums, on_hand=on_hand, now_ms=now_ms)
    more = estimate(normal_steps(15.0, 4.0), sums, on_hand=on_hand + 10.0, now_ms=now_ms)
    assert more.chance <= less.chance
    for early, late in zip(etas(less), etas(more), strict=True):
        assert late is None or (early is not None and now_ms <= early <= late)


SUMS = {correlation: sums_of(draws(correlation)) for correlation in (0.0, 0.4, 0.9)}


@pytest.mark.parametrize(
    "wrong",
    [
        Cumulative(steps=[], quantiles=[]),
        Cumulative(steps=[2, 1], quantiles=[[1.0] * 9] * 2),
        Cumulative(steps=[1, 13], quantiles=[[1.0] * 9] * 2),
        Cumulative(steps=[1], quantiles=[[1.0] * 8]),
        Cumulative(steps=[1, 2], quantiles=[[1.0] * 9]),
    ],
)
def test_sums_that_do_not_fit_are_refused(wrong: Cumulative) -> None:
    with pytest.raises(InvalidInputError, match="rising numbers of steps up to 12"):
        estimate(normal_steps(15.0, 4.0), wrong)
