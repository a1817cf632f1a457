"""What must hold of any log: duplicates, order within the allowed lateness, and rollups."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.config import Settings
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.stream.fold.windows_checks import (
    Driver,
    LogRecord,
    MemoryStore,
    log_records,
    small_settings,
    stored_state,
)

pytestmark = pytest.mark.slow  # many worlds; test_partition.py holds the cases

# How history is judged depends on the order by intent.
NO_MARKS = st.none()
KINDS = st.sampled_from(["orders", "clicks"])
SIZES = [{"resolution_ms": width, "buckets": 10**6} for width in (1_000, 60_000, HOUR_MS, DAY_MS)]
PATIENT = small_settings(resolutions=SIZES, allowed_lateness_ms=3 * DAY_MS)


def folded(kind: str, config: Settings, log: Sequence[LogRecord], size: int) -> dict[str, Any]:
    store = MemoryStore()
    driver = Driver(store, kind, config, log)
    driver.drain(size)
    return stored_state(store, store, driver.topic, config)


@st.composite
def with_repeats(draw: st.DrawFn, log: list[LogRecord]) -> list[LogRecord]:
    """The log, and some of its records again, each anywhere after the first time."""
    repeated = list(log)
    for record in draw(st.lists(st.sampled_from(log), max_size=20)):
        repeated.insert(draw(st.integers(repeated.index(record) + 1, len(repeated))), record)
    return repeated


@settings(deadline=None, max_examples=80)
@given(st.data(), KINDS, st.integers(1, 20))
def test_duplicates_anywhere_within_the_horizon_change_nothing(
    data: st.DataObject, kind: str, size: int
) -> None:
    log = data.draw(log_records(kind, max_size=40, marks=NO_MARKS))
    repeated = data.draw(with_repeats(log))
    once, often = folded(kind, PATIENT, log, size), folded(kind, PATIENT, repeated, size)
    assert (often["sums"], often["items"], often["minutes"]) == (
        once["sums"],
        once["items"],
        once["minutes"],
    )
    assert often["header"]["applied"] == once["header"]["applied"]
    more = len(repeated) - len(log)
    new = {
        name: often["header"][name] - once["header"][name] for name in ("duplicate", "dead_letter")
    }
    assert sum(new.values()) == more


@settings(deadline=None, max_examples=80)
@given(st.data(), KINDS, st.integers(1, 20))
def test_order_within_the_allowed_lateness_changes_nothing_in_the_end(
    data: st.DataObject, kind: str, size: int
) -> None:
    drawn = data.draw(log_records(kind, max_size=40, marks=NO_MARKS))
    # Each event id once: of two events that share one, the first to come counts.
    log = list({record.value: record for record in drawn if record.redrive is None}.values())
    shuffled = data.draw(st.permutations(log))
    config = PATIENT
    straight, mixed = (
        folded(kind, config, unique(log), size),
        folded(kind, config, unique(log, shuffled), size),
    )
    assert mixed["sums"] == straight["sums"]
    assert sorted(mixed["items"]) == sorted(straight["items"])
    names = ("applied", "dead_letter", "late_dropped", "read")
    assert [mixed["header"][name] for name in names] == [straight["header"][name] for name in names]


def unique(log: list[LogRecord], order: Sequence[LogRecord] | None = None) -> list[LogRecord]:
    """Those records of the log whose event id no other record of it has, in some order."""

    def name(record: LogRecord) -> object:
        try:
            return json.loads(record.value or b"")["event_id"]
        except (ValueError, KeyError, TypeError):
            return None

    counts = Counter(name(record) for record in log)
    return [
        record
        for record in (log if order is None else order)
        if name(record) is None or counts[name(record)] == 1
    ]


@settings(deadline=None, max_examples=80)
@given(st.data(), KINDS, st.integers(1, 20))
def test_fine_buckets_add_up_to_coarse_ones(data: st.DataObject, kind: str, size: int) -> None:
    sums = folded(kind, PATIENT, data.draw(log_records(kind, marks=NO_MARKS)), size)["sums"]
    for fine, coarse in ((1_000, 60_000), (60_000, HOUR_MS), (HOUR_MS, DAY_MS)):
        rolled: Counter[tuple[int, str, str]] = Counter()
        for (width, bucket, item, channel), value in sums.items():
            if width == fine:
                rolled[bucket * fine // coarse, item, channel] += value
        assert rolled == {key[1:]: value for key, value in sums.items() if key[0] == coarse}
