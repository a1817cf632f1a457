"""Intervals announced under names, in versions: which of them were known at a time.

Dimensions: N intervals.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.catalog.scopes import Scope, ScopeIndex
from freshet.stream.catalog.versions import FOREVER_MS, Known

STARTS, ENDS, FROM, UNTIL, DELETED, ORDER, SCOPE, SLOT = range(8)
_NUM_FIELDS = 8
MAX_ANSWERS = 16  # Batches of one round ask the same, and resolutions take turns.
_DROPPED_AT_ONCE = 8  # An eighth: that many at a time, since dropping moves all that stay.


Entry = TypeVar("Entry")


class Interval(NamedTuple, Generic[Entry]):
    """What one record announced: [starts_ms, ends_ms) and what holds there."""

    starts_ms: int
    ends_ms: int
    scope: Scope
    value: float
    entry: Entry
    slot: int


@dataclass(slots=True)
class _Chain:
    """Versions of one name in the order of `Known`, with their rows; and when it was deleted."""

    versions: list[tuple[int, int, int]] = field(default_factory=list)
    deleted: list[Known] = field(default_factory=list)


class Intervals(NamedTuple):
    """Intervals of one slot that hold somewhere in a span, as they were known at a time.

    Attributes:
        by_scope: whom they are about.
        starts_N: when each starts to hold, its tombstone considered.
        ends_N: when it ends.
        values_N: what it says.
        rank_N: which of those that overlap counts, the highest: by scope, then by announcement.
    """

    by_scope: ScopeIndex
    starts_N: Ints
    ends_N: Ints
    values_N: Floats
    rank_N: Ints


class During(NamedTuple):
    """What was known of a span at a time: intervals by slot, and the slots that are in use."""

    by_slot: dict[int, Intervals]
    in_use: list[int]


class IntervalTable(Generic[Entry]):
    """Versions of named intervals, in columns.

    The newest version that is known of a name says all about it. Once a name was deleted, what it
    said holds up to then: a promotion that was cleared away after its end did run.
    """

    def __init__(self) -> None:
        self._chains: dict[str, _Chain] = {}
        self._scopes: dict[Scope, int] = {}
        self._fields = np.zeros((_NUM_FIELDS, 64), np.int64)
        self._values = np.zeros(64)
        self._entries: list[Entry] = []
        self._answers: dict[tuple[int, int, int], During] = {}

    def __len__(self) -> int:
        return len(self._entries)

    # Records in -----------------------------------------------------------------------------------

    def put(self, name: str, known: Known, interval: Interval[Entry]) -> None:
        """Take in a version."""
        self._answers.clear()
        chain = self._chains.setdefault(name, _Chain())
        place = bisect_left(chain.versions, known)
        if place < len(chain.versions) and chain.versions[place][:2] == known:
            self._write(chain.versions[place][2], known, interval)  # The same record again.
            return
        row = len(self._entries)
        self._entries.append(interval.entry)
        self._grow()
        chain.versions.insert(place, (*known, row))
        self._write(row, known, interval)
        self._link(chain, place)
        if place:
            self._link(chain, place - 1)

    def delete(self, name: str, known: Known) -> None:
        """Take in a tombstone of a name; what was not known by then is not touched."""
        chain = self._chains.get(name)
        if chain is None or known in chain.deleted:
            return
        self._answers.clear()
        insort(chain.deleted, known)
        place = bisect_left(chain.versions, known) - 1
        if place >= 0:
            self._link(chain, place)

    def _write(self, row: int, known: Known, interval: Interval[Entry]) -> None:
        column = self._fields[:, row]
        column[STARTS], column[ENDS] = interval.starts_ms, interval.ends_ms
        column[FROM], column[ORDER] = known
        column[SCOPE] = self._scopes.setdefault(interval.scope, len(self._scopes))
        column[SLOT] = interval.slot
        self._values[row] = interval.value
        self._entries[row] = interval.entry

    def _link(self, chain: _Chain, place: int) -> None:
        """Until when a version is the newest, and whether a tombstone comes before that."""
        versions = chain.versions
        *known, row = versions[place]
        following = versions[place + 1][:2] if place + 1 < len(versions) else (FOREVER_MS, 0)
        later = bisect_right(chain.deleted, tuple(known))
        deleted = chain.deleted[later] if later < len(chain.deleted) else (FOREVER_MS, 0)
        self._fields[UNTIL, row] = following[0]
        self._fields[DELETED, row] = deleted[0] if deleted < following else FOREVER_MS

    def _grow(self) -> None:
        if len(self._entries) > len(self._values):
            self._fields = np.concatenate([self._fields, np.zeros_like(self._fields)], axis=1)
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])

    # What was known then --------------------------------------------------------------------------

    def during(self, start_ms: int, end_ms: int, as_of_ms: int) -> During:
        """What holds somewhere in [start, end), as it was known at a time.

        A slot is in use while something stands about it, or was deleted only after the start.
        """
        question = (start_ms, end_ms, as_of_ms)
        if question not in self._answers:
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[question] = self._during(*question)
        return self._answers[question]

    def _during(self, start_ms: int, end_ms: int, as_of_ms: int) -> During:
        fields = self._fields[:, : len(self._entries)]
        newest = (fields[FROM] <= as_of_ms) & (fields[UNTIL] > as_of_ms)
        deleted = np.where(fields[DELETED] <= as_of_ms, fields[DELETED], FOREVER_MS)
        in_use = np.unique(fields[SLOT, newest & (deleted > start_ms)])
        ends = np.minimum(fields[ENDS], deleted)
        holds = newest & (fields[STARTS] < np.minimum(end_ms, ends)) & (ends > start_ms)
        rows = np.flatnonzero(holds)
        by_slot = {}
        for slot in np.unique(fields[SLOT, rows]).tolist():
            of_slot = rows[fields[SLOT, rows] == slot]
            by_slot[slot] = self._intervals(of_slot, ends[of_slot])
        return During(by_slot, [int(slot) for slot in in_use])

    def _intervals(self, rows_N: Ints, ends_N: Ints) -> Intervals:
        starts_N, known_N, order_N, scope_N = self._fields[[STARTS, FROM, ORDER, SCOPE]][:, rows_N]
        scopes = list(self._scopes)
        narrowness = np.array([scope.narrowness for scope in scopes], np.int64)
        by_rank = np.lexsort((order_N, known_N, narrowness[scope_N]))
        rank_N = np.empty(len(rows_N), np.int64)
        rank_N[by_rank] = np.arange(len(rows_N))
        by_scope = ScopeIndex.of(scope_N, scopes)
        return Intervals(by_scope, starts_N, ends_N, self._values[rows_N], rank_N)

    def standing(
        self,
        *,
        touching: tuple[int, int] = (-FOREVER_MS, FOREVER_MS),
        scopes: Sequence[Scope] | None = None,
    ) -> Iterator[tuple[Entry, int, int, int]]:
        """What the newest records say: each entry, its start, its end, since when it is known.

        Args:
            touching: Only what holds somewhere in [start, end).
            scopes: Only of these.
        """
        fields = self._fields[:, : len(self._entries)]
        stands = (fields[UNTIL] == FOREVER_MS) & (fields[DELETED] == FOREVER_MS)
        stands &= (fields[STARTS] < touching[1]) & (fields[ENDS] > touching[0])
        if scopes is not None:
            numbers = [self._scopes[scope] for scope in scopes if scope in self._scopes]
            stands &= np.isin(fields[SCOPE], numbers)
        for row in np.flatnonzero(stands).tolist():
            yield self._standing(row)

    def standing_of(self, name: str) -> tuple[Entry, int, int, int]:
        """The same of one name; KeyError where it is not known or was deleted."""
        row = self._chains[name].versions[-1][2]
        if self._fields[DELETED, row] != FOREVER_MS:
            raise KeyError(name)
        return self._standing(row)

    def versions(self, start_ms: int, end_ms: int) -> Iterator[tuple[Entry, int, int, int, int]]:
        """Each version that is about some of [start, end): entry, start, end, and from when to when
        it was the newest word.
        """
        fields = self._fields[:, : len(self._entries)]
        until = np.minimum(fields[UNTIL], fields[DELETED])
        about = (fields[STARTS] < end_ms) & (fields[ENDS] > start_ms)
        for row in np.flatnonzero(about).tolist():
            yield *self._standing(row), int(until[row])

    def _standing(self, row: int) -> tuple[Entry, int, int, int]:
        starts_ms, ends_ms, from_ms = self._fields[:3, row].tolist()
        return self._entries[row], starts_ms, ends_ms, from_ms

    # What is forgotten ----------------------------------------------------------------------------

    def forget_before(self, before_ms: int, *, ended_too: bool) -> int:
        """Drop what no question needs of which neither span nor as-of lies before; how much.

        Args:
            before_ms: The time.
            ended_too: Whether also those that ended by then, though they stand.
        """
        fields = self._fields[:, : len(self._entries)]
        dropped = (fields[UNTIL] <= before_ms) | (fields[DELETED] <= before_ms)
        if ended_too:
            # Not one that was known later: the version before it may still be needed until then.
            dropped |= (fields[ENDS] <= before_ms) & (fields[FROM] <= before_ms)
        return self._drop(dropped)

    def drop_oldest(self) -> int:
        """Drop the names that end first, an eighth of them; how many versions."""
        last_ends = {
            name: int(self._fields[ENDS, chain.versions[-1][2]])
            for name, chain in self._chains.items()
        }
        names = sorted(last_ends, key=last_ends.__getitem__)
        dropped = np.zeros(len(self), bool)
        for name in names[: max(len(names) // _DROPPED_AT_ONCE, 1)]:
            dropped[[version[2] for version in self._chains[name].versions]] = True
        return self._drop(dropped)

    def _drop(self, dropped: Bools) -> int:
        if not dropped.any():
            return 0
        self._answers.clear()
        kept = np.flatnonzero(~dropped)
        moved = np.cumsum(~dropped) - 1
        self._fields = self._fields[:, kept].copy()
        self._values = self._values[kept].copy()
        self._entries = [self._entries[row] for row in kept.tolist()]
        if not len(kept):
            self._fields, self._values = np.zeros((_NUM_FIELDS, 64), np.int64), np.zeros(64)
        gone, place = dropped.tolist(), moved.tolist()
        for name, chain in list(self._chains.items()):
            versions = chain.versions
            chain.versions = [
                (ms, order, place[row]) for ms, order, row in versions if not gone[row]
            ]
            if not chain.versions:
                del self._chains[name]
        return int(dropped.sum())
