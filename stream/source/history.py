"""`freshet history load`: old events onto the live topics, each exactly once however often it runs.

Each record carries the header `freshet-history: LOAD:SEQUENCE`; its sequence is its place in the
source, so it is the same in every run. Ingest counts no sequence of a load twice, so a run that was
cut off is simply run again. When all is acknowledged, every partition of both event topics gets
`LOAD:complete`. Kafka's timestamps are those of sending, and the shop's clock is left alone.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Literal

import msgspec

from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, InvalidInputError
from freshet.stream.event_settings import EventSettings
from freshet.stream.files.read import FileStyle
from freshet.stream.kafka import (
    Publisher,
    RecordsRefusedError,
    TopicPartition,
    broker_errors,
    consumer,
    give_up,
    headers_of,
    log_range,
    partitions_of,
    take,
)
from freshet.stream.source.batches import TopicKind
from freshet.stream.source.old_orders import OWN_FIELDS, holds_whole_orders, whole_orders
from freshet.stream.store.connection import connect
from freshet.stream.store.generation import current_generation
from freshet.stream.store.redis import WindowStore
from freshet.stream.telemetry import get_logger

HEADER: Final = "freshet-history"
# What lies on one partition of a topic comes after all of the one before it.
PARTITION_STRIDE: Final = 1 << 44
FLUSH_RECORDS: Final = 50_000
MAX_LOAD_CHARACTERS: Final = 100
READ_RECORDS: Final = 5_000
READ_WAIT_MS: Final = 500
EventTopic = Literal["orders", "clicks"]
LINE_FILES: Final = (".jsonl", ".ndjson")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OldRecord:
    """One record of history; `sequence` rises along the source and is the same in every run."""

    sequence: int
    kind: TopicKind
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """A source of history: its records in the order in which they are sent, and how many."""

    name: str
    records: Iterable[OldRecord]
    total: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a run did: records sent now, and records that windows had counted before."""

    load: str
    sent: int
    known: int


