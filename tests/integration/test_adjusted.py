"""A segment in alarm through a broker, Redis and a restart: what is served, kept beside, scored."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from freshet.online.adjust.record import served_by
from freshet.online.worker import adjuster
from freshet.online.worker.context import Contexts
from freshet.online.worker.provenance import context_sha256
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.read.shop import ShopFeed
from freshet.stream.schemas import Adjustments, DriftAlert, Forecast
from freshet.stream.store.connection import connect
from freshet.stream.units import HOUR_MS
from tests.integration.test_worker import (
    Shop,
    at_cutoff,
    eventually,
    read,
    running,
    save_random_weights,
    scores,
    settings_for,
)
from tests.integration.windows_world import START_MS

ONSET_MS = START_MS + 40 * HOUR_MS
HIDDEN = Adjustments(begins_at_ms=ONSET_MS)


def raise_alarm(settings: Settings) -> None:
    """Of the segment of items without a category."""
    fields = {"alert_id": "i", "segment": "-", "state": "drift", "kind": "level"}
    fields |= {"detector": "cusum", "weights_version": "v", "description": "", "action": ""}
    at = {"detected_at_ms": ONSET_MS + HOUR_MS, "onset_ms": ONSET_MS, "size": 1.0}
    alert = msgspec.convert(fields | at, DriftAlert)
    with Publisher(settings) as publisher:
        publisher.produce(settings.kafka.topics.drift, encode(alert), key="-")
        publisher.flush()


def dressed_again(settings: Settings, forecast: Forecast) -> str:
    """The sha256 of a forecast's context, from Redis and what its record says alone."""
    client, (served,) = connect(settings.redis), settings.served
    tables = ShopTables.of(settings)
    ShopFeed(client, settings, tables, until=forecast.offsets).read_to_end()
    rules = ReadRules.of(settings, served.resolution_ms)
    reader = WindowReader(client, 0, served.resolution_ms, 200, rules=rules)
    contexts = Contexts(
        reader,
        tables,
        context_length=served.context_length,
        prediction_length=served.prediction_length,
    )
    contexts.refresh()
    row = reader.row(forecast.item_id)
    assert row is not None
    beginning = served_by(forecast.adjustments)[1]
    return context_sha256(contexts.batch([row], forecast.cutoff_ms, [beginning]))[0]


def test_what_answers_a_drift_outlives_a_restart_and_is_scored_beside_what_would_have_been(
    kafka_broker: str, redis_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(kafka_broker, redis_server, tmp_path, "adjusted")
    save_random_weights(Path(settings.worker.weights), seed=0)
    ensure_topics(settings, live=False)
    shop = Shop(settings)
    shop.sell(48)
    raise_alarm(settings)
    monkeypatch.setattr(adjuster, "choose", lambda trials, serving: "hidden")
    with running(settings):
        eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
    shop.sell(2)
    # The next worker serves as the one before it did.
    monkeypatch.setattr(adjuster, "choose", lambda trials, serving: serving)
    with running(settings):
        made = eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        judged = eventually(lambda: scores(settings), bool)

    made += at_cutoff(settings, shop.now_ms - 2 * HOUR_MS)
    besides = read(settings, settings.kafka.topics.shadow, Forecast)
    assert len(made) == len(besides) == 14
    of = {(one.item_id, one.cutoff_ms): one for one in besides}
    for one in made:
        other = of[one.item_id, one.cutoff_ms]
        assert (one.adjustments, other.adjustments) == (HIDDEN, Adjustments())
        assert dressed_again(settings, one) == one.context_sha256
        assert dressed_again(settings, other) == other.context_sha256
    ids = {one.forecast_id for one in besides}
    for score in judged:
        assert all(step.adjusted and step.forecast_id not in ids for step in score.steps)
        assert [step.step for step in score.unadjusted] == [step.step for step in score.steps]
        assert all(step.forecast_id in ids for step in score.unadjusted)
