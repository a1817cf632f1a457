"""`freshet learn`: the learner with its topics, its history and its clock; `run` is the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from freshet.model.devices import pick_device, take_at_most
from freshet.model.text import encode_texts
from freshet.model.threads import use_threads
from freshet.online.effects.table import EffectsTable
from freshet.online.learn.announcer import Announcer
from freshet.online.learn.learner import Learner, Stopped
from freshet.online.learn.ledger import Ledger
from freshet.online.learn.metrics import LearnMetrics
from freshet.online.learn.networks import VersionedNetworks
from freshet.online.trials.guard import open_guards
from freshet.online.trials.history import open_history
from freshet.online.weights.announced import checker
from freshet.online.weights.registry import open_registry
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.clock import latest_ms
from freshet.stream.codec import MAX_TIME_MS, decode, encode
from freshet.stream.config import Settings, Topics
from freshet.stream.errors import FreshetError, RegistryError
from freshet.stream.health import Health, Watch
from freshet.stream.kafka import (
    Delivery,
    Outgoing,
    Publisher,
    TableReader,
    TableRecord,
    broker_question,
    ensure_topics,
)
from freshet.stream.process import Stop, stop_on_signals
from freshet.stream.read.shop import ShopFeed
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect, redis_question
from freshet.stream.telemetry import get_logger, new_registry, serve_http

POLL_MS = 200
# Training takes seconds of every core it may have; forecasts on the same machine come first.
NICENESS = 5
MAX_ERROR_CHARACTERS = 500
LOADED_BY_OPTIMISERS = "torch._dynamo"

log = get_logger(__name__)


def run(settings: Settings) -> None:
    """Learn until SIGTERM or SIGINT.

    A training that runs then is given up, and done again by the next process.

    Raises:
        FreshetError: Broker, Redis, the device or the base weights are missing at start.
    """
    # Before signals are heard: imports take seconds that nothing interrupts.
    import_module(LOADED_BY_OPTIMISERS)
    encode_texts([])
    with stop_on_signals() as stop:
        _run(settings, stop)
    log.info("stopped")


def _run(settings: Settings, stop: Stop) -> None:
    os.nice(NICENESS)
    use_threads(settings.learn.threads)
    take_at_most(pick_device(settings.learn.device), settings.learn.gpu_memory_share)
    ensure_topics(settings, live=True)
    client = connect(settings.redis)
    clock = open_clock(client)

    latest = partial(latest_ms, clock)
    versions = open_registry(settings.learn)
    shop = ShopTables.of(settings, latest_ms=latest)
    ledger = Ledger(checker(versions))
    feed = ShopFeed(client, settings, shop)
    effects = EffectsTable(settings.calendar.country or None, latest_ms=latest)
    inbox = Inbox(settings.kafka.topics, ledger, effects, latest)
    registry = new_registry()
    metrics = LearnMetrics(registry, ledger)
    health = Health(stop, "reading the topics", counted=metrics.trouble)
    host = settings.telemetry.http_host
    port = serve_http(
        settings.learn.http_port, health.live, health.ready, registry=registry, host=host
    )
    questions = {
        "kafka": broker_question(settings),
        "store": redis_question(settings.redis),
        "registry": lambda: check_writable(versions.folder),
    }
    with (
        Watch(health, questions),
        TableReader(settings, inbox.topics) as reader,
        Publisher(settings) as publisher,
    ):
        # What was asked and answered before decides what there is to do: all of it comes first.
        for record in reader.read_to_end():
            inbox.take(record)
        delivery = Delivery(publisher, health, registry)
        stopped = stopper(health)
        history = open_history(settings, client, shop, effects, stopped)
        learner = Learner(
            settings.learn,
            history,
            VersionedNetworks(versions, settings.learn.device, stopped=stopped),
            Announcer(publisher_of(delivery, settings.kafka.topics.models), clock.now_ms, ledger),
            guards=partial(open_guards, settings, client, shop, effects, history),
            stopped=stopped,
        )
        health.started()
        log.info("started", http_port=port)
        _loop(reader, feed, inbox, learner, health, metrics)


def _loop(
    reader: TableReader,
    feed: ShopFeed,
    inbox: Inbox,
    learner: Learner,
    health: Health,
    metrics: LearnMetrics,
) -> None:
    while not health.stop.is_set():
        health.beat()
        try:
            for record in reader.poll(POLL_MS):
                inbox.take(record)
            feed.poll()
            if not feed.caught_up:
                health.say("tables", feed.waits_for)
                continue
            health.over("tables")
            with metrics.step_seconds.time():
                learner.step()
        except Stopped:
            log.info("training_given_up", phase=learner.phase)
        except FreshetError as error:
            # A registry that is lost comes back, or a person mends it; what serves serves on.
            if not error.retriable and not isinstance(error, RegistryError):
                raise
            health.wait_out(error)
        else:
            health.turned()
            health.answered()


def stopper(health: Health) -> Callable[[], None]:
    """Called between two steps of a long computation: the loop lives; raises when it is to end."""

    def check() -> None:
        health.beat()
        if health.stop.is_set():
            raise Stopped

    return check


def check_writable(folder: Path) -> None:
    """Say when versions could not be registered; nothing is made where a disk is not mounted.

    Raises:
        RegistryError: The folder must not be written, or what it would be made in.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise RegistryError(f"the registry {folder} cannot be written")


class Inbox:
    """Feeds ledger and effects from the topics; what cannot be read is logged and passed over."""

    def __init__(
        self,
        topics: Topics,
        ledger: Ledger,
        effects: EffectsTable,
        latest_ms: Callable[[], int] = lambda: MAX_TIME_MS,
    ) -> None:
        self._topics = topics
        self._latest_ms = latest_ms
        self._ledger = ledger
        self._effects = effects

    @property
    def topics(self) -> list[str]:
        """What must be read."""
        topics = self._topics
        return [topics.retrain, topics.models, topics.drift, topics.effects]

    def take(self, record: TableRecord) -> None:
        """Take in one record."""
        if record.topic == self._topics.effects:
            self._effects.take(record.key, record.value)
        elif record.value is not None:
            self._take_or_pass(record.topic, record.value, record.offset)

    def _take_or_pass(self, topic: str, value: bytes, offset: int) -> None:
        try:
            self._take(topic, value)
        except Exception as error:
            # Control writes its dead letter.
            told = str(error)[:MAX_ERROR_CHARACTERS]
            log.warning("record_unusable", topic=topic, offset=offset, error=told)

    def _take(self, topic: str, value: bytes) -> None:
        latest_ms = self._latest_ms()
        if topic == self._topics.retrain:
            self._ledger.take_request(decode(RetrainRequest, value, latest_ms=latest_ms))
        elif topic == self._topics.models:
            self._ledger.take_event(decode(ModelEvent, value, latest_ms=latest_ms))
        else:
            self._ledger.take_drift(decode(DriftAlert, value, latest_ms=latest_ms))


def publisher_of(delivery: Delivery, topic: str) -> Callable[[ModelEvent], None]:
    """Publishes an event and returns once it is acknowledged, however long that takes.

    What it returns raises `Stopped` when the process is told to end before that.
    """

    def publish(event: ModelEvent) -> None:
        key = f"{event.kind}:{event.version}".encode()
        if not delivery.deliver([Outgoing(topic, key, encode(event))]):
            raise Stopped

    return publish
