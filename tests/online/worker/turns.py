"""A worker's loop with servers made up, and a journal of what it did to them, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from prometheus_client import CollectorRegistry

from freshet.model.batch import Batch
from freshet.model.effects.shared import SharedEffects
from freshet.model.network import QUANTILE_LEVELS
from freshet.online.adjust.decision import Decisions
from freshet.online.effects.record import encoded, record_of
from freshet.online.effects.table import EffectsTable
from freshet.online.forecast.context import UNTAUGHT
from freshet.online.weights.loaded import LoadedWeights, Serving
from freshet.online.worker import loop, served
from freshet.online.worker.alarms import Alarms
from freshet.online.worker.loop import Worker
from freshet.online.worker.marks import LAST, Mark, Marks
from freshet.online.worker.metrics import WorkerMetrics
from freshet.online.worker.pace import Pace
from freshet.online.worker.served import Served, Source
from freshet.online.worker.shard import OwnedShards
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import decode, encode
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.health import Health, Watch
from freshet.stream.kafka import Outgoing, shard_of
from freshet.stream.process import Stop
from freshet.stream.read.progress import Loading
from freshet.stream.read.reader import Delta
from freshet.stream.schemas import Forecast, ForecastRound, ModelEvent, Score, WindowsAdvanced
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

    def __init__(self) -> None:
        self.before: Callable[[Batch], None] = lambda _: None

    def forecast(self, batch: Batch) -> torch.Tensor:
        self.before(batch)
        row_Q = 100.0 + 10.0 * torch.special.ndtri(torch.tensor(QUANTILE_LEVELS))
        return row_Q.expand(len(batch), batch.prediction_length, -1).clone()


@dataclass
class LiveReader(FakeReader):
    """A reader whose newest cutoff is the head that it was refreshed to, and whose `lost` inputs
    are behind.
    """

    lost: tuple[Any, ...] = ()
    told: int = 0
    shown: int | None = None
    of_history: Loading | None = None

    def loading(self) -> Loading | None:
        return self.of_history

    def live_cutoff_ms(self) -> int | None:
        return None if self.shown is None else self.shown * self.resolution_ms

    def final_ms(self) -> int | None:
        return None if self.shown is None else (self.shown - 2) * self.resolution_ms

    def offsets(self) -> dict[str, int]:
        return {"orders:0": 7}

    def refresh(self) -> Delta:
        changed = super().refresh()
        new, self.told = self.item_ids[self.told :], self.num_items
        self.shown = self.head
        return Delta(changed.changed_rows, changed.changed_buckets_ms, new, True, self.lost)


def reader_of(*, lost: tuple[Any, ...] = ()) -> LiveReader:
    reader = LiveReader(reached=FIRST + HOURS, clicked=FIRST + HOURS, lost=lost)
    for hour in range(HOURS):
        reader.add("a|n", FIRST + hour, UNITS, 3_000)
    reader.add("young|n", FIRST + HOURS - 1, UNITS, 1_000)
    reader.head = FIRST + HOURS
    return reader


@dataclass
class FakeMembership:
    """A member of the worker group, which owns no item that begins with `x`.

    `said` is what the group's offsets tell; committed marks go there. `polled` is called inside
    each poll, where a real group changes the shards.
    """

    version: int = 1
    shards: frozenset[int] = frozenset({0})
    num_shards: int = 1
    said: dict[int, Marks] = field(default_factory=dict)
    notices: list[bytes | None] = field(default_factory=list)
    waits_ms: list[int] = field(default_factory=list)
    polled: Callable[[int], None] = lambda _: None
    closed: bool = False

    def poll(self, max_wait_ms: int) -> list[bytes | None]:
        self.waits_ms.append(max_wait_ms)
        self.polled(max_wait_ms)
        notices, self.notices = self.notices, []
        return notices

    def owns(self, item_id: str) -> bool:
        return shard_of(item_id, self.num_shards) in self.shards and not item_id.startswith("x")

    def marks(self) -> dict[int, Marks]:
        return {shard: self.said.get(shard, {}) for shard in self.shards}

    def offsets(self, marks: Mapping[int, Marks]) -> list[Any]:
        return [(shard, dict(of_shard)) for shard, of_shard in marks.items()]

    def close(self) -> None:
        self.closed = True


def source_of(
    reader: LiveReader | Mapping[int, LiveReader],
    shop: ShopTables | None = None,
    membership: FakeMembership | None = None,
    effects: EffectsTable | None = None,
    decisions: Decisions | None = None,
) -> Source:
    """Windows of one reader, or of one for each width."""
    member = cast("Any", membership or FakeMembership())

    def open_reader(served: ServedResolution, *_: Any) -> Any:
        return reader if isinstance(reader, LiveReader) else reader[served.resolution_ms]

    return Source(
        open_reader,
        shop or ShopTables(),
        member,
        torch.device("cpu"),
        effects,
        decisions or Decisions(),
    )


def owned_of(
    reader: LiveReader | Mapping[int, LiveReader],
    shop: ShopTables | None = None,
    settings: Settings = SETTINGS,
    membership: FakeMembership | None = None,
    effects: EffectsTable | None = None,
    decisions: Decisions | None = None,
) -> OwnedShards:
    """Shards whose windows have been read, and which are due to be read again."""
    owned = OwnedShards(settings, source_of(reader, shop, membership, effects, decisions))
    for one in owned.served:
        one.refresh(CUTOFF_MS)
        one.pace = Pace(one.reader.rules)
    return owned


def publish_effects(
    table: EffectsTable,
    as_of_ms: int,
    shared: SharedEffects = UNTAUGHT,
    resolution_ms: int = HOUR_MS,
) -> str:
    """Put effects on the topic; the sha256 that names them."""
    made = record_of(
        shared,
        resolution_ms=resolution_ms,
        as_of_ms=as_of_ms,
        num_items=1,
        offsets={},
        country=None,
    )
    key, value = encoded(made)
    table.take(key.encode(), value)
    return key


def effects_known() -> EffectsTable:
    """Effects of hours that change nothing."""
    table = EffectsTable()
    publish_effects(table, CUTOFF_MS - HOUR_MS)
    return table


def done_at(owned: OwnedShards, cutoff_ms: int, num_items: int = 2) -> None:
    """Say that all shards have come so far."""
    for marks in owned.marks.values():
        marks[owned.main.resolution_ms] = Mark(cutoff_ms, LAST, num_items, num_items)


def left_at(owned: OwnedShards, cutoff_ms: int, served: Served | None = None) -> set[str]:
    """The items that a round at this cutoff would still forecast."""
    one = served or owned.main
    work, _ = one.begin(cutoff_ms, owned.marks_of(one))
    rows, cold = work.items(range(len(work)))
    return {one.reader.item_ids[row] for row in rows} | set(cold)


def notice_of(reached_ms: int, offset: int) -> bytes:
    """What ingest says: the partition of orders has come so far."""
    return encode(
        WindowsAdvanced(topic="orders", partition=0, epoch=1, offset=offset, frontier_ms=reached_ms)
    )


Sent = list[tuple[str, str, bytes]]
"""Topic, key and value of each record."""


class FakeSending:
    """Keeps what was acknowledged; `before` is called with each lot and may refuse it."""

    def __init__(self, journal: list[str], verb: str) -> None:
        self.journal, self.verb = journal, verb
        self.sent: Sent = []
        self.lots: list[list[tuple[str, str]]] = []
        self.before: Callable[[Sent], bool] = lambda _: True
        self.closed = False

    def send(self, records: Iterable[Outgoing]) -> bool:
        outgoing = [
            (record.topic, (record.key or b"").decode(), record.value or b"") for record in records
        ]
        topics = "+".join(dict.fromkeys(topic.split(".")[1] for topic, _, _ in outgoing))
        self.journal.append(f"{self.verb} {topics}")
        if not self.before(outgoing):
            return False
        self.sent += outgoing
        self.lots.append([(topic, key) for topic, key, _ in outgoing])
        return True

    def close(self) -> None:
        self.closed = True


class FakeDelivery(FakeSending):
    """Scores, alerts and swaps."""

    def deliver(self, records: Iterable[Outgoing]) -> bool:
        return self.send(records)


class FakeCommits(FakeSending):
    """Forecasts and rounds, and the marks that moved with them."""

    def __init__(self, journal: list[str], membership: FakeMembership) -> None:
        super().__init__(journal, "commit")
        self.membership = membership
        self.moved: list[dict[int, Marks]] = []

    def commit(self, records: Iterable[Outgoing], offsets: Iterable[Any]) -> bool:
        if not self.send(records):
            return False
        self.moved.append(dict(offsets))
        self.membership.said |= self.moved[-1]
        return True

    def renew(self) -> None:
        """Nothing here is kept from one commit to the next."""


class Turns:
    """A worker of some shards whose turns are taken one by one.

    Attributes:
        journal: What was asked of the servers, in order.
        swap: What the switch reports next.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        owned: OwnedShards,
        *,
        settings: Settings = SETTINGS,
        fallback: str = "",
        membership: FakeMembership | None = None,
    ) -> None:
        self.owned, self.stop, self.registry = owned, Stop(), CollectorRegistry()
        self.settings = settings
        self.journal: list[str] = []
        self.now_ms, self.monotonic_s = CUTOFF_MS + 5, 1_000.0
        self.swap: ModelEvent | None = None
        metrics = WorkerMetrics(self.registry)
        forecaster: Any = FakeForecaster()
        self.weights = LoadedWeights("v3", "ab", forecaster, fallback)
        self.membership = membership or FakeMembership()
        self.membership.polled = self._polled
        self.delivery = FakeDelivery(self.journal, "deliver")
        self.commits = FakeCommits(self.journal, self.membership)
        self.switch = SimpleNamespace(current=Serving(self.weights), settle=self._settle)
        self.side_inputs = SimpleNamespace(
            shop=owned.shop,
            caught_up=True,
            waits_for="",
            offsets=lambda: {"catalog:0": 4},
            effects=None,
            alarms=Alarms(settings.main.resolution_ms),
            decisions=Decisions(),
            poll=lambda ms: self.journal.append(f"inputs {ms}"),
        )
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
            commits=self.commits,
            delivery=self.delivery,
            health=self.health,
            watch=Watch(self.health, {}),
            owner=None,
        )
        time = SimpleNamespace(monotonic=lambda: self.monotonic_s)
        monkeypatch.setattr(loop, "take_over", self._take_over)
        monkeypatch.setattr(loop, "time", time)
        monkeypatch.setattr(served, "time", time)
        self.taken: list[tuple[Any, ...]] = []
        self.worker = Worker(settings, parts, metrics, self.stop)

    @property
    def main(self) -> Served:
        return self.owned.main

    def turn(self, later_s: float = 1.0) -> list[str]:
        """One turn, so long after the last one; what it did."""
        self.journal.clear()
        self.monotonic_s += later_s
        self.worker._turn()
        return list(self.journal)

    def forecasts(self) -> list[Forecast]:
        topic = SETTINGS.kafka.topics.forecasts
        return [decode(Forecast, value) for name, _, value in self.commits.sent if name == topic]

    def rounds(self) -> list[ForecastRound]:
        topic = SETTINGS.kafka.topics.rounds
        return [
            decode(ForecastRound, value) for name, _, value in self.commits.sent if name == topic
        ]

    def scores(self) -> list[Score]:
        topic = SETTINGS.kafka.topics.scores
        return [decode(Score, value) for name, _, value in self.delivery.sent if name == topic]

    def measured(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"freshet_worker_{name}", labels)

    def _polled(self, _: int) -> None:
        self.journal.append("group")

    def _settle(self, now_ms: int) -> ModelEvent | None:
        self.journal.append(f"settle {now_ms - CUTOFF_MS}")
        event, self.swap = self.swap, None
        return event

    def _take_over(self, *args: Any, **named: Any) -> OwnedShards:
        self.taken.append((*args, named))
        self.owned.membership_version = self.membership.version
        return self.owned
