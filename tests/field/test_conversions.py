"""Every conversion of the map, one by one; all values were worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xxhash

from freshet.stream.config import EventSettings
from freshet.stream.errors import ConfigError
from freshet.stream.events.columns import Decoded
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.schemas import CHANNELS

T = 1_700_000_000_000  # 2023-11-14T22:13:20Z
ORDER = {"event_id": "e", "event_time": T, "sku": "a", "quantity": 1, "unit_price": 2}
NOON = 1_769_860_800_000  # 2026-01-31T12:00:00Z
HOUR = 3_600_000


def decoded(record: Any, fields: dict[str, Any], **over: Any) -> Decoded:
    """One order and its twin in one batch, with a key and a header, by a map of its own."""
    options = {"series_by": ["sku"], "orders": {"fields": fields}} | over
    value = record if isinstance(record, bytes) else json.dumps(record).encode()
    decoder = EventDecoder("orders", EventSettings(**options))
    headers = {0: [("id", b"h0"), ("id", b"h1")], 1: [("id", b"h0"), ("id", b"h1")]}
    key = b'{"payload": {"id": 7}}'
    return decoder.decode([value] * 2, [key] * 2, np.array([T + 5] * 2), headers)


def found(field: str, rule: Any, raw: Any, **over: Any) -> Any:
    """What one raw value at `x` becomes; where it is refused, the error's class and text."""
    record = {name: value for name, value in ORDER.items() if name != field} | {"x": raw}
    columns = decoded(record, {field: rule}, **over)
    if columns.refusals:
        assert [refusal.index for refusal in columns.refusals] == [0, 1]
        return columns.refusals[0].error_class, columns.refusals[0].message
    values = {
        "sku": columns.line_item,
        "quantity": columns.quantity.tolist(),
        "unit_price": columns.unit_price.tolist(),
        "event_time": columns.event_time_ms.tolist(),
    }[field]
    assert values[0] == values[1]
    return values[0]


