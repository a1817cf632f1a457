"""`freshet learn`: the learner with its topics, its view of the window store and its clock; `run`
is the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import torch

from freshet.model.batch import Batch
from freshet.online.learn.learner import Learner, Stopped
from freshet.online.learn.ledger import Ledger
from freshet.online.weights.registry import Registry
from freshet.online.worker.context import Contexts
from freshet.online.worker.scorer import segments_of
from freshet.stream.arrays import Floats, Ints
from freshet.stream.catalog.tables import ShopTables, ShopTopic
from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings, Topics
from freshet.stream.errors import BrokerError, FreshetError
from freshet.stream.kafka import Publisher, TableReader, TableRecord, ensure_topics
from freshet.stream.process import BackOff, Stop, stop_on_signals
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest
from freshet.stream.store.clock import open_clock
from freshet.stream.store.redis import connect
from freshet.stream.telemetry import get_logger, serve_http

POLL_MS = 200
MEAN_BUCKETS = 168
NICENESS = 5
"""Training takes seconds of every core it may have; forecasts on the same machine come first."""
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0

log = get_logger(__name__)


class WindowHistory:
    """The window store's past as the learner needs it; rows are those of the reader.

    Args:
        contexts: Over a reader that holds all retained buckets.
        segments: The segment of each of some items, as the drift detectors name them.
    """

    def __init__(self, contexts: Contexts, segments: Callable[[Sequence[str]], list[str]]) -> None:
        self._contexts, self._segments = contexts, segments
        self.resolution_ms = contexts.reader.resolution_ms
        self.steps = contexts.prediction_length

    def refresh(self) -> None:
        """Take in what is new in Redis."""
        self._contexts.refresh()

    def batch(self, rows: Ints, cutoff_ms: int) -> Batch:
        """Contexts that end at the cutoff, and what was known then of the steps after it."""
        return self._contexts.batch(rows, cutoff_ms)

    def target(self, rows: Ints, end_ms: int, steps: int) -> Floats:
        """Units of the steps that end at `end_ms`; NaN where not observed or out of stock."""
        units: Floats = self._contexts.target(rows, end_ms, steps)
        return units

    def final_ms(self) -> int | None:
        """Buckets that end at or before it are final."""
        return self._contexts.reader.final_ms()

    def first_ms(self) -> int | None:
        """Start of the oldest bucket that was observed and is held."""
        states = [
            state
            for state in self._contexts.reader.inputs.values()
            if state.first_event_ms is not None
        ]
        begun = [state.first_event_ms for state in states if state.first_event_ms is not None]
        frontiers = [state.frontier_ms for state in states if state.frontier_ms is not None]
        if not begun or not frontiers:
            return None
        oldest = max(frontiers) // self.resolution_ms - self._contexts.reader.num_buckets + 1
        return max(min(begun) // self.resolution_ms, oldest) * self.resolution_ms

    def segments(self) -> list[str]:
        """The segment of each row."""
        return self._segments(self._contexts.item_ids)

    def mean_units(self) -> Floats:
        """Mean units of each row over the newest final buckets; 0 where nothing was observed."""
        final_ms = self.final_ms()
        rows = np.arange(len(self._contexts.item_ids))
        if final_ms is None or not len(rows):
            return np.zeros(len(rows))
        end_ms = final_ms // self.resolution_ms * self.resolution_ms
        units_IT = self._contexts.target(rows, end_ms, MEAN_BUCKETS)
        seen_I = np.isfinite(units_IT).sum(1)
        mean_units_I: Floats = np.nansum(units_IT, axis=1) / np.maximum(seen_I, 1)
        return mean_units_I

    def offsets(self) -> dict[str, int]:
        """What of the log has been folded."""
        return self._contexts.reader.offsets()


class Inbox:
    """Feeds ledger and shop from the topics; a record that cannot be read is logged and passed
    over.
    """

    def __init__(self, topics: Topics, ledger: Ledger, shop: ShopTables) -> None:
        self._ledger, self._shop, self._topics = ledger, shop, topics
        self._shop_topics: dict[str, ShopTopic] = {
            topics.catalog: "catalog",
            topics.promotions: "promotions",
            topics.inventory: "inventory",
        }

    @property
    def topics(self) -> list[str]:
        """What must be read."""
        return [self._topics.retrain, self._topics.models, self._topics.drift, *self._shop_topics]

    def take(self, record: TableRecord) -> None:
        """Take in one record."""
        kind = self._shop_topics.get(record.topic)
        if kind is not None:
            self._shop.apply(kind, record.key, record.value, record.timestamp_ms)
        elif record.value is not None:
            try:
                self._take(record.topic, record.value)
            except (FreshetError, msgspec.MsgspecError, ValueError, RecursionError) as error:
                log.warning(
                    "record_unusable",
                    topic=record.topic,
                    offset=record.offset,
                    error=str(error)[:500],
                )

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
    """A function that publishes an event and returns once it is acknowledged, however long that
    takes.
    """

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


def run(settings: Settings) -> None:
    """Learn until SIGTERM or SIGINT; a training that runs then is given up and done again by the
    next process.

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
        for record in reader.read_to_end():
            inbox.take(record)
        learner = Learner(
            settings.learn,
            Registry(settings.learn.registry),
            _history(settings, client, shop),
            publisher_of(publisher, settings.kafka.topics.models, health),
            clock.now_ms,
            stopped=health.check,
            ledger=ledger,
        )
        health.problem = None
        log.info("started", http_port=port, champion=learner.registry.champion())
        _loop(reader, inbox, learner, health)


def _history(settings: Settings, client: object, shop: ShopTables) -> WindowHistory:
    width_ms = settings.worker.resolution_ms
    retained = {width.resolution_ms: width.buckets for width in settings.windows.resolutions}[
        width_ms
    ]
    reader = WindowReader(
        client,  # type: ignore[arg-type]
        settings.redis.generation,
        width_ms,
        retained,
        rules=ReadRules.of(settings, width_ms),
    )
    contexts = Contexts(
        reader,
        shop,
        context_length=settings.worker.context_length,
        prediction_length=settings.worker.prediction_length,
    )
    series_by = settings.events.series_by
    return WindowHistory(
        contexts, lambda item_ids: segments_of(item_ids, settings.drift, shop, series_by)
    )


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
