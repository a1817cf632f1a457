"""Stock by series, in versions: units on hand, and when there were any, as it was known when."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.catalog.timeline import BucketSpan, columns_of, share_of_buckets
from freshet.stream.catalog.versions import NAN, History, Known
from freshet.stream.codec import time_ms
from freshet.stream.schemas import InventoryLevel

MAX_STOCK_CHANGES = 2_048

_WHOLE = 1 - 1e-9  # A share of a day that lacks a millisecond is below.

Series = tuple[str | None, str | None]
"""Sku and region; a region of None stands for all regions."""


class RegionStock(NamedTuple):
    """Units on hand in one region."""

    as_of_ms: int
    on_hand: float


class StockTable:
    """Every record of each region's stock: by the time it is about, and by when it was known.

    Beyond `MAX_STOCK_CHANGES` of a region, those that change nothing about being in stock go, then
    the oldest.

    Args:
        by_region: Whether series are told apart by region; else all regions of a sku are one.
    """

    def __init__(self, *, by_region: bool) -> None:
        self._by_region = by_region
        self._regions: dict[Series, dict[str | None, History]] = {}

    def take(self, level: InventoryLevel, known: Known) -> int:
        """Take in a record; how many old ones were dropped for want of room."""
        regions = self._regions.setdefault(self._series(level.sku, level.region), {})
        history = regions.setdefault(level.region, History())
        history.put(time_ms(level.as_of), known, level.on_hand)
        return _thinned(history) if len(history) > MAX_STOCK_CHANGES else 0

    def delete(self, about: tuple[str, str | None], known: Known) -> None:
        """The stock of a sku in a region is unknown from then on."""
        history = self._regions.get(self._series(*about), {}).get(about[1])
        if history is not None:
            history.put(known.ms, known, NAN)

    def forget_before(self, before_ms: int) -> int:
        """Drop what no question about later times needs; how many records."""
        dropped = 0
        for series, regions in list(self._regions.items()):
            for region, history in list(regions.items()):
                dropped += _forget(history, before_ms)
                if not len(history):
                    del regions[region]
            if not regions:
                del self._regions[series]
        return dropped

    def on_hand(self, series: Series) -> float:
        """Units in all regions of a series together by the newest records; NaN where unknown."""
        levels = self.levels(series)
        return sum(stock.on_hand for stock in levels) if levels else NAN

    def levels(self, series: Series) -> list[RegionStock]:
        """The newest record of each region of a series; empty where unknown."""
        newest = [(one.times_ms[-1], one.values[-1]) for one in self._told_for(series, None)]
        return [RegionStock(*stock) for stock in newest if stock[1] == stock[1]]

    def in_stock(self, series: Sequence[Series], span: BucketSpan, as_of_ms: int) -> Floats:
        """The share of each bucket for which any region had units on hand, float64[I, S].

        NaN where that is not known throughout the bucket.
        """
        told = [self._told_for(one, as_of_ms) for one in series]
        item_R = np.repeat(np.arange(len(told)), [len(regions) for regions in told])
        histories = [history for regions in told for history in regions]
        columns = columns_of(histories, span.start_ms, span.end_ms, as_of_ms)
        rows_N, times_N, on_hand_N = columns
        if len(histories) == len(np.unique(item_R)):
            known_N = np.isfinite(on_hand_N)
            state_N, known_N = (on_hand_N > 0).astype(np.float64), known_N.astype(np.float64)
            rows_N = item_R[rows_N]
        else:
            rows_N, times_N, state_N, known_N = _together(item_R, rows_N, times_N, on_hand_N)
        shares = partial(share_of_buckets, rows_N, times_N, num_rows=len(series), span=span)
        share_IS = shares(state_N)
        if not known_N.all():
            known_IS = shares(known_N)
            share_IS[known_IS < _WHOLE] = np.nan
        return share_IS

    def _series(self, sku: str, region: str | None) -> Series:
        return sku, region if self._by_region else None

    def _told_for(self, series: Series, as_of_ms: int | None) -> list[History]:
        """The regions whose records count: its own, else those of the sku that named no region."""
        regions = self._regions.get(series)
        if regions and len(regions) == 1:
            (only,) = regions.values()
            if as_of_ms is not None and only.newest_ms <= as_of_ms and only.values[-1] >= 0:
                return [only]  # So it is with nearly all, and they are many.
        own = _known(regions, as_of_ms)
        if series[1] is None or _any_stands(own):
            return own
        of_all = _known(self._regions.get((series[0], None)), as_of_ms)
        return of_all if _any_stands(of_all) else own


def _any_stands(histories: list[History]) -> bool:
    """Whether any was not deleted."""
    return any(one.values[-1] == one.values[-1] for one in histories)


def _known(regions: dict[str | None, History] | None, as_of_ms: int | None) -> list[History]:
    """Regions of which anything was known at a time, as it was known then."""
    if not regions:
        return []
    if as_of_ms is None:
        return list(regions.values())
    known = [history.known_by(as_of_ms) for history in regions.values()]
    return [history for history in known if len(history)]


def _together(
    item_R: Ints, rows_N: Ints, times_N: Ints, on_hand_N: Floats
) -> tuple[Ints, Ints, Floats, Floats]:
    """Regions of one item taken together: it is in stock while any is, and known while any is.

    Returns:
        Item, time, whether in stock and whether known from then on, of each change.
    """
    state_N = np.where(on_hand_N > 0, 1, 0)
    known_N = np.isfinite(on_hand_N).astype(np.int64)
    first_N = np.ones(len(rows_N), bool)
    first_N[1:] = rows_N[1:] != rows_N[:-1]
    jumps = [np.where(first_N, one, np.diff(one, prepend=0)) for one in (state_N, known_N)]
    items_N = item_R[rows_N]
    order = np.lexsort((times_N, items_N))
    items_N, times_N = items_N[order], times_N[order]
    # A row's jumps add up to its last state, so what was before a row is taken off again.
    begins_N = np.searchsorted(items_N, items_N)
    counts = []
    for jump_N in jumps:
        running = np.concatenate([[0], np.cumsum(jump_N[order])])
        counts.append((running[1:] - running[begins_N] > 0).astype(np.float64))
    return items_N, times_N, *counts


def _forget(history: History, before_ms: int) -> int:
    count = len(history)
    places = list(range(history.first_needed(before_ms), count))
    first = places[0]
    known_ms = max(history.times_ms[first], history.known_ms[first])
    if history.values[first] != history.values[first] and known_ms <= before_ms:
        del places[0]  # Unknown is what it is without.
    if len(places) < count:
        history.keep(places)
    return count - len(places)


def _thinned(history: History) -> int:
    """Make room: without those that change nothing, and the oldest; how many of those.

    One changes nothing if the one before it said the same and was known when it came.
    """
    values = np.array(history.values)
    state = np.where(np.isfinite(values), values > 0, 2)
    known = np.array(history.known_ms)
    changes = np.ones(len(values), bool)
    changes[1:] = (state[1:] != state[:-1]) | (known[1:] < known[:-1])
    changes[-1] = True
    places = np.flatnonzero(changes).tolist()
    most = MAX_STOCK_CHANGES * 3 // 4
    history.keep(places[-most:])
    return max(len(places) - most, 0)
