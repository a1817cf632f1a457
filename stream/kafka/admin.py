"""Questions and orders to the broker itself: creates missing topics, reads settings, tells where logs end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from stream.config import Settings
from stream.errors import BrokerError
from stream.kafka.client import broker_errors, cluster, common_config
from stream.topics import TopicPlan, TopicReport, mismatches, plan

FIRST_ASK_MS = 2_000

Key = tuple[str, int]
Answer = TypeVar("Answer")


def admin(settings: Settings) -> AdminClient:
    """An administration client; most of its calls time out on a broker without a controller."""
    with broker_errors("making an administration client"):
        return AdminClient(common_config(settings.kafka))


def log_ends(client: AdminClient, partitions: Iterable[Key], timeout_ms: int = 10_000) -> dict[Key, int]:
    """The offset after the last committed record of each partition, asked of the brokers now, in one round trip.

    Raises:
        BrokerError: A partition's leader does not answer in time; make a new client, as this one would remember for
            minutes that the partition had no leader.
    """
    return _offsets(client, partitions, OffsetSpec.latest(), timeout_ms)  # type: ignore[no-untyped-call]


def log_ranges(client: AdminClient, partitions: Iterable[Key], timeout_ms: int = 10_000) -> dict[Key, tuple[int, int]]:
    """The first offset in the log of each partition, and the one after its last committed record; see `log_ends`."""
    asked = list(partitions)
    firsts = _offsets(client, asked, OffsetSpec.earliest(), timeout_ms)  # type: ignore[no-untyped-call]
    ends = log_ends(client, asked, timeout_ms)
    return {key: (first, ends[key]) for key, first in firsts.items()}


def _offsets(client: AdminClient, partitions: Iterable[Key], spec: OffsetSpec, timeout_ms: int) -> dict[Key, int]:
    asked = {TopicPartition(*key): spec for key in partitions}
    if not asked:
        return {}
    timeout_s = timeout_ms / 1_000
    with broker_errors("asking for the offsets of logs"):
        answers = client.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout_s)
        offsets = {at: answer.result(2 * timeout_s).offset for at, answer in answers.items()}
    return {(at.topic, at.partition): offset for at, offset in offsets.items()}


class LogOffsets:
    """The same for a process that runs on and on: a client that failed is thrown away.

    Now and then the client library waits in vain for its own query of the partitions' leaders ("Failed to query
    partition leaders: Timed out"). A new client gets its answer, so each question is asked
    twice, the first time with little patience.

    A consumer's own connection may be parked in a fetch for a tenth of a second; this one answers in about a
    millisecond.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AdminClient | None = None

    def ends(self, partitions: Iterable[Key]) -> dict[Key, int]:
        """See `log_ends`."""
        return self._ask(log_ends, partitions)

    def ranges(self, partitions: Iterable[Key]) -> dict[Key, tuple[int, int]]:
        """See `log_ranges`."""
        return self._ask(log_ranges, partitions)

    def _ask(
        self, question: Callable[[AdminClient, Iterable[Key], int], dict[Key, Answer]], partitions: Iterable[Key]
    ) -> dict[Key, Answer]:
        asked, timeout_ms = list(partitions), self._settings.kafka.request_timeout_ms
        self._client = self._client or admin(self._settings)
        try:
            return question(self._client, asked, min(FIRST_ASK_MS, timeout_ms))
        except BrokerError:
            self._client = admin(self._settings)
        try:
            return question(self._client, asked, timeout_ms)
        except BrokerError:
            self._client = None
            raise


def ensure_topics(settings: Settings, *, live: bool) -> list[TopicReport]:
    """Create the topics that are missing and compare the others with the plan; calling it again changes nothing.

    Existing topics are never altered: they may be a shop's own. On a broker without a controller (the embedded one)
    topics come into being by being asked for, with that broker's own number of partitions.

    Args:
        settings: Where to connect, names and limits.
        live: See `plan`.

    Raises:
        BrokerError: The broker does not answer or refuses to create a topic.
    """
    wanted = plan(settings.kafka, live=live)
    found = cluster(settings, touch=[topic.name for topic in wanted])
    if not found.has_controller:
        return [TopicReport(topic.name, "automatic", found.partitions.get(topic.name, 0)) for topic in wanted]
    missing = [topic for topic in wanted if topic.name not in found.partitions]
    present = [topic for topic in wanted if topic.name in found.partitions]
    client = admin(settings)
    _create(client, settings, missing)
    configs = topic_configs(client, settings, [topic.name for topic in present])
    reports = {topic.name: TopicReport(topic.name, "created", topic.partitions) for topic in missing}
    for topic in present:
        partitions = found.partitions[topic.name]
        problems = mismatches(topic, partitions, configs[topic.name])
        reports[topic.name] = TopicReport(topic.name, "mismatch" if problems else "exists", partitions, problems)
    return [reports[topic.name] for topic in wanted]


def _create(client: AdminClient, settings: Settings, topics: list[TopicPlan]) -> None:
    if not topics:
        return
    kafka = settings.kafka
    asked = [NewTopic(topic.name, topic.partitions, kafka.replication_factor, config=topic.config) for topic in topics]
    timeout_s = kafka.request_timeout_ms / 1_000
    with broker_errors("creating topics"):
        answers = client.create_topics(asked, operation_timeout=timeout_s, request_timeout=2 * timeout_s)
    for name, answer in answers.items():
        try:
            with broker_errors(f"creating topic {name}"):
                answer.result(3 * timeout_s)
        except BrokerError as error:
            if "already exists" not in str(error):
                raise


def topic_configs(client: AdminClient, settings: Settings, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """All settings of the named topics, as the broker says them.

    Raises:
        BrokerError: The broker does not answer, or does not let us see them.
    """
    if not names:
        return {}
    timeout_s = settings.kafka.request_timeout_ms / 1_000
    with broker_errors("reading the settings of topics"):
        asked = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = client.describe_configs(asked, request_timeout=timeout_s)
        return {
            resource.name: {name: entry.value for name, entry in answer.result(2 * timeout_s).items()}
            for resource, answer in answers.items()
        }
