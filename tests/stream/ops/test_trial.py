"""A trial says of each record what ingest would make of it, and what a person should look at."""

from __future__ import annotations

import io
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from freshet.stream.codec import time_ms
from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.ops.trial import RawRecord, Trial, TriedLine, trial
from freshet.stream.ops.trial_records import newest, of_bytes, of_file
from freshet.stream.ops.trial_report import TrialReport
from freshet.stream.ops.trial_warnings import warnings_of
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.field.test_field import (
    HERE,
    SHOPS,
    headers_of,
    key_of,
    records_of,
    stamp_of,
    value_of,
)

NOW_MS = time_ms("2026-03-02T00:00:00Z")


def order(number: int = 1, **over: Any) -> dict[str, Any]:
    usual = {"event_id": f"e{number}", "event_time": NOW_MS - HOUR_MS, "sku": "a", "region": "x"}
    return {**usual, "quantity": 1, "unit_price": 9.5, **over}


def raw(*records: dict[str, Any], partition: int = 0) -> list[RawRecord]:
    return [
        RawRecord(json.dumps(one).encode(), timestamp_ms=NOW_MS, partition=partition)
        for one in records
    ]


def settings_of(**orders: Any) -> Settings:
    return Settings.model_validate({"events": {"orders": orders}})


def tried(*records: dict[str, Any], **orders: Any) -> Trial:
    return trial(settings_of(**orders), "orders", raw(*records))


