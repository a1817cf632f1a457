"""Why no broker answers is said by what its client heard, the most telling first."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from freshet.stream.config import KafkaSettings
from freshet.stream.kafka.away import away

KAFKA = KafkaSettings(bootstrap_servers="shop:9092", request_timeout_ms=4_000)
DOWN = KafkaError(KafkaError._TRANSPORT, "Connection refused")


@pytest.mark.parametrize(
    ("heard", "message", "hint"),
    [
        ([], "no Kafka broker answers at shop:9092 within 4 s (timed out)", "start one"),
        (
            [KafkaError(KafkaError._RESOLVE, "kafka:29092/1: Failed to resolve 'kafka:29092'")],
            "Kafka at shop:9092 answers, and says that a broker is at kafka:29092: "
            "kafka:29092/1: Failed to resolve 'kafka:29092'",
            "advertised.listeners",
        ),
        (
            [KafkaError(KafkaError._TRANSPORT, "shop:9092/1: Connect to shop failed: refused")],
            "no Kafka broker answers at shop:9092 within 4 s "
            "(shop:9092/1: Connect to shop failed: refused)",
            "start one",
        ),
        (
            [
                KafkaError(KafkaError._TRANSPORT, "kafka:29092/1: Connect to kafka failed"),
                KafkaError(KafkaError._TRANSPORT, "shop:9092/bootstrap: Connect to shop failed"),
            ],
            "no Kafka broker answers at shop:9092 within 4 s "
            "(kafka:29092/1: Connect to kafka failed)",
            "start one",
        ),
        ([DOWN], "no Kafka broker answers at shop:9092 within 4 s (Connection refused)", "start"),
        (
            [DOWN, KafkaError(KafkaError._AUTHENTICATION, "bad password")],
            "Kafka at shop:9092 does not let us in: bad password",
            "kafka.sasl_password",
        ),
        (
            [KafkaError(KafkaError._SSL, "certificate verify failed")],
            "no TLS with Kafka at shop:9092: certificate verify failed",
            "kafka.ssl_ca_location",
        ),
        (
            [KafkaError(KafkaError._RESOLVE, "Name or service not known")],
            "the address of Kafka, shop:9092, leads nowhere: Name or service not known",
            "kafka.bootstrap_servers",
        ),
        (
            [KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")],
            "what listens at shop:9092 does not speak as we do: it closes the connection",
            "kafka.security_protocol",
        ),
        (
            [DOWN, KafkaError(KafkaError._TRANSPORT, "incorrect security.protocol?")],
            "what listens at shop:9092 does not speak as we do: incorrect security.protocol?",
            "kafka.security_protocol",
        ),
    ],
)
def test_what_was_heard_decides(heard: list[KafkaError], message: str, hint: str) -> None:
    error = away(KAFKA, "timed out", heard)
    assert error.message == message and error.retriable
    assert hint in error.hint
