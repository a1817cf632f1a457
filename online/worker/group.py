"""Which items are this worker's: its shards of the windows topic, and notices of new windows.

The group's offsets are those of the notices, which are hints and are never read twice. What is
written beside them counts: how far the forecasts of each shard have come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from freshet.online.worker.marks import Marks, decode_marks, encode_marks
from freshet.stream.config import Settings
from freshet.stream.kafka import (
    OFFSET_END,
    Consumer,
    KafkaException,
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
        self._timeout_s = settings.kafka.request_timeout_ms / 1_000
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

    # Progress -------------------------------------------------------------------------------------

    def marks(self) -> dict[int, Marks]:
        """How far the forecasts of each owned shard have come, as the last owner committed it.

        While its last transaction is open nobody knows, and the broker is asked again.

        Raises:
            BrokerError: It stays open, or the broker does not answer.
        """
        asked = [TopicPartition(self._topic, shard) for shard in sorted(self.shards)]
        return {at.partition: decode_marks(at.metadata or "") for at in self.committed(asked)}

    def offsets(self, marks: Mapping[int, Marks]) -> list[TopicPartition]:
        """What is to be committed, so that `marks` says it later."""
        at_of = {at.partition: at.offset for at in self._positions(marks)}
        return [
            # Before the first notice the client has no position of its own.
            TopicPartition(self._topic, shard, max(at_of[shard], 0), encode_marks(of_shard))
            for shard, of_shard in marks.items()
        ]

    def metadata(self) -> Any:
        """Generation and member, as the broker is told with offsets; None while this is no member.

        Kafka takes offsets from nobody in particular as from an administrator, so that a worker
        which has lost its membership must not ask.
        """
        found = self._client.consumer_group_metadata()
        return found if self._client.memberid() else None

    def committed(self, asked: Sequence[TopicPartition]) -> list[TopicPartition]:
        """What was committed last of some partitions, with what stands beside it.

        Raises:
            BrokerError: A transaction stays open, or the broker does not answer.
        """
        with broker_errors("asking how far the forecasts have come"):
            # Stable offsets alone, as the client's isolation level says.
            found = self._client.committed(list(asked), timeout=self._timeout_s)
            for at in found:
                if at.error is not None:
                    raise KafkaException(at.error)
        return found

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        """Commit outside a transaction.

        Raises:
            BrokerError: The broker refuses.
        """
        with broker_errors("committing how far the forecasts have come"):
            self._client.commit(offsets=list(offsets), asynchronous=False)

    def _positions(self, shards: Iterable[int]) -> list[TopicPartition]:
        asked = [TopicPartition(self._topic, shard) for shard in shards]
        with broker_errors("asking for the place among the notices"):
            return self._client.position(asked)

    # Rebalancing ----------------------------------------------------------------------------------

    def _assigned(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        # Offsets are kept for what stands beside them: an old notice is no use to anybody.
        ends = [TopicPartition(at.topic, at.partition, OFFSET_END) for at in partitions]
        client.incremental_assign(ends)
        self._become(self.shards | {at.partition for at in partitions})

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._become(self.shards - {at.partition for at in partitions})

    def _become(self, shards: frozenset[int]) -> None:
        if shards != self.shards:
            self.shards, self.version = shards, self.version + 1
            log.info("shards_changed", shards=sorted(shards), of=self.num_shards)
