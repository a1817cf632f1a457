"""The recount and the decoder, written apart, read every record alike."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from freshet.stream.config import EventSettings, Settings
from freshet.stream.events.formats.decoding import FormatDecoder
from freshet.stream.schemas import CHANNELS
from freshet.stream.units import MINUTE_MS
from freshet.stream.verify.event import BadRecordError, Kind, read_event

T0 = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS


def order(**over: Any) -> bytes:
    fields = {"event_id": "e1", "event_time": T0, "sku": "a", "region": "n"}
    return json.dumps({**fields, "quantity": 2, "unit_price": 9.99, **over}).encode()


MAPPED = EventSettings(
    series_by=("sku", "store"),
    orders_fields={
        "sku": "item.code",
        "quantity": "item.qty",
        "store": "shop",
        "lines": "basket.rows",
        "lines.sku": "p",
    },
    clicks_fields={"kind": "what.kind", "event_time": "at"},
)
BY_SKU = EventSettings(series_by=("sku",), max_depth=4)
ALL_EVENTS = [EventSettings(), MAPPED, BY_SKU]

NAMES = st.sampled_from(
    (
        *(
            "event_id",
            "event_time",
            "sku",
            "region",
            "quantity",
            "unit_price",
            "lines",
            "kind",
            "order_id",
            "store",
        ),
        *("shop", "item", "code", "qty", "basket", "rows", "p", "what", "at", "x", "session_id"),
    )
)
TEXT = st.one_of(
    st.sampled_from(["a", "view", "cart", "", "|", "\\", "é" * 130, "😀", "\x7f"]),
    st.text(max_size=3),
)
TIMES = st.sampled_from(
    (
        *(
            T0,
            0,
            -1,
            253_402_300_799_999,
            253_402_300_800_000,
            1.5,
            1e3,
            True,
            10**30,
            "2026-03-01T10:00:00Z",
        ),
        *(
            "2026-03-01t10:00:00.1239999z",
            "2026-03-01 10:00:00+01:30",
            "2026-03-01T10:00:00",
            "2026-02-30T10:00:00Z",
        ),
        *(
            "1970-01-01T00:00:00+00:01",
            "2026-03-01T10:00:00-0700",
            "2026-03-01T10:00Z",
            "2026-03-01T24:00:00Z",
        ),
        *("2026-03-01T10:00:60Z", "2026-03-01T10:00:00+24:00", "0001-01-01T00:00:00Z", "now"),
        "9999-12-31T23:59:59.9999999Z",
    )
)
NUMBERS = st.one_of(
    st.sampled_from(
        [1, 2.5, 0, -0.0, -3, 1e6, 1_000_000.001, 900_000, 900_000.5, 1e-9, True, 10**40, 0.0005]
    ),
    st.floats(allow_nan=False, allow_infinity=False),
)
LINES = st.lists(
    st.fixed_dictionaries({}, optional={"sku": TEXT, "p": TEXT, "quantity": NUMBERS}).map(
        lambda line: {"unit_price": 3, "store": "s", "quantity": 1, "sku": "a", "p": "b"} | line
    ),
    max_size=2,
)
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, TIMES, LINES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
GOOD: dict[str, Any] = {
    **{
        "event_id": "e",
        "event_time": T0,
        "at": T0,
        "sku": "a",
        "region": "n",
        "store": "s",
        "shop": "s",
    },
    **{
        "quantity": 1,
        "unit_price": 2,
        "kind": "view",
        "what": {"kind": "cart"},
        "item": {"code": "c", "qty": 2},
    },
}
MUTATED = st.dictionaries(NAMES, ANY, max_size=2).map(
    lambda over: GOOD | over
) | st.fixed_dictionaries(
    {},
    optional={
        "event_time": TIMES,
        "quantity": NUMBERS,
        "unit_price": NUMBERS,
        "lines": LINES,
        "sku": TEXT,
    },
).map(lambda over: GOOD | over)
TEXTS = MUTATED.map(lambda record: json.dumps(record).encode())
DROPPED = st.tuples(TEXTS, st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)).map(
    lambda cut: cut[0][: cut[1]] + cut[3] + cut[0][cut[1] + cut[2] :]
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["orders", "clicks"]), st.sampled_from(ALL_EVENTS), TEXTS | DROPPED)
@example("orders", EventSettings(), order()[:-1] + b', "sku": 5, "sku": "b"}')
@example("orders", EventSettings(), order()[:-1] + b', "sku": 5}')
@example("orders", EventSettings(), order()[:-1] + b', "x": NaN}')
@example("orders", EventSettings(), order()[:-1] + b', "x": 1e999}')
@example("orders", EventSettings(), order()[:-1] + b', "quantity": 1e999}')
@example("orders", EventSettings(), order()[:-1] + b', "unit_price": -1e301}')
@example("orders", EventSettings(), order()[:-1] + b', "x": "\\ud800"}')
@example("orders", EventSettings(), order()[:-1] + b', "x": "\\ud83d\\ude00"}')
@example("orders", EventSettings(), b"\xef\xbb\xbf" + order())
@example("orders", EventSettings(), order()[:-1] + b', "x": "\xff"}')
@example("orders", EventSettings(), order()[:-1] + b', "x": 1' + b"0" * 5_000 + b"}")
@example("orders", EventSettings(), order()[:-1] + b', "x": ' + b"[" * 62 + b"]" * 62 + b"}")
@example("orders", EventSettings(), order()[:-1] + b', "x": ' + b"[" * 63 + b"]" * 63 + b"}")
@example("orders", EventSettings(), order()[:-1] + b', "x": ' + b"[" * 64 + b"]" * 64 + b"}")
@example("orders", EventSettings(), order()[:-1] + b', "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}")
@example("orders", EventSettings(), order()[:-1] + b', "x": "' + b"[" * 100 + b'"}')
@example("orders", EventSettings(), order()[:-1] + b', "lines": []}')
@example("orders", EventSettings(), order()[:-1] + b', "lines": [null]}')
@example("orders", MAPPED, order()[:-1] + b', "item": null, "shop": "s"}')
@example(
    "orders", MAPPED, order()[:-1] + b', "item": {"code": "x"}, "item": {"qty": 2}, "shop": "s"}'
)
def test_the_recount_and_the_decoder_read_every_record_alike(
    kind: Kind, events: EventSettings, value: bytes
) -> None:
    decoded, _ = FormatDecoder(kind, Settings(events=events)).decode([value], [None])
    try:
        event = read_event(kind, None, value, Settings(events=events))
    except BadRecordError as error:
        assert decoded.refusals, f"the recount alone refuses: {error}"
        return
    assert not decoded.refusals, f"the decoder alone refuses: {decoded.refusals[0]}"
    assert decoded.event_hash.tolist() == [xxhash.xxh3_64_intdigest(event.event_id.encode())]
    assert decoded.event_time_ms.tolist() == [event.event_time_ms]
    assert decoded.line_item == [line.item_id for line in event.lines]
    if kind == "clicks":
        amounts = [{CHANNELS[channel]: 1} for channel in decoded.channel.tolist()]
    else:
        amounts = [
            added_by(*line) for line in zip(decoded.quantity, decoded.unit_price, strict=True)
        ]
    assert [line.amounts for line in event.lines] == amounts


def added_by(quantity: float, unit_price: float) -> dict[str, int]:
    """What a line adds, by the rule as it is written: exact, and without what is 0."""
    thousandths = int(Decimal(quantity * 1_000).quantize(1, ROUND_HALF_EVEN))
    price = int(Decimal(unit_price * 10_000).quantize(1, ROUND_HALF_EVEN))
    if quantity < 0:
        return {"returns": -thousandths} if thousandths else {}
    revenue = int((Decimal(thousandths * price) / 1_000).quantize(1, ROUND_HALF_UP))
    added = {"units": thousandths, "revenue": revenue, "orders": 1}
    return {channel: amount for channel, amount in added.items() if amount}


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"1", b"\xff", b"{}" + b" " * 1_000_000])
def test_what_is_no_record_at_all_is_a_dead_letter(value: bytes | None) -> None:
    with pytest.raises(BadRecordError):
        read_event("orders", None, value, Settings())
