"""Forecasts that wait long to be scored, read back from where the log holds their rounds.

The newest records of the log reach hours back, and forecasts of days wait for weeks. A round's
records come soon after its cutoff, and Kafka finds them by their timestamps: what lies between
rounds is not read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from freshet.online.drift.pending import PendingForecasts
from freshet.online.worker.recovery import Tail
from freshet.stream.config import Settings
from freshet.stream.kafka import (
    Consumer,
    TopicPartition,
    broker_errors,
    consumer,
    take,
)
from freshet.stream.telemetry import get_logger
from freshet.stream.units import MINUTE_MS

ROUND_MS = 15 * MINUTE_MS  # after its cutoff a round's forecasts are looked for so long
BUDGET_S = 30.0  # what is not read by then waits unscored
TAKE_RECORDS = 1_000
PREFETCHED_KIB = 16_384  # beyond the end of a span it is thrown away

log = get_logger(__name__)


def waiting_cutoffs_ms(pending: PendingForecasts, final_ms: int | None) -> list[int]:
    """Cutoffs whose last scored step is about a bucket that is not final yet, oldest first."""
    if final_ms is None or not pending.score_steps:
        return []
    grid = pending.grid
    # The bucket of this time ends after it.
    open_from = grid.bucket(final_ms)
    first = open_from - max(pending.score_steps) + 1
    return [grid.start_ms(bucket) for bucket in range(first, open_from + 1)]


def spans_of(cutoffs_ms: Iterable[int]) -> list[tuple[int, int]]:
    """When rounds of these cutoffs were made: [from, to) without overlaps, newest first.

    >>> spans_of([0, 10_000_000, 10_600_000])
    [(10000000, 11500000), (0, 900000)]
    """
    spans: list[tuple[int, int]] = []
    for cutoff_ms in sorted(set(cutoffs_ms)):
        if spans and cutoff_ms <= spans[-1][1]:
            spans[-1] = (spans[-1][0], cutoff_ms + ROUND_MS)
        else:
            spans.append((cutoff_ms, cutoff_ms + ROUND_MS))
    return spans[::-1]


class Earlier:
    """The records of some rounds that lie before the tail of their topic, newest rounds first.

    Args:
        settings: Where to connect.
        topic: Read without a group.
        cutoffs_ms: Of the rounds; a shop whose clock is not the wall's finds none of them.
        tail: Read before this is.
    """

    def __init__(
        self, settings: Settings, topic: str, cutoffs_ms: Iterable[int], tail: Tail
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._spans = spans_of(cutoffs_ms)
        self._tail = tail

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Partition and value of each record; BrokerError where the broker does not answer."""
        if not self._tail.cut or not self._spans:
            return
        over = {"enable_partition_eof": True, "auto_offset_reset": "earliest"}
        client = consumer(
            self._settings, "worker-earlier", queued_max_messages_kbytes=PREFETCHED_KIB, **over
        )
        until_s = time.monotonic() + BUDGET_S
        try:
            for number, span_ms in enumerate(self._spans):
                yield from _read(client, self._topic, self._places(client, span_ms), until_s)
                if time.monotonic() > until_s:
                    left = len(self._spans) - number - 1
                    log.warning("forecasts_not_read_back", before_ms=span_ms[1], spans_left=left)
                    return
        finally:
            client.close()

    def _places(self, client: Consumer, span_ms: tuple[int, int]) -> dict[int, tuple[int, int]]:
        """From which offset to which a span lies in each partition, as far as before the tail."""
        starts, ends = (self._offsets_at(client, time_ms) for time_ms in span_ms)
        places = {}
        for partition in self._tail.cut:
            begins = self._tail.starts[partition]
            end = begins if ends[partition] < 0 else min(ends[partition], begins)
            if 0 <= starts[partition] < end:
                places[partition] = (starts[partition], end)
        return places

    def _offsets_at(self, client: Consumer, time_ms: int) -> dict[int, int]:
        """The first offset from a time on; negative where nothing is that late."""
        asked = [TopicPartition(self._topic, partition, time_ms) for partition in self._tail.cut]
        timeout_s = self._settings.kafka.request_timeout_ms / 1_000
        with broker_errors(f"asking where {self._topic} stands at a time"):
            found = client.offsets_for_times(asked, timeout_s)
        return {at.partition: at.offset for at in found}


def _read(
    client: Consumer, topic: str, places: dict[int, tuple[int, int]], until_s: float
) -> Iterator[tuple[int, bytes]]:
    left = {partition: end for partition, (_, end) in places.items()}
    with broker_errors(f"reading {topic} back"):
        client.assign([TopicPartition(topic, at, start) for at, (start, _) in places.items()])
    while left and time.monotonic() <= until_s:
        taken = take(client, TAKE_RECORDS, 100)
        for message in taken.messages:
            partition, offset = message.partition() or 0, message.offset() or 0
            end, value = left.get(partition, 0), message.value()
            if offset < end and value is not None:
                yield partition, value
            if offset + 1 >= end:
                left.pop(partition, None)
        for _, partition in taken.ends:
            left.pop(partition, None)
