"""Asks broker, Redis and whatever else a process stands on whether it is there, beside its loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import redis

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, FreshetError
from freshet.stream.health import Health
from freshet.stream.kafka import Producer, broker_errors, producer
from freshet.stream.store.connection import connect, translated
from freshet.stream.telemetry import get_logger

PERIOD_S = 1.0
ANSWER_WITHIN_MS = 1_500  # two of them and a period are less than the 5 s that /readyz may be wrong

Question = Callable[[], None]
"""Raises a FreshetError that says what is away."""

log = get_logger(__name__)


class ServerWatch:
    """Asks once a second and tells `Health`: an idle loop would not notice that a server is gone.

    Args:
        settings: Which broker and which Redis.
        health: Told of each that does not answer, and when it answers again.
        more: Further questions, by the name of what they are about.
    """

    def __init__(
        self, settings: Settings, health: Health, more: Mapping[str, Question] | None = None
    ) -> None:
        self._settings = settings
        self._health = health
        self._questions = {"kafka": self._ask_broker, "store": self._ask_redis, **(more or {})}
        self._producer: Producer | None = None
        self._redis: redis.Redis | None = None

    def start(self) -> None:
        """Ask from now on, until the process is told to stop."""
        threading.Thread(target=self._run, name="servers", daemon=True).start()

    def look(self) -> None:
        """Ask everything once."""
        for what, ask in self._questions.items():
            try:
                ask()
            except FreshetError as error:
                self._health.say(what, str(error))
            else:
                self._health.over(what)

    def _run(self) -> None:
        while not self._health.stop.wait(PERIOD_S):
            try:
                self.look()
            except Exception:
                # Whatever a library raises, the probes go on asking.
                log.exception("servers_not_asked")

    def _ask_broker(self) -> None:
        servers = self._settings.kafka.bootstrap_servers
        self._producer = self._producer or producer(self._settings)
        try:
            with broker_errors(f"Kafka at {servers} does not answer"):
                topic = self._settings.kafka.topics.windows
                self._producer.list_topics(topic, timeout=ANSWER_WITHIN_MS / 1_000)
        except BrokerError as error:
            hint = "is it running, and is kafka.bootstrap_servers right?"
            raise BrokerError(error.message, hint=hint) from None

    def _ask_redis(self) -> None:
        if self._redis is None:
            quick = {"timeout_ms": min(ANSWER_WITHIN_MS, self._settings.redis.timeout_ms)}
            self._redis = connect(self._settings.redis.model_copy(update=quick))
        with translated(self._redis):
            self._redis.ping()
