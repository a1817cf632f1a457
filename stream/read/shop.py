"""The shop's tables, kept as the versions in Redis say: for whoever dresses forecasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import redis

from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import Settings
from freshet.stream.errors import StoreError
from freshet.stream.process import BackOff
from freshet.stream.read.heads import EventsReached
from freshet.stream.read.versions import VersionReader
from freshet.stream.store.versions import kept_ms
from freshet.stream.units import HOUR_MS

READ_S = 1.0
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 1.0
NO_INGEST_S = 30.0


class ShopFeed:
    """Feeds `ShopTables` whatever is new in Redis.

    Where Redis has lost what was read, the tables start over and are not complete until all was
    read again. Old versions that no context reaches leave memory now and then, as they leave Redis.

    Args:
        client: The Redis that ingest writes.
        settings: Names of the topics, how long versions are kept.
        shop: The tables; nobody else feeds them.
        until: Only what lies before these offsets; see `VersionReader`.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        shop: ShopTables,
        *,
        until: Mapping[str, int] | None = None,
    ) -> None:
        self._shop = shop
        self._reader = VersionReader(client, settings, until=until)
        self._restarts = 0
        self._kept_ms = kept_ms(settings)
        self._reached = EventsReached(client, settings)
        self._tidied_ms = 0

    @property
    def caught_up(self) -> bool:
        """Whether the tables hold all that ingest has found in the logs."""
        return self._reader.caught_up

    @property
    def waits_for(self) -> str:
        """What is missing until then, for a person; empty once it has caught up."""
        missing = ", ".join(sorted(self._reader.waits_for))
        if self.caught_up or not missing:
            return ""
        return f"Redis does not hold all of {missing} yet; is `freshet ingest` running?"

    def offsets(self) -> dict[str, int]:
        """Up to which offset the tables are told, as `topic:partition`."""
        return self._reader.offsets()

    def poll(self) -> int:
        """Take in what is new, for about a second at most; how many records that was.

        Raises:
            StoreUnavailableError: Redis does not answer; nothing is lost.
        """
        found = 0
        end_s = time.monotonic() + READ_S
        while True:
            records = self._reader.poll()
            if self._reader.restarts != self._restarts:
                self._restarts = self._reader.restarts
                self._shop.start_over()
            for record in records:
                self._shop.apply(
                    record.table,
                    record.key,
                    record.value,
                    record.timestamp_ms,
                    offset=record.offset,
                    partition=record.partition,
                )
            found += len(records)
            if not records or time.monotonic() > end_s:
                break
        self._tidy()
        return found

    def read_to_end(self, *, wait: Callable[[float], bool | None] = time.sleep) -> None:
        """Take in all that there is.

        Raises:
            StoreError: Ingest has not read the tables, and nothing has come for half a minute.
        """
        back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, wait)
        heard_s = time.monotonic()
        while not self.caught_up:
            if self.poll():
                heard_s = time.monotonic()
                back_off.reset()
            elif not self.caught_up:
                if time.monotonic() - heard_s > NO_INGEST_S:
                    raise StoreError(self.waits_for)
                back_off.pause()

    def _tidy(self) -> None:
        """Free what nobody asks for any more, once an hour of the events' time."""
        newest_ms = min(self._shop.newest_ms, self._shop.latest_ms())
        if newest_ms - self._tidied_ms < HOUR_MS or not self.caught_up:
            return
        reached_ms = min(newest_ms, self._reached.ms())
        if reached_ms - self._tidied_ms >= HOUR_MS:
            self._tidied_ms = reached_ms
            self._shop.forget_before(reached_ms - self._kept_ms)
