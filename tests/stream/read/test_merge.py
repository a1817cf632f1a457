"""Windows summed over partitions, by hand: what moves, what leaves, and what was another log."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from freshet.stream.read.merge import NOT_OWNED, ItemRows, MergedWindows
from freshet.stream.read.progress import Input, InputState, ReadRules
from freshet.stream.read.ring import Ring, Touched
from freshet.stream.store.generation import GENERATION_KEY
from freshet.stream.store.tiles import CHUNK_ITEMS
from tests.stream.read.fake_windows import RESOLUTION_MS, UNITS, FakeRedis, Partition, tile_of

RULES = ReadRules(RESOLUTION_MS, 100, "o", "c", out_of_order_ms=0)


class Reader:
    """Merged windows over four buckets, and what was noted to have changed."""

    def __init__(
        self,
        client: FakeRedis,
        owns: Callable[[str], bool] | None = None,
        num_buckets: int = 4,
    ) -> None:
        self.ring = Ring(num_buckets)
        self.rows = ItemRows(owns)
        self.changes = Touched()
        self.windows = MergedWindows(
            client,  # type: ignore[arg-type]
            0,
            rules=RULES,
            ring=self.ring,
            rows=self.rows,
            changes=self.changes,
        )

    def refresh(self) -> tuple[Input, ...]:
        return self.windows.take_in(self.windows.look()[1])

    def units(self, start: int, num_buckets: int) -> dict[str, list[int]]:
        values_IB = self.ring.window(start, num_buckets)[:, UNITS]
        return dict(zip(self.rows.item_ids, values_IB.tolist(), strict=True))

    def changed(self) -> tuple[list[str], list[int]]:
        rows, buckets = self.changes.drain()
        return [self.rows.item_ids[row] for row in rows.tolist()], buckets.tolist()


def test_an_item_is_summed_over_partitions_whatever_its_slot_in_each() -> None:
    client = FakeRedis()
    first, second = Partition(client, number=0), Partition(client, number=1)
    first.write(5, {(7, 0): {0: 10, 1: 20}}, ["a", "b"], frontier_ms=75)
    second.write(3, {(7, 0): {0: 300, 1: 4_000}}, ["b", "c"], frontier_ms=79)
    reader = Reader(client)
    assert reader.refresh() == ()
    assert reader.units(7, 1) == {"a": [10], "b": [320], "c": [4_000]}
    assert reader.changed() == (["a", "b", "c"], [7])
    assert {at: state.offset for at, state in reader.windows.inputs.items()} == {
        ("o", 0): 5,
        ("o", 1): 3,
    }


def test_a_changed_tile_replaces_what_its_own_partition_had_and_nothing_else() -> None:
    client = FakeRedis()
    first, second = Partition(client, number=0), Partition(client, number=1)
    first.write(5, {(7, 0): {0: 10, 1: 20}}, ["a", "b"], frontier_ms=75)
    second.write(3, {(7, 0): {0: 300}}, ["a"], frontier_ms=79)
    reader = Reader(client)
    reader.refresh()
    reader.changed()
    first.write(6, {(7, 0): {0: 11, 1: 20}, (8, 0): {1: 1}}, frontier_ms=80)
    reader.refresh()
    assert reader.units(7, 2) == {"a": [311, 0], "b": [20, 1]}
    assert reader.changed() == (["a", "b"], [7, 8])
    first.write(7, {(7, 0): {0: 11, 1: 20}})
    reader.refresh()
    assert reader.changed() == ([], [])
    assert reader.windows.inputs["o", 0].offset == 7


def test_only_what_changed_is_asked_for_again() -> None:
    client = FakeRedis()
    part = Partition(client)
    part.write(5, {(7, 0): {0: 1}, (8, 0): {0: 2}}, ["a"], frontier_ms=85, first_event_ms=70)
    reader = Reader(client)
    reader.refresh()
    assert client.asked == [part.keys.tile(10, 7, 0), part.keys.tile(10, 8, 0)]
    client.asked.clear()
    reader.refresh()
    assert client.asked == []
    part.write(6, {(8, 0): {0: 3}})
    reader.refresh()
    assert client.asked == [part.keys.tile(10, 8, 0)]


def test_what_leaves_the_ring_is_forgotten_and_comes_back_as_nothing_after_any_jump() -> None:
    client = FakeRedis()
    part = Partition(client)
    part.write(4, {(n, 0): {0: 2**n} for n in range(5, 9)}, ["a"], frontier_ms=85)
    reader = Reader(client)
    reader.refresh()
    assert reader.units(4, 6) == {"a": [0, 32, 64, 128, 256, 0]}
    part.write(5, {(9, 0): {0: 512}}, frontier_ms=95)
    reader.refresh()
    assert reader.units(5, 6) == {"a": [0, 64, 128, 256, 512, 0]}
    (held,) = reader.windows.parts.values()
    assert sorted(held.tile_ids) == [(6, 0), (7, 0), (8, 0), (9, 0)]
    part.write(6, {(90, 0): {0: 7}}, frontier_ms=905)
    reader.refresh()
    assert reader.units(87, 4) == {"a": [0, 0, 0, 7]}
    assert held.tile_ids == [(90, 0)]


def test_a_late_tile_before_the_ring_is_passed_by() -> None:
    client = FakeRedis()
    part = Partition(client)
    part.write(4, {(9, 0): {0: 1}}, ["a"], frontier_ms=95)
    reader = Reader(client)
    reader.refresh()
    part.write(5, {(5, 0): {0: 8}, (6, 0): {0: 9}})
    reader.refresh()
    assert reader.units(5, 5) == {"a": [0, 9, 0, 0, 1]}


def test_a_log_that_was_begun_anew_at_a_lower_offset_replaces_the_old_one_and_no_other() -> None:
    client = FakeRedis()
    part, other = Partition(client, number=0), Partition(client, number=1)
    part.write(50, {(7, 0): {0: 10, 1: 20}, (8, 0): {0: 5}}, ["a", "b"], frontier_ms=85)
    other.write(9, {(7, 0): {0: 1_000}}, ["a"], frontier_ms=85)
    reader = Reader(client)
    reader.refresh()
    part.drop()
    part.write(8, {(8, 0): {0: 3, 1: 4}}, ["c", "a"], first_offset=2, frontier_ms=85)
    assert reader.refresh() == ()
    assert reader.units(7, 2) == {"a": [1_000, 4], "b": [0, 0], "c": [0, 3]}
    assert reader.windows.inputs["o", 0] == InputState(8, 2, 85, None, 0, 0)
    part.write(9, {(8, 0): {0: 3, 1: 5}})
    reader.refresh()
    assert reader.units(8, 1)["a"] == [5]


def test_a_partition_that_moved_back_is_named_and_left_as_it_was_until_it_catches_up() -> None:
    client = FakeRedis()
    part = Partition(client)
    part.write(5, {(7, 0): {0: 10}}, ["a"], frontier_ms=75)
    reader = Reader(client)
    reader.refresh()
    part.write(3, {(7, 0): {0: 4}})
    assert reader.refresh() == (("o", 0),)
    assert reader.units(7, 1) == {"a": [10]}
    assert reader.windows.inputs["o", 0].offset == 5
    part.write(5, {})
    assert reader.refresh() == ()
    part.write(6, {(7, 0): {0: 12}})
    assert reader.refresh() == ()
    assert reader.units(7, 1) == {"a": [12]}
    part.drop()
    assert reader.refresh() == (("o", 0),)
    assert reader.units(7, 1) == {"a": [12]}


def test_below_the_floor_of_the_index_a_tile_that_is_gone_is_taken_off() -> None:
    client = FakeRedis()
    part = Partition(client)
    part.write(5, {(6, 0): {0: 4}, (7, 0): {0: 10}, (8, 0): {0: 6}}, ["a"], frontier_ms=85)
    reader = Reader(client)
    reader.refresh()
    del client.values[part.keys.tile(10, 7, 0)]
    part.write(9, {(8, 0): {0: 7}}, index_floor=6)
    reader.refresh()
    assert reader.units(6, 3) == {"a": [4, 0, 7]}, "and what stayed as it was is passed by"


def test_items_of_other_owners_get_no_row_and_their_sums_go_nowhere() -> None:
    client = FakeRedis()
    part = Partition(client)
    units = {0: 1, 1: 20, 2: 300, 3: 4_000}
    part.write(5, {(7, 0): units}, ["a", "b", "c", "d"], frontier_ms=75)
    reader = Reader(client, owns=lambda item_id: item_id in "bd")
    reader.refresh()
    assert reader.units(7, 1) == {"b": [20], "d": [4_000]}
    assert reader.changed() == (["b", "d"], [7])
    part.write(6, {(7, 0): units | {0: 9, 3: 4_001}})
    reader.refresh()
    assert reader.units(7, 1) == {"b": [20], "d": [4_001]}
    assert reader.rows.find("a") is None and reader.rows.find("d") == 1
    first_and_third = Reader(client, owns=lambda item_id: item_id in "ac")
    first_and_third.refresh()
    assert first_and_third.units(7, 1) == {"a": [9], "c": [300]}


def test_the_items_of_a_second_chunk_are_found_by_their_slots() -> None:
    client = FakeRedis()
    part = Partition(client)
    names = [f"s{n}" for n in range(CHUNK_ITEMS + 2)]
    part.write(5, {(7, 0): {1_023: 1}, (7, 1): {0: 2, 1: 3}}, names, frontier_ms=75)
    reader = Reader(client)
    reader.refresh()
    units = reader.units(7, 1)
    assert {name: amount for name, (amount,) in units.items() if amount} == {
        "s1023": 1,
        "s1024": 2,
        "s1025": 3,
    }
    part.write(6, {(7, 1): {0: 2, 1: 3, 2: 4}}, ["new"])
    reader.refresh()
    assert reader.units(7, 1)["new"] == [4]


def no_transaction() -> None:
    raise AssertionError("keys of several partitions are asked for, which no cluster takes at once")


def test_a_look_tells_of_a_later_generation_and_of_partitions_that_are_new() -> None:
    client = FakeRedis(before_transaction=no_transaction)
    reader = Reader(client)
    assert reader.windows.look() == (0, {})
    part = Partition(client)
    part.write(5, {(7, 0): {0: 10}}, ["a"], frontier_ms=75)
    client.values[GENERATION_KEY] = b"3"
    generation, looks = reader.windows.look()
    assert generation == 3
    assert {at: look.offset for at, look in looks.items()} == {("o", 0): 5}


def test_idleness_is_taken_in_although_no_offset_moved() -> None:
    client = FakeRedis()
    part = Partition(client)
    part.write(5, {(7, 0): {0: 10}}, ["a"], frontier_ms=75)
    reader = Reader(client)
    reader.refresh()
    part.write(5, {}, idle_frontier_ms=99)
    reader.refresh()
    assert reader.windows.inputs["o", 0].idle_frontier_ms == 99


def test_rows_are_given_once_in_the_order_of_first_sight_and_only_to_owned_items() -> None:
    rows = ItemRows(lambda item_id: item_id != "no")
    given = [rows.give(item_id) for item_id in ("b", "no", "a", "b")]
    assert given == [0, NOT_OWNED, 1, 0] and NOT_OWNED < 0, "no row, not even the last one"
    assert rows.item_ids == ["b", "a"]
    assert (rows.find("a"), rows.find("no")) == (1, None)


@pytest.mark.parametrize("units", [{}, {3: 7}])
def test_a_tile_reads_back_as_it_was_written(units: dict[int, int]) -> None:
    client = FakeRedis()
    part = Partition(client)
    part.write(5, {(7, 0): units}, ["a", "b", "c", "d"], frontier_ms=75)
    assert client.mget([part.keys.tile(10, 7, 0)]) == [tile_of(units)]
    reader = Reader(client)
    reader.refresh()
    assert np.count_nonzero(reader.ring.window(0, 9)) == len(units)
