"""How many units a view brings: conversion, forecast beside the units by the same network.

A step's own ratio of units to views is mostly chance where views are few. So each step of the past
gets the mean of what its rate may have been: units are Poisson around views times a rate, rates are
gamma around the row's usual one, and how wide is told from the row (empirical Bayes, Robbins 1956,
by moments). These rates are a series like any other, with the same calendar and the same known
covariates: one more row of the same network. Each row stands alone.

Dimensions: B rows, T context steps, H horizon steps, P past slots, Q quantile levels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from freshet.model.batch import PAST_SLOTS, Batch
from freshet.model.effects.shared import CONTINUOUS_MEAN
from freshet.model.forecaster import BatchForecaster

VIEWS = PAST_SLOTS.index("views")
IN_STOCK = PAST_SLOTS.index("in_stock")
# Units per view of shops, and how many of a row's own views weigh as much.
TYPICAL = 0.03
TYPICAL_VIEWS = 30.0
MAX_PRIOR_VIEWS = 1e6  # against so many a step's own ratio says nothing


def conversion(forecaster: BatchForecaster, batch: Batch) -> Tensor:
    """Quantiles of units per view at every step: float32 [B, H, Q], sorted and >= 0.

    They are of the rate behind the sales, not of a step's own ratio, which chance moves further the
    fewer views it has. A row without a view is NaN.

    Args:
        forecaster: forecasts the rates.
        batch: contexts with views in their past slot; known covariates count.

    Raises:
        InvalidInputError: the batch cannot be forecast.
    """
    rates_BT, usual_B = conversion_rates(batch.validate())
    # Rates are far below the unit of a count, where the network sees no difference.
    factor_B = CONTINUOUS_MEAN / usual_B
    target_BT = rates_BT * factor_B[:, None]

    # What clicks have to say is in the rates.
    past_BTP = torch.full_like(batch.past_BTP, torch.nan)
    past_BTP[..., IN_STOCK] = batch.past_BTP[..., IN_STOCK]
    asked = replace(batch, target_BT=target_BT, past_BTP=past_BTP, own_B=None, pooled_BHQ=None)
    quantiles_BHQ = forecaster.forecast(asked)

    any_view_B = torch.isfinite(rates_BT).any(1)
    scale_B = torch.where(any_view_B, factor_B, torch.nan)
    scale_B11 = scale_B.to(quantiles_BHQ)[:, None, None]
    return quantiles_BHQ / scale_B11


def conversion_rates(batch: Batch) -> tuple[Tensor, Tensor]:
    """What the rate of each step may have been: [B, T]; and the row's usual one: [B].

    NaN without views or units.
    """
    views_BT = batch.past_BTP[..., VIEWS].double()
    units_BT = batch.target_BT.double()
    viewed_BT = (views_BT > 0) & torch.isfinite(views_BT)
    seen_BT = viewed_BT & torch.isfinite(units_BT)
    views_BT = torch.where(seen_BT, views_BT, 0.0)
    units_BT = torch.where(seen_BT, units_BT, 0.0)

    # The row's usual rate, with a few typical views beside its own: a row of three views that sold
    # nothing still may sell.
    total_B = views_BT.sum(1)
    sold_B = units_BT.sum(1) + TYPICAL * TYPICAL_VIEWS
    usual_B = sold_B / (total_B + TYPICAL_VIEWS)
    usual_B1 = usual_B[:, None]

    # E (units - views * usual)^2 = usual * views + spread * views^2: chance, and how far rates
    # differ.
    error_BT = units_BT - views_BT * usual_B1
    chance_B = usual_B * total_B
    beyond_B = (error_BT.square().sum(1) - chance_B).clamp(min=0.0)
    spread_B = beyond_B / views_BT.square().sum(1).clamp(min=1.0)

    # A gamma prior around the usual rate, as so many views of it: many where rates hardly differ.
    prior_views_B = usual_B / spread_B.clamp(min=1e-12)
    prior_views_B1 = prior_views_B.clamp(max=MAX_PRIOR_VIEWS)[:, None]
    units_with_prior_BT = units_BT + prior_views_B1 * usual_B1
    rates_BT = units_with_prior_BT / (views_BT + prior_views_B1)
    rates_BT = torch.where(seen_BT, rates_BT, torch.nan)
    return rates_BT.float(), usual_B.float()
