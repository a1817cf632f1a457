"""The window reader over real writes in a real Redis, against a dictionary of what was sold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freshet.stream.config import RedisSettings, Resolution, Settings, WindowSettings
from freshet.stream.errors import InvalidInputError, StoreUnavailableError
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.read import follow
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.clock import open_clock, set_anchor
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import DAY_MS, HOUR_MS

START_MS = 480_000 * HOUR_MS
ORDERS, CLICKS = "freshet.orders.v1", "freshet.clicks.v1"
RETAINED = 48
SLACK_MS = 5_000
UNITS, VIEWS = CHANNELS.index("units"), CHANNELS.index("views")
SETTINGS = Settings(
    windows=WindowSettings(
        resolutions=(Resolution(resolution_ms=HOUR_MS, buckets=RETAINED),),
        out_of_order_ms=SLACK_MS,
        allowed_lateness_ms=7 * DAY_MS,
    )
)
RULES = ReadRules.of(SETTINGS, HOUR_MS)


@pytest.fixture
def client(redis_server: str) -> Iterator[redis.Redis]:
    client = connect(RedisSettings(url=redis_server))  # type: ignore[arg-type]
    yield client
    client.close()


@dataclass
class World:
    """Writes events through the real fold, and keeps a dictionary of what must then be read."""

    client: redis.Redis
    truth: dict[tuple[str, int, int], int] = field(default_factory=lambda: defaultdict(int))
    frontiers: dict[tuple[str, int], int] = field(default_factory=dict)
    event_ids: Iterator[int] = field(default_factory=count)
    writers: dict[tuple[str, int], PartitionWindows] = field(default_factory=dict)
    whole_from_ms: int = 0

    def writer(self, topic: str, partition: int) -> PartitionWindows:
        at = (topic, partition)
        if at not in self.writers:
            kind = "orders" if topic == ORDERS else "clicks"
            store = WindowStore(self.client, 0)
            self.writers[at] = PartitionWindows.claim(store, kind, topic, partition, SETTINGS)  # type: ignore[arg-type]
            if self.writers[at].header.next_offset is None:
                self.writers[at].start_at(0)
        return self.writers[at]

    def write(self, topic: str, partition: int, events: list[tuple[str, int]]) -> None:
        """One batch of (item, event time): each an order of two units, or a view."""
        writer = self.writer(topic, partition)
        first = writer.next_offset
        values = [self._event(topic, item, time_ms) for item, time_ms in events]
        offsets = np.arange(first, first + len(values), dtype=np.int64)
        times = np.array([time_ms for _, time_ms in events], dtype=np.int64)
        batch = RawBatch(values, [None] * len(values), times, offsets, first + len(values))
        assert writer.apply(writer.fold(batch)) is Answer.APPLIED
        at = (topic, partition)
        for item, time_ms in events:
            watermark_ms = self.frontiers.get(at, 0) - SLACK_MS
            if time_ms + SETTINGS.windows.allowed_lateness_ms < watermark_ms:
                continue
            self.frontiers[at] = max(self.frontiers.get(at, 0), time_ms)
            channel, amount = (UNITS, 2_000) if topic == ORDERS else (VIEWS, 1)
            self.truth[f"{item}|-", channel, time_ms // HOUR_MS] += amount

    def _event(self, topic: str, item: str, time_ms: int) -> bytes:
        event: dict[str, Any] = {
            "event_id": str(next(self.event_ids)),
            "event_time": time_ms,
            "sku": item,
            "region": "-",
        }
        what = {"quantity": 2, "unit_price": 1} if topic == ORDERS else {"kind": "view"}
        return json.dumps(event | what).encode()

    def check(self, reader: WindowReader, num_buckets: int = 24) -> None:
        """The right cells are observed, and each of them is what the dictionary says."""
        end = max(self.frontiers.values()) // HOUR_MS + 2
        view = reader.window(end * HOUR_MS, num_buckets)
        assert view.start_ms == (end - num_buckets) * HOUR_MS
        assert view.values_ICB.shape == (reader.num_items, 8, num_buckets)
        assert view.observed_ICB.shape == view.values_ICB.shape
        for channel, topic in ((UNITS, ORDERS), (VIEWS, CLICKS)):
            for step in range(num_buckets):
                bucket = end - num_buckets + step
                known = self._known(reader, topic, channel, bucket)
                observed_I = view.observed_ICB[:, channel, step]
                assert (observed_I == known).all(), (topic, bucket - end)
                for row, item_id in enumerate(reader.item_ids):
                    expected = self.truth.get((item_id, channel, bucket), 0) if known else 0
                    found = view.values_ICB[row, channel, step]
                    assert found == expected, (item_id, topic, bucket - end)

    def _known(self, reader: WindowReader, topic: str, channel: int, bucket: int) -> bool:
        """Whether a reader knows a bucket, by the rules once more."""
        fronts = [front for (name, _), front in self.frontiers.items() if name == topic]
        begun = [b for (_, c, b), value in self.truth.items() if c == channel and value]
        newest = max(self.frontiers.values()) // HOUR_MS
        return (
            bool(fronts)
            and (bucket + 1) * HOUR_MS <= min(fronts)
            and bucket >= min(begun)
            and bucket > newest - reader.num_buckets
            and (bucket + 1 + RETAINED) * HOUR_MS > max(fronts) - SLACK_MS
            and (topic == CLICKS or bucket * HOUR_MS >= self.whole_from_ms)
        )


@pytest.fixture
def world(client: redis.Redis) -> World:
    return World(client)


def _reader(
    client: redis.Redis, num_buckets: int = 24, owns: Callable[[str], bool] | None = None
) -> WindowReader:
    return WindowReader(client, 0, HOUR_MS, num_buckets, owns=owns, rules=RULES)


def at(hours: float) -> int:
    return START_MS + round(hours * HOUR_MS)


def test_an_empty_store_is_read_as_nothing_known(client: redis.Redis) -> None:
    reader = _reader(client)
    delta = reader.refresh()
    assert not delta.moved and delta.new_items == [] and len(delta.changed_rows) == 0
    assert (
        reader.live_cutoff_ms() is None and reader.closed_ms() is None and reader.final_ms() is None
    )
    view = reader.window(at(5), 3)
    assert view.values_ICB.shape == (0, 8, 3)
    assert reader.offsets() == {}


def test_a_claimed_partition_without_data_changes_nothing(
    client: redis.Redis, world: World
) -> None:
    reader = _reader(client)
    world.writer(ORDERS, 0)
    assert not reader.refresh().moved
    assert reader.inputs == {}


def test_what_was_written_is_read_and_a_delta_names_it(client: redis.Redis, world: World) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [("a", at(0.5)), ("b", at(1.5)), ("a", at(3))])
    first = reader.refresh()
    assert first.new_items == ["a|-", "b|-"] == reader.item_ids
    assert first.changed_rows.tolist() == [0, 1]
    assert first.changed_buckets_ms.tolist() == [at(0), at(1), at(3)]
    assert reader.live_cutoff_ms() == at(3)
    world.check(reader)
    world.write(ORDERS, 0, [("b", at(3.5))])
    second = reader.refresh()
    assert (second.moved, second.new_items) == (True, [])
    assert second.changed_rows.tolist() == [1]
    assert second.changed_buckets_ms.tolist() == [at(3)]
    assert not reader.refresh().moved
    world.check(reader)


def test_an_item_in_several_partitions_is_one_row_that_sums_them(
    client: redis.Redis, world: World
) -> None:
    reader = _reader(client)
    for partition in range(3):
        world.write(
            ORDERS, partition, [(item, at(1.5)) for item in "cab"[partition:]] + [("a", at(3))]
        )
        reader.refresh()
        world.check(reader)
    assert reader.item_ids == ["c|-", "a|-", "b|-"]
    assert reader.window(at(3), 3).values_ICB[1, 0].tolist() == [0, 4_000, 0]


def test_clicks_that_lag_are_missing_and_not_zero(client: redis.Redis, world: World) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [("a", at(0)), ("a", at(6))])
    world.write(CLICKS, 0, [("a", at(0)), ("a", at(4))])
    reader.refresh()
    view = reader.window(at(6), 6)
    assert view.observed_ICB[0, 0].tolist() == [True] * 6
    assert view.observed_ICB[0, 4].tolist() == [True] * 4 + [False] * 2
    assert reader.live_cutoff_ms() == at(6)
    assert reader.closed_ms() == at(4) - SLACK_MS
    world.check(reader)


def test_the_cutoff_waits_for_the_slowest_partition_until_it_is_idle(
    client: redis.Redis, world: World
) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [("a", at(0)), ("a", at(9.5))])
    world.write(ORDERS, 1, [("b", at(0)), ("b", at(2.5))])
    reader.refresh()
    assert reader.live_cutoff_ms() == at(2)
    assert world.writer(ORDERS, 1).declare_idle(at(12)) is Answer.APPLIED
    delta = reader.refresh()
    assert delta.moved and len(delta.changed_rows) == 0
    assert reader.live_cutoff_ms() == at(9)
    assert reader.closed_ms() == at(2.5) - SLACK_MS
    assert reader.final_ms() == at(9.5) - SLACK_MS - SETTINGS.windows.allowed_lateness_ms
    assert reader.window(at(9), 9).observed_ICB[1, 0].all()


def test_a_whole_shop_that_is_idle_has_observed_zeros_past_its_frontier(
    client: redis.Redis, world: World
) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [("a", at(0)), ("a", at(1))])
    assert world.writer(ORDERS, 0).declare_idle(at(5.9)) is Answer.APPLIED
    reader.refresh()
    view = reader.window(at(6), 6)
    assert view.observed_ICB[0, 0].tolist() == [True] * 5 + [False]
    assert view.values_ICB[0, 0].tolist() == [2_000, 2_000, 0, 0, 0, 0]


def test_a_partition_that_appears_later_may_take_the_cutoff_back(
    client: redis.Redis, world: World
) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [("a", at(0)), ("a", at(9))])
    reader.refresh()
    world.write(ORDERS, 2, [("z", at(3))])
    reader.refresh()
    assert reader.live_cutoff_ms() == at(3)
    world.check(reader)


@pytest.mark.parametrize("jump", [1, 23, 24, 25, 47, 100, 9_000])
def test_a_gap_of_any_length_leaves_no_old_sums_behind(
    client: redis.Redis, world: World, jump: int
) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [("a", at(hour)) for hour in range(30)])
    world.write(CLICKS, 0, [("a", at(29))])
    reader.refresh()
    world.write(ORDERS, 0, [("a", at(29 + jump))])
    reader.refresh()
    world.check(reader)
    fresh = _reader(client)
    fresh.refresh()
    world.check(fresh)


def test_a_reader_sees_only_the_items_it_owns(client: redis.Redis, world: World) -> None:
    reader = _reader(client, owns=lambda item_id: item_id in {"b|-", "d|-"})
    world.write(ORDERS, 0, [(item, at(0.5)) for item in "abc"] + [("a", at(2))])
    delta = reader.refresh()
    assert reader.item_ids == ["b|-"] and delta.changed_rows.tolist() == [0]
    world.write(ORDERS, 0, [("d", at(2)), ("c", at(2))])
    assert reader.refresh().new_items == ["d|-"]
    world.check(reader)
    assert reader.row("a|-") is None and reader.row("d|-") == 1


def test_rows_can_be_picked_in_any_order(client: redis.Redis, world: World) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [(f"item{n}", at(n / 200)) for n in range(700)])
    reader.refresh()
    everything = reader.window(at(3), 3)
    rows = np.array([699, 0, 17, 256])
    assert (reader.window(at(3), 3, rows).values_ICB == everything.values_ICB[rows]).all()
    assert reader.window(at(3), 3, rows).observed_ICB.shape == (4, 8, 3)


def test_what_is_no_longer_retained_is_missing(client: redis.Redis, world: World) -> None:
    reader = _reader(client, num_buckets=200)
    world.write(ORDERS, 0, [("a", at(hour)) for hour in range(100)])
    reader.refresh()
    oldest = 99 - RETAINED - 1
    view = reader.window(at(99), 99)
    assert view.observed_ICB[0, 0].tolist() == [False] * oldest + [True] * (99 - oldest)
    with pytest.raises(InvalidInputError, match="not the end of a bucket"):
        reader.window(at(99) + 1, 3)


def test_after_a_rollback_the_reader_keeps_what_it_has_until_the_replay_has_passed_it(
    client: redis.Redis, world: World
) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [("a", at(0)), ("b", at(1))])
    before = {key: client.dump(key) for key in client.keys("*")}
    world.write(ORDERS, 0, [("c", at(2)), ("a", at(3))])
    reader.refresh()
    known = reader.window(at(4), 4).values_ICB
    client.flushall()
    for key, dumped in before.items():
        client.restore(key, 0, dumped)
    delta = reader.refresh()
    assert delta.rolled_back == ((ORDERS, 0),) and not delta.moved
    assert (reader.window(at(4), 4).values_ICB == known).all()
    replay = World(client, event_ids=count(2), truth=world.truth, frontiers=world.frontiers)
    for key in list(world.truth):
        if key[0] == "c|-" or key[2] == at(3) // HOUR_MS:
            world.truth[key] = 0
    replay.write(ORDERS, 0, [("c", at(2)), ("a", at(3)), ("d", at(3.5))])
    assert reader.refresh().rolled_back == ()
    replay.check(reader)
    assert reader.item_ids == ["a|-", "b|-", "c|-", "d|-"]


def test_a_state_from_another_log_replaces_the_old_one(client: redis.Redis, world: World) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [("a", at(0)), ("b", at(1))])
    world.write(ORDERS, 1, [("a", at(1))])
    reader.refresh()
    client.delete(*client.keys("*:0}:*"))
    world.writers.pop((ORDERS, 0)), world.frontiers.pop((ORDERS, 0))
    world.truth.update({("a|-", 0, at(0) // HOUR_MS): 0, ("b|-", 0, at(1) // HOUR_MS): 0})
    writer = PartitionWindows.claim(WindowStore(client, 0), "orders", ORDERS, 0, SETTINGS)
    writer.start_at(40)
    world.writers[ORDERS, 0] = writer
    world.write(ORDERS, 0, [("z", at(0.5)), ("a", at(2))])
    world.whole_from_ms = at(0.5) + SLACK_MS
    reader.refresh()
    world.check(reader)
    assert reader.offsets() == {f"{ORDERS}:0": 42, f"{ORDERS}:1": 1}


def test_buckets_before_the_beginning_of_a_shortened_log_are_missing_and_never_half_filled(
    client: redis.Redis, world: World
) -> None:
    world.writer(ORDERS, 0).header = replace(world.writer(ORDERS, 0).header, first_offset=40)
    world.write(ORDERS, 0, [("a", at(3.2)), ("a", at(1.9)), ("a", at(6))])
    world.whole_from_ms = at(3.2) + SLACK_MS
    reader = _reader(client)
    reader.refresh()
    world.check(reader)
    assert reader.window(at(6), 4).observed_ICB[0, 0].tolist() == [False, False, True, True]


def test_a_reader_below_the_floor_of_the_index_reads_everything(
    client: redis.Redis, world: World
) -> None:
    reader = _reader(client)
    world.write(ORDERS, 0, [("a", at(0)), ("b", at(1))])
    reader.refresh()
    world.write(ORDERS, 0, [("b", at(0)), ("c", at(3))])
    keys = WindowStore(client, 0).keys(ORDERS, 0)
    client.delete(keys.index(HOUR_MS))
    client.hset(keys.header, "index_floor", 4)
    reader.refresh()
    world.check(reader)


class Meddling:
    """A Redis client that writes behind the reader's back, right before each transaction."""

    def __init__(self, client: redis.Redis, meddle: Callable[[], None], times: int) -> None:
        self._client, self._meddle, self.left = client, meddle, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self, transaction: bool) -> Any:
        if transaction and self.left:
            self.left -= 1
            self._meddle()
        return self._client.pipeline(transaction=transaction)


