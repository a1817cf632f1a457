"""Bucket numbers and times, against the standard library's calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.config import CalendarSettings
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/Havana",
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

times = st.integers(0, 4_102_444_800_000) | st.integers(-5, 5).map(lambda n: 1_774_738_800_000 + n)


@given(st.sampled_from(ZONES), times)
def test_a_day_is_the_local_date(zone: str, time_ms: int) -> None:
    grid = Grid(DAY_MS, zone)
    local = (EPOCH + timedelta(milliseconds=time_ms)).astimezone(ZoneInfo(zone))
    day = grid.bucket(time_ms)
    assert day == local.toordinal() - EPOCH.toordinal()
    assert grid.start_ms(day) <= time_ms < grid.end_ms(day)


@given(st.sampled_from(ZONES), st.lists(times, max_size=30), st.sampled_from([DAY_MS, HOUR_MS]))
def test_many_times_at_once_are_each_time_alone(zone: str, many: list[int], width_ms: int) -> None:
    grid = Grid(width_ms, zone)
    assert grid.buckets(np.array(many, np.int64)).tolist() == [
        grid.bucket(time_ms) for time_ms in many
    ]


@given(st.sampled_from(ZONES), times, st.integers(1, 900), st.sampled_from([DAY_MS, HOUR_MS]))
def test_the_first_retained_bucket_is_retained_and_the_one_before_is_not(
    zone: str, watermark_ms: int, count: int, width_ms: int
) -> None:
    grid = Grid(width_ms, zone)
    first = grid.first_retained(watermark_ms, count)
    assert grid.expiry_ms(first, count) > watermark_ms
    before = first - 1 if grid.start_ms(first - 1) < grid.start_ms(first) else first - 2
    assert grid.expiry_ms(before, count) <= watermark_ms


@pytest.mark.parametrize(
    ("date", "hours"), [("2026-03-29", 23), ("2026-06-01", 24), ("2026-10-25", 25)]
)
def test_days_on_which_clocks_change_have_23_or_25_hours(date: str, hours: int) -> None:
    grid = Grid(DAY_MS, "Europe/Berlin")
    noon = datetime.fromisoformat(f"{date}T12:00").replace(tzinfo=ZoneInfo("Europe/Berlin"))
    day = grid.bucket(round(noon.timestamp() * 1_000))
    assert (grid.end_ms(day) - grid.start_ms(day)) == hours * HOUR_MS
    assert grid.starts_ms([day, day + 1]).tolist() == [grid.start_ms(day), grid.end_ms(day)]


def test_times_far_apart_and_at_the_ends_of_the_calendar_have_buckets() -> None:
    grid = Grid(DAY_MS, "America/Sao_Paulo")
    far = np.array([0, 253_402_300_799_999, 1_700_000_000_000], np.int64)
    assert grid.buckets(far).tolist() == [grid.bucket(time_ms) for time_ms in far.tolist()]
    assert grid.bucket(-(2**61)) < 0


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="not a time zone"):
        CalendarSettings(time_zone="Mars/Olympus")


def test_edges_of_a_span_of_days_lie_at_local_midnights() -> None:
    # Clocks go forward on 29 March 2026 and back on 25 October.
    spring, autumn = (
        at_ms(f"2026-{date}T00:00+0{ahead}:00") // DAY_MS + 1
        for date, ahead in (("03-28", 1), ("10-24", 2))
    )
    grid = Grid(DAY_MS, "Europe/Berlin")
    hours = [np.diff(grid.span_edges(first, 3)) // HOUR_MS for first in (spring, autumn)]
    assert [list(one) for one in hours] == [[24, 23, 24], [24, 25, 24]]
    assert grid.span_edges(spring, 1)[0] == at_ms("2026-03-28T00:00+01:00")
    assert Grid(HOUR_MS, "Europe/Berlin").span_edges(5, 2).tolist() == [
        5 * HOUR_MS,
        6 * HOUR_MS,
        7 * HOUR_MS,
    ]


def test_a_shop_clock_shows_local_time_and_jumps_where_clocks_do() -> None:
    utc_ms = np.array([at_ms(f"2026-03-29T0{hour}:30+00:00") for hour in (0, 1, 2)])
    shown_ms = Grid(HOUR_MS, "Europe/Berlin").shown_ms(utc_ms)
    assert ((shown_ms % DAY_MS) / HOUR_MS).tolist() == [1.5, 3.5, 4.5]
    assert Grid(HOUR_MS).shown_ms(utc_ms).tolist() == utc_ms.tolist()


def at_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)
