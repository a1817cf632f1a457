"""Stored versions against a log, by hand: what is planted is found, what has left is not missed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from freshet.stream.schemas import ShopTable
from freshet.stream.verify.report import PartitionReport, Report
from freshet.stream.verify.table import StoredTable, TableRecount, Told

KEPT_MS = 100
DEAD = Told(b"a", None, 30, dead=True)


def entry(price: float, at_ms: int, key: bytes = b"a", **fields: Any) -> Told:
    return Told(key, json.dumps({"sku": "a", "unit_price": price, **fields}).encode(), at_ms)


LOG = {0: entry(1, 10), 2: Told(b"b", b'{"sku": "b"}', 20), 3: entry(-1, 30), 5: entry(2, 40)}
STORED = StoredTable(
    header={
        "next_offset": "6",
        "read": "4",
        "applied": "3",
        "dead_letter": "1",
        "versions": "4",
        "frontier_ms": "40",
    },
    versions={**LOG, 3: DEAD},
    newest={b"a": b"40:5", b"b": b"20:2"},
)


def differences(
    stored: StoredTable, log: dict[int, Told] = LOG, table: ShopTable = "catalog"
) -> list[str]:
    part, report = PartitionReport("shop", 0, 0, 6), Report(0)
    report.tables.append(part)
    TableRecount(table, KEPT_MS).compare(stored, log, part, report)
    assert report.differences == len(report.shown)
    return [difference.what for difference in report.shown]


def stored(without: tuple[int, ...] = (), **header: int) -> StoredTable:
    """What is stored, with fewer versions, and other numbers in the header."""
    versions = {offset: told for offset, told in STORED.versions.items() if offset not in without}
    numbers = {"versions": len(versions), **header}
    texts = {name: str(value) for name, value in numbers.items()}
    return StoredTable({**STORED.header, **texts}, versions, STORED.newest)


def test_what_agrees_has_no_difference() -> None:
    assert differences(STORED) == []


@pytest.mark.parametrize("offset", [0, 2, 5])
def test_a_version_that_is_missing_is_found(offset: int) -> None:
    assert differences(stored((offset,))) == [f"the record at offset {offset}"]


@pytest.mark.parametrize(
    "other",
    [
        LOG[0]._replace(value=b'{"sku": "a", "unit_price": 7}'),
        LOG[0]._replace(value=None),
        LOG[0]._replace(timestamp_ms=11),
        LOG[0]._replace(key=b"c"),
    ],
)
def test_a_version_that_is_otherwise_is_found(other: Told) -> None:
    found = differences(replace(STORED, versions={**STORED.versions, 0: other}))
    assert found[0] == "the record at offset 0"


def test_a_bad_record_that_is_stored_as_a_version_is_found() -> None:
    found = differences(replace(STORED, versions=LOG))
    assert found == ["the record at offset 3"]


def test_a_version_behind_the_headers_offset_or_of_no_record_is_found() -> None:
    beyond = {**STORED.versions, 9: entry(3, 50)}
    assert "the record at offset 9" in differences(replace(STORED, versions=beyond))
    invented = {**STORED.versions, 4: entry(3, 35, b"c")}
    newest = {**STORED.newest, b"c": b"35:4"}
    header = {**STORED.header, "versions": "5"}
    assert differences(StoredTable(header, invented, newest)) == ["the record at offset 4"]


@pytest.mark.parametrize(
    ("name", "number"), [("read", 5), ("applied", 4), ("versions", 3), ("frontier_ms", 39)]
)
def test_a_header_that_says_otherwise_is_found(name: str, number: int) -> None:
    header = {**STORED.header, name: str(number)}
    found = differences(replace(STORED, header=header))
    assert found == [name if name != "applied" else "read"]


def test_another_newest_of_a_key_is_found() -> None:
    for newest in ({b"a": b"10:0", b"b": b"20:2"}, {b"a": b"40:5"}):
        (found,) = differences(replace(STORED, newest=newest))
        assert found.startswith("the newest of")


# Reasons to be missing ----------------------------------------------------------------------------


def test_what_compaction_took_from_the_log_is_not_missed() -> None:
    log = {offset: told for offset, told in LOG.items() if offset not in (0, 3)}
    assert differences(STORED, log) == []
    # Nothing came after it, so compaction cannot have taken it.
    del log[2]
    assert differences(STORED, log) == ["the record at offset 2"]


@pytest.mark.parametrize(("frontier_ms", "missed"), [(139, True), (140, False)])
def test_what_was_superseded_before_anybody_may_ask_may_have_left(
    frontier_ms: int, missed: bool
) -> None:
    # 0 was superseded at 40.
    found = differences(stored((0,), frontier_ms=frontier_ms))
    assert found == (["the record at offset 0"] if missed else [])
    assert differences(stored((5,), frontier_ms=10**9)) == ["the record at offset 5"]


@pytest.mark.parametrize(("frontier_ms", "missed"), [(149, True), (150, False)])
def test_what_a_late_record_superseded_may_leave_when_that_came_long_ago(
    frontier_ms: int, missed: bool
) -> None:
    log = {0: entry(1, 10), 5: entry(2, 50, announced_at=20)}
    numbers = {"frontier_ms": str(frontier_ms), "versions": "1", "read": "2", "applied": "2"}
    header = {**STORED.header, **numbers, "dead_letter": "0"}
    found = differences(StoredTable(header, {5: log[5]}, {b"a": b"20:5"}), log)
    assert found == ["the record at offset 0"] * missed


def test_what_left_early_since_there_were_too_many_is_not_missed() -> None:
    assert differences(stored((0,), dropped_until_ms=39)) == ["the record at offset 0"]
    assert differences(stored((0,), dropped_until_ms=40)) == []


@pytest.mark.parametrize(("frontier_ms", "missed"), [(129, True), (130, False)])
def test_the_mark_of_a_dead_letter_leaves_by_its_own_time(frontier_ms: int, missed: bool) -> None:
    found = differences(stored((3,), frontier_ms=frontier_ms))
    assert found == (["the record at offset 3"] if missed else [])


def test_a_tombstone_leaves_after_what_it_superseded() -> None:
    log = {0: entry(1, 10), 1: Told(b"a", None, 20)}
    header = {"next_offset": "2", "read": "2", "applied": "2", "versions": "0"}
    gone = StoredTable({**header, "frontier_ms": "121"}, {}, {})
    assert differences(gone, log) == []
    too_soon = StoredTable({**header, "frontier_ms": "120"}, {}, {})
    assert differences(too_soon, log) == ["the record at offset 1"]


def test_stock_is_superseded_by_its_own_time_and_others_by_their_announcement() -> None:
    def level(as_of: Any, at_ms: int) -> Told:
        return Told(b"a", json.dumps({"sku": "a", "on_hand": 1, "as_of": as_of}).encode(), at_ms)

    log = {0: level("1970-01-01T00:00:00.050Z", 90), 1: level(40, 91)}
    header = {"next_offset": "2", "read": "2", "applied": "2", "versions": "2"}
    header["frontier_ms"] = "91"
    assert differences(StoredTable(header, log, {b"a": b"50:0"}), log, "inventory") == []
    said = {0: entry(1, 90, announced_at=50), 1: entry(2, 91, announced_at=40)}
    assert differences(StoredTable(header, said, {b"a": b"50:0"}), said) == []


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        ("promotions", {"promotion_id": "p", "starts_at": 5, "ends_at": 5, "discount": 0.1}),
        ("promotions", {"promotion_id": "p", "starts_at": 5, "ends_at": 6, "discount": 1.5}),
        ("covariates", {"covariate_id": "c", "name": "closed", "starts_at": 9, "ends_at": 6}),
        ("inventory", {"sku": "a", "on_hand": 1}),
        ("inventory", {"sku": "a", "on_hand": 1, "as_of": "noon"}),
        ("catalog", {"title": "no sku"}),
        ("catalog", []),
    ],
)
def test_what_plainly_is_no_record_of_its_table(table: ShopTable, fields: Any) -> None:
    log = {0: Told(b"k", json.dumps(fields).encode(), 10)}
    header = {"next_offset": "1", "read": "1", "dead_letter": "1", "versions": "1"}
    marked = StoredTable(header, {0: Told(b"k", None, 10, dead=True)}, {})
    assert differences(marked, log, table) == []
    kept = StoredTable({**header, "frontier_ms": "10"}, log, {})
    assert differences(kept, log, table) == ["the record at offset 0"]
