"""The loop waits for shared effects, names those that it used, and says where there were none."""

from __future__ import annotations

import msgspec
import pytest

from freshet.model.effects.shared import SharedEffects
from freshet.online.effects.table import EffectsTable
from freshet.online.forecast.context import UNTAUGHT
from freshet.online.worker.shard import OwnedShards
from freshet.stream.schemas import Forecast
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.online.forecast.test_wholedays import BOTH, DAY, MIDNIGHT_MS, readers
from tests.online.worker.turns import CUTOFF_MS, Turns, owned_of, publish_effects, reader_of


class Rig:
    """A worker of hours that has an owner of effects, who publishes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table = EffectsTable()
        owned = self._owned()
        self.turns = Turns(monkeypatch, owned)
        for one in owned.served:
            monkeypatch.setattr(one.effects, "_now_s", lambda: self.turns.monotonic_s)
            monkeypatch.setattr(one.sums, "learn", lambda *_: False)

    def _owned(self) -> OwnedShards:
        return owned_of(reader_of(), effects=self.table)

    def publish(
        self, as_of_ms: int, shared: SharedEffects = UNTAUGHT, resolution_ms: int = HOUR_MS
    ) -> str:
        return publish_effects(self.table, as_of_ms, shared, resolution_ms)

    def turn(self, later_s: float = 1.0) -> dict[str, Forecast]:
        """What has been forecast after one turn more."""
        self.turns.turn(later_s)
        return {forecast.item_id: forecast for forecast in self.turns.forecasts()}


def test_the_first_round_waits_for_effects_and_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    assert rig.turn() == {} and rig.turn(119.0) == {}
    key = rig.publish(CUTOFF_MS - HOUR_MS)
    rig.publish(CUTOFF_MS + HOUR_MS)
    found = rig.turn()
    assert {one.effects_sha256 for one in found.values()} == {key}
    assert found["a|n"].status == "ok" and rig.turns.health.trouble("effects") is None


def test_after_two_minutes_forecasts_go_out_without_effects_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(monkeypatch)
    assert rig.turn() == {} and rig.turn(119.9) == {}
    found = rig.turn(0.1)
    assert found["a|n"].status == "degraded" and found["a|n"].effects_sha256 == ""
    assert "made without shared effects" in (rig.turns.health.trouble("effects") or "")


def test_effects_change_what_a_forecast_is_made_from_and_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    amounts = SharedEffects(NAMED_SLOTS, continuous=True)
    made: list[Forecast] = []
    for shared in (UNTAUGHT, amounts):
        rig = Rig(monkeypatch)
        rig.publish(CUTOFF_MS, shared)
        made.append(rig.turn()["a|n"])
    assert len({one.context_sha256 for one in made}) == len({one.forecast_id for one in made}) == 2
    alike = [msgspec.structs.replace(one, forecast_id="", effects_sha256="") for one in made]
    assert alike[0].cutoff_ms == alike[1].cutoff_ms


def test_a_shop_that_warms_up_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    monkeypatch.setattr(rig.turns.main, "warming_up", lambda cutoff_ms: True)
    found = rig.turn()
    assert {one.status for one in found.values()} == {"warming_up"}
    assert rig.turns.health.trouble("effects") is None


class Midnight(Rig):
    """A worker of days and hours at a midnight, with effects of hours and of the day before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.readers = readers()
        super().__init__(monkeypatch)
        self.turns.now_ms = MIDNIGHT_MS + 5
        self.publish(MIDNIGHT_MS)
        self.publish(MIDNIGHT_MS - DAY_MS, resolution_ms=DAY_MS)

    def _owned(self) -> OwnedShards:
        return owned_of(self.readers, settings=BOTH, effects=self.table)

    def widths(self, later_s: float = 1.0) -> list[int]:
        """Of the forecasts of two items that are out after one turn more, in hours."""
        self.turns.turn(later_s)
        return [one.resolution_ms // HOUR_MS for one in self.turns.forecasts()]


def test_at_midnight_days_wait_for_their_effects_and_the_same_hours_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Midnight(monkeypatch)
    assert rig.widths() == rig.widths() == []
    key = rig.publish(MIDNIGHT_MS, resolution_ms=DAY_MS)
    assert rig.widths() == [24, 24, 1, 1]
    assert [one.effects_sha256 == key for one in rig.turns.forecasts()] == [True] * 2 + [False] * 2
    assert rig.turns.measured("day_gap", of="published") == 0.0


def test_after_twenty_seconds_a_midnight_goes_on_with_the_effects_of_the_day_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Midnight(monkeypatch)
    assert rig.widths() == rig.widths(19.9) == []
    assert rig.widths(0.1) == [24, 24, 1, 1]
    assert "degraded" not in {one.status for one in rig.turns.forecasts()}


def test_hours_after_a_midnight_do_not_wait_for_days_that_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Midnight(monkeypatch)
    assert rig.widths() == []
    rig.readers[HOUR_MS].head += 1
    rig.readers[HOUR_MS].reached += 1
    assert rig.widths() == [1, 1]
    assert rig.turns.forecasts()[0].cutoff_ms == (DAY * 24 + 1) * HOUR_MS
