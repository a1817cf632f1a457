"""Records of every format become JSON; bytes on the wire are written out by hand."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, timestamp_pb2

from freshet.stream.config import FormatSettings, KafkaSettings, RegistrySettings
from freshet.stream.errors import ConfigError, SchemaRegistryAwayError
from freshet.stream.events.formats.opening import Opened, Opener, opener_of
from tests.stream.events.formats.fake_registry import FakeRegistry, serving

AVRO = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "sku", "type": "string"},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "note", "type": ["null", "string"]},
    ],
}
# 5; "a"; 1234 in two bytes; 1,000 ms; null.
AVRO_BYTES = bytes.fromhex("0a 02 61 04 04d2 d00f 00")
AVRO_JSON = {"id": 5, "sku": "a", "price": 12.34, "at": "1970-01-01T00:00:01Z", "note": None}
# id = 5; at = 1 s; sku = "a"; kind = WEB; field 5 (price) is not on the wire.
PROTO_BYTES = bytes.fromhex("0805 12020801 1a0161 3001")
PROTO_JSON = {"id": 5, "at": "1970-01-01T00:00:01Z", "sku": "a", "price": 0, "kind": "WEB"}
FRAME_17 = b"\0\0\0\0\x11"


def proto_file() -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="o.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    file.message_type.add(name="Other")
    order = file.message_type.add(name="Order")
    web = file.enum_type.add(name="Kind")
    web.value.add(name="NONE", number=0)
    web.value.add(name="WEB", number=1)
    fields: list[tuple[str, int, int, str]] = [
        ("id", 1, kinds.TYPE_INT64, ""),
        ("at", 2, kinds.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
        ("sku", 3, kinds.TYPE_STRING, ""),
        ("region", 4, kinds.TYPE_STRING, ""),
        ("price", 5, kinds.TYPE_DOUBLE, ""),
        ("kind", 6, kinds.TYPE_ENUM, ".shop.Kind"),
    ]
    for name, number, kind, of in fields:
        order.field.add(name=name, number=number, type=kind, label=1, type_name=of or None)
    return file


@pytest.fixture(scope="module")
def served() -> Iterator[FakeRegistry]:
    with serving(FakeRegistry()) as registry:
        registry.add(17, "AVRO", json.dumps(AVRO))
        registry.add(18, "PROTOBUF", "", serialized=proto_file().SerializeToString())
        schema = {"type": "object", "properties": {"id": {"type": "integer"}}}
        registry.add(19, "JSON", json.dumps(schema))
        key = {"type": "record", "name": "K", "fields": [{"name": "id", "type": "long"}]}
        registry.add(20, "AVRO", json.dumps(key))
        yield registry


@pytest.fixture
def registry(served: Any) -> Any:
    served.status = 200
    served.asked.clear()
    return served


def opener(at: Any = None, /, *, of_table: bool = False, **form: Any) -> Opener:
    kafka = KafkaSettings(registry=RegistrySettings(url=at.url if at else ""))
    made = opener_of(FormatSettings(**form), kafka, of_table=of_table)
    assert made is not None
    return made


def opened(made: Opener, *values: bytes | None, keys: Any = None, headers: Any = ()) -> Opened:
    return made.open(list(values), keys or [None] * len(values), [headers] * len(values))


def records(found: Opened) -> list[Any]:
    """What each record is; an empty object where it was refused or skipped."""
    return [
        None if value is None else json.loads(value) if n not in gone else {}
        for gone in [found.refused.keys() | found.skipped.keys()]
        for n, value in enumerate(found.values)
    ]


def test_plain_json_needs_no_opening() -> None:
    assert opener_of(FormatSettings(), KafkaSettings()) is None


def test_avro_of_a_registry_is_read_and_its_schema_asked_for_once(registry: Any) -> None:
    found = opened(opener(registry, format="avro"), *[FRAME_17 + AVRO_BYTES] * 3, None)
    assert records(found) == [AVRO_JSON, AVRO_JSON, AVRO_JSON, None]
    assert not found.refused
    assert registry.asked == ["/schemas/ids/17"]


def test_a_schema_id_in_a_header_is_read_too(registry: Any) -> None:
    headers = [("__value_schema_id", FRAME_17)]
    found = opened(opener(registry, format="avro"), AVRO_BYTES, headers=headers)
    assert records(found) == [AVRO_JSON]


def test_an_unknown_schema_is_refused_and_asked_for_once(registry: Any) -> None:
    found = opened(opener(registry, format="avro"), *[b"\0\0\0\1\0" + AVRO_BYTES] * 3)
    assert found.refused[0] == ("Undecodable", "the Schema Registry has no schema 256")
    assert sorted(found.refused) == [0, 1, 2]
    assert registry.asked == ["/schemas/ids/256"]


def test_bytes_that_are_no_such_record_are_refused_alone(registry: Any) -> None:
    values = [FRAME_17 + AVRO_BYTES[:4], b"{}", FRAME_17 + AVRO_BYTES, b"", b"\0"]
    found = opened(opener(registry, format="avro"), *values)
    assert sorted(found.refused) == [0, 1, 4]
    assert found.values[3] == b""
    assert json.loads(found.values[2] or b"") == AVRO_JSON


@pytest.mark.parametrize("status", [401, 500, 503])
def test_a_registry_that_refuses_is_waited_for(registry: Any, status: int) -> None:
    made = opener(registry, format="avro")
    registry.status = status
    with pytest.raises(SchemaRegistryAwayError, match="does not answer"):
        opened(made, FRAME_17 + AVRO_BYTES)
    registry.status = 200
    assert records(opened(made, FRAME_17 + AVRO_BYTES)) == [AVRO_JSON]
    registry.status = 503  # What is known needs nobody.
    assert records(opened(made, FRAME_17 + AVRO_BYTES)) == [AVRO_JSON]


def test_a_registry_that_is_not_there_is_waited_for() -> None:
    kafka = KafkaSettings(registry=RegistrySettings(url="http://127.0.0.1:9"))
    made = opener_of(FormatSettings(format="avro"), kafka)
    assert made is not None
    with pytest.raises(SchemaRegistryAwayError, match="ConnectError"):
        opened(made, FRAME_17 + AVRO_BYTES)


def test_an_avro_key_becomes_json_and_a_text_stays(registry: Any) -> None:
    values = [FRAME_17 + AVRO_BYTES] * 3
    keys = [b"\0\0\0\0\x14\x0a", b"5", None]
    found = opened(opener(registry, format="avro"), *values, keys=keys)
    assert found.keys == [b'{"id":5}', b"5", None]


def test_protobuf_is_read_by_the_message_that_its_writer_used(registry: Any) -> None:
    made = opener(registry, format="protobuf")
    # The frame's list of indexes: one of them, the second message (both zigzag).
    found = opened(made, *[b"\0\0\0\0\x12\x02\x02" + PROTO_BYTES] * 2)
    assert records(found) == [PROTO_JSON] * 2
    assert not found.refused
    assert registry.asked == ["/schemas/ids/18?format=serialized"]


def test_json_schema_is_checked(registry: Any) -> None:
    frame = b"\0\0\0\0\x13"
    made = opener(registry, format="json_schema")
    found = opened(made, frame + b'{"id": 5}', frame + b'{"id": "5"}', frame + b"{")
    assert records(found)[0] == {"id": 5}
    assert sorted(found.refused) == [1, 2]
    assert "'5' is not of type 'integer'" in found.refused[1][1]


# Files instead of a registry ----------------------------------------------------------------------


def test_avro_by_a_file_reads_bare_records_and_refuses_what_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "order.avsc"
    path.write_text(json.dumps(AVRO))
    found = opened(opener(format="avro", schema_file=str(path)), AVRO_BYTES, AVRO_BYTES + b"x")
    assert records(found)[0] == AVRO_JSON
    assert "ends at byte 9" in found.refused[1][1]


def test_avro_by_a_file_reads_framed_records_without_a_registry(tmp_path: Path) -> None:
    path = tmp_path / "order.avsc"
    path.write_text(json.dumps(AVRO))
    made = opener(format="avro", schema_file=str(path), registry=True)
    found = opened(made, FRAME_17 + AVRO_BYTES, AVRO_BYTES)
    assert records(found)[0] == AVRO_JSON
    assert "magic byte" in found.refused[1][1]


def test_a_file_beside_a_registry_is_the_readers_schema(registry: Any, tmp_path: Path) -> None:
    fields = [AVRO["fields"][0], {"name": "shop", "type": "string", "default": "s"}]
    path = tmp_path / "order.avsc"
    path.write_text(json.dumps({**AVRO, "fields": fields}))
    made = opener(registry, format="avro", schema_file=str(path), registry=True)
    assert records(opened(made, FRAME_17 + AVRO_BYTES)) == [{"id": 5, "shop": "s"}]


@pytest.mark.parametrize("framed", [False, True])
def test_protobuf_by_a_descriptor_set(tmp_path: Path, framed: bool) -> None:
    timestamp = descriptor_pb2.FileDescriptorProto.FromString(
        timestamp_pb2.DESCRIPTOR.serialized_pb
    )
    files = descriptor_pb2.FileDescriptorSet(file=[timestamp, proto_file()])
    path = tmp_path / "order.desc"
    path.write_bytes(files.SerializeToString())
    made = opener(format="protobuf", schema_file=str(path), message="shop.Order", registry=framed)
    frame = b"\0\0\0\0\x12\x02\x02" if framed else b""
    found = opened(made, frame + PROTO_BYTES, frame + b"\x08")
    assert records(found)[0] == PROTO_JSON
    assert sorted(found.refused) == [1]


@pytest.mark.parametrize("framed", [False, True])
def test_json_schema_by_a_file(tmp_path: Path, framed: bool) -> None:
    path = tmp_path / "order.json"
    path.write_text(json.dumps({"required": ["id"]}))
    made = opener(format="json_schema", schema_file=str(path), registry=framed)
    frame = FRAME_17 if framed else b""
    found = opened(made, frame + b'{"id": 5}', frame + b"{}", frame + b"{")
    assert records(found)[0] == {"id": 5}
    assert sorted(found.refused) == [1, 2]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"format": "avro"}, "no registry to ask"),
        ({"format": "avro", "registry": False}, "need a schema"),
        ({"format": "avro", "schema_file": "/no/file"}, "cannot be read"),
        ({"format": "protobuf", "schema_file": "/no/file"}, "cannot be read"),
        ({"format": "protobuf", "schema_file": __file__}, "has no message"),
        ({"format": "avro", "schema_file": __file__}, "no Avro schema"),
        ({"format": "json_schema", "schema_file": __file__}, "no JSON Schema"),
    ],
)
def test_settings_that_cannot_work_are_said_at_the_start(form: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        opener_of(FormatSettings(**form), KafkaSettings())


# Envelopes ----------------------------------------------------------------------------------------


def change(op: str, **row: Any) -> bytes:
    where = "before" if op == "d" else "after"
    return json.dumps({"op": op, "ts_ms": 1_000, where: row}).encode()


def test_debezium_is_opened_and_tombstones_are_skipped() -> None:
    made = opener(envelope="debezium", decimals={"price": 2})
    values = [change("c", id=1, price="BNI="), None, change("t"), b"{}", b"no json"]
    keys = [b'{"schema": {}, "payload": {"id": 1}}', b'{"id": 1}', b"1", None, b"{"]
    found = opened(made, *values, keys=keys)
    beside = {"op": "c", "deleted": False, "ts_ms": 1_000, "version": 1_000, "source": {}}
    assert records(found)[0] == {"debezium": beside, "id": 1, "price": 12.34}
    assert found.values[0] is not None and b'"price":12.34' in found.values[0]
    assert found.skipped == {1: "tombstone", 2: "truncate"}
    assert sorted(found.refused) == [3, 4]
    assert found.keys == [b'{"id":1}', b'{"id":1}', b"1", None, b"{"]


def test_a_deleted_row_of_a_table_is_a_tombstone() -> None:
    made = opener(envelope="debezium", of_table=True)
    by_key = json.dumps({"op": "d", "ts_ms": 1_000, "before": None, "after": None}).encode()
    found = opened(made, change("d", sku="a"), None, by_key, change("u", sku="a"))
    assert found.values[:3] == [None, None, None]
    assert records(found)[3]["sku"] == "a"
    assert not found.skipped and not found.refused


def test_debezium_in_avro_of_a_registry(registry: Any) -> None:
    row = {"type": "record", "name": "Row", "fields": AVRO["fields"]}
    schema = {
        "type": "record",
        "name": "Envelope",
        "fields": [
            {"name": "after", "type": ["null", row]},
            {"name": "op", "type": "string"},
        ],
    }
    registry.add(30, "AVRO", json.dumps(schema))
    found = opened(
        opener(registry, format="avro", envelope="debezium"),
        b"\0\0\0\0\x1e\x02" + AVRO_BYTES + b"\x02c",
    )
    beside = {"op": "c", "deleted": False, "ts_ms": None, "version": None, "source": {}}
    assert records(found) == [{"debezium": beside, **AVRO_JSON}]


def test_cloudevents_packed_with_gzip_are_opened() -> None:
    event = b'{"specversion":"1.0","id":"e","data":{"sku":"a"}}'
    found = opened(opener(envelope="cloudevents"), event, gzip.compress(event), b'{"sku":"a"}')
    expected = {"cloudevent": {"specversion": "1.0", "id": "e"}, "sku": "a"}
    assert records(found)[:2] == [expected, expected]
    assert "specversion" in found.refused[2][1]


def test_a_value_that_is_too_large_is_refused_before_it_is_read() -> None:
    kafka = KafkaSettings(max_record_bytes=50)
    made = opener_of(FormatSettings(envelope="cloudevents"), kafka)
    assert made is not None
    found = opened(made, b'{"a": "' + b"x" * 50 + b'"}')
    assert "expected at most 50" in found.refused[0][1]


def test_base64_in_these_tests_is_right() -> None:
    assert base64.b64decode("BNI=") == (1_234).to_bytes(2, "big")
