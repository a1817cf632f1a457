"""What ingest sends: dead letters and late records, alerts, and notices to the workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, EventError
from freshet.stream.events.dead_letter import (
    dead_letter,
    late_record,
    limit_of,
    source_of,
)
from freshet.stream.events.letters import MAX_ERROR_CHARACTERS
from freshet.stream.events.limits import LINE_HEADER
from freshet.stream.fold.batches import Fold
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.kafka import (
    Key,
    Message,
    Outgoing,
    Publisher,
    RecordsRefusedError,
    give_up,
    send,
    shard_of,
)
from freshet.stream.schemas import Alert, WindowsAdvanced
from freshet.stream.telemetry import get_logger

NOTICES_TIMEOUT_MS = 1_500
log = get_logger(__name__)

Dead = Sequence[tuple[int, EventError]]


@dataclass(frozen=True, slots=True)
class FoldedBatch:
    """One partition's records of a turn, judged and added up, of which nothing is durable yet.

    `told_before` is the offset before which an older generation has told of dead and late records.
    """

    key: Key
    windows: PartitionWindows
    messages: Sequence[Message]
    fold: Fold
    told_before: int

    @property
    def num_dead(self) -> int:
        """How many records are dead letters that are to be sent; of others, lines may be."""
        whole = [letter for letter in self.fold.dead if letter.line is None]
        offsets = [self.messages[letter.index].offset() or 0 for letter in whole]
        return sum(offset >= self.told_before for offset in offsets)


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
        self._letters = Publisher(settings)
        self._notices = Publisher(settings)

    def publish_unfit(self, batches: Iterable[FoldedBatch]) -> None:
        """Send these batches' dead letters and late records; returns when all are acknowledged.

        One that the broker will never take (its topic has a smaller limit than ours) is logged with
        its bytes, or its partition would be held up for ever.

        Raises:
            BrokerError: At least one was not; publish all of them again.
        """
        self._publish([record for batch in batches for record in self._unfit(batch)])

    def publish_unusable(self, messages: Sequence[Message], dead: Dead) -> None:
        """Send the dead letters of a table's batch; returns when all are acknowledged.

        Raises:
            BrokerError: At least one was not; publish all of them again.
        """
        letters = []
        for place, error in dead:
            source = source_of(messages[place])
            name, text = type(error).__name__, str(error)[:MAX_ERROR_CHARACTERS]
            letters.append(dead_letter(source, "table", name, text, self._limit_bytes))
            self._metrics.dead_letters.labels("table", name).inc()
            where = {"topic": source.topic, "partition": source.partition, "offset": source.offset}
            log.warning("record_unusable", error=text, **where)
        self._publish(letters)

    def _publish(self, records: list[Outgoing]) -> None:
        if not records:
            return
        try:
            send(self._letters, records)
        except RecordsRefusedError as error:
            if not all(refusal.unfit for refusal in error.refusals):
                raise
            for refusal in error.refusals:
                self._metrics.refused.labels(refusal.topic).inc()
                give_up(refusal)

    def _unfit(self, batch: FoldedBatch) -> list[Outgoing]:
        records = []
        for letter in batch.fold.dead:
            source = source_of(batch.messages[letter.index])
            if source.offset < batch.told_before:
                continue
            if letter.line is not None:
                headers = [*source.headers, (LINE_HEADER, b"%d" % letter.line)]
                source = source._replace(headers=headers)
            record = dead_letter(
                source, letter.stage, letter.error_class, letter.message, self._limit_bytes
            )
            records.append(record)
            self._metrics.dead_letters.labels(letter.stage, letter.error_class).inc()
        for index in batch.fold.too_late:
            source = source_of(batch.messages[index])
            if source.offset >= batch.told_before:
                records.append(late_record(source, self._topics.late, self._limit_bytes))
        return records

    def alert(self, alert: Alert) -> None:
        """Tell people; waits for the broker no longer than a flush takes, and never raises.

        The pause itself holds in any case, and /readyz says it too.
        """
        try:
            self._letters.produce(self._topics.alerts, encode(alert), key=alert.subject)
            self._letters.flush()
        except BrokerError as error:
            log.error("alert_not_sent", title=alert.data.title, error=str(error))

    def mention(self, alert: Alert) -> None:
        """Tell people without waiting for the broker: the log says the same."""
        try:
            self._notices.produce(self._topics.alerts, encode(alert), key=alert.subject)
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
        for shard in shards_of(item_ids, self._num_shards):
            self._notices.produce(self._topics.windows, value, partition=shard)

    def close(self) -> None:
        """Wait for what is queued; never raises."""
        self._letters.close()
        # Whoever reads on says it anew.
        self._notices.close(NOTICES_TIMEOUT_MS)


def shards_of(item_ids: Iterable[str] | None, num_shards: int) -> list[int]:
    """The shards that these items belong to, rising; None is every item, and so every shard.

    >>> shards_of(["a|north", "b|north"], 1), shards_of(None, 3)
    ([0], [0, 1, 2])
    """
    if item_ids is None:
        return list(range(num_shards))
    shards: set[int] = set()
    for item_id in item_ids:
        shards.add(shard_of(item_id, num_shards))
        if len(shards) == num_shards:
            break
    return sorted(shards)
