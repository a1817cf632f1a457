"""Records that only the newest process of a name writes: whoever slept finds itself shut out.

A lease says who should write, but stops nobody who sleeps past its end. Kafka does: once another
producer has begun under the same transactional id, it refuses everything of the one before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.failpoints import failpoint
from freshet.stream.kafka.client import broker_error, producer
from freshet.stream.kafka.publisher import QUEUE_FULL_WAIT_S, Outgoing, Publisher
from freshet.stream.kafka.transactions import (
    CALL_TIMEOUT_S,
    TRANSACTION_TIMEOUT_MS,
    is_fenced,
    repeated,
)


class FencedError(BrokerError):
    """Another process writes under this name by now, or this one's session is over."""


class Writes(Protocol):
    """Writes records so that all of them are acknowledged, or it raises."""

    def write(self, records: Sequence[Outgoing]) -> None:
        """Return when all are in the log.

        Raises:
            FencedError: Nothing will ever be written by this process again.
            BrokerError: Perhaps some are and some not; writing them again is right.
        """

    def close(self) -> None:
        """Leave nothing open."""


class Fenced:
    """Writes in transactions of one fixed name; blocks at its start until older ones are shut out.

    Args:
        settings: Where to connect.
        name: The transactional id, the same for every process that may ever be the one.

    Raises:
        BrokerError: The broker does not answer, or knows no transactions.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._over = False
        self._client = producer(
            settings,
            transactional_id=name,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            delivery_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )
        try:
            repeated(self._client.init_transactions)
        except KafkaException as error:
            raise broker_error(f"beginning to write as {name}", error) from None

    def write(self, records: Sequence[Outgoing]) -> None:
        """See `Writes`; a reader of committed records sees all of them or none."""
        if self._over:
            raise FencedError("this producer's session is over")
        try:
            self._client.begin_transaction()
            for record in records:
                self._produce(record)
            failpoint("fenced_produced")
            repeated(self._client.commit_transaction)
        except KafkaException as error:
            if is_fenced(error.args[0]):
                self._over = True
                raise FencedError(f"writing: {error.args[0].str()}") from None
            self._abort()
            raise broker_error("writing", error) from None
        except BrokerError:
            self._abort()
            raise

    def close(self) -> None:
        """End an open transaction, which would hold up readers until it times out."""
        self._abort()

    def _produce(self, record: Outgoing) -> None:
        deadline_s = time.monotonic() + CALL_TIMEOUT_S
        while True:
            try:
                self._client.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    headers=list(record.headers) or None,
                )
                return
            except BufferError:
                if time.monotonic() > deadline_s:
                    raise BrokerError("the queue of unsent records does not drain") from None
                self._client.poll(QUEUE_FULL_WAIT_S)

    def _abort(self) -> None:
        """End what was begun; where that fails nothing more is written.

        A new session under this name might shut out whoever rightly has it.
        """
        try:
            repeated(self._client.abort_transaction)
        except KafkaException as error:
            self._over = error.args[0].code() != KafkaError._STATE


class Acknowledged:
    """For brokers without transactions: nothing shuts out whoever slept.

    Args:
        settings: Where to connect.
    """

    def __init__(self, settings: Settings) -> None:
        self._publisher = Publisher(settings)

    def write(self, records: Sequence[Outgoing]) -> None:
        """See `Writes`."""
        for record in records:
            self._publisher.produce(
                record.topic,
                record.value,
                key=record.key,
                partition=record.partition,
                headers=record.headers,
            )
        self._publisher.flush()

    def close(self) -> None:
        """See `Writes`."""
        self._publisher.close()
