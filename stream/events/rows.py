"""Bytes of records to rows of raw values, at the speed of a typed decoder where they are good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

import msgspec
import numpy as np

from freshet.stream.events.limits import Refusals
from freshet.stream.events.map.shapes import Row, Shape, plain_json
from freshet.stream.events.map.texts import kind_name
from freshet.stream.events.order_lines import Index

_UNFIT: Final = (msgspec.DecodeError, ValueError, RecursionError)


class RowReader:
    """Reads the rows of a shape."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._decode = msgspec.json.Decoder(shape.struct).decode

    def read(
        self, values: Sequence[bytes | None], refused: Refusals, skipped: Mapping[int, str]
    ) -> tuple[Index, list[Row]]:
        """The fields of each record that decodes as a tuple, and its place in the slice."""
        index = np.arange(len(values))
        left_out = refused.by_index.keys() | skipped.keys()
        if left_out:
            index = np.delete(index, list(left_out))
            values = [values[n] for n in index.tolist()]
        rows: list[Row | None] = []
        reading = map(self._shape.get, map(self._decode, cast(Sequence[bytes], values)))
        while True:
            # The iterator goes on after the record that raised: a good one costs no try of its own.
            try:
                rows.extend(reading)
                break
            except (AttributeError, msgspec.ValidationError):
                # An object on a path is null, or is none at all.
                odd = len(rows)
                rows.append(self._odd(cast(bytes, values[odd]), int(index[odd]), refused))
            except _UNFIT as error:
                refused.add(int(index[len(rows)]), "Undecodable", str(error))
                rows.append(None)
        good = [row for row in rows if row is not None]
        if len(good) < len(rows):
            index = index[[row is not None for row in rows]]
        return index, good

    def _odd(self, value: bytes, index: int, refused: Refusals) -> Row | None:
        """The row of a record that is not as the struct would have it; None where it is none."""
        try:
            record = plain_json(value)
        except _UNFIT as error:
            refused.add(index, "Undecodable", str(error))
            return None
        if isinstance(record, dict):
            return self._shape.loose_row(record)
        refused.add(index, "InvalidField", f"the value is {kind_name(record)}, expected an object")
        return None
