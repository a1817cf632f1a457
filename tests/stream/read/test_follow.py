"""What a look at a partition is understood as, and what is then read of it."""

from __future__ import annotations

import pytest

from freshet.stream.errors import StoreError
from freshet.stream.read.follow import Change, Look, PartitionFollower
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header
from freshet.stream.store.tiles import CHUNK_ITEMS
from tests.stream.read.fake_windows import RESOLUTION_MS, FakeRedis, Partition, tile_of


def test_a_look_at_a_partition_that_was_only_claimed_sees_nothing() -> None:
    assert Look.of({}, []).header is None
    assert Look.of({b"epoch": b"3", b"fingerprint": b"{}"}, []) == Look(None, frozenset())
    look = Look.of({b"first_offset": b"0", b"next_offset": b"7"}, [b"5:0", b"6:12"])
    assert look.header == Header(first_offset=0, next_offset=7)
    assert (look.offset, look.changed) == (7, {(5, 0), (6, 12)})


@pytest.mark.parametrize("member", [b"5", b"5:0:1", b"x:0"])
def test_an_index_that_names_no_tile_is_refused(member: bytes) -> None:
    with pytest.raises(StoreError, match="index of changed tiles"):
        Look.of({b"first_offset": b"0", b"next_offset": b"7"}, [member])


def follower_of(part: Partition) -> PartitionFollower:
    return PartitionFollower(part.client, part.keys, Grid(RESOLUTION_MS))


def looked(follower: PartitionFollower, client: FakeRedis) -> Look:
    pipe = client.pipeline(transaction=False)
    follower.ask(pipe)
    return Look.of(*pipe.execute())


def read(part: Partition, follower: PartitionFollower, buckets: range = range(100)) -> Change:
    change = follower.read(looked(follower, part.client), buckets)
    assert change is not None
    follower.accept(change, buckets)
    return change


def begun() -> Partition:
    part = Partition(FakeRedis())
    tiles = {(3, 0): {0: 1}, (5, 0): {0: 2}, (8, 0): {0: 3}}
    part.write(5, tiles, ["a"], frontier_ms=62, first_event_ms=35, last_event_ms=85)
    return part


def test_a_first_read_asks_for_all_tiles_from_the_first_event_to_the_newest() -> None:
    part = begun()
    change = read(part, follower_of(part))
    assert change.full and not change.restarted and change.item_ids == ["a"]
    assert {tile for tile, data in change.tiles.items() if data is not None} == {
        (3, 0),
        (5, 0),
        (8, 0),
    }
    asked = [part.keys.tile(RESOLUTION_MS, bucket, 0) for bucket in range(3, 9)]
    assert part.client.asked == asked


def test_a_first_read_asks_for_no_bucket_outside_those_that_are_wanted() -> None:
    part = begun()
    read(part, follower_of(part), range(4, 6))
    assert part.client.asked == [part.keys.tile(RESOLUTION_MS, bucket, 0) for bucket in (4, 5)]


def test_every_chunk_that_has_an_item_is_read_and_its_items_in_the_order_of_their_slots() -> None:
    part = Partition(FakeRedis())
    names = [f"s{n}" for n in range(2 * CHUNK_ITEMS + 1)]
    part.write(5, {(3, 2): {0: 1}}, names, frontier_ms=35, first_event_ms=30)
    follower = follower_of(part)
    assert read(part, follower).item_ids == names
    assert part.client.asked == [part.keys.tile(RESOLUTION_MS, 3, chunk) for chunk in range(3)]
    part.write(6, {}, ["x", "y"])
    assert read(part, follower).item_ids == ["x", "y"]


def test_a_later_read_is_of_what_changed_after_the_one_that_was_accepted() -> None:
    part = begun()
    follower = follower_of(part)
    read(part, follower)
    assert not follower.moved(looked(follower, part.client))
    part.write(6, {(5, 0): {0: 4}})
    part.write(7, {(6, 0): {0: 5}})
    look = looked(follower, part.client)
    assert follower.moved(look) and not follower.moved_back(look)
    change = read(part, follower)
    assert not change.full and change.item_ids == []
    assert change.tiles == {(5, 0): tile_of({0: 4}), (6, 0): tile_of({0: 5})}
    assert follower.offset == 7


