"""The newest buckets of every item as tensors on the device; only cells that changed are copied.

The reader's ring says which buckets are held, where each lies and how many rows there are; here is
no rule of our own.

Dimensions: I items, N buckets of the ring, C click channels, R some rows, S some buckets.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from freshet.stream.arrays import Bools, Ints
from freshet.stream.read.reader import Delta, WindowReader
from freshet.stream.read.ring import Span
from freshet.stream.schemas import CHANNELS, UNIT_SCALES

UNITS = CHANNELS.index("units")
CLICKS = slice(CHANNELS.index("views"), len(CHANNELS))
NUM_CLICKS = len(CHANNELS) - CLICKS.start
NEVER = 2**62  # later than any bucket
COPY_ROWS = 512  # rows copied at once, which bounds the memory of a first read


class DeviceRing:
    """Units and clicks of the reader's newest buckets, and the first bucket with anything.

    Args:
        reader: Whose buckets these are; rows are its rows.
        device: Where the tensors live.
    """

    def __init__(self, reader: WindowReader, device: torch.device) -> None:
        self._reader = reader
        self._device = device
        # What is held here: the reader's span as of the last copy, which may be behind it.
        self._span = Span(reader.num_buckets)
        self._units_IN = torch.zeros(0, reader.num_buckets, device=device)
        self._clicks_INC = torch.zeros(0, reader.num_buckets, NUM_CLICKS, device=device)
        self._first_I: Ints = np.full(0, NEVER, np.int64)

    def copy(self, delta: Delta) -> None:
        """Take over the cells that the reader's last refresh changed."""
        self._grow(self._reader.capacity)
        self._move(self._reader.span)
        buckets = self._reader.rules.grid.buckets(delta.changed_buckets_ms)
        for first in range(0, len(delta.changed_rows), COPY_ROWS):
            rows = delta.changed_rows[first : first + COPY_ROWS]
            for start, stop in _runs(buckets):
                self._copy(rows, start, stop)

    def units(self, rows: Ints, first: int, steps: int) -> Tensor:
        """Units sold in `steps` buckets from `first` on: float32[R, S], 0 where nothing is held."""
        return self._cells(self._units_IN, rows, first, steps)

    def clicks(self, rows: Ints, first: int, steps: int) -> Tensor:
        """The same of clicks: float32[R, S, C]."""
        return self._cells(self._clicks_INC, rows, first, steps)

    def first_buckets(self, rows: Ints) -> Ints:
        """The first bucket in which anything was seen to happen to each item: int64[R]."""
        return self._first_I[rows]

    def _cells(self, ring: Tensor, rows: Ints, first: int, steps: int) -> Tensor:
        held = self._span.buckets
        bucket_S = np.arange(first, first + steps)
        # A slot may hold a newer or an older bucket than the one asked for.
        held_S = (bucket_S >= held.start) & (bucket_S < held.stop)
        slot_S = torch.from_numpy(self._span.slots(bucket_S)).to(self._device)
        row_R1 = torch.from_numpy(rows).to(self._device)[:, None]
        cells = ring[row_R1, slot_S]  # [R, S] of units, [R, S, C] of clicks
        cells[:, torch.from_numpy(~held_S).to(self._device)] = 0.0
        return cells

    def _grow(self, capacity: int) -> None:
        """Have as much room as the reader; room is never given back."""
        more = capacity - len(self._first_I)
        if more <= 0:
            return
        self._units_IN = _with_rows(self._units_IN, more)
        self._clicks_INC = _with_rows(self._clicks_INC, more)
        self._first_I = np.concatenate([self._first_I, np.full(more, NEVER, np.int64)])

    def _move(self, span: Span) -> None:
        """Hold the same buckets; clear what left, or it would seem to be sold a lap later."""
        slots = torch.from_numpy(span.slots(self._span.left(span))).to(self._device)
        self._units_IN[:, slots] = 0.0
        self._clicks_INC[:, slots] = 0.0
        self._span = span

    def _copy(self, rows: Ints, start: int, stop: int) -> None:
        """Copy buckets [start, stop) of some rows from the reader to the device."""
        reader = self._reader
        values_RCS = reader.sums(reader.rules.grid.start_ms(stop), stop - start, rows)
        # The reader counts thousandths of units, the network units.
        units_RS = (values_RCS[:, UNITS] / UNIT_SCALES["units"]).astype(np.float32)
        clicks_RSC = values_RCS[:, CLICKS].transpose(0, 2, 1).astype(np.float32)

        slot_S = torch.from_numpy(self._span.slots(np.arange(start, stop))).to(self._device)
        row_R1 = torch.from_numpy(rows).to(self._device)[:, None]
        self._units_IN[row_R1, slot_S] = torch.from_numpy(units_RS).to(self._device)
        self._clicks_INC[row_R1, slot_S] = torch.from_numpy(clicks_RSC).to(self._device)

        any_RS: Bools = np.any(values_RCS, axis=1)
        first_R = np.where(np.any(any_RS, axis=1), start + any_RS.argmax(axis=1), NEVER)
        self._first_I[rows] = np.minimum(self._first_I[rows], first_R)


def _with_rows(ring: Tensor, more: int) -> Tensor:
    return torch.cat([ring, ring.new_zeros(more, *ring.shape[1:])])


def _runs(numbers: Ints) -> list[tuple[int, int]]:
    """Rising numbers as runs [start, stop) without gaps.

    >>> _runs(np.array([3, 4, 5, 9]))
    [(3, 6), (9, 10)]
    """
    if not len(numbers):
        return []
    cuts = np.flatnonzero(np.diff(numbers) > 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(numbers, cuts)]
