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
