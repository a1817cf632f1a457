"""Whether a table holds something newer than a dead letter of it: what is newer stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from freshet.stream.codec import MAX_TIME_MS
from freshet.stream.config import Settings
from freshet.stream.events.dead_letter import Source, notes_of
from freshet.stream.kafka import TableReader, TableRecord


class Place(NamedTuple):
    """Where a dead letter's record lies in its topic, and its timestamp there."""

    partition: int
    offset: int
    timestamp_ms: int


def superseded(settings: Settings, topic: str, letters: Sequence[Source]) -> set[int]:
    """The indexes of letters whose key has a newer record on their topic, which is read whole.

    A letter without a key has nothing newer.

    Args:
        settings: Where to connect.
        topic: The compacted topic that the letters' records lie on.
        letters: As they lie on its dead-letter topic; all say their partition.

    Raises:
        BrokerError: The broker does not answer, or there is no such topic.
    """
    places: dict[bytes, list[tuple[int, Place]]] = defaultdict(list)
    for index, letter in enumerate(letters):
        if letter.key is not None:
            places[letter.key].append((index, _place_of(letter)))
    if not places:
        return set()
    found: set[int] = set()
    with TableReader(settings, [topic]) as reader:
        for record in reader.to_end():
            asked = places.get(record.key, ()) if record.key is not None else ()
            found |= {index for index, place in asked if newer(record, place)}
    return found


def newer(record: TableRecord, place: Place) -> bool:
    """Whether a record of the same key came after a letter's.

    Offsets tell it within a partition. Where the topic was made again, or has more partitions than
    it had, only timestamps do.

    >>> record = TableRecord("catalog", b"a", b"{}", timestamp_ms=5, partition=0, offset=3)
    >>> newer(record, Place(0, 2, 9)), newer(record, Place(0, 3, 5)), newer(record, Place(1, 9, 4))
    (True, False, True)
    """
    later = record.partition == place.partition and record.offset > place.offset
    return later or record.timestamp_ms > place.timestamp_ms


def _place_of(letter: Source) -> Place:
    """Where the notes say; where they say nothing of the time, only offsets count."""
    notes = notes_of(letter.headers)
    return Place(
        int(notes.partition),
        _number(notes.offset, -1),
        _number(notes.timestamp_ms, MAX_TIME_MS),
    )


def _number(text: str, unknown: int) -> int:
    return int(text) if text.isdecimal() else unknown
