"""Records go out until each is acknowledged, or refused for good; one policy for every process."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter

from freshet.stream.errors import BrokerError
from freshet.stream.health import Health
from freshet.stream.kafka.publisher import Outgoing, Publisher, RecordsRefusedError, Refusal
from freshet.stream.telemetry import get_logger

MAX_LOGGED_BYTES = 64 * 1_024

Identity = tuple[str, bytes | None, bytes | None]
"""Topic, key and value."""

log = get_logger(__name__)


class Delivery:
    """Sends records and waits for the acknowledgement of all of them.

    * A broker that is away is waited for, with back-off, until the process is told to stop.
    * A record that the broker does not take (too large, a timestamp it refuses) is never sent
      again: it is logged with its bytes and counted in `freshet_records_refused_total`.
    * A topic that is missing or closed to us is waited for too, but never with what may be lost.

    Args:
        publisher: Where to.
        health: Told of troubles; pauses between attempts, and ends them.
        registry: Where metrics go.
    """

    def __init__(
        self, publisher: Publisher, health: Health, registry: CollectorRegistry | None = None
    ) -> None:
        self._publisher = publisher
        self._health = health
        self._retries = Counter(
            "freshet_delivery_retries", "Records were sent again.", registry=registry
        )
        self._refused = Counter(
            "freshet_records_refused", "Never taken by Kafka.", ["topic"], registry=registry
        )

    def deliver(self, records: Sequence[Outgoing], *, may_lose: bool = False) -> bool:
        """Send these until all are acknowledged; False when told to stop before that.

        After a failure all are sent again, so a record may be in the log twice.

        Args:
            records: What to send.
            may_lose: Records that other work must not wait for, such as dead letters: where their
                topic is missing they are logged with their bytes, as what is too large is.
        """
        left = list(records)
        while left:
            try:
                self._send(left)
                break
            except RecordsRefusedError as error:
                left = self._after(error, left, may_lose=may_lose)
                trouble: BrokerError = error
            except BrokerError as error:
                trouble = error
            if left and not self._again(trouble):
                return False
        return True

    def close(self) -> None:
        """Send what is queued."""
        self._publisher.close()

    def _send(self, records: Sequence[Outgoing]) -> None:
        send(self._publisher, records, stopped=self._health.stop.is_set)
        self._health.answered()
        self._health.over("broker")

    def _after(
        self, error: RecordsRefusedError, sent: list[Outgoing], *, may_lose: bool
    ) -> list[Outgoing]:
        """What is worth another attempt: only what found no topic, and may not be lost."""
        for refusal in error.refusals:
            if refusal.unfit or may_lose:
                self._refused.labels(refusal.topic).inc()
                give_up(refusal)
        waiting = {
            _identity(refusal) for refusal in error.refusals if not refusal.unfit and not may_lose
        }
        return [record for record in sent if _identity(record) in waiting]

    def _again(self, trouble: BrokerError) -> bool:
        self._retries.inc()
        return self._health.wait_out(trouble)


def send(
    publisher: Publisher,
    records: Sequence[Outgoing],
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Send records and wait for the acknowledgement of each.

    Kafka refuses a batch as a whole, for one record that is too large. So what is refused is sent
    once more, each alone.

    Raises:
        RecordsRefusedError: Some are never taken, even alone; all others are acknowledged.
        BrokerError: At least one other record was not acknowledged: send all of them again.
    """
    try:
        _send_together(publisher, records, stopped)
    except RecordsRefusedError as error:
        refused = {_identity(refusal): refusal for refusal in error.refusals}
        if len(records) > 1:
            suspects = [record for record in records if _identity(record) in refused]
            refused = _refused_alone(publisher, suspects, stopped)
        if refused:
            raise RecordsRefusedError(list(refused.values())) from None


def _refused_alone(
    publisher: Publisher, suspects: Sequence[Outgoing], stopped: Callable[[], bool]
) -> dict[Identity, Refusal]:
    refused = {}
    for record in suspects:
        try:
            _send_together(publisher, [record], stopped)
        except RecordsRefusedError as error:
            refused[_identity(record)] = error.refusals[0]
    return refused


def _send_together(
    publisher: Publisher, records: Sequence[Outgoing], stopped: Callable[[], bool]
) -> None:
    for record in records:
        publisher.produce(
            record.topic,
            record.value,
            key=record.key,
            partition=record.partition,
            headers=record.headers,
        )
    publisher.flush(stopped=stopped)


def _identity(record: Outgoing | Refusal) -> Identity:
    return record.topic, record.key, record.value


def give_up(refusal: Refusal) -> None:
    """Log a record that Kafka never takes, with its bytes: the log is the only place it is in."""
    value = refusal.value or b""
    log.error(
        "record_refused",
        topic=refusal.topic,
        reason=refusal.reason,
        key=_printable((refusal.key or b"")[:MAX_LOGGED_BYTES]),
        value=_printable(value[:MAX_LOGGED_BYTES]),
        value_bytes=len(value),
        value_sha256=hashlib.sha256(value).hexdigest(),
    )


def _printable(data: bytes) -> str:
    """Bytes in base64, as log lines may carry them.

    >>> _printable(b"\\xff1")
    '/zE='
    """
    return base64.b64encode(data).decode()
