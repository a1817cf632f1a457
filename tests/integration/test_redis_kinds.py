"""Windows in a cluster of one node, behind Sentinels through a failover, and over mutual TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from freshet.stream.child import Child, free_port
from freshet.stream.config import RedisSettings, SentinelSettings, Settings
from freshet.stream.errors import StoreUnavailableError
from freshet.stream.ingest.process import run
from freshet.stream.kafka import ensure_topics
from freshet.stream.ops.redis_checks import check_clock, check_redis
from freshet.stream.store.connection import check_fit, connect
from freshet.stream.verify.verify import verify
from tests.certificates import authority, client_certificate, server_certificate
from tests.integration.redis_binary import cluster_port, redis_binary
from tests.integration.shop import books, order, send, settings_for, wait_for

SLOTS = 16_384


@contextmanager
def server(folder: Path, options: dict[str, object], *, tls: bool = False) -> Iterator[Child]:
    """A redis-server of these options that keeps nothing."""
    folder.mkdir(exist_ok=True)
    config = folder / "redis.conf"
    kept = {"save": '""', "dir": folder, **options}
    config.write_text("".join(f"{name} {value}\n" for name, value in kept.items()), "utf-8")
    command = [redis_binary(tls=tls), str(config)]
    with Child(command, log_file=folder / "redis.log") as child:
        yield child


def files_of(folder: Path) -> dict[str, Any]:
    """What a shop would write of certificates."""
    return {
        "ssl_ca_location": str(folder / "ca.pem"),
        "ssl_certificate_location": str(folder / "client.pem"),
        "ssl_key_location": str(folder / "client.key"),
        "ssl_key_password": SecretStr("locked"),
    }


def secured(folder: Path, port: int) -> dict[str, object]:
    """Options of a server that speaks over TLS alone, to those whom the authority knows."""
    signer = authority(folder)
    server_certificate(folder, signer)
    client_certificate(folder, signer, password="locked")
    return {
        "port": 0,
        "tls-port": port,
        "tls-cert-file": folder / "server.pem",
        "tls-key-file": folder / "server.key",
        "tls-ca-cert-file": folder / "ca.pem",
    }


def answers(settings: RedisSettings) -> bool:
    try:
        connect(settings).close()
    except StoreUnavailableError:
        return False
    return True


def with_redis(broker: str, settings: RedisSettings, name: str) -> Settings:
    made = settings_for(broker, settings.url.get_secret_value(), name)
    return made.model_copy(update={"redis": settings})


def folded_right(settings: Settings, numbers: range) -> None:
    """Fold these orders, and count the windows again by other code."""
    send(settings, [order(number) for number in numbers])
    run(settings, until_end=True)
    assert books(settings)["applied"] == numbers.stop
    report = verify(settings)
    assert report.agrees and report.partitions, report.as_text()


# A cluster of one node ----------------------------------------------------------------------------


def join_slots(client: redis.Redis) -> None:
    """Let one node be the whole cluster."""
    client.execute_command("CLUSTER ADDSLOTS", *range(SLOTS))
    wait_for(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "over TLS"])
def test_a_cluster_of_one_node_holds_windows(mock_broker: str, tmp_path: Path, tls: bool) -> None:
    port = cluster_port()
    options: dict[str, object] = {"port": port, "cluster-enabled": "yes"}
    files: dict[str, Any] = {}
    if tls:
        options |= secured(tmp_path, port) | {"tls-cluster": "yes"}
        files = files_of(tmp_path)
    url = SecretStr(f"redis{'s' if tls else ''}://127.0.0.1:{port}")
    alone = RedisSettings(url=url, **files)
    with server(tmp_path, options, tls=tls):
        wait_for(lambda: answers(alone))
        join_slots(connect(alone))
        cluster = RedisSettings(url=url, cluster=True, **files)
        wait_for(lambda: answers(cluster))
        settings = with_redis(mock_broker, cluster, f"one-{tls}")
        ensure_topics(settings, live=False)
        folded_right(settings, range(30))
        said = (*check_redis(settings), *check_clock(settings))
        # It keeps nothing on disk, and the doctor says so.
        assert [check.state for check in said] == ["warning", "ok", "ok"]


# Sentinel -----------------------------------------------------------------------------------------


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[RedisSettings, Child]]:
    """A master, its replica, and a Sentinel with a password that watches them; and the master."""
    ports = [free_port() for _ in range(3)]
    login = {"requirepass": "secret", "masterauth": "secret"}
    replica = {"port": ports[1], "replicaof": f"127.0.0.1 {ports[0]}", **login}
    replica["repl-diskless-sync-delay"] = 0
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {ports[2]}\nrequirepass watcher\nsentinel monitor shop 127.0.0.1 {ports[0]} 1\n"
        "sentinel auth-pass shop secret\nsentinel down-after-milliseconds shop 1500\n"
        "sentinel failover-timeout shop 2000\n",
        "utf-8",
    )
    master_options = {"port": ports[0], "repl-diskless-sync-delay": 0, **login}
    with ExitStack() as stack:
        master = stack.enter_context(server(tmp_path / "m", master_options))
        stack.enter_context(server(tmp_path / "r", replica))
        wait_for(lambda: in_step(ports[0]))
        stack.enter_context(Child([redis_binary(), str(config), "--sentinel"]))
        sentinel = SentinelSettings(
            addresses=(f"127.0.0.1:{free_port()}", f"127.0.0.1:{ports[2]}"),
            service="shop",
            password=SecretStr("watcher"),
        )
        url = SecretStr("redis://:secret@nowhere.example:1/0")
        settings = RedisSettings(url=url, timeout_ms=1_000, sentinel=sentinel)
        wait_for(lambda: answers(settings) and knows_replica(ports[2]))
        yield settings, master


def in_step(port: int) -> bool:
    """Whether the replica has what the master has."""
    try:
        with redis.Redis(port=port, password="secret") as client:
            said = client.info("replication")
    except redis.ConnectionError:
        return False
    return bool(said.get("connected_slaves")) and said["slave0"]["state"] == "online"


def knows_replica(port: int) -> bool:
    with redis.Redis(port=port, password="watcher") as client:
        return bool(client.sentinel_master("shop")["num-slaves"])


def test_windows_outlive_the_master_that_sentinels_named(
    watched: tuple[RedisSettings, Child], mock_broker: str
) -> None:
    found, master = watched
    settings = with_redis(mock_broker, found, "sentinel")
    ensure_topics(settings, live=False)
    folded_right(settings, range(20))
    client = connect(found)
    check_fit(client)
    assert client.wait(1, 1_000) == 1
    master.process.kill()
    with pytest.raises(StoreUnavailableError, match="master 'shop'"):
        check_fit(client)
    wait_for(lambda: writes(found))
    folded_right(settings, range(20, 35))


def writes(settings: RedisSettings) -> bool:
    """Whether the Sentinels name a master that is one by now."""
    try:
        return bool(connect(settings).set("probe", "1"))
    except (StoreUnavailableError, redis.RedisError):
        return False


def test_sentinels_that_know_no_such_master_are_said_so() -> None:
    sentinel = SentinelSettings(addresses=("127.0.0.1:1",), service="shop")
    with pytest.raises(StoreUnavailableError, match=r"no Sentinel names the master 'shop'"):
        connect(RedisSettings(sentinel=sentinel, timeout_ms=200))


# TLS ----------------------------------------------------------------------------------------------


def test_a_redis_that_asks_for_a_certificate_lets_in_who_has_one(tmp_path: Path) -> None:
    port = free_port()
    with server(tmp_path, secured(tmp_path, port), tls=True):
        url = SecretStr(f"rediss://127.0.0.1:{port}/0")
        known = RedisSettings(url=url, **files_of(tmp_path))
        wait_for(lambda: answers(known))
        check_fit(connect(known))
        trusting = RedisSettings(url=url, ssl_ca_location=str(tmp_path / "ca.pem"))
        # Over TLS 1.3 the client learns of it when it first reads, or finds the line cut.
        with pytest.raises(StoreUnavailableError):
            connect(trusting)
        with pytest.raises(StoreUnavailableError, match="certificate"):
            connect(RedisSettings(url=url))
