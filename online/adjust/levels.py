"""A map of probability levels, and quantiles served by it.

The quantile that is served at level q is the network's own at level g(q). Where actuals fall at or
below the network's quantile of level p in a share F(p) of cases, g is the inverse of F: then a
share q falls below what is served at q (Kuleshov, Fenner and Ermon 2018; F is a function of the
forecast's PIT alone, as in Gneiting and Ranjan 2013).

Dimensions: N rows, Q levels of a network, W wire levels, B bins between the wire levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from freshet.model.levels import at_levels
from freshet.stream.arrays import Floats, Reals
from freshet.stream.schemas import WIRE_LEVELS

WIRE_W = np.array(WIRE_LEVELS)
EDGES = np.array([0.0, *WIRE_LEVELS, 1.0])
"""Of the bins that PITs are counted in."""
BINS = len(EDGES) - 1
UPPER = 0.9
"""By the network's quantile of this level a step is of one class of volume or another."""
DIGITS = 4
# A level that lies further out says nothing that some thousand PITs can tell.
OUTERMOST = 0.002
SMALLEST_STEP = 10.0**-DIGITS


def g(levels_Q: Reals, map_W: Reals) -> Floats:
    """The network's level behind each served one: straight between the wire levels.

    >>> wider = np.array([.005, .03, .07, .2, .5, .8, .93, .97, .995])
    >>> g(np.array([.5, .9, .7]), wider).round(3).tolist()
    [0.5, 0.93, 0.74]
    """
    return np.asarray(np.interp(levels_Q, EDGES, [0.0, *map_W, 1.0]))


def inverted(share_B: Reals) -> Floats:
    """The map that makes PITs even which lie in the bins in these shares, all above 0: [W].

    >>> shares = np.diff(EDGES)
    >>> bool((inverted(shares) == WIRE_W).all())
    True
    """
    below_E = np.concatenate([[0.0], np.cumsum(share_B)])
    map_W = np.interp(WIRE_W, below_E / below_E[-1], EDGES)
    map_W = np.clip(map_W, OUTERMOST, 1.0 - OUTERMOST).round(DIGITS)
    # Rounding may not make two levels one.
    step_W = SMALLEST_STEP * np.arange(len(WIRE_W))
    return np.asarray((np.maximum.accumulate(map_W - step_W) + step_W).round(DIGITS))


def served(quantiles_NQ: Floats, levels_Q: Sequence[float], map_W: Reals) -> Floats:
    """Quantiles as they are served: rising and at least 0 as the network's own are.

    >>> half_as_wide = np.array([.2, .25, .3, .375, .5, .625, .7, .75, .8])
    >>> served(np.array([[1.0, 2.0, 3.0]]), [.1, .5, .9], half_as_wide).tolist()
    [[1.5, 2.0, 2.5]]
    """
    levels = np.asarray(levels_Q, np.float64)
    return at_levels(quantiles_NQ, levels, g(levels, map_W))
