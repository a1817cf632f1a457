"""Questions and orders to the broker: missing topics, settings of topics, where logs end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from confluent_kafka import Consumer, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, RefusedError
from freshet.stream.kafka.client import (
    MAX_ATTEMPTS,
    MAX_NEW_ATTEMPTS,
    Key,
    broker_errors,
    cluster,
    common_config,
    config_errors,
    consumer,
    log_range,
)
from freshet.stream.kafka.topics import TopicPlan, TopicReport, TopicState, mismatches, plan, unfit
from freshet.stream.process import BackOff, wait_until

Answer = TypeVar("Answer")

ATTEMPTS = 3
FIRST_LOOK_S = 0.02
LONGEST_LOOK_S = 0.5
# A broker that has just begun on a busy machine is that slow to say what it has made.
NEW_WITHIN_S = 60.0


def admin(settings: Settings) -> AdminClient:
    """An administration client; most of its calls time out on a broker without a controller."""
    with config_errors(settings.kafka):
        return AdminClient(common_config(settings.kafka))


class LogOffsets:
    """Where logs begin and end, asked of the brokers now, on a connection of its own.

    A consumer that reads has its connection parked in a fetch for a tenth of a second; an idle one
    answers in a tenth of a millisecond. The administration client's own call for this took a second
    in one of four calls, and sometimes ten, waiting for its query of the leaders. A client that
    failed is thrown away: it would remember for minutes that a partition had no leader.

    Args:
        settings: Where to connect.
        wait: Waits between attempts; see `BackOff`.
        attempts: How often a partition without a leader is asked for.
    """

    def __init__(
        self,
        settings: Settings,
        wait: Callable[[float], bool | None] = time.sleep,
        attempts: int = MAX_ATTEMPTS,
    ) -> None:
        self._settings = settings
        self._wait = wait
        self._attempts = attempts
        self._client: Consumer | None = None

    def ranges(self, partitions: Iterable[Key]) -> dict[Key, tuple[int, int]]:
        """The first offset in each partition's log, and the one after its last committed record.

        Raises:
            BrokerError: A partition's leader does not answer in time.
        """
        self._client = self._client or consumer(self._settings, "offsets")
        timeout_ms = self._settings.kafka.request_timeout_ms
        try:
            return {
                key: log_range(
                    self._client, *key, timeout_ms, wait=self._wait, attempts=self._attempts
                )
                for key in partitions
            }
        except BrokerError:
            self.close()
            raise

    def ends(self, partitions: Iterable[Key]) -> dict[Key, int]:
        """The offset after the last committed record of each partition; see `ranges`."""
        return {key: end for key, (_, end) in self.ranges(partitions).items()}

    def close(self) -> None:
        """Let go of the connection; the next question opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None


def ensure_topics(settings: Settings, *, live: bool) -> list[TopicReport]:
    """Create the topics that are missing, and compare the others with the plan.

    Calling it again changes nothing. Existing topics are never altered: they may be a shop's own.
    On a broker without a controller (the embedded one) topics come into being by being asked for,
    with that broker's own number of partitions.

    Args:
        settings: Where to connect, names and limits.
        live: See `plan`.

    Raises:
        BrokerError: The broker does not answer or refuses to create a topic.
    """
    states = settings.events.orders.mode == "state"
    wanted = plan(settings.kafka, live=live, orders_are_states=states)
    found = cluster(settings, touch=[topic.name for topic in wanted])
    partitions = found.partitions
    if not found.has_controller:
        return [
            TopicReport(topic.name, "automatic", partitions.get(topic.name, 0)) for topic in wanted
        ]
    missing = [topic for topic in wanted if topic.name not in partitions]
    present = [topic for topic in wanted if topic.name in partitions]
    _asked(settings, lambda client: _create(client, settings, missing))
    _wait_for(settings, missing)
    names = [topic.name for topic in present]
    configs = _asked(settings, lambda client: topic_configs(client, settings, names))
    reports = {
        topic.name: TopicReport(topic.name, "created", topic.partitions) for topic in missing
    }
    for topic in present:
        count = partitions[topic.name]
        found_otherwise = mismatches(topic, count, configs[topic.name])
        problems = tuple(text for text in found_otherwise if unfit(topic, text))
        warnings = tuple(text for text in found_otherwise if not unfit(topic, text))
        state: TopicState = "mismatch" if problems else "exists"
        reports[topic.name] = TopicReport(topic.name, state, count, problems, warnings)
    return [reports[topic.name] for topic in wanted]


