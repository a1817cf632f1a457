"""Gradient-boosted trees (LightGBM) on features of steps ahead.

The three models that answer together differ: the second draws its splits at random, the third looks
at typical rather than mean errors. Dimensions: X rows, K features.
"""

from __future__ import annotations

import numpy as np

from freshet.model.baselines.learner import Answer, FeatureLearner, Lessons
from freshet.stream.arrays import Floats, Singles

TREES = 120
SETTINGS = {
    "learning_rate": 0.08,
    "num_leaves": 31,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 127,
    "verbosity": -1,
    # Worker processes share the cores already, and two threads that wait for each other are
    # slower than one.
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
}
VARIANTS = ({"objective": "l2"}, {"objective": "l2", "extra_trees": True}, {"objective": "l1"})
OUTLIERS = (0.001, 0.999)


def make(name: str) -> FeatureLearner:
    """The only one."""
    return FeatureLearner(name, train)


def train(lessons: Lessons, fold: int) -> Answer:
    """Trees for one fold's lessons."""
    import lightgbm

    low, high = np.quantile(lessons.target_X, OUTLIERS)
    data = lightgbm.Dataset(
        lessons.features_XK, lessons.target_X.clip(low, high), free_raw_data=True
    )
    leaf = int(np.clip(len(lessons.target_X) // 500, 5, 200))
    settings = SETTINGS | VARIANTS[fold % len(VARIANTS)] | {"seed": fold, "min_data_in_leaf": leaf}
    booster = lightgbm.train(settings, data, TREES)

    def answer(features_XK: Singles) -> Floats:
        return np.asarray(booster.predict(features_XK), np.float64)

    return answer
