"""Records as they came to JSON, once more: gzip, envelopes, and bytes that need a schema.

The registry's deserialisers and the formats' libraries are shared with ingest; nothing else is.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from freshet.stream.config import FormatSettings, RegistrySettings, Settings
from freshet.stream.errors import EventError
from freshet.stream.kafka.registry import deserialiser
from freshet.stream.verify.map import Headers, header
from freshet.stream.verify.values import BadRecordError

GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
DECIMAL = "org.apache.kafka.connect.data.Decimal"
JSON_TEXT = "io.debezium.data.Json"

Read = Callable[[bytes, Headers], Any]


class NothingToSayError(Exception):
    """A record of a change that says nothing of a row."""


def opened(
    form: FormatSettings,
    settings: Settings,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    *,
    of_table: bool = False,
) -> tuple[bytes | None, bytes | None]:
    """Key and value as JSON; of a table a row that was deleted is null.

    Raises:
        BadRecordError: It is not what its format says.
        NothingToSayError: A change that is none of a row.
        BrokerError: The registry is away.
    """
    limit = settings.kafka.max_record_bytes
    if value is not None and len(value) > limit:
        raise BadRecordError("the value is too large")
    if form.format == "json" and form.envelope == "none":
        return key, unpacked(value, limit) if value else value
    read = _reader(_Form.of(form), settings.kafka.registry, limit)
    key = _key(form, key, read)
    if value is None:
        if form.envelope == "debezium" and not of_table:
            raise NothingToSayError("tombstone")
        return key, None
    if not value:  # Nothing in any format: the end of a history.
        return key, value
    record = read(value, headers)
    if form.envelope == "debezium":
        change = _payload(record)
        if of_table and isinstance(change, dict) and change.get("op") == "d":
            return key, None
        record = _change(record, form.decimals)
    elif form.envelope == "cloudevents":
        record = _cloudevent(record, headers)
    return key, _encoded(record)


def unpacked(value: bytes, limit: int) -> bytes:
    """Without gzip and byte order mark."""
    if value.startswith(GZIP):
        value = _gunzipped(value, limit)
    return value.removeprefix(BYTE_ORDER_MARK)


def _gunzipped(value: bytes, limit: int) -> bytes:
    plain = bytearray()
    while value:
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            plain += stream.decompress(value, limit + 1 - len(plain))
        except zlib.error as error:
            raise BadRecordError(f"broken gzip: {error}") from None
        if len(plain) > limit or not stream.eof:
            raise BadRecordError("gzip that is too large or cut off")
        value = stream.unused_data
    return bytes(plain)


# Formats ------------------------------------------------------------------------------------------


class _Form(msgspec.Struct, frozen=True):
    """What of a section says how bytes are read."""

    format: str
    schema_file: str
    message: str
    framed: bool

    @classmethod
    def of(cls, form: FormatSettings) -> _Form:
        return cls(form.format, form.schema_file, form.message, form.framed)


@cache
def _reader(form: _Form, registry: RegistrySettings, limit: int) -> Read:
    """Reads a record's bytes as an object; made once, since it keeps schemas."""
    if form.format == "json":
        return lambda value, headers: _json(unpacked(value, limit))
    if form.framed and (registry.url or form.format == "protobuf"):
        kind = _message(form) if form.format == "protobuf" and form.schema_file else None
        schema = None
        if form.schema_file and form.format != "protobuf":
            schema = Path(form.schema_file).read_text("utf-8")
        return _refusing(deserialiser(form.format, registry, schema=schema, message=kind), form)
    local = {"avro": _avro, "json_schema": _json_schema, "protobuf": _protobuf}[form.format](form)
    return lambda value, headers: local(_bare(value) if form.framed else value)


def _refusing(read: Read, form: _Form) -> Read:
    def one(value: bytes, headers: Headers) -> Any:
        try:
            found = read(value, headers)
        except EventError as error:
            raise BadRecordError(str(error)) from None
        return _object(found) if form.format == "protobuf" else found

    return one


def _bare(value: bytes) -> bytes:
    if value[:1] != b"\0" or len(value) < 6:
        raise BadRecordError("no schema id")
    return value[5:]


def _avro(form: _Form) -> Callable[[bytes], Any]:
    import fastavro

    schema = fastavro.parse_schema(json.loads(Path(form.schema_file).read_text("utf-8")))

    def read(value: bytes) -> Any:
        stream = io.BytesIO(value)
        try:
            found = fastavro.schemaless_reader(stream, schema, None)
        except Exception as error:
            raise BadRecordError(f"no such Avro: {error}") from None
        if stream.read(1):
            raise BadRecordError("more than an Avro record")
        return found

    return read


def _json_schema(form: _Form) -> Callable[[bytes], Any]:
    import jsonschema

    schema = json.loads(Path(form.schema_file).read_text("utf-8"))

    def read(value: bytes) -> Any:
        record = _json(value)
        try:
            jsonschema.validate(record, schema)
        except jsonschema.ValidationError as error:
            raise BadRecordError(error.message) from None
        return record

    return read


def _protobuf(form: _Form) -> Callable[[bytes], Any]:
    kind = _message(form)

    def read(value: bytes) -> Any:
        from google.protobuf.message import DecodeError

        try:
            return _object(kind.FromString(value))
        except DecodeError as error:
            raise BadRecordError(f"no such Protobuf: {error}") from None

    return read


def _message(form: _Form) -> Any:
    from google.protobuf import descriptor_pb2, message_factory

    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(Path(form.schema_file).read_bytes())
    found = message_factory.GetMessages(files.file)
    last = files.file[-1]
    first = f"{last.package}.{last.message_type[0].name}".strip(".")
    return found[form.message or first]


