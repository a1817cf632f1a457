"""Alerts fire, change and end once each, under one fingerprint, however often records come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.control import alerts
from freshet.online.control.alerts import (
    AlertBook,
    Signal,
    drift_signal,
    flash_sale_signal,
    model_signals,
)
from freshet.stream.schemas import Alert, AlertData, DriftAlert, ModelEvent, Promotion


def drift(state: Any, at_ms: int, kind: Any = "level", description: str = "too low.") -> Signal:
    record = DriftAlert(
        alert_id=f"{state}-{at_ms}",
        segment="shoes",
        state=state,
        kind=kind,
        detector="adwin",
        detected_at_ms=at_ms,
        onset_ms=at_ms - 5,
        size=1.0,
        weights_version="base",
        description=description,
        action="Retrain.",
    )
    return drift_signal(record)


def feed(book: AlertBook, *signals: Signal) -> list[Alert]:
    made = []
    for signal in signals:
        for record in book.apply(signal):
            book.restore(record)
            made.append(record)
    return made


def states(records: list[Alert]) -> list[str]:
    return [record.data.state for record in records]


def hashed(*parts: object) -> str:
    return xxhash.xxh3_64_hexdigest("\x1f".join(map(str, parts)).encode())


def test_each_record_of_a_life_is_this_one() -> None:
    fired, changed, over = feed(
        AlertBook(),
        drift("warning", 10, description="a bit low."),
        drift("drift", 2_020, description="too low."),
        drift("stable", 3_030, kind="spread", description="right again."),
    )
    subject = hashed("io.freshet.drift", "shoes", "level")
    first = AlertData(
        state="firing",
        severity="warning",
        title="Forecasts of shoes drift in level",
        description="a bit low. Retrain.",
        starts_at_ms=5,
        updated_at_ms=10,
        labels={"type": "io.freshet.drift", "subject": "shoes", "kind": "level"},
        ends_at_ms=None,
    )
    assert fired == Alert(
        id=hashed(subject, "firing", 10, "a bit low. Retrain."),
        source="/freshet/control",
        type="io.freshet.drift",
        subject=subject,
        time="1970-01-01T00:00:00.010Z",
        data=first,
    )
    assert changed == msgspec.structs.replace(
        fired,
        id=hashed(subject, "updated", 2_020, "too low. Retrain."),
        time="1970-01-01T00:00:02.020Z",
        data=msgspec.structs.replace(
            first,
            state="updated",
            severity="critical",
            description="too low. Retrain.",
            updated_at_ms=2_020,
        ),
    )
    assert over == msgspec.structs.replace(
        changed,
        id=hashed(subject, "resolved", 3_030, "right again. Retrain."),
        time="1970-01-01T00:00:03.030Z",
        data=msgspec.structs.replace(
            changed.data,
            state="resolved",
            description="right again. Retrain.",
            updated_at_ms=3_030,
            ends_at_ms=3_030,
        ),
    )


@pytest.mark.parametrize(
    "changed", [{"severity": "warning"}, {"title": "other"}, {"description": "other"}]
)
def test_an_alert_is_updated_when_its_severity_title_or_words_change(changed: Any) -> None:
    book = AlertBook()
    signal = Signal("t", "s", "k", True, 1, 1, severity="info", title="so", description="why")
    feed(book, signal)
    assert feed(book, replace(signal, at_ms=2)) == []
    assert states(feed(book, replace(signal, at_ms=3, **changed))) == ["updated"]


def test_a_trouble_of_the_weights_is_dated_by_its_event_and_so_is_its_end() -> None:
    made = []
    book = AlertBook()
    for record in (event("swap_failed", 5), event("swapped", 9)):
        made += feed(book, *model_signals(record))
    assert [record.type for record in made] == ["io.freshet.model"] * 2
    found = [
        (alert.data.starts_at_ms, alert.data.updated_at_ms, alert.data.ends_at_ms) for alert in made
    ]
    assert found == [(5, 5, None), (5, 9, 9)]


def test_nothing_is_said_where_nothing_changed() -> None:
    assert states(
        feed(AlertBook(), drift("drift", 10), drift("drift", 10), drift("drift", 12))
    ) == ["firing"]
    assert feed(AlertBook(), drift("stable", 10)) == []


def test_stable_ends_every_kind_of_its_segment_only() -> None:
    book = AlertBook()
    other = Signal(alerts.DRIFT_TYPE, "hats", "level", True, 1, 1)
    feed(book, drift("drift", 10), drift("drift", 11, kind="spread"), other)
    assert states(feed(book, drift("stable", 20))) == ["resolved", "resolved"]
    assert [alert.data.labels["subject"] for alert in book.firing()] == ["hats"]


def test_an_alert_that_comes_back_fires_again_with_the_same_fingerprint() -> None:
    made = feed(AlertBook(), drift("drift", 10), drift("stable", 20), drift("drift", 30))
    assert states(made) == ["firing", "resolved", "firing"]
    assert made[0].subject == made[2].subject
    assert made[0].id != made[2].id


@given(st.lists(st.integers(0, 4), max_size=15))
def test_a_book_restored_from_its_topic_says_nothing_to_redelivered_signals(
    again: list[int],
) -> None:
    signals = [
        drift("warning", 10),
        drift("drift", 20),
        drift("stable", 30),
        drift("drift", 40),
        drift("stable", 50),
    ]
    book = AlertBook()
    topic = feed(book, *signals)
    restored = AlertBook()
    for record in topic:
        restored.restore(record)
    assert feed(restored, *(signals[i] for i in again)) == []
    assert restored.firing() == book.firing()


def test_a_crash_before_the_record_was_published_makes_an_equal_record() -> None:
    assert AlertBook().apply(drift("drift", 10)) == AlertBook().apply(drift("drift", 10))


def event(kind: Any, at_ms: int) -> ModelEvent:
    return ModelEvent(kind=kind, version="v0002", at_ms=at_ms, reason="because")


def test_a_rollback_fires_and_a_confirmed_promotion_ends_it() -> None:
    book = AlertBook()
    signals = [
        signal
        for e in (event("rolled_back", 5), event("confirmed", 9))
        for signal in model_signals(e)
    ]
    made = feed(book, *signals)
    assert states(made) == ["firing", "resolved"]
    assert (made[0].data.severity, made[0].data.description) == ("critical", "because")
    assert model_signals(event("training", 1)) == []


def test_a_flash_sale_is_an_alert_while_it_runs() -> None:
    sale = Promotion(
        promotion_id="p", starts_at=100, ends_at=200, discount=0.3, kind="flash_sale", sku="s1"
    )
    made = feed(
        AlertBook(),
        *(
            flash_sale_signal(sale, starts_at_ms=100, ends_at_ms=200, now_ms=now)
            for now in (50, 100, 150, 200, 250)
        ),
    )
    assert states(made) == ["firing", "resolved"]
    assert made[0].data.description.startswith("30% off s1")


def test_resolved_alerts_are_forgotten_beyond_the_limit(monkeypatch: Any) -> None:
    monkeypatch.setattr(alerts, "MAX_RESOLVED", 1)
    book = AlertBook()
    feed(book, drift("drift", 10), drift("drift", 11, kind="spread"), drift("stable", 20))
    book.forget_resolved()
    assert len(book.apply(drift("drift", 10)) + book.apply(drift("drift", 11, kind="spread"))) == 1


@pytest.mark.parametrize(
    ("trouble", "severity", "cures"),
    [
        ("rejected", "warning", {"promoted", "confirmed"}),
        ("rolled_back", "critical", {"confirmed"}),
        ("swap_failed", "critical", {"swapped"}),
    ],
)
def test_each_trouble_of_the_weights_ends_with_its_own_cures(
    trouble: str, severity: str, cures: set[str]
) -> None:
    ended = set()
    for kind in ("training", "promoted", "confirmed", "swapped"):
        book = AlertBook()
        (fired,) = feed(book, *model_signals(event(trouble, 5)))
        assert (fired.data.severity, fired.data.description) == (severity, "because")
        assert fired.data.title == f"Weights v0002: {trouble.replace('_', ' ')}"
        assert fired.data.labels == {
            "type": alerts.MODEL_TYPE,
            "subject": "champion",
            "kind": trouble,
        }
        if states(feed(book, *model_signals(event(kind, 9)))) == ["resolved"]:
            ended.add(kind)
            assert book.firing() == []
    assert ended == cures


def test_a_redelivered_older_signal_neither_ends_nor_changes_an_alert() -> None:
    book = AlertBook()
    feed(book, drift("drift", 20))
    assert feed(book, drift("stable", 19)) == []
    assert feed(book, drift("warning", 19)) == []
    assert states(feed(book, drift("warning", 20))) == ["updated"]
    assert states(feed(book, drift("stable", 20))) == ["resolved"]
    assert feed(book, drift("drift", 20)) == [], "no later than its end"
    assert states(feed(book, drift("drift", 21))) == ["firing"]


def test_an_end_without_words_keeps_those_of_the_alert() -> None:
    book = AlertBook()
    feed(book, Signal("t", "s", "k", True, 1, 1, description="why"))
    (over,) = feed(book, Signal("t", "s", "k", False, 2, 2))
    assert over.data.description == "why"


def test_a_signal_of_another_type_subject_or_kind_ends_nothing() -> None:
    book = AlertBook()
    feed(book, Signal("t", "s", "k", True, 1, 1, title="so"))
    for type_, subject, kind in (("other", "s", "k"), ("t", "other", "k"), ("t", "s", "other")):
        assert feed(book, Signal(type_, subject, kind, False, 2, 2)) == []
    assert states(feed(book, Signal("t", "s", "", False, 2, 2))) == ["resolved"]


def test_firing_alerts_are_told_oldest_first_updated_ones_too() -> None:
    book = AlertBook()
    feed(
        book,
        drift("drift", 15, kind="timing"),
        drift("warning", 10),
        drift("drift", 20, kind="spread"),
        drift("drift", 30),
    )
    found = [(alert.data.starts_at_ms, alert.data.state) for alert in book.firing()]
    assert found == [(5, "updated"), (10, "firing"), (15, "firing")]


def test_of_a_fingerprint_the_newest_record_is_restored_at_a_tie_the_later_one() -> None:
    fired, over = feed(AlertBook(), drift("drift", 10), drift("stable", 10))
    book = AlertBook()
    for record in (fired, over):
        book.restore(record)
    assert book.firing() == []
    warned, drifted = feed(AlertBook(), drift("warning", 50), drift("drift", 60))
    for record in (drifted, warned):
        book.restore(record)
    assert book.firing() == [drifted], "both began at 45"


def test_a_record_read_late_does_not_replace_a_newer_one() -> None:
    (over,) = feed(AlertBook(), drift("drift", 10), drift("stable", 10))[1:]
    book = AlertBook()
    newer = feed(AlertBook(), drift("drift", 40))[0]
    for record in (newer, over):
        book.restore(record)
    assert book.firing() == [newer]


@pytest.mark.parametrize("limit", [2, 3, 9])
def test_within_the_limit_no_resolved_alert_is_forgotten(monkeypatch: Any, limit: int) -> None:
    monkeypatch.setattr(alerts, "MAX_RESOLVED", limit)
    book = AlertBook()
    feed(book, drift("drift", 10), drift("drift", 11, kind="spread"), drift("stable", 20))
    book.forget_resolved()
    for kind in ("level", "spread"):
        assert book.apply(drift("drift", 12, kind=kind)) == [], "its end at 20 is known"


def test_hundreds_of_troubles_that_are_over_stay_known() -> None:
    book = AlertBook()
    for number in range(200):
        signal = Signal("t", f"s{number}", "k", True, 1, 1)
        feed(book, signal, replace(signal, active=False, at_ms=2))
    book.forget_resolved()
    assert book.apply(Signal("t", "s0", "k", True, 1, 1)) == []


def test_the_oldest_resolved_alerts_go_first_and_firing_ones_stay(monkeypatch: Any) -> None:
    monkeypatch.setattr(alerts, "MAX_RESOLVED", 1)
    book = AlertBook()
    feed(
        book,
        drift("drift", 1, kind="timing"),
        drift("drift", 10),
        drift("drift", 11, kind="spread"),
    )
    spread, level = (alerts.fingerprint(alerts.DRIFT_TYPE, "shoes", k) for k in ("spread", "level"))
    for kind, at_ms in (("spread", 30), ("level", 40)):
        feed(book, Signal(alerts.DRIFT_TYPE, "shoes", kind, False, at_ms, at_ms))
    book.forget_resolved()
    assert [alert.data.labels["kind"] for alert in book.firing()] == ["timing"]
    assert book.apply(drift("drift", 12, kind="spread"))[0].subject == spread, "forgotten"
    assert book.apply(drift("drift", 12)) == [], f"{level} is still known to have ended at 40"


@pytest.mark.parametrize(
    ("sku", "category", "what"),
    [("s1", "shoes", "s1"), (None, "shoes", "shoes"), (None, None, "the shop")],
)
def test_a_flash_sale_names_what_is_on_sale_and_until_when(
    sku: str | None, category: str | None, what: str
) -> None:
    sale = Promotion(
        promotion_id="p9",
        starts_at=100,
        ends_at=200,
        discount=0.3,
        kind="flash-weekend",
        sku=sku,
        category=category,
    )
    signal = flash_sale_signal(sale, starts_at_ms=100, ends_at_ms=200, now_ms=150)
    assert signal == Signal(
        type="io.freshet.flash_sale",
        subject="p9",
        kind="flash-weekend",
        active=True,
        at_ms=150,
        starts_at_ms=100,
        severity="info",
        title=f"Flash sale on {what}",
        description=f"30% off {what} until 1970-01-01T00:00:00.200Z",
    )
    active = [
        flash_sale_signal(sale, starts_at_ms=100, ends_at_ms=200, now_ms=now_ms).active
        for now_ms in (99, 100, 199, 200)
    ]
    assert active == [False, True, True, False]
