"""What a format refuses or skips is so in the columns, and gzip or a mark costs nothing else."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest

from freshet.stream.config import Settings
from freshet.stream.events.formats.decoding import FormatDecoder

ORDER = {"event_id": "e", "event_time": 5_000, "sku": "a", "region": "n"}
GOOD = json.dumps({**ORDER, "quantity": 2, "unit_price": 1.5}).encode()
STAMPS = np.zeros(9, np.int64)


def decoder(**orders: Any) -> FormatDecoder:
    return FormatDecoder("orders", Settings.model_validate({"events": {"orders": orders}}))


def test_gzip_and_a_byte_order_mark_are_read_without_a_setting() -> None:
    values = [GOOD, gzip.compress(GOOD), b"\xef\xbb\xbf" + GOOD, b"{", b"\0\0\0\0\x11\x02a", None]
    decoded, _ = decoder().decode(values, [None] * 6, STAMPS[:6])
    assert decoded.index.tolist() == [0, 1, 2]
    assert decoded.quantity.tolist() == [2, 2, 2]
    said = {bad.index: (bad.error_class, bad.message) for bad in decoded.refusals}
    assert said[4] == (
        "Undecodable",
        "a Schema Registry record (magic byte 0, schema id 17): "
        'set events.orders.format = "avro", or "protobuf"',
    )
    assert sorted(said) == [3, 4, 5]


def test_what_the_format_says_of_a_record_stands() -> None:
    change = {"op": "c", "ts_ms": 1, "after": json.loads(GOOD)}
    values = [json.dumps(change).encode(), None, b"{}", b"no", json.dumps({"op": "t"}).encode()]
    decoded, keys = decoder(envelope="debezium").decode(
        values, [b'{"schema": 1, "payload": {"id": 1}}', *[b"k"] * 4], STAMPS[:5]
    )
    assert decoded.index.tolist() == [0]
    assert [(one.index, one.reason) for one in decoded.skipped] == [
        (1, "tombstone"),
        (4, "truncate"),
    ]
    assert [(bad.index, bad.message[:12]) for bad in decoded.refusals] == [
        (2, "no Debezium "),
        (3, "no JSON: Inp"),
    ]
    assert keys[0] == b'{"id":1}'


def test_a_map_that_needs_nothing_makes_no_event_of_what_was_refused() -> None:
    constant = {name: {"value": value} for name, value in ORDER.items()}
    made = decoder(
        envelope="cloudevents",
        fields={**constant, "quantity": {"value": 1}, "unit_price": {"value": 1}},
    )
    good = b'{"specversion": "1.0", "data": {}}'
    decoded, _ = made.decode([b"{}", good], [None, None], STAMPS[:2])
    assert decoded.index.tolist() == [1]
    assert [bad.index for bad in decoded.refusals] == [0]


def test_headers_of_a_binary_cloudevent_are_fields() -> None:
    headers = {1: [("ce_specversion", "1.0"), ("ce_id", b"e7")]}
    made = decoder(envelope="cloudevents", fields={"event_id": "cloudevent.id"})
    decoded, _ = made.decode([b"{}", GOOD], [None, None], STAMPS[:2], headers)
    assert decoded.index.tolist() == [1]


ALONE = [("null beside it", {"id": "7", "price": None}), ("nothing beside it", {"id": "7"})]


@pytest.mark.parametrize("before", [row for _, row in ALONE], ids=[name for name, _ in ALONE])
@pytest.mark.parametrize("key", [b'{"id": "7"}', b"7", None])
def test_a_delete_that_has_its_key_alone_says_what_to_set(
    before: dict[str, Any], key: bytes | None
) -> None:
    fields = {"order_id": "id", "event_time": "created_at"}
    states = decoder(envelope="debezium", mode="state", fields=fields)
    change = {"op": "d", "ts_ms": 5_000, "before": before, "after": None, "source": {"lsn": 9}}
    decoded, _ = states.decode([json.dumps(change).encode()], [key], STAMPS[:1])
    (bad,) = decoded.refusals
    assert bad.message.startswith("the field 'event_time' is missing")
    assert "REPLICA IDENTITY FULL" in bad.message


def test_a_whole_row_that_lacks_a_field_is_no_fault_of_postgres() -> None:
    fields = {"order_id": "id", "event_time": "created_at"}
    states = decoder(envelope="debezium", mode="state", fields=fields)
    row = {"id": "7", "price": 2.5}
    for change in ({"op": "d", "before": row}, {"op": "u", "after": {"id": "7"}}):
        value = json.dumps({"ts_ms": 5_000, "source": {"lsn": 9}, **change}).encode()
        decoded, _ = states.decode([value], [b'{"id": "7"}'], STAMPS[:1])
        assert "REPLICA" not in decoded.refusals[0].message
