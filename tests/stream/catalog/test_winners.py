"""Which interval holds when: against a walk over every millisecond."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.catalog.winners import winners

INTERVALS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 20)), max_size=12
)


@settings(deadline=None)
@given(INTERVALS.flatmap(lambda some: st.tuples(st.just(some), st.permutations(range(len(some))))))
def test_the_highest_rank_holds_at_each_moment(
    given_: tuple[list[tuple[int, int, int]], list[int]],
) -> None:
    intervals, ranks = given_
    columns = np.array(intervals, np.int64).reshape(len(intervals), 3)
    group, starts, length = columns.T
    held = winners(group, starts, starts + length, np.array(ranks, np.int64))
    walked = np.full((3, 51), -1)
    for place in np.argsort(ranks):
        walked[group[place], starts[place] : starts[place] + length[place]] = place
    found = np.full((3, 51), -1)
    for one, start, end, winner in zip(*held, strict=True):
        assert (found[one, start:end] == -1).all() and start < end
        found[one, start:end] = winner
    np.testing.assert_array_equal(found, walked)
    places = list(zip(held.group_W.tolist(), held.starts_W.tolist(), strict=True))
    assert places == sorted(places)


def test_nested_intervals_cost_no_more_than_their_number_times_its_logarithm() -> None:
    count = 50_000
    starts = np.arange(count)
    started_s = time.process_time()
    held = winners(np.zeros(count, np.int64), starts, 2 * count - starts, np.arange(count))
    # Each is nested in the one before it: pairs of those that overlap would be 1.25 billion.
    assert time.process_time() - started_s < 2.0
    assert len(held.winner_W) == 2 * count - 1
