"""Units of a few items by one resolution, followed by what changes: what a page looks at.

A `WindowReader` holds every tile of every item. Here only the chunks that hold an item in question
are read, and of them only the columns of those items are kept.

Dimensions: B buckets, N columns of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import redis

from freshet.stream.arrays import Bools, Ints
from freshet.stream.read import progress
from freshet.stream.read.follow import Change, Look, PartitionFollower
from freshet.stream.read.merge import input_of
from freshet.stream.read.progress import Input, InputState, ReadRules
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.connection import translated
from freshet.stream.store.generation import GENERATION_KEY, later_generation
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header, Keys, partitions_key
from freshet.stream.store.tiles import CHUNK_ITEMS, decode_channels

UNITS = CHANNELS.index("units")
MAX_KEPT_ITEMS = 512
NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class FewCells:
    """Units of some items in a row of buckets, as stored integers; open buckets count too.

    Attributes:
        first: Number of the first bucket.
        units: int64[B] of each item that was ever sold.
        observed_B: Where a 0 says that nothing was sold; False for open buckets and for those whose
            beginning is not known.
        offsets: Up to where each partition was read, as `topic:partition`.
        reached_ms: All partitions have come so far; None before data.
    """

    grid: Grid
    first: int = 0
    units: Mapping[str, Ints] = field(default_factory=dict)
    observed_B: Bools = field(default_factory=lambda: np.zeros(0, bool))
    offsets: Mapping[str, int] = field(default_factory=dict)
    reached_ms: int | None = None

    @property
    def known_from_ms(self) -> int | None:
        """Start of the first bucket that is observed; None where none is."""
        known = np.flatnonzero(self.observed_B)
        return self.grid.start_ms(self.first + int(known[0])) if len(known) else None

    @property
    def known_to_ms(self) -> int | None:
        """End of the last bucket that is observed."""
        known = np.flatnonzero(self.observed_B)
        return self.grid.end_ms(self.first + int(known[-1])) if len(known) else None

    def of(self, item_id: str) -> Ints:
        """An item's units, int64[B]; zeros where it never sold."""
        return self.units.get(item_id, np.zeros(len(self.observed_B), np.int64))


