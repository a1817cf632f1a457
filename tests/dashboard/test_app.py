"""The process around the page: its socket, its clock, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import numpy as np
import pytest

from freshet.dashboard import app
from freshet.dashboard import page as page_module
from freshet.dashboard.actuals import Actuals, Books, Wanted
from freshet.dashboard.app import address, listen
from freshet.dashboard.page import Page
from freshet.stream.codec import encode
from freshet.stream.config import DashboardSettings, KafkaSettings, Settings
from freshet.stream.errors import ConfigError, StoreUnavailableError
from freshet.stream.read.few import FewCells
from freshet.stream.store.grid import Grid
from freshet.stream.units import HOUR_MS, MINUTE_MS


def test_port_0_is_a_free_one_and_the_address_can_be_opened() -> None:
    with listen(DashboardSettings(port=0)) as listener:
        assert address(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with listen(DashboardSettings(host="0.0.0.0", port=0)) as listener:
        assert address(listener).startswith("http://127.0.0.1:")


def test_a_taken_port_is_one_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf":{port}: the port is taken; choose another dashboard\.port"
        ):
            listen(DashboardSettings(port=port))


@pytest.mark.parametrize(
    "where", [{"host": "203.0.113.7"}, {"port": 70_000}, {"host": "no such host"}]
)
def test_an_address_that_is_not_ours_is_one_clear_error(where: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the dashboard cannot listen on"):
        listen(DashboardSettings(**{"port": 0} | where))


def test_the_clock_runs_on_between_two_looks() -> None:
    page = Page(Settings())
    page.seen(None, (1_000_000, 3_600.0), time.monotonic() - 2.0)
    assert page.moment().now_ms == pytest.approx(1_000_000 + 2_000 * 3_600, abs=3_600 * 500)
    page.seen(None, (1_000_000, 0.0), time.monotonic() - 2.0)
    assert page.moment().now_ms == 1_000_000


def test_rates_come_from_the_books_and_the_forecasts() -> None:
    page = Page(Settings())
    for second, read in ((0.0, 100), (2.0, 300)):
        page.seen(Actuals(HOUR_MS, books=Books(read=read)), (0, 1.0), second)
    assert page.moment().events_per_s == 100.0
    assert page.topics.revisions["items"] == 2


def test_rates_are_unknown_while_the_servers_that_tell_them_are_away() -> None:
    page = Page(Settings())
    for second in (0.0, 2.0):
        page.seen(Actuals(HOUR_MS, books=Books(read=round(100 * second))), (0, 1.0), second)
    assert page.summary()["events"]["per_s"] == 100.0
    assert page.summary()["forecasts"]["per_s"] is None, "Kafka is not connected yet"
    page.feed.problem = None
    assert page.summary()["forecasts"]["per_s"] == 0.0
    page.servers.say("store", "Redis is away")
    assert page.summary()["events"]["per_s"] is None
    assert page.summary()["forecasts"]["per_s"] is None


def test_ages_are_those_of_the_newest_records_and_of_the_last_reading(make: Any) -> None:
    page = Page(Settings())
    assert set(page.summary()["as_of"].values()) == {None}
    assert page.summary()["read_s_ago"] == {"kafka": None, "redis": None}
    hour = HOUR_MS
    page.seen(make.actuals({"A|n": [1.0, 2.0]}, end_hour=99), (100 * hour, 0.0), 0.0)
    for kind, record in (
        ("forecasts", make.forecast(hour=98, issued_at_ms=98 * hour + 7)),
        ("forecasts", make.forecast("B|n", hour=98, issued_at_ms=98 * hour + 3)),
        ("scores", make.score(hour=90)),
        ("scores", make.score("B|n", hour=89)),
        ("drift", make.drift(detected_at_ms=80 * hour, onset_ms=70 * hour)),
    ):
        assert page.topics.apply(kind, b"k", encode(record), 0)
    # A score is made when the hour after its bucket begins.
    assert page.summary()["as_of"] == {
        "sales_ms": 99 * hour,
        "forecasts_ms": 98 * hour + 7,
        "scores_ms": 91 * hour,
        "alerts_ms": 80 * hour,
    }
    page.seen(None, (100 * hour, 0.0), time.monotonic() - 30.0)
    page.feed.heard_s = time.monotonic() - 90.0
    ago_s = page.summary()["read_s_ago"]
    assert (ago_s["kafka"], ago_s["redis"]) == (pytest.approx(90, abs=5), pytest.approx(30, abs=5))


class FakeSource:
    """A Redis that is away for a while."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def read(self) -> Actuals | None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("Redis at shop:6379 does not answer")
        return Actuals(HOUR_MS, books=Books(read=7))

    def clock(self) -> tuple[int, float]:
        return 5, 1.0

    def few(self, wanted: Wanted) -> dict[int, FewCells]:
        return {
            width_ms: FewCells(Grid(width_ms), units={item: np.array([7]) for item in items})
            for width_ms, items in wanted.items()
        }


