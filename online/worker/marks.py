"""How far the forecasts of one shard have come, as it is written beside the group's offsets.

A round forecasts a shard's items in the order of their places, so that one number tells which have
a forecast: all whose place is not beyond it. It moves in the transaction of the forecasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import msgspec
import xxhash

NONE_YET = -1
"""Before every place."""
LAST = 2**64 - 1


def place_of(item_id: str) -> int:
    """Where an item stands in every round: its xxh3-64, which also tells its shard."""
    return xxhash.xxh3_64_intdigest(item_id.encode())


@dataclass(frozen=True, slots=True)
class Mark:
    """The newest round of one shard and resolution.

    Attributes:
        cutoff_ms: Its cutoff.
        upto: Items up to this place have a forecast at it; `LAST` when all have.
        published: How many those are.
        expected: How many there were when the round began.
        skipped: Cutoffs right before it that nobody forecast.
    """

    cutoff_ms: int
    upto: int
    published: int
    expected: int
    skipped: int = 0

    @property
    def complete(self) -> bool:
        """Whether every item has its forecast."""
        return self.upto == LAST


Marks = dict[int, Mark]
"""By resolution in ms."""


def encode_marks(marks: Mapping[int, Mark]) -> str:
    """As text of a few dozen bytes a resolution; Kafka keeps 4,096.

    >>> encode_marks({60_000: Mark(120_000, LAST, 3, 3)})
    '{"60000":[120000,18446744073709551615,3,3,0]}'
    """
    rows = {str(resolution_ms): astuple(mark) for resolution_ms, mark in marks.items()}
    return msgspec.json.encode(rows).decode()


def decode_marks(text: str) -> Marks:
    """What `encode_marks` wrote; nothing where somebody else wrote something.

    >>> decode_marks('{"60000":[120000,7,1,3,0]}')
    {60000: Mark(cutoff_ms=120000, upto=7, published=1, expected=3, skipped=0)}
    >>> decode_marks("by hand")
    {}
    """
    try:
        rows = msgspec.json.decode(text.encode(), type=dict[int, tuple[int, int, int, int, int]])
    except msgspec.DecodeError:
        return {}
    marks = {resolution_ms: Mark(*row) for resolution_ms, row in rows.items()}
    foreign = any(not NONE_YET <= mark.upto <= LAST for mark in marks.values())
    return {} if foreign else marks
