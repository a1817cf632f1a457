"""Several models as one: the mean of their quantiles, level by level.

Where two models err in different ways their mean may err less than either, and averaging quantiles,
unlike averaging probabilities, widens no fan (Lichtendahl et al. 2013, "Is it better to average
probabilities or quantiles?").

Dimensions: N series, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from freshet.model.baselines import Model
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats


class Averaged:
    """The models whose names are joined by "+" in its own, each with the same weight."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = tuple(models)
        self.name = "+".join(model.name for model in self.models)
        self.needs_fit = any(model.needs_fit for model in self.models)

    def fit(self, window: Window) -> None:
        """Fit those that learn."""
        for model in self.models:
            if model.needs_fit:
                model.fit(window)

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """The mean of all models' quantiles: [N, H, Q]."""
        mean_NHQ: Floats = np.mean([model.predict(window, levels) for model in self.models], axis=0)
        return mean_NHQ
