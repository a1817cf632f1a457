"""The shop's tables as ingest keeps them: claimed, set aside from events, bounded in number.

They do not depend on how events are folded, so whoever builds another generation leaves them to
the ingest that is current.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Final

from freshet.stream.config import Settings
from freshet.stream.health import Health
from freshet.stream.ingest.identity import TopicIdentity
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.ingest.versions import PartitionVersions, check_inside
from freshet.stream.kafka import Key, LogOffsets, Message, Taken
from freshet.stream.schemas import SHOP_TABLES
from freshet.stream.store.versions import (
    MAX_REMOVED,
    VersionHeader,
    VersionStore,
    check_format,
    other_topic,
)

MAX_VERSIONS: Final = 1_000_000
MAX_DROPPED_A_SURVEY: Final = 20 * MAX_REMOVED
TROUBLE: Final = "versions"

_topic_of = methodcaller("topic")


class Tables:
    """The partitions of the shop's tables, and their records of a turn.

    Args:
        settings: Names of the topics, what is usable, how long versions are kept.
        store: Where versions go.
        num_partitions: How many partitions each topic has.
        identity: The topics' ids; versions of another topic of that name are refused.
        latest_ms: When a record may say that something happened at the latest.
        reached_ms: Up to when events have come.
    """

    def __init__(
        self,
        settings: Settings,
        store: VersionStore,
        *,
        num_partitions: Mapping[str, int],
        identity: TopicIdentity,
        latest_ms: Callable[[], int],
        reached_ms: Callable[[], int],
    ) -> None:
        self._reached_ms = reached_ms
        self._settings = settings
        self.store = store
        self._table_of = settings.kafka.topics.of(*SHOP_TABLES)
        self._num_partitions = num_partitions
        self._identity = identity
        self._latest_ms = latest_ms
        self._aside: dict[Key, list[Message]] = {}

    @property
    def topics(self) -> list[str]:
        """The topics of the tables."""
        return list(self._table_of)

    @property
    def keys(self) -> list[Key]:
        """Every partition of every table, whoever owns it."""
        counts = [(topic, self._num_partitions[topic]) for topic in self._table_of]
        return [(topic, number) for topic, count in counts for number in range(count)]

    # Claims ---------------------------------------------------------------------------------------

    def claim(self, topic: str, partition: int) -> PartitionVersions:
        """Become the owner of a partition; whoever was it before is fenced from now on."""
        header = self.store.claim(topic, partition, self._identity.of(topic))
        table = self._table_of[topic]
        place = (topic, partition)
        return PartitionVersions(
            self.store,
            table,
            place,
            self._settings,
            self._latest_ms,
            header,
            self._reached_ms,
        )

    def check(self, logs: LogOffsets) -> None:
        """Whether every partition's versions can be continued from its log; claims nothing.

        Raises:
            LogLostError: A stored offset is outside its log, or the log is another one.
            OtherFormatError: Another version of freshet wrote the versions.
        """
        headers = self.headers().items()
        for (topic, _), header in headers:
            check_format(topic, header)
        begun = {key: header for key, header in headers if header.next_offset is not None}
        for (topic, partition), header in begun.items():
            ours = self._identity.of(topic)
            if ours and header.topic_id and ours != header.topic_id:
                raise other_topic(topic, partition, header.topic_id, ours)
        for key, (first, end) in logs.ranges(list(begun)).items():
            check_inside(key, begun[key].next_offset or 0, first, end)

    # Records --------------------------------------------------------------------------------------

    def sift(self, taken: Taken) -> Taken:
        """Set the tables' records aside; what is left are events."""
        if self._table_of.keys().isdisjoint(map(_topic_of, taken.messages)):
            return taken
        events = []
        for message in taken.messages:
            topic = message.topic() or ""
            if topic in self._table_of:
                key = (topic, message.partition() or 0)
                self._aside.setdefault(key, []).append(message)
            else:
                events.append(message)
        return Taken(events, taken.ends)

    def set_aside(self) -> dict[Key, list[Message]]:
        """What was set aside since the last call, in log order; it is forgotten here."""
        found, self._aside = self._aside, {}
        return found

    # The limit ------------------------------------------------------------------------------------

    def headers(self) -> dict[Key, VersionHeader]:
        """What Redis says of every partition, whoever owns it."""
        return dict(zip(self.keys, self.store.headers(self.keys), strict=True))

    def say_total(self, total: int, metrics: IngestMetrics, health: Health) -> None:
        """Tell whoever looks, and raise an alarm where there are too many."""
        metrics.versions.set(total)
        if total <= MAX_VERSIONS:
            health.over(TROUBLE)
            return
        health.say(
            TROUBLE,
            f"{total} versions of catalogue, promotions, stock and covariates are kept, over "
            f"{MAX_VERSIONS}: the oldest leave before their time, so that forecasts made again "
            "for old cutoffs may differ; send fewer unchanged records, or shorten "
            "worker.context_length",
        )


def share_to_drop(mine: int, total: int) -> int:
    """How many of a partition's versions are to leave early, where all partitions do their part.

    >>> share_to_drop(250_000, 1_000_100), share_to_drop(250_000, 999_999)
    (25, 0)
    """
    excess = total - MAX_VERSIONS
    if excess <= 0:
        return 0
    return min(-(-excess * mine // total), MAX_DROPPED_A_SURVEY)
