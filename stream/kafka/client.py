"""Kafka clients as freshet sets them up; the cluster's topics; reading with errors told apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import xxhash
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.errors import BrokerError, ConfigError, LogLostError
from freshet.stream.health import ANSWER_WITHIN_MS, Question
from freshet.stream.kafka.away import away
from freshet.stream.kafka.security import librdkafka, mechanism_of, own_settings
from freshet.stream.kafka.topics import dead_letter_max_bytes
from freshet.stream.process import BackOff
from freshet.stream.telemetry import get_logger

LIBRARY_LOG_LEVEL = 4
"""librdkafka's syslog levels; 4 is warning. Notes of connections closed at shutdown are level 6."""

QUIET_S = 10.0

Key = tuple[str, int]
"""A topic and the number of one of its partitions."""


log = get_logger(__name__)


class _ClientLog:
    """One client's own lines and errors, at most one of a kind in `QUIET_S`.

    A client whose broker is away repeats itself 20 times a second.
    """

    def __init__(self) -> None:
        self._said_at_s: dict[str, float] = {}

    def log(self, level: int, text: str, *values: Any) -> None:
        """A log line as the client hands it over when it is polled."""
        facility, client, line = (*values, "", "", "")[:3]
        self._say(facility, client=client, text=line or text)

    def error(self, error: KafkaError) -> None:
        """What the client calls when something is wrong with a broker."""
        self._say(error.name(), text=error.str(), fatal=error.fatal())

    def _say(self, kind: str, **fields: Any) -> None:
        now_s = time.monotonic()
        if now_s - self._said_at_s.get(kind, -QUIET_S) >= QUIET_S:
            self._said_at_s[kind] = now_s
            log.warning("kafka_client", kind=kind, **fields)


@contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Turn the client's exception into a BrokerError that says what was being done."""
    try:
        yield
    except KafkaException as error:
        raise broker_error(doing, error) from None


@contextmanager
def config_errors(kafka: KafkaSettings) -> Iterator[None]:
    """Turn what a client says of its settings, before it connects, into a ConfigError."""
    try:
        yield
    except KafkaException as error:
        reason = f"the settings of Kafka cannot be used: {_reason(error)}"
        raise ConfigError(reason, hint=_hint(kafka)) from None


def _hint(kafka: KafkaSettings) -> str:
    if mechanism_of(kafka) == "GSSAPI":
        return (
            "confluent-kafka's wheel has no Kerberos: build librdkafka with libsasl2, then "
            "pip install --force-reinstall --no-binary confluent-kafka confluent-kafka"
        )
    names = ("ssl_ca_location", "ssl_certificate_location", "ssl_key_location")
    files = [f"kafka.{name} is {getattr(kafka, name)}" for name in names if getattr(kafka, name)]
    return ", ".join(files)


def broker_error(doing: str, error: KafkaException) -> BrokerError:
    """The client's exception as ours."""
    return BrokerError(f"{doing}: {_reason(error)}")


def _reason(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    if not isinstance(cause, KafkaError):
        return str(cause)
    # Some answers end where the broker's own words would stand, and it has none.
    text = str(cause.str()).strip()
    return text if text and not text.endswith(":") else f"{text} {KafkaError(cause.code()).str()}"


# Clients ------------------------------------------------------------------------------------------


def common_config(settings: KafkaSettings) -> dict[str, Any]:
    """What every client is told: where, as whom, and that its log lines come to us."""
    said = _ClientLog()
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": settings.group_prefix,
        "socket.timeout.ms": settings.request_timeout_ms,
        "reconnect.backoff.max.ms": 2_000,
        "log_level": LIBRARY_LOG_LEVEL,
        "log.connection.close": False,
        "logger": said,
        "error_cb": said.error,
        **librdkafka(settings),
        **own_settings(settings),
    }


def _renamed(over: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in over.items()}


