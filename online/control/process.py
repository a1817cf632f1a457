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

It alone writes the dead letters of alerts, drift, requests and models: other readers of them keep
no place, and would write each letter again at every start. Those of the shop's tables are ingest's.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import faust
from faust.auth import (  # type: ignore[attr-defined]
    AbstractTokenProvider,
    OAuthCredentials,
)

from freshet.online.control.controller import Controller, Output
from freshet.online.control.door import PATH, Busy, Door
from freshet.online.control.metrics import ControlMetrics
from freshet.online.control.requests import by_hand, new_request_id
from freshet.online.control.restored import input_topics, restored
from freshet.stream.clock import Clock
from freshet.stream.codec import encode
from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.errors import BrokerError, EventError
from freshet.stream.events.dead_letter import Source
from freshet.stream.events.letters import Letters
from freshet.stream.health import Health, Watch
from freshet.stream.kafka import (
    FAUST,
    Delivery,
    Outgoing,
    Publisher,
    TokenProvider,
    broker_question,
    ensure_topics,
    sign_in,
)
from freshet.stream.process import Stop, stop_on_signals
from freshet.stream.schemas import SHOP_TABLES, RetrainRequest
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect, redis_question
from freshet.stream.telemetry import get_logger, new_registry, serve_http

TICK_S = 0.2
ASK_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 4.0
HEARTBEATS_A_SESSION = 3
HEARTBEAT_MIN_S = 0.1
HEARTBEAT_MAX_S = 3.0
RAW = {
    "key_type": bytes,
    "value_type": bytes,
    "key_serializer": "raw",
    "value_serializer": "raw",
}

# The client under Faust asks what class a provider is of, not what it can do.
AbstractTokenProvider.register(TokenProvider)

log = get_logger("control")


def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then leave the group and return.

    Raises:
        FreshetError: The broker or Redis cannot be reached at start, or the app broke for good.
    """
    with stop_on_signals() as stop:
        _run(settings, stop)
    log.info("stopped")


def _run(settings: Settings, stop: Stop) -> None:
    ensure_topics(settings, live=True)
    clock = open_clock(connect(settings.redis))
    controller, missed = restored(settings, clock)
    registry = new_registry()
    metrics = ControlMetrics(registry, controller)
    health = Health(stop, "waiting for the first assignment", counted=metrics.trouble)
    host = settings.telemetry.http_host
    with (
        Publisher(settings) as publisher,
        tempfile.TemporaryDirectory(prefix="freshet-control-") as folder,
    ):
        delivery = Delivery(publisher, health, registry)
        letters = Letters(settings.kafka, delivery, registry)
        agents = Agents(
            settings.kafka,
            controller,
            clock=clock,
            delivery=delivery,
            letters=letters,
            health=health,
        )
        door = Door(settings.control.retrain_token.get_secret_value(), agents.ask)
        port = serve_http(
            settings.control.http_port,
            health.live,
            health.ready,
            registry=registry,
            host=host,
            posts={PATH: door},
        )
        questions = {"kafka": broker_question(settings), "store": redis_question(settings.redis)}
        with Watch(health, questions):
            log.info("started", http_port=port)
            if delivery.deliver(outgoing_of(missed)):
                asyncio.run(_serve(agents, folder, stop))


class Agents:
    """Feeds a controller from Kafka and the clock, and publishes what it asks for.

    Args:
        kafka: Where from.
        controller: Decides.
        clock: For what time alone brings.
        delivery: Takes outputs.
        letters: Takes records that cannot be used.
        health: Told of each turn.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        controller: Controller,
        *,
        clock: Clock,
        delivery: Delivery,
        letters: Letters,
        health: Health,
    ) -> None:
        self._kafka = kafka
        self._told_by_ingest = kafka.topics.of(*SHOP_TABLES)
        self._controller = controller
        self._clock = clock
        self._delivery = delivery
        self._letters = letters
        self._health = health
        # Between a decision and the word that it is published no other decision is made, or the
        # same thing would be said twice.
        self._one_at_a_time = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

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
        self._loop = asyncio.get_running_loop()
        self._health.started()

    def ask(self, segments: list[str]) -> RetrainRequest:
        """Ask for training by hand, from any thread; blocks until the request is acknowledged.

        Raises:
            Busy: Another one has no answer yet.
            BrokerError: It is not on the topic, or nobody knows whether it is: ask again.
        """
        if self._loop is None:
            raise BrokerError("control has not read its topics yet", hint="ask again")
        asked = asyncio.run_coroutine_threadsafe(self._ask(segments), self._loop)
        try:
            return asked.result(ASK_TIMEOUT_S)
        except TimeoutError:
            asked.cancel()
            raise BrokerError("the request was not acknowledged", hint="ask again") from None

    async def _ask(self, segments: list[str]) -> RetrainRequest:
        async with self._one_at_a_time:
            busy = self._controller.rules.hurried()
            if busy is not None:
                raise Busy(busy)
            now_ms = await asyncio.to_thread(self._clock.now_ms)
            request = by_hand(new_request_id(), now_ms, segments)
            topic = self._controller.topics.retrain
            if not await self._publish([Output(topic, request.request_id, request, now_ms)]):
                raise BrokerError("control is told to stop", hint="ask again")
            return request

    async def _agent(self, stream: Any) -> None:
        async for event in stream.events():
            await self._handle(_source_of(event.message))

    async def _handle(self, source: Source) -> None:
        """One record: decide, publish, then remember. Never raises on account of the record."""
        try:
            async with self._one_at_a_time:
                outputs = self._controller.take(
                    source.topic,
                    source.key,
                    source.value,
                    source.timestamp_ms,
                    source.headers,
                )
                await self._publish(outputs)
        except Exception as error:
            # Whatever a record makes the code raise, those behind it have their turn.
            if source.topic in self._told_by_ingest and isinstance(error, EventError):
                log.debug("record_unusable", topic=source.topic, offset=source.offset)
                return
            # The lock is free: alerts do not wait for a letter.
            await asyncio.to_thread(self._letters.send, source, "control", error)

    async def _tick(self) -> None:
        async with self._one_at_a_time:
            self._health.beat()
            try:
                now_ms = await asyncio.to_thread(self._clock.now_ms)
                outputs = self._controller.tick(now_ms)
            except Exception as error:
                self._health.say("tick", f"alerts and requests that time brings wait: {error}")
                return
            self._health.over("tick")
            await self._publish(outputs)

    async def _publish(self, outputs: list[Output]) -> bool:
        """Send until acknowledged, then remember; a stop leaves it to the next process."""
        sent = outgoing_of(outputs)
        if not sent or not await asyncio.to_thread(self._delivery.deliver, sent):
            return False
        self._controller.published(outputs)
        for output in outputs:
            log.info("published", topic=output.topic, key=output.key, at_ms=output.at_ms)
        return True