@pytest.mark.parametrize("times", [1, 3, 10])
@pytest.mark.parametrize("most_tiles", [1, 256])
def test_a_read_is_of_one_moment_although_ingest_goes_on_writing(
    client: redis.Redis, world: World, monkeypatch: pytest.MonkeyPatch, times: int, most_tiles: int
) -> None:
    monkeypatch.setattr(follow, "MAX_ATOMIC_TILES", most_tiles)
    hours = count(4)

    def meddle() -> None:
        hour = next(hours)
        world.write(ORDERS, 0, [("a", at(hour)), ("a", at(hour - 3)), (f"new{hour}", at(hour))])

    meddling = Meddling(client, meddle, times)
    reader = _reader(meddling)  # type: ignore[arg-type]
    world.write(ORDERS, 0, [("a", at(0)), ("b", at(3.5))])
    reader.refresh()
    assert reader.offsets() == {f"{ORDERS}:0": 2 + 3 * times}
    world.check(reader)
    meddling.left = times
    world.write(ORDERS, 0, [("b", at(next(hours)))])
    reader.refresh()
    assert reader.offsets() == {f"{ORDERS}:0": 3 + 6 * times}
    world.check(reader)


def test_a_state_that_never_holds_still_is_left_for_the_next_refresh(
    client: redis.Redis, world: World
) -> None:
    hours = count(4)
    meddling = Meddling(
        client, lambda: world.write(ORDERS, 0, [("a", at(next(hours)))]), follow.MAX_REREADS
    )
    reader = _reader(meddling)  # type: ignore[arg-type]
    world.write(ORDERS, 0, [("a", at(0))])
    assert not reader.refresh().moved
    assert reader.inputs == {}
    assert reader.refresh().moved
    world.check(reader)


