"""A score is right: its loss sums to WQL, its PIT is uniform when the forecast is right."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gamma

from freshet.model.quantiles.metrics import wql
from freshet.online.drift.pending import Due
from freshet.online.drift.score import (
    Actual,
    Placed,
    StepScores,
    judge,
    score_records,
    uniform,
    without_adjustments,
)
from freshet.stream.schemas import WIRE_LEVELS, NetworkStep, Score, ScoredStep
from freshet.stream.units import HOUR_MS

FINE = sorted({*WIRE_LEVELS, 0.005, 0.02, 0.06, 0.2, 0.8, 0.94, 0.98, 0.995})


def due_of(
    quantiles_IQ: np.ndarray, *, step: int = 1, levels: tuple[float, ...] = WIRE_LEVELS
) -> Due:
    ids = [f"f{row}" for row in range(len(quantiles_IQ))]
    return Due(
        step, 0, "v1", levels, [f"i{row}" for row in range(len(quantiles_IQ))], ids, quantiles_IQ
    )


def test_summed_pinball_over_summed_actuals_is_wql() -> None:
    rng = np.random.default_rng(1)
    quantiles = np.sort(rng.gamma(2.0, 3.0, (50, 9)), axis=1)
    actual = rng.poisson(5.0, 50).astype(float)
    outcome = judge(due_of(quantiles), actual)
    expected = wql(actual[:, None], quantiles[:, None, :], np.array(WIRE_LEVELS))
    assert outcome.pinball_I.sum() / actual.sum() == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.05, 0.7, 4.0, 60.0])
def test_pit_is_uniform_when_counts_follow_the_forecast(rate: float) -> None:
    rng = np.random.default_rng(7)
    sample = rng.poisson(rate, 200_000)
    # The continuous quantile function of counts spread over the half unit around them.
    spread = np.maximum(sample + rng.uniform(-0.5, 0.5, len(sample)), 0.0)
    quantiles = np.tile(np.quantile(spread, WIRE_LEVELS), (20_000, 1))
    pit = judge(due_of(quantiles), rng.poisson(rate, 20_000).astype(float)).pit_I
    shares = np.histogram(pit, bins=np.linspace(0, 1, 6))[0] / len(pit)
    assert np.abs(shares - 0.2).max() < 0.04
    assert pit.min() >= 0.0 and pit.max() <= 1.0


def test_an_actual_beyond_the_outer_quantiles_has_a_pit_near_the_ends() -> None:
    quantiles = np.tile(np.linspace(10.0, 20.0, 9), (3, 1))
    pit = judge(due_of(quantiles), np.array([0.3, 15.0, 400.0])).pit_I
    assert pit[0] < 0.01 and 0.4 < pit[1] < 0.6 and pit[2] > 0.9999


@given(st.lists(st.floats(0, 1e6), min_size=9, max_size=9), st.floats(0, 1e6))
def test_judging_is_finite_and_pit_a_share_for_any_sorted_quantiles(
    values: list[float], actual: float
) -> None:
    outcome = judge(due_of(np.sort(np.array([values]), axis=1)), np.array([actual]))
    assert 0.0 <= outcome.pit_I[0] <= 1.0
    assert np.isfinite(outcome.pinball_I[0]) and np.isfinite(outcome.residual_I[0])
    assert np.isnan(outcome.naive_pinball_I[0])


def test_residual_is_in_forecast_standard_deviations_and_coverage_closed() -> None:
    levels, quantiles = (0.1, 0.5, 0.9), np.array([[8.0, 10.0, 8.0 + 2 * 2.5631031310892007]] * 2)
    outcome = judge(due_of(quantiles, levels=levels), np.array([12.0, 8.0]))
    assert outcome.residual_I == pytest.approx([1.0, -1.0])
    assert outcome.covered_I.tolist() == [True, True]


def test_the_random_share_of_a_pit_depends_on_forecast_and_step_alone() -> None:
    ids = [f"f{number}" for number in range(4_000)]
    assert (uniform(ids, 3) == uniform(ids, 3)).all() and (uniform(ids, 3) != uniform(ids, 1)).all()
    assert abs(uniform(ids, 3).mean() - 0.5) < 0.02


def test_a_record_holds_all_steps_of_its_item_in_order_and_unknown_actuals_are_left_out() -> None:
    quantiles = np.tile(np.linspace(1.0, 9.0, 9), (2, 1))
    pairs = [
        (due_of(quantiles, step=step), judge(due_of(quantiles, step=step), np.array([5.0, 0.0])))
        for step in (3, 1)
    ]
    actuals = {"i0": Actual(5.0, False, "shoes")}
    records = score_records(
        pairs, actuals, bucket_start_ms=0, resolution_ms=HOUR_MS, scored_at_ms=9
    )
    assert [record.item_id for record in records] == ["i0"]
    assert [step.step for step in records[0].steps] == [1, 3]
    assert (
        records[0].in_stock is False
        and records[0].segment == "shoes"
        and records[0].steps[0].median == 5.0
    )


# Nine published quantiles, none of them evenly spaced, so that a wrong level gives another number.
QUANTILES = (1.0, 2.0, 4.0, 7.0, 11.0, 16.0, 22.0, 29.0, 37.0)


def scored(actual: float, quantiles: tuple[float, ...] = QUANTILES) -> StepScores:
    return judge(due_of(np.array([quantiles])), np.array([actual]))


@pytest.mark.parametrize(
    ("actual", "covered"),
    [(3.9, False), (4.0, True), (11.0, True), (22.0, True), (22.1, False), (2.5, False)],
)
def test_covered_80_means_from_the_10_to_the_90_percent_quantile(
    actual: float, covered: bool
) -> None:
    assert scored(actual).covered_I.tolist() == [covered]


@pytest.mark.parametrize("actual", [0.0, 11.0, 30.0, 500.0])
def test_pinball_is_twice_the_loss_averaged_over_the_levels(actual: float) -> None:
    total = 0.0
    for level, quantile in zip(WIRE_LEVELS, QUANTILES, strict=True):
        share = level if actual > quantile else 1 - level
        total += 2 * share * abs(actual - quantile)
    assert scored(actual).pinball_I.tolist() == pytest.approx([total / 9])


def test_the_naive_is_judged_on_its_own_quantiles_and_the_forecast_on_its_own() -> None:
    naive_IQ = np.full((1, 9), 5.0)
    outcome = judge(due_of(np.full((1, 9), 9.0)), np.array([10.0]), naive_IQ)
    # Twice 1 and twice 5 units, times the mean of the nine levels, which is a half.
    assert outcome.pinball_I.tolist() == pytest.approx([1.0])
    assert outcome.naive_pinball_I.tolist() == pytest.approx([5.0])
    assert outcome.median_I.tolist() == [9.0]


def test_a_residual_counts_standard_deviations_of_the_middle_80_percent_and_never_tiny_ones() -> (
    None
):
    deviation = (22.0 - 4.0) / (2 * NormalDist().inv_cdf(0.9))
    assert scored(20.0).residual_I.tolist() == pytest.approx([(20.0 - 11.0) / deviation])
    assert scored(3.0, (2.0,) * 9).residual_I.tolist() == [2.0], "a deviation of half a unit"


def plain_cdf(value: float) -> float:
    """Of QUANTILES: straight lines from (0, 0) through the levels, then an exponential tail."""
    if value < QUANTILES[0]:
        return 0.01 * max(value, 0.0) / QUANTILES[0]
    if value >= QUANTILES[-1]:
        deviation = (22.0 - 4.0) / (2 * NormalDist().inv_cdf(0.9))
        return 1 - 0.01 * math.exp(-(value - QUANTILES[-1]) / deviation)
    knots = list(zip(QUANTILES, WIRE_LEVELS, strict=True))
    for (left, low), (right, high) in pairwise(knots):
        if value < right:
            return low + (value - left) / (right - left) * (high - low)
    raise AssertionError(value)


@pytest.mark.parametrize("actual", [0.0, 0.25, 1.0, 3.0, 3.25, 11.0, 24.0, 37.0, 50.0, 50.75])
def test_a_pit_is_a_random_place_within_the_half_unit_around_a_whole_number(actual: float) -> None:
    half = 0.5 if actual == int(actual) else 0.0
    lower, upper = plain_cdf(actual - half), plain_cdf(actual + half)
    share = (xxhash.xxh3_64_intdigest(b"f0:1") >> 11) / 2**53
    assert scored(actual).pit_I.tolist() == pytest.approx([lower + share * (upper - lower)])


def test_where_quantiles_are_equal_a_pit_lies_anywhere_in_their_probability() -> None:
    # Three levels at 2.5: from the line below the first, .01, to the third, .1.
    tied = (2.5, 2.5, 2.5, 7.0, 11.0, 16.0, 22.0, 29.0, 37.0)
    share = (xxhash.xxh3_64_intdigest(b"f0:1") >> 11) / 2**53
    assert scored(2.5, tied).pit_I.tolist() == pytest.approx([0.01 + share * 0.09])


def test_between_quantiles_closer_than_a_unit_a_pit_is_on_their_line_and_below_on_that_to_0() -> (
    None
):
    due = due_of(np.array([[0.2, 0.6, 1.0]] * 3), levels=(0.1, 0.5, 0.9))
    # No whole numbers, so nothing is drawn: half of the way to .2, from .2 to .6, and to 1.
    pit = judge(due, np.array([0.1, 0.4, 0.8])).pit_I
    assert pit.tolist() == pytest.approx([0.05, 0.3, 0.7])


def test_a_level_that_was_not_published_is_read_off_the_line_between_its_neighbours() -> None:
    due = due_of(np.array([[0.0, 10.0, 20.0]]), levels=(0.05, 0.45, 0.95))
    outcome = judge(due, np.array([15.0]))
    # The 10 % quantile is at 10 / 8, the median at 10 + 1, the 90 % at 10 + 9.
    deviation = (19.0 - 1.25) / (2 * NormalDist().inv_cdf(0.9))
    assert outcome.median_I.tolist() == pytest.approx([11.0])
    assert outcome.residual_I.tolist() == pytest.approx([4.0 / deviation])
    covered = [judge(due, np.array([actual])).covered_I[0] for actual in (1.2, 1.3, 18.9, 19.1)]
    assert covered == [False, True, True, False]


def test_levels_all_above_the_10_percent_stand_for_it_by_their_lowest() -> None:
    due = due_of(np.array([[3.0, 5.0, 8.0]]), levels=(0.25, 0.5, 0.75))
    covered = [judge(due, np.array([actual])).covered_I[0] for actual in (2.9, 3.0, 8.0, 8.1)]
    assert covered == [False, True, True, False]


def test_a_record_says_of_each_step_what_was_found_of_it_to_six_digits() -> None:
    # The first row is of another item.
    network = Placed(*(np.array([9.0, value]) for value in (0.125, -1 / 3, 6.5, 5.0, 8 + 1 / 3)))
    naive = StepScores(
        *(np.array(pair) for pair in ((9, 1 / 3), (9, 0.25), (9, -2 / 3), (False, True))),
        *(np.array(pair) for pair in ((9.0, 7.0), (np.nan, 4.0))),
        network=network,
    )
    without = StepScores(
        *(np.array(pair) for pair in ((9, 2.0), (9, 0.5), (9, 0.0), (True, False))),
        *(np.array(pair) for pair in ((9.0, 8.0), (9.0, np.nan))),
        network=network,
    )
    due = replace(due_of(np.zeros((2, 9)), step=2), maps_I=np.array([0, 3]))
    later = due_of(np.zeros((2, 9)), step=5)
    (record,) = score_records(
        [(later, without), (due, naive)],
        {"i1": Actual(3.5, True, "s")},
        bucket_start_ms=2 * HOUR_MS,
        resolution_ms=HOUR_MS,
        scored_at_ms=9,
    )
    assert (record.item_id, record.segment, record.in_stock) == ("i1", "s", True)
    assert record.resolution_ms == HOUR_MS
    first, second = record.steps
    assert (record.actual, record.bucket_start_ms, record.scored_at_ms) == (3.5, 2 * HOUR_MS, 9)
    assert (first.step, first.pinball, first.pit, first.residual) == (2, 0.333333, 0.25, -0.666667)
    assert (first.covered_80, first.median, first.seasonal_naive_pinball) == (True, 7.0, 4.0)
    assert (first.forecast_id, first.weights_version) == ("f1", "v1")
    assert (second.step, second.covered_80, second.seasonal_naive_pinball) == (5, False, None)
    # Only where a map said at which level it was served there is anything else to say.
    assert first.network == NetworkStep(pit=0.125, residual=-0.333333, median=6.5)
    assert second.network is None and first.high == second.high == 8.333333


# At other levels than the network's ---------------------------------------------------------------


def test_what_was_served_at_other_levels_is_judged_as_the_network_forecast_it_too() -> None:
    rng = np.random.default_rng(5)
    own = gamma.ppf(FINE, 3.0) * rng.uniform(2.0, 6.0, 400)[:, None]
    actual = rng.poisson(12.0, 400).astype(float)
    wider = (0.005, 0.02, 0.06, 0.2, 0.5, 0.8, 0.94, 0.98, 0.995)
    served_W = [FINE.index(level) for level in wider]
    plain_W = [FINE.index(level) for level in WIRE_LEVELS]
    maps_I = np.arange(400) % 2
    mixed = np.where(maps_I[:, None] > 0, own[:, served_W], own[:, plain_W])
    found = judge(replace(due_of(mixed), maps_I=maps_I), actual, None, {1: wider})
    plain = judge(due_of(own[:, plain_W]), actual)
    # Straight between nine other points of the same distribution.
    assert np.abs(found.network.pit_I - plain.pit_I).max() < 0.06
    assert found.network.pit_I[::2].tolist() == plain.pit_I[::2].tolist()
    assert found.network.median_I.tolist() == plain.median_I.tolist()
    assert np.abs(found.network.high_I / plain.network.high_I - 1).max() < 0.05
    # What is published is of what was served.
    assert found.pit_I.tolist() == judge(due_of(mixed), actual).pit_I.tolist()
    assert found.covered_I[1::2].sum() > plain.covered_I[1::2].sum()


def test_the_place_of_an_actual_in_the_network_by_hand() -> None:
    # Served as the .9 quantile are the network's 10 units at .95, as the median its 4 at .5.
    wire = np.array([[1.0, 2.0, 3.0, 3.5, 4.0, 5.0, 10.0, 11.0, 12.0]])
    behind = (0.005, 0.02, 0.05, 0.2, 0.5, 0.8, 0.95, 0.98, 0.995)
    due = replace(due_of(wire), maps_I=np.array([2]))
    found = judge(due, np.array([10.25]), None, {2: behind})
    assert found.pit_I[0] == pytest.approx(0.9125)
    assert found.network.pit_I[0] == pytest.approx(0.95 + 0.03 * 0.25)
    # From .8 to .95 the network went from 5 to 10.
    assert found.network.high_I[0] == pytest.approx(5.0 + 5.0 * 2 / 3)
    assert judge(due, np.array([10.25])).network.pit_I[0] == pytest.approx(0.9125), "unknown map"


# Without adjustments ------------------------------------------------------------------------------


def scored_step(step: int, *, adjusted: bool = False, pit: float = 0.5) -> ScoredStep:
    return ScoredStep(
        forecast_id=f"{step}{pit}",
        weights_version="v",
        step=step,
        pinball=1.0,
        seasonal_naive_pinball=None,
        pit=pit,
        residual=0.0,
        covered_80=True,
        adjusted=adjusted,
    )


def test_detectors_see_what_would_have_been_served_without_adjustments() -> None:
    def score_of(item_id: str, steps: list[ScoredStep], unadjusted: list[ScoredStep]) -> Score:
        return Score(
            item_id=item_id,
            segment="x",
            resolution_ms=HOUR_MS,
            bucket_start_ms=0,
            scored_at_ms=0,
            actual=1.0,
            steps=steps,
            unadjusted=unadjusted,
        )

    one, three = scored_step(1, adjusted=True), scored_step(3)
    besides = scored_step(1, pit=0.9)
    plain = score_of("plain", [three], [])
    sampled = score_of("sampled", [one, three], [besides])
    unsampled = score_of("unsampled", [one, three], [])
    silent = score_of("silent", [one], [])
    found = without_adjustments([plain, sampled, unsampled, silent])
    assert found == [
        plain,
        score_of("sampled", [besides, three], []),
        score_of("unsampled", [three], []),
    ]
    assert sampled.steps == [one, three], "nothing is changed in place"


def test_scores_say_which_steps_were_adjusted_and_what_the_others_would_have_been() -> None:
    def due_of(forecast_id: str, adjusted: bool | None) -> Due:
        quantiles = np.full((1, 9), 2.0, np.float32)
        marks = None if adjusted is None else np.array([adjusted])
        return Due(1, 0, "v", WIRE_LEVELS, ["a|n"], [forecast_id], quantiles, marks)

    served, besides = due_of("served", True), due_of("besides", None)
    actual = np.array([2.0])
    (score,) = score_records(
        [(served, judge(served, actual))],
        {"a|n": Actual(2.0, True, "x")},
        bucket_start_ms=0,
        resolution_ms=HOUR_MS,
        scored_at_ms=0,
        unadjusted=[(besides, judge(besides, actual))],
    )
    assert [(step.forecast_id, step.adjusted) for step in score.steps] == [("served", True)]
    assert [(step.forecast_id, step.adjusted) for step in score.unadjusted] == [("besides", False)]
