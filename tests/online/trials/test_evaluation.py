"""Losses, coverage and the comparison of two networks, against numbers worked out by hand."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.online.trials import evaluation
from freshet.online.trials.evaluation import (
    Comparison,
    by_item_and_bucket,
    compare,
    evaluate,
    forecast_ms,
)
from freshet.online.trials.pools import Pool
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import ITEMS, START_MS, PastInMemory, pool_at, small_network
from tests.online.learn.oracles import SteadyForecaster, loss_of, oracle

# The last 12 of 126 hours are held out.
NUM_BUCKETS, HOLDOUT = 126, 114


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BatchForecaster", SteadyForecaster)


def flat_past(units: float) -> PastInMemory:
    past = PastInMemory(NUM_BUCKETS)
    past.units_IN[:] = units
    return past


@pytest.mark.parametrize(
    ("units", "quantiles", "loss", "covered"),
    [
        # 0.1 * 5 and 0.5 * 2 and 0.9 * 1 are 2.4 in all, 0.8 on average, twice that.
        (10.0, (5.0, 8.0, 9.0), 1.6, 0.0),
        # 0.1 * 1 below; 0.5 * 2 and 0.1 * 10 above.
        (10.0, (9.0, 12.0, 20.0), 1.4, 1.0),
        # 0.9 * 1 and 0.5 * 2 and 0.1 * 3.
        (10.0, (11.0, 12.0, 13.0), 22.0 / 15.0, 0.0),
        # The ends belong to the interval.
        (10.0, (10.0, 12.0, 14.0), 14.0 / 15.0, 1.0),
        (10.0, (6.0, 8.0, 10.0), 14.0 / 15.0, 1.0),
    ],
)
def test_a_loss_is_twice_the_mean_pinball_loss_and_the_interval_holds_its_ends(
    steady: None, units: float, quantiles: tuple[float, ...], loss: float, covered: float
) -> None:
    found = evaluate(oracle(*quantiles), pool_at(flat_past(units), range(100, 101), 126))
    assert found.loss_NH == pytest.approx(np.full((ITEMS, 16), loss), rel=1e-6)
    assert (np.nanmean(found.covered_NH), found.finite) == (covered, True)


def test_the_interval_is_of_the_levels_next_to_a_tenth_and_nine_tenths(
    steady: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SteadyForecaster, "quantile_levels", (0.05, 0.1, 0.5, 0.9, 0.95))

    def forecast(self: SteadyForecaster, batch: Batch, max_rows: int = 0) -> Tensor:
        return self.network.quantiles_Q.detach().expand(len(batch.target_BT), 16, 5)

    monkeypatch.setattr(SteadyForecaster, "forecast", forecast)
    past = flat_past(9.0)
    past.units_IN[:, 100:104] = [[1.0, 3.0, 5.0, 7.0]]
    # Two of the four are between 2 and 6; all of them between 0 and 8.
    pool = pool_at(past, range(100, 101), 104)
    assert np.nanmean(evaluate(oracle(0.0, 2.0, 4.0, 6.0, 8.0), pool).covered_NH) == 0.5


def test_what_has_no_label_has_neither_loss_nor_coverage(steady: None) -> None:
    past = flat_past(10.0)
    past.units_IN[3, 101] = math.nan
    found = evaluate(oracle(5.0, 8.0, 9.0), pool_at(past, range(100, 101), 104))
    labelled_NH = np.zeros((ITEMS, 16), bool)
    labelled_NH[:, :4] = True
    labelled_NH[3, 1] = False
    assert np.array_equal(np.isfinite(found.loss_NH), labelled_NH)
    assert np.array_equal(np.isfinite(found.covered_NH), labelled_NH)
    assert np.nanmean(found.covered_NH) == 0.0
    nothing = evaluate(oracle(5.0, 8.0, 9.0), pool_at(past, range(100, 101), 100))
    assert np.isnan(nothing.covered_NH).all() and nothing.finite


def test_forecasts_that_are_not_finite_lose_infinity_and_are_seen() -> None:
    network = copy.deepcopy(small_network())
    with torch.no_grad():
        network.final_norm.weight.fill_(float("nan"))
    outcome = evaluate(network, pool_at(PastInMemory(200), range(100, 101), 140))
    assert not outcome.finite
    assert np.isinf(outcome.loss_NH).all()


def test_one_forecast_that_is_not_finite_is_enough() -> None:
    loss_NH = np.ones((2, 3))
    loss_NH[1, 2] = np.inf
    assert not evaluation.Evaluation(loss_NH, np.ones((2, 3))).finite


def buckets(pool: Pool, first_hour: int) -> np.ndarray:
    """The first bucket of each window in a table that begins with this hour."""
    return (pool.cutoffs_N - START_MS) // HOUR_MS - first_hour


def test_losses_are_put_to_their_item_and_bucket() -> None:
    past = PastInMemory(200)
    pool = pool_at(past, range(100, 108, 4), end=112)
    values = pool.actual_NH.double().numpy()
    rows, table = by_item_and_bucket(values, pool.rows_N, buckets(pool, 100), 12)
    assert rows.tolist() == list(range(ITEMS))
    assert np.array_equal(table, past.units_IN[:, 100:112])


def test_a_bucket_has_the_mean_of_its_windows_and_none_outside_of_the_table_counts() -> None:
    pool = pool_at(PastInMemory(200), range(100, 104, 2), end=200)
    values = np.repeat([[1.0], [4.0]], ITEMS, axis=0) * np.ones((1, 16))
    # Cutoffs 100 and 102; the table begins at 101 and ends before 104.
    _, table = by_item_and_bucket(values, pool.rows_N, buckets(pool, 101), 3)
    assert table.tolist() == [[1.0, 2.5, 2.5]] * ITEMS
    # Nor does one that is not finite: who forecast it is not finite, which is told apart.
    values[:ITEMS, 2] = np.inf
    _, table = by_item_and_bucket(values, pool.rows_N, buckets(pool, 101), 3)
    assert table.tolist() == [[1.0, 4.0, 2.5]] * ITEMS
    # A table that begins before the first cutoff has no value there.
    _, earlier = by_item_and_bucket(values, pool.rows_N, buckets(pool, 98), 3)
    assert np.array_equal(earlier, [[np.nan, np.nan, 1.0]] * ITEMS, equal_nan=True)


CHAMPION, CHALLENGER = (2.0, 6.0, 11.0), (1.0, 7.0, 20.0)


def hour(number: int) -> int:
    return START_MS + number * HOUR_MS


def compared(past: PastInMemory, **over: Any) -> Comparison:
    """Both on the last 12 hours."""
    given: dict[str, Any] = {"start_ms": hour(HOLDOUT), "end_ms": hour(NUM_BUCKETS)} | over
    return compare(past, oracle(*CHAMPION), oracle(*CHALLENGER), **given)


def expected(past: PastInMemory, hours: range, quantiles: tuple[float, ...]) -> np.ndarray:
    return np.array(
        [[loss_of(past.units_IN[row, hour], quantiles) for hour in hours] for row in range(ITEMS)]
    )


def test_a_comparison_holds_each_ones_losses_on_its_buckets(steady: None) -> None:
    past = PastInMemory(NUM_BUCKETS)
    found = compared(past)
    hours = range(HOLDOUT, NUM_BUCKETS)
    assert found.first_IT == pytest.approx(expected(past, hours, CHAMPION), rel=1e-5)
    assert found.second_IT == pytest.approx(expected(past, hours, CHALLENGER), rel=1e-5)
    assert found.finite


@pytest.mark.parametrize(
    ("bucket", "column"),
    [(HOLDOUT - 1, None), (HOLDOUT, 0), (HOLDOUT + 1, 1), (NUM_BUCKETS - 1, 11)],
)
def test_a_poisoned_bucket_changes_its_own_column_of_a_comparison(
    steady: None, bucket: int, column: int | None
) -> None:
    past = PastInMemory(NUM_BUCKETS)
    before = compared(past)
    past.units_IN[:, bucket] += 1_000.0
    after = compared(past)
    for name in ("first_IT", "second_IT"):
        changed_T = (getattr(after, name) != getattr(before, name)).any(0)
        assert np.flatnonzero(changed_T).tolist() == ([] if column is None else [column])


def test_a_comparison_holds_each_ones_coverage(steady: None) -> None:
    """A bucket is forecast from its own start and from every cutoff before it."""
    past = PastInMemory(NUM_BUCKETS)
    found = compared(past)
    for covered_IT, (low, _, high) in (
        (found.first_covered_IT, CHAMPION),
        (found.second_covered_IT, CHALLENGER),
    ):
        units_IT = past.units_IN[:, HOLDOUT:]
        assert np.array_equal(covered_IT, (low <= units_IT) & (units_IT <= high))


def test_a_second_network_that_is_not_finite_is_seen_and_a_first_does_not_matter(
    steady: None,
) -> None:
    past, at = PastInMemory(NUM_BUCKETS), {"start_ms": hour(114), "end_ms": hour(126)}
    wrong, right = oracle(1.0, math.nan, 20.0), oracle(*CHALLENGER)
    assert not compare(past, right, wrong, **at).finite
    assert compare(past, wrong, right, **at).finite


def test_where_labels_reach_further_than_a_forecast_there_are_cutoffs_enough(
    steady: None,
) -> None:
    """A forecast has 16 hours, a day 24; room for one window of an item is no reason to skip 8."""
    found = compared(PastInMemory(NUM_BUCKETS), start_ms=hour(100), end_ms=hour(124), maximum=1)
    assert np.isfinite(found.first_IT).all()
    assert sorted(set(found.pool.cutoffs_N)) == [hour(100), hour(112)]


def test_of_given_rows_only_these_are_compared(steady: None) -> None:
    past = PastInMemory(NUM_BUCKETS)
    found = compared(past, rows=np.array([2, 5]))
    hours = range(HOLDOUT, NUM_BUCKETS)
    assert found.rows_I.tolist() == [2, 5]
    assert found.first_IT == pytest.approx(expected(past, hours, CHAMPION)[[2, 5]], rel=1e-5)


def test_a_comparison_of_nothing_is_refused(steady: None) -> None:
    at_ms = START_MS + 100 * HOUR_MS
    networks = oracle(1.0, 2.0, 3.0), oracle(1.0, 2.0, 3.0)
    with pytest.raises(InvalidInputError, match="no held-out windows"):
        compare(PastInMemory(126), *networks, start_ms=at_ms, end_ms=at_ms, seed=0)


# Latency ------------------------------------------------------------------------------------------


class Stopwatch:
    """A clock that only forecasts move."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


