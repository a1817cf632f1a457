"""The plan of a round: newest cutoff only, nothing forecast twice, every skipped cutoff counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from freshet.online.worker.rounds import Round, plan_round, portions
from freshet.stream.store.grid import Grid
from freshet.stream.units import HOUR_MS

HOURS = Grid(HOUR_MS)


def test_nothing_is_due_before_the_windows_have_a_cutoff() -> None:
    assert plan_round(None, None, HOURS) is None


def test_a_frontier_inside_a_bucket_counts_for_the_bucket_before() -> None:
    assert plan_round(HOUR_MS, 2 * HOUR_MS + 5, HOURS) == Round(2 * HOUR_MS, 0)


def test_rounds_are_cut_into_portions_of_the_size_and_what_is_left() -> None:
    assert list(portions(2, 1)) == [range(0, 1), range(1, 2)]
    assert list(portions(7, 3)) == [range(0, 3), range(3, 6), range(6, 7)]
    assert list(portions(0, 3)) == []


def test_the_first_round_skips_nothing_and_later_ones_count_what_is_between() -> None:
    assert plan_round(None, 9 * HOUR_MS + 1, HOURS) == Round(9 * HOUR_MS, 0)
    assert plan_round(4 * HOUR_MS, 5 * HOUR_MS, HOURS) == Round(5 * HOUR_MS, 0)
    assert plan_round(4 * HOUR_MS, 9 * HOUR_MS, HOURS) == Round(9 * HOUR_MS, 4)
    assert plan_round(5 * HOUR_MS, 6 * HOUR_MS - 1, HOURS) is None


def test_a_cutoff_that_falls_back_is_not_forecast_again() -> None:
    assert plan_round(5 * HOUR_MS, 3 * HOUR_MS, HOURS) is None


@given(
    resolution_ms=st.sampled_from([1_000, 60_000, HOUR_MS]),
    looks=st.lists(st.integers(0, 10**9), min_size=1, max_size=40),
)
def test_rounds_rise_and_account_for_every_cutoff(resolution_ms: int, looks: list[int]) -> None:
    rounds: list[Round] = []
    previous_ms: int | None = None
    for newest_ms in looks:
        due = plan_round(previous_ms, newest_ms, Grid(resolution_ms))
        if due is not None:
            rounds.append(due)
            previous_ms = due.cutoff_ms
    cutoffs = [due.cutoff_ms for due in rounds]
    assert cutoffs == sorted(set(cutoffs))
    assert all(cutoff_ms % resolution_ms == 0 for cutoff_ms in cutoffs)
    assert cutoffs[-1] == max(looks) // resolution_ms * resolution_ms
    between = (cutoffs[-1] - cutoffs[0]) // resolution_ms + 1
    assert between == len(rounds) + sum(due.skipped for due in rounds)


@given(num_rows=st.integers(0, 2_000), size=st.integers(1, 300))
def test_portions_cover_each_row_once_and_never_exceed_the_size(num_rows: int, size: int) -> None:
    parts = list(portions(num_rows, size))
    assert [row for part in parts for row in part] == list(range(num_rows))
    assert all(0 < len(part) <= size for part in parts)