TEXTS: list[tuple[Any, Any, Any]] = [
    ("x", "a", "a"),
    ("x", "", "MissingField"),
    ("x", " \t\u00a0", "MissingField"),
    ("x", " a ", " a "),
    ("x", 450789469, "450789469"),
    ("x", -3, "-3"),
    ("x", 5.0, "5"),
    ("x", 2**60, "1152921504606846976"),
    ("x", 5.5, "InvalidField"),
    ("x", 1e300, "InvalidField"),
    ("x", True, "InvalidField"),
    ("x", [1], "InvalidField"),
    ("x", {"a": 1}, "InvalidField"),
    ("x", None, "MissingField"),
    ("x.y", {"y": "b"}, "b"),
    ("x.y", [], "MissingField"),
    ("x.y", "text", "MissingField"),
    ("x.y.z", {"y": None}, "MissingField"),
    ("x[0].y", [{"y": 1}, {"y": 2}], "1"),
    ("x[-1].y", [{"y": 1}, {"y": 2}], "2"),
    ("x[2].y", [{"y": 1}, {"y": 2}], "MissingField"),
    ("x[0][1]", [["a", "b"]], "b"),
    (r"x.a\.b", {"a.b": "dot"}, "dot"),
    (["x.a", "x.b"], {"b": 2}, "2"),
    (["x.a", "x.b"], {"a": None, "b": 2}, "2"),
    (["x.a", "x.b"], {"a": "", "b": 2}, "2"),
    (["x.a", "x.b"], {"a": " ", "b": "\n"}, "MissingField"),
    (["x.a", "x.b"], {"a": 1, "b": 2}, "1"),
    ({"path": "x", "default": "none"}, None, "none"),
    ({"path": "x", "default": 7}, None, "7"),
    ({"path": "x", "default": 7}, "", "7"),
    ({"path": "x", "words": {"": "empty", "*": "other"}}, "", "MissingField"),
    ({"join": ["x.a", "x.b"]}, {"a": 1, "b": ""}, "MissingField"),
    ({"path": "x", "default": "none"}, [1], "InvalidField"),
    ({"value": "web"}, 1, "web"),
    ({"value": 3}, 1, "3"),
    ({"header": "id"}, 1, "h1"),
    ({"header": "other", "default": "d"}, 1, "d"),
    ({"header": "other"}, 1, "MissingField"),
    ({"key": True}, 1, '{"payload": {"id": 7}}'),
    ({"key": "payload.id"}, 1, "7"),
    ({"key": "payload.no"}, 1, "MissingField"),
    ({"jmespath": "x[?main].id | [0]"}, [{"id": 1}, {"id": 2, "main": True}], "2"),
    ({"jmespath": "x[?main].id | [0]"}, [], "MissingField"),
    ({"join": ["x.a", "x.b"]}, {"a": 1, "b": "z"}, "1:z"),
    ({"join": ["x.a", {"value": "k"}], "by": "-"}, {"a": 1}, "1-k"),
    ({"join": ["x.a", ["x.c", "x.b"]]}, {"a": 1, "b": 2}, "1:2"),
    ({"join": ["x.a", "x.b"]}, {"a": 1}, "MissingField"),
    ({"path": "x", "words": {"S": "small", "*": "other"}}, "S", "small"),
    ({"path": "x", "words": {"S": "small", "*": "other"}}, "M", "other"),
    ({"path": "x", "words": {"S": "small", "1": "one"}}, 1, "one"),
    ({"path": "x", "words": {"true": "yes"}}, True, "yes"),
    ({"path": "x", "words": {"S": "small"}}, "M", "InvalidField"),
    ({"path": "x", "words": {"S": "small"}, "default": "d"}, None, "d"),
]
NUMBERS: list[tuple[Any, Any, Any]] = [
    ("x", 3, 3.0),
    ("x", 2.5, 2.5),
    ("x", "12.50", 12.5),
    ("x", "+3", 3.0),
    ("x", " 7 ", 7.0),
    ("x", ".5", 0.5),
    ("x", "5.", 5.0),
    ("x", "1.5e2", 150.0),
    ("x", "1e999", "InvalidField"),
    ("x", "1,5", "InvalidField"),
    ("x", "1_000", "InvalidField"),
    ("x", "nan", "InvalidField"),
    ("x", "", "MissingField"),
    ("x", "  ", "MissingField"),
    ({"path": "x", "default": 4}, "", 4.0),
    ({"path": "x.a", "minus": "x.b"}, {"a": 5, "b": ""}, 5.0),
    ({"path": ["x.a", "x.b"], "words": {"*": 8}}, {"a": "", "b": ""}, "MissingField"),
    ("x", True, "InvalidField"),
    ("x", [], "InvalidField"),
    ("x", None, "MissingField"),
    ({"path": "x", "number": "1.299,00"}, "1.299,50", 1299.5),
    ({"path": "x", "number": "1.299,00"}, "1.234.567,8", 1234567.8),
    ({"path": "x", "number": "1.299,00"}, "12,5", 12.5),
    ({"path": "x", "number": "1.299,00"}, "1.29", "InvalidField"),
    ({"path": "x", "number": "1.299,00"}, 12.5, 12.5),
    ({"path": "x", "number": "1,299.00"}, "1,299.50", 1299.5),
    ({"path": "x", "number": "1,299.00"}, "12,34,567.5", 1234567.5),
    ({"path": "x", "number": "1,299.00"}, "1,29", "InvalidField"),
    ({"path": "x", "number": "12,5"}, "1299,5", 1299.5),
    ({"path": "x", "number": "12,5"}, "1299.5", "InvalidField"),
    ({"path": "x", "number": "1 299,00"}, "1\u202f299,50", 1299.5),
    ({"path": "x", "number": "1'299.00"}, "1’299.50", 1299.5),
    ({"path": "x", "number": "€ 1,50"}, "12,50 EUR", 12.5),
    ({"path": "x", "number": "€ 1,50"}, "12,50", 12.5),
    ({"path": "x", "number": "$1,299.00"}, "$1,299.50", 1299.5),
    ({"path": "x", "number": "1 299,00 kr", "sign": -1}, "\u2212 1\u00a0299,50 kr", 1299.5),
    ({"path": "x", "number": "1 299,00", "sign": -1}, "\u22121 299,50", 1299.5),
    ({"path": "x", "number": "$1,299.00"}, "($1,299.50)", "InvalidField"),
    ({"path": "x", "number": "$1,299.00"}, "$(1,299.50)", "InvalidField"),
    ({"path": "x", "scale": 0.01}, 1999, 1999 * 0.01),
    ({"path": "x", "scale": 0.01}, "1999", 1999 * 0.01),
    ({"path": "x.a", "minus": "x.b"}, {"a": 5, "b": 2}, 3.0),
    ({"path": "x.a", "minus": ["x.b", "x.c"]}, {"a": "5", "b": "1", "c": 1.5}, 2.5),
    ({"path": "x.a", "minus": ["x.b", "x.c"]}, {"a": 5, "c": None}, 5.0),
    ({"path": "x.a", "minus": "x.b"}, {"a": 5, "b": "few"}, "InvalidField"),
    ({"path": "x.a", "minus": "x.b", "scale": 0.1}, {"a": 5, "b": 2}, 3 * 0.1),
    ({"path": "x", "default": 4}, None, 4.0),
    ({"path": "x", "default": 4, "scale": 0.5}, None, 4.0),
    ({"path": "x", "default": 4}, "four", "InvalidField"),
    ({"path": "x", "words": {"two": 2, "*": "9"}}, "two", 2.0),
    ({"path": "x", "words": {"two": 2, "*": "9"}}, "many", 9.0),
    ({"path": "x", "words": {"two": 2}}, "3", 3.0),
    ({"value": 6}, None, 6.0),
    ({"path": "x.sum", "per": "x.n"}, {"sum": "25.50", "n": 3}, 8.5),
    ({"path": "x.sum", "per": ["x.m", "x.n"], "scale": 2}, {"sum": 9, "n": "3"}, 6.0),
    ({"path": "x.sum", "per": "x.n", "minus": "x.off"}, {"sum": 9, "off": 3, "n": 3}, 2.0),
    ({"path": "x.sum", "per": "x.n"}, {"sum": 9, "n": 0}, "MissingField"),
    ({"path": "x.sum", "per": "x.n"}, {"sum": 9}, "MissingField"),
    ({"path": "x.sum", "per": "x.n", "default": 4}, {"sum": 9}, 4.0),
    ({"path": "x.sum", "per": "x.n"}, {"sum": 9, "n": "few"}, "InvalidField"),
    ({"path": "x.a", "otherwise": "x.b"}, {"a": 1, "b": 2}, 1.0),
    ({"path": "x.a", "otherwise": "x.b"}, {"a": "", "b": 2}, 2.0),
    ({"path": "x.a", "otherwise": "x.b"}, {"a": "one", "b": 2}, "InvalidField"),
    ({"path": "x.a", "otherwise": "x.b"}, {"a": 1, "b": "two"}, 1.0),
    ({"path": "x.a", "otherwise": "x.b"}, {"b": "two"}, "InvalidField"),
    ({"path": "x.a", "otherwise": "x.b"}, {"c": 1}, "MissingField"),
    ({"path": "x.a", "otherwise": "x.b", "default": 4}, {"c": 1}, 4.0),
    ({"path": "x.a", "otherwise": {"path": "x.sum", "per": "x.n"}}, {"sum": 9, "n": 2}, 4.5),
]
SIGN = {"path": "x.type", "words": {"refund": -1, "*": 1}}
SIGNED: list[tuple[Any, Any, Any]] = [
    ({"path": "x", "sign": -1}, 3, -3.0),
    ({"path": "x", "sign": -1}, -3, 3.0),
    ({"path": "x.n", "sign": SIGN}, {"n": 3, "type": "refund"}, -3.0),
    ({"path": "x.n", "sign": SIGN}, {"n": 3, "type": "sale"}, 3.0),
    ({"path": "x.n", "sign": SIGN | {"default": 1}}, {"n": 3}, 3.0),
    ({"path": "x.n", "sign": "x.s"}, {"n": 3, "s": -1}, -3.0),
    ({"path": "x.n", "sign": "x.s"}, {"n": 3, "s": 2}, "InvalidField"),
    ({"path": "x.n", "sign": "x.s"}, {"n": 3, "s": "minus"}, "InvalidField"),
]
TIMES: list[tuple[Any, Any, Any]] = [
    ("x", T, T),
    ("x", str(T), T),
    ("x", T + 0.75, T),
    ("x", f"{T}.5", T),
    ("x", "2023-11-14T22:13:20Z", T),
    ("x", "2023-11-14T23:13:20.123456+01:00", T + 123),
    ("x", "2023-11-14 22:13:20+0000", T),
    ("x", "2023-11-14 22:13:20+00", T),
    ("x", "2023-11-14 23:43:20.5+01:30", T + 500),
    ("x", "2023-11-14T23:43:20.5+0130", T + 500),
    ("x", "2023-11-14", "InvalidTime"),
    ("x", f"/Date({T})/", T),
    ("x", f"/Date({T}+0100)/", T),
    ("x", "/Date(-5)/", "InvalidTime"),
    ({"path": "x", "time": "rfc3339"}, f"/Date({T})/", T),
    ({"path": "x", "time": "s"}, f"/Date({T})/", "InvalidTime"),
    ("x", "2023-11-14T22:13:20", "InvalidTime"),
    ("x", "yesterday", "InvalidTime"),
    ("x", -1, "InvalidTime"),
    ("x", 10**30, "InvalidTime"),
    ("x", True, "InvalidField"),
    ("x", "", "MissingField"),
    ({"path": "x", "default": T}, " ", T),
    ("x", None, "MissingField"),
    ({"path": "x", "time": "s"}, 1_700_000_000, T),
    ({"path": "x", "time": "s"}, "1700000000", T),
    ({"path": "x", "time": "s"}, 1_700_000_000.125, T + 125),
    ({"path": "x", "time": "s"}, "1700000000.123", T + 123),
    ({"path": "x", "time": "ms"}, T, T),
    ({"path": "x", "time": "us"}, T * 1_000 + 999, T),
    ({"path": "x", "time": "us"}, str(T * 1_000), T),
    ({"path": "x", "time": "ns"}, T * 1_000_000 + 999_999, T),
    ({"path": "x", "time": "s"}, "2023-11-14T22:13:20Z", "InvalidTime"),
    ({"path": "x", "time": "rfc3339"}, "2023-11-14T22:13:20Z", T),
    ({"path": "x", "time": "rfc3339"}, T, "InvalidTime"),
    ({"path": "x", "zone": "UTC"}, "2023-11-14T22:13:20", T),
    ({"path": "x", "zone": "Europe/Berlin"}, "2026-01-31 13:00:00", NOON),
    ({"path": "x", "zone": "Europe/Berlin"}, "2026-01-31T12:00:00Z", NOON),
    ({"path": "x", "zone": "Europe/Berlin"}, "2025-10-26T02:30:00", 1_761_438_600_000),
    ({"path": "x", "time": "date", "zone": "UTC"}, "2026-01-31", NOON - 12 * HOUR),
    (
        {"path": "x", "time": "date", "zone": "Europe/Berlin"},
        "2026-01-31",
        NOON - 13 * HOUR,
    ),
    ({"path": "x", "time": "date", "zone": "UTC"}, "2026-02-30", "InvalidTime"),
    ({"path": "x", "time": "date", "zone": "UTC"}, "2026-01-31T00:00:00Z", "InvalidTime"),
    ({"path": "x", "time": "%d.%m.%Y %H:%M", "zone": "UTC"}, "31.01.2026 12:00", NOON),
    ({"path": "x", "time": "%d/%b/%Y:%H:%M:%S %z"}, "31/Jan/2026:13:00:00 +0100", NOON),
    ({"path": "x", "time": "%d.%m.%Y %H:%M", "zone": "UTC"}, "2026-01-31", "InvalidTime"),
    ({"path": "x", "default": T}, None, T),
    ({"path": "x", "default": "2026-01-31T12:00:00Z"}, None, NOON),
    ({"path": "x", "default": T}, "soon", "InvalidTime"),
    ({"timestamp": True}, None, T + 5),
    ({"header": "id"}, None, "InvalidTime"),
]
CASES = [
    *(("sku", *case) for case in TEXTS),
    *(("quantity", *case) for case in NUMBERS + SIGNED),
    *(("unit_price", *case) for case in NUMBERS),
    *(("event_time", *case) for case in TIMES),
]


