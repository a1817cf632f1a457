"""A batch of decoded events as columns, and several batches put together; pure numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Bools, Floats, Hashes, Ints
from freshet.stream.events.limits import LineRefusal, Refusal, Skipped

AnyPlaces = TypeVar("AnyPlaces", npt.NDArray[np.intp], npt.NDArray[np.int64])
AnyNote = TypeVar("AnyNote", Refusal, LineRefusal, Skipped)
AnyColumn = TypeVar("AnyColumn", Ints, Floats)


@dataclass(frozen=True, slots=True)
class StateColumns:
    """What a record that says what an order *is* says of the order, one entry a good record.

    `order_hash` is the xxh3-64 of the order's id, `created_ms` when the order was made, `cancelled`
    whether all of it is given back.
    """

    order_hash: Hashes
    version: Ints
    created_ms: Ints
    cancelled: Bools

    def of(self, records: Bools | npt.NDArray[np.intp]) -> StateColumns:
        """Some of the records."""
        return StateColumns(
            order_hash=self.order_hash[records],
            version=self.version[records],
            created_ms=self.created_ms[records],
            cancelled=self.cancelled[records],
        )


@dataclass(frozen=True, slots=True)
class Decoded:
    """The good records of a batch as columns, in log order, and why each other one is none.

    `index` is the record's place in the batch of `num_records`. Lines are flat: `line_record` is
    the line's record (a position in `index`, rising), `line_name` the place of its item_id in
    `item_ids`, a table that only grows and that later batches share. Orders fill `quantity` and
    `unit_price`, clicks fill `channel`. Where orders are states, `states` is filled, and
    `event_time_ms` is when the order changed. `line_refusals` are lines that good records lack.
    """

    num_records: int
    index: npt.NDArray[np.intp]
    event_hash: Hashes
    event_time_ms: Ints
    line_record: npt.NDArray[np.intp]
    line_name: Ints
    quantity: Floats
    unit_price: Floats
    channel: Ints
    refusals: list[Refusal]
    item_ids: list[str]
    states: StateColumns | None = None
    skipped: Sequence[Skipped] = ()
    line_refusals: Sequence[LineRefusal] = ()

    def item_of(self, line: int) -> str:
        """The item_id of one line."""
        return self.item_ids[int(self.line_name[line])]

    @property
    def line_item(self) -> list[str]:
        """The item_id of each line."""
        return [self.item_ids[name] for name in self.line_name.tolist()]


def concatenate(parts: Sequence[Decoded]) -> Decoded:
    """One batch of several that follow each other; at least one."""
    if len(parts) == 1:
        return parts[0]
    first_record = _starts(part.num_records for part in parts)
    first_good = _starts(len(part.index) for part in parts)
    first_name, item_ids = _one_table([part.item_ids for part in parts])
    return Decoded(
        num_records=first_record[-1],
        index=_joined([part.index for part in parts], first_record),
        event_hash=np.concatenate([part.event_hash for part in parts]),
        event_time_ms=np.concatenate([part.event_time_ms for part in parts]),
        line_record=_joined([part.line_record for part in parts], first_good),
        line_name=_joined([part.line_name for part in parts], first_name),
        quantity=np.concatenate([part.quantity for part in parts]),
        unit_price=np.concatenate([part.unit_price for part in parts]),
        channel=np.concatenate([part.channel for part in parts]),
        refusals=_moved([part.refusals for part in parts], first_record),
        item_ids=item_ids,
        states=_joined_states([part.states for part in parts]),
        skipped=_moved([part.skipped for part in parts], first_record),
        line_refusals=_moved([part.line_refusals for part in parts], first_record),
    )


def _moved(parts: Sequence[Sequence[AnyNote]], starts: Sequence[int]) -> list[AnyNote]:
    """Notes on records one after the other, each moved by where its part begins."""
    pairs = zip(parts, starts, strict=False)
    return [replace(note, index=note.index + at) for notes, at in pairs for note in notes]


def _joined_states(parts: Sequence[StateColumns | None]) -> StateColumns | None:
    """All parts have them or none."""
    states = [part for part in parts if part is not None]
    if not states:
        return None
    return StateColumns(
        order_hash=np.concatenate([part.order_hash for part in states]),
        version=np.concatenate([part.version for part in states]),
        created_ms=np.concatenate([part.created_ms for part in states]),
        cancelled=np.concatenate([part.cancelled for part in states]),
    )


def _joined(columns: Sequence[AnyPlaces], starts: Sequence[int]) -> AnyPlaces:
    """Columns of places one after the other, each moved by where its part begins."""
    return np.concatenate([places + at for places, at in zip(columns, starts, strict=False)])


def _starts(sizes: Iterable[int]) -> list[int]:
    """Where each part begins when they follow each other, and where the last one ends."""
    return [0, *accumulate(sizes)]


def _one_table(tables: Sequence[list[str]]) -> tuple[list[int], list[str]]:
    """Where in one table the names of each part's table begin; nearly always all share one."""
    different = {id(table): table for table in tables}
    if len(different) == 1:
        return [0] * len(tables), tables[0]
    starts = dict(zip(different, _starts(map(len, different.values())), strict=False))
    return [starts[id(table)] for table in tables], list(chain.from_iterable(different.values()))


def without(columns: Decoded, refusals: Sequence[Refusal]) -> Decoded:
    """Leave out every record that was refused, with all its lines."""
    refused = [refusal.index for refusal in refusals]
    bad = np.isin(columns.index, refused)
    bad_line = bad[columns.line_record]
    new_place = np.cumsum(~bad) - 1
    return replace(
        columns,
        index=columns.index[~bad],
        event_hash=columns.event_hash[~bad],
        event_time_ms=columns.event_time_ms[~bad],
        line_record=new_place[columns.line_record[~bad_line]],
        line_name=columns.line_name[~bad_line],
        quantity=_chosen(columns.quantity, ~bad_line),
        unit_price=_chosen(columns.unit_price, ~bad_line),
        channel=_chosen(columns.channel, ~bad_line),
        refusals=list(refusals),
        line_refusals=[bad for bad in columns.line_refusals if bad.index not in set(refused)],
        states=None if columns.states is None else columns.states.of(~bad),
    )


def _chosen(column: AnyColumn, lines: Bools) -> AnyColumn:
    """The chosen lines of a column; one that the other kind of event fills stays empty."""
    return column[lines] if len(column) else column
