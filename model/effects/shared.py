"""What all series of a table do alike, and all that is decided by looking at more than one of them.

First what columns say and when nothing sells, then effects of numbers known in advance, then the
calendar's. Whoever holds a part of the series dresses it by these as whoever holds all of them.
Dimensions: N series, T context steps, S context and horizon steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from freshet.model.effects.closed import NO_CLOSING, Closing, find_closing
from freshet.model.effects.columns import Place, buyable, find_places, find_scales
from freshet.model.effects.events import NO_EVENTS, Events, fit_events
from freshet.model.effects.pools import NO_POOLS, Pools, find_pools
from freshet.model.effects.second import Second, find_second
from freshet.model.effects.slopes import NO_SLOPES, Slopes, fit_slopes
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

# Amounts that are no counts are brought to this mean, far above the unit of a count; a table holds
# amounts where more than this share of its values is broken.
CONTINUOUS_MEAN = 100.0
CONTINUOUS_SHARE = 0.01
# A series holds amounts where more than this share of its own sales is broken.
BROKEN_SHARE = 0.1
TELLING_SALES = 20
# Evenly chosen ones of a larger table: more say nothing new of what all do, and would not fit into
# memory four times over.
MAX_SERIES = 8_192


@dataclass(frozen=True, slots=True)
class SharedEffects:
    """What was found in the past of one window, for windows of any series with the same columns.

    Attributes:
        known_names: the known columns, in their order.
        continuous: whether targets are amounts rather than counts.
        closing: what closes steps.
        places: which known column goes to which slot.
        scales: the different values of each static number.
        slopes: effects of numbers.
        events: effects of days.
        pools: what siblings sell, for series without much of a past.
        second: what a second forecast of weeks needs to know of all series; None: there is none.
    """

    known_names: tuple[str, ...]
    continuous: bool = False
    closing: Closing = NO_CLOSING
    places: tuple[Place, ...] = ()
    scales: dict[str, Floats] = field(default_factory=dict)
    slopes: Slopes = NO_SLOPES
    events: Events = NO_EVENTS
    pools: Pools = NO_POOLS
    second: Second | None = None

    def effects(self, window: Window, closed_NS: Bools) -> tuple[Floats, Floats]:
        """What slopes and events add at each step, in log units: [N, S] twice.

        The first are what a forecast may use. The second are for training: of events, steps that
        were learnt from see only what other half-years taught. Slopes are few and many steps taught
        them, so that none of these knows itself in them.

        Raises:
            InvalidInputError: the window has other columns, or its country is not known.
        """
        if window.known_names != self.known_names:
            raise InvalidInputError(
                f"effects of the columns {list(self.known_names)} say nothing about "
                f"{list(window.known_names)}"
            )
        return _applied(self.slopes, self.events, window, closed_NS)


def find_shared(window: Window) -> SharedEffects:
    """What all series do alike, learnt from everything before the cutoff.

    By day, flags are events, which have edges and runs; of a week or a month they are shares, as
    other numbers.

    Raises:
        InvalidInputError: the window's country is not known.
    """
    scales = find_scales(window)
    window = buyable(window.rows(slice(None, None, -(-len(window) // MAX_SERIES))))
    continuous = _holds_amounts(window.target_NT)
    sold_NT = window.target_NT
    window, _ = sized(window, continuous=continuous)
    closing = find_closing(window)
    closed_NS = closing.steps(window)
    slopes, events = _fitted(window, closed_NS)
    effect_NS, _ = _applied(slopes, events, window, closed_NS)
    as_sold = replace(window, target_NT=sold_NT)
    return SharedEffects(
        known_names=window.known_names,
        continuous=continuous,
        closing=closing,
        places=find_places(window, closed_NS),
        scales=scales,
        slopes=slopes,
        events=events,
        pools=find_pools(as_sold, closed_NS, effect_NS, continuous=continuous),
        second=find_second(window, closed_NS),
    )


def shared_effects(window: Window, closed_NS: Bools) -> tuple[Floats, Floats]:
    """Effects that the window itself taught, as `SharedEffects.effects` gives them.

    Raises:
        InvalidInputError: the window's country is not known.
    """
    return _applied(*_fitted(window, closed_NS), window, closed_NS)


def _fitted(window: Window, closed_NS: Bools) -> tuple[Slopes, Events]:
    slopes = fit_slopes(window, closed_NS, _numbers(window))
    # Events are learnt from what the numbers leave: a feast on which prices were low must not be
    # told twice.
    slopes_NT = slopes.apply(window)[:, : window.context_length]
    without_NT = window.target_NT * np.exp(-slopes_NT)
    return slopes, fit_events(replace(window, target_NT=without_NT), closed_NS)


def _applied(
    slopes: Slopes, events: Events, window: Window, closed_NS: Bools
) -> tuple[Floats, Floats]:
    slopes_NS = slopes.apply(window)
    known_NS, taught_NS = events.effects(window, closed_NS)
    return slopes_NS + known_NS, slopes_NS + taught_NS


def sized(window: Window, *, continuous: bool) -> tuple[Window, Floats]:
    """The window with its targets in their final size, and by what each series was multiplied: [N].

    Amounts are brought to a common size; counts and large amounts stay. Each series tells by its
    own sales which of both it is, and goes with the table while they are few.
    """
    target_NT = window.target_NT
    seen_NT = np.isfinite(target_NT)
    sold_N = (target_NT > 0).sum(1)
    broken_N = (np.abs(target_NT - np.rint(target_NT)) > 1e-6).sum(1)
    amounts_N = broken_N > BROKEN_SHARE * sold_N
    amounts_N |= continuous & (sold_N < TELLING_SALES)
    if not amounts_N.any():
        return window, np.ones(len(window))
    sum_N = np.where(seen_NT, target_NT, 0.0).sum(1)
    mean_N = sum_N / np.maximum(seen_NT.sum(1), 1)
    wanted_N = CONTINUOUS_MEAN / np.maximum(mean_N, 1e-12)
    factor_N = np.where(amounts_N & (mean_N > 0), np.maximum(wanted_N, 1.0), 1.0)
    return replace(window, target_NT=target_NT * factor_N[:, None]), factor_N


def _holds_amounts(target_NT: Floats) -> bool:
    """Whether more than a few values are broken: those few among counts are errors."""
    seen_NT = np.isfinite(target_NT)
    fraction_NT = np.abs(target_NT - np.rint(target_NT))
    broken_NT = fraction_NT > 1e-6
    return bool(broken_NT.sum() > CONTINUOUS_SHARE * max(seen_NT.sum(), 1))


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
