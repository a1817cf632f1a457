"""Stored versions of a shop's table against its log, by other code than ingest's. Pure.

The log of a table is compacted, so either side may lack what the other holds, but not without a
reason: the log only what a later record of the key replaced, Redis only what was superseded before
anybody may still ask.
"""

from __future__ import annotations

import json
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from freshet.stream.schemas import ShopTable
from freshet.stream.verify.event import BadRecordError, time_ms
from freshet.stream.verify.report import Difference, PartitionReport, Report

MAX_SHOWN_BYTES = 80

REQUIRED: Mapping[ShopTable, tuple[str, ...]] = {
    "catalog": ("sku",),
    "promotions": ("promotion_id", "starts_at", "ends_at", "discount"),
    "inventory": ("sku", "on_hand", "as_of"),
    "covariates": ("covariate_id", "name", "starts_at", "ends_at"),
}


class Told(NamedTuple):
    """A record as the log or Redis holds it; `dead` is a mark in Redis alone."""

    key: bytes
    value: bytes | None
    timestamp_ms: int
    dead: bool = False

    @property
    def shown(self) -> str:
        """For a person."""
        if self.dead:
            return f"{self.key[:MAX_SHOWN_BYTES]!r}: a dead letter"
        return f"{self.key[:MAX_SHOWN_BYTES]!r}: {(self.value or b'')[:MAX_SHOWN_BYTES]!r}"


@dataclass(frozen=True, slots=True)
class StoredTable:
    """What Redis holds of a partition: header, versions by offset, and the newest of each key."""

    header: Mapping[str, str]
    versions: Mapping[int, Told]
    newest: Mapping[bytes, bytes]

    def number(self, name: str) -> int:
        """A number of the header; 0 where there is none."""
        return int(self.header.get(name, 0))


