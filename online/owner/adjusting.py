"""How segments in alarm are served: decided once for the whole shop, at each new cutoff.

The durable effect of a turn is one transaction: the decision, and tombstones of what no forecast
was served by for weeks. A crash before leaves nothing, and the next owner decides anew; what it
tries depends on windows of then, and who served is what the newest decision says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import redis
import torch

from freshet.model.threads import use_threads
from freshet.online.adjust.decision import Decisions, encoded
from freshet.online.effects.table import EffectsTable
from freshet.online.forecast.context import Contexts
from freshet.online.forecast.effects import RoundEffects, has_owner
from freshet.online.owner.adjuster import Adjuster
from freshet.online.weights.loaded import Serving
from freshet.online.weights.swap import WeightsSwitch, open_switch
from freshet.online.worker.served import SPARE_BUCKETS
from freshet.online.worker.side_inputs import SideInputs
from freshet.stream.catalog.segments import segments_of
from freshet.stream.config import Settings
from freshet.stream.errors import RegistryError, WeightsError
from freshet.stream.failpoints import failpoint
from freshet.stream.kafka import Outgoing, Writes
from freshet.stream.read.heads import read_heads, states_of
from freshet.stream.read.progress import ReadRules, live_cutoff_ms
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import AdjustmentDecision, DriftAlert, ModelEvent
from freshet.stream.store.generation import current_generation
from freshet.stream.store.redis import WindowStore
from freshet.stream.telemetry import get_logger

LOAD_S = 30.0  # for which a version that is announced is waited for

log = get_logger(__name__)


class Decides(Protocol):
    """Tries what would have been best; see `Trials`."""

    @property
    def decisions(self) -> Decisions:
        """What was decided."""

    def poll(self) -> list[DriftAlert]:
        """Take in what is new; alarms that began or ended."""

    @property
    def caught_up(self) -> bool:
        """Whether all of it is known."""

    def cutoff_ms(self) -> int | None:
        """The newest cutoff of the shop."""

    def decide(self, adjuster: Adjuster, cutoff_ms: int) -> AdjustmentDecision:
        """Try, and choose."""


class Adjusting:
    """Decides at each new cutoff while a segment is in alarm, and once when none is any more.

    Args:
        settings: All of them.
        trials: What it decides by.
        adjuster: Which alarms hold, what was tried and who serves.
        writes: Takes decisions.
        holds: Whether the lease is ours at this moment.
    """

    def __init__(
        self,
        settings: Settings,
        trials: Decides,
        adjuster: Adjuster,
        writes: Writes,
        holds: Callable[[], bool],
    ) -> None:
        self._topic = settings.kafka.topics.decisions
        self._resolution_ms = settings.main.resolution_ms
        self._trials, self._adjuster, self._writes, self._holds = trials, adjuster, writes, holds
        self._resumed = False
        self._said = ""
        self._untold: AdjustmentDecision | None = None

    def turn(self) -> bool:
        """Decide where a cutoff is new, if there is anything to decide; whether it did.

        Raises:
            FencedError: Another process decides.
            StoreUnavailableError, BrokerError: A server is away; the next turn tries again.
        """
        for alert in self._trials.poll():
            self._adjuster.take(alert)
        if not self._trials.caught_up:
            return False
        newest = self._trials.decisions.newest(self._resolution_ms)
        if not self._resumed and newest is not None:
            self._adjuster.resume(newest.record)
        self._resumed = True
        if self._untold is None:
            decided_ms = -1 if newest is None else newest.record.as_of_ms
            cutoff_ms = None if self._adjuster.idle else self._trials.cutoff_ms()
            if cutoff_ms is None or cutoff_ms <= decided_ms:
                return False
            try:
                self._untold = self._trials.decide(self._adjuster, cutoff_ms)
            except (RegistryError, WeightsError) as error:
                # Drift is looked for all the same; a day without a decision and all is as it is.
                self._say(str(error))
                return False
            self._said = ""
        return self._tell(self._untold)

    def _say(self, error: str) -> None:
        """Once, until it is over or another."""
        if error != self._said:
            log.error("segments_not_tried", error=error)
        self._said = error

    def _tell(self, record: AdjustmentDecision) -> bool:
        if not self._holds():
            return False
        key, value = encoded(record)
        outgoing = [Outgoing(self._topic, key.encode(), value)]
        stale = self._trials.decisions.stale(record.as_of_ms)
        outgoing += [Outgoing(self._topic, name.encode(), None) for name in stale]
        failpoint("before_decision")
        self._writes.write(outgoing)
        failpoint("after_decision")
        for one in outgoing:
            self._trials.decisions.take(one.key, one.value)
        self._untold = None
        return True


class Trials:
    """Windows, tables and weights as a worker has them, of the items alone that are tried.

    Args:
        settings: All of them.
        client: The Redis that ingest writes.
        latest_ms: When a record may say that something happened at the latest.
        alive: Called between two forecasts; whatever it raises ends the decision.
    """

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        latest_ms: Callable[[], int],
        alive: Callable[[], None],
    ) -> None:
        # Cards are the workers'.
        on_cpu = settings.worker.model_copy(update={"device": "cpu", "dtype": "float32"})
        self._settings = settings.model_copy(update={"worker": on_cpu})
        self._client, self._latest_ms, self._alive = client, latest_ms, alive
        self._main = settings.main
        self._rules = ReadRules.of(settings, self._main.resolution_ms)
        self._switch: WeightsSwitch | None = None
        country = settings.calendar.country or None
        effects = EffectsTable(country, latest_ms=latest_ms) if settings.worker.effects else None
        self._inputs = SideInputs(settings, client, self._offer, latest_ms, effects=effects)
        self._offered: list[ModelEvent] = []
        self._effects = RoundEffects(
            effects if has_owner(self._main) else None, self._main.resolution_ms
        )
        self._contexts: Contexts | None = None
        self._items: frozenset[str] = frozenset()

    @property
    def decisions(self) -> Decisions:
        """What was decided."""
        return self._inputs.decisions

    @property
    def caught_up(self) -> bool:
        """Whether tables, announcements, alarms and decisions are all known."""
        return self._inputs.caught_up

    def poll(self) -> list[DriftAlert]:
        """See `Decides`."""
        self._inputs.poll(0)
        return self._inputs.alarms.news()

    def cutoff_ms(self) -> int | None:
        """See `Decides`."""
        heads = read_heads(self._client, self._settings.redis.generation)
        return live_cutoff_ms(states_of(heads), self._rules.orders_topic, self._rules.grid)

    def decide(self, adjuster: Adjuster, cutoff_ms: int) -> AdjustmentDecision:
        """See `Decides`."""
        contexts = self._opened(adjuster.items(self._all_items()))
        contexts.refresh()
        serving = self._served()

        def newest_ms() -> int:
            contexts.refresh()
            return contexts.reader.live_cutoff_ms() or cutoff_ms

        return adjuster.decide(contexts, serving, cutoff_ms, self._alive, newest_ms)

    def segments(self, item_ids: Sequence[str]) -> list[str]:
        """The segment of each of some items."""
        settings = self._settings
        by = settings.events.series_by
        return segments_of(item_ids, settings.drift, self._inputs.shop, by)

    def _all_items(self) -> list[str]:
        """Every item that anything is known of."""
        current = current_generation(self._client, self._settings.redis.generation)
        store = WindowStore(self._client, current)
        heads = read_heads(self._client, current)
        found = {
            item_id
            for (topic, partition), header in heads.items()
            for item_id in store.dictionary(topic, partition, header.items)
        }
        return sorted(found)

    def _opened(self, items: set[str]) -> Contexts:
        if self._contexts is None or items != self._items:
            self._items = held = frozenset(items)
            main = self._main
            reader = WindowReader(
                self._client,
                self._settings.redis.generation,
                main.resolution_ms,
                main.context_length + main.prediction_length + SPARE_BUCKETS,
                owns=held.__contains__,
                rules=self._rules,
            )
            self._contexts = Contexts(
                reader,
                self._inputs.shop,
                context_length=main.context_length,
                prediction_length=main.prediction_length,
                device=torch.device("cpu"),
                taught=self._effects.of,
                country=self._settings.calendar.country,
            )
        return self._contexts

    def _offer(self, event: ModelEvent) -> None:
        if self._switch is None:
            self._offered.append(event)
        elif not self._settings.worker.weights:
            self._switch.offer(event)

    def _served(self) -> Serving:
        """The weights that serve, as far as they are announced and loaded here."""
        if self._switch is None:
            use_threads(1)
            self._switch = open_switch(self._settings, "owner")
            for event in self._offered:
                self._offer(event)
            self._offered = []
        # What was announced since the last cutoff is loaded meanwhile.
        self._switch.settle(self._latest_ms())
        if self._switch.wait(LOAD_S):
            self._switch.settle(self._latest_ms())
        return self._switch.current
