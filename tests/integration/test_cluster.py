"""Windows in a Redis Cluster of three nodes, and in a Redis that asks for TLS and for rights."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from freshet.stream.child import free_port
from freshet.stream.config import RedisSettings, Settings
from freshet.stream.errors import StoreError, StoreUnavailableError
from freshet.stream.ingest.process import run
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.ops.redis_checks import check_clock, check_redis
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.store.connection import check_fit, connect
from freshet.stream.store.layout import Answer, Keys
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.store.tiles import CHANNELS
from freshet.stream.units import HOUR_MS
from freshet.stream.verify.verify import verify
from tests.certificates import authority, server_certificate
from tests.integration.redis_binary import cluster_port, redis_binary
from tests.integration.shop import START_MS, books, order, send, settings_for, wait_for
from tests.stream.fold.test_partition import order as small_order
from tests.stream.fold.windows_checks import Driver, small_settings

ACL = (
    "on >secret ~freshet:* ~{freshet:* -@all +ping +info +time +get +set +mget +hget +hset +hdel "
    "+hmget +hgetall +sadd "
    "+smembers +smismember +zadd +zcard +zrange +zrangebyscore +zrem +zremrangebyrank +strlen "
    "+xadd +xdel +xlen +xrange +xrevrange +setrange +type +unlink "
    "+scan +multi +exec +eval +evalsha +script|load"
)


def redis_process(options: dict[str, object], users: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A redis-server that keeps nothing on disk."""
    arguments = [redis_binary(tls="tls-port" in options), *users, "--save", ""]
    for name, value in options.items():
        arguments += [f"--{name}", str(value)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSettings]:
    if shutil.which("redis-cli") is None or shutil.which("redis-server") is None:
        pytest.skip("a cluster needs redis-server and redis-cli on PATH")
    ports = [cluster_port() for _ in range(3)]
    nodes = []
    for port in ports:
        folder = tmp_path_factory.mktemp(f"node{port}")
        options = {"port": port, "dir": folder, "cluster-enabled": "yes", "appendonly": "no"}
        nodes.append(redis_process(options))
    try:
        for port in ports:
            wait_for(lambda port=port: listens(port))
        addresses = [f"127.0.0.1:{port}" for port in ports]
        create = ["redis-cli", "--cluster", "create", *addresses]
        create += ["--cluster-replicas", "0", "--cluster-yes"]
        subprocess.run(create, check=True, capture_output=True, timeout=180)
        for port in ports:
            wait_for(lambda port=port: cluster_state(port) == "ok")
        yield RedisSettings(url=SecretStr(f"redis://{addresses[0]}"), cluster=True)
    finally:
        for node in nodes:
            node.kill()
            node.wait()


def cluster_state(port: int) -> str:
    with redis.Redis(port=port) as client:
        return str(client.execute_command("CLUSTER INFO")["cluster_state"])


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def test_all_keys_of_a_partition_share_a_slot_and_partitions_spread(cluster: RedisSettings) -> None:
    client = redis.RedisCluster.from_url(cluster.url.get_secret_value())
    slots = set()
    for partition in range(16):
        keys = Keys(0, "freshet.orders.v1", partition)
        names = (
            keys.header,
            keys.retained,
            keys.redrives,
            keys.dictionary(3),
            keys.minute(9),
            keys.tile(1, 2, 3),
        )
        (slot,) = {client.keyslot(name) for name in names}
        slots.add(slot)
    assert len({client.nodes_manager.get_node_from_slot(slot).name for slot in slots}) == 3
    client.close()