@pytest.mark.parametrize(("field", "rule", "raw", "expected"), CASES)
def test_a_raw_value_becomes(field: str, rule: Any, raw: Any, expected: Any) -> None:
    result = found(field, rule, raw)
    if isinstance(result, tuple):
        result = result[0]
    assert result == expected


@pytest.mark.parametrize(("rule", "raw", "expected"), [*TEXTS, *NUMBERS, *SIGNED])
def test_a_raw_value_in_a_line_becomes_the_same(rule: Any, raw: Any, expected: Any) -> None:
    field = "sku" if (rule, raw, expected) in TEXTS else "quantity"
    line = {"sku": "a", "quantity": 1, "unit_price": 2}
    del line[field]
    good = {"sku": "z", "quantity": 1, "unit_price": 2, "keep": 1}
    order = {"event_id": "e", "event_time": T, "lines": [line | {"x": raw}, good]}
    columns = decoded(order, {f"lines.{field}": rule})
    if isinstance(expected, str) and expected.endswith("Field"):
        assert expected in {bad.error_class for bad in [*columns.line_refusals, *columns.refusals]}
    else:
        values: list[Any] = columns.line_item if field == "sku" else columns.quantity.tolist()
        assert values[0] == expected


def test_an_event_id_is_made_of_several_fields() -> None:
    columns = decoded(ORDER | {"n": 5}, {"event_id": {"join": ["sku", "n"], "by": "/"}})
    assert columns.event_hash.tolist() == [xxhash.xxh3_64_intdigest(b"a/5")] * 2


