"""What the page asks about the shop as a whole: totals, rates, and the error over time."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np

from freshet.dashboard.accuracy import last_day
from freshet.dashboard.actuals import Actuals
from freshet.dashboard.figures import Json, figure
from freshet.dashboard.serving import serving_now
from freshet.dashboard.state import TopicState
from freshet.stream.arrays import Singles
from freshet.stream.units import DAY_MS

MARKED_EVENTS = ("promoted", "rejected", "swapped", "rolled_back")


@dataclass(frozen=True, slots=True)
class Moment:
    """What time it is for the shop, how fast it runs, the newest rates, and what is wrong.

    Rates are None while nobody can tell them.
    """

    now_ms: int
    speed: float = 1.0
    events_per_s: float | None = 0.0
    forecasts_per_s: float | None = 0.0
    kafka_problem: str | None = None
    redis_problem: str | None = None
    kafka_age_s: float | None = None
    """Seconds of wall time since the topics were last known to be read to their end."""
    redis_age_s: float | None = None
    """The same of the windows."""


def overview(topics: TopicState, actuals: Actuals, moment: Moment) -> Json:
    """The totals at the head of the page; small, for it is sent with every update."""
    newest = last_day(topics.accuracy.overall)
    day_ms = actuals.end_ms - DAY_MS
    newest_state = {alert.segment: alert.state for alert in topics.drift}
    segments = Counter(newest_state.values())
    return {
        "clock": {"now_ms": moment.now_ms, "speed": moment.speed},
        "resolution_ms": topics.main_ms,
        "resolutions": [_resolution(topics, one.resolution_ms) for one in topics.served],
        "events": asdict(actuals.books) | {"per_s": _rate(moment.events_per_s)},
        "forecasts": {
            "seen": topics.forecasts_seen,
            "per_s": _rate(moment.forecasts_per_s),
            "items": len(topics.book.items),
            "newest_cutoff_ms": topics.book.newest_cutoff_ms or None,
        },
        "items": len(actuals.rows),
        "units_day": _sum(actuals.total("units", day_ms)),
        "revenue_day": _sum(actuals.total("revenue", day_ms)),
        "scores": {
            "matured": topics.accuracy.matured,
            "wql": figure(newest.wql()),
            "seasonal_naive_wql": figure(newest.naive_wql()),
            "coverage_80": figure(newest.coverage()),
        },
        "weights_version": serving_now(topics).default,
        "drift": {"active": segments["drift"], "warning": segments["warning"]},
        "as_of": {
            "sales_ms": actuals.end_ms or None,
            "forecasts_ms": topics.book.issued_ms or None,
            "scores_ms": topics.scored_ms or None,
            "alerts_ms": topics.alerted_ms or None,
        },
        "read_s_ago": {"kafka": figure(moment.kafka_age_s), "redis": figure(moment.redis_age_s)},
        "unusable": {
            "counts": dict(topics.malformed),
            "newest": topics.newest_malformed,
        },
        "problems": {"kafka": moment.kafka_problem, "redis": moment.redis_problem},
        "revisions": dict(topics.revisions),
    }


def _resolution(topics: TopicState, resolution_ms: int) -> Json:
    """What there is at one resolution, and how right it was."""
    book, accuracy = topics.books[resolution_ms], topics.accuracies[resolution_ms]
    newest = last_day(accuracy.overall)
    return {
        "resolution_ms": resolution_ms,
        "items": len(book.items),
        "newest_cutoff_ms": book.newest_cutoff_ms or None,
        "round": topics.rounds[resolution_ms].told(),
        "scores": {
            "matured": accuracy.matured,
            "wql": figure(newest.wql()),
            "seasonal_naive_wql": figure(newest.naive_wql()),
            "coverage_80": figure(newest.coverage()),
        },
    }


def errors(
    topics: TopicState, segment: str, max_points: int, resolution_ms: int | None = None
) -> Json:
    """The error over time, each point over the day that ends there, with the model's events.

    Of days each point is one day. None is the main resolution.
    """
    accuracy = topics.accuracies[resolution_ms or topics.main_ms]
    buckets = accuracy.by_segment.get(segment, {}) if segment else accuracy.overall
    points = accuracy.rolling(buckets)
    every = max(1, math.ceil(len(points) / max_points))
    points = points[::every]
    return {
        "resolution_ms": accuracy.resolution_ms,
        "scored": [width_ms for width_ms, known in topics.accuracies.items() if known.overall],
        "segment": segment,
        "segments": sorted(accuracy.by_segment),
        "at_ms": [accuracy.ends_ms(start) for start, _ in points],
        "wql": [figure(sums.wql()) for _, sums in points],
        "seasonal_naive_wql": [figure(sums.naive_wql()) for _, sums in points],
        "coverage_80": [figure(sums.coverage()) for _, sums in points],
        "bucket_wql": [figure(buckets[start].wql()) for start, _ in points],
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


def _rate(per_s: float | None) -> float | None:
    return None if per_s is None else round(per_s, 1)


def _sum(values: Singles) -> float | None:
    known = values[~np.isnan(values)]
    return round(float(known.sum(dtype=np.float64)), 2) if len(known) else None
