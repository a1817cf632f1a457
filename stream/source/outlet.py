"""Where a source's batches go: the topics, and the clock; held back while ingest lags behind."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar, get_args

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, FreshetError
from freshet.stream.health import Health
from freshet.stream.kafka import Publisher, consumer, log_range, partitions_of
from freshet.stream.process import Stop
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
MAX_TIMEOUT_MS = 2_000
LAST_WORDS_S = 3.0

T = TypeVar("T")


class KafkaOutlet:
    """Sends batches, and looks at the windows in Redis to see how much of them is still unread.

    An embedded broker forgets what is older than about 5 MB in a partition, so no partition may
    hold more than `MAX_UNREAD_BYTES` that ingest has not folded.

    A broker or a Redis that goes away is asked again until it answers or the source is told to
    stop. What was not acknowledged is sent again, so a record may be in the log twice.
    """

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._health = Health(stop, "starting")
        self._patient_until_s = float("inf")
        self._unsent: list[SourceBatch] = []
        self._unacknowledged: list[SourceBatch] = []
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
            timeout_ms = min(settings.redis.timeout_ms, MAX_TIMEOUT_MS)
            self._redis = connect(settings.redis.model_copy(update={"timeout_ms": timeout_ms}))
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
        self._health.started()

    def room_for(self, batch: SourceBatch) -> bool:
        """Whether no partition would hold too much, even if it got the whole batch."""
        values_bytes = sum(len(value or b"") for value in batch.values)
        batch_bytes = values_bytes + len(batch) * RECORD_OVERHEAD_BYTES
        if self._sent_bytes + batch_bytes <= self._allowed_bytes:
            return True
        unread_bytes = self._answer(self.unread_bytes)
        if unread_bytes is None:
            return False
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
        return self._answer(self.unread_bytes) == 0

    def unread_bytes(self) -> int:
        """What the fullest partition of orders and clicks holds that is not in the windows yet.

        Waits for all acknowledgements, then asks broker and Redis.
        """
        self._flush()
        return max(
            round(self._unread(topic, number) * self._mean_bytes(topic))
            for topic, number in self._partitions
        )

    def _unread(self, topic: str, partition: int) -> int:
        """Records of a partition from where ingest will go on."""
        wait = self._health.stop.wait
        low, high = log_range(self._asker, topic, partition, MAX_TIMEOUT_MS, wait=wait)
        header = self._store.header(topic, partition)
        next_offset = None if header is None else header.next_offset
        return max(0, high - (low if next_offset is None else next_offset))

    def _mean_bytes(self, topic: str) -> float:
        return self._bytes[topic] / self.produced[topic] if self.produced[topic] else 1.0

    def send(self, batch: SourceBatch) -> None:
        """Queue the batch's records with their own timestamps."""
        for kind, value in zip(batch.kinds, batch.values, strict=True):
            record_bytes = len(value or b"") + RECORD_OVERHEAD_BYTES
            self._bytes[self._topics[kind]] += record_bytes
            self.produced[self._topics[kind]] += 1
            self._sent_bytes += record_bytes
        self._unsent.append(batch)
        self._answer(self._queue)

    def _queue(self) -> None:
        while self._unsent:
            batch = self._unsent[0]
            columns = zip(batch.kinds, batch.keys, batch.values, batch.timestamps_ms, strict=True)
            for kind, key, value, timestamp_ms in columns:
                topic = self._topics[kind]
                self._publisher.produce(topic, value, key=key, timestamp_ms=timestamp_ms)
            self._unacknowledged.append(self._unsent.pop(0))

    def flush(self) -> None:
        """Return when the broker has everything.

        Raises:
            BrokerError: It does not have everything, and the source was told to stop; or it refuses
                some of it.
        """
        self._answer(self._flush)
        left = [*self._unacknowledged, *self._unsent]
        if left:
            raise BrokerError(f"{sum(map(len, left))} records were not acknowledged at the stop")

    def _flush(self) -> None:
        self._queue()
        try:
            self._publisher.flush(stopped=lambda: not self._patient())
        except BrokerError:
            self._unsent[:0] = self._unacknowledged
            self._unacknowledged.clear()
            raise
        self._unacknowledged.clear()

    def set_clock(self, simulated_ms: int, speed: float) -> None:
        """Move the shared clock's anchor."""
        self._answer(lambda: set_anchor(self._redis, simulated_ms, speed))

    def _answer(self, ask: Callable[[], T]) -> T | None:
        """What a server answers, asked again until it does; None when told to stop meanwhile."""
        while self._patient():
            try:
                answer = ask()
            except FreshetError as error:
                if not error.retriable:
                    raise
                if not self._health.wait_out(error):
                    self._patient_until_s = 0.0
            else:
                self._health.turned()
                self._health.answered()
                return answer
        return None

    def _patient(self) -> bool:
        """Whether it is worth asking: always, but only for a moment once told to stop."""
        if self._health.stop.is_set():
            self._patient_until_s = min(self._patient_until_s, time.monotonic() + LAST_WORDS_S)
        return time.monotonic() < self._patient_until_s

    def close(self) -> None:
        """Let go of broker and Redis."""
        self._open.close()
