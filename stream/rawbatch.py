"""From a client's messages to what a partition folds: grouped by partition, as columns, redrive headers picked out."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from stream.kafka import Message
from stream.partition import RawBatch
from stream.redrive import redrive_name

Key = tuple[str, int]


def by_partition(messages: Sequence[Message], owned: Container[Key]) -> dict[Key, list[Message]]:
    """The messages of each owned partition, in log order; those of others are left out."""
    groups: dict[Key, list[Message]] = {}
    for message in messages:
        groups.setdefault((message.topic() or "", message.partition() or 0), []).append(message)
    return {key: group for key, group in groups.items() if key in owned}


def raw_batch(messages: Sequence[Message]) -> RawBatch:
    """One partition's messages, at least one, as a batch to fold."""
    offsets = np.array([message.offset() for message in messages], np.int64)
    return RawBatch(
        values=[message.value() for message in messages],
        keys=[message.key() for message in messages],
        timestamps_ms=np.array([message.timestamp()[1] for message in messages], np.int64),
        offsets=offsets,
        next_offset=int(offsets[-1]) + 1,
        redrives=_redrives(messages),
    )


def _redrives(messages: Sequence[Message]) -> dict[int, bytes]:
    """The redrive headers of the few records that have one."""
    found = {}
    for n, message in enumerate(messages):
        headers = message.headers()
        if headers and (name := redrive_name(list(headers.items() if isinstance(headers, dict) else headers))):
            found[n] = name
    return found
