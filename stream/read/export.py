"""Stored windows as rows for people and other programs: `freshet windows export`.

Rows are sorted by item and then bucket, while Redis keeps them by bucket. So items are read in
groups that fit in memory: one group for most shops, and then every row is from one moment of each
partition; with several groups each group has its own moment.

Dimensions: I items, C channels, B buckets, N rows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from freshet.stream.codec import time_ms
from freshet.stream.config import Settings
from freshet.stream.errors import EventError, InvalidInputError
from freshet.stream.read import progress
from freshet.stream.read.formats import WRITERS, WindowRows
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.connection import connect
from freshet.stream.store.generation import current_generation
from freshet.stream.store.redis import WindowStore
from freshet.stream.telemetry import get_logger

MAX_GROUP_CELLS = 24_000_000

log = get_logger(__name__)


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
    if format not in WRITERS:
        raise InvalidInputError(f"the format is {format!r}; expected one of {', '.join(WRITERS)}")
    groups = window_rows(
        settings,
        resolution_ms,
        parse_time_ms(start, "--from"),
        parse_time_ms(end, "--to"),
        item_id=item_id,
        include_open=include_open,
    )
    written = 0
    with _opened(output) as file:
        writer = WRITERS[format](file, include_open)
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


# Rows ---------------------------------------------------------------------------------------------


def window_rows(
    settings: Settings,
    resolution_ms: int,
    start_ms: int | None = None,
    end_ms: int | None = None,
    *,
    item_id: str | None = None,
    include_open: bool = False,
) -> Iterator[WindowRows]:
    """Windows in which any channel is not 0, by item and bucket; a group of items at a time."""
    rules = ReadRules.of(settings, resolution_ms)
    client = connect(settings.redis)
    store = WindowStore(client, current_generation(client, settings.redis.generation))
    item_ids = [item for item in _stored_items(store, rules) if item_id in (None, item)]
    if not item_ids:
        log.warning("export_found_no_items", generation=store.generation, item_id=item_id)
    # All that is retained, the open buckets before the frontier, and one at either end.
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
    grid = reader.rules.grid
    oldest = _oldest_bucket(reader)
    closed_ms = reader.closed_ms()
    if oldest is None or closed_ms is None:
        return WindowRows.none()
    if start_ms is not None and start_ms < grid.start_ms(oldest):
        log.warning(
            "export_starts_later", asked_ms=start_ms, oldest_retained_ms=grid.start_ms(oldest)
        )
    # `start_ms - 1` and `+ 1`: a bucket that began before the start is left out.
    first = oldest if start_ms is None else max(oldest, grid.bucket(start_ms - 1) + 1)
    last = reader.span.buckets[-1] if include_open else grid.bucket(closed_ms) - 1
    if end_ms is not None:
        last = min(last, grid.bucket(end_ms - 1))
    num_buckets = max(last - first + 1, 0)

    # Rows of the reader are in the order in which it met the items.
    order_I = np.argsort(np.array(reader.item_ids, dtype=object), kind="stable")
    values_ICB = reader.sums(grid.start_ms(first + num_buckets), num_buckets, order_I)
    item_N, bucket_N = np.nonzero(values_ICB.any(axis=1))
    start_B = grid.starts_ms(range(first, first + num_buckets + 1))
    return WindowRows(
        item_ids=[reader.item_ids[row] for row in order_I[item_N]],
        bucket_start_ms=start_B[bucket_N],
        values_NC=values_ICB[item_N, :, bucket_N],
        closed=start_B[bucket_N + 1] <= closed_ms,
    )


def _oldest_bucket(reader: WindowReader) -> int | None:
    """The oldest bucket retained, whole, held and after the first event; None before data."""
    rules = reader.rules
    parts = progress.reached(reader.inputs, rules.topics)
    retained = progress.oldest_retained(parts, rules)
    if retained is None:
        return None
    oldest = max(retained, rules.grid.bucket(min(part.first_event_ms for part in parts)))
    whole = progress.first_whole(reader.inputs, rules.topics, rules)
    if whole is not None and whole > oldest:
        oldest = whole
        reason = "what came before the log's first record is not known"
        log.warning("export_starts_later", reason=reason, oldest_ms=rules.grid.start_ms(oldest))
    return oldest


# The file -----------------------------------------------------------------------------------------


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its name once it is whole."""
    if output is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has seen enough, as `head` does; what is still buffered has nowhere
            # to go.
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
