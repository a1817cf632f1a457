"""Records that cannot be used and records that came too late: how they are kept, listed, and sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stream.config import KafkaSettings, Settings
from stream.errors import ConfigError
from stream.kafka import (
    Consumer,
    Message,
    Publisher,
    TableReader,
    TableRecord,
    TopicPartition,
    broker_errors,
    consumer,
    headers_of,
    log_range,
    partitions_of,
    take,
)
from stream.topics import dead_letter_max_bytes, dead_letter_topic

ERROR_PREFIX = "freshet.error."
SOURCE_PREFIX = "freshet.source."
REDRIVE_HEADER = "freshet-redrive"
MAX_TEXT_BYTES = 1_000
RECORD_OVERHEAD_BYTES = 2_048
HEADER_OVERHEAD_BYTES = 10
REDRIVE_BATCH = 1_000

HeaderList = list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Source:
    """A record as it came."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: HeaderList


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record as it is sent on; its timestamp is the time of sending, which no topic refuses."""

    topic: str
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


def dead_letter(source: Source, stage: str, error_class: str, text: str, limit_bytes: int) -> Outgoing:
    """The record for `<topic>.dlq`: original bytes, key and headers, and why it could not be used.

    Args:
        source: The record.
        stage: Where it failed: decode, validate, future, ...
        error_class: Name of the error's class.
        text: What was wrong, for a person; cut at 1,000 bytes.
        limit_bytes: Largest record the dead-letter topic takes; what is larger is cut, see `fitted`.
    """
    why = [("stage", stage), ("class", error_class), ("message", text)]
    said = [*_place(source, ERROR_PREFIX), *((ERROR_PREFIX + name, value) for name, value in why)]
    ours = [(name, value.encode("utf-8", "replace")[:MAX_TEXT_BYTES]) for name, value in said]
    record = Outgoing(dead_letter_topic(source.topic), source.key, source.value, source.headers)
    return fitted(record, ours, limit_bytes)


def late_record(source: Source, topic: str, limit_bytes: int) -> Outgoing:
    """The record for the late topic: original bytes, key and headers, and where it came from."""
    ours = [(name, value.encode()) for name, value in _place(source, SOURCE_PREFIX)]
    return fitted(Outgoing(topic, source.key, source.value, source.headers), ours, limit_bytes)


def _place(source: Source, prefix: str) -> list[tuple[str, str]]:
    return [
        (f"{prefix}topic", source.topic),
        (f"{prefix}partition", str(source.partition)),
        (f"{prefix}offset", str(source.offset)),
        (f"{prefix}timestamp_ms", str(source.timestamp_ms)),
    ]


def fitted(record: Outgoing, ours: Sequence[tuple[str, bytes]], limit_bytes: int) -> Outgoing:
    """The record with our headers, cut where it would not fit, with the size and sha256 of each part that was cut.

    The value is cut first; then the original headers are left out; then the key is cut. A record must always fit:
    one that the dead-letter topic refuses would hold up its partition for ever.

    >>> cut = fitted(Outgoing("t.dlq", b"k", b"v" * 5_000, []), [], limit_bytes=3_048)
    >>> len(cut.value), cut.headers[0]
    (759, ('freshet.error.value_bytes', b'5000'))
    """
    room = limit_bytes - RECORD_OVERHEAD_BYTES - _size(list(ours))
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


def _size(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum(len(name) + len(value or b"") + HEADER_OVERHEAD_BYTES for name, value in headers)


def limit_of(settings: KafkaSettings) -> int:
    """Largest record that goes to a dead-letter or late topic."""
    return dead_letter_max_bytes(settings)


# For people ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadLetterView:
    """One dead letter as `freshet dlq list` shows it; `place` is topic-partition-offset of the original."""

    place: str
    stage: str
    error_class: str
    message: str
    key: bytes | None
    value: bytes | None
    cut: bool
    redriven: bool

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; bytes that are not UTF-8 are shown with replacement characters."""
        said = asdict(self)
        return {**said, "key": _shown(self.key), "value": _shown(self.value)}

    def as_text(self) -> str:
        """For people: one line, the value at most 80 characters."""
        value = "(null)" if self.value is None else repr((_shown(self.value) or "")[:80])
        return f"{self.place}  {self.stage}/{self.error_class}: {self.message}  {value}"


def list_letters(settings: Settings, *, topic: str | None = None, most: int = 100) -> list[DeadLetterView]:
    """Dead letters that are in the log now, in the order of their partitions.

    Args:
        settings: Where to connect.
        topic: Only letters of this source topic; None is orders and clicks.
        most: At most so many.

    Raises:
        BrokerError: The broker does not answer, or there is no dead-letter topic.
    """
    names = [dead_letter_topic(name) for name in _sources(settings, topic)]
    letters: list[TableRecord] = []
    with TableReader(settings, names) as reader:
        while not reader.caught_up and len(letters) < most:
            letters += reader.poll()
    return [view_of(letter) for letter in letters[:most]]


def _sources(settings: Settings, topic: str | None) -> list[str]:
    known = [settings.kafka.topics.orders, settings.kafka.topics.clicks]
    if topic is not None and topic not in known:
        raise ConfigError(f"{topic} is not an event topic", hint=f"choose one of {', '.join(known)}")
    return known if topic is None else [topic]


