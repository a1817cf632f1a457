"""Compacted topics kept in memory: the shop's three, and the announcements of weights."""

from __future__ import annotations

from collections.abc import Callable

from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import MAX_TIME_MS, decode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.kafka import TableReader, TableRecord
from freshet.stream.schemas import SHOP_TABLES, ModelEvent
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


class SideInputs:
    """Feeds a `ShopTables`, and hands over each model event as it comes.

    Args:
        settings: Where to connect, and the topics' names.
        offer: Called with every readable model event, oldest first within a partition; None for
            a worker that serves what it was given.
        latest_ms: When a record may say that something happened at the latest.
    """

    def __init__(
        self,
        settings: Settings,
        offer: Callable[[ModelEvent], None] | None,
        latest_ms: Callable[[], int] = lambda: MAX_TIME_MS,
    ) -> None:
        topics = settings.kafka.topics
        self._latest_ms = latest_ms
        self.shop = ShopTables.of(settings, latest_ms=latest_ms)
        self._tables = topics.of(*SHOP_TABLES)
        self._offer = offer
        self._reader = TableReader(settings, [*self._tables, topics.models])

    @property
    def caught_up(self) -> bool:
        """True once the end of every partition has been seen."""
        return self._reader.caught_up

    def poll(self, max_wait_ms: int) -> int:
        """Take in what has come; returns how many records that was."""
        records = self._reader.poll(max_wait_ms)
        for record in records:
            table = self._tables.get(record.topic)
            if table is not None:
                self.shop.apply(
                    table,
                    record.key,
                    record.value,
                    record.timestamp_ms,
                    offset=record.offset,
                    partition=record.partition,
                )
            elif record.value is not None and self._offer is not None:
                self._hand_over(record, record.value, self._offer)
        return len(records)

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _hand_over(
        self, record: TableRecord, value: bytes, offer: Callable[[ModelEvent], None]
    ) -> None:
        try:
            offer(decode(ModelEvent, value, latest_ms=self._latest_ms()))
        except EventError as error:
            place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            log.warning("model_event_not_read", error=str(error), **place)
