"""Records that cannot be used or came too late: how they are kept, with notes in their headers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from freshet.stream.config import KafkaSettings
from freshet.stream.events.redrive import REDRIVE_HEADER
from freshet.stream.kafka import Message, Outgoing, headers_of
from freshet.stream.kafka.topics import dead_letter_max_bytes, dead_letter_topic

ERROR_PREFIX = "freshet.error."
SOURCE_PREFIX = "freshet.source."
MAX_TEXT_BYTES = 1_000
RECORD_OVERHEAD_BYTES = 2_048
HEADER_OVERHEAD_BYTES = 10

HeaderList = list[tuple[str, bytes | None]]


class Source(NamedTuple):
    """A record as it came."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: HeaderList


def source_of(message: Message) -> Source:
    """The record inside a client's message."""
    return Source(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        message.key(),
        message.value(),
        headers_of(message),
    )


def dead_letter(
    source: Source, stage: str, error_class: str, text: str, limit_bytes: int
) -> Outgoing:
    """The record for `<topic>.dlq`: original bytes, key and headers, and why it could not be used.

    Args:
        source: The record.
        stage: Where it failed: decode, validate, future, ...
        error_class: Name of the error's class.
        text: What was wrong, for a person; cut at 1,000 bytes.
        limit_bytes: Largest record the dead-letter topic takes; what is larger is cut, see
            `fitted`.
    """
    why = {"stage": stage, "class": error_class, "message": text}
    said = [
        (ERROR_PREFIX + name, value.encode("utf-8", "replace")[:MAX_TEXT_BYTES])
        for name, value in why.items()
    ]
    ours = [*_place(source, ERROR_PREFIX), *said]
    record = Outgoing(dead_letter_topic(source.topic), source.key, source.value, source.headers)
    return fitted(record, ours, limit_bytes)


def late_record(source: Source, topic: str, limit_bytes: int) -> Outgoing:
    """The record for the late topic: original bytes, key and headers, and where it came from."""
    record = Outgoing(topic, source.key, source.value, source.headers)
    return fitted(record, _place(source, SOURCE_PREFIX), limit_bytes)


def _place(source: Source, prefix: str) -> list[tuple[str, bytes]]:
    return [
        (f"{prefix}topic", source.topic.encode()),
        (f"{prefix}partition", b"%d" % source.partition),
        (f"{prefix}offset", b"%d" % source.offset),
        (f"{prefix}timestamp_ms", b"%d" % source.timestamp_ms),
    ]


def fitted(record: Outgoing, ours: Sequence[tuple[str, bytes]], limit_bytes: int) -> Outgoing:
    """The record with our headers, and cut where it would not fit.

    The value is cut first; then the original headers are left out; then the key is cut. Headers
    tell the size and sha256 of each part that was cut. A record must always fit: one that the
    dead-letter topic refuses would hold up its partition for ever.

    >>> cut = fitted(Outgoing("t.dlq", b"k", b"v" * 5_000, []), [], limit_bytes=3_048)
    >>> len(cut.value), cut.headers[0]
    (759, ('freshet.error.value_bytes', b'5000'))
    """
    room = limit_bytes - RECORD_OVERHEAD_BYTES - _size(ours)
    key, value, headers = record.key, record.value, record.headers
    if len(key or b"") + len(value or b"") + _size(headers) <= room:
        return Outgoing(record.topic, key, value, [*headers, *ours])
    room -= 240
    notes: list[tuple[str, bytes]] = []
    kept = max(0, room - len(key or b"") - _size(headers))
    if value and kept < len(value):
        notes += _cut_note("value", value)
        value = value[:kept]
    if len(key or b"") + _size(headers) > room:
        notes.append((f"{ERROR_PREFIX}headers_bytes", str(_size(headers)).encode()))
        headers = []
    if key and len(key) > room:
        notes += _cut_note("key", key)
        key = key[:room]
    return Outgoing(record.topic, key, value, [*headers, *notes, *ours])


def _cut_note(part: str, data: bytes) -> list[tuple[str, bytes]]:
    return [
        (f"{ERROR_PREFIX}{part}_bytes", str(len(data)).encode()),
        (f"{ERROR_PREFIX}{part}_sha256", hashlib.sha256(data).hexdigest().encode()),
    ]


@dataclass(frozen=True, slots=True)
class Notes:
    """What our headers say of a dead letter or a late record; "?" for what they do not say.

    Attributes:
        topic: Where the record was, as text, and so are `partition` and `offset`.
        timestamp_ms: The record's own timestamp, as text.
        stage: Where it failed: decode, validate, future, ...; `late` for a late record.
        error_class: Name of the error's class.
        message: What was wrong, for a person.
        cut: Whether part of the record did not fit.
        redriven_from: The place of the very first record, if this one was sent again.
    """

    topic: str
    partition: str
    offset: str
    timestamp_ms: str
    stage: str
    error_class: str
    message: str
    cut: bool
    redriven_from: str

    @property
    def place(self) -> str:
        """Topic-partition-offset of the record."""
        return f"{self.topic}-{self.partition}-{self.offset}"


def notes_of(headers: Sequence[tuple[str, bytes | None]]) -> Notes:
    """What the headers of a dead letter or a late record say."""
    said = {name: (value or b"").decode("utf-8", "replace") for name, value in headers}

    def where(name: str) -> str:
        return said.get(ERROR_PREFIX + name) or said.get(SOURCE_PREFIX + name, "?")

    return Notes(
        topic=where("topic"),
        partition=where("partition"),
        offset=where("offset"),
        timestamp_ms=where("timestamp_ms"),
        stage=said.get(f"{ERROR_PREFIX}stage", "late"),
        error_class=said.get(f"{ERROR_PREFIX}class", "TooLate"),
        message=said.get(f"{ERROR_PREFIX}message", ""),
        cut=any(f"{ERROR_PREFIX}{part}_bytes" in said for part in ("value", "key", "headers")),
        redriven_from=said.get(REDRIVE_HEADER, ""),
    )


def without_notes(headers: HeaderList) -> HeaderList:
    """The headers that the record came with."""
    ours = (ERROR_PREFIX, SOURCE_PREFIX)
    return [(name, value) for name, value in headers if not name.startswith(ours)]


def _size(headers: Iterable[tuple[str, bytes | None]]) -> int:
    size = 0
    for name, value in headers:  # A third of the time of sum() over a generator.
        size += len(name) + len(value or b"") + HEADER_OVERHEAD_BYTES
    return size


def limit_of(settings: KafkaSettings) -> int:
    """Largest record that goes to a dead-letter or late topic."""
    return dead_letter_max_bytes(settings)
