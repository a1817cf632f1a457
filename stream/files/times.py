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
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

if TYPE_CHECKING:
    import pandas as pd

# Numbers from here on, to a thousand times as much, count these since 1970: from 1973 to 5138.
_EPOCHS = {
    "seconds": (1e8, 1_000.0),
    "milliseconds": (1e11, 1.0),
    "microseconds": (1e14, 1e-3),
    "nanoseconds": (1e17, 1e-6),
}
# 20240531 and 20240531130000.
_DIGITS = {8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}
_UTC_WORDS = re.compile(r"\s*(?:UTC|GMT)$")
_ZONED = re.compile(r"\d:\d{2}.*(?:Z|[+-]\d{2}:?\d{2})$")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})$")
_NUMBERED = re.compile(r"^\s*(\d{1,2})([./-])(\d{1,2})\2(?:\d{4}|\d{2})\b")
_HOURS = re.compile(r"(\s+\d{1,2}:\d{2})(:\d{2})?(\s*[AaPp][Mm])?$")
# What pandas does not guess: two-digit years, and months by name.
_SHORT_YEARS = ("%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y-%m-%d")
_NAMED_MONTHS = ("%b-%y", "%b %y", "%b-%Y", "%b %Y", "%B %Y", "%d-%b-%y", "%d %b %y")
_ISO_WEEK = re.compile(r"\s*\d{4}-?W\d{2}\s*$")
_QUARTER = re.compile(r"\s*\d{4}-?Q[1-4]\s*$")
# Days since 1899-12-30, as Excel counts them: from 1954 to 2064.
_EXCEL_DAYS = (20_000, 60_000)
FROM_EXCEL = (
    "a day number of Excel becomes a date by pd.to_datetime(column, unit='D', origin='1899-12-30')"
)
WRITE_TIMES = "write dates as 2024-05-31 or 2024-05-31T13:00:00Z"


class Times(NamedTuple):
    """Times of rows.

    Attributes:
        utc_ms_R: UTC milliseconds.
        clock_ms_R: what the clock of the column's zone shows then, as milliseconds since
            1970-01-01 00:00 on it.
        zone: the zone; None: the column names none.
        counted: whether they are numbers since 1970, which no clock's zone moves.
    """

    utc_ms_R: Ints
    clock_ms_R: Ints
    zone: tzinfo | None
    counted: bool = False

    def rows(self, kept_R: Bools) -> Times:
        """Some of them."""
        return self._replace(utc_ms_R=self.utc_ms_R[kept_R], clock_ms_R=self.clock_ms_R[kept_R])


def times_of(column: pd.Series, *, dayfirst: bool | None = None, zone: str | None = None) -> Times:
    """A column of times; those without a zone are what a clock shows.

    Numbers count seconds, milliseconds, microseconds or nanoseconds since 1970, all the same, or
    are dates without signs: 20240531.

    Args:
        column: no time in it is missing.
        dayfirst: whether 03.04.2024 is in April; None: what all of them together say.
        zone: IANA name of the clock that shows them; None: the one that they name, if any.

    Raises:
        InvalidInputError: a time is unreadable or may be read in two ways, or only some have a
            zone.
    """
    times = _times(column, dayfirst)
    return times if zone is None else _shown_by(times, zone_named(zone))


def zone_named(name: str) -> ZoneInfo:
    """A time zone.

    Raises:
        InvalidInputError: the IANA database lacks it.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInputError(
            f"{name!r} is no time zone", hint="name one of the IANA database: Europe/Berlin, UTC"
        ) from None


def _shown_by(times: Times, zone: ZoneInfo) -> Times:
    """The same times by the clock of a zone, or times without a zone as that clock's."""
    if times.zone is None and not times.counted:
        return Times(utc_of(times.clock_ms_R, zone), times.clock_ms_R, zone)
    return Times(times.utc_ms_R, clock_of(times.utc_ms_R, zone), zone)


def _times(column: pd.Series, dayfirst: bool | None) -> Times:
    import pandas as pd

    if not len(column):
        return _alone(np.zeros(0, np.int64))
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if pd.api.types.is_numeric_dtype(column):
        return _counted(column)
    if not pd.api.types.is_datetime64_any_dtype(column):
        return _parsed(column, dayfirst)
    far_R = ((column.dt.year < 1678) | (column.dt.year > 2261)).to_numpy(bool)
    if far_R.any():
        raise InvalidInputError(
            f"the time {column[far_R].iloc[0]} in column {column.name!r}{row_of(column, far_R)} "
            "lies outside the years 1678 to 2261",
            hint="leave such rows out",
        )
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


def _counted(column: pd.Series) -> Times:
    """Numbers as times."""
    values = column.to_numpy(np.float64, na_value=np.nan)
    dates = _digits(column, values)
    if dates is not None:
        return _alone(dates)
    likely = dict.fromkeys(_EPOCHS, values)
    for unit, (least, ms) in _EPOCHS.items():
        own_R = (values >= least) & (values < 1_000 * least)
        likely[unit] = own_R
        if own_R.all():
            whole = column.to_numpy(np.int64) if ms == 1.0 else values * ms
            return _alone(np.rint(whole).astype(np.int64))._replace(counted=True)
    best_R = max(likely.values(), key=lambda own_R: int(own_R.sum()))
    excel = bool(((values > _EXCEL_DAYS[0]) & (values < _EXCEL_DAYS[1])).all())
    raise InvalidInputError(
        f"the time {column.iloc[int(np.argmin(best_R))]} in column {column.name!r}"
        f"{row_of(column, ~best_R)} is no time in milliseconds since 1970, nor in another unit "
        "that the column has",
        hint=FROM_EXCEL if excel else WRITE_TIMES,
    )


