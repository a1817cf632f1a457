"""The shop's calendar in its local time: when it is closed, and when there is a public holiday."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.catalog.holidays import public_holidays
from freshet.stream.config import CalendarSettings
from freshet.stream.errors import ConfigError, InvalidInputError
from freshet.stream.slots import CLOSED, EVENT
from freshet.stream.units import DAY_MS

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
MAX_SPANS = 64
_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)


class Elapsed(NamedTuple):
    """Intervals [start, end) in order, none of which overlap, and the time before each of them."""

    starts_N: Ints
    ends_N: Ints
    before_N: Ints

    @classmethod
    def of(cls, intervals: Sequence[tuple[int, int]]) -> Elapsed:
        """Intervals in order."""
        both = np.array(intervals, np.int64).reshape(len(intervals), 2)
        length_N = both[:, 1] - both[:, 0]
        return cls(both[:, 0], both[:, 1], np.cumsum(length_N) - length_N)

    def until(self, times_M: Ints) -> Ints:
        """How much of the intervals lies before each time, in ms.

        >>> Elapsed.of([(0, 10), (20, 25)]).until(np.array([-1, 4, 15, 22, 99])).tolist()
        [0, 4, 10, 12, 15]
        """
        if not len(self.starts_N):
            return np.zeros(len(times_M), np.int64)
        place_M = np.maximum(np.searchsorted(self.starts_N, times_M, side="right") - 1, 0)
        length_M = self.ends_N[place_M] - self.starts_N[place_M]
        inside_M: Ints = np.clip(times_M - self.starts_N[place_M], 0, length_M)
        return self.before_N[place_M] + inside_M


class ShopCalendar:
    """When the shop is closed, and when it has a public holiday.

    Raises:
        ConfigError: A country is not known.
    """

    def __init__(self, settings: CalendarSettings) -> None:
        self._zone = ZoneInfo(settings.time_zone)
        self._open = {
            WEEKDAYS.index(day): _minutes(hours) for day, hours in settings.opening_hours.items()
        }
        self._country_of = dict(settings.country_of_region)
        self._countries = list(dict.fromkeys([settings.country, *self._country_of.values()]))
        for country in filter(None, self._countries):
            _check_country(country)
        self._elapsed = lru_cache(maxsize=MAX_SPANS)(self._find)

    @property
    def slots(self) -> list[int]:
        """The slots that it fills, somewhere."""
        return [EVENT] * any(self._countries) + [CLOSED] * bool(self._open)

    def calendars(self, slot: int, regions: Sequence[str | None]) -> Ints:
        """The number of the calendar that holds for each item, [R]."""
        if slot == CLOSED or not self._country_of:
            return np.zeros(len(regions), np.int64)
        number_of = {region: self._countries.index(c) for region, c in self._country_of.items()}
        numbers = [number_of.get(region or "", 0) for region in regions]
        return np.array(numbers, np.int64)

    def elapsed(self, slot: int, calendar: int, start_ms: int, end_ms: int) -> Elapsed | None:
        """The intervals of a slot in one calendar that meet [start, end); None: it says nothing."""
        if slot == CLOSED:
            return self._elapsed(None, start_ms, end_ms) if self._open else None
        country = self._countries[calendar]
        return self._elapsed(country, start_ms, end_ms) if slot == EVENT and country else None

    def _find(self, country: str | None, start_ms: int, end_ms: int) -> Elapsed:
        # A day more on either side, for local dates begin before or after those of UTC.
        first = _utc_date(start_ms - 2 * DAY_MS)
        days = [first + timedelta(days=day) for day in range((end_ms - start_ms) // DAY_MS + 6)]
        if country is None:
            return Elapsed.of(self._closed(days))
        free = set(public_holidays(country, range(days[0].year, days[-1].year + 1)))
        return Elapsed.of([self._between(day, 0, DAY_MINUTES) for day in days if day in free])

    def _closed(self, days: Sequence[date]) -> list[tuple[int, int]]:
        """What lies between opening hours."""
        opens = sorted(
            self._between(day, *minutes)
            for day in days
            for minutes in self._open.get(day.weekday(), ())
        )
        ends = [self._moment(days[0], 0)]
        ends += np.maximum.accumulate([end for _, end in opens]).tolist() if opens else []
        starts = [start for start, _ in opens]
        starts.append(self._moment(days[-1], DAY_MINUTES))
        return [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]

    def _between(self, day: date, first: int, last: int) -> tuple[int, int]:
        """From one local minute of a day to another, which may lie on the next day."""
        return self._moment(day, first), self._moment(day, last)

    def _moment(self, day: date, minute: int) -> int:
        """When a clock on the wall shows it; where it never does, when clocks skip it."""
        wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)
        offset = self._zone.utcoffset(wall.replace(tzinfo=self._zone))
        assert offset is not None
        return (wall - _EPOCH - offset) // _MILLISECOND


def _minutes(hours: str) -> tuple[tuple[int, int], ...]:
    """Minutes of the day between which a shop is open; those over midnight end behind 24 hours.

    >>> _minutes("09:00-12:30, 22:00-02:00")
    ((540, 750), (1320, 1560))
    """
    return tuple(_range(part.strip()) for part in hours.split(",") if part.strip())


def _range(text: str) -> tuple[int, int]:
    first, last = (60 * int(clock[:2]) + int(clock[3:]) for clock in text.split("-"))
    return first, last if last > first else last + DAY_MINUTES


def _utc_date(time_ms: int) -> date:
    return (_EPOCH + time_ms * _MILLISECOND).date()


def _check_country(country: str) -> None:
    try:
        public_holidays(country, range(2024, 2025))
    except InvalidInputError as error:
        raise ConfigError(f"calendar.country: {error.message}", hint=error.hint) from None
