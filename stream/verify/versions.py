"""The shop's tables of `freshet verify`: what Redis keeps of each against what its log still holds.

What compaction took from the log cannot be recounted, and whether a record was rightly made a dead
letter is not, beyond what plainly is no such record.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import redis

from freshet.stream.config import Settings
from freshet.stream.errors import StoreError
from freshet.stream.kafka import Consumer, consumer, headers_of, log_range
from freshet.stream.schemas import SHOP_TABLES
from freshet.stream.store.connection import translated
from freshet.stream.store.versions import PARTITIONS_KEY, VersionKeys
from freshet.stream.telemetry import get_logger
from freshet.stream.verify.messages import messages
from freshet.stream.verify.report import PartitionReport, Report
from freshet.stream.verify.table import StoredTable, TableRecount, Told
from freshet.stream.verify.tables_map import TableReading

MAX_ENTRIES_A_READ = 5_000
MAX_RETRIES = 20

log = get_logger(__name__)


def verify_tables(client: redis.Redis, settings: Settings, report: Report) -> None:
    """Compare every partition whose versions are kept.

    Raises:
        StoreError: Redis cannot be read.
        BrokerError: Kafka cannot be read.
    """
    tables = settings.kafka.topics.of(*SHOP_TABLES)
    with translated(client):
        members: set[Any] = client.smembers(PARTITIONS_KEY)
    for member in sorted(members):
        topic, _, number = member.decode().rpartition(":")
        if topic not in tables:
            continue
        stored = read_stored(client, VersionKeys(topic, int(number)))
        if "next_offset" not in stored.header:
            continue
        part = PartitionReport(
            topic, int(number), stored.number("first_offset"), stored.number("next_offset")
        )
        report.tables.append(part)
        reader = consumer(settings, "verify", enable_partition_eof=True)
        try:
            found = _log_of(reader, part, TableReading(tables[topic], settings))
        finally:
            reader.close()
        if found is not None:
            stored = TableReading(tables[topic], settings).stored(stored)
            TableRecount(tables[topic], kept_ms(settings)).compare(stored, found, part, report)
        log.info("table_recounted", **asdict(part))


def kept_ms(settings: Settings) -> int:
    """How far back forecasts of the last week and what they learnt from reach, and lateness."""
    longest_ms = 0
    for one in settings.served:
        longest_ms = max(longest_ms, one.context_length * one.resolution_ms)
        for width in settings.windows.resolutions:
            if width.resolution_ms == one.resolution_ms:
                longest_ms = max(longest_ms, width.buckets * width.resolution_ms)
    longest_ms += 7 * 24 * 3_600_000
    return longest_ms + settings.windows.out_of_order_ms + settings.windows.allowed_lateness_ms


def _log_of(
    reader: Consumer, part: PartitionReport, reading: TableReading
) -> dict[int, Told] | None:
    """What the log holds of what was read from it; None where it ends before that."""
    first, end = log_range(reader, part.topic, part.partition)
    if end < part.next_offset:
        part.log_missing = f"the log ends at {end}, the versions need {part.next_offset}"
        return None
    place = (part.topic, part.partition)
    found = {}
    for message in messages(reader, *place, first, part.next_offset):
        told = reading.told(
            message.key(), message.value(), message.timestamp()[1], headers_of(message)
        )
        if told is not None:
            found[message.offset() or 0] = told
    return found


def read_stored(client: Any, keys: VersionKeys) -> StoredTable:
    """Header, versions and the newest of each key as they were at one moment.

    Raises:
        StoreError: They would not hold still.
    """
    with translated(client):
        for _ in range(MAX_RETRIES):
            before = client.hgetall(keys.header)
            versions = _versions(client, keys)
            newest = client.hgetall(keys.newest)
            if client.hgetall(keys.header) == before:
                header = {name.decode(): value.decode() for name, value in before.items()}
                return StoredTable(header, versions, newest)
    raise StoreError(
        f"the versions of {keys.topic}:{keys.partition} would not hold still in "
        f"{MAX_RETRIES} reads",
        hint="verify again when ingest has caught up with the log",
    )


def _versions(client: Any, keys: VersionKeys) -> dict[int, Told]:
    found: dict[int, Told] = {}
    first = "-"
    while True:
        entries = client.xrange(keys.log, first, "+", MAX_ENTRIES_A_READ)
        for entry_id, fields in entries:
            offset = int(entry_id.split(b"-")[0])
            told = (fields.get(b"k", b""), fields.get(b"v"), int(fields.get(b"t", -1)))
            found[offset] = Told(*told, dead=b"d" in fields)
        if len(entries) < MAX_ENTRIES_A_READ:
            return found
        first = f"({entries[-1][0].decode()}"