def test_a_redis_that_is_away_is_asked_again_and_said_to_be_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "FIRST_WAIT_S", 0.01)
    page = Page(Settings())
    problems: list[str | None] = []

    async def scenario() -> None:
        looking = asyncio.create_task(app._look(page, Settings(), FakeSource(failures=2)))
        while page.redis_problem is not None:
            problems.append(page.redis_problem)
            await asyncio.sleep(0.001)
        looking.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert "Redis at shop:6379 does not answer" in problems
    assert page.actuals.books.read == 7


def test_an_item_that_is_asked_for_is_read_at_once_and_forgotten_when_nobody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "LOOK_S", 60.0)
    monkeypatch.setattr(app, "SOONEST_LOOK_S", 0.01)
    page = Page(Settings())

    async def scenario() -> None:
        looking = asyncio.create_task(app._look(page, Settings(), FakeSource(failures=0)))
        for asked in (["A|n"], ["A|n"], ["B|n"], []):
            started_s = time.monotonic()
            cells = await page.few(MINUTE_MS, asked)
            assert cells is not None and set(asked) <= cells.units.keys()
            assert time.monotonic() - started_s < 30.0
        assert await page.few(7, ["A|n"]) is None, "nothing is folded by 7 ms"
        looking.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert page.interest.wanted(time.monotonic()) == {MINUTE_MS: {"A|n", "B|n"}}
    assert page.interest.wanted(time.monotonic() + 31.0) == {}


def test_while_redis_is_away_a_visitor_waits_no_longer_than_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_module, "ANSWER_S", 0.02)
    assert asyncio.run(Page(Settings()).few(MINUTE_MS, ["A|n"])) is None


def test_a_setting_that_cannot_work_stops_the_process_with_its_error() -> None:
    kafka = KafkaSettings(security_protocol="SSL", ssl_ca_location="/nowhere.pem")
    settings = Settings(kafka=kafka, dashboard=DashboardSettings(port=0))

    async def scenario() -> None:
        with listen(settings.dashboard) as listener:
            await app.serve(settings, listener, source=FakeSource(0))

    with pytest.raises(ConfigError, match=r"/nowhere\.pem"):
        asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_fault_that_nobody_thought_of_is_said_and_redis_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "FIRST_WAIT_S", 0.0)
    page, source = Page(Settings()), FakeSource(failures=0)
    faults = [KeyError("no such header")]

    def read() -> Actuals | None:
        if faults:
            raise faults.pop()
        return Actuals(HOUR_MS, books=Books(read=7))

    monkeypatch.setattr(source, "read", read)
    problems: list[str | None] = []

    async def scenario() -> None:
        looking = asyncio.create_task(app._look(page, Settings(), source))
        while page.redis_problem is not None:
            problems.append(page.redis_problem)
            await asyncio.sleep(0)
        looking.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert "'no such header'" in problems
    assert page.actuals.books.read == 7


def test_a_task_that_has_not_turned_is_named_and_one_that_turns_again_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, now_s = Page(Settings()), [1_000.0]
    monkeypatch.setattr("freshet.dashboard.page.time.monotonic", lambda: now_s[0])
    page.turned("feed")
    page.turned("look")
    now_s[0] = 1_120.0
    assert page.stuck() is None
    page.turned("look")
    now_s[0] = 1_121.0
    assert page.stuck() == "feed has not turned for 121 s"
    page.turned("feed")
    assert page.stuck() is None


def test_what_the_watch_finds_comes_before_what_the_tasks_know() -> None:
    page = Page(Settings())
    page.feed.problem = page.redis_problem = None
    assert page.not_ready() is None
    page.servers.say("kafka", "Kafka is away")
    assert page.not_ready() == "kafka: Kafka is away"
    page.servers.say("store", "Redis is away")
    assert page.not_ready() == "kafka: Kafka is away; redis: Redis is away"
    page.servers.over("kafka")
    assert page.not_ready() == "redis: Redis is away"