def producer(settings: Settings, **over: Any) -> Producer:
    """A producer: idempotent, all replicas acknowledge, keys placed as Java's clients place them.

    Args:
        settings: Where and as whom to connect.
        **over: librdkafka settings, dots written as underscores: `transactional_id="..."`.
    """
    kafka = settings.kafka
    config = {
        **common_config(kafka),
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "partitioner": "murmur2_random",
        "linger.ms": 5,
        "message.max.bytes": dead_letter_max_bytes(kafka),
        "delivery.timeout.ms": 3 * kafka.request_timeout_ms,
        **own_settings(kafka),
        **_renamed(over),
    }
    with config_errors(kafka):
        return Producer(config)


def consumer(settings: Settings, group: str, **over: Any) -> Consumer:
    """A consumer of the group `<group_prefix>.<group>`.

    It commits nothing by itself, and an offset that is no longer in the log is an error.

    Args:
        settings: Where and as whom to connect.
        group: The process's name, such as "ingest".
        **over: librdkafka settings, dots written as underscores: `auto_offset_reset="earliest"`.
    """
    kafka = settings.kafka
    config = {
        **common_config(kafka),
        "group.id": f"{kafka.group_prefix}.{group}",
        "session.timeout.ms": kafka.session_timeout_ms,
        "heartbeat.interval.ms": max(1, min(3_000, kafka.session_timeout_ms // 3)),
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 100,
        **own_settings(kafka),
        **_renamed(over),
    }
    with config_errors(kafka):
        return Consumer(config)


def shard_of(item_id: str, num_shards: int) -> int:
    """The partition of the windows topic, hence the worker, that an item belongs to.

    >>> shard_of("a|north", 1)
    0
    """
    return int(xxhash.xxh3_64_intdigest(item_id.encode())) % num_shards


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the broker says of itself; without a controller it makes topics when first used.

    `addresses` are host and port of each, as they say that clients reach them.
    """

    num_brokers: int
    has_controller: bool
    partitions: dict[str, int]
    addresses: tuple[tuple[str, int], ...] = ()


def cluster(settings: Settings, touch: Sequence[str] = ()) -> Cluster:
    """Ask the broker for its topics and their number of partitions.

    Args:
        settings: Where to connect.
        touch: Topics to ask for by name, which brings missing ones into being where there is no
            controller.

    Raises:
        BrokerError: No broker answers in time.
    """
    heard: list[KafkaError] = []
    client, timeout_s = _asking(settings.kafka, heard), settings.kafka.request_timeout_ms / 1_000
    try:
        found = client.list_topics(timeout=timeout_s)
        missing = [topic for topic in touch if topic not in found.topics]
        has_controller = found.controller_id in found.brokers
        if missing and not has_controller:
            for topic in missing:
                client.list_topics(topic, timeout=timeout_s)
            found = client.list_topics(timeout=timeout_s)
    except KafkaException as error:
        client.poll(0)  # What was heard is told only to whoever polls.
        raise away(settings.kafka, _reason(error), heard) from None
    partitions = {name: len(topic.partitions) for name, topic in found.topics.items()}
    addresses = tuple((str(one.host), int(one.port)) for one in found.brokers.values())
    return Cluster(len(found.brokers), has_controller, partitions, addresses)


def _asking(kafka: KafkaSettings, heard: list[KafkaError]) -> Producer:
    """A client that only asks, and keeps what it hears of its connections."""
    config = common_config(kafka)
    log_error = config["error_cb"]

    def hear(error: KafkaError) -> None:
        heard.append(error)
        log_error(error)

    with config_errors(kafka):
        return Producer({**config, "error_cb": hear})


def broker_question(settings: Settings) -> Question:
    """Asks the broker, on a connection of its own, whether it is there; for a `Watch`."""
    servers, topic = settings.kafka.bootstrap_servers, settings.kafka.topics.windows
    client = producer(settings)

    def ask() -> None:
        try:
            client.list_topics(topic, timeout=ANSWER_WITHIN_MS / 1_000)
        except KafkaException as error:
            raise BrokerError(
                f"Kafka at {servers} does not answer: {_reason(error)}",
                hint="is it running, and is kafka.bootstrap_servers right?",
            ) from None

    return ask


def partitions_of(settings: Settings, topics: Sequence[str]) -> dict[str, int]:
    """The number of partitions of each topic.

    Raises:
        BrokerError: No broker answers, or a topic does not exist.
    """
    found = cluster(settings, touch=topics).partitions
    missing = [topic for topic in topics if not found.get(topic)]
    if missing:
        raise BrokerError(
            f"{settings.kafka.bootstrap_servers} has no topic {', '.join(missing)}",
            hint="`freshet topics create` makes the topics",
        )
    return {topic: found[topic] for topic in topics}


# Reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """What one `take` brought.

    `ends` maps (topic, partition) to the offset after its last readable record, where the reader
    has reached it.
    """

    messages: list[Message]
    ends: dict[Key, int]


def take(client: Consumer, max_records: int, max_wait_ms: int) -> Taken:
    """Up to `max_records` messages, waiting at most `max_wait_ms`; serves rebalances.

    `ends` is filled only when the client was made with `enable_partition_eof=True`.

    Raises:
        LogLostError: The offset asked for is not in the log (with `auto.offset.reset=error`).
        BrokerError: The broker refuses, a topic does not exist, or the client is broken for good.
    """
    with broker_errors("reading from Kafka"):
        found = client.consume(max_records, max_wait_ms / 1_000)
    errors = list(map(Message.error, found))
    if not any(errors):  # Every error is true, and comparing with == fails in the client library.
        return Taken(found, {})
    messages: list[Message] = []
    ends: dict[Key, int] = {}
    for message, error in zip(found, errors, strict=True):
        if error is None:
            messages.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            ends[message.topic() or "", message.partition() or 0] = message.offset() or 0
        else:
            _refuse(error, message)
    return Taken(messages, ends)


_PASSING = frozenset(
    {KafkaError._MAX_POLL_EXCEEDED, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}
)
_LOST = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


def _refuse(error: KafkaError, message: Message) -> None:
    where = f"{message.topic()}:{message.partition()}"
    if error.code() in _LOST:
        raise LogLostError(
            f"{where}: offset {message.offset()} is no longer in the log ({error.str()})"
        )
    if error.code() == KafkaError.FENCED_INSTANCE_ID:
        raise ConfigError(
            f"another process has taken over kafka.group_instance_id: {error.str()}",
            hint="give each ingest process a name of its own",
        )
    if error.code() in _PASSING or (error.retriable() and not error.fatal()):
        log.warning("kafka_read", where=where, code=error.name(), text=error.str())
        return
    hint = ""
    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        hint = "`freshet topics create` makes the topics"
    raise BrokerError(f"reading {where}: {error.str()}", hint=hint)


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """A message's headers, in order, values as bytes."""
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]


FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 0.8
MAX_ATTEMPTS = 12  # six seconds: a broker that restarts on a busy machine elects leaders that late
MAX_NEW_ATTEMPTS = 80  # a minute: one that has just begun, with all topics to make at once
_LEADERLESS = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        # A client that has just begun knows no partitions yet.
        KafkaError._UNKNOWN_PARTITION,
    }
)


def log_range(
    client: Consumer,
    topic: str,
    partition: int,
    timeout_ms: int = 10_000,
    *,
    wait: Callable[[float], bool | None] = time.sleep,
    attempts: int = MAX_ATTEMPTS,
) -> tuple[int, int]:
    """The first offset in the log and the one after the last record, asked of the broker now.

    A partition that is without a leader, as a new one is for a moment, is asked for again a few
    times.

    Raises:
        BrokerError: The broker does not answer in time.
    """
    at = TopicPartition(topic, partition)
    back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, wait)
    for attempt in range(1, attempts + 1):
        try:
            return client.get_watermark_offsets(at, timeout_ms / 1_000)
        except KafkaException as error:
            leaderless = error.args[0].code() in _LEADERLESS
            if not leaderless or attempt == attempts or not back_off.pause():
                doing = f"asking for the offsets of {topic}:{partition}"
                raise broker_error(doing, error) from None
    raise AssertionError("every attempt returns or raises, the last one in any case")
