"""A forecast taken apart: exact Shapley values over groups of what the network was told.

Every combination of groups is forecast, in one batch: 256 rows for eight of them, and there are at
most eleven.
Dimensions: B rows (one for each combination), H horizon steps, G groups, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from freshet.model.batch import Batch
from freshet.model.explain.groups import SLOTS_ALONE, Group, Hide, Meaning, groups_of
from freshet.model.explain.row import Forecasts, chosen_steps, level_columns, one_row
from freshet.stream.arrays import Floats

LEVELS = (0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one group adds to the forecast of the chosen steps.

    Attributes:
        group: which inputs.
        units_L: units it adds to the summed quantiles at each level.
        steps_HL: the same step by step, over the whole horizon.
    """

    group: Group
    units_L: Floats
    steps_HL: Floats

    def as_dict(self) -> dict[str, Any]:
        """The same for machines."""
        group = self.group
        return {"group": group.key, "words": group.words, "units": self.units_L.tolist()}


@dataclass(frozen=True, slots=True)
class Shapley:
    """A forecast taken apart: `full_L` = `empty_L` + the sum of all contributions.

    Attributes:
        levels: L probabilities, the median first.
        steps: the chosen steps of the horizon.
        resolution_ms: length of a step.
        empty_L: summed quantiles when the network knows nothing but the calendar.
        full_L: summed quantiles when it knows all of it.
        contributions: one for each group with something in it, the largest first.
    """

    levels: tuple[float, ...]
    steps: range
    resolution_ms: int
    empty_L: Floats
    full_L: Floats
    contributions: tuple[Contribution, ...]


def shapley(
    forecaster: Forecasts,
    batch: Batch,
    row: int,
    *,
    steps: range | None = None,
    factor: float = 1.0,
    meaning: Meaning = SLOTS_ALONE,
) -> Shapley:
    """Take the forecast of one row apart, exactly: every combination of its groups is forecast.

    A group's share is what it adds, averaged over all orders in which the network could have been
    told (Shapley 1953): the only shares that add up and treat alike what does alike. Those at the
    upper level are of the sum of the steps' upper quantiles, which is more than the upper quantile
    of the sum. The row is explained alone: related rows of its group are left out.

    Args:
        forecaster: forecasts the combinations, in one call.
        batch: holds the row.
        row: which one.
        steps: of the horizon, from 0; default all.
        factor: units of the batch that make one unit of the reader.
        meaning: what the row's slots hold, where a table tells.

    Raises:
        InvalidInputError: the steps are not within the horizon, or a level is not forecast.
    """
    one = one_row(batch, row)
    steps = chosen_steps(steps, one.prediction_length)
    columns = level_columns(forecaster.quantile_levels, LEVELS)
    groups = groups_of(one, meaning)
    coalitions = all_coalitions(one, [hide for _, hide in groups])
    value_BHL = forecaster.forecast(coalitions)[..., columns].double().cpu().numpy() / factor
    here = slice(steps.start, steps.stop)
    contributions = [
        Contribution(group, steps_HL[here].sum(0), steps_HL)
        for (group, _), steps_HL in zip(groups, shapley_values(value_BHL), strict=True)
    ]
    contributions.sort(key=lambda found: -abs(found.units_L[0]))
    empty_L, full_L = value_BHL[0, here].sum(0), value_BHL[-1, here].sum(0)
    return Shapley(LEVELS, steps, one.resolution_ms, empty_L, full_L, tuple(contributions))


def shapley_values(value_BX: Floats) -> Floats:
    """Shapley values of G players from what every coalition is worth: [G, ...].

    Args:
        value_BX: worth of the 2**G coalitions; player g belongs to coalition b where bit g of b is
            set.

    >>> shapley_values(np.array([0.0, 10.0, 20.0, 60.0])).tolist()
    [25.0, 35.0]
    """
    num_groups = len(value_BX).bit_length() - 1
    coalition_B = np.arange(len(value_BX))
    size_B = np.array([number.bit_count() for number in range(len(value_BX))])
    # In how many orders of all players exactly n others come before one: that is how often its gain
    # over a coalition of n counts.
    orders_N = np.array(
        [math.factorial(n) * math.factorial(num_groups - 1 - n) for n in range(num_groups)],
        np.float64,
    )
    found = []
    for group in range(num_groups):
        without = coalition_B[(coalition_B >> group) & 1 == 0]
        gain_BX = value_BX[without | 1 << group] - value_BX[without]
        share_B = orders_N[size_B[without]] / math.factorial(num_groups)
        found.append(np.tensordot(share_B, gain_BX, 1))
    return np.array(found) if found else np.zeros((0, *value_BX.shape[1:]))


def all_coalitions(one: Batch, hides: Sequence[Hide]) -> Batch:
    """2**G copies of a single row; in copy b those groups are missing whose bit of b is not set."""
    rows = torch.arange(2 ** len(hides))
    batch = one.rows(torch.zeros_like(rows))
    for bit, hide in enumerate(hides):
        hide(batch, (rows >> bit) & 1 == 0)
    return batch
