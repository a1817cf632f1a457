"""Which items are forecast by the minute: those whose flash sale is near or runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import MAX_TIME_MS
from freshet.stream.units import DAY_MS

LEAD_MS = DAY_MS  # before a sale starts, its items are forecast for so long


@dataclass(frozen=True, slots=True)
class SaleSpan:
    """When the items of a flash sale are forecast, and which skus those are."""

    from_ms: int
    until_ms: int
    skus: tuple[str, ...]


def sale_spans(shop: ShopTables, from_ms: int, to_ms: int = MAX_TIME_MS) -> list[SaleSpan]:
    """Those of every flash sale that is near or runs in some of [from, to).

    As it was known at each time: before a sale was announced nobody could know of it, and one that
    was changed has a span for each version.
    """
    return [
        SaleSpan(begin_ms, end_ms, tuple(shop.promoted_skus(known.promotion)))
        for known in shop.promotions().versions(from_ms, to_ms + LEAD_MS)
        for begin_ms in [max(known.starts_ms - LEAD_MS, known.announced_ms)]
        for end_ms in [min(known.ends_ms, known.until_ms)]
        if known.promotion.flash_sale and begin_ms < end_ms
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

    >>> begun_ms([SaleSpan(10, 20, ("a",)), SaleSpan(20, 30, ("b",)), SaleSpan(1, 5, ("a",))], 25)
    10
    """
    # From here on all is covered; the moment itself is what has to be covered first.
    begin_ms = time_ms + 1
    for span in sorted(spans, key=lambda span: span.until_ms, reverse=True):
        if span.from_ms < begin_ms <= span.until_ms:
            begin_ms = span.from_ms
    return begin_ms if begin_ms <= time_ms else None
