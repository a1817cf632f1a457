"""Count what a demo did, from the topics only: nobody reports on its own work here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from freshet.online.demo.resolution import ForecastHead, ResolutionTally
from freshet.stream.codec import MAX_TIME_MS
from freshet.stream.schemas import (
    Alert,
    DriftAlert,
    ForecastRound,
    ModelEvent,
    RetrainRequest,
    Score,
    ScoredStep,
)
from freshet.stream.units import HOUR_MS

TOGETHER = 6  # buckets


@dataclass(slots=True)
class AdjustedTally:
    """What was served differently, against what would have been served without."""

    steps: int = 0
    served: float = 0.0
    shadow: float = 0.0

    def add(self, served: float, shadow: float) -> None:
        """Losses of one step of both."""
        self.steps += 1
        self.served += served
        self.shadow += shadow

    def section(self) -> dict[str, Any]:
        """Scored steps, and by which share their loss was less."""
        gain = round(1.0 - self.served / self.shadow, 4) if self.shadow else None
        return {"steps": self.steps, "gain_over_shadow": gain}


@dataclass(slots=True)
class SegmentTally:
    """What each bucket of each segment lost, and what seasonal naive would have."""

    _buckets: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)

    def step(self, score: Score, step: ScoredStep) -> None:
        """Count a scored step that both could forecast."""
        if step.seasonal_naive_pinball is None:
            return
        buckets = self._buckets.setdefault(score.segment, {})
        served, naive = buckets.get(score.bucket_start_ms, (0.0, 0.0))
        both = (served + step.pinball, naive + step.seasonal_naive_pinball)
        buckets[score.bucket_start_ms] = both

    def behind(self, segment: str, since_ms: int) -> int:
        """Buckets from then on at which the newest six lost more than seasonal naive's.

        One bucket alone is chance: calm segments lose one in nine, and of six together one in two
        hundred.
        """
        buckets = self._buckets.get(segment, {})
        known = np.array([buckets[at] for at in sorted(buckets) if at >= since_ms]).reshape(-1, 2)
        sums = np.cumsum(known, axis=0)
        sums[TOGETHER:] -= sums[:-TOGETHER].copy()
        return int((sums[:, 0] > sums[:, 1]).sum())


@dataclass(slots=True)
class Tally:
    """Running counts over the output topics; feed it every record with `count`.

    Args:
        main_ms: The resolution that is learnt from, whose figures stand for the whole.
        speed: Clock milliseconds per wall millisecond, to turn clock differences into waiting time.
    """

    main_ms: int = HOUR_MS
    speed: float = 1.0
    forecast_items: set[str] = field(default_factory=set)
    resolutions: dict[int, ResolutionTally] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    scored: set[tuple[str, int]] = field(default_factory=set)
    adjusted: AdjustedTally = field(default_factory=AdjustedTally)
    segments: SegmentTally = field(default_factory=SegmentTally)
    drift: dict[str, DriftAlert] = field(default_factory=dict)
    requests: dict[str, RetrainRequest] = field(default_factory=dict)
    events: dict[tuple[str, str, str], ModelEvent] = field(default_factory=dict)
    alerts: dict[str, tuple[str, str]] = field(default_factory=dict)
    fired: set[str] = field(default_factory=set)
    resolved: set[str] = field(default_factory=set)
    unreadable: int = 0

    def count(self, kind: str, value: bytes | None) -> Any:
        """Count one record of a topic kind (`forecasts`, `scores`, ...); returns it, or None."""
        decoder, add = _KINDS[kind]
        if value is None:
            return None
        try:
            record = decoder.decode(value)
        except (msgspec.DecodeError, RecursionError):
            self.unreadable += 1
            return None
        add(self, record)
        return record

    def of(self, resolution_ms: int) -> ResolutionTally:
        """The counts of one resolution."""
        if resolution_ms not in self.resolutions:
            self.resolutions[resolution_ms] = ResolutionTally(resolution_ms)
        return self.resolutions[resolution_ms]

    @property
    def published(self) -> int:
        """Forecasts of every resolution."""
        return sum(found.published for found in self.resolutions.values())

    def _forecast(self, head: ForecastHead) -> None:
        self.forecast_items.add(head.item_id)
        self.versions[head.weights_version] = self.versions.get(head.weights_version, 0) + 1
        self.statuses[head.status] = self.statuses.get(head.status, 0) + 1
        self.of(head.resolution_ms).forecast(head, self.speed)

    def _round(self, told: ForecastRound) -> None:
        self.of(told.resolution_ms).round(told)

    def _score(self, score: Score) -> None:
        found = self.of(score.resolution_ms)
        besides = {step.step: step.pinball for step in score.unadjusted}
        for step in score.steps:
            if not score.in_stock or (step.forecast_id, step.step) in self.scored:
                continue
            self.scored.add((step.forecast_id, step.step))
            found.step(score.bucket_start_ms, score.actual, step)
            if score.resolution_ms == self.main_ms:
                self.segments.step(score, step)
            if step.adjusted and step.step in besides:
                self.adjusted.add(step.pinball, besides[step.step])

    def _drift(self, alert: DriftAlert) -> None:
        self.drift[f"{alert.alert_id}:{alert.state}"] = alert

    def _request(self, request: RetrainRequest) -> None:
        self.requests[request.request_id] = request

    def _model(self, event: ModelEvent) -> None:
        self.events[(event.kind, event.version, event.worker)] = event

    def _alert(self, alert: Alert) -> None:
        seen = self.resolved if alert.data.state == "resolved" else self.fired
        seen.add(alert.subject)

    def wql(self, newest_buckets: int) -> dict[int, tuple[float, float]]:
        """(served, seasonal naive) of the newest scored buckets, by resolution, finest first."""
        known = sorted(self.resolutions.items())
        found = {resolution_ms: tally.wql(newest_buckets) for resolution_ms, tally in known}
        return {resolution_ms: pair for resolution_ms, pair in found.items() if pair is not None}

    def of_kind(self, *kinds: str) -> list[ModelEvent]:
        """Model events of these kinds in time order."""
        found = [event for event in self.events.values() if event.kind in kinds]
        return sorted(found, key=lambda event: event.at_ms)

    def sections(self) -> dict[str, Any]:
        """The parts of the summary that come from the output topics."""
        drift = [alert for alert in self.drift.values() if alert.state == "drift"]
        drift.sort(key=lambda alert: alert.detected_at_ms)
        swaps = self.of_kind("swapped")
        return {
            "scores": {
                "resolution_ms": self.main_ms,
                **self.of(self.main_ms).score_section(),
                "by_resolution": self._by_resolution(ResolutionTally.score_section),
            },
            "drift": {
                "alerts": [msgspec.to_builtins(alert) for alert in drift],
                "buckets_behind_naive": self._behind(drift),
            },
            "adjustments": self.adjusted.section(),
            "retrain": {
                "requested": len(self.requests),
                "promoted": len(self.of_kind("promoted")),
                "rejected": len(self.of_kind("rejected")),
            },
            "swaps": [{"version": swap.version, "pause_ms": swap.pause_ms} for swap in swaps],
            "weights_versions": sorted(self.versions),
            "alerts": {"firing": len(self.fired), "resolved": len(self.resolved)},
        }

    def _behind(self, drift: list[DriftAlert]) -> dict[str, int]:
        """Of each segment in alarm, since its first onset: how long it was served badly."""
        onset_ms: dict[str, int] = {}
        for alert in drift:
            onset_ms[alert.segment] = min(alert.onset_ms, onset_ms.get(alert.segment, MAX_TIME_MS))
        return {name: self.segments.behind(name, since_ms) for name, since_ms in onset_ms.items()}

    def forecast_section(self) -> dict[str, Any]:
        """`coalesced` counts the cutoffs between the first and the last that nobody forecast.

        It and the latency are of the main resolution.
        """
        main = self.of(self.main_ms)
        return {
            "published": self.published,
            "repeated": sum(found.repeated for found in self.resolutions.values()),
            "items": len(self.forecast_items),
            "statuses": self.statuses,
            "resolution_ms": self.main_ms,
            "coalesced": main.missing_cutoffs(),
            "latency_ms": main.forecast_section()["latency_ms"],
            "by_resolution": self._by_resolution(ResolutionTally.forecast_section),
        }

    def _by_resolution(self, section: Callable[[ResolutionTally], Any]) -> dict[str, Any]:
        known = sorted(self.resolutions.items())
        return {str(resolution_ms): section(tally) for resolution_ms, tally in known}


_KINDS: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Tally, Any], None]]] = {
    "forecasts": (msgspec.json.Decoder(ForecastHead), Tally._forecast),
    "rounds": (msgspec.json.Decoder(ForecastRound), Tally._round),
    "scores": (msgspec.json.Decoder(Score), Tally._score),
    "drift": (msgspec.json.Decoder(DriftAlert), Tally._drift),
    "retrain": (msgspec.json.Decoder(RetrainRequest), Tally._request),
    "models": (msgspec.json.Decoder(ModelEvent), Tally._model),
    "alerts": (msgspec.json.Decoder(Alert), Tally._alert),
}
COUNTED_KINDS = tuple(_KINDS)
