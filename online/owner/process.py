"""The owner's process: everything that it needs is connected here, then its loop turns."""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial

import redis

from freshet.online.effects.table import EffectsTable
from freshet.online.owner.estimate import Estimator
from freshet.online.owner.loop import Owner, Parts
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.clock import latest_ms
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, StoreUnavailableError
from freshet.stream.health import Health
from freshet.stream.kafka import Acknowledged, Fenced, FencedError, TableReader, Writes
from freshet.stream.process import Stop
from freshet.stream.read.heads import read_heads
from freshet.stream.read.shop import ShopFeed
from freshet.stream.store.clock import open_clock
from freshet.stream.store.lease import Lease
from freshet.stream.telemetry import get_logger

LOOK_S = 1.0  # how much later than it came about a new midnight may be seen

log = get_logger(__name__)


def run(settings: Settings, client: redis.Redis, lease: Lease, stop: Stop, health: Health) -> None:
    """Own the effects until told to stop, the lease is lost, or another process has taken over.

    Raises:
        BrokerError, StoreError: At the start something is missing or unfit.
    """
    with closing(_writes(settings)) as writes:
        owner = _open(settings, client, lease, writes)
        log.info("owns_effects", pid=os.getpid())
        while not stop.is_set() and lease.held:
            health.beat()
            try:
                busy = owner.turn()
            except FencedError as error:
                log.warning("effects_fenced", error=str(error))
                return
            except (StoreUnavailableError, BrokerError) as error:
                health.wait_out(error)
                continue
            health.answered()
            health.turned()
            if not busy:
                stop.wait(LOOK_S)
    log.info("effects_given_up", lease=lease.held)


def _writes(settings: Settings) -> Writes:
    """First of all, so that nobody else writes while we read what there is."""
    if not settings.worker.exactly_once:
        return Acknowledged(settings)
    return Fenced(settings, f"{settings.kafka.group_prefix}.owner")


def _open(settings: Settings, client: redis.Redis, lease: Lease, writes: Writes) -> Owner:
    latest = partial(latest_ms, open_clock(client))
    table = EffectsTable(settings.calendar.country or None, latest_ms=latest)
    with TableReader(settings, [settings.kafka.topics.effects]) as reader:
        for record in reader.to_end():
            table.take(record.key, record.value, partition=record.partition, offset=record.offset)
    shop = ShopTables.of(settings, latest_ms=latest)
    parts = Parts(
        heads=partial(read_heads, client, settings.redis.generation),
        side=ShopFeed(client, settings, shop),
        estimates=Estimator(client, settings, shop),
        table=table,
        writes=writes,
        holds=lambda: lease.held,
    )
    return Owner(settings, parts)
