"""Values through time, in versions that were each known from a time on; and who a key was about."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

FOREVER_MS = 2**62
NEWEST_MS = FOREVER_MS - 1
"""As of this time every record is known."""

NAN = float("nan")

_PARTITIONS = 4_096
_LAST_OFFSET = 2**63 // _PARTITIONS - 1


class Known(NamedTuple):
    """From when on a record is known; of one millisecond the later record counts."""

    ms: int
    order: int


def order_of(offset: int, partition: int) -> int:
    """A number that rises with the offset, and differs between records of one topic.

    >>> order_of(3, 0) < order_of(3, 1) < order_of(4, 0)
    True
    """
    return min(offset, _LAST_OFFSET) * _PARTITIONS + partition % _PARTITIONS


class History:
    """Values of one thing, by the time from which each holds.

    Of two that hold from one time on, the one that was known later counts.
    """

    __slots__ = ("_in_order", "known_ms", "newest_ms", "orders", "times_ms", "values")

    def __init__(self) -> None:
        self.times_ms = array("q")
        self.known_ms = array("q")
        self.orders = array("q")
        self.values = array("d")
        self.newest_ms = -1
        # Whether each was known no earlier than the one before it, as nearly always.
        self._in_order = True

    def __len__(self) -> int:
        return len(self.times_ms)

    def put(self, time_ms: int, known: Known, value: float) -> tuple[int, bool]:
        """From `time_ms` on the value is this one; its place, and whether the record is new.

        >>> price = History()
        >>> for time_ms, value in ((10, 5.0), (30, 4.0), (20, 3.0), (30, 4.0)):
        ...     _ = price.put(time_ms, Known(time_ms, order=0), value)
        >>> price.times_ms.tolist(), price.values.tolist()
        ([10, 20, 30], [5.0, 3.0, 4.0])
        """
        place = bisect_right(self.times_ms, time_ms)
        while place and self._stands_behind(place - 1, time_ms, known):
            place -= 1
        if place and self._is(place - 1, time_ms, known):
            self.values[place - 1] = value
            return place - 1, False
        self._in_order &= place == len(self) and known.ms >= self.newest_ms
        self.newest_ms = max(self.newest_ms, known.ms)
        self.times_ms.insert(place, time_ms)
        self.known_ms.insert(place, known.ms)
        self.orders.insert(place, known.order)
        self.values.insert(place, value)
        return place, True

    def _stands_behind(self, place: int, time_ms: int, known: Known) -> bool:
        own = (self.known_ms[place], self.orders[place])
        return self.times_ms[place] == time_ms and own > known

    def _is(self, place: int, time_ms: int, known: Known) -> bool:
        own = (self.known_ms[place], self.orders[place])
        return self.times_ms[place] == time_ms and own == known

    def at(self, time_ms: int) -> float:
        """The value in force at a time; NaN before the first."""
        place = self.place_at(time_ms)
        return NAN if place < 0 else self.values[place]

    def place_at(self, time_ms: int) -> int:
        """The place of the value in force at a time; -1 before the first."""
        return bisect_right(self.times_ms, time_ms) - 1

    def slice(self, start_ms: int, end_ms: int) -> slice:
        """Those that decide the value inside [start, end): the one in force, those within."""
        first = max(self.place_at(start_ms), 0)
        return slice(first, max(bisect_left(self.times_ms, end_ms), first))

    def known_by(self, as_of_ms: int) -> History:
        """What of it was known at a time: itself where that is all."""
        if self.newest_ms <= as_of_ms:
            return self
        if self._in_order:
            return self._first(bisect_right(self.known_ms, as_of_ms))
        return self._of([place for place, ms in enumerate(self.known_ms) if ms <= as_of_ms])

    def keep(self, places: list[int]) -> None:
        """Forget all but these, in rising order."""
        kept = self._of(places)
        self.times_ms, self.known_ms = kept.times_ms, kept.known_ms
        self.orders, self.values = kept.orders, kept.values

    def _first(self, count: int) -> History:
        some = History()
        some.times_ms, some.known_ms = self.times_ms[:count], self.known_ms[:count]
        some.orders, some.values = self.orders[:count], self.values[:count]
        some.newest_ms = some.known_ms[-1] if count else -1
        return some

    def _of(self, places: list[int]) -> History:
        some = History()
        some.times_ms = array("q", [self.times_ms[place] for place in places])
        some.known_ms = array("q", [self.known_ms[place] for place in places])
        some.orders = array("q", [self.orders[place] for place in places])
        some.values = array("d", [self.values[place] for place in places])
        some.newest_ms = max(some.known_ms, default=-1)
        some._in_order = self._in_order
        return some

    def first_needed(self, before_ms: int) -> int:
        """The first place that a question needs of which neither span nor as-of lies before."""
        place = self.place_at(before_ms)
        while place > 0 and self.known_ms[place] > before_ms:
            place -= 1
        return max(place, 0)


Identity = TypeVar("Identity", bound=Hashable)


class Keys(Generic[Identity]):
    """What the records under each key were about: a tombstone has nothing but its key.

    It deletes what its key named before it, in whichever order the two are heard of.
    """

    def __init__(self) -> None:
        self._named: dict[bytes, dict[Identity, Known]] = {}
        self._deleted: dict[bytes, list[Known]] = {}

    @property
    def num_deleted(self) -> int:
        """How many keys have tombstones that are remembered."""
        return len(self._deleted)

    def name(self, key: bytes, identity: Identity, known: Known) -> list[Known]:
        """A key names something; its tombstones that are later."""
        named = self._named.setdefault(key, {})
        named[identity] = min(known, named.get(identity, known))
        return [deleted for deleted in self._deleted.get(key, ()) if deleted > known]

    def delete(self, key: bytes, known: Known) -> list[Identity]:
        """A key is deleted; what it had named by then."""
        deleted = self._deleted.setdefault(key, [])
        if known not in deleted:
            deleted.append(known)
        named = self._named.get(key, {})
        return [identity for identity, first in named.items() if first < known]

    def forget_before(self, before_ms: int) -> int:
        """Forget older tombstones; how many."""
        dropped = 0
        for key, deleted in list(self._deleted.items()):
            kept = [known for known in deleted if known.ms > before_ms]
            dropped += len(deleted) - len(kept)
            if kept:
                self._deleted[key] = kept
            else:
                del self._deleted[key]
        return dropped
