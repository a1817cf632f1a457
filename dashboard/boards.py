"""The boards of drift by segment and of each weights version's life."""

from __future__ import annotations

from freshet.dashboard.figures import Json, figure
from freshet.dashboard.ladder import ladder
from freshet.dashboard.serving import SERVING_KINDS, ServingNow, segments_of, serving_now
from freshet.dashboard.state import TopicState
from freshet.stream.schemas import DriftAlert, ModelEvent
from freshet.stream.units import DAY_MS

MAX_CARDS = 24
MAX_VERSIONS = 24
MAX_PENDING = 3
CARD_HISTORY_MS = 6 * DAY_MS
STATE_ORDER = {"drift": 0, "warning": 1, "stable": 2}


# Drift --------------------------------------------------------------------------------------------


def drift(topics: TopicState) -> Json:
    """One card a segment: its newest state, how it came there, and its error around that time."""
    history: dict[str, list[DriftAlert]] = {}
    # As they came, not by the times that they give: a segment's records are in one partition.
    for alert in topics.drift:
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
    points = topics.accuracy.rolling(topics.accuracy.by_segment.get(newest.segment, {}))
    if points:
        from_ms = points[-1][0] - CARD_HISTORY_MS
        points = [(start, sums) for start, sums in points if start >= from_ms]
    return {
        "segment": newest.segment,
        "state": newest.state,
        "kind": trouble.kind,
        "detector": trouble.detector,
        "detected_at_ms": newest.detected_at_ms,
        "onset_ms": trouble.onset_ms,
        "size": figure(trouble.size),
        "weights_version": trouble.weights_version,
        "description": newest.description,
        "action": newest.action,
        "ladder": ladder(topics, trouble) if trouble.state != "stable" else None,
        "history": [
            {"state": a.state, "at_ms": a.detected_at_ms, "size": figure(a.size)}
            for a in alerts[-8:]
        ],
        "error": {
            "resolution_ms": topics.main_ms,
            "at_ms": [topics.accuracy.ends_ms(start) for start, _ in points],
            "wql": [_rounded(sums.wql()) for _, sums in points],
            "seasonal_naive_wql": [_rounded(sums.naive_wql()) for _, sums in points],
        },
    }


# Models -------------------------------------------------------------------------------------------


def models(topics: TopicState) -> Json:
    """Weights versions, newest first: training, verdict and its gain, swaps."""
    events = sorted(topics.models, key=lambda event: event.at_ms)
    served = [event for event in events if event.kind in SERVING_KINDS]
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
            name = event.version
            if event.kind in ("training", "trial"):
                name = named.get(event.request_id, name)
            by_version.setdefault(name, []).append(event)
    serving = serving_now(topics)
    versions = [
        _version(topics, name, known, served, serving) for name, known in by_version.items()
    ]
    versions.sort(key=lambda version: -version["at_ms"])
    return {
        "serving": serving.default,
        "beside": serving.other,
        "versions": versions[:MAX_VERSIONS],
        "rollbacks": [
            {
                "version": event.version,
                "segments": segments_of(event),
                "at_ms": event.at_ms,
                "reason": event.reason,
            }
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
    topics: TopicState,
    name: str,
    events: list[ModelEvent],
    served: list[ModelEvent],
    serving: ServingNow,
) -> Json:
    by_kind = {event.kind: event for event in events}
    promoted = by_kind.get("promoted")
    verdict = promoted or by_kind.get("rejected")
    undone = _undone(promoted, served) if promoted else None
    swaps = [event for event in events if event.kind == "swapped"]
    steps = [event for event in events if event.kind != "swapped"]
    request_id = next((event.request_id for event in events if event.request_id), "")
    request = topics.retrains.get(request_id)
    return {
        "version": name,
        "parent": next((event.parent for event in steps if event.parent), ""),
        "status": _status(name, events, served, serving, undone is not None),
        "segments": list(serving.segments) if name == serving.other else segments_of(promoted),
        "at_ms": max((event.at_ms for event in steps), default=events[-1].at_ms),
        "steps": [{"kind": event.kind, "at_ms": event.at_ms} for event in steps],
        "swaps": [
            {"worker": event.worker, "at_ms": event.at_ms, "pause_ms": event.pause_ms}
            for event in swaps
        ],
        "reason": verdict.reason if verdict else events[-1].reason,
        "asked": {"reason": request.reason, "segments": request.segments} if request else None,
        "gate": gate_lines(verdict.gate) if verdict else [],
        "gain": _gain(verdict),
        "confirmed_at_ms": by_kind["confirmed"].at_ms if "confirmed" in by_kind else None,
        "rolled_back_at_ms": undone.at_ms if undone else None,
        "rolled_back_because": undone.reason if undone else "",
    }


def _undone(promoted: ModelEvent, served: list[ModelEvent]) -> ModelEvent | None:
    """The roll-back that ended a promotion: it names as parent what it took out of service.

    What serves some segments still has not ended.
    """
    for event in served:
        later = event.kind == "rolled_back" and event.at_ms > promoted.at_ms
        serves_on = promoted.version in [part.version for part in event.serves]
        if later and event.parent == promoted.version and not serves_on:
            return event
    return None


def _status(
    version: str,
    events: list[ModelEvent],
    served: list[ModelEvent],
    serving: ServingNow,
    undone: bool,
) -> str:
    kinds = [event.kind for event in events]
    if undone:
        return "rolled_back"
    swaps = [kind for kind in kinds if kind in ("swapped", "swap_failed")]
    if swaps and swaps[-1] == "swap_failed":
        return "swap_failed"
    if version in (serving.default, serving.other):
        return "serving"
    if "promoted" in kinds:
        return "promoted" if served[-1].version == version else "retired"
    return next((kind for kind in ("rejected", "trial", "training") if kind in kinds), "retired")


def _gain(verdict: ModelEvent | None) -> Json | None:
    """How much less the new weights were wrong than their parent, where nobody had trained.

    Not the error before a promotion and after it: a context heals most of a drift by itself.
    """
    found = verdict.gate.get("gain") if verdict else None
    if verdict is None or not isinstance(found, float):
        return None
    days = verdict.gate.get("days")
    return {"gain": figure(found), "days": figure(days) if isinstance(days, float) else None}


def gate_lines(gate: dict[str, float | str | bool]) -> list[Json]:
    """The verdict's conditions: name, value, threshold and whether it holds; the failed first.

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
