"""One generation's newest buckets, summed over its partitions, each followed by what changes.

Dimensions: C channels, N columns of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import redis

from freshet.stream.arrays import Ints
from freshet.stream.read.follow import Change, Look, PartitionFollower, TileId, Tiles
from freshet.stream.read.progress import Input, InputState, ReadRules
from freshet.stream.read.ring import NUM_CHANNELS, Ring, Touched
from freshet.stream.store.generation import GENERATION_KEY, later_generation
from freshet.stream.store.layout import Header, Keys, partitions_key
from freshet.stream.store.tiles import CHUNK_ITEMS, decode

NOT_OWNED = -1
_NOTHING = np.zeros((NUM_CHANNELS, CHUNK_ITEMS), dtype=np.int64)


class ItemRows:
    """The row of each item, in the order in which items were first seen; rows are never taken away.

    Args:
        owns: Which items get a row; None is all.
    """

    def __init__(self, owns: Callable[[str], bool] | None = None) -> None:
        self._owns = owns
        self._row_of: dict[str, int] = {}
        self.item_ids: list[str] = []

    def find(self, item_id: str) -> int | None:
        """The row of an item, or None when it has none."""
        return self._row_of.get(item_id)

    def give(self, item_id: str) -> int:
        """The row of an item, a new one at its first time; `NOT_OWNED` where it gets none."""
        if self._owns is not None and not self._owns(item_id):
            return NOT_OWNED
        row = self._row_of.setdefault(item_id, len(self.item_ids))
        if row == len(self.item_ids):
            self.item_ids.append(item_id)
        return row


@dataclass(slots=True)
class HeldPart:
    """What of one partition is in the ring.

    Attributes:
        follower: Up to which offset it was read.
        tiles: The bytes of its tiles, by bucket and chunk, so that a difference is exact.
        row_of_slot: int64, the row of the item in each slot of the partition's dictionary.
    """

    follower: PartitionFollower
    tiles: dict[int, dict[int, bytes]] = field(default_factory=dict)
    row_of_slot: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def tile_ids(self) -> list[TileId]:
        """All that are held."""
        return [(bucket, chunk) for bucket, chunks in self.tiles.items() for chunk in chunks]

    def columns(self, chunk: int) -> tuple[Ints | slice, Ints]:
        """Columns of a chunk whose items have a row, and those rows."""
        row_N = self.row_of_slot[chunk * CHUNK_ITEMS : (chunk + 1) * CHUNK_ITEMS]
        column_N = np.flatnonzero(row_N >= 0)
        if len(column_N) == len(row_N):
            # Every item has one: a slice takes a view where an index would copy.
            return slice(0, len(row_N)), row_N
        return column_N, row_N[column_N]


class MergedWindows:
    """The newest buckets of one generation: `look` asks what moved, `take_in` reads it.

    Args:
        client: From `freshet.stream.store.connection.connect`.
        generation: Which windows.
        rules: The settings under which they were folded.
        ring: Where sums are kept; empty.
        rows: The rows of items; outlives this generation.
        changes: Where it is noted which cells changed.
    """

    def __init__(
        self,
        client: redis.Redis,
        generation: int,
        *,
        rules: ReadRules,
        ring: Ring,
        rows: ItemRows,
        changes: Touched,
    ) -> None:
        self.client = client
        self.generation = generation
        self.rules = rules
        self.ring = ring
        self.inputs: dict[Input, InputState] = {}
        self.parts: dict[Input, HeldPart] = {}
        self._grid = rules.grid
        self._rows = rows
        self._changes = changes
        ring.grow(len(rows.item_ids))

    # What moved -----------------------------------------------------------------------------------

    def look(self) -> tuple[int, dict[Input, Look]]:
        """The generation that is current now, and a look at every partition of ours.

        One round trip, and a second one for partitions that are new.
        """
        pipe = self.client.pipeline(transaction=False)
        pipe.get(GENERATION_KEY)
        pipe.smembers(partitions_key(self.generation))
        (current, members), looks = _ask(pipe, self.parts)

        new = sorted({input_of(member) for member in members} - self.parts.keys())
        if new:
            begun = {at: self._begin(at) for at in new}
            self.parts |= begun
            looks |= _ask(self.client.pipeline(transaction=False), begun)[1]
        return later_generation(current, self.generation), looks

    def _begin(self, at: Input) -> HeldPart:
        keys = Keys(self.generation, *at)
        return HeldPart(PartitionFollower(self.client, keys, self._grid))

    # Taking it in ---------------------------------------------------------------------------------

    def take_in(self, looks: dict[Input, Look]) -> tuple[Input, ...]:
        """Take in every partition that moved; those that moved back are left as they were.

        Returns:
            The partitions that moved back.

        Raises:
            OtherFormatError: Another version wrote them; nothing was taken in.
        """
        for look in looks.values():
            look.check(self.generation)
        headers = [look.header for look in looks.values()]
        self._advance(header.frontier_ms for header in headers if header is not None)
        behind = [at for at, look in looks.items() if self.parts[at].follower.moved_back(look)]
        for at, look in looks.items():
            if look.header is not None and at not in behind:
                self._take(at, look, look.header)
        return tuple(behind)

    def _take(self, at: Input, look: Look, header: Header) -> None:
        part = self.parts[at]
        if part.follower.moved(look, self.ring.span.buckets):
            change = part.follower.read(look, self.ring.span.buckets)
            if change is None:
                return
            self._apply(part, change)
            part.follower.accept(change, self.ring.span.buckets)
            header = change.header
        self.inputs[at] = InputState.of(header)

    def _advance(self, frontiers_ms: Iterable[int | None]) -> None:
        """Move the ring on to the furthest frontier; forget the tiles that leave it.

        Never to an event that is ahead of it: one wrong clock would empty the ring.
        """
        heads = [self._grid.bucket(at_ms) for at_ms in frontiers_ms if at_ms is not None]
        if not heads:
            return
        for bucket in self.ring.advance(max(heads)):
            for part in self.parts.values():
                part.tiles.pop(bucket, None)

    def _apply(self, part: HeldPart, change: Change) -> None:
        """Bring what is held of a partition to the state that was read."""
        if change.restarted:
            # Nothing of another log stays, not even which item a slot stood for.
            self._replace(part, dict.fromkeys(part.tile_ids))
            part.row_of_slot = part.row_of_slot[:0]
        rows = [self._rows.give(item_id) for item_id in change.item_ids]
        part.row_of_slot = np.concatenate([part.row_of_slot, np.array(rows, dtype=np.int64)])
        self.ring.grow(len(self._rows.item_ids))
        self._advance([change.header.frontier_ms])
        # Of a full read, what is held and was not found is gone.
        gone: Tiles = dict.fromkeys(part.tile_ids) if change.full else {}
        self._replace(part, gone | change.tiles)

    def _replace(self, part: HeldPart, tiles: Tiles) -> None:
        """Put tiles in place of those that are held.

        The ring holds sums over all partitions, so nothing of it can be overwritten by one of
        them: what a tile adds to the ring is its difference to what the partition had there.
        """
        columns: dict[int, tuple[Ints | slice, Ints]] = {}
        for (bucket, chunk), data in tiles.items():
            if bucket not in self.ring.span:
                continue
            held = part.tiles.setdefault(bucket, {})
            before = held.get(chunk)
            if before == data:
                continue
            if chunk not in columns:
                columns[chunk] = part.columns(chunk)
            column_N, row_N = columns[chunk]
            difference_CN = _values(data)[:, column_N]
            if before is not None:
                difference_CN = difference_CN - decode(before)[:, column_N]
            if data is None:
                del held[chunk]
            else:
                held[chunk] = data
            touched_N = difference_CN.any(axis=0)
            if touched_N.any():
                self.ring.add(bucket, row_N, difference_CN)
                self._changes.note(bucket, row_N[touched_N])


def _ask(pipe: Any, parts: dict[Input, HeldPart]) -> tuple[list[Any], dict[Input, Look]]:
    """Run a pipe with the parts' questions at its end: its own answers, and theirs as looks."""
    own = len(pipe)
    for part in parts.values():
        part.follower.ask(pipe)
    answers = pipe.execute()
    pairs = zip(answers[own::2], answers[own + 1 :: 2], strict=True)
    return answers[:own], {at: Look.of(*pair) for at, pair in zip(parts, pairs, strict=True)}


def _values(data: bytes | None) -> Ints:
    return _NOTHING if data is None else decode(data)


def input_of(member: bytes) -> Input:
    """The topic and partition of a member of a generation's set of partitions.

    >>> input_of(b"freshet.orders.v1:3")
    ('freshet.orders.v1', 3)
    """
    topic, _, partition = member.decode().rpartition(":")
    return topic, int(partition)