def test_a_redis_that_is_gone_is_said_plainly_and_nothing_is_forgotten(
    client: redis.Redis, world: World
) -> None:
    world.write(ORDERS, 0, [("a", at(0)), ("a", at(2))])
    reader = _reader(client)
    reader.refresh()
    reader._windows.client = redis.Redis(port=1, socket_connect_timeout=0.2)
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        reader.refresh()
    reader._windows.client = client
    world.write(ORDERS, 0, [("a", at(3))])
    reader.refresh()
    world.check(reader)


MOVES = st.lists(
    st.tuples(
        st.sampled_from([(ORDERS, 0), (ORDERS, 1), (CLICKS, 0), (CLICKS, 1)]),
        st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(-4, 30)), min_size=1, max_size=6),
        st.booleans(),
    ),
    max_size=12,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(MOVES)
def test_whatever_is_written_a_following_reader_and_a_fresh_one_agree_with_the_dictionary(
    client: redis.Redis, moves: list[tuple[tuple[str, int], list[tuple[str, float]], bool]]
) -> None:
    client.flushall()
    world, reader, now = World(client), _reader(client), 0.0
    for (topic, partition), events, look in moves:
        world.write(topic, partition, [(item, at(max(now + ahead, 0))) for item, ahead in events])
        now = max([now, *(now + ahead for _, ahead in events)])
        if look:
            reader.refresh()
            world.check(reader)
    if moves:
        reader.refresh()
        world.check(reader)
        fresh = _reader(client)
        fresh.refresh()
        world.check(fresh)


def test_all_processes_share_the_clock_that_the_source_sets(client: redis.Redis) -> None:
    set_anchor(client, START_MS, 0)
    assert open_clock(client).now_ms() == START_MS
    assert open_clock(client).speed == 0


def test_a_reader_forgets_the_tiles_of_buckets_that_left_it(
    client: redis.Redis, world: World
) -> None:
    reader = _reader(client, num_buckets=4)
    for hour in range(0, 30, 3):
        world.write(ORDERS, 0, [("a", at(hour + step)) for step in range(3)])
        reader.refresh()
    (part,) = reader._windows.parts.values()
    assert sorted(part.tiles) == [at(hour) // HOUR_MS for hour in range(26, 30)]
