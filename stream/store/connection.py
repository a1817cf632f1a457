"""The door to Redis: a checked connection, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from freshet.stream.config import RedisSettings, SentinelSettings
from freshet.stream.errors import StoreError, StoreUnavailableError, StoreUnfitError
from freshet.stream.health import ANSWER_WITHIN_MS, Question

MINIMUM_VERSION: Final = (6, 2)


def connect(settings: RedisSettings) -> redis.Redis:
    """A checked connection without retries: the expected offset decides what a lost answer meant.

    To a Redis Cluster it is another class that is used the same: all keys of a partition share a
    slot, and what reads several partitions asks each node for its own.

    Raises:
        StoreUnavailableError: Redis does not answer; the message shows the address without its
            password.
    """
    shown = _address(settings.url.get_secret_value())
    try:
        client = _client(settings)
    except ValueError as error:
        raise StoreError(f"redis.url {shown!r} is not a Redis address: {error}") from None
    except redis.exceptions.RedisClusterException as error:
        raise StoreUnavailableError(
            f"the Redis Cluster at {shown} does not answer: {error}",
            hint="is it running, is redis.url one of its nodes, and is redis.cluster right?",
        ) from None
    with translated(client):
        client.ping()
    return client


def _client(settings: RedisSettings) -> redis.Redis:
    url, options = settings.url.get_secret_value(), _options(settings)
    if settings.cluster:
        return cast(redis.Redis, redis.RedisCluster.from_url(url, **options))
    options["retry_on_error"] = []
    if settings.sentinel.addresses:
        return _master(settings.sentinel, url, options)
    return redis.Redis.from_url(url, **options)


def _options(settings: RedisSettings) -> dict[str, Any]:
    """What each connection is told, whatever it leads to."""
    timeout_s = settings.timeout_ms / 1_000
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    files = {
        "ssl_ca_certs": settings.ssl_ca_location,
        "ssl_certfile": settings.ssl_certificate_location,
        "ssl_keyfile": settings.ssl_key_location,
        "ssl_password": settings.ssl_key_password.get_secret_value(),
    }
    return options | {name: value for name, value in files.items() if value}


def _master(sentinel: SentinelSettings, url: str, options: dict[str, Any]) -> redis.Redis:
    """A client that asks the Sentinels for the master whenever it connects."""
    given = parse_url(url)  # type: ignore[no-untyped-call]
    where = {name: given.pop(name, None) for name in ("host", "port", "path", "connection_class")}
    if where["path"]:
        raise ValueError("Sentinels name no server on a socket")
    if where["connection_class"] is redis.SSLConnection:
        options = {**options, "ssl": True}
    trust = {name: value for name, value in given.items() if name.startswith("ssl_")}
    signed_in = {
        "username": sentinel.username or None,
        "password": sentinel.password.get_secret_value() or None,
    }
    asked = Sentinel(  # type: ignore[no-untyped-call]
        [_host_and_port(address) for address in sentinel.addresses],
        sentinel_kwargs={**options, **trust, **signed_in},
        **{**options, **given},
    )
    client = asked.master_for(sentinel.service)  # type: ignore[no-untyped-call]
    return cast(redis.Redis, client)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def redis_question(settings: RedisSettings) -> Question:
    """Asks Redis, on a connection of its own, whether it is there; for a `Watch`."""
    quick = {"timeout_ms": min(ANSWER_WITHIN_MS, settings.timeout_ms)}
    open_client = cache(lambda: connect(settings.model_copy(update=quick)))

    def ask() -> None:
        client = open_client()
        with translated(client):
            client.ping()

    return ask


def check_fit(client: redis.Redis) -> None:
    """Say whether windows may live in this Redis.

    Raises:
        StoreUnfitError: It is too old, evicts keys, or runs no scripts.
        StoreUnavailableError: It does not answer.
    """
    with translated(client):
        for info in node_infos(client):
            _check_node(info)
        try:
            client.eval("return 1", 0)
        except redis.ResponseError as error:
            raise StoreUnfitError(
                f"Redis runs no scripts ({error})",
                hint="allow EVAL, EVALSHA and SCRIPT LOAD to this user",
            ) from None


def node_infos(client: redis.Redis) -> list[dict[str, Any]]:
    """What each node says of itself."""
    cluster = _cluster(client)
    if cluster is None:
        return [client.info()]
    said = cluster.info(target_nodes="all")
    # Of one node its own words come back, of several a table of them.
    return [said] if "redis_version" in said else list(said.values())


def _check_node(info: dict[str, Any]) -> None:
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_VERSION:
        raise StoreUnfitError(
            f"Redis {version} is too old", hint="use Redis 6.2 or newer, or Valkey"
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise StoreUnfitError(
            f"Redis evicts keys (maxmemory-policy {policy}), so windows could vanish",
            hint="set maxmemory-policy noeviction",
        )


@contextmanager
def translated(client: redis.Redis) -> Iterator[None]:
    """Redis' errors as ours."""
    try:
        yield
    except MasterNotFoundError:
        raise StoreUnavailableError(
            f"no Sentinel names {_address_of(client)} as one that is up",
            hint="do redis.sentinel.addresses answer, and do they watch redis.sentinel.service?",
        ) from None
    except redis.AuthenticationError as error:
        raise StoreUnavailableError(
            f"Redis at {_address_of(client)} does not let us in: {error}",
            hint="redis.url says as whom: redis://USER:PASSWORD@HOST:PORT/DATABASE",
        ) from None
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailableError(
            f"Redis at {_address_of(client)} does not answer: {error}",
            hint="is it running, and is redis.url right?",
        ) from None
    except (redis.exceptions.ClusterDownError, redis.exceptions.TryAgainError) as error:
        raise StoreUnavailableError(
            f"Redis at {_address_of(client)} moves its keys: {error}"
        ) from None
    except redis.RedisError as error:
        raise _refusal(_address_of(client), error) from None