def _shown(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")


def view_of(record: TableRecord) -> DeadLetterView:
    """What the headers of a dead letter say."""
    said = _said(record.headers)
    return DeadLetterView(
        place=_place_of(said),
        stage=said.get(f"{ERROR_PREFIX}stage", ""),
        error_class=said.get(f"{ERROR_PREFIX}class", ""),
        message=said.get(f"{ERROR_PREFIX}message", ""),
        key=record.key,
        value=record.value,
        cut=_cut(said),
        redriven=REDRIVE_HEADER in said,
    )


def _said(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}


def _place_of(said: dict[str, str]) -> str:
    return "-".join(said.get(ERROR_PREFIX + name, "?") for name in ("topic", "partition", "offset"))


def _cut(said: dict[str, str]) -> bool:
    return any(f"{ERROR_PREFIX}{part}_bytes" in said for part in ("value", "key", "headers"))


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive did: letters sent again, and those left because part of them was cut."""

    sent: int
    cut: int

    def __str__(self) -> str:
        return f"{self.sent} dead letters" + (f" ({self.cut} were cut and stay)" if self.cut else "")


def redrive(
    settings: Settings, *, topic: str | None = None, most: int | None = None, from_start: bool = False
) -> Redriven:
    """Send dead letters to their source topics once more, for instance after a field map was corrected.

    Continues where the last redrive ended (kept in the group `<group_prefix>.redrive`). Each record carries the header
    `freshet-redrive: topic-partition-offset` of its original. Durable effects, in order: the records are acknowledged,
    then the position is kept; a crash between the two sends them again, and their event ids make them duplicates.

    Args:
        settings: Where to connect.
        topic: The source topic; None is orders and clicks.
        most: At most so many; None is all there are now.
        from_start: Send all of them, also those sent before.

    Raises:
        BrokerError: The broker does not answer or a topic does not exist.
    """
    sent = cut = 0
    for source in _sources(settings, topic):
        left = None if most is None else most - sent - cut
        done = _redrive_topic(settings, source, left, from_start)
        sent, cut = sent + done.sent, cut + done.cut
    return Redriven(sent, cut)


def _redrive_topic(settings: Settings, topic: str, most: int | None, from_start: bool) -> Redriven:
    letters = dead_letter_topic(topic)
    count = partitions_of(settings, [letters, topic])[letters]
    client = consumer(settings, "redrive", auto_offset_reset="earliest", enable_partition_eof=True)
    try:
        ends = {number: log_range(client, letters, number)[1] for number in range(count)}
        client.assign(_starts(client, letters, count, from_start))
        with Publisher(settings) as publisher:
            return _redrive(client, publisher, topic, ends, most)
    finally:
        client.close()


def _redrive(client: Consumer, publisher: Publisher, topic: str, ends: dict[int, int], most: int | None) -> Redriven:
    """Up to the given ends: what fails again meanwhile is left for the next redrive."""
    sent = cut = 0
    while ends and (most is None or sent + cut < most):
        left = REDRIVE_BATCH if most is None else min(REDRIVE_BATCH, most - sent - cut)
        taken = take(client, left, 200)
        letters = [source_of(message) for message in taken.messages]
        letters = [letter for letter in letters if letter.offset < ends.get(letter.partition, 0)]
        outgoing = [again(letter, topic) for letter in letters]
        for record in filter(None, outgoing):
            publisher.produce(topic, record.value, key=record.key, headers=record.headers)
        publisher.flush()
        sent += sum(record is not None for record in outgoing)
        cut += outgoing.count(None)
        _keep_position(client, letters)
        passed = {letter.partition for letter in letters if letter.offset + 1 >= ends[letter.partition]}
        passed |= {partition for _, partition in taken.ends}
        ends = {number: end for number, end in ends.items() if number not in passed}
    return Redriven(sent, cut)


def _starts(client: Consumer, letters: str, count: int, from_start: bool) -> list[TopicPartition]:
    wanted = [TopicPartition(letters, number, 0) for number in range(count)]
    if from_start:
        return wanted
    with broker_errors("asking where the last redrive ended"):
        committed = client.committed(wanted, 10.0)
    return [TopicPartition(letters, at.partition, max(0, at.offset)) for at in committed]


def _keep_position(client: Consumer, letters: list[Source]) -> None:
    newest = {letter.partition: TopicPartition(letter.topic, letter.partition, letter.offset + 1) for letter in letters}
    if newest:
        with broker_errors("keeping where this redrive is"):
            client.commit(offsets=list(newest.values()), asynchronous=False)


def again(letter: Source, topic: str) -> Outgoing | None:
    """A dead letter as it goes back to its source, without our notes; None when part of it was cut."""
    said = _said(letter.headers)
    if _cut(said):
        return None
    kept = [(name, value) for name, value in letter.headers if not name.startswith((ERROR_PREFIX, REDRIVE_HEADER))]
    return Outgoing(topic, letter.key, letter.value, [*kept, (REDRIVE_HEADER, _place_of(said).encode())])
