"""Columns of a parquet or CSV file as numpy arrays; errors name the file and what it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.source.replay.rows import TextColumn

SECONDS_BELOW = 100_000_000_000


class Table:
    """One file in memory.

    Raises:
        InvalidInputError: It does not exist or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise InvalidInputError(f"the file {path} does not exist")
        try:
            self.data = (
                pa.csv.read_csv(path)
                if path.suffix.lower() in (".csv", ".txt")
                else pq.read_table(path)
            )
        except (pa.ArrowInvalid, OSError) as error:
            raise InvalidInputError(
                f"{path} cannot be read: {str(error).splitlines()[0]}",
                hint="expected a parquet or a CSV file",
            ) from None

    def __len__(self) -> int:
        return int(self.data.num_rows)

    @property
    def columns(self) -> list[str]:
        """Names as in the file."""
        return list(self.data.column_names)

    def need(self, names: Sequence[str], what: str) -> None:
        """Refuse the file unless it has all of these columns.

        Raises:
            InvalidInputError: Names the first missing column and those that are there.
        """
        for name in names:
            if name not in self.columns:
                raise InvalidInputError(
                    f"{self.path.name} has no column {name!r}, which {what} needs",
                    hint=f"its columns are {', '.join(self.columns)}",
                )

    def raw(self, name: str) -> Any:
        """One column, Arrow's own."""
        column = self.data.column(name).combine_chunks()
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column

    def texts(self, name: str, missing: str = "") -> TextColumn:
        """One column as texts; nulls become `missing`."""
        column = pc.fill_null(pc.cast(self.raw(name), pa.string()), missing)
        encoded = pc.dictionary_encode(column)
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        return TextColumn(
            np.asarray(encoded.indices, dtype=np.int64), encoded.dictionary.to_pylist()
        )

    def numbers(self, name: str) -> Floats:
        """One column as float64; nulls become NaN.

        Raises:
            InvalidInputError: It holds something else.
        """
        try:
            column = pc.cast(self.raw(name), pa.float64())
        except pa.ArrowInvalid as error:
            raise InvalidInputError(
                f"{self.path.name}: column {name!r} is not numeric: {error}"
            ) from None
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)

    def flags(self, name: str) -> np.ndarray:
        """One column as booleans; nulls are False."""
        return np.asarray(
            pc.fill_null(self.raw(name), False).to_numpy(zero_copy_only=False), dtype=bool
        )

    def times_ms(self, name: str, zone: str = "UTC") -> tuple[Ints, np.ndarray]:
        """One column as epoch milliseconds, and where there is none.

        Timestamps and dates without a zone, and text without an offset, are local times of `zone`;
        numbers are epoch seconds when small, else milliseconds.

        Raises:
            InvalidInputError: It holds something else.
        """
        column = self.raw(name)
        missing = np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False), dtype=bool)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            numbers = np.nan_to_num(self.numbers(name))
            scale = 1_000 if len(numbers) == 0 or np.abs(numbers).max() < SECONDS_BELOW else 1
            return np.rint(numbers * scale).astype(np.int64), missing
        try:
            utc = _utc(column, zone)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidInputError(
                f"{self.path.name}: column {name!r} does not hold times: "
                f"{str(error).splitlines()[0]}"
            ) from None
        return np.asarray(pc.fill_null(pc.cast(utc, pa.int64()), 0), dtype=np.int64), missing


def _utc(column: Any, zone: str) -> Any:
    """Any Arrow column of times as `timestamp[ms, UTC]`."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        zoned = pc.match_substring_regex(column, r"(Z|[+-]\d\d:?\d\d)$")
        aware = pc.any(zoned).as_py()
        column = pc.cast(column, pa.timestamp("ms", "UTC" if aware else None))
    if not pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("ms"))
    if column.type.tz is None:
        column = pc.assume_timezone(column, zone, ambiguous="earliest", nonexistent="earliest")
    return pc.cast(column, pa.timestamp("ms", "UTC"), safe=False)
