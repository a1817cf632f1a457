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
from freshet.stream.units import HOUR_MS, MINUTE_MS

LEVELS = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]


def normal_steps(mean: float, deviation: float, steps: int = 12) -> list[list[float]]:
    return [[NormalDist(mean, deviation).inv_cdf(level) for level in LEVELS]] * steps


def estimate(
    quantiles: list[list[float]], cumulative: Cumulative | None = None, **over: Any
) -> SellOut:
    asked = {"on_hand": 100.0, "now_ms": 0, "ends_at_ms": 8 * HOUR_MS}
    edges_ms = [step * HOUR_MS for step in range(len(quantiles) + 1)]
    return estimate_sell_out(Outlook(LEVELS, quantiles, edges_ms, cumulative), **(asked | over))


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
            Outlook([0.9, 0.1], [[1.0, 2.0]], [0, 1]), on_hand=1, now_ms=0, ends_at_ms=1
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


# By hand ------------------------------------------------------------------------------------------

THREE = [0.1, 0.5, 0.9]


@pytest.fixture(autouse=True)
def _steps_of_a_moment_count_whole(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are 100 ms here, so that numbers are round."""
    if "by_the_minute" not in request.node.name:
        monkeypatch.setattr(flashsale, "SHORT_STEP_MS", 0)


def by_hand(
    quantiles: list[list[float]], cumulative: Cumulative | None = None, **over: Any
) -> SellOut:
    """Steps of 100 ms from 1,000 ms on, of which all are the sale's."""
    asked = {"on_hand": 25.0, "now_ms": 1_000, "ends_at_ms": 9_000}
    edges_ms = [1_000 + 100 * step for step in range(len(quantiles) + 1)]
    return estimate_sell_out(Outlook(THREE, quantiles, edges_ms, cumulative), **(asked | over))


def test_steps_of_uneven_length_count_by_their_own_length() -> None:
    # 10 in 100 ms and then 40 in 400: 25 are gone 150 ms after the second one's start.
    uneven = Outlook(THREE, [[10.0] * 3, [40.0] * 3], [1_000, 1_100, 1_500])
    found = estimate_sell_out(uneven, on_hand=25.0, now_ms=1_000, ends_at_ms=9_000)
    assert (etas(found), found.until_ms) == ([1_250] * 3, 1_500)


@pytest.mark.parametrize("edges_ms", [[0], [0, 1], [0, 1, 1], [0, 2, 1]])
def test_edges_that_do_not_fit_are_refused(edges_ms: list[int]) -> None:
    outlook = Outlook(THREE, [[1.0] * 3] * 2, edges_ms)
    with pytest.raises(InvalidInputError, match="edges of 2 steps"):
        estimate_sell_out(outlook, on_hand=1.0, now_ms=0, ends_at_ms=1)


def test_the_mean_of_a_step_is_straight_between_levels_and_flat_beyond_them() -> None:
    # A tenth at 0, .4 from 0 to 10 (5 on average), .4 from 10 to 40 (25), a tenth at 40.
    assert by_hand([[0.0, 10.0, 40.0]]).expected_units == pytest.approx(0.4 * 5 + 0.4 * 25 + 4)
    [deviation] = flashsale._moments(np.array(THREE), np.array([[0.0, 10.0, 40.0]]))[1]
    # Means of squares: 100 / 3 between 0 and 10, (100 + 400 + 1600) / 3 between 10 and 40.
    square = 0.4 * 100 / 3 + 0.4 * 2_100 / 3 + 0.1 * 1_600
    assert deviation == pytest.approx((square - 16.0**2) ** 0.5)


def test_one_step_has_its_own_quantiles_and_a_part_of_it_that_part() -> None:
    one = [[10.0, 20.0, 30.0]]
    # At the end of the step 25 lies halfway between the quantiles of 50 and 90 percent.
    assert by_hand(one).chance == pytest.approx(1.0 - 0.7)
    # After a quarter of it three quarters are left: 15 units are the median.
    assert by_hand(one, now_ms=1_025, on_hand=15.0).chance == pytest.approx(0.5)
    assert by_hand(one, ends_at_ms=1_075, on_hand=15.0).chance == pytest.approx(0.5)
    assert by_hand(one, ends_at_ms=1_075).until_ms == 1_075
    assert by_hand(one, now_ms=1_025, ends_at_ms=1_075).expected_units == pytest.approx(10.0)


def test_the_stock_is_gone_when_the_quantile_of_demand_reaches_it() -> None:
    found = by_hand([[10.0, 20.0, 30.0]], on_hand=10.0)
    # 30 units with a chance of a tenth: 10 after a third of the step; 10 surely at its end.
    assert etas(found) == [1_033, 1_050, 1_100]
    assert etas(by_hand([[10.0, 20.0, 30.0]], on_hand=20.0)) == [1_067, 1_100, None]
    assert etas(by_hand([[10.0, 20.0, 30.0]], on_hand=30.0)) == [1_100, None, None]


def test_demand_is_even_within_a_step_and_not_over_all_of_them() -> None:
    found = by_hand([[10.0] * 3, [30.0] * 3, [30.0] * 3], on_hand=25.0)
    # 10 in the first step and half of the second one's 30.
    assert etas(found) == [1_150] * 3
    assert etas(by_hand([[10.0] * 3, [30.0] * 3], on_hand=25.0, now_ms=1_050)) == [1_167] * 3


def test_the_chance_ends_at_the_outermost_levels() -> None:
    one = [[10.0, 20.0, 30.0]]
    chances = {stock: by_hand(one, on_hand=stock).chance for stock in (10.0, 10.1, 30.0, 30.1)}
    assert chances == pytest.approx({10.0: 1.0, 10.1: 0.896, 30.0: 0.1, 30.1: 0.0})


def test_two_steps_spread_as_far_as_their_correlation_says() -> None:
    two = [[10.0, 20.0, 30.0]] * 2
    # Added quantiles are 20, 40, 60; two equal deviations are together sqrt(.3 * 4 + .7 * 2)
    # times one of them, where full correlation says twice.
    ratio = 2.6**0.5 / 2.0
    upper = 40.0 + 20.0 * ratio
    assert by_hand(two, on_hand=upper).chance == pytest.approx(0.1)
    assert by_hand(two, on_hand=upper + 0.01).chance == 0.0
    assert by_hand(two, on_hand=40.0 + 10.0 * ratio).chance == pytest.approx(0.3)


def test_told_sums_count_from_the_cutoff_and_shrink_for_the_part_that_is_left() -> None:
    two = [[10.0, 20.0, 30.0]] * 2
    sums = Cumulative(steps=[1, 2], quantiles=[[10.0, 20.0, 30.0], [24.0, 40.0, 60.0]])
    assert by_hand(two, sums, on_hand=60.0).chance == pytest.approx(0.1)
    assert by_hand(two, sums, on_hand=24.0).chance == 1.0
    assert by_hand(two, sums, on_hand=32.0).chance == pytest.approx(0.7)
    assert by_hand(two, sums, on_hand=30.0, ends_at_ms=1_100).chance == pytest.approx(0.1)
    # From the second step on: its mean is 20, and it is as wide as a step is beside both of them.
    _, [one, both] = flashsale._moments(np.array(THREE), np.array(sums.quantiles))
    correlation = (both**2 - 2 * one**2) / (2 * one**2)
    assert 0.0 < correlation < 1.0
    upper = 20.0 + 20.0 * one / both
    assert by_hand(two, sums, now_ms=1_100, on_hand=upper).chance == pytest.approx(0.1)
    assert by_hand(two, sums, now_ms=1_100, on_hand=upper + 0.01).chance == 0.0


def test_more_steps_than_sums_are_told_spread_as_the_last_sum_does() -> None:
    sums = Cumulative(steps=[1], quantiles=[[10.0, 20.0, 30.0]])
    three = [[10.0, 20.0, 30.0]] * 3
    # One step tells no correlation; as far from the mean of 60 as the last sum is from its own.
    assert by_hand(three, sums, on_hand=70.0).chance == pytest.approx(0.1)


def test_an_implied_correlation_lies_between_none_and_full() -> None:
    deviation_H = np.array([3.0, 4.0])
    found = [
        flashsale._implied_correlation(deviation, deviation_H)
        for deviation in (5.0, 7.0, 37.0**0.5, 4.0, 9.0)
    ]
    assert found == pytest.approx([0.0, 1.0, 0.5, 0.0, 1.0])
    assert flashsale._implied_correlation(3.0, np.array([3.0, 0.0])) == 1.0


def test_sums_told_by_the_minute_count_by_four_fifths_of_their_width() -> None:
    sums = Cumulative(steps=[1, 2], quantiles=[[10.0, 20.0, 30.0], [20.0, 40.0, 60.0]])
    two = [[10.0, 20.0, 30.0]] * 2
    for minutes, upper in ((1, 56.0), (29, 56.0), (30, 60.0), (60, 60.0)):
        edges_ms = [step * minutes * MINUTE_MS for step in range(3)]
        outlook = Outlook(THREE, two, edges_ms, sums)
        asked = {"now_ms": 0, "ends_at_ms": edges_ms[-1]}
        found = estimate_sell_out(outlook, on_hand=upper, **asked)
        assert found.chance == pytest.approx(0.1), minutes
        assert estimate_sell_out(outlook, on_hand=upper + 0.1, **asked).chance == 0.0
