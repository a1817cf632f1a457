"""What a run says of the records that it loses: the books, the warning, the alert, its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import structlog
from prometheus_client import CollectorRegistry

from freshet.stream.clock import SimulatedClock
from freshet.stream.errors import EventError
from freshet.stream.fold.batches import Counts, Fold
from freshet.stream.fold.verdicts import DeadLetter
from freshet.stream.ingest.losing import Losses, Recent, found_in
from freshet.stream.ingest.losses import Ledger, Report
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.ingest.outbox import FoldedBatch
from freshet.stream.ingest.versions import JudgedBatch
from freshet.stream.kafka import Message
from freshet.stream.schemas import Alert
from tests.integration.side import Told

ORDERS = "shop.orders"
NO_FOLD: dict[str, Any] = {
    **dict.fromkeys(("update", "frontier_ms", "header", "changed"), None),
    "touched_item_ids": [],
    "next_offset": 0,
}


def batch(counts: Counts, **over: Any) -> FoldedBatch:
    """So many records of partition 2 whose offsets begin at 100."""
    fold = Fold(**NO_FOLD | {"dead": [], "too_late": [], "counts": counts} | over)
    messages = [cast("Message", Told(b"k", b"v", 100 + n, 0)) for n in range(counts.read)]
    return FoldedBatch((ORDERS, 2), cast("Any", None), messages, fold, 0)


def all_good(read: int) -> FoldedBatch:
    return batch(Counts(read=read, applied=read, duplicate=0, late_dropped=0, dead_letter=0))


def all_dead(read: int) -> FoldedBatch:
    text = "the field 'event_id' is missing"
    dead = [DeadLetter(n, "decode", "MissingField", text) for n in range(read)]
    counts = Counts(read=read, applied=0, duplicate=0, late_dropped=0, dead_letter=read)
    return batch(counts, dead=dead)


@dataclass
class Rig:
    """A run whose alerts are kept."""

    alerts: list[Alert] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        ledger = Ledger({ORDERS: "events.orders", "shop.items": "events.catalog"}, 0.05)
        self.losses = Losses(
            ledger,
            IngestMetrics(self.registry),
            SimulatedClock(lambda: None),
            alert=self.alerts.append,
            subject="shop",
            max_lost_share=0.05,
        )

    def share(self, of: str) -> float | None:
        labels = {"topic": ORDERS, "of": of}
        return self.registry.get_sample_value("freshet_ingest_recent_share", labels)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def test_the_books_balance_and_name_the_commonest_causes_with_an_example_each() -> None:
    rig = Rig()
    rig.losses.applied(all_dead(3))
    counts = Counts(
        read=9, applied=4, duplicate=1, late_dropped=1, dead_letter=1, skipped=2, lines_dead=1
    )
    dead = [
        DeadLetter(4, "decode", "NullValue", "the value is null"),
        DeadLetter(6, "decode", "InvalidField", "the field 'sku' is true or false", line=1),
    ]
    mixed = batch(counts, dead=dead, too_late=[7], old=[0, 1], skip_reasons={"skip_when": 2})
    rig.losses.applied(mixed)
    report = rig.losses.report()
    text = report.as_text()
    assert (
        "shop.orders: 12 read = 4 applied + 1 duplicate + 1 late_dropped + 4 dead_letter "
        "+ 2 skipped" in text
    )
    assert "beside: 1 lines_dead, 2 old" in text
    lost = [line for line in text.splitlines() if line.startswith("lost of")]
    assert len(lost) == 3
    assert lost[0].startswith(
        "lost of shop.orders: 3 x MissingField, such as shop.orders-2-100: the field 'event_id'"
    )
    assert "2 x old, such as shop.orders-2-100" in lost[1]
    # 1 late, 4 dead and 2 old of the 10 that are ours.
    assert text.splitlines()[-1].startswith("70.0% of shop.orders is lost")
    assert report.too_much == [ORDERS]


def test_what_is_skipped_or_came_twice_is_not_lost() -> None:
    rig = Rig()
    rig.losses.applied(
        batch(Counts(read=90, applied=9, duplicate=1, late_dropped=0, dead_letter=0, skipped=80))
    )
    assert rig.losses.report().too_much == []


def test_a_topic_is_judged_by_itself_and_a_table_too() -> None:
    rig = Rig()
    rig.losses.applied(all_good(1_000))
    messages = [cast("Message", Told(b"k", b"v", n, 0)) for n in range(4)]
    judged = JudgedBatch(cast("Any", [1, 2, 3]), [(2, EventError("no sku"))], 4, skipped=1)
    rig.losses.kept(("shop.items", 0), messages, judged)
    report = rig.losses.report()
    assert report.too_much == ["shop.items"]
    assert "shop.items: 4 read = 2 applied + 0 duplicate + 0 late_dropped + 1 dead_letter + 1" in (
        report.as_text()
    )
    skipped = {"topic": "shop.items", "outcome": "skipped"}
    assert rig.registry.get_sample_value("freshet_ingest_records_total", skipped) == 1.0


def test_nothing_read_is_said_so() -> None:
    assert Report({}, [], 0.05).as_text() == "this run read nothing"


def test_more_than_a_twentieth_lost_is_told_once_then_every_ten_minutes_and_when_it_is_over(
    logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr("freshet.stream.ingest.losing.time.monotonic", lambda: now_s[0])
    rig = Rig()
    rig.losses.applied(all_good(80))
    rig.losses.look()
    assert not logged and rig.share("dead") == 0.0
    rig.losses.applied(all_dead(20))
    for second in (1.0, 30.0, 59.0):
        now_s[0] = second
        rig.losses.look()
    (line,) = logged
    assert (line["event"], line["log_level"], line["dead"]) == ("records_lost", "warning", 20)
    assert (
        line["reason"].startswith("20 x MissingField")
        and "events.orders.fields" in (line["reason"])
    )
    assert rig.share("dead") == 0.2
    now_s[0] = 600.5
    rig.losses.applied(all_dead(50))
    now_s[0] = 601.0
    rig.losses.look()
    assert [one["event"] for one in logged] == ["records_lost", "records_lost"]
    rig.losses.applied(all_good(2_000))
    now_s[0] = 661.5
    rig.losses.look()
    assert rig.share("dead") == pytest.approx(50 / 2_050)
    states = [(alert.data.state, alert.data.title) for alert in rig.alerts]
    title = "Records of shop.orders are lost"
    assert states == [("firing", title), ("resolved", title)]
    assert rig.alerts[0].subject == rig.alerts[1].subject
    assert rig.alerts[0].data.description.startswith("20 of 100 records: 20 x MissingField")


def test_an_alert_that_fires_is_over_when_ingest_ends(logged: list[Any]) -> None:
    rig = Rig()
    rig.losses.applied(all_dead(30))
    rig.losses.look()
    rig.losses.close()
    rig.losses.close()
    assert [alert.data.state for alert in rig.alerts] == ["firing", "resolved"]


def test_a_topic_of_which_nearly_all_is_skipped_is_told_with_the_condition(
    logged: list[Any],
) -> None:
    rig = Rig()
    counts = Counts(read=60, applied=2, duplicate=0, late_dropped=0, dead_letter=0, skipped=58)
    rig.losses.applied(batch(counts, skip_reasons={"keep_when": 57, "tombstone": 1}))
    rig.losses.look()
    (line,) = logged
    assert line["event"] == "records_skipped"
    assert line["reason"].startswith("keep_when; events.orders.keep_when does not hold")


def test_the_window_is_a_minute_and_longer_while_that_holds_fewer_than_twenty() -> None:
    recent = Recent()
    for at_s in range(0, 1_200, 60):
        recent.count(float(at_s), {"read": 1, "dead_letter": 1})
    assert recent.look(1_199.0)["read"] == 20
    assert recent.look(1_259.0)["read"] == 20
    assert recent.look(3_600.5)["read"] == 19, "but never longer than an hour"
    recent.count(3_601.0, {"read": 20})
    assert recent.look(3_601.0) == {"read": 20, "dead_letter": 0}, "these are enough"


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"read": 1, "dead_letter": 1}, set()),
        ({"read": 2, "late_dropped": 2}, {"lost"}),
        ({"read": 100, "old": 5}, set()),
        ({"read": 100, "old": 6}, {"lost"}),
        ({"read": 100, "skipped": 95, "applied": 5}, set()),
        ({"read": 100, "skipped": 96, "applied": 4}, {"skipped"}),
        ({"read": 19, "skipped": 19}, set()),
    ],
)
def test_what_is_too_much(counts: dict[str, int], found: set[str]) -> None:
    assert found_in(Counter(counts), 0.05) == found


def test_a_cause_of_each_kind_has_its_own_line() -> None:
    rig = Rig()
    good = all_dead(2)
    other = replace(good.fold.dead[1], message="the field 'sku' is missing")
    dead = [good.fold.dead[0], other]
    rig.losses.applied(replace(good, fold=replace(good.fold, dead=dead)))
    assert [cause.count for cause in rig.losses.report().causes] == [1, 1]


def test_a_hint_that_the_reason_gives_already_is_not_given_again() -> None:
    text = 'key the topic by order_id, or set events.orders.key = "any" if they may'
    good = all_dead(1)
    dead = [replace(good.fold.dead[0], error_class="KeyMismatch", message=text)]
    rig = Rig()
    rig.losses.applied(replace(good, fold=replace(good.fold, dead=dead)))
    said = rig.losses.report().as_text()
    assert f"1 x KeyMismatch, such as shop.orders-2-100: {text}\n" in said


def test_of_more_than_three_reasons_the_rest_are_counted() -> None:
    rig = Rig()
    for count, name in enumerate(["a", "b", "c", "d", "e"], start=1):
        good = all_dead(count)
        dead = [replace(one, message=f"the field '{name}' is missing") for one in good.fold.dead]
        rig.losses.applied(replace(good, fold=replace(good.fold, dead=dead)))
    lines = rig.losses.report().as_text().splitlines()
    assert [line[:30] for line in lines[1:4]] == [
        f"lost of shop.orders: {n} x Missi" for n in (5, 4, 3)
    ]
    assert lines[4] == "and 2 more reasons, of 3 records"
