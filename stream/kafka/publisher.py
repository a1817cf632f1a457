"""Sends records, and says when the broker has acknowledged all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, RefusedError
from freshet.stream.kafka.client import broker_error, producer
from freshet.stream.telemetry import get_logger

Headers = Sequence[tuple[str, bytes | None]]

QUEUE_FULL_WAIT_S = 0.1
CLOSE_TIMEOUT_MS = 5_000
SLICE_S = 0.2
# What is wrong with a record stays wrong however often it is sent.
UNFIT = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
    }
)
# Where it is to go is missing or closed to us, until a person acts.
_NOWHERE = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)

log = get_logger(__name__)


class Outgoing(NamedTuple):
    """A record to send; its timestamp is the time of sending.

    Partition -1 lets the key decide, and a null value is a tombstone.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int = -1


class Refusal(NamedTuple):
    """A record that the broker does not take, and why.

    `unfit` is a fault of the record; else its topic is missing or closed to us.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    reason: str
    unfit: bool


class RecordsRefusedError(RefusedError):
    """Some of the records since the last flush were refused for good, all others acknowledged."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        first = refusals[0]
        super().__init__(
            f"{len(refusals)} records were refused for good; first: {first.topic}: {first.reason}"
        )
        self.refusals = tuple(refusals)


class Publisher:
    """A producer whose `flush` returns only when every record was acknowledged.

    Durable effects: a record counts only after a `flush` that returned. When `flush` raises, some
    of the records since the last one may be in the log and some not: send all of them again, but
    those that a `RecordsRefusedError` names.
    """

    def __init__(self, settings: Settings, **over: Any) -> None:
        self._settings, self._over = settings, over
        self._client = producer(settings, **over)
        self._failed: list[str] = []
        self._refused: list[Refusal] = []
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

        A record that is larger than any broker would take is named by the next `flush`.

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
                if not self._refuses(error.args[0], topic, key, value):
                    raise broker_error(f"sending to {topic}", error) from None
                break
            except BufferError:
                if time.monotonic() > deadline:
                    raise BrokerError(
                        f"sending to {topic}: the queue of unsent records does not drain"
                    ) from None
                self._client.poll(QUEUE_FULL_WAIT_S)
        self._client.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        if self._refuses(error, message.topic() or "", message.key(), message.value()):
            return
        self._failed.append(f"{message.topic()}: {error.str()}")
        self._broken = self._broken or error.fatal()

    def _refuses(
        self, error: KafkaError, topic: str, key: bytes | str | None, value: bytes | None
    ) -> bool:
        """Whether an error is a refusal; notes which record it is about."""
        unfit = error.code() in UNFIT
        if not unfit and error.code() not in _NOWHERE:
            return False
        named = key.encode() if isinstance(key, str) else key
        self._refused.append(Refusal(topic, named, value, error.str(), unfit))
        return True

    def flush(
        self, timeout_ms: int | None = None, *, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Return when all records are acknowledged.

        Args:
            timeout_ms: Longest wait; None is four times `kafka.request_timeout_ms`. What is unsent
                then is dropped.
            stopped: Ends the wait early when true.

        Raises:
            RecordsRefusedError: The broker will never take some; all others are acknowledged.
            BrokerError: At least one other record was not acknowledged.
        """
        wait_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        deadline_s = time.monotonic() + wait_ms / 1_000
        unsent = self._client.flush(min(SLICE_S, wait_ms / 1_000))
        while unsent and time.monotonic() < deadline_s and not stopped():
            unsent = self._client.flush(SLICE_S)
        if unsent:
            self._client.purge()
            self._client.flush(1)
        failed, self._failed = self._failed, []
        refused, self._refused = self._refused, []
        if self._broken:
            self._client, self._broken = producer(self._settings, **self._over), False
        if failed or unsent:
            first = failed[0] if failed else "the broker did not answer in time"
            lost = max(len(failed), unsent)
            raise BrokerError(f"{lost} records were not acknowledged; first: {first}")
        if refused:
            raise RecordsRefusedError(refused)

    def close(self, timeout_ms: int = CLOSE_TIMEOUT_MS) -> None:
        """Wait a moment for what is queued; a loss is said in the log, never raised."""
        try:
            self.flush(timeout_ms)
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