@pytest.mark.parametrize(
    "shop", [one for one in SHOPS if not (HERE / one / "registry.json").exists()]
)
def test_what_it_says_of_a_shops_records_are_the_books_by_hand(
    shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = HERE / shop
    monkeypatch.chdir(folder)
    settings = Settings.model_validate(tomllib.loads((folder / "freshet.toml").read_text("utf-8")))
    for kind, right in json.loads((folder / "expected.json").read_text("utf-8")).items():
        records = [
            RawRecord(value_of(one), key_of(one), headers_of(one), stamp_of(one))
            for one in records_of(folder, kind)
        ]
        found = trial(settings, kind, records)  # type: ignore[arg-type]
        dead_lines = sum(len(one.bad_lines) for one in found.tried)
        beside = {"read": len(records), "lines_dead": dead_lines}
        conflicting = sum("said otherwise" in one.reason for one in found.tried)
        books = {**found.counts, **beside, "conflicting": conflicting}
        assert {name: count for name, count in books.items() if count} == right["books"]


def test_a_record_is_told_with_its_id_time_and_lines() -> None:
    (one,) = tried(order(quantity=2.5)).tried
    assert (one.became, one.event_id, one.time_ms) == ("applied", "e1", NOW_MS - HOUR_MS)
    assert one.lines == (TriedLine("a|x", 2.5, 9.5),)


def test_a_record_in_our_own_fields_is_told_by_those() -> None:
    settings = settings_of(fields={"event_id": "id"})
    own = RawRecord(json.dumps(order()).encode(), None, [("freshet-fields", b"own")], NOW_MS)
    found = trial(settings, "orders", [own, *raw(order(id=5))])
    assert [(one.event_id, one.became) for one in found.tried] == [
        ("e1", "applied"),
        ("5", "applied"),
    ]


def test_a_state_is_told_with_its_version_and_whether_it_is_given_back() -> None:
    version = {"order_id": "7", "version": 3, "cancelled": True}
    (one,) = tried(order(**version), mode="state", key="any").tried
    assert (one.event_id, one.version, one.cancelled, one.lines) == ("7", 3, True, ())
    assert one.created_ms == NOW_MS - HOUR_MS


def test_a_record_that_does_not_count_is_told_with_the_reason() -> None:
    keep = {"kind": ["sale", "refund"]}
    found = tried(
        order(1, kind="view"),
        order(2, kind="sale"),
        order(2, kind="sale"),
        order(2, kind="sale", quantity=9),
        order(3),
        order(4, kind="sale", event_time=NOW_MS - 2 * HOUR_MS),
        order(5, kind="sale", event_time=NOW_MS + DAY_MS),
        order(6, kind="sale", quantity="many"),
        keep_when=keep,
    )
    assert [(one.became, one.reason) for one in found.tried] == [
        ("skipped", "keep_when: kind is 'view'"),
        ("applied", ""),
        ("duplicate", "an event of this id came before"),
        ("duplicate", "an event of this id came before, and said otherwise"),
        ("skipped", "keep_when: kind is missing"),
        ("late_dropped", "it came too late after the others"),
        (
            "dead_letter",
            "FutureEvent: event_time is 86400000 ms after the record's timestamp, expected at most "
            "600000 (windows.max_future_ms)",
        ),
        ("dead_letter", "InvalidField: the field 'quantity' is 'many', expected a number"),
    ]


def test_partitions_are_judged_apart_and_old_records_are_never_late() -> None:
    late = order(2, event_time=NOW_MS - 2 * HOUR_MS)
    both = [*raw(order(1)), *raw(late, partition=1), *raw(late)]
    settings = settings_of()
    found = [one.became for one in trial(settings, "orders", both).tried]
    assert found == ["applied", "applied", "late_dropped"]
    old = [one.became for one in trial(settings, "orders", raw(order(1), late), old=True).tried]
    assert old == ["applied", "applied"]


def test_the_commonest_reasons_come_first() -> None:
    lines = [{"sku": "a", "quantity": 1, "unit_price": 1}, {"sku": "b", "quantity": 0}]
    mixed = [order(n, quantity=None) for n in range(3)] + [order(9, lines=lines)]
    found = tried(*mixed)
    assert found.reasons() == [
        ("dead_letter: MissingField: the field 'quantity' is missing", 3),
        ("dead line: MissingField: the field 'unit_price' is missing", 1),
    ]


def test_no_records_are_no_fault() -> None:
    assert trial(settings_of(), "orders", []).tried == []


# Warnings -----------------------------------------------------------------------------------------


def warned(*records: dict[str, Any], **orders: Any) -> list[str]:
    settings = settings_of(**orders)
    return warnings_of(settings, "orders", tried(*records, **orders), NOW_MS)


def test_ordinary_records_warn_of_nothing() -> None:
    assert warned(*(order(n) for n in range(5)), fields={"region": {"path": "region"}}) == []


def test_seconds_read_as_milliseconds_are_a_wrong_unit() -> None:
    seconds = [order(n, event_time=1_770_000_000 + n) for n in range(3)]
    told = '3 of 3 times are in 1970; with time = "s" in the map they would be of 2026-02-02'
    assert warned(*seconds) == [told]


def test_old_times_and_times_ahead_are_told() -> None:
    old, ahead = "2024-01-31T00:00:00Z", "2026-03-09T00:00:00Z"
    records = raw(order(1), order(2, event_time=old), order(3, event_time=ahead))
    settings = settings_of()
    found = trial(settings, "orders", records, old=True)
    assert warnings_of(settings, "orders", found, NOW_MS) == [
        "1 of 3 times are over a year old, the oldest of 2024-01-31",
        "1 of 3 times are in the future, the latest of 2026-03-09",
    ]


def test_a_path_that_no_record_has_is_told_with_the_nearest_but_one_that_is_null_is_there() -> None:
    fields = {"region": {"path": "regoin", "default": "-"}, "unit_price": ["price", "unit_price"]}
    assert warned(order(), fields=fields) == [
        "events.orders.fields.region: no record has 'regoin'; nearest seen: 'region'"
    ]
    states = {"mode": "state", "key": "any", "fields": {"cancelled": "gone_at"}}
    version = {"order_id": "7", "version": 3}
    assert warned(order(**version, gone_at=None), **states) == []
    (told,) = warned(order(**version), **states)
    assert told.startswith("events.orders.fields.cancelled: no record has 'gone_at'")


def test_a_path_of_lines_that_no_line_has_is_told() -> None:
    line = {"code": "a", "quantity": 1, "unit_price": 1}
    fields = {"lines.sku": {"path": "codes", "default": "no-sku"}}
    assert warned(order(lines=[line]), fields=fields) == [
        "events.orders.fields.lines.sku: no record has 'codes'; nearest seen: 'code'"
    ]


def test_regions_that_are_all_the_default_are_told() -> None:
    fields = {"region": {"path": "region", "default": "-"}}
    (told,) = warned(*(order(n, region=None) for n in range(3)), fields=fields)
    assert told.startswith("every region is the map's default '-': events.orders.fields.region")
    assert warned(order(1, region=None), order(2), order(3), fields=fields) == []


@pytest.mark.parametrize(
    ("prices", "cents"),
    [
        ((1999, 1250, 799), True),
        ((1999, 1250), False),  # Too few to say.
        ((19.99, 1250, 799), False),
        ((2000, 1500, 900), False),  # Whole hundreds: a dear shop.
        ((3, 5, 7), False),
    ],
)
def test_prices_that_look_like_cents_are_told(prices: tuple[float, ...], cents: bool) -> None:
    found = warned(*(order(n, unit_price=price) for n, price in enumerate(prices)))
    assert [one[:4] for one in found] == (["all "] if cents else [])


def test_one_record_that_holds_many_is_told_with_the_way_out() -> None:
    (told,) = warned({"orders": [order(1), order(2)]})
    assert told.startswith("the one record holds 2 objects at 'orders'")
    assert "jq -c '.orders[]'" in told


# Reports ------------------------------------------------------------------------------------------


def test_the_report_is_a_line_a_record_and_the_sums() -> None:
    lines = [{"sku": "b|c", "quantity": 2, "unit_price": 1.5}, {"sku": "d"}]
    records = [
        RawRecord(json.dumps(one).encode(), timestamp_ms=NOW_MS, place=f"f:{n}")
        for n, one in enumerate([order(1, lines=lines), order(2, quantity=None)], start=1)
    ]
    found = trial(settings_of(), "orders", records)
    report = TrialReport(found, ("sku", "region"), ["odd"], ["so"])
    missing = "MissingField: the field 'quantity' is missing"
    assert report.as_text(most=9).splitlines() == [
        "f:1  applied  e1  2026-03-01T23:00:00Z",
        "    sku=b|c  region=x  quantity=2  unit_price=1.5",
        f"    line 1 is dead: {missing}",
        f"f:2  dead  e2  ({missing})",
        "2 records: 1 applied, 1 dead, 1 dead lines",
        f"  1 x dead_letter: {missing}",
        f"  1 x dead line: {missing}",
        "note: so",
        "warning: odd",
    ]
    assert report.as_text(most=1).splitlines()[3] == "... and 1 more records"
    told = report.as_dict()
    assert told["counts"] == {"read": 2, "applied": 1, "dead_letter": 1}
    assert told["records"][0]["lines"] == [
        {"sku": "b|c", "region": "x", "item_id": "b\\|c|x", "quantity": 2.0, "unit_price": 1.5}
    ]
    json.dumps(told)


# Records ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b'{"a":1}\n\n{"a":2}\r\n', [b'{"a":1}', b'{"a":2}']),
        (b'[{"a":1},\n  {"a": 2}]\n', [b'{"a":1}', b'{"a": 2}']),
        (b'\xef\xbb\xbf{\n "a": 1\n}\n', [b'{\n "a": 1\n}']),
        (b'{"a":1}\nnot json\n', [b'{"a":1}', b"not json"]),
        (b"", []),
    ],
)
def test_a_file_is_lines_an_array_or_one_object(data: bytes, values: list[bytes]) -> None:
    assert [one.value for one in of_bytes(data, "x")] == values


