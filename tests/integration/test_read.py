"""The window reader over real writes in a real Redis, against a dictionary of what was sold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freshet.stream.config import RedisSettings
from freshet.stream.errors import InvalidInputError, StoreUnavailableError
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.read import follow
from freshet.stream.store.clock import open_clock, set_anchor
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import HOUR_MS
from tests.integration.windows_world import (
    CLICKS,
    ORDERS,
    RETAINED,
    SETTINGS,
    SLACK_MS,
    START_MS,
    World,
    at,
    reader_of,
)


@pytest.fixture
def client(redis_server: str) -> Iterator[redis.Redis]:
    client = connect(RedisSettings(url=redis_server))  # type: ignore[arg-type]
    yield client
    client.close()


@pytest.fixture
def world(client: redis.Redis) -> World:
    return World(client)


def test_an_empty_store_is_read_as_nothing_known(client: redis.Redis) -> None:
    reader = reader_of(client)
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
    reader = reader_of(client)
    world.writer(ORDERS, 0)
    assert not reader.refresh().moved
    assert reader.inputs == {}


def test_what_was_written_is_read_and_a_delta_names_it(client: redis.Redis, world: World) -> None:
    reader = reader_of(client)
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
    reader = reader_of(client)
    for partition in range(3):
        world.write(
            ORDERS, partition, [(item, at(1)) for item in "cab"[partition:]] + [("a", at(3))]
        )
        reader.refresh()
        world.check(reader)
    assert reader.item_ids == ["c|-", "a|-", "b|-"]
    assert reader.window(at(3), 3).values_ICB[1, 0].tolist() == [0, 4_000, 0]


def test_clicks_that_lag_are_missing_and_not_zero(client: redis.Redis, world: World) -> None:
    reader = reader_of(client)
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
    reader = reader_of(client)
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
    reader = reader_of(client)
    world.write(ORDERS, 0, [("a", at(0)), ("a", at(1))])
    assert world.writer(ORDERS, 0).declare_idle(at(5.9)) is Answer.APPLIED
    reader.refresh()
    view = reader.window(at(6), 6)
    assert view.observed_ICB[0, 0].tolist() == [True] * 5 + [False]
    assert view.values_ICB[0, 0].tolist() == [2_000, 2_000, 0, 0, 0, 0]


def test_a_partition_that_appears_later_may_take_the_cutoff_back(
    client: redis.Redis, world: World
) -> None:
    reader = reader_of(client)
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
    reader = reader_of(client)
    world.write(ORDERS, 0, [("a", at(hour)) for hour in range(30)])
    world.write(CLICKS, 0, [("a", at(29))])
    reader.refresh()
    world.write(ORDERS, 0, [("a", at(29 + jump))])
    reader.refresh()
    world.check(reader)
    fresh = reader_of(client)
    fresh.refresh()
    world.check(fresh)


def test_a_reader_sees_only_the_items_it_owns(client: redis.Redis, world: World) -> None:
    reader = reader_of(client, owns=lambda item_id: item_id in {"b|-", "d|-"})
    world.write(ORDERS, 0, [(item, at(0.5)) for item in "abc"] + [("a", at(2))])
    delta = reader.refresh()
    assert reader.item_ids == ["b|-"] and delta.changed_rows.tolist() == [0]
    world.write(ORDERS, 0, [("d", at(2)), ("c", at(2))])
    assert reader.refresh().new_items == ["d|-"]
    world.check(reader)
    assert reader.row("a|-") is None and reader.row("d|-") == 1


def test_rows_can_be_picked_in_any_order(client: redis.Redis, world: World) -> None:
    reader = reader_of(client)
    world.write(ORDERS, 0, [(f"item{n}", at(n / 200)) for n in range(700)])
    reader.refresh()
    everything = reader.window(at(3), 3)
    rows = np.array([699, 0, 17, 256])
    assert (reader.window(at(3), 3, rows).values_ICB == everything.values_ICB[rows]).all()
    assert reader.window(at(3), 3, rows).observed_ICB.shape == (4, 8, 3)


def test_what_is_no_longer_retained_is_missing(client: redis.Redis, world: World) -> None:
    reader = reader_of(client, num_buckets=200)
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
    reader = reader_of(client)
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
    replay.first_ms, replay.origin_ms = world.first_ms, world.origin_ms
    for key in list(world.truth):
        if key[0] == "c|-" or key[2] == at(3) // HOUR_MS:
            world.truth[key] = 0
    replay.write(ORDERS, 0, [("c", at(2)), ("a", at(3)), ("d", at(3.5))])
    assert reader.refresh().rolled_back == ()
    replay.check(reader)
    assert reader.item_ids == ["a|-", "b|-", "c|-", "d|-"]


def test_a_state_from_another_log_replaces_the_old_one(client: redis.Redis, world: World) -> None:
    reader = reader_of(client)
    world.write(ORDERS, 0, [("a", at(0)), ("b", at(1))])
    world.write(ORDERS, 1, [("a", at(1))])
    reader.refresh()
    client.delete(*client.keys("*:0}:*"))
    for known in (world.writers, world.frontiers, world.first_ms):
        known.pop((ORDERS, 0))  # type: ignore[attr-defined]
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
    reader = reader_of(client)
    reader.refresh()
    world.check(reader)
    assert reader.window(at(6), 4).observed_ICB[0, 0].tolist() == [False, False, True, True]


def test_a_reader_below_the_floor_of_the_index_reads_everything(
    client: redis.Redis, world: World
) -> None:
    reader = reader_of(client)
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
    reader = reader_of(meddling)  # type: ignore[arg-type]
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
    reader = reader_of(meddling)  # type: ignore[arg-type]
    world.write(ORDERS, 0, [("a", at(0))])
    assert not reader.refresh().moved
    assert reader.inputs == {}
    assert reader.refresh().moved
    world.check(reader)


def test_a_redis_that_is_gone_is_said_plainly_and_nothing_is_forgotten(
    client: redis.Redis, world: World
) -> None:
    world.write(ORDERS, 0, [("a", at(0)), ("a", at(2))])
    reader = reader_of(client)
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
        st.booleans(),
    ),
    max_size=12,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(MOVES)
def test_whatever_is_written_a_following_reader_and_a_fresh_one_agree_with_the_dictionary(
    client: redis.Redis, moves: list[tuple[tuple[str, int], list[tuple[str, float]], bool, bool]]
) -> None:
    client.flushall()
    world, reader, now = World(client), reader_of(client), 0.0
    for (topic, partition), events, redriven, look in moves:
        timed = [(item, at(max(now + ahead, 0))) for item, ahead in events]
        world.write(topic, partition, timed, redriven=redriven)
        now = max([now, *(now + ahead for _, ahead in events)])
        if look:
            reader.refresh()
            world.check(reader)
    if moves:
        reader.refresh()
        world.check(reader)
        fresh = reader_of(client)
        fresh.refresh()
        world.check(fresh)


def test_all_processes_share_the_clock_that_the_source_sets(client: redis.Redis) -> None:
    set_anchor(client, START_MS, 0)
    assert open_clock(client).now_ms() == START_MS
    assert open_clock(client).speed == 0


def test_a_reader_forgets_the_tiles_of_buckets_that_left_it(
    client: redis.Redis, world: World
) -> None:
    reader = reader_of(client, num_buckets=4)
    for hour in range(0, 30, 3):
        world.write(ORDERS, 0, [("a", at(hour + step)) for step in range(3)])
        reader.refresh()
    (part,) = reader._windows.parts.values()
    assert sorted(part.tiles) == [at(hour) // HOUR_MS for hour in range(26, 30)]
