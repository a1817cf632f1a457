"""The records of one partition's log between two offsets, in order, for a recount."""

from __future__ import annotations

import time
from collections.abc import Iterator

from freshet.stream.errors import BrokerError
from freshet.stream.kafka import Consumer, Message, TopicPartition, broker_errors, take

MAX_RECORDS_A_READ = 10_000
MAX_SILENCE_S = 30.0


def messages(
    reader: Consumer, topic: str, partition: int, first: int, end: int
) -> Iterator[Message]:
    """The records in [first, end).

    Raises:
        BrokerError: The broker has sent nothing for too long.
    """
    with broker_errors(f"starting to read {topic}:{partition}"):
        reader.assign([TopicPartition(topic, partition, first)])
    position, heard = first, time.monotonic()
    while position < end:
        taken = take(reader, MAX_RECORDS_A_READ, max_wait_ms=200)
        for message in taken.messages:
            position = (message.offset() or 0) + 1
            if position <= end:
                yield message
        position = max(position, taken.ends.get((topic, partition), 0))
        if taken.messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > MAX_SILENCE_S:
            raise BrokerError(
                f"{topic}:{partition} sent nothing after offset {position} for {MAX_SILENCE_S:g} s"
            )