def outgoing_of(outputs: Sequence[Output]) -> list[Outgoing]:
    """Outputs as they are sent."""
    return [
        Outgoing(output.topic, output.key.encode(), encode(output.record)) for output in outputs
    ]


def _source_of(message: Any) -> Source:
    """The record inside a Faust message."""
    return Source(
        message.topic,
        message.partition,
        message.offset,
        int(message.timestamp * 1_000),
        message.key,
        message.value,
        [(name, bytes(value)) for name, value in dict(message.headers or {}).items()],
    )


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
        ConfigError: A file cannot be used, or Faust cannot do what a setting asks for.
    """
    found = sign_in(kafka, FAUST)
    if not found.mechanism:
        return None if found.context is None else faust.SSLCredentials(found.context)
    if found.tokens is not None:
        return OAuthCredentials(oauth_cb=found.tokens, ssl_context=found.context)
    if found.mechanism == "GSSAPI":
        return faust.GSSAPICredentials(
            kerberos_service_name=found.service_name, ssl_context=found.context
        )
    return faust.SASLCredentials(
        mechanism=found.mechanism,
        username=found.username,
        password=found.password,
        ssl_context=found.context,
    )


async def _serve(agents: Agents, folder: str, stop: Stop) -> None:
    """Start the app, wait until told to stop or for a crash, stop the app."""
    app = agents.app(folder)
    starting = asyncio.ensure_future(app.start())
    try:
        if not await _first(stop.is_set, starting.done, timeout_s=START_TIMEOUT_S):
            raise BrokerError(f"the control agents did not start within {START_TIMEOUT_S:g} s")
        if starting.done():
            starting.result()
        await _first(stop.is_set, lambda: app.crashed)
    finally:
        starting.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(app.stop(), STOP_TIMEOUT_S)
    if app.crashed and not stop.is_set():
        raise BrokerError(f"the control agents broke: {app.crash_reason!r}")


async def _first(*happened: Callable[[], bool], timeout_s: float = float("inf")) -> bool:
    """Wait until one of these is so; False after so long."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + timeout_s
    while not any(one() for one in happened):
        if loop.time() > end_s:
            return False
        await asyncio.sleep(TICK_S)
    return True
