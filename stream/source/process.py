"""The processes `freshet simulate` and `freshet replay`: events onto the topics, in step with
ingest and the clock.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.kafka import Publisher, consumer, log_range, partitions_of
from freshet.stream.process import Stop, stop_on_signals
from freshet.stream.source.batches import SourceBatch, TopicKind
from freshet.stream.source.pump import Progress, Pump, Timer
from freshet.stream.store.clock import set_anchor
from freshet.stream.store.connection import connect
from freshet.stream.store.generation import current_generation
from freshet.stream.store.redis import WindowStore
from freshet.stream.telemetry import get_logger
from freshet.stream.units import DAY_MS, MINUTE_MS, SECOND_MS

MAX_UNREAD_BYTES = 3_000_000
LOW_UNREAD_BYTES = 2_000_000
RECORD_OVERHEAD_BYTES = 40
SLICE_WALL_MS = 100
PLAN_EVERY_S = 0.5
COMPLAIN_EVERY_S = 10.0

log = get_logger(__name__)


class KafkaOutlet:
    """Sends batches to the topics, and looks at the windows in Redis to see how much of them is
    still unread.

    An embedded broker forgets what is older than about 5 MB in a partition, so no partition may
    hold more than `MAX_UNREAD_BYTES` that ingest has not folded.
    """

    def __init__(self, settings: Settings) -> None:
        topics = settings.kafka.topics
        self._topics: dict[TopicKind, str] = {
            "orders": topics.orders,
            "clicks": topics.clicks,
            "catalog": topics.catalog,
            "promotions": topics.promotions,
            "inventory": topics.inventory,
        }
        self.produced: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._allowance = self._since = 0
        with ExitStack() as stack:
            self._redis = connect(settings.redis)
            stack.callback(self._redis.close)
            counts = partitions_of(settings, list(self._topics.values()))
            followed = (topics.orders, topics.clicks)
            self._partitions = [
                (topic, number) for topic in followed for number in range(counts[topic])
            ]
            self._store = WindowStore(
                self._redis, current_generation(self._redis, settings.redis.generation)
            )
            self._asker = consumer(settings, "source")
            stack.callback(self._asker.close)
            self._publisher = Publisher(settings, queue_buffering_max_kbytes=65_536, linger_ms=20)
            stack.callback(self._publisher.close)
            self._open = stack.pop_all()

    def room_for(self, batch: SourceBatch) -> bool:
        """Whether no partition would hold too much, even if it got the whole batch."""
        size = sum(len(value or b"") for value in batch.values) + len(batch) * RECORD_OVERHEAD_BYTES
        if self._since + size <= self._allowance:
            return True
        unread = self.unread_bytes()
        self._since = 0
        self._allowance = MAX_UNREAD_BYTES - unread if unread <= LOW_UNREAD_BYTES else 0
        if unread == 0:
            self._allowance = max(self._allowance, size)
        return size <= self._allowance

    def drained(self) -> bool:
        """Whether ingest has folded everything that is in the logs."""
        return self.unread_bytes() == 0

    def unread_bytes(self) -> int:
        """What the fullest partition of the event topics holds that is not in the windows; asks
        broker and Redis.
        """
        self._publisher.flush()
        return max(
            round(self._unread(topic, number) * self._mean_bytes(topic))
            for topic, number in self._partitions
        )

    def _unread(self, topic: str, partition: int) -> int:
        low, high = log_range(self._asker, topic, partition)
        header = self._store.header(topic, partition)
        known = None if header is None else header.next_offset
        return max(0, high - (low if known is None else known))

    def _mean_bytes(self, topic: str) -> float:
        return self._bytes[topic] / self.produced[topic] if self.produced[topic] else 1.0

    def send(self, batch: SourceBatch) -> None:
        """Queue the batch's records with their own timestamps."""
        produce, topics, size = self._publisher.produce, self._topics, 0
        for kind, key, value, timestamp_ms in zip(
            batch.kinds, batch.keys, batch.values, batch.timestamps_ms, strict=True
        ):
            topic = topics[kind]
            produce(topic, value, key=key, timestamp_ms=timestamp_ms)
            length = len(value or b"") + RECORD_OVERHEAD_BYTES
            self._bytes[topic] += length
            self.produced[topic] += 1
            size += length
        self._since += size

    def flush(self) -> None:
        """Return when the broker has everything."""
        self._publisher.flush()

    def set_clock(self, simulated_ms: int, speed: float) -> None:
        """Move the shared clock's anchor."""
        set_anchor(self._redis, simulated_ms, speed)

    def close(self) -> None:
        """Let go of broker and Redis."""
        self._open.close()


