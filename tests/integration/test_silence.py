"""Nothing falls silent: poison on every topic, both servers killed, a clock two hours ahead.

One shop for the whole file, on a real Kafka; its tests run in the order they are written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freshet.stream.codec import decode, encode
from freshet.stream.schemas import (
    RECORDS,
    SHOP_TABLES,
    WIRE_LEVELS,
    AdjustmentDecision,
    Alert,
    AlertData,
    CatalogEntry,
    ClickEvent,
    Compute,
    Covariate,
    DriftAlert,
    EffectsClosing,
    EffectsEvents,
    EffectsRecord,
    EffectsSlopes,
    Forecast,
    ForecastRound,
    InventoryLevel,
    ModelEvent,
    OrderEvent,
    OwnerState,
    Promotion,
    Record,
    RetrainRequest,
    Score,
    ScoredStep,
    SegmentAdjustment,
    ShardScored,
    WindowsAdvanced,
)
from freshet.stream.store.clock import set_anchor
from freshet.stream.store.connection import connect
from freshet.stream.units import HOUR_MS, MINUTE_MS
from tests.integration.poison import poisons
from tests.integration.whole_shop import STEP_MS, WholeShop
from tests.starved import Stopwatch

SKIPPED = 300

AWAY_S = 25.0
NAMED_WITHIN_S = 5.0
STOPPED_WITHIN_S = 10.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeShop]:
    home = Path(os.environ.get("KAFKA_HOME", "/nowhere"))
    if not (home / "bin").is_dir():
        pytest.skip("KAFKA_HOME does not name an unpacked Kafka 4.x")
    shop = WholeShop(home, tmp_path_factory.mktemp("shop"))
    try:
        shop.sell()
        shop.wait_ready()
        yield shop
    finally:
        shop.kill()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# Records that have an effect ----------------------------------------------------------------------


def good_records(at_ms: int, tag: str) -> dict[str, Record]:
    """A record for each topic; the tag tells it from others."""
    step = ScoredStep(
        forecast_id="f",
        weights_version="base",
        step=1,
        pinball=1.0,
        seasonal_naive_pinball=2.0,
        pit=0.5,
        residual=0.0,
        covered_80=True,
    )
    alert = AlertData(
        state="firing",
        severity="info",
        title=f"title-{tag}",
        description="d",
        starts_at_ms=at_ms,
        updated_at_ms=at_ms,
        labels={"type": "t", "subject": tag, "kind": "k"},
    )
    return {
        "orders": OrderEvent(
            event_id=f"o-{tag}",
            event_time=at_ms,
            sku=f"order-{tag}",
            region="n",
            quantity=3.0,
            unit_price=2.0,
        ),
        "clicks": ClickEvent(
            event_id=f"c-{tag}", event_time=at_ms, sku=f"click-{tag}", kind="view", region="n"
        ),
        "catalog": CatalogEntry(sku="a", title=f"title-{tag}", unit_price=3.0, launched_at=at_ms),
        "promotions": Promotion(
            promotion_id=f"p-{tag}",
            starts_at=at_ms - MINUTE_MS,
            ends_at=at_ms + HOUR_MS,
            discount=0.25,
            kind="flash_sale",
            sku="a",
        ),
        "inventory": InventoryLevel(sku="a", region="n", on_hand=int(tag, 36) % 9_973, as_of=at_ms),
        "covariates": Covariate(
            covariate_id=f"c-{tag}", name="event", starts_at=at_ms, ends_at=at_ms + HOUR_MS
        ),
        "windows": WindowsAdvanced(topic="t", partition=0, epoch=1, offset=1, frontier_ms=at_ms),
        "forecasts": Forecast(
            forecast_id=f"f-{tag}",
            item_id=f"forecast-{tag}|n",
            sku=f"forecast-{tag}",
            region="n",
            resolution_ms=STEP_MS,
            cutoff_ms=at_ms // STEP_MS * STEP_MS,
            issued_at_ms=at_ms,
            quantile_levels=list(WIRE_LEVELS),
            quantiles=[[float(level) for level in range(len(WIRE_LEVELS))]] * 4,
            weights_version="base",
            weights_sha256="0",
            offsets={},
            context_sha256="0",
            compute=Compute(device="cpu", dtype="float32", batch_shape=[1, 64]),
            status="ok",
        ),
        "rounds": ForecastRound(
            shard=0,
            num_shards=4,
            resolution_ms=STEP_MS,
            cutoff_ms=at_ms // STEP_MS * STEP_MS,
            issued_at_ms=at_ms,
            complete=True,
            expected=1,
            published=1,
            weights_version="base",
            skipped=SKIPPED,
            skipped_from_ms=(at_ms // STEP_MS - SKIPPED) * STEP_MS,
        ),
        "scores": Score(
            item_id=f"score-{tag}|n",
            segment=f"segment-{tag}",
            resolution_ms=STEP_MS,
            bucket_start_ms=at_ms // STEP_MS * STEP_MS - STEP_MS,
            scored_at_ms=at_ms,
            actual=4.0,
            steps=[step],
        ),
        "drift": DriftAlert(
            alert_id=f"d-{tag}",
            segment=f"drift-{tag}",
            state="drift",
            kind="level",
            detector="cusum",
            detected_at_ms=at_ms,
            onset_ms=at_ms - HOUR_MS,
            size=1.0,
            weights_version="base",
            description="d",
            action="a",
        ),
        # So old that learn no longer waits for more buckets, but answers.
        "retrain": RetrainRequest(
            request_id=f"r-{tag}", requested_at_ms=at_ms - HOUR_MS, reason="manual"
        ),
        "models": ModelEvent(kind="rejected", version=f"v-{tag}", at_ms=at_ms, reason=f"why-{tag}"),
        "scored": ShardScored(
            shard=0,
            num_shards=1,
            resolution_ms=STEP_MS,
            scored_until_ms=at_ms // STEP_MS * STEP_MS,
            scored_at_ms=at_ms,
            begun_ms=at_ms,
        ),
        "owner": OwnerState(
            resolution_ms=STEP_MS,
            decided_until_ms=at_ms,
            offsets={},
            part=0,
            parts=1,
            tensions={"s": 0.5},
        ),
        "decisions": AdjustmentDecision(
            resolution_ms=STEP_MS,
            as_of_ms=at_ms,
            weights_version="base",
            segments=[SegmentAdjustment(segment="s", how="hidden", begins_at_ms=at_ms)],
        ),
        "effects": EffectsRecord(
            resolution_ms=STEP_MS,
            as_of_ms=at_ms,
            num_items=1,
            offsets={},
            known_names=[],
            continuous=False,
            closing=EffectsClosing(),
            places=[],
            slopes=EffectsSlopes(
                columns=[], low=[], high=[], mean=[], weights=[[], []], least=0.0, most=0.0
            ),
            events=EffectsEvents(
                flags=[],
                flag_in_cells=[],
                weights=[],
                weights_by_half_year=[],
                half_years=[],
                end_day=0,
            ),
            country="DE",
        ),
        "alerts": Alert(
            id=f"a-{tag}",
            source="s",
            type="t",
            subject=f"alert-{tag}",
            time="2026-01-01T00:00:00Z",
            data=alert,
        ),
    }


def alerts_about(shop: WholeShop, subject: str) -> list[Alert]:
    found = []
    for record in shop.records(shop.settings.kafka.topics.alerts):
        try:
            alert = decode(Alert, record.value or b"")
        except Exception:  # Poison of the test itself.
            continue
        if subject in (alert.data.labels.get("subject"), alert.subject):
            found.append(alert)
    return found


def answers_to(shop: WholeShop, request_id: str) -> list[str]:
    found = []
    for record in shop.records(shop.settings.kafka.topics.models):
        try:
            event = decode(ModelEvent, record.value or b"")
        except Exception:  # Poison of the test itself.
            continue
        if event.request_id == request_id and event.kind != "training":
            found.append(event.kind)
    return found


def newest_cutoff_ms(shop: WholeShop, item_id: str = "a|n") -> int:
    found = 0
    for record in shop.records(shop.settings.kafka.topics.forecasts_latest):
        if record.key == f"{item_id}@{STEP_MS}".encode() and record.value is not None:
            found = max(found, decode(Forecast, record.value).cutoff_ms)
    return found


def effect_of(shop: WholeShop, kind: str, tag: str) -> Callable[[], Any]:
    """Whether a good record of a topic has been acted on by whoever reads it."""

    def item(item_id: str) -> Any:
        status, text = shop.probe("dashboard", f"/api/items/{item_id}")
        return json.loads(text) if status == 200 else {}

    started_ms = now_ms()
    return {
        "orders": lambda: newest_cutoff_ms(shop, f"order-{tag}|n"),
        "clicks": lambda: newest_cutoff_ms(shop, f"click-{tag}|n"),
        "catalog": lambda: f"title-{tag}" in json.dumps(item("a%7Cn")),
        "promotions": lambda: alerts_about(shop, f"p-{tag}"),
        "inventory": lambda: str(int(tag, 36) % 9_973) in json.dumps(item("a%7Cn")),
        "windows": lambda: newest_cutoff_ms(shop) > started_ms,
        "forecasts": lambda: item(f"forecast-{tag}%7Cn"),
        "scores": lambda: f"segment-{tag}" in shop.page("/api/errors")["segments"],
        "drift": lambda: alerts_about(shop, f"drift-{tag}"),
        "retrain": lambda: answers_to(shop, f"r-{tag}"),
        "models": lambda: f"v-{tag}" in json.dumps(shop.page("/api/models")),
        "alerts": lambda: f"title-{tag}" in json.dumps(shop.page("/api/drift")),
    }[kind]


# Poison -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poisoned(shop: WholeShop) -> WholeShop:
    """The same shop after thirty kinds of poison on every topic."""
    topics = shop.settings.kafka.topics
    for kind, record in good_records(now_ms(), "poison").items():
        fields = msgspec.json.decode(encode(record))
        times = (*record.happened, *record.planned)
        if kind in ("orders", "clicks"):
            times = ("event_time",)
        values = poisons(fields, times, now_ms())
        assert len(values) == 30
        shop.send(getattr(topics, kind), *values)
        shop.send(getattr(topics, kind), *values[:5], key=b"\xff" * 300)
    return shop


# Covariates and effects move numbers alone, of a round the page keeps what the worker says of the
# newest, shadows are read by a worker that begins, two topics by the owner, and a decision needs
# its key.
NO_EFFECT = ("covariates", "effects", "rounds", "shadow", "scored", "owner", "decisions")


@pytest.mark.parametrize("kind", [kind for kind in RECORDS if kind not in NO_EFFECT])
def test_a_good_record_behind_thirty_poisoned_ones_has_its_effect(
    poisoned: WholeShop, kind: str
) -> None:
    tag = f"{now_ms():x}"
    topic = getattr(poisoned.settings.kafka.topics, kind)
    poisoned.send(topic, good_records(now_ms(), tag)[kind])
    poisoned.wait(effect_of(poisoned, kind, tag), f"the effect of a good record of {topic}")


@pytest.mark.parametrize("kind", ["orders", "clicks", *SHOP_TABLES, "drift", "retrain", "models"])
def test_what_cannot_be_used_is_a_dead_letter_once(poisoned: WholeShop, kind: str) -> None:
    topic = getattr(poisoned.settings.kafka.topics, kind)
    counts = {record.offset: 0 for record in poisoned.records(topic)}
    poisoned.wait(lambda: len(poisoned.records(f"{topic}.dlq")) >= 20, f"letters of {topic}")
    for letter in poisoned.records(f"{topic}.dlq"):
        headers = dict(letter.headers)
        counts[int(headers["freshet.error.offset"] or b"-1")] += 1
    assert max(counts.values()) == 1


# Servers and clocks -------------------------------------------------------------------------------


def test_a_broker_that_is_killed_is_named_within_five_seconds_and_all_go_on_when_it_is_back(
    poisoned: WholeShop,
) -> None:
    away(poisoned, "Kafka", poisoned.broker.stop)
    poisoned.broker.restart()
    poisoned.wait_ready()


def test_a_redis_that_is_killed_is_named_within_five_seconds_and_all_go_on_when_it_is_back(
    poisoned: WholeShop,
) -> None:
    away(poisoned, "Redis", poisoned.redis.kill)
    poisoned.redis.start()
    poisoned.wait_ready()


def away(shop: WholeShop, server: str, kill: Callable[[], None]) -> None:
    """Kill a server; every process names it in time, lives, and is left without it a while."""
    watches = {name: Stopwatch(process.pid) for name, process in shop.processes.items()}
    kill()
    end_s = time.monotonic() + AWAY_S
    named_s: dict[str, float] = {}

    def all_name_it() -> bool:
        for name in watches.keys() - named_s.keys():
            if server.lower() in shop.probe(name)[1].lower():
                named_s[name] = watches[name].seconds()
        return len(named_s) == len(watches)

    shop.wait(all_name_it, f"every /readyz names {server}")
    assert max(named_s.values()) < NAMED_WITHIN_S, named_s
    while time.monotonic() < end_s:
        for name in shop.processes:
            assert shop.probe(name, "/livez")[0] == 200, name
        time.sleep(1.0)


def test_two_hours_ahead_alerts_answers_forecasts_and_the_page_still_come(
    poisoned: WholeShop,
) -> None:
    set_anchor(connect(poisoned.settings.redis), now_ms() + 2 * HOUR_MS, 1.0)
    started_ms = now_ms()
    tag = f"{started_ms:x}"
    ahead = good_records(started_ms + 2 * HOUR_MS, tag)
    topics = poisoned.settings.kafka.topics
    # Processes read the clock anew within a second.
    poisoned.wait(
        lambda: poisoned.page("/api/overview")["clock"]["now_ms"] > started_ms + HOUR_MS,
        "the clock that is ahead",
    )
    for kind in ("drift", "retrain"):
        poisoned.send(getattr(topics, kind), ahead[kind])
    poisoned.wait(lambda: alerts_about(poisoned, f"drift-{tag}"), "an alert")
    poisoned.wait(lambda: answers_to(poisoned, f"r-{tag}"), "an answer")
    poisoned.wait(lambda: newest_cutoff_ms(poisoned) > started_ms, "a round")
    assert poisoned.probe("dashboard", "/")[0] == 200


def test_all_end_within_ten_seconds_of_a_sigterm_with_the_broker_away(
    poisoned: WholeShop,
) -> None:
    poisoned.broker.stop()
    took = poisoned.stop_all()
    assert set(took) == set(poisoned.processes), took
    assert max(seconds for seconds, _ in took.values()) <= STOPPED_WITHIN_S, took
