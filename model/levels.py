"""Quantiles at any level, from those that a network gives.

Dimensions: B, N any leading ones, H steps, Q asked levels, K given levels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from freshet.stream.arrays import Floats, Ints


class Neighbours(NamedTuple):
    """An asked quantile is (1 - share) times that at the level below plus share times that above.

    Attributes:
        below_Q: index of a given level.
        above_Q: index of the next one.
        share_Q: from 0 to 1 between the two; below 0 and above 1 in the tails.
    """

    below_Q: Ints
    above_Q: Ints
    share_Q: Floats


def neighbours(levels_Q: Floats, given_K: Floats) -> Neighbours:
    """Which given quantiles make up each asked one.

    Straight lines lead from level to level. Beyond the outermost ones the tails are exponential,
    through the last two quantiles on that side, as those of Park et al. (Learning Quantile
    Functions without Quantile Crossing, AISTATS 2022): of all distributions with a given mean
    excess the one that claims least. `model.quantiles.marginal.distribution` has the same tails.
    A chance that falls from .05 to .01 falls to .002 as far again, so that every level has a
    quantile of its own and the mean stays finite.

    >>> given = np.array([0.01, 0.05, 0.95, 0.99])
    >>> neighbours(np.array([0.002, 0.5, 0.99, 0.998]), given).share_Q.round(6).tolist()
    [-1.0, 0.5, 0.0, 2.0]
    """
    last = len(given_K) - 1
    place_Q = np.interp(levels_Q, given_K, np.arange(len(given_K)))
    below_Q = np.floor(place_Q).astype(np.int64)
    above_Q = np.minimum(below_Q + 1, last)
    share_Q = place_Q - below_Q
    if last == 0:
        return Neighbours(below_Q, above_Q, share_Q)
    low_Q, high_Q = levels_Q < given_K[0], levels_Q > given_K[-1]
    below_Q[high_Q] = last - 1
    above_Q[low_Q] = 1
    share_Q[low_Q] = _folds(levels_Q[low_Q], given_K[0], given_K[1])
    folds_X = _folds(1.0 - levels_Q[high_Q], 1.0 - given_K[-1], 1.0 - given_K[-2])
    share_Q[high_Q] = 1.0 - folds_X
    return Neighbours(below_Q, above_Q, share_Q)


def _folds(chance_X: Floats, outermost: float, next_to_it: float) -> Floats:
    """How often again a chance fell by what it falls between two levels; less than 0."""
    fallen_X: Floats = np.log(chance_X / outermost) / np.log(next_to_it / outermost)
    return fallen_X


def at_levels(quantiles_NHK: Floats, given_K: Floats, levels_Q: Floats) -> Floats:
    """Quantiles at other levels, rising, at least 0: [N, H, Q].

    >>> given = np.array([0.4, 0.6])
    >>> at_levels(np.array([[[1.0, 3.0]]]), given, np.array([0.45, 0.6])).tolist()
    [[[1.5, 3.0]]]
    """
    below_Q, above_Q, share_Q = neighbours(levels_Q, given_K)
    # Two products, not a difference: equal neighbours stay equal to the last bit, so that nothing
    # comes unsorted.
    from_below_NHQ = quantiles_NHK[..., below_Q] * (1.0 - share_Q)
    from_above_NHQ = quantiles_NHK[..., above_Q] * share_Q
    mixed_NHQ: Floats = from_below_NHQ + from_above_NHQ
    # Rounding may not take a tail to the wrong side of where it begins.
    mixed_NHQ = np.where(share_Q < 0.0, np.minimum(mixed_NHQ, quantiles_NHK[..., :1]), mixed_NHQ)
    mixed_NHQ = np.where(share_Q > 1.0, np.maximum(mixed_NHQ, quantiles_NHK[..., -1:]), mixed_NHQ)
    mixed_NHQ = np.where(share_Q < 0.0, np.maximum(mixed_NHQ, 0.0), mixed_NHQ)
    rising_NHQ: Floats = np.maximum.accumulate(mixed_NHQ, axis=-1)
    return rising_NHQ