@pytest.mark.parametrize(
    ("rule", "record", "expected"),
    [
        ({"path": "p", "currency": "c"}, {"p": 10, "c": "USD"}, 9.0),
        ({"path": "p", "currency": "c"}, {"p": 10, "c": " usd "}, 9.0),
        ({"path": "p", "currency": ["c", "d"], "scale": 0.01}, {"p": 1000, "d": "EUR"}, 10.0),
        ({"path": "p", "currency": "c"}, {"p": 10, "c": "XYZ"}, "InvalidField"),
        ({"path": "p", "currency": "c"}, {"p": 10, "c": 5}, "InvalidField"),
        ({"path": "p", "currency": "c"}, {"p": 10}, "MissingField"),
        ({"path": "p", "currency": "c", "default": 3}, {}, 3.0),
    ],
)
def test_amounts_of_other_currencies_become_the_shop_s_own(
    rule: Any, record: Any, expected: Any
) -> None:
    columns = decoded(ORDER | record, {"unit_price": rule}, rates={"usd": 0.9, "EUR": 1.0})
    if isinstance(expected, str):
        assert columns.refusals[0].error_class == expected
    else:
        assert columns.unit_price.tolist() == [expected] * 2


def test_lines_may_be_json_inside_a_text() -> None:
    line = {"sku": "a", "quantity": 2, "unit_price": 3}
    for lines, names in (([line], ["a"]), ([line, {"sku": "b"}], ["a"])):
        columns = decoded({"event_id": "e", "event_time": T, "lines": json.dumps(lines)}, {})
        assert columns.line_item == names * 2
        assert len(columns.line_refusals) == 2 * (len(lines) - 1)
    for text in ("none", '{"sku": "a"}', "7", ""):
        refused = decoded({"event_id": "e", "event_time": T, "lines": text}, {}).refusals
        assert refused[0].message == "the field 'lines' is text, expected an array"


