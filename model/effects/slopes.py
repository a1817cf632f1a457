"""What numbers known in advance do to all series alike: open days, prices, degrees, shares.

A short history says little of such slopes, a thousand short histories say them well: one ridge
regression of log sales on every covariate and its logarithm, within series, so that it matters how
a series differs from itself and not who sells much. Each series' own answer is then learned
relative to this one (`expectation.slopes`). Dimensions: N series, T context steps, S context and
horizon steps, C columns, K features, G groups, X seen steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, WEEK_MS

MAX_SLOTS = 168  # of the week; shorter steps have too few values in each
FEWEST_STEPS = 200  # of all series together
LEAST_SPREAD = 1e-3
RIDGE = 10.0  # observations of a spread of one
DATES_DOUBT = 2.0  # dates on which nothing happened that stand beside those seen
STRONGEST = 2.0  # an effect beyond this, in log units, was hardly ever seen


@dataclass(frozen=True, slots=True)
class Slopes:
    """Slopes that were fitted on one window's past.

    Attributes:
        columns: known covariates that are used.
        low_C: the least value seen before the cutoff; beyond it the effect stays what it is there.
        high_C: the greatest.
        mean_C: what stands for a missing value.
        weights_2C: log units per unit of each covariate's place between the two, and per unit of
            its logarithm.
        least: the lowest effect of all together that any series was seen with, in log units;
            covariates that each are where they were seen may together be where they never were.
        most: the highest.
    """

    columns: tuple[int, ...]
    low_C: Floats
    high_C: Floats
    mean_C: Floats
    weights_2C: Floats
    least: float = -STRONGEST
    most: float = STRONGEST

    def apply(self, window: Window) -> Floats:
        """The effect at every step in log units, zero on average before the cutoff: [N, S]."""
        effect_NS = np.zeros(window.time_ms_NS.shape)
        for place in range(len(self.columns)):
            effect_NS += self._effect(window, place)
        bounded_NS: Floats = np.clip(_centred(effect_NS, window), self.least, self.most)
        return bounded_NS

    def parts(self, window: Window) -> list[tuple[int, Floats]]:
        """What `apply` gives taken apart by known columns: [N, S] each.

        Where all together are cut, each is by the same share.
        """
        alone = [
            _centred(self._effect(window, place), window) for place in range(len(self.columns))
        ]
        whole_NS = sum(alone, np.zeros(window.time_ms_NS.shape))
        with np.errstate(invalid="ignore", divide="ignore"):
            kept_NS = np.where(whole_NS == 0.0, 1.0, self.apply(window) / whole_NS)
        return [(column, part * kept_NS) for column, part in zip(self.columns, alone, strict=True)]

    def _effect(self, window: Window, place: int) -> Floats:
        """What one covariate adds at every step, from wherever: [N, S]."""
        place_NS, log_NS = self._features(window, self.columns[place], place)
        per_place, per_log = self.weights_2C[:, place]
        effect_NS: Floats = per_place * place_NS + per_log * log_NS
        return effect_NS

    def _features(self, window: Window, column: int, place: int) -> tuple[Floats, Floats]:
        """A covariate's place between its least and greatest value, and the logarithm of that."""
        low = self.low_C[place]
        high = self.high_C[place]
        values_NS = window.known_NSK[:, :, column]
        filled_NS = np.where(np.isnan(values_NS), self.mean_C[place], values_NS)
        # Beyond what was seen a straight line may lead anywhere: the effect stays where it was.
        inside_NS = filled_NS.clip(low, high)
        place_NS = (inside_NS - low) / (high - low)
        # The logarithm beside it lets the effect bend: steep where the covariate is low, flat where
        # it is high.
        log_NS = np.log(0.1 + place_NS)
        return place_NS, log_NS


def _centred(effect_NS: Floats, window: Window) -> Floats:
    """Effects less their mean where something was seen before the cutoff.

    What matters is how a series differs from itself, not who has high prices.
    """
    seen_NT = np.isfinite(window.target_NT)
    count_N1 = seen_NT.sum(1, keepdims=True)
    past_NT = effect_NS[:, : window.context_length] * seen_NT
    total_N1 = past_NT.sum(1, keepdims=True)
    mean_N1 = total_N1 / np.maximum(count_N1, 1)
    centred_NS: Floats = effect_NS - mean_N1
    return centred_NS


NO_SLOPES = Slopes((), np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((2, 0)))


