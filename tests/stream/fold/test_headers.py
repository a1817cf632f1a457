"""What a header says after each batch, by hand, and which settings windows are folded under."""

from __future__ import annotations

import json

import numpy as np
import pytest

from freshet.stream.config import EventSettings, Settings
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.fold.batches import Counts
from freshet.stream.fold.content import ContentDigests
from freshet.stream.fold.dedupe import SeenHashes
from freshet.stream.fold.dictionary import ItemDictionary
from freshet.stream.fold.frontier import NEVER_MS, LargestTime, Reach
from freshet.stream.fold.headers import fingerprint, header_after
from freshet.stream.fold.verdicts import Known, Verdicts, reach_verdicts
from freshet.stream.fold.watermark import TimeRules
from freshet.stream.store.layout import Header

RULES = TimeRules(out_of_order_ms=1_000, allowed_lateness_ms=10_000, max_future_ms=50)


def judged(*events: tuple[int, str], frontier_ms: int = NEVER_MS) -> Verdicts:
    """Orders of (event time, item), written at 200,000: those of a later time fail."""
    values = []
    for number, (time_ms, sku) in enumerate(events):
        event = {"event_id": str(number), "event_time": time_ms, "sku": sku, "region": "n"}
        values.append(json.dumps(event | {"quantity": 1, "unit_price": 1}).encode())
    decoded = EventDecoder("orders", EventSettings()).decode(values, [None] * len(values))
    known = Known(Reach(frontier_ms), LargestTime(), SeenHashes(), ItemDictionary(9), frozenset())
    contents = ContentDigests().of(decoded)
    stamps = np.full(len(values), 200_000)
    nobody = np.zeros(len(values), bool)
    return reach_verdicts(
        decoded, stamps, [], history=nobody, contents=contents, known=known, rules=RULES
    )


COUNTS = Counts(50, 20, 15, 10, 5, skipped=7, lines_dead=3, conflicting=2)


def test_a_first_batch_sets_where_the_windows_began_and_how_far_they_came() -> None:
    verdicts = judged((100_000, "a"), (99_000, "b"), (150_000, "a"), (120_000, "c"), (900_000, "a"))
    before = Header(epoch=4, owner="me", next_offset=30)
    assert header_after(before, 80, COUNTS, verdicts) == Header(
        epoch=4,
        owner="me",
        first_offset=30,
        next_offset=80,
        frontier_ms=150_000,
        origin_ms=100_000,
        first_event_ms=99_000,
        last_event_ms=150_000,
        read=50,
        applied=20,
        duplicate=15,
        late_dropped=10,
        dead_letter=5,
        skipped=7,
        lines_dead=3,
        conflicting=2,
        items=2,
    )


def test_a_later_batch_adds_to_the_books_and_leaves_the_beginning_alone() -> None:
    before = Header(
        first_offset=30,
        next_offset=80,
        frontier_ms=150_000,
        origin_ms=100_000,
        first_event_ms=99_000,
        last_event_ms=150_000,
        read=1_000,
        applied=200,
        duplicate=300,
        late_dropped=400,
        dead_letter=100,
        skipped=10,
        lines_dead=20,
        conflicting=30,
        items=7,
    )
    after = header_after(before, 95, COUNTS, judged((149_000, "x"), frontier_ms=150_000))
    assert after == Header(
        first_offset=30,
        next_offset=95,
        frontier_ms=150_000,
        origin_ms=100_000,
        first_event_ms=99_000,
        last_event_ms=150_000,
        read=1_050,
        applied=220,
        duplicate=315,
        late_dropped=410,
        dead_letter=105,
        skipped=17,
        lines_dead=23,
        conflicting=32,
        items=8,
    )
    wider = header_after(before, 95, COUNTS, judged((160_000, "x"), (98_000, "y")))
    assert (wider.first_event_ms, wider.last_event_ms, wider.frontier_ms) == (
        99_000,
        160_000,
        160_000,
    )
    older = header_after(before, 95, COUNTS, judged((98_000, "y")))
    assert (older.first_event_ms, older.last_event_ms) == (98_000, 150_000)


