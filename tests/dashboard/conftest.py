"""Records and views by hand, for tests that need no server."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from freshet.dashboard.actuals import SHOWN_CHANNELS, Actuals, Books
from freshet.dashboard.state import Kind, TopicState
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.schemas import Compute, DriftAlert, Forecast, ModelEvent, Score, ScoredStep
from freshet.stream.units import HOUR_MS


class Make:
    """Short ways to make records; `hour` counts from the epoch."""

    def forecast(self, item_id: str = "A|north", hour: int = 100, **more: Any) -> Forecast:
        sku, _, region = item_id.partition("|")
        values: dict[str, Any] = {
            "forecast_id": f"{item_id}@{hour}",
            "item_id": item_id,
            "sku": sku,
            "region": region,
            "resolution_ms": HOUR_MS,
            "cutoff_ms": hour * HOUR_MS,
            "issued_at_ms": hour * HOUR_MS,
            "quantile_levels": [0.1, 0.5, 0.9],
            "quantiles": [[1.0, 2.0, 3.0]] * 24,
            "weights_version": "base",
            "weights_sha256": "",
            "offsets": {},
            "context_sha256": "",
            "compute": Compute(device="cpu", dtype="float32", batch_shape=[1, 1]),
            "status": "ok",
        }
        return Forecast(**values | more)

    def score(self, item_id: str = "A|north", hour: int = 100, **more: Any) -> Score:
        step: dict[str, Any] = {
            "forecast_id": "f",
            "weights_version": "base",
            "step": 1,
            "pinball": 2.0,
            "seasonal_naive_pinball": 4.0,
            "pit": 0.5,
            "residual": 0.0,
            "covered_80": True,
        }
        whole = {
            name: more.pop(name)
            for name in list(more)
            if name in ("actual", "segment", "resolution_ms")
        }
        values: dict[str, Any] = {
            "segment": "Boots",
            "resolution_ms": HOUR_MS,
            "actual": 10.0,
        } | whole
        start_ms = hour * HOUR_MS
        return Score(
            item_id=item_id,
            bucket_start_ms=start_ms,
            scored_at_ms=start_ms + HOUR_MS,
            steps=[ScoredStep(**step | more)],
            **values,
        )

    def drift(self, **more: Any) -> DriftAlert:
        values: dict[str, Any] = {
            "alert_id": "a1",
            "segment": "Boots",
            "state": "drift",
            "kind": "level",
            "detector": "ADWIN",
            "detected_at_ms": 110 * HOUR_MS,
            "onset_ms": 105 * HOUR_MS,
            "size": 0.9,
            "weights_version": "base",
            "description": "more than forecast",
            "action": "train",
        }
        return DriftAlert(**values | more)

    def model(self, kind: Any, version: str, hour: float, **more: Any) -> ModelEvent:
        return ModelEvent(kind=kind, version=version, at_ms=round(hour * HOUR_MS), **more)

    def topics(self, *records: tuple[Kind, msgspec.Struct]) -> TopicState:
        topics = TopicState(Settings())
        for kind, record in records:
            assert topics.apply(kind, b"key", encode(record), 0), (kind, record)
        return topics

    def actuals(
        self, units: dict[str, list[float]], *, end_hour: int = 100, books: Books | None = None
    ) -> Actuals:
        """Hourly units that end at `end_hour`; other channels are ten times as much."""
        length = max((len(row) for row in units.values()), default=0)
        table = np.array(list(units.values()), np.float32).reshape(len(units), length)
        values = {
            channel: table if channel == "units" else 10 * table for channel in SHOWN_CHANNELS
        }
        rows = {item_id: row for row, item_id in enumerate(units)}
        return Actuals(
            HOUR_MS, (end_hour - length) * HOUR_MS, length, rows, values, books or Books()
        )


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()