def fit_slopes(window: Window, closed_NS: Bools, columns: list[int]) -> Slopes:
    """Slopes learnt from the open steps before the cutoff, within each series and slot of the week.

    Args:
        window: the past to learn from.
        closed_NS: steps that cannot sell.
        columns: known covariates that may be used.
    """
    T = window.context_length
    closed_NT = closed_NS[:, :T]
    log_NT = np.where(closed_NT, np.nan, np.log1p(window.target_NT))
    seen_NT = np.isfinite(log_NT)
    low_C, high_C, mean_C = _ranges(window.known_NSK[:, :T, columns], seen_NT)
    kept_C = high_C > low_C
    group_NT = _groups(window)
    if seen_NT.sum() < FEWEST_STEPS or not kept_C.any() or group_NT is None:
        return NO_SLOPES
    chosen = tuple(column for column, kept in zip(columns, kept_C, strict=True) if kept)
    slopes = Slopes(
        columns=chosen,
        low_C=low_C[kept_C],
        high_C=high_C[kept_C],
        mean_C=mean_C[kept_C],
        weights_2C=np.zeros((2, len(chosen))),
    )

    group_X = group_NT[seen_NT]
    log_X = _within(log_NT[seen_NT], group_X)
    features_KX: list[Floats] = []
    for place, column in enumerate(chosen):
        for feature_NS in slopes._features(window, column, place):
            feature_NT = feature_NS[:, :T]
            features_KX.append(_within(feature_NT[seen_NT], group_X))
    features_XK = np.stack(features_KX, -1)
    # The ridge holds all features alike, so they need the same spread. A covariate that never
    # varies within a group keeps a spread of rounding errors, and so a weight of nothing.
    spread_K = np.maximum(features_XK.std(0), LEAST_SPREAD)
    features_XK /= spread_K
    per_spread_K = _ridge_regression(features_XK, log_X)
    weights_K = per_spread_K / spread_K
    weights_C2 = weights_K.reshape(len(chosen), 2)
    dates_C = np.array([_dates(window.known_NSK[:, :T, column], seen_NT) for column in chosen])
    trusted_C = dates_C / (dates_C + DATES_DOUBT)
    slopes = replace(slopes, weights_2C=weights_C2.T * trusted_C)
    seen_effects = slopes.apply(window)[:, :T][np.isfinite(window.target_NT)]
    return replace(slopes, least=float(seen_effects.min()), most=float(seen_effects.max()))


def _dates(values_NT: Floats, seen_NT: Bools) -> int:
    """On how many dates a covariate was seen off its lowest, or off its highest, whichever is less.

    A thousand series that share one date have still seen only that date.

    >>> _dates(np.array([[0.0, 1.0, 0.0], [5.0, 6.0, 5.0]]), np.ones((2, 3), bool))
    1
    """
    known_NT = np.where(seen_NT, values_NT, np.nan)
    low_N1 = np.fmin.reduce(known_NT, 1, keepdims=True)
    high_N1 = np.fmax.reduce(known_NT, 1, keepdims=True)
    above_T = (known_NT > low_N1).any(0)
    below_T = (known_NT < high_N1).any(0)
    return int(min(above_T.sum(), below_T.sum()))


def _ridge_regression(features_XK: Floats, log_X: Floats) -> Floats:
    """Weights of the least squares, drawn to 0 as if so many observations had said so: [K].

    A covariate and its logarithm tell nearly the same story, which plain least squares would split
    into two large weights of opposite signs.
    """
    K = features_XK.shape[1]
    squares_KK = features_XK.T @ features_XK
    squares_KK = squares_KK + RIDGE * np.eye(K)
    products_K = features_XK.T @ log_X
    weights_K = np.linalg.solve(squares_KK, products_K)
    return np.asarray(weights_K, np.float64)


def _ranges(known_NTC: Floats, seen_NT: Bools) -> tuple[Floats, Floats, Floats]:
    """Least, greatest and mean value of each covariate; a mean of 0 where there is none."""
    values_XC = known_NTC[seen_NT]
    finite_XC = np.isfinite(values_XC)
    count_C = finite_XC.sum(0)
    for_least_XC = np.where(finite_XC, values_XC, np.inf)
    low_C = for_least_XC.min(0, initial=np.inf)
    for_greatest_XC = np.where(finite_XC, values_XC, -np.inf)
    high_C = for_greatest_XC.max(0, initial=-np.inf)
    sum_C = np.where(finite_XC, values_XC, 0.0).sum(0)
    mean_C = sum_C / np.maximum(count_C, 1)
    return low_C, high_C, mean_C


def _groups(window: Window) -> Ints | None:
    """A number for each series and slot of the week: [N, T].

    None where steps are too short to fill the slots.
    """
    row_N1 = np.arange(len(window))[:, None]
    time_NT = window.shown_ms_NS[:, : window.context_length]
    if window.resolution_ms > DAY_MS:
        return np.broadcast_to(row_N1, time_NT.shape)
    slots = WEEK_MS // window.resolution_ms
    if slots > MAX_SLOTS:
        return None
    slot_NT = time_NT % WEEK_MS // window.resolution_ms
    return row_N1 * slots + slot_NT


def _within(values_X: Floats, group_X: Ints) -> Floats:
    """Values less the mean of their group."""
    sums_G = np.bincount(group_X, values_X)
    counts_G = np.bincount(group_X)
    means_G = sums_G / np.maximum(counts_G, 1)
    centred_X: Floats = values_X - means_G[group_X]
    return centred_X
