"""Steps on which nothing can sell: closed shops, days off, nights.

They are found from what was sold before the cutoff.

A forecast there is exactly 0 at every level, and profiles leave such steps out. Dimensions: N
series, T context steps, H horizon steps, S = T + H, K known covariates, G slots of a week.
"""

from __future__ import annotations

import numpy as np

from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, WEEK_MS

MAX_VALUES = 16  # a covariate with more different values is a number, not a state
# Share of steps with sales that still means never, where many steps were seen; where they are few,
# not one may have sold.
NEVER = 0.005
MANY = 50
FEW = 12
CALENDAR_WEEKS = 52  # a weekday that sold more than a year ago says nothing
WEEKDAY_SEEN = 20  # steps of a single series before one of its weekdays counts as closed
SLOT_WEEKS = 8  # different weeks in which a slot of the week must have been seen
SLOT_RATIO = 0.05  # of what slots sell on average: a closed one sells less


def closed_steps(window: Window) -> Bools:
    """Which steps of context and horizon cannot sell: [N, S].

    A value of a flag, of a one-hot column or of any other known covariate with few values closes a
    step when, over all series, next to nothing was ever sold under it while most other steps sell;
    a series that did sell under it is left open. Where no covariate says so, weekdays and hours of
    the week on which nothing ever sells do. A step of the context with sales is never closed.

    >>> day = np.arange(42)
    >>> window = Window(("a",), "D", 86_400_000, 7, day[None] * 86_400_000,
    ...     (day[None, :35] % 7 < 4) * 5.0,
    ...                 (day[None, :, None] % 7 < 4) * 1.0, np.zeros((1, 35, 0)), ("open",), (), {})
    >>> closed_steps(window)[0, 35:].tolist()
    [False, False, False, False, True, True, True]
    """
    sold_NT = window.target_NT > 0
    seen_NT = np.isfinite(window.target_NT)
    closed_NS = _closed_by_covariates(window.known_NSK, sold_NT, seen_NT)
    # What the shop says about its days beats what its calendar looks like: it may open on its first
    # Sunday.
    if not closed_NS.any():
        closed_NS = _closed_by_calendar(window, sold_NT, seen_NT)
    closed_NS[:, : window.context_length] &= ~sold_NT
    return closed_NS


def _closed_by_covariates(known_NSK: Floats, sold_NT: Bools, seen_NT: Bools) -> Bools:
    """Steps that some value of some covariate closes, the value that explains most steps first.

    Each is judged by the steps that those before it left open, so that Sunday is no reason where
    "open" is known.
    """
    T = sold_NT.shape[1]
    idle_NT = seen_NT & ~sold_NT
    explained: dict[tuple[int, float], int] = {}
    for column in range(known_NSK.shape[2]):
        values_NT = known_NSK[:, :T, column]
        for value in _states(values_NT[seen_NT]):
            explained[column, value] = int((idle_NT & (values_NT == value)).sum())
    closed_NS = np.zeros(known_NSK.shape[:2], bool)
    for column, value in sorted(explained, key=lambda state: -explained[state]):
        there_NS = (known_NSK[:, :, column] == value) & ~closed_NS
        closed_NS |= _closed_by(there_NS, sold_NT, seen_NT & ~closed_NS[:, :T])
    return closed_NS


def _closed_by(there_NS: Bools, sold_NT: Bools, seen_NT: Bools) -> Bools:
    """The steps themselves where next to nothing sells on them and others sell; none otherwise."""
    there_NT = there_NS[:, : sold_NT.shape[1]] & seen_NT
    count_N = there_NT.sum(1)
    sold_N = (there_NT & sold_NT).sum(1)
    idle_N = sold_N <= 2 * NEVER * count_N
    count = int(count_N[idle_N].sum())
    sold = int(sold_N[idle_N].sum())
    never = sold <= NEVER * count if count >= MANY else count >= FEW and sold == 0
    other_sold = (sold_NT & seen_NT).sum() - sold_N.sum()
    sells_otherwise = other_sold > 0.5 * (seen_NT.sum() - count_N.sum())
    # A few series may know no closing days; one step that sold nothing anywhere may have been an
    # outage.
    most_idle = count >= 0.9 * count_N.sum()
    more_than_once = there_NT.any(0).sum() > 1
    if never and sells_otherwise and most_idle and more_than_once:
        return np.asarray(there_NS & idle_N[:, None])
    return np.zeros(there_NS.shape, bool)


def _states(values: Floats) -> list[float]:
    """The different finite values of a covariate, or none where there are too many to be states."""
    for part in (values[:1000], values):
        found = np.unique(part[np.isfinite(part)])
        if len(found) > MAX_VALUES:
            return []
    return [float(value) for value in found] if len(found) > 1 else []


def _closed_by_calendar(window: Window, sold_NT: Bools, seen_NT: Bools) -> Bools:
    """Slots of the week without sales.

    Those of all series together, and weekdays of single series that sell otherwise.
    """
    closed_NS = np.zeros(window.time_ms_NS.shape, bool)
    if not (0 < window.resolution_ms <= DAY_MS and WEEK_MS % window.resolution_ms == 0):
        return closed_NS
    slot_NS = window.time_ms_NS % WEEK_MS // window.resolution_ms
    recent = slice(
        max(0, sold_NT.shape[1] - CALENDAR_WEEKS * WEEK_MS // window.resolution_ms), None
    )
    slot_NT = slot_NS[:, : sold_NT.shape[1]][:, recent]
    sold_NT = sold_NT[:, recent]
    seen_NT = seen_NT[:, recent]
    slots = WEEK_MS // window.resolution_ms
    closed_NS |= _slots_without_sales(slot_NT, sold_NT, seen_NT, slots)[slot_NS]
    if window.resolution_ms == DAY_MS:
        for weekday in range(slots):
            idle_N = _idle_weekday(slot_NT == weekday, sold_NT, seen_NT)
            closed_NS |= idle_N[:, None] & (slot_NS == weekday)
    return closed_NS


def _idle_weekday(weekday_NT: Bools, sold_NT: Bools, seen_NT: Bools) -> Bools:
    """Which series sell next to nothing on a weekday and something on most other days: [N]."""
    there_NT = weekday_NT & seen_NT
    count_N = there_NT.sum(1)
    sold_N = (there_NT & sold_NT).sum(1)
    other_N = seen_NT.sum(1) - count_N
    other_sold_N = sold_NT.sum(1) - sold_N
    never_N = (count_N >= WEEKDAY_SEEN) & (sold_N <= 2 * NEVER * count_N)
    return np.asarray(never_N & (other_sold_N > 0.5 * other_N))


def _slots_without_sales(slot_NT: Ints, sold_NT: Bools, seen_NT: Bools, slots: int) -> Bools:
    """Which slots of the week sell next to nothing in any series: [G].

    They must have been seen as often as any.
    """
    count_G = np.bincount(slot_NT[seen_NT], minlength=slots)
    share_G = np.bincount(slot_NT[sold_NT], minlength=slots) / np.maximum(count_G, 1)
    # In thin data a rare sale may fall anywhere, so a slot must sell far less than the others do
    # and not only little.
    limit = min(NEVER, SLOT_RATIO * float(sold_NT.sum()) / max(1, int(seen_NT.sum())))
    weeks_G = np.array([(seen_NT & (slot_NT == slot)).any(0).sum() for slot in range(slots)])
    return (count_G >= MANY) & (weeks_G >= SLOT_WEEKS) & (share_G <= limit)