def clicked(*records: Any, **fields: Any) -> Decoded:
    events = EventSettings(clicks={"fields": fields})
    usual = {"event_id": "e", "event_time": T, "kind": "cart", "region": "n"}
    values = [json.dumps(usual | record).encode() for record in records]
    return EventDecoder("clicks", events).decode(values, [None] * len(values))


def test_a_click_counts_for_each_of_its_items_where_the_map_names_them() -> None:
    two = {"sku": "z", "kind": "view", "items": [{"id": "a"}, {"id": 7, "region": "s"}]}
    columns = clicked({"sku": "x"}, two, lines="items", **{"lines.sku": "id"})
    assert columns.line_item == ["x|n", "a|n", "7|s"]
    assert columns.line_record.tolist() == [0, 1, 1]
    assert [CHANNELS[channel] for channel in columns.channel] == ["carts", "views", "views"]
    assert clicked(two).line_item == ["z|n"]


def test_a_bad_item_of_a_click_is_one_dead_line() -> None:
    items = [{"id": "a"}, {"id": None}, 5]
    columns = clicked({"items": items}, lines="items", **{"lines.sku": "id"})
    assert columns.line_item == ["a|n"]
    assert [(bad.line, bad.error_class) for bad in columns.line_refusals] == [
        (1, "MissingField"),
        (2, "InvalidField"),
    ]
    for none in ([], [{"id": None}], "a", {}):
        assert len(clicked({"items": none}, lines="items", **{"lines.sku": "id"}).refusals) == 1
    told = clicked({"items": []}, lines="items").refusals[0].message
    assert told == "the click has no lines"


