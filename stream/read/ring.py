"""The newest buckets of every item as one dense array of integers; pure numpy.

Dimensions: B buckets, C channels, I items (rows), N columns of a tile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from freshet.stream.schemas import CHANNELS

NUM_CHANNELS = len(CHANNELS)
CAPACITY_STEP = 256
# Rows x buckets turned around at once: with 8 channels half a megabyte, which a CPU's cache holds.
BLOCK_CELLS = 8_192

ALL_CHANNELS = slice(None)

Ints = NDArray[np.int64]


class Ring:
    """Buckets `head - num_buckets + 1 ... head`; what leaves is forgotten, what enters starts at 0.

    Kept time-major inside, as tiles are, so that a changed tile is written where it lies; `window`
    turns it around.
    """

    def __init__(self, num_buckets: int) -> None:
        self.num_buckets = num_buckets
        self.num_items = 0
        self.head: int | None = None
        self._values_BCI: Ints = np.zeros(
            (num_buckets, NUM_CHANNELS, CAPACITY_STEP), dtype=np.int64
        )

    def __contains__(self, bucket: int) -> bool:
        return self.head is not None and self.head - self.num_buckets < bucket <= self.head

    @property
    def held(self) -> set[int]:
        """The buckets that it holds, none before the first."""
        return (
            set()
            if self.head is None
            else set(range(self.head - self.num_buckets + 1, self.head + 1))
        )

    def grow(self, num_items: int) -> None:
        """Have rows for this many items; by a quarter at least, so that growing item by item copies
        little.
        """
        capacity = self._values_BCI.shape[2]
        if num_items > capacity:
            capacity = -(-max(num_items, capacity * 5 // 4) // CAPACITY_STEP) * CAPACITY_STEP
            grown_BCI = np.zeros((self.num_buckets, NUM_CHANNELS, capacity), dtype=np.int64)
            grown_BCI[:, :, : self.num_items] = self._values_BCI[:, :, : self.num_items]
            self._values_BCI = grown_BCI
        self.num_items = max(self.num_items, num_items)

    def advance(self, head: int) -> None:
        """Make `head` the newest bucket; never goes back."""
        if self.head is None:
            self.head = head
        entering = min(head - self.head, self.num_buckets)
        if entering <= 0:
            return
        for bucket in range(head - entering + 1, head + 1):
            self._values_BCI[bucket % self.num_buckets] = 0
        self.head = head

    def add(self, bucket: int, rows_N: Ints, values_CN: Ints) -> None:
        """Add to some rows (each named once) of a bucket that the ring holds."""
        assert bucket in self, f"bucket {bucket} is outside the ring that ends with {self.head}"
        target_CI = self._values_BCI[bucket % self.num_buckets]
        first, last = int(rows_N[0]), int(rows_N[-1])
        if last - first + 1 == len(rows_N) and (np.diff(rows_N) == 1).all():
            target_CI[:, first : last + 1] += values_CN
        else:
            target_CI[:, rows_N] += values_CN

    def window(
        self, start: int, num_buckets: int, rows: Ints | None = None, channels: slice = ALL_CHANNELS
    ) -> Ints:
        """Buckets `start ... start + num_buckets - 1` as a new int64[I, C, B]; 0 where the ring
        holds nothing.
        """
        num_rows = self.num_items if rows is None else len(rows)
        held_BCI = self._values_BCI[:, channels]
        values_ICB = np.zeros((num_rows, held_BCI.shape[1], num_buckets), dtype=np.int64)
        held = [bucket for bucket in range(start, start + num_buckets) if bucket in self]
        if not held or not num_rows:
            return values_ICB
        slot_B = np.array(held) % self.num_buckets
        part_ICB = values_ICB[:, :, held[0] - start : held[-1] - start + 1]
        block_rows = max(BLOCK_CELLS // len(held), 1)
        for first in range(0, num_rows, block_rows):
            block = slice(first, min(first + block_rows, num_rows))
            if rows is None:
                part_ICB[block] = held_BCI[..., block][slot_B].transpose(2, 1, 0)
            else:
                part_ICB[block] = held_BCI[slot_B[:, None], :, rows[block]].transpose(1, 2, 0)
        return values_ICB


class Touched:
    """Which rows and buckets changed, collected as they do."""

    def __init__(self) -> None:
        self._touched = np.zeros(0, dtype=bool)
        self._buckets: set[int] = set()

    def note(self, bucket: int, rows: Ints) -> None:
        """Some rows of a bucket changed; at least one."""
        last = int(rows.max())
        if last >= len(self._touched):
            self._touched = np.pad(self._touched, (0, 2 * last + 1 - len(self._touched)))
        self._touched[rows] = True
        self._buckets.add(bucket)

    def rows(self) -> Ints:
        """Rows, rising."""
        return np.flatnonzero(self._touched)

    def buckets(self) -> Ints:
        """Buckets, rising."""
        return np.array(sorted(self._buckets), dtype=np.int64)
