"""No label crosses the end of its part, and selections are what they say."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.trials.windows import (
    MIN_RECENT_BUCKETS,
    Selection,
    Split,
    buckets_needed,
    final_since,
    select_anchors,
    select_held_out,
    select_items,
    select_recent,
    select_replay,
    split_time,
    strata_of,
)
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS

BY_HOUR = Grid(HOUR_MS)

splits = st.builds(
    lambda final, first, onset, recent, holdout: split_time(
        final * HOUR_MS + 7,
        first_ms=first * HOUR_MS,
        onset_ms=None if onset is None else onset * HOUR_MS - 5,
        grid=BY_HOUR,
        recent_buckets=recent,
        holdout_buckets=holdout,
    ),
    st.integers(400, 1_000),
    st.integers(0, 300),
    st.none() | st.integers(300, 1_000),
    st.integers(MIN_RECENT_BUCKETS, 100),
    st.integers(1, 48),
)


PLAIN = split_time(
    900 * HOUR_MS,
    first_ms=0,
    onset_ms=None,
    grid=BY_HOUR,
    recent_buckets=48,
    holdout_buckets=12,
)


def recent_buckets(split: Split) -> int:
    return (split.train_end_ms - split.recent_start_ms) // split.grid.resolution_ms


def windows(selections: list[Selection]) -> int:
    return sum(len(selection.rows) for selection in selections)


def cutoffs(selections: list[Selection]) -> set[int]:
    return {selection.cutoff_ms for selection in selections}


@given(splits)
def test_the_parts_follow_one_another(split: Split) -> None:
    ends = [
        split.replay_start_ms,
        split.recent_start_ms,
        split.train_end_ms,
        split.holdout_start_ms,
        split.final_ms,
    ]
    assert ends == sorted(ends)
    assert all(end % HOUR_MS == 0 for end in ends)
    assert recent_buckets(split) >= MIN_RECENT_BUCKETS
    assert split.train_end_ms < split.holdout_start_ms < split.final_ms


@given(splits, st.integers(1, 2_000), st.integers(0, 2**32 - 1))
def test_every_draw_lies_in_its_part_and_within_its_limit(
    split: Split, num_items: int, seed: int
) -> None:
    rng, steps = np.random.default_rng(seed), 24
    older_windows: Any = {"mean_units_I": rng.lognormal(0, 2, num_items), "steps": steps}
    recent = select_recent(rng, split, num_items=num_items)
    older = select_replay(rng, split, **older_windows)
    spared = select_anchors(rng, split, **older_windows, taken=older)
    holdout = range(split.holdout_start_ms, split.final_ms, HOUR_MS)
    held = select_held_out(select_items(rng, num_items, 512), holdout, maximum=512)
    assert recent and held
    assert all(
        split.recent_start_ms <= selection.cutoff_ms < split.train_end_ms for selection in recent
    )
    assert all(
        split.replay_start_ms <= selection.cutoff_ms < split.recent_start_ms
        for selection in older + spared
    )
    assert all(
        selection.cutoff_ms + steps * HOUR_MS < split.recent_start_ms + HOUR_MS
        for selection in older + spared
    )
    assert held[0].cutoff_ms == split.holdout_start_ms
    assert all(selection.cutoff_ms < split.final_ms for selection in held)
    assert not cutoffs(older) & cutoffs(spared)
    assert len(spared) <= 4
    assert max(windows(recent), windows(older)) <= 768
    assert windows(spared) <= 256
    assert windows(held) <= 512
    for selection in [*recent, *older, *spared, *held]:
        assert len(np.unique(selection.rows)) == len(selection.rows)
        assert selection.rows.min() >= 0
        assert selection.rows.max() < num_items


def test_a_split_has_these_borders() -> None:
    split = split_time(
        1_007,
        first_ms=3,
        onset_ms=701,
        grid=Grid(10),
        recent_buckets=48,
        holdout_buckets=8,
    )
    # 100 final buckets: 8 held out, 4 validate; the first whole one of the drift begins at 710.
    assert split == Split(
        grid=Grid(10),
        replay_start_ms=10,
        recent_start_ms=710,
        train_end_ms=880,
        holdout_start_ms=920,
        final_ms=1_000,
    )
    assert split.holdout_buckets == 8


def test_local_days_are_counted_and_not_their_hours() -> None:
    """In Berlin the 27th of October 2024, day 20,023, has 25 hours."""
    berlin = Grid(DAY_MS, "Europe/Berlin")
    split = split_time(
        berlin.start_ms(20_030) + 7,
        first_ms=berlin.start_ms(20_000) + 1,
        onset_ms=berlin.start_ms(20_012),
        grid=berlin,
        recent_buckets=48,
        holdout_buckets=5,
    )
    assert [berlin.bucket(end_ms) for end_ms in astuple(split)[1:]] == [
        *(20_001, 20_011, 20_023, 20_025, 20_030)
    ]
    assert split.recent_start_ms == berlin.start_ms(20_011)
    assert split.holdout_buckets == 5
    recent = select_recent(rng(), split, num_items=1)
    assert [one.cutoff_ms for one in recent] == [
        berlin.start_ms(day) for day in range(20_011, 20_023)
    ]
    older = select_replay(rng(), split, mean_units_I=np.ones(1), steps=4)
    assert [one.cutoff_ms for one in older] == [
        berlin.start_ms(day) for day in range(20_001, 20_007)
    ]
    # Ten days of 24 hours and one of 25 are eleven days, and an hour less is ten.
    start_ms = berlin.start_ms(20_013)
    assert final_since(berlin, start_ms, start_ms + 11 * DAY_MS + HOUR_MS) == 11
    assert final_since(berlin, start_ms, start_ms + 11 * DAY_MS) == 10


def test_one_bucket_that_is_held_out_has_one_of_validation() -> None:
    asked = {"first_ms": 0, "onset_ms": None, "grid": Grid(1), "recent_buckets": 20}
    split = split_time(100, holdout_buckets=1, **asked)
    assert (split.recent_start_ms, split.train_end_ms, split.holdout_start_ms) == (78, 98, 99)


def test_a_past_that_begins_within_the_recent_part_has_no_older_one() -> None:
    asked = {"onset_ms": None, "grid": Grid(1), "recent_buckets": 48, "holdout_buckets": 12}
    split = split_time(100, first_ms=70, **asked)
    assert split.replay_start_ms == split.recent_start_ms == 34
    assert select_replay(rng(), split, mean_units_I=np.ones(5), steps=1) == []


def test_recent_windows_begin_with_the_drift() -> None:
    asked = {"first_ms": 0, "grid": Grid(1), "recent_buckets": 48, "holdout_buckets": 12}
    assert split_time(500, onset_ms=460, **asked).recent_start_ms == 460
    assert split_time(500, onset_ms=100, **asked).recent_start_ms == 500 - 18 - 48
    assert split_time(500, onset_ms=499, **asked).recent_start_ms == 500 - 18 - 12


def test_training_is_ready_with_half_a_day_the_hold_out_and_half_of_it_again() -> None:
    assert buckets_needed(8) == 12 + 4 + 8
    assert buckets_needed(1) == 12 + 1 + 1


@given(st.integers(0, 1_000), st.integers(1, 48))
def test_once_ready_all_of_the_recent_part_is_after_the_onset(onset: int, holdout: int) -> None:
    final = onset + buckets_needed(holdout)
    assert final_since(Grid(1), onset, final) == buckets_needed(holdout)
    split = split_time(
        final,
        first_ms=0,
        onset_ms=onset,
        grid=Grid(1),
        recent_buckets=48,
        holdout_buckets=holdout,
    )
    assert split.recent_start_ms == onset
    assert recent_buckets(split) == MIN_RECENT_BUCKETS


# Which windows are drawn --------------------------------------------------------------------------

# 882 hours are for training, 48 of them recent: older labels of 24 hours end by 834.
RECENT = list(range(834, 882, 3))
REPLAY = [0, 50, 101, 151, 202, 253, 303, 354, 405, 455, 506, 556, 607, 658, 708, 759]
# Every 198.5th of the 794 hours that are left.
ANCHORS = [1, 203, 406, 608]

# The more rows an item is down, the less it sells; the sales of one are not known.
SALES = np.arange(1_000.0)[::-1].copy()
SALES[700] = np.nan
QUARTERS = [
    {700, *range(751, 1_000)},
    {*range(500, 751)} - {700},
    {*range(250, 500)},
    {*range(250)},
]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def hours(selections: list[Selection]) -> list[int]:
    return [selection.cutoff_ms // HOUR_MS for selection in selections]


def drawn_from(selections: list[Selection], groups: list[set[int]]) -> list[list[int]]:
    """How many different rows of each group are drawn at each cutoff."""
    return [[len(group & set(chosen.rows.tolist())) for group in groups] for chosen in selections]


def test_recent_windows_are_of_sixteen_cutoffs_and_as_many_items_as_fit() -> None:
    selections = select_recent(rng(), PLAIN, num_items=1_000)
    assert hours(selections) == RECENT
    assert drawn_from(selections, [{*range(1_000)}]) == [[48]] * 16
    assert all(selection.rows.tolist() == sorted(selection.rows) for selection in selections)
    few = select_recent(rng(), PLAIN, num_items=40)
    assert hours(few) == RECENT
    assert all(selection.rows.tolist() == list(range(40)) for selection in few)


@pytest.mark.parametrize(
    ("affected", "theirs", "others"),
    [
        (range(100, 160), 24, 24),
        # All ten of them, and no more of the others than half.
        (range(100, 110), 10, 24),
        (range(990), 24, 10),
        # Where none or all are affected, all windows are of one kind.
        (range(0), 0, 48),
        (range(1_000), 48, 0),
    ],
)
def test_half_of_the_recent_windows_are_of_the_items_that_drift(
    affected: range, theirs: int, others: int
) -> None:
    named = np.array(affected, np.int64)
    selections = select_recent(rng(), PLAIN, num_items=1_000, affected=named)
    groups = [set(affected), set(range(1_000)) - set(affected)]
    assert hours(selections) == RECENT
    assert drawn_from(selections, groups) == [[theirs, others]] * 16


def test_replay_is_of_sixteen_older_cutoffs_and_of_every_quarter_of_sales_alike() -> None:
    selections = select_replay(rng(), PLAIN, mean_units_I=SALES, steps=24)
    assert hours(selections) == REPLAY
    assert drawn_from(selections, QUARTERS) == [[12] * 4] * 16


def test_anchors_are_of_four_cutoffs_beside_replay_and_of_every_quarter_of_sales_alike() -> None:
    taken = [Selection(hour * HOUR_MS, np.arange(3)) for hour in REPLAY]
    selections = select_anchors(rng(), PLAIN, mean_units_I=SALES, steps=24, taken=taken)
    assert hours(selections) == ANCHORS
    assert drawn_from(selections, QUARTERS) == [[16] * 4] * 4


def test_strata_are_quarters_of_rising_sales_and_none_is_empty() -> None:
    assert [set(rows.tolist()) for rows in strata_of(SALES)] == QUARTERS
    # What does not divide goes to the lower ones; of items that sell alike, in their order.
    assert [rows.tolist() for rows in strata_of(np.zeros(6))] == [[0, 1], [2, 3], [4], [5]]
    assert [rows.tolist() for rows in strata_of(np.array([3.0, 1.0]))] == [[1], [0]]


def test_an_older_label_ends_before_the_recent_part() -> None:
    """Of 20 older buckets, 15 leave room for a label of five; a label of 20 has none."""
    asked = {"onset_ms": None, "grid": Grid(1), "recent_buckets": 12, "holdout_buckets": 8}
    split = split_time(100, first_ms=56, **asked)
    older = select_replay(rng(), split, mean_units_I=np.ones(2), steps=5)
    assert [selection.cutoff_ms for selection in older] == list(range(56, 71))
    assert select_replay(rng(), split, mean_units_I=np.ones(2), steps=20) == []
    # All of them are taken: no window is left for anchors.
    assert select_anchors(rng(), split, mean_units_I=np.ones(2), steps=5, taken=older) == []


@pytest.mark.parametrize(
    ("num_items", "maximum", "cutoffs_ms"),
    [
        (4, 12, [0, 20, 50]),
        (4, 15, [0, 20, 50]),
        (4, 32, [0, 10, 20, 30, 40, 50, 60, 70]),
        (4, 100, [0, 10, 20, 30, 40, 50, 60, 70]),
        (4, 7, [0]),
        (4, 4, [0]),
        (0, 12, []),
    ],
)
def test_as_many_cutoffs_are_held_out_as_fit_and_every_item_at_each(
    num_items: int, maximum: int, cutoffs_ms: list[int]
) -> None:
    held = select_held_out(np.arange(num_items), range(0, 80, 10), maximum=maximum)
    assert [selection.cutoff_ms for selection in held] == cutoffs_ms
    assert all(selection.rows.tolist() == list(range(num_items)) for selection in held)


def test_of_more_items_than_fit_a_sample_is_held_out_at_the_first_cutoff() -> None:
    (held,) = select_held_out(select_items(rng(), 600, 512), range(30, 80, 10), maximum=512)
    assert held.cutoff_ms == 30
    rows = held.rows.tolist()
    assert len(set(rows)) == 512 and rows == sorted(rows)
    assert rows[0] >= 0 and 512 < rows[-1] < 600, "not the first ones"


def test_named_items_are_drawn_first_up_to_three_quarters() -> None:
    few = select_items(rng(), 600, 100, first=np.arange(10, 30))
    assert len(few) == 100 and set(range(10, 30)) <= set(few.tolist())
    many = select_items(rng(), 600, 100, first=np.arange(300, 600))
    assert len(many) == 100 and (many >= 300).sum() == 75
    assert select_items(rng(), 50, 100, first=np.arange(3)).tolist() == list(range(50))


def test_the_same_seed_draws_the_same_windows_and_another_one_others() -> None:
    once, again, other = (
        [
            selection.rows.tolist()
            for selection in select_recent(np.random.default_rng(seed), PLAIN, num_items=5_000)
        ]
        for seed in (3, 3, 4)
    )
    assert once == again != other
