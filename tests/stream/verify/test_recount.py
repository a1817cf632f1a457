"""The recount's own numbers, by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from freshet.stream.config import Resolution, Settings, WindowSettings
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
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
    assert +recount.books == {"read": 6, "applied": 5, "dead_letter": 1}


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


def test_each_resolution_retains_as_many_buckets_as_are_configured_for_it() -> None:
    recount = Recount("orders", SETTINGS)
    assert recount.oldest_bucket(1_000) is None
    recount.take(None, order("e1", T0), T0)
    # The watermark is a second before: 101 seconds end at most 100 of them before it; 10 hours.
    assert recount.oldest_bucket(1_000) == T0 // 1_000 - 101
    assert recount.oldest_bucket(HOUR_MS) == T0 // HOUR_MS - 10


def test_a_record_is_a_duplicate_by_the_watermark_before_it_however_far_it_moves_it() -> None:
    recount = Recount("orders", SETTINGS)
    far_ms = T0 + HOUR_MS
    assert recount.take(None, order("e1", T0), T0) == "applied"
    assert recount.take(None, order("e1", far_ms), far_ms) == "duplicate"
    assert recount.take(None, order("e1", far_ms), far_ms) == "applied"
    assert (recount.frontier_ms, recount.last_event_ms) == (far_ms, far_ms)


def test_a_duplicate_that_says_otherwise_is_counted_apart() -> None:
    recount = Recount("orders", SETTINGS)
    said = [
        order("e1", T0),
        order("e1", T0),
        order("e1", T0 + 1),
        order("e1", T0).replace(b'"a"', b'"b"'),
    ]
    assert [recount.take(None, value, T0) for value in said] == ["applied", *["duplicate"] * 3]
    assert (recount.books["duplicate"], recount.books["conflicting"]) == (3, 2)


def test_a_redriven_record_is_never_late_moves_no_frontier_and_counts_once_for_its_header() -> None:
    recount = Recount("orders", SETTINGS)
    old_ms = T0 - HOUR_MS
    verdicts = [
        recount.take(None, order("e1", T0), T0),
        recount.take(None, order("late", old_ms), T0),
        recount.take(None, order("late", old_ms), T0, b"orders-0-1"),
        recount.take(None, order("other", old_ms), T0, b"orders-0-1"),
        recount.take(None, order("e1", T0), T0, b"orders-0-2"),
        recount.take(None, order("ahead", T0 + 4_000), T0, b"orders-0-3"),
        recount.take(None, order("future", T0 + 5_001), T0, b"orders-0-4"),
        recount.take(None, order("again", T0 + 5_000), T0, b"orders-0-4"),
    ]
    assert verdicts == [
        *("applied", "late_dropped", "applied", "duplicate", "duplicate"),
        *("applied", "dead_letter", "applied"),
    ]
    assert +recount.books == {
        "read": 8,
        "applied": 4,
        "late_dropped": 1,
        "duplicate": 2,
        "dead_letter": 1,
    }
    times_ms = (recount.origin_ms, recount.frontier_ms)
    assert times_ms == (T0, T0), "the redriven ones leave it alone"
    assert (recount.first_event_ms, recount.last_event_ms) == (old_ms, T0 + 5_000)
    hour = T0 // HOUR_MS
    units = {at: n for (at, _, name), n in recount.cells(HOUR_MS).items() if name == "units"}
    assert units == {hour - 1: 2_000, hour: 6_000}
    seconds = {bucket for bucket, _, _ in recount.cells(1_000)}
    assert old_ms // 1_000 not in seconds, "the second of it is no longer retained"


def test_a_redriven_record_before_all_others_leaves_where_the_windows_began_open() -> None:
    recount = Recount("orders", SETTINGS)
    assert recount.take(None, order("e1", T0), T0, b"orders-0-1") == "applied"
    assert (recount.origin_ms, recount.frontier_ms, recount.first_event_ms) == (None, None, T0)
    assert recount.take(None, order("e1", T0), T0, b"orders-0-2") == "duplicate"
    assert recount.take(None, order("e2", T0 + 900), T0) == "applied"
    assert recount.take(None, order("e3", T0 + 300), T0) == "applied"
    assert (recount.origin_ms, recount.frontier_ms) == (T0 + 900, T0 + 900)


def test_days_are_the_shops_own_and_leave_with_its_midnights() -> None:
    windows = WindowSettings(
        out_of_order_ms=1_000,
        allowed_lateness_ms=MINUTE_MS,
        resolutions=(
            Resolution(resolution_ms=HOUR_MS, buckets=10),
            Resolution(resolution_ms=DAY_MS, buckets=2),
        ),
    )
    berlin = Settings(
        windows=windows,
        calendar={"time_zone": "Europe/Berlin"},
        worker={"resolution_ms": HOUR_MS},
    )
    recount = Recount("orders", berlin)
    # 2026-03-28T23:30Z is the 29th in Berlin, a day of 23 hours, that ends at 22:00Z; day 20,541.
    late_ms = 20_540 * DAY_MS + 23 * HOUR_MS + HOUR_MS // 2
    recount.take(None, order("e0", late_ms - HOUR_MS), late_ms - HOUR_MS)
    recount.take(None, order("e1", late_ms), late_ms)
    assert {bucket for bucket, _, _ in recount.cells(DAY_MS)} == {20_540, 20_541}
    assert {bucket for bucket, _, _ in recount.cells(HOUR_MS)} == {
        20_540 * 24 + 22,
        20_540 * 24 + 23,
    }
    # It is retained until the watermark is two days after its end.
    leaves_ms = 20_541 * DAY_MS + 22 * HOUR_MS + 2 * DAY_MS + 1_000
    recount.take(None, order("e2", leaves_ms - 1), leaves_ms - 1)
    assert recount.oldest_bucket(DAY_MS) == 20_541
    recount.take(None, order("e3", leaves_ms), leaves_ms)
    assert recount.oldest_bucket(DAY_MS) == 20_542


def test_what_is_over_is_looked_for_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freshet.stream.verify.recount.CLEAN_UP_EVERY", 3)
    looked: list[int] = []
    monkeypatch.setattr(Recount, "_clean_up", lambda self: looked.append(self.books["read"]))
    recount = Recount("orders", SETTINGS)
    for n in range(8):
        recount.take(None, order(f"e{n}"), T0)
    assert looked == [3, 6]


def test_what_is_freed_now_and_then_can_no_longer_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freshet.stream.verify.recount.CLEAN_UP_EVERY", 3)
    recount = Recount("orders", SETTINGS)
    far_ms = T0 + 101_000
    # In T0's bucket and minute; the minute makes duplicates until the watermark is T0 + 120,000.
    recount.take(None, order("e1", T0), T0)
    recount.take(None, order("e2", far_ms), far_ms)
    recount.take(None, order("e3", far_ms + 999), far_ms)
    assert (T0 // 1_000, "a|n", "units") in recount.cells(1_000), "retained by a millisecond"
    assert recount.take(None, order("e1", far_ms), far_ms) == "duplicate"
    later_ms = T0 + 121_000
    recount.take(None, order("e4", later_ms), later_ms)
    recount.take(None, order("e5", later_ms), later_ms)
    # Freed are T0's second and minute; those of e2 and of all after it are still there.
    seconds = sorted(recount._sums[1_000])
    assert seconds == [far_ms // 1_000, later_ms // 1_000]
    assert len(recount._applied) == 4
    assert recount.take(None, order("e2", later_ms), later_ms) == "duplicate"
    assert recount.take(None, order("e1", later_ms), later_ms) == "applied"
    units = {at: n for (at, _, name), n in recount.cells(HOUR_MS).items() if name == "units"}
    assert units == {T0 // HOUR_MS: 12_000}


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


# Producers' clocks --------------------------------------------------------------------------------


def test_where_producers_stamp_records_the_third_largest_time_is_the_frontier() -> None:
    recount = Recount("orders", SETTINGS, "CreateTime")
    for n, ahead_ms in enumerate([0, 500, 300, DAY_MS, 700]):
        at_ms = T0 + ahead_ms
        assert recount.take(None, order(f"e{n}", at_ms), at_ms) == "applied"
    assert (recount.origin_ms, recount.frontier_ms) == (T0, T0 + 300)
    assert recount.frontier.largest == [T0 + 700, T0 + 500, T0 + 300]
    year_ms = T0 + 365 * DAY_MS
    assert recount.take(None, order("wild", year_ms), year_ms) == "dead_letter"
    assert recount.frontier.row == [year_ms]


# History ------------------------------------------------------------------------------------------


def test_history_is_never_late_moves_no_frontier_and_counts_each_sequence_once() -> None:
    recount = Recount("orders", SETTINGS)
    recount.take(None, order("e1", T0), T0)
    old_ms = T0 - HOUR_MS

    def load(event_id: str, mark: bytes, redrive: bytes | None = None) -> str:
        return recount.take(None, order(event_id, old_ms), T0, redrive, mark)

    assert [load("h1", b"a:1"), load("h3", b"a:3"), load("h2", b"a:2")] == [
        *("applied", "applied", "duplicate")
    ]
    assert [load("h4", b"b:0"), load("h5", b"a"), load("h6", b"a:complete")] == [
        *("applied", "dead_letter", "dead_letter")
    ]
    assert load("h2", b"a:2", b"orders-0-9") == "applied", "a person sends it again"
    assert recount.take(None, order("h7", T0 + DAY_MS), T0, None, b"b:1") == "applied"
    assert not recount.loads.complete
    assert recount.take(None, b"", T0, None, b"a:complete") == "skipped"
    assert recount.loads.complete and recount.loads.highest == {b"a": 3, b"b": 1}
    assert (recount.frontier_ms, recount.origin_ms) == (T0, T0)


@pytest.mark.parametrize("stamps", ["CreateTime", "LogAppendTime"])
def test_a_log_that_begins_with_history_has_come_to_where_history_ends(stamps: str) -> None:
    windows = SETTINGS.windows.model_copy(update={"history_before": T0})
    recount = Recount("orders", SETTINGS.model_copy(update={"windows": windows}), stamps)
    assert (recount.frontier_ms, recount.origin_ms) == (T0, T0)
    late_ms = T0 - HOUR_MS
    assert recount.take(None, order("e1", late_ms), T0) == "late_dropped"
    assert recount.take(None, order("e1", late_ms), T0, None, b"a:0") == "applied"
    first_ms = T0 + 8 * DAY_MS
    assert recount.take(None, order("e2", first_ms), first_ms) == "applied", "live began a week on"
