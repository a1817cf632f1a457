"""The recount's own reading of a map and the decoder's, of generated records and maps, are one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freshet.stream.config import EventSettings, Settings
from freshet.stream.errors import ConfigError
from freshet.stream.events.decoder import Decoded, EventDecoder
from freshet.stream.events.order_states import settle
from freshet.stream.schemas import CHANNELS
from freshet.stream.verify.event import BadRecordError, Kind, SkippedRecordError, read_event

T0 = 1_767_225_600_000


class Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Any = ()


FUTURE_MS = Settings().windows.max_future_ms

NAMES = ("a", "b", "c.d")
PATHS = st.sampled_from(["a"] * 6 + ["b"] * 4 + [r"c\.d", "a.b", "b[0]", "b[-1].a", "lines[0].a"])
RATES = {"EUR": 1.0, "usd": 0.5}
TEXTS = st.sampled_from(
    (
        *("", "x", "view", "true", "false", "12", " 7 ", "12.50", "1.299,00", "1,299.00"),
        *("12.50 EUR", "-3", "+3", ".5", "1e3", "EUR", "USD ", "2026-03-29T02:30:00", "nan", "٣"),
        *("2026-03-29", "2026-03-01T10:00:00Z", "2026-03-01 10:00:00.5+01:00", "1 299,5"),
        *(f"/Date({T0})/", f"/Date({T0}+0100)/", "/Date(-1)/", "2026-03-01 10:00:00.25+00"),
        *(
            '[{"sku": "a", "quantity": 1, "unit_price": 2}]',
            '[{"a": 2}]',
            "[]",
            '{"a": 1}',
            "[1e999]",
        ),
        *(str(T0), "99999999999999999999", "0", "-0.0004", "1,5", "1.299.000", "a\\b", "|"),
    )
)
NUMBERS = st.sampled_from(
    [
        0,
        1,
        2,
        -3,
        7,
        2.5,
        1e3,
        0.1,
        -0.0004,
        T0,
        T0 / 1_000,
        2**53,
        2.0**53,
        2**63,
        10**30,
        15_499_000,
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
OBJECTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(NAMES), inner, max_size=2)
    ),
    max_leaves=4,
)


def sources() -> st.SearchStrategy[dict[str, Any]]:
    joined = st.lists(PATHS, min_size=1, max_size=2).map(lambda parts: {"join": parts})
    return st.one_of(
        PATHS.map(lambda path: {"path": path}),
        st.lists(PATHS, min_size=1, max_size=2).map(lambda paths: {"path": paths}),
        st.sampled_from([{"value": 3}, {"value": "view"}, {"value": "2026-03-01T10:00:00Z"}]),
        st.just({"header": "h"}),
        st.sampled_from([{"key": True}, {"key": "a"}]),
        st.sampled_from([{"jmespath": "a || b"}, {"jmespath": "b[?a].a | [0]"}]),
        joined,
        joined.map(lambda rule: {**rule, "by": "/"}),
    )


WORDS = st.sampled_from([{"x": "view", "true": "cart"}, {"x": "view", "*": "checkout"}])
TEXT_RULES = st.one_of(
    PATHS,
    st.lists(PATHS, min_size=1, max_size=2),
    st.builds(
        lambda source, more: {**source, **more},
        sources(),
        st.fixed_dictionaries({}, optional={"words": WORDS, "default": st.just("view")}),
    ),
)
OTHERWISE: list[Any] = [
    "b",
    {"path": "a", "per": "b", "currency": "b"},
    {"path": "b[0]", "default": 3, "otherwise": "a"},
]
NUMBER_RULES = st.one_of(
    PATHS,
    st.builds(
        lambda source, more: {**source, **more},
        sources(),
        st.fixed_dictionaries(
            {},
            optional={
                "per": PATHS,
                "otherwise": st.sampled_from(OTHERWISE),
                "number": st.sampled_from(
                    ["12.50", "1,299.00", "1.299,00", "1 299,00", "12,5", "12.50 EUR", "1.299.000"]
                ),
                "scale": st.sampled_from([0.01, 1_000.0]),
                "sign": st.sampled_from([-1, {"path": "b", "words": {"x": -1, "*": 1}}]),
                "minus": PATHS,
                "currency": PATHS,
                "default": st.just(2),
                "words": st.sampled_from([{"x": 1, "true": 2}]),
            },
        ),
    ),
)
TIME_FORMS = st.sampled_from(["s", "ms", "us", "ns", "rfc3339", "date", "%d.%m.%Y %H:%M"])
TIME_RULES = st.one_of(
    PATHS,
    st.just({"timestamp": True}),
    st.builds(
        lambda source, more: {**source, **more},
        sources(),
        st.fixed_dictionaries(
            {},
            optional={
                "time": TIME_FORMS,
                "zone": st.sampled_from(["Europe/Berlin", "UTC"]),
                "default": st.just(T0),
            },
        ),
    ),
)
CONDITIONS = st.one_of(
    st.dictionaries(
        PATHS,
        st.sampled_from([True, False, "*", "x", 1, ["x", 2.5], [False, "view"]]),
        min_size=1,
        max_size=2,
    ),
    st.sampled_from(["a", "!b", "a == 'x'"]),
)
COMMON = {"event_id": TEXT_RULES, "event_time": TIME_RULES, "sku": TEXT_RULES, "region": TEXT_RULES}
SECTION = {
    "keep_when": CONDITIONS,
    "skip_when": CONDITIONS,
    "tombstones": st.sampled_from(["dead", "skip"]),
}
ORDER_FIELDS = {
    **COMMON,
    "quantity": NUMBER_RULES,
    "unit_price": NUMBER_RULES,
    "lines": st.sampled_from(["b", "lines", ["a.b", "lines"], {"jmespath": "lines[?a]"}]),
    "lines.sku": TEXT_RULES,
    "lines.region": TEXT_RULES,
    "lines.quantity": NUMBER_RULES,
    "lines.unit_price": NUMBER_RULES,
}
CLICK_FIELDS = {
    **COMMON,
    "kind": TEXT_RULES,
    **{name: ORDER_FIELDS[name] for name in ("lines", "lines.sku", "lines.region")},
}
STATE_FIELDS = {
    "order_id": TEXT_RULES,
    "version": st.one_of(PATHS, st.builds(lambda p, t: {"path": p, "time": t}, PATHS, TIME_FORMS)),
    "changed_at": TIME_RULES,
    "cancelled": st.one_of(PATHS, st.just({"path": "a", "words": {"x": True, "*": False}})),
}


def events_of(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    fields: dict[str, Any] = CLICK_FIELDS if kind == "clicks" else ORDER_FIELDS
    options: dict[str, Any] = dict(SECTION)
    if kind == "orders":
        options |= {"bad_lines": st.sampled_from(["whole", "one_by_one"])}
    # One field or two, so that most records are good.
    one = st.one_of(*[st.fixed_dictionaries({name: rule}) for name, rule in fields.items()])
    mapped = st.lists(one, max_size=2).map(
        lambda some: dict(pair for d in some for pair in d.items())
    )
    section = st.builds(
        lambda fields, more: {"fields": fields, **more},
        mapped,
        st.one_of(st.just({}), st.fixed_dictionaries({}, optional=options)),
    )
    return st.builds(
        lambda section, more: {kind: section, "rates": RATES, **more},
        section,
        st.fixed_dictionaries(
            {},
            optional={
                "time_zone": st.just("Europe/Berlin"),
                "time_unit": st.sampled_from(["s", "us"]),
                "series_by": st.just(["sku"]),
            },
        ),
    )


LINE: dict[str, Any] = {"sku": "l", "quantity": 2, "unit_price": "3.5", "a": 1}
GOOD: dict[str, Any] = {
    **{"event_id": 5, "event_time": "2026-03-01T10:00:00Z", "sku": "s", "region": "n"},
    **{"kind": "view", "quantity": 1, "unit_price": 2.5, "order_id": "o", "version": 3},
    **{"changed_at": "2026-03-01T11:00:00Z"},
}
LINES = st.lists(
    st.one_of(
        OBJECTS,
        st.fixed_dictionaries({"a": SCALARS, "b": SCALARS}).map(lambda over: LINE | over),
        st.dictionaries(st.sampled_from((*LINE, "b", "region")), SCALARS, max_size=2).map(
            lambda over: LINE | over
        ),
    ),
    min_size=1,
    max_size=3,
)
OVER = st.one_of(
    st.fixed_dictionaries({"a": SCALARS, "b": SCALARS}),
    st.fixed_dictionaries({"a": TEXTS, "b": NUMBERS, "c.d": SCALARS}),
    st.dictionaries(st.sampled_from((*GOOD, *NAMES)), OBJECTS, max_size=3),
)
RECORDS = st.builds(
    lambda over, lines: GOOD | over | ({} if lines is None else {"lines": lines}),
    OVER,
    st.one_of(st.none(), LINES, LINES, OBJECTS),
)
KEYS = st.sampled_from(
    [b"o"] * 8 + [None, b'"o"', b'{"a": "o"}', b'{"a": 7, "b": 1}', b"\xff", b"k" * 257]
)
ANY_HEADERS = st.lists(
    st.sampled_from(
        (
            *(("h", b"7"), ("h", b"x"), ("h", b"\xff"), ("h", None), ("other", b"1")),
            *(("freshet-line", b"0"), ("freshet-line", b"2"), ("freshet-line", b"-1")),
            ("freshet-history", b"load:complete"),
        )
    ),
    max_size=2,
)
HEADERS = st.one_of(st.just([]), st.just([("h", b"7")]), ANY_HEADERS)
JSON = RECORDS.map(lambda record: json.dumps(record).encode())
VALUES = st.one_of(*[JSON] * 9, st.sampled_from([None, b""]))


@dataclass(frozen=True)
class Readers:
    """Both readers under one map."""

    kind: Kind
    decoder: EventDecoder
    settings: Settings

    @classmethod
    def of(cls, kind: Kind, said: dict[str, Any]) -> Readers:
        events = EventSettings.model_validate(said)
        return cls(kind, EventDecoder(kind, events), Settings(events=events))

    def compare(self, records: list[Record]) -> None:
        """Whether they read some records alike; the decoder has them all at once."""
        headers = {n: list(one.headers) for n, one in enumerate(records) if one.headers}
        values, keys = [one.value for one in records], [one.key for one in records]
        stamps = np.full(len(records), T0, np.int64)
        decoded = self.decoder.decode(values, keys, stamps, headers)
        orders = self.settings.events.orders
        if self.kind == "orders" and orders.mode == "state":
            any_key = orders.key == "any"
            decoded = settle(decoded, keys, any_key=any_key, max_future_ms=FUTURE_MS)
        for place, record in enumerate(records):
            assert self.told(record) == found(decoded, place), (place, record)

    def told(self, record: Record) -> Any:
        """What the recount reads."""
        try:
            event = read_event(
                self.kind, record.key, record.value, self.settings, T0, record.headers
            )
        except SkippedRecordError:
            return "skipped"
        except BadRecordError:
            return "refused"
        name = xxhash.xxh3_64_intdigest(event.event_id.encode())
        if event.version is not None:
            version = event.version
            what = (version.number, version.created_ms, version.items)
            return name, event.event_time_ms, what
        lines: list[Any] = [(line.item_id, *line.said) for line in event.lines]
        return name, event.event_time_ms, (lines, list(event.bad_lines))


def found(decoded: Decoded, place: int) -> Any:
    """What the decoder made of one record."""
    if place in [one.index for one in decoded.skipped]:
        return "skipped"
    if place in [one.index for one in decoded.refusals]:
        return "refused"
    n = decoded.index.tolist().index(place)
    lines = np.flatnonzero(decoded.line_record == n).tolist()
    said: list[Any] = []
    for line in lines:
        if len(decoded.channel):
            said.append((decoded.item_of(line), CHANNELS[decoded.channel[line]]))
        else:
            amounts = float(decoded.quantity[line]), float(decoded.unit_price[line])
            stored = round(amounts[0] * 1_000), round(amounts[1] * 10_000)
            said.append((decoded.item_of(line), *stored))
    at_ms = int(decoded.event_time_ms[n])
    if decoded.states is None:
        bad = [one.line for one in decoded.line_refusals if one.index == place]
        return int(decoded.event_hash[n]), at_ms, (said, bad)
    items: dict[str, tuple[int, int]] = {}
    for item_id, quantity, price in said:
        before = items.get(item_id, (0, 0))
        items[item_id] = before[0] + quantity, before[1] + quantity * price
    number = 2 * int(decoded.states.version[n]) + bool(decoded.states.cancelled[n])
    what = (number, int(decoded.states.created_ms[n]), items)
    return int(decoded.states.order_hash[n]), at_ms, what


def alike(
    kind: Kind, said: dict[str, Any], key: bytes | None, value: bytes | None, headers: Any
) -> None:
    try:
        readers = Readers.of(kind, said)
    except (ConfigError, ValueError):
        return
    readers.compare([Record(key, value, headers)])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events_of("orders"), KEYS, VALUES, HEADERS)
def test_orders_under_any_map_are_read_alike(said: Any, key: Any, value: Any, headers: Any) -> None:
    alike("orders", said, key, value, headers)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events_of("clicks"), KEYS, VALUES, HEADERS)
def test_clicks_under_any_map_are_read_alike(said: Any, key: Any, value: Any, headers: Any) -> None:
    alike("clicks", said, key, value, headers)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events_of("orders"),
    st.fixed_dictionaries({}, optional=STATE_FIELDS),
    st.sampled_from(["any", "order_id"]),
    KEYS,
    VALUES,
    HEADERS,
)
def test_states_of_orders_under_any_map_are_read_alike(
    said: Any, fields: Any, by: str, key: Any, value: Any, headers: Any
) -> None:
    orders = {**said["orders"], "mode": "state", "key": by}
    orders["fields"] = {**orders["fields"], **fields}
    alike("orders", {**said, "orders": orders}, key, value, headers)


# Every conversion of every value ------------------------------------------------------------------

RAW: list[Any] = [
    *(None, True, False, 0, 1, 2, -3, 7, 2.5, 1e3, 0.1, -0.0004, 0.0005, -0.0, 15_499_000),
    *(2**53, 2.0**53, 2**62, 2**63, 10**12, 1e11, 4.6e14, 10**30, 1e300, 5e-324, {}, [], {"a": 1}),
    *(T0, T0 / 1_000, T0 // 1_000, T0 * 1_000, T0 * 10**6, T0 + 0.9996, 253_402_300_799, 1.0005),
    *("", " ", "x", "view", "true", "false", "12", " 7 ", "12.50", "-3", "+3", ".5", "5.", "1e3"),
    *("1.299,00", "1,299.00", "1,299", "1.299", "1 299,5", "1\u00a0299,50", "1'299.00", "12,5"),
    *("1,29,999.00", "12,34", "1.2.3", "12.50 EUR", "EUR 1.299,00", "$-3.00", "5-", "-", "1e400"),
    *("nan", "inf", "0x10", "٣", "1_000", "--3", "EUR", "usd", "99999999999999999999", str(T0)),
    *("2026-03-01T10:00:00Z", "2026-03-01T10:00:00", "2026-03-01 10:00:00.1239+01:00"),
    *("2026-03-01 10:00:00.5+01", "2026-03-01T10:00:00-0130", "2026-03-01+01", "10:00+01"),
    *(f"/Date({T0})/", f"/Date({T0}-0800)/", "/Date(-1)/", "/Date(1e3)/", "/Date()/"),
    *("2026-03-29T02:30:00", "2026-10-25T02:30:00", "2026-03-29", "2026-02-30", "2026-3-1"),
    *("01.03.2026 10:00", "31.02.2026 10:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59.9999Z"),
    *(
        "9999-12-31T23:59:59",
        "1970-01-01",
        "1969-12-31",
        "2026-03-01T10:00:00+0100",
        "1767225600.5",
    ),
]
NUMBER_OPTIONS: list[dict[str, Any]] = [
    {},
    *({"number": like} for like in ("12.50", "1,299.00", "1.299,00", "1 299,00", "12,5")),
    *({"number": like} for like in ("1'299.00", "12.50 EUR", "1.299.000", "1 299", "€ 1.299,00")),
    *({"scale": 0.01}, {"scale": 1e6}, {"sign": -1}, {"default": 2}, {"minus": "b"}),
    *({"words": {"x": 1, "true": 2}}, {"words": {"x": 1, "*": 3}}, {"currency": "c"}),
    {"sign": {"path": "c", "words": {"EUR": -1, "*": 1}}},
    *({"per": "b"}, {"per": "a", "scale": 3.0}, {"per": "c"}, {"per": "d", "default": 2}),
    *({"otherwise": "b"}, {"otherwise": {"path": "b", "per": "b", "currency": "c"}}),
    {"scale": 0.1, "minus": ["b", "b"], "currency": ["d", "c"], "sign": -1, "number": "1.299,00"},
]
TIME_OPTIONS: list[dict[str, Any]] = [
    *({"time": form} for form in ("", "s", "us", "ns", "rfc3339")),
    *(
        {"time": form, "zone": "Europe/Berlin", **more}
        for form in ("", "ms", "rfc3339", "date", "%d.%m.%Y %H:%M")
        for more in ({}, {"default": T0})
    ),
]
TEXT_OPTIONS: list[dict[str, Any]] = [
    {},
    {"default": "view"},
    {"words": {"x": "view", "true": "cart", "7": "view", "2": "cart"}},
    {"words": {"x": "view", "*": "checkout"}, "default": 5},
]
CASES: list[tuple[Kind, str, dict[str, Any]]] = [
    *(("orders", name, one) for name in ("quantity", "unit_price") for one in NUMBER_OPTIONS),
    *(("orders", f"lines.{name}", one) for name in ("quantity",) for one in NUMBER_OPTIONS),
    *(("clicks", "event_time", one) for one in TIME_OPTIONS),
    *(("clicks", name, one) for name in ("event_id", "sku", "kind") for one in TEXT_OPTIONS),
    *(("orders", name, one) for name in ("lines.sku", "lines.region") for one in TEXT_OPTIONS),
    *(("state", "version", one) for one in TIME_OPTIONS if "default" not in one),
    *(("state", "changed_at", one) for one in TIME_OPTIONS),
    *(
        ("state", "deleted", one)
        for one in ({}, {"words": {"x": True, "*": False}}, {"default": 1})
    ),
]


@pytest.mark.parametrize(("kind", "name", "options"), CASES)
def test_every_value_under_a_conversion_is_read_alike(kind: Any, name: str, options: Any) -> None:
    section: dict[str, Any] = {"fields": {name: {"path": "a", **options}}}
    if kind == "state":
        section |= {"mode": "state", "key": "any"}
    of: Kind = "clicks" if kind == "clicks" else "orders"
    readers = Readers.of(of, {of: section, "rates": RATES, "max_depth": 8})
    records = []
    for raw in RAW:
        more = {"a": raw, "b": 0.5, "c": "EUR"}
        record = GOOD | ({"lines": [LINE | more, LINE | {"a": 1}]} if "." in name else more)
        records.append(Record(None, json.dumps(record).encode()))
    readers.compare(records)
    # A column of one type goes another way.
    for types in ((int,), (str,), (int, float)):
        readers.compare([one for one, raw in zip(records, RAW, strict=True) if type(raw) in types])


SELDOM: list[tuple[Kind, dict[str, Any], dict[str, Any]]] = [
    (
        "orders",
        {"unit_price": {"path": "a", "otherwise": {"path": "b", "per": "n"}}},
        {"b": 9, "n": 2},
    ),
    ("orders", {"unit_price": {"path": "b", "per": "n", "scale": 3}}, {"b": "9", "n": "2"}),
    ("orders", {"unit_price": {"path": "b", "per": "n", "default": 7}}, {"b": 9, "n": 0}),
    ("orders", {}, {"event_time": "2026-03-01 10:00:00.25+00"}),
    ("orders", {}, {"event_time": f"/Date({T0 + 7}+0100)/"}),
    ("orders", {}, {"lines": json.dumps([LINE, {"sku": "m"}])}),
    ("clicks", {"lines": "items", "lines.sku": "id"}, {"items": [{"id": 1}, {"id": 2}, {}]}),
    ("clicks", {"lines": "items", "lines.sku": "id"}, {}),
]


@pytest.mark.parametrize(("kind", "fields", "over"), SELDOM)
def test_what_generated_maps_seldom_meet_is_read_alike(
    kind: Kind, fields: dict[str, Any], over: dict[str, Any]
) -> None:
    readers = Readers.of(kind, {kind: {"fields": fields}})
    record = Record(b"o", json.dumps(GOOD | over).encode())
    assert isinstance(readers.told(record), tuple), "it is good"
    readers.compare([record])
