"""The bytes of one tile: one bucket of one chunk of 1,024 items, eight channels of integers.

    byte 0        format version, 1
    bytes 1-8     one descriptor a channel: low nibble 0 absent, 1 sparse, 2 dense; high nibble
                  log2 of the width

then, for each channel that is present, in order:

    sparse        u16 count, count x u16 positions (rising), count x width values (none is zero)
    dense         u16 length, length x width values (the last one not zero; the rest of the chunk
                  is zero)

All numbers are little-endian and unsigned. The form is the smaller one (dense when equal) in the
narrowest width that holds the channel's largest value, so that the same values always give the same
bytes.

A *cell* is `channel * 1024 + position`; a *key* is `tile * 8192 + cell`, so one sorted array holds
many sparse tiles.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Bytes, Ints
from freshet.stream.errors import StoreError
from freshet.stream.schemas import CHANNELS

__all__ = [
    "CELLS",
    "CHANNELS",
    "CHUNK_ITEMS",
    "NUM_CHANNELS",
    "decode",
    "decode_cells",
    "decode_channels",
    "encode",
    "encode_cells",
]

NUM_CHANNELS: Final = len(CHANNELS)
CHUNK_ITEMS: Final = 1_024
CELLS: Final = NUM_CHANNELS * CHUNK_ITEMS
FORMAT_VERSION: Final = 1

_ABSENT, _SPARSE, _DENSE = 0, 1, 2
_HEADER_BYTES = 1 + NUM_CHANNELS
_WIDTHS = tuple(np.dtype(name) for name in ("<u1", "<u2", "<u4", "<u8"))
_WIDTH_LIMITS = np.array([1 << 8, 1 << 16, 1 << 32], np.int64)
_U16 = np.dtype("<u2")


def encode(values_CN: Ints) -> bytes:
    """The canonical bytes of one tile.

    Args:
        values_CN: int64, 8 channels x at most 1,024 items, none negative.

    >>> values = np.zeros((8, 3), np.int64)
    >>> values[0, 2] = 300
    >>> encode(values).hex(" ")
    '01 11 00 00 00 00 00 00 00 01 00 02 00 2c 01'
    """
    channels, items = values_CN.shape
    assert channels == NUM_CHANNELS and items <= CHUNK_ITEMS, values_CN.shape
    channel, position = np.nonzero(values_CN)
    return encode_cells(channel * CHUNK_ITEMS + position, values_CN[channel, position], 1)[0]


def encode_cells(keys: Ints, values: Ints, num_tiles: int) -> list[bytes]:
    """The canonical bytes of many sparse tiles at once, without a Python object per cell.

    Args:
        keys: int64, strictly rising, `tile * 8192 + cell` with `tile < num_tiles`.
        values: int64, one for each key, all positive.
        num_tiles: How many tiles; one without keys is encoded as empty.
    """
    if not len(keys):
        return [bytes([FORMAT_VERSION]) + bytes(NUM_CHANNELS)] * num_tiles
    assert values.min() > 0, "a tile holds positive integers only"
    runs = _Runs(keys, values)
    starts = _tile_starts(runs, num_tiles)
    out = np.zeros(int(starts[-1]), np.uint8)
    out[starts[:-1]] = FORMAT_VERSION
    runs.write(out, starts)
    data = out.tobytes()
    edges = starts.tolist()
    return [data[start:end] for start, end in pairwise(edges)]


class _Runs:
    """Cells grouped by (tile, channel): each run is one channel of one tile that is present."""

    def __init__(self, keys: Ints, values: Ints) -> None:
        self.positions = keys & (CHUNK_ITEMS - 1)
        self.values = values
        run_of_key = keys >> 10
        first = np.flatnonzero(np.concatenate(([True], run_of_key[1:] != run_of_key[:-1])))
        self.first = first
        self.id = run_of_key[first]
        self.count = np.diff(np.append(first, len(keys)))
        self.length = self.positions[first + self.count - 1] + 1
        largest = np.maximum.reduceat(values, first)
        self.log_width = np.searchsorted(_WIDTH_LIMITS, largest, side="right")
        width = 1 << self.log_width
        sparse_bytes = 2 + self.count * (2 + width)
        dense_bytes = 2 + self.length * width
        self.dense = dense_bytes <= sparse_bytes
        self.num_bytes = np.where(self.dense, dense_bytes, sparse_bytes)

    def write(self, out: Bytes, tile_starts: Ints) -> None:
        """Fill in descriptors, counts, positions and values."""
        tile = self.id >> 3
        form = np.where(self.dense, _DENSE, _SPARSE)
        out[tile_starts[tile] + 1 + (self.id & 7)] = form | (self.log_width << 4)
        start = self._starts(tile, tile_starts)
        _scatter(out, start, np.where(self.dense, self.length, self.count), _U16)

        run = np.repeat(np.arange(len(self.id)), self.count)
        rank = np.arange(len(self.values)) - self.first[run]
        dense = self.dense[run]
        place = start[run] + 2
        _scatter(out, (place + 2 * rank)[~dense], self.positions[~dense], _U16)
        slot = np.where(dense, self.positions, rank) << self.log_width[run]
        place += slot + np.where(dense, 0, 2 * self.count[run])
        for log_width, dtype in enumerate(_WIDTHS):
            chosen = self.log_width[run] == log_width
            _scatter(out, place[chosen], self.values[chosen], dtype)

    def _starts(self, tile: Ints, tile_starts: Ints) -> Ints:
        """Where each run begins: after the tile's header and the runs of the same tile before
        it.
        """
        before: Ints = np.cumsum(self.num_bytes) - self.num_bytes
        first_of_tile = np.searchsorted(tile, tile, side="left")
        return tile_starts[tile] + _HEADER_BYTES + before - before[first_of_tile]


def _tile_starts(runs: _Runs, num_tiles: int) -> Ints:
    sizes = np.full(num_tiles, _HEADER_BYTES, np.int64)
    np.add.at(sizes, runs.id >> 3, runs.num_bytes)
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))


def _scatter(out: Bytes, places: Ints, numbers: Ints, dtype: np.dtype[np.unsignedinteger]) -> None:
    """Write each number's little-endian bytes at its place."""
    if len(places):
        numbers_NB = numbers.astype(dtype).view(np.uint8).reshape(-1, dtype.itemsize)
        out[places[:, None] + np.arange(dtype.itemsize)] = numbers_NB


