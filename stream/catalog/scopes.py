"""Whom an interval is about, and which items those are.

Dimensions: N intervals, R items, U groups of items that the same intervals meet, P pairs of such a
group and an interval, K kinds of scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from freshet.stream.arrays import Ints


class Scope(NamedTuple):
    """Items that have all of these; None is any.

    >>> Scope(None, "shoes", None).narrowness < Scope("a", None, None).narrowness
    True
    >>> Scope("a", None, None).narrowness < Scope(None, "shoes", "north").narrowness
    True
    """

    sku: str | None
    category: str | None
    region: str | None

    @property
    def kind(self) -> int:
        """Which fields are named, as bits."""
        return (
            4 * (self.sku is not None) + 2 * (self.category is not None) + (self.region is not None)
        )

    @property
    def narrowness(self) -> int:
        """More fields are narrower; of as many sku, then category, then region."""
        return 8 * self.kind.bit_count() + self.kind


class Items(NamedTuple):
    """What decides whom an interval meets, of each of R items."""

    skus: list[str]
    categories: list[str]
    regions: list[str | None]


class ScopeIndex(NamedTuple):
    """Intervals by scope: the scopes of each kind are numbered from 1 on.

    Attributes:
        number_of: for each kind the number of each scope.
        of_scope_N: the intervals, those of one scope together.
        begin_C: where those of each scope begin.
        count_C: how many they are.
    """

    number_of: dict[int, dict[tuple[str | None, ...], int]]
    of_scope_N: Ints
    begin_C: Ints
    count_C: Ints

    @classmethod
    def of(cls, scope_N: Ints, scopes: Sequence[Scope]) -> ScopeIndex:
        """Intervals of which each has a scope, by its place in `scopes`."""
        used, code_N = np.unique(scope_N, return_inverse=True)
        number_of: dict[int, dict[tuple[str | None, ...], int]] = {}
        for number, scope in enumerate(used.tolist(), 1):
            number_of.setdefault(scopes[scope].kind, {})[scopes[scope]] = number
        count_C = np.bincount(code_N, minlength=len(used))
        begin_C = np.cumsum(count_C) - count_C
        return cls(
            dict(sorted(number_of.items())), np.argsort(code_N, kind="stable"), begin_C, count_C
        )

    def numbers(self, items: Items) -> list[Ints]:
        """For each kind the number of the scope that each item has, [R]; 0 is none."""
        nobody: list[None] = [None] * len(items.skus)
        columns = []
        for kind, number_of in self.number_of.items():
            fields = zip(
                items.skus if kind & 4 else nobody,
                items.categories if kind & 2 else nobody,
                items.regions if kind & 1 else nobody,
                strict=True,
            )
            numbers = [number_of.get(names, 0) for names in fields]
            columns.append(np.array(numbers, np.int64))
        return columns


class Spread(NamedTuple):
    """Whom intervals meet: items that the same ones meet are one group.

    Attributes:
        group_R: the group of each item.
        first_U: one item of each group.
        group_P: the group of each pair.
        number_P: its interval.
    """

    group_R: Ints
    first_U: Ints
    group_P: Ints
    number_P: Ints


def spread(index: ScopeIndex, items: Items, apart_R: Ints | None = None) -> Spread:
    """Which intervals meet which items.

    Args:
        index: Intervals.
        items: R items.
        apart_R: Items of different numbers are never of one group.

    >>> shoes, sku = Scope(None, "x", None), Scope("a", None, None)
    >>> index = ScopeIndex.of(np.array([0, 1]), [shoes, sku])
    >>> met = spread(index, Items(["a", "b", "c"], ["x", "x", "y"], ["n", "n", "n"]))
    >>> met.group_R.tolist(), met.group_P.tolist(), met.number_P.tolist()
    ([2, 1, 0], [1, 2, 2], [0, 0, 1])
    """
    columns = index.numbers(items)
    group_R = np.zeros(len(items.skus), np.int64) if apart_R is None else apart_R
    for column_R in columns:
        pairs_R = group_R * (len(index.count_C) + 1) + column_R
        _, group_R = np.unique(pairs_R, return_inverse=True)
    _, first_U, group_R = np.unique(group_R, return_index=True, return_inverse=True)

    # Each group has one scope of a kind at most; all intervals of that scope meet it.
    numbers_KU = np.array([column_R[first_U] for column_R in columns], np.int64)
    numbers_UK = numbers_KU.reshape(len(columns), len(first_U)).T
    group_L, kind_L = np.nonzero(numbers_UK)
    scope_L = numbers_UK[group_L, kind_L] - 1
    count_L = index.count_C[scope_L]
    before_L = np.cumsum(count_L) - count_L
    shift_L = index.begin_C[scope_L] - before_L
    place_P = np.arange(count_L.sum()) + np.repeat(shift_L, count_L)
    return Spread(group_R, first_U, np.repeat(group_L, count_L), index.of_scope_N[place_P])
