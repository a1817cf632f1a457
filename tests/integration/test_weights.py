"""Weights versions by hand, and the tail, over a real Redis and the mock broker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.online.tail import tail
from freshet.online.weights import versions
from freshet.online.weights.registry import BASE, Registry
from freshet.stream.codec import encode
from freshet.stream.config import (
    KafkaSettings,
    LearnSettings,
    RedisSettings,
    Settings,
    Topics,
    WorkerSettings,
)
from freshet.stream.errors import RegistryError
from freshet.stream.kafka import Publisher, TableReader
from freshet.stream.schemas import Compute, Forecast, ModelEvent


@pytest.fixture
def settings(mock_broker: str, redis_server: str, tmp_path: Path) -> Settings:
    prefix = f"models{time.time_ns()}"
    topics = Topics(**{name: f"{prefix}.{name}" for name in Topics.model_fields})
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=mock_broker, topics=topics),
        redis=RedisSettings(url=redis_server),
        learn=LearnSettings(registry=tmp_path / "registry"),
        worker=WorkerSettings(threads=1),
    )


def registered(settings: Settings, parent: str = BASE) -> str:
    """A version whose files are those of the shipped weights."""

    def build(folder: Path) -> None:
        for path in BASE_WEIGHTS.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())

    return Registry(settings.learn.registry).add(build, parent=parent, created_at_ms=0).version


def announced(settings: Settings) -> list[ModelEvent]:
    with TableReader(settings, [settings.kafka.topics.models]) as reader:
        found = [
            msgspec.json.decode(record.value or b"", type=ModelEvent)
            for record in reader.read_to_end()
        ]
    return sorted(found, key=lambda event: event.at_ms)


def test_a_version_is_promoted_and_taken_back_by_hand(settings: Settings) -> None:
    version = registered(settings)
    assert versions.promote(settings, version) == f"{version} is the champion, base was"
    assert {"version": version, "aliases": ["champion"]} in versions.versions(settings)
    assert versions.show(settings, "champion")["version"] == version
    assert versions.rollback(settings) == f"base is the champion again, {version} was"
    told = [
        (event.kind, event.version, event.parent, event.reason) for event in announced(settings)
    ]
    assert told == [
        ("promoted", version, "base", "by hand"),
        ("rolled_back", "base", version, "by hand"),
    ]
    assert all(event.at_ms > 0 for event in announced(settings))


def test_what_is_not_there_or_was_altered_is_not_promoted(settings: Settings) -> None:
    with pytest.raises(RegistryError, match="no version"):
        versions.promote(settings, "v9999-20260101T000000Z-00000000")
    version = registered(settings)
    (Registry(settings.learn.registry).path(version) / "config.json").write_text("{}")
    with pytest.raises(RegistryError, match="altered"):
        versions.promote(settings, version)
    assert str(Registry(settings.learn.registry).champion()) == BASE


def forecast(item_id: str) -> Forecast:
    levels = [0.1, 0.5, 0.9]
    values: dict[str, Any] = {
        "forecast_id": item_id,
        "item_id": item_id,
        "sku": "a",
        "region": "n",
        "status": "ok",
    }
    return Forecast(
        **values,
        resolution_ms=1,
        cutoff_ms=0,
        issued_at_ms=0,
        quantile_levels=levels,
        quantiles=[[1.0, 2.0, 3.5]] * 4,
        weights_version="base",
        weights_sha256="",
        offsets={},
        context_sha256="",
        compute=Compute(device="cpu", dtype="float32", batch_shape=[1]),
    )


def test_the_tail_prints_one_item_and_passes_over_what_it_cannot_read(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with Publisher(settings) as publisher:
        for value in (b"{", encode(forecast("b|n")), encode(forecast("a|n"))):
            publisher.produce(settings.kafka.topics.forecasts, value, partition=0)
    tail(settings, item_id="a|n", most=1)
    line = capsys.readouterr().out
    assert line.startswith("Thu 1 Jan 00:00  a|n")
    assert "1 2 3.5 | 1 2 3.5 | 1 2 3.5 ..." in line
