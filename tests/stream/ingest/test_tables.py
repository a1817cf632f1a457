"""What is said where too many versions of the shop's tables are kept."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from freshet.stream.config import Settings
from freshet.stream.health import Health
from freshet.stream.ingest import tables
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.process import Stop


def test_too_many_versions_are_said_to_whoever_asks_and_logged_once_until_they_are_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "MAX_VERSIONS", 30)
    settings = Settings()
    num_partitions = dict.fromkeys(settings.kafka.topics.model_dump().values(), 1)
    of_shop = tables.Tables(
        settings,
        None,  # type: ignore[arg-type]
        num_partitions=num_partitions,
        identity=None,  # type: ignore[arg-type]
        latest_ms=lambda: 0,
        reached_ms=lambda: 0,
    )
    health = Health(Stop(), "")
    health.over("start")
    metrics = IngestMetrics(CollectorRegistry())
    said = []
    for total in (30, 31, 90, 30, 40):
        of_shop.say_total(total, metrics, health)
        said.append((health.ready() or "").partition(" versions of catalogue")[0])
        assert metrics.versions._value.get() == total
    assert said == ["", "31", "90", "", "40"]
    out = capsys.readouterr().out
    assert (out.count("degraded"), out.count("recovered")) == (2, 1)
