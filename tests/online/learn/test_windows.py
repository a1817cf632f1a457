"""No label crosses the end of its part, and selections are what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.learn.windows import (
    ANCHOR_CUTOFFS,
    MAX_ANCHOR_WINDOWS,
    MAX_GATE_WINDOWS,
    MAX_POOL_WINDOWS,
    MIN_RECENT_BUCKETS,
    Selection,
    Split,
    ready_ms,
    select_anchors,
    select_held_out,
    select_recent,
    select_replay,
    split_time,
    strata_of,
)
from freshet.stream.units import HOUR_MS

splits = st.builds(
    lambda final, first, onset, recent, holdout: split_time(
        final * HOUR_MS + 7,
        first_ms=first * HOUR_MS,
        onset_ms=None if onset is None else onset * HOUR_MS - 5,
        resolution_ms=HOUR_MS,
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
    resolution_ms=HOUR_MS,
    recent_buckets=48,
    holdout_buckets=12,
)


def recent_buckets(split: Split) -> int:
    return (split.train_end_ms - split.recent_start_ms) // split.resolution_ms


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
    held = select_held_out(rng, holdout, num_items=num_items)
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
    assert len(spared) <= ANCHOR_CUTOFFS
    assert max(windows(recent), windows(older)) <= MAX_POOL_WINDOWS
    assert windows(spared) <= MAX_ANCHOR_WINDOWS
    assert windows(held) <= MAX_GATE_WINDOWS
    for selection in [*recent, *older, *spared, *held]:
        assert len(np.unique(selection.rows)) == len(selection.rows)
        assert selection.rows.min() >= 0
        assert selection.rows.max() < num_items


def test_half_of_the_recent_windows_are_of_the_items_that_drift() -> None:
    affected = np.arange(100, 160)
    selections = select_recent(np.random.default_rng(0), PLAIN, num_items=1_000, affected=affected)
    named = sum(int(np.isin(selection.rows, affected).sum()) for selection in selections)
    assert named == windows(selections) / 2


def test_recent_windows_begin_with_the_drift() -> None:
    asked = {"first_ms": 0, "resolution_ms": 1, "recent_buckets": 48, "holdout_buckets": 12}
    assert split_time(500, onset_ms=460, **asked).recent_start_ms == 460
    assert split_time(500, onset_ms=100, **asked).recent_start_ms == 500 - 18 - 48
    assert split_time(500, onset_ms=499, **asked).recent_start_ms == 500 - 18 - MIN_RECENT_BUCKETS


@given(st.integers(0, 1_000), st.integers(1, 48))
def test_once_ready_all_of_the_recent_part_is_after_the_onset(onset: int, holdout: int) -> None:
    final = ready_ms(onset, resolution_ms=1, holdout_buckets=holdout)
    split = split_time(
        final,
        first_ms=0,
        onset_ms=onset,
        resolution_ms=1,
        recent_buckets=48,
        holdout_buckets=holdout,
    )
    assert split.recent_start_ms == onset
    assert recent_buckets(split) == MIN_RECENT_BUCKETS


def test_sparse_items_are_replayed_as_often_as_brisk_ones() -> None:
    mean_units_I = np.array([0.0] * 10 + [100.0] * 990)
    rng = np.random.default_rng(0)
    selections = select_replay(rng, PLAIN, mean_units_I=mean_units_I, steps=24)
    lowest = strata_of(mean_units_I)[0]
    sparse = sum(int(np.isin(selection.rows, lowest).sum()) for selection in selections)
    assert sparse == windows(selections) / 4


def test_the_same_seed_draws_the_same_windows() -> None:
    once, again = (
        select_recent(np.random.default_rng(3), PLAIN, num_items=5_000) for _ in range(2)
    )
    assert all(
        (a.rows == b.rows).all() and a.cutoff_ms == b.cutoff_ms
        for a, b in zip(once, again, strict=True)
    )
