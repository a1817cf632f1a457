"""What feasts, the turn of the month, closures and runs of flags do to all series alike.

A year or two of history holds each of these once or twice, so no single series can tell them from
noise; all series together can. One ridge regression in which a day counts once, however many series
it has. Dimensions: N series, T context steps, S context and horizon steps, D days or weeks, K
features, F flags, B half-years.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from freshet.model.effects.days import Days, days_of, flag_columns
from freshet.model.effects.features import EPOCH, calendar_features, feast_lengths, series_features
from freshet.model.effects.levels import cells, usual
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints, Singles

MAX_SERIES = 1_000  # evenly chosen for the fit; more say nothing new about a day
CHUNK = 256
# Below this share of days with sales the days' totals over all series are looked at instead.
DENSE = 0.6
LEVEL_WEEKS = 27  # span of the running median that stands for the level
FEWEST_DAYS = {1: 49, 7: 20}  # by the length of a step in days
EFFECT_SPREAD = 0.15  # how far effects are expected from 0, in log units
STRONGEST = 1.5  # a residual beyond this counts as this
RIDGES = (0.1, 50.0)  # least and most of the ridge that the noise asks for
# Neighbouring days of a feast lean on each other as much as each leans on nothing: a day that fell
# on a Sunday last year is told by those around it (measured on one chain's Christmas: median error
# .341 instead of .355).
FEAST_RIDGE = 0.3


@dataclass(frozen=True, slots=True)
class Events:
    """Effects that were fitted on one window's past.

    What each half-year taught is kept apart for training on that past.

    Attributes:
        flags: columns of the known covariates that are used.
        flag_in_cells: which of them the usual level knows already.
        weights_K: effect of each feature in log units, from all days before the cutoff; empty where
            nothing was fitted.
        weights_BK: the same without the half-year b.
        half_years_B: number of each half-year.
        end_day: number of the first day, or week, that taught nothing since it came too late.
    """

    flags: tuple[int, ...]
    flag_in_cells: tuple[bool, ...]
    weights_K: Floats
    weights_BK: Floats
    half_years_B: Ints
    end_day: int = 0

    def effects(self, window: Window, closed_NS: Bools) -> tuple[Floats, Floats]:
        """What events add at every step of the window, in log units: [N, S] twice.

        The first as all days before the cutoff taught it. In the second, which a learner may be
        trained on, context steps see only what other half-years taught; these start in February and
        August, so that no Christmas and no Easter is cut in two.
        """
        days = days_of(window, closed_NS, self.flags) if len(self.weights_K) else None
        if days is None:
            nothing_NS = np.zeros(window.time_ms_NS.shape)
            return nothing_NS, nothing_NS.copy()
        calendar_DC = calendar_features(days.day_D, days.length_days, window.country)
        C = calendar_DC.shape[1]
        weights_DK = np.broadcast_to(self.weights_K, (len(days.day_D), len(self.weights_K)))
        others_DK = self._weights_of_others(days)
        # `einsum` adds up each row by itself, so that a row is the same to the last bit in any
        # company; a product of matrices would not be.
        known_D = np.einsum("dc,dc->d", calendar_DC, weights_DK[:, :C])
        taught_D = np.einsum("dc,dc->d", calendar_DC, others_DK[:, :C])
        known_ND = np.empty(days.target_ND.shape)
        taught_ND = np.empty(days.target_ND.shape)
        for rows in _slices(len(days.target_ND)):
            own_NDF = series_features(days.rows(rows), self.flag_in_cells)
            known_ND[rows] = known_D + np.einsum("ndf,df->nd", own_NDF, weights_DK[:, C:])
            taught_ND[rows] = taught_D + np.einsum("ndf,df->nd", own_NDF, others_DK[:, C:])
        # Every step of a day has the day's effect: in logarithms it needs no share of it.
        known_NS = np.take_along_axis(known_ND, days.column_NS, 1)
        taught_NS = np.take_along_axis(taught_ND, days.column_NS, 1)
        return known_NS, taught_NS

    def _weights_of_others(self, days: Days) -> Floats:
        """For each day that taught what other half-years did, for the others all did: [D, K]."""
        shape = (len(days.day_D), len(self.weights_K))
        others_DK = np.broadcast_to(self.weights_K, shape).copy()
        past_D = days.day_D < self.end_day
        half_years_D = half_years(days.day_D)
        for half_year, weights_K in zip(self.half_years_B, self.weights_BK, strict=True):
            within_D = past_D & (half_years_D == half_year)
            others_DK[within_D] = weights_K
        return others_DK


NO_EVENTS = Events((), (), np.zeros(0), np.zeros((0, 0)), np.zeros(0, np.int64))


def fit_events(window: Window, closed_NS: Bools) -> Events:
    """Effects learnt from everything before the window's cutoff.

    None where steps are longer than a day and no week, and where there is too little history.

    Args:
        window: the past to learn from.
        closed_NS: steps that cannot sell.

    Raises:
        InvalidInputError: the window's country is not known.
    """
    flags = flag_columns(window, closed_NS)
    nothing = replace(NO_EVENTS, flags=tuple(flags))
    days = days_of(window, closed_NS, flags)
    if days is None:
        return nothing
    if _sparse(days):
        days = days.total()
    else:
        every = -(-len(days.target_ND) // MAX_SERIES)
        days = days.rows(slice(None, None, every))
    left_ND, flags_used = _residuals(days)
    seen_D = np.isfinite(left_ND).any(0)
    if seen_D.sum() < FEWEST_DAYS[days.length_days]:
        return nothing
    in_cells = tuple(flag in flags_used for flag in range(len(flags)))
    events = replace(nothing, flag_in_cells=in_cells)
    return _solved(events, days, left_ND, window.country)


def _solved(events: Events, days: Days, left_ND: Floats, country: str | None) -> Events:
    """Ridge regression of the residuals, with and without each half-year."""
    count_D = np.isfinite(left_ND).sum(0)
    seen_D = count_D > 0
    # Each value weighs the less the more series its day has, since what they share is seen once and
    # not a thousand times. A day on which only few of them were open tells less about the others.
    usual_count = np.median(count_D[seen_D])
    worth_D = np.where(seen_D, 2 / (count_D + usual_count), 0.0)
    half_years_D = half_years(days.day_D)
    half_years_B = np.unique(half_years_D[seen_D])
    worth_BD = worth_D * (half_years_D == half_years_B[:, None])

    # Squares and products of each half-year apart, summed over chunks of series: a regression
    # without one half-year is then the whole one less its part.
    calendar_DK = calendar_features(days.day_D, days.length_days, country)
    chunks = _chunks(days, events.flag_in_cells, calendar_DK)
    squares_BKK, products_BK = _moments_of_parts(chunks, left_ND, worth_BD)

    feasts = feast_lengths(days.length_days, country)
    penalty_KK = _penalty(feasts, products_BK.shape[1])
    ridge_KK = _ridge(left_ND, worth_D) * penalty_KK
    all_KK = squares_BKK.sum(0)
    all_K = products_BK.sum(0)
    weights_K = np.linalg.solve(all_KK + ridge_KK, all_K)
    others_BKK = all_KK - squares_BKK + ridge_KK
    others_BK1 = (all_K - products_BK)[..., None]
    weights_BK1 = np.linalg.solve(others_BKK, others_BK1)
    return replace(
        events,
        weights_K=weights_K,
        weights_BK=weights_BK1[..., 0],
        half_years_B=half_years_B,
        end_day=int(days.day_D[seen_D][-1]) + days.length_days,
    )


def _moments_of_parts(
    chunks: Iterator[tuple[slice, Singles]],
    left_ND: Floats,
    worth_BD: Floats,
) -> tuple[Floats, Floats]:
    """Squares [B, K, K] and products [B, K] of each half-year's days, summed over all series."""
    squares_XBKK: list[list[Floats]] = []
    products_XBK: list[list[Floats]] = []
    for rows, features_NDK in chunks:
        moments_B = [_moments(features_NDK, left_ND[rows], worth_D) for worth_D in worth_BD]
        squares_XBKK.append([square_KK for square_KK, _ in moments_B])
        products_XBK.append([product_K for _, product_K in moments_B])
    squares_BKK = np.array(squares_XBKK).sum(0)
    products_BK = np.array(products_XBK).sum(0)
    return squares_BKK, products_BK


