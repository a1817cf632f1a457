"""One partition's stored windows, read as they were at one offset, then followed by what changed.

A look costs one round trip and tells header and changed tiles. When something moved, the tiles, the
header and the index are read in one MULTI; if the index then names a tile that was not read, it is
read again with it. Many tiles are read in pieces beforehand, so that Redis is never held up: those
that changed meanwhile are in the index and are read again in the MULTI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from freshet.stream.errors import StoreError
from freshet.stream.store.format import check_format
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header, Keys
from freshet.stream.store.tiles import CHUNK_ITEMS

MAX_ATOMIC_TILES = 256
MAX_REREADS = 16
MAX_AHEAD_BUCKETS = 4_096

TileId = tuple[int, int]
"""Bucket number and chunk."""

Tiles = dict[TileId, bytes | None]
"""What tiles hold; None where one was removed."""


@dataclass(frozen=True, slots=True)
class Look:
    """A partition's header, and the tiles changed since some offset; not read at one moment."""

    header: Header | None
    changed: frozenset[TileId]

    @classmethod
    def of(cls, fields: Mapping[bytes, bytes] | list[bytes], members: Iterable[bytes]) -> Look:
        """Understand the two answers; claimed but never written counts as nothing."""
        if isinstance(fields, list):  # A transaction on a cluster hands over what the server sent.
            fields = dict(zip(fields[::2], fields[1::2], strict=True))
        header = Header.parse(fields) if fields else None
        if header is None or header.next_offset is None:
            return cls(None, frozenset())
        return cls(header, _tile_ids(members))

    def check(self, generation: int) -> None:
        """Whether it may be read; raises OtherFormatError."""
        if self.header is not None:
            check_format(self.header.fingerprint, generation)

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
        full: `tiles` holds every tile there is; otherwise those that changed.
        item_ids: New items, in the order of their slots.
        tiles: What they hold.
    """

    header: Header
    restarted: bool
    full: bool
    item_ids: list[str]
    tiles: Tiles


class PartitionFollower:
    """Reads one partition; remembers up to which offset, how many items it named, what is ahead.

    Events may be ahead of the buckets that a reader holds, which end with the frontier. Which tiles
    changed there is remembered, and they are read once their buckets are held.

    Args:
        client: From `freshet.stream.store.connection.connect`.
        keys: Of the partition.
        grid: The buckets.
        chunks: Only the tiles of these chunks are read; None is all.
    """

    def __init__(
        self, client: Any, keys: Keys, grid: Grid, chunks: frozenset[int] | None = None
    ) -> None:
        self._client = client
        self._keys = keys
        self._grid = grid
        self._chunks = chunks
        self.offset = -1
        self.first_offset: int | None = None
        self.num_items = 0
        self._ahead: set[TileId] = set()

    def ask(self, pipe: Any, since: int | None = None) -> None:
        """Queue a look, two commands: header, and what changed after an offset (None: ours)."""
        since = self.offset if since is None else since
        pipe.hgetall(self._keys.header)
        pipe.zrangebyscore(self._keys.index(self._grid.resolution_ms), f"({since}", "+inf")

    def moved(self, look: Look, buckets: range = range(0)) -> bool:
        """Whether Redis holds more than is known here of these buckets, or another log."""
        header = look.header
        if header is None:
            return False
        further = look.offset > self.offset or bool(self._arrived(buckets))
        return further or header.first_offset != self.first_offset

    def moved_back(self, look: Look) -> bool:
        """Whether Redis holds less: it lost its newest writes and waits for a replay."""
        if self.first_offset is None:
            return False
        header = look.header
        if header is None:
            return True
        return header.first_offset == self.first_offset and look.offset < self.offset

    def read(self, look: Look, buckets: range) -> Change | None:
        """Read what moved; None when it kept moving meanwhile, then the next look tells more.

        Args:
            look: An answer that says that something moved.
            buckets: What a full read wants.
        """
        seen = look.header
        assert seen is not None and not self.moved_back(look)
        restarted = self.first_offset is not None and self.first_offset != seen.first_offset
        # Below its floor the index has forgotten what changed, so then everything is read.
        full = self.first_offset is None or restarted or self.offset < seen.index_floor
        wanted = self._ours(look.changed)
        if full:
            self._ahead = wanted | self._ours(self._in_index())
            wanted = self._ours(_all_tiles(seen, self._grid, buckets))
        wanted |= self._arrived(buckets)
        tiles: Tiles = {}
        since = self.offset
        if full or len(wanted) > MAX_ATOMIC_TILES:
            # In pieces, as of the look; what changed after it is then read at one moment.
            tiles = self._read_pieces(sorted(wanted))
            wanted, since = set(), look.offset
        header = self._read_at_once(seen, since, wanted, tiles)
        if header is None:
            return None
        item_ids = self._read_items(0 if restarted else self.num_items, header.items)
        return None if item_ids is None else Change(header, restarted, full, item_ids, tiles)

    def accept(self, change: Change, buckets: range) -> None:
        """From now on, follow what changed after this; of what it told, these buckets are held."""
        assert change.header.next_offset is not None
        told = self._ahead | change.tiles.keys()
        self._ahead = {tile for tile in told if tile[0] >= buckets.stop}
        self.offset = change.header.next_offset
        self.first_offset = change.header.first_offset
        self.num_items = change.header.items

    def _arrived(self, buckets: range) -> set[TileId]:
        """Tiles that were ahead when they changed, and are no more."""
        return {tile for tile in self._ahead if tile[0] in buckets}

    def _in_index(self) -> set[TileId]:
        """All tiles that the index names; what changed longest ago may have left it."""
        if self.offset < 0:
            return set()  # The look has just told them.
        index = self._keys.index(self._grid.resolution_ms)
        return set(_tile_ids(self._client.zrangebyscore(index, "-inf", "+inf")))

    def _read_at_once(
        self, seen: Header, since: int, wanted: set[TileId], tiles: Tiles
    ) -> Header | None:
        """Add to `tiles` what changed after `since`, as of one moment, whose header is returned."""
        for _ in range(MAX_REREADS):
            order = sorted(wanted)
            pipe = self._client.pipeline(transaction=True)
            self.ask(pipe, since)
            if order:
                # By name: a cluster's pipeline has no `mget`, for fear of keys of several slots.
                pipe.execute_command("MGET", *self._tile_keys(order))
            fields, members, *values = pipe.execute()
            look = Look.of(fields, members)
            if look.header is None or look.header.first_offset != seen.first_offset:
                return None
            if look.offset < since or look.header.index_floor > since:
                return None
            changed = self._ours(look.changed)
            if changed <= wanted:
                tiles.update(zip(order, values[0] if order else [], strict=True))
                return look.header
            wanted |= changed
        return None

    def _ours(self, tiles: Iterable[TileId]) -> set[TileId]:
        chunks = self._chunks
        return {tile for tile in tiles if chunks is None or tile[1] in chunks}

    def _read_pieces(self, order: list[TileId]) -> Tiles:
        tiles: Tiles = {}
        for first in range(0, len(order), MAX_ATOMIC_TILES):
            piece = order[first : first + MAX_ATOMIC_TILES]
            values = self._client.mget(self._tile_keys(piece))
            found = zip(piece, values, strict=True)
            tiles.update((tile, value) for tile, value in found if value is not None)
        return tiles

    def _tile_keys(self, order: list[TileId]) -> list[str]:
        return [self._keys.tile(self._grid.resolution_ms, *tile) for tile in order]

    def _read_items(self, first: int, end: int) -> list[str] | None:
        """Items of the slots [first, end), None if some are gone.

        A dictionary only grows, so it is read without a MULTI.
        """
        item_ids: list[str] = []
        for chunk in range(first // CHUNK_ITEMS, -(-end // CHUNK_ITEMS)):
            slots = range(max(first, chunk * CHUNK_ITEMS), min(end, (chunk + 1) * CHUNK_ITEMS))
            if slots:
                names = [str(slot % CHUNK_ITEMS) for slot in slots]
                values = self._client.hmget(self._keys.dictionary(chunk), names)
                if None in values:
                    return None
                item_ids += [value.decode() for value in values]
        return item_ids


def _tile_ids(members: Iterable[bytes]) -> frozenset[TileId]:
    try:
        pairs = [member.split(b":") for member in members]
        return frozenset((int(bucket), int(chunk)) for bucket, chunk in pairs)
    except ValueError:
        raise StoreError(
            "the index of changed tiles holds a member that is not <bucket>:<chunk>"
        ) from None


def _all_tiles(header: Header, grid: Grid, buckets: range) -> set[TileId]:
    """Every tile of these buckets that could be there: from the first event to the newest.

    Of an event far ahead of the frontier the index says which tile it is in.
    """
    newest_ms = header.newest_ms
    if newest_ms is None or header.first_event_ms is None:
        return set()
    if header.frontier_ms is not None:
        newest_ms = min(newest_ms, header.frontier_ms + MAX_AHEAD_BUCKETS * grid.resolution_ms)
    first = max(buckets.start, grid.bucket(header.first_event_ms))
    end = min(buckets.stop, grid.bucket(newest_ms) + 1)
    num_chunks = -(-header.items // CHUNK_ITEMS)
    return {(bucket, chunk) for bucket in range(first, end) for chunk in range(num_chunks)}
