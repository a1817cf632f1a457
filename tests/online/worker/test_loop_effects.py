"""The loop waits for shared effects, names those that it used, and says where there were none."""

from __future__ import annotations

import msgspec
import pytest

from freshet.model.effects.shared import SharedEffects
from freshet.online.effects.record import encoded, record_of
from freshet.online.effects.table import EffectsTable
from freshet.online.worker.context import UNTAUGHT
from freshet.stream.schemas import Forecast
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.units import HOUR_MS
from tests.online.worker.turns import CUTOFF_MS, Turns, owned_of, reader_of


class Rig:
    """A worker of hours that has an owner of effects, who publishes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table = EffectsTable()
        owned = owned_of(reader_of(), effects=self.table)
        self.turns = Turns(monkeypatch, owned)
        monkeypatch.setattr(owned.main.effects, "_now_s", lambda: self.turns.monotonic_s)

    def publish(self, as_of_ms: int, shared: SharedEffects = UNTAUGHT) -> str:
        made = record_of(
            shared,
            resolution_ms=HOUR_MS,
            as_of_ms=as_of_ms,
            num_items=1,
            offsets={},
            country=None,
        )
        key, value = encoded(made)
        self.table.take(key.encode(), value)
        return key

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
