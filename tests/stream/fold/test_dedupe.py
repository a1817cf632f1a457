"""Duplicates, against the rule read out record by record; and the table, against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.fold.dedupe import (
    UNSEEN,
    Entries,
    SeenHashes,
    find_duplicates,
    first_live_minute,
    minute_expiry_ms,
)
from freshet.stream.units import MINUTE_MS


def entries(hashes: object, minutes: object, contents: object = None) -> Entries:
    """Of lists or arrays; without contents all say the same."""
    names = np.asarray(hashes, np.uint64)
    said = np.zeros(len(names)) if contents is None else np.asarray(contents)
    return Entries(names, np.asarray(minutes, np.int64), said.astype(np.uint32))


HASHES = st.integers(0, 2**64 - 1) | st.integers(0, 5) | st.integers(0, 9).map(lambda n: n << 20)


MINUTES = st.integers(0, 50)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.tuples(HASHES, MINUTES, st.integers(0, 3)), max_size=30), max_size=8))
def test_the_table_knows_the_newest_minute_of_each_hash(
    batches: list[list[tuple[int, int, int]]],
) -> None:
    seen, expected = SeenHashes(), {}
    for batch in batches:
        columns = zip(*batch, strict=True) if batch else ([], [], [])
        seen.add(entries(*map(list, columns)), oldest_minute=0)
        for name, minute, content in batch:
            if minute >= expected.get(name, (-1, 0))[0]:
                expected[name] = (minute, content)
        asked = [*expected, 12345]
        found = seen.known(np.array(asked, np.uint64))
        pairs = list(zip(found.minutes.tolist(), found.contents.tolist(), strict=True))
        assert pairs == [expected.get(name, (UNSEEN, 0)) for name in asked]
        assert len(seen) == len(expected)


def test_a_growing_table_keeps_what_is_live_and_frees_what_is_not() -> None:
    seen = SeenHashes()
    random = np.random.default_rng(1)
    batches = [random.integers(0, 2**64, 3_000, np.uint64) for _ in range(20)]
    for minute, hashes in enumerate(batches):
        seen.add(entries(hashes, np.full(3_000, minute)), oldest_minute=minute - 2)
    assert all((seen.known(batches[minute]).minutes == minute).all() for minute in (17, 18, 19))
    assert len(seen) < 3_000 * 12


@given(st.integers(0, 10**7), st.integers(0, 10**6))
def test_the_oldest_live_minute_is_the_first_that_has_not_expired(
    watermark_ms: int, lateness_ms: int
) -> None:
    minute = first_live_minute(watermark_ms, lateness_ms)
    assert (
        minute_expiry_ms(minute, lateness_ms)
        > watermark_ms
        >= minute_expiry_ms(minute - 1, lateness_ms)
    )


@st.composite
def cases(draw: st.DrawFn):
    count = draw(st.integers(0, 25))
    hashes = draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    edges = st.builds(
        lambda m, late_ms: m * MINUTE_MS + late_ms,
        st.integers(0, 5),
        st.sampled_from([0, 30_000, 90_000]),
    )
    moments = edges | st.integers(0, 6 * MINUTE_MS)
    watermarks = sorted(draw(st.lists(moments, min_size=count, max_size=count)))
    minutes = [w // MINUTE_MS + draw(st.integers(0, 2)) for w in watermarks]
    contents = draw(st.lists(st.integers(1, 2), min_size=count, max_size=count))
    known = st.tuples(st.integers(0, 4), st.integers(1, 2))
    before = draw(st.dictionaries(st.integers(0, 6), known, max_size=4))
    refused = draw(st.sets(st.integers(0, 24), max_size=3)) if draw(st.booleans()) else None
    return hashes, minutes, contents, watermarks, before, refused


@settings(deadline=None)
@given(cases(), st.sampled_from([0, 30_000, 90_000]))
def test_batches_are_judged_as_record_by_record(case, lateness_ms: int) -> None:
    hashes, minutes, contents, watermarks, before, refused = case
    applied = dict(before)
    expected = []
    for i, name in enumerate(hashes):
        duplicate = (
            name in applied and (applied[name][0] + 1) * MINUTE_MS + lateness_ms > watermarks[i]
        )
        conflicting = duplicate and applied[name][1] != contents[i]
        turned_away = not duplicate and refused is not None and i in refused
        if not duplicate and not turned_away and minutes[i] >= applied.get(name, (-1, 0))[0]:
            applied[name] = (minutes[i], contents[i])
        expected.append((duplicate, turned_away, conflicting))
    nothing = (UNSEEN, 0)
    found = find_duplicates(
        entries(hashes, minutes, contents),
        np.array(watermarks, np.int64),
        entries(hashes, *zip(*(before.get(name, nothing) for name in hashes), strict=True))
        if hashes
        else entries([], []),
        allowed_lateness_ms=lateness_ms,
        admit=None if refused is None else lambda i: i not in refused,
    )
    columns = (found.duplicate, found.refused, found.conflicting)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


def test_a_rebuild_keeps_the_oldest_live_minute_and_forgets_the_one_before() -> None:
    seen = SeenHashes()
    gone, oldest, newest = np.arange(1, 3_001, dtype=np.uint64).reshape(3, 1_000)
    seen.add(entries(gone, np.full(1_000, 6)), oldest_minute=0)
    seen.add(entries(oldest, np.full(1_000, 7)), oldest_minute=0)
    # A third thousand would fill more than half of 4,096 places.
    seen.add(entries(newest, np.full(1_000, 8)), oldest_minute=7)
    assert seen.known(gone).minutes.tolist() == [UNSEEN] * 1_000
    assert seen.known(oldest).minutes.tolist() == [7] * 1_000
    assert seen.known(newest).minutes.tolist() == [8] * 1_000
    assert len(seen) == 2_000


def test_a_rebuild_before_the_first_minute_keeps_all_and_invents_nothing() -> None:
    seen = SeenHashes()
    seen.add(
        entries(np.arange(1, 2_001, dtype=np.uint64), np.zeros(2_000, np.int64)), oldest_minute=-9
    )
    seen.add(
        entries(np.arange(2_001, 4_001, dtype=np.uint64), np.ones(2_000, np.int64)),
        oldest_minute=-9,
    )
    assert len(seen) == 4_000
    assert seen.known(np.array([0, 1, 2_000, 2_001], np.uint64)).minutes.tolist() == [
        UNSEEN,
        0,
        0,
        1,
    ]


def test_there_is_always_a_free_place_so_that_a_search_ends() -> None:
    seen = SeenHashes()
    seen.add(entries(np.arange(4_096, dtype=np.uint64), np.zeros(4_096, np.int64)), oldest_minute=0)
    assert seen.known(np.array([4_096, 4_095], np.uint64)).minutes.tolist() == [UNSEEN, 0]


def test_the_newest_minute_stays_when_an_older_one_comes_after_it() -> None:
    seen = SeenHashes()
    seen.add(entries(np.array([5, 5, 9, 5], np.uint64), np.array([3, 8, 1, 4])), oldest_minute=0)
    seen.add(entries(np.array([9, 5, 9], np.uint64), np.array([6, 2, 2])), oldest_minute=0)
    seen.add(entries(np.array([9], np.uint64), np.array([4])), oldest_minute=0)
    assert seen.known(np.array([5, 9], np.uint64)).minutes.tolist() == [8, 6]
    assert len(seen) == 2


def test_hashes_that_begin_at_the_same_place_are_told_apart_past_the_end_of_the_table() -> None:
    seen = SeenHashes()
    same_place = (np.arange(5, dtype=np.uint64) << np.uint64(12)) + np.uint64(4_095)
    seen.add(entries(same_place, np.arange(5)), oldest_minute=0)
    assert seen.known(same_place).minutes.tolist() == [0, 1, 2, 3, 4]
    assert seen.known(same_place + np.uint64(1 << 20)).minutes.tolist() == [UNSEEN] * 5


def test_a_hash_makes_duplicates_until_its_minutes_end_plus_the_lateness_and_not_at_it() -> None:
    ends_ms = 4 * MINUTE_MS + 30_000
    for repeats in (1, 2):
        found = find_duplicates(
            entries([7] * repeats, [4] * repeats),
            np.array([ends_ms - 1, ends_ms][:repeats]),
            entries([7] * repeats, [3] * repeats),
            allowed_lateness_ms=30_000,
        )
        assert found.duplicate.tolist() == [True, False][:repeats]
    alone = find_duplicates(
        entries([7], [4]), np.array([ends_ms]), entries([7], [3]), allowed_lateness_ms=30_000
    )
    assert alone.duplicate.tolist() == [False]


def test_a_refused_record_makes_no_duplicates_and_an_admitted_one_does() -> None:
    asked = []

    def admit(position: int) -> bool:
        asked.append(position)
        return position != 0

    found = find_duplicates(
        entries([7, 7, 7, 8], [0] * 4),
        np.zeros(4, np.int64),
        entries([7, 7, 7, 8], [UNSEEN, UNSEEN, UNSEEN, 0]),
        allowed_lateness_ms=0,
        admit=admit,
    )
    assert found.refused.tolist() == [True, False, False, False]
    assert found.duplicate.tolist() == [False, False, True, True]
    assert asked == [0, 1]


def test_the_second_and_third_of_a_batch_are_duplicates_of_the_first() -> None:
    names = [9, 7, 8, 7, 6, 7, 8]
    found = find_duplicates(
        entries(names, [0] * 7, [1, 1, 1, 1, 1, 2, 1]),
        np.zeros(7, np.int64),
        entries(names, [UNSEEN] * 7),
        allowed_lateness_ms=0,
    )
    assert found.duplicate.tolist() == [False, False, False, True, False, True, True]
    assert found.conflicting.tolist() == [False] * 5 + [True, False], "the sixth says otherwise"
    assert not found.refused.any()
