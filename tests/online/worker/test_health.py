"""What a worker tells its probes, and how long it waits for a server that is away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from freshet.online.worker import health as module
from freshet.online.worker.health import Health
from freshet.online.worker.metrics import WorkerMetrics
from freshet.stream.errors import BrokerError, StoreUnavailableError


class Well:
    """A health whose clock is set and whose pauses are kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.fallback = 1_000.0, ""
        self.waits_s: list[float] = []
        self.registry = CollectorRegistry()
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        stop: Any = SimpleNamespace(wait=self.waits_s.append)
        self.health = Health(stop, WorkerMetrics(self.registry), lambda: self.fallback)

    def troubles(self, what: str) -> float | None:
        return self.registry.get_sample_value("freshet_worker_troubles_total", {"what": what})


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch) -> Well:
    return Well(monkeypatch)


def test_a_loop_that_has_not_turned_for_two_minutes_is_to_be_restarted(well: Well) -> None:
    well.now_s += 120.0
    assert well.health.live() is None
    well.now_s += 0.5
    assert well.health.live() == "the loop has not turned for 120 s"
    well.health.beat()
    assert well.health.live() is None
    well.now_s += 121.0
    well.health.wait_out(BrokerError("away"))
    assert well.health.live() is None, "who waits for a server is not stuck"


def test_it_is_ready_after_the_first_whole_turn_and_while_nothing_is_amiss(well: Well) -> None:
    health = well.health
    assert health.ready() == "reading the catalogue and joining the worker group"
    health.answered()
    assert health.ready() is not None, "an answer is not a turn"
    health.turned()
    assert health.ready() is None
    well.fallback = "v4 cannot be served"
    assert health.ready() == "v4 cannot be served"
    health.wait_out(StoreUnavailableError("no redis"))
    assert health.ready() == "no redis"
    health.wait_out(StoreUnavailableError("still no redis"))
    assert health.ready() == "still no redis"
    health.wait_out(BrokerError("no broker"))
    assert health.ready() == "still no redis", "what failed first is told"
    health.turned()
    assert health.ready() == "v4 cannot be served"


def test_pauses_double_up_to_five_seconds_and_begin_anew_after_an_answer(well: Well) -> None:
    for _ in range(8):
        well.health.wait_out(BrokerError("away"))
    assert well.waits_s == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    well.health.turned()
    well.health.answered()
    well.health.wait_out(BrokerError("away"))
    assert well.waits_s[8:] == [0.1]


def test_each_failure_is_counted_under_its_server_and_said_once(
    well: Well, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, str]] = []
    log = SimpleNamespace(error=lambda _, what, error, **__: said.append((what, error)))
    monkeypatch.setattr(module, "log", log)
    for text in ("one", "two"):
        well.health.wait_out(BrokerError(text))
    well.health.wait_out(StoreUnavailableError("three"))
    assert (well.troubles("broker"), well.troubles("redis")) == (2, 1)
    assert said == [("broker", "one"), ("redis", "three")]
    well.health.turned()
    well.health.wait_out(BrokerError("four"))
    assert said[2:] == [("broker", "four")], "after it was well, a failure is news"
