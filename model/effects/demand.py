"""What known covariates do to each series of a table by weeks: all series' answer and its own.

`slopes` asks what covariates do to all series alike. Here each series has slopes of its own that
are drawn towards those of all, as far as series were seen to differ (a linear model with random
slopes, Laird and Ware 1982, fitted by expectation and maximisation): half a year of one item says
little of its elasticity, and three hundred items say what elasticities are like.

Dimensions: N series, T context steps, S context and horizon steps, C columns, K features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from freshet.model.effects.columns import strongest
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats

MAX_SERIES = 1_000  # evenly chosen for the fit
MAX_COLUMNS = 12
FEWEST_STEPS = 200  # of all series together
PASSES = 15  # of expectation and maximisation; 40 changed no score by a thousandth
RIDGE = 10.0  # steps of a usual spread on which a covariate did nothing
# A series' own noise is told by its own steps and by so many of the table's.
NOISE_STEPS = 10.0
FIRST_SPREAD = 0.002  # of slopes, times the variance of a feature: where the passes begin
LEAST_SPREAD = 1e-6
LEAST_NOISE = 1e-4
RATIO_MAX = 1.5  # log units off the usual price: a quarter of it and four times as much
UNIT_SHARE = 0.25  # as in `features`: up to a quarter of its mean a series is seen linearly


class _Told(NamedTuple):
    """What each series says of its slopes, as sums over its seen steps.

    Attributes:
        squares_NKK: of features with features.
        products_NK: of features with log sales.
        square_N: of log sales with themselves.
        count_N: seen steps.
    """

    squares_NKK: Floats
    products_NK: Floats
    square_N: Floats
    count_N: Floats

    def left(self, slope_NK: Floats) -> Floats:
        """The sum of squares that slopes leave over: [N]."""
        # |y - X b|^2 = y'y - 2 b'X'y + b'X'X b, so that sums alone are enough.
        explained_N = 2.0 * np.einsum("nk,nk->n", self.products_NK, slope_NK)
        bent_NK = np.einsum("nkl,nl->nk", self.squares_NKK, slope_NK)
        bent_N = np.einsum("nk,nk->n", slope_NK, bent_NK)
        left_N = self.square_N - explained_N + bent_N
        # Rounding may leave a little less than nothing.
        return np.asarray(np.maximum(left_N, 0.0))


@dataclass(frozen=True, slots=True)
class Demand:
    """Slopes that were fitted on one window's past.

    Attributes:
        columns: known covariates that are used.
        relative: which of them are prices and the like: numbers above 0 by which series differ more
            from each other than from themselves. Their feature is the logarithm of their ratio to
            the series' usual one, so that its slope is an elasticity. Others have three: the place
            between the least and the greatest value, its logarithm, and the place of the step
            before, after which shelves at home are full.
        low_C: the least value seen.
        high_C: the greatest.
        mean_C: what stands for a missing value.
        slope_K: log units per unit of each feature, of all series.
        spread_K: variance of the series' own slopes around it.
        noise: variance of what slopes leave over, on the scale of arcsinh.
        least: the lowest effect that any series was seen with, in log units.
        most: the highest.
    """

    columns: tuple[int, ...]
    relative: tuple[bool, ...]
    low_C: Floats
    high_C: Floats
    mean_C: Floats
    slope_K: Floats
    spread_K: Floats
    noise: float = 1.0
    least: float = -np.inf
    most: float = np.inf

    def effects(self, window: Window, closed_NS: Bools) -> Floats:
        """The effect at every step in log units, zero on average before the cutoff: [N, S].

        Each series by itself: its own slopes are told by its own past and by what was fitted.
        """
        features_NSK = self._features(window)
        told, mean_N1K = _sums(features_NSK, window, closed_NS)
        slope_NK = self._own(told)
        centred_NSK = features_NSK - mean_N1K
        effect_NS = np.einsum("nsk,nk->ns", centred_NSK, slope_NK)
        # What was never seen is not believed: a line goes on, and demand does not.
        return np.asarray(np.clip(effect_NS, self.least, self.most))

    def _own(self, told: _Told) -> Floats:
        """The slopes of each series: [N, K]."""
        shared_NK = np.broadcast_to(self.slope_K, told.products_NK.shape)
        noise_N = _noise(told, shared_NK, self.noise)
        own_NK, _ = _posterior(told, shared_NK, self.spread_K, noise_N)
        return shared_NK + own_NK

    def _features(self, window: Window) -> Floats:
        """What slopes are multiplied by: [N, S, K]."""
        features: list[Floats] = []
        for place, column in enumerate(self.columns):
            values_NS = window.known_NSK[:, :, column]
            if self.relative[place]:
                features.append(off_usual(values_NS, window.context_length))
            else:
                features.extend(self._placed(values_NS, place))
        return np.stack(features, -1)

    def _placed(self, values_NS: Floats, place: int) -> list[Floats]:
        """The three features of a column that is no price."""
        low, high = self.low_C[place], self.high_C[place]
        filled_NS = np.where(np.isnan(values_NS), self.mean_C[place], values_NS)
        inside_NS = filled_NS.clip(low, high)
        place_NS = (inside_NS - low) / (high - low)
        # The first day of a week on promotion does more than its seventh.
        bent_NS = np.log(0.1 + place_NS)
        # What was before the first step nobody knows: it is taken to be as that.
        before_NS = np.hstack([place_NS[:, :1], place_NS[:, :-1]])
        return [place_NS, bent_NS, before_NS]


class _Range(NamedTuple):
    """Where a column was seen: its number, whether it is a price or the like, and its values."""

    column: int
    relative: bool
    low: float
    high: float
    mean: float


def fit_demand(window: Window, closed_NS: Bools) -> Demand | None:
    """Slopes learnt from the open steps before the cutoff.

    None where no known column varies, or too few steps were seen.

    Args:
        window: the past to learn from, by weeks.
        closed_NS: steps that cannot sell.
    """
    step = -(-max(len(window), 1) // MAX_SERIES)
    every = slice(None, None, step)
    window, closed_NS = window.rows(every), closed_NS[every]
    seen_NT = _seen(window, closed_NS)
    ranges = _ranges(window, seen_NT)
    if seen_NT.sum() < FEWEST_STEPS or not ranges:
        return None
    demand = _unfitted(ranges)
    told, _ = _sums(demand._features(window), window, closed_NS)
    demand = _fitted(demand, told)
    effect_NS = demand.effects(window, closed_NS)
    seen_effects = effect_NS[:, : window.context_length][seen_NT]
    return replace(demand, least=float(seen_effects.min()), most=float(seen_effects.max()))


def _seen(window: Window, closed_NS: Bools) -> Bools:
    """Steps before the cutoff that could sell, and of which it is known what they sold: [N, T]."""
    open_NT = ~closed_NS[:, : window.context_length]
    return np.isfinite(window.target_NT) & open_NT


def _ranges(window: Window, seen_NT: Bools) -> list[_Range]:
    """The columns that vary, the strongest first, and where they were seen."""
    T = window.context_length
    found: list[_Range] = []
    for column in strongest(window, list(range(window.known_NSK.shape[2]))):
        values_NT = window.known_NSK[:, :T, column]
        values = values_NT[seen_NT & np.isfinite(values_NT)]
        if len(values) and np.ptp(values) > 0:
            relative = _differ_between(values_NT)
            low, high = float(values.min()), float(values.max())
            found.append(_Range(column, relative, low, high, float(values.mean())))
    return found[:MAX_COLUMNS]


def _unfitted(ranges: list[_Range]) -> Demand:
    """Columns whose slopes nobody has asked for yet."""
    num_features = sum(1 if one.relative else 3 for one in ranges)
    nothing_K = np.zeros(num_features)
    return Demand(
        columns=tuple(one.column for one in ranges),
        relative=tuple(one.relative for one in ranges),
        low_C=np.array([one.low for one in ranges]),
        high_C=np.array([one.high for one in ranges]),
        mean_C=np.array([one.mean for one in ranges]),
        slope_K=nothing_K,
        spread_K=nothing_K,
    )


def _differ_between(values_NT: Floats) -> bool:
    """Whether numbers, nearly all above 0, differ more between series than within them."""
    log_NT = _log(values_NT)
    num_above = np.isfinite(log_NT).sum()
    if num_above < 0.99 * np.isfinite(values_NT).sum():
        return False
    known_N = np.isfinite(log_NT).any(1)
    there_NT = log_NT[known_N]
    usual_N1 = np.nanmedian(there_NT, 1, keepdims=True)
    within = np.nanmean((there_NT - usual_N1) ** 2)
    return bool(usual_N1.var() > within)


def _log(values: Floats) -> Floats:
    """Logarithms; NaN of what is missing, 0 or less."""
    above = values > 0
    # A stand-in for the others, of which numpy would warn.
    safe = np.where(above, values, 1.0)
    return np.where(above, np.log(safe), np.nan)


def off_usual(values_NS: Floats, context: int) -> Floats:
    """The logarithm of values less that of each series' usual one, its median before the cutoff.

    0 where either is missing.
    """
    log_NS = _log(values_NS)
    past_NT = log_NS[:, :context]
    known_N = np.logical_or.reduce(np.isfinite(past_NT), 1)
    usual_N1 = np.zeros((len(log_NS), 1))
    usual_N1[known_N] = np.nanmedian(past_NT[known_N], 1, keepdims=True)
    off_NS = np.nan_to_num(log_NS - usual_N1)
    off_NS = np.where(known_N[:, None], off_NS, 0.0)
    return off_NS.clip(-RATIO_MAX, RATIO_MAX)


def _sums(features_NSK: Floats, window: Window, closed_NS: Bools) -> tuple[_Told, Floats]:
    """What each series says, and the mean of its features where it was seen: [N, 1, K].

    Sales are seen on the scale of arcsinh(y / unit), as by the network. A series that sells once in
    a while shows a part of an effect there, so its features count by that part.
    """
    seen_NT = _seen(window, closed_NS)
    count_N = seen_NT.sum(1).astype(np.float64)
    arc_NT, shown_N = _arcs(window.target_NT, seen_NT, count_N)
    seen_NT1 = seen_NT[..., None]
    past_NTK = np.where(seen_NT1, features_NSK[:, : window.context_length], 0.0)
    mean_N1K = _mean(past_NTK, count_N)
    # Both sides are centred on each series' mean, which is what stands for its level.
    off_NTK = np.where(seen_NT1, past_NTK - mean_N1K, 0.0)
    off_NTK = off_NTK * shown_N[:, None, None]
    squares_NKK = off_NTK.mT @ off_NTK
    products_NK = (off_NTK.mT @ arc_NT[..., None])[..., 0]
    square_N = np.einsum("nt,nt->n", arc_NT, arc_NT)
    return _Told(squares_NKK, products_NK, square_N, count_N), mean_N1K


def _arcs(target_NT: Floats, seen_NT: Bools, count_N: Floats) -> tuple[Floats, Floats]:
    """Sales off their mean on the scale of arcsinh, and how much of an effect shows there: [N]."""
    sold_NT = np.where(seen_NT, target_NT, 0.0)
    mean_N = sold_NT.sum(1) / np.maximum(count_N, 1.0)
    unit_N = np.maximum(UNIT_SHARE * mean_N, 1.0)
    arc_NT = np.arcsinh(target_NT / unit_N[:, None])
    arc_NT = np.where(seen_NT, arc_NT, 0.0)
    off_NT = np.where(seen_NT, arc_NT - _mean(arc_NT, count_N), 0.0)
    # The derivative of arcsinh by the logarithm, at the mean.
    ratio_N = mean_N / unit_N
    shown_N = ratio_N / np.hypot(1.0, ratio_N)
    return off_NT, shown_N


def _mean(values: Floats, count_N: Floats) -> Floats:
    """Means over steps, of which those that do not count are 0."""
    sums = values.sum(1, keepdims=True)
    each = [1] * (values.ndim - 1)
    counts = np.maximum(count_N, 1.0).reshape(-1, *each)
    mean: Floats = sums / counts
    return mean


def _fitted(demand: Demand, told: _Told) -> Demand:
    """Slopes of all series and how series differ, by expectation and maximisation."""
    steps = told.count_N.sum()
    feature_K = np.einsum("nkk->k", told.squares_NKK) / steps
    feature_K = np.maximum(feature_K, LEAST_SPREAD)
    ridge_KK = np.diag(RIDGE * feature_K)
    # The passes begin where all series are one, of one noise.
    squares_KK = told.squares_NKK.sum(0) + ridge_KK
    slope_K = np.linalg.solve(squares_KK, told.products_NK.sum(0))
    shared_NK = np.broadcast_to(slope_K, told.products_NK.shape)
    noise = max(float(told.left(shared_NK).sum() / steps), LEAST_NOISE)
    spread_K = FIRST_SPREAD / feature_K
    own_NK = np.zeros_like(told.products_NK)
    for _ in range(PASSES):
        noise_N = _noise(told, shared_NK + own_NK, noise)
        own_NK, doubt_NKK = _posterior(told, shared_NK, spread_K, noise_N)
        # A slope's own square and what is not known of it: what series differ by on average.
        squares_NK = own_NK**2 + np.einsum("nkk->nk", doubt_NKK)
        spread_K = np.maximum(squares_NK.mean(0), LEAST_SPREAD)
        slope_K = _shared_slope(told, own_NK, noise_N, ridge_KK / noise)
        shared_NK = np.broadcast_to(slope_K, told.products_NK.shape)
    return replace(demand, slope_K=slope_K, spread_K=spread_K, noise=noise)


def _shared_slope(told: _Told, own_NK: Floats, noise_N: Floats, ridge_KK: Floats) -> Floats:
    """The slopes of all series, of what their own ones leave; a noisy series counts less: [K]."""
    explained_NK = np.einsum("nkl,nl->nk", told.squares_NKK, own_NK)
    left_NK = told.products_NK - explained_NK
    weighted_KK = (told.squares_NKK / noise_N[:, None, None]).sum(0)
    weighted_K = (left_NK / noise_N[:, None]).sum(0)
    return np.linalg.solve(weighted_KK + ridge_KK, weighted_K)


def _noise(told: _Told, slope_NK: Floats, noise: float) -> Floats:
    """The variance of what slopes leave over in each series, leaning on that of all: [N]."""
    left_N = told.left(slope_NK) + NOISE_STEPS * noise
    return np.asarray(left_N / (told.count_N + NOISE_STEPS))


def _posterior(
    told: _Told, shared_NK: Floats, spread_K: Floats, noise_N: Floats
) -> tuple[Floats, Floats]:
    """How each series' slopes differ from the shared ones, and the covariance of that doubt."""
    # Precisions add up: what the steps say, and that series are alike.
    said_NKK = told.squares_NKK / noise_N[:, None, None]
    precision_NKK = said_NKK + np.diag(1.0 / spread_K)
    doubt_NKK = np.asarray(np.linalg.inv(precision_NKK), np.float64)
    explained_NK = np.einsum("nkl,nl->nk", told.squares_NKK, shared_NK)
    left_NK = (told.products_NK - explained_NK) / noise_N[:, None]
    own_NK = np.asarray(np.einsum("nkl,nl->nk", doubt_NKK, left_NK))
    return own_NK, doubt_NKK
