"""The shop's tables follow the versions in Redis, which a reader by hand hands over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import MAX_TIME_MS, encode
from freshet.stream.config import Settings
from freshet.stream.errors import StoreError
from freshet.stream.read import shop as module
from freshet.stream.read.shop import NO_INGEST_S, ShopFeed
from freshet.stream.read.versions import SideRecord
from freshet.stream.schemas import CatalogEntry
from freshet.stream.store.versions import kept_ms
from freshet.stream.units import HOUR_MS

TOPIC = Settings().kafka.topics.catalog


class Reader:
    """Hands over what the test lays out, part by part."""

    def __init__(self, client: object, settings: Settings, *, until: object) -> None:
        self.parts: list[list[SideRecord]] = []
        self.restarts = 0
        self.waits_for = [TOPIC]
        self.until = until

    @property
    def caught_up(self) -> bool:
        return not self.waits_for

    def poll(self) -> list[SideRecord]:
        found = self.parts.pop(0) if self.parts else []
        if not self.parts:
            self.waits_for = [] if found else self.waits_for
        return found

    def offsets(self) -> dict[str, int]:
        return {f"{TOPIC}:0": 9}


class Rig:
    """A feed on a reader by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "VersionReader", Reader)
        self.reached_ms = MAX_TIME_MS
        reached = SimpleNamespace(ms=lambda: self.reached_ms)
        monkeypatch.setattr(module, "EventsReached", lambda client, settings: reached)
        self.shop = ShopTables(("sku",))
        client: Any = object()
        self.feed = ShopFeed(client, Settings(), self.shop)
        self.reader: Any = self.feed._reader


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def told(offset: int, price: float | None, at_ms: int = 0) -> SideRecord:
    value = None if price is None else encode(CatalogEntry(sku="a", unit_price=price))
    return SideRecord("catalog", TOPIC, 0, offset, b"a", value, at_ms or offset * 10)


def test_each_version_counts_as_of_its_time_and_its_offset_breaks_ties(rig: Rig) -> None:
    rig.reader.parts = [[told(2, 5.0, 20), told(1, 4.0, 20)], [told(3, 6.0, 30)]]
    assert rig.feed.poll() == 3
    prices = [rig.shop.unit_prices(["a"], as_of_ms=at).tolist() for at in (20, 30)]
    assert prices == [[5.0], [6.0]]
    assert rig.feed.offsets() == {f"{TOPIC}:0": 9}


def test_where_redis_lost_what_was_read_the_tables_start_over(rig: Rig) -> None:
    rig.reader.parts = [[told(1, 4.0)]]
    rig.feed.poll()
    rig.reader.restarts = 1
    rig.reader.parts = [[]]
    rig.feed.poll()
    assert rig.shop.skus() == []
    rig.reader.parts = [[told(1, 7.0)]]
    rig.feed.poll()
    assert rig.shop.unit_prices(["a"]).tolist() == [7.0]


def test_it_says_what_it_waits_for_until_it_has_caught_up(rig: Rig) -> None:
    assert TOPIC in rig.feed.waits_for and "is `freshet ingest` running?" in rig.feed.waits_for
    rig.reader.parts = [[told(1, 4.0)]]
    rig.feed.poll()
    assert rig.feed.caught_up and rig.feed.waits_for == ""


def test_a_poll_ends_after_a_while_however_much_there_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = iter(range(99))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock_s))
    rig.reader.parts = [[told(n, 4.0)] for n in range(1, 9)]
    assert rig.feed.poll() == 2


def test_versions_that_nobody_asks_for_leave_memory_once_an_hour(rig: Rig) -> None:
    far_ms = 2 * kept_ms(Settings())
    rig.reader.parts = [[told(1, 4.0), told(2, 5.0), told(3, 6.0, far_ms)]]
    rig.feed.poll()
    # Neither span nor as-of lies before the horizon any more, so the first is gone.
    horizon_ms = far_ms - kept_ms(Settings())
    assert rig.shop.forget_before(horizon_ms) == 0
    assert rig.shop.unit_prices(["a"], as_of_ms=horizon_ms).tolist() == [5.0]
    rig.reader.parts = [[told(4, 7.0, far_ms + HOUR_MS - 1)], []]
    rig.feed.poll()
    assert rig.feed._tidied_ms == far_ms


def test_a_record_stamped_far_ahead_of_the_clock_has_nothing_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(monkeypatch)
    rig.shop.latest_ms = lambda: 100
    far_ms = 9 * kept_ms(Settings())
    rig.reader.parts = [[told(1, 4.0), told(2, 5.0), told(3, 6.0, far_ms)]]
    rig.feed.poll()
    assert rig.shop.unit_prices(["a"], as_of_ms=15).tolist() == [4.0]


def test_reading_to_the_end_ends_there_or_says_that_ingest_is_missing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.reader.parts = [[told(1, 4.0)]]
    rig.feed.read_to_end(wait=lambda _: pytest.fail("there was no need to wait"))
    assert rig.shop.skus() == ["a"]
    silent = Rig(monkeypatch)
    now_s = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s[0])

    def wait(wait_s: float) -> None:
        now_s[0] += wait_s

    with pytest.raises(StoreError, match="is `freshet ingest` running"):
        silent.feed.read_to_end(wait=wait)
    assert NO_INGEST_S < now_s[0] < NO_INGEST_S + 2


def test_while_events_of_years_ago_are_still_to_come_nothing_of_then_is_forgotten(
    rig: Rig,
) -> None:
    rig.reached_ms = 30
    far_ms = 2 * kept_ms(Settings())
    rig.reader.parts = [[told(1, 4.0), told(2, 5.0), told(3, 6.0, far_ms)]]
    rig.feed.poll()
    assert rig.shop.unit_prices(["a"], as_of_ms=10).tolist() == [4.0]
