"""Redis' errors as ours: which of them are worth another try, and what a person can do."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from pydantic import SecretStr, ValidationError
from redis.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection

from freshet.stream.config import RedisSettings, SentinelSettings
from freshet.stream.errors import StoreError, StoreUnavailableError
from freshet.stream.store.connection import _client as client_of
from freshet.stream.store.connection import connect, translated

CALL = "Error running script (call to f_1): @user_script:97: @user_script: 97: "


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (redis.ConnectionError("gone"), "does not answer: gone"),
        (redis.TimeoutError("late"), "does not answer: late"),
        (redis.exceptions.OutOfMemoryError("not allowed"), "is full: not allowed"),
        (redis.ResponseError(CALL + "-OOM command not allowed"), "is full: Error"),
        (redis.exceptions.ReadOnlyError("no writes"), "is a replica now: no writes"),
        (redis.ResponseError(CALL + "-READONLY no writes"), "is a replica now: Error"),
        (redis.exceptions.ClusterDownError("down"), "moves its keys: down"),
        (redis.exceptions.TryAgainError("again"), "moves its keys: again"),
    ],
)
def test_what_may_pass_is_tried_again_also_where_redis_6_says_it_of_a_script(
    error: redis.RedisError, said: str
) -> None:
    client = redis.Redis(host="shop", port=6_380)
    found = pytest.raises(StoreUnavailableError, match=f"^Redis at shop:6380 {said}")
    with found, translated(client):
        raise error


def test_any_other_refusal_is_an_error_that_stays() -> None:
    found = pytest.raises(StoreError, match="refused a call: WRONGTYPE")
    with found as caught, translated(redis.Redis()):
        raise redis.ResponseError("WRONGTYPE Operation against a key")
    assert not caught.value.retriable


# What each connection is told ---------------------------------------------------------------------


def test_a_password_in_an_address_that_is_none_is_not_said() -> None:
    url = SecretStr("http://me:secret@shop:6379/0?ssl_password=secret")
    with pytest.raises(StoreError, match="http://shop:6379/0") as caught:
        connect(RedisSettings(url=url))
    assert "secret" not in str(caught.value)


def test_the_master_is_signed_in_to_as_the_address_says_and_the_sentinels_as_they_ask() -> None:
    sentinel = SentinelSettings(
        addresses=("one:26379", "two:26380"), service="shop", username="w", password=SecretStr("p")
    )
    settings = RedisSettings(
        url=SecretStr("rediss://me:secret@unused:1/3"),
        ssl_ca_location="ca.pem",
        ssl_certificate_location="me.pem",
        ssl_key_location="me.key",
        ssl_key_password=SecretStr("locked"),
        sentinel=sentinel,
    )
    pool = client_of(settings).connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.connection_class is SentinelManagedSSLConnection
    told = pool.connection_kwargs
    assert (told["username"], told["password"], told["db"]) == ("me", "secret", 3)
    assert not {"host", "port", "path"} & told.keys()
    asked = pool.sentinel_manager.sentinels
    kwargs = [one.connection_pool.connection_kwargs for one in asked]
    assert [(one["host"], one["port"]) for one in kwargs] == [("one", 26379), ("two", 26380)]
    assert [(one["username"], one["password"]) for one in kwargs] == [("w", "p")] * 2
    for one in (told, *kwargs):
        assert [one[f"ssl_{name}"] for name in ("ca_certs", "certfile", "keyfile", "password")] == [
            "ca.pem",
            "me.pem",
            "me.key",
            "locked",
        ]


def test_sentinels_name_no_server_on_a_socket() -> None:
    sentinel = SentinelSettings(addresses=("one:26379",))
    with pytest.raises(StoreError, match="on a socket"):
        connect(RedisSettings(url=SecretStr("unix:///run/redis.sock"), sentinel=sentinel))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ssl_ca_location": "ca.pem"}, "begins with rediss://"),
        ({"ssl_certificate_location": "a", "ssl_key_location": "b"}, "begins with rediss://"),
        ({"url": "rediss://shop", "ssl_key_location": "b"}, "go together"),
        ({"cluster": True, "sentinel": {"addresses": ["one:1"]}}, "exclude each other"),
        ({"sentinel": {"addresses": ["one"]}}, "sentinel.addresses"),
    ],
)
def test_a_setting_that_nothing_would_follow_is_refused(settings: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RedisSettings(**settings)
