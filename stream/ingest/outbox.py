"""What ingest sends: dead letters and late records, waited for; notices to the workers, not waited
for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.events.dead_letter import (
    Outgoing,
    dead_letter,
    late_record,
    limit_of,
    source_of,
)
from freshet.stream.fold.partition import Fold, PartitionWindows
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.kafka import Message, Publisher, shard_of
from freshet.stream.schemas import Alert, WindowsAdvanced
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


class Outbox:
    """Two producers, so that a batch's dead letters never wait for a notice.

    Args:
        settings: Names of the topics and limits.
        num_shards: Partitions of the windows topic.
        metrics: Where dead letters are counted.
    """

    def __init__(self, settings: Settings, num_shards: int, metrics: IngestMetrics) -> None:
        self._topics = settings.kafka.topics
        self._limit_bytes = limit_of(settings.kafka)
        self._num_shards = num_shards
        self._metrics = metrics
        self._letters, self._notices = Publisher(settings), Publisher(settings)

    def publish_unfit(self, folds: Iterable[tuple[Sequence[Message], Fold, int]]) -> None:
        """Send the dead letters and late records of these batches; returns when all are
        acknowledged.

        Args:
            folds: Each with its messages and the offset before which its records were told of
                already.

        Raises:
            BrokerError: At least one was not; publish all of them again.
        """
        unfit = [
            record for messages, fold, told in folds for record in self._unfit(messages, fold, told)
        ]
        for record in unfit:
            self._letters.produce(
                record.topic, record.value, key=record.key, headers=record.headers
            )
        if unfit:
            self._letters.flush()

    def _unfit(self, messages: Sequence[Message], fold: Fold, told: int) -> list[Outgoing]:
        records = []
        for letter in fold.dead:
            source = source_of(messages[letter.index])
            if source.offset < told:
                continue
            records.append(
                dead_letter(
                    source, letter.stage, letter.error_class, letter.message, self._limit_bytes
                )
            )
            self._metrics.dead_letters.labels(letter.stage, letter.error_class).inc()
        late = [source_of(messages[index]) for index in fold.late]
        return records + [
            late_record(source, self._topics.late, self._limit_bytes)
            for source in late
            if source.offset >= told
        ]

    def alert(self, alert: Alert) -> None:
        """Tell people; a broker that is away is not waited for longer than a flush takes, and never
        raises.

        The pause itself holds in any case, and /readyz says it too.
        """
        try:
            self._letters.produce(self._topics.alerts, encode(alert), key=alert.subject)
            self._letters.flush()
        except BrokerError as error:
            log.error("alert_not_sent", title=alert.data.title, error=str(error))

    def notify(self, windows: PartitionWindows, item_ids: Iterable[str] | None = None) -> None:
        """Tell the shards of these items (None: all shards) how far a partition's windows are.

        A hint, so nobody waits for its acknowledgement: workers also look every second.
        """
        header = windows.header
        if header.next_offset is None:
            return
        notice = WindowsAdvanced(
            topic=windows.topic,
            partition=windows.partition,
            epoch=header.epoch,
            offset=header.next_offset,
            frontier_ms=header.frontier_ms or 0,
        )
        value = encode(notice)
        shards = (
            range(self._num_shards) if item_ids is None else shards_of(item_ids, self._num_shards)
        )
        for shard in shards:
            self._notices.produce(self._topics.windows, value, partition=shard)

    def close(self) -> None:
        """Wait for what is queued; never raises."""
        self._letters.close()
        self._notices.close()


def shards_of(item_ids: Iterable[str], num_shards: int) -> list[int]:
    """The shards that these items belong to, rising.

    >>> shards_of(["a|north", "b|north"], 1)
    [0]
    """
    shards: set[int] = set()
    for item_id in item_ids:
        shards.add(shard_of(item_id, num_shards))
        if len(shards) == num_shards:
            break
    return sorted(shards)
