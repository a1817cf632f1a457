"""The controller without Kafka: records in, records out, and nothing twice."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.online.control.alerts import FLASH_SALE_TYPE
from freshet.online.control.controller import UNUSABLE, Controller, Output
from freshet.online.control.process import credentials
from freshet.online.control.rules import RetrainRules
from freshet.stream.codec import encode
from freshet.stream.config import KafkaSettings, Topics
from freshet.stream.errors import ConfigError, EventError
from freshet.stream.schemas import Alert, DriftAlert, ModelEvent, Promotion, RetrainRequest
from freshet.stream.units import HOUR_MS

TOPICS = Topics()


def controller() -> Controller:
    return Controller(TOPICS, RetrainRules(cooldown_ms=12 * HOUR_MS, min_new_data_ms=0))


def drift(state: Any = "drift", at: int = 10) -> bytes:
    return encode(
        DriftAlert(
            alert_id=f"a{at}",
            segment="shoes",
            state=state,
            kind="level",
            detector="cusum",
            detected_at_ms=at * HOUR_MS,
            onset_ms=at * HOUR_MS,
            size=1.0,
            weights_version="base",
            description="d",
            action="a",
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


def test_a_drift_gives_one_alert_and_one_request() -> None:
    state = controller()
    (alert,) = step(state, TOPICS.drift, drift())
    assert (alert.topic, alert.key) == (
        TOPICS.alerts,
        alert.record.subject if isinstance(alert.record, Alert) else "",
    )
    (request,) = tick(state, 10)
    assert isinstance(request.record, RetrainRequest)
    assert (request.topic, request.key) == (TOPICS.retrain, request.record.request_id)
    assert step(state, TOPICS.drift, drift()) == tick(state, 11) == []


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
    with pytest.raises(UNUSABLE):
        controller().take(topic, b"k", value, 0)


def test_a_tombstone_changes_nothing() -> None:
    assert controller().take(TOPICS.drift, b"k", None, 0) == []


def test_a_promotion_that_ends_before_it_starts_is_refused() -> None:
    upside_down = encode(Promotion(promotion_id="p", starts_at=5, ends_at=4, discount=0.5, sku="s"))
    with pytest.raises(EventError):
        controller().take(TOPICS.promotions, b"p", upside_down, 0)


def test_settings_become_credentials() -> None:
    assert credentials(KafkaSettings()) is None
    secured = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="u",
        sasl_password="p",
    )
    found = credentials(secured)
    assert (found.username, found.password, found.mechanism.value) == ("u", "p", "SCRAM-SHA-512")
    assert credentials(KafkaSettings(security_protocol="SSL")).protocol.value == "SSL"
    with pytest.raises(ConfigError, match="OAUTHBEARER"):
        credentials(KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER"))
