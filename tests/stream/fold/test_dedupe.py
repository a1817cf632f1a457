"""Duplicates, against the rule read out record by record; and the table, against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.fold.dedupe import (
    UNSEEN,
    SeenHashes,
    find_duplicates,
    first_live_minute,
    minute_expiry_ms,
)
from freshet.stream.units import MINUTE_MS

HASHES = st.integers(0, 2**64 - 1) | st.integers(0, 5) | st.integers(0, 9).map(lambda n: n << 20)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.tuples(HASHES, st.integers(0, 50)), max_size=30), max_size=8))
def test_the_table_knows_the_newest_minute_of_each_hash(
    batches: list[list[tuple[int, int]]],
) -> None:
    seen, expected = SeenHashes(), {}
    for batch in batches:
        hashes, minutes = (
            np.array([h for h, _ in batch], np.uint64),
            np.array([m for _, m in batch], np.int64),
        )
        seen.add(hashes, minutes, oldest_minute=0)
        for name, minute in batch:
            expected[name] = max(minute, expected.get(name, -1))
        asked = [*expected, 12345]
        assert seen.minutes(np.array(asked, np.uint64)).tolist() == [
            expected.get(name, UNSEEN) for name in asked
        ]
        assert len(seen) == len(expected)


def test_a_growing_table_keeps_what_is_live_and_frees_what_is_not() -> None:
    seen = SeenHashes()
    random = np.random.default_rng(1)
    batches = [random.integers(0, 2**64, 3_000, np.uint64) for _ in range(20)]
    for minute, hashes in enumerate(batches):
        seen.add(hashes, np.full(3_000, minute), oldest_minute=minute - 2)
    assert all((seen.minutes(batches[minute]) == minute).all() for minute in (17, 18, 19))
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
    before = draw(st.dictionaries(st.integers(0, 6), st.integers(0, 4), max_size=4))
    refused = draw(st.sets(st.integers(0, 24), max_size=3)) if draw(st.booleans()) else None
    return hashes, minutes, watermarks, before, refused


@settings(deadline=None)
@given(cases(), st.sampled_from([0, 30_000, 90_000]))
def test_batches_are_judged_as_record_by_record(case, lateness_ms: int) -> None:
    hashes, minutes, watermarks, before, refused = case
    applied = dict(before)
    expected = []
    for i, name in enumerate(hashes):
        duplicate = (
            name in applied and (applied[name] + 1) * MINUTE_MS + lateness_ms > watermarks[i]
        )
        if not duplicate and (refused is None or i not in refused):
            applied[name] = max(minutes[i], applied.get(name, -1))
        expected.append((duplicate, not duplicate and refused is not None and i in refused))
    duplicate, turned_away = find_duplicates(
        np.array(hashes, np.uint64),
        np.array(minutes, np.int64),
        np.array(watermarks, np.int64),
        np.array([before.get(name, UNSEEN) for name in hashes], np.int64),
        allowed_lateness_ms=lateness_ms,
        admit=None if refused is None else lambda i: i not in refused,
    )
    assert list(zip(duplicate.tolist(), turned_away.tolist(), strict=True)) == expected
