"""One pass over a round: what goes out together, and what is said of whom when it is over."""

from __future__ import annotations

import numpy as np
import pytest

from freshet.online.worker.marks import LAST, NONE_YET, Mark
from freshet.online.worker.passing import Pass
from freshet.online.worker.rounds import Work
from freshet.stream.schemas import ForecastRound
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS

CUTOFF = 9
CUTOFF_MS = CUTOFF * HOUR_MS
HOURS = Grid(HOUR_MS)


def at(
    upto: int, published: int = 0, expected: int = 0, skipped: int = 0, cutoff: int = CUTOFF
) -> Mark:
    return Mark(cutoff * HOUR_MS, upto, published, expected, skipped)


def pass_of(
    shards: dict[int, int],
    marks: dict[int, Mark],
    before: dict[int, Mark | None] | None = None,
    *,
    grid: Grid = HOURS,
) -> Pass:
    """So many items of each shard, at the places 0, 1, ... of it."""
    shard_N = [shard for shard, count in shards.items() for _ in range(count)]
    place_N = [place for count in shards.values() for place in range(count)]
    work = Work(
        np.array(shard_N, np.int64),
        np.array(place_N, np.uint64),
        np.arange(len(shard_N), dtype=np.int64),
        [],
    )
    known = dict.fromkeys(marks, None) if before is None else before
    return Pass(work, dict(marks), known, grid=grid, num_shards=8)


def said(record: ForecastRound) -> tuple[int, int, bool, int, int, int, int | None]:
    """Shard, cutoff, complete, expected, published, skipped and since when, in hours."""
    since_ms = record.skipped_from_ms
    return (
        record.shard,
        record.cutoff_ms // HOUR_MS,
        record.complete,
        record.expected,
        record.published,
        record.skipped,
        None if since_ms is None else since_ms // HOUR_MS,
    )


def test_portions_add_up_to_all_that_was_published_and_a_shard_is_said_when_it_ends() -> None:
    one_pass = pass_of({0: 5, 1: 1}, {0: at(NONE_YET, 0, 5), 1: at(NONE_YET, 0, 1)})
    steps = [
        (part, moved, [said(record) for record in one_pass.records(moved, 7, "v3")])
        for part, moved in one_pass.steps(2)
    ]
    assert steps == [
        (range(0, 2), {0: at(1, 2, 5)}, []),
        (range(2, 4), {0: at(3, 4, 5)}, []),
        (
            range(4, 6),
            {0: at(LAST, 5, 5), 1: at(LAST, 1, 1)},
            [(0, CUTOFF, True, 5, 5, 0, None), (1, CUTOFF, True, 1, 1, 0, None)],
        ),
    ]


def test_a_record_says_whose_round_it_was() -> None:
    one_pass = pass_of({3: 1}, {3: at(NONE_YET, 0, 1)})
    ((_, moved),) = one_pass.steps(9)
    (record,) = one_pass.records(moved, 7, "v3")
    assert record == ForecastRound(
        shard=3,
        num_shards=8,
        resolution_ms=HOUR_MS,
        cutoff_ms=CUTOFF_MS,
        issued_at_ms=7,
        complete=True,
        expected=1,
        published=1,
        weights_version="v3",
    )


def test_shards_without_items_are_over_with_the_first_portion() -> None:
    marks = {shard: at(NONE_YET, 0, 2 * (shard == 1)) for shard in (0, 1, 2)}
    one_pass = pass_of({1: 2}, marks)
    steps = list(one_pass.steps(1))
    assert steps == [
        (range(0, 1), {0: at(LAST), 2: at(LAST), 1: at(0, 1, 2)}),
        (range(1, 2), {1: at(LAST, 2, 2)}),
    ]
    assert [said(record) for record in one_pass.records(steps[0][1], 7, "v3")] == [
        (0, CUTOFF, True, 0, 0, 0, None),
        (2, CUTOFF, True, 0, 0, 0, None),
    ]


