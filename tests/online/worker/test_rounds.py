"""The plan of a round: newest cutoff only, nothing forecast twice, every skipped cutoff counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.worker.marks import LAST, NONE_YET, Mark, place_of
from freshet.online.worker.rounds import (
    Round,
    Work,
    moved_marks,
    places_of,
    plan_round,
    portions,
    previous_cutoff_ms,
    work_left,
)
from freshet.stream.arrays import Ints
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS

HOURS = Grid(HOUR_MS)
BERLIN = Grid(DAY_MS, "Europe/Berlin")
MARCH_28 = 1_774_652_400_000  # 2026-03-28T00:00 in Berlin; the 29th has 23 hours
MARCH_29 = MARCH_28 + 24 * HOUR_MS
MARCH_30 = MARCH_29 + 23 * HOUR_MS
OCTOBER_25 = 1_792_879_200_000  # 2026-10-25T00:00 in Berlin, a day of 25 hours
OCTOBER_26 = OCTOBER_25 + 25 * HOUR_MS


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


@pytest.mark.parametrize(
    ("previous_ms", "newest_ms", "due"),
    [
        # The day with 23 hours is over at the next midnight, and not 24 hours after it began.
        (MARCH_28, MARCH_29 - 1, None),
        (MARCH_28, MARCH_29, Round(MARCH_29, 0)),
        (MARCH_29, MARCH_30 - 1, None),
        (MARCH_29, MARCH_30, Round(MARCH_30, 0)),
        (MARCH_28, MARCH_30 + HOUR_MS, Round(MARCH_30, 1)),
        # The one with 25 hours is not over after 24.
        (OCTOBER_25, OCTOBER_25 + 24 * HOUR_MS, None),
        (OCTOBER_25, OCTOBER_26, Round(OCTOBER_26, 0)),
    ],
)
def test_days_are_due_at_the_shops_own_midnights(
    previous_ms: int, newest_ms: int, due: Round | None
) -> None:
    assert plan_round(previous_ms, newest_ms, BERLIN) == due


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


# How far all shards are ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("marks", "previous_ms"),
    [
        ([], None),
        # One that nobody knows of has had no round.
        ([Mark(5 * HOUR_MS, LAST, 1, 1), None], None),
        ([Mark(5 * HOUR_MS, LAST, 1, 1), Mark(7 * HOUR_MS, LAST, 1, 1)], 5 * HOUR_MS),
        # In the middle of the round at 7, and before the one at 6 was over.
        ([Mark(5 * HOUR_MS, LAST, 1, 1), Mark(7 * HOUR_MS, 3, 1, 2)], 5 * HOUR_MS),
        ([Mark(7 * HOUR_MS, LAST, 1, 1), Mark(6 * HOUR_MS, NONE_YET, 0, 2)], 6 * HOUR_MS - 1),
    ],
)
def test_the_shard_that_is_furthest_behind_says_which_round_was_the_last(
    marks: list[Mark | None], previous_ms: int | None
) -> None:
    assert previous_cutoff_ms(marks) == previous_ms


def test_a_round_that_a_dead_worker_began_is_due_again_at_its_cutoff() -> None:
    begun = previous_cutoff_ms([Mark(6 * HOUR_MS, 3, 1, 2)])
    assert plan_round(begun, 6 * HOUR_MS, HOURS) == Round(6 * HOUR_MS, 0)
    assert plan_round(begun, 7 * HOUR_MS, HOURS) == Round(7 * HOUR_MS, 1)


# What is left -------------------------------------------------------------------------------------


def of(*numbers: int) -> Ints:
    return np.array(numbers, np.int64)


def places(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(numbers, np.uint64)


def begun(upto: int, published: int = 0, expected: int = 0) -> Mark:
    return Mark(HOUR_MS, upto, published, expected)


def test_what_is_left_of_a_shard_is_what_stands_behind_its_mark() -> None:
    # Of four shards; rows 0 to 5 stand at these places, so in shards 2, 1, 2, 3, 2 and 1.
    row_I, place_I = of(0, 1, 2, 3, 4, 5), places(10, 5, 2, 7, 6, 1)
    marks = {2: begun(6), 1: begun(NONE_YET)}
    work = work_left(row_I, place_I, [], marks, 4)
    # Shard 3 is another worker's. Of 2 only place 10 is behind 6.
    assert work.shard_N.tolist() == [1, 1, 2]
    assert work.place_N.tolist() == [1, 5, 10]
    assert work.item_N.tolist() == [5, 1, 0]
    assert work.counts() == {1: 2, 2: 1} and len(work) == 3


def test_rows_and_items_without_one_stand_in_one_order() -> None:
    cold = ["c0|n", "c2|n"]
    row_I = of(7, 4)
    work = work_left(row_I, places_of(["a|n", "young|n"]), cold, {0: begun(NONE_YET)}, 1)
    ordered = sorted([*cold, "a|n", "young|n"], key=place_of)
    assert ordered == ["c2|n", "a|n", "young|n", "c0|n"]
    assert work.items(range(4)) == ([7, 4], ["c2|n", "c0|n"])
    assert work.items(range(1, 2)) == ([7], [])
    assert work.items(range(3, 4)) == ([], ["c0|n"])
    assert work.items(range(0)) == ([], [])


def test_the_first_and_the_last_place_of_all_are_forecast_too() -> None:
    row_I, place_I = of(0, 1), places(0, LAST)
    assert len(work_left(row_I, place_I, [], {0: begun(NONE_YET)}, 1)) == 2
    assert work_left(row_I, place_I, [], {0: begun(0)}, 1).item_N.tolist() == [1]
    assert len(work_left(row_I, place_I, [], {0: begun(LAST)}, 1)) == 0


def test_without_items_or_shards_nothing_is_left() -> None:
    nobody = work_left(of(), places(), [], {0: begun(NONE_YET)}, 1)
    assert len(nobody) == 0 and nobody.counts() == {} and nobody.items(range(0)) == ([], [])
    assert len(work_left(of(0), places(3), ["c|n"], {}, 4)) == 0


# Marks --------------------------------------------------------------------------------------------


def work_of(*shards_and_places: tuple[int, int]) -> Work:
    shard_N, place_N = zip(*shards_and_places, strict=True)
    return Work(of(*shard_N), places(*place_N), of(*range(len(shard_N))), [])


def test_a_portion_moves_the_marks_of_the_shards_that_it_touches_and_ends_those_it_ends() -> None:
    work = work_of((0, 4), (0, 8), (0, 12), (2, 2), (2, 6), (3, 7))
    marks = {
        0: begun(NONE_YET, 0, 3),
        # Two of shard 2 were published by somebody before.
        2: begun(1, 2, 4),
        3: begun(NONE_YET, 0, 1),
    }
    assert moved_marks(work, range(2), marks) == {0: begun(8, 2, 3)}
    # The end of shard 0 falls inside this one, and that of shard 2 does not.
    assert moved_marks(work, range(2, 4), marks | {0: begun(8, 2, 3)}) == {
        0: begun(LAST, 3, 3),
        2: begun(2, 3, 4),
    }
    assert moved_marks(work, range(4, 6), marks | {2: begun(2, 3, 4)}) == {
        2: begun(LAST, 4, 4),
        3: begun(LAST, 1, 1),
    }
    assert moved_marks(work, range(3), marks) == {0: begun(LAST, 3, 3)}, "where the portion ends"
    assert moved_marks(work, range(0), marks) == {}


def test_a_mark_that_moves_keeps_its_cutoff_and_what_was_skipped_before_it() -> None:
    mark = Mark(7 * HOUR_MS, NONE_YET, 0, 2, skipped=3)
    moved = moved_marks(work_of((0, 4), (0, 8)), range(1), {0: mark})
    assert moved == {0: Mark(7 * HOUR_MS, 4, 1, 2, skipped=3)}