@dataclass(slots=True)
class TableRecount:
    """A partition of a table, compared with its log.

    Args:
        table: What it holds.
        kept_ms: How long what is superseded is kept at least.
    """

    table: ShopTable
    kept_ms: int
    _by_key: dict[bytes, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    _last: dict[bytes, int] = field(default_factory=dict)
    _came_ms: dict[int, int] = field(default_factory=dict)

    def compare(
        self, stored: StoredTable, log: Mapping[int, Told], part: PartitionReport, report: Report
    ) -> None:
        """Put every difference into the report."""
        self._count(stored, log)
        for what, found, expected in self._differences(stored, log):
            report.note(part, Difference(part.topic, part.partition, what, found, expected))
        part.records = len(log)
        part.cells = len(stored.versions)

    def _count(self, stored: StoredTable, log: Mapping[int, Told]) -> None:
        """Of every key: when its records came into force, and the last of them in the log."""
        for offset, told in sorted({**stored.versions, **log}.items()):
            self._last[told.key] = offset
            self._came_ms[offset] = told.timestamp_ms
            mine = stored.versions.get(offset)
            if mine is not None and mine.dead:
                continue
            at_ms = self._in_force_ms(told)
            if at_ms is not None:
                insort(self._by_key[told.key], (at_ms, offset))

    def _in_force_ms(self, told: Told) -> int | None:
        """From when on it counts; None where it plainly is no record of the table."""
        if told.value is None:
            return max(0, told.timestamp_ms)
        try:
            record = json.loads(told.value)
            _check(self.table, record)
            said = record["as_of"] if self.table == "inventory" else record.get("announced_at")
            return max(0, told.timestamp_ms if said is None else time_ms(said, "ms"))
        except (BadRecordError, ValueError, TypeError, RecursionError):
            return None

    def _differences(
        self, stored: StoredTable, log: Mapping[int, Told]
    ) -> Iterator[tuple[str, int | str | None, int | str | None]]:
        asked_from_ms = self._asked_from_ms(stored)
        for offset, told in log.items():
            mine = stored.versions.get(offset)
            if mine is None:
                if not self._has_left(offset, told, asked_from_ms):
                    yield f"the record at offset {offset}", None, told.shown
            elif mine != told._replace(
                value=mine.value if mine.dead else told.value, dead=mine.dead
            ):
                yield f"the record at offset {offset}", mine.shown, told.shown
        for offset, mine in stored.versions.items():
            if offset >= stored.number("next_offset"):
                yield f"the record at offset {offset}", mine.shown, "behind the header's offset"
            elif not mine.dead and self._in_force_ms(mine) is None:
                yield f"the record at offset {offset}", mine.shown, "a dead letter"
            elif offset not in log and not self._was_compacted(offset, mine):
                yield f"the record at offset {offset}", mine.shown, None
        yield from self._newest_differences(stored, asked_from_ms)
        yield from self._header_differences(stored, log)

    def _asked_from_ms(self, stored: StoredTable) -> int:
        """What was superseded by then may be gone: nobody asks, or there were too many."""
        horizon_ms = stored.number("frontier_ms") - self.kept_ms
        return max(horizon_ms, stored.number("dropped_until_ms"))

    def _has_left(self, offset: int, told: Told, asked_from_ms: int) -> bool:
        """Whether a record may be missing from Redis."""
        at_ms = self._in_force_ms(told)
        if at_ms is None:  # The mark of a dead letter leaves by the record's own time.
            return told.timestamp_ms <= asked_from_ms
        if told.value is None and at_ms < asked_from_ms:
            return True
        later = self._by_key[told.key]
        place = bisect_right(later, (at_ms, offset))
        if place == len(later):
            return False
        later_ms, later_offset = later[place]
        # What was before it held until it came, if that was later.
        return max(later_ms, self._came_ms[later_offset]) <= asked_from_ms

    def _was_compacted(self, offset: int, mine: Told) -> bool:
        """Whether a record may be missing from the log: a later one came, or it was a tombstone."""
        return mine.value is None or self._last[mine.key] > offset

    def _newest_differences(
        self, stored: StoredTable, asked_from_ms: int
    ) -> Iterator[tuple[str, str | None, str | None]]:
        for key in sorted(stored.newest.keys() | self._by_key.keys()):
            times = self._by_key.get(key)
            expected = b"%d:%d" % times[-1] if times else None
            found = stored.newest.get(key)
            if found == expected or (found is None and times and self._gone(stored, times[-1])):
                continue
            what = f"the newest of {key[:MAX_SHOWN_BYTES]!r} (time:offset)"
            yield what, _text(found), _text(expected)

    def _gone(self, stored: StoredTable, newest: tuple[int, int]) -> bool:
        """Whether the newest of a key is no longer stored, which was judged by itself."""
        return newest[1] not in stored.versions

    def _header_differences(
        self, stored: StoredTable, log: Mapping[int, Told]
    ) -> Iterator[tuple[str, Any, Any]]:
        books = sum(map(stored.number, ("applied", "dead_letter", "skipped")))
        if stored.number("read") != books:
            yield "read", stored.number("read"), books
        if stored.number("versions") != len(stored.versions):
            yield "versions", stored.number("versions"), len(stored.versions)
        used = [told for offset, told in log.items() if not _marked(stored, offset)]
        frontier_ms = max((told.timestamp_ms for told in used), default=0)
        if stored.number("frontier_ms") < frontier_ms and self._all_usable(used, frontier_ms):
            yield "frontier_ms", stored.number("frontier_ms"), frontier_ms

    def _all_usable(self, used: list[Told], frontier_ms: int) -> bool:
        """Whether the newest of them are records and no marks that have left."""
        newest = [told for told in used if told.timestamp_ms == frontier_ms]
        return all(self._in_force_ms(told) is not None for told in newest)


def _check(table: ShopTable, record: Any) -> None:
    """The rules of a table that a record most often breaks.

    Raises:
        BadRecordError, TypeError: It does.
    """
    if not isinstance(record, dict) or any(record.get(name) is None for name in REQUIRED[table]):
        raise BadRecordError("not such a record")
    price = record.get("unit_price")
    if table == "catalog" and price is not None and price <= 0:
        raise BadRecordError("a price that is not positive")
    if "starts_at" in REQUIRED[table]:
        starts_ms, ends_ms = time_ms(record["starts_at"], "ms"), time_ms(record["ends_at"], "ms")
        if starts_ms >= ends_ms:
            raise BadRecordError("it ends before it starts")
    if table == "promotions" and not 0 <= record["discount"] <= 1:
        raise BadRecordError("the discount is no share")


def _marked(stored: StoredTable, offset: int) -> bool:
    mine = stored.versions.get(offset)
    return mine is not None and mine.dead


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode()
