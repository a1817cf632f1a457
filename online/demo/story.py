"""What happened, in plain words: a sentence for each record a person would want to hear about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from freshet.online.demo.resolution import plural
from freshet.stream.clock import when
from freshet.stream.schemas import DriftAlert, ModelEvent, Promotion, RetrainRequest


def of_drift(alert: DriftAlert) -> str:
    """A segment drifts, shows a first sign of it, or is stable again."""
    if alert.state == "stable":
        return f"{alert.segment} is stable again: forecasts are as good as before the drift"
    word = "drift" if alert.state == "drift" else "a first sign of drift"
    return (
        f"{word} in {alert.segment} ({alert.kind}) since {when(alert.onset_ms)}: "
        f"{alert.description}"
    )


def of_request(request: RetrainRequest) -> str:
    """Somebody, or a rule, wants new weights."""
    about = f" for {', '.join(request.segments)}" if request.segments else ""
    return f"new weights are asked for{about} ({request.reason})"


def of_model(event: ModelEvent) -> str:
    """One sentence for a step in the life of a weights version."""
    reason = f": {event.reason}" if event.reason else ""
    if event.kind == "rejected" and not event.gate:
        return f"no training{reason}"
    pause_us = (event.pause_ms or 0) * 1_000
    sentences = {
        "training": f"fine-tuning starts from {event.parent or 'base'}{reason}",
        "trial": f"the gate waits for another day{reason}",
        "rejected": f"the gate keeps the old weights{reason}",
        "promoted": f"the gate promotes {event.version} over {event.parent or 'base'}{reason}",
        "swapped": f"the worker now serves {event.version}; the swap paused it for "
        f"{pause_us:.1f} µs",
        "swap_failed": f"the worker refuses {event.version} and keeps the old weights{reason}",
        "confirmed": f"probation is over, {event.version} stays{reason}",
        "rolled_back": f"rolled back to {event.version}{reason}",
    }
    return sentences[event.kind]


def of_promotion(promotion: Promotion, started: bool) -> str:
    """A sale begins or ends."""
    about = promotion.sku or f"all of {promotion.category}"
    kind = promotion.kind.replace("_", " ")
    news = f"starts, {promotion.discount:.0%} off" if started else "is over"
    return f"a {kind} on {about} {news}"


def of_resolutions(summary: dict[str, Any]) -> Iterator[str]:
    """What was forecast of minutes, hours and days, and what it was worth: a sentence each."""
    scores = summary["scores"]["by_resolution"]
    for resolution_ms, made in summary["forecasts"]["by_resolution"].items():
        sentence = (
            f"{plural(int(resolution_ms))}: {made['published']:,} forecasts at "
            f"{made['cutoffs']:,} cutoffs, {made['repeated']:,} of them repeated, "
            f"{made['skipped']:,} cutoffs skipped"
        )
        found = scores.get(resolution_ms, {})
        if found.get("wql") is not None:
            naive = found["seasonal_naive_wql"]
            sentence += f"; WQL {found['wql']:.3f}, seasonal naive {naive:.3f}"
        yield sentence
