"""Stored windows as rows for people and other programs: `freshet windows export`.

Rows are sorted by item and then bucket, while Redis keeps them by bucket. So items are read in
groups that fit in memory: one group for most shops, and then every row is from one moment of each
partition; with several groups each group has its own moment.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from freshet.stream.codec import time_ms
from freshet.stream.config import Settings
from freshet.stream.errors import EventError, InvalidInputError
from freshet.stream.read import progress
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import CHANNELS, UNIT_SCALES
from freshet.stream.store.redis import WindowStore, connect, current_generation
from freshet.stream.telemetry import get_logger

MAX_GROUP_CELLS = 24_000_000
COLUMNS = ("item_id", "bucket_start_ms", *CHANNELS)
_SCALES = tuple(UNIT_SCALES.get(channel, 1) for channel in CHANNELS)
_DECIMALS = {1: 0, 1_000: 3, 10_000: 4}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WindowRows:
    """Some rows, N of them: stored integers, not yet units and currency."""

    item_ids: list[str]
    bucket_start_ms: NDArray[np.int64]
    values_NC: NDArray[np.int64]
    closed: NDArray[np.bool_]


def export(
    settings: Settings,
    *,
    resolution_ms: int,
    start: str | int | None = None,
    end: str | int | None = None,
    item_id: str | None = None,
    format: str = "jsonl",
    include_open: bool = False,
    output: Path | None = None,
) -> int:
    """Write every window in which something happened; a file appears whole or not at all.

    Args:
        settings: Where Redis is and how windows were folded.
        resolution_ms: Width of the buckets.
        start: First bucket start, inclusive; epoch ms or RFC 3339. None is the oldest that is
            retained.
        end: Bucket starts before it, exclusive.
        item_id: Only this item.
        format: jsonl, csv or parquet.
        include_open: Also buckets that are not closed by the stored watermarks, and a column
            `closed`.
        output: A file; None is standard output.

    Returns:
        How many rows were written.

    Raises:
        InvalidInputError: An argument is wrong.
        StoreError: Redis cannot be read.
    """
    if format not in _WRITERS:
        raise InvalidInputError(f"the format is {format!r}; expected one of {', '.join(_WRITERS)}")
    start_ms, end_ms = parse_time_ms(start, "--from"), parse_time_ms(end, "--to")
    groups = window_rows(
        settings, resolution_ms, start_ms, end_ms, item_id=item_id, include_open=include_open
    )
    written = 0
    with _opened(output) as file:
        writer = _WRITERS[format](file, include_open)
        for group in groups:
            writer.write(group)
            written += len(group.item_ids)
        writer.close()
    return written


def parse_time_ms(value: str | int | None, name: str) -> int | None:
    """Epoch milliseconds from epoch milliseconds or RFC 3339; None stays None.

    >>> parse_time_ms("1500", "--from"), parse_time_ms("1970-01-01T00:00:02Z", "--from")
    (1500, 2000)
    """
    if value is None or isinstance(value, int):
        return value
    try:
        return int(value) if value.lstrip("-").isdecimal() else time_ms(value)
    except EventError as error:
        raise InvalidInputError(
            f"{name} {value!r} is not a time: {error.message}",
            hint="write epoch milliseconds, or RFC 3339 such as 2026-03-01T00:00:00Z",
        ) from None


def window_rows(
    settings: Settings,
    resolution_ms: int,
    start_ms: int | None = None,
    end_ms: int | None = None,
    *,
    item_id: str | None = None,
    include_open: bool = False,
) -> Iterator[WindowRows]:
    """Windows in which any channel is not 0, sorted by item and bucket, a group of items at a
    time.
    """
    rules = ReadRules.of(settings, resolution_ms)
    client = connect(settings.redis)
    store = WindowStore(client, current_generation(client, settings.redis.generation))
    item_ids = [item for item in _stored_items(store, rules) if item_id in (None, item)]
    if not item_ids:
        log.warning("export_found_no_items", generation=store.generation, item_id=item_id)
    num_buckets = rules.retained_buckets + rules.out_of_order_ms // resolution_ms + 2
    group_items = max(MAX_GROUP_CELLS // (num_buckets * len(CHANNELS)), 1)
    for first in range(0, len(item_ids), group_items):
        wanted = frozenset(item_ids[first : first + group_items])
        reader = WindowReader(
            client,
            store.generation,
            resolution_ms,
            num_buckets,
            owns=wanted.__contains__,
            rules=rules,
        )
        reader.refresh()
        yield _group(reader, start_ms, end_ms, include_open=include_open)


def _stored_items(store: WindowStore, rules: ReadRules) -> list[str]:
    items: set[str] = set()
    for topic, partition in store.partitions():
        header = store.header(topic, partition)
        if topic in rules.topics and header is not None:
            items.update(store.dictionary(topic, partition, header.items))
    return sorted(items)


def _group(
    reader: WindowReader, start_ms: int | None, end_ms: int | None, *, include_open: bool
) -> WindowRows:
    """All rows of the items that one reader owns."""
    rules, grid = reader.rules, reader.rules.grid
    parts = progress.reached(reader.inputs, rules.topics)
    oldest, closed_ms = progress.oldest_retained(parts, rules), reader.closed_ms()
    if oldest is None or closed_ms is None:
        return WindowRows(
            [], np.empty(0, np.int64), np.empty((0, len(CHANNELS)), np.int64), np.empty(0, bool)
        )
    oldest = max(oldest, grid.bucket(min(part.first_event_ms for part in parts)))
    whole = progress.first_whole(reader.inputs, rules.topics, rules)
    if whole is not None and whole > oldest:
        log.warning(
            "export_starts_later",
            reason="the log had lost its first records",
            whole_ms=grid.start_ms(whole),
        )
        oldest = whole
    if start_ms is not None and start_ms < grid.start_ms(oldest):
        log.warning(
            "export_starts_later", asked_ms=start_ms, oldest_retained_ms=grid.start_ms(oldest)
        )
    first = oldest if start_ms is None else max(oldest, grid.bucket(start_ms - 1) + 1)
    newest = reader.newest_bucket if include_open else grid.bucket(closed_ms) - 1
    last = newest if end_ms is None else min(newest, grid.bucket(end_ms - 1))
    num_buckets = max(last - first + 1, 0)
    order = np.argsort(np.array(reader.item_ids, dtype=object), kind="stable")
    values_ICB = reader.sums(grid.start_ms(first + num_buckets), num_buckets, order)
    item, bucket = np.nonzero(values_ICB.any(axis=1))
    start_B = grid.starts_ms(range(first, first + num_buckets + 1))
    start_N = start_B[bucket]
    names = [reader.item_ids[row] for row in order[item]]
    return WindowRows(names, start_N, values_ICB[item, :, bucket], start_B[bucket + 1] <= closed_ms)


# Formats ------------------------------------------------------------------------------------------


class _Writer(Protocol):
    def write(self, group: WindowRows) -> None: ...

    def close(self) -> None: ...


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


def _texts(group: WindowRows) -> Iterator[tuple[str, int, list[str], bool]]:
    columns = (group.bucket_start_ms.tolist(), group.values_NC.tolist(), group.closed.tolist())
    for item_id, start_ms, values, closed in zip(group.item_ids, *columns, strict=True):
        yield (
            item_id,
            start_ms,
            [decimal(*pair) for pair in zip(values, _SCALES, strict=True)],
            closed,
        )


class _Jsonl:
    """One JSON object a line."""

    def __init__(self, file: BinaryIO, include_open: bool) -> None:
        self._file = file
        self._include_open = include_open

    def write(self, group: WindowRows) -> None:
        for item_id, start_ms, values, closed in _texts(group):
            fields = [
                f'"item_id":{json.dumps(item_id, ensure_ascii=False)},"bucket_start_ms":{start_ms}'
            ]
            fields += [
                f'"{channel}":{value}' for channel, value in zip(CHANNELS, values, strict=True)
            ]
            if self._include_open:
                fields.append(f'"closed":{"true" if closed else "false"}')
            self._file.write(("{" + ",".join(fields) + "}\n").encode())

    def close(self) -> None:
        self._file.flush()


class _Csv:
    """A header line, then comma-separated values, quoted where needed."""

    def __init__(self, file: BinaryIO, include_open: bool) -> None:
        self._file = file
        self._include_open = include_open
        self._csv = csv.writer(self, lineterminator="\n")
        self._csv.writerow([*COLUMNS, *(["closed"] if include_open else [])])

    def write(self, group: WindowRows | str) -> None:
        if isinstance(group, str):  # what csv.writer hands over: one finished line
            self._file.write(group.encode())
            return
        for item_id, start_ms, values, closed in _texts(group):
            row: list[Any] = [item_id, start_ms, *values]
            self._csv.writerow([*row, "true" if closed else "false"] if self._include_open else row)

    def close(self) -> None:
        self._file.flush()


class _Parquet:
    """Parquet; units and revenue are float64, exact up to 2**53 thousandths or ten-thousandths."""

    def __init__(self, file: BinaryIO, include_open: bool) -> None:
        kinds = [pa.float64() if scale > 1 else pa.int64() for scale in _SCALES]
        fields = [
            ("item_id", pa.string()),
            ("bucket_start_ms", pa.int64()),
            *zip(CHANNELS, kinds, strict=True),
        ]
        self._schema = pa.schema([*fields, ("closed", pa.bool_())] if include_open else fields)
        self._writer = pq.ParquetWriter(file, self._schema)
        self._include_open = include_open

    def write(self, group: WindowRows) -> None:
        columns: list[Any] = [group.item_ids, group.bucket_start_ms]
        for values, scale in zip(group.values_NC.T, _SCALES, strict=True):
            columns.append(values / scale if scale > 1 else values)
        if self._include_open:
            columns.append(group.closed)
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.table(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


_WRITERS: dict[str, Any] = {"jsonl": _Jsonl, "csv": _Csv, "parquet": _Parquet}


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its name once it is whole."""
    if output is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read has seen enough, as `head` does; what is still buffered has nowhere to
            # go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    partial = output.with_name(f".{output.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(output)
    except OSError as error:
        raise InvalidInputError(f"{output} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
