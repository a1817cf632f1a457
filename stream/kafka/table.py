"""Reads whole topics from their start: for whoever needs a table, not a share of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from confluent_kafka import Message, TopicPartition

from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka.client import (
    Key,
    broker_errors,
    consumer,
    headers_of,
    log_range,
    partitions_of,
    take,
)

MAX_RECORDS = 5_000
BUFFER_KB = 8_192


class Silence:
    """How long a broker may say nothing while somebody waits for the end of a log.

    The client itself waits for a broker that is away for ever, and says so in the log only.

    Args:
        kafka: Three of its request timeouts are too long.
        now_s: The clock.
    """

    def __init__(self, kafka: KafkaSettings, now_s: Callable[[], float] = time.monotonic) -> None:
        self._longest_s = 3 * kafka.request_timeout_ms / 1_000
        self._servers = kafka.bootstrap_servers
        self._now_s = now_s
        self._heard_at_s = now_s()

    def note(self, heard: bool) -> None:
        """Something was heard, or nothing.

        Raises:
            BrokerError: Nothing was, for too long.
        """
        if heard:
            self._heard_at_s = self._now_s()
        elif self._now_s() - self._heard_at_s > self._longest_s:
            raise BrokerError(f"{self._servers} has said nothing for {self._longest_s:g} s")


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One record of a topic read from its start."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    partition: int
    offset: int
    headers: tuple[tuple[str, bytes | None], ...] = ()


class TableReader:
    """Reads whole topics from the start, without a group: every reader sees every record.

    The partitions are those found when it was made.

    Args:
        settings: Where to connect.
        topics: Topics to read; on a broker without a controller, missing ones come into being.
        starts: Where to begin in some partitions, elsewhere at the start.

    Raises:
        BrokerError: The broker does not answer, or a topic does not exist.
    """

    def __init__(
        self, settings: Settings, topics: list[str], starts: Mapping[Key, int] = {}
    ) -> None:
        self._kafka = settings.kafka
        partitions = partitions_of(settings, topics)
        self._behind = {
            (topic, number) for topic, count in partitions.items() for number in range(count)
        }
        self._client = consumer(
            settings,
            "table",
            enable_partition_eof=True,
            auto_offset_reset="earliest",
            queued_max_messages_kbytes=BUFFER_KB,
        )
        # Offset 0 needs no lookup, which takes half a second; where it is gone, the reset goes to
        # the first there is.
        self._next = {at: starts.get(at, 0) for at in sorted(self._behind)}
        with broker_errors("starting to read topics"):
            self._client.assign([TopicPartition(*at, offset) for at, offset in self._next.items()])

    @property
    def caught_up(self) -> bool:
        """True once the end of every partition has been seen."""
        return not self._behind

    def poll(self, max_wait_ms: int = 100, max_records: int = MAX_RECORDS) -> list[TableRecord]:
        """The next records, in order within a partition; empty when none came in time."""
        taken = take(self._client, max_records, max_wait_ms)
        self._behind -= taken.ends.keys()
        records = [_table_record(message) for message in taken.messages]
        self._next |= {(one.topic, one.partition): one.offset + 1 for one in records}
        self._next |= {at: max(end, self._next[at]) for at, end in taken.ends.items()}
        return records

    def next_offsets(self, topic: str) -> dict[int, int]:
        """By partition, the offset of the record that comes next."""
        return {number: offset for (name, number), offset in self._next.items() if name == topic}

    def ends(self, topic: str) -> dict[Key, int]:
        """Where each partition of a topic ends at this moment.

        Raises:
            BrokerError: The broker does not answer in time.
        """
        of_topic = [at for at in self._next if at[0] == topic]
        return {at: log_range(self._client, *at)[1] for at in of_topic}

    def reached(self, ends: Mapping[Key, int]) -> bool:
        """Whether everything before these offsets has been handed over."""
        return all(self._next[at] >= end for at, end in ends.items())

    def to_end(self) -> Iterator[TableRecord]:
        """Each record up to the ends as they are met, however long that takes.

        Raises:
            BrokerError: The broker has fallen silent.
        """
        silence = Silence(self._kafka)
        while not self.caught_up:
            behind = len(self._behind)
            records = self.poll()
            yield from records
            silence.note(bool(records) or len(self._behind) < behind)

    def read_to_end(self, timeout_ms: int = 60_000) -> list[TableRecord]:
        """Everything up to the ends as they are met.

        Raises:
            BrokerError: The ends were not reached in time.
        """
        deadline = time.monotonic() + timeout_ms / 1_000
        records: list[TableRecord] = []
        while not self.caught_up:
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"{len(self._behind)} partitions were not read to their end in {timeout_ms} ms"
                )
            records += self.poll()
        return records

    def close(self) -> None:
        """Leave; blocks for a moment."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _table_record(message: Message) -> TableRecord:
    return TableRecord(
        message.topic() or "",
        message.key(),
        message.value(),
        message.timestamp()[1],
        message.partition() or 0,
        message.offset() or 0,
        tuple(headers_of(message)),
    )
