"""Losses, coverage and the trial of two versions, against numbers worked out by hand."""

from __future__ import annotations

import copy
import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.network import FreshetNetwork
from freshet.online.learn import evaluation
from freshet.online.learn.evaluation import (
    by_item_and_bucket,
    compare,
    evaluate,
    forecast_ms,
    try_on_holdout,
)
from freshet.online.learn.gate import Trial
from freshet.online.learn.pools import Pool, split_history
from freshet.stream.config import LearnSettings
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
    assert (found.coverage, found.finite) == (covered, True)


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
    assert evaluate(oracle(0.0, 2.0, 4.0, 6.0, 8.0), pool).coverage == 0.5


def test_what_has_no_label_has_neither_loss_nor_coverage(steady: None) -> None:
    past = flat_past(10.0)
    past.units_IN[3, 101] = math.nan
    found = evaluate(oracle(5.0, 8.0, 9.0), pool_at(past, range(100, 101), 104))
    labelled_NH = np.zeros((ITEMS, 16), bool)
    labelled_NH[:, :4] = True
    labelled_NH[3, 1] = False
    assert np.array_equal(np.isfinite(found.loss_NH), labelled_NH)
    assert np.array_equal(np.isfinite(found.covered_NH), labelled_NH)
    assert found.coverage == 0.0
    nothing = evaluate(oracle(5.0, 8.0, 9.0), pool_at(past, range(100, 101), 100))
    assert math.isnan(nothing.coverage) and nothing.finite


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


# The trial ----------------------------------------------------------------------------------------

CHAMPION, CHALLENGER = (2.0, 6.0, 11.0), (1.0, 7.0, 20.0)


def tried(past: PastInMemory, known: int = NUM_BUCKETS, **over: Any) -> Trial:
    """A trial after training, during which the past may have grown."""
    split = split_history(past, LearnSettings(recent_buckets=48, holdout_buckets=12), None)
    past.known_buckets = known
    settings: dict[str, Any] = {
        "anchors": pool_at(past, range(30, 40, 3), end=60),
        "champion": oracle(*CHAMPION),
        "challenger": oracle(*CHALLENGER),
        "affected": (),
        "seed": 0,
    } | over
    arguments = [settings.pop(name) for name in ("anchors", "champion", "challenger")]
    return try_on_holdout(past, split, *arguments, **settings)


def expected(past: PastInMemory, hours: range, quantiles: tuple[float, ...]) -> np.ndarray:
    return np.array(
        [[loss_of(past.units_IN[row, hour], quantiles) for hour in hours] for row in range(ITEMS)]
    )


def test_a_trial_holds_each_ones_losses_on_the_held_out_buckets(steady: None) -> None:
    past = PastInMemory(NUM_BUCKETS)
    found = tried(past)
    held_out = range(HOLDOUT, NUM_BUCKETS)
    assert found.champion_IT == pytest.approx(expected(past, held_out, CHAMPION), rel=1e-5)
    assert found.challenger_IT == pytest.approx(expected(past, held_out, CHALLENGER), rel=1e-5)
    assert found.resolution_ms == HOUR_MS
    assert found.finite


@pytest.mark.parametrize(
    ("bucket", "column"),
    [(HOLDOUT - 1, None), (HOLDOUT, 0), (HOLDOUT + 1, 1), (NUM_BUCKETS - 1, 11)],
)
def test_a_poisoned_bucket_changes_its_own_column_of_a_trial(
    steady: None, bucket: int, column: int | None
) -> None:
    past = PastInMemory(NUM_BUCKETS)
    before = tried(past, anchors=None)
    past.units_IN[:, bucket] += 1_000.0
    after = tried(past, anchors=None)
    for name in ("champion_IT", "challenger_IT"):
        changed_T = (getattr(after, name) != getattr(before, name)).any(0)
        assert np.flatnonzero(changed_T).tolist() == ([] if column is None else [column])


def test_a_trial_holds_each_ones_losses_on_the_anchors(steady: None) -> None:
    past = PastInMemory(NUM_BUCKETS)
    found = tried(past)
    windows = [(hour, row) for hour in (30, 33, 36, 39) for row in range(ITEMS)]
    for losses_A, quantiles in (
        (found.champion_anchor_A, CHAMPION),
        (found.challenger_anchor_A, CHALLENGER),
    ):
        by_hand = [
            [loss_of(past.units_IN[row, hour + step], quantiles) for step in range(16)]
            for hour, row in windows
        ]
        assert losses_A == pytest.approx(np.array(by_hand), rel=1e-5)
    assert tried(past, anchors=None).champion_anchor_A.size == 0


