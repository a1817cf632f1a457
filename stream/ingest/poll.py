"""What one turn polls: slices of messages, decoded by partition while a core's cache holds them.

20,000 messages read at once cost twice as much each as 2,000 at a time: they fall out of the cache
before anybody looks at them. So a batch is read and decoded slice by slice, and judged, folded and
written as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from operator import eq, itemgetter

import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.events.columns import Decoded, concatenate
from freshet.stream.events.redrive import Headers, redrive_name
from freshet.stream.fold.batches import DecodedBatch
from freshet.stream.fold.history import history_mark
from freshet.stream.kafka import Key, Message, Taken, headers_of

SLICE_RECORDS = 2_000
_MILLISECONDS = itemgetter(1)

Values = Sequence[bytes | None]
Decode = Callable[[Values, Values, Ints, Mapping[int, Headers]], Decoded]
"""Values, keys, timestamps, and the headers of the records that have any, by their place."""


@dataclass(slots=True)
class Polled:
    """One partition's messages of a turn, in log order, and what they decode to."""

    messages: list[Message] = field(default_factory=list)
    _parts: list[Decoded] = field(default_factory=list)
    _timestamps_ms: list[Ints] = field(default_factory=list)
    _redrives: dict[int, bytes] = field(default_factory=dict)
    _history: dict[int, bytes] = field(default_factory=dict)

    def add(self, messages: Sequence[Message], decode: Decode) -> None:
        """Take the next messages of the partition; at least one."""
        values = list(map(Message.value, messages))
        keys = list(map(Message.key, messages))
        stamps = map(_MILLISECONDS, map(Message.timestamp, messages))
        timestamps_ms = np.fromiter(stamps, np.int64, len(messages))
        headers: dict[int, Headers] = {}
        # Most messages have no headers, so all are asked at once before any is looked at.
        if any(map(Message.headers, messages)):
            found = enumerate(map(headers_of, messages))
            headers = {place: own for place, own in found if own}
        self._note(headers, values)
        self._parts.append(decode(values, keys, timestamps_ms, headers))
        self._timestamps_ms.append(timestamps_ms)
        self.messages += messages

    def _note(self, headers: Mapping[int, Headers], values: Values) -> None:
        for place, own in headers.items():
            name, mark = redrive_name(own), history_mark(own, values[place])
            if name is not None:
                self._redrives[len(self.messages) + place] = name
            if mark is not None:
                self._history[len(self.messages) + place] = mark

    def batch(self) -> DecodedBatch:
        """All of it, ready to be folded."""
        return DecodedBatch(
            decoded=concatenate(self._parts),
            timestamps_ms=np.concatenate(self._timestamps_ms),
            first_offset=self.messages[0].offset() or 0,
            next_offset=(self.messages[-1].offset() or 0) + 1,
            redrives=self._redrives,
            history=self._history,
        )


def poll(
    take: Callable[[int, int], Taken],
    decoder_of: Callable[[Key], Decode | None],
    *,
    max_records: int,
    max_wait_ms: int,
    now_ms: Callable[[], float],
) -> tuple[dict[Key, Polled], dict[Key, int]]:
    """Read up to `max_records` records, waiting at most `max_wait_ms` in all.

    Args:
        take: Reads so many messages, waiting so many milliseconds.
        decoder_of: A partition's decoder; None where its messages are not ours, which are dropped.
        max_records: Most records.
        max_wait_ms: Longest wait; a slice that comes back short has waited and is the last one.
        now_ms: A clock that never goes back.

    Returns:
        Each partition's records, and the log ends that were met.
    """
    polled: dict[Key, Polled] = {}
    ends: dict[Key, int] = {}
    left = max_records
    deadline_ms = now_ms() + max_wait_ms
    while left > 0:
        asked = min(SLICE_RECORDS, left)
        taken = take(asked, max(0, int(deadline_ms - now_ms())))
        ends |= taken.ends
        for key, messages in by_partition(taken.messages).items():
            decode = decoder_of(key)
            if decode is not None:
                polled.setdefault(key, Polled()).add(messages, decode)
        left -= asked
        if len(taken.messages) + len(taken.ends) < asked:
            break
    return polled, ends


def by_partition(messages: Sequence[Message]) -> dict[Key, list[Message]]:
    """Each partition's messages, in order.

    In a trickle partitions take turns, and decoding a few records at a time is dear.
    """
    found: dict[Key, list[Message]] = {}
    for key, run in runs(messages):
        found.setdefault(key, []).extend(run)
    return found


def runs(messages: Sequence[Message]) -> Iterable[tuple[Key, Sequence[Message]]]:
    """The messages in order, cut wherever the partition changes.

    Of a busy log nearly all messages of a slice come in one or two runs, so the few cuts are found
    on whole columns.
    """
    if not messages:
        return
    topics = list(map(Message.topic, messages))
    partitions = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
    changes = partitions[1:] != partitions[:-1]
    # One pass for each further topic finds where that topic begins and ends.
    for topic in set(topics) - {topics[0]}:
        of_it = np.fromiter(map(eq, topics, repeat(topic)), np.bool_, len(topics))
        changes |= of_it[1:] != of_it[:-1]
    cuts = (np.flatnonzero(changes) + 1).tolist()
    for start, end in pairwise([0, *cuts, len(messages)]):
        yield (topics[start] or "", int(partitions[start])), messages[start:end]
