"""Brokers for a machine that has none: one inside librdkafka, or an unpacked Kafka, as children.

`python -m freshet.stream.kafka.servers` is the child that owns the one inside librdkafka.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from freshet.stream.child import Child, free_port
from freshet.stream.errors import BrokerError, ConfigError

FIRST_LINE_TIMEOUT_S = 60.0
START_TIMEOUT_S = 180.0
MAX_ERROR_CHARACTERS = 500
CLUSTER_ID = "ZnJlc2hldC1kZW1vLTAwMQ"


class EmbeddedBroker(Child):
    """A broker inside librdkafka, in a child of its own: the Kafka protocol for demo and tests.

    It keeps about 5 MB a partition and then silently drops the oldest, has no controller (topics of
    4 partitions come into being when used), and shows transactions that were never committed.

    Raises:
        BrokerError: The child ended or said nothing in time.
    """

    def __init__(self, log_file: Path | None = None) -> None:
        super().__init__(
            [sys.executable, "-m", "freshet.stream.kafka.servers"],
            log_file=log_file,
            pipe_output=True,
        )
        assert self.process.stdout is not None
        self.bootstrap_servers = self.process.stdout.readline().decode().strip()
        if not self.bootstrap_servers:
            self.stop()
            raise BrokerError(
                "the embedded broker ended before it was ready",
                hint="see its log" if log_file else "",
            )


class RealKafka(Child):
    """One Apache Kafka 4 node (KRaft) from an unpacked release, on loopback.

    It makes no topic by itself.

    Args:
        kafka_home: The unpacked release: `bin/`, `libs/`.
        folder: Where it keeps its log; formatted the first time, continued afterwards.
        port: 0 picks a free one.

    Raises:
        ConfigError: `kafka_home` is not an unpacked Kafka, or there is no Java.
        BrokerError: It did not start in time.
    """

    def __init__(self, kafka_home: Path, folder: Path, port: int = 0) -> None:
        scripts = _kafka_scripts(kafka_home)
        folder.mkdir(parents=True, exist_ok=True)
        port, controller_port = port or free_port(), free_port()
        self.port = port
        self.bootstrap_servers = f"127.0.0.1:{port}"
        properties = folder / "server.properties"
        properties.write_text(_kafka_properties(folder.resolve(), port, controller_port), "utf-8")
        log_file = folder / "kafka.log"
        environ = {"KAFKA_HEAP_OPTS": "-Xms128M -Xmx512M", "LOG_DIR": str(folder.resolve())}
        if not (folder / "log" / "meta.properties").exists():
            _format(scripts["kafka-storage.sh"], properties, environ)
        super().__init__(
            [scripts["kafka-server-start.sh"], str(properties)], log_file=log_file, environ=environ
        )
        if not self.wait_until(lambda: _serves(self.bootstrap_servers), START_TIMEOUT_S):
            self.stop()
            raise BrokerError(f"Kafka from {kafka_home} did not start", hint=f"see {log_file}")


def _kafka_scripts(kafka_home: Path) -> dict[str, str]:
    scripts = {
        name: kafka_home.resolve() / "bin" / name
        for name in ("kafka-storage.sh", "kafka-server-start.sh")
    }
    missing = [str(path) for path in scripts.values() if not path.exists()]
    if missing:
        raise ConfigError(
            f"KAFKA_HOME {kafka_home} is not an unpacked Kafka: {missing[0]} is missing",
            hint="set KAFKA_HOME to the folder of an unpacked Apache Kafka 4 release",
        )
    java_home = os.environ.get("JAVA_HOME")
    if not shutil.which(f"{java_home}/bin/java" if java_home else "java"):
        raise ConfigError(
            "Kafka needs Java 17 or newer, and there is no java on PATH or in JAVA_HOME"
        )
    return {name: str(path) for name, path in scripts.items()}


def _kafka_properties(folder: Path, port: int, controller_port: int) -> str:
    """Settings of a single node: a group joins at once, a killed broker is back within seconds.

    A transaction whose producer died ends within a second of its time.
    """
    values = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": f"{folder}/log",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _format(script: str, properties: Path, environ: Mapping[str, str]) -> None:
    done = subprocess.run(
        [script, "format", "-t", CLUSTER_ID, "-c", str(properties)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-MAX_ERROR_CHARACTERS:]
        raise BrokerError(f"kafka-storage.sh format failed: {said}")


def _serves(bootstrap_servers: str) -> bool:
    """Whether the broker lists itself, which it does only once it takes requests."""
    client = AdminClient(
        {"bootstrap.servers": bootstrap_servers, "log_level": 0, "socket.timeout.ms": 2_000}
    )
    try:
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


# In the child -------------------------------------------------------------------------------------


def _own_broker() -> None:
    """Hold the embedded broker until a signal comes; the first line printed is its address."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "embedded", "log_level": 3})
    brokers = owner.list_topics(timeout=FIRST_LINE_TIMEOUT_S).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    _own_broker()
