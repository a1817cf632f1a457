"""What lines add, to which buckets, and sums that do not depend on how they were added up."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.fold.additions import (
    NO_CELLS,
    Additions,
    TileCache,
    TileSums,
    _TileNumbers,
    add_to,
    click_additions,
    order_additions,
    split_tiles,
    sum_by_tile,
)
from freshet.stream.store.grid import Grid
from freshet.stream.store.tiles import CELLS, CHANNELS, CHUNK_ITEMS

SECONDS, KEPT = Grid(1_000), 4
LINES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 1_023, 1_024, 3_000]),
        st.integers(0, 20_000),
        st.integers(0, 7),
        st.integers(1, 2**40),
    ),
    max_size=40,
)


def additions(lines: list[tuple[int, int, int, int]]) -> Additions:
    return Additions(*np.array(lines, np.int64).reshape(-1, 4).T)


def added_up(
    lines: list[tuple[int, int, int, int]], watermark_ms: int
) -> Counter[tuple[int, int, int]]:
    sums: Counter[tuple[int, int, int]] = Counter()
    for item, time_ms, channel, value in lines:
        bucket = time_ms // 1_000
        if (bucket + 1 + 4) * 1_000 > watermark_ms:
            sums[bucket, item, channel] += value
    return sums


class Held:
    """Tiles by name, grown batch by batch as the fold does it."""

    def __init__(self) -> None:
        self.tiles = {}

    def add(self, lines: list[tuple[int, int, int, int]], watermark_ms: int) -> None:
        sums = sum_by_tile(additions(lines), [(SECONDS, KEPT)], watermark_ms)
        names = list(zip(sums.bucket.tolist(), sums.chunk.tolist(), strict=True))
        keys, values = add_to([self.tiles.get(name, NO_CELLS) for name in names], sums)
        assert (np.diff(keys) > 0).all()
        self.tiles |= dict(zip(names, split_tiles(keys, values, len(names)), strict=True))

    def sums(self) -> dict[tuple[int, int, int], int]:
        return {
            (bucket, chunk * CHUNK_ITEMS + cell % CHUNK_ITEMS, cell // CHUNK_ITEMS): value
            for (bucket, chunk), (cells, values) in self.tiles.items()
            for cell, value in zip(cells.tolist(), values.tolist(), strict=True)
        }


@settings(deadline=None)
@given(LINES, st.integers(-10, 25_000))
def test_a_fold_is_the_naive_sum_of_what_is_retained(lines, watermark_ms: int) -> None:
    held = Held()
    held.add(lines, watermark_ms)
    assert held.sums() == added_up(lines, watermark_ms)


@settings(deadline=None)
@given(LINES, st.lists(st.integers(0, 40), max_size=4))
def test_the_fold_of_parts_is_the_fold_of_the_whole(lines, cuts: list[int]) -> None:
    held, edges = Held(), sorted([0, *cuts, 40])
    for start, end in pairwise(edges):
        held.add(lines[start:end], 0)
    assert held.sums() == added_up(lines, 0)


@given(st.integers(-10_000, 10_000), st.integers(1, 50), st.integers(1, 9))
def test_the_first_retained_bucket_is_retained_and_the_one_before_is_not(
    watermark_ms, width, buckets
) -> None:
    first = Grid(width).first_retained(watermark_ms, buckets)
    assert (first + 1 + buckets) * width > watermark_ms >= (first + buckets) * width


@pytest.mark.parametrize(
    ("quantity", "price", "expected"),
    [
        (2, 9.99, {"units": 2_000, "revenue": 199_800, "orders": 1}),
        (-2, 9.99, {"returns": 2_000}),
        (0.5, 0.01, {"units": 500, "revenue": 50, "orders": 1}),
        (0.0001, 5, {"orders": 1}),
        (-0.0001, 5, {}),
        (1.9996, 1.00006, {"units": 2_000, "revenue": 20_002, "orders": 1}),  # 2.000 x 1.0001.
        (-1.9996, 1, {"returns": 2_000}),
        (0.0025, 1, {"units": 2, "revenue": 20, "orders": 1}),  # 2.5 thousandths: ties go to even.
        (0.001, 0.0505, {"units": 1, "revenue": 1, "orders": 1}),  # 0.505 ten-thousandths round up.
        (0.001, 0.05, {"units": 1, "revenue": 1, "orders": 1}),  # Exactly half rounds up.
        (0.001, 0.0499, {"units": 1, "orders": 1}),
        (3, 0, {"units": 3_000, "orders": 1}),
        (1_000_000, 900_000, {"units": 10**9, "revenue": 9 * 10**15, "orders": 1}),
    ],
)
def test_an_order_line_adds_exactly_this(
    quantity: float, price: float, expected: dict[str, int]
) -> None:
    one = np.zeros(1, np.int64)
    found = order_additions(one, one, np.array([float(quantity)]), np.array([float(price)]))
    assert {
        CHANNELS[c]: v for c, v in zip(found.channel.tolist(), found.value.tolist(), strict=True)
    } == expected


def test_a_click_adds_one_to_its_kind() -> None:
    found = click_additions(np.array([4, 5]), np.array([1, 2]), np.array([6, 7]))
    assert (found.value.tolist(), found.channel.tolist(), found.item.tolist()) == (
        [1, 1],
        [6, 7],
        [4, 5],
    )


def test_a_cell_belongs_to_the_bucket_whose_start_is_inclusive() -> None:
    sums = sum_by_tile(additions([(0, 999, 0, 1), (0, 1_000, 0, 1)]), [(SECONDS, KEPT)], 0)
    assert sums.bucket.tolist() == [0, 1]
    assert sums.keys.tolist() == [0, CELLS]


def test_each_amount_of_an_order_goes_to_the_item_and_the_time_of_its_own_line() -> None:
    found = order_additions(
        np.array([7, 8, 9]),
        np.array([100, 200, 300]),
        np.array([2.0, -1.5, 0.5]),
        np.array([1.0, 1.0, 4.0]),
    )
    amounts = {
        (item, time_ms, CHANNELS[channel]): value
        for item, time_ms, channel, value in zip(
            found.item.tolist(),
            found.time_ms.tolist(),
            found.channel.tolist(),
            found.value.tolist(),
            strict=True,
        )
    }
    assert amounts == {
        (7, 100, "units"): 2_000,
        (7, 100, "revenue"): 20_000,
        (7, 100, "orders"): 1,
        (8, 200, "returns"): 1_500,
        (9, 300, "units"): 500,
        (9, 300, "revenue"): 20_000,
        (9, 300, "orders"): 1,
    }
    assert len(found.value) == 7


def test_each_resolution_keeps_its_own_buckets_and_tiles_come_in_order() -> None:
    lines = [(0, 12_345, 0, 11), (1_026, 8_000, 3, 7), (0, 7_999, 0, 5), (0, 8_500, 0, 1)]
    # Of seconds the one from 8,000 to 9,000 is the first to be retained 4 more; tens keep all.
    sums = sum_by_tile(additions(lines), [(SECONDS, KEPT), (Grid(10_000), 2)], 12_000)
    cell = 3 * CHUNK_ITEMS + 2
    assert sums.place.tolist() == [0, 0, 0, 1, 1, 1]
    assert sums.bucket.tolist() == [8, 8, 12, 0, 0, 1]
    assert sums.chunk.tolist() == [0, 1, 0, 0, 1, 0]
    keys = [0, CELLS + cell, 2 * CELLS, 3 * CELLS, 4 * CELLS + cell, 5 * CELLS]
    assert sums.keys.tolist() == keys
    assert sums.values.tolist() == [1, 7, 11, 6, 7, 11]


def test_sums_are_added_to_cells_that_are_there_and_put_between_them_where_none_is() -> None:
    def cells(**values: int) -> tuple[np.ndarray, np.ndarray]:
        places = np.array([int(name[1:]) for name in values], np.uint16)
        return places, np.array(list(values.values()), np.int64)

    def sums(*pairs: tuple[int, int]) -> TileSums:
        nothing = np.zeros(3, np.int64)
        keys, values = np.array(pairs, np.int64).T
        return TileSums(nothing, nothing, nothing, keys, values)

    old = [cells(c3=10, c7=20), NO_CELLS, cells(c5=30, c8191=40)]
    both = add_to(old, sums((7, 1), (9, 2), (CELLS, 3), (2 * CELLS + 4, 4), (2 * CELLS + 8191, 5)))
    assert both[0].tolist() == [3, 7, 9, CELLS, 2 * CELLS + 4, 2 * CELLS + 5, 2 * CELLS + 8191]
    assert both[1].tolist() == [10, 21, 2, 3, 4, 30, 45]
    assert [
        (keys.tolist(), values.tolist()) for keys, values in split_tiles(*both, num_tiles=3)
    ] == [([3, 7, 9], [10, 21, 2]), ([0], [3]), ([4, 5, 8191], [4, 30, 45])]
    for part in split_tiles(*both, num_tiles=3):
        assert part[0].base is None and part[1].base is None, "one that is kept keeps no others"
    known = add_to(old, sums((3, 1), (2 * CELLS + 8191, 2)))
    assert known[0].tolist() == [3, 7, 2 * CELLS + 5, 2 * CELLS + 8191]
    assert known[1].tolist() == [11, 20, 30, 42]
    assert [cell[1].tolist() for cell in old] == [[10, 20], [], [30, 40]], "kept for the next try"


def test_times_that_lie_too_far_apart_for_one_number_are_added_up_all_the_same() -> None:
    far = 2**48
    lines = [(0, far, 0, 1), (3, 5, 2, 20), (0, far, 0, 300), (0, 5, 0, 4_000)]
    sums = sum_by_tile(additions(lines), [(Grid(1), 2**50)], 0)
    assert sums.bucket.tolist() == [5, far]
    assert sums.keys.tolist() == [0, 2 * CHUNK_ITEMS + 3, CELLS]
    assert sums.values.tolist() == [4_000, 20, 301]


def test_the_cache_is_bounded_in_tiles_and_in_cells_and_the_oldest_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("freshet.stream.fold.additions.MAX_CACHED_CELLS", 10)

    def tile(count: int):
        return np.arange(count, dtype=np.uint16), np.ones(count, np.int64)

    cache = TileCache(max_tiles=2)
    for name in ((1, 0, 0), (1, 1, 0), (1, 0, 0), (1, 2, 0)):
        cache.put(name, tile(2))
    assert cache.get((1, 1, 0)) is None
    assert cache.get((1, 0, 0)) is not None
    cache.put((1, 2, 0), tile(9))
    assert len(cache) == 1
    cache.put((1, 2, 0), tile(1))
    cache.put((1, 3, 0), tile(9))
    assert len(cache) == 2
    cache.put((1, 4, 0), tile(50))
    assert cache.get((1, 4, 0)) is not None
    assert len(cache) == 1


def test_tiles_have_numbers_of_their_own_also_where_a_resolution_has_none() -> None:
    tiles = _TileNumbers(num_chunks=2)
    nothing, buckets, chunks = np.zeros(0, np.int64), np.array([70, 72]), np.array([1, 0])
    # Three buckets of two chunks each take the numbers 0 to 5, the next ones 6 and 7.
    given = [
        tiles.give(*some)
        for some in [
            (nothing, nothing),
            (buckets, chunks),
            (nothing, nothing),
            (buckets[:1], chunks[:1]),
        ]
    ]
    assert [numbers.tolist() for numbers in given] == [[], [1, 4], [], [7]]
    named = tiles.named(np.array([1, 4, 7]))
    assert [of.tolist() for of in named] == [[1, 1, 3], [70, 72, 70], [1, 0, 1]]
