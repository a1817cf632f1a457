"""Questions the page asks about totals, errors and items, answered from the view and the actuals as
plain data.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from freshet.dashboard.accuracy import last_day, rolling
from freshet.dashboard.actuals import Actuals
from freshet.dashboard.forecasts import LEADS, PAST_LEVELS, ItemForecasts
from freshet.dashboard.state import TopicState
from freshet.stream.arrays import Floats, Singles
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import item_id_parts
from freshet.stream.units import DAY_MS, WEEK_MS

Json = dict[str, Any]
Sort = Literal["units", "expected", "change", "title", "category", "status"]

SORTS: tuple[Sort, ...] = ("units", "expected", "change", "title", "category", "status")
SPARK_BUCKETS = 48
LIST_STEPS = 24
MAX_PAGE = 100
MAX_QUERY = 100
FAN_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
ITEM_HISTORY_MS = WEEK_MS
MARKED_EVENTS = ("promoted", "rejected", "swapped", "rolled_back")


@dataclass(frozen=True, slots=True)
class Moment:
    """What time it is for the shop, how fast that time runs, and the rates of the last seconds of
    wall time.
    """

    now_ms: int
    speed: float = 1.0
    events_per_s: float = 0.0
    forecasts_per_s: float = 0.0
    kafka_problem: str | None = None
    redis_problem: str | None = None


@dataclass(frozen=True, slots=True)
class ItemQuery:
    """Which items, in which order, which page."""

    text: str = ""
    category: str = ""
    sort: Sort = "units"
    descending: bool = True
    page: int = 0
    page_size: int = 25


def overview(topics: TopicState, actuals: Actuals, moment: Moment) -> Json:
    """The totals at the head of the page; small, for it is sent with every update."""
    newest = last_day(topics.accuracy.overall)
    day_ms = actuals.end_ms - DAY_MS
    active = {"drift": 0, "warning": 0, "stable": 0}
    for alert in {alert.segment: alert for alert in topics.drift}.values():
        active[alert.state] += 1
    return {
        "clock": {"now_ms": moment.now_ms, "speed": moment.speed},
        "resolution_ms": topics.book.resolution_ms,
        "events": asdict(actuals.books) | {"per_s": round(moment.events_per_s, 1)},
        "forecasts": {
            "seen": topics.book.seen,
            "per_s": round(moment.forecasts_per_s, 1),
            "items": len(topics.book.items),
            "newest_cutoff_ms": topics.book.newest_cutoff_ms or None,
        },
        "items": len(actuals.rows),
        "units_day": _sum(actuals.total("units", day_ms)),
        "revenue_day": _sum(actuals.total("revenue", day_ms)),
        "scores": {
            "matured": topics.accuracy.matured,
            "wql": _figure(newest.wql()),
            "seasonal_naive_wql": _figure(newest.naive_wql()),
            "coverage_80": _figure(newest.coverage()),
        },
        "weights_version": topics.book.weights_version,
        "drift": {"active": active["drift"], "warning": active["warning"]},
        "problems": {"kafka": moment.kafka_problem, "redis": moment.redis_problem},
        "revisions": dict(topics.revisions),
    }


def errors(topics: TopicState, segment: str, max_points: int) -> Json:
    """The error over time, each point over the day that ends there, with what happened to the model
    meanwhile.
    """
    buckets = topics.accuracy.by_segment.get(segment, {}) if segment else topics.accuracy.overall
    points = rolling(buckets)
    points = points[:: max(1, -(-len(points) // max_points))]
    width_ms = topics.accuracy.resolution_ms
    return {
        "segment": segment,
        "segments": sorted(topics.accuracy.by_segment),
        "at_ms": [start + width_ms for start, _ in points],
        "wql": [_figure(sums.wql()) for _, sums in points],
        "seasonal_naive_wql": [_figure(sums.naive_wql()) for _, sums in points],
        "coverage_80": [_figure(sums.coverage()) for _, sums in points],
        "bucket_wql": [_figure(buckets[start].wql()) for start, _ in points],
        "markers": _markers(topics, segment, points[0][0] if points else 0),
    }


def _markers(topics: TopicState, segment: str, from_ms: int) -> list[Json]:
    drift = [
        {"at_ms": alert.detected_at_ms, "kind": "drift", "label": alert.segment}
        for alert in topics.drift
        if alert.state == "drift" and segment in ("", alert.segment)
    ]
    models = [
        {"at_ms": event.at_ms, "kind": event.kind, "label": event.version}
        for event in topics.models
        if event.kind in MARKED_EVENTS
    ]
    markers = [marker for marker in drift + models if cast(int, marker["at_ms"]) >= from_ms]
    return sorted(markers, key=lambda marker: cast(int, marker["at_ms"]))


def items(topics: TopicState, actuals: Actuals, query: ItemQuery) -> Json:
    """One page of the list of items."""
    item_ids = sorted(topics.book.items.keys() | actuals.rows.keys())
    rows = [_Row(topics, item_id) for item_id in item_ids]
    _fill_totals(rows, topics, actuals)
    categories = sorted({row.category for row in rows if row.category})
    wanted = query.text.casefold()[:MAX_QUERY].split()
    found = [row for row in rows if row.matches(wanted) and query.category in ("", row.category)]
    found.sort(key=lambda row: row.sort_key(query.sort), reverse=query.descending)
    size = min(max(1, query.page_size), MAX_PAGE)
    page = min(max(0, query.page), max(0, (len(found) - 1) // size))
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
    return float(forecasts.expected_S[: max(1, DAY_MS // resolution_ms)].sum())


def _list_entry(row: _Row, topics: TopicState, actuals: Actuals) -> Json:
    start_ms, units_B = actuals.series(
        row.item_id, "units", actuals.end_ms - SPARK_BUCKETS * actuals.resolution_ms
    )
    forecasts = topics.book.items.get(row.item_id)
    return {
        "item_id": row.item_id,
        "sku": row.sku,
        "region": row.region,
        "title": row.title,
        "category": row.category,
        "status": row.status,
        "units_day": _figure(row.units),
        "expected_day": _figure(row.expected),
        "change": _figure(row.change),
        "spark": {"start_ms": start_ms, "units": numbers(units_B)},
        "forecast": _short_fan(forecasts) if forecasts else None,
    }


def _short_fan(forecasts: ItemForecasts) -> Json:
    low, middle, high = at_levels(forecasts, PAST_LEVELS, LIST_STEPS)
    return {
        "cutoff_ms": forecasts.newest.cutoff_ms,
        "p10": numbers(low),
        "p50": numbers(middle),
        "p90": numbers(high),
    }


def item(topics: TopicState, actuals: Actuals, moment: Moment, item_id: str) -> Json | None:
    """All about one item; None when nobody ever heard of it."""
    forecasts = topics.book.items.get(item_id)
    if forecasts is None and item_id not in actuals.rows:
        return None
    from_ms = (actuals.end_ms or moment.now_ms) - ITEM_HISTORY_MS
    start_ms, units_B = actuals.series(item_id, "units", from_ms)
    _, views_B = actuals.series(item_id, "views", from_ms)
    sku, region = _sku_and_region(topics, item_id)
    return {
        "item_id": item_id,
        "sku": sku,
        "region": region,
        "resolution_ms": topics.book.resolution_ms,
        "about": _about(topics, item_id, sku),
        "actuals": {"start_ms": start_ms, "units": numbers(units_B), "views": numbers(views_B)},
        "forecast": _fan(forecasts) if forecasts else None,
        "past": {lead: _past(forecasts, lead, topics.book.resolution_ms, from_ms) for lead in LEADS}
        if forecasts
        else {},
        "promotions": _bands(topics, sku, from_ms, moment.now_ms + ITEM_HISTORY_MS),
    }


def _about(topics: TopicState, item_id: str, sku: str) -> Json:
    entry = topics.shop.entry(sku)
    on_hand = float(topics.shop.on_hand([item_id])[0])
    price = float(topics.shop.unit_prices([item_id])[0])
    return {
        "title": (entry.title if entry else "") or sku,
        "category": entry.category if entry else "",
        "brand": entry.brand if entry else "",
        "attributes": dict(entry.attributes) if entry else {},
        "unit_price": _figure(price),
        "on_hand": _figure(on_hand),
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
        "levels": list(FAN_LEVELS),
        "quantiles": [numbers(row) for row in rows],
        "expected": numbers(forecasts.expected_S),
        "steps": len(forecasts.quantiles_SL),
    }


def _past(forecasts: ItemForecasts, lead: str, resolution_ms: int, from_ms: int) -> Json:
    bucket_B, quantiles_BQ = forecasts.past(lead)
    recent = bucket_B * resolution_ms >= from_ms
    bucket_B, quantiles_BQ = bucket_B[recent], quantiles_BQ[recent]
    low, middle, high = (numbers(quantiles_BQ[:, q]) for q in range(len(PAST_LEVELS)))
    return {"start_ms": (bucket_B * resolution_ms).tolist(), "p10": low, "p50": middle, "p90": high}


def _bands(topics: TopicState, sku: str, from_ms: int, to_ms: int) -> list[Json]:
    return [
        {
            "promotion_id": known.promotion.promotion_id,
            "kind": known.promotion.kind,
            "discount": known.promotion.discount,
            "starts_ms": known.starts_ms,
            "ends_ms": known.ends_ms,
        }
        for known in topics.promotions_of(sku, from_ms, to_ms)
    ]


def at_levels(forecasts: ItemForecasts, levels: tuple[float, ...], steps: int) -> list[Floats]:
    """The newest forecast's quantiles at the asked levels, one row a level, the first `steps`
    steps.
    """
    known_L = forecasts.newest.quantile_levels
    table_LS = np.array(
        [np.interp(levels, known_L, row_L) for row_L in forecasts.quantiles_SL[:steps]]
    ).T
    return list(table_LS)


def numbers(values: npt.NDArray[Any]) -> list[float | None]:
    """Four significant digits, None for NaN: what a chart needs, in few bytes."""
    return [None if value != value else float(f"{value:.4g}") for value in values.tolist()]


def _figure(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _sum(values: Singles) -> float | None:
    known = values[~np.isnan(values)]
    return round(float(known.sum(dtype=np.float64)), 2) if len(known) else None


def _sku_and_region(topics: TopicState, item_id: str) -> tuple[str, str]:
    forecasts = topics.book.items.get(item_id)
    if forecasts is not None:
        return forecasts.newest.sku, forecasts.newest.region
    named = dict(zip(topics.series_by, item_id_parts(item_id), strict=False))
    return named.get("sku", item_id), named.get("region", "")


def item_query(parameters: dict[str, str]) -> ItemQuery:
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


def _whole(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise InvalidInputError(f"{name} is {text[:50]!r}; expected a whole number")
    return int(text)
