"""A score is right: its loss sums to WQL, its PIT is uniform when the forecast is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.model.quantiles.metrics import wql
from freshet.online.drift.pending import Due
from freshet.online.drift.score import Actual, judge, score_records, uniform
from freshet.stream.schemas import WIRE_LEVELS
from freshet.stream.units import HOUR_MS


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
