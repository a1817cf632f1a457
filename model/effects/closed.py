"""Steps on which nothing can sell: closed shops, days off, nights.

They are found from what was sold before the cutoff.

A forecast there is exactly 0 at every level, and profiles leave such steps out. Dimensions: N
series, T context steps, H horizon steps, S = T + H, K known covariates, G slots of a week.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, WEEK_MS

DECLARED_CLOSED = "closed"  # the column by which a shop says so itself
MAX_VALUES = 16  # a covariate with more different values is a number, not a state
# Share of steps with sales that still means never, where many steps were seen; where they are few,
# not one may have sold.
NEVER = 0.005
MANY = 50
FEW = 12
CALENDAR_WEEKS = 52  # a weekday that sold more than a year ago says nothing
WEEKDAY_SEEN = 20  # steps of a single series before one of its weekdays counts as closed
SLOT_WEEKS = 7  # different weeks in which a slot of the week must have been seen
SLOT_RATIO = 0.05  # of what slots sell on average: a closed one sells less


@dataclass(frozen=True, slots=True)
class Closing:
    """What closes steps, as all series together showed it; each series may still stay open.

    Attributes:
        states: column and value of the known covariates that close a step, the one that explains
            most steps first.
        slots: slots of the week without sales in any series.
        by_calendar: whether weekdays and hours say it, since no covariate does.
    """

    states: tuple[tuple[int, float], ...] = ()
    slots: tuple[int, ...] = ()
    by_calendar: bool = False

    def steps(self, window: Window) -> Bools:
        """Which steps of context and horizon cannot sell, each series on its own: [N, S].

        A series that did sell under a state is left open, and so is a step with sales.
        """
        T = window.context_length
        sold_NT = window.target_NT > 0
        seen_NT = np.isfinite(window.target_NT)
        closed_NS = np.zeros(window.time_ms_NS.shape, bool)
        for column, value in self.states:
            open_NS = ~closed_NS
            there_NS = (window.known_NSK[:, :, column] == value) & open_NS
            there_NT = there_NS[:, :T] & seen_NT
            closed_NS |= there_NS & _idle(there_NT, sold_NT)[:, None]
        if self.by_calendar:
            closed_NS |= self._by_calendar(window, sold_NT, seen_NT)
        closed_NS[:, :T] &= ~sold_NT
        return closed_NS

    def _by_calendar(self, window: Window, sold_NT: Bools, seen_NT: Bools) -> Bools:
        """Slots of the week that sell in no series, and weekdays of single series."""
        slot_NS, recent = _slots(window)
        closed_NS = np.isin(slot_NS, self.slots)
        # Of a single series only weekdays: it has too few steps in each hour of the week.
        if window.resolution_ms == DAY_MS:
            slot_NX = slot_NS[:, recent]
            for weekday in range(7):
                idle_N = _idle_weekday(slot_NX == weekday, sold_NT[:, recent], seen_NT[:, recent])
                closed_NS |= idle_N[:, None] & (slot_NS == weekday)
        return closed_NS


NO_CLOSING = Closing()


def closed_steps(window: Window) -> Bools:
    """Which steps of context and horizon cannot sell: [N, S].

    >>> day = np.arange(42)
    >>> window = Window(("a",), "D", 86_400_000, 7, day[None] * 86_400_000,
    ...     (day[None, :35] % 7 < 4) * 5.0,
    ...                 (day[None, :, None] % 7 < 4) * 1.0, np.zeros((1, 35, 0)), ("open",), (), {})
    >>> closed_steps(window)[0, 35:].tolist()
    [False, False, False, False, True, True, True]
    """
    return find_closing(window).steps(window)


def find_closing(window: Window) -> Closing:
    """What closes steps in the window's past.

    A value of a flag, of a one-hot column or of any other known covariate with few values closes a
    step when, over all series, next to nothing was ever sold under it while most other steps sell.
    A column that is named "closed" needs no proof. Where no covariate closes anything, weekdays and
    hours of the week do on which nothing ever sells.
    """
    sold_NT = window.target_NT > 0
    seen_NT = np.isfinite(window.target_NT)
    states, any_closed = _closing_states(window, sold_NT, seen_NT)
    # What the shop says about its days beats what its calendar looks like: it may open on its first
    # Sunday.
    if any_closed or not _has_slots(window):
        return Closing(states)
    slot_NS, recent = _slots(window)
    slots = WEEK_MS // window.resolution_ms
    closed_G = _slots_without_sales(
        slot_NS[:, recent], sold_NT[:, recent], seen_NT[:, recent], slots
    )
    closed_slots = tuple(int(slot) for slot in np.flatnonzero(closed_G))
    return Closing(states, closed_slots, by_calendar=True)


def _closing_states(
    window: Window, sold_NT: Bools, seen_NT: Bools
) -> tuple[tuple[tuple[int, float], ...], bool]:
    """Column and value of what closes steps, and whether any step is closed by them.

    Each is judged by the steps that those before it left open, so that Sunday is no reason where
    "open" is known.
    """
    T = sold_NT.shape[1]
    idle_NT = seen_NT & ~sold_NT
    explained: dict[tuple[int, float], int] = {}
    for column in range(window.known_NSK.shape[2]):
        values_NT = window.known_NSK[:, :T, column]
        for value in _states(values_NT[seen_NT]):
            there_NT = idle_NT & (values_NT == value)
            explained[column, value] = int(there_NT.sum())
    most_first = sorted(explained, key=lambda state: -explained[state])
    said = [
        (column, 1.0) for column, name in enumerate(window.known_names) if name == DECLARED_CLOSED
    ]

    closing: list[tuple[int, float]] = []
    closed_NS = np.zeros(window.known_NSK.shape[:2], bool)
    for column, value in dict.fromkeys([*said, *most_first]):
        open_NS = ~closed_NS
        there_NS = (window.known_NSK[:, :, column] == value) & open_NS
        there_NT = there_NS[:, :T] & seen_NT
        declared = (column, value) in said
        if declared or _closes(there_NT, sold_NT, seen_NT & open_NS[:, :T]):
            closing.append((column, value))
            closed_NS |= there_NS & _idle(there_NT, sold_NT)[:, None]
    return tuple(closing), bool(closed_NS.any())


def _idle(there_NT: Bools, sold_NT: Bools) -> Bools:
    """Which series sell next to nothing on these steps: [N]. Those that did sell stay open."""
    sold_N = (there_NT & sold_NT).sum(1)
    idle_N: Bools = sold_N <= 2 * NEVER * there_NT.sum(1)
    return idle_N


def _closes(there_NT: Bools, sold_NT: Bools, seen_NT: Bools) -> bool:
    """Whether next to nothing sells on these steps while others sell."""
    there_N = there_NT.sum(1)
    sold_N = (there_NT & sold_NT).sum(1)
    idle_N = _idle(there_NT, sold_NT)
    count = int(there_N[idle_N].sum())
    sold = int(sold_N[idle_N].sum())
    none_at_all = count >= FEW and sold == 0
    hardly_of_many = count >= MANY and sold <= NEVER * count

    # Where nothing sells anyway, an idle step is no news.
    other_sold = (sold_NT & seen_NT).sum() - sold_N.sum()
    other_seen = seen_NT.sum() - there_N.sum()
    sells_otherwise = other_sold > 0.5 * other_seen
    # A few series may know no closing days; one step that sold nothing anywhere may have been an
    # outage.
    most_idle = count >= 0.9 * there_N.sum()
    more_than_once = there_NT.any(0).sum() > 1
    never = none_at_all or hardly_of_many
    return bool(never and sells_otherwise and most_idle and more_than_once)


def _states(values: Floats) -> list[float]:
    """The different finite values of a covariate, or none where there are too many to be states."""
    # A number shows itself within the first values; only what looks like states is sorted whole.
    found = _different(values[:1000])
    if len(found) <= MAX_VALUES:
        found = _different(values)
    if 1 < len(found) <= MAX_VALUES:
        return [float(value) for value in found]
    return []


def _different(values: Floats) -> Floats:
    """The different finite values, rising."""
    finite = values[np.isfinite(values)]
    return np.unique(finite)


def _has_slots(window: Window) -> bool:
    """Whether a week is a whole number of steps of at most a day."""
    return 0 < window.resolution_ms <= DAY_MS and WEEK_MS % window.resolution_ms == 0


def _slots(window: Window) -> tuple[Ints, slice]:
    """The slot of the week of each step: [N, S]; and which context steps are recent enough."""
    slots = WEEK_MS // window.resolution_ms
    slot_NS = window.shown_ms_NS % WEEK_MS // window.resolution_ms
    T = window.context_length
    return slot_NS, slice(max(0, T - CALENDAR_WEEKS * slots), T)


def _idle_weekday(weekday_NT: Bools, sold_NT: Bools, seen_NT: Bools) -> Bools:
    """Which series sell nothing on a weekday and something on most other days: [N]."""
    there_NT = weekday_NT & seen_NT
    count_N = there_NT.sum(1)
    sold_N = (there_NT & sold_NT).sum(1)
    other_N = seen_NT.sum(1) - count_N
    other_sold_N = sold_NT.sum(1) - sold_N
    often_seen_N = count_N >= WEEKDAY_SEEN
    # A year has too few of one weekday for a sale to be a rare one.
    idle_N = sold_N == 0
    sells_otherwise_N = other_sold_N > 0.5 * other_N
    return np.asarray(often_seen_N & idle_N & sells_otherwise_N)


def _slots_without_sales(slot_NT: Ints, sold_NT: Bools, seen_NT: Bools, slots: int) -> Bools:
    """Which slots of the week sell next to nothing in any series: [G].

    They must have been seen as often as any.
    """
    count_G = np.bincount(slot_NT[seen_NT], minlength=slots)
    sold_G = np.bincount(slot_NT[sold_NT], minlength=slots)
    share_G = sold_G / np.maximum(count_G, 1)
    # In thin data a rare sale may fall anywhere, so a slot must sell far less than the others do
    # and not only little.
    seen = max(1, int(seen_NT.sum()))
    usual_share = SLOT_RATIO * float(sold_NT.sum()) / seen
    limit = min(NEVER, usual_share)

    weeks_G = np.zeros(slots, np.int64)
    for slot in range(slots):
        there_NT = seen_NT & (slot_NT == slot)
        weeks_G[slot] = there_NT.any(0).sum()
    often_seen_G = (count_G >= MANY) & (weeks_G >= SLOT_WEEKS)
    return often_seen_G & (share_G <= limit)
