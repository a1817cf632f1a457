"""Debezium's envelopes become the row, with what happened to it beside it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from freshet.stream.errors import EventError
from freshet.stream.events.formats.debezium import SkippedError, opened, without_schema

ROW = {"id": 7, "sku": "a", "quantity": 2}


def envelope(op: str, **over: Any) -> dict[str, Any]:
    before = ROW if op in "ud" else None
    after = None if op == "d" else ROW
    source = {"connector": "postgresql", "lsn": 33_570_456, "ts_ms": 1_700_000_000_123}
    whole = {"before": before, "after": after, "source": source, "op": op, "ts_ms": 1_700_000_000_9}
    return {**whole, **over}


@pytest.mark.parametrize("op", ["c", "r", "u"])
def test_a_row_that_is_there_is_read_from_after(op: str) -> None:
    change = envelope(op, before={"id": 7, "sku": "old"})
    assert opened(change, {}) == {
        "debezium": {
            "op": op,
            "deleted": False,
            "ts_ms": 1_700_000_000_123,
            "version": 33_570_456,
            "source": change["source"],
        },
        **ROW,
    }


def test_a_deleted_row_is_read_from_before() -> None:
    found = opened(envelope("d"), {})
    assert found["debezium"]["deleted"] is True
    assert {name: found[name] for name in ROW} == ROW


@pytest.mark.parametrize(
    ("source", "version"),
    [
        ({"lsn": 5, "ts_ms": 900}, 5),
        ({"lsn": None, "ts_ms": 900}, 0),  # Less than every later one, and never a time.
        ({"file": "mysql-bin.000003", "pos": 154, "ts_ms": 900}, 3 * 2**32 + 154),
        ({"file": "mysql-bin.x", "pos": 154, "ts_ms": 900}, 900),
        ({"ts_ms": 900}, 900),
        ({}, 1_000),
        (None, 1_000),
    ],
)
def test_the_version_is_the_place_in_the_databases_log_or_else_the_time(
    source: Any, version: int
) -> None:
    found = opened(envelope("u", source=source, ts_ms=1_000), {})
    assert found["debezium"]["version"] == version


def test_what_says_nothing_of_a_row_is_skipped_with_the_reason() -> None:
    for record, reason in (
        (None, "tombstone"),
        ({"schema": None, "payload": None}, "tombstone"),
        (envelope("t"), "truncate"),
        (envelope("m"), "message"),
    ):
        with pytest.raises(SkippedError, match=reason):
            opened(record, {})


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"id": 7}, "'op' is missing"),
        ([1], "'op' is missing"),
        (envelope("c", after=None), "has no row"),
        (envelope("d", before=None), "REPLICA IDENTITY"),
        (envelope("c", after="{"), "'after' is no row"),
        (envelope("c", after={"price": "?", "id": 1}), "column 'price' is no decimal of scale 2"),
    ],
)
def test_what_is_no_change_of_a_row_is_refused_with_the_way_out(record: Any, said: str) -> None:
    with pytest.raises(EventError, match=said):
        opened(record, {"price": 2})


# 1234 is 0x04d2, -1234 is 0xfb2e; BNI= and +y4= in base64.
SCHEMA = {
    "type": "struct",
    "fields": [
        {
            "field": "after",
            "fields": [
                {"field": "id", "type": "int64"},
                {
                    "field": "price",
                    "type": "bytes",
                    "name": "org.apache.kafka.connect.data.Decimal",
                    "parameters": {"scale": "2", "connect.decimal.precision": "12"},
                },
                {"field": "lines", "type": "string", "name": "io.debezium.data.Json"},
                {"field": "note", "type": "string"},
            ],
        },
        {"field": "op", "type": "string"},
    ],
}


def test_with_a_schema_decimals_and_json_are_read_by_it() -> None:
    after = {"id": 7, "price": "BNI=", "lines": '[{"sku": "a"}]', "note": "BNI="}
    found = opened({"schema": SCHEMA, "payload": envelope("c", after=after)}, {})
    assert (found["price"], found["note"]) == (Decimal("12.34"), "BNI=")
    assert bytes(found["lines"]) == b'[{"sku": "a"}]'


def test_without_a_schema_decimals_are_read_where_the_settings_say_so() -> None:
    after = {"id": 7, "price": "+y4=", "tax": "12.50", "free": {"scale": 3, "value": "BNI="}}
    found = opened(envelope("c", after=after), {"price": 2})
    assert found["price"] == Decimal("-12.34")
    assert found["tax"] == "12.50"
    assert found["free"] == Decimal("1.234")


def test_a_decimal_of_many_digits_is_exact() -> None:
    long = "////////////////////////////////"  # 24 bytes of ones: -1.
    assert opened(envelope("c", after={"a": long}), {"a": 1})["a"] == Decimal("-0.1")
    long = "f" + long[1:]  # 0x7fff...: 2 ** 191 - 1, of 58 digits.
    assert opened(envelope("c", after={"a": long}), {"a": 0})["a"] == 2**191 - 1


def test_a_document_that_comes_as_text_is_read() -> None:
    assert opened(envelope("c", after='{"id": 7}'), {})["id"] == 7


def test_a_key_is_taken_out_of_its_schema() -> None:
    assert without_schema({"schema": {}, "payload": {"id": 7}})[1] == {"id": 7}
    assert without_schema({"id": 7})[1] == {"id": 7}
    assert without_schema({"payload": 1})[1] == {"payload": 1}
