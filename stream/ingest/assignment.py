"""Which partitions this process owns: joins the group, claims each in Redis, reads from there.

A partition that the group assigns is not read until it is claimed: the callback only notes it, the
loop claims it and only then starts to fetch, at the offset stored beside the windows or versions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from freshet.stream.errors import BrokerError
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.ingest import claims, versions
from freshet.stream.ingest.versions import PartitionVersions
from freshet.stream.kafka import Consumer, Key, TopicPartition, broker_errors, take
from freshet.stream.store.layout import Header
from freshet.stream.store.versions import VersionHeader
from freshet.stream.telemetry import get_logger

REJOIN_S = 30.0
SETTLE_SLICE_MS = 100

Kept = PartitionWindows | PartitionVersions

log = get_logger(__name__)


@dataclass(slots=True)
class Owned:
    """A claimed partition: of events, which has windows, or of a shop's table, which has versions.

    Attributes:
        kept: Its windows or versions, as they are in Redis.
        position: The next offset to read.
        committed: The position last told to the group.
        at_end_since_s: Since when `position` has been the log's end; None where it is not.
        newest_timestamp_ms: Kafka's timestamp of the last record applied.
    """

    kept: Kept
    position: int
    committed: int = -1
    at_end_since_s: float | None = None
    newest_timestamp_ms: int | None = None

    @property
    def windows(self) -> PartitionWindows | None:
        """What is kept of events."""
        return None if isinstance(self.kept, PartitionVersions) else self.kept

    @property
    def versions(self) -> PartitionVersions | None:
        """What is kept of a table."""
        return self.kept if isinstance(self.kept, PartitionVersions) else None

    def at_end_for_s(self, end: int, now_s: float) -> float:
        """For how long it has stood at its log's end, which is `end` now; 0 where it does not."""
        if self.position < end:
            self.at_end_since_s = None
            return 0.0
        if self.at_end_since_s is None:
            self.at_end_since_s = now_s
        return now_s - self.at_end_since_s


