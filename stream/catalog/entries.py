"""Catalogue entries by sku, in versions: what each item was, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.catalog.timeline import BucketSpan, columns_of, value_at_starts
from freshet.stream.catalog.versions import NAN, NEWEST_MS, History, Known
from freshet.stream.schemas import CatalogEntry

MAX_PRICE_CHANGES = 512


@dataclass(slots=True)
class _Versions:
    """One sku: its prices, and beside each what else the entry said; None where it was deleted.

    Neighbours that differ in the price alone share one entry, without it.
    """

    prices: History = field(default_factory=History)
    entries: list[CatalogEntry | None] = field(default_factory=list)

    def put(self, entry: CatalogEntry | None, known: Known) -> None:
        price = NAN if entry is None or entry.unit_price is None else entry.unit_price
        place, new = self.prices.put(known.ms, known, price)
        if entry is not None:
            entry = msgspec.structs.replace(entry, unit_price=None, announced_at=None)
            for near in (place - 1, place):
                if 0 <= near < len(self.entries) and self.entries[near] == entry:
                    entry = self.entries[near]
        self.entries[place : place + (not new)] = [entry]

    def at(self, as_of_ms: int) -> CatalogEntry | None:
        place = len(self.entries) - 1
        if self.prices.newest_ms > as_of_ms:
            place = self.prices.place_at(as_of_ms)
        return self.entries[place] if place >= 0 else None

    def keep(self, places: list[int]) -> int:
        dropped = len(self.entries) - len(places)
        self.prices.keep(places)
        self.entries = [self.entries[place] for place in places]
        return dropped


class Entries:
    """Every version of the catalogue's entries; an entry holds from when it is known on.

    Beyond `MAX_PRICE_CHANGES` of a sku, those that repeat the one before go, then the oldest.
    """

    def __init__(self) -> None:
        self._of: dict[str, _Versions] = {}

    def take(self, entry: CatalogEntry, known: Known) -> int:
        """Take in a version; how many old ones were dropped for want of room."""
        versions = self._of.setdefault(entry.sku, _Versions())
        versions.put(entry, known)
        return _thinned(versions) if len(versions.entries) > MAX_PRICE_CHANGES else 0

    def delete(self, sku: str, known: Known) -> None:
        """It is unknown from then on."""
        if sku in self._of:
            self._of[sku].put(None, known)

    def forget_before(self, before_ms: int) -> int:
        """Drop what no question about later times needs; how many versions."""
        dropped = 0
        for sku, versions in list(self._of.items()):
            count = len(versions.entries)
            places = list(range(versions.prices.first_needed(before_ms), count))
            first = places[0]
            if versions.entries[first] is None and versions.prices.times_ms[first] <= before_ms:
                del places[0]  # Unknown is what it is without.
            if len(places) < count:
                dropped += versions.keep(places)
            if not places:
                del self._of[sku]
        return dropped

    def at(self, sku: str, as_of_ms: int = NEWEST_MS) -> CatalogEntry | None:
        """What an entry said at a time, without its price."""
        versions = self._of.get(sku)
        return versions.at(as_of_ms) if versions else None

    def whole(self, sku: str) -> CatalogEntry | None:
        """The newest entry of a sku, with its price."""
        entry, price = self.at(sku), self.price(sku, NEWEST_MS)
        if entry is None or price != price:
            return entry
        return msgspec.structs.replace(entry, unit_price=price)

    def skus(self, as_of_ms: int = NEWEST_MS) -> list[str]:
        """Skus that had an entry at a time."""
        return [sku for sku, versions in self._of.items() if versions.at(as_of_ms) is not None]

    def price(self, sku: str, as_of_ms: int) -> float:
        """The price of a sku; NaN where unknown."""
        versions = self._of.get(sku)
        return versions.prices.at(as_of_ms) if versions else NAN

    def price_ratios(self, skus: Sequence[str], span: BucketSpan, as_of_ms: int) -> Singles:
        """The price at each bucket's start over the price at `as_of_ms`, float32[I, S].

        Changes after `as_of_ms` are cut off, so that every later bucket has the price of then.
        """
        distinct = {sku: row for row, sku in enumerate(dict.fromkeys(skus))}
        versions = [self._of.get(sku) for sku in distinct]
        histories = [one.prices if one else None for one in versions]
        from_ms, until_ms = min(span.start_ms, as_of_ms), min(span.end_ms, as_of_ms + 1)
        rows_N, times_N, prices_N = columns_of(histories, from_ms, until_ms)
        now_R: Floats = np.array([one.at(as_of_ms) if one else NAN for one in histories])
        ratios_N = (prices_N / now_R[rows_N]).astype(np.float32)
        ratio_RS = value_at_starts(rows_N, times_N, ratios_N, num_rows=len(distinct), span=span)
        if len(distinct) == len(skus):
            return ratio_RS
        row_I: Ints = np.array([distinct[sku] for sku in skus], np.int64)
        return ratio_RS[row_I]


def _thinned(versions: _Versions) -> int:
    """Make room: without those that repeat the one before, and the oldest; how many of those."""
    entries, prices = versions.entries, versions.prices.values
    places = [
        place
        for place in range(len(entries))
        if not place
        or entries[place] != entries[place - 1]
        or not _same(prices[place], prices[place - 1])
    ]
    most = MAX_PRICE_CHANGES * 3 // 4
    versions.keep(places[-most:])
    return max(len(places) - most, 0)


def _same(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)
