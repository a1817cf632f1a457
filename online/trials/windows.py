"""Which windows fine-tuning sees, and which it must not: a split of time, a choice of rows. Pure.

Time, newest last. Each part ends where the next begins, and no label crosses the end of its part:

    replay_start         recent_start     train_end      holdout_start      final
    |  replay, anchors   |     recent     |  validation  |     hold-out     |
    first retained       onset of the drift

    replay      older windows that are mixed into training, so that little is forgotten
    anchors     older windows that training does not use: the gate sees by them what was forgotten
    recent      what is to be learnt: since the onset, or the newest buckets where nothing drifts
    validation  says how far to go from the champion to the tuned weights
    hold-out    is the gate's alone; validation is half as long
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Ints, Reals
from freshet.stream.store.grid import Grid

# Of a drift's first hours alone the network learns the transition and not what came to stay.
MIN_RECENT_BUCKETS = 12
# Windows overlap: more of one pool cost memory and say little that these do not.
MAX_POOL_WINDOWS = 768
MAX_GATE_WINDOWS = 512
MAX_VALIDATION_WINDOWS = 256
MAX_ANCHOR_WINDOWS = 256
RECENT_CUTOFFS = 16
REPLAY_CUTOFFS = 16
ANCHOR_CUTOFFS = 4
NUM_STRATA = 4


@dataclass(frozen=True, slots=True)
class Split:
    """Ends of the parts in milliseconds since 1970, all of them bucket ends of the grid."""

    grid: Grid
    replay_start_ms: int
    recent_start_ms: int
    train_end_ms: int
    holdout_start_ms: int
    final_ms: int

    @property
    def holdout_buckets(self) -> int:
        """Buckets of the gate."""
        return self.grid.bucket(self.final_ms) - self.grid.bucket(self.holdout_start_ms)


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows chosen at one cutoff, a window each."""

    cutoff_ms: int
    rows: Ints


def split_time(
    final_ms: int,
    *,
    first_ms: int,
    onset_ms: int | None,
    grid: Grid,
    recent_buckets: int,
    holdout_buckets: int,
) -> Split:
    """Divide what is final; validation is half as long as the hold-out.

    Args:
        final_ms: Buckets that end at or before it are final.
        first_ms: Start of what is retained.
        onset_ms: Start of the drift; recent windows begin with it, unless that leaves fewer than
            MIN_RECENT_BUCKETS.
        grid: Which bucket a time is in; days may be uneven.
        recent_buckets: The most buckets that count as recent.
        holdout_buckets: Newest final buckets, for the gate alone.

    >>> split = split_time(100, first_ms=0, onset_ms=70, grid=Grid(1), recent_buckets=48,
    ...     holdout_buckets=8)
    >>> split.recent_start_ms, split.train_end_ms, split.holdout_start_ms, split.final_ms
    (70, 88, 92, 100)
    """
    final = grid.bucket(final_ms)
    holdout = final - holdout_buckets
    train_end = holdout - _validation_buckets(holdout_buckets)
    recent = train_end - recent_buckets
    if onset_ms is not None:
        # Buckets from before the drift would teach what is to be unlearnt.
        recent = max(recent, first_whole(grid, onset_ms))
    # A drift that is too young to fill the shortest recent part borrows from before its onset.
    recent = min(recent, train_end - MIN_RECENT_BUCKETS)
    return Split(
        grid=grid,
        replay_start_ms=grid.start_ms(min(first_whole(grid, first_ms), recent)),
        recent_start_ms=grid.start_ms(recent),
        train_end_ms=grid.start_ms(train_end),
        holdout_start_ms=grid.start_ms(holdout),
        final_ms=grid.start_ms(final),
    )


def buckets_needed(holdout_buckets: int) -> int:
    """How many final buckets since its onset a drift needs: for training, validation and hold-out.

    >>> buckets_needed(12)
    30
    """
    return MIN_RECENT_BUCKETS + _validation_buckets(holdout_buckets) + holdout_buckets


def final_since(grid: Grid, start_ms: int, final_ms: int) -> int:
    """How many whole buckets of those since `start_ms` are final; below 0 where that lies ahead.

    >>> final_since(Grid(10), 5, 39), final_since(Grid(10), 50, 39)
    (2, -2)
    """
    return grid.bucket(final_ms) - first_whole(grid, start_ms)


def first_whole(grid: Grid, time_ms: int) -> int:
    """The first bucket that begins at or after a time.

    >>> first_whole(Grid(10), 20), first_whole(Grid(10), 21)
    (2, 3)
    """
    bucket = grid.bucket(time_ms)
    return bucket if grid.start_ms(bucket) == time_ms else bucket + 1


def starts_within(grid: Grid, start_ms: int, end_ms: int) -> list[int]:
    """When the buckets from one bucket end to another begin.

    >>> starts_within(Grid(10), 20, 50)
    [20, 30, 40]
    """
    buckets = range(grid.bucket(start_ms), grid.bucket(end_ms))
    return [grid.start_ms(bucket) for bucket in buckets]