def test_ingest_verify_and_readers_work_on_a_cluster(
    cluster: RedisSettings, mock_broker: str
) -> None:
    over = {"FRESHET_REDIS__CLUSTER": "true"}
    settings = settings_for(mock_broker, cluster.url.get_secret_value(), "cluster", **over)
    ensure_topics(settings, live=False)
    for partition in range(4):
        send(
            settings, [*(order(n, sku=f"s{n}") for n in range(30)), b"broken"], partition=partition
        )
    run(settings, until_end=True)
    assert [books(settings, n)["applied"] for n in range(4)] == [30] * 4
    report = verify(settings)
    assert report.agrees and len(report.partitions) == 4, report.as_text()
    reader = WindowReader(
        connect(settings.redis), 0, HOUR_MS, 24, rules=ReadRules.of(settings, HOUR_MS)
    )
    assert len(reader.refresh().new_items) == 30
    assert reader.sums(START_MS // HOUR_MS * HOUR_MS + HOUR_MS, 1)[:, 0].sum() == 4 * 30 * 2_000
    send(settings, [order(100, sku="s1")], partition=2)
    run(settings, until_end=True)
    assert reader.refresh().changed_rows.tolist() == [reader.row("s1|north")]
    run(settings, until_end=True, into=1)
    reader.refresh()
    assert reader.generation == 1 and reader.num_items == 30
    # It keeps nothing on disk, and the doctor says so.
    said = (*check_redis(settings), *check_clock(settings))
    assert [check.state for check in said] == ["warning", "ok", "ok"]


UNITS, RETURNS = CHANNELS.index("units"), CHANNELS.index("returns")
STATES = {"FRESHET_EVENTS__ORDERS__MODE": "state"}


def thirty_orders_of_which_ten_shrink(settings: Settings) -> None:
    """Three units each on four partitions; then of every third order one unit is left."""
    with Publisher(settings) as publisher:
        for version, left in ((1, 3), (2, 1)):
            for number in range(0, 30, 3 if version == 2 else 1):
                value = {
                    "order_id": f"o{number}",
                    "version": version,
                    "event_time": START_MS,
                    "changed_at": START_MS + version * 1_000,
                    "region": "north",
                    "lines": [{"sku": f"s{number % 5}", "quantity": left, "unit_price": 2}],
                }
                publisher.produce(
                    settings.kafka.topics.orders,
                    json.dumps(value).encode(),
                    key=f"o{number}",
                    partition=number % 4,
                    timestamp_ms=START_MS + version * 1_000,
                )
        publisher.flush()


def what_states_came_to(settings: Settings) -> tuple[int, int]:
    """Units and returned units of all items together, after verify has agreed."""
    run(settings, until_end=True)
    report = verify(settings)
    assert report.agrees, report.as_text()
    rules, generation = ReadRules.of(settings, HOUR_MS), settings.redis.generation
    reader = WindowReader(connect(settings.redis), generation, HOUR_MS, 24, rules=rules)
    reader.refresh()
    sums = reader.sums(START_MS // HOUR_MS * HOUR_MS + HOUR_MS, 1).sum(axis=(0, 2))
    return int(sums[UNITS]) // 1_000, int(sums[RETURNS]) // 1_000


def test_orders_that_change_are_kept_on_a_cluster(cluster: RedisSettings, mock_broker: str) -> None:
    over = {"FRESHET_REDIS__CLUSTER": "true", **STATES}
    settings = settings_for(mock_broker, cluster.url.get_secret_value(), "states", **over)
    ensure_topics(settings, live=False)
    thirty_orders_of_which_ten_shrink(settings)
    connect(settings.redis).flushall(target_nodes=redis.RedisCluster.PRIMARIES)
    assert what_states_came_to(settings) == (90, 20)


def test_fences_and_gaps_hold_on_a_cluster(cluster: RedisSettings) -> None:
    client = connect(cluster)
    store = WindowStore(client, 7)
    log = [small_order(n, START_MS + n) for n in range(12)]
    driver = Driver(store, "orders", small_settings(), log)
    driver.step(4)
    driver.crash(4)
    driver.zombies()
    client.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
    assert driver.step(4) is Answer.GAP
    driver.drain()
    header = store.header(driver.topic, 0)
    assert header is not None and header.applied == 12
    client.close()


def test_a_cluster_that_is_away_is_said_so() -> None:
    with pytest.raises(
        StoreUnavailableError, match=r"Redis Cluster at redis://127\.0\.0\.1:1 does not answer"
    ):
        connect(
            RedisSettings(
                url=SecretStr("redis://me:secret@127.0.0.1:1"), cluster=True, timeout_ms=200
            )
        )


# TLS and ACL --------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis with TLS only, and one user with no more rights than windows need."""
    server_certificate(tmp_path, authority(tmp_path))
    port = free_port()
    options = {
        "port": 0,
        "tls-port": port,
        "tls-auth-clients": "no",
        "tls-cert-file": tmp_path / "server.pem",
        "tls-key-file": tmp_path / "server.key",
        "tls-ca-cert-file": tmp_path / "ca.pem",
        "dir": tmp_path,
    }
    users = ["--user", "default", "off", "--user", "freshet", *ACL.split()]
    process = redis_process(options, users)
    try:
        wait_for(lambda: listens(port))
        yield f"rediss://freshet:secret@127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}"
    finally:
        process.kill()
        process.wait()


def test_ingest_needs_no_more_than_the_documented_rights_over_tls(
    guarded: str, mock_broker: str
) -> None:
    settings = settings_for(mock_broker, guarded, "guarded")
    ensure_topics(settings, live=False)
    send(
        settings, [*(order(n, event_time_ms=START_MS + n * HOUR_MS) for n in range(30)), b"broken"]
    )
    run(settings, until_end=True)
    assert verify(settings).agrees
    run(settings, until_end=True, into=1)
    reader = WindowReader(
        connect(settings.redis), 0, HOUR_MS, 24, rules=ReadRules.of(settings, HOUR_MS)
    )
    assert reader.refresh().moved and reader.generation == 1
    states = settings_for(
        mock_broker, guarded, "guarded states", FRESHET_REDIS__GENERATION="5", **STATES
    )
    ensure_topics(states, live=False)
    thirty_orders_of_which_ten_shrink(states)
    assert what_states_came_to(states) == (90, 20)
    client = connect(settings.redis)
    check_fit(client)
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.flushall()
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.get("somebody else's")


def test_a_certificate_that_nobody_signed_and_a_wrong_password_are_refused(guarded: str) -> None:
    with pytest.raises(StoreUnavailableError, match="certificate"):
        connect(RedisSettings(url=SecretStr(guarded.split("?")[0])))
    with pytest.raises(StoreError) as caught:
        connect(RedisSettings(url=SecretStr(guarded.replace("secret", "wrong"))))
    assert "wrong" not in str(caught.value).replace("wrong password", "")


def test_the_embedded_redis_is_no_cluster(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path) as server,
        pytest.raises(StoreUnavailableError, match=r"redis\.cluster"),
    ):
        connect(RedisSettings(url=SecretStr(server.url), cluster=True))
