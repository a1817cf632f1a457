"""What all series of a table do alike: what numbers known in advance do to them, then what the calendar adds.

Dimensions: N series, T context steps, S context and horizon steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.closed import closed_steps
from model.events import Events, fit_events
from model.panel import Floats, Window
from model.slopes import Slopes, fit_slopes
from stream.config import DAY_MS


@dataclass(frozen=True, slots=True)
class Shared:
    """Slopes and events that were fitted on one window's past."""

    slopes: Slopes
    events: Events

    def apply(self, window: Window) -> Floats:
        """The effect at every step of the window, in log units: [N, S]."""
        return self.slopes.apply(window) + self.events.apply(window)

    def crossfit(self, window: Window) -> Floats:
        """As `apply`, but of the events context steps see only what other half-years taught.

        Slopes are few and many steps taught them, so that none of these knows itself in them.
        """
        return self.slopes.apply(window) + self.events.crossfit(window)


def fit_shared(window: Window, country: str | None = None) -> Shared:
    """Effects learnt from everything before the window's cutoff.

    By day, flags are events, which have edges and runs; of a week or a month they are shares, as other numbers.

    Args:
        window: the past to learn from.
        country: ISO code whose public holidays are known, besides Christmas and Easter.

    Raises:
        InvalidInputError: the country is not known.
    """
    closed_NS = closed_steps(window)
    slopes = fit_slopes(window, closed_NS, _numbers(window))
    plain_NT = window.target_NT * np.exp(-slopes.apply(window)[:, : window.context_length])
    return Shared(slopes, fit_events(replace(window, target_NT=plain_NT), country))


def _numbers(window: Window) -> list[int]:
    """Known covariates that are no flags; of longer steps than a day all of them."""
    columns = range(window.known_NSK.shape[2])
    if window.resolution_ms > DAY_MS:
        return list(columns)
    return [
        column for column in columns if not np.isin(np.nan_to_num(window.known_NSK[:, :, column]), (0.0, 1.0)).all()
    ]
