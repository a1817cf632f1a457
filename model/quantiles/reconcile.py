"""Forecasts of items and of their sums, brought to one distribution in which everything adds up.

Every series, of an item or of a group, has its own forecast. Paths pick one value of each series,
such that series move together as the errors of past forecasts did: a Gaussian copula, by its ranks,
so that each series' own distribution is met (Clark et al. 2004). Where a path's group is more or
less than its items together, the difference is shared out by variances: minimum trace, of one path
(Wickramasuriya et al. 2019, Panagiotelis et al. 2023). Sums of the items' paths then are coherent.

Dimensions: N items, G groups, X = G + N series, groups first; E past errors, H horizon steps, Q
quantile levels, M paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import ndtri

from freshet.model.quantiles.cumulative import path_quantiles, ranks
from freshet.model.quantiles.marginal import places, quantile_weights
from freshet.stream.arrays import Floats, Ints, Reals

NUM_PATHS = 512
SEED = 0  # paths are the same on every machine
# Chosen on three tables by bench/hierarchy.py. What correlation past errors show is believed to
# this share ...
BELIEVED = 0.9
# ... and a group's own forecast errs less than its spread says beside that of its items, which
# errs alike for all of them: by this factor of the variance (1/8 and 1/2 were as good).
GROUPS_VARIANCE = 0.25


class Coherent(NamedTuple):
    """What is left after reconciliation: quantiles [X, H, Q], and means [X, H] that add up."""

    quantiles_XHQ: Floats
    mean_XH: Floats


def normal_places(actual_XE: Reals, quantiles_XEQ: Reals, levels: Sequence[float]) -> Floats:
    """Where actuals fell in their forecasts, as normal numbers: [X, E], 0 where missing."""
    place_XE, _ = places(
        torch.from_numpy(np.asarray(actual_XE, np.float32)),
        torch.from_numpy(np.asarray(quantiles_XEQ, np.float32)),
        levels,
    )
    # Places go from -1/2 to 1/2; outside all forecasts they would be infinitely far away.
    probability_XE = place_XE.double().numpy() + 0.5
    normal_XE = ndtri(np.clip(probability_XE, 0.005, 0.995))
    return np.asarray(np.nan_to_num(normal_XE))


def reconcile(
    quantiles_XHQ: Floats,
    levels: Sequence[float],
    items_of_GN: csr_array,
    places_XE: Floats,
) -> Coherent:
    """Forecasts of groups and items in which every path's items add up to its groups.

    Args:
        quantiles_XHQ: what each series' own forecast says, in units, >= 0.
        levels: Q rising probabilities.
        items_of_GN: 1 where an item belongs to a group.
        places_XE: of past forecasts, as `normal_places`; E may be 0.
    """
    G = items_of_GN.shape[0]
    spread_XH = _spread(quantiles_XHQ, levels)
    rank_XM = _joint_ranks(places_XE, items_of_GN, spread_XH[G:].mean(1))
    # Paths take the values of a distribution in even steps of probability.
    even_M = (torch.arange(NUM_PATHS) + 0.5) / NUM_PATHS
    weight_QM = quantile_weights(levels, even_M).numpy()
    found = Coherent(
        quantiles_XHQ=np.empty(quantiles_XHQ.shape),
        mean_XH=np.empty(spread_XH.shape),
    )
    for step in range(quantiles_XHQ.shape[1]):
        sorted_XM = quantiles_XHQ[:, step] @ weight_QM
        path_XM = np.take_along_axis(sorted_XM, rank_XM, axis=1)
        items_NM = _adjusted(path_XM, items_of_GN, spread_XH[:, step] ** 2)
        coherent_XM = np.concatenate([items_of_GN @ items_NM, items_NM])
        found.quantiles_XHQ[:, step] = path_quantiles(torch.from_numpy(coherent_XM), levels)
        found.mean_XH[:, step] = coherent_XM.mean(1)
    return found


def _adjusted(path_XM: Floats, items_of_GN: csr_array, variance_X: Floats) -> Floats:
    """Items of each path, moved as far towards the groups' values as variances say: [N, M]."""
    G = items_of_GN.shape[0]
    groups_GM, items_NM = path_XM[:G], path_XM[G:]
    # Of the difference between a group and the sum of its items: what the sum's errors and the
    # group's own make it vary, and how the differences of groups that share items vary together.
    weighted_GN = items_of_GN.multiply(variance_X[None, G:]).tocsr()
    sums_GG = (weighted_GN @ items_of_GN.T).toarray()
    between_GG = sums_GG + np.diag(GROUPS_VARIANCE * variance_X[:G])
    # Series that never sell have no variance, and nothing to share out.
    least = 1e-9 * max(float(between_GG.max()), 1e-9)
    between_GG += least * np.eye(G)
    missing_GM = groups_GM - items_of_GN @ items_NM
    share_GM = np.linalg.solve(between_GG, missing_GM)
    moved_NM = items_NM + weighted_GN.T @ share_GM
    return np.asarray(np.maximum(moved_NM, 0.0))


def _joint_ranks(places_XE: Floats, items_of_GN: csr_array, spread_N: Floats) -> Ints:
    """Which of its values, from the smallest, each series takes on each path: [X, M].

    A mixture of past places has their correlations, whatever the number of series. What is not
    believed of them is each item's own, and their sum at the groups.
    """
    rng = np.random.default_rng(SEED)
    E = places_XE.shape[1]
    N = items_of_GN.shape[1]
    own_NM = rng.standard_normal((N, NUM_PATHS))
    group_GM = items_of_GN @ (spread_N[:, None] * own_NM)
    joint_XM = np.concatenate([_of_size_one(group_GM), own_NM])
    if E:
        shock_EM = rng.standard_normal((E, NUM_PATHS))
        mixed_XM = _of_size_one(places_XE) @ shock_EM / np.sqrt(E)
        joint_XM = np.sqrt(BELIEVED) * mixed_XM + np.sqrt(1.0 - BELIEVED) * joint_XM
    return np.asarray(ranks(torch.from_numpy(joint_XM)))


def _of_size_one(values_XM: Floats) -> Floats:
    """The same, with a mean square of 1 a row."""
    size_X1 = np.sqrt((values_XM**2).mean(1, keepdims=True))
    return np.asarray(values_XM / np.maximum(size_X1, 1e-9))


def _spread(quantiles_XHQ: Floats, levels: Sequence[float]) -> Floats:
    """Standard deviation of the quantile function, straight between levels, flat beyond: [X, H]."""
    level_Q = np.array(levels)
    middles = (level_Q[1:] + level_Q[:-1]) / 2
    weight_Q = np.diff(middles, prepend=0.0, append=1.0)
    mean_XH = quantiles_XHQ @ weight_Q
    square_XHQ = (quantiles_XHQ - mean_XH[..., None]) ** 2
    return np.asarray(np.sqrt(square_XHQ @ weight_Q))
