"""LightGBM as a rival for weeks of goods, told all that we are told, and the regression beside it.

Dimensions: N series, T context steps, H horizon steps, S = T + H, Q levels, K features, X rows.
"""

from __future__ import annotations

import lightgbm
import numpy as np

from bench.weekly_sets import LEVELS
from freshet.model.effects.demand import off_usual
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats

ROWS, TREES = 60_000, 150
PARAMETERS = {
    "objective": "quantile",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 80,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "num_threads": 1,
    "verbose": -1,
}


def covariates(window: Window) -> Floats:
    """Prices as logarithms of ratios to usual ones, how deep they are cut, the rest as it is."""
    known_KNS = np.moveaxis(window.known_NSK, 2, 0)
    named = dict(zip(window.known_names, known_KNS, strict=True))
    columns = []
    for name, values_NS in named.items():
        if "price" in name:
            columns.append(off_usual(values_NS, window.context_length))
        else:
            columns.append(np.nan_to_num(values_NS))
    if "base_price" in named:
        # A cent at least: of a price of nothing there is no logarithm.
        price_NS = np.maximum(named["price"], 0.01)
        base_NS = np.maximum(named["base_price"], 0.01)
        columns.append(np.log(price_NS / base_NS))
    return np.stack(columns, -1)


def elasticities(window: Window, told_NSK: Floats) -> Floats:
    """What one log-log regression of all items, within items, says of each step: [N, S]."""
    T = window.context_length
    log_NT = np.log1p(window.target_NT)
    # Centred within items, so that large items and dear ones say nothing by being so.
    mean_N1 = np.nanmean(log_NT, 1, keepdims=True)
    off_NT = np.nan_to_num(log_NT - mean_N1)
    usual_N1K = told_NSK[:, :T].mean(1, keepdims=True)
    centred_NSK = told_NSK - usual_N1K
    K = told_NSK.shape[2]
    past_XK = centred_NSK[:, :T].reshape(-1, K)
    # A ridge, for columns that hardly vary.
    squares_KK = past_XK.T @ past_XK + 5.0 * np.eye(K)
    products_K = past_XK.T @ off_NT.ravel()
    slope_K = np.linalg.solve(squares_KK, products_K)
    effect_NS = centred_NSK @ slope_K
    return np.asarray(np.clip(effect_NS, -2.0, 2.0))


