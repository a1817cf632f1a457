"""How far inputs have come, and what that makes of buckets."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.config import Settings
from freshet.stream.errors import FingerprintError, InvalidInputError
from freshet.stream.read.progress import (
    InputState,
    Reached,
    ReadRules,
    closed_ms,
    final_ms,
    first_whole,
    live_cutoff_ms,
    loading,
    observed,
    reached,
)
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header
from freshet.stream.units import HOUR_MS

GRID = Grid(10)
SAID = '{"windows.history_before":50}'
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


FOLDED = json.dumps(
    {
        "windows.resolutions": [
            {"resolution_ms": 10, "buckets": 7},
            {"resolution_ms": 60, "buckets": 99},
        ],
        "windows.out_of_order_ms": 11,
        "windows.allowed_lateness_ms": 12,
        "calendar.time_zone": "Europe/Berlin",
    }
)


def test_rules_are_taken_over_from_windows_that_were_folded_under_others() -> None:
    rules = ReadRules(10, 5, "o", "c", 3, 20, time_zone="Asia/Tokyo")
    assert rules.as_folded(FOLDED) == ReadRules(10, 7, "o", "c", 11, 12, "Europe/Berlin")
    utc = {name: value for name, value in json.loads(FOLDED).items() if "zone" not in name}
    assert rules.as_folded(json.dumps(utc)).time_zone == "UTC", "a zone that is not said is UTC"
    with pytest.raises(FingerprintError, match=r"not kept at 20 ms, but at \[10, 60\]"):
        ReadRules(20, 5).as_folded(FOLDED)


def test_rules_are_those_of_the_settings_topics_limits_and_calendar_included() -> None:
    configured = Settings(
        kafka={"topics": {"orders": "sold", "clicks": "seen"}},
        windows={"out_of_order_ms": 4_000, "allowed_lateness_ms": 600_000},
        calendar={"time_zone": "Europe/Berlin"},
    )
    expected = ReadRules(HOUR_MS, 1_344, "sold", "seen", 4_000, 600_000, "Europe/Berlin")
    assert ReadRules.of(configured, HOUR_MS) == expected
    assert expected.topics == ("sold", "seen")
    assert expected.grid == Grid(HOUR_MS, "Europe/Berlin")


def test_the_state_of_an_input_is_what_its_header_says() -> None:
    header = Header(
        first_offset=1,
        next_offset=2,
        frontier_ms=3,
        idle_frontier_ms=4,
        first_event_ms=5,
        origin_ms=6,
        last_event_ms=7,
    )
    assert InputState.of(header) == InputState(
        offset=2,
        first_offset=1,
        frontier_ms=3,
        idle_frontier_ms=4,
        first_event_ms=5,
        origin_ms=6,
    )
    for nothing_applied in (replace(header, next_offset=None), replace(header, first_offset=None)):
        with pytest.raises(AssertionError):
            InputState.of(nothing_applied)


def begun(first_offset: int, origin: int | None, first: int = 0) -> InputState:
    """A partition far ahead whose windows began at an offset, with an event of some time."""
    return InputState(
        offset=1_000,
        first_offset=first_offset,
        frontier_ms=80,
        idle_frontier_ms=None,
        first_event_ms=first,
        origin_ms=origin,
    )


def test_a_bucket_is_whole_once_all_partitions_that_lost_their_beginning_know_all_of_it() -> None:
    # Events come out of order by up to 3: what came before an event at 21 may be as young as 23.
    assert first_whole({("o", 0): begun(4, 21)}, ["o"], RULES) == 3
    assert first_whole({("o", 0): begun(1, 21)}, ["o"], RULES) == 3
    assert first_whole({("o", 0): begun(4, 17)}, ["o"], RULES) == 2
    assert first_whole({("o", 0): begun(4, 18)}, ["o"], RULES) == 3
    both = {("o", 0): begun(4, 21), ("o", 1): begun(7, 45), ("o", 2): begun(0, 70)}
    assert first_whole(both, ["o"], RULES) == 5, "the one that began last decides"
    assert first_whole(both | {("c", 0): begun(9, 75)}, ["o"], RULES) == 5
    assert first_whole(both | {("c", 0): begun(9, 75)}, ["o", "c"], RULES) == 8


def test_windows_that_began_with_their_log_are_whole_from_the_bucket_after_their_first_record() -> (
    None
):
    assert first_whole({("o", 0): begun(0, 21)}, ["o"], RULES) == 3
    assert first_whole({("o", 0): begun(0, 20)}, ["o"], RULES) == 2
    later = {("o", 0): begun(0, 21), ("o", 1): begun(0, 78)}
    assert first_whole(later, ["o"], RULES) == 3, "a partition that is new has lost nothing"
    assert first_whole(later | {("c", 0): begun(0, 45)}, ["o", "c"], RULES) == 5
    assert first_whole({("o", 0): begun(4, None)}, ["o"], RULES) is None
    assert first_whole({}, ["o"], RULES) is None


def test_a_half_lost_bucket_is_missing_although_other_partitions_know_it() -> None:
    buckets = np.arange(10)
    patient = replace(RULES, retained_buckets=50)
    late = {("o", 0): begun(0, 1), ("o", 1): begun(4, 45, first=12)}
    assert observed(late, "o", buckets, patient).tolist() == flags(".....xxx..")
    whole = {("o", 0): begun(0, 0), ("o", 1): begun(0, 45, first=12)}
    assert observed(whole, "o", buckets, patient).tolist() == flags("xxxxxxxx..")
    other = {("o", 0): begun(0, 0), ("c", 1): begun(4, 45, first=12)}
    assert observed(other, "o", buckets, patient).tolist() == flags("xxxxxxxx..")
    # What was lost so long ago that it is no longer retained says nothing: 77 - 50 is in bucket 2.
    assert observed({("o", 0): begun(4, 5)}, "o", buckets, RULES).tolist() == flags("..xxxxxx..")


def test_a_bucket_is_observed_from_the_first_events_own_to_the_last_that_is_over() -> None:
    buckets = np.arange(6)
    assert observed({("o", 0): state(40, first=20)}, "o", buckets, RULES).tolist() == flags(
        "..xx.."
    )
    assert observed({("o", 0): state(39, first=19)}, "o", buckets, RULES).tolist() == flags(
        ".xx..."
    )
    idle = {("o", 0): state(39, idle=50, first=19)}
    assert observed(idle, "o", buckets, RULES).tolist() == flags(".xxxx.")


def test_the_partition_that_is_furthest_ahead_has_thrown_away_most() -> None:
    inputs = {("o", 0): state(100, idle=200), ("o", 1): state(60, idle=200)}
    # The watermark of the first is 97: buckets 0 to 3 end at most 50 before it.
    assert observed(inputs, "o", np.arange(6), RULES).tolist() == flags("....xx")


def test_a_partition_of_another_topic_has_no_say() -> None:
    inputs = {("o", 0): state(60), ("x", 0): state(1), ("c", 0): state(90)}
    assert reached(inputs, ["o", "c"]) == [Reached(60, 60, 0), Reached(90, 90, 0)]
    assert closed_ms(inputs, RULES) == 57
    assert final_ms(inputs, RULES) == 37


# History that is loaded ---------------------------------------------------------------------------


def part(complete: bool, num_partitions: int = 2, ends_ms: int | None = 50) -> InputState:
    return replace(
        state(80),
        history_ends_ms=ends_ms,
        history_complete=complete,
        num_partitions=num_partitions,
        origin_ms=50,
    )


def test_while_history_is_loaded_nothing_is_live_closed_final_or_observed() -> None:
    half = {("o", 0): part(True), ("o", 1): part(False), ("c", 0): part(True, 1)}
    assert loading(half, ["o", "c"]) == (2, 3)
    assert str(loading(half, [])) == "history is being loaded: 2 of 3 partitions have it"
    assert reached(half, ["o"]) == [] and live_cutoff_ms(half, "o", GRID) is None
    assert closed_ms(half, RULES) is None and final_ms(half, RULES) is None
    assert not observed(half, "o", np.arange(9), RULES).any()
    whole = half | {("o", 1): part(True)}
    assert loading(whole, ["o", "c"]) is None
    assert live_cutoff_ms(whole, "o", GRID) == 80
    assert first_whole(whole, ["o"], RULES) is None, "what came before the first record is there"


def test_every_partition_of_every_topic_that_there_was_at_first_must_have_its_history() -> None:
    known = {("o", 0): part(True, 3), ("o", 1): part(True, 3)}
    assert loading(known, []) == (2, 3), "nothing came on the third yet"
    assert loading(known, ["c"]) == (2, 4), "nor on clicks"
    grown = {("o", 0): part(True, 1), ("o", 1): part(False, 2)}
    assert loading(grown, []) is None, "the second one was made later, and history was not sent"


def test_without_history_nobody_waits_for_it() -> None:
    plain = {("o", 0): part(False, ends_ms=None)}
    assert loading(plain, ["o", "c"]) is None
    assert live_cutoff_ms(plain, "o", GRID) == 80


@pytest.mark.parametrize(("fingerprint", "ends_ms"), [("", None), ("{}", None), (SAID, 50)])
def test_where_history_ends_is_what_windows_were_folded_under(
    fingerprint: str, ends_ms: int | None
) -> None:
    header = Header(first_offset=0, next_offset=1, fingerprint=fingerprint, history_complete=1)
    found = InputState.of(header)
    assert (found.history_ends_ms, found.history_complete) == (ends_ms, True)
