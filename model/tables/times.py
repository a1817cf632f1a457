"""A column of times, by UTC and by the clock of its own zone.

A day, a week or a month begins when the shop's clock says so, and a clock that changes twice a year
has days of 23 and 25 hours: in UTC their beginnings lie on no regular grid.

Dimension: R rows.
"""

from __future__ import annotations

import re
import warnings
from datetime import timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

if TYPE_CHECKING:
    import pandas as pd

# A whole number below this would be a time before 1973: a year, a day number or seconds, rather.
_LEAST_EPOCH_MS = 100_000_000_000
# Above it would be microseconds or nanoseconds.
_MOST_EPOCH_MS = 100_000_000_000_000
_ZONED = re.compile(r"\d:\d{2}.*(?:Z|[+-]\d{2}:?\d{2})$")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})$")
_NUMBERED = re.compile(r"^\s*(\d{1,2})([./-])(\d{1,2})\2\d{4}")
WRITE_TIMES = "write dates as 2024-05-31 or 2024-05-31T13:00:00Z"


class Times(NamedTuple):
    """Times of rows.

    Attributes:
        utc_ms_R: UTC milliseconds.
        clock_ms_R: what the clock of the column's zone shows then, as milliseconds since
            1970-01-01 00:00 on it.
        zone: the zone; None: the column names none.
    """

    utc_ms_R: Ints
    clock_ms_R: Ints
    zone: tzinfo | None

    def rows(self, kept_R: Bools) -> Times:
        """Some of them."""
        return Times(self.utc_ms_R[kept_R], self.clock_ms_R[kept_R], self.zone)


def times_of(column: pd.Series, *, dayfirst: bool | None = None) -> Times:
    """A column of times; those without a zone are what a clock shows, whole numbers epoch ms.

    Args:
        column: no time in it is missing.
        dayfirst: whether 03.04.2024 is in April; None: what all of them together say.

    Raises:
        InvalidInputError: a time is unreadable or may be read in two ways, or only some have a
            zone.
    """
    import pandas as pd

    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if pd.api.types.is_numeric_dtype(column):
        return _alone(_epoch_ms(column))
    if not pd.api.types.is_datetime64_any_dtype(column):
        return _parsed(column, dayfirst)
    return _stamped(column)


def unreadable(column: pd.Series) -> Bools:
    """Which times are nothing that any time looks like: [R]."""
    import pandas as pd

    typed = pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_numeric_dtype(column)
    if typed or isinstance(column.dtype, pd.PeriodDtype):
        return np.zeros(len(column), bool)
    texts = column.astype(str)
    return np.asarray(~texts.str.contains(r"\d", regex=True), bool)


def utc_of(clock_ms: Ints, zone: tzinfo) -> Ints:
    """UTC milliseconds of what a zone's clock shows.

    A time that the clock leaves out is the next that it shows; of one that it shows twice, the
    first.
    """
    import pandas as pd

    naive = pd.DatetimeIndex(pd.to_datetime(clock_ms.ravel(), unit="ms"))
    first = np.ones(len(naive), bool)
    placed = naive.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
    utc_ms: Ints = placed.tz_convert("UTC").tz_localize(None).as_unit("ms").asi8
    return utc_ms.reshape(clock_ms.shape)


def clock_of(utc_ms: Ints, zone: tzinfo) -> Ints:
    """What a zone's clock shows at UTC milliseconds, as milliseconds since 1970 on it."""
    import pandas as pd

    stamps = pd.DatetimeIndex(pd.to_datetime(utc_ms.ravel(), unit="ms", utc=True))
    clock_ms: Ints = stamps.tz_convert(zone).tz_localize(None).as_unit("ms").asi8
    return clock_ms.reshape(utc_ms.shape)


def _alone(ms_R: Ints) -> Times:
    """Times of a column without a zone."""
    return Times(ms_R, ms_R, None)


def _stamped(column: pd.Series) -> Times:
    """Timestamps, with a zone or without."""
    zone: tzinfo | None = column.dt.tz
    if zone is None:
        return _alone(column.dt.as_unit("ms").to_numpy().astype(np.int64))
    utc = column.dt.tz_convert("UTC").dt.tz_localize(None)
    clock = column.dt.tz_localize(None)
    return Times(_ms(utc), _ms(clock), zone)


def _ms(column: pd.Series) -> Ints:
    stamps: Ints = column.dt.as_unit("ms").to_numpy().astype(np.int64)
    return stamps


