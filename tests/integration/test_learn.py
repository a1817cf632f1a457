"""`freshet learn` as a process on Redis and a broker, killed on the way and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from freshet.model.network import FreshetNetwork
from freshet.model.weights import save_weights
from freshet.online.learn.adopt import adopt
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, Registry
from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings, Topics, load
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.kafka import Publisher, TableReader
from freshet.stream.schemas import CatalogEntry, ModelEvent, RetrainRequest
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.integration.side import keep_tables
from tests.online.learn.learning import CONTEXT, STEPS, small_network

DEADLINE_S = 240.0
HOURS, SKUS = 220, 12
# The last six o'clock of UTC: how many local days are whole, and how much of the challenger's gain
# has been seen after three days, must not depend on the hour at which the test runs.
NOW_MS = (time.time_ns() // 1_000_000 - 6 * HOUR_MS) // DAY_MS * DAY_MS + 6 * HOUR_MS
# Hours are learnt from; days, which in Berlin are not UTC's, and minutes guard.
SERVED = [
    {
        "resolution_ms": width_ms,
        "prediction_length": steps,
        "season_length": 2,
        "score_steps": [1],
        "flash_sales_only": width_ms == MINUTE_MS,
    }
    for width_ms, steps in ((MINUTE_MS, 120), (HOUR_MS, STEPS), (DAY_MS, 5))
]
RUN = (
    "from freshet.stream.config import load; from freshet.online.learn.process import run; "
    "run(load().settings)"
)


def orders(hours: range = range(HOURS)) -> RawBatch:
    """Twelve items with a strong day, a line for each item and hour with sales, up to now."""
    rng = np.random.default_rng(0)
    start_ms = (NOW_MS // HOUR_MS - HOURS) * HOUR_MS
    values: list[bytes | None] = []
    times = []
    for hour in range(HOURS):
        at_ms = start_ms + hour * HOUR_MS
        rate = 8.0 * (1.0 + 0.9 * np.sin(2 * np.pi * hour / 24.0))
        for sku, units in enumerate(rng.poisson(rate * (1 + np.arange(SKUS) / SKUS))):
            if units and hour in hours:
                line = {
                    "sku": f"s{sku}",
                    "region": "north",
                    "quantity": int(units),
                    "unit_price": 2.0,
                }
                values.append(
                    json.dumps({"event_id": f"{hour}-{sku}", "event_time": at_ms, **line}).encode()
                )
                times.append(at_ms)
    offsets = np.arange(len(values), dtype=np.int64)
    return RawBatch(values, [None] * len(values), np.array(times, np.int64), offsets, len(values))


class Process:
    """One `freshet learn` with topics, windows and a registry of its own; untaught."""

    def __init__(self, broker: str, redis: str, folder: Path) -> None:
        tag = uuid.uuid4().hex[:8]
        self.environ = {
            "FRESHET_KAFKA__BOOTSTRAP_SERVERS": broker,
            "FRESHET_KAFKA__GROUP_PREFIX": tag,
            "FRESHET_REDIS__URL": redis,
            "FRESHET_WORKER__CONTEXT_LENGTH": str(CONTEXT),
            "FRESHET_WORKER__RESOLUTIONS": json.dumps(SERVED),
            "FRESHET_CALENDAR__TIME_ZONE": "Europe/Berlin",
            "FRESHET_LEARN__REGISTRY": str(folder / "registry"),
            "FRESHET_LEARN__STEPS": "60",
            "FRESHET_LEARN__LEARNING_RATE": "0.003",
            "FRESHET_LEARN__THREADS": "1",
            **{
                f"FRESHET_KAFKA__TOPICS__{name.upper()}": f"{tag}.{name}"
                for name in Topics.model_fields
            },
        }
        self.settings: Settings = load(environ=self.environ).settings
        self.registry = Registry(folder / "registry")
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self, hours: range = range(HOURS)) -> str:
        """Windows in Redis and a champion in the registry; returns the champion."""
        store = WindowStore(connect(self.settings.redis), self.settings.redis.generation)
        topics = self.settings.kafka.topics
        self.windows = PartitionWindows.claim(store, "orders", topics.orders, 0, self.settings)
        self.windows.start_at(0)
        self.sell(orders(hours))
        with Publisher(self.settings) as publisher:
            for sku in range(SKUS):
                entry = CatalogEntry(
                    sku=f"s{sku}", title=f"thing {sku}", category="things", unit_price=2.0
                )
                publisher.produce(topics.catalog, encode(entry), key=entry.sku)
        keep_tables(self.settings)
        untaught = self.registry.add(
            lambda folder: save_weights(small_network(), folder, card="# untaught\n") and None,  # type: ignore[arg-type]
            parent=BASE,
            created_at_ms=NOW_MS,
        )
        return str(self.registry.serve(Assignment(untaught.version)))

    def sell(self, lines: RawBatch) -> None:
        assert self.windows.apply(self.windows.fold(lines)) is Answer.APPLIED

    def ask(self, request_id: str) -> None:
        request = RetrainRequest(request_id=request_id, requested_at_ms=NOW_MS, reason="manual")
        with Publisher(self.settings) as publisher:
            publisher.produce(self.settings.kafka.topics.retrain, encode(request), key=request_id)

    def start(self, failpoint: str = "") -> subprocess.Popen[bytes]:
        environ = {**os.environ, **self.environ, "OMP_NUM_THREADS": "1"}
        if failpoint:
            environ["FRESHET_FAILPOINT"] = failpoint
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN], env=environ, cwd=Path(__file__).parents[2]
        )
        return self.process

    def events_until(self, kind: str, count: int = 1) -> list[ModelEvent]:
        """The models topic up to the first event of a kind, or a later one."""
        events: list[ModelEvent] = []
        deadline = time.monotonic() + DEADLINE_S
        with TableReader(self.settings, [self.settings.kafka.topics.models]) as reader:
            while sum(event.kind == kind for event in events) < count:
                assert time.monotonic() < deadline, [event.kind for event in events]
                assert self.process is not None and self.process.poll() is None, "learn ended"
                events += [decode(ModelEvent, record.value or b"") for record in reader.poll(100)]
        return sorted(events, key=lambda event: event.at_ms)


@pytest.fixture
def learn(mock_broker: str, redis_server: str, tmp_path: Path) -> Iterator[Process]:
    process = Process(mock_broker, redis_server, tmp_path)
    yield process
    if process.process is not None and process.process.poll() is None:
        process.process.kill()
        process.process.wait()


def test_a_challenger_on_trial_goes_on_after_a_kill_and_is_not_trained_again(
    learn: Process,
) -> None:
    """Killed when the first day is not over, it takes the looks of three more days."""
    champion = learn.prepare(range(HOURS - 72))
    learn.ask("r1")
    assert learn.start("learn_trial_told").wait(DEADLINE_S) == -signal.SIGKILL
    first = orders(range(HOURS - 72))
    rest = orders(range(HOURS - 72, HOURS))
    after = len(first.values)
    learn.sell(replace(rest, offsets=rest.offsets + after, next_offset=after + len(rest.values)))
    process = learn.start()
    events = learn.events_until("trial", count=2)
    assert [event.kind for event in events] == ["training", "trial", "trial"]
    looked = events[-1]
    assert (looked.request_id, looked.parent) == ("r1", champion)
    assert looked.gate["days"] == 3.0, "all looks in their order, the last one told"
    # Four local days and two hours of minutes, of twelve items, were read for the guards.
    gate = looked.gate
    assert (gate["guard_86400000.blocks"], gate["guard_86400000.few"]) == (4, True)
    assert (gate["guard_60000.blocks"], gate["guard_60000.few"]) == (6, False)
    for guard in ("guard_86400000", "guard_60000"):
        assert (gate[f"{guard}.ok"], gate[f"{guard}.items"]) == (True, SKUS)
    assert str(learn.registry.champion()) == champion
    assert [manifest.parent for manifest in learn.registry.list()] == [BASE, champion]
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def test_sigterm_during_training_ends_at_once_and_the_next_process_answers(learn: Process) -> None:
    learn.prepare()
    learn.environ["FRESHET_LEARN__STEPS"] = "2000"
    process = learn.start()
    learn.ask("r1")
    learn.events_until("training")
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    learn.environ["FRESHET_LEARN__STEPS"] = "60"
    learn.start()
    events = learn.events_until("trial")
    assert [(event.kind, event.request_id) for event in events] == [
        ("training", "r1"),
        ("training", "r1"),
        ("trial", "r1"),
    ]


def wild_network() -> FreshetNetwork:
    """One whose forecasts are far from anything that was ever sold."""
    network = small_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)
    return network


def test_weights_from_elsewhere_are_judged_on_the_windows_in_redis(
    learn: Process, tmp_path: Path
) -> None:
    untaught = learn.prepare()
    settings = learn.settings
    save_weights(wild_network(), tmp_path / "wild", card="# wild\n")
    refused = adopt(settings, tmp_path / "wild")
    assert (refused.version, refused.parent) == ("", untaught)
    assert "gain_low" in refused.reason and len(learn.registry.list()) == 1

    wild = learn.registry.add(
        lambda folder: save_weights(wild_network(), folder, card="# wild\n") and None,  # type: ignore[arg-type]
        parent=untaught,
        created_at_ms=NOW_MS,
    ).version
    learn.registry.serve(Assignment(wild))
    found = adopt(settings, learn.registry.path(untaught))
    assert (found.parent, found.reason) == (wild, "")
    manifest = learn.registry.verify(found.version)
    assert manifest.offsets == {f"{settings.kafka.topics.orders}:0": len(orders().values)}
    assert str(learn.registry.champion()) == wild, "a person lets it serve"
