"""What Prometheus is told of learn: requests that wait, what a step took, verdicts, troubles."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from freshet.online.learn.ledger import Ledger

STEP_BUCKETS_S = (0.1, 1, 5, 15, 60, 300, 1_200, 3_600)


class LearnMetrics:
    """Counters of its own, and figures read off the ledger whenever somebody looks."""

    def __init__(self, registry: CollectorRegistry, ledger: Ledger) -> None:
        self._ledger = ledger
        self._troubles = Counter(
            "freshet_learn_troubles", "Waits, by what for.", ["what"], registry=registry
        )
        self.step_seconds = Histogram(
            "freshet_learn_step_seconds",
            "A step of the learner: a training with its verdict, or a look at what there is.",
            buckets=STEP_BUCKETS_S,
            registry=registry,
        )
        registry.register(self)

    def trouble(self, what: str) -> None:
        """Something was waited for."""
        self._troubles.labels(what).inc()

    def collect(self) -> Iterator[Metric]:
        """Requests without an answer, and what was said of versions, by kind."""
        waiting = len(self._ledger.requests.open_trainings())
        yield GaugeMetricFamily(
            "freshet_learn_requests_waiting", "Requests without an answer.", value=waiting
        )
        said = CounterMetricFamily(
            "freshet_learn_events", "What the models topic says of versions.", labels=["kind"]
        )
        for kind, count in dict(self._ledger.said).items():
            said.add_metric([kind], count)
        yield said
