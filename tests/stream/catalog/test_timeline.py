"""Changes and intervals on buckets, against plain loops over every millisecond that matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.catalog.timeline import (
    BucketSpan,
    columns_of,
    overlaps,
    share_of_buckets,
    value_at_starts,
)
from freshet.stream.catalog.versions import History, Known

CHANGES = st.lists(st.tuples(st.integers(-30, 90), st.sampled_from([0.0, 1.0])), max_size=8)


@settings(deadline=None)
@given(
    st.lists(CHANGES, min_size=1, max_size=4),
    st.integers(-20, 20),
    st.integers(1, 7),
    st.integers(1, 12),
)
def test_shares_and_values_equal_a_walk_over_every_millisecond(
    rows: list[list[tuple[int, float]]], start: int, steps: int, width: int
) -> None:
    histories = [History() for _ in rows]
    flat: list[tuple[int, int, float]] = []
    for row, (history, changes) in enumerate(zip(histories, rows, strict=True)):
        for at_ms, value in changes:
            history.put(at_ms, Known(0, 0), value)
        flat += [(row, *pair) for pair in zip(history.times_ms, history.values, strict=True)]
    columns = list(zip(*flat, strict=True)) or [(), (), ()]
    arrays = (
        np.array(columns[0], np.int64),
        np.array(columns[1], np.int64),
        np.array(columns[2], np.float64),
    )
    span = BucketSpan(start, steps, width)
    share = share_of_buckets(*arrays, num_rows=len(rows), span=span)
    value = value_at_starts(*arrays, num_rows=len(rows), span=span)
    for row, history in enumerate(histories):
        for step in range(steps):
            bucket = range(start + step * width, start + (step + 1) * width)
            np.testing.assert_equal(value[row, step], history.at(bucket[0]))
            walked = (
                np.mean([history.at(time_ms) for time_ms in bucket])
                if history.at(bucket[0]) >= 0
                else np.nan
            )
            np.testing.assert_allclose(share[row, step], walked, atol=1e-12)


@given(
    st.lists(st.tuples(st.integers(-50, 90), st.integers(0, 60)), max_size=6),
    st.integers(1, 7),
    st.integers(1, 12),
)
def test_overlaps_equal_a_count_of_milliseconds(
    spans: list[tuple[int, int]], steps: int, width: int
) -> None:
    starts = np.array([start for start, _ in spans], np.int64)
    ends = starts + np.array([length for _, length in spans], np.int64)
    found = {
        (int(n), int(s)): share
        for n, s, share in zip(*overlaps(starts, ends, BucketSpan(3, steps, width)), strict=True)
    }
    for n in range(len(spans)):
        for step in range(steps):
            bucket = range(3 + step * width, 3 + (step + 1) * width)
            covered = sum(starts[n] <= time_ms < ends[n] for time_ms in bucket)
            assert found.get((n, step), 0.0) == pytest.approx(covered / width)


def test_a_slice_holds_what_decides_inside_and_nothing_else() -> None:
    history = History()
    for at_ms, value in ((10, 1.0), (20, 2.0), (30, 3.0)):
        history.put(at_ms, Known(0, 0), value)
    # The one in force at the start, inclusive, and those before the end, exclusive.
    spans = ((5, 10), (5, 11), (10, 20), (19, 21), (20, 30), (20, 31), (31, 99))
    slices = {span: history.values[history.slice(*span)].tolist() for span in spans}
    assert slices == {
        (5, 10): [],
        (5, 11): [1.0],
        (10, 20): [1.0],
        (19, 21): [1.0, 2.0],
        (20, 30): [2.0],
        (20, 31): [2.0, 3.0],
        (31, 99): [3.0],
    }
    assert [history.at(time_ms) for time_ms in (10, 19, 20)] == [1.0, 1.0, 2.0]
    assert np.isnan(history.at(9))
    other = History()
    other.put(25, Known(60, 0), 7.0)
    rows, times, values = columns_of([history, None, other], 20, 31)
    assert (rows.tolist(), times.tolist(), values.tolist()) == ([0, 0, 2], [20, 30, 25], [2, 3, 7])
    assert columns_of([history, None, other], 20, 31, as_of_ms=59)[0].tolist() == [0, 0]
    assert columns_of([history, None, other], 20, 31, as_of_ms=60)[0].tolist() == [0, 0, 2]


def test_an_interval_that_meets_no_bucket_makes_no_pair() -> None:
    starts, ends = np.array([0, 10, 25, 30, 12]), np.array([10, 10, 25, 40, 13])
    number, step, share = overlaps(starts, ends, BucketSpan(10, 2, 10))
    # Before, empty, empty within, after; only the last one lies in a bucket.
    assert (number.tolist(), step.tolist(), share.tolist()) == ([4], [0], [0.1])


BERLIN_MARCH = [24 * hour for hour in range(3)] + [71, 95]  # 2026-03-29 has 23 hours.


def test_edges_that_are_even_make_an_even_span_and_others_keep_theirs() -> None:
    assert BucketSpan.between([5, 15, 25]) == BucketSpan(5, 2, 10)
    uneven = BucketSpan.between(BERLIN_MARCH)
    assert (uneven.start_ms, uneven.end_ms, uneven.steps) == (0, 95, 4)
    assert uneven.edges().tolist() == BERLIN_MARCH
    assert uneven.bucket_starts().tolist() == BERLIN_MARCH[:-1]
    assert uneven.widths().tolist() == [24, 24, 23, 24]
    even = BucketSpan(5, 2, 10)
    assert even.edges().tolist() == [5, 15, 25] and even.widths().tolist() == [10, 10]


@pytest.mark.parametrize("edges", [[], [3], [1, 5, 4]])
def test_edges_that_fall_or_are_too_few_are_no_span(edges: list[int]) -> None:
    with pytest.raises(ValueError, match="rise and are two or more"):
        BucketSpan.between(edges)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    st.lists(st.tuples(st.integers(-20, 60), st.integers(0, 40)), max_size=5),
)
def test_uneven_buckets_equal_a_count_of_milliseconds(
    widths: list[int], intervals: list[tuple[int, int]]
) -> None:
    edges = np.cumsum([3, *widths]).tolist()
    span = BucketSpan.between(edges)
    starts = np.array([start for start, _ in intervals], np.int64)
    ends = starts + np.array([length for _, length in intervals], np.int64)
    found = {
        (int(n), int(s)): share
        for n, s, share in zip(*overlaps(starts, ends, span), strict=True)
        if share
    }
    expected = {
        (n, step): covered / widths[step]
        for n in range(len(intervals))
        for step in range(len(widths))
        if (
            covered := sum(
                starts[n] <= time_ms < ends[n] for time_ms in range(edges[step], edges[step + 1])
            )
        )
    }
    assert found == pytest.approx(expected)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(-9, 60), st.booleans()), max_size=8, unique_by=lambda c: c[0]),
)
def test_states_over_uneven_buckets_equal_a_count_of_milliseconds(
    widths: list[int], changes: list[tuple[int, bool]]
) -> None:
    changes.sort()
    edges = np.cumsum([3, *widths]).tolist()
    span = BucketSpan.between(edges)
    times = np.array([time_ms for time_ms, _ in changes], np.int64)
    states = np.array([float(on) for _, on in changes])
    rows = np.zeros(len(changes), np.int64)

    def state(time_ms: int) -> float:
        before = [float(on) for changed, on in changes if changed <= time_ms]
        return before[-1] if before else np.nan

    share = share_of_buckets(rows, times, states, num_rows=1, span=span)[0]
    at_start = value_at_starts(rows, times, states, num_rows=1, span=span)[0]
    for step, width in enumerate(widths):
        on = sum(state(time_ms) for time_ms in range(edges[step], edges[step + 1]))
        np.testing.assert_allclose(share[step], on / width, atol=1e-12)
        np.testing.assert_equal(at_start[step], state(edges[step]))
