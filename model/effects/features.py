"""What may move all series alike on a day: feasts, a new month, edges of closures and of flags.

Dimensions: N series, D days or weeks, F flags, K features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import partial
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from dateutil.easter import easter  # type: ignore[import-untyped]

from freshet.model.effects.days import Days
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.catalog.holidays import public_holidays

EPOCH = date(1970, 1, 1)
FAR = 10_000  # days: further than any effect reaches


class Feast(NamedTuple):
    """A day that comes again, and how finely the days around it are told apart.

    Attributes:
        dates: when it falls in these years, rising.
        tents: days from it at which a tent of the basis stands, steep where customers hurry; the
            outermost are feet.
        spans: for weeks, first days of spans whose share in a week counts, since it falls on any
            weekday; the last one ends it.
    """

    dates: Callable[[range], list[date]]
    tents: tuple[int, ...]
    spans: tuple[int, ...]


CHRISTMAS = Feast(
    lambda years: [date(year, 12, 25) for year in years],
    (-35, -28, -21, -14, -10, -7, -5, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 18),
    (-28, -21, -14, -7, 0, 2, 7, 14),
)
EASTER = Feast(
    lambda years: [easter(year) for year in years],
    (-21, -14, -9, -6, -4, -3, -2, -1, 0, 1, 2, 4, 7, 12),
    (-14, -7, 0, 2, 9),
)
# Around the first day of a month, when pay comes and rent goes; the middle of the month is what
# they are held against.
MONTH = Feast(
    lambda years: [date(year, month, 1) for year, month in product(years, range(1, 13))],
    (-16, -11, -7, -4, -3, -2, -1, 0, 1, 2, 4, 7, 11, 16),
    (-8, -3, 0, 3, 8),
)
FEASTS = (CHRISTMAS, EASTER, MONTH)
NUM_FEASTS = len(FEASTS)  # of the calendar features of any table; public holidays follow them
AROUND_CLOSED = 4  # features of unusual closures
EDGES = 4  # features of a flag's runs beside the flag itself
HOLIDAY_TENTS = (-3, -2, -1, 0, 1, 2, 3)
HOLIDAY_SPANS = (-3, 0, 1, 4)


def calendar_features(days: Ints, length_days: int, country: str | None = None) -> Floats:
    """Features that depend on the date alone: [D, K].

    Args:
        days: day numbers from 1970-01-01, of weeks their first.
        length_days: 1 or 7.
        country: ISO code whose public holidays are added, such as "DE" or "US".

    Raises:
        InvalidInputError: the country is not known.
    """
    first_day = EPOCH + timedelta(int(days[0]))
    last_day = EPOCH + timedelta(int(days[-1]))
    # A year more on both sides: the nearest Christmas may lie in another one.
    years = range(first_day.year - 1, last_day.year + 2)
    columns: list[Floats | Bools] = []
    for feast in _feasts(country):
        numbers = [(day - EPOCH).days for day in feast.dates(years)]
        feast_days = np.array(numbers, np.int64)
        if length_days == 1:
            distance_D = _distance(days, feast_days)
            columns += _tents(distance_D, feast.tents)
        else:
            columns += _shares_of_spans(days, length_days, feast_days, feast.spans)
    features_DK = np.stack(columns, -1)
    return features_DK.astype(np.float64)


def _shares_of_spans(
    days: Ints,
    length_days: int,
    feast_days: Ints,
    spans: Sequence[int],
) -> list[Floats]:
    """Of each week the share of its days that lie in each span around a feast: [D] each."""
    # A tent needs the distance of a day; a week has seven of them, and its sum knows how many lie
    # in a span.
    every = [_distance(days + day, feast_days) for day in range(length_days)]
    distance_D7 = np.stack(every, -1)
    shares: list[Floats] = []
    for first, end in pairwise(spans):
        from_first_D7 = distance_D7 >= first
        inside_D7 = from_first_D7 & (distance_D7 < end)
        shares.append(inside_D7.mean(1))
    return shares


def feast_lengths(length_days: int, country: str | None = None) -> list[int]:
    """How many of the first calendar features belong to each feast, in the order of days."""
    feasts = _feasts(country)
    if length_days == 1:
        # The outermost knots are feet and have no tent of their own.
        return [len(feast.tents) - 2 for feast in feasts]
    return [len(feast.spans) - 1 for feast in feasts]


def _feasts(country: str | None) -> list[Feast]:
    feasts = [*FEASTS]
    if country is not None:
        dates = partial(public_holidays, country)
        feasts.append(Feast(dates, HOLIDAY_TENTS, HOLIDAY_SPANS))
    return feasts


def series_features(days: Days, flag_in_cells: Sequence[bool]) -> Floats:
    """Features that depend on the series too: [N, D, K].

    Around unusually closed days, and along runs of flags.

    Args:
        days: the window by days.
        flag_in_cells: which flags the usual level knows already; of those only the edges count.
    """
    columns: list[Floats | Bools] = [*_around_closed(days)]
    for flag in range(days.flags_NDF.shape[2]):
        # A promotion that pauses on Sunday is one run, and its Saturday no last day.
        flag_ND = bridged(days.flags_NDF[..., flag], days.closed_ND)
        up_ND = flag_ND > 0
        up_before_ND = _shifted(up_ND, 1)
        up_after_ND = _shifted(up_ND, -1)
        first_ND = up_ND & ~up_before_ND
        last_ND = up_ND & ~up_after_ND
        day_before_ND = _shifted(first_ND, -1)
        day_after_ND = _shifted(last_ND, 1)
        if not flag_in_cells[flag]:
            columns.append(flag_ND)
        columns += [day_before_ND, first_ND, last_ND, day_after_ND]
    features_NDK = np.stack(columns, -1)
    return features_NDK.astype(np.float32)


def _around_closed(days: Days) -> list[Bools]:
    """The last two open days before an unusual closure and the first two after it."""
    weekday_D = days.weekday_D
    known_ND = np.isfinite(days.target_ND) | days.closed_ND
    # How often a series is closed on this weekday: what is closed every Sunday surprises nobody.
    share_ND = np.zeros(days.closed_ND.shape)
    for weekday in range(7):
        on_weekday_D = weekday_D == weekday
        there_ND = known_ND & on_weekday_D
        there_N = there_ND.sum(1)
        closed_N = (there_ND & days.closed_ND).sum(1)
        share_N = closed_N / np.maximum(there_N, 1)
        share_ND += share_N[:, None] * on_weekday_D
    unusual_ND = days.closed_ND & (share_ND < 0.5)

    # Read backwards, the days since a closure are the days until one.
    after_ND = _open_days_since(days.closed_ND, unusual_ND)
    closed_back_ND = days.closed_ND[:, ::-1]
    unusual_back_ND = unusual_ND[:, ::-1]
    back_ND = _open_days_since(closed_back_ND, unusual_back_ND)
    before_ND = back_ND[:, ::-1]
    return [
        before_ND == 1,
        before_ND == 2,
        after_ND == 1,
        after_ND == 2,
    ]


def _open_days_since(closed_ND: Bools, unusual_ND: Bools) -> Ints:
    """For open days, how many open days ago (1 for the first) an unusual closure ended; else FAR.

    A closure is unusual when one of its days is.

    >>> closed = np.array([[0, 1, 1, 0, 0, 1, 0]]) > 0
    >>> unusual = np.array([[0, 0, 1, 0, 0, 0, 0]]) > 0
    >>> _open_days_since(closed, unusual).tolist()
    [[10000, 10000, 10000, 1, 2, 10000, 10000]]
    """
    found_ND = np.full(closed_ND.shape, FAR)
    since_N = np.full(len(closed_ND), FAR)
    # Whether the closure that a series is in, or has just left, is an unusual one.
    unusual_N = np.zeros(len(closed_ND), bool)
    for day in range(closed_ND.shape[1]):
        closed_N = closed_ND[:, day]
        also_N = unusual_N | unusual_ND[:, day]
        unusual_N = np.where(closed_N, also_N, unusual_N)
        at_closure_N = np.where(unusual_N, 0, FAR)
        one_more_N = np.minimum(since_N + 1, FAR)
        since_N = np.where(closed_N, at_closure_N, one_more_N)
        found_ND[:, day] = np.where(closed_N, FAR, since_N)
        unusual_N &= closed_N
    return found_ND


def bridged(flag_ND: Floats, closed_ND: Bools) -> Floats:
    """A flag carried over closed and unknown days where it is up on both sides, else 0 on them.

    >>> bridged(np.array([[1.0, np.nan, 1.0, 0.0, np.nan]]), np.zeros((1, 5), bool)).tolist()
    [[1.0, 1.0, 1.0, 0.0, 0.0]]
    """
    D = flag_ND.shape[1]
    index_D = np.arange(D)
    open_ND = np.isfinite(flag_ND) & ~closed_ND
    filled_ND = np.where(open_ND, flag_ND, 0.0)

    # The nearest open day on either side, and the flag there; 0 where there is none.
    behind_ND = np.where(open_ND, index_D, -1)
    last_ND = np.maximum.accumulate(behind_ND, 1)
    before_ND = np.take_along_axis(filled_ND, last_ND.clip(0), 1)
    before_ND = before_ND * (last_ND >= 0)

    ahead_ND = np.where(open_ND, index_D, D)
    next_back_ND = np.minimum.accumulate(ahead_ND[:, ::-1], 1)
    next_ND = next_back_ND[:, ::-1]
    after_ND = np.take_along_axis(filled_ND, next_ND.clip(max=D - 1), 1)
    after_ND = after_ND * (next_ND < D)

    both_ND = np.minimum(before_ND, after_ND)
    return np.where(open_ND, filled_ND, both_ND)


def _shifted(values_ND: Bools, days: int) -> Bools:
    """Values moved `days` later (earlier if negative); what enters is False."""
    moved_ND = np.zeros_like(values_ND)
    if days > 0:
        staying_ND = values_ND[:, :-days]
        moved_ND[:, days:] = staying_ND
    else:
        staying_ND = values_ND[:, -days:]
        moved_ND[:, :days] = staying_ND
    return moved_ND


def _tents(distance_D: Ints, knots: Sequence[int]) -> list[Floats]:
    """Tent functions of a distance: 1 at their own knot, 0 from the neighbouring knots on.

    >>> [tent.tolist() for tent in _tents(np.array([-1, 0, 1, 2]), (-2, 0, 1))]
    [[0.5, 1.0, 0.0, 0.0]]
    """
    # Effects between two knots are drawn straight between theirs, so that few numbers make a smooth
    # course of many days.
    tents = []
    for place in range(1, len(knots) - 1):
        left, top, right = knots[place - 1 : place + 2]
        rising_D = (distance_D - left) / (top - left)
        falling_D = (right - distance_D) / (right - top)
        tent_D = np.minimum(rising_D, falling_D)
        tents.append(tent_D.clip(0))
    return tents


def _distance(days: Ints, feast_days: Ints) -> Ints:
    """Days since the nearest feast, negative before it."""
    index_D = np.arange(len(days))
    gaps = days[:, None] - feast_days
    nearest_D = np.abs(gaps).argmin(1)
    distance_D: Ints = gaps[index_D, nearest_D]
    return distance_D
