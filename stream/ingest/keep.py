"""Keeping the shop's tables: their dead letters and versions in a turn, and their bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from freshet.stream.failpoints import failpoint
from freshet.stream.ingest.assignment import Owned
from freshet.stream.ingest.parts import Parts
from freshet.stream.ingest.tables import share_to_drop
from freshet.stream.ingest.versions import PartitionVersions
from freshet.stream.kafka import Key, Message
from freshet.stream.store.layout import Answer
from freshet.stream.store.versions import MAX_REMOVED


class Keeper:
    """The part of a turn that is about tables.

    Args:
        parts: What ingest works with.
        lost: Whether a partition is no longer ours, or behind, by what Redis answered.
    """

    def __init__(self, parts: Parts, lost: Callable[[Key, Answer], bool]) -> None:
        self._parts = parts
        self._lost = lost

    def keep(self) -> None:
        """Append what was set aside.

        Durable effects of a partition, in this order: its dead letters are acknowledged, then one
        call appends its versions and moves its offset.
        """
        owned = self._parts.assignment.owned
        for key, messages in self._parts.tables.set_aside().items():
            # It may have gone to another process while later slices were read.
            if key in owned:
                self._append(key, owned[key], messages)

    def _append(self, key: Key, owned: Owned, messages: list[Message]) -> None:
        parts, versions = self._parts, owned.versions
        assert versions is not None, f"{key} is of events"
        batch = versions.judge(messages)
        parts.outbox.publish_unusable(messages, batch.dead)
        failpoint("after_table_letters")
        if self._lost(key, versions.append(batch)):
            return
        owned.position = batch.next_offset
        owned.at_end_since_s = None
        owned.newest_timestamp_ms = messages[-1].timestamp()[1]
        parts.losses.kept(key, messages, batch)

    def survey(self, ends: Mapping[Key, int]) -> None:
        """See whether Redis still holds it all, and how much; say which logs are read to their end.

        A table may be told nothing for weeks, so nobody would notice otherwise that Redis has lost
        it; where there are too many versions in all, our share of the old ones leaves.

        Args:
            ends: Where the logs of our partitions end now.
        """
        parts = self._parts
        if parts.generations.building:
            return
        stored = parts.tables.headers()
        total = sum(header.versions for header in stored.values())
        parts.tables.say_total(total, parts.metrics, parts.health)
        for key, owned in list(parts.assignment.owned.items()):
            versions = owned.versions
            if versions is None or self._lost(key, versions.compared(stored[key])):
                continue
            if owned.position >= ends.get(key, owned.position + 1):
                self._lost(key, versions.stand_at(ends[key]))
            self._drop(key, versions, share_to_drop(versions.header.versions, total))

    def _drop(self, key: Key, versions: PartitionVersions, count: int) -> None:
        before = versions.header.dropped
        for _ in range(-(-count // MAX_REMOVED)):
            if self._lost(key, versions.drop(min(count, MAX_REMOVED))):
                return
            count -= MAX_REMOVED
        self._parts.metrics.dropped_versions.inc(versions.header.dropped - before)