def select_recent(
    rng: np.random.Generator, split: Split, *, num_items: int, affected: Ints | None = None
) -> list[Selection]:
    """Training windows of the recent part: cutoffs spread over it, all items or as many as fit.

    Where a drift named items (`affected`, rising rows), half of the windows are theirs, as far as
    there are enough.
    """
    every = starts_within(split.grid, split.recent_start_ms, split.train_end_ms)
    cutoffs = _evenly(every, RECENT_CUTOFFS)
    rows = np.arange(num_items)
    strata = [rows] if affected is None else [affected, np.setdiff1d(rows, affected)]
    return _selected(rng, cutoffs, strata, MAX_POOL_WINDOWS)


def select_replay(
    rng: np.random.Generator, split: Split, *, mean_units_I: Reals, steps: int
) -> list[Selection]:
    """Older windows, equally many from each stratum of mean sales.

    Sparse items are most of a shop and least of its loss: drawn by chance alone or by loss, either
    the sparse or the brisk ones would be forgotten.

    Args:
        rng: Where chance comes from.
        split: The parts; labels stay before the recent one.
        mean_units_I: Mean units of each item.
        steps: Length of a label, so that cutoffs leave room for one.
    """
    cutoffs = _evenly(_older_cutoffs(split, steps), REPLAY_CUTOFFS)
    return _selected(rng, cutoffs, strata_of(mean_units_I), MAX_POOL_WINDOWS)


def select_anchors(
    rng: np.random.Generator,
    split: Split,
    *,
    mean_units_I: Reals,
    steps: int,
    taken: Sequence[Selection],
) -> list[Selection]:
    """Windows from before the recent part that training does not use, to see what was forgotten."""
    used = {selection.cutoff_ms for selection in taken}
    free = [cutoff_ms for cutoff_ms in _older_cutoffs(split, steps) if cutoff_ms not in used]
    cutoffs = _evenly(free, ANCHOR_CUTOFFS)
    return _selected(rng, cutoffs, strata_of(mean_units_I), MAX_ANCHOR_WINDOWS)


def select_items(
    rng: np.random.Generator, num_items: int, maximum: int, *, first: Ints | None = None
) -> Ints:
    """All rows, or as many as may be drawn, rising; of `first` as many as fit three quarters.

    Args:
        rng: Where chance comes from.
        num_items: Rows there are.
        maximum: The most rows.
        first: Rows that the test is about; the others see to it that nothing else breaks.
    """
    if num_items <= maximum:
        return np.arange(num_items)
    first = np.zeros(0, np.int64) if first is None else first
    named = rng.permutation(first)[: maximum * 3 // 4]
    others = rng.permutation(np.setdiff1d(np.arange(num_items), first))
    return np.sort(np.concatenate([named, others[: maximum - len(named)]]))


def select_held_out(rows: Ints, every: Sequence[int], *, maximum: int) -> list[Selection]:
    """The same items at every cutoff, one cutoff at the start of the part.

    As many cutoffs as fit `maximum` windows, one at least. The items are the same at each so that
    the gate can tell an item's own error from that of an hour.

    Args:
        rows: The items.
        every: Starts of the buckets in which the labels lie.
        maximum: The most windows.
    """
    num_cutoffs = max(1, maximum // len(rows)) if len(rows) else 0
    return [Selection(cutoff_ms, rows) for cutoff_ms in _evenly(every, num_cutoffs)]


def strata_of(mean_units_I: Reals) -> list[Ints]:
    """Rows in NUM_STRATA groups of rising sales, of equal size where it divides.

    >>> [rows.tolist() for rows in strata_of(np.array([5.0, 0.0, 9.0, 1.0]))]
    [[1], [3], [0], [2]]
    """
    order_I = np.argsort(np.nan_to_num(mean_units_I), kind="stable")
    return [rows for rows in np.array_split(order_I, NUM_STRATA) if len(rows)]


def _selected(
    rng: np.random.Generator, cutoffs: list[int], strata: list[Ints], maximum: int
) -> list[Selection]:
    """At every cutoff equally many of each stratum, without repeats; at most `maximum` windows."""
    strata = [rows for rows in strata if len(rows)]
    if not cutoffs or not strata:
        return []
    # There are never so many cutoffs and strata that this is nothing.
    from_each = maximum // (len(cutoffs) * len(strata))
    selections = []
    for cutoff_ms in cutoffs:
        chosen = [rng.choice(rows, min(from_each, len(rows)), replace=False) for rows in strata]
        rows = np.sort(np.concatenate(chosen)).astype(np.int64)
        selections.append(Selection(cutoff_ms, rows))
    return selections


def _older_cutoffs(split: Split, steps: int) -> list[int]:
    """Cutoffs from before the recent part that leave room for a whole label."""
    latest_ms = split.grid.start_ms(split.grid.bucket(split.recent_start_ms) - steps)
    return starts_within(split.grid, split.replay_start_ms, latest_ms)


def _evenly(values: Sequence[int], maximum: int) -> list[int]:
    """At most `maximum` of the values, spread evenly, the first among them."""
    if len(values) <= maximum:
        return list(values)
    return [values[index * len(values) // maximum] for index in range(maximum)]


def _validation_buckets(holdout_buckets: int) -> int:
    return max(1, holdout_buckets // 2)
