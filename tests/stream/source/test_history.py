"""What is sent of history, to which partition, with which sequence, and what of it not again."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freshet.stream.config import Settings, WindowSettings
from freshet.stream.errors import ConfigError, InvalidInputError
from freshet.stream.event_settings import EventSettings
from freshet.stream.files.read import FileStyle
from freshet.stream.source import history
from freshet.stream.source.history import (
    History,
    OldRecord,
    in_zone_of,
    load,
    load_name,
    need_history_before,
    of_file,
)

ORDERS, CLICKS = "freshet.orders.v1", "freshet.clicks.v1"


class Sent:
    """A publisher that keeps what it is given; a flush marks what came before it."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes | None, bytes | None, int, dict[str, bytes]]] = []
        self.flushed = 0

    def produce(self, topic: str, value: bytes | None, **how: Any) -> None:
        headers = dict(how.get("headers") or [])
        self.records.append((topic, how.get("key"), value, how.get("partition", -1), headers))

    def flush(self) -> None:
        self.flushed = len(self.records)

    def close(self) -> None:
        pass


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    publisher = Sent()
    monkeypatch.setattr(history, "Publisher", lambda settings: publisher)
    monkeypatch.setattr(history, "partitions_of", lambda *_: {ORDERS: 2, CLICKS: 1})
    monkeypatch.setattr(history, "_judged", lambda *_: {ORDERS: 4, CLICKS: -1})
    return publisher


def test_every_record_is_sent_with_its_sequence_and_then_every_partition_is_told(
    sent: Sent,
) -> None:
    records = [
        OldRecord(4, "orders", b"k", b"four"),
        OldRecord(5, "orders", b"k", b"five", (("trace", b"t"),)),
        OldRecord(6, "clicks", None, b"six"),
        OldRecord(7, "orders", None, b"seven"),
        OldRecord(8, "catalog", b"sku", b"eight"),
    ]
    done = load(Settings(), History("a file.csv", records, 5))
    assert (done.load, done.sent, done.known) == ("a-file.csv", 4, 1)
    mark = "freshet-history"
    assert sent.records == [
        (ORDERS, b"k", b"five", -1, {"trace": b"t", mark: b"a-file.csv:5"}),
        (CLICKS, None, b"six", 0, {mark: b"a-file.csv:6"}),
        (ORDERS, None, b"seven", 1, {mark: b"a-file.csv:7"}),
        ("freshet.catalog.v1", b"sku", b"eight", -1, {}),
        (ORDERS, None, b"", 0, {mark: b"a-file.csv:complete"}),
        (ORDERS, None, b"", 1, {mark: b"a-file.csv:complete"}),
        (CLICKS, None, b"", 0, {mark: b"a-file.csv:complete"}),
    ]
    assert sent.flushed == len(sent.records)


def test_a_load_with_more_to_come_is_not_said_to_be_complete(sent: Sent) -> None:
    records = [OldRecord(9, "orders", b"k", b"nine")]
    load(Settings(), History("f", records, 1), name="2024", complete=False)
    assert [one[2] for one in sent.records] == [b"nine"]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".jsonl.gz"])
def test_lines_are_sent_as_they_are_in_the_order_of_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"old{suffix}"
    text = b'{"id": 7, "at": 2}\r\n\n{"id": "x", "at": 1}\nnot json\n[1]\n'
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    found = of_file(path, kind="clicks", key="id")
    assert (found.name, found.total) == (path.name, 5)
    assert list(found.records) == [
        OldRecord(0, "clicks", b"7", b'{"id": 7, "at": 2}'),
        OldRecord(2, "clicks", b"x", b'{"id": "x", "at": 1}'),
        OldRecord(3, "clicks", None, b"not json"),
        OldRecord(4, "clicks", None, b"[1]"),
    ]


def test_a_table_is_read_as_a_replay_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("t,item,n\n2026-01-02T00:00:00Z,a,2\n2026-01-01T00:00:00Z,b,3\n")
    columns = {"event_time": "t", "sku": "item", "quantity": "n"}
    records = list(of_file(path, mapping=columns).records)
    assert [(one.sequence, one.kind, one.key) for one in records] == [
        (0, "orders", b"b"),
        (1, "orders", b"a"),
    ]


SHOPIFY_CSV = """\
Name,Email,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Cancelled at,Id
#1002,b@shop.example,2025-10-07 09:50:26 +0200,3,Masque,34.90,M-1,,7411
#1002,b@shop.example,,1,"Savon, 2 x 100 g",9.50,00123,,
#1001,a@shop.example,2025-10-06 23:00:00 +0200,2,Masque,34.90,M-1,,7410
#1003,c@shop.example,2025-10-08 10:00:00 +0200,1,Masque,34.90,M-1,2025-10-09 10:00:00 +0200,7412
#1003,c@shop.example,,1,Savon,9.50,00123,,
#1004,d@shop.example,2025-10-08 11:00:00 +0200,1,Carte,5.00,,,7413
"""
STATES = EventSettings.model_validate(
    {"series_by": ["sku"], "orders": {"mode": "state", "fields": {"order_id": "id"}}}
)
WITH_LINES = EventSettings.model_validate({"orders": {"fields": {"lines": "line_items"}}})