class PlanFile:
    """A small JSON file that says what a source plans and how far it is; replaced whole, at most
    twice a second.
    """

    def __init__(
        self, path: Path | None, plan: Mapping[str, Any], produced: Mapping[str, int]
    ) -> None:
        self._path, self._plan, self._produced = path, plan, produced
        self._phase, self._written_s = "", 0.0

    def update(self, progress: Progress) -> None:
        """Write if there is news."""
        now_s = time.monotonic()
        if self._path is None or (
            progress.phase == self._phase and now_s - self._written_s < PLAN_EVERY_S
        ):
            return
        self._phase, self._written_s = progress.phase, now_s
        state = {
            **self._plan,
            "phase": progress.phase,
            "backfill_done": progress.history_folded,
            "waiting_for_ingest": progress.waiting,
            "sent_ms": progress.sent_ms,
            "produced": dict(self._produced),
        }
        part = self._path.with_name(self._path.name + ".part")
        part.write_bytes(msgspec.json.encode(state))
        os.replace(part, self._path)


def run_source(
    batches: Iterable[SourceBatch],
    settings: Settings,
    *,
    backfill_until_ms: float,
    speed: float,
    stop: Stop,
    seconds: float | None = None,
    plan_file: Path | None = None,
    plan: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, int]:
    """Send batches until they end, `stop` is set, or `seconds` of live time are over; returns
    records sent by topic.

    Blocks. History (up to `backfill_until_ms`) goes as fast as ingest folds it, then live at
    `speed` simulated milliseconds per wall millisecond. On return everything sent is acknowledged
    and the clock is held at its end.

    Raises:
        BrokerError: No broker, a topic is missing, or records were not acknowledged.
        StoreError: Redis does not answer.
    """
    if not speed > 0:
        raise InvalidInputError(f"the speed is {speed}; expected more than 0")
    outlet = KafkaOutlet(settings)
    try:
        file = PlanFile(plan_file, {"speed": speed, **(plan or {})}, outlet.produced)
        complain = _complainer()

        def tell(progress: Progress) -> None:
            file.update(progress)
            complain(progress)
            on_progress(progress)

        pump = Pump(
            outlet,
            Timer(stop),
            live_from_ms=backfill_until_ms,
            speed=speed,
            live_wall_ms=None if seconds is None else seconds * SECOND_MS,
            on_progress=tell,
        )
        pump.run(batches)
    finally:
        outlet.close()
    return dict(outlet.produced)


def _complainer() -> Callable[[Progress], None]:
    """Says in the log, now and then, that ingest keeps the source waiting."""
    since_s: float | None = None

    def complain(progress: Progress) -> None:
        nonlocal since_s
        now_s = time.monotonic()
        if not progress.waiting:
            since_s = None
        elif since_s is None:
            since_s = now_s
        elif now_s - since_s >= COMPLAIN_EVERY_S:
            since_s = now_s
            log.warning(
                "waiting_for_ingest", sent_ms=progress.sent_ms, hint="is `freshet ingest` running?"
            )

    return complain


