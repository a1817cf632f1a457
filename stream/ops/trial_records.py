"""Records to try a map on: from a file, a folder, or the newest of a topic."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Final

import msgspec

from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.events.map.paths import dig, steps_of
from freshet.stream.kafka import (
    Consumer,
    Message,
    TopicPartition,
    broker_errors,
    consumer,
    headers_of,
    log_range,
    partitions_of,
    take,
)
from freshet.stream.ops.trial import RawRecord

READ_WAIT_MS: Final = 500
MAX_EMPTY_READS: Final = 20
TABLES: Final = (".csv", ".tsv", ".txt", ".parquet", ".xlsx")
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def of_bytes(data: bytes, name: str, key: str = "", timestamp_ms: int = 0) -> list[RawRecord]:
    """Lines of JSON, one array, or one object over several lines.

    Args:
        data: All of it.
        name: Of where it came from.
        key: Path of what is the record's key; empty is none.
        timestamp_ms: Of every record.

    >>> [one.value for one in of_bytes(b'[{"a": 1},\\n {"a": 2}]', "x")]
    [b'{"a": 1}', b'{"a": 2}']
    """
    found = list(_values(data.removeprefix(BYTE_ORDER_MARK)))
    return [
        RawRecord(value, _key_of(value, key), (), timestamp_ms, 0, f"{name}:{number}")
        for number, value in found
    ]


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each record, with its line, or its place in the array."""
    whole = _array_or_object(data)
    if whole is not None:
        yield from enumerate(whole, start=1)
        return
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            yield number, line


def _array_or_object(data: bytes) -> list[bytes] | None:
    """The records of one JSON value; None where it is none."""
    try:
        if data.lstrip()[:1] == b"[":
            return [bytes(one) for one in msgspec.json.decode(data, type=list[msgspec.Raw])]
        return [bytes(msgspec.json.decode(data, type=msgspec.Raw)).strip()]
    except msgspec.DecodeError:
        return None


def _key_of(value: bytes, path: str) -> bytes | None:
    if not path:
        return None
    try:
        found = dig(json.loads(value), steps_of(path, "--key"))
    except (ValueError, RecursionError):
        return None
    if found is None or isinstance(found, str):
        return None if found is None else found.encode()
    return msgspec.json.encode(found)


def of_file(path: Path, stdin: IO[bytes], key: str = "", timestamp_ms: int = 0) -> list[RawRecord]:
    """Those of a file (also gzipped), of all .json and .jsonl files of a folder, or of `-`.

    Raises:
        InvalidInputError: It cannot be read, or holds nothing.
    """
    if path.suffix.lower() in TABLES:
        raise InvalidInputError(
            f"{path.name} is a table, and records are JSON",
            hint="freshet history load FILE --dry-run, with --preset or --map, says what its rows "
            "become and sends nothing",
        )
    if str(path) == "-":
        found = of_bytes(stdin.read(), "stdin", key, timestamp_ms)
    else:
        paths = [path]
        if path.is_dir():
            paths = sorted(one for one in path.iterdir() if one.suffix in (".json", ".jsonl"))
        parts = (of_bytes(_read(one), one.name, key, timestamp_ms) for one in paths)
        found = [record for part in parts for record in part]
    if not found:
        raise InvalidInputError(f"{path} holds no records")
    return found


def _read(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read()
    except (OSError, EOFError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from None


def newest(settings: Settings, topic: str, most: int) -> list[RawRecord]:
    """The newest records of a topic, by Kafka's timestamps, in log order within a partition.

    Raises:
        BrokerError: The topic is not there, or cannot be read.
    """
    count = partitions_of(settings, [topic])[topic]
    with closing(consumer(settings, "look", enable_partition_eof=True)) as reader:
        logs = {number: log_range(reader, topic, number) for number in range(count)}
        starts = {number: max(first, end - most) for number, (first, end) in logs.items()}
        ends = {number: end for number, (_, end) in logs.items() if starts[number] < end}
        with broker_errors(f"reading {topic}"):
            reader.assign([TopicPartition(topic, number, starts[number]) for number in ends])
        found = list(_read_up_to(reader, ends, sum(ends[n] - starts[n] for n in ends)))
    # Sorting is stable, so a partition's order stays where stamps are equal.
    chosen = sorted(range(len(found)), key=lambda n: found[n].timestamp_ms)[-most:]
    return [found[n] for n in sorted(chosen)]


def _read_up_to(reader: Consumer, ends: Mapping[int, int], total: int) -> Iterator[RawRecord]:
    """The records before the ends of some partitions, or before the log falls silent."""
    left = set(ends)
    silent = 0
    while left and silent < MAX_EMPTY_READS:
        # The end of a partition comes as a message too: no more are asked for than come.
        taken = take(reader, max(1, total) + len(left), READ_WAIT_MS)
        for message in taken.messages:
            number, offset = message.partition() or 0, message.offset() or 0
            if offset < ends[number]:
                total -= 1
                yield _record(message)
            if offset >= ends[number] - 1:
                left.discard(number)
        left -= {number for _, number in taken.ends}
        silent = 0 if taken.messages or taken.ends else silent + 1


def _record(message: Message) -> RawRecord:
    number = message.partition() or 0
    return RawRecord(
        value=message.value(),
        key=message.key(),
        headers=headers_of(message),
        timestamp_ms=message.timestamp()[1],
        partition=number,
        place=f"{message.topic()}-{number}-{message.offset()}",
    )
