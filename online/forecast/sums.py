"""Quantiles of what sells over the first steps together, for each forecast record.

How a forecast's steps move together depends on the shop, its resolution and the weights. It is
learnt from the shop itself: from what the weights that serve would have forecast one horizon ago,
and what came. Where two versions serve it is learnt by the default's, of all items: the other one
descends from it, and how steps move together is the shop's more than the weights'.

Dimensions: B rows, H horizon steps, Q quantile levels, K sums, W wire levels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from freshet.model.quantiles.cumulative import Paths
from freshet.model.quantiles.dependence import (
    WITHOUT_HISTORY,
    Dependence,
    default_dependence,
    estimate_dependence,
)
from freshet.model.quantiles.marginal import whole_rows
from freshet.online.forecast.context import Contexts
from freshet.online.weights.loaded import LoadedWeights

# Sums are published over so many first steps and over the whole horizon: dense early, where orders
# are due.
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
LEARN_ROWS = 128  # of a look back, spread over all items
LEARN_EVERY = 24  # rounds between two looks back


class StepSums:
    """Makes the sums of one worker's forecasts, with paths that are kept from round to round.

    Args:
        resolution_ms: Length of a step.
        prediction_length: H.
    """

    def __init__(self, resolution_ms: int, prediction_length: int) -> None:
        self.steps = [*(step for step in STEPS if step < prediction_length), prediction_length]
        self.dependence = default_dependence(resolution_ms)
        self._prediction_length = prediction_length
        self._made: dict[tuple[Dependence, tuple[float, ...]], Paths] = {}
        self._learnt_from = ""
        self._rounds = 0

    def quantiles(
        self,
        target_BT: Tensor,
        quantiles_BHQ: Tensor,
        quantile_levels: tuple[float, ...],
        *,
        steps: list[int] | None = None,
    ) -> Tensor:
        """Quantiles of the sums over the first steps, at the same levels: [B, K, Q].

        Args:
            target_BT: The contexts: rows that sold whole units only will do so, and those without
                any are all unsure.
            quantiles_BHQ: Their forecasts.
            quantile_levels: Q rising probabilities.
            steps: Over how many; None for the usual ones.
        """
        steps = self.steps if steps is None else steps
        whole_B = whole_rows(target_BT)
        begun_B = torch.isfinite(target_BT).any(1)
        B, _, Q = quantiles_BHQ.shape
        found_BKQ = quantiles_BHQ.new_empty(B, len(steps), Q)
        for dependence, rows_B in ((self.dependence, begun_B), (WITHOUT_HISTORY, ~begun_B)):
            if bool(rows_B.any()):
                paths = self._paths(dependence, quantile_levels)
                found_BKQ[rows_B] = paths.cumulative(quantiles_BHQ[rows_B], steps, whole_B[rows_B])
        return found_BKQ

    def learn(self, contexts: Contexts, weights: LoadedWeights, cutoff_ms: int) -> bool:
        """Count a round, and look back at the first one, after a swap, and now and then.

        Looking back costs about one micro-batch, so it belongs after a round's forecasts are out.
        Returns whether it did.
        """
        self._rounds += 1
        learnt = self._learnt_from == weights.version and self._rounds <= LEARN_EVERY
        if learnt or not contexts.item_ids:
            return False
        self._learnt_from = weights.version
        self._rounds = 0
        self.dependence = self._look_back(contexts, weights, cutoff_ms)
        self._made.clear()
        return True

    def _look_back(self, contexts: Contexts, weights: LoadedWeights, cutoff_ms: int) -> Dependence:
        """What would have been forecast one horizon ago, held against what came."""
        H = self._prediction_length
        # Rows evenly spread over all items; fewer where there are fewer.
        spread = np.linspace(0, len(contexts.item_ids) - 1, LEARN_ROWS)
        rows = np.unique(spread.round().astype(np.int64))
        batch = contexts.batch(rows, contexts.before(cutoff_ms, H))
        quantiles_BHQ = weights.forecaster.forecast(batch).cpu()
        actual_BH = torch.from_numpy(contexts.target(rows, cutoff_ms, H)).float()
        # Rows without history would teach how unsure everybody is, not how steps move together.
        begun_B = torch.isfinite(batch.target_BT).any(1).cpu()
        # What was learnt before counts as much as this look: one cutoff shows the same day to all
        # items.
        return estimate_dependence(
            actual_BH[begun_B],
            quantiles_BHQ[begun_B],
            weights.forecaster.quantile_levels,
            prior=self.dependence,
            prior_rows=LEARN_ROWS,
        )

    def _paths(self, dependence: Dependence, quantile_levels: tuple[float, ...]) -> Paths:
        """Drawn once for each dependence, since that costs more than their use."""
        key = (dependence, quantile_levels)
        if key not in self._made:
            self._made[key] = Paths(dependence, quantile_levels, self._prediction_length)
        return self._made[key]