def test_where_no_shard_has_items_an_empty_portion_says_so() -> None:
    one_pass = pass_of({}, {0: at(NONE_YET), 4: at(NONE_YET)})
    ((part, moved),) = one_pass.steps(5)
    assert (len(part), moved) == (0, {0: at(LAST), 4: at(LAST)})
    assert [record.shard for record in one_pass.records(moved, 7, "v3")] == [0, 4]
    assert list(pass_of({}, {}).steps(5)) == [], "and nothing is said where there is no shard"


def test_a_round_of_a_dead_worker_goes_on_and_counts_what_it_had_published() -> None:
    begun = {0: at(6, 3, 5, skipped=2)}
    one_pass = pass_of({0: 2}, begun, dict(begun))
    ((_, moved),) = one_pass.steps(9)
    assert moved == {0: at(LAST, 5, 5, skipped=2)}
    # Its skipped cutoffs, 7 and 8, are named once: now.
    assert [said(record) for record in one_pass.records(moved, 7, "v3")] == [
        (0, CUTOFF, True, 5, 5, 2, 7)
    ]


def test_a_round_that_was_given_up_is_said_once_before_the_one_that_replaced_it() -> None:
    before: dict[int, Mark | None] = {
        0: at(6, 3, 5, skipped=2, cutoff=6),
        1: at(LAST, 4, 4, cutoff=6),
        2: None,
    }
    marks = {shard: at(NONE_YET, 0, 2, skipped=2) for shard in (0, 1, 2)}
    one_pass = pass_of({0: 2, 1: 2, 2: 2}, marks, before)
    records = [
        [said(record) for record in one_pass.records(moved, 7, "v3")]
        for _, moved in one_pass.steps(1)
    ]
    assert records == [
        # It comes with the first forecasts of the next round: 3 of 5 at 6, for which 4 and 5 were
        # skipped.
        [(0, 6, False, 5, 3, 2, 4)],
        [(0, CUTOFF, True, 2, 2, 2, 7)],
        [],
        [(1, CUTOFF, True, 2, 2, 2, 7)],
        [],
        [(2, CUTOFF, True, 2, 2, 2, 7)],
    ]


def test_of_a_shard_without_items_too_the_round_that_was_given_up_is_said() -> None:
    before: dict[int, Mark | None] = {0: at(6, 3, 5, cutoff=8)}
    one_pass = pass_of({}, {0: at(NONE_YET)}, before)
    ((_, moved),) = one_pass.steps(1)
    assert [said(record) for record in one_pass.records(moved, 7, "v3")] == [
        (0, 8, False, 5, 3, 0, None),
        (0, CUTOFF, True, 0, 0, 0, None),
    ]


def test_of_a_shard_that_the_round_is_not_about_nothing_is_said() -> None:
    before: dict[int, Mark | None] = {0: at(LAST, 2, 2), 1: at(6, 3, 5, cutoff=CUTOFF + 1)}
    one_pass = pass_of({}, {2: at(NONE_YET)}, before | {2: None})
    ((_, moved),) = one_pass.steps(1)
    assert [record.shard for record in one_pass.records(moved, 7, "v3")] == [2]


@pytest.mark.parametrize(
    ("skipped", "since_ms"),
    [
        # 2026-03-28, 29 (23 hours) and 30 begin at these local midnights.
        (1, 1_774_738_800_000),
        (2, 1_774_652_400_000),
    ],
)
def test_skipped_days_are_the_shops_own(skipped: int, since_ms: int) -> None:
    berlin = Grid(DAY_MS, "Europe/Berlin")
    march_30_ms = 1_774_738_800_000 + 23 * HOUR_MS
    mark = Mark(march_30_ms, NONE_YET, 0, 0, skipped)
    one_pass = pass_of({}, {0: mark}, grid=berlin)
    ((_, moved),) = one_pass.steps(1)
    (record,) = one_pass.records(moved, 7, "v3")
    assert (record.resolution_ms, record.skipped_from_ms) == (DAY_MS, since_ms)
