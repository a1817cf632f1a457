"""The newest windows of every item, kept current: what forecasts are made from.

Dimensions: I items (rows), C channels in the order of `freshet.stream.schemas.CHANNELS`, B buckets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis

from freshet.stream.arrays import Bools, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.read import progress
from freshet.stream.read.merge import ItemRows, MergedWindows, input_of
from freshet.stream.read.progress import Input, InputState, ReadRules
from freshet.stream.read.ring import ALL_CHANNELS, NUM_CHANNELS, Ring, Span, Touched
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.connection import translated
from freshet.stream.store.layout import Keys, partitions_key
from freshet.stream.telemetry import get_logger

ORDER_CHANNELS = slice(0, CHANNELS.index("views"))
CLICK_CHANNELS = slice(CHANNELS.index("views"), NUM_CHANNELS)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delta:
    """What one refresh changed.

    Attributes:
        changed_rows: int64, rising: rows with a cell that changed.
        changed_buckets_ms: int64, rising: starts of the buckets held with a cell that changed.
        new_items: Items that got a row.
        moved: Whether any offset or frontier moved, so that more may be observed than before.
        rolled_back: Inputs of which Redis now holds less than this reader does; what was read
            before is kept.
    """

    changed_rows: Ints
    changed_buckets_ms: Ints
    new_items: list[str]
    moved: bool
    rolled_back: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class WindowCells:
    """Cells of some rows, as stored integers (see `UNIT_SCALES`).

    Attributes:
        values_ICB: int64; 0 where not observed.
        observed_ICB: bool, read-only: False where the sum is not known, which is not the same as 0.
        start_ms: Start of the first bucket.
    """

    values_ICB: Ints
    observed_ICB: Bools
    start_ms: int


class WindowReader:
    """The newest `num_buckets` buckets of one resolution, summed over all partitions of events.

    `refresh` brings it up to date; everything else answers from memory. Each partition is as it was
    at one offset (`offsets`); what Redis loses in a crash is kept here until it has been replayed.

    Args:
        client: From `freshet.stream.store.connection.connect`.
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
        self._client = client
        self._rows = ItemRows(owns)
        # What changed and was not told yet: a refresh that fails half-way is told by the next one.
        self._changes = Touched()
        self._told_rows = 0
        self._rolled_back: tuple[Input, ...] = ()
        self._windows = self._begin(generation, rules or ReadRules(resolution_ms, num_buckets))

    def _begin(self, generation: int, rules: ReadRules) -> MergedWindows:
        return MergedWindows(
            self._client,
            generation,
            rules=rules,
            ring=Ring(self.num_buckets),
            rows=self._rows,
            changes=self._changes,
        )

    # What is held ---------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """The generation of windows that is followed."""
        return self._windows.generation

    @property
    def rules(self) -> ReadRules:
        """The settings under which that generation was folded."""
        return self._windows.rules

    @property
    def inputs(self) -> dict[Input, InputState]:
        """How far each partition has come."""
        return self._windows.inputs

    @property
    def item_ids(self) -> list[str]:
        """The item of each row; rows are never taken away."""
        return self._rows.item_ids

    @property
    def num_items(self) -> int:
        """How many items have a row."""
        return len(self.item_ids)

    @property
    def span(self) -> Span:
        """The buckets held: they end with that of the furthest frontier.

        Events may be ahead of it; they are read when it reaches them.
        """
        return self._windows.ring.span

    @property
    def capacity(self) -> int:
        """For how many items the ring has room; whoever copies it needs no more and no less."""
        return self._windows.ring.capacity

    def row(self, item_id: str) -> int | None:
        """The row of an item, or None when no window of it was seen."""
        return self._rows.find(item_id)

    def offsets(self) -> dict[str, int]:
        """The offset that each partition's state stands for, as `topic:partition`."""
        inputs = sorted(self.inputs.items())
        return {f"{topic}:{partition}": state.offset for (topic, partition), state in inputs}

    # Progress -------------------------------------------------------------------------------------

    def live_cutoff_ms(self) -> int | None:
        """The newest bucket end that every orders partition has reached; None before data.

        Partitions without data do not count; an idle one has reached what it is idle past.
        """
        if self.loading() is not None:
            return None
        return progress.live_cutoff_ms(self.inputs, self.rules.orders_topic, self.rules.grid)

    def loading(self) -> progress.Loading | None:
        """History that is not all there yet: until then nothing is live, closed or final."""
        return progress.loading(self.inputs, self.rules.topics)

    def closed_ms(self) -> int | None:
        """Buckets that end at or before it are closed; None before data."""
        return progress.closed_ms(self.inputs, self.rules)

    def final_ms(self) -> int | None:
        """Buckets that end at or before it are final; None before data."""
        return progress.final_ms(self.inputs, self.rules)

    # Cells ----------------------------------------------------------------------------------------

    def window(self, end_ms: int, num_buckets: int, rows: Ints | None = None) -> WindowCells:
        """The `num_buckets` buckets that end at `end_ms` (exclusive), and which are observed.

        Args:
            end_ms: The end of a bucket: a multiple of the resolution, or a local midnight.
            num_buckets: B, may be more than is held.
            rows: int64[I]; None is all, in order.

        Raises:
            InvalidInputError: `end_ms` is not the end of a bucket.
        """
        values_ICB = self.sums(end_ms, num_buckets, rows)
        observed_CB = self.observed(end_ms, num_buckets)
        values_ICB[:, ~observed_CB] = 0
        return WindowCells(
            values_ICB,
            np.broadcast_to(observed_CB, values_ICB.shape),
            start_ms=self.rules.grid.start_ms(self.rules.grid.bucket(end_ms) - num_buckets),
        )

    def observed(self, end_ms: int, num_buckets: int) -> Bools:
        """Which of the buckets that end at `end_ms` are observed: bool[C, B], of every item."""
        end = self.rules.grid.bucket(end_ms)
        bucket_B = np.arange(end - num_buckets, end, dtype=np.int64)
        observed_CB = np.zeros((NUM_CHANNELS, num_buckets), dtype=bool)
        # Orders and clicks come on topics of their own, and either may lag.
        observed_CB[ORDER_CHANNELS] = self._observed(self.rules.orders_topic, bucket_B)
        observed_CB[CLICK_CHANNELS] = self._observed(self.rules.clicks_topic, bucket_B)
        return observed_CB

    def sums(
        self,
        end_ms: int,
        num_buckets: int,
        rows: Ints | None = None,
        channels: slice = ALL_CHANNELS,
    ) -> Ints:
        """What is held of those buckets, open ones too, int64[I, C, B].

        A 0 says nothing where nothing was observed.
        """
        end = self.rules.grid.bucket(end_ms)
        if end_ms != self.rules.grid.start_ms(end):
            raise InvalidInputError(
                f"{end_ms} is not the end of a bucket of {self.resolution_ms} ms"
            )
        return self._windows.ring.window(end - num_buckets, num_buckets, rows, channels)

    def _observed(self, topic: str, bucket_B: Ints) -> Bools:
        known_B = progress.observed(self.inputs, topic, bucket_B, self.rules)
        held_B: Bools = bucket_B >= self.span.buckets.start
        return known_B & held_B

    # Taking in ------------------------------------------------------------------------------------

    def refresh(self) -> Delta:
        """Take in what changed in Redis; one round trip when nothing did.

        Raises:
            StoreUnavailableError: Redis does not answer; what was known stays, and the next call
                goes on from it.
            StoreError: What is stored cannot be read.
        """
        before = dict(self.inputs)
        with translated(self._client):
            current, looks = self._windows.look()
            if current == self.generation:
                behind = self._windows.take_in(looks)
            else:
                behind = self._switch(current)
        self._note_rolled_back(behind)
        rows, buckets = self._changes.drain()
        first_row, self._told_rows = self._told_rows, self.num_items
        return Delta(
            rows,
            # What left the ring before it could be told is no one's any more.
            self.rules.grid.starts_ms(bucket for bucket in buckets.tolist() if bucket in self.span),
            self.item_ids[first_row:],
            self.inputs != before,
            behind,
        )

    def _switch(self, generation: int) -> tuple[Input, ...]:
        """Read another generation whole and then go over to it; rows stay.

        Where that fails, what we have stays too.
        """
        old = self._windows
        new = self._begin(generation, self._rules_of(generation))
        _, looks = new.look()
        behind = new.take_in(looks)
        self._windows = new
        if self.num_items:
            # Any cell may differ, so all of them are told of as changed.
            for bucket in new.ring.span.buckets:
                self._changes.note(bucket, np.arange(self.num_items))
        log.info(
            "windows_switched", generation=generation, before=old.generation, items=self.num_items
        )
        return behind

    def _rules_of(self, generation: int) -> ReadRules:
        """The rules of a generation, from the fingerprint of any partition that has one."""
        members: Any = self._client.smembers(partitions_key(generation))
        for member in members:
            keys = Keys(generation, *input_of(member))
            fingerprint: Any = self._client.hget(keys.header, "fingerprint")
            if fingerprint:
                return self.rules.as_folded(fingerprint.decode(), generation)
        return self.rules

    def _note_rolled_back(self, behind: tuple[Input, ...]) -> None:
        for topic, partition in set(behind) - set(self._rolled_back):
            known = self.inputs[topic, partition]
            log.warning("windows_rolled_back", topic=topic, partition=partition, known=known)
        self._rolled_back = behind
