"""Where a source's batches go: the topics, and the clock; held back while ingest lags behind."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import get_args

from freshet.stream.config import Settings
from freshet.stream.kafka import Publisher, consumer, log_range, partitions_of
from freshet.stream.source.batches import SourceBatch, TopicKind
from freshet.stream.store.clock import set_anchor
from freshet.stream.store.connection import connect
from freshet.stream.store.generation import current_generation
from freshet.stream.store.redis import WindowStore

MAX_UNREAD_BYTES = 3_000_000
LOW_UNREAD_BYTES = 2_000_000
RECORD_OVERHEAD_BYTES = 40
MAX_QUEUED_KBYTES = 65_536
LINGER_MS = 20


class KafkaOutlet:
    """Sends batches, and looks at the windows in Redis to see how much of them is still unread.

    An embedded broker forgets what is older than about 5 MB in a partition, so no partition may
    hold more than `MAX_UNREAD_BYTES` that ingest has not folded.
    """

    def __init__(self, settings: Settings) -> None:
        topics = settings.kafka.topics
        self._topics: dict[TopicKind, str] = {
            kind: getattr(topics, kind) for kind in get_args(TopicKind)
        }
        self.produced: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        # Broker and Redis are asked rarely: each answer allows so many bytes until the next.
        self._allowed_bytes = 0
        self._sent_bytes = 0
        with ExitStack() as stack:
            self._redis = connect(settings.redis)
            stack.callback(self._redis.close)
            counts = partitions_of(settings, list(self._topics.values()))
            self._partitions = [
                (topic, number)
                for topic in (topics.orders, topics.clicks)
                for number in range(counts[topic])
            ]
            generation = current_generation(self._redis, settings.redis.generation)
            self._store = WindowStore(self._redis, generation)
            self._asker = consumer(settings, "source")
            stack.callback(self._asker.close)
            self._publisher = Publisher(
                settings, queue_buffering_max_kbytes=MAX_QUEUED_KBYTES, linger_ms=LINGER_MS
            )
            stack.callback(self._publisher.close)
            self._open = stack.pop_all()

    def room_for(self, batch: SourceBatch) -> bool:
        """Whether no partition would hold too much, even if it got the whole batch."""
        values_bytes = sum(len(value or b"") for value in batch.values)
        batch_bytes = values_bytes + len(batch) * RECORD_OVERHEAD_BYTES
        if self._sent_bytes + batch_bytes <= self._allowed_bytes:
            return True
        unread_bytes = self.unread_bytes()
        self._sent_bytes = 0
        # Once full, wait for more room than a little, or every batch would be asked about.
        room = unread_bytes <= LOW_UNREAD_BYTES
        self._allowed_bytes = MAX_UNREAD_BYTES - unread_bytes if room else 0
        if unread_bytes == 0:
            # A batch that is larger than the limit has to go at some time.
            self._allowed_bytes = max(self._allowed_bytes, batch_bytes)
        return batch_bytes <= self._allowed_bytes

    def drained(self) -> bool:
        """Whether ingest has folded everything that is in the logs."""
        return self.unread_bytes() == 0

    def unread_bytes(self) -> int:
        """What the fullest partition of orders and clicks holds that is not in the windows yet.

        Waits for all acknowledgements, then asks broker and Redis.
        """
        self._publisher.flush()
        return max(
            round(self._unread(topic, number) * self._mean_bytes(topic))
            for topic, number in self._partitions
        )

    def _unread(self, topic: str, partition: int) -> int:
        """Records of a partition from where ingest will go on."""
        low, high = log_range(self._asker, topic, partition)
        header = self._store.header(topic, partition)
        next_offset = None if header is None else header.next_offset
        return max(0, high - (low if next_offset is None else next_offset))

    def _mean_bytes(self, topic: str) -> float:
        return self._bytes[topic] / self.produced[topic] if self.produced[topic] else 1.0

    def send(self, batch: SourceBatch) -> None:
        """Queue the batch's records with their own timestamps."""
        columns = zip(batch.kinds, batch.keys, batch.values, batch.timestamps_ms, strict=True)
        for kind, key, value, timestamp_ms in columns:
            topic = self._topics[kind]
            self._publisher.produce(topic, value, key=key, timestamp_ms=timestamp_ms)
            record_bytes = len(value or b"") + RECORD_OVERHEAD_BYTES
            self._bytes[topic] += record_bytes
            self.produced[topic] += 1
            self._sent_bytes += record_bytes

    def flush(self) -> None:
        """Return when the broker has everything."""
        self._publisher.flush()

    def set_clock(self, simulated_ms: int, speed: float) -> None:
        """Move the shared clock's anchor."""
        set_anchor(self._redis, simulated_ms, speed)

    def close(self) -> None:
        """Let go of broker and Redis."""
        self._open.close()
