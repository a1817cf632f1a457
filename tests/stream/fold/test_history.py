"""What headers of history settle, record by record, by hand."""

from __future__ import annotations

import json

import pytest

from freshet.stream.config import EventSettings
from freshet.stream.events.columns import Decoded
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.fold.history import history_mark, judge_history, loads_of


def decoded(*values: bytes | None) -> Decoded:
    return EventDecoder("orders", EventSettings()).decode(values, [None] * len(values))


def order(name: str) -> bytes:
    event = {"event_id": name, "event_time": 1_000, "sku": name, "region": "n"}
    return json.dumps(event | {"quantity": 1, "unit_price": 1}).encode()


def test_a_sequence_counts_once_and_rises_by_load() -> None:
    batch = decoded(*(order(f"e{n}") for n in range(7)))
    marks = {0: b"a:5", 1: b"a:7", 2: b"b:0", 3: b"a:6", 4: b"a:7", 5: b"b:0"}
    found = judge_history(batch, marks, {}, known={b"a": 4})
    assert found.decoded.index.tolist() == [0, 1, 2, 6]
    assert found.patient.tolist() == [True, True, True, False]
    assert (found.repeated, found.highest) == (3, {b"a": 7, b"b": 0})
    assert loads_of(marks) == [b"a", b"b"]
    again = judge_history(batch, marks, {}, known={b"a": 7, b"b": 0})
    assert (again.repeated, again.highest) == (6, {})


def test_what_is_dead_counts_its_sequence_and_is_not_told_of_twice() -> None:
    batch = decoded(b"broken", b"broken", order("e"))
    first = judge_history(batch, {0: b"a:1"}, {}, known={})
    assert [bad.index for bad in first.decoded.refusals] == [0, 1]
    assert first.highest == {b"a": 1}
    again = judge_history(batch, {0: b"a:1"}, {}, known={b"a": 1})
    assert [bad.index for bad in again.decoded.refusals] == [1]
    assert again.repeated == 1 and again.decoded.index.tolist() == [2]


def test_one_that_is_sent_again_by_a_person_goes_by_its_place_and_not_by_its_sequence() -> None:
    found = judge_history(decoded(order("e")), {0: b"a:1"}, {0: b"orders-0-1"}, known={b"a": 9})
    assert found.decoded.index.tolist() == [0]
    assert found.patient.all() and found.highest == {}


def test_an_empty_record_completes_a_load_and_is_skipped() -> None:
    found = judge_history(decoded(b"", order("e"), b""), {0: b"a:complete"}, {}, known={})
    assert found.complete
    assert [(one.index, one.reason) for one in found.decoded.skipped] == [(0, "history_complete")]
    assert [bad.index for bad in found.decoded.refusals] == [2]


@pytest.mark.parametrize(
    "mark", [b"a", b"a:", b":7", b"a:-1", b"a:1.5", b"a b:1", b"a:" + b"9" * 19]
)
def test_a_header_that_says_nothing_makes_a_dead_letter(mark: bytes) -> None:
    found = judge_history(decoded(order("e"), order("f")), {1: mark}, {}, known={})
    assert found.decoded.index.tolist() == [0]
    assert [(bad.index, bad.error_class) for bad in found.decoded.refusals] == [
        (1, "InvalidHistory")
    ]
    assert not found.complete and loads_of({1: mark}) == []


def test_only_a_record_without_a_value_completes_a_load() -> None:
    headers = [("freshet-history", b"a:1"), ("freshet-history", b"a:complete"), ("x", b"y")]
    assert history_mark(headers, b"") == b"a:complete"
    mark = history_mark(headers, b"{}")
    assert mark is not None and loads_of({0: mark}) == []
    assert history_mark(headers, None) == mark
    assert history_mark([("freshet-history", b"")], b"") is None
