"""Ridge regression on features of steps ahead.

Dimensions: X rows, K features, V values of a feature that names something.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    design = Design.of(lessons)
    inputs_XK = design(lessons.features_XK)
    # Squares count one day of a hundred times the usual more than all others together.
    low, high = np.quantile(lessons.target_X, OUTLIERS)
    target_X = lessons.target_X.clip(low, high)
    # (X'X + penalty) w = X'y: without the penalty, columns that are alike have no one answer.
    penalty_KK = RIDGE * np.eye(inputs_XK.shape[1])
    products_KK = inputs_XK.T @ inputs_XK + penalty_KK
    weights_K = np.linalg.solve(products_KK, inputs_XK.T @ target_X)

    def answer(features_XK: Singles) -> Floats:
        return np.asarray(design(features_XK) @ weights_K)

    return answer


@dataclass(frozen=True, slots=True)
class Design:
    """Features as a regression can take them, on the scale they had in the lessons.

    Attributes:
        middle_K: mean of each feature.
        spread_K: spread of each feature, 1 where it never changes.
        values: for features that name something, by their number, the values that get a flag each.
    """

    middle_K: Floats
    spread_K: Floats
    values: dict[int, Singles]

    @classmethod
    def of(cls, lessons: Lessons) -> Design:
        """Scales and values as they are in the lessons."""
        features_XK = lessons.features_XK
        middle_K = np.nan_to_num(_nan_mean(features_XK))
        square_K = _nan_mean((features_XK - middle_K) ** 2)
        spread_K = np.sqrt(square_K)
        spread_K = np.where(spread_K > 0, spread_K, 1.0)
        values = {}
        for column, name in enumerate(lessons.names):
            if name in NAMES_OF_THINGS:
                found_V = np.unique(features_XK[:, column])
                values[column] = found_V[:MOST_VALUES]
        return cls(middle_K, spread_K, values)

    def __call__(self, features_XK: Singles) -> Floats:
        """A one, the scaled features, and the flags of those that name something: [X, K]."""
        ones_X1 = np.ones((len(features_XK), 1))
        # Unknown is the mean; new values may lie far outside of what was learnt from.
        scaled_XK = (features_XK - self.middle_K) / self.spread_K
        scaled_XK = np.nan_to_num(scaled_XK).clip(-4, 4)
        flags = []
        for column, found_V in self.values.items():
            value_X1 = features_XK[:, column, None]
            flags.append(value_X1 == found_V)
        return np.concatenate([ones_X1, scaled_XK, *flags], 1).astype(np.float64)


def _nan_mean(values_XK: Reals) -> Floats:
    """Mean of each column's finite values, 0 without any: [K]."""
    seen_XK = np.isfinite(values_XK)
    filled_XK = np.where(seen_XK, values_XK, 0.0)
    sums_K: Floats = filled_XK.sum(0, dtype=np.float64)
    count_K = np.maximum(seen_XK.sum(0), 1)
    return np.asarray(sums_K / count_K)
