"""Forecasts of series without much of a past: what siblings sell, at a level that its sales tell.

A series sells by one of its pool's levels, nobody knows which: a mixture of gamma distributions.
Its own sales tell them apart and move them (Gamma-Poisson, with the chance of a negative binomial),
so that a step's sales are a mixture of negative binomials.

Dimensions: R series, H horizon steps, K levels, Q quantile levels, G values, C sizes of a step.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.special import betainc, gammaln

from freshet.model.batch import QUANTILE_LEVELS
from freshet.model.effects.pools import Pool, Pools, slots_of
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints, Singles
from freshet.stream.units import DAY_MS, HOUR_MS

FULL_STEPS = ((HOUR_MS - 1, 24), (HOUR_MS, 48), (DAY_MS, 28), (7 * DAY_MS, 12))
"""From so many own steps of a width on, a series is forecast by them alone."""
FULL_MONTHS = 6
SIZES = 5  # of a step, from the smallest to the largest, at which quantiles are computed
VALUES = 48  # at which a mixture is looked at
UNLIKELY = 1e-3  # levels that are left out
TAIL = 10.0  # standard deviations beyond which nothing is looked at
ROWS = 256  # computed at a time


@dataclass(frozen=True, slots=True)
class Newcomers:
    """What siblings say of some series.

    Attributes:
        own_N: float32 how much each series' own forecast counts, from 0 to 1.
        pooled_NHQ: float32 what siblings sell; 0 where the own forecast counts alone.
    """

    own_N: Singles
    pooled_NHQ: Singles


def full_steps(resolution_ms: int) -> int:
    """From how many own steps on a series is forecast by them alone.

    >>> full_steps(HOUR_MS), full_steps(DAY_MS), full_steps(30 * DAY_MS)
    (48, 28, 6)
    """
    for width_ms, steps in FULL_STEPS:
        if resolution_ms <= width_ms:
            return steps
    return FULL_MONTHS


def own_share(target_NT: Floats, closed_NT: Bools, resolution_ms: int) -> Floats:
    """How much each series' own forecast counts: by how many steps it was seen, [N]."""
    seen_NT = np.isfinite(target_NT) & ~closed_NT
    # Of a context that holds hardly more, half of it.
    full = min(full_steps(resolution_ms), max(target_NT.shape[1] // 2, 1))
    return np.asarray(np.minimum(seen_NT.sum(1) / full, 1.0))


def newcomers(
    window: Window, factor_N: Floats, closed_NS: Bools, effect_NS: Floats, pools: Pools
) -> Newcomers | None:
    """What siblings say of a window's series, each for itself; None where there are no siblings.

    Args:
        window: what is known of the series.
        factor_N: what targets were multiplied by, as quantiles shall be.
        closed_NS: where nothing can sell.
        effect_NS: what shared effects add, in log units.
        pools: the siblings.
    """
    if not pools.pools:
        return None
    T, S = window.context_length, closed_NS.shape[1]
    own_N = own_share(window.target_NT, closed_NS[:, :T], window.resolution_ms)
    pooled_NHQ = np.zeros((len(window), S - T, len(QUANTILE_LEVELS)), np.float32)
    young = np.flatnonzero(own_N < 1.0)
    for first in range(0, len(young), ROWS):
        rows = young[first : first + ROWS]
        some = window.rows(rows)
        factor_R1 = factor_N[rows, None]
        some = replace(some, target_NT=some.target_NT / factor_R1)
        usual_RS = np.where(closed_NS[rows], 0.0, np.exp(effect_NS[rows]))
        pooled_NHQ[rows] = factor_R1[..., None] * _pooled(some, usual_RS, pools)
    return Newcomers(own_N.astype(np.float32), pooled_NHQ)


def _pooled(window: Window, usual_RS: Floats, pools: Pools) -> Floats:
    """Quantiles of what siblings sell, at a level that the own sales tell: [R, H, Q]."""
    T = window.context_length
    pool_R = [pools.pools[place] for place in pools.of(window)]
    profile_RW = np.stack([pool.profile_W for pool in pool_R])
    usual_RS = usual_RS * np.take_along_axis(profile_RW, slots_of(window), 1)
    levels = _posterior(window.target_NT / pools.unit, usual_RS[:, :T], pool_R)
    usual_RH = usual_RS[:, T:]
    # Series that have sold nothing are alike.
    first_X, kind_R = _alike(np.hstack([levels.each(), usual_RH]))
    quantiles_XHQ = quantiles_of(levels.rows(first_X), usual_RH[first_X], np.array(QUANTILE_LEVELS))
    if pools.unit == 1.0:
        quantiles_XHQ = np.ceil(quantiles_XHQ - 1e-6)
    quantiles_XHQ = np.maximum(quantiles_XHQ, 0.0) * pools.unit
    return np.where(usual_RH[..., None] > 0, quantiles_XHQ[kind_R], 0.0)


@dataclass(frozen=True, slots=True)
class Levels:
    """What is believed of each series' level: a mixture of gamma distributions.

    Attributes:
        weight_RK: how likely each is.
        shape_RK: its shape.
        mean_RK: its mean.
        size_R: of the negative binomial around the level.
    """

    weight_RK: Floats
    shape_RK: Floats
    mean_RK: Floats
    size_R: Floats

    def rows(self, rows: Ints) -> Levels:
        """Those of some series."""
        chosen = [getattr(self, field.name)[rows] for field in fields(self)]
        return Levels(*chosen)

    def each(self) -> Floats:
        """All that they are, side by side."""
        return np.hstack([self.weight_RK, self.shape_RK, self.mean_RK, self.size_R[:, None]])


def _alike(values_RX: Floats) -> tuple[Ints, Ints]:
    """The first of each kind of equal rows, and the kind of each row."""
    kinds: dict[bytes, int] = {}
    kind_R = [kinds.setdefault(row.tobytes(), len(kinds)) for row in values_RX]
    _, first_X = np.unique(kind_R, return_index=True)
    return first_X, np.array(kind_R, np.int64)


def _posterior(target_RT: Floats, usual_RT: Floats, pool_R: list[Pool]) -> Levels:
    """Levels after a series' own sales: those of its pool where there are none."""
    level_RK = np.stack([pool.level_K for pool in pool_R])
    shape_RK = np.stack([pool.shape_K for pool in pool_R])
    size_R = np.array([pool.size for pool in pool_R])
    seen_RT = np.isfinite(target_RT) & (usual_RT > 0)
    sold_R1 = np.where(seen_RT, target_RT, 0.0).sum(1, keepdims=True)
    usual_RT = np.where(seen_RT, usual_RT, 0.0)
    expected_R1 = usual_RT.sum(1, keepdims=True)
    # The sum of negative binomials is about one: of so many steps of equal size.
    steps_R1 = expected_R1**2 / np.maximum((usual_RT**2).sum(1, keepdims=True), 1e-12)
    size_R1 = np.maximum(size_R[:, None] * steps_R1, 1e-6)
    mean_RK = level_RK * expected_R1
    unsure_RK = 1.0 / shape_RK + 1.0 / size_R1 + 1.0 / (shape_RK * size_R1)
    log_RK = _log_chance(sold_R1, mean_RK, 1.0 / unsure_RK)
    log_RK = np.where(expected_R1 > 0, log_RK, 0.0)
    weight_RK = np.exp(log_RK - log_RK.max(1, keepdims=True))
    weight_RK /= weight_RK.sum(1, keepdims=True)
    # Chance beyond Poisson's makes sales worth less: they count as fewer.
    worth_R1 = 1.0 / (1.0 + np.maximum(sold_R1, 1.0) / size_R1)
    after_RK = shape_RK + worth_R1 * sold_R1
    rate_RK = shape_RK / level_RK + worth_R1 * expected_R1
    return Levels(weight_RK, after_RK, after_RK / rate_RK, size_R)


def _log_chance(sold: Floats, mean: Floats, size: Floats) -> Floats:
    """Log probability of a sum by a negative binomial, up to what hangs on the sum alone."""
    mean = np.maximum(mean, 1e-12)
    within: Floats = gammaln(sold + size) - gammaln(size)
    return within - size * np.log1p(mean / size) - sold * np.log1p(size / mean)


def quantiles_of(levels: Levels, usual_RH: Floats, levels_Q: Floats) -> Floats:
    """Quantiles of each step's mixture, counts on a continuous scale from -1 on: [R, H, Q].

    They are computed at a few sizes of a step, and lie on straight lines in between.
    """
    R = len(usual_RH)
    place_RH, size_RC = _sizes(usual_RH)
    found_RCQ = np.empty((R, SIZES, len(levels_Q)))
    for place in range(SIZES):
        found_RCQ[:, place] = _mixed(levels, size_RC[:, place], levels_Q)
    below_RH = np.minimum(place_RH.astype(np.int64), SIZES - 2)
    share_RH1 = (place_RH - below_RH)[..., None]
    row_R1 = np.arange(R)[:, None]
    below_RHQ = found_RCQ[row_R1, below_RH] * (1.0 - share_RH1)
    above_RHQ = found_RCQ[row_R1, below_RH + 1] * share_RH1
    return np.asarray(below_RHQ + above_RHQ)


def _sizes(usual_RH: Floats) -> tuple[Floats, Floats]:
    """A few sizes between the smallest and the largest step, and where among them each step is."""
    most_R1 = np.maximum(usual_RH.max(1, keepdims=True), 1e-9)
    some_RH = np.where(usual_RH > 0, usual_RH, most_R1)
    least_R1 = some_RH.min(1, keepdims=True)
    ratio_R1 = np.maximum(most_R1 / least_R1, 1.0 + 1e-9)
    place_C = np.linspace(0.0, 1.0, SIZES)
    size_RC = least_R1 * ratio_R1**place_C
    # On straight lines between the sizes themselves.
    index_RH = np.log(some_RH / least_R1) / np.log(ratio_R1) * (SIZES - 1)
    below_RH = np.clip(np.floor(index_RH), 0, SIZES - 2).astype(np.int64)
    row_R1 = np.arange(len(usual_RH))[:, None]
    low_RH, high_RH = size_RC[row_R1, below_RH], size_RC[row_R1, below_RH + 1]
    return below_RH + np.clip((some_RH - low_RH) / (high_RH - low_RH), 0.0, 1.0), size_RC


def _mixed(levels: Levels, usual_R: Floats, levels_Q: Floats) -> Floats:
    """Quantiles of steps of one size: [R, Q]."""
    mean_RK = np.maximum(levels.mean_RK * usual_R[:, None], 1e-9)
    unsure_RK = 1.0 / levels.shape_RK
    chance_R1 = 1.0 / levels.size_R[:, None]
    size_RK = 1.0 / (unsure_RK + chance_R1 + unsure_RK * chance_R1)
    spread_RK = np.sqrt(mean_RK + mean_RK**2 / size_RK)
    likely_RK = levels.weight_RK > UNLIKELY
    top_R = np.where(likely_RK, mean_RK + TAIL * spread_RK, 1.0).max(1)
    value_RG = _values(top_R)
    # Most of the time goes into this function, so that it is spared what hardly counts.
    row_X, level_X = np.nonzero(likely_RK)
    size_X1 = size_RK[row_X, level_X, None]
    share_X1 = size_X1 / (size_X1 + mean_RK[row_X, level_X, None])
    below_RKG = np.zeros((*likely_RK.shape, VALUES))
    below_RKG[row_X, level_X] = betainc(size_X1, value_RG[row_X] + 1.0, share_X1)
    weight_RK = np.where(likely_RK, levels.weight_RK, 0.0)
    weight_RK /= weight_RK.sum(1, keepdims=True)
    below_RG = (weight_RK[..., None] * below_RKG).sum(1)
    return _inverse(value_RG, below_RG, levels_Q)


def _values(top_R: Floats) -> Floats:
    """Values from -1 to the top, close together where they are small: [R, G]."""
    place_G = np.linspace(0.0, 1.0, VALUES)
    few_RG = -1.0 + np.arange(VALUES) + 0.0 * top_R[:, None]
    many_RG = -1.0 + (top_R[:, None] + 1.0) * place_G**3
    return np.where(top_R[:, None] <= VALUES - 2, few_RG, many_RG)


def _inverse(value_RG: Floats, below_RG: Floats, levels_Q: Floats) -> Floats:
    """At which value each share lies below: [R, Q]; the largest where none is so large."""
    index_RQ = (below_RG[:, :, None] < levels_Q).sum(1)
    high_RQ = np.clip(index_RQ, 1, value_RG.shape[1] - 1)
    row_R1 = np.arange(len(value_RG))[:, None]
    from_RQ, to_RQ = below_RG[row_R1, high_RQ - 1], below_RG[row_R1, high_RQ]
    share_RQ = np.clip((levels_Q - from_RQ) / np.maximum(to_RQ - from_RQ, 1e-12), 0.0, 1.0)
    low_RQ = value_RG[row_R1, high_RQ - 1]
    return np.asarray(low_RQ + share_RQ * (value_RG[row_R1, high_RQ] - low_RQ))
