"""What all series of a table do alike: effects of numbers known in advance, then the calendar's.

Dimensions: N series, T context steps, S context and horizon steps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from freshet.model.effects.events import fit_events
from freshet.model.effects.slopes import fit_slopes
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats
from freshet.stream.units import DAY_MS


def shared_effects(window: Window, closed_NS: Bools) -> tuple[Floats, Floats]:
    """Effects learnt from everything before the cutoff, in log units: [N, S] twice.

    By day, flags are events, which have edges and runs; of a week or a month they are shares, as
    other numbers. The first are what a forecast may use. The second are for training: of events,
    context steps see only what other half-years taught. Slopes are few and many steps taught them,
    so that none of these knows itself in them.

    Args:
        window: the past to learn from and the horizon to look at.
        closed_NS: steps that cannot sell, as `closed_steps` finds them.

    Raises:
        InvalidInputError: the window's country is not known.
    """
    T = window.context_length
    slopes = fit_slopes(window, closed_NS, _numbers(window))
    slopes_NS = slopes.apply(window)
    # Events are learnt from what the numbers leave: a feast on which prices were low must not be
    # told twice.
    without_NT = window.target_NT * np.exp(-slopes_NS[:, :T])
    plain = replace(window, target_NT=without_NT)
    events = fit_events(plain, closed_NS)
    known_NS, taught_NS = events.effects(window, closed_NS)
    return slopes_NS + known_NS, slopes_NS + taught_NS


def _numbers(window: Window) -> list[int]:
    """Known covariates that are no flags; of longer steps than a day all of them."""
    columns = range(window.known_NSK.shape[2])
    if window.resolution_ms > DAY_MS:
        return list(columns)
    numbers: list[int] = []
    for column in columns:
        values_NS = np.nan_to_num(window.known_NSK[:, :, column])
        if not np.isin(values_NS, (0.0, 1.0)).all():
            numbers.append(column)
    return numbers
