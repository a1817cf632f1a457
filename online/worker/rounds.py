"""The pure plan of a round: which cutoff is next, which items are left, and in which portions.

Dimensions: I rows of the windows, N items left to forecast, P items of a portion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from freshet.online.worker.marks import LAST, NONE_YET, Mark, place_of
from freshet.stream.arrays import Ints
from freshet.stream.store.grid import Grid

Places = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over all items at one cutoff.

    Attributes:
        cutoff_ms: End of the newest bucket that may be used.
        skipped: Cutoffs between the previous round and this one which nobody will forecast any
            more.
    """

    cutoff_ms: int
    skipped: int


def plan_round(previous_ms: int | None, newest_ms: int | None, grid: Grid) -> Round | None:
    """The round that is due, or None while no new bucket has ended.

    A worker which fell behind forecasts the newest cutoff only: an old forecast helps nobody, and
    catching up would keep it behind. The cutoffs in between are counted, so that the gap can be
    seen.

    Args:
        previous_ms: Cutoff of the last complete round; None before the first.
        newest_ms: The cutoff that the windows allow now; None while there is none.
        grid: The buckets, whose ends are cutoffs.

    >>> hours = Grid(3_600_000)
    >>> plan_round(None, 7_200_000, hours)
    Round(cutoff_ms=7200000, skipped=0)
    >>> plan_round(7_200_000, 7_200_000, hours) is None
    True
    >>> plan_round(7_200_000, 18_000_000, hours)
    Round(cutoff_ms=18000000, skipped=2)
    """
    if newest_ms is None:
        return None
    bucket = grid.bucket(newest_ms)
    cutoff_ms = grid.start_ms(bucket)
    if previous_ms is None:
        return Round(cutoff_ms, 0)
    steps = bucket - grid.bucket(previous_ms)
    return Round(cutoff_ms, steps - 1) if steps > 0 else None


def previous_cutoff_ms(marks: Iterable[Mark | None]) -> int | None:
    """The last cutoff at which all of some shards are complete, as far as marks tell; None: none.

    A round in the middle of which a worker died is not over: what stands before it counts.

    >>> previous_cutoff_ms([Mark(5, LAST, 1, 1), Mark(7, LAST, 1, 1)])
    5
    >>> previous_cutoff_ms([Mark(5, 3, 1, 2)])
    4
    """
    complete_ms: list[int] = []
    for mark in marks:
        if mark is None:
            return None
        complete_ms.append(mark.cutoff_ms if mark.complete else mark.cutoff_ms - 1)
    return min(complete_ms, default=None)


@dataclass(frozen=True, slots=True)
class Work:
    """The items left of a round: those of a shard together, in the order of their places.

    Attributes:
        shard_N: int64, rising.
        place_N: uint64, rising within a shard.
        item_N: int64: a row of the windows, or -1 - n for `cold[n]`.
        cold: Items without a row.
    """

    shard_N: Ints
    place_N: Places
    item_N: Ints
    cold: list[str]

    def __len__(self) -> int:
        return len(self.item_N)

    def items(self, part: Sequence[int]) -> tuple[list[int], list[str]]:
        """Rows, and ids of items without one, of some of them."""
        item_P = self.item_N[part]
        cold = [self.cold[-1 - number] for number in item_P[item_P < 0].tolist()]
        return item_P[item_P >= 0].tolist(), cold

    def counts(self) -> dict[int, int]:
        """How many are left of each shard that has any."""
        shards, counts = np.unique(self.shard_N, return_counts=True)
        return dict(zip(shards.tolist(), counts.tolist(), strict=True))


def places_of(item_ids: Sequence[str]) -> Places:
    """Where items stand in every round: uint64[I]."""
    return np.fromiter(map(place_of, item_ids), np.uint64, len(item_ids))


def work_left(
    row_I: Ints, place_I: Places, cold: list[str], marks: Mapping[int, Mark], num_shards: int
) -> Work:
    """The items of the marked shards that have no forecast at the marks' cutoffs yet.

    Args:
        row_I: Rows that are to be forecast.
        place_I: Their places.
        cold: Ids of items without a row.
        marks: Of each owned shard, at the round's cutoff.
        num_shards: Of all workers together.
    """
    place_N = np.concatenate([place_I, places_of(cold)])
    item_N = np.concatenate([row_I, -1 - np.arange(len(cold))])
    shard_N = (place_N % np.uint64(num_shards)).astype(np.int64)
    left_N = np.zeros(len(place_N), bool)
    for shard, mark in marks.items():
        mine_N = shard_N == shard
        beyond_N = mine_N if mark.upto == NONE_YET else mine_N & (place_N > np.uint64(mark.upto))
        left_N |= beyond_N
    order = np.lexsort((place_N[left_N], shard_N[left_N]))
    return Work(shard_N[left_N][order], place_N[left_N][order], item_N[left_N][order], cold)


def moved_marks(work: Work, part: range, marks: Mapping[int, Mark]) -> dict[int, Mark]:
    """The marks of the shards that a portion touches, once it is published."""
    moved = {}
    shard_P = work.shard_N[part.start : part.stop]
    for shard in np.unique(shard_P).tolist():
        mine_P = shard_P == shard
        last = part.start + int(np.flatnonzero(mine_P)[-1])
        over = last + 1 == len(work) or work.shard_N[last + 1] != shard
        moved[shard] = replace(
            marks[shard],
            upto=LAST if over else int(work.place_N[last]),
            published=marks[shard].published + int(mine_P.sum()),
        )
    return moved


def portions(num_rows: int, size: int) -> Iterator[range]:
    """Row numbers in portions of at most `size`, each row exactly once and in order.

    >>> list(portions(5, 2))
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    assert size > 0
    for start in range(0, num_rows, size):
        yield range(start, min(start + size, num_rows))