@pytest.mark.parametrize(
    ("events", "own"),
    [
        (STATES, lambda order_id, ms: {"order_id": order_id, "version": 0, "changed_at": ms}),
        (WITH_LINES, lambda order_id, ms: {"order_id": order_id, "event_id": order_id}),
    ],
    ids=["states", "whole orders"],
)
def test_rows_of_one_order_are_one_record_where_the_topic_has_whole_orders(
    tmp_path: Path, events: EventSettings, own: Callable[[str, int], dict[str, Any]]
) -> None:
    path = tmp_path / "orders_export.csv"
    path.write_text(SHOPIFY_CSV)
    found = of_file(path, preset="shopify_csv", events=events)
    records = list(found.records)
    keys = [(one.sequence, one.key) for one in records]
    assert keys == [(0, b"7410"), (1, b"7411"), (2, b"7413")]
    assert {one.headers for one in records} == {(("freshet-fields", b"own"),)}
    # 23:00 and 09:50:26 on a clock two hours ahead.
    at_ms = [1_759_784_400_000, 1_759_823_426_000, 1_759_914_000_000]
    masque = {"sku": "M-1", "unit_price": 34.9}
    lines = [
        [masque | {"quantity": 2}],
        [masque | {"quantity": 3}, {"sku": "00123", "quantity": 1, "unit_price": 9.5}],
        # What has no name is called as the map of live orders calls it.
        [{"sku": "no-sku", "quantity": 1, "unit_price": 5.0}],
    ]
    ids = ["7410", "7411", "7413"]
    for record, order_id, ms, own_lines in zip(records, ids, at_ms, lines, strict=True):
        assert record.value is not None
        expected = {**own(order_id, ms), "event_time": ms, "region": "-", "lines": own_lines}
        assert json.loads(record.value) == expected


def test_the_region_of_a_shopify_export_is_that_of_the_preset_for_webhooks(tmp_path: Path) -> None:
    path = tmp_path / "orders_export.csv"
    path.write_text(
        "Id,Created at,Lineitem quantity,Lineitem price,Lineitem sku,Billing Country,"
        "Shipping Country\n"
        "1,2025-10-07 09:00:00 +0200,1,2,a,DE,FR\n,,1,2,b,,\n"
        "2,2025-10-07 10:00:00 +0200,1,2,a,DE,\n"
        "3,2025-10-07 11:00:00 +0200,1,2,a,,\n"
    )
    found = of_file(path, preset="shopify_csv", events=STATES)
    said = [json.loads(one.value or b"") for one in found.records]
    assert [(one["region"], len(one["lines"])) for one in said] == [("FR", 2), ("DE", 1), ("-", 1)]


def test_a_series_of_other_fields_is_mapped_too(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("t,item,shop,o\n2026-01-02T00:00:00Z,a,north,7\n")
    columns = {"event_time": "t", "sku": "item", "order_id": "o"}
    flat = EventSettings(series_by=("sku", "store"))
    with pytest.raises(InvalidInputError, match=r"which column of sales.csv is 'store'"):
        of_file(path, mapping=columns, events=flat)
    whole = STATES.model_copy(update={"series_by": ("sku", "store")})
    for events in (flat, whole):
        found = of_file(path, mapping={**columns, "store": "shop"}, events=events)
        (record,) = found.records
        said = json.loads(record.value or b"")
        assert (said["lines"][0] if events is whole else said)["store"] == "north"


def test_a_preset_s_columns_may_be_added_to_and_fields_that_are_none_are_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orders_export.csv"
    path.write_text(SHOPIFY_CSV)
    found = of_file(path, preset="shopify_csv", mapping={"region": "Email"}, events=STATES)
    regions = [json.loads(one.value or b"")["region"] for one in found.records]
    assert regions == ["a@shop.example", "b@shop.example", "d@shop.example"]
    with pytest.raises(InvalidInputError, match="no field 'colour'"):
        of_file(path, mapping={"colour": "Name"})


def test_an_export_is_of_the_regions_that_live_orders_name(tmp_path: Path) -> None:
    path = tmp_path / "orders_export.csv"
    lines = SHOPIFY_CSV.splitlines()
    countries = ["Shipping Country", "FR", "", "DE", "FR", "", ""]
    path.write_text("\n".join(map(",".join, zip(lines, countries, strict=True))))
    found = of_file(path, preset="shopify_csv", events=STATES)
    regions = [json.loads(one.value or b"")["region"] for one in found.records]
    assert regions == ["DE", "FR", "-"]


@pytest.mark.parametrize(("column", "text"), [("Id", "7.41134E+12"), ("Lineitem sku", "5,8E+12")])
def test_names_that_a_spreadsheet_shortened_are_refused(
    tmp_path: Path, column: str, text: str
) -> None:
    path = tmp_path / "orders_export.csv"
    path.write_text(SHOPIFY_CSV.replace("7411" if column == "Id" else "M-1", f'"{text}"'))
    with pytest.raises(InvalidInputError, match=f"column '{column}' holds {re.escape(text)}"):
        of_file(path, preset="shopify_csv", events=STATES)


def test_history_without_a_time_before_which_it_lies_is_refused() -> None:
    with pytest.raises(ConfigError, match="history_before is not set"):
        need_history_before(Settings())
    need_history_before(Settings(windows=WindowSettings(history_before=1_700_000_000_000)))


@pytest.mark.parametrize(
    ("events_zone", "calendar_zone", "own", "expected"),
    [
        ("", "UTC", None, "UTC"),
        ("", "America/Toronto", None, "America/Toronto"),
        ("Asia/Tokyo", "America/Toronto", None, "Asia/Tokyo"),
        ("Asia/Tokyo", "America/Toronto", "Europe/Berlin", "Europe/Berlin"),
    ],
)
def test_times_of_a_file_without_a_zone_are_the_shop_s_own(
    events_zone: str, calendar_zone: str, own: str | None, expected: str
) -> None:
    settings = Settings(
        events=EventSettings(time_zone=events_zone), calendar={"time_zone": calendar_zone}
    )
    assert in_zone_of(settings, FileStyle(zone=own)).zone == expected


def test_a_name_that_says_nothing_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot name a load"):
        load_name("/ /")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        of_file(tmp_path / "none.jsonl")
