"""Decisions: named by their bytes, the newest before a cutoff, and what they say of items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from freshet.online.adjust import decision as module
from freshet.online.adjust.beginning import Beginning
from freshet.online.adjust.decision import Adjusted, Decisions, encoded
from freshet.stream.codec import encode
from freshet.stream.schemas import AdjustmentDecision, SegmentAdjustment
from freshet.stream.units import DAY_MS, HOUR_MS


def made(as_of_ms: int, *segments: SegmentAdjustment, width: int = HOUR_MS) -> AdjustmentDecision:
    return AdjustmentDecision(
        resolution_ms=width, as_of_ms=as_of_ms, weights_version="v", segments=list(segments)
    )


def one(segment: str, how: Any, begins: int | None = None, **told: Any) -> SegmentAdjustment:
    return SegmentAdjustment(segment=segment, how=how, begins_at_ms=begins, **told)


def taken(*records: AdjustmentDecision) -> Decisions:
    decisions = Decisions(lambda: 10 * HOUR_MS)
    for record in records:
        key, value = encoded(record)
        decisions.take(key.encode(), value)
    return decisions


def newest_at(decisions: Decisions, before_ms: int) -> int | None:
    found = decisions.newest(HOUR_MS, before_ms)
    return None if found is None else found.record.as_of_ms


def test_the_newest_before_a_cutoff_holds_and_none_of_its_own_moment() -> None:
    decisions = taken(made(7), made(9), made(5), made(8, width=DAY_MS))
    assert [newest_at(decisions, before_ms) for before_ms in (5, 6, 8, 9, 10, 99)] == [
        *(None, 5, 7, 7, 9, 9),
    ]
    newest = decisions.newest(HOUR_MS)
    assert newest is not None and newest.sha256 == encoded(made(9))[0]


def test_of_two_of_one_moment_everybody_takes_the_same() -> None:
    one_of, other = made(7), made(7, one("a", "hidden", 5))
    found = [taken(*pair).newest(HOUR_MS) for pair in ((one_of, other), (other, one_of))]
    assert found[0] == found[1] is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"x", encode(made(9))),
        (None, encode(made(9))),
        (encoded(made(9))[0].encode(), b"{"),
        (encoded(made(11 * HOUR_MS))[0].encode(), encode(made(11 * HOUR_MS))),
    ],
)
def test_what_is_no_decision_changes_nothing(key: bytes | None, value: bytes) -> None:
    decisions = taken(made(7))
    decisions.take(key, value)
    assert newest_at(decisions, 99 * HOUR_MS) == 7


def test_a_tombstone_forgets_one_and_old_ones_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = taken(made(7), made(9))
    decisions.take(encoded(made(9))[0].encode(), None)
    decisions.take(b"unknown", None)
    assert newest_at(decisions, 99) == 7
    assert decisions.stale(7 + 35 * DAY_MS) == []
    assert decisions.stale(8 + 35 * DAY_MS) == [encoded(made(7))[0]]
    monkeypatch.setattr(module, "MAX_KEPT", 1)
    decisions.take(encoded(made(8))[0].encode(), encode(made(8)))
    assert newest_at(decisions, 99) == 7


def segments(item_ids: Sequence[str]) -> list[str]:
    return [item_id.split("|")[1] for item_id in item_ids]


def adjusted(*told: SegmentAdjustment) -> Adjusted:
    found = Adjusted(taken(made(7, *told)), HOUR_MS, segments)
    found.begin(8)
    return found


def test_items_are_served_as_their_segment_is_and_others_by_the_whole_shops_alarm() -> None:
    told = [
        one("a", "shifted", 3, moved=[0.5], sample=["x|a"]),
        one("b", "as_it_is", sample=["x|b"]),
    ]
    found = adjusted(*told)
    items = ["x|a", "y|a", "x|b", "x|c"]
    shifted = Beginning(3, (0.5,))
    assert found.of(items) == [shifted, shifted, None, None]
    assert found.besides(items) == ["x|a"]
    assert found.counts() == {"hidden": 0, "profile": 0, "shifted": 1}
    whole = adjusted(*told, one("all", "hidden", 4, sample=["x|c"]))
    assert whole.of(items) == [shifted, shifted, None, Beginning(4)]
    assert whole.besides(items) == ["x|a", "x|c"]


def test_a_decision_that_nobody_has_renewed_for_a_day_holds_no_longer() -> None:
    found = Adjusted(taken(made(7, one("a", "hidden", 3))), HOUR_MS, segments)
    found.begin(7 + 24 * HOUR_MS)
    assert found.of(["x|a"]) == [Beginning(3)]
    found.begin(8 + 24 * HOUR_MS)
    assert found.of(["x|a"]) == [None] and found.sha256 == ""


def test_a_round_keeps_what_held_when_it_began_and_without_alarms_names_nothing() -> None:
    decisions = taken(made(7, one("a", "hidden", 3)))
    found = Adjusted(decisions, HOUR_MS, segments)
    assert found.of(["x|a"]) == [None] and found.sha256 == ""
    found.begin(8)
    assert found.of(["x|a"]) == [Beginning(3)]
    assert found.sha256 == encoded(made(7, one("a", "hidden", 3)))[0]
    key, value = encoded(made(8))
    decisions.take(key.encode(), value)
    assert found.of(["x|a"]) == [Beginning(3)]
    found.begin(9)
    assert found.of(["x|a"]) == [None] and found.sha256 == "" and found.counts()["hidden"] == 0
