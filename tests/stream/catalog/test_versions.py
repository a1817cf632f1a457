"""Versions of a value, and what keys were about, in whichever order records are heard of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.catalog.versions import History, Keys, Known, order_of

VERSIONS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), max_size=8, unique=True
)


def filled(versions: list[tuple[int, int, int]]) -> History:
    history = History()
    for time_ms, known_ms, order in versions:
        history.put(time_ms, Known(known_ms, order), 100.0 * time_ms + 10 * known_ms + order)
    return history


@given(VERSIONS.flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
def test_versions_lie_in_order_however_they_come(
    both: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]],
) -> None:
    versions, shuffled = both
    history = filled(shuffled + shuffled[:2])  # Some come again.
    found = zip(history.times_ms, history.known_ms, history.orders, strict=True)
    assert list(found) == sorted(versions)
    assert history.values.tolist() == [100 * t + 10 * k + o for t, k, o in sorted(versions)]


@given(VERSIONS, st.integers(0, 9), st.integers(-1, 10))
def test_what_was_known_at_a_time_is_what_came_by_then(
    versions: list[tuple[int, int, int]], as_of_ms: int, time_ms: int
) -> None:
    known = filled(versions).known_by(as_of_ms)
    by_then = [version for version in versions if version[1] <= as_of_ms]
    assert known.values == filled(by_then).values
    before = [version for version in sorted(by_then) if version[0] <= time_ms]
    expected = 100.0 * before[-1][0] + 10 * before[-1][1] + before[-1][2] if before else None
    found = known.at(time_ms)
    assert found == expected or (expected is None and found != found)


@given(VERSIONS, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_what_is_dropped_before_a_time_is_asked_for_by_no_later_question(
    versions: list[tuple[int, int, int]], before_ms: int, span: int, wait: int
) -> None:
    history = filled(versions)
    kept = filled(versions)
    kept.keep(list(range(kept.first_needed(before_ms), len(kept))))
    start_ms, as_of_ms = before_ms + span, before_ms + wait
    known, known_of_kept = history.known_by(as_of_ms), kept.known_by(as_of_ms)
    whole, part = known.slice(start_ms, 99), known_of_kept.slice(start_ms, 99)
    assert known.values[whole] == known_of_kept.values[part]


def test_of_one_millisecond_the_later_offset_counts_then_the_partition() -> None:
    assert order_of(7, 4_094) < order_of(7, 4_095) < order_of(8, 0) < order_of(8, 1)
    assert order_of(2**60, 1) < 2**63


def test_a_tombstone_deletes_what_its_key_named_before_it_whichever_comes_first() -> None:
    before, tombstone, after = Known(5, 0), Known(7, 1), Known(7, 2)
    told: Keys[str] = Keys()
    assert told.name(b"k", "a", before) == []
    assert told.name(b"other", "c", before) == []
    assert told.delete(b"k", tombstone) == ["a"]
    assert told.name(b"k", "b", after) == []
    late: Keys[str] = Keys()
    assert late.delete(b"k", tombstone) == [] == late.delete(b"k", tombstone)
    assert late.name(b"k", "b", after) == []
    assert late.name(b"k", "a", before) == [tombstone]
    assert late.num_deleted == 1
    assert (late.forget_before(6), late.forget_before(7), late.num_deleted) == (0, 1, 0)
