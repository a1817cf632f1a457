"""`freshet verify`: count the log again, independently, and compare with the stored windows.

Each partition's stored windows are read first, each resolution as it was at one offset; then the
log is read from the state's first offset, and compared whenever such an offset is reached. So it
can run while ingest does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from freshet.stream.config import Resolution, Settings
from freshet.stream.errors import BrokerError, LogLostError, StoreError
from freshet.stream.kafka import (
    Consumer,
    Message,
    TopicPartition,
    broker_errors,
    consumer,
    headers_of,
    log_range,
    take,
)
from freshet.stream.read.follow import Look, PartitionFollower, TileId
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.connection import connect, translated
from freshet.stream.store.generation import current_generation
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header, Keys
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.tiles import CHUNK_ITEMS, decode
from freshet.stream.telemetry import get_logger
from freshet.stream.verify.event import Kind
from freshet.stream.verify.recount import Cell, Recount

MAX_SHOWN = 20
MAX_RETRIES = 20
MAX_RECORDS_A_READ = 10_000
MAX_SILENCE_S = 30.0
TIMES = ("frontier_ms", "origin_ms", "first_event_ms", "last_event_ms")
BOOKS = ("read", "applied", "duplicate", "late_dropped", "dead_letter")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is stored otherwise than it was recounted.

    `what` is a channel, or a field of the header; then item, resolution and bucket are None.
    """

    topic: str
    partition: int
    what: str
    stored: int | str | None
    recounted: int | str | None
    item_id: str | None = None
    resolution_ms: int | None = None
    bucket_start_ms: int | None = None

    def as_text(self) -> str:
        """For a person."""
        place = f"{self.topic}:{self.partition}"
        if self.item_id is not None:
            place += f" {self.item_id!r} bucket {self.bucket_start_ms} of {self.resolution_ms} ms"
        return f"{place}: {self.what} is stored as {self.stored}, recounted as {self.recounted}"


@dataclass(slots=True)
class PartitionReport:
    """What was found of one partition. `log_missing` says why it could not be recounted, or is
    None.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    records: int = 0
    cells: int = 0
    differences: int = 0
    log_missing: str | None = None


@dataclass(slots=True)
class Report:
    """What `freshet verify` found; `shown` are the first differences."""

    generation: int
    partitions: list[PartitionReport] = field(default_factory=list)
    shown: list[Difference] = field(default_factory=list)

    @property
    def differences(self) -> int:
        """How many cells and header fields differ."""
        return sum(part.differences for part in self.partitions)

    @property
    def log_missing(self) -> list[str]:
        """Why partitions could not be recounted."""
        missing = [(part, part.log_missing) for part in self.partitions]
        return [f"{part.topic}:{part.partition}: {why}" for part, why in missing if why is not None]

    @property
    def agrees(self) -> bool:
        """Whether everything stored was recounted and is the same; False when nothing could be
        compared.
        """
        return bool(self.partitions) and not self.differences and not self.log_missing

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "agrees": self.agrees,
            "generation": self.generation,
            "records": sum(part.records for part in self.partitions),
            "cells": sum(part.cells for part in self.partitions),
            "differences": self.differences,
            "log_missing": self.log_missing,
            "partitions": [asdict(part) for part in self.partitions],
            "shown": [asdict(difference) for difference in self.shown],
        }

    def as_text(self) -> str:
        """For a person."""
        if not self.partitions:
            return f"there are no windows under generation {self.generation}: nothing was compared"
        totals = self.as_dict()
        compared = (
            f"{totals['cells']} cells from {totals['records']} records of "
            f"{len(self.partitions)} partitions"
        )
        lines = [f"the log is gone: {why}" for why in self.log_missing]
        for part in self.partitions:
            if part.first_offset > 0:
                place = f"{part.topic}:{part.partition}"
                lines.append(
                    f"{place} begins at offset {part.first_offset}: what the log held before "
                    "is not in it"
                )
        lines += [difference.as_text() for difference in self.shown]
        if self.differences > len(self.shown):
            lines.append(f"and {self.differences - len(self.shown)} more")
        if self.agrees:
            lines.append(f"windows and log agree: {compared}")
        elif self.differences:
            lines.append(f"{self.differences} differences; recounted {compared}")
        else:
            lines.append(f"not everything could be compared; no differences in {compared}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One partition's windows of one resolution as they were at one offset."""

    grid: Grid
    header: Header
    item_ids: list[str]
    tiles: dict[TileId, bytes | None]

    @property
    def offset(self) -> int:
        """Everything before it is in."""
        assert self.header.next_offset is not None
        return self.header.next_offset

    def cells(self, oldest_bucket: int | None) -> dict[Cell, int]:
        """Every stored cell that is not 0, from a bucket on; None is from the first."""
        cells: dict[Cell, int] = {}
        for (bucket, chunk), data in self.tiles.items():
            if data is None or (oldest_bucket is not None and bucket < oldest_bucket):
                continue
            values_CN = decode(data)
            for channel, column in np.argwhere(values_CN).tolist():
                slot = chunk * CHUNK_ITEMS + column
                item_id = (
                    self.item_ids[slot]
                    if slot < len(self.item_ids)
                    else f"(no item in slot {slot})"
                )
                cells[bucket, item_id, CHANNELS[channel]] = int(values_CN[channel, column])
        return cells


