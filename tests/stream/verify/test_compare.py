"""Each thing that is compared is broken once, and then it, and it alone, is found."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from freshet.stream.config import Resolution, Settings, WindowSettings
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header
from freshet.stream.store.tiles import CHUNK_ITEMS, encode
from freshet.stream.units import MINUTE_MS
from freshet.stream.verify.compare import compare
from freshet.stream.verify.recount import Recount
from freshet.stream.verify.report import Difference, PartitionReport, Report
from freshet.stream.verify.snapshot import Snapshot

T0 = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS
SECOND = T0 // 1_000
SETTINGS = Settings(
    windows=WindowSettings(
        out_of_order_ms=1_000,
        allowed_lateness_ms=MINUTE_MS,
        max_future_ms=5_000,
        resolutions=(Resolution(resolution_ms=1_000, buckets=10),),
    ),
    worker={"resolution_ms": 1_000},
)
# What the log below comes to, by hand: no two numbers are the same but those of the first and the
# third line of sales.
HEADER = Header(
    first_offset=0,
    next_offset=14,
    origin_ms=T0 + 500,
    first_event_ms=T0 + 100,
    frontier_ms=T0 + 900,
    last_event_ms=T0 + 2_000,
    read=14,
    applied=4,
    duplicate=2,
    late_dropped=5,
    dead_letter=3,
    conflicting=1,
    items=2,
)
CELLS = {
    (SECOND, 0): {"units": (4_000, 2_000), "revenue": (399_600, 199_800), "orders": (2, 1)},
    (SECOND + 2, 0): {"units": (2_000, 0), "revenue": (199_800, 0), "orders": (1, 0)},
}


def order(event_id: str, time_ms: int, sku: str = "a") -> bytes:
    event = {"event_id": event_id, "event_time": time_ms, "sku": sku, "region": "n"}
    return json.dumps(event | {"quantity": 2, "unit_price": 9.99}).encode()


def counted() -> Recount:
    recount = Recount("orders", SETTINGS)
    recount.take(None, order("e1", T0 + 500), T0)
    recount.take(None, order("e2", T0 + 100), T0)
    recount.take(None, order("e3", T0 + 900, sku="b"), T0)
    recount.take(None, order("e4", T0 + 2_000), T0, b"orders-0-1")
    for name in ("e1", "e2"):
        recount.take(None, order(name, T0 + 500), T0)
    for n in range(5):
        recount.take(None, order(f"late{n}", T0 - 60_101), T0)
    for _ in range(3):
        recount.take(None, b"broken", T0)
    return recount


def tile(cells: dict[str, tuple[int, ...]]) -> bytes:
    values_CN = np.zeros((len(CHANNELS), 2), np.int64)
    for channel, amounts in cells.items():
        values_CN[CHANNELS.index(channel), : len(amounts)] = amounts
    return encode(values_CN)


def stored(cells: dict[tuple[int, int], Any] = CELLS, **header: Any) -> Snapshot:
    tiles = {name: tile(amounts) for name, amounts in cells.items()}
    return Snapshot(Grid(1_000), replace(HEADER, **header), ["a|n", "b|n"], tiles)


def compared(snapshot: Snapshot) -> tuple[Report, PartitionReport]:
    part = PartitionReport("orders", 3, 0, 14, records=14)
    report = Report(generation=0, partitions=[part])
    compare(snapshot, counted(), part, report)
    return report, part


def test_equal_windows_have_no_differences() -> None:
    report, part = compared(stored())
    assert report.shown == [] and report.agrees
    assert part.cells == 9
    assert report.as_text() == "windows and log agree: 9 cells from 14 records of 1 partitions"
    compare(stored(), counted(), part, report)
    assert part.cells == 18, "those of all resolutions are counted"


@pytest.mark.parametrize(
    ("field", "right"),
    [
        ("read", 14),
        ("applied", 4),
        ("duplicate", 2),
        ("late_dropped", 5),
        ("dead_letter", 3),
        ("skipped", 0),
        ("lines_dead", 0),
        ("conflicting", 1),
        ("origin_ms", T0 + 500),
        ("first_event_ms", T0 + 100),
        ("frontier_ms", T0 + 900),
        ("last_event_ms", T0 + 2_000),
        ("items", 2),
    ],
)
def test_one_wrong_field_of_the_header_is_found_and_it_alone(field: str, right: int) -> None:
    report, part = compared(stored(**{field: right + 1}))
    assert report.shown == [Difference("orders", 3, field, right + 1, right)]
    assert part.differences == 1 and not report.agrees


@pytest.mark.parametrize("field", ["origin_ms", "first_event_ms", "frontier_ms", "last_event_ms"])
def test_a_time_that_the_header_lost_is_found(field: str) -> None:
    report, _ = compared(stored(**{field: None}))
    assert [(found.what, found.stored) for found in report.shown] == [(field, None)]


@pytest.mark.parametrize("channel", CHANNELS)
def test_one_wrong_cell_of_any_channel_is_found_and_named(channel: str) -> None:
    amounts = CELLS[SECOND, 0]
    first, second = amounts.get(channel, (0, 0))
    wrong = CELLS | {(SECOND, 0): amounts | {channel: (first, second + 7)}}
    report, _ = compared(stored(wrong))
    place = ("b|n", 1_000, SECOND * 1_000)
    assert report.shown == [Difference("orders", 3, channel, second + 7, second, *place)]
    assert f"orders:3 'b|n' bucket {T0} of 1000 ms: {channel} is stored as" in report.as_text()


def test_a_tile_that_was_lost_is_found_cell_by_cell() -> None:
    report, part = compared(stored({(SECOND, 0): CELLS[SECOND, 0]}))
    found = {(one.what, one.stored, one.recounted, one.bucket_start_ms) for one in report.shown}
    lost_ms = T0 + 2_000
    assert found == {
        ("units", 0, 2_000, lost_ms),
        ("revenue", 0, 199_800, lost_ms),
        ("orders", 0, 1, lost_ms),
    }
    assert part.cells == 9


def test_a_tile_that_should_not_be_there_is_found() -> None:
    report, part = compared(stored(CELLS | {(SECOND + 1, 0): {"returns": (0, 250)}}))
    place = ("b|n", 1_000, T0 + 1_000)
    assert report.shown == [Difference("orders", 3, "returns", 250, 0, *place)]
    assert part.cells == 9, "only what the log gives is counted as compared"


def test_what_is_no_longer_retained_may_be_stored_or_gone() -> None:
    # The watermark is T0 - 100: of ten seconds and the one that is open, this is the last to stay.
    oldest = SECOND - 11
    gone = CELLS | {(oldest - 1, 0): {"units": (1, 0)}}
    assert compared(stored(gone))[0].agrees
    kept = CELLS | {(oldest, 0): {"units": (1, 0)}}
    assert [found.bucket_start_ms for found in compared(stored(kept))[0].shown] == [oldest * 1_000]


def test_the_first_item_in_a_wrong_slot_is_named_and_its_cells_are_no_ones() -> None:
    report, _ = compared(replace(stored(), item_ids=["b|n", "a|n"]))
    named = [found for found in report.shown if found.item_id is None]
    assert named == [Difference("orders", 3, "item in slot 0", "b|n", "a|n")]
    # Orders and revenue of both, and units: 2 x 3 cells of the first second and 2 x 3 of the last.
    assert sum(found.item_id is not None for found in report.shown) == 12


def test_an_item_too_many_is_told_by_the_number_of_items() -> None:
    report, _ = compared(replace(stored(items=3), item_ids=["a|n", "b|n", "c|n"]))
    assert report.shown == [Difference("orders", 3, "items", 3, 2)]


def test_cells_are_named_by_their_chunk_and_slot_and_one_without_an_item_says_so() -> None:
    values_CN = np.zeros((len(CHANNELS), 3), np.int64)
    values_CN[CHANNELS.index("views"), 1] = 6
    values_CN[CHANNELS.index("carts"), 2] = 9
    item_ids = [f"s{n}" for n in range(CHUNK_ITEMS + 2)]
    tiles = {(4, 1): encode(values_CN), (5, 0): None, (3, 0): encode(values_CN)}
    snapshot = Snapshot(Grid(1_000), HEADER, item_ids, tiles)
    last = CHUNK_ITEMS + 1
    assert snapshot.cells(4) == {
        (4, f"s{last}", "views"): 6,
        (4, f"(no item in slot {last + 1})", "carts"): 9,
    }
    assert snapshot.cells(None).keys() - snapshot.cells(4).keys() == {
        (3, "s1", "views"),
        (3, "s2", "carts"),
    }
