"""Events from bytes: what is good, every way to be bad, a shop's own names; one bad record never
fails its batch.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.codec import MAX_TIME_MS, time_ms
from freshet.stream.config import EventSettings, TimeUnit
from freshet.stream.errors import ConfigError, EventError
from freshet.stream.events.columns import Decoded, concatenate
from freshet.stream.events.decoder import EventDecoder

T = 1_700_000_000_000
ORDER = {
    "event_id": "e",
    "order_id": "o",
    "sku": "a",
    "region": "n",
    "event_time": T,
    "quantity": 2,
    "unit_price": 9.5,
}
CLICK = {
    "event_id": "e",
    "session_id": "s",
    "sku": "a",
    "region": "n",
    "event_time": T,
    "kind": "cart",
}
WHOLE = {"event_id": "e", "region": "n", "event_time": T}
LINES = [
    {"sku": "a", "quantity": 1, "unit_price": 1},
    {"sku": "b", "quantity": -2, "unit_price": 3, "region": "s"},
]


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


def decoded(
    kind: str, *values: object, keys: list[bytes | None] | None = None, **options: Any
) -> Decoded:
    data = [v if isinstance(v, bytes | None) else json.dumps(v).encode() for v in values]
    return EventDecoder(kind, EventSettings(**options), 2_000).decode(
        data, keys or [None] * len(data)
    )


def refused(kind: str, value: object, **options: Any) -> tuple[str, str]:
    good = ORDER if kind == "orders" else CLICK
    found = decoded(kind, good, value, good, **options)
    assert found.index.tolist() == [0, 2]
    assert found.line_record.tolist() == [0, 1]
    (refusal,) = found.refusals
    assert refusal.index == 1
    return refusal.error_class, refusal.message


def test_an_order_of_one_line_is_one_record_and_one_line() -> None:
    found = decoded("orders", ORDER)
    assert found.line_item == ["a|n"]
    assert found.event_time_ms.tolist() == [T]
    assert found.event_hash.tolist() == [xxhash.xxh3_64_intdigest(b"e")]
    assert (found.quantity.tolist(), found.unit_price.tolist()) == ([2.0], [9.5])
    assert found.refusals == []


def test_a_whole_order_is_one_record_and_many_lines_in_order() -> None:
    found = decoded("orders", ORDER, WHOLE | {"lines": LINES}, ORDER)
    assert found.index.tolist() == [0, 1, 2]
    assert found.line_record.tolist() == [0, 1, 1, 2]
    assert found.line_item == ["a|n", "a|n", "b|s", "a|n"]
    assert found.quantity.tolist() == [2.0, 1.0, -2.0, 2.0]


def test_clicks_name_the_channel_of_their_kind() -> None:
    kinds = ("view", "cart", "favourite", "checkout")
    assert decoded("clicks", *(CLICK | {"kind": kind} for kind in kinds)).channel.tolist() == [
        4,
        5,
        6,
        7,
    ]


def test_names_with_separators_and_other_alphabets_stay_apart() -> None:
    found = decoded(
        "clicks",
        CLICK | {"sku": "a|b", "region": "c"},
        CLICK | {"sku": "a", "region": "b|c"},
        CLICK | {"sku": "ü"},
    )
    assert found.line_item == ["a\\|b|c", "a|b\\|c", "ü|n"]


@pytest.mark.parametrize("name", ["order_id", "region", "session_id", "more"])
def test_fields_outside_series_by_may_be_missing(name: str) -> None:
    assert decoded("orders", without(ORDER, name), series_by=("sku",)).line_item == ["a"]
    assert decoded("clicks", without(CLICK, name), series_by=("sku",)).line_item == ["a"]


def test_series_may_be_named_by_a_field_of_the_shop_s_own() -> None:
    found = decoded("orders", ORDER | {"store": "x"}, ORDER, series_by=("store", "sku"))
    assert found.line_item == ["x|a"]
    assert found.refusals[0].message == "the field 'store' is missing"
    lines = [LINES[0] | {"store": "y"}, LINES[1]]
    whole = decoded("orders", WHOLE | {"store": "x", "lines": lines}, series_by=("store", "sku"))
    assert whole.line_item == ["y|a", "x|b"]


DEEP = {"deep": None}
for _ in range(80):
    DEEP = {"deep": [DEEP]}

BAD_FOR_BOTH = [
    (None, "NullValue"),
    (b"", "Undecodable"),
    (b"{", "Undecodable"),
    (b"\xff{}", "Undecodable"),
    (b"\xef\xbb\xbf{}", "Undecodable"),
    (b'{"more": "\xc3\x28"}', "Undecodable"),
    (b"[]", "InvalidField"),
    (b"null", "InvalidField"),
    (b'{"event_id": "\\ud800"}', "Undecodable"),
    (b'{"more": "\\udc00"}', "Undecodable"),
    (b'{"more": NaN}', "Undecodable"),
    (b'{"more": -Infinity}', "Undecodable"),
    (b"{}{}", "Undecodable"),
    (b" " * 2_001, "OversizedValue"),
    (b'{"more": ' + b"[" * 900 + b"]" * 900 + b"}", "DeepNesting"),
    (b"[" * 2_000, "DeepNesting"),
]


@pytest.mark.parametrize(("value", "error_class"), BAD_FOR_BOTH)
@pytest.mark.parametrize("kind", ["orders", "clicks"])
def test_bytes_that_are_no_event_are_refused(kind: str, value: bytes, error_class: str) -> None:
    assert refused(kind, value)[0] == error_class


@pytest.mark.parametrize(
    ("change", "error_class", "text"),
    [
        ({"event_id": None}, "MissingField", "'event_id' is missing"),
        ({"event_id": True}, "InvalidField", "'event_id' is true or false, expected text"),
        ({"event_id": 5.5}, "InvalidField", "'event_id' is a number, expected text"),
        ({"event_time": None}, "MissingField", "'event_time' is missing"),
        ({"event_time": True}, "InvalidField", "true or false, expected a time"),
        ({"event_time": {"at": 1}}, "InvalidField", "an object, expected a time"),
        ({"event_time": -0.5}, "InvalidTime", "1970 to 9999"),
        ({"event_time": 1e300}, "InvalidTime", "1970 to 9999"),
        ({"event_time": -1}, "InvalidTime", "1970 to 9999"),
        ({"event_time": MAX_TIME_MS + 1}, "InvalidTime", "1970 to 9999"),
        ({"event_time": 10**30}, "InvalidTime", "more than 20 digits"),
        ({"event_time": 2**63}, "InvalidTime", "1970 to 9999"),
        ({"event_time": "yesterday"}, "InvalidTime", "RFC 3339"),
        ({"event_time": "2024-01-01T00:00:00"}, "InvalidTime", "no offset"),
        ({"sku": None}, "MissingField", "'sku' is missing"),
        ({"sku": 7.5}, "InvalidField", "a number, expected text"),
        ({"region": None}, "MissingField", "'region' is missing"),
        ({"region": ["n"]}, "InvalidField", "an array, expected text"),
        ({"sku": "é" * 128}, "OversizedKey", "258 bytes, expected at most 256"),
    ],
)
@pytest.mark.parametrize("kind", ["orders", "clicks"])
def test_fields_of_every_event_are_checked(
    kind: str, change: dict[str, Any], error_class: str, text: str
) -> None:
    found = refused(kind, (ORDER if kind == "orders" else CLICK) | change)
    assert found[0] == error_class
    assert text in found[1]


@pytest.mark.parametrize(
    ("value", "error_class", "text"),
    [
        (ORDER | {"quantity": None}, "MissingField", "'quantity'"),
        (ORDER | {"unit_price": None}, "MissingField", "'unit_price'"),
        (without(ORDER, "quantity"), "MissingField", "'quantity'"),
        (ORDER | {"quantity": "two"}, "InvalidField", "'two', expected a number"),
        (ORDER | {"quantity": "2,5"}, "InvalidField", 'number = "1.299,00"'),
        (ORDER | {"quantity": True}, "InvalidField", "true or false, expected a number"),
        (ORDER | {"quantity": 0}, "OutOfRange", "not zero"),
        (ORDER | {"quantity": -0.0}, "OutOfRange", "not zero"),
        (ORDER | {"quantity": 1e12}, "OutOfRange", "below 1000000000000"),
        (ORDER | {"quantity": -1e12, "unit_price": 0}, "OutOfRange", "below 1000000000000"),
        (ORDER | {"unit_price": -0.01}, "OutOfRange", "0 or more"),
        (ORDER | {"quantity": 0.001, "unit_price": 1e12}, "OutOfRange", "below 1000000000000"),
        (ORDER | {"quantity": 1e6, "unit_price": 1e6}, "OutOfRange", "can be worth"),
        (json.dumps(ORDER)[:-1].encode() + b', "quantity": 1e400}', "OutOfRange", "is inf"),
        (b'{"event_id": "e", "quantity": NaN}', "Undecodable", "invalid character"),
        (
            json.dumps(ORDER)[:-1].encode() + b', "quantity": ' + b"9" * 400 + b"}",
            "InvalidField",
            "out of range",
        ),
        (WHOLE | {"lines": []}, "MissingField", "no lines"),
        (
            WHOLE | {"lines": [{"sku": "c", "quantity": 0, "unit_price": 1}]},
            "OutOfRange",
            "quantity is 0",
        ),
        (
            WHOLE | {"sku": "top", "lines": [{"quantity": 1, "unit_price": 1}]},
            "MissingField",
            "'sku'",
        ),
        (WHOLE | {"lines": [None]}, "InvalidField", "is null, expected an object"),
        (WHOLE | {"lines": {"sku": "a"}}, "InvalidField", "is an object, expected an array"),
        (without(WHOLE, "region") | {"lines": LINES[:1]}, "MissingField", "'region'"),
    ],
)
def test_an_order_without_a_good_line_is_refused(
    value: object, error_class: str, text: str
) -> None:
    found = refused("orders", value)
    assert found[0] == error_class
    assert text in found[1]


BAD_LINES = [
    ({"sku": "c", "quantity": 0, "unit_price": 1}, "OutOfRange", "quantity is 0"),
    ({"quantity": 1, "unit_price": 1}, "MissingField", "'sku'"),
    ({"sku": "c", "unit_price": 1}, "MissingField", "'quantity'"),
    ({"sku": "c", "quantity": 1, "unit_price": "free"}, "InvalidField", "'free'"),
    ({"sku": ["c"], "quantity": 1, "unit_price": 1}, "InvalidField", "an array"),
    ({"sku": "s" * 300, "quantity": 1, "unit_price": 1}, "OversizedKey", "302 bytes"),
    (None, "InvalidField", "is null, expected an object"),
    ([], "InvalidField", "is an array, expected an object"),
]


@pytest.mark.parametrize(("line", "error_class", "text"), BAD_LINES)
def test_a_bad_line_leaves_its_order_the_others(line: object, error_class: str, text: str) -> None:
    order = WHOLE | {"lines": [LINES[0], line, LINES[1]]}
    found = decoded("orders", ORDER, order, ORDER)
    assert found.index.tolist() == [0, 1, 2]
    assert found.line_record.tolist() == [0, 1, 1, 2]
    assert found.line_item == ["a|n", "a|n", "b|s", "a|n"]
    (bad,) = found.line_refusals
    assert (bad.index, bad.line, bad.error_class) == (1, 1, error_class)
    assert text in bad.message
    assert found.refusals == []


@pytest.mark.parametrize(("line", "error_class", "text"), BAD_LINES)
def test_a_shop_may_choose_whole_orders(line: object, error_class: str, text: str) -> None:
    order = WHOLE | {"lines": [LINES[0], line, LINES[1]]}
    found = decoded("orders", ORDER, order, orders={"bad_lines": "whole"})
    assert (found.index.tolist(), found.line_refusals) == ([0], [])
    assert (found.refusals[0].index, found.refusals[0].error_class) == (1, error_class)
    assert text in found.refusals[0].message


def test_an_order_of_bad_lines_is_refused_for_its_first() -> None:
    lines = [{"sku": "a"}, {"quantity": 1, "unit_price": 1}]
    found = decoded("orders", WHOLE | {"lines": lines}, ORDER)
    assert (found.index.tolist(), found.line_refusals) == ([1], [])
    assert "'quantity' is missing" in found.refusals[0].message


def alone(line: bytes, value: object = None, **options: Any) -> Decoded:
    """A whole order, or another record, that stands for one of its lines."""
    value = json.dumps(value or WHOLE | {"lines": [*LINES, None]}).encode()
    return EventDecoder("orders", EventSettings(**options)).decode(
        [value, value], [None, None], None, {1: [("freshet-line", line)]}
    )


def test_a_record_that_names_a_line_is_that_line_alone() -> None:
    found = alone(b"1")
    assert found.line_item == ["a|n", "b|s", "b|s"]
    assert found.line_record.tolist() == [0, 0, 1]
    ids = [xxhash.xxh3_64_intdigest(name) for name in (b"e", b"e#1")]
    assert found.event_hash.tolist() == ids
    assert [(bad.index, bad.line) for bad in found.line_refusals] == [(0, 2)]


@pytest.mark.parametrize(
    ("line", "error_class", "text"),
    [
        (b"2", "InvalidField", "null"),
        (b"3", "InvalidHeader", "has no line 3"),
        (b"-1", "InvalidHeader", "'-1', expected a line's number"),
        (b"", "InvalidHeader", "''"),
        (b"\xff", "InvalidHeader", "a line's number"),
    ],
)
def test_a_record_that_names_a_bad_line_is_refused(
    line: bytes, error_class: str, text: str
) -> None:
    found = alone(line)
    assert found.index.tolist() == [0]
    assert (found.refusals[0].index, found.refusals[0].error_class) == (1, error_class)
    assert text in found.refusals[0].message
    flat = alone(b"0", ORDER)
    assert flat.refusals[0].message == "the order has no line 0"


def test_a_record_that_ends_a_history_is_skipped() -> None:
    mark = [("freshet-history", b"load:complete")]
    headers = {0: mark, 1: mark, 2: [("freshet-history", b"load:7")]}
    values = [b"", json.dumps(ORDER).encode(), b"", b""]
    found = EventDecoder("orders", EventSettings()).decode(values, [None] * 4, None, headers)
    assert [(one.index, one.reason) for one in found.skipped] == [(0, "history_complete")]
    assert found.index.tolist() == [1]
    assert [bad.index for bad in found.refusals] == [2, 3]


@pytest.mark.parametrize(
    ("kind", "text"),
    [(None, "'kind' is missing"), ("sniff", "'sniff', expected one of view"), (3, "'3'")],
)
def test_clicks_of_unknown_kinds_are_refused(kind: object, text: str) -> None:
    assert text in refused("clicks", CLICK | {"kind": kind})[1]


def test_limits_are_inclusive() -> None:
    found = decoded(
        "orders",
        ORDER | {"quantity": 30, "unit_price": 15_499_000},
        ORDER | {"quantity": 0.001, "unit_price": 999_999_999_999},
        ORDER | {"quantity": -999_999_999_999, "unit_price": 0, "sku": "s" * 254},
        keys=[b"k" * 256, None, None],
    )
    assert found.refusals == []


def test_a_key_over_256_bytes_condemns_its_record() -> None:
    found = decoded("orders", ORDER, ORDER, keys=[b"k" * 257, b"k"])
    assert found.index.tolist() == [1]
    assert found.refusals[0].error_class == "OversizedKey"


def test_depth_is_counted_outside_strings_and_its_limit_is_inclusive() -> None:
    def nested(depth: int) -> bytes:
        return (
            json.dumps(ORDER)[:-1].encode()
            + b',"x":'
            + b"[" * (depth - 1)
            + b"]" * (depth - 1)
            + b"}"
        )

    brackets = ORDER | {"more": "[" * 100, "other": '\\"{{{' * 40}
    found = decoded("orders", nested(64), nested(65), brackets)
    assert found.index.tolist() == [0, 2]
    assert "65 deep, expected at most 64" in found.refusals[0].message


def test_a_recursion_too_deep_for_the_decoder_is_one_more_bad_record() -> None:
    decoder = EventDecoder("orders", EventSettings(max_depth=10**6), 10**6)
    good = json.dumps(ORDER).encode()
    found = decoder.decode([good, b'{"x":' + b"[" * 100_000, good], [None] * 3)
    assert found.index.tolist() == [0, 2]
    assert found.refusals[0].error_class == "Undecodable"


FIELDS = {
    "event_id": "id",
    "event_time": "meta.at",
    "sku": "product.code",
    "region": "meta.place.name",
    "lines": "cart.rows",
    "lines.sku": "product.code",
    "lines.quantity": "n",
    "lines.unit_price": "price.gross",
}


def test_a_shop_s_own_names_are_found_by_dotted_paths() -> None:
    place = {"at": "2023-11-14T22:13:20Z", "place": {"name": "n"}}
    row = {"product": {"code": "b"}, "n": 3, "price": {"gross": 1.5}}
    one = {"id": "e", "meta": place, "product": {"code": "a"}, "quantity": 1, "unit_price": 2}
    many = {"id": "f", "meta": place, "cart": {"rows": [row]}}
    found = decoded("orders", one, many, orders_fields=FIELDS)
    assert found.line_item == ["a|n", "b|n"]
    assert found.event_time_ms.tolist() == [T, T]
    assert found.unit_price.tolist() == [2.0, 1.5]


@pytest.mark.parametrize(
    "meta", [None, {}, {"at": T}, {"at": T, "place": None}, {"place": {"name": "n"}}]
)
def test_a_path_that_ends_early_is_a_missing_field(meta: object) -> None:
    one = {"id": "e", "meta": meta, "product": {"code": "a"}, "quantity": 1, "unit_price": 2}
    found = decoded("orders", one, orders_fields=FIELDS)
    assert found.refusals[0].error_class == "MissingField"


def test_an_object_that_is_null_in_a_line_is_a_missing_field() -> None:
    place = {"at": T, "place": {"name": "n"}}
    row = {"product": None, "n": 3, "price": {"gross": 1.5}}
    found = decoded(
        "orders", {"id": "f", "meta": place, "cart": {"rows": [row]}}, orders_fields=FIELDS
    )
    expected = "the field 'sku' is missing (events.orders_fields: 'product.code')"
    assert found.refusals[0].message == f"{expected}; nearest seen: 'product'"


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        ("orders", {"skuu": "x"}, "did you mean 'sku'"),
        ("orders", {"lines.skuu": "x"}, "did you mean 'lines.sku'"),
        ("clicks", {"quantity": "x"}, "maps the unknown field 'quantity'"),
        ("orders", {"sku": "a..b"}, "joined by dots"),
        ("orders", {"sku": "a[x]"}, "joined by dots"),
    ],
)
def test_a_mapping_that_cannot_be_is_a_config_error(
    kind: str, fields: dict[str, str], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        EventDecoder(kind, EventSettings(**{f"{kind}_fields": fields}), 2_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2023-11-14T22:13:20.123Z", T + 123),
        ("2023-11-14T22:13:20.999999+00:00", T + 999),
        ("2023-11-14T22:13:20.99999999999Z", T + 999),
        ("2023-11-15T03:43:20+05:30", T),
        ("2023-11-14T17:13:20.5-05:00", T + 500),
    ],
)
def test_rfc_3339_times_are_cut_to_milliseconds(text: str, expected: int) -> None:
    assert time_ms(text) == expected
    assert decoded("clicks", CLICK | {"event_time": text}, CLICK).event_time_ms.tolist() == [
        expected,
        T,
    ]


@pytest.mark.parametrize(
    ("unit", "last", "moment_ms", "last_ms"),
    [
        ("s", MAX_TIME_MS // 1_000, 1_700_000_000_000, MAX_TIME_MS - 999),
        ("ms", MAX_TIME_MS, 1_700_000_000, MAX_TIME_MS),
        ("us", MAX_TIME_MS * 1_000 + 999, 1_700_000, MAX_TIME_MS),
    ],
)
@pytest.mark.parametrize("kind", ["orders", "clicks"])
def test_whole_numbers_are_times_in_the_unit_that_is_set(
    kind: str, unit: TimeUnit, last: int, moment_ms: int, last_ms: int
) -> None:
    event = ORDER if kind == "orders" else CLICK
    values = [0, 1_700_000_000, last, last + 1, "2023-11-14T22:13:20.123Z"]
    mixed = decoded(kind, *(event | {"event_time": value} for value in values), time_unit=unit)
    assert mixed.event_time_ms.tolist() == [0, moment_ms, last_ms, T + 123]
    assert [refusal.index for refusal in mixed.refusals] == [3]
    numbers = decoded(
        kind, *(event | {"event_time": value} for value in values[:4]), time_unit=unit
    )
    assert numbers.event_time_ms.tolist() == [0, moment_ms, last_ms]
    assert [time_ms(value, unit) for value in values[:3]] == [0, moment_ms, last_ms]


def test_a_numeral_is_a_time_whatever_stands_beside_it() -> None:
    number = CLICK | {"event_time": str(T)}
    for neighbours in ([], [CLICK], [CLICK | {"event_time": "2023-11-14T22:13:20Z"}]):
        found = decoded("clicks", *neighbours, number)
        assert found.event_time_ms.tolist() == [T] * (len(neighbours) + 1)


@pytest.mark.parametrize(
    "value", ["", "2024-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "2024-01-01", -1, MAX_TIME_MS + 1]
)
def test_times_out_of_range_are_event_errors(value: int | str) -> None:
    with pytest.raises(EventError):
        time_ms(value)


def mutated(draw: st.DrawFn, event: dict[str, Any]) -> bytes:
    """An event as a shop might send it after all: fields gone or of another kind, bytes cut,
    flipped or repeated.
    """
    event = dict(event)
    for name in draw(st.lists(st.sampled_from([*event, "more"]), max_size=2)):
        event[name] = draw(ODD)
    data = json.dumps(event, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for at in draw(st.lists(st.integers(0, len(data) - 1), max_size=1)):
        change = draw(
            st.sampled_from([b"", b"\xff", b"{", b"]", b"\n", b"9", data[at : at + 30], b"\x00"])
        )
        data = data[:at] + change + data[at + 1 :]
    return data


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.sampled_from(
        [
            "a|b",
            "a\\",
            "é" * 129,
            "2023-11-14T22:13:20Z",
            str(T),
            [],
            {},
            [LINES[0]],
            LINES,
            [None],
            1e6,
        ]
    ),
)
LOGS = {
    "orders": [
        ORDER,
        ORDER,
        WHOLE | {"lines": LINES},
        WHOLE | {"lines": [LINES[0] | {"region": None}]},
    ],
    "clicks": [
        CLICK,
        CLICK,
        CLICK | {"sku": "ü"},
        CLICK | {"event_time": "2023-11-14T22:13:20.5+01:00"},
    ],
}


@st.composite
def values_of(draw: st.DrawFn, kind: str) -> list[bytes | None]:
    events = draw(st.lists(st.sampled_from(LOGS[kind]), max_size=12))
    whole = [json.dumps(event).encode() for event in events]
    odd = st.one_of(
        st.none(),
        st.binary(max_size=20),
        st.builds(lambda n: mutated(draw, LOGS[kind][n]), st.integers(0, 3)),
    )
    for at in draw(st.lists(st.integers(0, len(whole)), max_size=4)):
        whole.insert(at, draw(odd))
    return whole


@pytest.mark.parametrize("kind", ["orders", "clicks"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_batch_is_what_its_records_are_one_by_one(kind: str, data: st.DataObject) -> None:
    values = data.draw(values_of(kind))
    together = EventDecoder(kind, EventSettings(), 2_000).decode(values, [None] * len(values))
    apart = EventDecoder(kind, EventSettings(), 2_000)
    alone = concatenate([apart.decode([value], [None]) for value in values]) if values else together
    assert columns(together) == columns(alone)
    assert sorted([*together.index.tolist(), *(bad.index for bad in together.refusals)]) == list(
        range(len(values))
    )


def test_slices_and_parts_of_a_batch_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [
        b"{" if n % 5 == 0 else json.dumps(ORDER | {"sku": f"s{n % 7}"}).encode() for n in range(40)
    ]
    whole = columns(EventDecoder("orders", EventSettings()).decode(values, [None] * 40))
    monkeypatch.setattr("freshet.stream.events.decoder.SLICE_RECORDS", 3)
    monkeypatch.setattr("freshet.stream.events.item_names.MAX_CACHED_ITEM_IDS", 4)
    decoder = EventDecoder("orders", EventSettings())
    parts = [
        decoder.decode(values[n : n + 8], [None] * len(values[n : n + 8])) for n in range(0, 40, 8)
    ]
    assert len({id(part.item_ids) for part in parts}) > 1
    assert columns(concatenate(parts)) == whole


def columns(decoded: Decoded) -> dict[str, Any]:
    """All of it that means something; names of items are places in a table."""
    names = (
        "index",
        "event_hash",
        "event_time_ms",
        "line_record",
        "quantity",
        "unit_price",
        "channel",
    )
    found: dict[str, Any] = {name: getattr(decoded, name).tolist() for name in names}
    return found | {
        "items": decoded.line_item,
        "refusals": decoded.refusals,
        "records": decoded.num_records,
    }