def verify(settings: Settings) -> Report:
    """Recount every partition that has windows and compare all channels, buckets, resolutions and
    books.

    Blocks for as long as it takes to read the log: about half a minute a million records.

    Raises:
        StoreError: Redis cannot be read.
        BrokerError: Kafka cannot be read.
    """
    client = connect(settings.redis)
    store = WindowStore(client, current_generation(client, settings.redis.generation))
    report = Report(store.generation)
    kinds: dict[str, Kind] = {
        settings.kafka.topics.orders: "orders",
        settings.kafka.topics.clicks: "clicks",
    }
    for topic, partition in store.partitions():
        header = store.header(topic, partition)
        if topic in kinds and header is not None and header.next_offset is not None:
            snapshots = _snapshots(client, store.keys(topic, partition), settings)
            _verify_partition(topic, partition, kinds[topic], snapshots, settings, report)
    return report


def _snapshots(client: Any, keys: Keys, settings: Settings) -> list[Snapshot]:
    """Every resolution of a partition, in the order of their offsets."""
    with translated(client):
        snapshots = [
            _snapshot(client, keys, width, settings) for width in settings.windows.resolutions
        ]
    return sorted(snapshots, key=lambda snapshot: snapshot.offset)


def _snapshot(client: Any, keys: Keys, resolution: Resolution, settings: Settings) -> Snapshot:
    grid = Grid(resolution.resolution_ms, settings.calendar.time_zone)
    follower = PartitionFollower(client, keys, grid)
    for _ in range(MAX_RETRIES):
        pipe = client.pipeline(transaction=False)
        follower.ask(pipe)
        look = Look.of(*pipe.execute())
        if look.header is None:
            continue
        change = follower.read(
            look, _wanted(look.header, grid, resolution.buckets, settings.windows.out_of_order_ms)
        )
        if change is not None:
            return Snapshot(grid, change.header, change.item_ids, change.tiles)
    raise StoreError(
        f"the windows of {keys.topic}:{keys.partition} would not hold still in {MAX_RETRIES} reads",
        hint="verify again when ingest has caught up with the log",
    )


def _wanted(header: Header, grid: Grid, count: int, out_of_order_ms: int) -> range:
    """Every bucket that may be stored: from the oldest that is retained, or the first of all, to
    the newest.
    """
    newest_ms = header.newest_ms
    if newest_ms is None or header.first_event_ms is None:
        return range(0)
    first = grid.bucket(header.first_event_ms)
    if header.frontier_ms is not None:
        first = max(first, grid.first_retained(header.frontier_ms - out_of_order_ms, count))
    return range(first, grid.bucket(newest_ms) + 1)


