"""What siblings sell: for the shop and its kinds of items, a profile, levels, and chance.

A series without a past of its own is forecast by these (`freshet.model.effects.newcomers`). Pools
form a tree: all series, those of one category, those of one category and region, and so on; each
leans on the one above it by how little it saw.

Dimensions: N series, T context steps, W slots of the week, K levels of a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freshet.model.effects.kinds import Column, articles, find_columns, paths
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, HOUR_MS

LEVELS = 8  # of a pool: as many equally likely kinds of siblings
MAX_POOLS = 64  # the largest ones; whoever is in none of them belongs to the one above
MIN_SIBLINGS = 4
WEEK_MS = 7 * DAY_MS
# Levels are those of the newest weeks; who sold before and not within them is no sibling.
RECENT_STEPS = {HOUR_MS: 28 * 24, DAY_MS: 56}
# Slots of a pool count as if it had sold so many units as the pool above it sells in them.
PROFILE_UNITS = 30.0
SIZE_RANGE = (0.05, 1_000.0)
SHAPE_RANGE = (0.5, 20.0)
# A level is never quite nothing.
LEAST_SHARE = 1e-3
LEAST_APART = 0.05  # of the variance between siblings, that between pools
DIGITS = 5
FINE_UNITS = 100.0  # by which amounts are counted: so many in what a sibling usually sells


@dataclass(frozen=True, slots=True)
class Pool:
    """What the series of one kind sell in a step.

    Attributes:
        path: the values that they have in common, as far as pools are told apart by them.
        profile_W: how much more or less than usual they sell in each slot of the week.
        level_K: what the K parts of them sell in a step, rising.
        shape_K: how much each of these levels is worth, as of a gamma distribution.
        size: of the negative binomial that a series of one level sells by.
    """

    path: tuple[str, ...]
    profile_W: Floats
    level_K: Floats
    shape_K: Floats
    size: float

    def validate(self, slots: int) -> None:
        """Raise ValueError where it is of other slots, or nothing can be sold by it."""
        shapes = (self.profile_W.shape, self.level_K.shape, self.shape_K.shape)
        if shapes != ((slots,), (LEVELS,), (LEVELS,)):
            raise ValueError(f"pool {self.path} has {shapes}; expected {slots} slots")
        least = min(self.level_K.min(), self.shape_K.min(), self.size)
        if not least > 0 or self.profile_W.min() < 0:
            raise ValueError(f"pool {self.path} sells {least}; expected more than nothing")


@dataclass(frozen=True, slots=True)
class Pools:
    """All that is known of siblings; none where steps are too short or too long for it.

    Attributes:
        columns: by which static columns pools are told apart.
        pools: parents before their children, the first is of all series.
        unit: what sales are counted in: 1, or less where they are amounts.
    """

    columns: tuple[Column, ...] = ()
    pools: tuple[Pool, ...] = ()
    unit: float = 1.0

    def of(self, window: Window) -> Ints:
        """The pool of each series, the narrowest that there is: [N]."""
        places = {pool.path: place for place, pool in enumerate(self.pools)}
        found: list[int] = []
        for path in paths(window, self.columns):
            while path not in places:
                path = path[:-1]
            found.append(places[path])
        return np.array(found, np.int64)

    def validate(self, resolution_ms: int) -> Pools:
        """Itself, where a series of this resolution can be told by it.

        Raises:
            ValueError: it cannot.
        """
        if self.pools and (self.pools[0].path or not self.unit > 0):
            raise ValueError("the first pool is not that of all series, or they sell in no unit")
        for pool in self.pools:
            pool.validate(num_slots(resolution_ms))
        return self


NO_POOLS = Pools()


def num_slots(resolution_ms: int) -> int:
    """Slots of the week that are told apart: 168 of hours, 7 of days, one of longer steps.

    >>> [num_slots(width_ms) for width_ms in (60_000, HOUR_MS, DAY_MS, WEEK_MS)]
    [0, 168, 7, 1]
    """
    if resolution_ms < HOUR_MS:
        return 0
    if resolution_ms > DAY_MS or WEEK_MS % resolution_ms:
        return 1
    return WEEK_MS // resolution_ms


def slots_of(window: Window) -> Ints:
    """The slot of each step, as the clock of the series' place shows it: [N, S]."""
    slots = num_slots(window.resolution_ms)
    if slots <= 1:
        return np.zeros(window.shown_ms_NS.shape, np.int64)
    return np.asarray(window.shown_ms_NS % WEEK_MS // window.resolution_ms)


# Finding them -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sales:
    """The newest steps of the siblings.

    Attributes:
        units_NT: without what shared effects did, 0 where not seen.
        seen_NT: which steps were seen.
        slot_NT: slots of the week.
    """

    units_NT: Floats
    seen_NT: Bools
    slot_NT: Ints

    def rows(self, rows: Ints) -> _Sales:
        return _Sales(self.units_NT[rows], self.seen_NT[rows], self.slot_NT[rows])

    def by_slot(self, values_NT: Floats, slots: int) -> Floats:
        """Sums over series and steps: [W]."""
        sums_W = np.bincount(self.slot_NT.ravel(), values_NT.ravel(), slots)
        return sums_W.astype(np.float64)


def find_pools(
    window: Window, closed_NS: Bools, effect_NS: Floats, *, continuous: bool = False
) -> Pools:
    """What the window's series sold before the cutoff, by their static columns.

    Args:
        window: targets in their own units.
        closed_NS: where nothing can sell.
        effect_NS: what shared effects add, in log units.
        continuous: whether targets are amounts rather than counts.
    """
    if not num_slots(window.resolution_ms):
        return NO_POOLS
    window, closed_NS, effect_NS = _recent(window, closed_NS, effect_NS)
    T = window.context_length
    plain_NT = window.target_NT * np.exp(-effect_NS[:, :T])
    seen_NT = np.isfinite(plain_NT) & ~closed_NS[:, :T]
    units_NT = np.where(seen_NT, plain_NT, 0.0)
    rows = _siblings(units_NT, seen_NT)
    if not len(rows):
        return NO_POOLS
    unit = _fine_unit(units_NT[rows], seen_NT[rows]) if continuous else 1.0
    sales = _Sales(units_NT[rows] / unit, seen_NT[rows], slots_of(window)[rows, :T])
    return _tree(window.rows(rows), sales, unit)


def _recent(window: Window, closed_NS: Bools, effect_NS: Floats) -> tuple[Window, Bools, Floats]:
    """The newest steps of siblings that sold lately, or never did."""
    steps = RECENT_STEPS.get(window.resolution_ms, window.context_length)
    cut = max(window.context_length - steps, 0)
    if not cut:
        return window, closed_NS, effect_NS
    before_N = np.nansum(window.target_NT[:, :cut], 1) > 0
    within_N = np.nansum(window.target_NT[:, cut:], 1) > 0
    there = np.flatnonzero(within_N | ~before_N)
    return window.newest(steps).rows(there), closed_NS[there, cut:], effect_NS[there, cut:]


def _siblings(units_NT: Floats, seen_NT: Bools) -> Ints:
    """Series with a past that says something: half as long as others have, or long enough."""
    seen_N = seen_NT.sum(1)
    return np.flatnonzero((seen_N > 0) & (2 * seen_N >= seen_N.max(initial=0)))


def _fine_unit(units_NT: Floats, seen_NT: Bools) -> float:
    mean_N = units_NT.sum(1) / np.maximum(seen_NT.sum(1), 1)
    usual = float(np.median(mean_N[mean_N > 0])) if (mean_N > 0).any() else 1.0
    return usual / FINE_UNITS


def _tree(window: Window, sales: _Sales, unit: float) -> Pools:
    slots = num_slots(window.resolution_ms)
    root = _pool((), sales, None, _daily(sales, slots), len(window))
    level_N, _ = _levels(sales, root.profile_W)
    columns = find_columns(window, np.log(level_N + LEAST_SHARE * level_N.mean() + 1e-12))
    pools: dict[tuple[str, ...], Pool] = {(): root}
    article_N = articles(window)
    for path, rows in _kinds(paths(window, columns), article_N):
        parent = pools[path[:-1]]
        kin = sales.rows(rows)
        pools[path] = _pool(path, kin, parent, parent.profile_W, len(set(article_N[rows])))
    return Pools(columns, tuple(pools.values()), float(_rounded(unit)))


def _kinds(
    path_N: Sequence[tuple[str, ...]], article_N: Ints
) -> list[tuple[tuple[str, ...], Ints]]:
    """The largest kinds of series besides all of them, parents first, and the rows of each."""
    rows_of: dict[tuple[str, ...], list[int]] = {}
    for row, path in enumerate(path_N):
        for depth in range(1, len(path) + 1):
            rows_of.setdefault(path[:depth], []).append(row)
    enough = [
        (path, rows) for path, rows in rows_of.items() if len(set(article_N[rows])) >= MIN_SIBLINGS
    ]
    # No child is larger than its parent, so that a parent is always there.
    largest = sorted(enough, key=lambda kind: (-len(kind[1]), len(kind[0]), kind[0]))
    return [(path, np.array(rows, np.int64)) for path, rows in largest[: MAX_POOLS - 1]]


def _pool(
    path: tuple[str, ...],
    sales: _Sales,
    parent: Pool | None,
    prior_W: Floats,
    num_articles: int,
) -> Pool:
    """The pool of some series, leaning on the one above it."""
    profile_W, size = prior_W, 1.0
    # What a series is worth hangs on chance, and chance is told from the profile.
    for _ in range(2):
        level_N, shape_N = _levels(sales, profile_W)
        size = _size(sales, profile_W, level_N, parent)
        profile_W = _profile(sales, level_N, size, prior_W)
    level_N, shape_N = _levels(sales, profile_W)
    order = np.argsort(level_N, kind="stable")
    level_K, shape_K = _parts(level_N[order]), _parts(shape_N[order])
    if parent is not None:
        share = _own_share(level_N, parent, num_articles)
        level_K = np.exp(share * np.log(level_K) + (1 - share) * np.log(parent.level_K))
        shape_K = share * shape_K + (1 - share) * parent.shape_K
    return Pool(
        path, _rounded(profile_W), _rounded(level_K), _rounded(shape_K), float(_rounded(size))
    )


def _levels(sales: _Sales, profile_W: Floats) -> tuple[Floats, Floats]:
    """What each series sells in a step, and what that is worth as the shape of a gamma: [N] each.

    A series that was seen for moments is worth little, and is brought near the others: levels are
    gamma distributed, by the moments of their sums.
    """
    expected_NT = np.where(sales.seen_NT, profile_W[sales.slot_NT], 0.0)
    expected_N = expected_NT.sum(1)
    sold_N = sales.units_NT.sum(1)
    mean = max(sold_N.sum() / max(expected_N.sum(), 1e-12), 1e-9)
    usual = expected_N.mean()
    beyond = sold_N.var() - sold_N.mean()
    spread = beyond / (mean * usual) ** 2 if beyond > 0 else 0.0
    shape = 1.0 / min(max(spread, 1 / 50), 20.0)
    level_N = (sold_N + shape) / (expected_N + shape / mean)
    # Siblings of few kinds shall leave room between them, unless they are all alike.
    least, most = SHAPE_RANGE
    shape_N = np.clip(sold_N + shape, least, max(most, shape))
    return np.maximum(level_N, LEAST_SHARE * mean), shape_N


def _size(sales: _Sales, profile_W: Floats, level_N: Floats, parent: Pool | None) -> float:
    """The size of a negative binomial by its second moment: variance = mean + mean ** 2 / size."""
    mean_NT = np.where(sales.seen_NT, level_N[:, None] * profile_W[sales.slot_NT], 0.0)
    weight_NT = 1.0 / ((mean_NT + 1e-3) * (1.0 + mean_NT))
    squares_NT = np.where(sales.seen_NT, (sales.units_NT - mean_NT) ** 2, 0.0)
    beyond = float((weight_NT * (squares_NT - mean_NT)).sum())
    square = float((weight_NT * mean_NT**2).sum())
    if parent is not None:
        beyond += MIN_SIBLINGS / len(level_N) * square / parent.size
        square += MIN_SIBLINGS / len(level_N) * square
    return float(np.clip(square / max(beyond, 1e-9), *SIZE_RANGE))


def _profile(sales: _Sales, level_N: Floats, size: float, prior_W: Floats) -> Floats:
    """How much more or less sells in each slot, near what is known of it without these series.

    A series counts by how little of what it sells is chance, or the largest alone would tell.
    """
    worth_N1 = 1.0 / (1.0 + level_N / size)[:, None]
    sold_W = sales.by_slot(worth_N1 * sales.units_NT, len(prior_W))
    flat_W = sales.by_slot(worth_N1 * level_N[:, None] * sales.seen_NT, len(prior_W))
    return (sold_W + PROFILE_UNITS * prior_W) / (flat_W + PROFILE_UNITS)


def _daily(sales: _Sales, slots: int) -> Floats:
    """Of hours, what is known of all days alike; of longer steps nothing: [W]."""
    flat_W = np.ones(slots)
    day = slots // 7
    if day <= 1:
        return flat_W
    level_N, _ = _levels(sales, flat_W)
    hours = _Sales(sales.units_NT, sales.seen_NT, sales.slot_NT % day)
    size = _size(hours, np.ones(day), level_N, None)
    return np.tile(_profile(hours, level_N, size, np.ones(day)), 7)


def _parts(rising_N: Floats) -> Floats:
    """Means of K equal parts of the values, each value being as wide as any other: [K].

    >>> _parts(np.arange(1.0, 17.0)).tolist()
    [1.5, 3.5, 5.5, 7.5, 9.5, 11.5, 13.5, 15.5]
    >>> _parts(np.array([1.0, 3.0])).tolist()
    [1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0]
    """
    edges = np.linspace(0.0, len(rising_N), LEVELS + 1)
    sums = np.interp(
        edges, np.arange(len(rising_N) + 1), np.concatenate([[0.0], np.cumsum(rising_N)])
    )
    return np.asarray(np.diff(sums) * LEVELS / len(rising_N))


def _own_share(level_N: Floats, parent: Pool, num_articles: int) -> float:
    """How much a pool's own levels count: by how far apart siblings are, and pools.

    The square of a mean's distance is that of its pool and a chance that falls with the siblings.
    """
    log_N = np.log(level_N)
    parent_K = np.log(parent.level_K)
    within = float(log_N.var()) + 1e-6
    apart = float((log_N.mean() - parent_K.mean()) ** 2)
    between = max(apart - within / num_articles, LEAST_APART * within)
    return num_articles / (num_articles + within / between)


def _rounded(values: Floats | float) -> Floats:
    """To so many significant digits: a record of them stays small."""
    exact = np.asarray(values, np.float64)
    place = np.floor(np.log10(np.where(exact > 0, exact, 1.0)))
    power = 10.0 ** np.abs(DIGITS - 1 - place)
    small = np.rint(exact * power) / power
    large = np.rint(exact / power) * power
    return np.asarray(np.where(place <= DIGITS - 1, small, large))
