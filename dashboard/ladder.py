"""What was done about a drift, rung by rung: found, served differently, and what training said."""

from __future__ import annotations

from freshet.dashboard.figures import Json, figure
from freshet.dashboard.serving import segments_of
from freshet.dashboard.state import TopicState
from freshet.stream.schemas import Adjustments, DriftAlert, ModelEvent

MAX_ANSWERS = 3
TOLD = ("training", "trial", "rejected", "promoted", "confirmed")


def ladder(topics: TopicState, trouble: DriftAlert) -> Json:
    """What followed a drift: how it is served since, what that gained, what training decided."""
    found = [alert.detected_at_ms for alert in topics.drift if alert.alert_id == trouble.alert_id]
    return {
        "found_after_ms": max(min(found, default=trouble.detected_at_ms) - trouble.onset_ms, 0),
        "served": _served(topics, trouble),
        "training": _answers(topics, trouble),
    }


def _served(topics: TopicState, trouble: DriftAlert) -> Json | None:
    """None while the segment is served as ever.

    The gain is that of the served forecasts over those that the same weights would have made
    without the adjustment, on the same buckets: what the context heals by itself is in both.
    """
    segment = trouble.segment
    buckets = topics.apart.since(segment, trouble.onset_ms)
    if not buckets:
        return None
    served = sum(bucket.served for bucket in buckets.values())
    shadow = sum(bucket.shadow for bucket in buckets.values())
    end_ms = topics.accuracy.ends_ms(max(buckets))
    return {
        "since_ms": min(buckets),
        "until_ms": end_ms if topics.apart.ended(segment) else None,
        "steps": sum(bucket.steps for bucket in buckets.values()),
        "gain": figure(1.0 - served / shadow) if shadow > 0 else None,
        "how": _how(topics, segment),
    }


def _how(topics: TopicState, segment: str) -> Json | None:
    """What the newest forecast of the segment says that it was made from."""
    known = topics.book.items.get(topics.apart.newest_item(segment))
    return served_from(known.newest.adjustments) if known is not None else None


def served_from(adjustments: Adjustments) -> Json | None:
    """From when on the past counts where a drift is answered, and whether it is hidden before."""
    if adjustments.begins_at_ms is None:
        return None
    before = "moved" if adjustments.moved else "hidden"
    return {"begins_at_ms": adjustments.begins_at_ms, "before": before}


def _answers(topics: TopicState, trouble: DriftAlert) -> list[Json]:
    """Requests that name the segment since then, each with the newest word on it."""
    newest: dict[str, ModelEvent] = {}
    for event in sorted(topics.models, key=lambda event: event.at_ms):
        if event.request_id and event.kind in TOLD:
            newest[event.request_id] = event
    asked = [
        request
        for request in topics.retrains.values()
        if trouble.segment in request.segments
        and request.reason != "rollback"
        and request.requested_at_ms >= trouble.onset_ms
    ]
    asked.sort(key=lambda request: -request.requested_at_ms)
    return [
        {
            "asked": request.reason,
            "asked_at_ms": request.requested_at_ms,
            **_answer(newest.get(request.request_id)),
        }
        for request in asked[:MAX_ANSWERS]
    ]


def _answer(event: ModelEvent | None) -> Json:
    if event is None:
        return {
            "status": "waiting",
            "at_ms": None,
            "version": "",
            "segments": [],
            "reason": "",
            "gain": None,
        }
    gain = event.gate.get("gain")
    return {
        "status": event.kind,
        "at_ms": event.at_ms,
        "version": event.version,
        "segments": segments_of(event),
        "reason": event.reason,
        "gain": figure(gain) if isinstance(gain, float) else None,
    }