def load(
    settings: Settings,
    history: History,
    *,
    name: str | None = None,
    complete: bool = True,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Loaded:
    """Send a source's records; on return all are acknowledged, and the load is said to be complete.

    Args:
        settings: Broker, Redis and topics.
        history: What to send.
        name: The load's name; runs of one name are one load. None takes the source's.
        complete: Whether nothing more of history comes after it.
        on_progress: Told how many records are done.

    Raises:
        BrokerError: Records are not acknowledged; run it again.
        InvalidInputError: The name cannot be one.
    """
    called = load_name(name or history.name)
    topics = settings.kafka.topics
    counts = partitions_of(settings, [topics.orders, topics.clicks])
    judged = _judged(settings, called, counts)
    sent = known = 0
    with closing(Publisher(settings)) as publisher:
        for done, record in enumerate(history.records, start=1):
            topic = getattr(topics, record.kind)
            if record.sequence <= judged.get(topic, -1):
                known += 1
            else:
                _send(publisher, topic, record, called, counts.get(topic, 1))
                sent += 1
            if done % FLUSH_RECORDS == 0:
                _flush(publisher)
                on_progress(done)
        _flush(publisher)
        if complete:
            _complete(publisher, called, counts)
    on_progress(sent + known)
    log.info("history_sent", load=called, sent=sent, known=known, complete=complete)
    return Loaded(called, sent, known)


def _send(
    publisher: Publisher, topic: str, record: OldRecord, load: str, num_partitions: int
) -> None:
    mark = (HEADER, f"{load}:{record.sequence}".encode())
    publisher.produce(
        topic,
        record.value,
        key=record.key,
        # Without a key a record must still go to the same partition in every run.
        partition=-1 if record.key is not None else record.sequence % num_partitions,
        headers=[*record.headers, mark] if record.kind in ("orders", "clicks") else None,
    )


def _flush(publisher: Publisher) -> None:
    """Until all is acknowledged; what Kafka will never take is logged and left out."""
    try:
        publisher.flush()
    except RecordsRefusedError as error:
        if not all(refusal.unfit for refusal in error.refusals):
            raise
        for refusal in error.refusals:
            give_up(refusal)


def _complete(publisher: Publisher, load: str, counts: Mapping[str, int]) -> None:
    """Tell every partition of the event topics, after all that was sent to it."""
    header = (HEADER, f"{load}:complete".encode())
    for topic, count in counts.items():
        for partition in range(count):
            publisher.produce(topic, b"", partition=partition, headers=[header])
    publisher.flush()


def _judged(settings: Settings, load: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Up to which sequence all records of a load are in the windows, by topic."""
    with closing(connect(settings.redis)) as client:
        generation = current_generation(client, settings.redis.generation)
        store = WindowStore(client, generation)
        name = load.encode()
        return {
            topic: min(store.loaded(topic, n, [name]).get(name, -1) for n in range(count))
            for topic, count in counts.items()
        }


def need_history_before(settings: Settings) -> None:
    """Refuse history that nobody would see: windows begin with their first live record.

    Raises:
        ConfigError: `windows.history_before` is not set.
    """
    if settings.windows.history_before is None:
        raise ConfigError(
            "windows.history_before is not set, so windows begin with the first live record and "
            "history before it would be counted and never shown",
            hint="set it to a time after the last old record, such as today's date; windows that "
            "were begun without it go on under a new redis.generation only",
        )


def in_zone_of(settings: Settings, style: FileStyle) -> FileStyle:
    """A style whose times without a zone are the shop's own: of its events, else its calendar."""
    zone = style.zone or settings.events.time_zone or settings.calendar.time_zone
    return replace(style, zone=zone)


def load_name(text: str) -> str:
    """A load's name of any text.

    >>> load_name("Orders 2024.parquet")
    'Orders-2024.parquet'

    Raises:
        InvalidInputError: Nothing is left of it.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:MAX_LOAD_CHARACTERS]
    if not name:
        raise InvalidInputError(f"{text!r} cannot name a load", hint="--load NAME gives it one")
    return name


# Sources ------------------------------------------------------------------------------------------


def of_file(
    path: Path,
    *,
    kind: EventTopic = "orders",
    key: str | None = None,
    preset: str | None = None,
    mapping: Mapping[str, str] | None = None,
    style: FileStyle | None = None,
    events: EventSettings | None = None,
) -> History:
    """A file's events: lines of JSON as they are, or a table as `freshet replay` reads it.

    Rows of a table are records in our own fields, and say so, so that no map is asked for them.

    Args:
        path: `.jsonl` or `.ndjson`, also gzipped: the shop's own records, one a line, in any order;
            or parquet, CSV or a preset's folder. With a map or preset such lines are a table too.
        kind: Which topic lines of JSON belong on.
        key: The field of a line that is its record's key, such as the order's id.
        preset: See `freshet.stream.source.replay.PRESETS`.
        mapping: Instead of a preset, our field -> the table's column.
        style: How a table is written, where it does not tell.
        events: What a record of the topic is; whether it is a whole order. None: it is not.

    Raises:
        InvalidInputError: It cannot be read.
    """
    table = preset is not None or mapping is not None
    if not table and path.name.removesuffix(".gz").endswith(LINE_FILES):
        with _opened(path) as lines:
            total = sum(1 for _ in lines)
        return History(path.name, _of_lines(path, kind, key), total)
    from freshet.stream.source.replay import open_replay

    whole = events is not None and holds_whole_orders(events)
    source = open_replay(
        path,
        preset=preset,
        mapping=mapping,
        style=style,
        whole_orders=whole,
        series=() if events is None else events.series_by,
    )
    for reason, count in source.skipped.items():
        log.info("rows_skipped", reason=reason, rows=count)
    if events is not None and whole:
        orders = list(whole_orders(source.rows, events, path.name))
        numbered = enumerate(orders)
        told = (OldRecord(n, "orders", key, value, OWN_FIELDS) for n, (key, value) in numbered)
        return History(path.name, told, len(orders))

    def records() -> Iterator[OldRecord]:
        sequence = 0
        for batch in source.batches():
            for kind, key, value in zip(batch.kinds, batch.keys, batch.values, strict=True):
                own = OWN_FIELDS if kind in ("orders", "clicks") else ()
                yield OldRecord(sequence, kind, key, value, own)
                sequence += 1

    return History(path.name, records(), len(source.rows))


def _opened(path: Path) -> IO[bytes]:
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from None


def _of_lines(path: Path, kind: EventTopic, key: str | None) -> Iterator[OldRecord]:
    with _opened(path) as lines:
        for sequence, line in enumerate(lines):
            value = line.rstrip(b"\r\n")
            if value:
                yield OldRecord(sequence, kind, _key_of(value, key), value)


def _key_of(value: bytes, field: str | None) -> bytes | None:
    """A line's key; of a line that is no record the whole line, for ingest to refuse."""
    if field is None:
        return None
    try:
        found = msgspec.json.decode(value).get(field)
    except (msgspec.DecodeError, AttributeError):
        return None
    return found.encode() if isinstance(found, str) else msgspec.json.encode(found)


def of_topic(settings: Settings, topic: str, *, kind: EventTopic = "orders") -> History:
    """What lies on another topic now, with its keys and headers, one partition after the other.

    Raises:
        BrokerError: It is not there, or cannot be read.
        InvalidInputError: It is the live topic itself.
    """
    if topic == getattr(settings.kafka.topics, kind):
        raise InvalidInputError(f"{topic} is where history is sent to, not where it comes from")
    count = partitions_of(settings, [topic])[topic]
    with closing(consumer(settings, "history")) as reader:
        ranges = {number: log_range(reader, topic, number) for number in range(count)}
    total = sum(end - first for first, end in ranges.values())
    return History(topic, _of_log(settings, topic, kind, ranges), total)


def _of_log(
    settings: Settings, topic: str, kind: EventTopic, ranges: Mapping[int, tuple[int, int]]
) -> Iterator[OldRecord]:
    with closing(consumer(settings, "history", enable_partition_eof=True)) as reader:
        for number, (first, end) in ranges.items():
            with broker_errors(f"reading {topic}:{number}"):
                reader.assign([TopicPartition(topic, number, first)])
            position = first
            while position < end:
                taken = take(reader, READ_RECORDS, READ_WAIT_MS)
                for message in taken.messages:
                    offset = message.offset() or 0
                    position = offset + 1
                    if offset < end:
                        headers = tuple(pair for pair in headers_of(message) if pair[0] != HEADER)
                        sequence = number * PARTITION_STRIDE + offset
                        yield OldRecord(sequence, kind, message.key(), message.value(), headers)
                position = max(position, taken.ends.get((topic, number), 0))