@pytest.mark.parametrize(("floor", "full"), [(5, False), (6, True)])
def test_below_the_floor_of_the_index_everything_is_read(floor: int, full: bool) -> None:
    part = begun()
    follower = follower_of(part)
    read(part, follower)
    part.write(9, {(5, 0): {0: 4}}, index_floor=floor)
    change = read(part, follower)
    assert change.full is full
    assert len(change.tiles) == (3 if full else 1)


def test_another_first_offset_is_another_log_and_all_its_items_are_read_again() -> None:
    part = begun()
    follower = follower_of(part)
    read(part, follower)
    part.drop()
    part.write(4, {(5, 0): {0: 4}}, ["z", "a"], first_offset=1, frontier_ms=55, first_event_ms=50)
    look = looked(follower, part.client)
    assert follower.moved(look) and not follower.moved_back(look)
    change = read(part, follower)
    assert change.restarted and change.full and change.item_ids == ["z", "a"]
    assert (follower.offset, follower.first_offset, follower.num_items) == (4, 1, 2)


def test_the_same_log_at_a_lower_offset_or_gone_has_moved_back() -> None:
    part = begun()
    follower = follower_of(part)
    assert not follower.moved_back(Look(None, frozenset())), "nothing was known yet"
    read(part, follower)
    lower = Look(Header(first_offset=0, next_offset=4), frozenset())
    assert follower.moved_back(lower) and not follower.moved(lower)
    same = Look(Header(first_offset=0, next_offset=5), frozenset())
    assert not follower.moved_back(same) and not follower.moved(same)
    assert follower.moved_back(Look(None, frozenset()))
    assert not follower.moved(Look(None, frozenset()))


@pytest.mark.parametrize("most_tiles", [1, 256])
def test_tiles_and_header_are_of_one_moment_although_ingest_goes_on_writing(
    monkeypatch: pytest.MonkeyPatch, most_tiles: int
) -> None:
    monkeypatch.setattr("freshet.stream.read.follow.MAX_ATOMIC_TILES", most_tiles)
    part = begun()
    follower = follower_of(part)
    writes = iter(range(6, 9))

    def meddle() -> None:
        offset = next(writes, None)
        if offset is not None:
            part.write(offset, {(offset, 0): {0: offset}}, [f"new{offset}"])

    part.client.before_transaction = meddle
    for _ in range(2):
        change = read(part, follower)
        held = {tile: data for tile, data in change.tiles.items() if data is not None}
        assert change.header.next_offset == 8
        assert held[8, 0] == tile_of({0: 8})
        assert {(3, 0), (5, 0), (6, 0), (7, 0), (8, 0)} == held.keys()
        assert change.item_ids == ["a", "new6", "new7", "new8"]
        follower, writes = follower_of(part), iter(())


def test_what_never_holds_still_is_left_for_the_next_look() -> None:
    part = begun()
    follower = follower_of(part)
    numbers = iter(range(6, 1_000))

    def meddle() -> None:
        offset = next(numbers)
        part.write(offset, {(offset, 0): {0: offset}})

    part.client.before_transaction = meddle
    assert follower.read(looked(follower, part.client), range(10_000)) is None
    assert next(numbers) == 6 + 16, "it is not asked more than sixteen times"
    assert follower.offset == -1


def test_a_log_that_is_replaced_or_an_index_that_forgets_while_it_is_read_gives_nothing() -> None:
    for change in ({"first_offset": 3}, {"index_floor": 9}):
        part = begun()
        follower = follower_of(part)
        read(part, follower)
        part.write(6, {(5, 0): {0: 4}})
        look = looked(follower, part.client)
        part.write(10, {}, **change)
        assert follower.read(look, range(100)) is None


def test_a_dictionary_with_a_hole_gives_nothing() -> None:
    part = begun()
    part.write(6, {}, ["b"])
    del part.client.values[part.keys.dictionary(0)][b"1"]
    follower = follower_of(part)
    assert follower.read(looked(follower, part.client), range(100)) is None


def test_a_partition_that_never_applied_a_record_has_no_tiles() -> None:
    part = Partition(FakeRedis())
    part.write(5, {})
    del part.client.values[part.keys.header][b"first_event_ms"]
    assert read(part, follower_of(part)).tiles == {}
    assert part.client.asked == []


def test_a_cluster_hands_over_a_header_as_a_flat_list() -> None:
    look = Look.of([b"first_offset", b"0", b"next_offset", b"7"], [])
    assert look.header == Header(first_offset=0, next_offset=7)