def _refusal(address: str, error: redis.RedisError) -> StoreError:
    """What a call was refused for; Redis 6.2 says of a script's own call what 7 says plainly."""
    full = isinstance(error, redis.exceptions.OutOfMemoryError) or ": -OOM " in str(error)
    replica = isinstance(error, redis.exceptions.ReadOnlyError) or ": -READONLY " in str(error)
    if full:
        return StoreUnavailableError(
            f"Redis at {address} is full: {error}",
            hint="raise maxmemory; nothing was written",
        )
    if replica:
        return StoreUnavailableError(f"Redis at {address} is a replica now: {error}")
    if "DB index" in str(error):
        return StoreError(
            f"Redis at {address} has no such database: {error}",
            hint="redis.url ends with its number, such as /0; a Redis Cluster has 0 alone",
        )
    if str(error).startswith(("MOVED", "CROSSSLOT", "CLUSTERDOWN")):
        return StoreError(
            f"Redis at {address} is a node of a Redis Cluster: {error}",
            hint="set redis.cluster = true",
        )
    return StoreError(f"Redis at {address} refused a call: {error}")


def _address_of(client: redis.Redis) -> str:
    cluster = _cluster(client)
    if cluster is not None:
        return "the cluster of " + ", ".join(sorted(node.name for node in cluster.get_nodes()))  # type: ignore[no-untyped-call]
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return f"the master {pool.service_name!r}"
    options = pool.connection_kwargs
    return str(
        options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    )


def _cluster(client: Any) -> redis.RedisCluster | None:
    return client if isinstance(client, redis.RedisCluster) else None


def _address(url: str) -> str:
    """An address without user, password and options, of which one opens a key.

    >>> _address("redis://me:secret@shop:6379/0?ssl_password=secret")
    'redis://shop:6379/0'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
