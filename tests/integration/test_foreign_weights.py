"""Somebody who may write to the models topic cannot make freshet serve a folder of theirs.

On a real Kafka, with processes as a shop runs them.
"""

from __future__ import annotations

import http.client
import signal
import socket
import time
from pathlib import Path

import pytest

from freshet.online.weights.announced import announcement
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, Registry
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.schemas import ModelEvent, RetrainRequest
from tests.integration.test_learn import NOW_MS, Process
from tests.integration.test_worker import (
    Shop,
    at_cutoff,
    eventually,
    read,
    running,
    save_random_weights,
    settings_for,
)

FOREIGN = "v0009-20260101T000000Z-00000000"
WITHIN_S = 180.0

pytestmark = pytest.mark.slow


def tell(settings: Settings, event: ModelEvent) -> None:
    with Publisher(settings) as publisher:
        key = f"{event.kind}:{event.version}"
        publisher.produce(settings.kafka.topics.models, encode(event), key=key)
        publisher.flush()


def of_kind(settings: Settings, kind: str) -> list[ModelEvent]:
    events = read(settings, settings.kafka.topics.models, ModelEvent)
    return [event for event in events if event.kind == kind]


def test_a_worker_serves_no_folder_that_is_not_the_registrys(
    kafka_broker: str, redis_server: str, tmp_path: Path
) -> None:
    settings = settings_for(
        kafka_broker, redis_server, tmp_path, "foreign", FRESHET_WORKER__WEIGHTS=""
    )
    ensure_topics(settings, live=False)
    registry = Registry(settings.learn.registry)
    first, second = (
        registry.add(
            lambda folder, seed=seed: save_random_weights(folder, seed) and None,
            parent=BASE,
            created_at_ms=seed,
        )
        for seed in (1, 2)
    )
    registry.serve(Assignment(first.version))
    foreign = tmp_path / "shared" / FOREIGN
    event = ModelEvent(
        kind="promoted",
        version=FOREIGN,
        at_ms=90,
        sha256=save_random_weights(foreign, 3),
        uri=str(foreign),
    )
    shop = Shop(settings)
    shop.sell(30)
    with running(settings) as worker:
        eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        tell(settings, event)
        (failed,) = eventually(lambda: of_kind(settings, "swap_failed"), bool)
        assert (failed.version, failed.parent) == (FOREIGN, first.version)
        assert "names another folder" in failed.reason
        shop.sell(1)
        found = eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        assert {forecast.weights_version for forecast in found} == {first.version}
        # Forecasts flow from the weights that should serve.
        eventually(worker.ready, lambda amiss: amiss is None)
        # What it said of its time outdates nothing.
        tell(
            settings,
            announcement(registry, "promoted", second.version, 10, Assignment(second.version)),
        )
        (swapped,) = eventually(lambda: of_kind(settings, "swapped"), bool)
    assert (swapped.version, swapped.parent) == (second.version, first.version)


def answer(port: int) -> str:
    """What learn's `/readyz` says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().read().decode()
    except OSError as error:
        return f"no answer: {error}"
    finally:
        connection.close()


def wait_for(port: int, text: str, learn: Process) -> str:
    deadline = time.monotonic() + WITHIN_S
    while text not in (said := answer(port)):
        assert time.monotonic() < deadline, said
        assert learn.process is not None and learn.process.poll() is None, "learn ended"
        time.sleep(0.1)
    return said


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_learn_outlives_a_forged_promotion_and_a_registry_that_is_lost(
    kafka_broker: str, redis_server: str, tmp_path: Path
) -> None:
    learn, port = Process(kafka_broker, redis_server, tmp_path), free_port()
    learn.environ["FRESHET_LEARN__HTTP_PORT"] = str(port)
    settings, registry = learn.settings, learn.registry
    ensure_topics(settings, live=False)
    champion = learn.prepare()
    tell(
        settings,
        announcement(registry, "promoted", champion, NOW_MS - 60_000, Assignment(champion)),
    )
    # Newer than that, it would be what is rolled back.
    forged = ModelEvent(
        kind="promoted",
        version=FOREIGN,
        at_ms=NOW_MS - 30_000,
        uri=str(tmp_path / FOREIGN),
        parent=BASE,
    )
    tell(settings, forged)
    process = learn.start()
    try:
        wait_for(port, "ok", learn)
        away = tmp_path / "away"
        registry.folder.rename(away)
        back = RetrainRequest(request_id="back", requested_at_ms=NOW_MS, reason="rollback")
        with Publisher(settings) as publisher:
            publisher.produce(settings.kafka.topics.retrain, encode(back), key="back")
        said = wait_for(port, "the version that serves is lost", learn)
        assert champion in said and "it serves on; bring learn.registry back" in said
        assert not registry.folder.exists() and of_kind(settings, "rolled_back") == []
        away.rename(registry.folder)
        (told,) = [event for event in learn.events_until("rolled_back") if event.worker == ""][-1:]
        assert (told.version, told.parent, told.request_id) == (BASE, champion, "back")
        wait_for(port, "ok", learn)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
