"""Records of the shop's tables as our fields, by their maps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from freshet.stream.config import EventSettings
from freshet.stream.errors import ConfigError, EventError
from freshet.stream.events.map.tables import TableMap


def read(kind: Any, record: Any, **over: Any) -> dict[str, Any] | None:
    table = TableMap(kind, EventSettings(**{kind: over}))
    value = record if isinstance(record, bytes) else json.dumps(record).encode()
    return table.read(value, b"k1", 7, [("source", b"erp")])


def test_without_a_map_fields_have_our_names_and_kindness_holds() -> None:
    entry = {"sku": 5, "title": "T", "unit_price": "9.50", "attributes": {"size": 3}, "x": 1}
    expected = {"sku": "5", "title": "T", "unit_price": 9.5, "attributes": {"size": "3"}}
    assert read("catalog", entry) == expected
    level = {"sku": "a", "on_hand": "7", "as_of": "1970-01-01T00:00:01Z", "region": None}
    assert read("inventory", level) == {"sku": "a", "on_hand": 7.0, "as_of": 1_000}


def test_a_map_converts_and_composes() -> None:
    fields = {
        "sku": {"key": True},
        "brand": {"header": "source"},
        "unit_price": {"path": "price", "number": "1.299,00"},
        "attributes.color": "options[0].value",
        "launched_at": {"path": "on", "time": "date", "zone": "UTC"},
        "announced_at": {"timestamp": True},
    }
    record = {"price": "1.299,50", "options": [{"value": "red"}], "on": "1970-01-02"}
    assert read("catalog", record, fields=fields) == {
        "sku": "k1",
        "brand": "erp",
        "unit_price": 1299.5,
        "attributes": {"color": "red"},
        "launched_at": 86_400_000,
        "announced_at": 7,
    }
    sale = {"promotion_id": 1, "starts_at": 1, "ends_at": 2, "discount": "25"}
    fields = {"discount": {"path": "discount", "scale": 0.01}}
    assert read("promotions", sale, fields=fields) == sale | {"promotion_id": "1", "discount": 0.25}


def test_records_that_are_none_of_ours_are_skipped() -> None:
    assert read("catalog", {"status": "draft"}, skip_when={"status": "draft"}) is None
    assert read("catalog", {"sku": "a"}, keep_when={"live": True}) is None
    assert read("catalog", {"sku": "a", "live": True}, keep_when="live") == {"sku": "a"}


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b"{", "not JSON"),
        (b"[1]", "an array, expected an object"),
        ({"sku": True}, "expected text"),
        ({"unit_price": "much"}, "'much', expected a number"),
        ({"attributes": [1]}, "an array, expected an object"),
        ({"launched_at": "soon"}, "RFC 3339"),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_an_event_error(record: Any, text: str) -> None:
    with pytest.raises(EventError, match=text):
        read("catalog", record)


def test_a_map_names_fields_of_its_table() -> None:
    with pytest.raises(ConfigError, match="did you mean 'unit_price'"):
        TableMap("catalog", EventSettings(catalog={"fields": {"unit_prise": "p"}}))