def test_a_trial_holds_each_ones_coverage(steady: None) -> None:
    """A bucket is forecast from its own start and from every cutoff before it in the hold-out."""
    past = PastInMemory(NUM_BUCKETS)
    found = tried(past)
    for coverage, (low, _, high) in (
        (found.champion_coverage, CHAMPION),
        (found.challenger_coverage, CHALLENGER),
    ):
        inside = total = 0
        for step, row in itertools.product(range(12), range(ITEMS)):
            inside += (step + 1) * (low <= past.units_IN[row, HOLDOUT + step] <= high)
            total += step + 1
        assert coverage == pytest.approx(inside / total)
    assert found.champion_coverage < found.challenger_coverage


@pytest.mark.parametrize(
    ("known", "buckets"), [(126, 12), (130, 16), (138, 24), (139, 24), (200, 24), (100, 12)]
)
def test_what_became_final_meanwhile_is_held_out_too_up_to_twice_its_length(
    steady: None, known: int, buckets: int
) -> None:
    past = PastInMemory(250)
    past.known_buckets = NUM_BUCKETS
    assert tried(past, known=known).champion_IT.shape == (ITEMS, buckets)


def test_half_a_bucket_that_became_final_is_not_held_out(steady: None) -> None:
    past = PastInMemory(250)
    past.known_buckets = NUM_BUCKETS
    past.final_ms = lambda: START_MS + past.known_buckets * HOUR_MS + 7  # type: ignore[method-assign]
    assert tried(past, known=130).champion_IT.shape == (ITEMS, 16)


def test_a_challenger_that_is_not_finite_is_seen_and_a_champion_does_not_matter(
    steady: None,
) -> None:
    past = PastInMemory(NUM_BUCKETS)
    wrong = oracle(1.0, math.nan, 20.0)
    assert not tried(past, challenger=wrong).finite
    assert tried(past, champion=wrong).finite
    # A number that no forecast used is seen all the same.
    idle = oracle(*CHALLENGER)
    idle.spare = torch.nn.Parameter(torch.tensor([1.0, math.inf]))
    assert not tried(past, challenger=idle).finite


def test_forecasts_that_are_not_finite_are_seen_where_all_parameters_are(
    steady: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forecast(self: SteadyForecaster, batch: Batch, max_rows: int = 0) -> Tensor:
        told_BHQ = torch.ones(len(batch.target_BT), 16, 3)
        told_BHQ[0, 0] = math.nan if self.network.quantiles_Q[0] == CHALLENGER[0] else 1.0
        return told_BHQ

    monkeypatch.setattr(SteadyForecaster, "forecast", forecast)
    assert not tried(PastInMemory(NUM_BUCKETS)).finite


@pytest.mark.parametrize(
    ("affected", "tested"),
    [((), set()), (("s1",), {"s1"}), (("s2", "all"), {"s0", "s1", "s2", "s3"})],
)
def test_the_affected_segments_are_those_named_and_all_is_every_one(
    steady: None, affected: tuple[str, ...], tested: set[str]
) -> None:
    assert tried(PastInMemory(NUM_BUCKETS), affected=affected).affected == tested


class Crowd(PastInMemory):
    """More items than a trial takes; each sells its own number, and is a segment."""

    def __init__(self) -> None:
        super().__init__(NUM_BUCKETS)
        self.units_IN = np.repeat(np.arange(600.0)[:, None], NUM_BUCKETS, axis=1)

    def segments(self) -> list[str]:
        return [f"s{row}" for row in range(600)]


def test_of_many_items_a_sample_is_tried_under_their_own_segments(steady: None) -> None:
    found = tried(Crowd(), anchors=None, champion=oracle(0.0, 0.0, 0.0))
    # Of a forecast of nothing the loss is what was sold.
    rows = [int(name[1:]) for name in found.segments]
    assert found.champion_IT[:, 0] == pytest.approx(np.array(rows, float), rel=1e-6)
    # Drawn by a generator of their own, the seed's next one: not that of the pools.
    drawn = np.random.default_rng(1).choice(600, 512, replace=False)
    assert rows == sorted(drawn.tolist())
    other = tried(Crowd(), anchors=None, champion=oracle(0.0, 0.0, 0.0), seed=1)
    assert other.segments != found.segments


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


def test_champion_and_challenger_have_their_own_latency(
    steady: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion, challenger = oracle(*CHAMPION), oracle(*CHALLENGER)

    def times(networks: list[FreshetNetwork], pool: object) -> list[float]:
        assert networks == [champion, challenger]
        return [3.0, 4.0]

    monkeypatch.setattr(evaluation, "forecast_ms", times)
    found = tried(PastInMemory(126), champion=champion, challenger=challenger)
    assert (found.champion_ms, found.challenger_ms) == (3.0, 4.0)
