"""From applied lines to changed tiles: what each line adds, and the sums with what was there.

Cells are integers (see stream/store/tiles.py), so a sum cannot depend on how the log was batched.
Nothing here knows Redis.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.store.grid import Grid
from freshet.stream.store.tiles import CELLS, CHANNELS, CHUNK_ITEMS

UNITS: Final = CHANNELS.index("units")
REVENUE: Final = CHANNELS.index("revenue")
ORDERS: Final = CHANNELS.index("orders")
RETURNS: Final = CHANNELS.index("returns")
MAX_CACHED_CELLS: Final = 4_000_000
MAX_SUM: Final = 2**62
# Items, cells and tiles are taken apart by shifts: numpy's remainder costs ten times as much.
_ITEM_BITS: Final = CHUNK_ITEMS.bit_length() - 1
_CELL_BITS: Final = CELLS.bit_length() - 1
assert (1 << _ITEM_BITS, 1 << _CELL_BITS) == (CHUNK_ITEMS, CELLS)

Cells = tuple[npt.NDArray[np.uint16], Ints]
"""A tile's non-zero cells, rising, and their values."""

NO_CELLS: Final[Cells] = (np.empty(0, np.uint16), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Additions:
    """Columns: `value`, never zero, is added to `channel` of `item` (its slot) at `time_ms`."""

    item: Ints
    time_ms: Ints
    channel: Ints
    value: Ints

    def where(self, chosen: Bools) -> Additions:
        """Some of them."""
        columns = (self.item, self.time_ms, self.channel, self.value)
        return Additions(*(column[chosen] for column in columns))


def order_additions(item: Ints, time_ms: Ints, quantity: Floats, unit_price: Floats) -> Additions:
    """What order lines add: units, revenue and a count for sales, returned units for returns.

    Quantities become thousandths and prices ten-thousandths, each rounded to the nearest (ties to
    even); revenue is their product in ten-thousandths. With quantity <= 1,000,000 and price <=
    900,000 no product leaves int64.

    >>> sold = order_additions(np.array([0, 1]), np.array([5, 6]), np.array([2.0, -1.5]),
    ...     np.array([9.99, 9.99]))
    >>> [(CHANNELS[c], v) for c, v in zip(sold.channel.tolist(), sold.value.tolist())]
    [('units', 2000), ('revenue', 199800), ('orders', 1), ('returns', 1500)]
    """
    thousandths = np.rint(quantity * 1_000).astype(np.int64)
    price = np.rint(unit_price * 10_000).astype(np.int64)
    sale = quantity > 0
    revenue = (thousandths * price + 500) // 1_000  # The 500 rounds to the nearest.
    added_CL = np.zeros((RETURNS + 1, len(item)), np.int64)
    added_CL[UNITS] = np.where(sale, thousandths, 0)
    added_CL[REVENUE] = np.where(sale, revenue, 0)
    added_CL[ORDERS] = sale
    added_CL[RETURNS] = np.where(sale, 0, -thousandths)
    channel, line = np.nonzero(added_CL)
    return Additions(item[line], time_ms[line], channel, added_CL[channel, line])


def click_additions(item: Ints, time_ms: Ints, channel: Ints) -> Additions:
    """What clicks add: one to the channel of their kind."""
    return Additions(item, time_ms, channel, np.ones(len(item), np.int64))


@dataclass(frozen=True, slots=True)
class TileSums:
    """Sparse sums of several tiles: keys are `t * 8192 + cell`, strictly rising, of tile `t`.

    That tile is (bucket[t], chunk[t]) of the resolution at `place[t]` in the order in which they
    were given.
    """

    place: Ints
    bucket: Ints
    chunk: Ints
    keys: Ints
    values: Ints


def sum_by_tile(
    additions: Additions, resolutions: Sequence[tuple[Grid, int]], watermark_ms: int
) -> TileSums:
    """Add up what is still retained at `watermark_ms`, the one at the end of the batch.

    A bucket retained at the end was retained before every record of the batch, since watermarks
    never fall; one that is not will never be read. So this filter gives the tiles that judging
    record by record would leave.

    Args:
        additions: Lines in any order.
        resolutions: Each grid with how many of its buckets are kept; at least one.
        watermark_ms: After the batch.

    Raises:
        OverflowError: A sum does not fit a tile.
    """
    chunk = additions.item >> _ITEM_BITS
    cell = additions.channel << _ITEM_BITS | additions.item & (CHUNK_ITEMS - 1)
    numbers = _TileNumbers(num_chunks=int(chunk.max(initial=0)) + 1)
    keys, values = [], []
    for grid, count in resolutions:
        bucket = grid.buckets(additions.time_ms)
        kept = bucket >= grid.first_retained(watermark_ms, count)
        # Nearly always all are kept, and a whole slice copies nothing.
        own = slice(None) if kept.all() else kept
        tile = numbers.give(bucket[own], chunk[own])
        keys.append(tile << _CELL_BITS | cell[own])
        values.append(additions.value[own])
    key, sums = _sum_by_key(np.concatenate(keys), np.concatenate(values))
    tile = key >> _CELL_BITS
    new_tile = _changes(tile)
    rank = np.cumsum(new_tile) - 1
    place, bucket, chunk = numbers.named(tile[new_tile])
    return TileSums(place, bucket, chunk, rank << _CELL_BITS | key & (CELLS - 1), sums)


class _TileNumbers:
    """Numbers for the tiles of a batch: by resolution, then bucket, then chunk."""

    def __init__(self, num_chunks: int) -> None:
        self._num_chunks = num_chunks
        self._firsts: list[int] = []  # Each resolution's first bucket.
        self._starts = [0]  # Each resolution's first number, and the next one's.

    def give(self, bucket: Ints, chunk: Ints) -> Ints:
        """The numbers of some tiles of the next resolution."""
        start = self._starts[-1]
        first = int(bucket.min()) if len(bucket) else 0
        num_buckets = int(bucket.max()) - first + 1 if len(bucket) else 0
        self._firsts.append(first)
        self._starts.append(start + num_buckets * self._num_chunks)
        return start + (bucket - first) * self._num_chunks + chunk

    def named(self, numbers: Ints) -> tuple[Ints, Ints, Ints]:
        """The place of the resolution, the bucket and the chunk that some numbers stand for."""
        place = np.searchsorted(self._starts, numbers, side="right") - 1
        within = numbers - np.array(self._starts)[place]
        bucket = within // self._num_chunks + np.array(self._firsts)[place]
        return place, bucket, within % self._num_chunks


def _sum_by_key(key: Ints, value: Ints) -> tuple[Ints, Ints]:
    """The different keys, rising, and the sum of each one's values."""
    if not len(key):
        return key, value
    key, order = _sorted(key)
    first = np.flatnonzero(_changes(key))
    value = value[order]
    # Hardly any batch could leave the limit whatever its lines add up to.
    if int(value.max()) * len(value) >= MAX_SUM:
        _within(np.add.reduceat(value.astype(np.float64), first))
    return key[first], np.add.reduceat(value, first)


def _within(sums: Ints | Floats) -> None:
    """Refuse sums that do not fit a tile; two that do are together less than an int64.

    Raises:
        OverflowError: One does not.
    """
    if len(sums) and not sums.max() < MAX_SUM:
        raise OverflowError("the sum of a cell leaves 62 bits")


def _changes(rising: Ints) -> Bools:
    """Where a number differs from the one before it; the first one always does."""
    different = np.ones(len(rising), np.bool_)
    different[1:] = rising[1:] != rising[:-1]
    return different


def _sorted(key: Ints) -> tuple[Ints, Ints]:
    """Keys in rising order, none negative, and where each was.

    Sorting both in one number is twice as fast, where 62 bits hold them.
    """
    bits = len(key).bit_length()
    if int(key.max()).bit_length() + bits > 62:
        order = np.argsort(key)
        return key[order], order
    packed = np.sort((key << bits) | np.arange(len(key)))
    return packed >> bits, packed & ((1 << bits) - 1)


def add_to(old: list[Cells], sums: TileSums) -> tuple[Ints, Ints]:
    """The tiles' new absolute keys and values: `old[t]` plus the sums of tile `t`.

    Raises:
        OverflowError: A sum does not fit a tile.
    """
    sizes = np.array([len(cells) for cells, _ in old], np.int64)
    if not sizes.any():
        return sums.keys, sums.values
    tile = np.repeat(np.arange(len(old)), sizes)
    keys = np.concatenate([cells for cells, _ in old]) + tile * CELLS
    values = np.concatenate([numbers for _, numbers in old])
    place = np.searchsorted(keys, sums.keys)
    hit = keys[np.minimum(place, len(keys) - 1)] == sums.keys
    values[place[hit]] += sums.values[hit]
    _within(values[place[hit]])
    if hit.all():
        return keys, values
    keys = np.insert(keys, place[~hit], sums.keys[~hit])
    return keys, np.insert(values, place[~hit], sums.values[~hit])


def split_tiles(keys: Ints, values: Ints, num_tiles: int) -> list[Cells]:
    """Each tile's own cells, copied, so that keeping one does not keep all."""
    edges = np.searchsorted(keys, np.arange(num_tiles + 1) * CELLS).tolist()
    cells = (keys & (CELLS - 1)).astype(np.uint16)
    return [(cells[start:end].copy(), values[start:end].copy()) for start, end in pairwise(edges)]


TileName = tuple[int, int, int]
"""(resolution_ms, bucket, chunk)"""


class TileCache:
    """The most recently changed tiles of a partition, bounded in tiles and in cells."""

    def __init__(self, max_tiles: int) -> None:
        self._max_tiles = max_tiles
        self._num_cells = 0
        self._tiles: OrderedDict[TileName, Cells] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tiles)

    def get(self, name: TileName) -> Cells | None:
        return self._tiles.get(name)

    def put(self, name: TileName, tile: Cells) -> None:
        """Keep a tile as the newest; the oldest leave when there are too many."""
        old = self._tiles.pop(name, NO_CELLS)
        self._tiles[name] = tile
        self._num_cells += len(tile[0]) - len(old[0])
        while self._too_many():
            _, (cells, _) = self._tiles.popitem(last=False)
            self._num_cells -= len(cells)

    def _too_many(self) -> bool:
        """Whether the oldest must leave; the newest stays, however large."""
        if len(self._tiles) > self._max_tiles:
            return True
        return self._num_cells > MAX_CACHED_CELLS and len(self._tiles) > 1
