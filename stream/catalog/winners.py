"""Of intervals that overlap, which one holds when: the one of the highest rank at each moment.

Dimensions: P intervals in, W stretches of one winner each out, L levels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from freshet.stream.arrays import Ints

NOBODY = -1


class Stretches(NamedTuple):
    """Stretches of time that do not overlap in a group, by group and time, and who holds them."""

    group_W: Ints
    starts_W: Ints
    ends_W: Ints
    winner_W: Ints


def winners(group_P: Ints, starts_P: Ints, ends_P: Ints, rank_P: Ints) -> Stretches:
    """Which interval [start, end) holds when; those of different groups do not meet.

    Args:
        group_P: numbers of groups, from 0 on.
        starts_P: where each interval starts, 0 or later.
        ends_P: where it ends, after its start.
        rank_P: of those that overlap in a group the highest holds; no two of them are equal.

    >>> of_one = np.zeros(2, int)
    >>> held = winners(of_one, np.array([0, 2]), np.array([9, 4]), np.array([1, 7]))
    >>> list(zip(held.starts_W.tolist(), held.ends_W.tolist(), held.winner_W.tolist()))
    [(0, 2, 0), (2, 4, 1), (4, 9, 0)]
    """
    # Groups lie one behind the other on one line, so that one sweep does for all of them.
    length = int(ends_P.max(initial=0)) + 1
    from_P, until_P = group_P * length + starts_P, group_P * length + ends_P
    points = np.unique(np.concatenate([from_P, until_P]))
    first_P = np.searchsorted(points, from_P)
    end_P = np.searchsorted(points, until_P)
    by_rank = np.argsort(rank_P, kind="stable")
    place_P = np.empty_like(by_rank)
    place_P[by_rank] = np.arange(len(by_rank))
    highest = _highest_of_ranges(first_P, end_P, place_P, max(len(points) - 1, 0))
    held = np.flatnonzero(highest != NOBODY)
    group_W = points[held] // length
    starts_W = points[held] - group_W * length
    ends_W = points[held + 1] - group_W * length
    return Stretches(group_W, starts_W, ends_W, by_rank[highest[held]])


def _highest_of_ranges(first_P: Ints, end_P: Ints, rank_P: Ints, num_cells: int) -> Ints:
    """The highest rank that covers each cell; NOBODY where none does.

    A range is covered by two blocks whose length is a power of two. Each level then hands its
    blocks down to their halves: (P + cells) * log(cells) steps, however the ranges are nested.

    >>> _highest_of_ranges(np.array([0, 1]), np.array([3, 2]), np.array([4, 9]), 4).tolist()
    [4, 9, 4, -1]
    """
    length_P = end_P - first_P
    level_P = np.zeros(len(length_P), np.int64)
    if len(length_P):
        level_P = np.frexp(length_P.astype(np.float64))[1].astype(np.int64) - 1
    above = np.full(num_cells, NOBODY, np.int64)
    for level in range(int(level_P.max(initial=0)), -1, -1):
        size = 1 << level
        own = level_P == level
        block = above.copy()
        # A block of the level above is two of this one: at its begin, and `size` behind.
        block[size:] = np.maximum(block[size:], above[:-size])
        np.maximum.at(block, first_P[own], rank_P[own])
        np.maximum.at(block, end_P[own] - size, rank_P[own])
        above = block
    return above
