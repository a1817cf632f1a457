"""What a worker is told beside windows: the shop's tables, announced weights, shared effects."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import redis

from freshet.online.effects.record import CURRENT, SECONDS_HEADER
from freshet.online.effects.table import EffectsTable
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import MAX_TIME_MS, decode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.kafka import TableReader, TableRecord
from freshet.stream.read.shop import ShopFeed
from freshet.stream.schemas import ModelEvent
from freshet.stream.telemetry import get_logger

LOOK_S = 0.2

log = get_logger(__name__)


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
    ) -> None:
        self._latest_ms = latest_ms
        self.shop = ShopTables.of(settings, latest_ms=latest_ms)
        self._feed = ShopFeed(client, settings, self.shop)
        self._offer = offer
        self.effects = effects
        self._estimated = estimated
        topics = settings.kafka.topics
        self._effects_topic = topics.effects
        self._topics = TableReader(
            settings, [topics.models, *([topics.effects] if effects is not None else [])]
        )
        self._now_s = now_s
        self._looked_s = -LOOK_S

    @property
    def caught_up(self) -> bool:
        """True once all announcements and all of the tables are known, for as long as they are."""
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
        live = self._topics.caught_up
        found = self._topics.poll(max_wait_ms)
        for record in found:
            if record.topic == self._effects_topic:
                self._keep(record, live=live)
            elif self._offer is not None and record.value is not None:
                self._hand_over(record, record.value, self._offer)
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

    def _hand_over(
        self, record: TableRecord, value: bytes, offer: Callable[[ModelEvent], None]
    ) -> None:
        try:
            offer(decode(ModelEvent, value, latest_ms=self._latest_ms()))
        except EventError as error:
            place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            log.warning("model_event_not_read", error=str(error), **place)