def test_keys_are_what_is_at_a_path() -> None:
    data = b'{"a":{"id":7}}\n{"a":{"id":"x"}}\n{"b":1}\n'
    assert [one.key for one in of_bytes(data, "x", "a.id")] == [b"7", b"x", None]


def test_a_folder_is_its_json_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b'{"n":2}')
    (tmp_path / "a.jsonl").write_bytes(b'{"n":0}\n{"n":1}\n')
    (tmp_path / "c.txt").write_bytes(b"no")
    found = of_file(tmp_path, io.BytesIO())
    assert [one.place for one in found] == ["a.jsonl:1", "a.jsonl:2", "b.json:1"]
    assert [one.value for one in of_file(Path("-"), io.BytesIO(b'{"n":3}'))] == [b'{"n":3}']


def test_the_newest_of_a_topic_are_read_in_log_order(mock_broker: str) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=mock_broker))
    producer = Producer({"bootstrap.servers": mock_broker})
    for number in range(12):
        stamp = 1_000 + number
        producer.produce("look", b"%d" % number, b"k", partition=number % 4, timestamp=stamp)
    producer.flush()
    found = newest(settings, "look", 5)
    assert sorted(int(one.value or b"") for one in found) == [7, 8, 9, 10, 11]
    ours = [one for one in found if one.partition == 3]
    assert [(one.value, one.key, one.timestamp_ms, one.place) for one in ours] == [
        (b"7", b"k", 1_007, "look-3-1"),
        (b"11", b"k", 1_011, "look-3-2"),
    ]
