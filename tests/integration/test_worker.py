"""The worker against a real Redis and a broker: windows in, forecasts, scores and swaps out,
through restarts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from pydantic import SecretStr

from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.weights import save_weights
from freshet.online.weights.announced import announcement
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import Registry
from freshet.online.worker.loop import Worker
from freshet.online.worker.process import open_worker
from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings, load
from freshet.stream.errors import StoreUnavailableError, WeightsError
from freshet.stream.failpoints import VARIABLE
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.kafka import Publisher, TableReader, ensure_topics
from freshet.stream.schemas import WIRE_LEVELS, CatalogEntry, Forecast, ModelEvent, Score
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.integration.shop import SESSION_MS
from tests.integration.side import keep_tables
from tests.starved import Stopwatch

START_MS = 480_000 * HOUR_MS
TIMEOUT_S = 180.0
T = TypeVar("T")
ONE_RESOLUTION = {
    f"FRESHET_WORKER__{name}"
    for name in ("CONTEXT_LENGTH", "PREDICTION_LENGTH", "SCORE_STEPS", "SEASON_LENGTH")
}
R = TypeVar("R")


def save_random_weights(folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    config = FreshetConfig(
        width=32, num_layers=1, num_heads=2, context_length=64, prediction_length=32
    )
    return save_weights(FreshetNetwork(config), folder, card="random")


def environ_for(bootstrap: str, redis_url: str, folder: Path, name: str) -> dict[str, str]:
    name = f"t{abs(hash(name)) % 10**8}"
    environ = {
        "FRESHET_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "FRESHET_KAFKA__GROUP_PREFIX": name,
        "FRESHET_KAFKA__REQUEST_TIMEOUT_MS": "3000",
        "FRESHET_KAFKA__SESSION_TIMEOUT_MS": SESSION_MS,
        "FRESHET_REDIS__URL": redis_url,
        "FRESHET_REDIS__TIMEOUT_MS": "1000",
        "FRESHET_WORKER__CONTEXT_LENGTH": "64",
        "FRESHET_WORKER__PREDICTION_LENGTH": "8",
        "FRESHET_WORKER__SCORE_STEPS": "[1,3]",
        "FRESHET_WORKER__SEASON_LENGTH": "24",
        "FRESHET_WORKER__MICRO_BATCH": "4",
        "FRESHET_WORKER__DEVICE": "cpu",
        "FRESHET_WORKER__EFFECTS": "false",
        "FRESHET_DRIFT__WATCH": "false",
        "FRESHET_WORKER__DTYPE": "float32",
        "FRESHET_WORKER__POLL_MS": "20",
        "FRESHET_WORKER__WEIGHTS": str(folder / "weights"),
        "FRESHET_LEARN__REGISTRY": str(folder / "registry"),
    }
    for topic in (
        "orders",
        "clicks",
        "catalog",
        "promotions",
        "inventory",
        "covariates",
        "late",
        "windows",
        "forecasts",
        "scores",
    ):
        environ[f"FRESHET_KAFKA__TOPICS__{topic.upper()}"] = f"{name}.{topic}"
    others = ("drift", "retrain", "models", "effects", "alerts", "forecasts_latest", "rounds")
    for topic in (*others, "shadow", "scored", "owner", "decisions"):
        environ[f"FRESHET_KAFKA__TOPICS__{topic.upper()}"] = f"{name}.{topic}"
    return environ


def settings_for(bootstrap: str, redis_url: str, folder: Path, name: str, **over: str) -> Settings:
    return load(environ=environ_for(bootstrap, redis_url, folder, name) | over).settings


def die_at(crash_point: str, environ: dict[str, str]) -> None:
    """Run a worker in a process of its own until it is killed there."""
    environ = os.environ | environ | {VARIABLE: crash_point}
    child = subprocess.run([sys.executable, "-m", "freshet", "worker"], env=environ, timeout=240)
    assert child.returncode == -signal.SIGKILL, f"{crash_point} was not passed"


@dataclass
class Shop:
    """Sells through the real fold: every item sells `hour % 5` times two units an hour, in
    partition 0.
    """

    settings: Settings
    items: int = 6
    sold: dict[tuple[str, int], int] = field(default_factory=dict)
    offset: int = 0
    hour: int = 0
    writer: PartitionWindows | None = None
    factor: int = 1

    def sell(self, hours: int) -> None:
        """Go on for some hours; the last event is right at the start of the hour after, so that all
        are complete.
        """
        values = []
        for hour in range(self.hour, self.hour + hours):
            for number in range(self.items):
                quantity = self.factor * (1 + (hour + number) % 5)
                item = f"s{number}|north"
                self.sold[item, START_MS + hour * HOUR_MS] = quantity
                within_ms = HOUR_MS * (number + 1) // (self.items + 1)
                at_ms = START_MS + hour * HOUR_MS + within_ms
                values.append(self._order(f"s{number}", at_ms, quantity))
        self.hour += hours
        values.append(self._order("clock", START_MS + self.hour * HOUR_MS, 1))
        self._fold(values)

    @property
    def now_ms(self) -> int:
        return START_MS + self.hour * HOUR_MS

    def _order(self, sku: str, event_time_ms: int, quantity: int) -> bytes:
        event: dict[str, Any] = {
            "event_id": f"{sku}-{event_time_ms}",
            "sku": sku,
            "region": "north",
        }
        return json.dumps(
            {**event, "quantity": quantity, "unit_price": 1, "event_time": event_time_ms}
        ).encode()

    def _fold(self, values: list[bytes]) -> None:
        if self.writer is None:
            keep_tables(self.settings)
            store = WindowStore(connect(self.settings.redis), 0)
            topic = self.settings.kafka.topics.orders
            self.writer = PartitionWindows.claim(store, "orders", topic, 0, self.settings)
            self.writer.start_at(0)
        times = np.array([json.loads(value)["event_time"] for value in values], np.int64)
        offsets = np.arange(self.offset, self.offset + len(values), dtype=np.int64)
        self.offset += len(values)
        fold = self.writer.fold(RawBatch(values, [b"k"] * len(values), times, offsets, self.offset))
        assert not fold.dead and not fold.too_late
        assert self.writer.apply(fold) == Answer.APPLIED


@pytest.fixture
def settings(
    mock_broker: str, redis_server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Settings:
    made = settings_for(mock_broker, redis_server, tmp_path, request.node.name)
    save_random_weights(Path(made.worker.weights), seed=0)
    ensure_topics(made, live=False)
    return made


@contextmanager
def running(settings: Settings) -> Iterator[Worker]:
    worker = open_worker(settings)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(120)
        worker.close()
        assert not thread.is_alive()


def read(settings: Settings, topic: str, kind: type[R]) -> list[R]:
    with TableReader(settings, [topic]) as reader:
        return [
            decode(kind, record.value)
            for record in reader.read_to_end()
            if record.value is not None
        ]


def eventually(look: Callable[[], T], good: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        found = look()
        if good(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def forecasts(settings: Settings) -> list[Forecast]:
    return read(settings, settings.kafka.topics.forecasts, Forecast)


def scores(settings: Settings) -> list[Score]:
    return read(settings, settings.kafka.topics.scores, Score)


def at_cutoff(settings: Settings, cutoff_ms: int) -> list[Forecast]:
    return [forecast for forecast in forecasts(settings) if forecast.cutoff_ms == cutoff_ms]


def test_every_item_is_forecast_at_the_newest_cutoff_and_new_ones_say_so(
    settings: Settings,
) -> None:
    shop = Shop(settings)
    shop.sell(48)
    with Publisher(settings) as publisher:
        lamp = CatalogEntry(sku="new", title="A red lamp", category="lamps", unit_price=20.0)
        publisher.produce(
            settings.kafka.topics.catalog, encode(lamp), key="new", timestamp_ms=START_MS
        )
    keep_tables(settings)
    with running(settings) as worker:
        found = eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 8)
        eventually(worker.ready, lambda amiss: amiss is None)
    by_item = {forecast.item_id: forecast for forecast in found}
    assert sorted(by_item) == [
        "clock|north",
        "new|north",
        *(f"s{number}|north" for number in range(6)),
    ]
    new, sold = by_item["new|north"], by_item["s0|north"]
    # Nobody estimates here what its siblings sell.
    assert (new.status, new.quantiles, sold.status) == ("warming_up", [], "ok")
    one = by_item["s3|north"]
    assert one.quantile_levels == list(WIRE_LEVELS) and np.shape(one.quantiles) == (8, 9)
    topics = settings.kafka.topics
    assert one.offsets[f"{topics.orders}:0"] == shop.offset
    told = {name: at for name, at in one.offsets.items() if name.startswith(f"{topics.catalog}:")}
    assert sum(told.values()) == 1, "one record of the catalogue, in whichever partition"
    assert (np.diff(one.quantiles, axis=1) >= 0).all() and np.min(one.quantiles) >= 0
    assert len({forecast.forecast_id for forecast in found}) == len(found)
    latest = read(settings, settings.kafka.topics.forecasts_latest, Forecast)
    assert {forecast.forecast_id for forecast in latest} == {
        forecast.forecast_id for forecast in found
    }


def test_hours_end_in_the_days_of_their_midnight_also_where_a_worker_died_in_between(
    mock_broker: str, redis_server: str, tmp_path: Path
) -> None:
    hours = {"resolution_ms": HOUR_MS, "prediction_length": 48}
    days = {"resolution_ms": DAY_MS, "prediction_length": 3}
    common = {"context_length": 64, "season_length": 7, "score_steps": [1]}
    both = json.dumps([common | hours, common | days])
    environ = environ_for(mock_broker, redis_server, tmp_path, "midnight")
    environ = {name: value for name, value in environ.items() if name not in ONE_RESOLUTION}
    environ |= {"FRESHET_WORKER__RESOLUTIONS": both}
    settings = load(environ=environ).settings
    save_random_weights(Path(settings.worker.weights), seed=0)
    ensure_topics(settings, live=False)
    shop = Shop(settings)
    midnight_ms = START_MS // DAY_MS * DAY_MS + 5 * DAY_MS
    shop.sell((midnight_ms - START_MS) // HOUR_MS)
    die_at("after_forecasts", environ)
    assert {made.resolution_ms for made in forecasts(settings)} == {DAY_MS}

    with running(settings):
        found = eventually(
            lambda: at_cutoff(settings, midnight_ms), lambda made: len(made) >= 2 * shop.items
        )
    said = {made.item_id: made for made in found if made.resolution_ms == DAY_MS}
    apart = units = 0.0
    for made in found:
        if made.resolution_ms == HOUR_MS:
            day = said.pop(made.item_id)
            assert made.adjustments.sums_from == day.forecast_id
            assert made.cumulative is not None and day.cumulative is not None
            middle = made.quantile_levels.index(0.5)
            of_hours = dict(zip(made.cumulative.steps, made.cumulative.quantiles, strict=True))
            for step, expected in ((24, day.quantiles[0]), (48, day.cumulative.quantiles[1])):
                apart += abs(of_hours[step][middle] - expected[middle])
                units += expected[middle]
    assert not said and apart <= 0.03 * units


def test_a_worker_that_falls_behind_forecasts_the_newest_cutoff_only_and_counts_the_rest(
    settings: Settings,
) -> None:
    shop = Shop(settings)
    shop.sell(30)
    with running(settings) as worker:
        eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        shop.sell(5)
        eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        eventually(worker.metrics.coalesced._value.get, lambda count: count >= 4)
    assert worker.metrics.coalesced._value.get() == 4
    assert {forecast.cutoff_ms for forecast in forecasts(settings)} == {
        shop.now_ms - 5 * HOUR_MS,
        shop.now_ms,
    }


@pytest.mark.slow
def test_final_buckets_are_scored_once_with_what_was_really_sold_through_restarts(
    settings: Settings,
) -> None:
    shop = Shop(settings)
    shop.sell(30)
    for _ in range(3):
        with running(settings):
            eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        shop.sell(2)
    with running(settings) as worker:
        # Cutoffs 30, 32, 34 and 36, final up to 35: hour 30 at step 1, hours 32 and 34 at steps 1
        # and 3.
        found = eventually(
            lambda: scores(settings), lambda found: sum(len(score.steps) for score in found) >= 35
        )
        eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        eventually(worker.ready, lambda amiss: amiss is None)
    found = scores(settings)
    steps = Counter((step.forecast_id, step.step) for score in found for step in score.steps)
    assert set(steps.values()) == {1} and len(steps) == 35
    assert {(score.bucket_start_ms - START_MS) // HOUR_MS for score in found} == {30, 32, 34}
    for score in found:
        if not score.item_id.startswith("clock"):
            assert score.actual == shop.sold[score.item_id, score.bucket_start_ms]
    # Nothing was issued twice by the restarts.
    issued = Counter((forecast.item_id, forecast.cutoff_ms) for forecast in forecasts(settings))
    assert set(issued.values()) == {1}


@pytest.fixture
def real_if_possible(request: pytest.FixtureRequest) -> str:
    """A real Kafka where there is one, else the mock."""
    name = "kafka_broker" if os.environ.get("KAFKA_HOME") else "mock_broker"
    return str(request.getfixturevalue(name))


@pytest.mark.slow
def test_a_worker_killed_at_any_crash_point_leaves_nothing_out_and_makes_nothing_twice(
    real_if_possible: str, redis_server: str, tmp_path: Path
) -> None:
    at = (real_if_possible, redis_server, tmp_path, "killed")
    settings, environ = settings_for(*at), environ_for(*at)
    save_random_weights(Path(settings.worker.weights), seed=0)
    ensure_topics(settings, live=True)
    shop = Shop(settings)
    shop.sell(30)
    die_at("before_forecasts", environ)
    assert forecasts(settings) == []
    die_at("after_forecasts", environ)
    assert len(at_cutoff(settings, shop.now_ms)) == 7
    shop.sell(2)
    die_at("before_scores", environ)
    assert len(at_cutoff(settings, shop.now_ms)) == 7 and scores(settings) == []
    die_at("after_scores", environ)
    assert len(scores(settings)) == 7
    shop.sell(2)
    with running(settings):
        eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        # Hour 30 at step 1 is scored; hour 32 is due at step 3 of one cutoff and 1 of another.
        eventually(lambda: scores(settings), lambda found: len(found) >= 14)
    steps = Counter(
        (step.forecast_id, step.step) for score in scores(settings) for step in score.steps
    )
    assert set(steps.values()) == {1} and len(steps) == 21
    issued = Counter((forecast.item_id, forecast.cutoff_ms) for forecast in forecasts(settings))
    assert set(issued.values()) == {1} and len(issued) == 21


def test_announced_weights_are_swapped_in_and_no_cutoff_mixes_two_versions(
    mock_broker: str, redis_server: str, tmp_path: Path
) -> None:
    settings = settings_for(mock_broker, redis_server, tmp_path, "swap", FRESHET_WORKER__WEIGHTS="")
    ensure_topics(settings, live=False)
    registry = Registry(settings.learn.registry)
    first = registry.add(
        lambda folder: save_random_weights(folder, 1) and None, parent="base", created_at_ms=1
    )
    second = registry.add(
        lambda folder: save_random_weights(folder, 2) and None, parent="base", created_at_ms=2
    )
    registry.serve(Assignment(first.version))
    shop = Shop(settings)
    shop.sell(30)
    watch = Stopwatch()
    with running(settings), Publisher(settings) as publisher:
        eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        event = announcement(registry, "promoted", second.version, 9, Assignment(second.version))
        publisher.produce(settings.kafka.topics.models, encode(event), key="promoted:2")
        broken = ModelEvent(
            kind="promoted", version="v0009-20260101T000000Z-00000000", at_ms=10, sha256="00"
        )
        publisher.flush()
        swapped = eventually(
            lambda: [
                e
                for e in read(settings, settings.kafka.topics.models, ModelEvent)
                if e.kind == "swapped"
            ],
            bool,
        )
        publisher.produce(settings.kafka.topics.models, encode(broken), key="promoted:9")
        publisher.flush()
        failed = eventually(
            lambda: [
                e
                for e in read(settings, settings.kafka.topics.models, ModelEvent)
                if e.kind == "swap_failed"
            ],
            bool,
        )
        for _ in range(3):
            shop.sell(1)
            eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
    assert swapped[0].version == second.version and swapped[0].parent == first.version
    assert swapped[0].pause_ms is not None
    assert swapped[0].pause_ms < 50 + 1_000 * watch.starved_s()
    assert "v0009" in failed[0].reason
    versions: dict[int, set[str]] = {}
    for forecast in forecasts(settings):
        versions.setdefault(forecast.cutoff_ms, set()).add(forecast.weights_version)
    assert all(len(found) == 1 for found in versions.values())
    assert set().union(*versions.values()) == {first.version, second.version}


def test_two_versions_serve_whom_was_announced_and_a_worker_that_comes_later_serves_alike(
    mock_broker: str, redis_server: str, tmp_path: Path
) -> None:
    over = {"FRESHET_WORKER__WEIGHTS": "", "FRESHET_DRIFT__SEGMENT_BY": "sku"}
    settings = settings_for(mock_broker, redis_server, tmp_path, "two", **over)
    ensure_topics(settings, live=False)
    registry = Registry(settings.learn.registry)
    first, second = (
        registry.add(
            lambda folder, seed=seed: save_random_weights(folder, seed) and None,
            parent="base",
            created_at_ms=seed,
        ).version
        for seed in (1, 2)
    )
    registry.serve(Assignment(first))
    shop = Shop(settings)
    shop.sell(30)

    def served() -> dict[str, str]:
        found = eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 7)
        return {one.sku: one.weights_version for one in found}

    with running(settings), Publisher(settings) as publisher:
        assert set(served().values()) == {first}
        two = registry.serve(Assignment(first, second, ("s0", "s4")))
        event = announcement(registry, "promoted", second, 9, two)
        publisher.produce(settings.kafka.topics.models, encode(event), key=f"promoted:{second}")
        publisher.flush()
        eventually(
            lambda: read(settings, settings.kafka.topics.models, ModelEvent),
            lambda events: [e.version for e in events if e.kind == "swapped"] == [second],
        )
        shop.sell(1)
        wanted = {f"s{number}": first for number in range(6)} | {"clock": first}
        wanted |= {"s0": second, "s4": second}
        assert served() == wanted
    shop.sell(1)
    with running(settings):
        assert served() == wanted
        shop.sell(1)
        assert served() == wanted
        eventually(lambda: scores(settings), lambda found: len(found) >= 6)
    made_by = {
        (score.item_id.partition("|")[0], step.weights_version)
        for score in scores(settings)
        for step in score.steps
        if step.weights_version == second
    }
    assert made_by <= {("s0", second), ("s4", second)}


def test_pinned_weights_that_were_altered_stop_the_worker_at_the_start(
    settings: Settings,
) -> None:
    weights = Path(settings.worker.weights) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        open_worker(settings)


def test_without_redis_a_worker_does_not_start(settings: Settings) -> None:
    away = settings.model_copy(
        update={
            "redis": settings.redis.model_copy(update={"url": SecretStr("redis://127.0.0.1:1/0")})
        }
    )
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1"):
        open_worker(away)
