"""The ring holds what was added to its newest buckets; what was touched is told once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.read.ring import Ring, Span, Touched

MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(0, 12)),
        st.tuples(st.just("grow"), st.integers(1, 700)),
        st.tuples(st.just("add"), st.integers(0, 6)),
    ),
    max_size=30,
)


@given(MOVES, st.integers(1, 5), st.integers(0, 2**32))
def test_a_ring_holds_what_was_added_to_its_newest_buckets_and_nothing_else(
    moves: list[tuple[str, int]], num_buckets: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    ring, truth = Ring(num_buckets), defaultdict(int)
    ring.advance(100)
    for move, amount in moves:
        assert ring.span.head is not None
        if move == "advance":
            ring.advance(ring.span.head + amount)
        elif move == "grow":
            ring.grow(ring.num_items + amount)
        elif ring.num_items and ring.span.head - amount in ring.span:
            rows = random.permutation(ring.num_items)[: random.integers(1, 9)]
            rows = np.sort(rows) if amount % 2 else rows
            values = random.integers(-5, 5, (8, len(rows)))
            ring.add(ring.span.head - amount, rows, values)
            for column, row in enumerate(rows.tolist()):
                for channel in range(8):
                    truth[row, channel, ring.span.head - amount] += int(values[channel, column])
    assert ring.span.head is not None
    start = ring.span.head - 7
    values_ICB = ring.window(start, 10)
    assert values_ICB.shape == (ring.num_items, 8, 10)
    expected = np.zeros_like(values_ICB)
    for (row, channel, bucket), value in truth.items():
        if bucket > ring.span.head - num_buckets and bucket >= start:
            expected[row, channel, bucket - start] = value
    assert (values_ICB == expected).all()
    if ring.num_items:
        rows = random.integers(0, ring.num_items, 20)
        assert (ring.window(start, 10, rows) == expected[rows]).all()


def test_what_was_touched_is_told_once_and_rising() -> None:
    touched = Touched()
    touched.note(7, np.array([300, 2]))
    touched.note(5, np.array([2]))
    rows, buckets = touched.drain()
    assert (rows.tolist(), buckets.tolist()) == ([2, 300], [5, 7])
    rows, buckets = touched.drain()
    assert (rows.tolist(), buckets.tolist()) == ([], [])


def test_touched_rows_keep_their_numbers_when_higher_ones_are_touched() -> None:
    touched = Touched()
    for row in (0, 9, 400):
        touched.note(0, np.array([row]))
    assert touched.drain()[0].tolist() == [0, 9, 400]


def filled(num_buckets: int, head: int) -> Ring:
    """One item; bucket b holds b in each channel."""
    ring = Ring(num_buckets)
    ring.grow(1)
    for bucket in range(head - num_buckets + 1, head + 1):
        ring.advance(bucket)
        ring.add(bucket, np.array([0]), np.full((8, 1), bucket))
    return ring


def test_a_slot_is_empty_again_after_each_lap() -> None:
    ring = filled(3, 102)
    for bucket in range(103, 113):
        ring.advance(bucket)
        assert ring.window(bucket, 1).tolist() == [[[0]] * 8]
        assert ring.window(bucket - 3, 4)[0, 5].tolist() == [0, bucket - 2, bucket - 1, 0]
        ring.add(bucket, np.array([0]), np.full((8, 1), bucket))


@pytest.mark.parametrize(
    ("jump", "left"),
    [
        (0, [101, 102, 103, 104]),
        (1, [102, 103, 104, 0]),
        (3, [104, 0, 0, 0]),
        (4, [0, 0, 0, 0]),
        (5, [0, 0, 0, 0]),
        (4_001, [0, 0, 0, 0]),
    ],
)
def test_a_jump_of_any_length_leaves_no_old_sums_behind(jump: int, left: list[int]) -> None:
    ring = filled(4, 104)
    ring.advance(104 + jump)
    assert list(ring.span.buckets) == list(range(101 + jump, 105 + jump))
    assert ring.window(101 + jump, 4)[0, 0].tolist() == left


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        (None, None, []),
        (None, 104, []),
        (104, 104, []),
        (104, 105, [101]),
        (104, 107, [101, 102, 103]),
        (104, 108, [101, 102, 103, 104]),
        (104, 9_999, [101, 102, 103, 104]),
        (104, 103, [104]),
        (104, 101, [102, 103, 104]),
        (104, 100, [101, 102, 103, 104]),
        (104, None, [101, 102, 103, 104]),
    ],
)
def test_a_span_tells_which_buckets_left_when_it_moves_on_or_is_taken_back(
    before: int | None, after: int | None, left: list[int]
) -> None:
    then, now = Span(4, before), Span(4, after)
    gone = then.left(now)
    assert gone.tolist() == left
    if after is not None:
        # The buckets that came instead lie in their slots.
        assert {*then.slots(gone).tolist()} <= {*now.slots(now.left(then)).tolist()}


def test_a_ring_that_moves_tells_which_buckets_left() -> None:
    ring = Ring(4)
    assert [ring.advance(head) for head in (104, 104, 103)] == [[], [], []]
    assert ring.advance(106) == [101, 102]


def test_a_ring_never_goes_back() -> None:
    ring = filled(4, 104)
    ring.advance(102)
    assert ring.span.head == 104
    assert ring.window(101, 4)[0, 7].tolist() == [101, 102, 103, 104]


def test_what_is_not_held_is_0_and_what_was_never_held_has_no_buckets() -> None:
    ring = Ring(4)
    assert list(ring.span.buckets) == [] and 0 not in ring.span
    assert ring.window(0, 2).shape == (0, 8, 2)
    ring = filled(4, 104)
    assert 100 not in ring.span and 101 in ring.span and 104 in ring.span and 105 not in ring.span
    assert ring.window(99, 8)[0, 0].tolist() == [0, 0, 101, 102, 103, 104, 0, 0]
    assert ring.window(103, 1)[0, 0].tolist() == [103]
    for start in (90, 98, 105, 107):
        assert ring.window(start, 3).tolist() == [[[0] * 3] * 8]
    with pytest.raises(AssertionError, match="outside the ring"):
        ring.add(100, np.array([0]), np.ones((8, 1), np.int64))


def test_channels_are_picked_by_a_slice_with_and_without_rows() -> None:
    ring = Ring(2)
    ring.grow(2)
    ring.advance(7)
    ring.add(7, np.array([0, 1]), np.arange(16).reshape(8, 2))
    assert ring.window(6, 2, channels=slice(2, 4)).tolist() == [[[0, 4], [0, 6]], [[0, 5], [0, 7]]]
    assert ring.window(7, 1, np.array([1]), slice(2, 4)).tolist() == [[[5], [7]]]


def test_rows_that_follow_each_other_and_rows_that_do_not_are_added_to_alike() -> None:
    ring = Ring(1)
    ring.grow(6)
    ring.advance(0)
    for rows in ([1, 2, 3], [3, 1, 2], [1, 3, 4], [3], [1, 5, 3], [1, 3, 5]):
        ring.add(0, np.array(rows), np.tile(np.array([1, 10, 100])[: len(rows)], (8, 1)))
    assert ring.window(0, 1)[:, 6, 0].tolist() == [0, 14, 110, 222, 100, 110]


def test_growing_keeps_every_row_and_rows_never_become_fewer() -> None:
    ring = Ring(2)
    ring.grow(256)
    ring.advance(1)
    ring.add(1, np.arange(256), np.tile(np.arange(256) + 1, (8, 1)))
    ring.grow(257)
    ring.grow(3)
    assert ring.num_items == 257
    assert ring.window(1, 1)[:, 3, 0].tolist() == [*range(1, 257), 0]


def test_room_grows_by_a_quarter_at_least_so_that_growing_is_rare() -> None:
    ring, rooms = Ring(1), []
    for num_items in (1, 256, 257, 2_048, 2_049, 2_560, 2_561):
        ring.grow(num_items)
        rooms.append(ring.capacity)
    assert rooms == [256, 256, 512, 2_048, 2_560, 2_560, 3_328]


@pytest.mark.parametrize("block_cells", [1, 6, 7, 20, 8_192])
def test_rows_are_turned_around_block_by_block_without_losing_one(
    monkeypatch: pytest.MonkeyPatch, block_cells: int
) -> None:
    monkeypatch.setattr("freshet.stream.read.ring.BLOCK_CELLS", block_cells)
    ring = Ring(2)
    ring.grow(10)
    for bucket in (1, 2):
        ring.advance(bucket)
        ring.add(bucket, np.arange(10), np.tile(np.arange(10) + 100 * bucket, (8, 1)))
    assert ring.window(1, 2)[:, 4].tolist() == [[100 + row, 200 + row] for row in range(10)]
    rows = np.array([9, 0, 4, 4, 7])
    assert ring.window(1, 2, rows)[:, 4].tolist() == [[100 + r, 200 + r] for r in (9, 0, 4, 4, 7)]