def timed(monkeypatch: pytest.MonkeyPatch, *passes_ms: list[float]) -> list[float]:
    """Latencies of networks whose forecasts take these times, the last one for ever."""
    watch = Stopwatch()
    taken: list[list[float]] = [list(times) for times in passes_ms]

    def forecast(self: SteadyForecaster, batch: Batch, max_rows: int = 0) -> Tensor:
        times = taken[int(self.network.quantiles_Q[0])]
        watch.now_s += (times.pop(0) if len(times) > 1 else times[0]) / 1_000.0
        assert len(batch.target_BT) <= evaluation.LATENCY_ROWS
        return torch.zeros(1)

    monkeypatch.setattr(evaluation, "time", SimpleNamespace(perf_counter=watch.perf_counter))
    monkeypatch.setattr(SteadyForecaster, "forecast", forecast)
    networks = [oracle(float(index)) for index in range(len(passes_ms))]
    return forecast_ms(networks, pool_at(PastInMemory(126), range(100, 104), 120))


def test_the_fastest_forecast_of_each_network_counts(
    steady: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = timed(monkeypatch, [9.0, 5.0, 7.0], [6.0, 8.0, 5.5, 9.0])
    assert found == pytest.approx([5.0, 5.5])


def test_a_busy_machine_is_measured_until_both_are_alike_or_patience_ends(
    steady: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [50.0] * 20 + [5.0]
    assert timed(monkeypatch, [5.0], late) == pytest.approx([5.0, 5.0])
    never = [50.0] * 40 + [5.0]
    assert timed(monkeypatch, [5.0], never) == pytest.approx([5.0, 50.0])
