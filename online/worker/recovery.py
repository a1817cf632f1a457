"""What a worker learns of the one before: forecasts that wait, and what was scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from freshet.online.adjust.record import maps_of
from freshet.online.drift.pending import Issued, PendingForecasts
from freshet.stream.arrays import Singles
from freshet.stream.codec import MAX_TIME_MS, decode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, EventError
from freshet.stream.kafka import (
    Consumer,
    TopicPartition,
    broker_errors,
    consumer,
    log_range,
    partitions_of,
    take,
)
from freshet.stream.schemas import Adjustments, Score
from freshet.stream.telemetry import get_logger

MAX_TAIL_RECORDS = 60_000
TAIL_TIMEOUT_S = 60.0
TAKE_RECORDS = 5_000

Common = tuple[int, int, str, tuple[float, ...], str]
"""Resolution, cutoff, version of the weights, quantile levels, and by which decision on levels."""

AnyStruct = TypeVar("AnyStruct", bound=msgspec.Struct)

log = get_logger(__name__)


class PublishedForecast(msgspec.Struct, frozen=True):
    """The fields of a published forecast that scoring and later rounds need."""

    forecast_id: str
    item_id: str
    resolution_ms: int
    cutoff_ms: int
    quantile_levels: tuple[float, ...]
    quantiles: list[msgspec.Raw]
    weights_version: str
    cumulative: msgspec.Raw = msgspec.Raw(b"null")
    adjustments: Adjustments = Adjustments()


class _Scored(NamedTuple):
    """What waits of a forecast: its scored steps."""

    item_id: str
    forecast_id: str
    quantiles_KQ: Singles
    adjusted: bool
    maps_K: list[int]


class Tail:
    """The newest values of a topic, in order within a partition.

    They go up to the ends seen when iteration begins.

    Args:
        settings: Where to connect.
        topic: Read without a group.
        max_records: In all; the same share of it for each partition.

    Attributes:
        cut: Partitions of which older records exist, or existed, that are not read.
        starts: Where reading began in each partition.

    Iterating raises BrokerError when the broker does not answer, or the ends are not reached in
    time.
    """

    def __init__(self, settings: Settings, topic: str, max_records: int = MAX_TAIL_RECORDS) -> None:
        self._settings = settings
        self._topic = topic
        self._max_records = max_records
        self.cut: set[int] = set()
        self.starts: dict[int, int] = {}

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Partition and value of each record."""
        topic = self._topic
        number = partitions_of(self._settings, [topic])[topic]
        client = consumer(
            self._settings, "worker-tail", enable_partition_eof=True, auto_offset_reset="earliest"
        )
        try:
            ends = self._assign(client, number)
            yield from _read_to(client, ends, topic)
        finally:
            client.close()

    def _assign(self, client: Consumer, number: int) -> dict[tuple[str, int], int]:
        """Begin near the end of each partition; the ends that are to be reached."""
        topic = self._topic
        ends: dict[tuple[str, int], int] = {}
        starts = []
        for partition in range(number):
            first, end = log_range(client, topic, partition)
            start = max(first, end - max(self._max_records // number, 1))
            self.starts[partition] = start
            if start > 0:
                self.cut.add(partition)
            if end > start:
                ends[topic, partition] = end
                starts.append(TopicPartition(topic, partition, start))
        with broker_errors(f"starting to read the end of {topic}"):
            client.assign(starts)
        return ends


def _read_to(
    client: Consumer, ends: dict[tuple[str, int], int], topic: str
) -> Iterator[tuple[int, bytes]]:
    deadline_s = time.monotonic() + TAIL_TIMEOUT_S
    while ends:
        if time.monotonic() > deadline_s:
            raise BrokerError(
                f"{len(ends)} partitions of {topic} were not read to their end in "
                f"{TAIL_TIMEOUT_S} s"
            )
        taken = take(client, TAKE_RECORDS, 100)
        for message in taken.messages:
            partition, value = message.partition() or 0, message.value()
            # Of partitions that were read to their end, more may come; it is taken too.
            end = ends.get((topic, partition))
            if end is not None and (message.offset() or 0) + 1 >= end:
                del ends[topic, partition]
            if value is not None:
                yield partition, value
        for place, end in taken.ends.items():
            if end >= ends.get(place, end):
                ends.pop(place, None)


def read_forecasts(
    values: Iterable[tuple[int, bytes]],
    pending: Mapping[int, PendingForecasts],
    *,
    oldest_cutoff_ms: Mapping[int, int],
    owns: Callable[[str], bool],
    latest_ms: int = MAX_TIME_MS,
    also: Callable[[PublishedForecast], None] = lambda _: None,
) -> int:
    """Put published forecasts of my items back into `pending`; returns how many were taken.

    One of a cutoff that has not come is not ours: it would fill `pending` until then. Of several
    for one item, resolution and cutoff the first wins.

    Args:
        values: Partition and value of each record, in order within a partition.
        pending: What waits, by resolution; forecasts of another one are left.
        oldest_cutoff_ms: By resolution: older ones have nothing left to score.
        owns: Whether an item is mine.
        latest_ms: What has come.
        also: Told each one that is mine and has come, in order.
    """
    groups: dict[Common, list[_Scored]] = {}
    taken: set[tuple[int, int, str]] = set()
    for _, found in _decoded(PublishedForecast, values):
        if found.cutoff_ms <= latest_ms and owns(found.item_id):
            also(found)
        waiting = pending.get(found.resolution_ms)
        if waiting is None or len(found.quantiles) < max(waiting.score_steps, default=0):
            continue
        in_time = oldest_cutoff_ms[found.resolution_ms] <= found.cutoff_ms <= latest_ms
        identity = (found.resolution_ms, found.cutoff_ms, found.item_id)
        if in_time and found.quantiles and owns(found.item_id) and identity not in taken:
            scored = _scored(found, waiting.score_steps)
            if scored is not None:
                taken.add(identity)
                levels = found.quantile_levels
                decided = found.adjustments.calibration_id or ""
                key = (found.resolution_ms, found.cutoff_ms, found.weights_version, levels, decided)
                groups.setdefault(key, []).append(scored)
    for key, group in groups.items():
        pending[key[0]].add(_issued(key, group))
    return len(taken)


def _scored(found: PublishedForecast, steps: tuple[int, ...]) -> _Scored | None:
    """Only the steps that are scored, which are a tenth of them; None where they are no numbers."""
    rows = b",".join(bytes(found.quantiles[step - 1]) for step in steps)
    try:
        values = msgspec.json.decode(b"[" + rows + b"]", type=list[list[float]])
        quantiles_KQ = np.array(values, np.float32).reshape(len(steps), len(found.quantile_levels))
    except (msgspec.DecodeError, ValueError) as error:
        log.warning("record_not_read", error=str(error))
        return None
    adjusted = found.adjustments.begins_at_ms is not None
    maps_K = maps_of(found.adjustments, steps)
    return _Scored(found.item_id, found.forecast_id, quantiles_KQ, adjusted, maps_K)


def _issued(common: Common, group: list[_Scored]) -> Issued:
    """Forecasts that have these in common."""
    _, cutoff_ms, version, levels, decided = common
    return Issued(
        cutoff_ms,
        version,
        levels,
        [scored.item_id for scored in group],
        [scored.forecast_id for scored in group],
        np.stack([scored.quantiles_KQ for scored in group]),
        np.array([scored.adjusted for scored in group], bool),
        decided,
        np.array([scored.maps_K for scored in group], np.int64) if decided else None,
    )


def read_scores(
    scores: Tail,
    pending: Mapping[int, PendingForecasts],
    *,
    owns: Callable[[str], bool],
    latest_ms: int = MAX_TIME_MS,
    shadows: Mapping[int, PendingForecasts] = {},
) -> int:
    """Close what was scored already; how many buckets of my items those are.

    Of buckets older than what a cut log still tells, nothing is scored: it
    may have been. `shadows` wait by resolution likewise, for scores of what was not adjusted.
    """
    buckets: set[tuple[int, int]] = set()
    oldest_ms: dict[int, dict[int, int]] = {width: {} for width in pending}
    scored_ms: dict[int, int] = {}
    for partition, score in _decoded(Score, scores, latest_ms):
        width, bucket_ms = score.resolution_ms, score.bucket_start_ms
        scored_ms[partition] = min(score.scored_at_ms, scored_ms.get(partition, MAX_TIME_MS))
        if width not in pending:
            continue
        oldest_ms[width].setdefault(partition, bucket_ms)
        oldest_ms[width][partition] = min(bucket_ms, oldest_ms[width][partition])
        if owns(score.item_id):
            for step in score.steps:
                pending[width].close(step.forecast_id, step.step)
            for step in score.unadjusted:
                if width in shadows:
                    shadows[width].close(step.forecast_id, step.step)
            buckets.add((width, bucket_ms))
    cut_ms = max((scored_ms.get(partition, 0) for partition in scores.cut), default=0)
    for width, waiting in pending.items():
        told_ms = [oldest_ms[width].get(partition) for partition in scores.cut]
        _close_untold(waiting, told_ms, cut_ms)
        if width in shadows:
            _close_untold(shadows[width], told_ms, cut_ms)
    return len(buckets)


def _close_untold(
    pending: PendingForecasts, told_from_ms: Sequence[int | None], cut_ms: int
) -> None:
    """Leave unscored what partitions of a cut log tell nothing of any more.

    Where they tell nothing at all of a resolution, that is what was over when they begin to tell.
    """
    told_ms = [at_ms for at_ms in told_from_ms if at_ms is not None]
    grid = pending.grid
    until_ms = grid.end_ms(grid.bucket(max(told_ms))) if told_ms else cut_ms
    for bucket_ms in pending.due_buckets(until_ms):
        pending.close_bucket(bucket_ms)


def _decoded(
    kind: type[AnyStruct], values: Iterable[tuple[int, bytes]], latest_ms: int = MAX_TIME_MS
) -> Iterator[tuple[int, AnyStruct]]:
    """The records that can be read, with their partitions; others are logged and left."""
    for partition, value in values:
        try:
            yield partition, decode(kind, value, latest_ms=latest_ms)
        except EventError as error:
            log.warning("record_not_read", error=str(error))