def _digits(column: pd.Series, values: Floats) -> Ints | None:
    """Times of numbers that are dates written without signs; None: they are none."""
    import pandas as pd

    for width, written in _DIGITS.items():
        one = 10.0 ** (width - 4)
        if len(values) and ((values >= 1900 * one) & (values < 2101 * one)).all():
            texts = column.astype(np.int64).astype(str)
            stamps = pd.to_datetime(texts, errors="coerce", format=written)
            if not stamps.isna().any():
                return _ms(stamps)
    return None


def row_of(column: pd.Series, which_R: Bools) -> str:
    """The first of some rows, where the index numbers them."""
    import pandas as pd

    labels = column.index[np.asarray(which_R, bool)]
    return f" (row {labels[0]})" if pd.api.types.is_integer_dtype(labels) else ""


def _parsed(column: pd.Series, dayfirst: bool | None) -> Times:
    import pandas as pd

    texts = column.astype(str).str.replace(_UTC_WORDS, "Z", regex=True)
    zoned = texts.str.contains(_ZONED)
    if zoned.any() and not zoned.all():
        raise InvalidInputError(
            f"some times in column {column.name!r} have a time zone ({texts[zoned].iloc[0]}) "
            f"and some have none ({texts[~zoned].iloc[0]})",
            hint="write all of them in UTC, or all with their zone",
        )
    if texts.str.match(_ISO_WEEK).all():
        weeks = texts.str.strip().str.replace("-", "")
        return _alone(_ms(pd.to_datetime(weeks + "1", errors="raise", format="%GW%V%u")))
    if texts.str.match(_QUARTER).all():
        quarters = pd.PeriodIndex(texts.str.strip().str.replace("-", ""), freq="Q")
        return _alone(_ms(pd.Series(quarters.to_timestamp())))
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

    orders = (False, True) if dayfirst is None else (dayfirst,)
    if dayfirst is None and texts.str.match(r"^\s*\d{1,2}\.\d{1,2}\.(\d{4}|\d{2})\b").all():
        # Only where days come first are they written with dots.
        orders = (True,)
    read = []
    for written in _formats(_telling(texts), orders):
        stamps = pd.to_datetime(texts, utc=True, errors="coerce", format=written)
        read.append(stamps)
    whole: list[pd.Series] = []
    for stamps in read:
        if not stamps.isna().any() and not any(stamps.equals(other) for other in whole):
            whole.append(stamps)
    if not whole:
        iso = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
        best = min([*read, iso], key=lambda stamps: int(stamps.isna().sum()))
        wrong = texts[best.isna()].iloc[0]
        row = row_of(texts, best.isna().to_numpy(bool))
        raise InvalidInputError(
            f"{wrong!r} in column {texts.name!r}{row} is no time", hint=WRITE_TIMES
        )
    if len(whole) == 1:
        return whole[0]
    regular = [stamps for stamps in whole if _regular(stamps)]
    if len(regular) == 1:
        return regular[0]
    first, second = (stamps[whole[0] != whole[1]].iloc[0] for stamps in whole[:2])
    text = texts[whole[0] != whole[1]].iloc[0]
    raise InvalidInputError(
        f"{text!r} in column {texts.name!r} may be {first:%-d %B %Y} or {second:%-d %B %Y}",
        hint=f"{WRITE_TIMES}, or say dayfirst (--day-first or --month-first)",
    )


def _formats(text: str, orders: tuple[bool, ...]) -> list[str]:
    """What a time may be written in, with the day first or not."""
    from pandas.tseries.api import guess_datetime_format

    with warnings.catch_warnings():
        # That a date is of the other order is what is asked here.
        warnings.simplefilter("ignore", UserWarning)
        guessed = [guess_datetime_format(text, dayfirst=order) for order in orders]
    found = [written for written in guessed if written]
    if found:
        return list(dict.fromkeys(found))
    hours = _HOURS.search(text)
    clock = ""
    if hours is not None:
        seconds = ":%S" if hours[2] else ""
        half = hours[3] or ""
        space = " " if half.startswith(" ") else ""
        clock = f" %I:%M{seconds}{space}%p" if half else f" %H:%M{seconds}"
    numbered = _NUMBERED.match(text)
    if numbered is None:
        return [written + clock for written in _NAMED_MONTHS]
    sign = numbered[2]
    if re.match(r"\s*\d+\D\d+\D\d{4}", text):
        days = [f"%d{sign}%m{sign}%Y" if order else f"%m{sign}%d{sign}%Y" for order in orders]
        return [written + clock for written in days]
    short = [_SHORT_YEARS[0 if order else 1].format(sign) for order in orders]
    if sign == "-":
        short.append(_SHORT_YEARS[2])
    return [written + clock for written in short]


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
    import pandas as pd

    parts = texts.str.extract(_OFFSET)
    sign_R = np.where(parts[0] == "-", -1, 1)
    hours, minutes = (pd.to_numeric(parts[place]).fillna(0).astype(int) for place in (1, 2))
    offset_R = sign_R * (hours * 60 + minutes).to_numpy()
    clock_ms_R = utc_ms_R + offset_R * 60_000
    if (offset_R == offset_R[0]).all():
        return Times(utc_ms_R, clock_ms_R, timezone(timedelta(minutes=int(offset_R[0]))))
    # As a clock that changes twice a year has it, or the same times written in several zones?
    if len(np.unique(clock_ms_R % DAY_MS)) < len(np.unique(utc_ms_R % DAY_MS)):
        return _alone(clock_ms_R)
    return _alone(utc_ms_R)
