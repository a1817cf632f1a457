"""The recount: its own numbers by hand, and its reading of records against the decoder's."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from freshet.stream.config import EventSettings, Resolution, Settings, WindowSettings
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.schemas import CHANNELS
from freshet.stream.units import HOUR_MS, MINUTE_MS
from freshet.stream.verify.event import BadRecordError, Kind, read_event
from freshet.stream.verify.recount import Recount
from freshet.stream.verify.report import PartitionReport, Report

T0 = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS
WINDOWS = WindowSettings(
    out_of_order_ms=1_000,
    allowed_lateness_ms=MINUTE_MS,
    max_future_ms=5_000,
    resolutions=(
        Resolution(resolution_ms=HOUR_MS, buckets=10),
        Resolution(resolution_ms=1_000, buckets=100),
    ),
)
SETTINGS = Settings(windows=WINDOWS)


def order(event_id: str = "e1", time_ms: int | str = T0, **over: Any) -> bytes:
    fields = {
        "event_id": event_id,
        "event_time": time_ms,
        "sku": "a",
        "region": "n",
        "quantity": 2,
        "unit_price": 9.99,
    }
    return json.dumps({**fields, **over}).encode()


def test_units_revenue_orders_and_returns_are_counted_in_their_buckets() -> None:
    recount = Recount("orders", SETTINGS)
    assert recount.take(None, order("e1"), T0) == "applied"
    assert (
        recount.take(None, order("e2", T0 + 1_500, quantity=1.5, unit_price=0.5), T0 + 1_500)
        == "applied"
    )
    assert recount.take(None, order("e3", T0 + 1_600, quantity=-3), T0 + 1_600) == "applied"
    bucket = T0 // 1_000
    assert recount.cells(1_000) == {
        (bucket, "a|n", "units"): 2_000,
        (bucket, "a|n", "revenue"): 199_800,
        (bucket, "a|n", "orders"): 1,
        (bucket + 1, "a|n", "units"): 1_500,
        (bucket + 1, "a|n", "revenue"): 7_500,
        (bucket + 1, "a|n", "orders"): 1,
        (bucket + 1, "a|n", "returns"): 3_000,
    }
    assert recount.cells(HOUR_MS)[T0 // HOUR_MS, "a|n", "units"] == 3_500


def test_a_whole_order_counts_each_line_and_takes_the_region_from_above() -> None:
    recount = Recount("orders", SETTINGS)
    lines = [
        {"sku": "x", "quantity": 1, "unit_price": 0},
        {"sku": "y|z", "region": "s", "quantity": 4, "unit_price": 1},
    ]
    value = json.dumps({"event_id": "o", "event_time": T0, "region": "n", "lines": lines}).encode()
    assert recount.take(b"k", value, T0) == "applied"
    assert list(recount.item_ids) == ["x|n", "y\\|z|s"]
    assert recount.cells(1_000)[T0 // 1_000, "y\\|z|s", "revenue"] == 40_000
    assert (T0 // 1_000, "x|n", "revenue") not in recount.cells(1_000)


def test_clicks_count_by_kind() -> None:
    recount = Recount("clicks", SETTINGS)
    for n, kind in enumerate(["view", "view", "cart", "favourite", "checkout", "hover"]):
        value = {"event_id": str(n), "event_time": T0, "sku": "a", "region": "n", "kind": kind}
        recount.take(None, json.dumps(value).encode(), T0)
    at = T0 // 1_000
    assert {channel: n for (_, _, channel), n in recount.cells(1_000).items()} == {
        "views": 2,
        "carts": 1,
        "favourites": 1,
        "checkouts": 1,
    }
    assert recount.cells(1_000)[at, "a|n", "views"] == 2
    assert recount.books == {"read": 6, "applied": 5, "dead_letter": 1}


def test_future_late_and_duplicate_are_judged_in_order_with_the_watermark_before_the_record() -> (
    None
):
    recount = Recount("orders", SETTINGS)
    verdicts = [
        recount.take(None, order("e1", T0), T0),
        recount.take(None, order("e1", T0), T0),
        recount.take(None, order("f", T0 + 5_001), T0),
        recount.take(None, order("g", T0 + 5_000), T0),
        recount.take(None, order("h", T0 + 200_000), T0 + 200_000),
        recount.take(None, order("i", T0 + 139_000), T0 + 200_000),
        recount.take(None, order("j", T0 + 138_999), T0 + 200_000),
        recount.take(None, order("e1", T0 + 200_000), T0 + 200_000),
        recount.take(None, order("e1", T0 + 200_000), T0 + 200_000),
    ]
    assert verdicts == [
        *("applied", "duplicate", "dead_letter", "applied", "applied", "applied", "late_dropped"),
        *("applied", "duplicate"),
    ]
    assert recount.frontier_ms == T0 + 200_000 and recount.first_event_ms == T0


def test_a_hash_makes_duplicates_until_its_minutes_end_plus_lateness_is_the_watermark() -> None:
    for ahead_ms, verdict in ((121_000 - 1, "duplicate"), (121_000, "applied")):
        recount = Recount("orders", SETTINGS)
        recount.take(None, order("e", T0), T0)
        recount.take(None, order("other", T0 + ahead_ms), T0 + ahead_ms)
        assert recount.take(None, order("e", T0 + ahead_ms), T0 + ahead_ms) == verdict


def test_only_retained_buckets_are_compared() -> None:
    recount = Recount("orders", SETTINGS)
    recount.take(None, order("a", T0), T0)
    recount.take(None, order("b", T0 + 101_999), T0 + 101_999)
    assert recount.oldest_bucket(1_000) == T0 // 1_000
    assert len(recount.cells(1_000)) == 6
    recount.take(None, order("c", T0 + 102_000), T0 + 102_000)
    assert recount.oldest_bucket(1_000) == T0 // 1_000 + 1
    assert {bucket for bucket, _, _ in recount.cells(1_000)} == {
        T0 // 1_000 + 101,
        T0 // 1_000 + 102,
    }


def test_an_order_whose_items_do_not_fit_the_dictionary_is_a_dead_letter() -> None:
    small = Settings(windows=WINDOWS.model_copy(update={"max_items_per_partition": 2}))
    recount = Recount("orders", small)
    verdicts = [recount.take(None, order(sku, sku=sku), T0) for sku in ("a", "b", "c", "a2", "b")]
    assert verdicts == ["applied", "applied", "dead_letter", "dead_letter", "duplicate"]
    assert recount.take(None, order("new", sku="a"), T0) == "applied"


# Reading a record ---------------------------------------------------------------------------------

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
    decoded = EventDecoder(kind, events).decode([value], [None])
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
        read_event("orders", None, value, SETTINGS)


def test_a_key_beyond_256_bytes_is_a_dead_letter() -> None:
    read_event("orders", b"k" * 256, order(), SETTINGS)
    with pytest.raises(BadRecordError, match="key"):
        read_event("orders", b"k" * 257, order(), SETTINGS)


# Reporting ----------------------------------------------------------------------------------------


def test_nothing_to_compare_and_a_lost_log_are_not_agreement() -> None:
    assert not Report(generation=4).agrees
    assert "generation 4" in Report(generation=4).as_text()
    gone = Report(
        0,
        [PartitionReport("orders", 0, 0, 9, log_missing="the log starts at 5, the state needs 0")],
    )
    assert not gone.agrees
    assert gone.as_text().startswith(
        "the log is gone: orders:0: the log starts at 5, the state needs 0"
    )
