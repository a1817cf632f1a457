"""How far inputs have come, and what that makes of buckets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.read.progress import (
    InputState,
    ReadRules,
    closed_ms,
    final_ms,
    live_cutoff_ms,
    observed,
)
from freshet.stream.store.grid import Grid
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


def flags(text: str) -> list[bool]:
    """An x where it is so."""
    return [mark == "x" for mark in text]


def state(frontier: int | None, idle: int | None = None, first: int | None = 0) -> InputState:
    return InputState(
        offset=1, first_offset=0, frontier_ms=frontier, idle_frontier_ms=idle, first_event_ms=first
    )


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
    assert observed(inputs, "o", buckets, RULES).tolist() == flags("..xx....")
    assert observed(inputs, "c", buckets, RULES).tolist() == flags("xxx.....")
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
