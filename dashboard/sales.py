"""The board of flash sales: what sold, what is left, and when it will be gone."""

from __future__ import annotations

import math
from collections.abc import Iterable

from freshet.dashboard.actuals import Actuals
from freshet.dashboard.figures import Json
from freshet.dashboard.state import TopicState
from freshet.stream.catalog.flashsale import Outlook, SellOut, estimate_sell_out
from freshet.stream.catalog.promotions import Announced
from freshet.stream.schemas import item_id_parts
from freshet.stream.units import DAY_MS, HOUR_MS

ENDED_SHOWN_MS = 6 * HOUR_MS
ANNOUNCED_SHOWN_MS = 2 * DAY_MS
MAX_SALES = 12
MAX_SALE_ITEMS = 8
STATE_ORDER = {"running": 0, "announced": 1, "ended": 2}


def flash_sales(topics: TopicState, actuals: Actuals, now_ms: int) -> Json:
    """Flash sales that run, are announced, or ended a few hours ago; the running ones first."""
    by_sku = _items_by_sku(topics, actuals)
    sales = []
    for known in topics.shop.promotions():
        soon = known.starts_ms < now_ms + ANNOUNCED_SHOWN_MS
        lately = known.ends_ms > now_ms - ENDED_SHOWN_MS
        if known.promotion.flash_sale and soon and lately:
            skus = topics.shop.promoted_skus(known.promotion)
            item_ids = [item_id for sku in skus for item_id in by_sku.get(sku, [])]
            rows = [_sale_item(item_id, known, topics, actuals, now_ms) for item_id in item_ids]
            sales.append(_sale(known, topics, now_ms, rows))
    sales.sort(key=_place)
    return {"now_ms": now_ms, "total": len(sales), "sales": sales[:MAX_SALES]}


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
    on_hand = _known_sum(row["on_hand"] for row in rows)
    return {
        "promotion_id": promotion.promotion_id,
        "state": _state(known, now_ms),
        "title": entry.title if entry and entry.title else promotion.sku or promotion.category,
        "discount": promotion.discount,
        "starts_ms": known.starts_ms,
        "ends_ms": known.ends_ms,
        "sold": sold,
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
    item_id: str, known: Announced, topics: TopicState, actuals: Actuals, now_ms: int
) -> Json:
    forecasts = topics.book.items.get(item_id)
    stock = float(topics.shop.on_hand([item_id])[0])
    on_hand = None if math.isnan(stock) else max(0.0, stock)
    sold = _sold(item_id, known, actuals) if now_ms >= known.starts_ms else 0.0
    estimate: SellOut | None = None
    if forecasts is not None and on_hand is not None and now_ms < known.ends_ms:
        outlook = Outlook.of(forecasts.newest)
        estimate = estimate_sell_out(
            outlook, on_hand=on_hand, now_ms=now_ms, ends_at_ms=known.ends_ms
        )
    return {
        "item_id": item_id,
        "region": forecasts.newest.region if forecasts else "",
        "sold": sold,
        "on_hand": on_hand,
        "sell_through": _share(sold, on_hand),
        **_estimate(estimate),
    }


def _estimate(found: SellOut | None) -> Json:
    if found is None:
        return dict.fromkeys(("eta_ms", "chance", "until_ms", "expected_units"))
    return {
        "eta_ms": [found.eta_ms_p10, found.eta_ms_p50, found.eta_ms_p90],
        "chance": round(found.chance, 3),
        "until_ms": found.until_ms,
        "expected_units": round(found.expected_units, 1),
    }


def _sold(item_id: str, known: Announced, actuals: Actuals) -> float | None:
    """Units since the sale's start, up to its end; of buckets partly in it their share counts."""
    start_ms, units_B = actuals.series(item_id, "units", known.starts_ms)
    width_ms = actuals.resolution_ms
    sold, observed = 0.0, False
    for step, units in enumerate(units_B.tolist()):
        bucket_ms = start_ms + step * width_ms
        inside_ms = min(bucket_ms + width_ms, known.ends_ms) - max(bucket_ms, known.starts_ms)
        if inside_ms > 0 and units == units:
            sold += units * inside_ms / width_ms
            observed = True
    return round(sold, 1) if observed else None


def _share(sold: float | None, on_hand: float | None) -> float | None:
    """Sell-through: sold over what there was to sell."""
    if sold is None or on_hand is None or sold + on_hand <= 0:
        return None
    return round(sold / (sold + on_hand), 4)


def _known_sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known), 1) if known else None