def test_a_region_that_nobody_maps_is_told_with_the_way_out() -> None:
    events = EventSettings(orders={"fields": {}})
    record = {"event_id": "e", "event_time": T, "sku": "a", "quantity": 1, "unit_price": 1}
    (bad,) = EventDecoder("orders", events).decode([json.dumps(record).encode()], [None]).refusals
    assert bad.message.endswith('; a shop without regions sets events.series_by = ["sku"]')


def test_an_option_of_what_stands_otherwise_is_checked_too() -> None:
    rule = {"path": "a", "otherwise": {"path": "b", "time": "s"}}
    with pytest.raises(ConfigError, match=r"lines\.unit_price has the option 'time'"):
        decoded(ORDER, {"lines.unit_price": rule})


def test_currency_and_sign_of_a_line_may_stand_in_its_order() -> None:
    fields = {
        "lines.unit_price": {"path": "p", "currency": "cur"},
        "lines.quantity": {"path": "n", "sign": SIGN | {"path": "type"}},
    }
    lines = [{"sku": "a", "p": 10, "n": 2}, {"sku": "b", "p": 10, "n": 1, "cur": "EUR"}]
    order = {"event_id": "e", "event_time": T, "cur": "USD", "type": "refund", "lines": lines}
    columns = decoded(order, fields, rates={"USD": 0.9, "EUR": 1})
    assert columns.unit_price.tolist() == [9.0, 10.0] * 2
    assert columns.quantity.tolist() == [-2.0, -1.0] * 2


def test_times_without_a_zone_are_of_the_zone_that_is_declared_for_all() -> None:
    assert found("event_time", "x", "2026-01-31 13:00:00", time_zone="Europe/Berlin") == NOON
    assert found("event_time", "x", 1_700_000_000, time_unit="s") == T
    assert found("event_time", "x", T * 1_000_000, time_unit="ns") == T


@pytest.mark.parametrize(
    ("over", "record", "reason"),
    [
        ({"keep_when": {"a": "x"}}, {"a": "x"}, None),
        ({"keep_when": {"a": "x"}}, {"a": "y"}, "keep_when"),
        ({"keep_when": {"a": "x"}}, {}, "keep_when"),
        ({"keep_when": {"a": ["x", 1]}}, {"a": 1}, None),
        ({"keep_when": {"a": ["x", 1]}}, {"a": 1.0}, None),
        ({"keep_when": {"a": ["x", 1]}}, {"a": "1"}, "keep_when"),
        ({"keep_when": {"a": 1}}, {"a": True}, "keep_when"),
        ({"keep_when": {"a": True}}, {"a": 1}, "keep_when"),
        ({"keep_when": {"a": True, "b.c": "z"}}, {"a": True, "b": {"c": "z"}}, None),
        ({"keep_when": {"a": True, "b.c": "z"}}, {"a": True, "b": []}, "keep_when"),
        ({"keep_when": {"a": "*"}}, {"a": 0}, None),
        ({"keep_when": {"a": "*"}}, {"a": None}, "keep_when"),
        ({"keep_when": {"a": False}}, {"a": None}, None),
        ({"keep_when": {"a": False}}, {}, None),
        ({"keep_when": {"a": False}}, {"a": False}, None),
        ({"keep_when": {"a": False}}, {"a": 0}, "keep_when"),
        ({"keep_when": {"a": "x"}}, {"a": ["x"]}, "keep_when"),
        ({"keep_when": "a == 'x' && b > `1`"}, {"a": "x", "b": 2}, None),
        ({"keep_when": "a == 'x' && b > `1`"}, {"a": "x", "b": 1}, "keep_when"),
        ({"keep_when": "length(a) > `1`"}, {"a": 5}, "keep_when"),
        ({"skip_when": {"test": True}}, {"test": True}, "skip_when"),
        ({"skip_when": {"test": True}}, {"test": "true"}, None),
        ({"skip_when": {"a": "x", "b": "y"}}, {"b": "y"}, "skip_when"),
        ({"skip_when": {"a": "x"}, "keep_when": {"a": "y"}}, {"a": "x"}, "skip_when"),
        ({"skip_when": {"a": "x"}, "keep_when": {"a": "y"}}, {"a": "z"}, "keep_when"),
        ({"skip_when": {"a": "x"}, "keep_when": {"a": "y"}}, {"a": "y"}, None),
        ({"skip_when": "!event_id"}, {"event_id": None}, "skip_when"),
    ],
)
def test_a_record_is_skipped(over: dict[str, Any], record: Any, reason: str | None) -> None:
    columns = decoded(ORDER | record, {}, orders=over)
    expected = [] if reason is None else [(0, reason), (1, reason)]
    assert [(one.index, one.reason) for one in columns.skipped] == expected
    assert columns.index.tolist() == ([0, 1] if reason is None else [])
    assert columns.refusals == []


