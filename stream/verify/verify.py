"""`freshet verify`: count the log again, independently, and compare with what is stored.

Each partition's stored windows are read first, each resolution as it was at one offset; then the
log is read from the state's first offset, and compared whenever such an offset is reached. So it
can run while ingest does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from freshet.stream.config import Settings
from freshet.stream.errors import LogLostError
from freshet.stream.kafka import Message, consumer, headers_of, log_range
from freshet.stream.store.connection import connect
from freshet.stream.store.generation import current_generation
from freshet.stream.store.redis import WindowStore
from freshet.stream.telemetry import get_logger
from freshet.stream.verify.compare import compare
from freshet.stream.verify.event import Kind
from freshet.stream.verify.map import Headers
from freshet.stream.verify.messages import messages
from freshet.stream.verify.order_states import StoredOrders, compare_orders, read_orders
from freshet.stream.verify.recount import Recount
from freshet.stream.verify.report import PartitionReport, Report
from freshet.stream.verify.snapshot import Snapshot, read_snapshots
from freshet.stream.verify.versions import verify_tables

log = get_logger(__name__)


def verify(settings: Settings) -> Report:
    """Recount every partition that has windows or versions, and compare all that is stored of it.

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
            snapshots = read_snapshots(client, store.keys(topic, partition), settings)
            part = _part(topic, partition, snapshots)
            report.partitions.append(part)
            recount = Recount(kinds[topic], settings, header.timestamp_type)
            stored: list[Snapshot | StoredOrders] = [*snapshots]
            if kinds[topic] == "orders" and settings.events.orders.mode == "state":
                orders = read_orders(client, store, store.keys(topic, partition), settings)
                stored += [] if orders is None else [orders]
            _verify_partition(part, recount, stored, report)
            log.info("partition_recounted", **asdict(part))
    verify_tables(client, settings, report)
    return report


def _part(topic: str, partition: int, snapshots: list[Snapshot]) -> PartitionReport:
    newest = snapshots[-1]
    assert newest.header.first_offset is not None
    return PartitionReport(topic, partition, newest.header.first_offset, newest.offset)


def _verify_partition(
    part: PartitionReport,
    recount: Recount,
    stored: list[Snapshot | StoredOrders],
    report: Report,
) -> None:
    """Recount one partition into the report."""
    reader = consumer(
        recount.settings, "verify", enable_partition_eof=True, queued_max_messages_kbytes=8_192
    )
    try:
        part.log_missing = _missing(log_range(reader, part.topic, part.partition), part)
        if part.log_missing is None:
            place = (part.topic, part.partition)
            end = max(one.offset for one in stored)
            log_of_part = messages(reader, *place, part.first_offset, end)
            _recount(log_of_part, part, recount, stored, report)
    except LogLostError as error:
        part.log_missing = error.message
    finally:
        reader.close()


def _recount(
    messages: Iterator[Message],
    part: PartitionReport,
    recount: Recount,
    stored: list[Snapshot | StoredOrders],
    report: Report,
) -> None:
    """Count record by record, and compare what is stored when its offset is reached."""
    waiting = sorted(stored, key=lambda one: one.offset)
    for message in messages:
        offset = message.offset() or 0
        while waiting and waiting[0].offset <= offset:
            _compare(waiting.pop(0), recount, part, report)
        _, timestamp_ms = message.timestamp()
        headers = headers_of(message)
        recount.take(
            message.key(),
            message.value(),
            timestamp_ms,
            _header_of(headers, "freshet-redrive"),
            _header_of(headers, "freshet-history"),
            headers,
        )
        part.records += 1
    for one in waiting:
        _compare(one, recount, part, report)


def _compare(
    stored: Snapshot | StoredOrders, recount: Recount, part: PartitionReport, report: Report
) -> None:
    if isinstance(stored, Snapshot):
        compare(stored, recount, part, report)
    else:
        compare_orders(stored, recount.orders.states(stored.watermark_ms), part, report)


def _missing(found: tuple[int, int], part: PartitionReport) -> str | None:
    start, end = found
    if start > part.first_offset:
        return f"the log starts at {start}, the state needs {part.first_offset}"
    if end < part.next_offset:
        return f"the log ends at {end}, the state needs {part.next_offset}"
    return None


def _header_of(headers: Headers, wanted: str) -> bytes | None:
    """The last header of that name that says anything."""
    said = [value for name, value in headers if name == wanted and value]
    return said[-1] if said else None
