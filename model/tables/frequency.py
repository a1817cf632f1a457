"""How far apart the rows of a table lie, and whether that fits the frequency that was named.

Dimensions: R rows, D distances between neighbours of a series.
"""

from __future__ import annotations

import numpy as np

from freshet.model.tables.calendar import offset_of, resolution_ms
from freshet.stream.arrays import Bools, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.times import Times
from freshet.stream.units import DAY_MS

# One row in ten may lie off the steps: what all others do is the frequency.
MOST = 0.9
# So much finer than what the rows do, a frequency is another one.
FINER = 0.9
FEW_DISTANCES = 3
_MINUTE_MS = 60_000
_BELOW_A_DAY = {
    **{f"{hours}h": hours * 60 * _MINUTE_MS for hours in (12, 8, 6, 4, 3, 2)},
    "h": 60 * _MINUTE_MS,
    **{f"{minutes}min": minutes * _MINUTE_MS for minutes in (30, 20, 15, 10, 5, 2)},
    "min": _MINUTE_MS,
    **{f"{seconds}s": seconds * 1_000 for seconds in (30, 15, 10, 5)},
    "s": 1_000,
}
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def frequency_of(times: Times, code_R: Ints, named: str | None, *, gaps_are_zero: bool) -> str:
    """The frequency of a table: the one that was named, if the rows bear it out, else theirs.

    Raises:
        InvalidInputError: none was named and the rows do not tell one, or they lie farther apart
            than the named one says.
    """
    distance_D = _distances(times.clock_ms_R, code_R)
    found = _found(times, code_R, distance_D) if len(distance_D) else None
    if named is None:
        if found is None:
            raise InvalidInputError(
                "the rows do not tell how long a step is",
                hint="say the frequency, such as D, h, W-SUN or MS, and with several rows a step "
                "how to aggregate them",
            )
        return found
    offset_of(named)
    steady = found is not None and (offset_of(found).n == 1 or found.endswith(("MS", "ME")))
    if found is None or not steady or len(distance_D) < FEW_DISTANCES or gaps_are_zero:
        return named
    # Business days are days, and days without weekends may be either.
    if found != "B" and resolution_ms(named) < FINER * resolution_ms(found):
        raise InvalidInputError(
            f"the frequency is {named!r}, but the rows of a series lie farther apart: as of "
            f"{found!r}",
            hint=f"say {found!r} or leave the frequency out; where rows exist only for steps that "
            "sold anything, say that missing ones are zero",
        )
    return named


def _distances(ms_R: Ints, code_R: Ints) -> Ints:
    """Between each row and the next later one of its series, where there is one: [D]."""
    order = np.lexsort((ms_R, code_R))
    distance = np.diff(ms_R[order])
    same = np.diff(code_R[order]) == 0
    found_D: Ints = distance[same & (distance > 0)]
    return found_D


def _found(times: Times, code_R: Ints, distance_D: Ints) -> str | None:
    """The coarsest frequency on whose steps nearly all rows lie."""
    day_R = times.clock_ms_R // DAY_MS
    if _mostly(distance_D % DAY_MS == 0):
        typical = float(np.median(distance_D)) / DAY_MS
        return (
            (_months(day_R, code_R) if typical >= 28 else None)
            or (_weeks(day_R, code_R, distance_D // DAY_MS) if typical >= 7 else None)
            or (_one_a_month(day_R, code_R) if typical >= 28 else None)
            or _days(day_R, distance_D // DAY_MS)
        )
    utc_D = _distances(times.utc_ms_R, code_R)
    for name, step_ms in _BELOW_A_DAY.items():
        if _mostly(utc_D % step_ms == 0):
            # Order lines come at any second: what divides them all is no step.
            steady = step_ms >= 60 * _MINUTE_MS or float(np.mean(utc_D == step_ms)) > 0.3
            return name if steady else None
    return None


def _months(day_R: Ints, code_R: Ints) -> str | None:
    date_R = day_R.astype("datetime64[D]")
    month_R = date_R.astype("datetime64[M]")
    of_month_R = (date_R - month_R).astype(np.int64)
    last_R = ((date_R + 1).astype("datetime64[M]") != month_R).astype(bool)
    at_end = _mostly(last_R)
    if not at_end and not _mostly(of_month_R == np.bincount(of_month_R).argmax()):
        return None
    distance_D = _distances(month_R.astype(np.int64), code_R)
    num = next((n for n in (12, 6, 4, 3, 2) if _mostly(distance_D % n == 0)), 1)
    letter = "E" if at_end else "S"
    month = _MONTHS[int(np.bincount(month_R.astype(np.int64) % 12).argmax())]
    if num == 12:
        return f"Y{letter}-{month}"
    if num == 3:
        # Named by the month in which a year of four quarters begins, or ends.
        return f"Q{letter}-{month}"
    return f"M{letter}" if num == 1 else f"{num}M{letter}"


def _one_a_month(day_R: Ints, code_R: Ints) -> str | None:
    """Months that have one row each, on whichever day: the last one that was worked on, say."""
    date_R = day_R.astype("datetime64[D]")
    month_R = date_R.astype("datetime64[M]")
    month_D = _distances(month_R.astype(np.int64), code_R)
    series = len(np.unique(code_R))
    if len(month_D) < FEW_DISTANCES or len(month_D) + series < len(day_R):
        # Two rows of a series in one month are no distance.
        return None
    if not _mostly(month_D == 1):
        return None
    of_month_R = (date_R - month_R).astype(np.int64)
    return "ME" if np.median(of_month_R) >= 20 else "MS"


def _weeks(day_R: Ints, code_R: Ints, distance_D: Ints) -> str | None:
    if not _mostly(distance_D % 7 == 0):
        return None
    # 1970-01-01 was a Thursday.
    weekday = _WEEKDAYS[int(np.bincount((day_R + 3) % 7).argmax())]
    num = next((n for n in (4, 3, 2) if _mostly(distance_D % (7 * n) == 0)), 1)
    return f"W-{weekday}" if num == 1 else f"{num}W-{weekday}"


def _days(day_R: Ints, distance_D: Ints) -> str:
    weekday_R = (day_R + 3) % 7
    works = bool((weekday_R < 5).all()) and len(np.unique(weekday_R)) == 5
    if works and bool((distance_D == 3).any()) and len(np.unique(day_R)) >= 10:
        return "B"
    num = next((n for n in range(30, 1, -1) if _mostly(distance_D % n == 0)), 1)
    return "D" if num == 1 or len(distance_D) < FEW_DISTANCES else f"{num}D"


def _mostly(claim: Bools) -> bool:
    return float(np.mean(claim)) >= MOST