def test_an_event_at_the_beginning_of_1970_counts_as_any_other() -> None:
    first = header_after(Header(next_offset=0), 1, COUNTS, judged((0, "a")))
    assert (first.frontier_ms, first.origin_ms) == (0, 0)
    second = header_after(first, 2, COUNTS, judged((70_000, "a"), frontier_ms=0))
    assert (second.origin_ms, second.first_event_ms, second.first_offset) == (0, 0, 0)


def test_a_batch_in_which_nothing_counts_has_no_times() -> None:
    after = header_after(Header(next_offset=3), 9, Counts(0, 0, 0, 0, 0), judged((900_000, "a")))
    assert (after.first_offset, after.next_offset) == (3, 9)
    assert (after.frontier_ms, after.origin_ms) == (None, None)
    assert (after.first_event_ms, after.last_event_ms, after.items) == (None, None, 0)


def test_the_fingerprint_of_the_defaults_is_byte_for_byte_what_windows_were_folded_under() -> None:
    assert fingerprint("orders", Settings()) == (
        '{"events.series_by":["sku","region"],"format":3,'
        '"kind":"orders","windows.allowed_lateness_ms":900000,"windows.max_future_ms":600000,'
        '"windows.max_items_per_partition":1000000,"windows.out_of_order_ms":5000,'
        '"windows.resolutions":[{"buckets":900,"resolution_ms":1000},'
        '{"buckets":1440,"resolution_ms":60000},{"buckets":1344,"resolution_ms":3600000},'
        '{"buckets":800,"resolution_ms":86400000}]}'
    )


@pytest.mark.parametrize(
    ("events", "kind", "name", "value"),
    [
        ({"orders_fields": {"sku": "p"}}, "orders", "events.orders.fields", {"sku": "p"}),
        ({"orders_fields": {"sku": "p"}}, "clicks", "events.clicks.fields", None),
        ({"clicks_fields": {"kind": "k"}}, "clicks", "events.clicks.fields", {"kind": "k"}),
        ({"orders": {"mode": "state"}}, "orders", "events.orders.mode", "state"),
        ({"orders": {"mode": "state"}}, "clicks", "events.orders.mode", None),
        ({"time_unit": "s"}, "orders", "events.time_unit", "s"),
        ({"time_unit": "ms"}, "orders", "events.time_unit", None),
        ({"series_by": ["sku"]}, "orders", "events.series_by", ["sku"]),
    ],
)
def test_how_events_are_read_is_part_of_the_fingerprint(
    events: dict[str, object], kind: str, name: str, value: object
) -> None:
    said = json.loads(fingerprint(kind, Settings(events=events)))  # type: ignore[arg-type]
    assert said.get(name) == value
    assert said["kind"] == kind


@pytest.mark.parametrize(("zone", "value"), [("UTC", None), ("Europe/Berlin", "Europe/Berlin")])
def test_a_calendar_other_than_utc_is_part_of_the_fingerprint(zone: str, value: str | None) -> None:
    said = json.loads(fingerprint("orders", Settings(calendar={"time_zone": zone})))  # type: ignore[arg-type]
    assert said.get("calendar.time_zone") == value


@pytest.mark.parametrize(
    ("mode", "begin_ms", "said"),
    [("state", 1_000, "counts when made"), ("state", None, None), ("events", 1_000, None)],
)
def test_windows_of_states_say_when_their_history_counted(
    mode: str, begin_ms: int | None, said: str | None
) -> None:
    """Windows with a history that counted when it changed are not ours to go on with."""
    settings = Settings(
        events={"orders": {"mode": mode}},  # type: ignore[arg-type]
        windows={"history_before": begin_ms},  # type: ignore[arg-type]
    )
    assert json.loads(fingerprint("orders", settings)).get("events.orders.history") == said
