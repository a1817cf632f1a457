"""One partition's stored windows, read as they were at one offset, then followed by what changed.

A look costs one round trip and tells header and changed tiles. When something moved, the tiles, the
header and the index are read in one MULTI; if the index then names a tile that was not read, it is
read again with it. Many tiles are read in pieces beforehand, so that Redis is never held up: those
that changed meanwhile are in the index and are read again in the MULTI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from freshet.stream.errors import StoreError
from freshet.stream.read.ring import Ints
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header, Keys
from freshet.stream.store.tiles import CHUNK_ITEMS

MAX_ATOMIC_TILES = 256
MAX_REREADS = 16

TileId = tuple[int, int]
"""Bucket number and chunk."""


@dataclass(frozen=True, slots=True)
class Look:
    """A partition's header and the tiles changed since the offset that was asked about, not read at
    one moment.
    """

    header: Header | None
    changed: frozenset[TileId]

    @classmethod
    def of(cls, fields: Mapping[bytes, bytes] | list[bytes], members: Iterable[bytes]) -> Look:
        """Understand the two answers; a partition that was claimed but never written counts as
        nothing.
        """
        if isinstance(fields, list):  # A transaction on a cluster hands over what the server sent.
            fields = dict(zip(fields[::2], fields[1::2], strict=True))
        header = Header.parse(fields) if fields else None
        if header is None or header.next_offset is None:
            return cls(None, frozenset())
        return cls(header, _tile_ids(members))

    @property
    def offset(self) -> int:
        """The next offset of the state seen; -1 when there is none."""
        offset = None if self.header is None else self.header.next_offset
        return -1 if offset is None else offset


@dataclass(frozen=True, slots=True)
class Change:
    """How to come from what was known to the state at `header.next_offset`.

    Attributes:
        header: The partition's header at that offset.
        restarted: Nothing that was known before belongs to this state: another log.
        full: `tiles` holds every tile there is; otherwise those that changed, None for removed
            ones.
        item_ids: New items, in the order of their slots.
        tiles: Bytes of tiles.
    """

    header: Header
    restarted: bool
    full: bool
    item_ids: list[str]
    tiles: dict[TileId, bytes | None]


class PartitionFollower:
    """Reads one partition; remembers only up to which offset, and how many items it named."""

    def __init__(self, client: Any, keys: Keys, grid: Grid) -> None:
        self._client = client
        self._keys = keys
        self._grid = grid
        self.offset = -1
        self.first_offset: int | None = None
        self.num_items = 0

    def ask(self, pipe: Any, since: int | None = None) -> None:
        """Queue a look at what changed after the offset known here, or after another: two
        commands.
        """
        pipe.hgetall(self._keys.header)
        since = self.offset if since is None else since
        pipe.zrangebyscore(self._keys.index(self._grid.resolution_ms), f"({since}", "+inf")

    def moved_back(self, look: Look) -> bool:
        """Whether Redis holds less than is known here: it lost its newest writes and waits for a
        replay.
        """
        if self.first_offset is None:
            return False
        header = look.header
        return header is None or (
            header.first_offset == self.first_offset and look.offset < self.offset
        )

    def read(self, look: Look, buckets: range) -> Change | None:
        """Read what moved; None when it kept moving meanwhile, then the next look tells more.

        Args:
            look: An answer that says that something moved.
            buckets: What a full read wants.
        """
        seen = look.header
        assert seen is not None and not self.moved_back(look)
        restarted = self.first_offset is not None and self.first_offset != seen.first_offset
        full = self.first_offset is None or restarted or self.offset < seen.index_floor
        wanted = _all_tiles(seen, self._grid, buckets) if full else set(look.changed)
        tiles: dict[TileId, bytes | None] = {}
        since = self.offset
        if full or len(wanted) > MAX_ATOMIC_TILES:
            tiles = self._read_pieces(sorted(wanted))
            wanted, since = set(), look.offset
        header = self._read_rest(seen, since, wanted, tiles)
        if header is None:
            return None
        item_ids = self._read_items(0 if restarted else self.num_items, header.items)
        return None if item_ids is None else Change(header, restarted, full, item_ids, tiles)

    def accept(self, change: Change) -> None:
        """From now on, follow what changed after this."""
        assert change.header.next_offset is not None
        self.offset, self.first_offset = change.header.next_offset, change.header.first_offset
        self.num_items = change.header.items

    def _read_rest(
        self, seen: Header, since: int, wanted: set[TileId], tiles: dict[TileId, bytes | None]
    ) -> Header | None:
        """Add to `tiles` what changed after `since`, all at one moment; the header of that
        moment.
        """
        for _ in range(MAX_REREADS):
            order = sorted(wanted)
            pipe = self._client.pipeline(transaction=True)
            self.ask(pipe, since)
            if order:
                # By name: a cluster's pipeline has no `mget`, for fear of keys of several slots.
                pipe.execute_command(
                    "MGET", *(self._keys.tile(self._grid.resolution_ms, *tile) for tile in order)
                )
            fields, members, *values = pipe.execute()
            look = Look.of(fields, members)
            if look.header is None or look.header.first_offset != seen.first_offset:
                return None
            if look.offset < since or look.header.index_floor > since:
                return None
            if look.changed <= wanted:
                tiles.update(zip(order, values[0] if order else [], strict=True))
                return look.header
            wanted |= look.changed
        return None

    def _read_pieces(self, order: list[TileId]) -> dict[TileId, bytes | None]:
        tiles: dict[TileId, bytes | None] = {}
        for first in range(0, len(order), MAX_ATOMIC_TILES):
            piece = order[first : first + MAX_ATOMIC_TILES]
            values = self._client.mget(
                [self._keys.tile(self._grid.resolution_ms, *tile) for tile in piece]
            )
            tiles.update(
                (tile, value)
                for tile, value in zip(piece, values, strict=True)
                if value is not None
            )
        return tiles

    def _read_items(self, first: int, end: int) -> list[str] | None:
        """Items of the slots [first, end), None if some are gone; a dictionary only grows, so it
        needs no MULTI.
        """
        item_ids: list[str] = []
        for chunk in range(first // CHUNK_ITEMS, -(-end // CHUNK_ITEMS)):
            slots = range(max(first, chunk * CHUNK_ITEMS), min(end, (chunk + 1) * CHUNK_ITEMS))
            if slots:
                values = self._client.hmget(
                    self._keys.dictionary(chunk), [str(slot % CHUNK_ITEMS) for slot in slots]
                )
                if None in values:
                    return None
                item_ids += [value.decode() for value in values]
        return item_ids


@dataclass(slots=True)
class HeldPart:
    """What a reader's ring holds of one partition: the tiles' bytes, so that a difference is exact,
    and items' rows.
    """

    follower: PartitionFollower
    tiles: dict[int, dict[int, bytes]] = field(default_factory=dict)
    row_of_slot: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def columns(self, chunk: int) -> tuple[Ints | slice, Ints]:
        """Columns of a chunk whose items have a row, and those rows."""
        row_N = self.row_of_slot[chunk * CHUNK_ITEMS : (chunk + 1) * CHUNK_ITEMS]
        column_N = np.flatnonzero(row_N >= 0)
        if len(column_N) == len(row_N):
            return slice(0, len(row_N)), row_N
        return column_N, row_N[column_N]


def _tile_ids(members: Iterable[bytes]) -> frozenset[TileId]:
    try:
        return frozenset(
            (int(bucket), int(chunk))
            for bucket, chunk in (member.split(b":") for member in members)
        )
    except ValueError:
        raise StoreError(
            "the index of changed tiles holds a member that is not <bucket>:<chunk>"
        ) from None


def _all_tiles(header: Header, grid: Grid, buckets: range) -> set[TileId]:
    """Every tile of these buckets that could be there: from the first event to the newest."""
    newest_ms = header.newest_ms
    if newest_ms is None or header.first_event_ms is None:
        return set()
    first = max(buckets.start, grid.bucket(header.first_event_ms))
    end = min(buckets.stop, grid.bucket(newest_ms) + 1)
    return {
        (bucket, chunk)
        for bucket in range(first, end)
        for chunk in range(-(-header.items // CHUNK_ITEMS))
    }
