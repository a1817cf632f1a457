"""The two parts of a partition's state that grow with its log, as writes: tiles, dedupe minutes.

Both load lazily what Redis has, keep what they will need again, and learn of a write only once it
is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from freshet.stream.config import Settings
from freshet.stream.errors import StoreError
from freshet.stream.fold.additions import (
    NO_CELLS,
    Additions,
    Cells,
    TileCache,
    TileName,
    add_to,
    split_tiles,
    sum_by_tile,
)
from freshet.stream.fold.dedupe import Entries, SeenHashes, first_live_minute, minute_expiry_ms
from freshet.stream.store.generation import NEW_GENERATION_HINT
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Keys, MinuteAppend, TileWrites
from freshet.stream.store.tiles import decode_cells, encode_cells
from freshet.stream.units import MINUTE_MS

MANY_MINUTES: Final = 50_000
"""More than five weeks: one event decades ahead, of history or of a wrong clock, makes millions,
nearly all empty. Then it is asked first which there are, in one answer."""

Read = Callable[[Sequence[str]], list[bytes | None]]
"""Values of string keys in Redis."""

ChangedTiles = list[tuple[TileName, Cells]]
_ENTRY = np.dtype([("hash", "<u8"), ("content", "<u4")])


class TileFolder:
    """Adds lines to tiles of all resolutions."""

    def __init__(self, read: Read, keys: Keys, settings: Settings) -> None:
        zone = settings.calendar.time_zone
        self._read = read
        self._keys = keys
        self._grids = [
            (Grid(width.resolution_ms, zone), width.buckets)
            for width in settings.windows.resolutions
        ]
        self._cache = TileCache(settings.ingest.max_cached_tiles)

    def fold(
        self, additions: Additions, *, newest_ms: int, watermark_ms: int
    ) -> tuple[list[TileWrites], ChangedTiles]:
        """New absolute tiles after a batch.

        Those of all resolutions are read, added up and encoded together.

        Args:
            additions: What its applied lines add.
            newest_ms: Before the batch: no bucket that begins after it has a tile yet.
            watermark_ms: After the batch: decides which buckets are still retained.

        Raises:
            StoreError: A sum would leave a tile's integers; nothing was changed.
        """
        try:
            return self._fold(additions, newest_ms, watermark_ms)
        except OverflowError:
            raise StoreError(
                f"{self._keys.topic}:{self._keys.partition}: what is sold of one item in one "
                "bucket is more than a tile holds",
                hint="is a price or a quantity mapped in too small a unit? Mend the map, then "
                + NEW_GENERATION_HINT,
            ) from None

    def _fold(
        self, additions: Additions, newest_ms: int, watermark_ms: int
    ) -> tuple[list[TileWrites], ChangedTiles]:
        sums = sum_by_tile(additions, self._grids, watermark_ms)
        widths = [self._grids[place][0].resolution_ms for place in sums.place.tolist()]
        names = list(zip(widths, sums.bucket.tolist(), sums.chunk.tolist(), strict=True))
        newest = {grid.resolution_ms: grid.bucket(newest_ms) for grid, _ in self._grids}
        keys, values = add_to(self._stored(names, newest), sums)
        data = encode_cells(keys, values, len(names))
        edges = np.searchsorted(sums.place, np.arange(len(self._grids) + 1)).tolist()
        writes = []
        for place, (grid, count) in enumerate(self._grids):
            own = slice(edges[place], edges[place + 1])
            texts = [f"{bucket}:{chunk}" for _, bucket, chunk in names[own]]
            expiries_ms = [grid.expiry_ms(bucket, count) for _, bucket, _ in names[own]]
            writes.append(TileWrites(grid.resolution_ms, texts, data[own], expiries_ms))
        changed = zip(names, split_tiles(keys, values, len(names)), strict=True)
        return writes, list(changed)

    def _stored(self, names: list[TileName], newest: dict[int, int]) -> list[Cells]:
        """What each tile holds so far; Redis is not asked for buckets after the newest one."""
        tiles = [NO_CELLS] * len(names)
        missing: list[int] = []
        for n, name in enumerate(names):
            resolution_ms, bucket, _ = name
            cached = self._cache.get(name)
            if cached is not None:
                tiles[n] = cached
            elif bucket <= newest[resolution_ms]:
                missing.append(n)
        stored = self._read([self._keys.tile(*names[n]) for n in missing])
        for n, data in zip(missing, stored, strict=True):
            if data is not None:
                tiles[n] = decode_cells(data)
        return tiles

    def remember(self, changed: ChangedTiles) -> None:
        """These tiles were written."""
        for name, cells in changed:
            self._cache.put(name, cells)


class MinuteLog:
    """Applied events: all in `seen`, and the size of each live minute in Redis."""

    def __init__(
        self, read: Read, keys: Keys, allowed_lateness_ms: int, listed: Callable[[], Sequence[int]]
    ) -> None:
        self.seen = SeenHashes()
        self._read = read
        self._listed = listed
        self._keys = keys
        self._allowed_lateness_ms = allowed_lateness_ms
        self._num_bytes: dict[int, int] = {}

    def load(self, first_ms: int, newest_ms: int, watermark_ms: int) -> None:
        """Read the minutes that still make duplicates, of events from `first_ms` to `newest_ms`."""
        oldest_live = first_live_minute(watermark_ms, self._allowed_lateness_ms)
        oldest = max(oldest_live, first_ms // MINUTE_MS)
        minutes: Sequence[int] = range(oldest, newest_ms // MINUTE_MS + 1)
        if len(minutes) > MANY_MINUTES:
            minutes = [minute for minute in self._listed() if minute in minutes]
        stored = self._read([self._keys.minute(minute) for minute in minutes])
        for minute, data in zip(minutes, stored, strict=True):
            if data:
                self.seen.add(_entries(data, [minute], [len(data)]), oldest_minute=oldest)
                self._num_bytes[minute] = len(data)

    def appends(self, applied: Entries, watermark_ms: int) -> list[MinuteAppend]:
        """What a batch's applied records add to the minutes that are still live after it.

        In log order, at absolute places.
        """
        first_live = first_live_minute(watermark_ms, self._allowed_lateness_ms)
        live = applied.chosen(applied.minutes >= first_live)
        if not len(live):
            return []
        minutes = live.minutes
        entries = np.empty(len(live), _ENTRY)
        entries["hash"], entries["content"] = live.hashes, live.contents
        order = np.argsort(minutes, kind="stable")
        appends = []
        for group in np.split(order, np.flatnonzero(np.diff(minutes[order])) + 1):
            minute = int(minutes[group[0]])
            expiry_ms = minute_expiry_ms(minute, self._allowed_lateness_ms)
            num_bytes_before = self._num_bytes.get(minute, 0)
            data = entries[group].tobytes()
            appends.append(MinuteAppend(minute, expiry_ms, num_bytes_before, data))
        return appends

    def remember(self, appends: Sequence[MinuteAppend], watermark_ms: int) -> None:
        """These entries were written; forget the minutes that the watermark left behind."""
        oldest = first_live_minute(watermark_ms, self._allowed_lateness_ms)
        for append in appends:
            self._num_bytes[append.minute] = append.num_bytes_before + len(append.data)
        live = {minute: size for minute, size in self._num_bytes.items() if minute >= oldest}
        self._num_bytes = live
        if appends:
            data = b"".join(append.data for append in appends)
            sizes = [len(append.data) for append in appends]
            new = _entries(data, [append.minute for append in appends], sizes)
            self.seen.add(new, oldest_minute=oldest)


def _entries(data: bytes, minutes: list[int], num_bytes: list[int]) -> Entries:
    """The entries of some minutes, one after the other, of so many bytes each."""
    entries = np.frombuffer(data, _ENTRY)
    counts = np.array(num_bytes) // _ENTRY.itemsize
    hashes, contents = entries["hash"].astype(np.uint64), entries["content"].astype(np.uint32)
    return Entries(hashes, np.repeat(np.array(minutes, np.int64), counts), contents)
