"""Servers for tests: redis-server, an in-process mock of Kafka, and Kafka where KAFKA_HOME is."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka.cimpl
import hypothesis
import pytest
import redis
import structlog
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from freshet.stream.errors import ConfigError
from freshet.stream.health import ANSWER_WITHIN_MS, ASK_S, WATCH
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.store.server import EmbeddedRedis

# How long an example takes says more of what else the machine does.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _logs_go_where_they_went() -> Iterator[None]:
    """A command that a test runs here sends logs to what is stderr then, and is closed later."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(autouse=True, scope="module")
def _nobody_goes_on_watching() -> Iterator[None]:
    """A process that a file of tests has ended asks no servers in those that come after it."""
    yield
    for thread in threading.enumerate():
        if thread.name == WATCH:
            thread.join(2 * ASK_S + 2 * ANSWER_WITHIN_MS / 1_000)
            assert not thread.is_alive(), "the watch of a process goes on after its tests"


@pytest.fixture(scope="session")
def _redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    except ConfigError as error:
        pytest.skip(str(error))
    yield server.url
    server.stop()


@pytest.fixture
def redis_server(_redis_process: str) -> str:
    """The URL of a real, empty Redis."""
    client = redis.Redis.from_url(_redis_process)
    client.flushall()
    client.close()
    return _redis_process


@pytest.fixture(scope="session")
def mock_broker() -> Iterator[str]:
    """The address of a mock cluster for the whole session."""
    with mock_cluster() as bootstrap_servers:
        yield bootstrap_servers


@contextmanager
def mock_cluster() -> Iterator[str]:
    """The address of librdkafka's mock cluster, which ends with the block.

    It speaks the Kafka protocol, has 4 partitions a topic and no controller.
    """
    owner = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    answer_joins_at_once(owner)
    (broker,) = owner.list_topics(timeout=60).brokers.values()
    yield f"{broker.host}:{broker.port}"


def answer_joins_at_once(owner: Producer) -> None:
    """Have a mock cluster not wait three seconds for more members before it forms a group.

    No setting of the client says so, only a function of librdkafka's, which wants the C handle: it
    is the first field of the Python object.
    """
    library = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    cluster_of = library.rd_kafka_handle_mock_cluster
    cluster_of.restype = ctypes.c_void_p
    cluster_of.argtypes = [ctypes.c_void_p]
    set_delay_ms = library.rd_kafka_mock_group_initial_rebalance_delay_ms
    set_delay_ms.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    handle = ctypes.c_void_p.from_address(id(owner) + object.__basicsize__)
    set_delay_ms(cluster_of(handle), 0)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real single-node Apache Kafka; topics must be created."""
    home = os.environ.get("KAFKA_HOME", "")
    if not home or not Path(home, "bin", "kafka-server-start.sh").exists():
        pytest.skip("KAFKA_HOME does not name an unpacked Kafka 4.x")
    if shutil.which("java") is None:
        pytest.skip("Kafka needs Java, and there is none on PATH")
    broker = RealKafka(Path(home), tmp_path_factory.mktemp("kafka"))
    try:
        AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=120)
        yield broker.bootstrap_servers
    finally:
        broker.stop()
