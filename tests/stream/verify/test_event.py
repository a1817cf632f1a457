"""What the recount reads in a record, against numbers worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from freshet.stream.config import EventSettings, Settings
from freshet.stream.verify.event import BadRecordError, Event, Kind, Line, read_event

# 2026-03-01T00:00:00Z: 56 years, 14 leap days, a January and a February, so 20,513 days.
MARCH_MS = 1_772_323_200_000


def read(kind: Kind, event: dict[str, Any] | bytes, **events: Any) -> Event:
    value = event if isinstance(event, bytes) else json.dumps(event).encode()
    return read_event(kind, None, value, Settings(events=EventSettings(**events)))


def order(**over: Any) -> dict[str, Any]:
    event = {"event_id": "e", "event_time": 7, "sku": "a", "region": "n"}
    return event | {"quantity": 2, "unit_price": 9.99} | over


def line_of(quantity: float, unit_price: float) -> dict[str, int]:
    (line,) = read("orders", order(quantity=quantity, unit_price=unit_price)).lines
    return line.amounts


@pytest.mark.parametrize(
    ("quantity", "unit_price", "amounts"),
    [
        (2, 9.99, {"units": 2_000, "revenue": 199_800, "orders": 1}),
        (1, 0.5, {"units": 1_000, "revenue": 5_000, "orders": 1}),
        (1.9996, 1.00006, {"units": 2_000, "revenue": 20_002, "orders": 1}),
        (0.001, 0.05, {"units": 1, "revenue": 1, "orders": 1}),
        (0.001, 0.0499, {"units": 1, "orders": 1}),
        (0.0004, 5, {"orders": 1}),
        (3, 0, {"units": 3_000, "orders": 1}),
        (-3.25, 8, {"returns": 3_250}),
        (-0.0004, 8, {}),
        (1_000_000, 400_000, {"units": 10**9, "revenue": 4 * 10**15, "orders": 1}),
        (30, 15_499_000, {"units": 30_000, "revenue": 4_649_700_000_000, "orders": 1}),
        ("2", "9.99", {"units": 2_000, "revenue": 199_800, "orders": 1}),
        (-1_000_000, 0, {"returns": 10**9}),
    ],
)
def test_a_line_adds_thousandths_of_units_and_ten_thousandths_of_money(
    quantity: float, unit_price: float, amounts: dict[str, int]
) -> None:
    assert line_of(quantity, unit_price) == amounts


@pytest.mark.parametrize(
    "over",
    [
        {"quantity": 0},
        {"quantity": 1e12, "unit_price": 0},
        {"quantity": -1e12, "unit_price": 0},
        {"quantity": 1_000_000, "unit_price": 1_000_000},
        {"quantity": True},
        {"quantity": None},
        {"quantity": "two"},
        {"unit_price": -0.01},
        {"quantity": 0.001, "unit_price": 1e12},
        {"unit_price": None},
        {"event_id": None},
        {"event_id": 5.5},
        {"event_id": True},
        {"event_time": None},
        {"event_time": -0.5},
        {"event_time": -1},
        {"event_time": 253_402_300_800_000},
        {"sku": None},
        {"region": [1]},
        {"lines": []},
        {"lines": {}},
        {"lines": [5]},
    ],
)
def test_a_field_that_is_missing_mistyped_or_out_of_range_is_a_dead_letter(
    over: dict[str, Any],
) -> None:
    read("orders", order())
    with pytest.raises(BadRecordError):
        read("orders", order(**over))


@pytest.mark.parametrize(
    ("kind", "channel"),
    [
        ("view", "views"),
        ("cart", "carts"),
        ("favourite", "favourites"),
        ("checkout", "checkouts"),
    ],
)
def test_a_click_adds_one_to_the_channel_of_its_kind(kind: str, channel: str) -> None:
    click = {"event_id": "c", "event_time": 7, "sku": "a", "region": "n", "kind": kind}
    assert read("clicks", click) == Event("c", 7, [Line("a|n", {channel: 1})])


@pytest.mark.parametrize("kind", ["hover", "views", None, 1])
def test_a_click_of_no_known_kind_is_a_dead_letter(kind: object) -> None:
    click = {"event_id": "c", "event_time": 7, "sku": "a", "region": "n", "kind": kind}
    with pytest.raises(BadRecordError):
        read("clicks", click)


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2026-03-01T00:00:00Z", MARCH_MS),
        ("2026-03-01t00:00:00.1239z", MARCH_MS + 123),
        ("2026-03-01 00:00:00.5+00:00", MARCH_MS + 500),
        ("2026-03-01T00:00:00+01:30", MARCH_MS - 5_400_000),
        ("2026-03-01T00:00:00-0700", MARCH_MS + 25_200_000),
        ("2026-03-01T00:00:00+23:59", MARCH_MS - 86_340_000),
        ("1970-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
    ],
)
def test_a_time_is_read_to_the_millisecond_and_its_offset_is_taken_off(
    text: str, time_ms: int
) -> None:
    assert read("orders", order(event_time=text)).event_time_ms == time_ms


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T00:00:00",
        "2026-03-01T00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-03-01T24:00:00Z",
        "2026-03-01T00:00:00+24:00",
        "2026-03-01T00:00:00+01:60",
        "2026-03-01T00:00:00ZZ",
        "1970-01-01T00:00:00+00:01",
    ],
)
def test_what_is_no_time_is_a_dead_letter(text: str) -> None:
    with pytest.raises(BadRecordError):
        read("orders", order(event_time=text))


@pytest.mark.parametrize(("unit", "time_ms"), [("s", 7_000_000), ("ms", 7_000), ("us", 7)])
def test_a_number_is_a_time_in_the_configured_unit(unit: str, time_ms: int) -> None:
    assert read("orders", order(event_time=7_000), time_unit=unit).event_time_ms == time_ms
    text = order(event_time="2026-03-01T00:00:00Z")
    assert read("orders", text, time_unit=unit).event_time_ms == MARCH_MS


def test_an_item_is_named_by_all_fields_of_series_by_with_bars_and_backslashes_escaped() -> None:
    event = order(sku="a|b", store="c\\")
    (line,) = read("orders", event, series_by=("store", "sku", "region")).lines
    assert line.item_id == "c\\\\|a\\|b|n"
    with pytest.raises(BadRecordError):
        read("orders", order(), series_by=("store", "sku"))


def test_an_item_name_may_have_256_bytes_and_no_more() -> None:
    read("orders", order(sku="é" * 127))  # 254 bytes, a bar and an n.
    for sku in ("é" * 127 + "a", "é" * 128):
        with pytest.raises(BadRecordError):
            read("orders", order(sku=sku))


def test_a_line_of_a_whole_order_has_its_own_amounts_and_falls_back_on_the_region_above() -> None:
    lines = [
        {"sku": "x", "quantity": -1, "unit_price": 5},
        {"sku": "y", "region": "s", "quantity": 4, "unit_price": 1},
    ]
    assert read("orders", order(lines=lines)).lines == [
        Line("x|n", {"returns": 1_000}),
        Line("y|s", {"units": 4_000, "revenue": 40_000, "orders": 1}),
    ]
    with pytest.raises(BadRecordError):
        read("orders", order(lines=[{"quantity": 1, "unit_price": 1}]))


def test_of_a_field_named_twice_the_last_counts() -> None:
    twice = json.dumps(order()).encode()[:-1] + b', "sku": "b", "quantity": 5}'
    assert read("orders", twice).lines == [
        Line("b|n", {"units": 5_000, "revenue": 499_500, "orders": 1})
    ]


def test_a_value_may_be_as_large_and_as_deep_as_configured_and_no_more() -> None:
    value = json.dumps(order()).encode()
    for spare, good in ((0, True), (1, False)):
        limit = {"max_record_bytes": len(value) - spare}
        config = Settings(kafka=limit)
        if good:
            read_event("orders", None, value, config)
            continue
        with pytest.raises(BadRecordError, match="too large"):
            read_event("orders", None, value, config)
    read("orders", order(x=[[1]], y="[[[[", z='"[[['), max_depth=3)
    with pytest.raises(BadRecordError, match="deep"):
        read("orders", order(x=[[[1]]]), max_depth=3)


def test_a_key_may_have_256_bytes_and_a_null_value_is_a_dead_letter() -> None:
    value = json.dumps(order()).encode()
    read_event("orders", b"k" * 256, value, Settings())
    for key, broken in ((b"k" * 257, value), (b"k", None)):
        with pytest.raises(BadRecordError):
            read_event("orders", key, broken, Settings())


MAPPED: dict[str, Any] = {
    "series_by": ("sku", "store"),
    "orders_fields": {
        "sku": "item.code",
        "quantity": "item.qty",
        "store": "shop",
        "lines": "basket.rows",
        "lines.sku": "p",
    },
    "clicks_fields": {"kind": "what.kind", "event_time": "at"},
}


def test_fields_are_read_where_the_field_map_of_their_topic_says() -> None:
    sale = {"event_id": "e", "event_time": 7, "shop": "s", "unit_price": 1}
    one = sale | {"item": {"code": "c", "qty": 2}}
    sold = {"units": 2_000, "revenue": 20_000, "orders": 1}
    assert read("orders", one, **MAPPED) == Event("e", 7, [Line("c|s", sold)])
    line = {"p": "x", "quantity": 2, "unit_price": 1, "store": None}
    whole = sale | {"basket": {"rows": [line, line | {"p": "y", "shop": "t"}]}}
    assert read("orders", whole, **MAPPED).lines == [Line("x|s", sold), Line("y|s", sold)]
    click = {"event_id": "c", "at": 9, "sku": "a", "store": "s", "what": {"kind": "cart"}}
    assert read("clicks", click, **MAPPED) == Event("c", 9, [Line("a|s", {"carts": 1})])
    for broken in (one | {"item": "c"}, one | {"item": None}, sale | {"basket": {"rows": {}}}):
        with pytest.raises(BadRecordError):
            read("orders", broken, **MAPPED)


def test_of_a_field_that_is_named_twice_the_last_one_counts() -> None:
    value = json.dumps(order()).encode()
    for twice in (b', "sku": "b", "sku": []}', b', "lines": 5}'):
        with pytest.raises(BadRecordError):
            read("orders", value[:-1] + twice)
    (line,) = read("orders", value[:-1] + b', "sku": [], "sku": 5}').lines
    assert line.item_id == "5|n"
    nested = b', "lines": [{"sku": "x", "quantity": 1, "unit_price": 0}], "lines": null}'
    (line,) = read("orders", value[:-1] + nested).lines
    assert line.item_id == "a|n", "no lines, since the last one says so"


@pytest.mark.parametrize(
    "tail",
    [
        b', "x": NaN}',
        b', "x": -Infinity}',
        b', "x": "\\ud800"}',
        b', "x": "\xff"}',
        b', "quantity": 1e999}',
        b', "quantity": 1' + b"0" * 400 + b"}",
        b"",
    ],
)
def test_what_is_not_json_or_no_number_is_a_dead_letter(tail: bytes) -> None:
    with pytest.raises(BadRecordError):
        read("orders", json.dumps(order()).encode()[:-1] + tail)


def test_text_in_quotes_is_no_depth_and_what_was_closed_counts_no_more() -> None:
    read("orders", order(x=[[1], [2], [3]], y='\\"[[[[', z="]]\\"), max_depth=3)
    read("orders", order(x=[{"y": '"[['}] * 9), max_depth=3)
    read("orders", order(x="[" * 99), max_depth=1)
    with pytest.raises(BadRecordError, match="deep"):
        read("orders", order(y="\\", x=[[[1]]]), max_depth=3)
