"""Claiming partitions in Redis, and whether what is stored there can be continued from the log."""

from __future__ import annotations

from collections.abc import Mapping

from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, LogLostError
from freshet.stream.events.decoder import EventKind
from freshet.stream.fold.headers import fingerprint, kind_of
from freshet.stream.fold.partition import PartitionWindows, TopicFacts
from freshet.stream.ingest.identity import TopicIdentity
from freshet.stream.kafka import Key, LogOffsets
from freshet.stream.store.generation import NEW_GENERATION_HINT
from freshet.stream.store.layout import Header
from freshet.stream.store.redis import WindowStore
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


class Claims:
    """The partitions of the event topics, as one generation of windows knows them.

    Args:
        settings: How events are folded; other settings than those of stored windows are refused.
        store: The generation to write.
        kinds: What each event topic holds.
        num_partitions: How many partitions each topic has.
        timestamp_types: Whose clock each topic's timestamps are of, where that is known.
        identity: The topics' ids; stored windows of another topic of that name are refused.
    """

    def __init__(
        self,
        settings: Settings,
        store: WindowStore,
        *,
        kinds: Mapping[str, EventKind],
        num_partitions: Mapping[str, int],
        timestamp_types: Mapping[str, str],
        identity: TopicIdentity,
    ) -> None:
        self._settings = settings
        self._store = store
        self._kinds = kinds
        self._num_partitions = {topic: num_partitions[topic] for topic in kinds}
        self._timestamp_types = timestamp_types
        self._identity = identity

    @property
    def topics(self) -> list[str]:
        """The event topics."""
        return list(self._kinds)

    @property
    def keys(self) -> list[Key]:
        """Every partition of every event topic, whoever owns it."""
        counts = self._num_partitions.items()
        return [(topic, number) for topic, count in counts for number in range(count)]

    def claim(self, topic: str, partition: int) -> PartitionWindows:
        """Become the owner of a partition; whoever was it before is fenced from now on.

        Raises:
            ConfigError: Orders are states, and their topic has got more partitions.
        """
        header = self._store.header(topic, partition)
        self._check_growth(topic, max(partition + 1, self._num_partitions[topic]), header)
        # One that came while we run: what is asked of all partitions is asked of it too.
        self._num_partitions[topic] = max(partition + 1, self._num_partitions[topic])
        return PartitionWindows.claim(
            self._store,
            self._kinds[topic],
            topic,
            partition,
            self._settings,
            facts=TopicFacts(
                self._identity.of(topic),
                self._num_partitions[topic],
                self._timestamp_types.get(topic, ""),
            ),
        )

    def check(self, logs: LogOffsets) -> None:
        """Whether every partition's windows can be continued from its log; claims nothing.

        Raises:
            FingerprintError: Windows were folded under other settings.
            LogLostError: A stored offset is outside its log, the log of some partition is gone, or
                it is another one.
            ConfigError: Orders are states, and their topic has got more partitions; or another
                topic's orders or clicks are in the same windows.
        """
        self._check_topics()
        self._check_counts()
        headers = {key: self._header(*key) for key in self.keys}
        for (topic, _), header in headers.items():
            self._check_growth(topic, self._num_partitions[topic], header)
        stored = {key: header.next_offset for key, header in headers.items() if header is not None}
        for key, (first, end) in logs.ranges(stored).items():
            offset = stored[key]
            if offset is not None:
                check_inside(key, offset, first, end)

    def _header(self, topic: str, partition: int) -> Header | None:
        ours = fingerprint(self._kinds[topic], self._settings)
        return self._store.check(topic, partition, ours, self._identity.of(topic))

    def _check_growth(self, topic: str, count: int, header: Header | None) -> None:
        """Where orders are states, versions of one order must stay on its partition."""
        states = self._kinds[topic] == "orders" and self._settings.events.orders.mode == "state"
        before = self._num_partitions[topic]
        if header is not None and header.next_offset is not None and header.num_partitions:
            before = header.num_partitions
        if states and count != before:
            raise ConfigError(
                f"{topic} has {count} partitions and had {before} when its windows began: the keys "
                'of orders have moved, and events.orders.mode is "state", where all versions of '
                "an order must come on one partition",
                hint="send the orders, each version again, to a new topic of as many partitions, "
                "name it in kafka.topics.orders, and build its windows with "
                "`freshet ingest --from-beginning --into` the next generation",
            )

    def _check_topics(self) -> None:
        """Readers add up all that a generation holds, so it is one shop's alone."""
        for topic, partition in self._store.partitions():
            header = None if topic in self._kinds else self._store.header(topic, partition)
            if header is None or header.next_offset is None:
                continue
            kind = kind_of(header)
            if kind in self._kinds.values():
                raise another_shop(topic, kind, self._store.generation)

    def _check_counts(self) -> None:
        """Topics with fewer partitions than the windows know are refused; more are fine."""
        for topic, partition in self._store.partitions():
            count = self._num_partitions.get(topic)
            if count is None or partition < count:
                continue
            header = self._store.header(topic, partition)
            if header is not None and header.next_offset is not None:
                raise LogLostError(
                    f"{topic} has {count} partitions, and there are windows of partition "
                    f"{partition}: the topic was made again with fewer",
                    hint=NEW_GENERATION_HINT,
                )


def another_shop(topic: str, kind: str, generation: int) -> ConfigError:
    """What is wrong where windows of another topic would be added to ours."""
    return ConfigError(
        f"generation {generation} in Redis holds windows of {topic}, which is not "
        f"kafka.topics.{kind}: another shop's, or this one's before its topic was renamed",
        hint="give each shop a Redis of its own (redis.url may end in /1); where the topic was "
        "renamed, build its windows with `freshet ingest --from-beginning --into` the next "
        "generation",
    )


def say_gap(key: Key, header: Header, position: int, again: int) -> None:
    """Where ingest goes on after Redis went back, and how many records it folds again."""
    hint = "Redis holds another offset than expected; reading on from there"
    if header.next_offset is None:
        hint = "Redis came back without these windows; all is folded anew from the log's beginning"
    at = {"topic": key[0], "partition": key[1], "offset": position}
    log.warning("gap", **at, records=again, hint=hint)


def check_inside(key: Key, position: int, first: int, end: int) -> None:
    """Refuse a stored offset that the log no longer holds, or never held.

    Raises:
        LogLostError: The windows cannot be continued.
    """
    topic, partition = key
    if not first <= position <= end:
        raise LogLostError(
            f"{topic}:{partition}: the windows in Redis end at offset {position}, "
            f"and the log holds {first} to {end}: "
            "the records between are gone, so the windows cannot be continued",
            hint=NEW_GENERATION_HINT,
        )
