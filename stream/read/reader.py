"""The newest windows of every item, merged over partitions and kept current: what forecasts are
made from.

Dimensions: I items (rows), C channels in the order of `freshet.stream.schemas.CHANNELS`, B buckets,
N columns of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import redis

from freshet.stream.errors import FreshetError, InvalidInputError, NotRetainedError
from freshet.stream.read import progress
from freshet.stream.read.follow import Change, HeldPart, Look, PartitionFollower, TileId
from freshet.stream.read.progress import Input, InputState, ReadRules
from freshet.stream.read.ring import ALL_CHANNELS, NUM_CHANNELS, Ints, Ring, Touched
from freshet.stream.read.view import Delta, WindowCells
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Keys, partitions_key
from freshet.stream.store.redis import GENERATION_KEY, later_generation, translated
from freshet.stream.store.tiles import CHUNK_ITEMS, decode
from freshet.stream.telemetry import get_logger

__all__ = ["Delta", "WindowCells", "WindowReader"]

ORDER_CHANNELS = slice(0, CHANNELS.index("views"))
CLICK_CHANNELS = slice(CHANNELS.index("views"), NUM_CHANNELS)

log = get_logger(__name__)


class WindowReader:
    """The newest `num_buckets` buckets of one resolution, summed over the partitions of both event
    topics.

    `refresh` brings it up to date; everything else answers from memory. Each partition is as it was
    at one offset (`offsets`); what Redis loses in a crash is kept here until it has been replayed.

    Args:
        client: From `freshet.stream.store.redis.connect`.
        generation: Which generation of windows to begin with; a later one is followed once it is
            current.
        resolution_ms: Width of a bucket.
        num_buckets: How many of the newest buckets to hold, counted from the furthest frontier of
            any partition.
        owns: Which items get a row; None is all.
        rules: `ReadRules.of(settings, resolution_ms)`; None is the default names and times,
            retaining what is held.
    """

    def __init__(
        self,
        client: redis.Redis,
        generation: int,
        resolution_ms: int,
        num_buckets: int,
        *,
        owns: Callable[[str], bool] | None = None,
        rules: ReadRules | None = None,
    ) -> None:
        if num_buckets < 1:
            raise InvalidInputError(
                f"a reader of {num_buckets} buckets holds nothing; expected 1 or more"
            )
        self.resolution_ms = resolution_ms
        self.num_buckets = num_buckets
        self.rules = rules or ReadRules(resolution_ms, num_buckets)
        self.item_ids: list[str] = []
        self.inputs: dict[Input, InputState] = {}
        self._client = client
        self.generation = generation
        self._owns = owns
        self._row_of: dict[str, int] = {}
        self._ring = Ring(num_buckets)
        self._parts: dict[Input, HeldPart] = {}
        self._rolled_back: tuple[Input, ...] = ()
        # What changed and was not told yet: a refresh that fails half-way is told by the next one.
        self._changes = Touched()
        self._told_rows = 0

    @property
    def _grid(self) -> Grid:
        return self.rules.grid

    @property
    def num_items(self) -> int:
        """How many items have a row; rows are never taken away."""
        return len(self.item_ids)

    def row(self, item_id: str) -> int | None:
        """The row of an item, or None when no window of it was seen."""
        return self._row_of.get(item_id)

    def refresh(self) -> Delta:
        """Take in what changed in Redis; one round trip when nothing did.

        Raises:
            StoreUnavailableError: Redis does not answer; what was known stays, and the next call
                goes on from it.
            StoreError: What is stored cannot be read.
        """
        before = dict(self.inputs)
        with translated(self._client):
            current, looks = self._look()
            behind = self._take_all(looks) if current == self.generation else self._switch(current)
        self._note_rolled_back(behind)
        changes, self._changes = self._changes, Touched()
        first_row, self._told_rows = self._told_rows, self.num_items
        return Delta(
            changes.rows(),
            self._grid.starts_ms(changes.buckets().tolist()),
            self.item_ids[first_row:],
            self.inputs != before,
            behind,
        )

    def offsets(self) -> dict[str, int]:
        """The offset that each partition's state stands for, as `topic:partition`."""
        return {
            f"{topic}:{partition}": state.offset
            for (topic, partition), state in sorted(self.inputs.items())
        }

    def live_cutoff_ms(self, orders_topic: str | None = None) -> int | None:
        """The newest bucket end that every orders partition with data has reached or is idle past;
        None before data.
        """
        return progress.live_cutoff_ms(
            self.inputs, orders_topic or self.rules.orders_topic, self._grid
        )

    def closed_ms(self) -> int | None:
        """Buckets that end at or before it are closed; None before data."""
        return progress.closed_ms(self.inputs, self.rules)

    def final_ms(
        self, allowed_lateness_ms: int | None = None, out_of_order_ms: int | None = None
    ) -> int | None:
        """Buckets that end at or before it are final; None before data. Unnamed allowances are
        those of the rules.
        """
        lateness_ms = (
            self.rules.allowed_lateness_ms if allowed_lateness_ms is None else allowed_lateness_ms
        )
        slack_ms = self.rules.out_of_order_ms if out_of_order_ms is None else out_of_order_ms
        rules = replace(self.rules, allowed_lateness_ms=lateness_ms, out_of_order_ms=slack_ms)
        return progress.final_ms(self.inputs, rules)

    def window(
        self, end_ms: int, num_buckets: int, rows: Ints | None = None, *, strict: bool = False
    ) -> WindowCells:
        """The `num_buckets` buckets that end at `end_ms` (exclusive).

        Args:
            end_ms: The end of a bucket: a multiple of the resolution, or a local midnight.
            num_buckets: B, may be more than is held.
            rows: int64[I]; None is all, in order.
            strict: Refuse buckets that are no longer retained, or not held here, instead of leaving
                them unobserved.

        Raises:
            InvalidInputError: `end_ms` is not the end of a bucket.
            NotRetainedError: With `strict`.
        """
        first = self._grid.bucket(end_ms) - num_buckets
        if strict:
            self._check_held(first)
        values_ICB = self.sums(end_ms, num_buckets, rows)
        bucket_B = np.arange(first, first + num_buckets, dtype=np.int64)
        observed_CB = np.zeros((NUM_CHANNELS, num_buckets), dtype=bool)
        for topic, channels in (
            (self.rules.orders_topic, ORDER_CHANNELS),
            (self.rules.clicks_topic, CLICK_CHANNELS),
        ):
            observed_B = progress.observed(self.inputs, topic, bucket_B, self.rules) & (
                bucket_B >= self._oldest_held
            )
            observed_CB[channels] = observed_B
            values_ICB[:, channels, ~observed_B] = 0
        return WindowCells(
            values_ICB,
            np.broadcast_to(observed_CB, values_ICB.shape),
            start_ms=self._grid.start_ms(first),
        )

    def sums(
        self,
        end_ms: int,
        num_buckets: int,
        rows: Ints | None = None,
        channels: slice = ALL_CHANNELS,
    ) -> Ints:
        """What is held of those buckets, int64[I, C, B], open ones too; 0 says nothing where
        nothing was observed.
        """
        end = self._grid.bucket(end_ms)
        if end_ms != self._grid.start_ms(end):
            raise InvalidInputError(
                f"{end_ms} is not the end of a bucket of {self.resolution_ms} ms"
            )
        return self._ring.window(end - num_buckets, num_buckets, rows, channels)

    @property
    def newest_bucket(self) -> int:
        """The newest bucket held, -1 before data: that of the furthest frontier or applied
        event.
        """
        return -1 if self._ring.head is None else self._ring.head

    @property
    def _oldest_held(self) -> int:
        return 0 if self._ring.head is None else self._ring.head - self.num_buckets + 1

    def _check_held(self, first: int) -> None:
        retained = progress.oldest_retained(
            progress.reached(self.inputs, self.rules.topics), self.rules
        )
        oldest = first if retained is None else max(retained, self._oldest_held)
        asked_ms = self._grid.start_ms(first)
        if first < oldest:
            raise NotRetainedError(
                f"buckets of {self.resolution_ms} ms from {asked_ms} on were asked for; "
                f"the oldest that is retained and held starts at {self._grid.start_ms(oldest)}",
                hint="ask for a later start, or keep more buckets in windows.resolutions",
            )
        whole = progress.first_whole(self.inputs, self.rules.topics, self.rules)
        if whole is not None and first < whole:
            raise NotRetainedError(
                f"buckets of {self.resolution_ms} ms from {asked_ms} on were asked for; the "
                "windows were begun when "
                "the log had lost its first records, and the oldest whole one starts at "
                f"{self._grid.start_ms(whole)}",
                hint="ask for a later start",
            )

    # Taking in ------------------------------------------------------------------------------------

    def _look(self) -> tuple[int, dict[Input, Look]]:
        """The current generation, and header and changed tiles of every partition of ours.

        One round trip, and a second one for partitions that are new.
        """
        pipe = self._client.pipeline(transaction=False)
        pipe.get(GENERATION_KEY)
        pipe.smembers(partitions_key(self.generation))
        current, members, *answers = self._ask(pipe, self._parts.values())
        looks = dict(zip(self._parts, answers, strict=True))
        new = sorted({_input(member) for member in members} - set(self._parts))
        for at in new:
            keys = Keys(self.generation, *at)
            self._parts[at] = HeldPart(PartitionFollower(self._client, keys, self._grid))
        if new:
            pipe = self._client.pipeline(transaction=False)
            looks |= zip(new, self._ask(pipe, [self._parts[at] for at in new]), strict=True)
        return later_generation(current, self.generation), looks

    @staticmethod
    def _ask(pipe: Any, parts: Iterable[HeldPart]) -> list[Any]:
        """Run the pipe with the parts' questions at its end; their answers as looks."""
        first = len(pipe)
        for part in parts:
            part.follower.ask(pipe)
        answers = pipe.execute()
        looks = [
            Look.of(*pair) for pair in zip(answers[first::2], answers[first + 1 :: 2], strict=True)
        ]
        return [*answers[:first], *looks]

    def _advance(self, newest_ms: Iterable[int | None]) -> None:
        """Move the ring on to the furthest frontier or event, and forget the tiles that leave
        it.
        """
        heads = [self._grid.bucket(at_ms) for at_ms in newest_ms if at_ms is not None]
        if not heads or (self._ring.head is not None and max(heads) <= self._ring.head):
            return
        self._ring.advance(max(heads))
        for part in self._parts.values():
            for bucket in [bucket for bucket in part.tiles if bucket not in self._ring]:
                del part.tiles[bucket]

    def _take_all(self, looks: dict[Input, Look]) -> tuple[Input, ...]:
        """Take in every partition that moved; those that moved back."""
        self._advance(look.header.newest_ms for look in looks.values() if look.header is not None)
        behind = tuple(
            at for at, look in looks.items() if self._parts[at].follower.moved_back(look)
        )
        for at, look in looks.items():
            if look.header is not None and at not in behind:
                self._take(at, look)
        return behind

    def _switch(self, generation: int) -> tuple[Input, ...]:
        """Read another generation whole and then go over to it, or stay with what we have; rows
        stay.
        """
        kept = self.generation, self.rules, self._ring, self._parts, self.inputs
        self.generation, self._ring, self._parts, self.inputs = (
            generation,
            Ring(self.num_buckets),
            {},
            {},
        )
        self._ring.grow(self.num_items)
        try:
            self.rules = self._rules_of(generation)
            behind = self._take_all(self._look()[1])
        except (FreshetError, redis.RedisError):
            self.generation, self.rules, self._ring, self._parts, self.inputs = kept
            raise
        if self.num_items:
            for bucket in sorted(kept[2].held | self._ring.held):
                self._changes.note(bucket, np.arange(self.num_items))
        log.info("windows_switched", generation=generation, before=kept[0], items=self.num_items)
        return behind

    def _rules_of(self, generation: int) -> ReadRules:
        members: Any = self._client.smembers(partitions_key(generation))
        for member in members:
            header: Any = self._client.hget(Keys(generation, *_input(member)).header, "fingerprint")
            if header:
                return self.rules.as_folded(header.decode())
        return self.rules

    def _take(self, at: Input, look: Look) -> None:
        part, header = self._parts[at], look.header
        assert header is not None
        if look.offset > part.follower.offset or header.first_offset != part.follower.first_offset:
            change = part.follower.read(
                look, range(self._oldest_held, self._oldest_held + self.num_buckets)
            )
            if change is None:
                return
            self._apply(part, change)
            part.follower.accept(change)
            header = change.header
        self.inputs[at] = InputState.of(header)

    def _apply(self, part: HeldPart, change: Change) -> None:
        """Add the difference between the new tiles and those that the ring holds."""
        if change.restarted:
            self._replace(part, dict.fromkeys(_held(part)))
            part.row_of_slot = part.row_of_slot[:0]
        rows = [self._row_for(item_id) for item_id in change.item_ids]
        part.row_of_slot = np.concatenate([part.row_of_slot, np.array(rows, dtype=np.int64)])
        self._ring.grow(self.num_items)
        self._advance([change.header.newest_ms])
        gone: dict[TileId, bytes | None] = dict.fromkeys(_held(part)) if change.full else {}
        self._replace(part, gone | change.tiles)

    def _row_for(self, item_id: str) -> int:
        if self._owns is not None and not self._owns(item_id):
            return -1
        row = self._row_of.setdefault(item_id, len(self.item_ids))
        if row == len(self.item_ids):
            self.item_ids.append(item_id)
        return row

    def _replace(self, part: HeldPart, tiles: dict[TileId, bytes | None]) -> None:
        columns: dict[int, tuple[Ints | slice, Ints]] = {}
        for (bucket, chunk), data in tiles.items():
            if bucket not in self._ring:
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
                self._ring.add(bucket, row_N, difference_CN)
                self._changes.note(bucket, row_N[touched_N])

    def _note_rolled_back(self, behind: tuple[Input, ...]) -> None:
        for topic, partition in set(behind) - set(self._rolled_back):
            log.warning(
                "windows_rolled_back",
                topic=topic,
                partition=partition,
                known=self.inputs[topic, partition],
            )
        self._rolled_back = behind


_NOTHING = np.zeros((NUM_CHANNELS, CHUNK_ITEMS), dtype=np.int64)


def _values(data: bytes | None) -> Ints:
    return _NOTHING if data is None else decode(data)


def _held(part: HeldPart) -> list[TileId]:
    return [(bucket, chunk) for bucket, chunks in part.tiles.items() for chunk in chunks]


def _input(member: bytes) -> Input:
    topic, _, partition = member.decode().rpartition(":")
    return topic, int(partition)
