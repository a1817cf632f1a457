"""What Prometheus is told of control: alerts by state, requests that wait, troubles."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import GaugeMetricFamily

from freshet.online.control.controller import Controller


class ControlMetrics:
    """Counters of its own, and gauges read off the controller whenever somebody looks."""

    def __init__(self, registry: CollectorRegistry, controller: Controller) -> None:
        self._controller = controller
        self._troubles = Counter(
            "freshet_control_troubles",
            "Waits, by what was waited for.",
            ["what"],
            registry=registry,
        )
        registry.register(self)

    def trouble(self, what: str) -> None:
        """Something was waited for."""
        self._troubles.labels(what).inc()

    def collect(self) -> Iterator[Metric]:
        """Alerts by state and severity, and requests without an answer."""
        alerts = GaugeMetricFamily(
            "freshet_control_alerts", "Alerts by state.", labels=["state", "severity"]
        )
        known = Tally(
            (alert.data.state, alert.data.severity) for alert in self._controller.book.known()
        )
        for (state, severity), count in known.items():
            alerts.add_metric([state, severity], count)
        yield alerts
        yield GaugeMetricFamily(
            "freshet_control_requests_waiting",
            "Retrain requests that nobody has answered.",
            value=self._controller.rules.waiting(),
        )
