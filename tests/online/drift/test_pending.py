"""Every forecast step is scored exactly once, whatever happens in between."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from freshet.online.drift.pending import Issued, PendingForecasts
from freshet.stream.schemas import WIRE_LEVELS
from freshet.stream.units import DAY_MS, HOUR_MS

STEPS = (1, 2, 4)
ITEMS = ("a|n", "b|n", "c|n")


def issued_at(cutoff_ms: int, version: str = "v1", items: tuple[str, ...] = ITEMS) -> Issued:
    quantiles = np.ones((len(items), len(STEPS), 9), np.float32)
    ids = [f"{item}@{cutoff_ms}:{version}" for item in items]
    return Issued(cutoff_ms, version, WIRE_LEVELS, list(items), ids, quantiles)


def test_a_step_is_due_once_its_bucket_has_ended_and_not_a_moment_before() -> None:
    pending = PendingForecasts(STEPS, HOUR_MS, 8)
    pending.add(issued_at(10 * HOUR_MS))
    assert pending.due_buckets(11 * HOUR_MS - 1) == []
    assert pending.due_buckets(11 * HOUR_MS) == [10 * HOUR_MS]
    assert pending.due_buckets(99 * HOUR_MS) == [10 * HOUR_MS, 11 * HOUR_MS, 13 * HOUR_MS]


def test_of_two_forecasts_of_one_cutoff_the_first_wins() -> None:
    pending = PendingForecasts(STEPS, HOUR_MS, 8)
    pending.add(issued_at(0))
    again = issued_at(0)
    pending.add(Issued(0, "v1", WIRE_LEVELS, again.item_ids, ["other"] * 3, again.quantiles_IKQ))
    assert [due.forecast_ids for due in pending.due(0)] == [issued_at(0).forecast_ids]
    assert pending.items_at(0) == set(ITEMS)


def test_a_local_day_is_due_at_its_own_midnight_where_clocks_change() -> None:
    """In Berlin the 29th of March 2026 has 23 hours."""
    march_28 = 1_774_652_400_000
    march_29 = march_28 + 24 * HOUR_MS
    march_30 = march_29 + 23 * HOUR_MS
    march_31 = march_30 + 24 * HOUR_MS
    pending = PendingForecasts(STEPS, DAY_MS, 8, time_zone="Europe/Berlin")
    pending.add(issued_at(march_28))
    assert pending.due_buckets(march_30 - 1) == [march_28]
    assert pending.due_buckets(march_30) == [march_28, march_29]
    assert pending.due_buckets(march_31 + DAY_MS) == [march_28, march_29, march_31]
    assert [due.step for due in pending.due(march_31)] == [4]
    for bucket_ms in (march_28, march_29, march_31):
        pending.close_bucket(bucket_ms)
    assert pending.cutoffs == []


def test_the_oldest_cutoff_is_dropped_when_too_many_wait() -> None:
    pending = PendingForecasts(STEPS, HOUR_MS, 2)
    with capture_logs() as logs:
        for hour in (1, 0, 2):
            pending.add(issued_at(hour * HOUR_MS))
            pending.close("b|n@0:v1", 4)
    assert pending.cutoffs == [HOUR_MS, 2 * HOUR_MS]
    assert pending.items_at(0) == set() and pending.due(0) == []
    # Three items with three steps, one of which was scored before.
    assert logs == [
        {"event": "dropped_unscored", "log_level": "warning", "cutoff_ms": 0, "steps": 8}
    ]


def test_cutoffs_are_told_oldest_first_and_so_are_the_buckets_that_are_due() -> None:
    pending = PendingForecasts((1, 24), HOUR_MS, 8)
    for hour in (5, 3, 4):
        pending.add(issued_at(hour * HOUR_MS))
    assert pending.cutoffs == [3 * HOUR_MS, 4 * HOUR_MS, 5 * HOUR_MS]
    assert pending.due_buckets(5 * HOUR_MS) == [3 * HOUR_MS, 4 * HOUR_MS]


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


@settings(max_examples=100, deadline=None)
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


def test_a_step_ahead_is_about_the_bucket_that_many_after_the_cutoff() -> None:
    pending = PendingForecasts((4, 1, 2, 2), HOUR_MS, 8)
    pending.add(issued_at(10 * HOUR_MS))
    pending.add(issued_at(12 * HOUR_MS, items=("d|n",)))
    # Bucket 13 is step 4 of the forecast at 10 and step 2 of that at 12.
    found = {due.step: (due.cutoff_ms, due.item_ids) for due in pending.due(13 * HOUR_MS)}
    assert found == {2: (12 * HOUR_MS, ["d|n"]), 4: (10 * HOUR_MS, list(ITEMS))}


def test_what_is_due_holds_the_numbers_of_its_step_and_of_the_rows_that_are_open() -> None:
    quantiles = np.arange(3 * 3 * 9, dtype=np.float32).reshape(3, 3, 9)
    ids = ["f0", "f1", "f2"]
    pending = PendingForecasts(STEPS, HOUR_MS, 8)
    pending.add(Issued(0, "v7", WIRE_LEVELS, list(ITEMS), ids, quantiles))
    pending.close("f1", 2)
    pending.close("unknown", 2)
    pending.close("f0", 3)
    (due,) = pending.due(HOUR_MS)
    assert (due.step, due.cutoff_ms, due.weights_version) == (2, 0, "v7")
    assert (due.item_ids, due.forecast_ids) == (["a|n", "c|n"], ["f0", "f2"])
    np.testing.assert_array_equal(due.quantiles_IQ, quantiles[[0, 2], 1])
    assert due.quantile_levels == WIRE_LEVELS
    (first,) = pending.due(0)
    assert first.forecast_ids == ids


def test_nothing_is_due_before_anything_is_final_or_once_all_its_rows_are_closed() -> None:
    pending = PendingForecasts(STEPS, HOUR_MS, 8)
    pending.add(issued_at(0, items=("a|n",)))
    assert pending.due_buckets(None) == []
    pending.close(f"a|n@{0}:v1", 1)
    assert pending.due_buckets(99 * HOUR_MS) == [HOUR_MS, 3 * HOUR_MS]


def test_of_a_forecast_made_twice_in_part_the_new_items_wait() -> None:
    pending = PendingForecasts(STEPS, HOUR_MS, 8)
    pending.add(issued_at(0, items=("a|n",)))
    pending.add(issued_at(0, items=("a|n", "b|n")))
    pending.add(issued_at(0, version="v2", items=("a|n",)))
    found = [(due.weights_version, due.item_ids) for due in pending.due(0)]
    assert found == [("v1", ["a|n"]), ("v1", ["b|n"])], "whatever weights made the second"


def test_a_cutoff_is_forgotten_with_its_last_step_and_not_before() -> None:
    pending = PendingForecasts(STEPS, HOUR_MS, 8)
    pending.add(issued_at(0))
    for bucket, cutoffs in ((0, [0]), (1, [0]), (3, [])):
        pending.close_bucket(bucket * HOUR_MS)
        assert pending.cutoffs == cutoffs
    assert pending.items_at(0) == set()
    assert pending._places == {}, "nothing is kept of what nobody waits for"
