"""The board of flash sales: what sold, what is left, and when it will be gone.

Sold is counted by the minute where minutes are folded, and by the hour before those that Redis
still holds. What is left is what the newest inventory record said, less what sold since its time; a
return puts nothing back until such a record says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from freshet.dashboard.actuals import Actuals
from freshet.dashboard.figures import Json
from freshet.dashboard.forecasts import ItemForecasts
from freshet.dashboard.sold import SalesLog, Sold
from freshet.dashboard.state import TopicState
from freshet.stream.catalog.flashsale import Outlook, SellOut, estimate_sell_out
from freshet.stream.catalog.promotions import Announced
from freshet.stream.catalog.versions import FOREVER_MS
from freshet.stream.read.few import FewCells
from freshet.stream.schemas import Cumulative, item_id_parts
from freshet.stream.units import DAY_MS, HOUR_MS

ENDED_SHOWN_MS = 6 * HOUR_MS
ANNOUNCED_SHOWN_MS = 2 * DAY_MS
MAX_SALES = 12
MAX_SALE_ITEMS = 8
STATE_ORDER = {"running": 0, "announced": 1, "ended": 2}


def flash_sales(
    topics: TopicState, actuals: Actuals, now_ms: int, minutes: FewCells | None = None
) -> Json:
    """Flash sales that run, are announced, or ended a few hours ago; the running ones first.

    Args:
        topics: Promotions, stock and forecasts.
        actuals: What sold by the main resolution.
        now_ms: The shop's clock.
        minutes: What sold by the minute; None where that is not known.
    """
    log = SalesLog(actuals, minutes)
    by_sku = _items_by_sku(topics, actuals)
    sales = []
    for known in _shown(topics, now_ms):
        items = _items_of(known, topics, by_sku)
        rows = [_sale_item(item_id, known, topics, log, now_ms) for item_id in items]
        sales.append(_sale(known, topics, now_ms, rows))
    sales.sort(key=_place)
    return {
        "now_ms": now_ms,
        "total": len(sales),
        "sales": sales[:MAX_SALES],
        "counted_to_ms": log.counted_to_ms,
        "offsets": dict(minutes.offsets) if minutes else {},
    }


def items_on_sale(topics: TopicState, actuals: Actuals, now_ms: int) -> set[str]:
    """The items of sales that run or ended a few hours ago, which are counted by the minute."""
    by_sku = _items_by_sku(topics, actuals)
    begun = [known for known in _shown(topics, now_ms) if known.starts_ms <= now_ms]
    return {item_id for known in begun for item_id in _items_of(known, topics, by_sku)}


def _shown(topics: TopicState, now_ms: int) -> Iterator[Announced]:
    for known in topics.shop.promotions():
        soon = known.starts_ms < now_ms + ANNOUNCED_SHOWN_MS
        lately = known.ends_ms > now_ms - ENDED_SHOWN_MS
        if known.promotion.flash_sale and soon and lately:
            yield known


def _items_of(known: Announced, topics: TopicState, by_sku: dict[str, list[str]]) -> list[str]:
    skus = topics.shop.promoted_skus(known.promotion)
    return [item_id for sku in skus for item_id in by_sku.get(sku, [])]


def _place(sale: Json) -> tuple[int, int]:
    """Running, then announced, the earliest first; then ended, the latest first."""
    starts_ms = sale["starts_ms"]
    return STATE_ORDER[sale["state"]], -starts_ms if sale["state"] == "ended" else starts_ms


def _items_by_sku(topics: TopicState, actuals: Actuals) -> dict[str, list[str]]:
    by_sku: dict[str, list[str]] = {}
    position = topics.series_by.index("sku") if "sku" in topics.series_by else 0
    for item_id in sorted(topics.book.items.keys() | actuals.rows.keys()):
        forecasts = topics.book.items.get(item_id)
        sku = forecasts.newest.sku if forecasts else item_id_parts(item_id)[position]
        by_sku.setdefault(sku, []).append(item_id)
    return by_sku


def _sale(known: Announced, topics: TopicState, now_ms: int, rows: list[Json]) -> Json:
    promotion = known.promotion
    rows.sort(key=lambda row: (-(row["chance"] or 0.0), -(row["sold"] or 0.0), row["item_id"]))
    entry = topics.shop.entry(promotion.sku) if promotion.sku else None
    sold = _known_sum(row["sold"] for row in rows)
    by_minute = [row["by_minute_from_ms"] for row in rows if row["by_minute_from_ms"] is not None]
    on_hand = _known_sum(row["on_hand"] for row in rows)
    return {
        "promotion_id": promotion.promotion_id,
        "state": _state(known, now_ms),
        "title": entry.title if entry and entry.title else promotion.sku or promotion.category,
        "discount": promotion.discount,
        "starts_ms": known.starts_ms,
        "ends_ms": known.ends_ms,
        "sold": sold,
        "by_minute_from_ms": max(by_minute, default=None),
        "on_hand": on_hand,
        "sell_through": _share(sold, on_hand),
        "num_items": len(rows),
        "items": rows[:MAX_SALE_ITEMS],
    }


def _state(known: Announced, now_ms: int) -> str:
    if now_ms < known.starts_ms:
        return "announced"
    return "running" if now_ms < known.ends_ms else "ended"


def _sale_item(
    item_id: str, known: Announced, topics: TopicState, log: SalesLog, now_ms: int
) -> Json:
    sold = Sold(0.0)
    if now_ms >= known.starts_ms:
        sold = log.sold(item_id, known.starts_ms, known.ends_ms)
    stock = _stock(item_id, topics, log, now_ms)
    left = None if stock is None else stock.left
    estimate: SellOut | None = None
    if stock is not None and now_ms < known.ends_ms:
        estimate = _sell_out(item_id, stock, topics, known.ends_ms)
    forecasts = topics.book.items.get(item_id)
    return {
        "item_id": item_id,
        "region": forecasts.newest.region if forecasts else "",
        "sold": sold.units,
        "by_minute_from_ms": sold.by_minute_from_ms,
        "on_hand": left,
        "stock_as_of_ms": None if stock is None else stock.as_of_ms,
        "sell_through": _share(sold.units, left),
        **_estimate(estimate, now_ms),
    }


class Stock(NamedTuple):
    """Units left of an item.

    `on_hand` were there at `as_of_ms` by the newest inventory record, `left` are at `counted_ms`.
    """

    on_hand: float
    as_of_ms: int
    left: float
    counted_ms: int


def _stock(item_id: str, topics: TopicState, log: SalesLog, now_ms: int) -> Stock | None:
    levels = topics.shop.stock_levels(item_id)
    if not levels:
        return None
    on_hand = sum(level.on_hand for level in levels)
    # Sales of a series are not told apart by the regions that its stock may lie in.
    as_of_ms = max(level.as_of_ms for level in levels)
    # Without an end: of the open minute all that is counted has been sold already.
    since = log.sold(item_id, as_of_ms, FOREVER_MS).units or 0.0
    counted_ms = min(now_ms, max(as_of_ms, log.counted_to_ms or as_of_ms))
    return Stock(on_hand, as_of_ms, max(0.0, round(on_hand - since, 1)), counted_ms)


# What is to come ----------------------------------------------------------------------------------


def _sell_out(item_id: str, stock: Stock, topics: TopicState, ends_ms: int) -> SellOut | None:
    """By the forecast with the latest cutoff, unless another one sees what lies behind its end."""
    known = [book.items[item_id] for book in topics.books.values() if item_id in book.items]
    usable = [one for one in known if len(one.quantiles_SL) and one.end_ms > stock.counted_ms]
    # Of two with one cutoff the finer one; coarser than an hour none says when.
    usable = [one for one in usable if one.newest.resolution_ms <= max(HOUR_MS, topics.main_ms)]
    usable.sort(key=lambda one: (-one.newest.cutoff_ms, one.newest.resolution_ms))
    found: SellOut | None = None
    for forecasts in usable:
        estimate = estimate_sell_out(
            outlook_of(forecasts),
            on_hand=stock.left,
            now_ms=stock.counted_ms,
            ends_at_ms=ends_ms,
        )
        if found is None or (found.eta_ms_p90 is None and estimate.until_ms > found.until_ms):
            found = estimate
    return found


def outlook_of(forecasts: ItemForecasts) -> Outlook:
    """What an item's newest forecast says."""
    cumulative = None
    if forecasts.sums_KL is not None:
        sums = forecasts.sums_KL.tolist()
        cumulative = Cumulative(steps=forecasts.sum_steps, quantiles=sums)
    levels = forecasts.newest.quantile_levels
    return Outlook(levels, forecasts.quantiles_SL, forecasts.edges_ms, cumulative)


def _estimate(found: SellOut | None, now_ms: int) -> Json:
    if found is None:
        return dict.fromkeys(("eta_ms", "chance", "until_ms", "expected_units"))
    etas_ms = (found.eta_ms_p10, found.eta_ms_p50, found.eta_ms_p90)
    return {
        # Sales are counted up to a moment ago, so what was to sell out since then is now.
        "eta_ms": [None if eta_ms is None else max(eta_ms, now_ms) for eta_ms in etas_ms],
        "chance": round(found.chance, 3),
        "until_ms": found.until_ms,
        "expected_units": round(found.expected_units, 1),
    }


def _share(sold: float | None, on_hand: float | None) -> float | None:
    """Sell-through: sold over what there was to sell."""
    if sold is None or on_hand is None or sold + on_hand <= 0:
        return None
    return round(sold / (sold + on_hand), 4)


def _known_sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known), 1) if known else None
