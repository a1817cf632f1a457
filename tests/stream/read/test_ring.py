"""The ring holds what was added to its newest buckets; what was touched is told once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.read.ring import Ring, Touched

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
        assert ring.head is not None
        if move == "advance":
            ring.advance(ring.head + amount)
        elif move == "grow":
            ring.grow(ring.num_items + amount)
        elif ring.num_items and ring.head - amount in ring:
            rows = random.permutation(ring.num_items)[: random.integers(1, 9)]
            rows = np.sort(rows) if amount % 2 else rows
            values = random.integers(-5, 5, (8, len(rows)))
            ring.add(ring.head - amount, rows, values)
            for column, row in enumerate(rows.tolist()):
                for channel in range(8):
                    truth[row, channel, ring.head - amount] += int(values[channel, column])
    assert ring.head is not None
    start = ring.head - 7
    values_ICB = ring.window(start, 10)
    assert values_ICB.shape == (ring.num_items, 8, 10)
    expected = np.zeros_like(values_ICB)
    for (row, channel, bucket), value in truth.items():
        if bucket > ring.head - num_buckets and bucket >= start:
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
