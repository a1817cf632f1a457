"""The doctor says the right line of each broken set-up, and takes no more than ten seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import pytest

from freshet.online.doctor import examine
from freshet.stream.child import free_port
from freshet.stream.clock import wall_now_ms
from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import cluster, ensure_topics
from freshet.stream.ops.doctor import Check
from freshet.stream.process import BackOff, wait_until
from tests.certificates import authority, server_certificate
from tests.integration.broken import BROKEN, World
from tests.integration.kafka_image import start_kafka
from tests.starved import Stopwatch

LISTENERS = {"PLAINTEXT": "PLAINTEXT", "FAR": "PLAINTEXT", "PLAIN": "SASL_PLAINTEXT", "TLS": "SSL"}
LIMIT_S = 10.0


def environ_of(folder: Path, ports: dict[str, int]) -> dict[str, str]:
    """One broker: plain, by password, by TLS, and under an address that leads nowhere."""
    at = {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
    said = {**at, "FAR": "FAR://127.0.0.1:1"}
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": ",".join(at.values()),
        "KAFKA_ADVERTISED_LISTENERS": ",".join(said[name] for name in LISTENERS),
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": ",".join(
            f"{name}:{LISTENERS.get(name, 'PLAINTEXT')}" for name in ports
        ),
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@127.0.0.1:{ports['CONTROLLER']}",
        "KAFKA_LOG_DIRS": str(folder / "log"),
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "1",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_LISTENER_NAME_PLAIN_SASL_ENABLED_MECHANISMS": "PLAIN",
        "KAFKA_LISTENER_NAME_PLAIN_PLAIN_SASL_JAAS_CONFIG": (
            f'{login} username="x" password="y" user_freshet="secret";'
        ),
        "KAFKA_LISTENER_NAME_TLS_SSL_KEYSTORE_TYPE": "PEM",
        "KAFKA_LISTENER_NAME_TLS_SSL_KEYSTORE_LOCATION": str(folder / "both.pem"),
    }


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The ports of a broker's listeners; it has all topics."""
    home = os.environ.get("KAFKA_HOME", "")
    if not home or not Path(home, "bin").exists() or shutil.which("java") is None:
        pytest.skip("KAFKA_HOME does not name an unpacked Kafka, or there is no Java")
    folder = tmp_path_factory.mktemp("doctor")
    server_certificate(folder, authority(folder))
    both = (folder / "server.key").read_bytes() + (folder / "server.pem").read_bytes()
    (folder / "both.pem").write_bytes(both)
    ports = {name: free_port() for name in (*LISTENERS, "CONTROLLER")}
    with start_kafka(Path(home), folder, environ_of(folder, ports)):
        plain = KafkaSettings(bootstrap_servers=f"127.0.0.1:{ports['PLAINTEXT']}", partitions=1)
        quick = plain.model_copy(update={"request_timeout_ms": 1_000})
        assert wait_until(lambda: _answers(quick), 60, BackOff(0.1, 0.1))
        ensure_topics(Settings(kafka=plain), live=True)
        yield ports


def _answers(kafka: KafkaSettings) -> bool:
    try:
        return bool(cluster(Settings(kafka=kafka)).num_brokers)
    except BrokerError:
        return False


@pytest.fixture
def world(broker: dict[str, int], redis_server: str, tmp_path: Path) -> Iterator[World]:
    """What set-ups share."""
    servers = f"127.0.0.1:{broker['PLAINTEXT']}"
    base = {
        "kafka": {"bootstrap_servers": servers, "partitions": 1, "request_timeout_ms": 1_500},
        "redis": {"url": redis_server, "timeout_ms": 1_000},
        "dashboard": {"port": 0},
        "learn": {"registry": str(tmp_path / "registry")},
    }
    with ExitStack() as own:
        yield World(base, broker, tmp_path, tmp_path, own)


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What a check imports; a busy machine takes longer for that than all checks may."""
    import_module("freshet.model.devices")


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_set_up_is_named_with_the_way_out(case: str, world: World) -> None:
    broken = BROKEN[case]
    settings = broken.make(world)
    watch = Stopwatch()
    found = list(
        examine(settings, lambda: wall_now_ms() + broken.ahead_ms, only=set(broken.probes))
    )
    took_s = watch.seconds()
    said = [check for check in found if (check.name, check.state) == (broken.name, broken.state)]
    fitting = [one for one in said if broken.says in one.message and broken.hint in one.hint]
    assert fitting, "\n".join(map(str, found))
    assert took_s < LIMIT_S
    assert not any("the check failed" in check.message for check in found), found


def test_a_broker_that_is_down_is_not_missing_topics(world: World) -> None:
    settings = BROKEN["no_broker"].make(world)
    found = list(examine(settings, only={"kafka", "topics", "orders", "redis", "books"}))
    assert {check.name for check in found} == {"kafka", "redis", "doctor"}
    assert found[-1] == Check(
        "doctor", "warning", "not looked at, for want of the above: topics, orders, books"
    )
    assert "missing" not in str(found)


def test_old_records_of_a_history_load_are_nothing_to_tell_of(world: World) -> None:
    made = world.topic("history")
    old = [{**one, "event_time": 1_600_000_000_000 + n} for n, one in enumerate([{}] * 3)]
    orders = [
        {"event_id": f"e{n}", "sku": "a", "region": "n", "quantity": 1, "unit_price": 2.5}
        for n in range(3)
    ]
    for n in range(3):
        world.send("history", [{**orders[n], **old[n]}], freshet_history=b"2024:%d" % n)
    found = list(examine(world.settings(made), only={"orders"}))
    assert {check.state for check in found} == {"ok"}, found


def test_a_shop_that_is_well_is_ok_line_by_line_and_the_first_comes_at_once(
    world: World,
) -> None:
    made = world.folded("well")
    settings = world.settings(made)
    environ = {
        "FRESHET_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "FRESHET_KAFKA__TOPICS__ORDERS": "well",
        "FRESHET_REDIS__URL": settings.redis.url.get_secret_value(),
        "FRESHET_KAFKA__PARTITIONS": "1",
        "FRESHET_DASHBOARD__PORT": "0",
    }
    command = [sys.executable, "-m", "freshet", "doctor"]
    process = subprocess.Popen(
        command, env={**os.environ, **environ}, cwd=world.folder, stdout=subprocess.PIPE, text=True
    )
    watch = Stopwatch(process.pid)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("freshet")
    first_s = watch.seconds()
    lines = process.stdout.read().splitlines()
    whole_s = watch.until_end(process.pid)
    assert process.wait() == 0, "\n".join(lines)
    assert first_s < 5.0 and whole_s < LIMIT_S + 5.0, "2 s and 10 s on a machine that is idle"
    said = {line[9:].partition(":")[0] for line in lines}
    assert said >= {"kafka", "redis", "topics", "orders", "catalog", "windows", "books", "ingest"}
    assert said >= {"worker", "clock", "registry", "weights", "device", "retention"}
    assert not any(line.startswith("problem") for line in lines)

    broken = {**environ, "FRESHET_REDIS__URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        [*command, "--json"],
        env={**os.environ, **broken},
        cwd=world.folder,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["healthy"] is False
    assert {"name": "redis", "state": "problem"}.items() <= next(
        check for check in report["checks"] if check["name"] == "redis"
    ).items()
