"""Rounds wait for shared effects as long as that helps, and say where there are none."""

from __future__ import annotations

import pytest

from freshet.model.effects.shared import SharedEffects
from freshet.online.effects.record import encoded, record_of
from freshet.online.effects.table import EffectsTable
from freshet.online.forecast.effects import FIRST_WAIT_S, MIDNIGHT_WAIT_S, RoundEffects, has_owner
from freshet.stream.config import Settings
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.units import DAY_MS, HOUR_MS


class Rig:
    """The effects of one resolution, and a clock that stands until it is set."""

    def __init__(self, resolution_ms: int = DAY_MS) -> None:
        self.table, self.at_s, self.resolution_ms = EffectsTable(), 1_000.0, resolution_ms
        self.effects = RoundEffects(self.table, resolution_ms, lambda: self.at_s)

    def publish(self, as_of_ms: int) -> str:
        made = record_of(
            SharedEffects(NAMED_SLOTS),
            resolution_ms=self.resolution_ms,
            as_of_ms=as_of_ms,
            num_items=1,
            offsets={},
            country=None,
        )
        key, value = encoded(made)
        self.table.take(key.encode(), value)
        return key

    def later(self, seconds: float) -> None:
        self.at_s += seconds


def test_the_first_round_waits_two_minutes_and_the_next_ones_not_at_all() -> None:
    rig = Rig(HOUR_MS)
    assert FIRST_WAIT_S == 120 and not rig.effects.ready(100 * HOUR_MS)
    rig.later(119.9)
    # Cutoffs pass meanwhile; the wait is one.
    assert not rig.effects.ready(101 * HOUR_MS)
    rig.later(0.1)
    assert rig.effects.ready(101 * HOUR_MS) and rig.effects.ready(102 * HOUR_MS)
    assert rig.effects.missing(102 * HOUR_MS) and rig.effects.of(102 * HOUR_MS) is None
    rig.effects.note(102 * HOUR_MS)
    assert rig.effects.amiss.startswith("forecasts by 3600000 ms are made without shared effects")
    rig.publish(102 * HOUR_MS)
    rig.effects.note(102 * HOUR_MS)
    assert rig.effects.amiss == "" and not rig.effects.missing(102 * HOUR_MS)


def test_a_round_of_days_waits_twenty_seconds_for_its_own_midnight_and_takes_the_last_then() -> (
    None
):
    rig = Rig()
    old = rig.publish(10 * DAY_MS)
    assert MIDNIGHT_WAIT_S == 20 and rig.effects.ready(10 * DAY_MS)
    assert not rig.effects.ready(11 * DAY_MS)
    rig.later(19.9)
    assert not rig.effects.ready(11 * DAY_MS)
    rig.later(0.1)
    assert rig.effects.ready(11 * DAY_MS)
    known = rig.effects.of(11 * DAY_MS)
    assert known is not None and known.sha256 == old
    # The next midnight has a wait of its own, which ends when its effects are there.
    assert not rig.effects.ready(12 * DAY_MS)
    rig.publish(12 * DAY_MS)
    assert rig.effects.ready(12 * DAY_MS)


def test_a_round_of_hours_waits_for_no_midnight() -> None:
    rig = Rig(HOUR_MS)
    rig.publish(24 * HOUR_MS)
    assert rig.effects.ready(49 * HOUR_MS)


def test_a_cutoff_before_all_effects_is_given_the_oldest() -> None:
    rig = Rig(HOUR_MS)
    oldest = rig.publish(24 * HOUR_MS)
    rig.publish(48 * HOUR_MS)
    known = rig.effects.of(23 * HOUR_MS)
    assert known is not None and known.sha256 == oldest and rig.effects.ready(23 * HOUR_MS)


def test_effects_that_are_older_than_three_days_are_amiss() -> None:
    rig = Rig(HOUR_MS)
    rig.publish(24 * HOUR_MS)
    rig.effects.note(96 * HOUR_MS)
    assert rig.effects.amiss == ""
    rig.effects.note(97 * HOUR_MS)
    assert rig.effects.amiss == "shared effects by 3600000 ms are 73 hours old"


def test_where_nobody_estimates_nothing_is_waited_for_and_nothing_amiss() -> None:
    effects = RoundEffects(None, HOUR_MS)
    effects.note(HOUR_MS)
    assert effects.ready(HOUR_MS) and not effects.missing(HOUR_MS)
    assert effects.of(HOUR_MS) is None and effects.amiss == ""


@pytest.mark.parametrize(("width", "owned"), [(60_000, False), (HOUR_MS, True), (DAY_MS, True)])
def test_hours_and_days_have_an_owner_and_flash_sales_have_none(width: int, owned: bool) -> None:
    (served,) = [one for one in Settings().served if one.resolution_ms == width]
    assert has_owner(served) is owned
    week = served.model_copy(update={"resolution_ms": 7 * DAY_MS, "flash_sales_only": False})
    assert not has_owner(week)
