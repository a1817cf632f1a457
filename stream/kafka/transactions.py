"""Records and offsets that become visible together, once, and only to the group's present owner.

A transaction names the group's metadata (KIP-447): Kafka refuses it from whoever is no member of
the group's present generation. So whoever slept past its session writes nothing, however late it
wakes.
Whose the partitions are Kafka does not ask: a member looks itself, after each poll.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.failpoints import failpoint
from freshet.stream.health import Health
from freshet.stream.kafka.client import broker_error, producer
from freshet.stream.kafka.delivery import Delivery, give_up
from freshet.stream.kafka.publisher import UNFIT, Outgoing, Refusal
from freshet.stream.telemetry import get_logger

TRANSACTION_TIMEOUT_MS = 10_000
QUEUE_FULL_WAIT_S = 0.1
# A call that may be repeated is repeated for as long as a transaction may last, then given up.
CALL_TIMEOUT_S = TRANSACTION_TIMEOUT_MS / 1_000
LATE_S = 2.0

_NOT_THE_OWNER = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
    }
)
# The producer's session is over: another one begins anew.
_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.INVALID_TXN_STATE,
    }
)

log = get_logger(__name__)


class NotTheOwnerError(BrokerError):
    """The partitions belong to another member of the group by now; nothing was written."""


class _NoAnswerError(BrokerError):
    """A call has not returned, and its producer is of no more use."""


class Group(Protocol):
    """Whose offsets a transaction moves."""

    def metadata(self) -> Any:
        """Generation and member, as the broker is told; None while this is no member."""

    def committed(self, asked: Sequence[TopicPartition]) -> list[TopicPartition]:
        """The newest offsets that are not part of an open transaction, and what stands beside."""

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        """Move offsets without a transaction."""


class Commits(Protocol):
    """Writes records together with how far their making has come."""

    def commit(self, records: Sequence[Outgoing], offsets: Sequence[TopicPartition]) -> bool:
        """Write all of it; False when told to stop before that.

        Raises:
            NotTheOwnerError: Somebody else goes on from what was committed before.
        """

    def renew(self) -> None:
        """Begin anew, as after a broker was away for long."""

    def close(self) -> None:
        """Leave nothing open."""


class ExactlyOnce:
    """Commits in transactions: a reader of committed records sees all of one or nothing.

    A broker that is away is waited for. What Kafka will never take (too large) is logged with its
    bytes and left out; the rest is committed without it.

    Args:
        settings: Where to connect.
        name: The transactional id: of this process alone.
        group: Whose offsets are moved.
        health: Told of troubles; pauses between attempts, and ends them.
    """

    def __init__(self, settings: Settings, name: str, group: Group, health: Health) -> None:
        self._group = group
        self._health = health
        # A record that is larger than the topic takes is refused here, where it has a name.
        over = {
            "transactional_id": name,
            "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
            "delivery_timeout_ms": TRANSACTION_TIMEOUT_MS,
            "message_max_bytes": settings.kafka.max_record_bytes,
        }
        self._open = partial(producer, settings, **over)
        self._producer: Producer | None = None
        self._refused: list[Refusal] = []
        # Kafka refuses a batch as a whole: one record in each says which it was.
        self._one_by_one = False
        # The broker was told to commit and never answered: it may have done so.
        self._in_doubt = False

    def commit(self, records: Sequence[Outgoing], offsets: Sequence[TopicPartition]) -> bool:
        """See `Commits`."""
        left = list(records)
        self._in_doubt = False
        while True:
            try:
                if not self._is_out(offsets):
                    self._attempt(left, offsets)
            except NotTheOwnerError:
                raise
            except BrokerError as error:
                left = self._without_refused(left)
                if not self._health.wait_out(error):
                    return False
                continue
            self._health.answered()
            self._health.over("broker")
            self._send_one_by_one(False)
            return True

    def renew(self) -> None:
        """Write by a new producer: one that saw its broker restart may not find the group's
        coordinator again.
        """
        self._drop()

    def close(self) -> None:
        """End an open transaction, which would hold up readers until it times out."""
        self._abort()

    def _attempt(self, records: Sequence[Outgoing], offsets: Sequence[TopicPartition]) -> None:
        client = self._ready()
        try:
            client.begin_transaction()
            for record in records:
                self._produce(client, record)
            failpoint("transaction_produced")
            metadata = self._group.metadata()
            if metadata is None:
                raise NotTheOwnerError("this worker is no member of its group any more")
            send = partial(client.send_offsets_to_transaction, list(offsets), metadata)
            _within(CALL_TIMEOUT_S + LATE_S, partial(repeated, send))
            failpoint("transaction_offsets_sent")
            self._end(client)
        except KafkaException as error:
            self._after(error.args[0])
            raise self._as_ours(error) from None
        except _NoAnswerError:
            self._drop()
            raise
        except BrokerError:
            self._abort()
            raise

    def _end(self, client: Producer) -> None:
        try:
            repeated(client.commit_transaction)
        except KafkaException as error:
            cause = error.args[0]
            self._in_doubt = not (cause.txn_requires_abort() or is_fenced(cause))
            raise

    def _is_out(self, offsets: Sequence[TopicPartition]) -> bool:
        """Whether a commit that nobody answered happened: the offsets that it moved tell.

        Raises:
            BrokerError: Nobody answers this either.
        """
        if not self._in_doubt:
            return False
        # A new producer of this name has the broker end what the last one began.
        self._ready()
        found = self._group.committed(offsets)
        self._in_doubt = False
        return _moves(found) == _moves(offsets)

    def _ready(self) -> Producer:
        if self._producer is None:
            client = self._open(**({"batch_num_messages": 1} if self._one_by_one else {}))
            try:
                repeated(client.init_transactions)
            except KafkaException as error:
                raise broker_error("beginning to write in transactions", error) from None
            self._producer = client
        return self._producer

    def _produce(self, client: Producer, record: Outgoing) -> None:
        deadline_s = time.monotonic() + CALL_TIMEOUT_S
        while True:
            try:
                client.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=self._delivered,
                    headers=list(record.headers) or None,
                )
                return
            except BufferError:
                if time.monotonic() > deadline_s:
                    raise BrokerError("the queue of unsent records does not drain") from None
                client.poll(QUEUE_FULL_WAIT_S)
            except KafkaException as error:
                cause = error.args[0]
                if cause.code() in UNFIT:
                    self._note(cause, record.topic, record.key, record.value)
                raise

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() in UNFIT:
            self._note(error, message.topic() or "", message.key(), message.value())

    def _note(self, error: KafkaError, topic: str, key: Any, value: bytes | None) -> None:
        self._refused.append(Refusal(topic, key, value, error.str(), unfit=True))

    def _without_refused(self, records: list[Outgoing]) -> list[Outgoing]:
        refused, self._refused = self._refused, []
        if len(refused) > 1 and not self._one_by_one:
            self._send_one_by_one(True)
            return records
        for refusal in refused:
            give_up(refusal)
        lost = {(refusal.topic, refusal.key, refusal.value) for refusal in refused}
        return [one for one in records if (one.topic, one.key, one.value) not in lost]

    def _send_one_by_one(self, wanted: bool) -> None:
        if wanted != self._one_by_one:
            self._one_by_one = wanted
            self._drop()

    def _after(self, error: KafkaError) -> None:
        """Leave the producer as the next attempt needs it."""
        if self._in_doubt or is_fenced(error):
            self._drop()
        else:
            self._abort()

    def _abort(self) -> None:
        if self._producer is None:
            return
        try:
            repeated(self._producer.abort_transaction)
        except KafkaException as error:
            # With nothing begun there is nothing to end; else a new producer ends it.
            if error.args[0].code() != KafkaError._STATE:
                log.debug("transaction_not_aborted", error=error.args[0].str())
            self._drop()

    def _drop(self) -> None:
        """The next attempt makes a producer of the same name, which ends what this one began."""
        self._producer = None

    def _as_ours(self, error: KafkaException) -> BrokerError:
        if error.args[0].code() in _NOT_THE_OWNER:
            return NotTheOwnerError(f"committing forecasts: {error.args[0].str()}")
        return broker_error("committing forecasts", error)


class AtLeastOnce:
    """For brokers without transactions: records, acknowledged, and then the offsets.

    Dying in between repeats the records of one commit.

    Args:
        delivery: Sends the records.
        group: Whose offsets are moved.
    """

    def __init__(self, delivery: Delivery, group: Group) -> None:
        self._delivery = delivery
        self._group = group

    def commit(self, records: Sequence[Outgoing], offsets: Sequence[TopicPartition]) -> bool:
        """See `Commits`."""
        if not self._delivery.deliver(records):
            return False
        self._group.commit(offsets)
        return True

    def renew(self) -> None:
        """Deliveries need no session."""

    def close(self) -> None:
        """Nothing is left open."""


def is_fenced(error: KafkaError) -> bool:
    return error.fatal() or error.code() in _FENCED


def _moves(offsets: Sequence[TopicPartition]) -> dict[tuple[str, int], tuple[int, str]]:
    return {(at.topic, at.partition): (at.offset, at.metadata or "") for at in offsets}


def _within(wait_s: float, call: Callable[[], None]) -> None:
    """Make a call that may never return, whatever timeout it is given.

    librdkafka's `send_offsets_to_transaction` is one where the broker was restarted since the last
    transaction: 78 s were seen, with a timeout of 10.

    Raises:
        _NoAnswerError: It has not returned by then. Its thread goes on waiting, and holds the
            producer, which must not be used any more.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(wait_s)
    if thread.is_alive():
        raise _NoAnswerError(
            f"the broker has not taken the offsets of a transaction in {wait_s:g} s"
        )
    if failed:
        raise failed[0]


def repeated(call: Callable[[float], Any]) -> None:
    """Make a call of a transaction until it does not ask to be repeated, or time is up."""
    deadline_s = time.monotonic() + CALL_TIMEOUT_S
    while True:
        left_s = deadline_s - time.monotonic()
        try:
            call(max(left_s, 0.1))
            return
        except KafkaException as error:
            if not error.args[0].retriable() or left_s <= 0:
                raise
