"""What a worker learns of the one before: forecasts that wait, what was scored, alarms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec
import numpy as np

from freshet.online.drift.pending import Issued, PendingForecasts
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
from freshet.stream.schemas import DriftAlert, Score
from freshet.stream.telemetry import get_logger

MAX_TAIL_RECORDS = 60_000
TAIL_TIMEOUT_S = 60.0
TAKE_RECORDS = 5_000

Common = tuple[int, str, tuple[float, ...]]
"""Cutoff, version of the weights and quantile levels."""

AnyStruct = TypeVar("AnyStruct", bound=msgspec.Struct)

log = get_logger(__name__)


class PublishedForecast(msgspec.Struct, frozen=True):
    """The fields of a published forecast that scoring needs."""

    forecast_id: str
    item_id: str
    resolution_ms: int
    cutoff_ms: int
    quantile_levels: tuple[float, ...]
    quantiles: list[list[float]]
    weights_version: str


class Tail:
    """The newest values of a topic, in order within a partition.

    They go up to the ends seen when iteration begins.

    Args:
        settings: Where to connect.
        topic: Read without a group.
        max_records: In all; the same share of it for each partition.

    Attributes:
        cut: Partitions of which older records exist, or existed, that are not read.

    Iterating raises BrokerError when the broker does not answer, or the ends are not reached in
    time.
    """

    def __init__(self, settings: Settings, topic: str, max_records: int = MAX_TAIL_RECORDS) -> None:
        self._settings = settings
        self._topic = topic
        self._max_records = max_records
        self.cut: set[int] = set()

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
    pending: PendingForecasts,
    *,
    oldest_cutoff_ms: int,
    owns: Callable[[str], bool],
    latest_ms: int = MAX_TIME_MS,
) -> int:
    """Put published forecasts of my items back into `pending`; returns how many were taken.

    One of a cutoff that has not come is not ours: it would fill `pending` until then. Of several
    for one item, cutoff and version the first wins.
    """
    groups: dict[Common, list[PublishedForecast]] = {}
    num_steps = max(pending.score_steps, default=0)
    for _, found in _decoded(PublishedForecast, values):
        fits = found.resolution_ms == pending.resolution_ms and len(found.quantiles) >= num_steps
        in_time = oldest_cutoff_ms <= found.cutoff_ms <= latest_ms
        if fits and in_time and owns(found.item_id):
            key = (found.cutoff_ms, found.weights_version, found.quantile_levels)
            groups.setdefault(key, []).append(found)
    for key, group in groups.items():
        pending.add(_issued(key, group, pending.score_steps))
    return sum(len(group) for group in groups.values())


def _issued(common: Common, group: list[PublishedForecast], steps: tuple[int, ...]) -> Issued:
    """The scored steps of forecasts that have these in common."""
    quantiles_IKQ = [[found.quantiles[step - 1] for step in steps] for found in group]
    return Issued(
        *common,
        [found.item_id for found in group],
        [found.forecast_id for found in group],
        np.array(quantiles_IKQ, np.float32),
    )


def read_scores(
    scores: Tail,
    pending: PendingForecasts,
    *,
    owns: Callable[[str], bool],
    latest_ms: int = MAX_TIME_MS,
) -> dict[int, list[Score]]:
    """Close what was scored already; returns the scores of my items by bucket, oldest first.

    Repeats are left out. Of buckets older than what a cut log still tells, nothing is scored: it
    may have been.
    """
    buckets: dict[int, dict[str, Score]] = {}
    oldest_ms: dict[int, int] = {}
    for partition, score in _decoded(Score, scores, latest_ms):
        if score.resolution_ms != pending.resolution_ms:
            continue
        bucket_ms = score.bucket_start_ms
        oldest_ms[partition] = min(bucket_ms, oldest_ms.get(partition, bucket_ms))
        if owns(score.item_id):
            for step in score.steps:
                pending.close(step.forecast_id, step.step)
            buckets.setdefault(bucket_ms, {}).setdefault(score.item_id, score)
    cut_ms = [oldest_ms[partition] for partition in scores.cut if partition in oldest_ms]
    if cut_ms:
        told_from_ms = max(cut_ms)
        for bucket_ms in pending.due_buckets(told_from_ms + pending.resolution_ms):
            pending.close_bucket(bucket_ms)
    return {bucket_ms: list(buckets[bucket_ms].values()) for bucket_ms in sorted(buckets)}


def read_alarms(
    values: Iterable[tuple[int, bytes]], latest_ms: int = MAX_TIME_MS
) -> list[DriftAlert]:
    """Alarms that were raised and not ended."""
    newest: dict[str, DriftAlert] = {}
    for _, alert in _decoded(DriftAlert, values, latest_ms):
        known = newest.get(alert.alert_id)
        if known is None or alert.detected_at_ms >= known.detected_at_ms:
            newest[alert.alert_id] = alert
    return [alert for alert in newest.values() if alert.state == "drift"]


def _decoded(
    kind: type[AnyStruct], values: Iterable[tuple[int, bytes]], latest_ms: int = MAX_TIME_MS
) -> Iterator[tuple[int, AnyStruct]]:
    """The records that can be read, with their partitions; others are logged and left."""
    for partition, value in values:
        try:
            yield partition, decode(kind, value, latest_ms=latest_ms)
        except EventError as error:
            log.warning("record_not_read", error=str(error))
