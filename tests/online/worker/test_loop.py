"""The loop and its shards with servers made up: what is forecast, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from prometheus_client import CollectorRegistry

from freshet.model.batch import Batch
from freshet.model.network import QUANTILE_LEVELS
from freshet.online.worker import loop, shard
from freshet.online.worker.health import Health
from freshet.online.worker.loop import Worker
from freshet.online.worker.metrics import WorkerMetrics
from freshet.online.worker.publish import issued_of
from freshet.online.worker.shard import SPARE_BUCKETS, OwnedShards
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings
from freshet.stream.process import Stop
from freshet.stream.read.reader import Delta
from freshet.stream.schemas import CatalogEntry, Forecast, Score
from freshet.stream.units import HOUR_MS
from tests.online.worker.windows import FIRST, UNITS, FakeReader, tell

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

    def live_cutoff_ms(self) -> int:
        return self.head * HOUR_MS

    def final_ms(self) -> int:
        return (self.head - 2) * HOUR_MS

    def offsets(self) -> dict[str, int]:
        return {"orders:0": 7}

    def refresh(self) -> Delta:
        changed = super().refresh()
        return Delta(changed.changed_rows, changed.changed_buckets_ms, [], True, self.lost)


@dataclass
class FakeDelivery:
    """Keeps what was sent by topic, and stops the worker once forecasts are out."""

    stop: Stop
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)

    def deliver(self, outgoing: list[tuple[str, str, bytes]]) -> bool:
        self.sent += outgoing
        self.stop.set()
        return True


def reader_of(*, lost: tuple[Any, ...] = ()) -> LiveReader:
    reader = LiveReader(reached=FIRST + HOURS, clicked=FIRST + HOURS, lost=lost)
    for hour in range(HOURS):
        reader.add("a|n", FIRST + hour, UNITS, 3_000)
    reader.add("young|n", FIRST + HOURS - 1, UNITS, 1_000)
    reader.head = FIRST + HOURS
    return reader


def owned_of(reader: LiveReader, shop: ShopTables | None = None) -> OwnedShards:
    membership: Any = SimpleNamespace(version=1, owns=lambda item_id: not item_id.startswith("x"))
    owned = OwnedShards(SETTINGS, reader, shop or ShopTables(), membership, torch.device("cpu"))  # type: ignore[arg-type]
    owned.contexts.refresh()
    owned.cold.saw(reader.item_ids)
    return owned


def forecasts_of(
    monkeypatch: pytest.MonkeyPatch, owned: OwnedShards, *, fallback: str = ""
) -> dict[str, Forecast]:
    """One round of a worker of these shards."""
    stop, metrics = Stop(), WorkerMetrics(CollectorRegistry())
    weights = SimpleNamespace(
        version="v3", sha256="ab", forecaster=FakeForecaster(), fallback=fallback
    )
    delivery = FakeDelivery(stop)
    parts: Any = SimpleNamespace(
        redis=None,
        clock=SimpleNamespace(now_ms=lambda: CUTOFF_MS + 5),
        switch=SimpleNamespace(current=weights, settle=lambda _: None),
        side_inputs=SimpleNamespace(shop=owned.shop, caught_up=True, poll=lambda _: 0),
        membership=SimpleNamespace(version=1, shards={0}, poll=lambda _: True),
        delivery=delivery,
        health=Health(stop, metrics, lambda: fallback),
    )
    monkeypatch.setattr(loop, "take_over", lambda *_, **__: owned)
    Worker(SETTINGS, parts, metrics, stop).run()
    topic = SETTINGS.kafka.topics.forecasts
    found = [decode(Forecast, value) for name, _, value in delivery.sent if name == topic]
    return {forecast.item_id: forecast for forecast in found}


@pytest.mark.parametrize(
    ("fallback", "lost", "status"),
    [
        ("", (), "ok"),
        ("weights v4 could not be loaded", (), "degraded"),
        ("", (("orders", 0),), "degraded"),
    ],
)
def test_forecasts_of_fallback_weights_or_of_windows_that_lost_something_are_not_called_ok(
    monkeypatch: pytest.MonkeyPatch, fallback: str, lost: tuple[Any, ...], status: str
) -> None:
    owned = owned_of(reader_of(lost=lost))
    found = forecasts_of(monkeypatch, owned, fallback=fallback)
    statuses = {item_id: forecast.status for item_id, forecast in found.items()}
    assert statuses == {"a|n": status, "young|n": "cold_start"}


def test_a_round_forecasts_windows_and_cold_items_at_one_cutoff_by_the_weights_in_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = ShopTables()
    for sku in ("new", "x"):
        tell(shop, "catalog", CatalogEntry(sku=sku, title="Lamp"))
    found = forecasts_of(monkeypatch, owned_of(reader_of(), shop))
    assert set(found) == {"a|n", "young|n", "new|n"}, "x belongs to others"
    for forecast in found.values():
        assert (forecast.cutoff_ms, forecast.issued_at_ms) == (CUTOFF_MS, CUTOFF_MS + 5)
        assert (forecast.weights_version, forecast.weights_sha256) == ("v3", "ab")
        assert forecast.offsets == {"orders:0": 7} and len(forecast.quantiles) == 4


def test_items_with_a_forecast_of_the_cutoff_are_not_forecast_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="new"))
    made = forecasts_of(monkeypatch, owned_of(reader_of(), shop))
    owned = owned_of(reader_of(), shop)
    assert owned.unforecast(CUTOFF_MS) == ([0, 1], ["new|n"])
    assert owned.pending.score_steps == (1, 4), "24 lies beyond the horizon"
    owned.pending.add(issued_of([made["a|n"], made["new|n"]], (1, 4)))
    assert owned.unforecast(CUTOFF_MS) == ([1], [])
    assert owned.unforecast(CUTOFF_MS + HOUR_MS) == ([0, 1], ["new|n"])


def recovered_of(
    monkeypatch: pytest.MonkeyPatch, forecasts: list[Forecast], scores: list[Score]
) -> OwnedShards:
    topics = SETTINGS.kafka.topics
    values: dict[str, list[Any]] = {topics.forecasts: forecasts, topics.scores: scores}

    class FakeTail(list[tuple[int, bytes]]):
        cut: frozenset[int] = frozenset()

        def __init__(self, _: Settings, topic: str) -> None:
            super().__init__((0, encode(record)) for record in values.get(topic, []))

    monkeypatch.setattr(shard, "Tail", FakeTail)
    owned = owned_of(reader_of())
    membership: Any = SimpleNamespace(owns=lambda item_id: item_id != "young|n")
    owned.recover(SETTINGS, membership, 0)
    return owned


def test_after_a_restart_the_last_round_is_looked_at_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = list(forecasts_of(monkeypatch, owned_of(reader_of())).values())
    owned = recovered_of(monkeypatch, made, [])
    assert owned.previous_ms == CUTOFF_MS - HOUR_MS
    assert owned.unforecast(CUTOFF_MS) == ([1], []), "young belongs to others"
    assert recovered_of(monkeypatch, [], []).previous_ms is None


def test_forecasts_whose_buckets_are_no_longer_held_do_not_wait_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (made, *_) = forecasts_of(monkeypatch, owned_of(reader_of())).values()
    # Final is two hours before the head; step 4 is the furthest that is scored.
    oldest_ms = CUTOFF_MS - 2 * HOUR_MS - (4 + SPARE_BUCKETS) * HOUR_MS
    aged = [
        msgspec.structs.replace(
            made, forecast_id=f"f{hours}", cutoff_ms=oldest_ms + hours * HOUR_MS
        )
        for hours in (-1, 0)
    ]
    assert recovered_of(monkeypatch, aged, []).pending.cutoffs == [oldest_ms]
