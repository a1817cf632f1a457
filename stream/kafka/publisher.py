"""Sends records, and says when the broker has acknowledged all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka.client import broker_error, producer
from freshet.stream.telemetry import get_logger

Headers = Sequence[tuple[str, bytes | None]]

QUEUE_FULL_WAIT_S = 0.1
CLOSE_TIMEOUT_MS = 5_000

log = get_logger(__name__)


class Publisher:
    """A producer whose `flush` returns only when every record was acknowledged.

    Durable effects: a record counts only after a `flush` that returned. When `flush` raises, some
    of the records since the last one may be in the log and some not: send all of them again.
    """

    def __init__(self, settings: Settings, **over: Any) -> None:
        self._settings, self._over = settings, over
        self._client = producer(settings, **over)
        self._failed: list[str] = []
        self._broken = False
        self._timeout_ms = 4 * settings.kafka.request_timeout_ms

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None = None,
        partition: int = -1,
        headers: Headers | None = None,
        timestamp_ms: int = 0,
    ) -> None:
        """Queue one record; waits while the queue is full, so memory is bounded.

        Args:
            topic: Where to.
            value: None is a tombstone.
            key: Decides the partition unless `partition` is given.
            partition: -1 lets the key decide.
            headers: In order; kept as they are.
            timestamp_ms: 0 is the time of sending.

        Raises:
            BrokerError: The record cannot be queued, or the queue did not drain in time.
        """
        deadline = time.monotonic() + self._timeout_ms / 1_000
        while True:
            try:
                self._client.produce(
                    topic,
                    value,
                    key,
                    partition,
                    on_delivery=self._delivered,
                    timestamp=timestamp_ms,
                    headers=list(headers) if headers else None,
                )
                break
            except KafkaException as error:
                raise broker_error(f"sending to {topic}", error) from None
            except BufferError:
                if time.monotonic() > deadline:
                    raise BrokerError(
                        f"sending to {topic}: the queue of unsent records does not drain"
                    ) from None
                self._client.poll(QUEUE_FULL_WAIT_S)
        self._client.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")
            self._broken = self._broken or error.fatal()

    def flush(self, timeout_ms: int | None = None) -> None:
        """Return when all records are acknowledged.

        Args:
            timeout_ms: Longest wait; None is four times `kafka.request_timeout_ms`. What is unsent
                then is dropped.

        Raises:
            BrokerError: At least one record was not acknowledged.
        """
        wait_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        unsent = self._client.flush(wait_ms / 1_000)
        if unsent:
            self._client.purge()
            self._client.flush(1)
        failed, self._failed = self._failed, []
        if self._broken:
            self._client, self._broken = producer(self._settings, **self._over), False
        if failed or unsent:
            first = failed[0] if failed else "the broker did not answer in time"
            lost = max(len(failed), unsent)
            raise BrokerError(f"{lost} records were not acknowledged; first: {first}")

    def close(self) -> None:
        """Wait a moment for what is queued; a loss is said in the log, never raised."""
        try:
            self.flush(CLOSE_TIMEOUT_MS)
        except BrokerError as error:
            log.error("unacknowledged_at_close", error=str(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
