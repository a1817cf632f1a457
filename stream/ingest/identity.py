"""Whether the topics are still the ones that the windows were folded from: by their ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from freshet.stream.config import Settings
from freshet.stream.errors import LogLostError
from freshet.stream.kafka import topic_ids
from freshet.stream.store.generation import NEW_GENERATION_HINT

CHECK_S = 10.0


class TopicIdentity:
    """The ids of topics; a broker that has none (the embedded one) is not asked again.

    Args:
        settings: Where to connect.
        topics: Which topics.
        hint_of: What a person can do where a topic is another one.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        hint_of: Callable[[str], str] = lambda topic: NEW_GENERATION_HINT,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._hint_of = hint_of
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
        due = at_once or now_s - self._checked_s >= CHECK_S
        if not self._ids or not due:
            return
        found = topic_ids(self._settings, self._topics)
        self._checked_s = now_s
        for topic, known in self._ids.items():
            if found.get(topic, known) != known:
                raise LogLostError(
                    f"{topic} was deleted and made again (topic id {known}, now {found[topic]}): "
                    "offsets no longer mean the same records",
                    hint=self._hint_of(topic),
                )
