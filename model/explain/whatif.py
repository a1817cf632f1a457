"""The same item with and without a promotion that is not decided yet: what it adds, how surely.

Nobody sees both worlds, so how they hang together must be assumed. Both are run along the same
paths: a day that is good without the promotion is good with it. Taking that for certain would make
the gain too sure, taking the worlds as strangers would drown it in noise that both share. If demand
with the promotion is demand without it times an effect that is not known exactly, places in the two
correlate by the ratio of their relative spreads; that is used, step by step, and the two extremes
are told beside it.

Dimensions: H horizon steps, S = context + H, K known slots, Q quantile levels, N paths, P levels of
RANGE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, Batch
from freshet.model.explain.plan import PlannedPromotion
from freshet.model.explain.row import Forecasts, chosen_steps, level_columns, one_row
from freshet.model.explain.words import number, span, units
from freshet.model.quantiles.cumulative import Paths, path_quantiles
from freshet.model.quantiles.dependence import default_dependence
from freshet.model.quantiles.marginal import whole_rows
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError

RANGE = (0.1, 0.5, 0.9)
NUM_PATHS = 4096
SAME = 0.999  # relative spreads this near to each other are one

PRICE, PROMOTION, DISCOUNT = (
    KNOWN_SLOTS.index(name) for name in ("price_ratio", "promotion", "discount")
)


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Two worlds of one item, in units; the last dimension holds the 10, 50 and 90 % quantiles.

    Attributes:
        promotion: what is tried.
        resolution_ms: length of a step.
        with_HP: each step with it.
        without_HP: each step without it.
        uplift_HP: each step's difference.
        with_P: sum over the promotion's steps with it.
        without_P: the same without it.
        uplift_P: their difference.
        uplift_all_P: difference of the sums over the whole horizon: what is bought earlier is
            missed later.
        surest_P: `uplift_P` if both worlds were good and bad together for certain.
        loosest_P: `uplift_P` if they were strangers.
    """

    promotion: PlannedPromotion
    resolution_ms: int
    with_HP: Floats
    without_HP: Floats
    uplift_HP: Floats
    with_P: Floats
    without_P: Floats
    uplift_P: Floats
    uplift_all_P: Floats
    surest_P: Floats
    loosest_P: Floats

    def sentence(self) -> str:
        """What a merchant wants to know, in words."""
        low, middle, high = self.uplift_P
        discount = self.promotion.discount
        what = f"{100 * discount:.0f} % off" if discount else "A promotion"
        share = f" ({100 * middle / self.without_P[1]:+.0f} %)" if self.without_P[1] > 0 else ""
        when = span(self.promotion.steps, self.resolution_ms).removeprefix("the next ")
        return (
            f"{what} for {when} would sell about {units(self.with_P[1])} instead of "
            f"{number(self.without_P[1])}: {number(abs(middle))} "
            f"{'more' if middle >= 0 else 'fewer'}{share}, four times in five between "
            f"{number(low)} and {number(high)}."
        )

    def as_dict(self) -> dict[str, Any]:
        """The same for machines; steps count from 1."""
        arrays = {
            "with_by_step": self.with_HP,
            "without_by_step": self.without_HP,
            "uplift_by_step": self.uplift_HP,
            "with": self.with_P,
            "without": self.without_P,
            "uplift": self.uplift_P,
            "uplift_all": self.uplift_all_P,
            "surest": self.surest_P,
            "loosest": self.loosest_P,
        }
        return {
            "steps": [self.promotion.steps.start + 1, self.promotion.steps.stop],
            "discount": self.promotion.discount,
            "levels": list(RANGE),
            **{name: values.round(6).tolist() for name, values in arrays.items()},
            "text": self.sentence(),
        }


def what_if(
    forecaster: Forecasts,
    batch: Batch,
    row: int,
    promotion: PlannedPromotion,
    *,
    factor: float = 1.0,
) -> WhatIf:
    """Forecast a row with and without a promotion in some steps of its horizon.

    The slots promotion, discount and (where the row has prices) price_ratio are set in those steps
    in both worlds; everything else stays. Where a shop's own columns or shared effects depend on
    its promotions, build the two batches from its table and use `compare`.

    Raises:
        InvalidInputError: there is no such row, or the steps are not within the horizon.
    """
    one = one_row(batch, row)
    steps = chosen_steps(promotion.steps, one.prediction_length)
    with_1 = planned_row(one, steps, 1.0, promotion.discount)
    without_1 = planned_row(one, steps, 0.0, 0.0)
    return compare(forecaster, with_1, without_1, promotion, factor=factor)


def planned_row(one: Batch, steps: range, flag: float, discount: float) -> Batch:
    """A single row with another plan for some steps of its horizon."""
    known_1SK = one.known_BSK.clone()
    within = slice(one.context_length + steps.start, one.context_length + steps.stop)
    known_1SK[:, within, PROMOTION] = flag
    known_1SK[:, within, DISCOUNT] = discount
    if bool(torch.isfinite(known_1SK[..., PRICE]).any()):
        known_1SK[:, within, PRICE] = 1.0 - discount
    return replace(one, known_BSK=known_1SK)


