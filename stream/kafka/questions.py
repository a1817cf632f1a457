"""What only the doctor asks of brokers: who is in a group, and what time it is there."""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message

from freshet.stream.config import Settings
from freshet.stream.kafka.admin import admin
from freshet.stream.kafka.client import broker_error, cluster, producer
from freshet.stream.process import BackOff

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 0.5
_COMING: Final = frozenset(
    {
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)


def group_members(settings: Settings, group: str) -> int | None:
    """How many processes are in a group; None on a broker that cannot say.

    Raises:
        BrokerError: The broker does not answer, or does not let us see the group.
    """
    if not cluster(settings).has_controller:
        return None
    # Held in a name: answers of a client that is let go of never come.
    client, timeout_s = admin(settings), settings.kafka.request_timeout_ms / 1_000
    back_off, deadline_s = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S), time.monotonic() + timeout_s
    while True:
        answers = client.describe_consumer_groups([group], request_timeout=timeout_s)
        try:
            return len(answers[group].result(2 * timeout_s).members)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.GROUP_ID_NOT_FOUND:  # Nobody was ever in it.
                return 0
            # A cluster that has just begun makes the log of its groups when it is first asked.
            if code not in _COMING or time.monotonic() > deadline_s:
                raise broker_error(f"asking for the group {group}", error) from None
        back_off.pause()


def append_time_ms(settings: Settings, value: bytes) -> int | None:
    """When the broker took a notice of windows, by its own clock.

    A notice is a hint, so that one that is sent again changes nothing. None where the topic keeps
    producers' stamps, or we may not write there.
    """
    stamps: list[tuple[int, int]] = []

    def note(error: KafkaError | None, message: Message) -> None:
        if error is None:
            stamps.append(message.timestamp())

    client = producer(settings, linger_ms=0)
    client.produce(settings.kafka.topics.windows, value, partition=0, on_delivery=note)
    client.flush(settings.kafka.request_timeout_ms / 1_000)
    return next((ms for kind, ms in stamps if kind == TIMESTAMP_LOG_APPEND_TIME), None)
