"""Reads the versions of the shop's tables that ingest keeps in Redis: every record, as it was told.

A record of the log is handed over once, in the order of its partition. Nothing is read again but
where Redis lost what was read: then everything is, from the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis

from freshet.stream.config import Settings
from freshet.stream.schemas import SHOP_TABLES, ShopTable
from freshet.stream.store.connection import translated
from freshet.stream.store.versions import (
    PARTITIONS_KEY,
    VersionHeader,
    VersionKeys,
    check_format,
    partition_of,
)
from freshet.stream.telemetry import get_logger

MAX_RECORDS = 5_000
MAX_ENTRIES_A_CALL = 500

log = get_logger(__name__)

Entry = tuple[bytes, dict[bytes, bytes]]


class SideRecord(NamedTuple):
    """One record of a shop's table; a null value is a tombstone."""

    table: ShopTable
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    timestamp_ms: int


@dataclass(slots=True)
class _Place:
    """How far one partition is read.

    Attributes:
        table: What it holds.
        keys: Where it lies.
        header: What it said of itself at the last look.
        position: The next offset to read.
        last_id: The id of the newest entry that was read.
    """

    table: ShopTable
    keys: VersionKeys
    header: VersionHeader = field(default_factory=VersionHeader)
    position: int = 0
    last_id: bytes | None = None

    @property
    def name(self) -> str:
        return f"{self.keys.topic}:{self.keys.partition}"

    def went_back(self, found: VersionHeader) -> bool:
        """Whether Redis no longer holds what it did: it is older, or another log's."""
        known = self.header
        same_claim = found.epoch == known.epoch
        return (
            found.epoch < known.epoch
            or (same_claim and known.epoch > 0 and found.owner != known.owner)
            or (found.next_offset or 0) < self.position
            or (known.topic_id not in ("", found.topic_id))
        )