def decode(data: bytes) -> Ints:
    """The tile as int64 [8, 1024]; zeros where it holds nothing.

    Raises:
        StoreError: The bytes are not a tile.
    """
    return decode_channels(data, tuple(range(NUM_CHANNELS)))


def decode_channels(data: bytes, channels: tuple[int, ...], out: Ints | None = None) -> Ints:
    """Some channels of a tile, int64 [len(channels), 1024], in the order asked for.

    Args:
        data: A tile's bytes.
        channels: Which channels, each 0 to 7.
        out: An array of that shape to write into; what it held is overwritten.

    Raises:
        StoreError: The bytes are not a tile.
    """
    values_CN = np.zeros((len(channels), CHUNK_ITEMS), np.int64) if out is None else out
    if out is not None:
        values_CN[...] = 0
    row_of = {channel: row for row, channel in enumerate(channels)}
    for channel, positions, values in _parse(data):
        row = row_of.get(channel)
        if row is not None:
            values_N = values_CN[row]
            values_N[slice(len(values)) if positions is None else positions] = values
    return values_CN


def decode_cells(data: bytes) -> tuple[npt.NDArray[np.uint16], Ints]:
    """The tile's non-zero cells (rising) and their values, for a fold that never makes it dense."""
    cells: list[npt.NDArray[np.uint16]] = []
    values: list[npt.NDArray[np.unsignedinteger]] = []
    for channel, positions, numbers in _parse(data):
        if positions is None:
            positions = np.flatnonzero(numbers).astype(np.uint16)
            numbers = numbers[positions]
        cells.append(positions + np.uint16(channel * CHUNK_ITEMS))
        values.append(numbers)
    if not cells:
        return np.empty(0, np.uint16), np.empty(0, np.int64)
    return np.concatenate(cells), np.concatenate(values, dtype=np.int64, casting="unsafe")


_Run = tuple[int, npt.NDArray[np.uint16] | None, npt.NDArray[np.unsignedinteger]]


def _parse(data: bytes) -> list[_Run]:
    """Each present channel as (channel, positions or None when dense from 0 on, values); views into
    the bytes.

    Raises:
        StoreError: The bytes are not a tile.
    """
    if len(data) < _HEADER_BYTES or data[0] != FORMAT_VERSION:
        raise _broken(data, f"it does not begin with format version {FORMAT_VERSION}")
    found: list[_Run] = []
    place = _HEADER_BYTES
    for channel in range(NUM_CHANNELS):
        descriptor = data[1 + channel]
        if descriptor == _ABSENT:
            continue
        form, log_width = descriptor & 15, descriptor >> 4
        if form > _DENSE or form == _ABSENT or log_width >= len(_WIDTHS) or place + 2 > len(data):
            raise _broken(
                data, f"channel {channel} has descriptor {descriptor} at byte {1 + channel}"
            )
        count = data[place] | data[place + 1] << 8
        place += 2
        dtype = _WIDTHS[log_width]
        end = place + count * (dtype.itemsize + (2 if form == _SPARSE else 0))
        if not 0 < count <= CHUNK_ITEMS or end > len(data):
            raise _broken(data, f"channel {channel} announces {count} values at byte {place - 2}")
        positions = None
        if form == _SPARSE:
            positions = np.frombuffer(data, _U16, count, place)
            place += 2 * count
            if positions[-1] >= CHUNK_ITEMS or not (positions[1:] > positions[:-1]).all():
                raise _broken(
                    data, f"channel {channel} has positions that do not rise below {CHUNK_ITEMS}"
                )
        found.append((channel, positions, np.frombuffer(data, dtype, count, place)))
        place = end
    if place != len(data):
        raise _broken(data, f"it goes on after byte {place}")
    return found


def _broken(data: bytes, what: str) -> StoreError:
    return StoreError(
        f"a tile of {len(data)} bytes cannot be read: {what}",
        hint="the windows were altered or written by another version; "
        "`freshet ingest --from-beginning --into GENERATION` folds them anew",
    )
