"""The owner's process: everything that it needs is connected here, then its loop turns."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

import redis

from freshet.online.drift.monitor import DriftMonitor
from freshet.online.owner.buckets import ScoredBuckets
from freshet.online.owner.calibrating import Calibrator
from freshet.online.owner.memory import newest_state, restored
from freshet.online.owner.watch import Beginning, DriftWatch, WatchParts
from freshet.online.worker.alarms import Alarms
from freshet.online.worker.recovery import MAX_TAIL_RECORDS
from freshet.stream.clock import latest_ms
from freshet.stream.codec import decode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, EventError, StoreUnavailableError
from freshet.stream.health import Health
from freshet.stream.kafka import Acknowledged, Fenced, FencedError, TableReader, Writes
from freshet.stream.process import Stop
from freshet.stream.schemas import DriftAlert, OwnerState
from freshet.stream.store.clock import open_clock
from freshet.stream.store.grid import Grid
from freshet.stream.store.lease import Lease
from freshet.stream.telemetry import get_logger

LOOK_S = 1.0  # how much later than it came about a midnight or a whole bucket may be seen

Turn = Callable[[], bool]
"""Does what is due, if anything; whether there may be more to do at once."""

log = get_logger(__name__)


def run(settings: Settings, client: redis.Redis, lease: Lease, stop: Stop, health: Health) -> None:
    """Own what all share until told to stop, the lease is lost, or another has taken over.

    Raises:
        BrokerError, StoreError: At the start something is missing or unfit.
    """
    with ExitStack() as stack:
        writes = stack.enter_context(closing(_writes(settings)))
        turns = _open(settings, client, lease, writes, health, stack)
        log.info("owns_effects", pid=os.getpid())
        while not stop.is_set() and lease.held:
            health.beat()
            try:
                busy = [turn() for turn in turns]
            except FencedError as error:
                log.warning("effects_fenced", error=str(error))
                return
            except (StoreUnavailableError, BrokerError) as error:
                health.wait_out(error)
                continue
            health.answered()
            health.turned()
            if not any(busy):
                stop.wait(LOOK_S)
    log.info("effects_given_up", lease=lease.held)


def _writes(settings: Settings) -> Writes:
    """First of all, so that nobody else writes while we read what there is."""
    if not settings.worker.exactly_once:
        return Acknowledged(settings)
    return Fenced(settings, f"{settings.kafka.group_prefix}.owner")


def _open(
    settings: Settings,
    client: redis.Redis,
    lease: Lease,
    writes: Writes,
    health: Health,
    stack: ExitStack,
) -> list[Turn]:
    latest = partial(latest_ms, open_clock(client))
    turns: list[Turn] = []
    if settings.worker.effects:
        turns.append(_open_effects(settings, client, lease, writes, latest))
    if not settings.drift.watch:
        return turns
    watch = open_watch(settings, writes, lambda: lease.held, latest, stack)
    turns.append(watch.turn)

    def between() -> None:
        """Between two forecasts: trials take a minute where many segments are in alarm."""
        health.beat()
        watch.turn()

    if settings.worker.adjust:
        turns.append(_open_adjusting(settings, client, lease, writes, latest, between))
    return turns


def open_watch(
    settings: Settings,
    writes: Writes,
    holds: Callable[[], bool],
    latest: Callable[[], int],
    stack: ExitStack,
) -> DriftWatch:
    """A watch that goes on from what the owner before it wrote.

    Args:
        settings: All of them.
        writes: Takes what it finds; nobody else writes any more.
        holds: Whether the lease is ours.
        latest: When a record may say that something happened at the latest.
        stack: Closes what is opened.

    Raises:
        BrokerError: What is there cannot be read.
    """
    topics, main_ms = settings.kafka.topics, settings.main.resolution_ms
    time_zone = settings.calendar.time_zone
    monitor = DriftMonitor(settings.drift, main_ms, time_zone=time_zone)
    alarms = Alarms(main_ms)
    with TableReader(settings, [topics.owner]) as reader:
        known, state = newest_state(reader.to_end(), main_ms, latest())
    calibrates = settings.worker.calibrate
    calibrator = Calibrator(settings.main.score_steps, main_ms) if calibrates else None
    by = settings.drift.segment_by
    goes_on = known is not None and restored(monitor, by, calibrator, state)
    if not goes_on:
        _read_alarms(settings, alarms, latest)
    decided_ms = known.decided_until_ms if known is not None else alarms.newest_ms
    starts = _starts(settings, known if goes_on else None)
    feed = stack.enter_context(TableReader(settings, [topics.scored, topics.scores], starts))
    log.info("drift_watched", decided_until_ms=decided_ms, restored=goes_on)
    parts = WatchParts(
        feed=feed,
        monitor=monitor,
        buckets=ScoredBuckets(
            Grid(main_ms, settings.calendar.time_zone), decided_ms if goes_on else -1
        ),
        writes=writes,
        holds=holds,
        beginning=Beginning(decided_ms, alarms.held()),
        latest_ms=latest,
        calibrator=calibrator,
    )
    return DriftWatch(settings, parts)


def _read_alarms(settings: Settings, alarms: Alarms, latest: Callable[[], int]) -> None:
    topic = settings.kafka.topics.drift
    with TableReader(settings, [topic]) as reader:
        for record in reader.to_end():
            try:
                if record.value is not None:
                    alarms.take(decode(DriftAlert, record.value, latest_ms=latest()))
            except EventError as error:
                place = {"partition": record.partition, "offset": record.offset}
                log.warning("record_not_read", error=str(error), topic=topic, **place)


def _starts(settings: Settings, known: OwnerState | None) -> dict[tuple[str, int], int]:
    """Where to begin among the scores: behind what was decided, or at the newest."""
    topic = settings.kafka.topics.scores
    if known is None:
        with TableReader(settings, [topic]) as reader:
            ends = reader.ends(topic)
        share = MAX_TAIL_RECORDS // max(len(ends), 1)
        return {at: max(end - share, 0) for at, end in ends.items()}
    at_of = [(*name.rpartition(":")[::2], offset) for name, offset in known.offsets.items()]
    return {
        (name, int(number)): offset for name, number, offset in at_of if name == topic and number
    }


def _open_effects(
    settings: Settings,
    client: redis.Redis,
    lease: Lease,
    writes: Writes,
    latest: Callable[[], int],
) -> Turn:
    # They import the network's library, which a look for drift does without.
    from freshet.online.effects.table import EffectsTable
    from freshet.online.owner.estimate import Estimator
    from freshet.online.owner.loop import Owner, Parts
    from freshet.stream.catalog.tables import ShopTables
    from freshet.stream.read.heads import read_heads
    from freshet.stream.read.shop import ShopFeed

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
    return Owner(settings, parts).turn


def _open_adjusting(
    settings: Settings,
    client: redis.Redis,
    lease: Lease,
    writes: Writes,
    latest: Callable[[], int],
    between: Callable[[], None],
) -> Turn:
    from freshet.online.owner.adjuster import Adjuster
    from freshet.online.owner.adjusting import Adjusting, Trials

    trials = Trials(settings, client, latest, between)
    adjuster = Adjuster(trials.segments)
    return Adjusting(settings, trials, adjuster, writes, lambda: lease.held).turn
