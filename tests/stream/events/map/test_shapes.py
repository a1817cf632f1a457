"""What a typed struct takes from a record is what a path finds in it when all of it is decoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.config import EventSettings
from freshet.stream.events.columns import Decoded
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.events.map.paths import dig, steps_of
from freshet.stream.events.map.shapes import Slots, plain_json

FIELDS = {
    "event_id": ["meta.id", "id"],
    "event_time": "meta.at",
    "region": ["ship.to.code", "bill[0].code", "bill[-1]"],
    "lines": "cart.rows",
    "lines.sku": ["p.code", "p"],
    "lines.quantity": {"path": "n", "minus": "back"},
    "lines.unit_price": "price[0]",
    "unit_price": {"path": "meta.price", "default": 1},
}
SCALARS = st.sampled_from([None, True, 0, 1, 2.5, -3, "a", "", "7", "1.5", "2026-03-01T10:00:00Z"])
NAMES = st.sampled_from(
    ["meta", "id", "at", "ship", "to", "code", "bill", "cart", "rows", "p", "n", "back", "price"]
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
GOOD: dict[str, Any] = {
    "meta": {"id": 7, "at": 1_772_355_600_000},
    "ship": {"to": {"code": "DE"}},
    "bill": [{"code": "FR"}],
    "cart": {"rows": [{"p": {"code": "a"}, "n": 2, "price": [9.5]}, {"p": "b", "n": "1"}]},
}


def put(record: Any, path: list[Any], value: Any) -> Any:
    """A copy of a record in which one place, or a new one, holds a value."""
    if not path:
        return value
    if isinstance(record, list) and isinstance(path[0], int) and path[0] < len(record):
        return [put(one, path[1:], value) if n == path[0] else one for n, one in enumerate(record)]
    own = record if isinstance(record, dict) else {}
    return {**own, str(path[0]): put(own.get(path[0]), path[1:], value)}


PLACES = st.sampled_from(
    [
        *(["meta"], ["meta", "id"], ["meta", "at"], ["id"], ["ship"], ["ship", "to"], ["bill"]),
        *(["bill", 0], ["cart"], ["cart", "rows"], ["cart", "rows", 0], ["cart", "rows", 1]),
        *(["cart", "rows", 0, "p"], ["cart", "rows", 0, "n"], ["cart", "rows", 1, "price"]),
        *(["quantity"], ["sku"], ["meta", "price"], ["ship", "to", "code"]),
    ]
)
CHANGES = st.lists(st.tuples(PLACES, ANY), max_size=3)


def everything(found: Decoded) -> dict[str, Any]:
    return {
        "index": found.index.tolist(),
        "hash": found.event_hash.tolist(),
        "time": found.event_time_ms.tolist(),
        "record": found.line_record.tolist(),
        "items": found.line_item,
        "quantity": found.quantity.tolist(),
        "price": found.unit_price.tolist(),
        "refusals": found.refusals,
        "lines": found.line_refusals,
        "skipped": found.skipped,
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=6))
def test_typed_and_loose_decoding_agree_on_any_record(logs: list[Any]) -> None:
    records = []
    for changes in logs:
        record = GOOD
        for path, value in changes:
            record = put(record, path, value)
        records.append(json.dumps(record).encode())
    typed = EventDecoder("orders", EventSettings(orders={"fields": FIELDS}))
    loose = EventDecoder("orders", EventSettings(orders={"fields": FIELDS, "skip_when": "nowhere"}))
    assert not typed._shape.loose and loose._shape.loose
    found, other = (one.decode(records, [None] * len(records)) for one in (typed, loose))
    assert everything(found) == everything(other)


def test_an_object_that_is_null_takes_nothing_else_of_its_line_along() -> None:
    fields = FIELDS | {"lines.sku": ["p.code", "code"], "lines.unit_price": "money"}
    lines = [{"p": None, "code": "x", "n": 2, "money": 3}, {"p": {"code": "y"}, "n": 1, "money": 4}]
    record = json.dumps(GOOD | {"cart": {"rows": lines}, "ship": None}).encode()
    decoder = EventDecoder("orders", EventSettings(orders={"fields": fields}))
    found = decoder.decode([record], [None])
    assert found.line_item == ["x|FR", "y|FR"]
    assert (found.quantity.tolist(), found.unit_price.tolist()) == ([2.0, 1.0], [3.0, 4.0])


@pytest.mark.parametrize(
    ("paths", "heads"),
    [
        (["a", "b"], [("a",), ("b",)]),
        (["a.b", "a.c"], [("a", "b"), ("a", "c")]),
        (["a.b.c", "a.b"], [("a", "b")]),
        (["a[0].b", "a.c"], [("a",)]),
        (["a.x[1]", "a.x[0].y", "b"], [("a", "x"), ("b",)]),
    ],
)
def test_a_struct_goes_as_deep_as_all_paths_agree(paths: list[str], heads: list[Any]) -> None:
    slots = Slots()
    for path in paths:
        slots.path(steps_of(path, ""))
    shape = slots.shape("Some")
    assert sorted(shape.heads) == sorted(heads)
    record = {"a": {"b": {"c": 1}, "c": 2, "x": [{"y": 3}, 4]}, "b": 5}
    row = shape.loose_row(record)
    for slot, path in enumerate(paths):
        place, rest = shape.of_slot[slot]
        assert dig(row[place], rest) == dig(record, steps_of(path, ""))


def test_numbers_beyond_a_float_are_infinite_where_nobody_asks_for_them() -> None:
    assert plain_json(b'{"a": 1e999, "b": 1' + b"0" * 400 + b"}") == {
        "a": float("inf"),
        "b": float("inf"),
    }