class Assignment:
    """The partitions of this process.

    Args:
        client: The group's consumer.
        claim: Becomes the owner of a partition in Redis.
        log_ranges: Where the logs of partitions begin and end now.
    """

    def __init__(
        self,
        client: Consumer,
        claim: Callable[[str, int], Kept],
        log_ranges: Callable[[list[Key]], dict[Key, tuple[int, int]]],
    ) -> None:
        self._client = client
        self._claim = claim
        self._log_ranges = log_ranges
        self._topics: list[str] = []
        self._waiting: list[Key] = []
        self._fenced_at_s: float | None = None
        self._suspended = False
        self.owned: dict[Key, Owned] = {}
        self.joined = False

    # The group ------------------------------------------------------------------------------------

    def join(self, topics: list[str]) -> None:
        """Ask the group for partitions of the topics; they are assigned during later reads."""
        self._topics = topics
        with broker_errors("joining the group"):
            self._client.subscribe(
                topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
            )

    def rejoin_when_fenced(self) -> None:
        """Some time after a `drop`, ask for a new assignment: the newer owner may be gone."""
        if self._fenced_at_s is None or time.monotonic() - self._fenced_at_s < REJOIN_S:
            return
        self._fenced_at_s = None
        log.warning("rejoining", reason="a partition was taken over by another process")
        with broker_errors("leaving the group"):
            self._client.unsubscribe()
        self.join(self._topics)

    def settle(self, timeout_ms: int) -> None:
        """Before leaving: let the group answer a join that is under way, for at most so long.

        A client that is closed while its first assignment comes in waits in `_revoked` for ever:
        seen with a process that had nothing to read and ended within milliseconds of joining.
        """
        deadline_s = time.monotonic() + timeout_ms / 1_000
        while self._topics and not self.joined and time.monotonic() < deadline_s:
            try:
                take(self._client, 1, SETTLE_SLICE_MS)
            except BrokerError as error:
                log.debug("settle", error=str(error))
                return

    def commit(self, *, wait: bool) -> None:
        """Tell the group how far we are, for whoever draws lag graphs; we never read it back."""
        owned = self.owned
        moved = [key for key in owned if owned[key].position != owned[key].committed]
        if not moved:
            return
        offsets = [TopicPartition(*key, owned[key].position) for key in moved]
        try:
            with broker_errors("committing offsets"):
                if wait:
                    self._client.commit(offsets=offsets, asynchronous=False)
                else:
                    self._client.commit(offsets=offsets, asynchronous=True)
        except BrokerError as error:
            log.debug("commit", error=str(error))
        for key in moved:
            owned[key].committed = owned[key].position

    @property
    def trouble(self) -> str | None:
        """What keeps us from our partitions, None where nothing does; for /readyz."""
        if not self.joined:
            return "joining the consumer group"
        if self._fenced_at_s is not None:
            return "a partition was taken over by another process"
        return "claiming partitions" if self._waiting else None

    def _assigned(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        # An empty assignment answers the group; without it the client would start to read by
        # itself.
        client.incremental_assign([])
        self._waiting += [(at.topic, at.partition) for at in partitions]
        self.joined = True
        self._fenced_at_s = None

    def _revoked(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        keys = [(at.topic, at.partition) for at in partitions]
        owned = [key for key in keys if self.owned.pop(key, None) is not None]
        reading = [] if self._suspended else owned
        # A revocation is answered by unassigning, even when nothing of it was being read.
        client.incremental_unassign([TopicPartition(*key) for key in reading])
        self._waiting = [key for key in self._waiting if key not in keys]
        log.info("revoked", partitions=[f"{topic}:{partition}" for topic, partition in keys])

    # Claims ---------------------------------------------------------------------------------------

    def claim_waiting(self) -> list[Key]:
        """Claim what was assigned and start to read it; the partitions newly owned.

        Raises:
            StoreUnavailableError, BrokerError: Try again; nothing is lost.
            LogLostError: The windows cannot be continued from the log.
        """
        claimed = {key: self._claim(*key) for key in self._waiting}
        ranges = self._log_ranges(list(claimed))
        for key in claimed:
            self._take_over(key, claimed[key], *ranges[key])
            self._waiting.remove(key)
        return list(claimed)

    def claim_again(self, key: Key) -> None:
        """After Redis went back: wait to be claimed at the offset that it holds now."""
        self._stop_reading(key)
        self._waiting.append(key)

    def drop(self, key: Key) -> None:
        """After a newer owner was met: leave it alone until the group assigns it again."""
        self._stop_reading(key)
        self._fenced_at_s = time.monotonic()

    def _take_over(self, key: Key, kept: Kept, first: int, end: int) -> None:
        topic, partition = key
        of_table = isinstance(kept, PartitionVersions)
        position = kept.header.next_offset
        if position is None:
            kept.start_at(first)
            position = first
            if first > 0 and not of_table:
                hint = (
                    "the log has lost its first records: "
                    "buckets before its first event are missing, not half-filled"
                )
                log.warning("begun_late", topic=topic, partition=partition, offset=first, hint=hint)
        check_inside = versions.check_inside if of_table else claims.check_inside
        check_inside(key, position, first, end)
        self.owned[key] = Owned(kept, position)
        self._read([key], [])
        epoch = kept.header.epoch
        log.info("claimed", topic=topic, partition=partition, offset=position, epoch=epoch)

    # Reading --------------------------------------------------------------------------------------

    def reached(self, ends: Mapping[Key, int]) -> None:
        """Move to log ends that were met, once all before them is applied.

        They may lie behind the last record: control records have offsets too.
        """
        for key in ends.keys() & self.owned.keys():
            self.owned[key].position = max(self.owned[key].position, ends[key])

    def suspend(self) -> None:
        """Stop reading, stay in the group, keep the claims; what is not applied is forgotten."""
        self._read([], list(self.owned))
        self._suspended = True

    def resume(self) -> None:
        """Read on after the last record applied."""
        self._suspended = False
        for owned in self.owned.values():
            owned.position = owned.kept.next_offset
            owned.at_end_since_s = None
        self._read(list(self.owned), [])

    def positions(
        self,
        keys: Collection[Key],
        stored: Callable[[str, int], Header | VersionHeader | None],
    ) -> dict[Key, int]:
        """The next offset of partitions: ours, or what another process of the group has stored.

        Args:
            keys: Which partitions.
            stored: The header of a partition that is not ours.
        """
        found = {}
        for key in keys:
            if key in self.owned:
                found[key] = self.owned[key].position
            else:
                header = stored(*key)
                found[key] = (header.next_offset or 0) if header else 0
        return found

    def _stop_reading(self, key: Key) -> None:
        if self.owned.pop(key, None) is not None:
            self._read([], [key])

    def _read(self, begin: list[Key], cease: list[Key]) -> None:
        if self._suspended:
            return
        starts = [TopicPartition(*key, self.owned[key].kept.next_offset) for key in begin]
        with broker_errors("choosing what to read"):
            self._client.incremental_unassign([TopicPartition(*key) for key in cease])
            self._client.incremental_assign(starts)
