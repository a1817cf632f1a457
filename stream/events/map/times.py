"""Raw columns to epoch milliseconds: numbers in a unit, RFC 3339, dates, and declared formats."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final, cast, get_args

import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.codec import MAX_TIME_MS, UNITS, longest_time, moment_ms, time_ms
from freshet.stream.config import TimeUnit
from freshet.stream.errors import EventError
from freshet.stream.events.map.levels import Column, Level, Source, Wrong, nothing
from freshet.stream.events.map.numerals import PLAIN
from freshet.stream.events.map.texts import kind_name
from freshet.stream.events.rfc3339 import NOT_PLAIN, plain_times_ms

MISSING: Final = NOT_PLAIN
UNIT_NAMES: Final[tuple[str, ...]] = get_args(TimeUnit)
RFC_3339: Final = "rfc3339"
DATE: Final = "date"
# What .NET's older serialisers write; the offset says where, not when.
_SLASH_DATE: Final = re.compile(r"/Date\((-?[0-9]{1,16})([+-][0-9]{4})?\)/")
MICROSECONDS: Final[dict[TimeUnit, float]] = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""By what a number of units is multiplied."""


@dataclass(frozen=True, slots=True)
class TimeStyle:
    """How times are written.

    `form` is a unit, rfc3339, date or a strptime format; empty takes numbers of `unit` and RFC
    3339. `zone` is that of texts that name none.
    """

    form: str = ""
    unit: TimeUnit = "ms"
    zone: tzinfo | None = None

    @property
    def takes_numbers(self) -> bool:
        return self.form in ("", *UNIT_NAMES)

    @property
    def plain_texts(self) -> bool:
        """Whether RFC 3339 is among what is taken."""
        return self.form in ("", RFC_3339)


@dataclass(frozen=True, slots=True)
class Times:
    """A column of epoch milliseconds, MISSING where one is missing or wrong, and what is wrong."""

    values: Ints
    wrong: Mapping[int, Wrong]


@dataclass(frozen=True, slots=True)
class TimeField:
    """A field that is a time."""

    name: str
    source: Source
    style: TimeStyle
    default: Any = None

    def read(self, level: Level) -> Times:
        """The times of a level."""
        found = times(self.source.column(level), self.style, self.name)
        if self.default is not None:
            missing = found.values == MISSING
            missing[list(found.wrong)] = False
            found = Times(np.where(missing, self.default, found.values), found.wrong)
        return found


def times(column: Column, style: TimeStyle, name: str) -> Times:
    """Raw values as epoch milliseconds."""
    kinds = set(map(type, column))
    values = np.full(len(column), MISSING, np.int64)
    if kinds == {int} and style.takes_numbers:
        values = _whole_times_ms(column, style.unit)
    elif kinds == {str} and style.plain_texts:
        values = plain_times_ms(column)
    wrong: dict[int, Wrong] = {}
    if kinds == {type(None)}:
        return Times(values, wrong)
    for n in np.flatnonzero(values == MISSING).tolist():
        if nothing(column[n]):
            continue
        try:
            values[n] = one_time_ms(column[n], style, name)
        except EventError as error:
            mistyped = isinstance(column[n], bool | dict | list)
            wrong[n] = ("InvalidField" if mistyped else "InvalidTime", error.message)
    return Times(values, wrong)


def _whole_times_ms(column: Sequence[int], unit: TimeUnit) -> Ints:
    multiplier, divisor = UNITS[unit]
    try:
        values = np.fromiter(column, np.int64, len(column))
    except OverflowError:
        return np.full(len(column), MISSING, np.int64)
    good = (values >= 0) & (values <= longest_time(unit))
    return np.where(good, np.where(good, values, 0) * multiplier // divisor, MISSING)


def one_time_ms(value: Any, style: TimeStyle, name: str) -> int:
    """Epoch milliseconds of one value.

    Raises:
        EventError: It is no time as it should be written, or none from 1970 to 9999.

    >>> one_time_ms(1.5, TimeStyle(unit="s"), "event_time")
    1500
    >>> from datetime import UTC
    >>> one_time_ms("31.01.1970", TimeStyle("%d.%m.%Y", zone=UTC), "event_time") // 86_400_000
    30
    """
    if isinstance(value, bool | dict | list):
        raise EventError(f"the field {name!r} is {kind_name(value)}, expected a time")
    if isinstance(value, str) and style.plain_texts:
        match = _SLASH_DATE.fullmatch(value)
        if match is not None:
            return _in_range(int(match[1]))
    if isinstance(value, str) and style.takes_numbers:
        value = numeral(value)
    if not isinstance(value, str):
        if not style.takes_numbers:
            raise EventError(f"the field {name!r} is a number, expected text as {style.form!r}")
        return _number_ms(value, style.unit)
    if style.form in UNIT_NAMES:
        raise EventError(f"{value[:40]!r} is no number of {style.form}")
    if style.plain_texts:
        return time_ms(value, zone=style.zone)
    return _in_range(moment_ms(_moment(value, style.form), style.zone, value[:40]))


def numeral(text: str) -> int | float | str:
    """A numeral as the number it says; other texts as they are."""
    bare = text.strip()
    if bare.isascii() and bare.removeprefix("-").isdigit() and len(bare) < 40:
        return int(bare)
    number = PLAIN.parse(text)
    return text if np.isnan(number) else number


def _number_ms(value: int | float, unit: TimeUnit) -> int:
    if isinstance(value, int):
        return time_ms(value, unit)
    if not abs(value) <= longest_time(unit) + 1.0:
        raise EventError(f"time {value} is not within 1970 to 9999")
    return _in_range(round(value * MICROSECONDS[unit]) // 1_000)


def _in_range(ms: int) -> int:
    if not 0 <= ms <= MAX_TIME_MS:
        raise EventError("a time that is not within 1970 to 9999")
    return ms


def _moment(text: str, form: str) -> datetime:
    try:
        if form == DATE:
            return datetime.strptime(text, "%Y-%m-%d")
        return datetime.strptime(text, form)
    except (ValueError, OverflowError):
        raise EventError(f"{text[:40]!r} is no time as {form!r}") from None


def unit_of(form: str, usual: TimeUnit) -> TimeUnit:
    """The unit of numbers under a declared form."""
    return cast(TimeUnit, form) if form in UNIT_NAMES else usual
