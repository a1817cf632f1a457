"""The doctor finds what is wrong and says what to do."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from freshet.stream.config import KafkaSettings, RedisSettings, Settings, Topics
from freshet.stream.errors import ConfigError, WeightsError
from freshet.stream.fold.headers import fingerprint
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.ops.doctor import Check, check_sign_in, run_checks
from freshet.stream.store.clock import set_anchor
from freshet.stream.store.connection import connect
from freshet.stream.store.redis import WindowStore


@pytest.fixture
def settings(mock_broker: str, redis_server: str, request: pytest.FixtureRequest) -> Settings:
    name = request.node.name[-40:]
    topics = Topics(orders=f"{name}.orders", clicks=f"{name}.clicks")
    kafka = KafkaSettings(bootstrap_servers=mock_broker, topics=topics, request_timeout_ms=2_000)
    return Settings(kafka=kafka, redis=RedisSettings(url=redis_server))


def found(settings: Settings) -> dict[str, list[Check]]:
    checks: dict[str, list[Check]] = {}
    for check in run_checks(settings):
        checks.setdefault(check.name, []).append(check)
    return checks


def test_all_is_well_with_an_embedded_broker_and_an_empty_redis(settings: Settings) -> None:
    checks = run_checks(settings)
    assert [check.name for check in checks] == ["broker", "topics", "redis", "clock", "windows"]
    assert {check.state for check in checks} == {"ok"}
    assert "embedded" in checks[0].message


def test_nothing_there_is_one_finding_each_and_no_exception() -> None:
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_ms=200)
    checks = found(
        Settings(kafka=kafka, redis=RedisSettings(url="redis://me:secret@127.0.0.1:1/0"))
    )
    assert {name: [check.state for check in of] for name, of in checks.items()} == {
        name: ["fail"] for name in ("broker", "topics", "redis", "clock", "windows")
    }
    assert "FRESHET_KAFKA__BOOTSTRAP_SERVERS" in checks["broker"][0].hint
    assert not any("secret" in check.message + check.hint for of in checks.values() for check in of)


def test_a_redis_that_evicts_fails(settings: Settings) -> None:
    client = connect(settings.redis)
    client.config_set("maxmemory-policy", "volatile-ttl")
    try:
        (check,) = found(settings)["redis"]
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert check.state == "fail" and "volatile-ttl" in check.message and "noeviction" in check.hint


def test_a_simulated_clock_is_mentioned(settings: Settings) -> None:
    set_anchor(connect(settings.redis), 1_000, 900.0)
    (check,) = found(settings)["clock"]
    assert check.state == "ok" and "900 times as fast" in check.message


def test_windows_that_cannot_be_continued_fail(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    topic = settings.kafka.topics.orders
    with Publisher(settings) as publisher:
        publisher.produce(topic, b"{}", partition=2)
    client = connect(settings.redis)
    store = WindowStore(client, 0)
    store.claim(topic, 2, fingerprint("orders", settings))
    client.hset(store.keys(topic, 2).header, "next_offset", "1")
    assert [check.state for check in found(settings)["windows"]] == ["ok"]
    client.hset(store.keys(topic, 2).header, mapping={"next_offset": "5", "fingerprint": "{}"})
    lost, other = found(settings)["windows"]
    assert lost.state == other.state == "fail"
    assert "end at offset 5, the log holds 0 to 1" in lost.message
    assert "--from-beginning --into 1" in lost.hint and "other settings" in other.message


def test_a_callers_own_checks_come_last_and_may_fail(settings: Settings) -> None:
    def weights() -> list[Check]:
        raise WeightsError("sha256 differs", hint="download them again")

    checks = run_checks(settings, extra=[("weights", weights)])
    assert checks[-1] == Check("weights", "fail", "sha256 differs", "download them again")


def test_every_client_is_asked_whether_it_can_sign_in() -> None:
    secured = KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512")
    assert check_sign_in(Settings()) == []
    (found,) = check_sign_in(Settings(kafka=secured))
    assert (found.state, found.message) == ("ok", "every process can sign in by SCRAM-SHA-512")
    keystore = secured.model_copy(update={"client": {"ssl.keystore.location": SecretStr("x")}})
    with pytest.raises(ConfigError, match=r"dashboard .* cannot follow .* ssl\.keystore\.location"):
        check_sign_in(Settings(kafka=keystore))
