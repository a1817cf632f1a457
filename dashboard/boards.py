"""The boards: flash sales with their sell-out estimate, drift by segment, and the life of each
weights version.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from freshet.dashboard.accuracy import rolling, total
from freshet.dashboard.actuals import Actuals
from freshet.dashboard.state import Announced, TopicState
from freshet.stream.catalog.flashsale import Outlook, SellOut, estimate_sell_out
from freshet.stream.schemas import DriftAlert, ModelEvent, item_id_parts
from freshet.stream.units import DAY_MS, HOUR_MS

Json = dict[str, Any]

ENDED_SHOWN_MS = 6 * HOUR_MS
ANNOUNCED_SHOWN_MS = 2 * DAY_MS
MAX_SALES = 12
MAX_SALE_ITEMS = 8
MAX_CARDS = 24
MAX_VERSIONS = 24
MAX_PENDING = 3
CARD_HISTORY_MS = 6 * DAY_MS
AFTER_MS = 2 * DAY_MS
STATE_ORDER = {"drift": 0, "warning": 1, "stable": 2}


# Flash sales --------------------------------------------------------------------------------------


def flash_sales(topics: TopicState, actuals: Actuals, now_ms: int) -> Json:
    """Flash sales that run, are announced, or ended a few hours ago; the running ones first."""
    shown = [
        known
        for known in topics.promotions.values()
        if known.promotion.flash_sale
        and known.starts_ms < now_ms + ANNOUNCED_SHOWN_MS
        and known.ends_ms > now_ms - ENDED_SHOWN_MS
    ]
    by_sku = _items_by_sku(topics, actuals)
    sales = [_sale(known, topics, actuals, now_ms, by_sku) for known in shown]
    order = {"running": 0, "announced": 1, "ended": 2}
    sales.sort(
        key=lambda sale: (
            order[sale["state"]],
            sale["starts_ms"] * (-1 if sale["state"] == "ended" else 1),
        )
    )
    return {"now_ms": now_ms, "total": len(sales), "sales": sales[:MAX_SALES]}


def _items_by_sku(topics: TopicState, actuals: Actuals) -> dict[str, list[str]]:
    by_sku: dict[str, list[str]] = {}
    position = topics.series_by.index("sku") if "sku" in topics.series_by else 0
    for item_id in sorted(topics.book.items.keys() | actuals.rows.keys()):
        forecasts = topics.book.items.get(item_id)
        sku = forecasts.newest.sku if forecasts else item_id_parts(item_id)[position]
        by_sku.setdefault(sku, []).append(item_id)
    return by_sku


def _sale(
    known: Announced,
    topics: TopicState,
    actuals: Actuals,
    now_ms: int,
    by_sku: dict[str, list[str]],
) -> Json:
    promotion = known.promotion
    skus = topics.shop.promoted_skus(promotion)
    rows = [
        _sale_item(item_id, known, topics, actuals, now_ms)
        for sku in skus
        for item_id in by_sku.get(sku, [])
    ]
    rows.sort(key=lambda row: (-(row["chance"] or 0.0), -(row["sold"] or 0.0), row["item_id"]))
    entry = topics.shop.entry(promotion.sku) if promotion.sku else None
    sold, on_hand = (_known_sum(row[name] for row in rows) for name in ("sold", "on_hand"))
    state = (
        "announced"
        if now_ms < known.starts_ms
        else "running"
        if now_ms < known.ends_ms
        else "ended"
    )
    return {
        "promotion_id": promotion.promotion_id,
        "state": state,
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


def _sale_item(
    item_id: str, known: Announced, topics: TopicState, actuals: Actuals, now_ms: int
) -> Json:
    forecasts = topics.book.items.get(item_id)
    level = float(topics.shop.on_hand([item_id])[0])
    on_hand = None if math.isnan(level) else max(0.0, level)
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
        "eta_ms": [estimate.eta_ms_p10, estimate.eta_ms_p50, estimate.eta_ms_p90]
        if estimate
        else None,
        "chance": round(estimate.chance, 3) if estimate else None,
        "until_ms": estimate.until_ms if estimate else None,
        "expected_units": round(estimate.expected_units, 1) if estimate else None,
    }


def _sold(item_id: str, known: Announced, actuals: Actuals) -> float | None:
    """Units since the sale's start, up to its end; buckets that are only partly in it count for
    their share.
    """
    start_ms, units_B = actuals.series(item_id, "units", known.starts_ms)
    width_ms, sold, observed = actuals.resolution_ms, 0.0, False
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


# Drift --------------------------------------------------------------------------------------------


def drift(topics: TopicState) -> Json:
    """One card a segment: its newest state, how it came there, and its error around that time."""
    history: dict[str, list[DriftAlert]] = {}
    for alert in sorted(topics.drift, key=lambda alert: alert.detected_at_ms):
        history.setdefault(alert.segment, []).append(alert)
    cards = [_drift_card(topics, alerts) for alerts in history.values()]
    cards.sort(key=lambda card: (STATE_ORDER[card["state"]], -card["detected_at_ms"]))
    firing = [alert for alert in topics.alerts.values() if alert.data.state != "resolved"]
    return {
        "cards": cards[:MAX_CARDS],
        "alerts": [
            {
                "fingerprint": alert.subject,
                "type": alert.type,
                "severity": alert.data.severity,
                "title": alert.data.title,
                "description": alert.data.description,
                "starts_at_ms": alert.data.starts_at_ms,
            }
            for alert in sorted(firing, key=lambda alert: -alert.data.updated_at_ms)[:MAX_CARDS]
        ],
    }


def _drift_card(topics: TopicState, alerts: list[DriftAlert]) -> Json:
    newest = alerts[-1]
    # "Stable again" is best told beside the trouble that ended.
    trouble = next((alert for alert in reversed(alerts) if alert.state != "stable"), newest)
    points = rolling(topics.accuracy.by_segment.get(newest.segment, {}))
    points = [(start, sums) for start, sums in points if start >= points[-1][0] - CARD_HISTORY_MS]
    return {
        "segment": newest.segment,
        "state": newest.state,
        "kind": trouble.kind,
        "detector": trouble.detector,
        "detected_at_ms": newest.detected_at_ms,
        "onset_ms": trouble.onset_ms,
        "size": trouble.size,
        "weights_version": trouble.weights_version,
        "description": newest.description,
        "action": newest.action,
        "history": [
            {"state": a.state, "at_ms": a.detected_at_ms, "size": a.size} for a in alerts[-8:]
        ],
        "error": {
            "at_ms": [start + topics.accuracy.resolution_ms for start, _ in points],
            "wql": [_rounded(sums.wql()) for _, sums in points],
            "seasonal_naive_wql": [_rounded(sums.naive_wql()) for _, sums in points],
        },
    }


# Models -------------------------------------------------------------------------------------------


def models(topics: TopicState) -> Json:
    """Weights versions, the newest first, each with its training, verdict, swaps and error before
    and after.
    """
    events = sorted(topics.models, key=lambda event: event.at_ms)
    served = [event for event in events if event.kind in ("promoted", "rolled_back")]
    # A candidate gets its version's name with the promotion; what happened before belongs to the
    # same entry.
    named = {
        event.request_id: event.version
        for event in events
        if event.kind == "promoted" and event.request_id
    }
    by_version: dict[str, list[ModelEvent]] = {}
    for event in events:
        if event.kind != "rolled_back":
            name = (
                named.get(event.request_id, event.version)
                if event.kind == "training"
                else event.version
            )
            by_version.setdefault(name, []).append(event)
    # What forecasts name is what serves; a promotion says what will, once a worker has swapped it
    # in.
    serving = topics.book.weights_version or (served[-1].version if served else "")
    versions = [
        _version(topics, name, known, served, serving) for name, known in by_version.items()
    ]
    versions.sort(key=lambda version: -version["at_ms"])
    return {
        "serving": serving,
        "versions": versions[:MAX_VERSIONS],
        "rollbacks": [
            {"version": event.version, "at_ms": event.at_ms, "reason": event.reason}
            for event in reversed(served)
            if event.kind == "rolled_back"
        ][:MAX_VERSIONS],
        "pending": _pending(topics),
    }


def _pending(topics: TopicState) -> list[Json]:
    """Requests that no event of a version names yet, the newest first."""
    answered = {event.request_id for event in topics.models}
    waiting = [request for name, request in topics.retrains.items() if name not in answered]
    waiting.sort(key=lambda request: -request.requested_at_ms)
    return [
        {
            "reason": request.reason,
            "segments": request.segments,
            "requested_at_ms": request.requested_at_ms,
        }
        for request in waiting[:MAX_PENDING]
    ]


def _version(
    topics: TopicState, name: str, events: list[ModelEvent], served: list[ModelEvent], serving: str
) -> Json:
    by_kind = {event.kind: event for event in events}
    verdict = by_kind.get("promoted") or by_kind.get("rejected")
    promoted = by_kind.get("promoted")
    request = topics.retrains.get(
        next((event.request_id for event in events if event.request_id), "")
    )
    undone = _undone(promoted, served) if promoted else None
    return {
        "version": name,
        "parent": next(
            (event.parent for event in events if event.parent and event.kind != "swapped"), ""
        ),
        "status": _status(name, events, served, serving, undone is not None),
        "at_ms": max(
            (event.at_ms for event in events if event.kind != "swapped"), default=events[-1].at_ms
        ),
        "steps": [
            {"kind": event.kind, "at_ms": event.at_ms}
            for event in events
            if event.kind != "swapped"
        ],
        "swaps": [
            {"worker": event.worker, "at_ms": event.at_ms, "pause_ms": event.pause_ms}
            for event in events
            if event.kind == "swapped"
        ],
        "reason": verdict.reason if verdict else events[-1].reason,
        "asked": {"reason": request.reason, "segments": request.segments} if request else None,
        "gate": gate_lines(verdict.gate) if verdict else [],
        "error": _before_and_after(topics, promoted, undone) if promoted else None,
        "confirmed_at_ms": by_kind["confirmed"].at_ms if "confirmed" in by_kind else None,
        "rolled_back_at_ms": undone.at_ms if undone else None,
        "rolled_back_because": undone.reason if undone else "",
    }


def _undone(promoted: ModelEvent, served: list[ModelEvent]) -> ModelEvent | None:
    """The roll-back that ended a promotion: it names as parent what it took out of service."""
    after = (
        event for event in served if event.kind == "rolled_back" and event.at_ms > promoted.at_ms
    )
    return next((event for event in after if event.parent == promoted.version), None)


def _status(
    version: str, events: list[ModelEvent], served: list[ModelEvent], serving: str, undone: bool
) -> str:
    kinds = [event.kind for event in events]
    if undone:
        return "rolled_back"
    if [kind for kind in kinds if kind in ("swapped", "swap_failed")][-1:] == ["swap_failed"]:
        return "swap_failed"
    if version == serving:
        return "serving"
    if "promoted" in kinds:
        return "promoted" if served[-1].version == version else "retired"
    return next((kind for kind in ("rejected", "training") if kind in kinds), "retired")


def _before_and_after(topics: TopicState, promoted: ModelEvent, undone: ModelEvent | None) -> Json:
    """The error of all forecasts over the day before a promotion, and of the version's own since,
    two days at most.

    Forecasts that the version before it issued mature for a horizon longer, so they are left out of
    the second.
    """
    until_ms = min(promoted.at_ms + AFTER_MS, undone.at_ms if undone else promoted.at_ms + AFTER_MS)
    before = total(topics.accuracy.overall, promoted.at_ms - DAY_MS, promoted.at_ms)
    after = total(topics.accuracy.by_version.get(promoted.version, {}), promoted.at_ms, until_ms)
    return {
        "wql_before": _rounded(before.wql()),
        "seasonal_naive_before": _rounded(before.naive_wql()),
        "wql_after": _rounded(after.wql()),
        "seasonal_naive_after": _rounded(after.naive_wql()),
    }


def gate_lines(gate: dict[str, float | str | bool]) -> list[Json]:
    """The verdict's conditions: each name with its value, its threshold and whether it holds, the
    failed first.

    >>> gate_lines({"verdict": "reject", "gain_low": -0.02, "gain_low.threshold": 0.01,
    ...     "gain_low.ok": False})
    [{'name': 'gain_low', 'value': -0.02, 'threshold': 0.01, 'ok': False}]
    """
    names = [name.removesuffix(".ok") for name in gate if name.endswith(".ok")]
    lines = [
        {
            "name": name,
            "value": gate.get(name),
            "threshold": gate.get(f"{name}.threshold"),
            "ok": gate[f"{name}.ok"],
        }
        for name in names
    ]
    return sorted(lines, key=lambda line: bool(line["ok"]))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
