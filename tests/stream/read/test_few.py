"""Units of a few items, read chunk by chunk, against what was written."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.read import few
from freshet.stream.read.few import FewCells, FewItems
from freshet.stream.read.progress import ReadRules
from freshet.stream.store.generation import GENERATION_KEY
from freshet.stream.store.grid import Grid
from freshet.stream.store.tiles import CHUNK_ITEMS
from tests.stream.read.fake_windows import RESOLUTION_MS, FakeRedis, Partition

HELD = 5
RULES = ReadRules(RESOLUTION_MS, HELD, orders_topic="o", clicks_topic="c", out_of_order_ms=0)


def few_of(client: FakeRedis) -> FewItems:
    return FewItems(client, 0, RULES, HELD)  # type: ignore[arg-type]


def read(reader: FewItems, *item_ids: str) -> dict[str, list[int]]:
    found = reader.read(frozenset(item_ids))
    return {item_id: units_B.tolist() for item_id, units_B in found.units.items()}


def begun() -> Partition:
    """Items a and b in chunk 0, z in chunk 1; the newest bucket is 8."""
    part = Partition(FakeRedis())
    names = ["a", "b", *(f"x{n}" for n in range(CHUNK_ITEMS - 2)), "z"]
    tiles = {(7, 0): {0: 1, 1: 2}, (8, 0): {0: 3}, (8, 1): {0: 9}}
    part.write(5, tiles, names, frontier_ms=85)
    return part


def test_only_chunks_of_items_that_are_asked_for_are_read() -> None:
    part = begun()
    reader = few_of(part.client)
    assert read(reader, "a") == {"a": [0, 0, 0, 1, 3]}
    tiles = {key for key in part.client.asked if ":w:" in key}
    assert {key.rpartition(":")[2] for key in tiles} == {"0"}
    assert read(reader, "z") == {"z": [0, 0, 0, 0, 9]}
    assert read(reader, "a", "z") == {"a": [0, 0, 0, 1, 3], "z": [0, 0, 0, 0, 9]}


def test_when_nothing_moved_no_tile_is_read() -> None:
    part = begun()
    reader = few_of(part.client)
    read(reader, "a", "b")
    part.client.asked.clear()
    assert read(reader, "b") == {"b": [0, 0, 0, 2, 0]}
    assert part.client.asked == []


def test_what_changed_is_read_and_what_left_is_forgotten() -> None:
    part = begun()
    reader = few_of(part.client)
    read(reader, "a", "b")
    part.client.asked.clear()
    part.write(9, {(8, 0): {0: 4}, (11, 0): {1: 7}, (11, 1): {0: 1}}, frontier_ms=115)
    assert read(reader, "a", "b") == {"a": [1, 4, 0, 0, 0], "b": [2, 0, 0, 0, 7]}
    assert len(part.client.asked) == 2
    part.write(12, {(13, 0): {0: 5}}, frontier_ms=135)
    assert read(reader, "a") == {"a": [0, 0, 0, 0, 5]}


def test_an_item_that_is_sold_for_the_first_time_while_it_is_watched_is_found() -> None:
    part = begun()
    reader = few_of(part.client)
    assert read(reader, "new") == {}
    part.write(6, {(8, 1): {0: 9, 1: 2}}, ["new"])
    assert read(reader, "new") == {"new": [0, 0, 0, 0, 2]}


def test_an_item_on_two_partitions_is_the_sum_of_both() -> None:
    part = begun()
    other = Partition(part.client, number=1)
    other.write(3, {(8, 0): {1: 4}}, ["b", "a"], frontier_ms=83)
    found = few_of(part.client).read(frozenset(["a"]))
    assert found.of("a").tolist() == [0, 0, 0, 1, 7]
    assert found.offsets == {"o:0": 5, "o:1": 3}
    assert found.reached_ms == 83


def test_open_buckets_are_held_and_not_called_observed() -> None:
    part = begun()
    found = few_of(part.client).read(frozenset(["a"]))
    assert found.first == 4 and found.observed_B.tolist() == [True] * 4 + [False]
    assert (found.known_from_ms, found.known_to_ms) == (40, 80)
    assert found.of("nobody").tolist() == [0] * 5


def test_before_any_data_nothing_is_known() -> None:
    found = few_of(FakeRedis()).read(frozenset(["a"]))
    assert (found.reached_ms, found.known_from_ms, found.known_to_ms) == (None, None, None)
    assert found == FewCells(Grid(RESOLUTION_MS), observed_B=found.observed_B)


def test_clicks_have_no_units_and_are_not_read() -> None:
    part = begun()
    Partition(part.client, topic="c").write(1, {(8, 0): {0: 50}}, ["a"], frontier_ms=85)
    found = few_of(part.client).read(frozenset(["a"]))
    assert found.of("a").tolist() == [0, 0, 0, 1, 3] and found.offsets == {"o:0": 5}


def test_what_redis_lost_is_kept_until_it_is_there_again() -> None:
    part = begun()
    reader = few_of(part.client)
    read(reader, "a")
    lost = dict(part.header)
    part.write(3, {(8, 0): {0: 1}})
    assert read(reader, "a") == {"a": [0, 0, 0, 1, 3]}
    part.header = lost
    part.write(7, {(8, 0): {0: 6}})
    assert read(reader, "a") == {"a": [0, 0, 0, 1, 6]}


def test_another_log_is_read_from_nothing() -> None:
    part = begun()
    reader = few_of(part.client)
    read(reader, "a")
    part.drop()
    part.write(2, {(8, 0): {1: 8}}, ["b", "a"], frontier_ms=85, first_offset=1)
    assert read(reader, "a", "b") == {"a": [0, 0, 0, 0, 8], "b": [0, 0, 0, 0, 0]}


def test_a_later_generation_is_followed_once_it_is_current() -> None:
    part = begun()
    reader = few_of(part.client)
    read(reader, "a")
    later = Partition(part.client, generation=1)
    later.write(9, {(8, 0): {0: 2}}, ["a"], frontier_ms=85)
    assert read(reader, "a") == {"a": [0, 0, 0, 1, 3]}
    part.client.values[GENERATION_KEY] = b"1"
    assert read(reader, "a") == {"a": [0, 0, 0, 0, 2]} and reader.generation == 1


def test_those_asked_for_before_stay_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "MAX_KEPT_ITEMS", 2)
    part = begun()
    reader = few_of(part.client)
    for item_id in ("a", "b"):
        read(reader, item_id)
    part.client.asked.clear()
    read(reader, "a")
    assert part.client.asked == []
    assert read(reader, "z") == {"z": [0, 0, 0, 0, 9]}
    part.client.asked.clear()
    assert read(reader, "b") == {"b": [0, 0, 0, 2, 0]}
    assert part.client.asked != []


def test_a_partition_that_moves_on_while_it_is_read_stays_as_it_was() -> None:
    part = begun()
    reader = few_of(part.client)
    read(reader, "a")
    part.write(6, {(8, 0): {0: 4}})

    def moves_on() -> None:
        part.write(part.header["next_offset"] + 1, {}, index_floor=10**6)

    part.client.before_transaction = moves_on
    found = reader.read(frozenset(["a"]))
    assert (found.of("a").tolist(), found.offsets) == ([0, 0, 0, 1, 3], {"o:0": 5})
    part.client.before_transaction = None
    part.write(9, {}, index_floor=0)
    assert read(reader, "a") == {"a": [0, 0, 0, 1, 4]}


ITEMS = [f"i{n}" for n in range(6)]
steps = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.dictionaries(st.tuples(st.integers(0, 2), st.sampled_from(ITEMS)), st.integers(1, 9)),
        st.sets(st.sampled_from(ITEMS)),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(steps)
def test_what_is_read_is_the_sum_of_what_was_written(plan: list[Any]) -> None:
    client = FakeRedis()
    parts = [Partition(client, number=number) for number in range(2)]
    cells: list[Any] = [defaultdict(dict), defaultdict(dict)]
    reader, head = few_of(client), 0
    for number, sold, asked in plan:
        part, held = parts[number], cells[number]
        base = head
        new = [item for item in {item for _, item in sold} if item not in part.items]
        slots = {item: slot for slot, item in enumerate([*part.items, *new])}
        for (ahead, item), units in sold.items():
            held[base + ahead][slots[item]] = held[base + ahead].get(slots[item], 0) + units
            head = max(head, base + ahead)
        tiles = {(base + ahead, 0): held[base + ahead] for ahead, _ in sold}
        offset = part.header.get("next_offset", 0) + 1
        part.write(offset, tiles, new, frontier_ms=head * RESOLUTION_MS)
        found = reader.read(frozenset(asked))
        for item in asked:
            expected = [
                sum(
                    cells[n][bucket].get(parts[n].items.index(item), 0)
                    for n in range(2)
                    if item in parts[n].items
                )
                for bucket in range(head - HELD + 1, head + 1)
            ]
            assert found.of(item).tolist() == expected, (item, plan)
