"""Which items are this worker's: its shards of the windows topic, and notices of new windows."""

from __future__ import annotations

from freshet.stream.config import Settings
from freshet.stream.kafka import (
    Consumer,
    TopicPartition,
    broker_errors,
    consumer,
    partitions_of,
    shard_of,
    take,
)
from freshet.stream.telemetry import get_logger

MAX_NOTICES = 1_000

log = get_logger(__name__)


class Membership:
    """A member of the worker group.

    Its shards change only inside `poll`, and then `version` rises.

    Args:
        settings: Where to connect, and the topic's name.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.kafka.topics.windows
        self.num_shards = partitions_of(settings, [self._topic])[self._topic]
        self.shards: frozenset[int] = frozenset()
        self.version = 0
        # Notices are hints: what was sent before this worker came is in Redis.
        self._client = consumer(settings, "worker", auto_offset_reset="latest")
        with broker_errors("joining the worker group"):
            self._client.subscribe(
                [self._topic],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._revoked,
            )

    def poll(self, max_wait_ms: int) -> list[bytes | None]:
        """Serve the group; returns the notices that came, `WindowsAdvanced` each, oldest first.

        Waits the whole time, for hundreds come a second; see `freshet.online.worker.pace`. To be
        called at least every few minutes.

        Raises:
            BrokerError: The broker refuses.
        """
        found = take(self._client, MAX_NOTICES, max_wait_ms).messages
        return [message.value() for message in found]

    def owns(self, item_id: str) -> bool:
        """Whether an item is this worker's to forecast."""
        # A lone worker need not hash every item.
        alone = len(self.shards) == self.num_shards
        return alone or shard_of(item_id, self.num_shards) in self.shards

    def close(self) -> None:
        """Leave the group; blocks for a moment."""
        self._client.close()

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._become(self.shards | {at.partition for at in partitions})

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._become(self.shards - {at.partition for at in partitions})

    def _become(self, shards: frozenset[int]) -> None:
        if shards != self.shards:
            self.shards, self.version = shards, self.version + 1
            log.info("shards_changed", shards=sorted(shards), of=self.num_shards)