def _moments(features_NDK: Singles, left_ND: Floats, worth_D: Floats) -> tuple[Floats, Floats]:
    """Weighted squares and products of the days that count."""
    taken_ND = np.isfinite(left_ND) & (worth_D > 0)
    worth_ND = np.broadcast_to(worth_D, left_ND.shape)
    worth_X1 = worth_ND[taken_ND][:, None]
    features_XK = features_NDK[taken_ND].astype(np.float64)
    weighted_XK = features_XK * worth_X1
    # An outlier counts as far as the strongest effect may be, and no further.
    left_X = left_ND[taken_ND].clip(-STRONGEST, STRONGEST)
    return weighted_XK.T @ features_XK, weighted_XK.T @ left_X


def _penalty(feasts: Sequence[int], size: int) -> Floats:
    """Squares of the effects and of the steps between a feast's neighbouring ones, as a matrix.

    >>> _penalty([2], 3).round(1).tolist()
    [[0.6, -0.3, 0.0], [-0.3, 0.6, 0.0], [0.0, 0.0, 1.0]]
    """
    matrix_KK = np.eye(size)
    first = 0
    for length in feasts:
        own = slice(first, first + length)
        # Rows of differences: effect of a day less that of the day before it.
        even = np.eye(length)
        steps = np.diff(even, axis=0)
        matrix_KK[own, own] = FEAST_RIDGE * (even + steps.T @ steps)
        first += length
    return matrix_KK


