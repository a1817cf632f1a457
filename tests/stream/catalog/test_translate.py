"""Tables are read as the shop keeps them, by ingest and by the recount alike."""

from __future__ import annotations

import json
from typing import Any

import pytest

from freshet.stream.catalog.records import usable
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.translate import Told, Translator
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.schemas import CatalogEntry, InventoryLevel, Promotion
from freshet.stream.verify.tables_map import TableReading

FIELDS: dict[str, dict[str, Any]] = {
    "catalog": {
        "sku": "id",
        "category": ["kind", "group.name"],
        "unit_price": {"path": "price", "number": "1.299,00"},
        "launched_at": {"path": "since", "time": "date", "zone": "Europe/Berlin"},
        "attributes.colour": "options[0]",
    },
    "promotions": {
        "promotion_id": {"join": ["campaign", "id"]},
        "starts_at": {"path": "from", "time": "s"},
        "ends_at": {"path": "to", "time": "s"},
        "discount": {"path": "percent", "scale": 0.01},
        "sku": "product",
    },
    "inventory": {
        "on_hand": {"path": "stock", "minus": "reserved"},
        "as_of": {"timestamp": True},
        "region": {"header": "store"},
    },
}
SETTINGS = Settings.model_validate(
    {
        "events": {
            "catalog": {"fields": FIELDS["catalog"], "skip_when": {"draft": True}},
            "promotions": {"fields": FIELDS["promotions"]},
            "inventory": {"fields": FIELDS["inventory"]},
        }
    }
)
ITEM = {
    "id": 4711,
    "group": {"name": "cups"},
    "price": "1.012,50",
    "since": "2026-03-01",
    "options": ["blue"],
    "attributes": {"size": 3, "parts": [1]},
}
SALE = {"campaign": "spring", "id": 7, "from": 1_000, "to": 2_000, "percent": 25, "product": 4711}
STOCK = {"sku": "a", "stock": 12, "reserved": "2"}


def read(table: Any, record: Any, settings: Settings = SETTINGS, **more: Any) -> Any:
    """The record that is used, after the recount has read the same."""
    value = json.dumps(record).encode()
    told = Translator(settings).read(table, b"k", value, 5_000, **more)
    again = TableReading(table, settings).told(b"k", value, 5_000, more.get("headers", ()))
    if told is None:
        assert again is None
        return None
    assert again is not None and told.value is not None
    assert json.loads(again.value or b"") == json.loads(told.value)
    return usable(table, told.value)


def test_a_catalogue_is_read_by_its_map() -> None:
    assert read("catalog", ITEM) == CatalogEntry(
        sku="4711",
        category="cups",
        unit_price=1_012.5,
        launched_at=1_772_319_600_000,  # Midnight in Berlin is 23:00 of the day before.
        attributes={"size": "3", "colour": "blue"},
    )
    assert read("catalog", ITEM | {"draft": True}) is None


def test_promotions_are_read_by_their_map() -> None:
    assert read("promotions", SALE) == Promotion(
        promotion_id="spring:7", starts_at=1_000_000, ends_at=2_000_000, discount=0.25, sku="4711"
    )


def test_stock_is_read_by_its_map_with_headers_and_kafkas_time() -> None:
    level = read("inventory", STOCK, headers=[("store", b"north")])
    assert level == InventoryLevel(sku="a", on_hand=10, as_of=5_000, region="north")


def test_what_is_ours_already_is_not_touched() -> None:
    translator = Translator(Settings())
    for table in ("catalog", "promotions", "inventory", "covariates"):
        assert translator.read(table, b"k", b" no json", 0) == Told(b"k", b" no json")  # type: ignore[arg-type]
    assert Translator(SETTINGS).read("catalog", b"k", None, 0) == Told(b"k", None)


@pytest.mark.parametrize("value", [b"no json", b"[]", json.dumps(ITEM | {"price": "x"}).encode()])
def test_what_cannot_be_read_is_refused_and_the_recount_says_nothing_of_it(value: bytes) -> None:
    with pytest.raises(EventError):
        Translator(SETTINGS).read("catalog", b"k", value, 0)
    told = TableReading("catalog", SETTINGS).told(b"k", value, 0, ())
    assert told is not None and told.value == b"!"


def test_a_table_from_debezium_is_deleted_by_a_deleted_row() -> None:
    fields = {"sku": "id", "unit_price": "price"}
    settings = Settings.model_validate(
        {"events": {"catalog": {"envelope": "debezium", "fields": fields}}}
    )
    key = b'{"schema": {}, "payload": {"id": 1}}'
    row = {"id": 1, "price": "3.5"}
    changes = [{"op": "c", "ts_ms": 1, "after": row}, {"op": "d", "ts_ms": 2, "before": row}]
    values = [*(json.dumps(change).encode() for change in changes), None, b'{"op": "t"}']
    translator, reading = Translator(settings), TableReading("catalog", settings)
    told = [translator.read("catalog", key, value, 0) for value in values]
    assert told == [
        Told(b'{"id":1}', b'{"sku":"1","unit_price":3.5}'),
        *[Told(b'{"id":1}', None)] * 2,
        None,
    ]
    again = [reading.told(key, value, 0, ()) for value in values]
    assert [one and one.value for one in again] == [
        *(b'{"sku": "1", "unit_price": 3.5}', None, None, None)
    ]
    assert again[3] is None


def test_whoever_reads_the_topics_themselves_reads_them_so() -> None:
    shop = ShopTables.of(SETTINGS)
    shop.tell("catalog", b"k", json.dumps(ITEM).encode(), 5_000)
    shop.tell("catalog", b"l", json.dumps(ITEM | {"id": 1, "draft": True}).encode(), 5_000)
    assert shop.skus() == ["4711"]
    shop.tell("catalog", b"k", None, 6_000)
    assert shop.skus() == []
