"""History that ingest could not use is refused before any of it is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.source.first_records import checked
from freshet.stream.source.history import History, OldRecord, of_file

SHOPIFY: dict[str, Any] = {
    "mode": "state",
    "fields": {
        "order_id": "id",
        "version": "updated_at",
        "event_time": "created_at",
        "lines": "line_items",
        "lines.quantity": "current_quantity",
        "lines.unit_price": "price",
    },
}
ORDER = {
    "id": 7,
    "created_at": "2026-01-02T00:00:00Z",
    "updated_at": "2026-01-02T00:00:00Z",
    "line_items": [{"sku": "a", "current_quantity": 1, "price": "2.50"}],
}


def shop(**orders: Any) -> Settings:
    return Settings.model_validate({"events": {"series_by": ["sku"], "orders": orders}})


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_a_table_fits_any_map_but_states_need_to_know_which_rows_are_an_order(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("t,item,o\n2026-01-02T00:00:00Z,a,7\n2026-01-01T00:00:00Z,b,8\n")
    columns = {"event_time": "t", "sku": "item"}
    settings = shop(fields={"sku": "product.code", "event_id": "nr"}, keep_when={"type": "sale"})
    assert len(list(checked(settings, of_file(path, mapping=columns)).records)) == 2
    states = shop(**SHOPIFY)
    with pytest.raises(InvalidInputError, match=r"no column says which rows are one") as told:
        of_file(path, mapping=columns, events=states.events)
    assert "--map order_id=COLUMN" in str(told.value.hint)
    whole = of_file(path, mapping={**columns, "order_id": "o"}, events=states.events)
    assert [record.key for record in checked(states, whole).records] == [b"8", b"7"]


def test_orders_that_are_states_need_keys(tmp_path: Path) -> None:
    path = lines(tmp_path / "old.jsonl", ORDER)
    with pytest.raises(InvalidInputError, match="KeyMismatch"):
        checked(shop(**SHOPIFY), of_file(path))
    (record,) = checked(shop(**SHOPIFY), of_file(path, key="id")).records
    assert record.key == b"7"


def test_history_that_is_skipped_to_the_last_record_is_refused(tmp_path: Path) -> None:
    rule = {"event_name": ["purchase"]}
    with pytest.raises(InvalidInputError, match="1 times skipped by keep_when"):
        checked(shop(keep_when=rule), of_file(lines(tmp_path / "old.jsonl", ORDER)))


def test_one_record_that_can_be_used_is_enough(tmp_path: Path) -> None:
    path = lines(tmp_path / "old.jsonl", "junk", [1], ORDER, {"id": 8})
    found = checked(shop(**SHOPIFY), of_file(path, key="id"))
    assert [record.sequence for record in found.records] == [0, 1, 2, 3]


def test_clicks_that_cannot_be_used_are_not_hidden_by_orders_and_other_topics_are_let_be() -> None:
    order = b'{"event_id":"e","event_time":1,"sku":"a","quantity":1,"unit_price":1}'
    records = [OldRecord(0, "catalog", b"k", b"x"), OldRecord(1, "orders", None, order)]
    assert list(checked(shop(), History("f", records, 2)).records) == records
    with pytest.raises(InvalidInputError, match="first 1 clicks"):
        checked(shop(), History("f", [*records, OldRecord(2, "clicks", None, b"{}")], 3))


def test_times_of_sending_would_put_all_of_history_into_today(tmp_path: Path) -> None:
    numbered = {**SHOPIFY, "fields": {**SHOPIFY["fields"], "version": "number"}}
    path = lines(tmp_path / "old.jsonl", {**ORDER, "number": 1}, {**ORDER, "id": 8, "number": 1})
    with pytest.raises(InvalidInputError, match="of today") as told:
        checked(shop(**numbered), of_file(path, key="id"))
    assert "events.orders.fields.changed_at" in str(told.value.hint)
    numbered["fields"]["changed_at"] = "updated_at"
    assert len(list(checked(shop(**numbered), of_file(path, key="id")).records)) == 2
