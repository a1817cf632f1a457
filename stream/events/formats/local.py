"""Avro, JSON Schema and Protobuf by a schema file; Protobuf's messages as plain objects."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from freshet.stream.errors import ConfigError, EventError
from freshet.stream.kafka.registry import missing_extra

FRAME_BYTES: Final = 5
_WELL_KNOWN: Final = "google.protobuf."


def text_of(path: str) -> str:
    """A schema file's text.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the schema file {path} cannot be read: {error}") from None


def avro_reader(path: str) -> Callable[[bytes], Any]:
    """Reads one record's bytes by an Avro schema, and refuses what has more or fewer.

    Raises:
        ConfigError: The file is no Avro schema, or the library is not installed.
    """
    try:
        from fastavro import parse_schema, schemaless_reader
    except ImportError as error:
        raise missing_extra(error) from None
    try:
        schema = parse_schema(json.loads(text_of(path)))
    except ConfigError:
        raise
    except Exception as error:  # The library has a dozen for what may be wrong with a schema.
        raise ConfigError(f"the schema file {path} is no Avro schema: {error}") from None

    def read(value: bytes) -> Any:
        stream = io.BytesIO(value)
        try:
            record = schemaless_reader(stream, schema, None)
        except Exception as error:  # Of a record's bytes the library raises whatever it likes.
            raise EventError(f"no such Avro record: {type(error).__name__}: {error}") from None
        if stream.tell() != len(value):
            raise EventError(f"no such Avro record: it ends at byte {stream.tell()}")
        return record

    return read


def json_schema_reader(path: str) -> Callable[[bytes], Any]:
    """Reads JSON that keeps a JSON Schema.

    Raises:
        ConfigError: The file is no JSON Schema, or the library is not installed.
    """
    try:
        from jsonschema import SchemaError, ValidationError
        from jsonschema.validators import validator_for
    except ImportError as error:
        raise missing_extra(error) from None
    try:
        schema = json.loads(text_of(path))
        kind = validator_for(schema)
        kind.check_schema(schema)
        validate = kind(schema).validate
    except (ValueError, TypeError, SchemaError) as error:
        raise ConfigError(f"the schema file {path} is no JSON Schema: {error}") from None

    def read(value: bytes) -> Any:
        try:
            record = msgspec.json.decode(value)
            validate(record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EventError(f"no JSON: {error}") from None
        except ValidationError as error:
            raise EventError(f"against its JSON Schema: {error.message}") from None
        return record

    return read


def message_class(path: str, name: str) -> Any:
    """The class of a message in a descriptor set (`protoc --include_imports -o FILE`).

    Args:
        path: The file.
        name: The message's full name; empty is the first message of the last file.

    Raises:
        ConfigError: The file is no descriptor set, has no such message, or the library is not
            installed.
    """
    try:
        from google.protobuf.descriptor_pb2 import FileDescriptorSet
        from google.protobuf.descriptor_pool import DescriptorPool
        from google.protobuf.message_factory import GetMessageClass
    except ImportError as error:
        raise missing_extra(error) from None
    try:
        files = FileDescriptorSet.FromString(Path(path).read_bytes()).file
        pool = DescriptorPool()
        for file in files:
            pool.Add(file)
        last = files[-1]
        first = f"{last.package}.{last.message_type[0].name}".removeprefix(".")
        return GetMessageClass(pool.FindMessageTypeByName(name or first))
    except OSError as error:
        raise ConfigError(f"the schema file {path} cannot be read: {error}") from None
    except Exception as error:  # DecodeError, KeyError, TypeError, IndexError.
        hint = "protoc --include_imports --descriptor_set_out=FILE order.proto"
        reason = f"the schema file {path} has no message {name!r}: {error}"
        raise ConfigError(reason, hint=hint) from None


def protobuf_reader(kind: Any) -> Callable[[bytes], Any]:
    """Reads one record's bytes as a message."""
    from google.protobuf.message import DecodeError

    def read(value: bytes) -> Any:
        try:
            return kind.FromString(value)
        except DecodeError as error:
            raise EventError(f"no such Protobuf message: {error}") from None

    return read


def plain(message: Any) -> dict[str, Any]:
    """A Protobuf message as an object, with the names of its schema.

    A field without presence is there with its default, but for an empty text: nobody can say
    whether that was meant. Whole numbers stay numbers; times become RFC 3339.
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.is_repeated:
            found[field.name] = _several(field, value)
        elif value != "":
            found[field.name] = _single(field, value)
    return found


def _several(field: Any, values: Any) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name["value"]
        return {str(name): _single(entry, values[name]) for name in values}
    return [_single(field, value) for value in values]


def _single(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named else value
    if field.message_type is None:
        return value
    if field.message_type.full_name.startswith(_WELL_KNOWN):
        return _well_known(value)
    return plain(value)


def _well_known(message: Any) -> Any:
    """Timestamp, wrappers, Struct, ..., as Protobuf's own JSON has them."""
    from google.protobuf.json_format import MessageToDict

    if message.DESCRIPTOR.name.endswith("Value") and "value" in message.DESCRIPTOR.fields_by_name:
        return message.value  # A wrapper: MessageToDict would make text of a long one.
    return MessageToDict(message, preserving_proto_field_name=True)
