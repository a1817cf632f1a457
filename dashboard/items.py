"""What the page asks about items: one page of the list, and all about one of them.

Dimensions: I items, B buckets, S steps, L or Q quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from freshet.dashboard.actuals import Actuals
from freshet.dashboard.api import Moment
from freshet.dashboard.figures import Json, figure, numbers
from freshet.dashboard.forecasts import PAST_LEVELS, ForecastBook, ItemForecasts
from freshet.dashboard.ladder import served_from
from freshet.dashboard.state import TopicState
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import item_id_parts
from freshet.stream.units import DAY_MS, WEEK_MS

Sort = Literal["units", "expected", "change", "title", "category", "status"]

SORTS: tuple[Sort, ...] = ("units", "expected", "change", "title", "category", "status")
SPARK_BUCKETS = 48
LIST_STEPS = 24
MAX_PAGE = 100
MAX_QUERY = 100
FAN_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
HISTORY_BUCKETS = 168
"""Of an item's chart: a week of hours, three hours of minutes and five months of days."""


@dataclass(frozen=True, slots=True)
class ItemQuery:
    """Which items, in which order, which page."""

    text: str = ""
    category: str = ""
    sort: Sort = "units"
    descending: bool = True
    page: int = 0
    page_size: int = 25


def parse_query(parameters: dict[str, str]) -> ItemQuery:
    """The list's parameters from a URL.

    Raises:
        InvalidInputError: A number or the sort is not one.
    """
    sort = parameters.get("sort", "units")
    if sort not in SORTS:
        raise InvalidInputError(f"sort is {sort!r}; expected one of {', '.join(SORTS)}")
    return ItemQuery(
        text=parameters.get("q", ""),
        category=parameters.get("category", ""),
        sort=sort,
        descending=parameters.get("order", "desc") != "asc",
        page=_whole(parameters, "page", 0),
        page_size=_whole(parameters, "page_size", 25),
    )


