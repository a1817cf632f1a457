"""The worker's process: everything that it needs is connected here, then its loop turns."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from uuid import uuid4

from freshet.model.devices import go_first
from freshet.model.threads import use_threads
from freshet.online.effects.table import EffectsTable
from freshet.online.weights.swap import open_switch
from freshet.online.worker.group import Membership
from freshet.online.worker.loop import Parts, Worker
from freshet.online.worker.metrics import WorkerMetrics
from freshet.online.worker.owner import has_work, open_keeper
from freshet.online.worker.side_inputs import SideInputs
from freshet.stream.clock import latest_ms
from freshet.stream.config import Settings
from freshet.stream.health import Health, Watch
from freshet.stream.kafka import (
    AtLeastOnce,
    Commits,
    Delivery,
    ExactlyOnce,
    Publisher,
    broker_question,
    partitions_of,
)
from freshet.stream.process import Stop, on_signals
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import check_fit, connect, redis_question
from freshet.stream.telemetry import get_logger, new_registry, serve_http

log = get_logger(__name__)


def run(settings: Settings) -> None:
    """Forecast until SIGTERM or SIGINT.

    Raises:
        BrokerError, StoreError: At the start something is missing or unfit.
        WeightsError: There are no weights to forecast with.
    """
    worker = open_worker(settings)
    try:
        with on_signals({signal.SIGTERM: worker.stop, signal.SIGINT: worker.stop}):
            worker.run()
    finally:
        worker.close()


def open_worker(settings: Settings) -> Worker:
    """The composition root: connect everything that a worker needs, and answer its probes.

    Raises:
        BrokerError, StoreError: Something is missing or unfit.
        WeightsError: There are no weights to forecast with.
    """
    topics = settings.kafka.topics
    written = [topics.forecasts, topics.rounds, topics.shadow, topics.scores, topics.scored]
    partitions_of(settings, written)
    client = connect(settings.redis)
    check_fit(client)
    threads = use_threads(settings.worker.threads)
    switch = open_switch(settings, f"{socket.gethostname()}:{os.getpid()}")
    registry = new_registry()
    metrics = WorkerMetrics(registry)
    stop = Stop()
    health = Health(
        stop,
        "reading the catalogue and joining the worker group",
        standing=lambda: switch.current.fallback,
        counted=lambda what: metrics.troubles.labels(what).inc(),
    )
    clock = open_clock(client)

    latest = partial(latest_ms, clock)
    # Pinned weights serve whatever is announced.
    offer = None if settings.worker.weights else switch.offer
    questions = {"kafka": broker_question(settings), "store": redis_question(settings.redis)}
    membership = Membership(settings)
    delivery = Delivery(Publisher(settings), health, registry)
    parts = Parts(
        redis=client,
        clock=clock,
        switch=switch,
        side_inputs=SideInputs(
            settings,
            client,
            offer,
            latest,
            effects=_effects_table(settings, metrics, latest),
            estimated=metrics.effects_seconds.inc,
            tense=metrics.show_tensions,
        ),
        membership=membership,
        commits=_commits(settings, membership, delivery, health),
        delivery=delivery,
        health=health,
        watch=Watch(health, questions),
        owner=open_keeper(settings, client, health) if has_work(settings) else None,
    )
    worker = Worker(settings, parts, metrics, stop)
    wanted_port, host = settings.worker.http_port, settings.telemetry.http_host
    port = serve_http(wanted_port, health.live, health.ready, registry=registry, host=host)
    serving = switch.current
    device = str(serving.default.forecaster.device)
    go_first(device)
    version = str(serving.assignment)
    log.info("started", version=version, device=device, threads=threads, http_port=port)
    return worker


def _effects_table(
    settings: Settings, metrics: WorkerMetrics, latest_ms: Callable[[], int]
) -> EffectsTable | None:
    if not settings.worker.effects:
        return None
    country = settings.calendar.country or None
    return EffectsTable(country, latest_ms=latest_ms, refused=metrics.effects_refused.inc)


def _commits(
    settings: Settings, membership: Membership, delivery: Delivery, health: Health
) -> Commits:
    if not settings.worker.exactly_once:
        log.warning("forecasts_may_repeat", reason="worker.exactly_once is false")
        return AtLeastOnce(delivery, membership)
    # Of this process alone: whoever comes next is kept apart by the group, not by this name.
    name = f"{settings.kafka.group_prefix}.worker.{uuid4().hex}"
    return ExactlyOnce(settings, name, membership, health)
