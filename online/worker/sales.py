"""Which items are forecast by the minute: those whose flash sale is near or runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from freshet.stream.catalog.tables import ShopTables
from freshet.stream.units import DAY_MS

LEAD_MS = DAY_MS  # before a sale starts, its items are forecast for so long


@dataclass(frozen=True, slots=True)
class SaleSpan:
    """When the items of a flash sale are forecast, and which skus those are."""

    from_ms: int
    until_ms: int
    skus: tuple[str, ...]


def sale_spans(shop: ShopTables) -> list[SaleSpan]:
    """Those of every flash sale that is known."""
    return [
        SaleSpan(
            # Before it was announced nobody could know of it.
            max(known.starts_ms - LEAD_MS, known.announced_ms),
            known.ends_ms,
            tuple(shop.promoted_skus(known.promotion)),
        )
        for known in shop.promotions()
        if known.promotion.flash_sale
    ]


def skus_at(spans: Iterable[SaleSpan], time_ms: int, linger_ms: int = 0) -> frozenset[str]:
    """Skus that are forecast at a time, or were within the last `linger_ms`.

    >>> spans = [SaleSpan(10, 20, ("a",)), SaleSpan(15, 30, ("a", "b"))]
    >>> sorted(skus_at(spans, 10)), sorted(skus_at(spans, 20)), sorted(skus_at(spans, 35, 10))
    (['a'], ['a', 'b'], ['a', 'b'])
    """
    return frozenset(
        sku
        for span in spans
        if span.from_ms <= time_ms < span.until_ms + linger_ms
        for sku in span.skus
    )


def begun_ms(spans: Iterable[SaleSpan], time_ms: int) -> int | None:
    """Since when, without a break, some item has been forecast up to a time; None: none is.

    >>> begun_ms([SaleSpan(10, 20, ("a",)), SaleSpan(15, 30, ("b",)), SaleSpan(1, 5, ("a",))], 25)
    10
    """
    begin_ms = None
    for span in sorted(spans, key=lambda span: span.until_ms, reverse=True):
        reach_ms = time_ms if begin_ms is None else begin_ms
        if span.from_ms <= reach_ms and span.until_ms > reach_ms:
            begin_ms = span.from_ms
    return begin_ms
