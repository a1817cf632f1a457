"""Count what a demo did, from the topics only: nobody reports on its own work here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from freshet.stream.arrays import Floats
from freshet.stream.schemas import Alert, DriftAlert, ModelEvent, RetrainRequest, Score

MAX_LATENCIES = 200_000


class ForecastHead(msgspec.Struct):
    """The fields of a forecast that are counted; the quantiles are not even decoded."""

    forecast_id: str
    item_id: str
    resolution_ms: int
    cutoff_ms: int
    issued_at_ms: int
    weights_version: str
    status: str


@dataclass(slots=True)
class Tally:
    """Running counts over the output topics; feed it every record with `count`.

    Args:
        speed: Clock milliseconds per wall millisecond, to turn clock differences into waiting time.
    """

    speed: float = 1.0
    forecast_items: set[str] = field(default_factory=set)
    cutoffs: set[tuple[int, int]] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    scored: set[tuple[str, int]] = field(default_factory=set)
    losses: Floats = field(default_factory=lambda: np.zeros(3))
    covered: int = 0
    recent: dict[int, Floats] = field(default_factory=dict)
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

    def _forecast(self, head: ForecastHead) -> None:
        self.forecast_items.add(head.item_id)
        self.cutoffs.add((head.resolution_ms, head.cutoff_ms))
        self.versions[head.weights_version] = self.versions.get(head.weights_version, 0) + 1
        self.statuses[head.status] = self.statuses.get(head.status, 0) + 1
        if len(self.latencies_ms) < MAX_LATENCIES:
            self.latencies_ms.append((head.issued_at_ms - head.cutoff_ms) / self.speed)

    def _score(self, score: Score) -> None:
        for step in score.steps:
            if not score.in_stock or (step.forecast_id, step.step) in self.scored:
                continue
            self.scored.add((step.forecast_id, step.step))
            self.covered += step.covered_80
            # Seasonal naive needs a season of history; only steps that have both compare the two.
            if step.seasonal_naive_pinball is not None:
                row = np.array([step.pinball, step.seasonal_naive_pinball, score.actual])
                self.losses += row
                bucket = self.recent.setdefault(score.bucket_start_ms, np.zeros(3))
                bucket += row

    def _drift(self, alert: DriftAlert) -> None:
        self.drift[f"{alert.alert_id}:{alert.state}"] = alert

    def _request(self, request: RetrainRequest) -> None:
        self.requests[request.request_id] = request

    def _model(self, event: ModelEvent) -> None:
        self.events[(event.kind, event.version, event.worker)] = event

    def _alert(self, alert: Alert) -> None:
        seen = self.resolved if alert.data.state == "resolved" else self.fired
        seen.add(alert.subject)

    def wql(self, newest_buckets: int | None = None) -> tuple[float, float] | None:
        """(served, seasonal naive) weighted quantile loss, over the steps that both could forecast.

        Args:
            newest_buckets: Only the newest so many scored buckets; None is all of them.
        """
        losses = self.losses
        if newest_buckets is not None:
            newest = sorted(self.recent)[-newest_buckets:]
            losses = sum((self.recent[start_ms] for start_ms in newest), np.zeros(3))
        served, naive, actual = losses
        return (float(served / actual), float(naive / actual)) if actual else None

    def of_kind(self, *kinds: str) -> list[ModelEvent]:
        """Model events of these kinds in time order."""
        found = [event for event in self.events.values() if event.kind in kinds]
        return sorted(found, key=lambda event: event.at_ms)

    def sections(self) -> dict[str, Any]:
        """The parts of the summary that come from the output topics."""
        served, naive = self.wql() or (None, None)
        drift = [alert for alert in self.drift.values() if alert.state == "drift"]
        drift.sort(key=lambda alert: alert.detected_at_ms)
        swaps = self.of_kind("swapped")
        return {
            "scores": {
                "matured": len(self.scored),
                "wql": served,
                "seasonal_naive_wql": naive,
                "coverage_80": self.covered / len(self.scored) if self.scored else None,
            },
            "drift": {"alerts": [msgspec.to_builtins(alert) for alert in drift]},
            "retrain": {
                "requested": len(self.requests),
                "promoted": len(self.of_kind("promoted")),
                "rejected": len(self.of_kind("rejected")),
            },
            "swaps": [{"version": swap.version, "pause_ms": swap.pause_ms} for swap in swaps],
            "weights_versions": sorted(self.versions),
            "alerts": {"firing": len(self.fired), "resolved": len(self.resolved)},
        }

    def forecast_section(self, published: int) -> dict[str, Any]:
        """`coalesced` counts the cutoffs between the first and the last that nobody forecast."""
        p50 = p99 = None
        if self.latencies_ms:
            p50, p99 = np.percentile(self.latencies_ms, (50, 99)).tolist()
        return {
            "published": published,
            "items": len(self.forecast_items),
            "coalesced": _missing_cutoffs(self.cutoffs),
            "latency_ms": {"p50": p50, "p99": p99},
        }


def _missing_cutoffs(cutoffs: set[tuple[int, int]]) -> int:
    """Cutoffs skipped, per resolution.

    >>> _missing_cutoffs({(10, 100), (10, 130)})
    2
    """
    skipped = 0
    for resolution_ms in {resolution for resolution, _ in cutoffs}:
        seen = [cutoff for resolution, cutoff in cutoffs if resolution == resolution_ms]
        skipped += (max(seen) - min(seen)) // resolution_ms + 1 - len(seen)
    return skipped


_KINDS: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Tally, Any], None]]] = {
    "forecasts": (msgspec.json.Decoder(ForecastHead), Tally._forecast),
    "scores": (msgspec.json.Decoder(Score), Tally._score),
    "drift": (msgspec.json.Decoder(DriftAlert), Tally._drift),
    "retrain": (msgspec.json.Decoder(RetrainRequest), Tally._request),
    "models": (msgspec.json.Decoder(ModelEvent), Tally._model),
    "alerts": (msgspec.json.Decoder(Alert), Tally._alert),
}
COUNTED_KINDS = tuple(_KINDS)