def _epoch_ms(column: pd.Series) -> Ints:
    values = column.to_numpy(np.float64, na_value=np.nan)
    likely_R = (values >= _LEAST_EPOCH_MS) & (values < _MOST_EPOCH_MS)
    if not likely_R.all():
        raise InvalidInputError(
            f"the time {column.iloc[int(np.argmin(likely_R))]} in column {column.name!r} is no "
            "time in milliseconds since 1970",
            hint=WRITE_TIMES,
        )
    stamps: Ints = column.to_numpy(np.int64)
    return stamps


def _parsed(column: pd.Series, dayfirst: bool | None) -> Times:
    import pandas as pd

    texts = column.astype(str)
    zoned = texts.str.contains(_ZONED)
    if zoned.any() and not zoned.all():
        raise InvalidInputError(
            f"some times in column {column.name!r} have a time zone ({texts[zoned].iloc[0]}) "
            f"and some have none ({texts[~zoned].iloc[0]})",
            hint="write all of them in UTC, or all with their zone",
        )
    stamps = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
    if stamps.isna().any():
        stamps = _by_format(texts, dayfirst)
    utc_ms_R = _ms(stamps.dt.tz_localize(None))
    return _with_offsets(texts, utc_ms_R) if zoned.all() else _alone(utc_ms_R)


def _by_format(texts: pd.Series, dayfirst: bool | None) -> pd.Series:
    """Times that are not ISO 8601, all in one format; UTC.

    Mixed formats would swap days and months.
    """
    import pandas as pd
    from pandas.tseries.api import guess_datetime_format

    orders = (False, True) if dayfirst is None else (dayfirst,)
    if dayfirst is None and texts.str.match(r"^\s*\d{1,2}\.\d{1,2}\.\d{4}").all():
        # Only where days come first are they written with dots.
        orders = (True,)
    likeliest = _telling(texts)
    with warnings.catch_warnings():
        # That a date is of the other order is what is asked here.
        warnings.simplefilter("ignore", UserWarning)
        formats = [guess_datetime_format(likeliest, dayfirst=order) for order in orders]
    read = []
    for written in dict.fromkeys(format for format in formats if format):
        stamps = pd.to_datetime(texts, utc=True, errors="coerce", format=written)
        read.append(stamps)
    whole = [stamps for stamps in read if not stamps.isna().any()]
    if not whole:
        iso = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
        best = min([*read, iso], key=lambda stamps: int(stamps.isna().sum()))
        wrong = texts[best.isna()].iloc[0]
        raise InvalidInputError(f"{wrong!r} in column {texts.name!r} is no time", hint=WRITE_TIMES)
    if len(whole) == 1 or whole[0].equals(whole[1]):
        return whole[0]
    regular = [stamps for stamps in whole if _regular(stamps)]
    if len(regular) == 1:
        return regular[0]
    first, second = (stamps[whole[0] != whole[1]].iloc[0] for stamps in whole)
    text = texts[whole[0] != whole[1]].iloc[0]
    raise InvalidInputError(
        f"{text!r} in column {texts.name!r} may be {first:%-d %B} or {second:%-d %B}",
        hint=f"{WRITE_TIMES}, or say dayfirst",
    )


def _telling(texts: pd.Series) -> str:
    """A time that says which number is the day, if there is one: a number above twelve."""
    some = texts.drop_duplicates()
    parts = some.str.extract(_NUMBERED)
    for place in (0, 2):
        above = parts[place].astype("Float64") > 12
        if above.any():
            return str(some[above.fillna(False)].iloc[0])
    return str(texts.iloc[0])


def _regular(stamps: pd.Series) -> bool:
    """Whether more than a dozen times are days, or the same day of months, without a gap."""
    days = np.unique(_ms(stamps.dt.tz_localize(None)) // DAY_MS)
    if len(days) <= 12:
        return False
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    same_day = len(np.unique((dates - months).astype(np.int64))) == 1
    gaps = np.diff(months.astype(np.int64)) if same_day else np.diff(days)
    return bool((gaps == gaps[0]).all())


def _with_offsets(texts: pd.Series, utc_ms_R: Ints) -> Times:
    """Times written with their distance from UTC."""
    parts = texts.str.extract(_OFFSET)
    sign_R = np.where(parts[0] == "-", -1, 1)
    minutes_R = parts[1].fillna(0).astype(int) * 60 + parts[2].fillna(0).astype(int)
    offset_R = sign_R * minutes_R.to_numpy()
    clock_ms_R = utc_ms_R + offset_R * 60_000
    if (offset_R == offset_R[0]).all():
        return Times(utc_ms_R, clock_ms_R, timezone(timedelta(minutes=int(offset_R[0]))))
    # As a clock that changes twice a year has it, or the same times written in several zones?
    if len(np.unique(clock_ms_R % DAY_MS)) < len(np.unique(utc_ms_R % DAY_MS)):
        return _alone(clock_ms_R)
    return _alone(utc_ms_R)
