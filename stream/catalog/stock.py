"""Stock by series: units on hand by the newest records, and since when there are any."""

from __future__ import annotations

from typing import NamedTuple

from freshet.stream.catalog.timeline import Changes
from freshet.stream.codec import time_ms
from freshet.stream.errors import EventError
from freshet.stream.schemas import InventoryLevel

MAX_STOCK_CHANGES = 2_048

Series = tuple[str | None, str | None]
"""Sku and region; a region of None stands for all regions."""


class RegionStock(NamedTuple):
    """Units on hand in one region."""

    as_of_ms: int
    on_hand: float


class StockTable:
    """The newest stock of each region of a series, and when the series sold out and came back.

    Args:
        by_region: Whether series are told apart by region; else all regions of a sku are one.
    """

    def __init__(self, *, by_region: bool) -> None:
        self._by_region = by_region
        self._regions: dict[Series, dict[str | None, RegionStock]] = {}
        self._in_stock: dict[Series, Changes] = {}

    def take(self, level: InventoryLevel) -> tuple[Series, str | None]:
        """Take in a record, unless a newer one of its region is known; which stock it is about.

        Raises:
            EventError: Its number of units is not finite.
        """
        as_of_ms = time_ms(level.as_of)
        if not abs(level.on_hand) < float("inf"):
            raise EventError(
                f"inventory of {level.sku!r} has on_hand {level.on_hand}; expected a finite number"
            )
        series = (level.sku, level.region if self._by_region else None)
        regions = self._regions.setdefault(series, {})
        before = regions.get(level.region)
        if before is None or as_of_ms >= before.as_of_ms:
            regions[level.region] = RegionStock(as_of_ms, level.on_hand)
            self._note(series)
        return series, level.region

    def drop(self, series: Series, region: str | None) -> None:
        """Forget one region, and the whole series with its last one."""
        regions = self._regions.get(series, {})
        regions.pop(region, None)
        if regions:
            self._note(series)
        else:
            self._regions.pop(series, None)
            self._in_stock.pop(series, None)

    def on_hand(self, series: Series) -> float:
        """Units in all regions of a series together; NaN where unknown."""
        regions = self._regions.get(self._told_for(series))
        return sum(stock.on_hand for stock in regions.values()) if regions else float("nan")

    def levels(self, series: Series) -> list[RegionStock]:
        """The newest record of each region of a series; empty where unknown."""
        return list(self._regions.get(self._told_for(series), {}).values())

    def changes(self, series: Series) -> Changes | None:
        """Since when the series was in stock (1.0) or not (0.0); None where unknown."""
        return self._in_stock.get(self._told_for(series))

    def _note(self, series: Series) -> None:
        """A series is in stock while any region of it has units on hand."""
        regions = self._regions[series].values()
        newest_ms = max(stock.as_of_ms for stock in regions)
        in_stock = any(stock.on_hand > 0 for stock in regions)
        changes = self._in_stock.setdefault(series, Changes(MAX_STOCK_CHANGES))
        changes.set_from(newest_ms, float(in_stock))

    def _told_for(self, series: Series) -> Series:
        """The series whose records count: its own, else those of the sku that named no region."""
        return series if series in self._regions else (series[0], None)