def _asked(settings: Settings, ask: Callable[[AdminClient], Answer]) -> Answer:
    """What a broker answers that was there a moment ago.

    A client that was made while a broker starts may never hear who its controller is: the next one
    does.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return ask(admin(settings))
        except RefusedError:
            raise
        except BrokerError:
            continue
    return ask(admin(settings))


def _create(client: AdminClient, settings: Settings, topics: list[TopicPlan]) -> None:
    if not topics:
        return
    kafka = settings.kafka
    asked = [
        NewTopic(topic.name, topic.partitions, kafka.replication_factor, config=topic.config)
        for topic in topics
    ]
    timeout_s = kafka.request_timeout_ms / 1_000
    with broker_errors("creating topics"):
        answers = client.create_topics(
            asked, operation_timeout=timeout_s, request_timeout=2 * timeout_s
        )
    for name, answer in answers.items():
        try:
            with broker_errors(f"creating topic {name}"):
                answer.result(3 * timeout_s)
        except BrokerError as error:
            if "already exists" not in str(error):
                raise


def _wait_for(settings: Settings, topics: Sequence[TopicPlan]) -> None:
    """Until the broker lists them, and each partition's leader answers.

    For a moment the broker does not know what its controller has made. Whoever sends in that moment
    may lose its first records although they are acknowledged: a first batch is refused, a second
    one in flight is taken, and what is sent again counts as a repetition (KAFKA-15591).
    """
    if not topics:
        return
    names = {topic.name for topic in topics}
    back_off = BackOff(FIRST_LOOK_S, LONGEST_LOOK_S)
    wait_until(lambda: names <= cluster(settings).partitions.keys(), NEW_WITHIN_S, back_off)
    offsets = LogOffsets(settings, attempts=MAX_NEW_ATTEMPTS)
    try:
        offsets.ends((topic.name, n) for topic in topics for n in range(topic.partitions))
    finally:
        offsets.close()


def topic_ids(settings: Settings, topics: Sequence[str]) -> dict[str, str]:
    """The id of each topic (KIP-516): a topic of that name that is made again has another.

    Empty on a broker without a controller, which has none.

    Raises:
        BrokerError: The broker does not answer, or does not let us see them.
    """
    if not cluster(settings).has_controller:
        return {}
    # Held in a name: answers of a client that is let go of never come.
    client, timeout_s = admin(settings), settings.kafka.request_timeout_ms / 1_000
    with broker_errors("asking for the ids of topics"):
        answers = client.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s)
        return {
            name: str(answer.result(2 * timeout_s).topic_id) for name, answer in answers.items()
        }


def timestamp_types(settings: Settings, topics: Sequence[str]) -> dict[str, str]:
    """Whose clock each topic's timestamps are of: `CreateTime` or `LogAppendTime`.

    Empty on a broker without a controller, or where we may not see settings.

    Raises:
        BrokerError: The broker does not answer.
    """
    if not cluster(settings).has_controller:
        return {}
    try:
        configs = _asked(settings, lambda client: topic_configs(client, settings, topics))
    except RefusedError:
        return {}
    return {name: config.get("message.timestamp.type", "") for name, config in configs.items()}


def topic_configs(
    client: AdminClient, settings: Settings, names: Sequence[str]
) -> dict[str, dict[str, str]]:
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
            resource.name: {
                name: entry.value for name, entry in answer.result(2 * timeout_s).items()
            }
            for resource, answer in answers.items()
        }
