"""How far the inputs have come, and so which buckets are closed, final and observed. Pure.

A bucket is named by its number, see `freshet.stream.store.grid`. Dimension: B buckets.

    first event        oldest retained     final        closed      frontier    live
    ---|-------------------|----------------|-------------|------------|---------|----> event time
       |    gone           |  never changes |  late only  |  open      |  idle   |  not reached
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.config import UTC, Settings, WindowSettings
from freshet.stream.errors import FingerprintError, InvalidInputError
from freshet.stream.store.format import check_format
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header

Input = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class ReadRules:
    """The settings that windows were folded under, as far as reading one resolution needs them."""

    resolution_ms: int
    retained_buckets: int
    orders_topic: str = "freshet.orders.v1"
    clicks_topic: str = "freshet.clicks.v1"
    out_of_order_ms: int = WindowSettings().out_of_order_ms
    allowed_lateness_ms: int = WindowSettings().allowed_lateness_ms
    time_zone: str = UTC

    @classmethod
    def of(cls, settings: Settings, resolution_ms: int) -> ReadRules:
        """From a process's settings.

        Raises:
            InvalidInputError: Nothing is folded at that resolution.
        """
        topics = settings.kafka.topics
        windows = settings.windows
        retained = {width.resolution_ms: width.buckets for width in windows.resolutions}
        if resolution_ms not in retained:
            raise InvalidInputError(
                f"no windows are kept at {resolution_ms} ms; expected one of {sorted(retained)}",
                hint="add it to windows.resolutions, and fold with "
                "`freshet ingest --from-beginning --into GENERATION`",
            )
        return cls(
            resolution_ms=resolution_ms,
            retained_buckets=retained[resolution_ms],
            orders_topic=topics.orders,
            clicks_topic=topics.clicks,
            out_of_order_ms=windows.out_of_order_ms,
            allowed_lateness_ms=windows.allowed_lateness_ms,
            time_zone=settings.calendar.time_zone,
        )

    def as_folded(self, fingerprint: str, generation: int = 0) -> ReadRules:
        """The rules of a generation folded under other settings than ours.

        Args:
            fingerprint: What a header of that generation says.
            generation: Its number, for the message.

        Raises:
            OtherFormatError: Another version folded it.
            FingerprintError: That generation has no windows of this resolution.
        """
        check_format(fingerprint, generation)
        said = json.loads(fingerprint)
        widths = said.get("windows.resolutions", ())
        kept = {width["resolution_ms"]: width["buckets"] for width in widths}
        if self.resolution_ms not in kept:
            raise FingerprintError(
                f"the windows that are current now are not kept at {self.resolution_ms} ms, "
                f"but at {sorted(kept)}",
                hint="restart with the settings under which they were folded",
            )
        return replace(
            self,
            retained_buckets=kept[self.resolution_ms],
            out_of_order_ms=said["windows.out_of_order_ms"],
            allowed_lateness_ms=said["windows.allowed_lateness_ms"],
            time_zone=said.get("calendar.time_zone", UTC),
        )

    @property
    def grid(self) -> Grid:
        """The buckets."""
        return Grid(self.resolution_ms, self.time_zone)

    @property
    def topics(self) -> tuple[str, str]:
        """The event topics."""
        return self.orders_topic, self.clicks_topic


@dataclass(frozen=True, slots=True)
class InputState:
    """Up to where one partition of an event topic has been folded.

    `origin_ms` is the time of its first event: what came before is not known. `history_ends_ms` is
    where history ends that is loaded besides, and `history_complete` whether all of it is judged;
    `num_partitions` is how many partitions the topic had when the state began, 0 if unknown.
    """

    offset: int
    first_offset: int
    frontier_ms: int | None
    idle_frontier_ms: int | None
    first_event_ms: int | None
    origin_ms: int | None = None
    history_ends_ms: int | None = None
    history_complete: bool = False
    num_partitions: int = 0

    @classmethod
    def of(cls, header: Header) -> InputState:
        """From the header of a partition that has a state."""
        assert header.next_offset is not None and header.first_offset is not None, header
        return cls(
            offset=header.next_offset,
            first_offset=header.first_offset,
            frontier_ms=header.frontier_ms,
            idle_frontier_ms=header.idle_frontier_ms,
            first_event_ms=header.first_event_ms,
            origin_ms=header.origin_ms,
            history_ends_ms=_history_ends_ms(header.fingerprint),
            history_complete=bool(header.history_complete),
            num_partitions=header.num_partitions,
        )


@lru_cache(maxsize=64)
def _history_ends_ms(fingerprint: str) -> int | None:
    """The setting `windows.history_before` that windows were folded under."""
    said = json.loads(fingerprint).get("windows.history_before") if fingerprint else None
    return None if said is None else int(said)


class Loading(NamedTuple):
    """History that is not all there yet: of how many partitions it is, and of how many it must."""

    complete: int
    partitions: int

    def __str__(self) -> str:
        return f"history is being loaded: {self.complete} of {self.partitions} partitions have it"


def loading(inputs: Mapping[Input, InputState], topics: Iterable[str]) -> Loading | None:
    """How far history is, None where there is none or all is there.

    Partitions that were made after a topic's first ones have no history.
    """
    if all(state.history_ends_ms is None for state in inputs.values()):
        return None
    complete = partitions = 0
    for topic in {*topics, *(topic for topic, _ in inputs)}:
        states = {number: state for (name, number), state in inputs.items() if name == topic}
        known = [state.num_partitions for state in states.values() if state.num_partitions]
        needed = range(min(known)) if known else states.keys()
        complete += sum(number in states and states[number].history_complete for number in needed)
        partitions += max(len(needed), 1)
    return Loading(complete, partitions) if complete < partitions else None


class Reached(NamedTuple):
    """How far a partition that ever applied a record has come; `live_ms` counts being idle."""

    frontier_ms: int
    live_ms: int
    first_event_ms: int


def reached(inputs: Mapping[Input, InputState], topics: Iterable[str]) -> list[Reached]:
    """The partitions of these topics that ever applied a record.

    The others have no say: a topic may have partitions that no producer ever writes to. None has
    while history is loaded: whatever is known then is half of it.
    """
    wanted = set(topics)
    if loading(inputs, wanted) is not None:
        return []
    found = []
    for (topic, _), state in inputs.items():
        if topic in wanted and state.frontier_ms is not None and state.first_event_ms is not None:
            # A declaration of idleness from before the last record is older than that record.
            live_ms = max(state.frontier_ms, state.idle_frontier_ms or state.frontier_ms)
            found.append(Reached(state.frontier_ms, live_ms, state.first_event_ms))
    return found


def live_cutoff_ms(inputs: Mapping[Input, InputState], topic: str, grid: Grid) -> int | None:
    """The newest bucket end that all partitions of a topic have reached, or are idle past.

    Only partitions with data count; None before there is data. It may fall when a partition gets
    its first data.

    >>> state = InputState(
    ...     offset=9, first_offset=0, frontier_ms=2_500, idle_frontier_ms=3_999, first_event_ms=0
    ... )
    >>> live_cutoff_ms({("orders", 0): state}, "orders", Grid(1_000))
    3000
    """
    live_ms = [part.live_ms for part in reached(inputs, [topic])]
    return grid.start_ms(grid.bucket(min(live_ms))) if live_ms else None


def closed_ms(inputs: Mapping[Input, InputState], rules: ReadRules) -> int | None:
    """Buckets that end at or before it are closed: the least watermark of partitions with data.

    Idleness closes nothing: it is told by the wall clock, and closed is what the log alone says.
    """
    frontiers_ms = [part.frontier_ms for part in reached(inputs, rules.topics)]
    return min(frontiers_ms) - rules.out_of_order_ms if frontiers_ms else None


def final_ms(inputs: Mapping[Input, InputState], rules: ReadRules) -> int | None:
    """Buckets that end at or before it are final: nothing on time can change them.

    Idle partitions count as idle, or the scores of a quiet night would wait for the morning.
    """
    live_ms = [part.live_ms for part in reached(inputs, rules.topics)]
    slack_ms = rules.out_of_order_ms + rules.allowed_lateness_ms
    return min(live_ms) - slack_ms if live_ms else None


def oldest_retained(parts: Iterable[Reached], rules: ReadRules) -> int | None:
    """The oldest bucket that all of these partitions still retain; None when there is no partition.

    A bucket is retained while its end + retained_buckets * resolution > watermark.

    >>> rules = ReadRules(resolution_ms=10, retained_buckets=3, out_of_order_ms=0)
    >>> oldest_retained([Reached(frontier_ms=100, live_ms=100, first_event_ms=0)], rules)
    7
    """
    frontiers_ms = [part.frontier_ms for part in parts]
    if not frontiers_ms:
        return None
    # The partition that is furthest ahead has thrown away most.
    watermark_ms = max(frontiers_ms) - rules.out_of_order_ms
    return rules.grid.first_retained(watermark_ms, rules.retained_buckets)


def first_whole(
    inputs: Mapping[Input, InputState], topics: Iterable[str], rules: ReadRules
) -> int | None:
    """The oldest bucket of which nothing came before a topic's windows began; None: all.

    A bucket that had begun before the topic's first record is half-known, where no history is
    loaded. Windows that were begun
    on a log whose first records were gone (its first offset is not 0) know nothing of what came
    before their first event, out of order by at most `out_of_order_ms`.

    >>> state = InputState(
    ...     9, first_offset=4, frontier_ms=99, idle_frontier_ms=None, first_event_ms=5, origin_ms=21
    ... )
    >>> first_whole({("o", 0): state}, ["o"], ReadRules(10, 5, out_of_order_ms=3))
    3
    """
    unknown_ms = []
    for wanted in topics:
        origins = [
            (state.origin_ms, state.first_offset)
            for (topic, _), state in inputs.items()
            if topic == wanted and state.origin_ms is not None and state.history_ends_ms is None
        ]
        # A partition that was made later has lost nothing: the topic began with its first record.
        unknown_ms += [min(origins)[0] - 1] if origins else []
        # A lost record came before the first one kept, and may still be younger than it by as much
        # as records come out of order. The bucket of the last such moment is half-known.
        unknown_ms += [at_ms + rules.out_of_order_ms - 1 for at_ms, first in origins if first > 0]
    return rules.grid.bucket(max(unknown_ms)) + 1 if unknown_ms else None


def observed(
    inputs: Mapping[Input, InputState], topic: str, bucket_B: Ints, rules: ReadRules
) -> Bools:
    """Which buckets the sums of a topic are known for, bool[B].

    Known is a bucket that all partitions with data have reached (or are idle past), that does not
    end before the first event of the topic, that is whole (see `first_whole`), and that is still
    retained. All others are missing, which is not 0.
    """
    parts = reached(inputs, [topic])
    oldest = oldest_retained(parts, rules)
    if oldest is None:
        return np.zeros(len(bucket_B), dtype=bool)
    whole = first_whole(inputs, [topic], rules)
    if whole is not None:
        oldest = max(oldest, whole)

    end_B = rules.grid.starts_ms((bucket_B + 1).tolist())
    kept_B: Bools = bucket_B >= oldest
    begun_B: Bools = end_B > min(part.first_event_ms for part in parts)
    reached_B: Bools = end_B <= min(part.live_ms for part in parts)
    return kept_B & begun_B & reached_B
