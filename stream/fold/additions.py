"""From applied lines to changed tiles: what each line adds, to which buckets, and the sums with
what was there.

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

from freshet.stream.arrays import Floats, Ints
from freshet.stream.store.grid import Grid
from freshet.stream.store.tiles import CELLS, CHANNELS, CHUNK_ITEMS

UNITS, REVENUE, ORDERS, RETURNS = (
    CHANNELS.index(name) for name in ("units", "revenue", "orders", "returns")
)
MAX_CACHED_CELLS: Final = 4_000_000
_ITEM_BITS, _CELL_BITS = CHUNK_ITEMS.bit_length() - 1, CELLS.bit_length() - 1
assert (1 << _ITEM_BITS, 1 << _CELL_BITS) == (CHUNK_ITEMS, CELLS)

Cells = tuple[npt.NDArray[np.uint16], Ints]
"""A tile's non-zero cells, rising, and their values."""

NO_CELLS: Final[Cells] = (np.empty(0, np.uint16), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Additions:
    """Flat columns: `value` is added to `channel` of `item` (its slot) at `time_ms`. No value is
    zero.
    """

    item: Ints
    time_ms: Ints
    channel: Ints
    value: Ints


def order_additions(item: Ints, time_ms: Ints, quantity: Floats, unit_price: Floats) -> Additions:
    """What order lines add: units, revenue and a count of orders for sales, units returned for
    returns.

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
    value_CL = np.stack(
        (
            np.where(sale, thousandths, 0),
            np.where(sale, (thousandths * price + 500) // 1_000, 0),
            sale.astype(np.int64),
            np.where(sale, 0, -thousandths),
        )
    )
    channel, line = np.nonzero(value_CL)
    channels = np.array((UNITS, REVENUE, ORDERS, RETURNS))
    return Additions(item[line], time_ms[line], channels[channel], value_CL[channel, line])


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
    """
    chunks = int(additions.item.max(initial=0)) // CHUNK_ITEMS + 1
    # Shifts, since numpy's remainder costs ten times as much as they do.
    chunk, cell = (
        additions.item >> _ITEM_BITS,
        additions.channel << _ITEM_BITS | additions.item & (CHUNK_ITEMS - 1),
    )
    keys, values, firsts, starts = [], [], [], [0]
    for grid, count in resolutions:
        bucket = grid.buckets(additions.time_ms)
        kept = bucket >= grid.first_retained(watermark_ms, count)
        whole = bool(kept.all())
        if not whole:
            bucket = bucket[kept]
        firsts.append(int(bucket.min()) if len(bucket) else 0)
        tile = starts[-1] + (bucket - firsts[-1]) * chunks + (chunk if whole else chunk[kept])
        keys.append(tile << _CELL_BITS | (cell if whole else cell[kept]))
        values.append(additions.value if whole else additions.value[kept])
        starts.append(
            starts[-1] + (int(bucket.max()) - firsts[-1] + 1 if len(bucket) else 0) * chunks
        )
    key, value = np.concatenate(keys), np.concatenate(values)
    if not len(key):
        return TileSums(key, key, key, key, key)
    key, order = _sorted(key)
    first_of_cell = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    key, sums = key[first_of_cell], np.add.reduceat(value[order], first_of_cell)
    tile = key >> _CELL_BITS
    new_tile = np.concatenate(([True], tile[1:] != tile[:-1]))
    names = tile[new_tile]
    place = np.searchsorted(starts, names, side="right") - 1
    names -= np.array(starts)[place]
    rank = np.cumsum(new_tile) - 1
    bucket = names // chunks + np.array(firsts)[place]
    return TileSums(place, bucket, names % chunks, rank << _CELL_BITS | key & (CELLS - 1), sums)


def _sorted(key: Ints) -> tuple[Ints, Ints]:
    """Keys in rising order, none negative, and where each was; sorting both in one number is twice
    as fast.
    """
    bits = len(key).bit_length()
    if int(key.max()).bit_length() + bits > 62:
        order = np.argsort(key)
        return key[order], order
    packed = np.sort((key << bits) | np.arange(len(key)))
    return packed >> bits, packed & ((1 << bits) - 1)


def add_to(old: list[Cells], sums: TileSums) -> tuple[Ints, Ints]:
    """The tiles' new absolute keys and values: `old[t]` plus the sums of tile `t`."""
    sizes = np.fromiter(map(len, (cells for cells, _ in old)), np.int64, len(old))
    if not sizes.any():
        return sums.keys, sums.values
    keys = np.concatenate([cells for cells, _ in old]) + np.repeat(
        np.arange(len(old)) * CELLS, sizes
    )
    values = np.concatenate([numbers for _, numbers in old])
    place = np.searchsorted(keys, sums.keys)
    hit = keys[np.minimum(place, len(keys) - 1)] == sums.keys
    values[place[hit]] += sums.values[hit]
    if hit.all():
        return keys, values
    new = ~hit
    return np.insert(keys, place[new], sums.keys[new]), np.insert(
        values, place[new], sums.values[new]
    )


def split_tiles(keys: Ints, values: Ints, num_tiles: int) -> list[Cells]:
    """Each tile's own cells, copied, so that keeping one does not keep all."""
    edges = np.searchsorted(keys, np.arange(num_tiles + 1) * CELLS).tolist()
    cells = (keys & (CELLS - 1)).astype(np.uint16)
    return [(cells[start:end].copy(), values[start:end].copy()) for start, end in pairwise(edges)]


TileName = tuple[int, int, int]
"""(resolution_ms, bucket, chunk)"""


class TileCache:
    """The most recently changed tiles of a partition, bounded in tiles and in cells."""

    def __init__(self, max_tiles: int, max_cells: int = MAX_CACHED_CELLS) -> None:
        self._max_tiles = max_tiles
        self._max_cells = max_cells
        self._cells = 0
        self._tiles: OrderedDict[TileName, Cells] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tiles)

    def get(self, name: TileName) -> Cells | None:
        return self._tiles.get(name)

    def put(self, name: TileName, tile: Cells) -> None:
        """Keep a tile as the newest; the oldest leave when there are too many."""
        old = self._tiles.pop(name, NO_CELLS)
        self._tiles[name] = tile
        self._cells += len(tile[0]) - len(old[0])
        while len(self._tiles) > self._max_tiles or (
            self._cells > self._max_cells and len(self._tiles) > 1
        ):
            _, (cells, _) = self._tiles.popitem(last=False)
            self._cells -= len(cells)
