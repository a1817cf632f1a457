"""What the worker counts and times, for Prometheus; never labelled by item."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class WorkerMetrics:
    """All of the worker's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.forecasts = Counter(
            "freshet_worker_forecasts",
            "Forecasts acknowledged by the broker.",
            ("status",),
            registry=registry,
        )
        self.coalesced = Counter(
            "freshet_worker_coalesced_cutoffs",
            "Cutoffs skipped because a newer one had come.",
            registry=registry,
        )
        self.latency_seconds = Histogram(
            "freshet_worker_latency_seconds",
            "Wall time from the look that showed a new cutoff to its last acknowledged forecast.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "freshet_worker_stage_seconds",
            "Wall time of a stage: read, forecast, publish, score.",
            ("stage",),
            buckets=(0.001, 0.005, 0.025, *LATENCY_BUCKETS_S),
            registry=registry,
        )
        self.forecast_age_seconds = Gauge(
            "freshet_worker_forecast_age_seconds",
            "Clock time since the newest published cutoff.",
            registry=registry,
        )
        self.lag_seconds = Gauge(
            "freshet_worker_lag_seconds",
            "Clock time since the newest cutoff that the windows allow.",
            registry=registry,
        )
        self.items = Gauge(
            "freshet_worker_items", "Items owned, with and without history.", registry=registry
        )
        self.day_gap = Gauge(
            "freshet_worker_day_gap",
            "How far medians of whole days and of the sums over their hours lie apart, as a share "
            "of the days', at the newest cutoff of both: as published, and as forecast.",
            ("of",),
            registry=registry,
        )
        self.adjusted = Gauge(
            "freshet_worker_adjusted_segments",
            "Segments in alarm whose contexts begin at the onset, by what becomes of the past.",
            ("how",),
            registry=registry,
        )
        self.shadow = Counter(
            "freshet_worker_shadow_forecasts",
            "Forecasts without adjustments, beside those that were served.",
            registry=registry,
        )
        self.scores = Counter(
            "freshet_worker_scores", "Score records acknowledged by the broker.", registry=registry
        )
        self.unscored = Counter(
            "freshet_worker_unscored_steps",
            "Forecast steps whose bucket was not known any more.",
            registry=registry,
        )
        self.drift_score = Gauge(
            "freshet_worker_drift_score", "0 calm to 1 in alarm.", ("segment",), registry=registry
        )
        self.alerts = Counter(
            "freshet_worker_drift_alerts",
            "Drift alerts that were told; each worker counts all of them.",
            ("state", "kind"),
            registry=registry,
        )
        self.swaps = Counter(
            "freshet_worker_swaps", "Weights swapped or refused.", ("outcome",), registry=registry
        )
        self.swap_pause_seconds = Histogram(
            "freshet_worker_swap_pause_seconds",
            "How long the loop stood still for a swap.",
            buckets=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
            registry=registry,
        )
        self.troubles = Counter(
            "freshet_worker_troubles",
            "Times Redis or the broker failed.",
            ("what",),
            registry=registry,
        )
        self.effects_seconds = Counter(
            "freshet_worker_effects_seconds",
            "How long estimates of shared effects took, whichever worker's child made them.",
            registry=registry,
        )
        self.effects_refused = Counter(
            "freshet_worker_effects_refused",
            "Records of shared effects that cannot be used.",
            registry=registry,
        )
        self.degraded = Gauge(
            "freshet_worker_degraded", "1 while something is amiss.", registry=registry
        )

    def show_tensions(self, tensions: Mapping[str, float]) -> None:
        """How near an alarm each segment is, as the owner says."""
        for segment, tension in tensions.items():
            self.drift_score.labels(segment).set(tension)