@dataclass(slots=True)
class _Part:
    """What is held of a partition: which slot each item has, and the wanted columns of tiles."""

    follower: PartitionFollower
    slots: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    cells: dict[int, dict[int, Ints]] = field(default_factory=dict)

    def positions(self, chunk: int) -> Ints:
        """Where in a chunk the wanted items are, int64[N]."""
        ours = [slot for slot in self.wanted.values() if slot // CHUNK_ITEMS == chunk]
        return np.array(ours, np.int64) % CHUNK_ITEMS

    @property
    def chunks(self) -> frozenset[int]:
        return frozenset(slot // CHUNK_ITEMS for slot in self.wanted.values())


class FewItems:
    """The newest `num_buckets` buckets of those items that are asked for.

    Each partition is as it was at one offset. What Redis loses in a crash is kept until it has been
    replayed.

    Args:
        client: From `freshet.stream.store.connection.connect`.
        generation: Which windows to begin with; a later one is followed once it is current.
        rules: `ReadRules.of(settings, resolution_ms)`.
        num_buckets: How many to hold, counted from the furthest frontier.
    """

    def __init__(
        self, client: redis.Redis, generation: int, rules: ReadRules, num_buckets: int
    ) -> None:
        self._client: Any = client
        self._rules = rules
        self._num_buckets = num_buckets
        self._begin(generation)

    def _begin(self, generation: int) -> None:
        self.generation = generation
        self._items: frozenset[str] = frozenset()
        self._parts: dict[Input, _Part] = {}
        self._inputs: dict[Input, InputState] = {}
        self._head: int | None = None

    def read(self, item_ids: frozenset[str]) -> FewCells:
        """The items' units as they are now; blocks for one round trip when nothing moved.

        Raises:
            StoreUnavailableError: Redis does not answer.
            StoreError: What is stored cannot be read.
        """
        with translated(self._client):
            looks = self._look()
            self._want(item_ids)
            self._advance(look.header for look in looks.values())
            for at, look in looks.items():
                if look.header is not None and not self._parts[at].follower.moved_back(look):
                    self._take(at, look, look.header)
        return self._cells(item_ids)

    # What moved -----------------------------------------------------------------------------------

    def _look(self) -> dict[Input, Look]:
        said, members = self._ask_which()
        current = later_generation(said, self.generation)
        if current != self.generation:
            self._begin(current)
            said, members = self._ask_which()
        for at in sorted(map(input_of, members)):
            if at[0] == self._rules.orders_topic and at not in self._parts:
                self._parts[at] = _Part(self._follower(at, frozenset()))
        pipe = self._client.pipeline(transaction=False)
        for part in self._parts.values():
            part.follower.ask(pipe)
        answers = pipe.execute()
        pairs = zip(answers[::2], answers[1::2], strict=True)
        looks = {at: Look.of(*pair) for at, pair in zip(self._parts, pairs, strict=True)}
        self._follow_rules(looks)
        return looks

    def _ask_which(self) -> tuple[bytes | None, list[bytes]]:
        pipe = self._client.pipeline(transaction=False)
        pipe.get(GENERATION_KEY)
        pipe.smembers(partitions_key(self.generation))
        said, members = pipe.execute()
        return said, list(members)

    def _follow_rules(self, looks: dict[Input, Look]) -> None:
        """Buckets are those under which the windows were folded, whatever our settings say."""
        for look in looks.values():
            look.check(self.generation)
            if look.header is not None and look.header.fingerprint:
                self._rules = self._rules.as_folded(look.header.fingerprint)
                return

    def _follower(self, at: Input, chunks: frozenset[int]) -> PartitionFollower:
        return PartitionFollower(self._client, Keys(self.generation, *at), self._rules.grid, chunks)

    def _want(self, item_ids: frozenset[str]) -> None:
        """Hold these items; those asked for before stay while there is room."""
        if not item_ids <= self._items:
            both = self._items | item_ids
            self._items = both if len(both) <= MAX_KEPT_ITEMS else item_ids

    def _advance(self, headers: Any) -> None:
        frontiers_ms = [header.frontier_ms for header in headers if header is not None]
        heads = [self._rules.grid.bucket(at_ms) for at_ms in frontiers_ms if at_ms is not None]
        if heads:
            self._head = max([*heads, -1 if self._head is None else self._head])
        for part in self._parts.values():
            for bucket in [bucket for bucket in part.cells if bucket not in self._span]:
                del part.cells[bucket]

    @property
    def _span(self) -> range:
        if self._head is None:
            return range(0)
        return range(self._head - self._num_buckets + 1, self._head + 1)

    # Taking it in ---------------------------------------------------------------------------------

    def _take(self, at: Input, look: Look, header: Header) -> None:
        """Bring a partition up to date; it stays as it was where it moves on meanwhile."""
        part = self._parts[at]
        if part.follower.first_offset not in (None, header.first_offset):
            # Another log: not even its slots stand for what they did.
            part = self._parts[at] = _Part(self._follower(at, frozenset()))
        # Names come with a read, and may say that other columns are wanted: then it is read whole.
        for _ in range(2):
            if self._needs(part) != part.wanted:
                part.wanted = self._needs(part)
                part.cells = {}
                part.follower = self._follower(at, part.chunks)
                part.follower.num_items = len(part.slots)
            if part.follower.moved(look, self._span):
                change = part.follower.read(look, self._span)
                if change is None:
                    return
                self._apply(part, change)
                part.follower.accept(change, self._span)
                header = change.header
        self._inputs[at] = InputState.of(header)

    def _needs(self, part: _Part) -> dict[str, int]:
        items = self._items
        return {item_id: part.slots[item_id] for item_id in items if item_id in part.slots}

    def _apply(self, part: _Part, change: Change) -> None:
        if change.full:
            part.cells = {}
        for item_id in change.item_ids:
            part.slots[item_id] = len(part.slots)
        self._advance([change.header])
        for (bucket, chunk), data in change.tiles.items():
            if bucket in self._span:
                held = part.cells.setdefault(bucket, {})
                held[chunk] = NOTHING if data is None else _units(data, part.positions(chunk))

    # What is held ---------------------------------------------------------------------------------

    def _cells(self, item_ids: frozenset[str]) -> FewCells:
        span, grid = self._span, self._rules.grid
        bucket_B = np.arange(span.start, span.stop)
        topic = self._rules.orders_topic
        reached = progress.reached(self._inputs, [topic])
        units: dict[str, Ints] = {}
        for part in self._parts.values():
            for item_id, units_B in self._of_part(part).items():
                units[item_id] = units.get(item_id, 0) + units_B
        return FewCells(
            grid=grid,
            first=span.start,
            units={item_id: units[item_id] for item_id in item_ids if item_id in units},
            observed_B=progress.observed(self._inputs, topic, bucket_B, self._rules),
            offsets={
                f"{topic}:{partition}": state.offset
                for (topic, partition), state in sorted(self._inputs.items())
            },
            reached_ms=min((part.live_ms for part in reached), default=None),
        )

    def _of_part(self, part: _Part) -> dict[str, Ints]:
        span = self._span
        found = {item_id: np.zeros(len(span), np.int64) for item_id in part.wanted}
        for chunk in part.chunks:
            items = [name for name, slot in part.wanted.items() if slot // CHUNK_ITEMS == chunk]
            for bucket, held in part.cells.items():
                for item_id, units in zip(items, held.get(chunk, NOTHING).tolist(), strict=False):
                    found[item_id][bucket - span.start] = units
        return found


def _units(data: bytes, position_N: Ints) -> Ints:
    units_N: Ints = decode_channels(data, (UNITS,))[0][position_N]
    return units_N
