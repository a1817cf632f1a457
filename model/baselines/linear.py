"""Ridge regression on features of steps ahead.

Dimensions: X rows, K features, V values of a feature that names something.
"""

from __future__ import annotations

import numpy as np

from freshet.model.baselines.learner import Answer, FeatureLearner, Lessons
from freshet.stream.arrays import Floats, Reals, Singles

RIDGE = 30.0  # in rows; features are on one scale
# Features whose numbers mean no amount: a column for each value.
NAMES_OF_THINGS = ("weekday", "hour", "month")
MOST_VALUES = 24
OUTLIERS = (0.001, 0.999)


def make(name: str) -> FeatureLearner:
    """The only one."""
    return FeatureLearner(name, train)


def train(lessons: Lessons, fold: int) -> Answer:
    """The regression for one fold's lessons; `fold` changes nothing else."""
    named = [column for column, name in enumerate(lessons.names) if name in NAMES_OF_THINGS]
    values = {column: np.unique(lessons.features_XK[:, column])[:MOST_VALUES] for column in named}
    middle_K = np.nan_to_num(_nan_mean(lessons.features_XK))
    spread_K = np.sqrt(_nan_mean((lessons.features_XK - middle_K) ** 2))
    spread_K = np.where(spread_K > 0, spread_K, 1.0)

    def columns(features_XK: Singles) -> Floats:
        # Unknown is the mean; new values may lie far outside of what was learnt from.
        scaled_XK = np.nan_to_num((features_XK - middle_K) / spread_K).clip(-4, 4)
        flags = [(features_XK[:, column, None] == found_V) for column, found_V in values.items()]
        ones_X1 = np.ones((len(scaled_XK), 1))
        return np.concatenate([ones_X1, scaled_XK, *flags], 1).astype(np.float64)

    inputs_XK = columns(lessons.features_XK)
    low, high = np.quantile(lessons.target_X, OUTLIERS)
    penalty_KK = RIDGE * np.eye(inputs_XK.shape[1])
    # (X'X + penalty) w = X'y: without the penalty, columns that are alike have no one answer.
    products_KK = inputs_XK.T @ inputs_XK + penalty_KK
    weights_K = np.linalg.solve(products_KK, inputs_XK.T @ lessons.target_X.clip(low, high))
    return lambda features_XK: np.asarray(columns(features_XK) @ weights_K)


def _nan_mean(values_XK: Reals) -> Floats:
    """Mean of each column's finite values, 0 without any: [K]."""
    seen_XK = np.isfinite(values_XK)
    sums_K: Floats = np.where(seen_XK, values_XK, 0.0).sum(0, dtype=np.float64)
    return np.asarray(sums_K / np.maximum(seen_XK.sum(0), 1))
