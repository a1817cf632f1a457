"""What a reader may count on: how far each input has come, what is closed, final,
and observed. Pure.

A bucket is named by its number, see `freshet.stream.store.grid`. Dimension: B buckets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from freshet.stream.config import UTC, Settings, WindowSettings
from freshet.stream.errors import FingerprintError, InvalidInputError
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header

Input = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class ReadRules:
    """The settings under which the windows were folded, as far as reading one resolution depends on
    them.
    """

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
        retained = {width.resolution_ms: width.buckets for width in settings.windows.resolutions}
        if resolution_ms not in retained:
            raise InvalidInputError(
                f"no windows are kept at {resolution_ms} ms; expected one of {sorted(retained)}",
                hint="add it to windows.resolutions, and fold with `freshet ingest "
                "--from-beginning --into GENERATION`",
            )
        topics, windows = settings.kafka.topics, settings.windows
        return cls(
            resolution_ms,
            retained[resolution_ms],
            topics.orders,
            topics.clicks,
            windows.out_of_order_ms,
            windows.allowed_lateness_ms,
            settings.calendar.time_zone,
        )

    def as_folded(self, fingerprint: str) -> ReadRules:
        """The rules that a header's fingerprint tells, for a generation folded under other settings
        than ours.

        Raises:
            FingerprintError: That generation has no windows of this resolution.
        """
        said = json.loads(fingerprint)
        kept = {
            width["resolution_ms"]: width["buckets"]
            for width in said.get("windows.resolutions", ())
        }
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

    `origin_ms` is the time of its first event; where the log began after offset 0, what came before
    is not known.
    """

    offset: int
    first_offset: int
    frontier_ms: int | None
    idle_frontier_ms: int | None
    first_event_ms: int | None
    origin_ms: int | None = None

    @classmethod
    def of(cls, header: Header) -> InputState:
        """From the header of a partition that has a state."""
        assert header.next_offset is not None and header.first_offset is not None, header
        return cls(
            header.next_offset,
            header.first_offset,
            header.frontier_ms,
            header.idle_frontier_ms,
            header.first_event_ms,
            header.origin_ms,
        )


class Reached(NamedTuple):
    """How far a partition that ever applied a record has come; `live_ms` counts being idle."""

    frontier_ms: int
    live_ms: int
    first_event_ms: int


def reached(inputs: Mapping[Input, InputState], topics: Iterable[str]) -> list[Reached]:
    """The partitions of these topics that ever applied a record."""
    wanted, found = set(topics), []
    for (topic, _), state in inputs.items():
        if topic in wanted and state.frontier_ms is not None and state.first_event_ms is not None:
            live_ms = max(state.frontier_ms, state.idle_frontier_ms or state.frontier_ms)
            found.append(Reached(state.frontier_ms, live_ms, state.first_event_ms))
    return found


def live_cutoff_ms(inputs: Mapping[Input, InputState], topic: str, grid: Grid) -> int | None:
    """The newest bucket end that every partition of the topic with data has reached or is idle
    past.

    None before there is data. It may fall when a partition gets its first data.

    >>> state = InputState(offset=9, first_offset=0, frontier_ms=2_500, idle_frontier_ms=3_999,
    ...     first_event_ms=0)
    >>> live_cutoff_ms({("orders", 0): state}, "orders", Grid(1_000))
    3000
    """
    live_ms = [part.live_ms for part in reached(inputs, [topic])]
    return grid.start_ms(grid.bucket(min(live_ms))) if live_ms else None


def closed_ms(inputs: Mapping[Input, InputState], rules: ReadRules) -> int | None:
    """Buckets that end at or before it are closed: the minimum watermark of the partitions with
    data.
    """
    frontiers_ms = [part.frontier_ms for part in reached(inputs, rules.topics)]
    return min(frontiers_ms) - rules.out_of_order_ms if frontiers_ms else None


def final_ms(inputs: Mapping[Input, InputState], rules: ReadRules) -> int | None:
    """Buckets that end at or before it are final: nothing on time can change them; idle partitions
    count as idle.
    """
    live_ms = [part.live_ms for part in reached(inputs, rules.topics)]
    return min(live_ms) - rules.out_of_order_ms - rules.allowed_lateness_ms if live_ms else None


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
    return rules.grid.first_retained(
        max(frontiers_ms) - rules.out_of_order_ms, rules.retained_buckets
    )


def first_whole(
    inputs: Mapping[Input, InputState], topics: Iterable[str], rules: ReadRules
) -> int | None:
    """The oldest bucket of which no part lies before the beginning of a partition's windows; None:
    all are whole.

    Windows that were begun on a log whose first records were gone (its first offset is not 0) know
    nothing of what came before their first event, out of order by at most `out_of_order_ms`.

    >>> state = InputState(9, first_offset=4, frontier_ms=99, idle_frontier_ms=None,
    ...     first_event_ms=5, origin_ms=21)
    >>> first_whole({("o", 0): state}, ["o"], ReadRules(10, 5, out_of_order_ms=3))
    3
    """
    wanted = set(topics)
    origins_ms = [
        state.origin_ms
        for (topic, _), state in inputs.items()
        if topic in wanted and state.first_offset > 0 and state.origin_ms is not None
    ]
    return (
        rules.grid.bucket(max(origins_ms) + rules.out_of_order_ms - 1) + 1 if origins_ms else None
    )


def observed(
    inputs: Mapping[Input, InputState], topic: str, bucket_B: NDArray[np.int64], rules: ReadRules
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
    end_B = rules.grid.starts_ms((bucket_B + 1).tolist())
    reached_B = end_B <= min(part.live_ms for part in parts)
    begun_B = end_B > min(part.first_event_ms for part in parts)
    whole = first_whole(inputs, [topic], rules)
    known_B: Bools = (
        reached_B & begun_B & (bucket_B >= (oldest if whole is None else max(oldest, whole)))
    )
    return known_B


Bools = NDArray[np.bool_]
