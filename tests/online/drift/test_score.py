"""Scores are right, and every forecast step is scored exactly once whatever happens in between."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.model.quantiles.metrics import wql
from freshet.online.drift.score import (
    Actual,
    Due,
    Issued,
    PendingForecasts,
    judge,
    score_records,
    uniform,
)
from freshet.stream.schemas import WIRE_LEVELS
from freshet.stream.units import HOUR_MS

STEPS = (1, 2, 4)
ITEMS = ("a|n", "b|n", "c|n")


def due_of(
    quantiles_IQ: np.ndarray, *, step: int = 1, levels: tuple[float, ...] = WIRE_LEVELS
) -> Due:
    ids = [f"f{row}" for row in range(len(quantiles_IQ))]
    return Due(
        step, 0, "v1", levels, [f"i{row}" for row in range(len(quantiles_IQ))], ids, quantiles_IQ
    )


def issued_at(cutoff_ms: int, version: str = "v1", items: tuple[str, ...] = ITEMS) -> Issued:
    quantiles = np.ones((len(items), len(STEPS), 9), np.float32)
    ids = [f"{item}@{cutoff_ms}:{version}" for item in items]
    return Issued(cutoff_ms, version, WIRE_LEVELS, list(items), ids, quantiles)


# Judging ------------------------------------------------------------------------------------------


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


# Pending ------------------------------------------------------------------------------------------


def test_a_step_is_due_once_its_bucket_has_ended_and_not_a_moment_before() -> None:
    pending = PendingForecasts(STEPS, HOUR_MS, 8)
    pending.add(issued_at(10 * HOUR_MS))
    assert pending.due_buckets(11 * HOUR_MS - 1) == []
    assert pending.due_buckets(11 * HOUR_MS) == [10 * HOUR_MS]
    assert pending.due_buckets(99 * HOUR_MS) == [10 * HOUR_MS, 11 * HOUR_MS, 13 * HOUR_MS]


def test_of_two_forecasts_of_one_cutoff_and_version_the_first_wins() -> None:
    pending = PendingForecasts(STEPS, HOUR_MS, 8)
    pending.add(issued_at(0))
    again = issued_at(0)
    pending.add(Issued(0, "v1", WIRE_LEVELS, again.item_ids, ["other"] * 3, again.quantiles_IKQ))
    assert [due.forecast_ids for due in pending.due(0)] == [issued_at(0).forecast_ids]
    assert pending.items_at(0) == set(ITEMS)


def test_the_oldest_cutoff_is_dropped_and_counted_when_too_many_wait() -> None:
    pending = PendingForecasts(STEPS, HOUR_MS, 2)
    for hour in range(3):
        pending.add(issued_at(hour * HOUR_MS))
    assert pending.cutoffs == [HOUR_MS, 2 * HOUR_MS] and pending.dropped == len(ITEMS) * len(STEPS)


class Log:
    """Two topics that outlive workers, and a worker that may die between any two of its
    acknowledged records.
    """

    def __init__(self) -> None:
        self.forecasts: list[Issued] = []
        self.scores: list[tuple[str, int, int]] = []
        self.start()

    def start(self) -> None:
        self.pending = PendingForecasts(STEPS, HOUR_MS, 1_000)
        for issued in self.forecasts:
            self.pending.add(issued)
        for forecast_id, step, _ in self.scores:
            self.pending.close(forecast_id, step)

    def forecast(self, hour: int, version: str) -> None:
        if hour * HOUR_MS not in {issued.cutoff_ms for issued in self.forecasts}:
            issued = issued_at(hour * HOUR_MS, version)
            self.forecasts.append(issued)
            self.pending.add(issued)

    def score(self, final_hour: int, dies_after: int) -> None:
        """Score all that is due; after so many records the process dies and another one starts."""
        for bucket_ms in self.pending.due_buckets(final_hour * HOUR_MS):
            for due in self.pending.due(bucket_ms):
                for forecast_id in due.forecast_ids:
                    if dies_after == 0:
                        self.start()
                        return
                    self.scores.append((forecast_id, due.step, bucket_ms))
                    dies_after -= 1
            self.pending.close_bucket(bucket_ms)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("forecast"), st.integers(0, 12), st.sampled_from(["v1", "v2"])),
            st.tuples(st.just("score"), st.integers(0, 20), st.integers(-1, 12)),
            st.just(("restart",)),
        ),
        max_size=40,
    )
)
def test_each_forecast_step_is_scored_exactly_once_under_any_interleaving_of_finals_and_deaths(
    actions: list[tuple[object, ...]],
) -> None:
    log = Log()
    for name, *values in actions:
        if name == "restart":
            log.start()
        elif name == "forecast":
            log.forecast(*values)  # type: ignore[arg-type]
        else:
            log.score(*values)  # type: ignore[arg-type]
    log.score(100, -1)
    expected = {
        (forecast_id, step, issued.cutoff_ms + (step - 1) * HOUR_MS): 1
        for issued in log.forecasts
        for forecast_id in issued.forecast_ids
        for step in STEPS
    }
    assert Counter(log.scores) == expected
    assert log.pending.due_buckets(10**15) == []
