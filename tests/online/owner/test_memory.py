"""A state goes through its records to the last bit, and nothing else passes for one."""

from __future__ import annotations

import base64
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest

from freshet.online.drift.monitor import DriftMonitor
from freshet.online.drift.plain import State
from freshet.online.owner import memory
from freshet.online.owner.memory import newest_state, pack, state_key, state_records, unpack
from freshet.stream.codec import decode
from freshet.stream.errors import EventError
from freshet.stream.kafka import TableRecord
from freshet.stream.schemas import OwnerState
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.online.owner.drifting import FIRST, LAST, SETTINGS, scores_of

TOLD: dict[str, Any] = {"resolution_ms": HOUR_MS, "decided_until_ms": 7, "offsets": {"scores:0": 3}}


def monitor_at(hour: int, state: State | None = None, first: int = FIRST) -> DriftMonitor:
    monitor = DriftMonitor(SETTINGS.drift, HOUR_MS)
    if state is not None:
        monitor.restore(state)
    for one in range(first, hour):
        monitor.update(one * HOUR_MS, scores_of(one), now_ms=0)
    return monitor


@cache
def in_alarm() -> State:
    monitor = monitor_at(70)
    assert monitor.active() == {"b": ["level"]}
    return monitor.state()


def fresh() -> State:
    return DriftMonitor(SETTINGS.drift, HOUR_MS).state()


def records_of(state: bytes, **over: Any) -> list[TableRecord]:
    made = state_records("t", state, **{**TOLD, "tensions": {"a": 0.25}, **over})
    return [TableRecord("t", one.key, one.value, 0, 0, n) for n, one in enumerate(made)]


def test_a_monitor_goes_on_from_packed_state_as_if_nothing_had_happened() -> None:
    again = unpack(pack(in_alarm()), fresh())
    # Pickle writes floats bit by bit.
    assert pickle.dumps(monitor_at(LAST, again, 70).tensions()) == pickle.dumps(
        monitor_at(LAST, in_alarm(), 70).tensions()
    )
    assert pack(again) == pack(in_alarm())


def test_a_large_state_lies_in_parts_that_come_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PART_BYTES", 1_000)
    state = pack(in_alarm())
    records = records_of(state)
    assert len(records) == -(-len(state) // 1_000) > 3
    first, found = newest_state(reversed(records), HOUR_MS)
    assert first is not None and found == state
    assert (first.tensions, first.offsets, first.decided_until_ms) == (
        {"a": 0.25},
        {"scores:0": 3},
        7,
    )
    assert all(decode(OwnerState, one.value or b"").tensions == {} for one in records[1:])
    # Of an older, larger one the last parts are still there.
    longer = records_of(state + bytes(5_000), decided_until_ms=6)
    assert newest_state([*longer, *records], HOUR_MS)[1] == state


def test_parts_of_two_moments_or_missing_ones_make_no_state_but_tell_how_far_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "PART_BYTES", 1_000)
    state = pack(in_alarm())
    old, new = records_of(state, decided_until_ms=6), records_of(state)
    for records in ([new[0], *old[1:]], new[:-1], [*new[:2], *new[3:]]):
        first, found = newest_state(records, HOUR_MS)
        assert first is not None and (first.decided_until_ms, found) == (7, b"")
    assert newest_state(new[1:], HOUR_MS) == (None, b"")


def test_what_is_too_large_is_not_kept_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_BYTES", 99)
    (record,) = records_of(bytes(100))
    first, found = newest_state([record], HOUR_MS)
    assert first is not None and (first.parts, found) == (0, b"")
    with pytest.raises(EventError):
        unpack(found, fresh())


def test_only_the_tensest_segments_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_TENSIONS", 2)
    (record,) = records_of(b"s", tensions={"a": 0.1, "b": 0.9, "c": 0.5})
    assert decode(OwnerState, record.value or b"").tensions == {"b": 0.9, "c": 0.5}


def test_unreadable_foreign_and_other_resolutions_records_are_passed_over() -> None:
    good = records_of(b"state")
    day = records_of(b"other", resolution_ms=DAY_MS)
    junk = [
        TableRecord("t", b"x", b"{", 0, 0, 9),
        TableRecord("t", b"y", good[0].value, 0, 0, 9),
        TableRecord("t", state_key(HOUR_MS, 1), None, 0, 0, 9),
    ]
    assert newest_state([*junk, *good, *day, *junk], HOUR_MS)[1] == b"state"
    first, found = newest_state(good, HOUR_MS, latest_ms=6)
    assert (first, found) == (None, b""), "of a time that has not come"


def altered(**over: Any) -> bytes:
    return pack({**in_alarm(), **over})


def with_segments(**over: Any) -> bytes:
    return altered(segments={**in_alarm()["segments"], **over})


@pytest.mark.parametrize(
    "made",
    [
        lambda: b"",
        lambda: b"no zlib",
        lambda: pack({}),
        lambda: altered(newest_ms="x"),
        lambda: altered(more=1),
        lambda: with_segments(seen_N=np.zeros(4)),
        lambda: with_segments(seen_N=np.array(["x"])),
        lambda: with_segments(bucket_ms_T=np.zeros(3, np.int64)),
        lambda: with_segments(odd_level_TN=np.zeros((3, 3))),
        lambda: with_segments(held={"x": 1}),
        lambda: pack(in_alarm())[:-9],
    ],
)
def test_no_other_thing_passes_for_a_state(made: Any) -> None:
    with pytest.raises(EventError):
        unpack(made(), fresh())


def test_a_part_that_is_no_base64_makes_no_state() -> None:
    (record,) = records_of(b"state")
    assert record.value is not None
    broken = record.value.replace(base64.b64encode(b"state"), b"!")
    assert newest_state([TableRecord("t", record.key, broken, 0, 0, 0)], HOUR_MS)[1] == b""
