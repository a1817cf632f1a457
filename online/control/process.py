"""Control as Faust agents, the only door to `faust`; `freshet control` runs `run`.

Faust 0.15 commits what an agent was given whether it raised or not, and keeps tables with a
changelog that nothing here needs. So agents hold idempotent, low-rate logic only. The durable
effects of one record, in this order:

1. the alerts and requests that it leads to are acknowledged, or its dead letter where it cannot be
   used;
2. Faust commits its offset, some time later.

Killed before 2, the next process reads it again. What is known is rebuilt from whole topics at
start, outputs among them, so a record read twice changes nothing. One process is enough; a second
one would see part of the partitions only.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import faust

from freshet.online.control.controller import UNUSABLE, Controller, Output
from freshet.online.control.rules import RetrainRules
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.clock import Clock
from freshet.stream.codec import encode
from freshet.stream.config import KafkaSettings, Settings, Topics
from freshet.stream.errors import BrokerError, ConfigError, FreshetError
from freshet.stream.events.dead_letter import Outgoing, Source, dead_letter, limit_of
from freshet.stream.kafka import Publisher, TableReader, ensure_topics
from freshet.stream.process import BackOff
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect
from freshet.stream.telemetry import get_logger, serve_http

TICK_S = 0.2
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
HEARTBEATS_A_SESSION = 3
HEARTBEAT_MIN_S = 0.1
HEARTBEAT_MAX_S = 3.0
RAW = {
    "key_type": bytes,
    "value_type": bytes,
    "key_serializer": "raw",
    "value_serializer": "raw",
}

log = get_logger("control")


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
        agents = Agents(settings.kafka, controller, clock=clock, publisher=publisher)
        agents.send(missed)
        port = serve_http(
            settings.control.http_port,
            lambda: None,
            lambda: agents.waiting_for,
            host=settings.telemetry.http_host,
        )
        log.info("started", http_port=port)
        asyncio.run(_serve(agents, folder))
    log.info("stopped")


def restored(settings: Settings) -> tuple[Controller, list[Output]]:
    """A controller that knows what the topics say so far, and what a crash left unsaid.

    Alerts are read before what causes them, so that only outputs that are due and not in the topics
    are left over.

    Raises:
        BrokerError: The broker does not answer.
    """
    topics, control = settings.kafka.topics, settings.control
    controller = Controller(
        topics,
        RetrainRules(control.cooldown_ms, control.min_new_data_ms, control.schedule_ms),
        shop=ShopTables(settings.events.series_by),
    )
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
            # The process that read it first made a dead letter of it.
            log.debug("record_unusable", topic=record.topic, offset=record.offset)
            continue
        controller.published(outputs)
        missed += outputs
    return controller, missed


def input_topics(topics: Topics) -> tuple[str, ...]:
    """Topics that agents read."""
    return (topics.drift, topics.retrain, topics.models, topics.promotions)


class Agents:
    """Feeds a controller from Kafka and the clock, and publishes what it asks for.

    Args:
        kafka: Where from, and how large a dead letter may be.
        controller: Decides.
        clock: For what time alone brings.
        publisher: Takes outputs and dead letters.
    """

    def __init__(
        self, kafka: KafkaSettings, controller: Controller, *, clock: Clock, publisher: Publisher
    ) -> None:
        self._kafka = kafka
        self._controller = controller
        self._clock = clock
        self._publisher = publisher
        # Between a decision and the word that it is published no other decision is made, or the
        # same thing would be said twice.
        self._one_at_a_time = asyncio.Lock()
        self.waiting_for: str | None = "the first assignment"

    def app(self, data_folder: str) -> Any:
        """The Faust app: an agent for each topic and a timer; it starts nothing."""
        app = _new_app(self._kafka, data_folder)
        for name in input_topics(self._kafka.topics):
            app.agent(app.topic(name, **RAW), name=f"control.{name}", concurrency=1)(self._agent)
        app.timer(interval=TICK_S, name="control.tick")(self._tick)
        app.on_partitions_assigned.connect(self._assigned, weak=False)
        return app

    async def _assigned(self, app: Any, *_: Any, **__: Any) -> None:
        """Ready from here on, also where nothing ever drifts."""
        self.waiting_for = None

    async def _agent(self, stream: Any) -> None:
        async for event in stream.events():
            await self._handle(event.message)

    async def _handle(self, message: Any) -> None:
        """One record: decide, publish, then remember. Never raises on account of the record."""
        async with self._one_at_a_time:
            self.waiting_for = None
            try:
                outputs = self._controller.take(
                    message.topic, message.key, message.value, _timestamp_ms(message)
                )
            except UNUSABLE as error:
                log.warning(
                    "record_unusable", topic=message.topic, offset=message.offset, error=str(error)
                )
                letter = _letter(message, error, limit_of(self._kafka))
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

    def send(self, outputs: Sequence[Output]) -> None:
        """Publish and wait for the acknowledgement."""
        for output in outputs:
            value = encode(output.record)
            self._publisher.produce(output.topic, value, key=output.key, timestamp_ms=output.at_ms)
        self._publisher.flush()

    def _send_letter(self, letter: Outgoing) -> None:
        self._publisher.produce(letter.topic, letter.value, key=letter.key, headers=letter.headers)
        self._publisher.flush()

    async def _until_sent(self, send: Callable[[], None]) -> None:
        """Send in a thread, again and again until it is acknowledged.

        An agent that went on without would lose the record: Faust commits it either way.
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


def _letter(message: Any, error: Exception, limit_bytes: int) -> Outgoing:
    """The dead letter of a Faust message that cannot be used."""
    source = Source(
        message.topic,
        message.partition,
        message.offset,
        _timestamp_ms(message),
        message.key,
        message.value,
        [(name, bytes(value)) for name, value in dict(message.headers or {}).items()],
    )
    return dead_letter(source, "control", type(error).__name__, str(error), limit_bytes)


def _timestamp_ms(message: Any) -> int:
    return int(message.timestamp * 1_000)


def _new_app(kafka: KafkaSettings, data_folder: str) -> Any:
    """A Faust app without agents: no web server, no tables on disk, no topics of its own."""
    session_s = kafka.session_timeout_ms / 1_000
    heartbeat_s = min(HEARTBEAT_MAX_S, session_s / HEARTBEATS_A_SESSION)
    # Faust refuses a request that may end before the session does: a join waits for one.
    request_ms = max(kafka.request_timeout_ms, kafka.session_timeout_ms + 1_000)
    return faust.App(
        f"{kafka.group_prefix}.control",
        broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
        broker_credentials=credentials(kafka),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=max(HEARTBEAT_MIN_S, heartbeat_s),
        broker_request_timeout=request_ms / 1_000,
        consumer_auto_offset_reset="earliest",
        datadir=data_folder,
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=kafka.partitions,
        web_enabled=False,
        autodiscover=False,
    )


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


async def _serve(agents: Agents, folder: str) -> None:
    """Start the app, wait for a signal or a crash, stop the app."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    app = agents.app(folder)
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