def _object(message: Any) -> dict[str, Any]:
    """A message as plain values, by its schema's names; an empty text is nothing."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                inner = field.message_type.fields_by_name["value"]
                found[field.name] = {str(name): _plain(inner, value[name]) for name in value}
            else:
                found[field.name] = [_plain(field, one) for one in value]
        elif field.has_presence:
            if message.HasField(field.name) and value != "":
                found[field.name] = _plain(field, value)
        elif value != "":
            found[field.name] = _plain(field, value)
    return found


def _plain(field: Any, value: Any) -> Any:
    from google.protobuf import json_format

    if field.enum_type is not None:
        names = {one.number: one.name for one in field.enum_type.values}
        return names.get(value, value)
    if field.message_type is None:
        return value
    name = field.message_type.full_name
    if name.startswith("google.protobuf."):
        wrapper = name.endswith("Value") and name != "google.protobuf.Value"
        if wrapper and name != "google.protobuf.ListValue":
            return value.value
        return json_format.MessageToDict(value, preserving_proto_field_name=True)
    return _object(value)


def _json(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError) as error:
        raise BadRecordError(str(error)) from None


def _encoded(record: Any) -> bytes:
    try:
        return msgspec.json.Encoder(decimal_format="number").encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadRecordError(str(error)) from None


def _key(form: FormatSettings, key: bytes | None, read: Read) -> bytes | None:
    try:
        if key and form.format == "avro" and form.framed and not form.schema_file and key[0] == 0:
            return _encoded(read(key, ()))
        if key and form.envelope == "debezium" and key[:1] == b"{":
            return _encoded(_payload(_json(key)))
    except BadRecordError:
        return key
    return key


# Envelopes ----------------------------------------------------------------------------------------


def _cloudevent(record: Any, headers: Headers) -> Any:
    attributes: dict[str, Any] = {
        name[3:]: header(headers, name)
        for name, said in headers
        if name[:3] == "ce_" and said is not None
    }
    if "specversion" not in attributes:
        types = [said or b"" for name, said in headers if name.lower() == "content-type"]
        if types and types[0].startswith(b"application/cloudevents-batch"):
            raise BadRecordError("a batch of CloudEvents")
        if not isinstance(record, dict) or "specversion" not in record:
            raise BadRecordError("no CloudEvent")
        attributes = dict(record)
        packed, record = attributes.pop("data_base64", None), attributes.pop("data", None)
        if packed is not None:
            try:
                record = _json(base64.b64decode(packed, validate=True))
            except (ValueError, TypeError) as error:
                raise BadRecordError(str(error)) from None
    record = {} if record is None else record
    if not isinstance(record, dict):
        raise BadRecordError("a CloudEvent whose data is no object")
    return {"cloudevent": attributes, **record}


def _payload(record: Any) -> Any:
    wrapped = isinstance(record, dict) and sorted(record) == ["payload", "schema"]
    return record["payload"] if wrapped else record


def _change(record: Any, decimals: dict[str, int]) -> Any:
    change = _payload(record)
    if change is None:
        raise NothingToSayError("tombstone")
    if not isinstance(change, dict) or not isinstance(change.get("op"), str):
        raise BadRecordError("no change of Debezium's")
    if change["op"] in ("t", "m"):
        raise NothingToSayError("no change of a row")
    side = "before" if change["op"] == "d" else "after"
    row = change.get(side)
    row = _json(row.encode()) if isinstance(row, str) else row
    if not isinstance(row, dict):
        raise BadRecordError(f"no row in {side}")
    source = change.get("source")
    source = source if isinstance(source, dict) else {}
    at_ms = change.get("ts_ms") if source.get("ts_ms") is None else source["ts_ms"]
    told = {
        "op": change["op"],
        "deleted": change["op"] == "d",
        "ts_ms": at_ms,
        "version": _version(source, at_ms),
        "source": source,
    }
    types = {} if change is record else _column_types(record["schema"], side)
    columns = {name: _column(name, value, types.get(name), decimals) for name, value in row.items()}
    return {"debezium": told, **columns}


def _version(source: dict[str, Any], at_ms: Any) -> Any:
    if "lsn" in source:
        return source["lsn"] or 0
    if isinstance(source.get("file"), str) and isinstance(source.get("pos"), int):
        digits = source["file"].split(".")[-1]
        if digits.isascii() and digits.isdigit() and len(digits) <= 9:
            return int(digits) * 2**32 + source["pos"]
    return at_ms


def _column_types(schema: Any, side: str) -> dict[str, Any]:
    for part in (schema or {}).get("fields") or [] if isinstance(schema, dict) else []:
        if isinstance(part, dict) and part.get("field") == side:
            columns = part.get("fields") or []
            return {str(one.get("field")): one for one in columns if isinstance(one, dict)}
    return {}


def _column(name: str, value: Any, kind: Any, decimals: dict[str, int]) -> Any:
    if isinstance(value, dict) and sorted(value) == ["scale", "value"]:
        return _decimal(value["value"], value["scale"])
    if not isinstance(value, str):
        return value
    if kind is None:
        return _decimal(value, decimals[name]) if name in decimals else value
    if kind.get("name") == DECIMAL:
        return _decimal(value, (kind.get("parameters") or {}).get("scale"))
    return msgspec.Raw(value.encode()) if kind.get("name") == JSON_TEXT else value


def _decimal(value: Any, scale: Any) -> Decimal:
    try:
        raw = value if isinstance(value, bytes) else base64.b64decode(value, validate=True)
        return Decimal(f"{int.from_bytes(raw, 'big', signed=True)}E{-int(scale)}")
    except (ValueError, TypeError, ArithmeticError):
        raise BadRecordError("no decimal") from None
