"""The controller without Kafka: records in, records out, and nothing twice."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.online.control import alerts
from freshet.online.control.alerts import FLASH_SALE_TYPE, AlertBook
from freshet.online.control.controller import Controller, Output
from freshet.online.control.rules import RetrainRules
from freshet.stream.codec import encode
from freshet.stream.config import Topics
from freshet.stream.errors import EventError
from freshet.stream.schemas import Alert, DriftAlert, ModelEvent, Promotion, RetrainRequest
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

TOPICS = Topics()


def controller() -> Controller:
    rules = RetrainRules(12 * HOUR_MS, min_new_data_ms=0, schedule_ms=0)
    return Controller(TOPICS, rules, HOUR_MS)


def drift(state: Any = "drift", at: int = 10, kind: Any = "level", **over: Any) -> bytes:
    return encode(
        DriftAlert(
            alert_id=f"a{at}",
            segment="shoes",
            state=state,
            kind=kind,
            detector="cusum",
            detected_at_ms=at * HOUR_MS,
            onset_ms=(at - 4) * HOUR_MS,
            size=1.0,
            weights_version="base",
            description="d",
            action="a",
            **over,
        )
    )


def sale(kind: str = "flash_sale") -> bytes:
    return encode(
        Promotion(
            promotion_id="p",
            starts_at=10 * HOUR_MS,
            ends_at=12 * HOUR_MS,
            discount=0.5,
            kind=kind,
            sku="s",
        )
    )


def step(state: Controller, topic: str, value: bytes) -> list[Output]:
    outputs = state.take(topic, b"k", value, 0)
    state.published(outputs)
    return outputs


def tick(state: Controller, hour: int) -> list[Output]:
    outputs = state.tick(hour * HOUR_MS)
    state.published(outputs)
    return outputs


def test_a_drift_gives_one_alert_and_one_request_each_for_its_topic_and_by_its_time() -> None:
    state = controller()
    (alert,) = step(state, TOPICS.drift, drift())
    assert isinstance(alert.record, Alert)
    assert alert == Output(TOPICS.alerts, alert.record.subject, alert.record, 10 * HOUR_MS)
    (request,) = tick(state, 11)
    assert isinstance(request.record, RetrainRequest)
    assert request == Output(
        TOPICS.retrain, request.record.request_id, request.record, 11 * HOUR_MS
    )
    assert request.record.alert_ids == ["a10"]
    assert step(state, TOPICS.drift, drift()) == tick(state, 11) == []


@pytest.mark.parametrize(
    ("resolution_ms", "outputs"),
    # Version 1 named none: its one resolution is taken for ours.
    [(None, 1), (HOUR_MS, 1), (DAY_MS, 0), (MINUTE_MS, 0)],
)
def test_drift_of_another_resolution_is_neither_told_nor_trained_for_and_no_error(
    resolution_ms: int | None, outputs: int
) -> None:
    state = controller()
    assert len(step(state, TOPICS.drift, drift(resolution_ms=resolution_ms))) == outputs
    assert len(tick(state, 11)) == outputs


def test_an_end_in_another_resolution_ends_nothing() -> None:
    state = controller()
    step(state, TOPICS.drift, drift())
    assert step(state, TOPICS.drift, drift("stable", at=12, resolution_ms=DAY_MS)) == []
    assert len(state.book.firing()) == 1


def test_every_kind_of_drift_that_ends_is_told() -> None:
    state = controller()
    for kind in ("level", "spread"):
        step(state, TOPICS.drift, drift(kind=kind))
    over = step(state, TOPICS.drift, drift("stable", at=12))
    assert [output.record.data.state for output in over if isinstance(output.record, Alert)] == [
        "resolved",
        "resolved",
    ]
    assert [output.at_ms for output in over] == [12 * HOUR_MS] * 2


def test_an_answer_to_a_request_is_known_so_that_what_was_trained_for_is_not_asked_again() -> None:
    state = controller()
    step(state, TOPICS.drift, drift())
    (asked,) = tick(state, 10)
    done = ModelEvent(kind="promoted", version="v1", at_ms=5, request_id=asked.key)
    assert step(state, TOPICS.models, encode(done)) == []
    assert tick(state, 500) == []


def test_one_tick_may_bring_a_sale_and_a_request() -> None:
    state = controller()
    step(state, TOPICS.promotions, sale())
    step(state, TOPICS.drift, drift())
    first, second = tick(state, 10)
    assert isinstance(first.record, Alert) and isinstance(second.record, RetrainRequest)
    data = first.record.data
    assert (first.at_ms, data.starts_at_ms, data.updated_at_ms) == (10 * HOUR_MS,) * 3
    assert data.description == "50% off s until 1970-01-01T12:00:00.000Z"
    assert data.labels == {"type": FLASH_SALE_TYPE, "subject": "p", "kind": "flash_sale"}


def test_a_sale_that_is_withdrawn_is_over_and_what_drifts_is_not() -> None:
    state = controller()
    step(state, TOPICS.drift, drift())
    step(state, TOPICS.promotions, sale())
    tick(state, 10)
    state.take(TOPICS.promotions, b"k", None, 0)
    (over,) = tick(state, 11)
    assert isinstance(over.record, Alert)
    data = over.record.data
    assert (data.state, data.labels["subject"]) == ("resolved", "p")
    # It says since when it ran, and that it ended when that was noticed.
    assert (data.starts_at_ms, data.ends_at_ms, over.at_ms) == (
        10 * HOUR_MS,
        11 * HOUR_MS,
        11 * HOUR_MS,
    )
    assert [alert.data.labels["subject"] for alert in state.book.firing()] == ["shoes"]


def test_a_sale_that_was_withdrawn_is_over_whatever_its_kind_was_called() -> None:
    state = controller()
    step(state, TOPICS.promotions, sale("flash-weekend"))
    tick(state, 10)
    assert [output.at_ms for output in tick(state, 12)] == [12 * HOUR_MS]


def test_ended_alerts_beyond_the_limit_are_forgotten_as_others_are_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alerts, "MAX_RESOLVED", 0)
    state = controller()
    for record in (drift(), drift("stable", at=12)):
        step(state, TOPICS.drift, record)
    assert state.book == AlertBook()


def test_a_promotion_is_known_since_its_record() -> None:
    state = controller()
    state.take(TOPICS.promotions, b"k", sale(), 77)
    assert state.shop.newest_ms == 77


def test_what_was_not_published_is_given_again() -> None:
    state = controller()
    first = state.take(TOPICS.drift, b"k", drift(), 0)
    assert state.take(TOPICS.drift, b"k", drift(), 0) == first
    assert [output.key for output in state.tick(10 * HOUR_MS)] == [
        output.key for output in state.tick(10 * HOUR_MS)
    ]


def test_a_controller_fed_from_its_own_topics_says_nothing_again() -> None:
    state, other = controller(), controller()
    outputs = [*step(state, TOPICS.drift, drift()), *tick(state, 10)]
    for output in outputs:
        assert other.take(output.topic, output.key.encode(), encode(output.record), 0) == []
    assert step(other, TOPICS.drift, drift()) == tick(other, 11) == []


def test_a_flash_sale_fires_while_it_runs_and_a_coupon_does_not() -> None:
    state = controller()
    assert step(state, TOPICS.promotions, sale()) == []
    said = [(hour, output.record) for hour in range(9, 14) for output in tick(state, hour)]
    assert [(hour, r.data.state) for hour, r in said if isinstance(r, Alert)] == [
        (10, "firing"),
        (12, "resolved"),
    ]
    assert {r.type for _, r in said if isinstance(r, Alert)} == {FLASH_SALE_TYPE}
    coupon = controller()
    step(coupon, TOPICS.promotions, sale("coupon"))
    assert tick(coupon, 11) == []


def test_a_rolled_back_model_is_an_alert_until_the_next_is_confirmed() -> None:
    state = controller()
    bad = ModelEvent(kind="rolled_back", version="v1", at_ms=5, reason="12 % worse")
    (fired,) = step(state, TOPICS.models, encode(bad))
    assert isinstance(fired.record, Alert)
    assert fired.record.data.severity == "critical"
    (over,) = step(
        state, TOPICS.models, encode(ModelEvent(kind="confirmed", version="v2", at_ms=9))
    )
    assert isinstance(over.record, Alert)
    assert over.record.data.state == "resolved"


@pytest.mark.parametrize("value", [b"", b"{", b"{}", b"[1]", b"\xff", b'{"kind": 3}'])
@pytest.mark.parametrize(
    "topic", [TOPICS.drift, TOPICS.models, TOPICS.retrain, TOPICS.promotions, TOPICS.alerts]
)
def test_a_broken_record_is_refused(topic: str, value: bytes) -> None:
    with pytest.raises(EventError):
        controller().take(topic, b"k", value, 0)


def test_a_tombstone_changes_nothing() -> None:
    assert controller().take(TOPICS.drift, b"k", None, 0) == []


def test_a_promotion_that_ends_before_it_starts_is_refused() -> None:
    upside_down = encode(Promotion(promotion_id="p", starts_at=5, ends_at=4, discount=0.5, sku="s"))
    with pytest.raises(EventError):
        controller().take(TOPICS.promotions, b"p", upside_down, 0)