def simulate(
    settings: Settings,
    *,
    seed: int = 1,
    items: int | None = None,
    scenario: str = "drift",
    speed: float = 900.0,
    seconds: float | None = None,
    history_days: int = 28,
    drift_after_ms: int | None = None,
    plan: Path | None = None,
) -> None:
    """Send the simulated shop's events until `seconds` of live time are over, SIGTERM or Ctrl-C.

    Args:
        settings: Broker, Redis and topics.
        seed: The same seed gives the same shop.
        items: Series; None is the default shop.
        scenario: calm, flash_sale or drift.
        speed: Simulated milliseconds per wall millisecond, live.
        seconds: Wall seconds of live time; None never ends.
        history_days: Days sent before live begins.
        drift_after_ms: Simulated time from the start of live to a planted drift; None is 15 % of
            the live time.
        plan: A file that says what is planned and how far it is.
    """
    from freshet.stream.source.simulator import DEFAULT_ITEMS, SimulatedShop, find_scenario
    from freshet.stream.source.simulator.plan import DRIFT_SHARE, TOUR_SECONDS

    tour_ms = (seconds or TOUR_SECONDS) * SECOND_MS * speed
    live_ms = max(1, round(tour_ms if drift_after_ms is None else drift_after_ms / DRIFT_SHARE))
    items = DEFAULT_ITEMS if items is None else items
    shop = SimulatedShop(
        seed, items, find_scenario(scenario), backfill_ms=history_days * DAY_MS, live_ms=live_ms
    )
    facts = {
        "source": "simulate",
        "seed": seed,
        "scenario": scenario,
        "items": len(shop.item_ids),
        **shop.plan.facts(),
    }
    batches = shop.batches(_slice_ms(speed))
    with stop_on_signals() as stop:
        run_source(
            batches,
            settings,
            backfill_until_ms=shop.live_start_ms,
            speed=speed,
            stop=stop,
            seconds=seconds,
            plan_file=plan,
            plan=facts,
        )


def replay(
    settings: Settings,
    file: Path,
    *,
    preset: str | None = None,
    columns: Mapping[str, str] | None = None,
    speed: float = 3_600.0,
    seconds: float | None = None,
    history_days: float = 0,
    plan: Path | None = None,
) -> None:
    """Send a real file's events, oldest first, until it ends, `seconds` of live time are over,
    SIGTERM or Ctrl-C.

    Args:
        settings: Broker, Redis and topics.
        file: A parquet or CSV file, or a preset's folder.
        preset: See `freshet.stream.source.replay.PRESETS`.
        columns: Instead of a preset, our field -> the file's column.
        speed: How many times as fast as it happened.
        seconds: Wall seconds of live time; None goes on to the file's end.
        history_days: Days of the file sent at once before live begins.
        plan: A file that says what is planned and how far it is.
    """
    from freshet.stream.source.replay import open_replay

    source = open_replay(file, preset=preset, mapping=columns or None)
    for reason, count in source.skipped.items():
        log.info("rows_skipped", reason=reason, rows=count)
    live_from_ms = source.start_ms + round(history_days * DAY_MS)
    facts = {
        "source": "replay",
        "preset": source.name,
        "start_ms": source.start_ms,
        "end_ms": source.end_ms,
        "live_start_ms": min(live_from_ms, source.end_ms),
        "rows": len(source.rows),
        "skipped": source.skipped,
    }
    with stop_on_signals() as stop:
        run_source(
            source.batches(_slice_ms(speed)),
            settings,
            backfill_until_ms=live_from_ms,
            speed=speed,
            stop=stop,
            seconds=seconds,
            plan_file=plan,
            plan=facts,
        )


def _slice_ms(speed: float) -> int:
    """Simulated time in one batch: about a tenth of a second on the wall.

    >>> _slice_ms(900.0), _slice_ms(1.0)
    (90000, 1000)
    """
    return round(min(max(speed * SLICE_WALL_MS, SECOND_MS), 15 * MINUTE_MS))
