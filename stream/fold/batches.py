"""What a fold takes and what it gives: a batch of one partition's records, and a batch folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from freshet.stream.arrays import Ints
from freshet.stream.events.columns import Decoded
from freshet.stream.events.redrive import Headers
from freshet.stream.fold.verdicts import DeadLetter
from freshet.stream.fold.writes import ChangedTiles
from freshet.stream.store.layout import Header, Update


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Records of one partition in log order; `next_offset` is where the next batch begins.

    `redrives` are the redrive headers of the records that have one, by their place in the batch;
    `history` are their history headers, and `headers` all headers of the records that have any.
    """

    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    timestamps_ms: Ints
    offsets: Ints
    next_offset: int
    redrives: Mapping[int, bytes] = field(default_factory=dict)
    history: Mapping[int, bytes] = field(default_factory=dict)
    headers: Mapping[int, Headers] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """Records of one partition in log order, decoded; the headers are as in `RawBatch`."""

    decoded: Decoded
    timestamps_ms: Ints
    first_offset: int
    next_offset: int
    redrives: Mapping[int, bytes] = field(default_factory=dict)
    history: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a batch's records.

    They add up: read = applied + duplicate + late_dropped + dead_letter + skipped. Beside them,
    `lines_dead` are dead lines of applied records, and `conflicting` duplicates that say otherwise.
    """

    read: int
    applied: int
    duplicate: int
    late_dropped: int
    dead_letter: int
    skipped: int = 0
    lines_dead: int = 0
    conflicting: int = 0


@dataclass(frozen=True, slots=True)
class Fold:
    """A batch judged and added up, not yet written.

    `dead` and `too_late` name records by their place in the batch; publish them before `apply`.
    `skip_reasons` counts those that were skipped; `old` are those that were applied although their
    event time is over a year before their timestamp, history left out.
    `touched_item_ids` are the items of all applied lines; `changed` and `header` are for `apply`.
    """

    update: Update
    dead: list[DeadLetter]
    too_late: list[int]
    touched_item_ids: list[str]
    counts: Counts
    next_offset: int
    frontier_ms: int | None
    header: Header
    changed: ChangedTiles
    skip_reasons: Mapping[str, int] = field(default_factory=dict)
    old: Sequence[int] = ()
