"""Versions and claims of a column are those of each record alone, and those that they should be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.config import EventSettings
from freshet.stream.events.decoder import EventDecoder

T0 = 1_700_000_000_000  # 2023-11-14T22:13:20Z
EVENTS = EventSettings(orders={"mode": "state"}, time_zone="Europe/Berlin")
VERSIONS = [3, -1, 2**63 - 1, 2**63, 7.0, 7.5, "12", "x", "", None, True]
VERSIONS += ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "2023-11-14 22:13:20"]
FLAGS = [True, False, None, 0, 1, "", "false", "2023-11-14T22:13:20Z", [], 0.0, "0", "1", "False"]


def record(version: Any, **fields: Any) -> bytes:
    event = {"order_id": "7", "event_time": T0, "region": "n", "lines": [], "version": version}
    return json.dumps(event | fields).encode()


def told(values: list[bytes], events: EventSettings = EVENTS) -> list[tuple[Any, ...]]:
    """Version, time of change and whether it is cancelled of each; what is wrong otherwise."""
    stamps_ms = np.full(len(values), T0 + 9)
    found = EventDecoder("orders", events).decode(values, [None] * len(values), stamps_ms)
    states = found.states
    assert states is not None
    said: dict[int, tuple[Any, ...]] = {bad.index: (bad.error_class,) for bad in found.refusals}
    columns = (states.version, found.event_time_ms, states.cancelled)
    for n, *row in zip(found.index.tolist(), *(c.tolist() for c in columns), strict=True):
        said[n] = tuple(row)
    return [said[n] for n in range(len(values))]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(VERSIONS), st.sampled_from(FLAGS)), min_size=1))
def test_a_column_says_what_each_record_says_alone(rows: list[tuple[Any, Any]]) -> None:
    values = [record(version, cancelled=flag) for version, flag in rows]
    alone = [one for value in values for one in told([value])]
    assert told(values) == alone


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([3, -1], [(3, T0 + 9), (-1, T0 + 9)]),
        ([3, 2**62], [(3, T0 + 9), ("InvalidField",)]),
        (["12", 7.0], [(12, T0 + 9), (7, T0 + 9)]),
        (
            ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20.001+01:00"],
            [(T0, T0), (T0 + 1, T0 + 1)],
        ),
        (["2023-11-14T22:13:20Z", "2023-11-14 22:13:20"], [(T0, T0), (T0 - 3_600_000,) * 2]),
        ([None, 7.5, True], [("MissingField",), ("InvalidField",), ("InvalidField",)]),
    ],
)
def test_versions_are_whole_numbers_or_times(versions: list[Any], expected: list[Any]) -> None:
    found = told([record(version) for version in versions])
    assert [one if len(one) == 1 else one[:2] for one in found] == expected


def test_what_is_there_is_so_but_for_null_false_nothing_and_zero() -> None:
    found = told([record(1, cancelled=flag) for flag in FLAGS])
    assert [one[2] for one in found] == [
        *(True, False, False, False, True, False, False, True, True, False),
        *(False, True, False),
    ]
    plain = told([record(1, deleted=flag) for flag in (True, False, None)])
    assert [one[2] for one in plain] == [True, False, False]


def test_words_and_a_default_hold_for_claims_that_are_all_missing_too() -> None:
    fields = {"cancelled": {"path": "status", "words": {"void": True, "*": False}}}
    events = EventSettings(orders={"mode": "state", "fields": fields})
    values = [record(1, status=status) for status in ("void", "paid")]
    assert [one[2] for one in told(values, events)] == [True, False]
    defaults = {"cancelled": {"path": "void", "default": True}}
    events = EventSettings(orders={"mode": "state", "fields": defaults})
    assert [one[2] for one in told([record(1), record(2)], events)] == [True, True]
