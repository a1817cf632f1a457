"""Raw columns to claims and versions: whether something is so, and which record is newer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.errors import EventError
from freshet.stream.events.map.levels import Column, Level, Source, Wrong, nothing
from freshet.stream.events.map.texts import ANY_WORD, MAX_WHOLE, text_of_value
from freshet.stream.events.map.times import (
    MISSING,
    TimeStyle,
    numeral,
    one_time_ms,
)
from freshet.stream.events.rfc3339 import plain_times_ms

MOST: Final = 2**62
"""Twice a version must fit int64: cancelled is one step above it, see `fold/state_batch.py`."""
_WHOLE_UNITS: Final = ("us", "ns")
_FALSE: Final = ("", "0", "false", "False")
_PLAIN: Final = frozenset((bool, type(None)))


@dataclass(frozen=True, slots=True)
class FlagField:
    """A claim: true unless it is missing, null, false or 0, also as a text, or an empty one."""

    name: str
    source: Source
    words: Mapping[str, Any] | None = None
    default: Any = None

    def read(self, level: Level) -> Bools:
        """The claims of a level."""
        column = self.source.column(level)
        if self.words is None and self.default is None and set(map(type, column)) <= _PLAIN:
            return np.fromiter(map(bool, column), np.bool_, len(column))
        column = [self._word(value) for value in column]
        column = [self.default if nothing(value) else value for value in column]
        return np.fromiter((not _false(value) for value in column), np.bool_, len(column))

    def _word(self, value: Any) -> Any:
        text = None if self.words is None else text_of_value(value, flags=True)
        if self.words is None or text is None:
            return value
        return self.words.get(text, self.words.get(ANY_WORD, value))


def _false(value: Any) -> bool:
    if isinstance(value, str):
        return value in _FALSE
    return value is None or (isinstance(value, bool | int | float) and value == 0)


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions, the times that they are (MISSING where they are none), and what is wrong."""

    values: Ints
    times_ms: Ints
    given: Bools
    wrong: Mapping[int, Wrong]


@dataclass(frozen=True, slots=True)
class VersionField:
    """A field that says which of two records is newer: a whole number, or a time."""

    name: str
    source: Source
    style: TimeStyle

    def read(self, level: Level) -> Versions:
        """The versions of a level; columns of whole numbers or of plain times are read at once."""
        column = self.source.column(level)
        values, times_ms, given = self._plain(column)
        wrong: dict[int, Wrong] = {}
        for n in np.flatnonzero(~given).tolist():
            if nothing(column[n]):
                continue
            try:
                values[n], times_ms[n] = self._version(column[n])
                given[n] = True
            except EventError as error:
                wrong[n] = ("InvalidField", error.message)
        return Versions(values, times_ms, given, wrong)

    def _plain(self, column: Column) -> tuple[Ints, Ints, Bools]:
        """Versions, times and which are known so far."""
        unknown_ms = np.full(len(column), MISSING, np.int64)
        kinds = set(map(type, column))
        if kinds == {int} and self.style.form == "":
            with suppress(OverflowError):
                values = np.fromiter(column, np.int64, len(column))
                return values, unknown_ms, (values >= -MOST) & (values < MOST)
        if kinds == {str} and self.style.plain_texts:
            times_ms = plain_times_ms(column)
            return times_ms.copy(), times_ms, times_ms != MISSING
        return unknown_ms.copy(), unknown_ms, np.zeros(len(column), np.bool_)

    def _version(self, value: Any) -> tuple[int, int]:
        number: Any = numeral(value) if isinstance(value, str) else value
        counts = isinstance(number, int | float) and not isinstance(number, bool)
        if counts and self.style.form == "":
            return self._whole(number), MISSING
        time_ms = one_time_ms(value, self.style, self.name)
        if counts and self.style.form in _WHOLE_UNITS:
            return self._whole(number), time_ms
        return time_ms, time_ms

    def _whole(self, number: int | float) -> int:
        if isinstance(number, float):
            if abs(number) >= MAX_WHOLE or number != int(number):
                raise EventError(f"the field {self.name!r} is {number}, expected a whole number")
            number = int(number)
        if not -MOST <= number < MOST:
            raise EventError(f"the field {self.name!r} is a number out of range")
        return number
