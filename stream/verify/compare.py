"""Stored windows against recounted ones, at one offset; every difference goes into the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from freshet.stream.verify.recount import Recount
from freshet.stream.verify.report import Difference, PartitionReport, Report
from freshet.stream.verify.snapshot import Snapshot

TIMES = ("frontier_ms", "origin_ms", "first_event_ms", "last_event_ms")
BOOKS = (
    *("read", "applied", "duplicate", "late_dropped", "dead_letter"),
    *("skipped", "lines_dead", "conflicting"),
)


def compare(snapshot: Snapshot, recount: Recount, part: PartitionReport, report: Report) -> None:
    """Compare what is stored at an offset with what was recounted up to it."""
    for what, stored, recounted in _header_pairs(snapshot, recount):
        if stored != recounted:
            place = (part.topic, part.partition)
            report.note(part, Difference(*place, what, stored, recounted))
    width_ms = snapshot.grid.resolution_ms
    cells = recount.cells(width_ms)
    stored_cells = snapshot.cells(recount.oldest_bucket(width_ms))
    part.cells += len(cells)
    for cell in sorted(cells.keys() | stored_cells.keys()):
        found, expected = stored_cells.get(cell, 0), cells.get(cell, 0)
        if found == expected:
            continue
        bucket, item_id, channel = cell
        difference = Difference(
            topic=part.topic,
            partition=part.partition,
            what=channel,
            stored=found,
            recounted=expected,
            item_id=item_id,
            resolution_ms=width_ms,
            bucket_start_ms=snapshot.grid.start_ms(bucket),
        )
        report.note(part, difference)


def _header_pairs(snapshot: Snapshot, recount: Recount) -> Iterator[tuple[str, Any, Any]]:
    header = snapshot.header
    for book in BOOKS:
        yield book, getattr(header, book), recount.books[book]
    for time_ms in TIMES:
        yield time_ms, getattr(header, time_ms), getattr(recount, time_ms)
    yield "top_ms", header.top_ms, ",".join(map(str, recount.frontier.largest))
    yield "ahead_events", header.ahead_events, len(recount.frontier.row)
    yield "history_complete", header.history_complete, int(recount.loads.complete)
    yield "items", header.items, len(recount.item_ids)
    items = zip(snapshot.item_ids, recount.item_ids, strict=False)
    for slot, (stored, recounted) in enumerate(items):
        if stored != recounted:
            yield f"item in slot {slot}", stored, recounted
            return