def _verify_partition(
    topic: str,
    partition: int,
    kind: Kind,
    snapshots: list[Snapshot],
    settings: Settings,
    report: Report,
) -> None:
    """Recount one partition into the report."""
    first, end = snapshots[-1].header.first_offset, snapshots[-1].offset
    assert first is not None
    part = PartitionReport(topic, partition, first, end)
    report.partitions.append(part)
    recount, waiting = Recount(kind, settings), list(snapshots)
    reader = consumer(
        settings, "verify", enable_partition_eof=True, queued_max_messages_kbytes=8_192
    )
    try:
        part.log_missing = _missing(log_range(reader, topic, partition), part)
        if part.log_missing is None:
            for message in _messages(reader, part):
                while waiting and waiting[0].offset <= (message.offset() or 0):
                    _compare(waiting.pop(0), recount, part, report)
                recount.take(
                    message.key(), message.value(), message.timestamp()[1], _redrive_of(message)
                )
                part.records += 1
            for snapshot in waiting:
                _compare(snapshot, recount, part, report)
    except LogLostError as error:
        part.log_missing = error.message
    finally:
        reader.close()
    log.info("partition_recounted", **asdict(part))


def _missing(found: tuple[int, int], part: PartitionReport) -> str | None:
    start, end = found
    if start > part.first_offset:
        return f"the log starts at {start}, the state needs {part.first_offset}"
    if end < part.next_offset:
        return f"the log ends at {end}, the state needs {part.next_offset}"
    return None


def _messages(reader: Consumer, part: PartitionReport) -> Iterator[Message]:
    """The records in [first_offset, next_offset), in order."""
    topic, partition = part.topic, part.partition
    with broker_errors(f"starting to read {topic}:{partition}"):
        reader.assign([TopicPartition(topic, partition, part.first_offset)])
    position, heard = part.first_offset, time.monotonic()
    while position < part.next_offset:
        taken = take(reader, MAX_RECORDS_A_READ, max_wait_ms=200)
        for message in taken.messages:
            position = (message.offset() or 0) + 1
            if position <= part.next_offset:
                yield message
        position = max(position, taken.ends.get((topic, partition), 0))
        if taken.messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > MAX_SILENCE_S:
            raise BrokerError(
                f"{topic}:{partition} sent nothing after offset {position} for {MAX_SILENCE_S:g} s"
            )


def _redrive_of(message: Message) -> bytes | None:
    """The last `freshet-redrive` header that says anything."""
    said = [value for name, value in headers_of(message) if name == "freshet-redrive" and value]
    return said[-1] if said else None


def _compare(snapshot: Snapshot, recount: Recount, part: PartitionReport, report: Report) -> None:
    """Compare what is stored at an offset with what was recounted up to it."""
    for what, stored, recounted in _header_pairs(snapshot, recount):
        if stored != recounted:
            _note(Difference(part.topic, part.partition, what, stored, recounted), part, report)
    width_ms = snapshot.grid.resolution_ms
    cells = recount.cells(width_ms)
    stored_cells = snapshot.cells(recount.oldest_bucket(width_ms))
    part.cells += len(cells)
    for cell in sorted(cells.keys() | stored_cells.keys()):
        found, expected = stored_cells.get(cell, 0), cells.get(cell, 0)
        if found != expected:
            bucket, item_id, channel = cell
            place = (item_id, width_ms, snapshot.grid.start_ms(bucket))
            _note(
                Difference(part.topic, part.partition, channel, found, expected, *place),
                part,
                report,
            )


def _header_pairs(snapshot: Snapshot, recount: Recount) -> Iterator[tuple[str, Any, Any]]:
    header = snapshot.header
    for book in BOOKS:
        yield book, getattr(header, book), recount.books[book]
    for time_ms in TIMES:
        yield time_ms, getattr(header, time_ms), getattr(recount, time_ms)
    yield "items", header.items, len(recount.item_ids)
    for slot, (stored, recounted) in enumerate(
        zip(snapshot.item_ids, recount.item_ids, strict=False)
    ):
        if stored != recounted:
            yield f"item in slot {slot}", stored, recounted
            return


def _note(difference: Difference, part: PartitionReport, report: Report) -> None:
    part.differences += 1
    if len(report.shown) < MAX_SHOWN:
        report.shown.append(difference)
