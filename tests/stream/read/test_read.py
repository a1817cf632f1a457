"""The ring and the progress of its inputs: the pure parts of reading."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError, StoreError
from freshet.stream.read.follow import Look
from freshet.stream.read.progress import (
    InputState,
    ReadRules,
    closed_ms,
    final_ms,
    live_cutoff_ms,
    observed,
)
from freshet.stream.read.ring import Ring
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header
from freshet.stream.units import HOUR_MS

GRID = Grid(10)
RULES = ReadRules(
    10,
    retained_buckets=5,
    orders_topic="o",
    clicks_topic="c",
    out_of_order_ms=3,
    allowed_lateness_ms=20,
)


def state(frontier: int | None, idle: int | None = None, first: int | None = 0) -> InputState:
    return InputState(
        offset=1, first_offset=0, frontier_ms=frontier, idle_frontier_ms=idle, first_event_ms=first
    )


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


def test_the_cutoff_is_the_slowest_orders_partition_that_has_data() -> None:
    inputs = {
        ("o", 0): state(95),
        ("o", 1): state(47),
        ("o", 2): state(None, first=None),
        ("c", 0): state(12),
    }
    assert live_cutoff_ms(inputs, "o", GRID) == 40
    assert live_cutoff_ms(inputs | {("o", 1): state(47, idle=83)}, "o", GRID) == 80
    assert live_cutoff_ms(inputs | {("o", 1): state(47, idle=30)}, "o", GRID) == 40
    assert live_cutoff_ms({("c", 0): state(12)}, "o", GRID) is None


def test_closed_never_counts_idleness_and_final_does() -> None:
    inputs = {("o", 0): state(100), ("c", 0): state(50, idle=90), ("other", 0): state(1)}
    assert closed_ms(inputs, RULES) == 47
    assert final_ms(inputs, RULES) == 90 - 3 - 20
    assert (
        closed_ms({}, RULES) is None
        and final_ms({("o", 0): state(None, first=None)}, RULES) is None
    )


def test_observed_is_between_the_first_event_and_the_live_frontier_of_its_own_topic() -> None:
    inputs = {
        ("o", 0): state(60, first=25),
        ("o", 1): state(49, first=31),
        ("c", 0): state(33, first=0),
    }
    buckets = np.arange(8)
    assert observed(inputs, "o", buckets, RULES).tolist() == [
        False,
        False,
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert observed(inputs, "c", buckets, RULES).tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]
    assert not observed(inputs, "x", buckets, RULES).any()


@given(st.integers(0, 500), st.integers(0, 60))
def test_retained_is_what_the_rule_says(frontier: int, bucket: int) -> None:
    known = bool(
        observed({("o", 0): state(frontier, idle=10_000)}, "o", np.array([bucket]), RULES)[0]
    )
    assert known == ((bucket + 1) * 10 + 5 * 10 > frontier - 3)


def test_rules_come_from_the_settings_of_one_resolution() -> None:
    rules = ReadRules.of(Settings(), HOUR_MS)
    assert (rules.retained_buckets, rules.allowed_lateness_ms, rules.out_of_order_ms) == (
        1_344,
        900_000,
        5_000,
    )
    with pytest.raises(InvalidInputError, match="no windows are kept at 5 ms"):
        ReadRules.of(Settings(), 5)


def test_a_look_at_a_partition_that_was_only_claimed_sees_nothing() -> None:
    assert Look.of({}, []).header is None
    assert Look.of({b"epoch": b"3", b"fingerprint": b"{}"}, []) == Look(None, frozenset())
    look = Look.of({b"first_offset": b"0", b"next_offset": b"7"}, [b"5:0", b"6:12"])
    assert look.header == Header(first_offset=0, next_offset=7)
    assert (look.offset, look.changed) == (7, {(5, 0), (6, 12)})


@pytest.mark.parametrize("member", [b"5", b"5:0:1", b"x:0"])
def test_an_index_that_names_no_tile_is_refused(member: bytes) -> None:
    with pytest.raises(StoreError, match="index of changed tiles"):
        Look.of({b"first_offset": b"0", b"next_offset": b"7"}, [member])