class VersionReader:
    """Hands over each version of the shop's tables once.

    Args:
        client: The Redis that ingest writes.
        settings: Names of the topics.
        tables: Which tables to read.
        until: Read only what lies before these offsets, by `topic:partition`, and nothing of other
            partitions: what `offsets` said then, or a forecast's, is read as it was known then.
            Those of other topics are passed over. None reads on.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        tables: Sequence[ShopTable] = SHOP_TABLES,
        *,
        until: Mapping[str, int] | None = None,
    ) -> None:
        self._client = client
        self._table_of: dict[str, ShopTable] = settings.kafka.topics.of(*tables)
        if until is not None:
            until = {at: end for at, end in until.items() if self._is_ours(at)}
        self._until = until
        self._places: dict[tuple[str, int], _Place] = {}
        self._caught_up = False
        self.restarts = 0
        """How often Redis was found to have lost what was read. Whenever it rises, forget all that
        was handed over before: everything comes again from the beginning."""

    def _is_ours(self, place: str) -> bool:
        return place.rpartition(":")[0] in self._table_of

    @property
    def caught_up(self) -> bool:
        """Whether all was read that its owners had found in the logs, or all before `until`.

        It stays so while more comes, until Redis goes back.
        """
        self._caught_up = self._caught_up or not self.waits_for
        return self._caught_up

    @property
    def waits_for(self) -> list[str]:
        """The tables and partitions that were not read to their end yet, or not by ingest."""
        if self._until is not None:
            reached = self.offsets()
            return [name for name, end in self._until.items() if reached.get(name, 0) < end]
        told = {topic for topic, _ in self._places}
        missing = [topic for topic in self._table_of if topic not in told]
        return missing + [place.name for place in self._places.values() if not _at_end(place)]

    def offsets(self) -> dict[str, int]:
        """The next offset to read of each partition, as `topic:partition`."""
        return {place.name: place.position for _, place in sorted(self._places.items())}

    def dropped_until_ms(self) -> int:
        """Of what was superseded by then, not everything is stored any more; 0: of nothing."""
        return max((place.header.dropped_until_ms for place in self._places.values()), default=0)

    def poll(self, max_records: int = MAX_RECORDS) -> list[SideRecord]:
        """New records, in order within a partition; call again while there are any.

        Blocks for one round trip where nothing is new, and for one more for every 500 records of
        each partition.

        Raises:
            StoreUnavailableError: Redis does not answer; nothing is lost.
        """
        with translated(self._client):
            if not self._look():
                return []
            return self._read(max_records)

    # Looking --------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Take in the headers; False where Redis went back, and all is read again next time."""
        pipe = self._client.pipeline(transaction=False)
        pipe.smembers(PARTITIONS_KEY)
        known = list(self._places.values())
        for place in known:
            pipe.hgetall(place.keys.header)
        members, *answers = pipe.execute()
        found = [_header_of(place, fields) for place, fields in zip(known, answers, strict=True)]
        back = [
            place for place, header in zip(known, found, strict=True) if place.went_back(header)
        ]
        if back:
            self._start_over(back[0])
            return False
        for place, header in zip(known, found, strict=True):
            place.header = header
        self._add(members)
        return True

    def _add(self, members: set[bytes]) -> None:
        """Partitions that were not known before; their headers are read at once."""
        for member in sorted(members):
            key = partition_of(member)
            table = self._table_of.get(key[0])
            if table is None or key in self._places:
                continue
            if self._until is not None and member.decode() not in self._until:
                continue
            place = _Place(table, VersionKeys(*key))
            fields: Any = self._client.hgetall(place.keys.header)
            place.header = _header_of(place, fields)
            self._places[key] = place

    def _start_over(self, place: _Place) -> None:
        log.warning("versions_went_back", partition=place.name, read_to=place.position)
        self._places = {}
        self._caught_up = False
        self.restarts += 1

    # Reading --------------------------------------------------------------------------------------

    def _read(self, max_records: int) -> list[SideRecord]:
        records: list[SideRecord] = []
        while len(records) < max_records:
            behind = [place for place in self._places.values() if place.position < self._end(place)]
            if not behind:
                break
            pipe = self._client.pipeline(transaction=False)
            for place in behind:
                # What was read last is asked for again: rewritten by another owner, it would have
                # another id.
                first: Any = place.last_id or "-"
                pipe.xrange(place.keys.log, first, self._end(place) - 1, MAX_ENTRIES_A_CALL + 1)
            for place, entries in zip(behind, pipe.execute(), strict=True):
                if place.last_id is not None:
                    if not entries or entries[0][0] != place.last_id:
                        self._start_over(place)
                        return []
                    entries = entries[1:]
                records += self._take(place, entries)
        return records

    def _take(self, place: _Place, entries: list[Entry]) -> list[SideRecord]:
        """Understand entries, and move on behind them."""
        place.position = self._end(place)
        if len(entries) >= MAX_ENTRIES_A_CALL:
            place.position = _offset_of(entries[-1][0]) + 1
        if entries:
            place.last_id = entries[-1][0]
        return [
            SideRecord(
                table=place.table,
                topic=place.keys.topic,
                partition=place.keys.partition,
                offset=_offset_of(entry_id),
                key=fields[b"k"],
                value=fields.get(b"v"),
                timestamp_ms=int(fields[b"t"]),
            )
            for entry_id, fields in entries
            if b"d" not in fields
        ]

    def _end(self, place: _Place) -> int:
        """The offset before which everything there is may be read now."""
        stored = place.header.next_offset or 0
        if self._until is None:
            return stored
        return min(stored, self._until[place.name])


def _header_of(place: _Place, fields: Mapping[bytes, bytes]) -> VersionHeader:
    found = VersionHeader.parse(fields)
    check_format(place.keys.topic, found)
    return found


def _at_end(place: _Place) -> bool:
    end = place.header.next_offset
    return bool(place.header.reached_end) and end is not None and place.position >= end


def _offset_of(entry_id: bytes) -> int:
    offset, _, _ = entry_id.partition(b"-")
    return int(offset)
