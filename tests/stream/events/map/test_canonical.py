"""Maps that decide the same are one map; what decides nothing is no part of it."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.stream.config import EventSettings
from freshet.stream.events.map.canonical import canonical


def orders(**over: Any) -> dict[str, Any]:
    return canonical("orders", EventSettings(orders=over))


def test_the_defaults_add_nothing() -> None:
    assert canonical("orders", EventSettings()) == canonical("clicks", EventSettings()) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"sku": "sku"},
        {"sku": ["sku"]},
        {"sku": {"path": "sku"}},
        {"lines.sku": "sku", "lines": "lines"},
        {"sku": {"path": ["sku"], "words": {}, "by": ":"}},
        {"order_id": "id"},
    ],
)
def test_a_map_that_changes_nothing_adds_nothing(fields: dict[str, Any]) -> None:
    assert orders(fields=fields) == {}


def test_both_spellings_of_a_map_are_one() -> None:
    old = EventSettings(orders_fields={"sku": "a.b"})
    assert canonical("orders", old) == orders(fields={"sku": {"path": ["a.b"]}})
    assert canonical("orders", old) == {"events.orders.fields": {"sku": "a.b"}}
    assert canonical("clicks", old) == {}


def test_rules_are_what_they_say_besides_their_defaults() -> None:
    price = {"path": ["a", "b"], "number": "1.299,00", "scale": 1.0, "sign": -1, "minus": ["c"]}
    assert orders(fields={"unit_price": price})["events.orders.fields"] == {
        "unit_price": {"path": ["a", "b"], "number": ",.", "sign": -1, "minus": "c"}
    }
    joined = {"event_id": {"join": ["a", {"value": "x"}]}}
    assert orders(fields=joined)["events.orders.fields"] == {
        "event_id": {"join": ["a", {"value": "x"}]}
    }
    assert orders(fields={"unit_price": {"path": "p", "number": "9.999,9"}}) == orders(
        fields={"unit_price": {"path": "p", "number": "1.000,00"}}
    )


@pytest.mark.parametrize(
    ("over", "name", "value"),
    [
        ({"keep_when": {"a": ["b", 1]}}, "keep_when", {"a": ["b", 1]}),
        ({"skip_when": "a == 'b'"}, "skip_when", "a == 'b'"),
        ({"tombstones": "skip"}, "tombstones", "skip"),
        ({"bad_lines": "whole"}, "bad_lines", "whole"),
        ({"format": "avro"}, "format", "avro"),
        ({"mode": "state", "keep_ms": 5}, "keep_ms", 5),
        ({"keep_ms": 5}, "keep_ms", None),
        ({"schema_file": "a.avsc"}, "schema_file", None),
    ],
)
def test_what_else_decides_what_windows_hold_is_part_of_it(
    over: dict[str, Any], name: str, value: Any
) -> None:
    assert orders(**over).get(f"events.orders.{name}") == value


def test_rates_count_where_a_rule_asks_for_them() -> None:
    rates = {"usd": 0.9}
    plain = EventSettings(rates=rates)
    assert canonical("orders", plain) == {}
    asked = EventSettings(
        rates=rates, orders={"fields": {"unit_price": {"path": "p", "currency": "c"}}}
    )
    assert canonical("orders", asked)["events.rates"] == {"USD": 0.9}
    assert canonical("orders", EventSettings(time_zone="UTC")) == {"events.time_zone": "UTC"}


def test_that_clicks_have_lines_is_part_of_their_map() -> None:
    def clicks(**fields: Any) -> Any:
        return canonical("clicks", EventSettings(clicks={"fields": fields}))

    assert clicks(lines="lines") == {"events.clicks.fields": {"lines": "lines"}}
    assert clicks(lines="items", **{"lines.sku": "id"})["events.clicks.fields"] == {
        "lines": "items",
        "lines.sku": "id",
    }
    assert clicks(**{"lines.sku": "id"}) == {}


def test_what_stands_otherwise_is_part_of_a_map_and_so_are_its_rates() -> None:
    other = {"path": "b", "per": ["n"], "currency": "c"}
    found = canonical(
        "orders",
        EventSettings(
            rates={"eur": 2}, orders={"fields": {"unit_price": {"path": "a", "otherwise": other}}}
        ),
    )
    assert found == {
        "events.orders.fields": {
            "unit_price": {"path": "a", "otherwise": {"path": "b", "per": "n", "currency": "c"}}
        },
        "events.rates": {"EUR": 2.0},
    }
