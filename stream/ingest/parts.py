"""The parts of an ingest process, and the one place that puts them together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from freshet.stream.clock import Clock, latest_ms
from freshet.stream.config import Settings
from freshet.stream.events.decoder import EventKind
from freshet.stream.health import Health
from freshet.stream.ingest.assignment import Assignment, Kept
from freshet.stream.ingest.claims import Claims
from freshet.stream.ingest.generations import Generations
from freshet.stream.ingest.identity import TopicIdentity
from freshet.stream.ingest.losing import Losses
from freshet.stream.ingest.losses import Ledger
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.ingest.outbox import Outbox
from freshet.stream.ingest.pause import DeadLetterGuard, Pause
from freshet.stream.ingest.tables import Tables
from freshet.stream.ingest.waiting import Waiting
from freshet.stream.kafka import Consumer, Key, LogOffsets, consumer, partitions_of, timestamp_types
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.process import Stop
from freshet.stream.read.heads import EventsReached
from freshet.stream.schemas import SHOP_TABLES
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import check_fit, connect
from freshet.stream.store.generation import NEW_GENERATION_HINT
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.versions import VersionStore, forget_hint
from freshet.stream.telemetry import new_registry

NEW_PARTITIONS_MS = 5_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop of ingest works with.

    Attributes:
        consumer: The group's consumer, from which records are polled.
        logs: Where logs begin and end, on a connection of its own.
        store: The generation of windows that is written.
        generations: Which generation that is, and whether readers read it yet.
        identity: Whether the topics are still the same ones.
        claims: How a partition of events is claimed in Redis.
        tables: How a partition of the shop's tables is.
        assignment: Which partitions are ours, and how far each is.
        outbox: Dead letters, late records, notices and alerts.
        pause: What happens when there are too many dead letters.
        waiting: What happens when a server is away.
        health: Whether we were told to stop, and what keeps us from work.
        clock: The shop's time.
        registry: What /metrics shows.
        metrics: Ingest's own part of it.
        losses: The books of this run, and who tells people of what is lost.
    """

    consumer: Consumer
    logs: LogOffsets
    store: WindowStore
    generations: Generations
    identity: TopicIdentity
    claims: Claims
    tables: Tables
    assignment: Assignment
    outbox: Outbox
    pause: Pause
    waiting: Waiting
    health: Health
    clock: Clock
    registry: CollectorRegistry
    metrics: IngestMetrics
    losses: Losses

    @property
    def topics(self) -> list[str]:
        """What is read: whoever builds another generation leaves the tables alone."""
        tables = [] if self.generations.building else self.tables.topics
        return [*self.claims.topics, *tables]

    @property
    def keys(self) -> list[Key]:
        """Every partition of them, whoever owns it."""
        tables = [] if self.generations.building else self.tables.keys
        return [*self.claims.keys, *tables]


def build(settings: Settings, into: int | None = None) -> Parts:
    """Connect to the broker and to Redis, and put the parts together; joins no group yet.

    Args:
        settings: All of them.
        into: The generation to build; None writes the current one.

    Raises:
        BrokerError, StoreError: Something is missing or unfit.
        ConfigError: `into` is older than what is current.
    """
    topics = settings.kafka.topics
    kinds: dict[str, EventKind] = {topics.orders: "orders", topics.clicks: "clicks"}
    num_partitions = partitions_of(settings, _topics_needed(settings))

    client = connect(settings.redis)
    check_fit(client)
    generations = Generations(client, settings.redis.generation, into)
    store = WindowStore(client, generations.written)
    clock = open_clock(client)

    stop = Stop()
    tables_of_shop = topics.of(*SHOP_TABLES)
    identity = TopicIdentity(
        settings,
        [*kinds, *tables_of_shop],
        lambda topic: forget_hint(topic) if topic in tables_of_shop else NEW_GENERATION_HINT,
    )
    claims = Claims(
        settings,
        store,
        kinds=kinds,
        num_partitions=num_partitions,
        timestamp_types=timestamp_types(settings, list(kinds)),
        identity=identity,
    )
    group_consumer = _group_consumer(settings, generations.written)
    logs = LogOffsets(settings, stop.wait)
    tables = Tables(
        settings,
        VersionStore(client),
        num_partitions=num_partitions,
        identity=identity,
        latest_ms=partial(latest_ms, clock),
        reached_ms=EventsReached(client, settings).ms,
    )

    def claim(topic: str, partition: int) -> Kept:
        owner = tables if topic in tables_of_shop else claims
        return owner.claim(topic, partition)

    assignment = Assignment(group_consumer, claim, logs.ranges)

    registry = new_registry()
    metrics = IngestMetrics(registry)
    outbox = Outbox(settings, num_partitions[topics.windows], metrics)
    health = Health(
        stop,
        "joining the group",
        standing=lambda: assignment.trouble or "",
        counted=metrics.trouble,
    )
    health.started()

    def ask_servers() -> None:
        store.partitions()
        logs.ends(claims.keys)
        identity.check(time.monotonic(), at_once=True)

    waiting = Waiting(group_consumer, assignment, health=health, ask_servers=ask_servers)
    pause = Pause(
        _guard(settings),
        outbox,
        metrics=metrics,
        health=health,
        clock=clock,
        subject=settings.kafka.group_prefix,
    )
    return Parts(
        consumer=group_consumer,
        logs=logs,
        store=store,
        generations=generations,
        identity=identity,
        claims=claims,
        tables=tables,
        assignment=assignment,
        outbox=outbox,
        pause=pause,
        waiting=waiting,
        health=health,
        clock=clock,
        registry=registry,
        metrics=metrics,
        losses=_losses(settings, metrics, clock, outbox, building=generations.building),
    )


def _losses(
    settings: Settings, metrics: IngestMetrics, clock: Clock, outbox: Outbox, *, building: bool
) -> Losses:
    """Nobody is told of a generation that is only being built."""
    topics, max_lost_share = settings.kafka.topics, settings.ingest.max_lost_share
    mapped = topics.of("orders", "clicks", *SHOP_TABLES).items()
    return Losses(
        Ledger({topic: f"events.{kind}" for topic, kind in mapped}, max_lost_share),
        metrics,
        clock,
        alert=(lambda alert: None) if building else outbox.mention,
        subject=settings.kafka.group_prefix,
        max_lost_share=max_lost_share,
    )


def _guard(settings: Settings) -> DeadLetterGuard:
    limits = settings.ingest
    return DeadLetterGuard(limits.dead_letter_pause_per_s, limits.dead_letter_pause_share)


def _topics_needed(settings: Settings) -> list[str]:
    topics = settings.kafka.topics
    read = [topics.orders, topics.clicks, *topics.of(*SHOP_TABLES)]
    return [*read, *map(dead_letter_topic, read), topics.late, topics.windows, topics.alerts]


def _group_consumer(settings: Settings, generation: int) -> Consumer:
    # Two generations never share a group: each reads every partition.
    group = f"ingest.g{generation}" if generation else "ingest"
    over: dict[str, Any] = {
        "enable_partition_eof": True,
        # How long partitions that a topic gets later are not read: five minutes without this.
        "topic_metadata_refresh_interval_ms": NEW_PARTITIONS_MS,
    }
    if settings.kafka.group_instance_id:
        over["group_instance_id"] = settings.kafka.group_instance_id
    return consumer(settings, group, **over)