def _ridge(left_ND: Floats, worth_D: Floats) -> float:
    """How many days of its own an effect needs to be believed by half.

    The noise of a day's mean over the variance of effects as they are expected.
    """
    weighted_ND = left_ND * worth_D
    mean_D = np.nansum(weighted_ND, 0)[worth_D > 0]
    deviation_D = np.abs(mean_D - np.median(mean_D))
    # A median absolute deviation times 1.4826 is a normal one's standard deviation, and feasts
    # themselves do not move it.
    noise = 1.4826 * float(np.median(deviation_D))
    ridge = noise**2 / EFFECT_SPREAD**2
    return float(np.clip(ridge, *RIDGES))


def _residuals(days: Days) -> tuple[Floats, list[int]]:
    """Log sales less the usual of their kind of day and the level of their half-year: [N, D].

    And the flags that tell kinds of days apart.
    """
    log_ND = np.log1p(days.target_ND)
    log_ND = np.where(days.closed_ND, np.nan, log_ND)
    weekday_ND = np.broadcast_to(days.weekday_D, log_ND.shape)
    up_NDF = days.flags_NDF > 0.5
    cell_ND, in_cells = cells(log_ND, weekday_ND, up_NDF)
    left_ND = log_ND - usual(log_ND, cell_ND)
    level_ND = _running_level(left_ND, 7 // days.length_days)
    return left_ND - level_ND, in_cells


def _running_level(left_ND: Floats, days_a_week: int) -> Floats:
    """Median over half a year of the medians of weeks: [N, D].

    No event of two weeks moves it.
    """
    N, D = left_ND.shape
    # Whole weeks, the newest one complete: what is missing of the oldest is filled with nothing.
    weeks = -(-D // days_a_week)
    missing = weeks * days_a_week - D
    padded_ND = np.pad(left_ND, ((0, 0), (missing, 0)), constant_values=np.nan)
    by_week_NWX = padded_ND.reshape(N, weeks, days_a_week)
    half = LEVEL_WEEKS // 2
    with warnings.catch_warnings():
        # Weeks without a single value are NaN, and meant to be.
        warnings.simplefilter("ignore", RuntimeWarning)
        weekly_NW = np.nanmedian(by_week_NWX, 2)
        wider_NW = np.pad(weekly_NW, ((0, 0), (half, half)), constant_values=np.nan)
        around_NWX = np.lib.stride_tricks.sliding_window_view(wider_NW, LEVEL_WEEKS, axis=1)
        level_NW = np.nanmedian(around_NWX, 2)
    daily_ND = np.repeat(level_NW, days_a_week, 1)[:, missing:]
    return np.nan_to_num(daily_ND)


def _chunks(
    days: Days,
    flag_in_cells: Sequence[bool],
    calendar_DK: Floats,
) -> Iterator[tuple[slice, Singles]]:
    """All features of some series at a time: [N, D, K].

    Those of all series need not fit into memory.
    """
    singles_DK = calendar_DK.astype(np.float32)
    for rows in _slices(len(days.target_ND)):
        own_NDK = series_features(days.rows(rows), flag_in_cells)
        shape = (len(own_NDK), *singles_DK.shape)
        shared_NDK = np.broadcast_to(singles_DK, shape)
        yield rows, np.concatenate([shared_NDK, own_NDK], -1)


def _slices(num_series: int) -> Iterator[slice]:
    for start in range(0, num_series, CHUNK):
        yield slice(start, start + CHUNK)


def _sparse(days: Days) -> bool:
    """Whether too few days have sales for logarithms of single series to tell anything."""
    open_ND = np.isfinite(days.target_ND) & ~days.closed_ND
    if not open_ND.any():
        return False
    sells = days.target_ND[open_ND] > 0
    return bool(sells.mean() < DENSE)


def half_years(day_D: Ints) -> Ints:
    """A number for each half-year from February to July and from August to January.

    >>> # 1 January, 31 January, 1 February, 31 July, 1 August.
    >>> half_years(np.array([0, 30, 31, 211, 212])).tolist()
    [3939, 3939, 3940, 3940, 3941]
    """
    numbers: list[int] = []
    for day in day_D:
        found = EPOCH + timedelta(int(day))
        # January belongs to the half-year that began in August.
        half_year = 2 * found.year + (found.month - 2) // 6
        numbers.append(half_year)
    return np.array(numbers, np.int64)
