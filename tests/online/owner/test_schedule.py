"""Effects are due once for each local midnight, and at the first cutoff where none has passed."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from freshet.online.owner.schedule import due_ms, owned, stale_ms
from freshet.stream.config import Settings
from freshet.stream.read.progress import Input, InputState, ReadRules
from freshet.stream.units import DAY_MS, HOUR_MS

ORDERS, CLICKS = "freshet.orders.v1", "freshet.clicks.v1"


def at(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1_000)


def inputs(first: str, *reached: str, clicks: str = "") -> dict[Input, InputState]:
    """One partition of orders for each time that they have reached."""

    def state(text: str) -> InputState:
        return InputState(9, 0, at(text), None, first_event_ms=at(first))

    found: dict[Input, InputState] = {(ORDERS, n): state(text) for n, text in enumerate(reached)}
    return found | ({(CLICKS, 0): state(clicks)} if clicks else {})


HOURS, DAYS = ReadRules(HOUR_MS, 1_344), ReadRules(DAY_MS, 800)


@pytest.mark.parametrize("rules", [HOURS, DAYS])
def test_the_newest_midnight_that_all_orders_have_reached_is_due_once(rules: ReadRules) -> None:
    seen = inputs("2026-03-01T10:00", "2026-03-04T00:00", "2026-03-04T07:20", clicks="2026-03-01")
    midnight = at("2026-03-04")
    for newest in (None, at("2026-03-02"), midnight - 1):
        assert due_ms(seen, rules, newest) == midnight
    assert due_ms(seen, rules, midnight) is None
    # A Redis that came back older asks for nothing again.
    assert due_ms(seen, rules, at("2026-03-05")) is None
    behind = inputs("2026-03-01T10:00", "2026-03-03T23:59:59.999", "2026-03-04T07:20")
    assert due_ms(behind, rules, None) == at("2026-03-03")


def test_in_the_first_days_effects_are_due_whenever_the_shop_is_twice_as_old() -> None:
    young = inputs("2026-03-01T10:20", "2026-03-01T13:10")
    assert due_ms(young, HOURS, None) == at("2026-03-01T13:00")
    assert due_ms(young, HOURS, at("2026-03-01T11:40")) == at("2026-03-01T13:00")
    assert due_ms(young, HOURS, at("2026-03-01T11:41")) is None
    assert due_ms(young, DAYS, None) is None
    assert due_ms(inputs("2026-03-01T10:20", "2026-03-01T10:50"), HOURS, None) is None
    assert due_ms({}, HOURS, None) is None
    grown = inputs("2026-03-01T10:20", "2026-03-02T00:10")
    assert due_ms(grown, HOURS, at("2026-03-01T11:00")) == at("2026-03-02")
    assert due_ms(grown, DAYS, None) == at("2026-03-02")
    # A first midnight came too soon to tell much.
    night = inputs("2026-03-01T23:40", "2026-03-02T01:10")
    assert due_ms(night, HOURS, at("2026-03-02")) == at("2026-03-02T01:00")
    assert due_ms(night, HOURS, at("2026-03-02T01:00")) is None
    assert due_ms(night, DAYS, at("2026-03-02")) is None


@pytest.mark.parametrize(
    ("zone", "reached", "due"),
    [
        ("Europe/Berlin", "2026-03-29T22:30", at("2026-03-30T00:00", "Europe/Berlin")),
        ("Europe/Berlin", "2026-03-29T21:30", at("2026-03-29T00:00", "Europe/Berlin")),
        # Midnight in Kolkata is half past an hour of UTC: the hour before it is the last whole one.
        ("Asia/Kolkata", "2026-03-29T19:10", at("2026-03-29T18:00")),
    ],
)
def test_midnights_are_the_shops_own(zone: str, reached: str, due: int) -> None:
    rules = ReadRules(HOUR_MS, 1_344, time_zone=zone)
    assert due_ms(inputs("2026-03-01", reached), rules, None) == due


def test_days_come_before_hours_and_flash_sales_have_none() -> None:
    assert [one.resolution_ms for one in owned(Settings().served)] == [DAY_MS, HOUR_MS]


def test_effects_are_kept_for_as_long_as_windows_and_64_cutoffs_more() -> None:
    assert stale_ms(HOUR_MS, 1_344, 2_000 * HOUR_MS) == (2_000 - 1_408) * HOUR_MS
