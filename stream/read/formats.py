"""Rows of windows as JSON lines, comma-separated values or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from freshet.stream.arrays import Bools, Ints
from freshet.stream.schemas import CHANNELS, UNIT_SCALES

COLUMNS = ("item_id", "bucket_start_ms", *CHANNELS)
_SCALES = tuple(UNIT_SCALES.get(channel, 1) for channel in CHANNELS)
_DECIMALS = {1: 0, 1_000: 3, 10_000: 4}


@dataclass(frozen=True, slots=True)
class WindowRows:
    """Some rows, N of them: stored integers of C channels, not yet units and currency.

    `closed` says of each row whether its bucket is closed by the stored watermarks.
    """

    item_ids: list[str]
    bucket_start_ms: Ints
    values_NC: Ints
    closed: Bools

    @classmethod
    def none(cls) -> WindowRows:
        """No rows."""
        no_values_NC = np.empty((0, len(CHANNELS)), np.int64)
        return cls([], np.empty(0, np.int64), no_values_NC, np.empty(0, bool))


class Writer(Protocol):
    """Writes groups of rows to a file."""

    def write(self, group: WindowRows) -> None:
        """Append some rows."""

    def close(self) -> None:
        """Finish; the file itself stays open."""


def decimal(value: int, scale: int) -> str:
    """An integer of `1 / scale` units as the shortest exact decimal number.

    >>> decimal(12_500, 1_000), decimal(-3_000, 1_000), decimal(7, 1), decimal(1, 10_000)
    ('12.5', '-3', '7', '0.0001')
    """
    if scale == 1:
        return str(value)
    whole, rest = divmod(abs(value), scale)
    text = f"{whole}.{rest:0{_DECIMALS[scale]}d}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 else text


def _texts(group: WindowRows) -> Iterator[tuple[str, int, list[str], str]]:
    """Item, bucket start, values and `closed` of each row, as they are printed."""
    columns = (group.bucket_start_ms.tolist(), group.values_NC.tolist(), group.closed.tolist())
    for item_id, start_ms, values, closed in zip(group.item_ids, *columns, strict=True):
        texts = [decimal(*pair) for pair in zip(values, _SCALES, strict=True)]
        yield item_id, start_ms, texts, "true" if closed else "false"


class JsonLines:
    """One JSON object a line."""

    def __init__(self, file: BinaryIO, include_open: bool) -> None:
        self._file = file
        self._include_open = include_open

    def write(self, group: WindowRows) -> None:
        """Append some rows."""
        for item_id, start_ms, values, closed in _texts(group):
            name = json.dumps(item_id, ensure_ascii=False)
            fields = [f'"item_id":{name}', f'"bucket_start_ms":{start_ms}']
            pairs = zip(CHANNELS, values, strict=True)
            fields += [f'"{channel}":{value}' for channel, value in pairs]
            if self._include_open:
                fields.append(f'"closed":{closed}')
            self._file.write(("{" + ",".join(fields) + "}\n").encode())

    def close(self) -> None:
        """Finish; the file itself stays open."""
        self._file.flush()


class Csv:
    """A header line, then comma-separated values, quoted where needed."""

    def __init__(self, file: BinaryIO, include_open: bool) -> None:
        self._file = file
        self._include_open = include_open
        self._csv = csv.writer(_Utf8(file), lineterminator="\n")
        self._csv.writerow([*COLUMNS, "closed"] if include_open else COLUMNS)

    def write(self, group: WindowRows) -> None:
        """Append some rows."""
        for item_id, start_ms, values, closed in _texts(group):
            row = [item_id, start_ms, *values]
            self._csv.writerow([*row, closed] if self._include_open else row)

    def close(self) -> None:
        """Finish; the file itself stays open."""
        self._file.flush()


class _Utf8:
    """What `csv.writer` writes its finished lines to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.encode())


class Parquet:
    """Parquet; units and revenue are float64, exact up to 2**53 thousandths or ten-thousandths."""

    def __init__(self, file: BinaryIO, include_open: bool) -> None:
        kinds = [pa.float64() if scale > 1 else pa.int64() for scale in _SCALES]
        fields = [("item_id", pa.string()), ("bucket_start_ms", pa.int64())]
        fields += zip(CHANNELS, kinds, strict=True)
        if include_open:
            fields.append(("closed", pa.bool_()))
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(file, self._schema)
        self._include_open = include_open

    def write(self, group: WindowRows) -> None:
        """Append some rows, as a row group."""
        columns: list[Any] = [group.item_ids, group.bucket_start_ms]
        for values_N, scale in zip(group.values_NC.T, _SCALES, strict=True):
            columns.append(values_N / scale if scale > 1 else values_N)
        if self._include_open:
            columns.append(group.closed)
        pairs = zip(columns, self._schema, strict=True)
        arrays = [pa.array(column, field.type) for column, field in pairs]
        self._writer.write_table(pa.table(arrays, schema=self._schema))

    def close(self) -> None:
        """Finish; the file itself stays open."""
        self._writer.close()


WRITERS: dict[str, Callable[[BinaryIO, bool], Writer]] = {
    "jsonl": JsonLines,
    "csv": Csv,
    "parquet": Parquet,
}
