"""Opens a topic's records: bytes of its format and envelope in, JSON bytes for the decoder out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from freshet.stream.config import FormatSettings, KafkaSettings
from freshet.stream.errors import ConfigError, EventError
from freshet.stream.events.formats import cloudevents, debezium, local
from freshet.stream.events.formats.compressed import unpacked
from freshet.stream.kafka.registry import Deserialise, Headers, deserialiser

NOTHING: Final = b"!"
"""Stands where a record was refused or skipped: no JSON, so that no map makes an event of it."""

_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Opened:
    """A slice's records as JSON.

    Attributes:
        values: JSON bytes, None for a null value (of the shop's tables also for a delete).
        keys: As they came, or as JSON where the format has keys of its own.
        refused: Class and text of what is wrong, by place.
        skipped: Why a record says nothing, by place.
    """

    values: list[bytes | None]
    keys: list[bytes | None]
    refused: dict[int, tuple[str, str]]
    skipped: dict[int, str]


class Opener:
    """Opens records of one topic; keeps the schemas it has met.

    Args:
        form: The topic's format and envelope.
        kafka: Where the registry is, and how large a record may be.
        of_table: Whether a deleted row is a tombstone, as in the shop's tables.
    """

    def __init__(self, form: FormatSettings, kafka: KafkaSettings, *, of_table: bool) -> None:
        self._form = form
        self._max_bytes = kafka.max_record_bytes
        self._of_table = of_table
        self._read = _reader(form, kafka)
        # A schema file is of the values, so keys are read by their writer's schema or not at all.
        self._reads_keys = form.format == "avro" and form.framed and not form.schema_file

    def open(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        headers: Sequence[Headers],
    ) -> Opened:
        """All records of a slice; one that cannot be opened never fails the others.

        Raises:
            SchemaRegistryAwayError: A schema is not known yet, and nobody answers.
        """
        opened = Opened([], [self._key(key) for key in keys], {}, {})
        for place, (value, said) in enumerate(zip(values, headers, strict=True)):
            try:
                # An empty value is nothing in any format; the end of a history looks so.
                opened.values.append(self._open(value, said) if value else value)
            except debezium.SkippedError as why:
                opened.skipped[place] = str(why)
                opened.values.append(NOTHING)
            except EventError as error:
                opened.refused[place] = ("Undecodable", error.message)
                opened.values.append(NOTHING)
        if self._form.envelope == "debezium" and not self._of_table:
            self._skip_tombstones(opened)
        return opened

    def _skip_tombstones(self, opened: Opened) -> None:
        for place in [n for n, value in enumerate(opened.values) if value is None]:
            opened.values[place] = NOTHING
            opened.skipped[place] = "tombstone"

    def _open(self, value: bytes, headers: Headers) -> bytes | None:
        if len(value) > self._max_bytes:
            raise EventError(
                f"the value has {len(value)} bytes, expected at most {self._max_bytes}"
            )
        record = self._read(value, headers)
        if self._form.envelope == "debezium":
            # Of a table's row the key is enough.
            if self._of_table and debezium.deletes(record):
                return None
            record = debezium.opened(record, self._form.decimals)
        elif self._form.envelope == "cloudevents":
            record = cloudevents.opened(record, headers)
        return _encoded(record)

    def _key(self, key: bytes | None) -> bytes | None:
        """A key as JSON where the format has keys of its own; any other as it came."""
        if not key:
            return key
        try:
            if self._reads_keys and key[0] == 0:
                return _encoded(self._read(key, ()))
            if self._form.envelope == "debezium" and key.startswith(b"{"):
                return _encoded(debezium.without_schema(_decode(key))[1])
        except (EventError, msgspec.DecodeError, RecursionError):
            return key
        return key


def opener_of(
    form: FormatSettings, kafka: KafkaSettings, *, of_table: bool = False
) -> Opener | None:
    """Opens a topic's records; None where they are JSON as it is.

    Raises:
        ConfigError: Its schema cannot be used, or a library is missing.
    """
    if form.format == "json" and form.envelope == "none":
        return None
    return Opener(form, kafka, of_table=of_table)


def _reader(form: FormatSettings, kafka: KafkaSettings) -> Deserialise:
    """Reads one record's bytes as an object; raises EventError or SchemaRegistryAwayError."""
    if form.format == "json":
        return _plain(lambda value: _json(value, kafka.max_record_bytes))
    if not form.framed and not form.schema_file:
        raise ConfigError(
            f"records of format {form.format} without a registry need a schema",
            hint="set the topic's schema_file, or registry = true",
        )
    if form.format == "protobuf":
        return _protobuf_reader(form, kafka)
    if not form.schema_file:
        return deserialiser(form.format, kafka.registry)
    if form.framed and kafka.registry.url:
        schema = local.text_of(form.schema_file)
        return deserialiser(form.format, kafka.registry, schema=schema)
    of = {"avro": local.avro_reader, "json_schema": local.json_schema_reader}
    read = of[form.format](form.schema_file)
    return _plain((lambda value: read(_unframed(value))) if form.framed else read)


def _plain(read: Callable[[bytes], Any]) -> Deserialise:
    return lambda value, headers: read(value)


def _protobuf_reader(form: FormatSettings, kafka: KafkaSettings) -> Deserialise:
    kind = local.message_class(form.schema_file, form.message) if form.schema_file else None
    if form.framed:
        read = deserialiser("protobuf", kafka.registry, message=kind)
    else:
        read = _plain(local.protobuf_reader(kind))
    return lambda value, headers: local.plain(read(value, headers))


def _unframed(value: bytes) -> bytes:
    if value[:1] != b"\0" or len(value) <= local.FRAME_BYTES:
        raise EventError("no Schema Registry record: it does not begin with the magic byte 0")
    return value[local.FRAME_BYTES :]


def _json(value: bytes, max_bytes: int) -> Any:
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        plain = unpacked(value, max_bytes)
        if plain is None:
            raise EventError(f"no JSON: {error}") from None
    try:
        return _decode(plain)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"no JSON: {error}") from None


def _encoded(record: Any) -> bytes:
    """JSON of what a reader gave: decimals as numbers, times as RFC 3339, bytes as base64."""
    try:
        return _encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EventError(f"the record is no JSON: {error}") from None
