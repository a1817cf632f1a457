"""What a worker is told beside windows: tables, announced weights, shared effects, drift."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec
import redis

from freshet.online.adjust.decision import Decisions
from freshet.online.effects.record import CURRENT, SECONDS_HEADER
from freshet.online.effects.table import EffectsTable
from freshet.online.worker.alarms import Alarms
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import MAX_TIME_MS, decode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.kafka import TableReader, TableRecord
from freshet.stream.read.shop import ShopFeed
from freshet.stream.schemas import DriftAlert, ModelEvent
from freshet.stream.telemetry import get_logger

LOOK_S = 0.2

log = get_logger(__name__)


class _Tensions(msgspec.Struct):
    """The field of drift's state that is for everybody."""

    tensions: dict[str, float] = {}


class SideInputs:
    """Keeps `ShopTables` as Redis says, and hands over each model event as it comes.

    Args:
        settings: Where to connect, and the topics' names.
        client: The Redis that ingest writes.
        offer: Called with every readable model event, oldest first within a partition; None for
            a worker that serves what it was given.
        latest_ms: When a record may say that something happened at the latest.
        now_s: A clock that never goes back.
        effects: Where what all items do alike is kept; None for a worker that wants none.
        estimated: Told how many seconds each estimate took that comes from now on.
        tense: Told how near an alarm each segment is.
    """

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        offer: Callable[[ModelEvent], None] | None,
        latest_ms: Callable[[], int] = lambda: MAX_TIME_MS,
        *,
        now_s: Callable[[], float] = time.monotonic,
        effects: EffectsTable | None = None,
        estimated: Callable[[float], None] = lambda seconds: None,
        tense: Callable[[Mapping[str, float]], None] = lambda tensions: None,
    ) -> None:
        self._latest_ms = latest_ms
        self.shop = ShopTables.of(settings, latest_ms=latest_ms)
        self._feed = ShopFeed(client, settings, self.shop)
        self._offer = offer
        self.effects = effects
        self._estimated, self._tense = estimated, tense
        self._main_ms = settings.main.resolution_ms
        self.alarms = Alarms(self._main_ms)
        self.decisions = Decisions(latest_ms)
        self._names = names = settings.kafka.topics
        topics = [names.models, names.drift, names.owner, names.decisions]
        self._topics = TableReader(
            settings, topics if effects is None else [*topics, names.effects]
        )
        self._now_s = now_s
        self._looked_s = -LOOK_S

    @property
    def caught_up(self) -> bool:
        """True once all announcements, alarms and tables are known, for as long as they are."""
        return self._topics.caught_up and self._feed.caught_up

    @property
    def waits_for(self) -> str:
        """What is missing until then, for a person; empty where nothing but time is."""
        return self._feed.waits_for

    def offsets(self) -> dict[str, int]:
        """Up to which offset the tables are told, as `topic:partition`: a forecast's inputs."""
        return self._feed.offsets()

    def poll(self, max_wait_ms: int) -> int:
        """Take in what has come; returns how many records that was.

        Redis is looked at five times a second at most, but without a pause until all is known.

        Raises:
            StoreUnavailableError, BrokerError: A server is away; nothing is lost.
        """
        names, live = self._names, self._topics.caught_up
        found = self._topics.poll(max_wait_ms)
        for record in found:
            if record.topic == names.effects:
                self._keep(record, live=live)
            elif record.topic == names.decisions:
                place = {"partition": record.partition, "offset": record.offset}
                self.decisions.take(record.key, record.value, topic=record.topic, **place)
            elif record.value is not None:
                self._take(record, record.value)
        now_s = self._now_s()
        if self._feed.caught_up and now_s - self._looked_s < LOOK_S:
            return len(found)
        self._looked_s = now_s
        return len(found) + self._feed.poll()

    def close(self) -> None:
        """Stop reading."""
        self._topics.close()

    def _keep(self, record: TableRecord, *, live: bool) -> None:
        """Effects; the newest come twice, and tell once how long they took."""
        assert self.effects is not None
        at = {"partition": record.partition, "offset": record.offset}
        self.effects.take(record.key, record.value, topic=record.topic, **at)
        took = dict(record.headers).get(SECONDS_HEADER)
        if live and took is not None and (record.key or b"").startswith(CURRENT):
            with suppress(ValueError):
                self._estimated(float(took))

    def _take(self, record: TableRecord, value: bytes) -> None:
        try:
            self._told(record, value)
        except EventError as error:
            place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            log.warning("record_not_read", error=str(error), **place)

    def _told(self, record: TableRecord, value: bytes) -> None:
        if record.topic == self._names.drift:
            self.alarms.take(decode(DriftAlert, value, latest_ms=self._latest_ms()))
        elif record.topic == self._names.owner:
            if record.key == f"drift@{self._main_ms}/0".encode():
                self._tense(decode(_Tensions, value).tensions)
        elif self._offer is not None:
            self._offer(decode(ModelEvent, value, latest_ms=self._latest_ms()))