def _whole(parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise InvalidInputError(f"{name} is {text[:50]!r}; expected a whole number")
    return int(text)


def list_items(topics: TopicState, actuals: Actuals, query: ItemQuery) -> Json:
    """One page of the list of items: those with a forecast, and those with sales."""
    item_ids = sorted(topics.book.items.keys() | actuals.rows.keys())
    rows = [_Row(topics, item_id) for item_id in item_ids]
    _fill_totals(rows, topics, actuals)
    categories = sorted({row.category for row in rows if row.category})
    in_category = [row for row in rows if query.category in ("", row.category)]
    words = query.text.casefold()[:MAX_QUERY].split()
    found = [row for row in in_category if row.matches(words)]
    found.sort(key=lambda row: row.sort_key(query.sort), reverse=query.descending)
    size = min(max(1, query.page_size), MAX_PAGE)
    last_page = max(0, (len(found) - 1) // size)
    page = min(max(0, query.page), last_page)
    shown = found[page * size : (page + 1) * size]
    return {
        "total": len(found),
        "page": page,
        "page_size": size,
        "categories": categories,
        "items": [_list_entry(row, topics, actuals) for row in shown],
    }


class _Row:
    """What the list is searched and sorted by."""

    __slots__ = ("category", "expected", "item_id", "region", "sku", "status", "title", "units")

    def __init__(self, topics: TopicState, item_id: str) -> None:
        self.item_id = item_id
        self.sku, self.region = _sku_and_region(topics, item_id)
        entry = topics.shop.entry(self.sku)
        forecasts = topics.book.items.get(item_id)
        self.title = (entry.title if entry else "") or self.sku
        self.category = entry.category if entry else ""
        self.status: str = forecasts.newest.status if forecasts else "waiting"
        self.units = self.expected = math.nan

    @property
    def change(self) -> float:
        """Expected over sold, minus one; NaN where that means nothing."""
        return self.expected / self.units - 1 if self.units > 0 else math.nan

    def matches(self, words: list[str]) -> bool:
        text = f"{self.title} {self.item_id} {self.category} {self.status}".casefold()
        return all(word in text for word in words)

    def sort_key(self, sort: Sort) -> tuple[Any, str]:
        value = getattr(self, sort)
        if isinstance(value, str):
            return value.casefold(), self.item_id
        return -math.inf if math.isnan(value) else value, self.item_id


def _fill_totals(rows: list[_Row], topics: TopicState, actuals: Actuals) -> None:
    day_I = actuals.total("units", actuals.end_ms - DAY_MS)
    for row in rows:
        at = actuals.rows.get(row.item_id)
        forecasts = topics.book.items.get(row.item_id)
        row.units = float(day_I[at]) if at is not None else math.nan
        row.expected = (
            _expected_day(forecasts, topics.book.resolution_ms) if forecasts else math.nan
        )


def _expected_day(forecasts: ItemForecasts, resolution_ms: int) -> float:
    """Mean demand of a day; NaN while the shop is warming up."""
    if not len(forecasts.expected_S):
        return math.nan
    return float(forecasts.expected_S[: max(1, DAY_MS // resolution_ms)].sum())


def _list_entry(row: _Row, topics: TopicState, actuals: Actuals) -> Json:
    from_ms = actuals.end_ms - SPARK_BUCKETS * actuals.resolution_ms
    start_ms, units_B = actuals.series(row.item_id, "units", from_ms)
    forecasts = topics.book.items.get(row.item_id)
    return {
        "item_id": row.item_id,
        "sku": row.sku,
        "region": row.region,
        "title": row.title,
        "category": row.category,
        "status": row.status,
        "units_day": figure(row.units),
        "expected_day": figure(row.expected),
        "change": figure(row.change),
        "spark": {"start_ms": start_ms, "units": numbers(units_B)},
        "forecast": _short_fan(forecasts) if forecasts else None,
    }


def _short_fan(forecasts: ItemForecasts) -> Json | None:
    if not len(forecasts.quantiles_SL):
        return None
    low, middle, high = at_levels(forecasts, PAST_LEVELS, LIST_STEPS)
    return {
        "cutoff_ms": forecasts.newest.cutoff_ms,
        "p10": numbers(low),
        "p50": numbers(middle),
        "p90": numbers(high),
    }


def parse_resolution(topics: TopicState, parameters: Mapping[str, str]) -> int:
    """The `resolution_ms` that a URL asks for, the main one where it asks for none.

    Raises:
        InvalidInputError: Nothing is forecast at that resolution.
    """
    resolution_ms = _whole(parameters, "resolution_ms", topics.main_ms)
    if resolution_ms not in topics.books:
        raise InvalidInputError(
            f"resolution_ms is {resolution_ms}; expected one of {sorted(topics.books)}"
        )
    return resolution_ms


def show_item(
    topics: TopicState,
    actuals: Actuals,
    moment: Moment,
    item_id: str,
    resolution_ms: int | None = None,
) -> Json | None:
    """All about one item; None when nobody ever heard of it.

    Args:
        topics: Forecasts, catalogue, promotions and stock.
        actuals: What was sold, by that resolution.
        moment: What time it is.
        item_id: Which item.
        resolution_ms: Of the forecast that is shown; None is the main one.
    """
    book = topics.books[resolution_ms or topics.main_ms]
    forecasts = book.items.get(item_id)
    known = any(item_id in other.items for other in topics.books.values())
    if not known and item_id not in actuals.rows:
        return None
    from_ms = (actuals.end_ms or moment.now_ms) - HISTORY_BUCKETS * book.resolution_ms
    sku, region = _sku_and_region(topics, item_id)
    past = {}
    if forecasts is not None:
        past = {lead: _past(forecasts, lead, book, from_ms) for lead in book.leads}
    return {
        "item_id": item_id,
        "sku": sku,
        "region": region,
        "resolution_ms": book.resolution_ms,
        "time_zone": topics.time_zone,
        "resolutions": _resolutions(topics, item_id, moment.now_ms),
        "about": _about(topics, item_id, sku),
        "actuals": _sold(actuals, item_id, from_ms),
        "forecast": _fan(forecasts) if forecasts else None,
        "past": past,
        "promotions": _bands(topics, sku, from_ms, moment.now_ms + WEEK_MS),
    }


def _resolutions(topics: TopicState, item_id: str, now_ms: int) -> list[Json]:
    """What there is to see of an item, finest steps first.

    That of flash sales is there while a forecast of it reaches into the future.
    """
    found = []
    for one in topics.served:
        forecasts = topics.books[one.resolution_ms].items.get(item_id)
        recent = forecasts is not None and forecasts.end_ms > now_ms
        if recent or not one.flash_sales_only:
            cutoff_ms = forecasts.newest.cutoff_ms if forecasts else None
            found.append({"resolution_ms": one.resolution_ms, "cutoff_ms": cutoff_ms})
    return found


def _sold(actuals: Actuals, item_id: str, from_ms: int) -> Json:
    start_ms, units_B = actuals.series(item_id, "units", from_ms)
    sold: Json = {"start_ms": start_ms, "units": numbers(units_B)}
    if not actuals.grid.even:
        sold["starts_ms"] = actuals.edges_ms(from_ms)[:-1].tolist()
    return sold


def _about(topics: TopicState, item_id: str, sku: str) -> Json:
    entry = topics.shop.entry(sku)
    on_hand = float(topics.shop.on_hand([item_id])[0])
    price = float(topics.shop.unit_prices([item_id])[0])
    return {
        "title": (entry.title if entry else "") or sku,
        "category": entry.category if entry else "",
        "brand": entry.brand if entry else "",
        "attributes": dict(entry.attributes) if entry else {},
        "unit_price": figure(price),
        "on_hand": figure(on_hand),
    }


def _fan(forecasts: ItemForecasts) -> Json:
    newest = forecasts.newest
    rows = at_levels(forecasts, FAN_LEVELS, len(forecasts.quantiles_SL))
    return {
        "forecast_id": newest.forecast_id,
        "cutoff_ms": newest.cutoff_ms,
        "issued_at_ms": newest.issued_at_ms,
        "status": newest.status,
        "weights_version": newest.weights_version,
        "level_factor": newest.adjustments.level_factor,
        "served": served_from(newest.adjustments),
        "calibrated": any(newest.adjustments.calibrated),
        "levels": list(FAN_LEVELS),
        "quantiles": [numbers(row) for row in rows],
        "expected": numbers(forecasts.expected_S),
        "steps": len(forecasts.quantiles_SL),
        "starts_ms": forecasts.edges_ms[:-1].tolist(),
        "ends_at_ms": forecasts.end_ms,
    }


def _past(forecasts: ItemForecasts, lead: str, book: ForecastBook, from_ms: int) -> Json:
    bucket_B, quantiles_BQ = forecasts.past(lead)
    recent_B = bucket_B >= book.grid.bucket(from_ms)
    starts_ms = book.grid.starts_ms(bucket_B[recent_B].tolist())
    low, middle, high = (numbers(quantiles_BQ[recent_B, q]) for q in range(len(PAST_LEVELS)))
    return {"start_ms": starts_ms.tolist(), "p10": low, "p50": middle, "p90": high}


def _bands(topics: TopicState, sku: str, from_ms: int, to_ms: int) -> list[Json]:
    return [
        {
            "promotion_id": known.promotion.promotion_id,
            "kind": known.promotion.kind,
            "discount": known.promotion.discount,
            "starts_ms": known.starts_ms,
            "ends_ms": known.ends_ms,
        }
        for known in topics.shop.promotions_of(sku, from_ms, to_ms)
    ]


def at_levels(forecasts: ItemForecasts, levels: tuple[float, ...], steps: int) -> list[Floats]:
    """The newest forecast's quantiles at the asked levels, one row a level, of `steps` steps."""
    known_L = forecasts.newest.quantile_levels
    by_step = [np.interp(levels, known_L, row_L) for row_L in forecasts.quantiles_SL[:steps]]
    return list(np.array(by_step).reshape(len(by_step), len(levels)).T)


def _sku_and_region(topics: TopicState, item_id: str) -> tuple[str, str]:
    for book in topics.books.values():
        if item_id in book.items:
            newest = book.items[item_id].newest
            return newest.sku, newest.region
    named = dict(zip(topics.series_by, item_id_parts(item_id), strict=False))
    return named.get("sku", item_id), named.get("region", "")
