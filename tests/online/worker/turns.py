"""A worker's loop with servers made up, and a journal of what it did to them, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry

from freshet.model.batch import Batch
from freshet.model.network import QUANTILE_LEVELS
from freshet.online.worker import loop
from freshet.online.worker.loop import Worker
from freshet.online.worker.metrics import WorkerMetrics
from freshet.online.worker.shard import OwnedShards
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import decode
from freshet.stream.config import Settings
from freshet.stream.health import Health, Watch
from freshet.stream.kafka import Outgoing
from freshet.stream.process import Stop
from freshet.stream.read.reader import Delta
from freshet.stream.schemas import Forecast, ModelEvent, Score
from freshet.stream.units import HOUR_MS
from tests.online.worker.windows import FIRST, UNITS, FakeReader

HOURS = 30
CUTOFF_MS = (FIRST + HOURS) * HOUR_MS
SETTINGS = Settings.model_validate(
    {"worker": {"context_length": 30, "prediction_length": 4, "score_steps": [1, 4, 24]}}
)


class FakeForecaster:
    """The same forecast for every row and step."""

    quantile_levels, device, dtype = tuple(QUANTILE_LEVELS), torch.device("cpu"), torch.float32

    def forecast(self, batch: Batch) -> torch.Tensor:
        row_Q = 100.0 + 10.0 * torch.special.ndtri(torch.tensor(QUANTILE_LEVELS))
        return row_Q.expand(len(batch), batch.prediction_length, -1).clone()


@dataclass
class LiveReader(FakeReader):
    """A reader whose newest cutoff is its head, and whose `lost` inputs are behind."""

    lost: tuple[Any, ...] = ()
    told: int = 0

    def live_cutoff_ms(self) -> int:
        return self.head * HOUR_MS

    def final_ms(self) -> int:
        return (self.head - 2) * HOUR_MS

    def offsets(self) -> dict[str, int]:
        return {"orders:0": 7}

    def refresh(self) -> Delta:
        changed = super().refresh()
        new, self.told = self.item_ids[self.told :], self.num_items
        return Delta(changed.changed_rows, changed.changed_buckets_ms, new, True, self.lost)


def reader_of(*, lost: tuple[Any, ...] = ()) -> LiveReader:
    reader = LiveReader(reached=FIRST + HOURS, clicked=FIRST + HOURS, lost=lost)
    for hour in range(HOURS):
        reader.add("a|n", FIRST + hour, UNITS, 3_000)
    reader.add("young|n", FIRST + HOURS - 1, UNITS, 1_000)
    reader.head = FIRST + HOURS
    return reader


def owned_of(
    reader: LiveReader, shop: ShopTables | None = None, settings: Settings = SETTINGS
) -> OwnedShards:
    membership: Any = SimpleNamespace(version=1, owns=lambda item_id: not item_id.startswith("x"))
    owned = OwnedShards(settings, reader, shop or ShopTables(), membership, torch.device("cpu"))  # type: ignore[arg-type]
    owned.contexts.refresh()
    owned.cold.saw(reader.item_ids)
    return owned


@dataclass
class FakeDelivery:
    """Keeps what was acknowledged; `before` is called with each lot and may refuse it."""

    journal: list[str]
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)
    lots: list[list[tuple[str, str]]] = field(default_factory=list)
    before: Callable[[list[tuple[str, str, bytes]]], bool] = lambda _: True
    closed: bool = False

    def deliver(self, records: list[Outgoing]) -> bool:
        outgoing = [
            (record.topic, (record.key or b"").decode(), record.value or b"") for record in records
        ]
        topics = "+".join(dict.fromkeys(topic.split(".")[1] for topic, _, _ in outgoing))
        self.journal.append(f"deliver {topics}")
        if not self.before(outgoing):
            return False
        self.sent += outgoing
        self.lots.append([(topic, key) for topic, key, _ in outgoing])
        return True

    def close(self) -> None:
        self.closed = True


class Turns:
    """A worker of some shards whose turns are taken one by one.

    Attributes:
        journal: What was asked of the servers, in order.
        noticed: Whether the group brings a notice.
        swap: What the switch reports next.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        owned: OwnedShards,
        *,
        settings: Settings = SETTINGS,
        fallback: str = "",
    ) -> None:
        self.owned, self.stop, self.registry = owned, Stop(), CollectorRegistry()
        self.journal: list[str] = []
        self.noticed, self.now_ms, self.monotonic_s = True, CUTOFF_MS + 5, 1_000.0
        self.swap: ModelEvent | None = None
        metrics = WorkerMetrics(self.registry)
        self.weights = SimpleNamespace(
            version="v3", sha256="ab", forecaster=FakeForecaster(), fallback=fallback
        )
        self.delivery = FakeDelivery(self.journal)
        self.switch = SimpleNamespace(current=self.weights, settle=self._settle)
        self.side_inputs = SimpleNamespace(
            shop=owned.shop, caught_up=True, poll=lambda ms: self.journal.append(f"inputs {ms}")
        )
        self.membership = SimpleNamespace(version=1, shards={0}, poll=self._poll)
        self.waits_s: list[float] = []
        waits: Any = SimpleNamespace(wait=self.waits_s.append)
        self.health = Health(
            waits,
            "reading the catalogue and joining the worker group",
            standing=lambda: self.weights.fallback,
            counted=lambda what: metrics.troubles.labels(what).inc(),
        )
        parts: Any = SimpleNamespace(
            redis="redis",
            clock=SimpleNamespace(now_ms=lambda: self.now_ms, speed=1.0),
            switch=self.switch,
            side_inputs=self.side_inputs,
            membership=self.membership,
            delivery=self.delivery,
            health=self.health,
            watch=Watch(self.health, {}),
        )
        monkeypatch.setattr(loop, "take_over", self._take_over)
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: self.monotonic_s))
        self.taken: list[tuple[Any, ...]] = []
        self.worker = Worker(settings, parts, metrics, self.stop)

    def turn(self) -> list[str]:
        """One turn; what it did."""
        self.journal.clear()
        self.worker._turn()
        return list(self.journal)

    def forecasts(self) -> list[Forecast]:
        topic = SETTINGS.kafka.topics.forecasts
        return [decode(Forecast, value) for name, _, value in self.delivery.sent if name == topic]

    def scores(self) -> list[Score]:
        topic = SETTINGS.kafka.topics.scores
        return [decode(Score, value) for name, _, value in self.delivery.sent if name == topic]

    def measured(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"freshet_worker_{name}", labels)

    def _poll(self, max_wait_ms: int) -> bool:
        self.journal.append(f"group {max_wait_ms}")
        return self.noticed

    def _settle(self, now_ms: int) -> ModelEvent | None:
        self.journal.append(f"settle {now_ms - CUTOFF_MS}")
        event, self.swap = self.swap, None
        return event

    def _take_over(self, *args: Any, **named: Any) -> OwnedShards:
        self.taken.append((*args, named))
        self.owned.membership_version = self.membership.version
        return self.owned
