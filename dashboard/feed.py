"""Records of every topic into the page's state, with aiokafka: no group, nothing committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError, KafkaError

from freshet.dashboard.state import TOUCHES, Kind, TopicState
from freshet.stream.config import KafkaSettings
from freshet.stream.errors import ConfigError, FreshetError
from freshet.stream.kafka import AIOKAFKA, SignIn, TokenProvider, sign_in
from freshet.stream.process import BackOff
from freshet.stream.telemetry import get_logger

TAILS: Mapping[Kind, int] = {
    "forecasts": 20_000,
    "forecasts_latest": 40_000,
    "rounds": 10_000,
    "scores": 40_000,
}
"""Records from the end of each partition at which reading starts; the other topics are read whole.
"""

MAX_RECORDS_PER_POLL = 500
POLL_MS = 250
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
CLOSE_WITHIN_S = 2.0
METADATA_MAX_AGE_MS = 5_000

# aiokafka asks what class a provider is of, not what it can do.
AbstractTokenProvider.register(TokenProvider)

log = get_logger(__name__)


class Feed:
    """Follows the topics until cancelled, through restarts and logs that lose their beginning.

    Each record is applied once: positions are kept here, so that a new connection, or an assignment
    that changed because a topic appeared, goes on where the last one stopped.
    """

    def __init__(
        self, settings: KafkaSettings, topics: TopicState, beat: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._beat = beat
        # A topic without a name is turned off.
        self._kinds = {name: kind for name, kind in settings.topics.of(*TOUCHES).items() if name}
        self._next: dict[TopicPartition, int] = {}
        self._assigned: frozenset[TopicPartition] = frozenset()
        self.problem: str | None = "not connected yet"
        self.heard_s: float | None = None
        """When the topics were last known to hold no more than was read (monotonic seconds)."""

    async def run(self) -> None:
        """Read for ever; a broker that is away is asked again, with `problem` saying so meanwhile.

        Raises:
            ConfigError: The settings cannot be used.
        """
        back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S)
        while True:
            self._beat()
            try:
                await self._follow()
            except ConfigError:
                raise
            except (Exception, asyncio.CancelledError) as error:
                if cancelled(error):
                    raise
                if self.problem is None:
                    back_off.reset()
                self.problem = _in_words(self._settings.bootstrap_servers, error)
                expected = isinstance(error, KafkaError | OSError | FreshetError)
                log.warning(
                    "kafka_away",
                    error=self.problem,
                    retry_s=back_off.next_s,
                    exc_info=not expected,
                )
                await asyncio.sleep(back_off.grow())

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(*self._kinds, **consumer_options(self._settings))
        self._assigned = frozenset()
        try:
            await consumer.start()
            while True:
                self._beat()
                if consumer.assignment() != self._assigned:
                    await self._place(consumer)
                polled = await consumer.getmany(
                    timeout_ms=POLL_MS, max_records=MAX_RECORDS_PER_POLL
                )
                for partition, records in polled.items():
                    self._apply(partition, records)
                if not polled:
                    await self._check_reachable(consumer)
                if not polled or await self._caught_up(consumer):
                    self.heard_s = time.monotonic()
                self.problem = None
                await asyncio.sleep(0)
        finally:
            await _let_go(consumer)

    async def _caught_up(self, consumer: AIOKafkaConsumer) -> bool:
        """Whether all that the newest answers spoke of was read; some topic never pauses."""
        for partition in self._assigned:
            stable = consumer.last_stable_offset(partition)
            if stable is None or await consumer.position(partition) < stable:
                return False
        return True

    async def _check_reachable(self, consumer: AIOKafkaConsumer) -> None:
        """A quiet consumer hides a broker that is gone: aiokafka retries for ever, silently."""
        if not self._assigned:
            return
        partition = min(self._assigned)
        await asyncio.wait_for(
            consumer.end_offsets([partition]), self._settings.request_timeout_ms / 1_000
        )

    async def _place(self, consumer: AIOKafkaConsumer) -> None:
        """Seek every partition: to where reading stopped, else to its tail or its beginning."""
        assigned = frozenset(consumer.assignment())
        first = await consumer.beginning_offsets(assigned)
        end = await consumer.end_offsets(assigned)
        for partition in assigned:
            at = self._next.get(partition)
            if at is None or not first[partition] <= at <= end[partition]:
                # Past the end: the topic was made anew. Before the start: the log lost what was not
                # read yet.
                tail = TAILS.get(self._kinds[partition.topic])
                at = (
                    first[partition]
                    if tail is None
                    else max(first[partition], end[partition] - tail)
                )
            self._next[partition] = at
            consumer.seek(partition, at)
        self._assigned = assigned

    def _apply(self, partition: TopicPartition, records: list[Any]) -> None:
        kind = self._kinds[partition.topic]
        for record in records:
            if record.offset < self._next.get(partition, 0):
                continue
            at_ms, headers = record.timestamp, record.headers
            if not self._topics.apply(kind, record.key, record.value, at_ms, headers):
                place = f"{partition.topic}:{partition.partition} at offset {record.offset}"
                self._topics.newest_malformed = f"{place}: {self._topics.newest_malformed}"
                log.debug("record_skipped", where=place)
            self._next[partition] = record.offset + 1


def cancelled(error: BaseException) -> bool:
    """Whether an error is our own task's cancellation.

    aiokafka also raises those of tasks that it has cancelled itself.
    """
    task = asyncio.current_task()
    ours = task is not None and task.cancelling() > 0
    return ours and isinstance(error, asyncio.CancelledError)


async def _let_go(consumer: AIOKafkaConsumer) -> None:
    """Close a consumer whatever state its broker left it in; never waits for long.

    After a crash of the broker, `stop` raises the cancellation of a fetch that was under way, and
    leaves the connections behind.
    """
    for close in (consumer.stop, consumer._client.close):
        try:
            await asyncio.wait_for(close(), CLOSE_WITHIN_S)
        except (Exception, asyncio.CancelledError) as error:
            if cancelled(error):
                raise
            log.debug("consumer_not_closed", error=repr(error))


def _in_words(servers: str, error: BaseException) -> str:
    if isinstance(error, KafkaConnectionError | OSError):
        return (
            f"Kafka at {servers} does not answer; is it running, and is "
            "kafka.bootstrap_servers right?"
        )
    return f"Kafka at {servers}: {error or type(error).__name__}"


def consumer_options(settings: KafkaSettings) -> dict[str, Any]:
    """aiokafka's arguments for our settings.

    Raises:
        ConfigError: The certificate file cannot be read, or the mechanism needs what the page does
            not have.
    """
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": f"{settings.group_prefix}.dashboard",
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "request_timeout_ms": settings.request_timeout_ms,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        "max_partition_fetch_bytes": max(1 << 20, settings.max_record_bytes),
        **_signed_in(sign_in(settings, AIOKAFKA)),
    }


def _signed_in(found: SignIn) -> dict[str, Any]:
    options: dict[str, Any] = {"security_protocol": found.protocol}
    if found.context is not None:
        options["ssl_context"] = found.context
    if not found.mechanism:
        return options
    options["sasl_mechanism"] = found.mechanism
    if found.tokens is not None:
        options["sasl_oauth_token_provider"] = found.tokens
    elif found.mechanism == "GSSAPI":
        options["sasl_kerberos_service_name"] = found.service_name
    else:
        options["sasl_plain_username"] = found.username
        options["sasl_plain_password"] = found.password
    return options
