"""Records of the shop's tables through ingest's own writer, for tests that start no ingest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from freshet.stream.codec import MAX_TIME_MS
from freshet.stream.config import Settings
from freshet.stream.ingest.versions import PartitionVersions
from freshet.stream.kafka import Message, TableReader, TableRecord
from freshet.stream.schemas import SHOP_TABLES, ShopTable
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.versions import VersionStore


@dataclass(frozen=True)
class Told:
    """What a consumer hands over, as far as a table's writer looks at it."""

    raw_key: bytes | None
    raw_value: bytes | None
    at: int
    at_ms: int

    def key(self) -> bytes | None:
        return self.raw_key

    def value(self) -> bytes | None:
        return self.raw_value

    def offset(self) -> int:
        return self.at

    def headers(self) -> None:
        """None has any."""

    def timestamp(self) -> tuple[int, int]:
        return 1, self.at_ms


def keep_tables(settings: Settings) -> None:
    """Do once what ingest does all the time: what the shop's topics hold more becomes versions."""
    tables = settings.kafka.topics.of(*SHOP_TABLES)
    found: dict[tuple[str, int], list[TableRecord]] = {}
    with TableReader(settings, list(tables)) as reader:
        for record in reader.read_to_end():
            found.setdefault((record.topic, record.partition), []).append(record)
    for topic, table in tables.items():
        found.setdefault((topic, 0), [])
        for key in [key for key in found if key[0] == topic]:
            _keep(settings, table, key, found[key])


def _keep(
    settings: Settings, table: ShopTable, key: tuple[str, int], records: list[TableRecord]
) -> None:
    store = VersionStore(connect(settings.redis))
    header = store.claim(*key)
    versions = PartitionVersions(store, table, key, settings, lambda: MAX_TIME_MS, header)
    if header.next_offset is None:
        versions.start_at(0)
    new = [
        Told(record.key, record.value, record.offset, record.timestamp_ms)
        for record in records
        if record.offset >= versions.next_offset
    ]
    if new:
        batch = versions.judge(cast("list[Message]", new))
        assert versions.append(batch) is Answer.APPLIED
    versions.stand_at(versions.next_offset)
