"""Alerts and retrain triggers as Faust agents; the only door to `faust`. `freshet control` runs
`run`.

Faust 0.15 commits what an agent was given whether it raised or not, and keeps tables with a
changelog that nothing here needs. So agents hold idempotent, low-rate logic only: what is known is
rebuilt from whole topics at start, a record read twice changes nothing, outputs are acknowledged
before the agent takes the next record, and a record that cannot be used goes to `<topic>.dlq`. One
process is enough; a second one would see part of the partitions only.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import faust
import msgspec

from freshet.online.control.alerts import (
    FLASH_SALE_TYPE,
    AlertBook,
    Signal,
    drift_signal,
    flash_sale_signal,
    model_signals,
)
from freshet.online.control.rules import RetrainRules
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.clock import Clock
from freshet.stream.codec import decode, encode
from freshet.stream.config import KafkaSettings, Settings, Topics
from freshet.stream.errors import BrokerError, ConfigError, EventError, FreshetError
from freshet.stream.events.dead_letter import Outgoing, Source, dead_letter, limit_of
from freshet.stream.kafka import Publisher, TableReader, ensure_topics
from freshet.stream.process import BackOff
from freshet.stream.schemas import Alert, DriftAlert, ModelEvent, RetrainRequest
from freshet.stream.store.clock import open_clock
from freshet.stream.store.redis import connect
from freshet.stream.telemetry import get_logger, serve_http

TICK_S = 0.2
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
UNUSABLE = (EventError, msgspec.MsgspecError, ValueError, RecursionError)

log = get_logger("control")


@dataclass(frozen=True, slots=True)
class Output:
    """A record to publish."""

    topic: str
    key: str
    record: Alert | RetrainRequest
    at_ms: int


@dataclass(slots=True)
class Controller:
    """What control knows and decides, without Kafka: records in, records out.

    Outputs count as published only when `published` is told so; asking again before that gives them
    again.
    """

    topics: Topics
    rules: RetrainRules
    book: AlertBook = field(default_factory=AlertBook)
    shop: ShopTables = field(default_factory=ShopTables)

    def take(
        self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int
    ) -> list[Output]:
        """Take in one record of an input topic and return what to publish.

        Raises:
            EventError: The record cannot be used.
        """
        if topic == self.topics.promotions:
            if not self.shop.apply("promotions", key, value, timestamp_ms):
                raise EventError(f"promotion {key!r} cannot be used")
            return []
        if value is None:
            return []
        if topic == self.topics.drift:
            alert = decode(DriftAlert, value)
            self.rules.take_drift(alert)
            return self._signals([drift_signal(alert)])
        if topic == self.topics.models:
            event = decode(ModelEvent, value)
            self.rules.take_event(event)
            return self._signals(model_signals(event))
        if topic == self.topics.retrain:
            self.rules.take_request(decode(RetrainRequest, value))
        elif topic == self.topics.alerts:
            self.book.restore(decode(Alert, value))
        return []

    def tick(self, now_ms: int) -> list[Output]:
        """What time alone brings: a retrain that is due, flash sales that begin or end."""
        outputs = self._signals(self._flash_sales(now_ms))
        if (request := self.rules.due(now_ms)) is not None:
            outputs.append(Output(self.topics.retrain, request.request_id, request, now_ms))
        return outputs

    def published(self, outputs: list[Output]) -> None:
        """The outputs are in the log."""
        for output in outputs:
            if isinstance(output.record, Alert):
                self.book.restore(output.record)
            else:
                self.rules.take_request(output.record)
        self.book.forget_resolved()

    def _signals(self, signals: list[Signal]) -> list[Output]:
        alerts = [alert for one in signals for alert in self.book.apply(one)]
        return [
            Output(self.topics.alerts, alert.subject, alert, alert.data.updated_at_ms)
            for alert in alerts
        ]

    def _flash_sales(self, now_ms: int) -> list[Signal]:
        sales = {
            sale.promotion_id: sale
            for sale in self.shop.active_promotions(now_ms)
            if sale.flash_sale
        }
        begun = [
            flash_sale_signal(sale, *self.shop.promotion_times(name), now_ms)
            for name, sale in sales.items()
        ]
        firing = [alert.data for alert in self.book.firing() if alert.type == FLASH_SALE_TYPE]
        over = [
            Signal(FLASH_SALE_TYPE, data.labels["subject"], "", False, now_ms, data.starts_at_ms)
            for data in firing
            if data.labels["subject"] not in sales
        ]
        return begun + over


class Control:
    """The controller with its clock, its publisher and its Faust app."""

    def __init__(
        self, settings: Settings, controller: Controller, clock: Clock, publisher: Publisher
    ) -> None:
        self._settings = settings
        self._controller = controller
        self._clock = clock
        self._publisher = publisher
        self._one_at_a_time = asyncio.Lock()
        self.waiting_for: str | None = "the first assignment"

    def app(self, data_folder: str) -> Any:
        """A Faust app whose agents feed the controller; it starts nothing."""
        kafka = self._settings.kafka
        app = faust.App(
            f"{kafka.group_prefix}.control",
            broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
            broker_credentials=credentials(kafka),
            broker_session_timeout=kafka.session_timeout_ms / 1_000,
            broker_heartbeat_interval=max(0.1, min(3.0, kafka.session_timeout_ms / 3_000)),
            broker_request_timeout=max(kafka.request_timeout_ms, kafka.session_timeout_ms + 1_000)
            / 1_000,
            consumer_auto_offset_reset="earliest",
            datadir=data_folder,
            store="memory://",
            topic_allow_declare=False,
            topic_disable_leader=True,
            topic_partitions=kafka.partitions,
            web_enabled=False,
            autodiscover=False,
        )
        for name in input_topics(kafka.topics):
            self._add_agent(app, name)
        app.timer(interval=TICK_S, name="control.tick")(self._tick)
        app.on_partitions_assigned.connect(self._assigned, weak=False)  # type: ignore[arg-type]
        return app

    async def _assigned(self, app: Any, *_: Any, **__: Any) -> None:
        """Ready from here on, also where nothing ever drifts."""
        self.waiting_for = None

    def _add_agent(self, app: Any, name: str) -> None:
        raw = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }

        async def agent(stream: Any) -> None:
            async for event in stream.events():
                await self._handle(event.message)

        app.agent(app.topic(name, **raw), name=f"control.{name}", concurrency=1)(agent)

    async def _handle(self, message: Any) -> None:
        """One record: decide, publish, then remember. Never raises on account of the record."""
        async with self._one_at_a_time:
            self.waiting_for = None
            try:
                timestamp_ms = int(message.timestamp * 1_000)
                outputs = self._controller.take(
                    message.topic, message.key, message.value, timestamp_ms
                )
            except UNUSABLE as error:
                log.warning(
                    "record_unusable", topic=message.topic, offset=message.offset, error=str(error)
                )
                letter = self._letter(message, error)
                await self._until_sent(lambda: self._send_letter(letter))
                return
            await self._publish(outputs)

    async def _tick(self) -> None:
        async with self._one_at_a_time:
            try:
                outputs = self._controller.tick(self._clock.now_ms())
            except FreshetError as error:
                log.warning("tick_failed", error=str(error))
                return
            await self._publish(outputs)

    async def _publish(self, outputs: list[Output]) -> None:
        if not outputs:
            return
        await self._until_sent(lambda: self.send(outputs))
        self._controller.published(outputs)
        for output in outputs:
            log.info("published", topic=output.topic, key=output.key, at_ms=output.at_ms)

    def send(self, outputs: list[Output]) -> None:
        """Publish and wait for the acknowledgement."""
        for output in outputs:
            value = encode(output.record)
            self._publisher.produce(output.topic, value, key=output.key, timestamp_ms=output.at_ms)
        self._publisher.flush()

    def _letter(self, message: Any, error: Exception) -> Outgoing:
        source = Source(
            message.topic,
            message.partition,
            message.offset,
            int(message.timestamp * 1_000),
            message.key,
            message.value,
            [(name, bytes(value)) for name, value in dict(message.headers or {}).items()],
        )
        return dead_letter(
            source, "control", type(error).__name__, str(error), limit_of(self._settings.kafka)
        )

    def _send_letter(self, letter: Outgoing) -> None:
        self._publisher.produce(letter.topic, letter.value, key=letter.key, headers=letter.headers)
        self._publisher.flush()

    async def _until_sent(self, send: Callable[[], None]) -> None:
        """Send in a thread and try again until it is acknowledged: an agent that goes on would lose
        the record.
        """
        back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S)
        while True:
            try:
                await asyncio.to_thread(send)
                self.waiting_for = None
                return
            except BrokerError as error:
                self.waiting_for = str(error)
                log.warning("publish_retried", error=str(error), wait_s=back_off.next_s)
                await asyncio.sleep(back_off.grow())


def input_topics(topics: Topics) -> tuple[str, ...]:
    """Topics that agents read."""
    return (topics.drift, topics.retrain, topics.models, topics.promotions)


def restored(settings: Settings) -> tuple[Controller, list[Output]]:
    """A controller that knows what the topics say so far, and the outputs that were due and are not
    in them.

    Alerts are read before what causes them, so that only what a crash left out is said again.

    Raises:
        BrokerError: The broker does not answer.
    """
    topics, control = settings.kafka.topics, settings.control
    rules = RetrainRules(control.cooldown_ms, control.min_new_data_ms, control.schedule_ms)
    controller = Controller(topics, rules, shop=ShopTables(settings.events.series_by))
    with TableReader(settings, [*input_topics(topics), topics.alerts]) as reader:
        records = reader.read_to_end()
    records.sort(
        key=lambda record: (record.topic != topics.alerts, record.timestamp_ms, record.offset)
    )
    missed: list[Output] = []
    for record in records:
        try:
            outputs = controller.take(record.topic, record.key, record.value, record.timestamp_ms)
        except UNUSABLE:
            log.debug("record_unusable", topic=record.topic, offset=record.offset)
            continue
        controller.published(outputs)
        missed += outputs
    return controller, missed


def credentials(kafka: KafkaSettings) -> Any:
    """How Faust signs in, or None for a plain connection.

    Raises:
        ConfigError: The mechanism needs a token provider, which Faust cannot take from settings.
    """
    context = None
    if kafka.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=kafka.ssl_ca_location or None)
    if kafka.security_protocol.startswith("SASL"):
        if kafka.sasl_mechanism == "OAUTHBEARER":
            raise ConfigError(
                "freshet control cannot sign in with OAUTHBEARER",
                hint="use SCRAM-SHA-512 for its user",
            )
        return faust.SASLCredentials(
            mechanism=kafka.sasl_mechanism or "PLAIN",
            username=kafka.sasl_username,
            password=kafka.sasl_password.get_secret_value(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then leave the group and return.

    Raises:
        FreshetError: The broker or Redis cannot be reached at start, or the app broke for good.
    """
    ensure_topics(settings, live=True)
    clock = open_clock(connect(settings.redis))
    controller, missed = restored(settings)
    with (
        Publisher(settings) as publisher,
        tempfile.TemporaryDirectory(prefix="freshet-control-") as folder,
    ):
        control = Control(settings, controller, clock, publisher)
        control.send(missed)
        host = settings.telemetry.http_host
        port = serve_http(
            settings.control.http_port, lambda: None, lambda: control.waiting_for, host=host
        )
        log.info("started", http_port=port)
        asyncio.run(_serve(control, folder))
    log.info("stopped")


async def _serve(control: Control, folder: str) -> None:
    """Start the app, wait for a signal or a crash, stop the app."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    app = control.app(folder)
    starting = asyncio.ensure_future(app.start())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await _first(starting, stopping, timeout_s=START_TIMEOUT_S)
        if not stop.is_set():
            await starting
            await _first(stopping, asyncio.ensure_future(_crashed(app)))
    finally:
        starting.cancel()
        stopping.cancel()
        await asyncio.wait_for(app.stop(), STOP_TIMEOUT_S)
    if app.crashed and not stop.is_set():
        raise BrokerError(f"the control agents broke: {app.crash_reason!r}")


async def _first(*tasks: Awaitable[Any], timeout_s: float | None = None) -> None:
    done, _ = await asyncio.wait(
        [asyncio.ensure_future(t) for t in tasks], timeout=timeout_s, return_when="FIRST_COMPLETED"
    )
    if not done:
        raise BrokerError(f"the control agents did not start within {timeout_s:g} s")


async def _crashed(app: Any) -> None:
    while not app.crashed:
        await asyncio.sleep(TICK_S)
