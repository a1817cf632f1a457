"""Integrated gradients: which past sales and known covariates carry a forecast, step by step.

Dimensions: R points on the path, T context steps, H horizon steps, S = T + H, K known slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from freshet.model.batch import KNOWN_SLOTS, Batch
from freshet.model.explain.row import chosen_steps, level_columns, one_row
from freshet.model.features import from_z
from freshet.model.forecaster import BatchForecaster, newest, padded
from freshet.stream.arrays import Floats

# Of a Gauss-Legendre sum, which misses less than a percent in most rows, and some where a period is
# found on the way.
NUM_POINTS = 24


@dataclass(frozen=True, slots=True)
class Gradients:
    """What each number that the network saw adds, against a history in which nothing ever sold.

    Attributes:
        target_T: units that each past bucket's sales add; NaN where sales are missing or too old to
            be seen.
        known_SK: the same for known covariates in the order of KNOWN_SLOTS, against their neutral
            values.
        full: the forecast that is explained, before what is less than a tenth of a unit becomes
            none.
        empty: the forecast at the other end of the path.
        gap: `full` - `empty` less the sum of all of it: 0 when the integral is exact.
    """

    target_T: Floats
    known_SK: Floats
    full: float
    empty: float
    gap: float


def integrated_gradients(
    forecaster: BatchForecaster,
    batch: Batch,
    row: int,
    *,
    steps: range | None = None,
    factor: float = 1.0,
) -> Gradients:
    """Attribute the summed median of some steps to numbers of the past and of the plan.

    The path (Sundararajan et al. 2017) runs straight from a history of zeros and neutral covariates
    to the row as it is; what is missing stays missing all along, so it gets nothing. A price's
    neutral value is 1, that of free covariates their mean, that of all others 0; which steps are
    closed does not change.

    Args:
        forecaster: computes gradients through its network.
        batch: holds the row.
        row: which one.
        steps: of the horizon, from 0; default all.
        factor: units of the batch that make one unit of the reader.

    Raises:
        InvalidInputError: there is no such row, or the steps are not within the horizon.
    """
    from captum.attr import IntegratedGradients

    one = one_row(batch, row)
    steps = chosen_steps(steps, one.prediction_length)
    fitted = _fitted(forecaster, one).to(forecaster.device)
    path = _Path(forecaster, fitted, slice(steps.start, steps.stop), factor)
    full_end = torch.nan_to_num(fitted.target_BT), torch.nan_to_num(fitted.known_BSK)
    empty_end = torch.zeros_like(fitted.target_BT), _neutral(fitted.known_BSK)
    found_1T, found_1SK = IntegratedGradients(path.forecast).attribute(
        full_end, empty_end, n_steps=NUM_POINTS, method="gausslegendre"
    )
    # What does not move along the path adds nothing, whatever its gradient is.
    found_1T = torch.where(full_end[0] == empty_end[0], 0.0, found_1T)
    found_1SK = torch.where(full_end[1] == empty_end[1], 0.0, found_1SK)
    with torch.no_grad():
        full, empty = float(path.forecast(*full_end)), float(path.forecast(*empty_end))
    gap = full - empty - float(found_1T.double().sum() + found_1SK.double().sum())
    sales_1T = found_1T.masked_fill(fitted.target_BT.isnan(), math.nan)
    target_T = _back(sales_1T[0], one.context_length, fitted.context_length)
    known_SK = _back(found_1SK[0], one.context_length, fitted.context_length)
    return Gradients(target_T, known_SK[: one.known_BSK.shape[1]], full, empty, gap)


@dataclass(frozen=True, slots=True)
class _Path:
    """What is forecast at the points between a history of nothing and the row as it is."""

    forecaster: BatchForecaster
    fitted: Batch
    steps: slice
    factor: float

    def forecast(self, target_RT: Tensor, known_RSK: Tensor) -> Tensor:
        """The summed median at each point: [R]."""
        rows = torch.zeros(len(target_RT), dtype=torch.int64, device=target_RT.device)
        points = replace(
            self.fitted.rows(rows),
            target_BT=torch.where(self.fitted.target_BT.isnan(), math.nan, target_RT),
            known_BSK=torch.where(self.fitted.known_BSK.isnan(), math.nan, known_RSK),
        )
        with saved_tensors_hooks(_without_nan, lambda kept: kept):
            found = self.forecaster.network(*points.arguments())
        # Without the jump to 0 below a tenth of a unit, of which no gradient knows.
        units_RHQ = from_z(found.z_BHQ.sort(-1).values, found.scaling).clamp(min=0.0)
        (median,) = level_columns(self.forecaster.quantile_levels, (0.5,))
        return units_RHQ[:, self.steps, median].sum(1) / self.factor


def _without_nan(kept: Tensor) -> Tensor:
    # What is missing is masked somewhere behind the place where it was read, so its gradient is
    # zero. Autograd, which multiplies that zero by the NaN it kept from there, would make all of it
    # NaN.
    return torch.nan_to_num(kept) if kept.is_floating_point() else kept


def _fitted(forecaster: BatchForecaster, one: Batch) -> Batch:
    """As much context and horizon as the network's patches need."""
    patch = int(forecaster.network.config.patch_length)
    horizon = one.prediction_length
    one = newest(one, forecaster.context_length)
    return padded(one, left=-one.context_length % patch, right=-horizon % patch)


def _neutral(known_1SK: Tensor) -> Tensor:
    """Values at which known covariates say nothing, 0 where they are missing."""
    neutral_1SK = torch.zeros_like(known_1SK)
    for slot, name in enumerate(KNOWN_SLOTS):
        values_1S = known_1SK[..., slot]
        if name == "price_ratio":
            neutral_1SK[..., slot] = 1.0
        elif name == "closed":
            neutral_1SK[..., slot] = values_1S
        elif name.startswith("free"):
            neutral_1SK[..., slot] = values_1S.nanmean(1, keepdim=True)
    still_1SK = (known_1SK - neutral_1SK).abs() < 1e-6
    # Where it is neutral up to rounding, the path has no length at all.
    neutral_1SK = torch.where(known_1SK.isnan(), 0.0, neutral_1SK)
    return torch.nan_to_num(torch.where(still_1SK, known_1SK, neutral_1SK))


def _back(values_X: Tensor, context: int, fitted_context: int) -> Floats:
    """Steps of the row itself: padding leaves, what was cut off comes back as NaN."""
    found = values_X.double().cpu().numpy()
    if fitted_context >= context:
        return found[fitted_context - context :]
    older = np.full((context - fitted_context, *found.shape[1:]), np.nan)
    return np.concatenate([older, found])
