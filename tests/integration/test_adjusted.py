"""A segment in alarm through a broker, Redis and a restart: what is served, kept beside, scored."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from freshet.online.adjust.decision import Decided, Decisions
from freshet.online.adjust.record import beginning_of
from freshet.online.forecast.context import Contexts
from freshet.online.forecast.provenance import context_sha256
from freshet.online.owner import adjuster
from freshet.online.owner.adjuster import Adjuster
from freshet.online.owner.adjusting import Adjusting, Trials
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.kafka import Acknowledged, Publisher, TableReader, ensure_topics
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


def raise_alarm(settings: Settings) -> None:
    """Of the segment of items without a category."""
    fields = {"alert_id": "i", "segment": "-", "state": "drift", "kind": "level"}
    fields |= {"detector": "cusum", "weights_version": "v", "description": "", "action": ""}
    at = {"detected_at_ms": ONSET_MS + HOUR_MS, "onset_ms": ONSET_MS, "size": 1.0}
    alert = msgspec.convert(fields | at, DriftAlert)
    with Publisher(settings) as publisher:
        publisher.produce(settings.kafka.topics.drift, encode(alert), key="-")
        publisher.flush()


def decide(settings: Settings) -> Decided:
    """What another owner decides that begins now, and has read what the one before it wrote."""
    writes = Acknowledged(settings)
    trials = Trials(settings, connect(settings.redis), lambda: 2**60, lambda: None)
    owner = Adjusting(settings, trials, Adjuster(trials.segments), writes, lambda: True)
    eventually(owner.turn, bool)
    writes.close()
    decisions = Decisions()
    with TableReader(settings, [settings.kafka.topics.decisions]) as reader:
        for record in reader.to_end():
            decisions.take(record.key, record.value)
    newest = decisions.newest(HOUR_MS)
    assert newest is not None
    return newest


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
    beginning = beginning_of(forecast.adjustments)
    return context_sha256(contexts.batch([row], forecast.cutoff_ms, [beginning]))[0]


def hidden(decided: Decided) -> Adjustments:
    """What a forecast says that was made by a decision."""
    return Adjustments(begins_at_ms=ONSET_MS, decision_sha256=decided.sha256)


def test_what_answers_a_drift_outlives_restarts_and_is_scored_beside_what_would_have_been(
    kafka_broker: str, redis_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(kafka_broker, redis_server, tmp_path, "adjusted")
    save_random_weights(Path(settings.worker.weights), seed=0)
    ensure_topics(settings, live=False)
    shop = Shop(settings)
    shop.sell(48)
    raise_alarm(settings)
    monkeypatch.setattr(adjuster, "choose", lambda trials, serving: "hidden")
    first = decide(settings)
    (told,) = first.record.segments
    assert (told.segment, told.how, told.begins_at_ms) == ("-", "hidden", ONSET_MS)
    assert first.record.as_of_ms == shop.now_ms and len(told.sample) == shop.items + 1
    shop.sell(1)
    with running(settings):
        eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
    # The next owner chooses as the one before it did, the next worker serves so.
    monkeypatch.setattr(adjuster, "choose", lambda trials, serving: serving)
    second = decide(settings)
    assert second.record.segments[0].how == "hidden"
    shop.sell(2)
    with running(settings):
        made = eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        judged = eventually(lambda: scores(settings), bool)

    assert [one.adjustments for one in made] == [hidden(second)] * 7
    before = at_cutoff(settings, shop.now_ms - 2 * HOUR_MS)
    assert [one.adjustments for one in before] == [hidden(first)] * 7
    made += before
    besides = read(settings, settings.kafka.topics.shadow, Forecast)
    assert len(made) == len(besides) == 14
    of = {(one.item_id, one.cutoff_ms): one for one in besides}
    for one in made:
        other = of[one.item_id, one.cutoff_ms]
        assert other.adjustments == Adjustments()
        assert dressed_again(settings, one) == one.context_sha256
        assert dressed_again(settings, other) == other.context_sha256
    ids = {one.forecast_id for one in besides}
    for score in judged:
        assert all(step.adjusted and step.forecast_id not in ids for step in score.steps)
        assert [step.step for step in score.unadjusted] == [step.step for step in score.steps]
        assert all(step.forecast_id in ids for step in score.unadjusted)
