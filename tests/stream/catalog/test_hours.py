"""The shop's calendar: opening hours and public holidays in local time, on days of any length."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from freshet.stream.catalog.hours import Elapsed, ShopCalendar
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.config import CalendarSettings
from freshet.stream.errors import ConfigError
from freshet.stream.slots import CLOSED, EVENT
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

BERLIN = ZoneInfo("Europe/Berlin")


def berlin_ms(*when: int) -> int:
    return round(datetime(*when, tzinfo=BERLIN).timestamp()) * 1_000  # type: ignore[arg-type, misc]


def shop(**calendar: Any) -> ShopTables:
    settings = {"time_zone": "Europe/Berlin", **calendar}
    return ShopTables(calendar=CalendarSettings.model_validate(settings))


def slot(tables: ShopTables, place: int, span: BucketSpan, item_id: str = "a|n") -> list[float]:
    return [float(share) for share in tables.known([item_id], span)[0, :, place]]


def days(*dates: int, month: int = 3) -> BucketSpan:
    return BucketSpan.between([berlin_ms(2026, month, day) for day in dates])


WEEK = dict.fromkeys(("mon", "tue", "wed", "thu", "fri", "sat"), "09:00-18:00")


def test_without_a_calendar_nothing_is_known() -> None:
    assert np.isnan(slot(shop(), CLOSED, days(2, 3)) + slot(shop(), EVENT, days(2, 3))).all()


def test_hours_outside_opening_hours_are_closed_and_those_partly_open_in_part() -> None:
    tables = shop(opening_hours={"mon": "09:00-12:30, 14:00-18:00"})
    monday = BucketSpan(berlin_ms(2026, 3, 2), 24, HOUR_MS)
    closed = [1.0] * 9 + [0, 0, 0, 0.5, 1.0, 0, 0, 0, 0] + [1.0] * 6
    assert slot(tables, CLOSED, monday) == closed
    minutes = BucketSpan(berlin_ms(2026, 3, 2, 12, 29), 3, MINUTE_MS)
    assert slot(tables, CLOSED, minutes) == [0, 1, 1]


def test_days_are_closed_in_part_and_those_that_are_not_named_wholly() -> None:
    tables = shop(opening_hours={**WEEK, "sat": "00:00-24:00"})
    # From Thursday to Monday.
    found = slot(tables, CLOSED, days(5, 6, 7, 8, 9))
    assert found == pytest.approx([15 / 24, 15 / 24, 0, 1])


def test_opening_hours_are_those_that_clocks_on_the_wall_show_when_they_change() -> None:
    tables = shop(opening_hours={"sun": "01:00-04:00"})
    # 2026-03-29 has 23 hours, of which 2 lie between one and four o'clock; 2026-10-25 has 25 and 4.
    assert slot(tables, CLOSED, days(29, 30)) == pytest.approx([21 / 23])
    autumn = BucketSpan.between([berlin_ms(2026, 10, 25), berlin_ms(2026, 10, 26)])
    assert autumn.resolution_ms == 25 * HOUR_MS
    assert slot(tables, CLOSED, autumn) == pytest.approx([21 / 25])


def test_hours_over_midnight_end_on_the_next_day() -> None:
    tables = shop(opening_hours={"sat": "22:00-02:00"})
    sunday = BucketSpan(berlin_ms(2026, 3, 8), 3, HOUR_MS)
    assert slot(tables, CLOSED, sunday) == [0, 0, 1]
    assert slot(tables, CLOSED, BucketSpan(berlin_ms(2026, 3, 7, 21), 2, HOUR_MS)) == [1, 0]


def test_opening_hours_equal_a_look_at_the_clock_every_minute_in_any_zone() -> None:
    hours = {"mon": "08:15-12:00, 11:00-13:30", "wed": "20:00-03:00", "sun": "00:00-24:00"}
    for zone, first in (
        ("Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC)),  # Half an hour back.
        ("America/Santiago", datetime(2026, 9, 4, tzinfo=UTC)),  # Midnight is skipped.
        ("Pacific/Apia", datetime(2011, 12, 28, tzinfo=UTC)),  # So is a Friday.
    ):
        calendar = ShopCalendar(
            CalendarSettings.model_validate({"time_zone": zone, "opening_hours": hours})
        )
        start_ms = round(first.timestamp()) * 1_000
        elapsed = calendar.elapsed(CLOSED, 0, start_ms, start_ms + 7 * DAY_MS)
        assert elapsed is not None
        edges = start_ms + np.arange(7 * 24 * 60 + 1) * MINUTE_MS
        closed = np.diff(elapsed.until(edges)) == MINUTE_MS
        walls = [
            (first + timedelta(minutes=minute)).astimezone(ZoneInfo(zone))
            for minute in range(7 * 24 * 60)
        ]
        expected = [
            not _open(wall.strftime("%a").lower(), wall.hour * 60 + wall.minute) for wall in walls
        ]
        assert closed.tolist() == expected


def _open(day: str, minute: int) -> bool:
    return (
        (day == "mon" and 495 <= minute < 810)
        or (day == "wed" and minute >= 1_200)
        or (day == "thu" and minute < 180)
        or day == "sun"
    )


def test_public_holidays_are_events_from_local_midnight_to_midnight() -> None:
    tables = shop(country="DE")
    first_of_may = BucketSpan(berlin_ms(2026, 4, 30, 23), 26, HOUR_MS)
    assert slot(tables, EVENT, first_of_may) == [0, *[1] * 24, 0]
    assert slot(tables, EVENT, BucketSpan(berlin_ms(2026, 5, 1) - DAY_MS // 2, 1, DAY_MS)) == [0.5]
    assert np.isnan(slot(tables, CLOSED, first_of_may)).all()


def test_a_region_has_the_holidays_of_its_own_country_or_part_of_it() -> None:
    tables = shop(country="DE", country_of_region={"south": "DE-BY", "east": "US"})
    epiphany, fourth_of_july = days(6, 7, month=1), days(4, 5, month=7)
    assert slot(tables, EVENT, epiphany, "a|north") == [0]
    assert slot(tables, EVENT, epiphany, "a|south") == [1]
    assert slot(tables, EVENT, fourth_of_july, "a|east") == [1]
    assert slot(tables, EVENT, fourth_of_july, "a|south") == [0]
    only = shop(country_of_region={"south": "DE-BY"})
    assert slot(only, EVENT, epiphany, "a|south") == [1]
    assert np.isnan(slot(only, EVENT, epiphany, "a|north")).all()
    both = only.known(["a|north", "a|south", "b|north"], epiphany)[:, 0, EVENT]
    np.testing.assert_equal(both, np.array([np.nan, 1, np.nan], np.float32))


@pytest.mark.parametrize("country", ["XX", "DE-XX"])
def test_a_country_that_nobody_knows_is_a_setting_that_is_wrong(country: str) -> None:
    with pytest.raises(ConfigError, match=f"calendar.country: no public holidays.*{country}"):
        shop(country=country)
    with pytest.raises(ConfigError, match=country):
        shop(country_of_region={"n": country})


def test_time_in_no_interval_is_none() -> None:
    assert Elapsed.of([]).until(np.array([1, 2])).tolist() == [0, 0]
