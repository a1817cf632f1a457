"""By how much one version loses less than another, and how sure that is. Pure.

Dimensions: I items, T buckets in time order, K blocks of buckets.

Pinball losses of both versions on the same cells, summed; the relative gain is one minus
their ratio. Losses of neighbouring hours move together, and so do all hours of one item, so the
standard error (of the linearised ratio) is clustered two ways, over blocks of time and over items
(Cameron, Gelbach & Miller 2011), and the degrees of freedom are those of the poorer way, items
counted by their weight (Kish).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from freshet.stream.arrays import Floats
from freshet.stream.units import HOUR_MS

# A block of time should hold a whole day, whose hours depend on one another; where the hold-out is
# short, the longest that gives blocks enough for a variance between them.
BLOCK_HOURS = (24, 12, 8, 6, 4, 3, 2, 1)
MIN_BLOCKS = 6


@dataclass(frozen=True, slots=True)
class Gain:
    """A relative gain, the lower end of its one-sided interval, and what the interval rests on."""

    gain: float
    low: float
    num_blocks: int
    block_ms: int
    num_items: int


def relative_gain(
    champion_IT: Floats, challenger_IT: Floats, *, resolution_ms: int, confidence: float
) -> Gain:
    """One minus the ratio of summed losses, with the lower end of its one-sided interval.

    Cells that are NaN count for nothing. Without losses, blocks or items enough, `low` is minus
    infinity.

    >>> relative_gain(np.full((6, 6), 2.0), np.full((6, 6), 1.0), resolution_ms=HOUR_MS,
    ...     confidence=0.95)
    Gain(gain=0.5, low=0.5, num_blocks=6, block_ms=3600000, num_items=6)
    """
    champion_IT, challenger_IT = np.nan_to_num(champion_IT), np.nan_to_num(challenger_IT)
    weight_I = champion_IT.sum(1)
    total = float(champion_IT.sum())
    block_buckets, num_blocks = _blocks(champion_IT.shape[1], resolution_ms)
    block_ms = block_buckets * resolution_ms
    num_items = int((weight_I > 0).sum())
    if num_blocks < 2 or num_items < 2:
        return Gain(0.0, -math.inf, num_blocks, block_ms, num_items)
    gain = 1.0 - float(challenger_IT.sum()) / total

    # A ratio of sums is not a sum; to first order its error is the sum of these over all cells,
    # divided by the champion's total (the delta method). They sum to zero by construction.
    influence_IT = (1.0 - gain) * champion_IT - challenger_IT
    influence_IK = _summed_by_block(influence_IT, block_buckets, num_blocks)
    over_time = _variance(influence_IK.sum(0))
    over_items = _variance(influence_IK.sum(1)[weight_I > 0])
    over_cells = _variance(influence_IK.ravel())
    # Both ways together count each cell's own noise twice, hence the difference. It may come out
    # below either alone (even below zero) by chance, and is not believed then.
    variance = max(over_time, over_items, over_time + over_items - over_cells)

    # Kish: so many items of equal weight would be as sure as these are; one that sells most of all
    # counts as one, however many others there are.
    effective_items = total**2 / float((weight_I**2).sum())
    freedom = max(1.0, min(num_blocks, effective_items) - 1.0)
    # Student's t: two blocks, or one item that sells nearly all, leave a single degree of freedom.
    reach = float(stdtrit(freedom, confidence)) * math.sqrt(variance) / total
    return Gain(gain, gain - reach, num_blocks, block_ms, num_items)


def _variance(sums: Floats) -> float:
    """Of a total, from sums over its parts, whose mean is zero."""
    n = len(sums)
    return n / (n - 1) * float((sums**2).sum())


def _blocks(num_buckets: int, resolution_ms: int) -> tuple[int, int]:
    """Buckets in a block, and blocks: days when there are enough, else the longest that gives so.

    >>> _blocks(150, HOUR_MS), _blocks(12, HOUR_MS)
    ((24, 6), (2, 6))
    """
    for hours in BLOCK_HOURS:
        length = hours * HOUR_MS // resolution_ms
        if length >= 1 and num_buckets // length >= MIN_BLOCKS:
            return length, num_buckets // length
    length = max(1, num_buckets // MIN_BLOCKS)
    return length, num_buckets // length


def _summed_by_block(values_IT: Floats, block_buckets: int, num_blocks: int) -> Floats:
    """Sums over blocks of buckets, [I, K].

    The newest buckets make full blocks; older ones that do not fill one join the first.
    """
    num_buckets = values_IT.shape[1]
    starts = [num_buckets - block_buckets * back for back in range(num_blocks - 1, 0, -1)]
    return np.add.reduceat(values_IT, [0, *starts], axis=1)