STATE = {"order_id": 5, "version": 3, "event_time": T, "lines": []}


def state(record: Any, fields: dict[str, Any] | None = None, **over: Any) -> Decoded:
    """Versions of an order, all in one batch, with their timestamps a second after T."""
    orders = {"mode": "state", "fields": fields or {}} | over
    decoder = EventDecoder("orders", EventSettings(series_by=("sku",), orders=orders))
    return decoder.decode([json.dumps(record).encode()], [b"5"], np.array([T + 1_000]))


@pytest.mark.parametrize(
    ("rule", "raw", "version", "changed_ms"),
    [
        ("x", 7, 7, T + 1_000),
        ("x", "7", 7, T + 1_000),
        ("x", -7.0, -7, T + 1_000),
        ("x", 2**62 - 1, 2**62 - 1, T + 1_000),
        ("x", "2026-01-31T12:00:00.5Z", NOON + 500, NOON + 500),
        ({"path": "x", "time": "s"}, 1_700_000_000, T, T),
        ({"path": "x", "time": "ms"}, T, T, T),
        ({"path": "x", "time": "us"}, T * 1_000 + 7, T * 1_000 + 7, T),
        ({"path": "x", "time": "ns"}, str(T * 1_000_000 + 7), T * 1_000_000 + 7, T),
        ({"path": "x", "zone": "UTC"}, "2026-01-31 12:00:00", NOON, NOON),
        ({"timestamp": True}, None, T + 1_000, T + 1_000),
        ("x", 7.5, "InvalidField", 0),
        ("x", 2**62, "InvalidField", 0),
        ("x", True, "InvalidField", 0),
        ("x", "newest", "InvalidField", 0),
        ("x", None, "MissingField", 0),
    ],
)
def test_a_version_is_a_number_or_a_time(
    rule: Any, raw: Any, version: Any, changed_ms: int
) -> None:
    columns = state(STATE | {"x": raw}, {"version": rule})
    if isinstance(version, str):
        assert columns.refusals[0].error_class == version
        return
    assert columns.states is not None
    assert columns.states.version.tolist() == [version]
    assert columns.event_time_ms.tolist() == [changed_ms]
    assert columns.states.created_ms.tolist() == [T]
    assert columns.states.order_hash.tolist() == [xxhash.xxh3_64_intdigest(b"5")]


@pytest.mark.parametrize(
    ("raw", "cancelled"),
    [
        *((raw, False) for raw in (None, False, 0, 0.0, "", "false")),
        *((raw, True) for raw in (True, 1, "2026-01-31", "no", [], {})),
    ],
)
@pytest.mark.parametrize("field", ["cancelled", "deleted"])
def test_an_order_is_cancelled_by(field: str, raw: Any, cancelled: bool) -> None:
    broken = STATE | {"x": raw, "lines": [{"sku": "a", "quantity": "?"}]}
    for record in (STATE | {"x": raw}, broken) if cancelled else (STATE | {"x": raw},):
        columns = state(record, {field: "x"})
        assert columns.states is not None and columns.states.cancelled.tolist() == [cancelled]
        assert columns.line_item == []


