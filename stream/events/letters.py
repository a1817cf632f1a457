"""Where every process puts a record that it cannot use: the dead-letter topic of its topic."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from freshet.stream.config import KafkaSettings
from freshet.stream.events.dead_letter import Source, dead_letter, limit_of
from freshet.stream.kafka.delivery import Delivery, give_up
from freshet.stream.kafka.publisher import Refusal
from freshet.stream.telemetry import get_logger

MAX_ERROR_CHARACTERS = 500

log = get_logger(__name__)


class Letters:
    """Sends dead letters; work goes on where one cannot be sent.

    Args:
        kafka: How large a letter may be.
        delivery: Sends it, or logs it with its bytes.
        registry: Where metrics go.
    """

    def __init__(
        self, kafka: KafkaSettings, delivery: Delivery, registry: CollectorRegistry | None = None
    ) -> None:
        self._limit_bytes = limit_of(kafka)
        self._delivery = delivery
        self._sent = Counter(
            "freshet_dead_letters", "Records that could not be used.", ["topic"], registry=registry
        )

    def send(self, source: Source, stage: str, error: Exception) -> bool:
        """A record cannot be used; returns once its letter is sent or given up.

        False when told to stop before that.
        """
        text = str(error)[:MAX_ERROR_CHARACTERS]
        log.warning(
            "record_unusable",
            topic=source.topic,
            partition=source.partition,
            offset=source.offset,
            error=text,
        )
        self._sent.labels(source.topic).inc()
        letter = dead_letter(source, stage, type(error).__name__, text, self._limit_bytes)
        sent = self._delivery.deliver([letter], may_lose=True)
        if not sent:
            reason = "the process ended before the broker answered"
            give_up(Refusal(letter.topic, letter.key, letter.value, reason, unfit=False))
        return sent
