"""What is known in advance, put together: items times buckets times slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.slots import KNOWN_SLOTS


class Filling(NamedTuple):
    """What fills one slot: a row for each group of items, [U, S], and the group of each item."""

    place: int
    group_R: Ints
    values_US: Floats


def filled(fillings: Sequence[Filling], *, num_items: int, steps: int) -> Singles:
    """All slots of all items, float32[R, S, K]; NaN where nothing fills them.

    >>> one = Filling(1, np.array([0, 1]), np.array([[0.0, 0.5], [1.0, 1.0]]))
    >>> filled([one], num_items=2, steps=2)[:, :, 1].tolist()
    [[0.0, 0.5], [1.0, 1.0]]
    """
    if not num_items:
        return np.empty((0, steps, len(KNOWN_SLOTS)), np.float32)
    # What most items have in common is written in one sweep, which is what takes the time.
    common_SK = np.full((steps, len(KNOWN_SLOTS)), np.nan, np.float32)
    others = []
    for place, group_R, values_US in fillings:
        usual = int(np.bincount(group_R).argmax())
        common_SK[:, place] = values_US[usual]
        others.append(np.flatnonzero(group_R != usual))
    known_RSK = np.empty((num_items, *common_SK.shape), np.float32)
    known_RSK[:] = common_SK
    for (place, group_R, values_US), rows in zip(fillings, others, strict=True):
        if len(rows):
            known_RSK[rows, :, place] = values_US[group_R[rows]]
    return known_RSK