class Learner:
    """LightGBM by quantile, direct: all origins, steps and series together, newer ones heavier.

    It is told the level lately, by and by and of all, last year, the calendar, covariates of the
    step, of the one before and as they usually are, categories, and what a regression says, which
    is also taken out of what it learns.
    """

    def __init__(self, window: Window) -> None:
        T = window.context_length
        self.window = window
        self.told_NSK = covariates(window)
        self.effect_NS = elasticities(window, self.told_NSK)
        self.log_NT = np.log1p(window.target_NT)
        self.plain_NT = self.log_NT - self.effect_NS[:, :T]
        # A week that is missing sold what weeks sell, as far as features know.
        usual_N1 = np.nanmean(self.plain_NT, 1, keepdims=True)
        self.plain_NT = np.where(np.isfinite(self.plain_NT), self.plain_NT, usual_N1)
        texts = [values for values in window.static.values() if values.dtype == object]
        self.codes = [np.unique(one.astype(str), return_inverse=True)[1] for one in texts]

    def features(self, origin: int, step: int) -> tuple[Floats, Floats]:
        """Features of a step after an origin, and what the answer is added to: [N, K], [N]."""
        at = origin + step
        base_N = self.plain_NT[:, max(origin - 13, 0) : origin].mean(1)
        columns = [
            *self._step(origin, step),
            *self._levels(origin, at, base_N),
            *self._calendar(at),
            *self._told(origin, at),
            *self.codes,
        ]
        return np.stack(columns, -1), base_N + self.effect_NS[:, at]

    def _step(self, origin: int, step: int) -> list[Floats]:
        """How far ahead, what the regression says there, and how much the series moves."""
        effect_N = self.effect_NS[:, origin + step]
        lately_NT = self.plain_NT[:, max(origin - 26, 0) : origin]
        return [np.full_like(effect_N, step), effect_N, lately_NT.std(1)]

    def _levels(self, origin: int, at: int, base_N: Floats) -> list[Floats]:
        """Levels off the base, last year's, how often nothing sold, the base, and all series'."""
        past_NT = self.plain_NT[:, :origin]
        means = [past_NT[:, -weeks:].mean(1) - base_N for weeks in (1, 2, 4, 8, 26, origin)]
        if 52 <= at < origin + 52:
            ago_N = past_NT[:, at - 52] - base_N
        else:
            ago_N = np.full_like(base_N, np.nan)
        sold_NT = self.window.target_NT[:, max(origin - 26, 0) : origin]
        zeros_N = (sold_NT == 0).mean(1)
        # Weeks that were good for everybody are told by all series together.
        common = [np.full_like(base_N, one.mean()) for one in means[:3]]
        return [*means, ago_N, zeros_N, base_N, *common]

    def _calendar(self, at: int) -> list[Floats]:
        """Where in the year a step is, as a place on a circle."""
        day_N = self.window.time_ms_NS[:, at] / 86_400_000.0
        angle_N = 2 * np.pi * day_N / 365.25
        return [np.sin(angle_N), np.cos(angle_N)]

    def _told(self, origin: int, at: int) -> list[Floats]:
        """Covariates of the step, of the one before, and how far the usual ones are from it."""
        here_NK = self.told_NSK[:, at]
        before_NK = self.told_NSK[:, at - 1]
        usual_NK = self.told_NSK[:, max(origin - 13, 0) : origin].mean(1)
        return [*here_NK.T, *before_NK.T, *(usual_NK - here_NK).T]

    def lessons(self) -> tuple[Floats, Floats, Floats]:
        """Features, what came, and weights of at most ROWS rows."""
        rng = np.random.default_rng(0)
        T, H, N = self.window.context_length, self.window.horizon, len(self.window)
        pairs = [(origin, step) for origin in range(6, T) for step in range(min(H, T - origin))]
        # Three times as many rows as are kept, since some have no answer.
        num_pairs = max(3 * ROWS // N, 1)
        chosen = rng.permutation(len(pairs))[:num_pairs]
        parts = [self._lesson(*pairs[place]) for place in chosen]
        rows = np.concatenate(parts)
        rows = rows[np.isfinite(rows[:, 0])]
        kept = rng.permutation(len(rows))[:ROWS]
        rows = rows[kept]
        return rows[:, 2:], rows[:, 0], rows[:, 1]

    def _lesson(self, origin: int, step: int) -> Floats:
        """What came, its weight, and features, of all series at a step after an origin."""
        features_NK, base_N = self.features(origin, step)
        came_N = self.log_NT[:, origin + step] - base_N
        weeks_ago = self.window.context_length - origin
        weight_N = np.full(len(came_N), 0.5 ** (weeks_ago / 39.0))
        return np.column_stack([came_N, weight_N, features_NK])

    def forecast(self) -> Floats:
        features_XK, came_X, weight_X = self.lessons()
        K, T = features_XK.shape[1], self.window.context_length
        codes = list(range(K - len(self.codes), K))
        data = lightgbm.Dataset(features_XK, came_X, weight=weight_X, categorical_feature=codes)
        ahead = [self.features(T, step) for step in range(self.window.horizon)]
        columns = []
        for level in LEVELS:
            trees = lightgbm.train({**PARAMETERS, "alpha": level}, data, TREES)
            made = [base_N + trees.predict(one_NK, num_threads=1) for one_NK, base_N in ahead]
            columns.append(np.expm1(np.stack(made, 1)))
        # Trees of each level are on their own, and their quantiles may cross.
        quantiles_NHQ = np.sort(np.stack(columns, -1), -1)
        return np.asarray(np.maximum(quantiles_NHQ, 0.0))
