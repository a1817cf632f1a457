"""`freshet learn`: the learner with its topics, its history and its clock; `run` is the process."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
import torch

from freshet.online.learn.announcer import Announcer
from freshet.online.learn.history import open_history
from freshet.online.learn.learner import Learner, Stopped
from freshet.online.learn.ledger import Ledger
from freshet.online.learn.networks import VersionedNetworks
from freshet.online.weights.registry import Registry
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings, Topics
from freshet.stream.errors import BrokerError, FreshetError
from freshet.stream.kafka import Publisher, TableReader, TableRecord, ensure_topics
from freshet.stream.process import BackOff, Stop, stop_on_signals
from freshet.stream.schemas import SHOP_TABLES, DriftAlert, ModelEvent, RetrainRequest
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect
from freshet.stream.telemetry import get_logger, serve_http

POLL_MS = 200
# Training takes seconds of every core it may have; forecasts on the same machine come first.
NICENESS = 5
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
UNUSABLE = (FreshetError, msgspec.MsgspecError, ValueError, RecursionError)
MAX_ERROR_CHARACTERS = 500

log = get_logger(__name__)


def run(settings: Settings) -> None:
    """Learn until SIGTERM or SIGINT.

    A training that runs then is given up, and done again by the next process.

    Raises:
        FreshetError: Broker, Redis or the base weights are missing at start.
    """
    with stop_on_signals() as stop:
        _run(settings, Health(stop))
    log.info("stopped")


def _run(settings: Settings, health: Health) -> None:
    os.nice(NICENESS)
    if settings.learn.threads:
        torch.set_num_threads(settings.learn.threads)
    ensure_topics(settings, live=True)
    client = connect(settings.redis)
    clock = open_clock(client)
    shop, ledger = ShopTables(settings.events.series_by), Ledger()
    inbox = Inbox(settings.kafka.topics, ledger, shop)
    host = settings.telemetry.http_host
    port = serve_http(settings.learn.http_port, lambda: None, lambda: health.problem, host=host)
    with TableReader(settings, inbox.topics) as reader, Publisher(settings) as publisher:
        # What was asked and answered before decides what there is to do: all of it comes first.
        for record in reader.read_to_end():
            inbox.take(record)
        publish = publisher_of(publisher, settings.kafka.topics.models, health)
        learner = Learner(
            settings.learn,
            open_history(settings, client, shop),
            VersionedNetworks(Registry(settings.learn.registry), settings.learn.device),
            Announcer(publish, clock.now_ms, ledger),
            stopped=health.check,
        )
        health.problem = None
        log.info("started", http_port=port, champion=learner.registry.champion())
        _loop(reader, inbox, learner, health)


def _loop(reader: TableReader, inbox: Inbox, learner: Learner, health: Health) -> None:
    back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, health.stop.wait)
    while not health.stop.is_set():
        for record in reader.poll(POLL_MS):
            inbox.take(record)
        try:
            learner.step()
        except Stopped:
            log.info("training_given_up", phase=learner.phase)
        except FreshetError as error:
            if not error.retriable:
                raise
            health.problem = str(error)
            log.warning("step_retried", error=str(error), wait_s=back_off.next_s)
            back_off.pause()
        else:
            health.problem = None
            back_off.reset()


class Inbox:
    """Feeds ledger and shop from the topics; what cannot be read is logged and passed over."""

    def __init__(self, topics: Topics, ledger: Ledger, shop: ShopTables) -> None:
        self._topics = topics
        self._ledger = ledger
        self._shop = shop
        self._tables = topics.of(*SHOP_TABLES)

    @property
    def topics(self) -> list[str]:
        """What must be read."""
        topics = self._topics
        return [topics.retrain, topics.models, topics.drift, *self._tables]

    def take(self, record: TableRecord) -> None:
        """Take in one record."""
        table = self._tables.get(record.topic)
        if table is not None:
            self._shop.apply(table, record.key, record.value, record.timestamp_ms)
        elif record.value is not None:
            try:
                self._take(record.topic, record.value)
            except UNUSABLE as error:
                told = str(error)[:MAX_ERROR_CHARACTERS]
                log.warning("record_unusable", topic=record.topic, offset=record.offset, error=told)

    def _take(self, topic: str, value: bytes) -> None:
        if topic == self._topics.retrain:
            self._ledger.take_request(decode(RetrainRequest, value))
        elif topic == self._topics.models:
            self._ledger.take_event(decode(ModelEvent, value))
        else:
            self._ledger.take_drift(decode(DriftAlert, value))


class Health:
    """What `/readyz` says, and whether the process was asked to end."""

    def __init__(self, stop: Stop) -> None:
        self.problem: str | None = "reading the topics"
        self.stop = stop

    def check(self) -> None:
        """Raise `Stopped` when the process is to end."""
        if self.stop.is_set():
            raise Stopped


def publisher_of(publisher: Publisher, topic: str, health: Health) -> Callable[[ModelEvent], None]:
    """Publishes an event and returns once it is acknowledged, however long that takes."""

    def publish(event: ModelEvent) -> None:
        back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, health.stop.wait)
        while True:
            try:
                key = f"{event.kind}:{event.version}"
                publisher.produce(topic, encode(event), key=key, timestamp_ms=event.at_ms)
                publisher.flush()
                health.problem = None
                return
            except BrokerError as error:
                health.problem = str(error)
                log.warning("publish_retried", error=str(error), wait_s=back_off.next_s)
                back_off.pause()
                health.check()

    return publish
