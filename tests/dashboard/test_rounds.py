"""Whether a round is whole and what was skipped, from the records of its shards."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from freshet.dashboard import rounds
from freshet.dashboard.rounds import Rounds
from freshet.stream.schemas import ForecastRound
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS


def done(shard: int = 0, hour: int = 100, **more: Any) -> ForecastRound:
    values: dict[str, Any] = {
        "num_shards": 2,
        "resolution_ms": HOUR_MS,
        "issued_at_ms": hour * HOUR_MS + 900,
        "complete": True,
        "expected": 10,
        "published": 10,
        "weights_version": "base",
    }
    return ForecastRound(shard=shard, cutoff_ms=hour * HOUR_MS, **values | more)


def told(*records: ForecastRound) -> dict[str, Any]:
    known = Rounds(Grid(HOUR_MS))
    for record in records:
        known.apply(record)
    found = known.told()
    assert found is not None
    return found


def test_before_any_round_nothing_is_told() -> None:
    assert Rounds(Grid(HOUR_MS)).told() is None


def test_a_round_is_all_its_shards_at_the_newest_cutoff() -> None:
    assert told(done(0, expected=10, published=4, complete=False), done(1, published=7)) == {
        "cutoff_ms": 100 * HOUR_MS,
        "complete": False,
        "expected": 20,
        "published": 11,
        "skipped_day": 0,
    }
    assert told(done(0, 99, complete=False), done(1))["complete"]


def test_a_round_that_went_on_counts_and_what_came_before_does_not_undo_it() -> None:
    known = Rounds(Grid(HOUR_MS))
    early = done(complete=False, published=4)
    whole = done()
    assert known.apply(early) and known.apply(done(complete=False, published=5))
    assert known.apply(whole)
    for repeat in (whole, early, done(hour=99)):
        assert not known.apply(repeat)
    assert known.newest[0] == whole


def test_a_cutoff_that_two_shards_skipped_is_one() -> None:
    skipped = {"skipped": 3, "skipped_from_ms": 97 * HOUR_MS}
    both = told(done(0, **skipped), done(1, **skipped))
    assert both["skipped_day"] == 3
    assert told(done(0, **skipped), done(0, 101, skipped=1, skipped_from_ms=96 * HOUR_MS))[
        "skipped_day"
    ] == 4  # fmt: skip


def test_what_was_skipped_is_told_for_a_day() -> None:
    first = done(hour=100, skipped=2, skipped_from_ms=98 * HOUR_MS)
    assert told(first, done(hour=122))["skipped_day"] == 2
    assert told(first, done(hour=123))["skipped_day"] == 1
    assert told(first, done(hour=124))["skipped_day"] == 0


def test_no_number_of_skipped_cutoffs_fills_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MAX_SKIPPED", 5)
    found = told(
        done(hour=50, skipped=3, skipped_from_ms=47 * HOUR_MS),
        done(hour=100, skipped=2**40, skipped_from_ms=0),
    )
    assert found["skipped_day"] == 5
    assert told(done(skipped=9, skipped_from_ms=0))["skipped_day"] == 0, "all older than a day"


def test_shards_that_are_no_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Rounds(Grid(HOUR_MS))
    for shard in range(4):
        known.apply(done(shard, num_shards=4))
    known.apply(done(0, 101, num_shards=1))
    assert list(known.newest) == [0]
    monkeypatch.setattr(rounds, "MAX_SHARDS", 1)
    assert not known.apply(done(1, 102, num_shards=9)) and list(known.newest) == [0]


def test_days_that_were_skipped_are_counted_by_their_own_midnights() -> None:
    known = Rounds(Grid(DAY_MS, "Europe/Berlin"))
    # Skipped: 29 March 2026, a day of 23 hours.
    midnights_ms = (1_774_738_800_000, 1_774_821_600_000)
    missed = done(skipped=1, skipped_from_ms=midnights_ms[0], resolution_ms=DAY_MS)
    known.apply(msgspec.structs.replace(missed, cutoff_ms=midnights_ms[1]))
    found = known.told()
    assert found is not None and found["skipped_day"] == 1
