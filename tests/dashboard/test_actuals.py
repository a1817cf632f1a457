"""Snapshots keep unknown apart from nothing sold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from freshet.dashboard import actuals as actuals_module
from freshet.dashboard.actuals import Actuals, Books, Rate, RedisSource, snapshot
from freshet.stream.config import RedisSettings, Settings, WorkerSettings
from freshet.stream.read.few import FewCells
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import Delta, WindowCells
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header
from freshet.stream.units import DAY_MS, HOUR_MS


def test_integers_become_units_and_currency_and_the_unobserved_becomes_nan() -> None:
    values_ICB = np.zeros((1, len(CHANNELS), 2), np.int64)
    values_ICB[0, CHANNELS.index("units")] = [2_500, 0]
    values_ICB[0, CHANNELS.index("revenue")] = [19_990_000, 0]
    observed_ICB = np.ones_like(values_ICB, bool)
    observed_ICB[0, CHANNELS.index("views")] = False
    found = snapshot(
        WindowCells(values_ICB, observed_ICB, 5 * HOUR_MS), {"A|n": 0}, Grid(HOUR_MS), Books()
    )
    assert found.values["units"].tolist() == [[2.5, 0.0]]
    assert found.values["revenue"].tolist() == [[1999.0, 0.0]]
    assert np.isnan(found.values["views"]).all()
    assert (found.start_ms, found.end_ms) == (5 * HOUR_MS, 7 * HOUR_MS)


def test_a_series_starts_with_the_bucket_that_holds_the_time(make: Any) -> None:
    actuals = make.actuals({"A|n": [1, 2, 3, 4]}, end_hour=10)
    start_ms, units = actuals.series("A|n", "units", 8 * HOUR_MS + 59)
    assert (start_ms, units.tolist()) == (8 * HOUR_MS, [3.0, 4.0])
    assert actuals.series("A|n", "units", 0)[0] == 6 * HOUR_MS
    for item_id in ("A|n", "B|n"):
        start_ms, units = actuals.series(item_id, "units", 99 * HOUR_MS)
        assert (start_ms, units.tolist()) == (actuals.end_ms, [])


def test_each_item_and_channel_has_a_series_of_its_own(make: Any) -> None:
    actuals = make.actuals({"A|n": [1, 2, 3], "B|n": [4, 5, 6]}, end_hour=10)
    found = [
        actuals.series(item_id, channel, 8 * HOUR_MS)[1].tolist()
        for item_id in ("A|n", "B|n")
        for channel in ("units", "views")
    ]
    assert found == [[2.0, 3.0], [20.0, 30.0], [5.0, 6.0], [50.0, 60.0]]
    assert actuals.total("carts", 8 * HOUR_MS + 59).tolist() == [50.0, 110.0]


def test_an_item_without_windows_is_unknown_not_zero(make: Any) -> None:
    actuals = make.actuals({"A|n": [1, 2, 3]}, end_hour=10)
    start_ms, units = actuals.series("B|n", "units", 9 * HOUR_MS - 1)
    assert start_ms == 8 * HOUR_MS
    assert len(units) == 2 and np.isnan(units).all()


def test_totals_leave_out_what_is_unknown(make: Any) -> None:
    nan = float("nan")
    actuals = make.actuals({"A|n": [1, nan, 3], "B|n": [nan, nan, nan]}, end_hour=3)
    totals = actuals.total("units", HOUR_MS)
    assert totals[0] == 3.0 and np.isnan(totals[1])
    assert Actuals(HOUR_MS).total("units", 0).tolist() == []


# What RedisSource reads -------------------------------------------------------------------------


class FakeRedis:
    """What stands behind a reader, its stores and the clock, and how they were opened."""

    def __init__(self) -> None:
        self.moved = True
        self.cutoff_ms: int | None = 200 * HOUR_MS
        self.reads_generation = 1
        self.headers: dict[int, dict[tuple[str, int], Header | None]] = {1: {}, 2: {}}
        self.connected: RedisSettings | None = None
        self.opened: list[tuple[Any, ...]] = []

    def connect(self, settings: RedisSettings) -> FakeRedis:
        self.connected = settings
        return self

    def reader(self, client: Any, generation: int, *sizes: int, rules: ReadRules) -> FakeRedis:
        assert client is self
        self.opened.append((generation, *sizes, rules))
        return self

    def store(self, client: Any, generation: int) -> FakeStore:
        assert client is self
        return FakeStore(generation, self.headers[generation])

    # What a reader says.
    item_ids = ("B|n", "A|n")

    rules = ReadRules.of(Settings(), HOUR_MS)

    @property
    def generation(self) -> int:
        return self.reads_generation

    def refresh(self) -> Delta:
        none = np.zeros(0, np.int64)
        return Delta(none, none, [], self.moved, ())

    def live_cutoff_ms(self) -> int | None:
        return self.cutoff_ms

    def window(self, end_ms: int, num_buckets: int) -> WindowCells:
        values_ICB = np.zeros((2, len(CHANNELS), num_buckets), np.int64)
        values_ICB[1, CHANNELS.index("carts"), -1] = 7
        observed_ICB = np.ones_like(values_ICB, bool)
        return WindowCells(values_ICB, observed_ICB, end_ms - num_buckets * HOUR_MS)


class FakeStore:
    def __init__(self, generation: int, headers: dict[tuple[str, int], Header | None]) -> None:
        self.generation = generation
        self._headers = headers

    def partitions(self) -> list[tuple[str, int]]:
        return list(self._headers)

    def header(self, topic: str, partition: int) -> Header | None:
        return self._headers[topic, partition]


HEADERS = {
    ("orders", 0): Header(read=100, applied=60, duplicate=20, late_dropped=15, dead_letter=5),
    ("clicks", 0): Header(read=11, applied=4, duplicate=3, late_dropped=2, dead_letter=2),
    ("clicks", 1): None,
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    fake = FakeRedis()
    fake.headers[1].update(HEADERS)
    monkeypatch.setattr(actuals_module, "connect", fake.connect)
    monkeypatch.setattr(actuals_module, "WindowReader", fake.reader)
    monkeypatch.setattr(actuals_module, "WindowStore", fake.store)
    anchored = SimpleNamespace(now_ms=lambda: 9_000, speed=60.0)
    monkeypatch.setattr(actuals_module, "open_clock", lambda client: anchored)
    return fake


def source(timeout_ms: int = 2_000) -> RedisSource:
    return RedisSource(
        Settings(
            redis=RedisSettings(generation=1, timeout_ms=timeout_ms),
            worker=WorkerSettings(resolution_ms=HOUR_MS),
        )
    )


def test_the_windows_of_eight_days_are_read_and_the_books_of_all_partitions_added(
    fake: FakeRedis,
) -> None:
    opened = source()
    found = opened.read()
    assert found is not None
    assert fake.opened == [(1, HOUR_MS, 192, ReadRules.of(Settings(), HOUR_MS))]
    assert (found.start_ms, found.end_ms) == (8 * HOUR_MS, 200 * HOUR_MS)
    assert found.rows == {"B|n": 0, "A|n": 1}
    assert found.series("A|n", "carts", 199 * HOUR_MS)[1].tolist() == [7.0]
    assert found.books == Books(111, 64, 23, 17, 7)
    assert opened.clock() == (9_000, 60.0)


@pytest.mark.parametrize(("asked_ms", "granted_ms"), [(500, 500), (2_000, 1_500)])
def test_a_stalled_redis_holds_the_end_for_a_second_and_a_half_at_most(
    fake: FakeRedis, asked_ms: int, granted_ms: int
) -> None:
    source(asked_ms)
    assert fake.connected is not None and fake.connected.timeout_ms == granted_ms


def test_a_look_says_something_when_the_windows_the_books_or_the_cutoff_moved(
    fake: FakeRedis,
) -> None:
    opened = source()
    assert opened.read() is not None
    fake.moved = False
    assert opened.read() is None
    fake.moved = True
    assert opened.read() is not None
    fake.moved = False
    fake.headers[1]["clicks", 1] = Header(read=1, late_dropped=1)
    found = opened.read()
    assert found is not None and found.books == Books(112, 64, 23, 18, 7)
    assert opened.read() is None
    fake.cutoff_ms = 201 * HOUR_MS
    found = opened.read()
    assert found is not None and found.end_ms == 201 * HOUR_MS
    assert opened.read() is None


def test_before_anything_was_folded_there_are_books_and_no_buckets(fake: FakeRedis) -> None:
    fake.cutoff_ms = None
    assert source().read() == Actuals(HOUR_MS, books=Books(111, 64, 23, 17, 7))


def test_the_books_are_those_of_the_generation_that_is_read(fake: FakeRedis) -> None:
    opened = source()
    opened.read()
    fake.reads_generation = 2
    fake.headers[2]["orders", 0] = Header(read=3, applied=3)
    found = opened.read()
    assert found is not None and found.books == Books(read=3, applied=3)


def test_a_rate_looks_back_about_its_window_and_never_below_zero() -> None:
    rate = Rate(window_s=5.0)
    found = [rate.note(float(second), second**2) for second in range(20)]
    # From second 14 on: 19 * 19 less 14 * 14 in five seconds; in the beginning from the first look.
    assert found[-1] == (361 - 196) / 5
    assert found[:4] == [0.0, 1.0, 2.0, 3.0]
    assert rate.note(20.0, 0) == 0.0


def test_a_rate_of_two_looks_far_apart_is_that_between_them() -> None:
    rate = Rate(window_s=10.0)
    assert [rate.note(0.0, 0), rate.note(100.0, 50), rate.note(100.0, 60)] == [0.0, 0.5, 0.0]


def test_a_few_items_are_shown_up_to_the_last_bucket_that_is_observed() -> None:
    observed_B = np.array([False, True, True, False])
    cells = FewCells(Grid(60_000), 10, {"A|n": np.array([1_000, 2_000, 500, 9_000])}, observed_B)
    found = Actuals.of(cells)
    assert (found.start_ms, found.end_ms) == (600_000, 780_000)
    start_ms, units_B = found.series("A|n", "units", 0)
    assert start_ms == 600_000 and units_B[1:].tolist() == [2.0, 0.5] and np.isnan(units_B[0])
    none = Actuals.of(FewCells(Grid(60_000)))
    assert (none.num_buckets, none.rows) == (0, {})


def test_days_of_a_zone_begin_at_its_midnights() -> None:
    # 29 March 2026 in Berlin has 23 hours.
    midnights_ms = [1_774_652_400_000, 1_774_738_800_000, 1_774_821_600_000]
    days = Actuals(DAY_MS, midnights_ms[0], 2, time_zone="Europe/Berlin")
    assert days.end_ms == midnights_ms[2]
    assert days.edges_ms(0).tolist() == midnights_ms
    assert days.edges_ms(midnights_ms[1] + HOUR_MS).tolist() == midnights_ms[1:]


class FewOfFake:
    """What reads a few items, and how it was opened."""

    opened: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, client: Any, generation: int, rules: ReadRules, num_buckets: int) -> None:
        self.grid = rules.grid
        self.opened.append((generation, rules.resolution_ms, num_buckets))

    def read(self, item_ids: frozenset[str]) -> FewCells:
        return FewCells(self.grid, units=dict.fromkeys(item_ids, np.array([1])))


def test_other_resolutions_are_read_while_somebody_looks_and_then_let_go(
    fake: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actuals_module, "FewItems", FewOfFake)
    FewOfFake.opened = []
    opened = source()
    wanted = {60_000: frozenset(["A|n"]), DAY_MS: frozenset(["B|n"])}
    for _ in range(2):
        found = opened.few(wanted)
        assert {width: set(cells.units) for width, cells in found.items()} == wanted
    # Eight hours of minutes and 192 days.
    assert sorted(FewOfFake.opened) == [(1, 60_000, 480), (1, DAY_MS, 192)]
    assert opened.few({}) == {} and opened._few == {}
    opened.few(wanted)
    assert len(FewOfFake.opened) == 4
