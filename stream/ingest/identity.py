"""Whether the topics are still the ones that the windows were folded from: by their ids, and by
their partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from freshet.stream.config import Settings
from freshet.stream.errors import LogLostError
from freshet.stream.ingest.assignment import check_inside
from freshet.stream.kafka import LogOffsets, topic_ids
from freshet.stream.store.layout import Header
from freshet.stream.store.redis import NEW_GENERATION_HINT, WindowStore

Key = tuple[str, int]

CHECK_S = 10.0


class TopicIdentity:
    """The ids of the event topics; a broker that has none (the embedded one) is not asked again."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self._settings, self._topics = settings, topics
        self._ids = topic_ids(settings, topics)
        self._checked_s = 0.0

    def of(self, topic: str) -> str:
        """The topic's id, empty where it is unknown."""
        return self._ids.get(topic, "")

    def check(self, now_s: float, *, at_once: bool = False) -> None:
        """Every ten seconds, or at once: are they still the same topics?

        Raises:
            LogLostError: One was deleted and made again.
            BrokerError: The broker does not answer; the next call asks again.
        """
        if not self._ids or (now_s - self._checked_s < CHECK_S and not at_once):
            return
        found = topic_ids(self._settings, self._topics)
        self._checked_s = now_s
        for topic, known in self._ids.items():
            if found.get(topic, known) != known:
                raise LogLostError(
                    f"{topic} was deleted and made again (topic id {known}, now "
                    f"{found[topic]}): offsets no longer "
                    "mean the same records",
                    hint=NEW_GENERATION_HINT,
                )


def check_logs(
    store: WindowStore,
    logs: LogOffsets,
    partitions: Mapping[str, int],
    check: Callable[[str, int], Header | None],
) -> None:
    """Whether every partition's windows can be continued from its log.

    Args:
        store: The generation to continue.
        logs: Where logs begin and end now.
        partitions: How many each event topic has.
        check: `WindowStore.check` of a partition, with what is expected of it.

    Raises:
        FingerprintError: Windows were folded under other settings.
        LogLostError: A stored offset is outside its log, the log of some partition is gone, or it
            is another one.
    """
    _check_partitions(store, partitions)
    everything = [(topic, number) for topic, count in partitions.items() for number in range(count)]
    stored = {key: header.next_offset for key in everything if (header := check(*key))}
    for key, (first, end) in logs.ranges(stored).items():
        offset = stored[key]
        if offset is not None:
            check_inside(key, offset, first, end)


def _check_partitions(store: WindowStore, partitions: Mapping[str, int]) -> None:
    """Topics with fewer partitions than the windows know are refused; more are fine."""
    for topic, partition in store.partitions():
        if partition < partitions.get(topic, partition + 1):
            continue
        header = store.header(topic, partition)
        if header is not None and header.next_offset is not None:
            raise LogLostError(
                f"{topic} has {partitions[topic]} partitions, and there are windows of "
                f"partition {partition}: "
                "the topic was made again with fewer",
                hint=NEW_GENERATION_HINT,
            )