def compare(
    forecaster: Forecasts,
    with_1: Batch,
    without_1: Batch,
    promotion: PlannedPromotion,
    *,
    factor: float = 1.0,
) -> WhatIf:
    """Compare two batches of the same single row, which differ in what is planned.

    Args:
        forecaster: forecasts both.
        with_1: the world with the promotion.
        without_1: the one without it.
        promotion: what it is and when.
        factor: units of the batches that make one unit of the reader.

    Raises:
        InvalidInputError: the batches are not one row each with the same horizon.
    """
    _check_worlds(with_1, without_1)
    steps = chosen_steps(promotion.steps, with_1.prediction_length)
    pair = [forecaster.forecast(world).cpu() / factor for world in (with_1, without_1)]
    pair_2HQ = torch.cat(pair)
    # An amount that stands for several units is no longer a whole number.
    whole_1 = whole_rows(with_1.target_BT) & (factor == 1)
    worlds = _Worlds(pair_2HQ, forecaster.quantile_levels, with_1.resolution_ms, whole_1)
    alike_H = likeness(pair_2HQ, forecaster.quantile_levels)
    with_HN, without_HN = worlds.run(alike_H)
    here = slice(steps.start, steps.stop)
    return WhatIf(
        promotion=promotion,
        resolution_ms=with_1.resolution_ms,
        with_HP=_range(with_HN),
        without_HP=_range(without_HN),
        uplift_HP=_range(with_HN - without_HN),
        with_P=_range(with_HN[here].sum(0)),
        without_P=_range(without_HN[here].sum(0)),
        uplift_P=_range((with_HN - without_HN)[here].sum(0)),
        uplift_all_P=_range((with_HN - without_HN).sum(0)),
        surest_P=worlds.uplift(here, [1.0] * len(alike_H)),
        loosest_P=worlds.uplift(here, [0.0] * len(alike_H)),
    )


def _check_worlds(with_1: Batch, without_1: Batch) -> None:
    alone = len(with_1) == len(without_1) == 1
    if not alone or with_1.known_BSK.shape != without_1.known_BSK.shape:
        raise InvalidInputError(
            f"worlds of {len(with_1)} and {len(without_1)} rows, known steps "
            f"{tuple(with_1.known_BSK.shape[1:])} and {tuple(without_1.known_BSK.shape[1:])}; "
            "expected one row each, of the same length"
        )


@dataclass(frozen=True, slots=True)
class _Worlds:
    """The quantiles of two worlds, with and without, and how paths are drawn through them."""

    quantiles_2HQ: Tensor
    levels: tuple[float, ...]
    resolution_ms: int
    whole_1: Tensor

    def run(self, alike_H: list[float]) -> tuple[Tensor, Tensor]:
        """Units of both worlds on paths that are alike to this degree: [H, N] each."""
        dependence = default_dependence(self.resolution_ms)
        steps = self.quantiles_2HQ.shape[1]
        own = Paths(dependence, self.levels, steps, num_paths=NUM_PATHS)
        twin = Paths(dependence, self.levels, steps, num_paths=NUM_PATHS, twin=alike_H)
        with_1HN = own.values(self.quantiles_2HQ[:1], self.whole_1)
        without_1HN = twin.values(self.quantiles_2HQ[1:], self.whole_1)
        return with_1HN[0], without_1HN[0]

    def uplift(self, here: slice, alike_H: list[float]) -> Floats:
        """Quantiles of what is sold more in some steps, if paths are alike to this degree."""
        with_HN, without_HN = self.run(alike_H)
        return _range((with_HN - without_HN)[here].sum(0))


def likeness(pair_2HQ: Tensor, levels: tuple[float, ...]) -> list[float]:
    """How places in two worlds correlate, step by step: [H], at most 1.

    If one world is the other times an unknown effect, the ratio of their relative spreads is the
    part of the wider one's that both share.

    >>> flat, wide = [8.0, 10.0, 12.0], [12.0, 20.0, 28.0]
    >>> likeness(torch.tensor([[wide, flat], [flat, flat]]), (0.1, 0.5, 0.9))
    [0.5, 1.0]
    """
    low, high = level_columns(levels, (0.1, 0.9))
    mean_2H = pair_2HQ.mean(-1).clamp(min=1e-6)
    spread_2H = (pair_2HQ[..., high] - pair_2HQ[..., low]) / mean_2H
    most_H, least_H = spread_2H.amax(0), spread_2H.amin(0)
    ratios = [
        float(least / most) if most > 0 else 1.0
        for least, most in zip(least_H, most_H, strict=True)
    ]
    return [1.0 if ratio > SAME or math.isnan(ratio) else round(ratio, 6) for ratio in ratios]


def _range(value_XN: Tensor) -> Floats:
    """The quantiles of RANGE along the last dimension."""
    flat = path_quantiles(value_XN.reshape(-1, value_XN.shape[-1]), RANGE).double().numpy()
    return flat.reshape(*value_XN.shape[:-1], len(RANGE))
