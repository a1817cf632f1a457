"""The slot `effect` taken apart: how much of it comes of prices, of flags, of feasts.

Dimensions: N series, S context and horizon steps, K features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from freshet.model.effects.columns import buyable
from freshet.model.effects.events import Events
from freshet.model.effects.features import (
    AROUND_CLOSED,
    EDGES,
    NUM_FEASTS,
    feast_lengths,
)
from freshet.model.effects.shared import SharedEffects, sized
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats
from freshet.stream.units import WEEK_MS

FEASTS, HOLIDAYS, CLOSING = "feasts", "holidays", "closing"
"""Parts that belong to no column: feasts and months of every table, public holidays, closures."""


def effect_parts(window: Window, shared: SharedEffects) -> list[tuple[str | int, Floats]]:
    """What the slot `effect` is made of when `dress` fills it, in log units: [N, S] each.

    Each with the number of a known column, or one of FEASTS, HOLIDAYS and CLOSING; a column may
    come twice. They add up to the slot.
    """
    window = buyable(window)
    window, _ = sized(window, continuous=shared.continuous)
    closed_NS = shared.closing.steps(window)
    return [*shared.slopes.parts(window), *_event_parts(shared.events, window, closed_NS)]


def _event_parts(
    events: Events, window: Window, closed_NS: Bools
) -> Iterator[tuple[str | int, Floats]]:
    """Effects of days are sums over features, so each feature's own is that of its weight alone."""
    first = 0
    for whose, length in _features(events, window):
        alone_K = np.zeros_like(events.weights_K)
        alone_K[first : first + length] = events.weights_K[first : first + length]
        first += length
        if alone_K.any():
            yield whose, replace(events, weights_K=alone_K).effects(window, closed_NS)[0]
    assert first == len(events.weights_K)


def _features(events: Events, window: Window) -> list[tuple[str | int, int]]:
    """Whose the features are, in their order, and how many each has."""
    if not len(events.weights_K):
        return []
    feasts = feast_lengths(7 if window.resolution_ms == WEEK_MS else 1, window.country)
    of_days: list[tuple[str | int, int]] = [
        (FEASTS, sum(feasts[:NUM_FEASTS])),
        (HOLIDAYS, sum(feasts[NUM_FEASTS:])),
        (CLOSING, AROUND_CLOSED),
    ]
    # A flag that the usual level knows has only its edges.
    flags = zip(events.flags, events.flag_in_cells, strict=True)
    return [*of_days, *((flag, EDGES if in_cells else EDGES + 1) for flag, in_cells in flags)]
