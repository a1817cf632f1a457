"""What a process tells its probes, and how long it waits for a server that is away."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from freshet.stream import health as module
from freshet.stream.errors import BrokerError, OtherFormatError, StoreUnavailableError
from freshet.stream.health import Health, Watch
from freshet.stream.process import Stop


class Well:
    """A health whose clock is set and whose pauses are kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.fallback = 1_000.0, ""
        self.waits_s: list[float] = []
        self.counted: list[str] = []
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        stop: Any = SimpleNamespace(wait=self.waits_s.append)
        self.health = Health(
            stop, "starting", standing=lambda: self.fallback, counted=self.counted.append
        )


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
    assert health.ready() == "starting"
    health.answered()
    assert health.ready() is not None, "an answer is not a turn"
    health.turned()
    assert health.ready() is None
    well.fallback = "v4 cannot be served"
    assert health.ready() == "v4 cannot be served"
    health.wait_out(StoreUnavailableError("no redis"))
    assert health.ready() == "no redis; v4 cannot be served"
    health.wait_out(StoreUnavailableError("still no redis"))
    assert health.ready() == "still no redis; v4 cannot be served"
    health.wait_out(BrokerError("no broker"))
    # All of it, what failed first before what failed later.
    assert health.ready() == "still no redis; no broker; v4 cannot be served"
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
    log = SimpleNamespace(
        error=lambda _, what, error, **__: said.append((what, error)),
        info=lambda _, what: said.append((what, "over")),
    )
    monkeypatch.setattr(module, "log", log)
    for text in ("one", "two"):
        well.health.wait_out(BrokerError(text))
    well.health.wait_out(StoreUnavailableError("three"))
    assert well.counted == ["broker", "broker", "redis"]
    assert said == [("broker", "one"), ("redis", "three")]
    well.health.turned()
    well.health.wait_out(BrokerError("four"))
    assert said[2:] == [("broker", "over"), ("redis", "over"), ("broker", "four")], (
        "after it was well, a failure is news"
    )


def test_another_version_s_format_is_a_trouble_of_its_own(
    well: Well,
) -> None:
    error = OtherFormatError("the windows have format 4", hint="it waits")
    for _ in range(3):
        well.health.wait_out(error)
    assert well.counted == ["format"] * 3 and well.health.trouble("format") == str(error)
    # That Redis answers is no news, and ends nothing.
    well.health.over("redis")
    assert "have format 4" in (well.health.ready() or "")
    well.health.turned()
    assert well.health.ready() is None


def test_what_others_say_is_amiss_stays_until_they_say_that_it_is_over(well: Well) -> None:
    health = well.health
    health.turned()
    health.say("registry", "no folder")
    health.turned()
    assert health.ready() == "no folder"
    health.over("registry")
    assert health.ready() is None


def test_a_watch_names_each_server_that_is_away_and_goes_on_asking(well: Well) -> None:
    away: dict[str, str] = {"kafka": "no broker"}

    def question(what: str) -> None:
        if what in away:
            raise BrokerError(away[what])

    watch = Watch(
        well.health, {what: (lambda what=what: question(what)) for what in ("kafka", "store")}
    )
    well.health.turned()
    watch.look()
    assert well.health.ready() == "no broker"
    del away["kafka"]
    away["store"] = "no redis"
    watch.look()
    assert well.health.ready() == "no redis"
    away.clear()
    watch.look()
    assert well.health.ready() is None


def test_a_watch_outlives_whatever_a_library_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_S", 0.001)
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        if len(asked) == 3:
            watch.__exit__()
        raise RuntimeError("odd")

    watch = Watch(Health(Stop(), ""), {"kafka": ask})
    watch._run()
    assert len(asked) == 3


def test_a_server_that_is_gone_is_said_within_five_seconds() -> None:
    # Kafka and Redis are asked in turn, and each may be waited for.
    assert 1_000 * module.ASK_S + 2 * module.ANSWER_WITHIN_MS < 5_000
    assert module.ASK_S >= 0.5, "servers are not kept busy with questions"


def test_a_process_that_breaks_neither_waits_for_whoever_watches_nor_leaves_it_behind() -> None:
    def broken() -> None:
        with Watch(Health(Stop(), "start"), {}):
            watching.extend(set(threading.enumerate()) - before)
            raise RuntimeError("broken")

    before, watching = set(threading.enumerate()), list[threading.Thread]()
    with pytest.raises(RuntimeError, match="broken"):
        broken()
    (thread,) = watching
    assert thread.daemon
    thread.join(60.0)
    assert not thread.is_alive()