def test_words_say_which_states_give_an_order_back() -> None:
    rule = {"path": "status", "words": {"cancelled": True, "refunded": True, "*": False}}
    for status, cancelled in (("cancelled", True), ("refunded", True), ("paid", False)):
        columns = state(STATE | {"status": status}, {"cancelled": rule})
        assert columns.states is not None and columns.states.cancelled.tolist() == [cancelled]


def test_a_state_holds_what_is_left_of_each_line_and_no_line_too_few() -> None:
    lines = [
        {"sku": "a", "quantity": 0, "unit_price": 1},
        {"sku": 9, "quantity": 2, "unit_price": 1},
    ]
    columns = state(STATE | {"lines": lines, "changed_at": T + 9})
    assert columns.line_item == ["a", "9"]
    assert columns.quantity.tolist() == [0.0, 2.0]
    assert columns.event_time_ms.tolist() == [T + 9]
    for bad in ({"quantity": -1}, {"quantity": None}, {"sku": None}):
        refused = state(STATE | {"lines": [lines[1], lines[1] | bad]})
        assert len(refused.refusals) == 1 and refused.line_refusals == []
    assert state(dict(STATE, lines=None)).refusals[0].error_class == "MissingField"


def test_an_envelope_brings_its_rules_along() -> None:
    mark = {"version": 17, "deleted": False, "ts_ms": T + 5}
    record = {"order_id": 5, "event_time": T, "lines": [], "debezium": mark}
    columns = state(record, envelope="debezium")
    assert columns.states is not None and columns.states.version.tolist() == [17]
    assert columns.event_time_ms.tolist() == [T + 5]
    own = state(record | {"v": 2}, {"version": "v"}, envelope="debezium")
    assert own.states is not None and own.states.version.tolist() == [2]
    gone = state(record | {"debezium": mark | {"deleted": True}}, envelope="debezium")
    assert gone.states is not None and gone.states.cancelled.tolist() == [True]


def test_skipping_comes_before_all_but_json() -> None:
    over = {"skip_when": {"page": True}, "tombstones": "skip"}
    decoder = EventDecoder("orders", EventSettings(series_by=("sku",), orders=over))
    good, page = json.dumps(ORDER).encode(), b'{"page": true, "quantity": [], "event_time": {}}'
    values = [page, b'{"page": true', None, b"[1]", good, page + b" " * 100, b'{"page": false}']
    columns = decoder.decode(values, [None] * 5 + [b"k" * 257, None])
    assert [(one.index, one.reason) for one in columns.skipped] == [
        (0, "skip_when"),
        (2, "tombstone"),
    ]
    classes = [(bad.index, bad.error_class) for bad in columns.refusals]
    assert classes == [
        (1, "Undecodable"),
        (3, "InvalidField"),
        (5, "OversizedKey"),
        (6, "MissingField"),
    ]
    assert columns.index.tolist() == [4]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"skuu": "x"}, "did you mean 'sku'"),
        ({"version": "v"}, 'events.orders.mode = "state"'),
        ({"sku": "a..b"}, "names joined by dots"),
        ({"sku": "a[b]"}, "names joined by dots"),
        ({"sku": "[0]"}, "names joined by dots"),
        ({"quantity": {"path": "q", "number": "many"}}, "which is no number"),
        ({"quantity": {"path": "q", "number": "1.299"}}, "show both signs"),
        ({"quantity": {"path": "q", "time": "s"}}, "has the option 'time'"),
        ({"quantity": {"path": "q", "default": "few"}}, "no number"),
        ({"sku": {"path": "q", "scale": 2}}, "has the option 'scale'"),
        ({"event_time": {"path": "t", "time": "hours"}}, "known are s, ms"),
        ({"event_time": {"path": "t", "time": "date"}}, "names no zone"),
        ({"event_time": {"path": "t", "time": "%d.%m.%Y"}}, "names no zone"),
        ({"event_time": {"path": "t", "time": "%H %Z", "zone": "Asia/Tokyo"}}, "by names"),
        ({"event_time": {"path": "t", "default": "soon"}}, "RFC 3339"),
        ({"unit_price": {"path": "p", "currency": "c"}}, "needs events.rates"),
        ({"sku": {"jmespath": "a["}}, "is no JMESPath"),
    ],
)
def test_a_map_that_cannot_be_is_refused_at_start(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        EventDecoder("orders", EventSettings(orders={"fields": fields}))
    assert text in str(error.value)
