"""The newest buckets of every item as one dense array of integers; pure numpy.

Dimensions: B buckets, C channels, I items (rows), N columns of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.schemas import CHANNELS

NUM_CHANNELS = len(CHANNELS)
CAPACITY_STEP = 256
# Rows x buckets turned around at once: with 8 channels half a megabyte, which a CPU's cache holds.
BLOCK_CELLS = 8_192

ALL_CHANNELS = slice(None)


@dataclass(frozen=True, slots=True)
class Span:
    """Which buckets a ring holds, and where: what else keeps them asks here where and how long.

    Bucket b lies in slot `b % num_buckets`, so that moving on copies nothing.

    Attributes:
        num_buckets: How many are held.
        head: The newest of them; None before the first.
    """

    num_buckets: int
    head: int | None = None

    @property
    def buckets(self) -> range:
        """All that are held, rising."""
        if self.head is None:
            return range(0)
        return range(self.head - self.num_buckets + 1, self.head + 1)

    def __contains__(self, bucket: int) -> bool:
        return bucket in self.buckets

    def slot(self, bucket: int) -> int:
        """Where a bucket lies while it is held."""
        return bucket % self.num_buckets

    def slots(self, buckets: Ints) -> Ints:
        """The same of many."""
        return buckets % self.num_buckets

    def left(self, later: Span) -> Ints:
        """The buckets that are held here and no longer there; their slots are free for others.

        >>> Span(4, head=13).left(Span(4, head=15)).tolist()
        [10, 11]
        """
        mine, held = self.buckets, later.buckets
        bucket_B = np.arange(mine.start, mine.stop)
        return bucket_B[(bucket_B < held.start) | (bucket_B >= held.stop)]


class Ring:
    """Sums of the buckets of `span`; what leaves is forgotten, what enters starts at 0.

    Kept time-major inside, as tiles are, so that a changed tile is written where it lies; `window`
    turns it around.
    """

    def __init__(self, num_buckets: int) -> None:
        self.span = Span(num_buckets)
        self.num_items = 0
        self._values_BCI: Ints = _zeros(num_buckets, NUM_CHANNELS, CAPACITY_STEP)

    @property
    def capacity(self) -> int:
        """For how many items there is room."""
        return int(self._values_BCI.shape[2])

    def grow(self, num_items: int) -> None:
        """Have rows for this many items."""
        if num_items > self.capacity:
            # A quarter more at least, so that growing item by item copies little.
            wanted = max(num_items, self.capacity * 5 // 4)
            steps = -(-wanted // CAPACITY_STEP)
            grown_BCI = _zeros(self.span.num_buckets, NUM_CHANNELS, steps * CAPACITY_STEP)
            grown_BCI[:, :, : self.num_items] = self._values_BCI[:, :, : self.num_items]
            self._values_BCI = grown_BCI
        self.num_items = max(self.num_items, num_items)

    def advance(self, head: int) -> list[int]:
        """Make `head` the newest bucket; never goes back. Returns the buckets that left."""
        before = self.span
        if before.head is not None and head <= before.head:
            return []
        self.span = replace(before, head=head)
        left = before.left(self.span)
        self._values_BCI[self.span.slots(left)] = 0
        buckets: list[int] = left.tolist()
        return buckets

    def add(self, bucket: int, rows_N: Ints, values_CN: Ints) -> None:
        """Add to some rows (each named once) of a bucket that the ring holds."""
        assert bucket in self.span, f"bucket {bucket} is outside the ring, {self.span}"
        target_CI = self._values_BCI[self.span.slot(bucket)]
        # Items that were first seen together have rows in a row: then a slice does, which is added
        # to in place, where an index would gather and scatter.
        if (np.diff(rows_N) == 1).all():
            first = int(rows_N[0])
            target_CI[:, first : first + len(rows_N)] += values_CN
        else:
            target_CI[:, rows_N] += values_CN

    def window(
        self, start: int, num_buckets: int, rows: Ints | None = None, channels: slice = ALL_CHANNELS
    ) -> Ints:
        """Some buckets, turned around: a new int64[I, C, B]; 0 where the ring holds nothing.

        Args:
            start: The first bucket.
            num_buckets: B.
            rows: int64[I]; None is all, in order.
            channels: Which channels.
        """
        num_rows = self.num_items if rows is None else len(rows)
        held_BCI = self._values_BCI[:, channels]
        values_ICB = _zeros(num_rows, held_BCI.shape[1], num_buckets)
        first_held = max(start, self.span.buckets.start)
        end_held = min(start + num_buckets, self.span.buckets.stop)
        num_held = end_held - first_held
        if num_held <= 0 or not num_rows:
            return values_ICB

        slot_B = self.span.slots(np.arange(first_held, end_held))
        part_ICB = values_ICB[:, :, first_held - start : end_held - start]
        # Turned around as a whole, each value read would be a cache line of its own. A block of
        # rows at a time stays in the cache between being read along items and written along time.
        block_rows = max(BLOCK_CELLS // num_held, 1)
        for first in range(0, num_rows, block_rows):
            block = slice(first, min(first + block_rows, num_rows))
            if rows is None:
                # [slots, C, I of the block], then buckets last.
                part_ICB[block] = held_BCI[..., block][slot_B].transpose(2, 1, 0)
            else:
                # Two index arrays with a slice between them come out as [B, I, C].
                part_ICB[block] = held_BCI[slot_B[:, None], :, rows[block]].transpose(1, 2, 0)
        return values_ICB


class Touched:
    """Which rows and buckets changed, collected as they do and told once."""

    def __init__(self) -> None:
        self._touched_I = np.zeros(0, dtype=bool)
        self._buckets: set[int] = set()

    def note(self, bucket: int, rows: Ints) -> None:
        """Some rows of a bucket changed; at least one."""
        last = int(rows.max())
        missing = last + 1 - len(self._touched_I)
        if missing > 0:
            # As many again, so that a reader that fills up does not copy with every tile.
            self._touched_I = np.pad(self._touched_I, (0, missing + last))
        self._touched_I[rows] = True
        self._buckets.add(bucket)

    def drain(self) -> tuple[Ints, Ints]:
        """The rows and the buckets, rising, that changed since the last call."""
        rows = np.flatnonzero(self._touched_I)
        buckets = np.array(sorted(self._buckets), dtype=np.int64)
        self._touched_I = np.zeros(0, dtype=bool)
        self._buckets = set()
        return rows, buckets


def _zeros(*shape: int) -> Ints:
    return np.zeros(shape, dtype=np.int64)
