"""Which alarms hold, by records in whatever order, and what is news."""

from __future__ import annotations

import msgspec
import pytest

from freshet.online.worker import alarms as module
from freshet.online.worker.alarms import Alarms
from freshet.stream.schemas import DriftAlert
from freshet.stream.units import DAY_MS, HOUR_MS


def alert(alert_id: str, state: str, at_ms: int, resolution_ms: int | None = None) -> DriftAlert:
    fields = {"segment": "c", "kind": "level", "detector": "scan", "onset_ms": 0, "size": 1.0}
    texts = {"weights_version": "v1", "description": "", "action": ""}
    made = {"alert_id": alert_id, "state": state, "detected_at_ms": at_ms, **fields, **texts}
    return msgspec.convert({**made, "resolution_ms": resolution_ms}, DriftAlert)


def taken(*alerts: DriftAlert) -> Alarms:
    alarms = Alarms(HOUR_MS)
    for one in alerts:
        alarms.take(one)
    return alarms


def test_an_alarm_holds_until_its_own_id_is_stable() -> None:
    told = [alert("a", "stable", 9), alert("a", "drift", 5), alert("b", "drift", 6)]
    found = taken(*told, alert("only warned", "warning", 7))
    assert [one.alert_id for one in found.held()] == ["b"]
    assert found.newest_ms == 9 and Alarms(HOUR_MS).newest_ms == -1


@pytest.mark.parametrize(
    ("first", "second", "holds"), [("drift", "stable", 0), ("stable", "drift", 1)]
)
@pytest.mark.parametrize("later_ms", [5, 6])
def test_of_two_words_on_one_alarm_the_later_counts_and_of_one_moment_the_last(
    first: str, second: str, holds: int, later_ms: int
) -> None:
    assert len(taken(alert("a", first, 5), alert("a", second, later_ms)).held()) == holds


def test_alarms_of_another_resolution_are_passed_over_and_old_records_name_none() -> None:
    found = taken(alert("a", "drift", 5, DAY_MS), alert("b", "drift", 5, HOUR_MS))
    found.take(alert("c", "drift", 5))
    assert [one.alert_id for one in found.held()] == ["b", "c"]


def test_each_piece_of_news_is_told_once_and_repeats_and_old_ones_are_none() -> None:
    begun, over = alert("a", "drift", 5), alert("a", "stable", 9)
    found = taken(begun, begun)
    assert found.news() == [begun] and found.news() == []
    for one in (begun, over, begun, over):
        found.take(one)
    assert found.news() == [over]


def test_alarms_that_hold_outlast_any_number_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OVER", 3)
    found = taken(alert("old", "drift", 1), *(alert(str(n), "stable", n) for n in range(9)))
    assert [one.alert_id for one in found.held()] == ["old"] and len(found._newest) == 4
