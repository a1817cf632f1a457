"""When the owner decides how segments are served, and what becomes of its decisions."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.online.adjust.decision import Decisions, encoded
from freshet.online.owner.adjuster import Adjuster
from freshet.online.owner.adjusting import Adjusting
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, RegistryError, WeightsError
from freshet.stream.kafka import Outgoing
from freshet.stream.schemas import AdjustmentDecision, DriftAlert, SegmentAdjustment
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.online.owner.test_adjuster import alert

TOPIC = Settings().kafka.topics.decisions
FIRST_MS = 20_000 * DAY_MS


def decision(as_of_ms: int, how: Any = "hidden") -> AdjustmentDecision:
    one = SegmentAdjustment(segment="n", how=how, begins_at_ms=5 if how == "hidden" else None)
    return AdjustmentDecision(
        resolution_ms=HOUR_MS,
        as_of_ms=as_of_ms,
        weights_version="v",
        segments=[one] if how else [],
    )


class Rig:
    """An owner whose shop, alarms and choices are the test's."""

    def __init__(self, log: list[Outgoing] | None = None) -> None:
        self.caught_up, self.held, self.hour = True, True, 0
        self.alerts: list[DriftAlert] = []
        self.how = "hidden"
        self.tried: list[tuple[int, str]] = []
        self.fails: list[Exception] = []
        self.lost: list[Exception] = []
        self.written: list[Outgoing] = [] if log is None else log
        self.decisions = Decisions()
        for one in self.written:
            self.decisions.take(one.key, one.value)
        self.adjuster = Adjuster(lambda item_ids: ["n"] * len(item_ids))
        trials: Any = self
        writes: Any = self
        self.owner = Adjusting(Settings(), trials, self.adjuster, writes, lambda: self.held)

    def poll(self) -> list[DriftAlert]:
        news, self.alerts = self.alerts, []
        return news

    def cutoff_ms(self) -> int:
        return FIRST_MS + self.hour * HOUR_MS

    def decide(self, adjuster: Adjuster, cutoff_ms: int) -> AdjustmentDecision:
        """What an adjuster does of which alarms it was told."""
        if self.lost:
            raise self.lost.pop()
        self.tried.append((self.hour, adjuster._serving.get("n", "-")))
        made = decision(cutoff_ms, self.how if adjuster._onsets else None)
        adjuster.resume(made)
        return made

    def write(self, records: list[Outgoing]) -> None:
        if self.fails:
            raise self.fails.pop()
        self.written += records

    def turn(self, hour: int, *alerts: DriftAlert) -> bool:
        self.hour, self.alerts = hour, list(alerts)
        return self.owner.turn()

    def hours(self) -> list[tuple[int, bool]]:
        """As of which hours something was decided, and whether any segment was in alarm."""
        found = [(self.decisions._kept[(one.key or b"").decode()]) for one in self.written]
        return [((one.as_of_ms - FIRST_MS) // HOUR_MS, bool(one.segments)) for one in found]


def test_while_an_alarm_holds_each_cutoff_is_decided_once_and_once_more_when_it_is_over() -> None:
    rig = Rig()
    assert not rig.turn(1) and not rig.turn(2)
    assert rig.turn(3, alert("n")) and not rig.turn(3)
    assert rig.turn(4) and rig.turn(5, alert("n", state="stable"))
    assert not rig.turn(5) and not rig.turn(6) and not rig.turn(7)
    assert rig.hours() == [(3, True), (4, True), (5, False)]
    first = rig.written[0]
    assert first.topic == TOPIC
    assert (first.key, first.value) == (
        encoded(decision(FIRST_MS + 3 * HOUR_MS))[0].encode(),
        encoded(decision(FIRST_MS + 3 * HOUR_MS))[1],
    )


def test_nothing_is_decided_before_all_is_known_or_a_cutoff_is_new() -> None:
    rig = Rig()
    rig.caught_up = False
    assert not rig.turn(3, alert("n"))
    rig.caught_up = True
    rig.cutoff_ms = lambda: None  # type: ignore[method-assign,assignment,return-value]
    assert not rig.turn(3) and rig.written == []


def test_without_weights_nothing_is_tried_and_the_owner_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It looks for drift too; what is wrong is said once, and again where it comes back."""
    rig = Rig()
    rig.lost = [WeightsError("b"), WeightsError("a"), RegistryError("a")]
    assert not rig.turn(3, alert("n")) and not rig.turn(3) and not rig.turn(3)
    assert capsys.readouterr().out.count("segments_not_tried") == 2
    assert rig.turn(3) and rig.hours() == [(3, True)]
    rig.lost = [RegistryError("b")]
    assert not rig.turn(4)
    assert capsys.readouterr().out.count("segments_not_tried") == 1


def test_the_next_owner_goes_on_from_the_newest_decision_and_decides_no_cutoff_twice() -> None:
    rig = Rig()
    rig.turn(3, alert("n"))
    again = Rig(rig.written)
    assert not again.turn(3, alert("n")) and again.turn(4)
    assert again.tried == [(4, "hidden")]
    # An alarm that ended while nobody was owner ends what was served differently.
    later = Rig(again.written)
    assert later.turn(5) and later.hours()[-1] == (5, False)
    assert not Rig(later.written).turn(6)


def test_a_decision_that_could_not_be_written_is_written_again_and_not_made_anew() -> None:
    rig = Rig()
    rig.fails = [BrokerError("away")]
    with pytest.raises(BrokerError):
        rig.turn(3, alert("n"))
    assert rig.decisions.newest(HOUR_MS) is None
    assert rig.turn(4) and rig.hours() == [(3, True)] and rig.tried == [(3, "-")]
    assert rig.turn(4) and rig.hours() == [(3, True), (4, True)]


def test_who_lost_the_lease_writes_nothing() -> None:
    rig = Rig()
    rig.held = False
    assert not rig.turn(3, alert("n")) and rig.written == []


def test_decisions_that_no_forecast_needs_leave_with_the_next_one() -> None:
    rig = Rig()
    rig.turn(3, alert("n"))
    rig.turn(3 + 35 * 24)
    assert [one.value is None for one in rig.written] == [False, False]
    rig.turn(4 + 35 * 24)
    assert [(one.key, one.value) for one in rig.written[3:]] == [(rig.written[0].key, None)]
    assert len(rig.decisions._kept) == 2
