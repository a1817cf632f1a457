"""The page's process outlives a real Kafka and Redis, and says which of them is away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from freshet.stream.codec import encode
from freshet.stream.config import KafkaSettings, RedisSettings, Settings
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.schemas import DriftAlert
from freshet.stream.store.server import EmbeddedRedis
from tests.e2e.conftest import RUN, environment
from tests.integration.faults.world import Broker
from tests.starved import Stopwatch

NAMED_WITHIN_S = 5.0
ENDED_WITHIN_S = 10.0
PATIENCE_S = 180.0
FRESH_S = 1.0
# Far shorter than the page waits for a record.
PAUSE_S = 0.05


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    home = os.environ.get("KAFKA_HOME", "")
    if not Path(home, "bin", "kafka-server-start.sh").exists() or shutil.which("java") is None:
        pytest.skip("KAFKA_HOME does not name an unpacked Kafka 4.x, or there is no Java")
    broker = Broker(Path(home), tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.stop()


@pytest.fixture(scope="module")
def settings(broker: Broker, redis: EmbeddedRedis) -> Settings:
    made = Settings(
        kafka=KafkaSettings(bootstrap_servers=broker.address, partitions=2),
        redis=RedisSettings(url=redis.url),  # type: ignore[arg-type]
    )
    ensure_topics(made, live=False)
    return made


@contextmanager
def dashboard(settings: Settings, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dashboard process that is ready, and its address."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN],
            env=environment(settings),
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        seconds_until(lambda: readiness(url)[0] == 200)
        yield process, url
    finally:
        process.kill()
        process.wait(60)
        print(log.read_text())


def readiness(url: str) -> tuple[int, str]:
    answer = httpx.get(f"{url}readyz", timeout=30)
    return answer.status_code, answer.text


def seconds_until(so: Callable[[], bool]) -> float:
    started_s = time.monotonic()
    while not so():
        assert time.monotonic() - started_s < PATIENCE_S, "it did not happen in time"
        time.sleep(0.05)
    return time.monotonic() - started_s


def read_s_ago(url: str, what: str) -> float:
    """How old the page says that it is."""
    return float(httpx.get(f"{url}api/overview", timeout=30).json()["read_s_ago"][what])


def drift(segment: str) -> DriftAlert:
    return DriftAlert(
        alert_id=segment,
        segment=segment,
        state="drift",
        kind="level",
        detector="ADWIN",
        detected_at_ms=1_000,
        onset_ms=500,
        size=1.0,
        weights_version="base",
        description="more than forecast",
        action="train",
    )


def shows(url: str, settings: Settings, segment: str) -> float:
    """Seconds until a drift that is announced now is on the page."""
    with Publisher(settings) as publisher:
        publisher.produce(settings.kafka.topics.drift, encode(drift(segment)), key=segment)
        publisher.flush()

    def shown() -> bool:
        cards = httpx.get(f"{url}api/drift", timeout=30).json()["cards"]
        return segment in [card["segment"] for card in cards]

    return seconds_until(shown)


@contextmanager
def trickle(settings: Settings) -> Iterator[threading.Event]:
    """Announcements without a pause: no poll of the page is empty; set when they made it old."""
    over, long_enough = threading.Event(), threading.Event()

    def announce() -> None:
        started_s = time.monotonic()
        with Publisher(settings) as publisher:
            while not over.wait(PAUSE_S):
                publisher.produce(settings.kafka.topics.drift, encode(drift("trickle")), key="t")
                publisher.flush()
                if time.monotonic() - started_s > 2 * FRESH_S:
                    long_enough.set()

    source = threading.Thread(target=announce)
    source.start()
    try:
        yield long_enough
    finally:
        over.set()
        source.join()


def test_a_crash_of_the_broker_is_said_within_5_s_and_outlived(
    settings: Settings, broker: Broker, tmp_path: Path
) -> None:
    with dashboard(settings, tmp_path / "log") as (process, url):
        shows(url, settings, "before")
        watch = Stopwatch(process.pid)
        broker.signal(signal.SIGKILL)
        seconds_until(lambda: "kafka: Kafka at" in readiness(url)[1])
        named_s = watch.seconds()
        ago_s = read_s_ago(url, "kafka")
        assert ago_s > 0
        seconds_until(lambda: read_s_ago(url, "kafka") > ago_s)  # What is shown grows older.
        broker.restart()
        back_s = seconds_until(lambda: readiness(url)[0] == 200)
        print(f"named after {named_s:.1f} s, ready {back_s:.1f} s after the broker's start")
        assert named_s < NAMED_WITHIN_S and process.poll() is None
        shows(url, settings, "after")
        with trickle(settings) as long_enough:
            assert long_enough.wait(PATIENCE_S)
            seconds_until(lambda: read_s_ago(url, "kafka") < FRESH_S)


def test_a_redis_that_stalls_is_said_within_5_s_and_outlived(
    settings: Settings, redis: EmbeddedRedis, tmp_path: Path
) -> None:
    with dashboard(settings, tmp_path / "log") as (process, url):
        watch = Stopwatch(process.pid)
        redis.process.send_signal(signal.SIGSTOP)
        seconds_until(lambda: "redis: Redis at" in readiness(url)[1])
        named_s = watch.seconds()
        redis.process.send_signal(signal.SIGCONT)
        back_s = seconds_until(lambda: readiness(url)[0] == 200)
        print(f"named after {named_s:.1f} s, ready {back_s:.1f} s after it went on")
        assert named_s < NAMED_WITHIN_S and process.poll() is None


def test_sigterm_ends_it_within_10_s_while_both_are_stopped(
    settings: Settings, broker: Broker, redis: EmbeddedRedis, tmp_path: Path
) -> None:
    with dashboard(settings, tmp_path / "log") as (process, url):
        broker.signal(signal.SIGSTOP)
        redis.process.send_signal(signal.SIGSTOP)
        try:
            seconds_until(lambda: {"kafka:", "redis:"} <= set(readiness(url)[1].split()))
            watch = Stopwatch(process.pid)
            process.terminate()
            took_s = watch.until_end(process.pid)
            assert process.wait() == 0
        finally:
            broker.signal(signal.SIGCONT)
            redis.process.send_signal(signal.SIGCONT)
        print(f"ended after {took_s:.1f} s")
        assert took_s < ENDED_WITHIN_S
