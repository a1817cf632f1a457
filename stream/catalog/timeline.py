"""Changes and intervals in time, laid onto a span of buckets; pure numpy.

Dimensions: R rows, N changes or intervals, M pairs of an interval and a bucket, S steps.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.catalog.versions import NEWEST_MS, History

Values = TypeVar("Values", Floats, Singles)


@dataclass(frozen=True, slots=True)
class BucketSpan:
    """`steps` buckets in a row, each start inclusive, end exclusive.

    They are `resolution_ms` wide from `start_ms` on, or have the edges given, one more than steps:
    days on which clocks change have 23 or 25 hours.

    >>> BucketSpan(start_ms=1_000, steps=3, resolution_ms=500).end_ms
    2500
    >>> BucketSpan.between([0, 24, 47, 71]).widths().tolist()
    [24, 23, 24]
    """

    start_ms: int
    steps: int
    resolution_ms: int
    uneven_ms: tuple[int, ...] = ()

    @classmethod
    def between(cls, edges_ms: Sequence[int] | Ints) -> BucketSpan:
        """The buckets between rising edges; those of `Grid.starts_ms`, and one beyond the last."""
        edges = tuple(int(edge_ms) for edge_ms in edges_ms)
        widths = np.diff(edges)
        if len(edges) < 2 or (widths < 0).any():
            raise ValueError(f"edges of buckets rise and are two or more, found {edges[:5]}")
        widest_ms = int(widths.max())
        even = (widths == widest_ms).all()
        return cls(edges[0], len(widths), widest_ms, () if even else edges)

    @property
    def end_ms(self) -> int:
        """End of the last bucket, exclusive."""
        if self.uneven_ms:
            return self.uneven_ms[-1]
        length_ms = self.steps * self.resolution_ms
        return self.start_ms + length_ms

    def edges(self) -> Ints:
        """Start of every bucket and end of the last, int64[S + 1]."""
        if self.uneven_ms:
            return np.array(self.uneven_ms, np.int64)
        index = np.arange(self.steps + 1, dtype=np.int64)
        return self.start_ms + index * self.resolution_ms

    def bucket_starts(self) -> Ints:
        """Start of every bucket, int64[S]."""
        return self.edges()[:-1]

    def widths(self) -> Ints:
        """Width of every bucket, int64[S]."""
        return np.diff(self.edges())

    def steps_at(self, times_N: Ints) -> Ints:
        """The bucket that holds each time: negative before the first, `steps` or more behind."""
        if self.uneven_ms:
            return np.searchsorted(self.edges(), times_N, side="right") - 1
        return (times_N - self.start_ms) // self.resolution_ms

    def steps_from(self, times_N: Ints) -> Ints:
        """The first bucket that starts at or after each time; `steps` or more behind the last."""
        if self.uneven_ms:
            return np.searchsorted(self.edges(), times_N, side="left")
        return _up(times_N - self.start_ms, self.resolution_ms)


def columns_of(
    histories: Sequence[History | None], start_ms: int, end_ms: int, as_of_ms: int = NEWEST_MS
) -> tuple[Ints, Ints, Floats]:
    """What decides the values of many rows inside [start, end), by what was known at a time.

    Returns:
        Row, time and value of each change, [N]; those of a row are together, in order of time.

    >>> from freshet.stream.catalog.versions import Known
    >>> stock = History()
    >>> _ = stock.put(1, Known(1, 0), 0.0), stock.put(5, Known(9, 1), 1.0)
    >>> rows, times, values = columns_of([stock, None], 0, 10)
    >>> rows.tolist(), times.tolist(), values.tolist()
    ([0, 0], [1, 5], [0.0, 1.0])
    >>> columns_of([stock], 0, 10, as_of_ms=8)[1].tolist()
    [1]
    """
    counts_R = np.zeros(len(histories), np.int64)
    times_ms = array("q")
    values = array("d")
    for row, history in enumerate(histories):
        if history is None:
            continue
        known = history if history.newest_ms <= as_of_ms else history.known_by(as_of_ms)
        part = known.slice(start_ms, end_ms)
        times_ms += known.times_ms[part]
        values += known.values[part]
        counts_R[row] = part.stop - part.start
    rows_N = np.repeat(np.arange(len(histories)), counts_R)
    return rows_N, np.array(times_ms, np.int64), np.array(values, np.float64)


def value_at_starts(
    rows_N: Ints,
    times_N: Ints,
    values_N: Values,
    *,
    num_rows: int,
    span: BucketSpan,
) -> Values:
    """The value in force at each bucket's start, [R, S]; NaN before a row's first change.

    Args:
        rows_N: the row of each change, rising; the changes of one row in the order of their times.
        times_N: when it took effect.
        values_N: what the value became.
        num_rows: R.
        span: the buckets.

    >>> span = BucketSpan(start_ms=0, steps=4, resolution_ms=10)
    >>> value_at_starts(np.array([0, 0]), np.array([5, 20]), np.array([1.0, 2.0]), num_rows=1,
    ...     span=span)
    array([[nan,  1.,  2.,  2.]])
    """
    # A row is a run of NaN, then one run for each change: from the first bucket that starts at or
    # after it, to that of the next one.
    places_N = np.arange(len(rows_N)) + rows_N + 1
    runs = num_rows + len(rows_N)
    value_M = np.full(runs, np.nan, values_N.dtype)
    value_M[places_N] = values_N
    begin_M = np.zeros(runs + 1, np.int64)
    step_N = np.clip(span.steps_from(times_N), 0, span.steps)
    begin_M[places_N] = step_N + rows_N * span.steps
    first_M = np.ones(runs, bool)
    first_M[places_N] = False
    begin_M[:-1][first_M] = np.arange(num_rows) * span.steps
    begin_M[-1] = num_rows * span.steps
    flat = np.repeat(value_M, np.diff(begin_M))
    return flat.reshape(num_rows, span.steps)


def _up(numerator_N: Ints, denominator: int) -> Ints:
    """Whole numbers divided and rounded up."""
    return -(-numerator_N // denominator)


def share_of_buckets(
    rows_N: Ints,
    times_N: Ints,
    states_N: Floats,
    *,
    num_rows: int,
    span: BucketSpan,
) -> Floats:
    """The share of each bucket for which a 0-or-1 state was 1, float64[R, S].

    NaN for every bucket that starts before the row's first change: its state is unknown, at least
    in part.

    Args:
        rows_N: the row of each change; the changes of one row are together, in the order of their
            times.
        times_N: when the state changed.
        states_N: 0.0 or 1.0 from then on.
        num_rows: R.
        span: the buckets.

    >>> span = BucketSpan(start_ms=0, steps=4, resolution_ms=10)
    >>> changes = np.array([-3, 12, 18]), np.array([1.0, 0.0, 1.0])
    >>> share_of_buckets(np.zeros(3, int), *changes, num_rows=1, span=span)
    array([[1. , 0.4, 1. , 1. ]])
    """
    # A state is the sum of its jumps: +1 where it turns on, -1 where it turns off.
    first_N = np.ones(len(rows_N), dtype=bool)
    first_N[1:] = rows_N[1:] != rows_N[:-1]
    change_N = np.diff(states_N, prepend=0.0)
    jump_N = np.where(first_N, states_N, change_N)
    step_N = span.steps_at(times_N)
    before_N = step_N < 0
    inside_N = ~before_N & (step_N < span.steps)
    inside_rows_N = rows_N[inside_N]
    inside_step_N = step_N[inside_N]

    # All buckets after that of the jump count it whole, so there a running sum will do.
    whole_RS = np.zeros((num_rows, span.steps + 1))
    at_start_R = whole_RS[:, 0]
    np.add.at(at_start_R, rows_N[before_N], jump_N[before_N])
    np.add.at(whole_RS, (inside_rows_N, inside_step_N + 1), jump_N[inside_N])
    running_RS = np.cumsum(whole_RS, axis=1)
    share_RS = running_RS[:, :-1]

    # Its own bucket counts it for the part that is left of the bucket at that time.
    left_N = span.edges()[inside_step_N + 1] - times_N[inside_N]
    part_N = jump_N[inside_N] * (left_N / span.widths()[inside_step_N])
    np.add.at(share_RS, (inside_rows_N, inside_step_N), part_N)

    # Before a row's first change its state is unknown, which is not the same as 0.
    never_ms = np.iinfo(np.int64).max
    known_from_R = np.full(num_rows, never_ms)
    known_from_R[rows_N[first_N]] = times_N[first_N]
    unknown_RS = span.bucket_starts() < known_from_R[:, None]
    share_RS[unknown_RS] = np.nan
    return share_RS


class Meetings(NamedTuple):
    """Pairs of an interval and a bucket that have [from_M, until_M) in common."""

    number_M: Ints
    step_M: Ints
    from_M: Ints
    until_M: Ints


def meetings(starts_N: Ints, ends_N: Ints, span: BucketSpan) -> Meetings:
    """Which buckets each interval [start, end) touches, and when.

    >>> span = BucketSpan(start_ms=0, steps=3, resolution_ms=10)
    >>> met = meetings(np.array([15]), np.array([40]), span)
    >>> met.step_M.tolist(), met.from_M.tolist(), met.until_M.tolist()
    ([1, 2], [15, 20], [20, 30])
    """
    starts_N = np.clip(starts_N, span.start_ms, span.end_ms)
    ends_N = np.clip(ends_N, span.start_ms, span.end_ms)
    first_N = span.steps_at(starts_N)
    end_N = span.steps_from(ends_N)  # One past the last.
    some_N = ends_N > starts_N
    count_N = np.where(some_N, end_N - first_N, 0)

    # Pair m is the (m - pairs of the intervals before it)-th bucket of its interval.
    index_N = np.arange(len(starts_N))
    number_M = np.repeat(index_N, count_N)
    pairs_before_N = np.cumsum(count_N) - count_N
    shift_N = pairs_before_N - first_N
    step_M = np.arange(count_N.sum()) - np.repeat(shift_N, count_N)

    # What both have in common begins with the later start and ends with the earlier end.
    edges = span.edges()
    from_M = np.maximum(starts_N[number_M], edges[step_M])
    until_M = np.minimum(ends_N[number_M], edges[step_M + 1])
    return Meetings(number_M, step_M, from_M, until_M)


def overlaps(starts_N: Ints, ends_N: Ints, span: BucketSpan) -> tuple[Ints, Ints, Floats]:
    """Which buckets each interval [start, end) touches, and the share of the bucket that it covers.

    Returns:
        Number of the interval int64[M], step int64[M] and share float64[M] in (0, 1], one entry
        for each pair that meets.

    >>> span = BucketSpan(start_ms=0, steps=3, resolution_ms=10)
    >>> number, step, share = overlaps(np.array([15]), np.array([40]), span)
    >>> step.tolist(), share.tolist()
    ([1, 2], [0.5, 1.0])
    """
    number_M, step_M, from_M, until_M = meetings(starts_N, ends_N, span)
    # A day that a zone skipped has no width, and nothing covers it.
    share_M = (until_M - from_M) / np.maximum(span.widths()[step_M], 1)
    return number_M, step_M, share_M
