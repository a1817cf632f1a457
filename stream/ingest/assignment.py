"""Which partitions this process owns: joins the group, claims each partition in Redis, and reads
from what it says.

A partition that the group assigns is not read until it is claimed: the callback only notes it, the
loop claims it and only then starts to fetch, at the offset stored beside the windows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from freshet.stream.errors import BrokerError, LogLostError
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.kafka import Consumer, TopicPartition, broker_errors, take
from freshet.stream.store.layout import Header
from freshet.stream.store.redis import NEW_GENERATION_HINT
from freshet.stream.telemetry import get_logger

Key = tuple[str, int]

REJOIN_S = 30.0
SETTLE_SLICE_MS = 100

log = get_logger(__name__)


@dataclass(slots=True)
class Owned:
    """A claimed partition: its windows, the next offset to read, and since when that has been the
    log's end.
    """

    windows: PartitionWindows
    position: int
    committed: int = -1
    at_end_since_s: float | None = None
    newest_timestamp_ms: int | None = None


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
        claim: Callable[[str, int], PartitionWindows],
        log_ranges: Callable[[list[Key]], dict[Key, tuple[int, int]]],
    ) -> None:
        self._client, self._claim, self._log_ranges = client, claim, log_ranges
        self._topics: list[str] = []
        self._waiting: list[Key] = []
        self._fenced_at_s: float | None = None
        self._suspended = False
        self.owned: dict[Key, Owned] = {}
        self.joined = False

    def join(self, topics: list[str]) -> None:
        """Ask the group for partitions of the topics; they are assigned during later reads."""
        self._topics = topics
        with broker_errors("joining the group"):
            self._client.subscribe(
                topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
            )

    def settle(self, timeout_ms: int) -> None:
        """Before leaving: let the group answer a join that is under way, for at most so long.

        A client that is closed while its first assignment comes in waits in `_revoked` for ever:
        seen with a process that had nothing to read and ended within milliseconds of joining.
        """
        deadline = time.monotonic() + timeout_ms / 1_000
        while self._topics and not self.joined and time.monotonic() < deadline:
            try:
                take(self._client, 1, SETTLE_SLICE_MS)
            except BrokerError as error:
                log.debug("settle", error=str(error))
                return

    def claim_waiting(self) -> list[Key]:
        """Claim what was assigned and start to read it; the partitions newly owned.

        Raises:
            StoreUnavailableError, BrokerError: Try again; nothing is lost.
            LogLostError: The windows cannot be continued from the log.
        """
        windows = {key: self._claim(*key) for key in self._waiting}
        ranges = self._log_ranges(list(windows))
        for key in windows:
            self._take_over(key, windows[key], *ranges[key])
            self._waiting.remove(key)
        return list(windows)

    def commit(self, *, wait: bool) -> None:
        """Tell the group how far we are, for whoever draws lag graphs; we never read it back."""
        moved = {
            key: owned for key, owned in self.owned.items() if owned.position != owned.committed
        }
        if not moved:
            return
        offsets = [TopicPartition(*key, owned.position) for key, owned in moved.items()]
        try:
            with broker_errors("committing offsets"):
                if wait:
                    self._client.commit(offsets=offsets, asynchronous=False)
                else:
                    self._client.commit(offsets=offsets, asynchronous=True)
        except BrokerError as error:
            log.debug("commit", error=str(error))
        for owned in moved.values():
            owned.committed = owned.position

    def claim_again(self, key: Key) -> None:
        """After Redis went back: stop reading, and wait to be claimed at the offset that it now
        holds.
        """
        self._stop_reading(key)
        self._waiting.append(key)

    def drop(self, key: Key) -> None:
        """After a newer owner was met: leave the partition alone until the group assigns it
        again.
        """
        self._stop_reading(key)
        self._fenced_at_s = time.monotonic()

    def reached(self, ends: Mapping[Key, int]) -> None:
        """Ends that the reader has met, once all records before them are applied; control records
        have offsets too.
        """
        for key in ends.keys() & self.owned.keys():
            self.owned[key].position = max(self.owned[key].position, ends[key])

    def suspend(self) -> None:
        """Stop reading everything, stay in the group, keep the claims; records read but not applied
        are forgotten.
        """
        self._read([], list(self.owned))
        self._suspended = True

    def resume(self) -> None:
        """Read on after the last record applied."""
        self._suspended = False
        for owned in self.owned.values():
            owned.position, owned.at_end_since_s = owned.windows.next_offset, None
        self._read(list(self.owned), [])

    def rejoin_when_fenced(self) -> None:
        """Some time after a `drop`, ask the group for a new assignment: the newer owner may be gone
        for good.
        """
        if self._fenced_at_s is None or time.monotonic() - self._fenced_at_s < REJOIN_S:
            return
        self._fenced_at_s = None
        log.warning("rejoining", reason="a partition was taken over by another process")
        with broker_errors("leaving the group"):
            self._client.unsubscribe()
        self.join(self._topics)

    @property
    def trouble(self) -> str | None:
        """What keeps this process from its assigned partitions, None where nothing does; for
        /readyz.
        """
        if not self.joined:
            return "joining the consumer group"
        if self._fenced_at_s is not None:
            return "a partition was taken over by another process"
        return "claiming partitions" if self._waiting else None

    def positions(
        self, keys: Collection[Key], stored: Callable[[str, int], Header | None]
    ) -> dict[Key, int]:
        """The next offset of partitions: ours, or what `stored` says that another process of the
        group has written.
        """
        mine = {key: self.owned[key].position for key in keys if key in self.owned}
        others = {key: stored(*key) for key in keys if key not in self.owned}
        return mine | {
            key: (header.next_offset or 0) if header else 0 for key, header in others.items()
        }

    def _take_over(self, key: Key, windows: PartitionWindows, first: int, end: int) -> None:
        position = windows.header.next_offset
        if position is None:
            windows.start_at(first)
            position = first
            if first > 0:
                text = (
                    "the log has lost its first records: buckets before its first event are "
                    "missing, not half-filled"
                )
                log.warning("begun_late", topic=key[0], partition=key[1], offset=first, hint=text)
        check_inside(key, position, first, end)
        self.owned[key] = Owned(windows, position)
        self._read([key], [])
        log.info(
            "claimed", topic=key[0], partition=key[1], offset=position, epoch=windows.header.epoch
        )

    def _stop_reading(self, key: Key) -> None:
        if self.owned.pop(key, None) is not None:
            self._read([], [key])

    def _read(self, begin: list[Key], cease: list[Key]) -> None:
        if self._suspended:
            return
        starts = [TopicPartition(*key, self.owned[key].windows.next_offset) for key in begin]
        with broker_errors("choosing what to read"):
            self._client.incremental_unassign([TopicPartition(*key) for key in cease])
            self._client.incremental_assign(starts)

    def _assigned(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        # An empty assignment answers the group; without it the client would start to read by
        # itself.
        client.incremental_assign([])
        self._waiting += [(at.topic, at.partition) for at in partitions]
        self.joined = True
        self._fenced_at_s = None

    def _revoked(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        # A revocation is answered by unassigning, even when nothing of it was being read.
        keys = [(at.topic, at.partition) for at in partitions]
        reading = [
            key for key in keys if self.owned.pop(key, None) is not None and not self._suspended
        ]
        client.incremental_unassign([TopicPartition(*key) for key in reading])
        self._waiting = [key for key in self._waiting if key not in keys]
        log.info("revoked", partitions=[f"{topic}:{partition}" for topic, partition in keys])


def check_inside(key: Key, position: int, first: int, end: int) -> None:
    """Refuse a stored offset that the log no longer holds, or never held.

    Raises:
        LogLostError: The windows cannot be continued.
    """
    if not first <= position <= end:
        raise LogLostError(
            f"{key[0]}:{key[1]}: the windows in Redis end at offset {position}, and the log "
            f"holds {first} to {end}: "
            "the records between are gone, so the windows cannot be continued",
            hint=NEW_GENERATION_HINT,
        )
