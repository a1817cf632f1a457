"""The ingest process: orders and clicks from Kafka into the windows in Redis, exactly once.

Durable effects of a batch, in order:

1. dead letters and late records are acknowledged by the broker;
2. one atomic call per partition writes windows, offset, frontier and books to Redis;
3. notices go to the windows topic;
4. the group's offsets are committed, for lag graphs only: nothing reads them back.

A crash between any two of them repeats from 1 at the offset that 2 wrote last.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Collection

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, FreshetError, LogLostError, StoreUnavailableError
from freshet.stream.events.decoder import EventKind
from freshet.stream.failpoints import failpoint
from freshet.stream.fold.partition import Fold, PartitionWindows, fingerprint
from freshet.stream.ingest.assignment import Assignment, Key, Owned
from freshet.stream.ingest.generations import Generations, caught_up
from freshet.stream.ingest.guard import DeadLetterGuard
from freshet.stream.ingest.identity import TopicIdentity, check_logs
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.ingest.outbox import Outbox
from freshet.stream.ingest.pause import Pause
from freshet.stream.ingest.poll import Decode, Polled, poll
from freshet.stream.kafka import LogOffsets, Message, consumer, partitions_of, take
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.process import BackOff, Stop, on_signals
from freshet.stream.store.clock import open_clock
from freshet.stream.store.layout import Header
from freshet.stream.store.redis import NEW_GENERATION_HINT, Outcome, WindowStore, check_fit, connect
from freshet.stream.telemetry import get_logger, new_registry, serve_http

SURVEY_S = 1.0
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
SLICE_MS = 100
CALM_S = 30.0
STUCK_S = 120.0
GC_THRESHOLDS = (100_000, 20, 100)

log = get_logger(__name__)


def run(settings: Settings, *, until_end: bool = False, into: int | None = None) -> None:
    """Ingest until SIGTERM or SIGINT, or until the log ends seen at the start.

    SIGHUP lets records pass again after too many dead letters made it pause.

    Args:
        settings: All of them.
        until_end: Return when everything that was in the logs at the start is in the windows.
        into: Build this generation from the log's beginning, and make it current once it has caught
            up.

    Raises:
        BrokerError, StoreError: At the start something is missing or unfit.
        LogLostError: The stored offset is no longer in the log, or the log is another one.
        FingerprintError: The stored windows were folded under other settings.
    """
    ingest = Ingest(settings, into)
    # Decoding makes no cycles, but a collection every 700 objects cost 1.2 us an event
    # (bench/fold.py).
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with on_signals(
            {
                signal.SIGTERM: ingest.stop,
                signal.SIGINT: ingest.stop,
                signal.SIGHUP: ingest.lift_guard,
            }
        ):
            ingest.run(until_end=until_end)
    finally:
        ingest.close()


class Ingest:
    """The loop and what it needs; the composition root of the process."""

    def __init__(self, settings: Settings, into: int | None = None) -> None:
        topics = settings.kafka.topics
        self._settings = settings
        self._kinds: dict[str, EventKind] = {topics.orders: "orders", topics.clicks: "clicks"}
        letters = [dead_letter_topic(topic) for topic in self._kinds]
        self._partitions = partitions_of(
            settings, [*self._kinds, *letters, topics.late, topics.windows, topics.alerts]
        )
        self._everything = [
            (topic, number) for topic in self._kinds for number in range(self._partitions[topic])
        ]
        self._stop = Stop()
        redis = connect(settings.redis)
        check_fit(redis)
        self._generations = Generations(redis, settings.redis.generation, into)
        generation = self._generations.written
        self._store = WindowStore(redis, generation)
        self._identity = TopicIdentity(settings, list(self._kinds))
        self._clock = open_clock(redis)
        # Two generations never share a group: each reads every partition.
        group = f"ingest.g{generation}" if generation else "ingest"
        static = (
            {"group_instance_id": settings.kafka.group_instance_id}
            if settings.kafka.group_instance_id
            else {}
        )
        self._consumer = consumer(settings, group, enable_partition_eof=True, **static)
        self._logs = LogOffsets(settings, self._stop.wait)
        self._assignment = Assignment(self._consumer, self._claim, self._logs.ranges)
        limits = settings.ingest
        self._behind: dict[Key, int] = {}
        registry = new_registry()
        self._metrics = IngestMetrics(registry)
        self._outbox = Outbox(settings, self._partitions[topics.windows], self._metrics)
        self._ends_before: dict[Key, int] = {}
        self._back_off, self._failed_at_s = self._new_back_off(), 0.0
        self._troubles: dict[str, str] = {}
        guard = DeadLetterGuard(limits.dead_letter_pause_per_s, limits.dead_letter_pause_share)
        subject = settings.kafka.group_prefix
        self._pause = Pause(
            guard, self._outbox, self._metrics, self._troubles, self._clock, subject
        )
        self._beat_s = time.monotonic()
        host = settings.telemetry.http_host
        self.http_port = serve_http(
            limits.http_port, self.live, self.ready, registry=registry, host=host
        )

    # What others may ask or order -----------------------------------------------------------------

    def stop(self) -> None:
        """Finish the batch in hand, leave the group, return from `run`."""
        self._stop.set()

    def lift_guard(self) -> None:
        """A person says: go on in spite of the dead letters."""
        self._pause.lifted = True

    def _claim(self, topic: str, partition: int) -> PartitionWindows:
        topic_id = self._identity.of(topic)
        return PartitionWindows.claim(
            self._store, self._kinds[topic], topic, partition, self._settings, topic_id=topic_id
        )

    def _check(self, topic: str, partition: int) -> Header | None:
        ours = fingerprint(self._kinds[topic], self._settings)
        return self._store.check(topic, partition, ours, self._identity.of(topic))

    def live(self) -> str | None:
        """None while the loop turns."""
        silent_s = time.monotonic() - self._beat_s
        return f"the loop has not turned for {silent_s:.0f} s" if silent_s > STUCK_S else None

    def ready(self) -> str | None:
        """None while records flow, else what they wait for."""
        return next(iter(list(self._troubles.values())), self._assignment.trouble)

    # The loop -------------------------------------------------------------------------------------

    def run(self, *, until_end: bool = False) -> None:
        """See the function `run`."""
        # Before joining the group, so that a lost log is said at once and by whoever is started.
        counts = {topic: self._partitions[topic] for topic in self._kinds}
        check_logs(self._store, self._logs, counts, self._check)
        goal = self._logs.ends(self._everything) if until_end else None
        self._assignment.join(list(self._kinds))
        log.info("started", topics=list(self._kinds), http_port=self.http_port, until_end=until_end)
        period_s = min(SURVEY_S, self._settings.windows.idle_ms / 2_000)
        survey_s = 0.0
        while not self._stop.is_set():
            self._beat_s = time.monotonic()
            try:
                self._turn()
                if time.monotonic() >= survey_s:
                    survey_s = time.monotonic() + period_s
                    self._survey()
                    if goal is not None and caught_up(self._positions(goal), goal):
                        self._generations.switch()
                        break
                    self._follow_generations()
            except (StoreUnavailableError, BrokerError) as error:
                self._recover(error)
        log.info("ended", reason="stopped" if self._stop.is_set() else "reached the end")

    def close(self) -> None:
        """Commit, send what is queued, leave the group."""
        try:
            self._assignment.commit(wait=True)
            self._assignment.settle(2 * self._settings.kafka.session_timeout_ms)
        finally:
            self._outbox.close()
            self._consumer.close()

    def _turn(self) -> None:
        self._assignment.rejoin_when_fenced()
        for key in self._assignment.claim_waiting():
            owned = self._assignment.owned[key]
            self._metrics.replayed.inc(max(0, self._behind.pop(key, 0) - owned.position))
            self._notify(owned.windows)
        polled, ends = self._read()
        if self._ingest(polled):
            self._assignment.reached(ends)

    def _read(self) -> tuple[dict[Key, Polled], dict[Key, int]]:
        limits = self._settings.ingest
        try:
            with self._metrics.stage_seconds.labels("read").time():
                return poll(
                    lambda max_records, max_wait_ms: take(self._consumer, max_records, max_wait_ms),
                    self._decoder_of,
                    max_records=limits.batch_max_records,
                    max_wait_ms=limits.batch_max_wait_ms,
                    now_ms=lambda: time.monotonic() * 1_000,
                )
        except LogLostError as error:
            raise LogLostError(error.message, hint=NEW_GENERATION_HINT) from None

    def _decoder_of(self, key: Key) -> Decode | None:
        owned = self._assignment.owned.get(key)
        return None if owned is None else owned.windows.decode

    def _ingest(self, polled: dict[Key, Polled]) -> bool:
        """Whether all are in the windows; nothing is kept of a batch that fails: its records are
        read again.
        """
        # A partition may have gone to another process while later slices were read.
        mine = {key: group for key, group in polled.items() if key in self._assignment.owned}
        folds = [(key, group.messages, self._fold(key, group)) for key, group in mine.items()]
        if not folds:
            return True
        unfit = [(messages, fold, self._told_before(key, fold)) for key, messages, fold in folds]
        dead = sum(
            (group[letter.index].offset() or 0) >= told
            for group, fold, told in unfit
            for letter in fold.dead
        )
        reason = self._pause.judge(read=sum(fold.counts.read for _, _, fold in folds), dead=dead)
        if reason is not None:
            self._pause.wait(reason, lambda until: self._hold(until, self._new_back_off()))
            return False
        with self._metrics.stage_seconds.labels("publish").time():
            self._outbox.publish_unfit(unfit)
        failpoint("after_dead_letters")
        for key, messages, fold in folds:
            self._apply(key, messages, fold)
        return True

    def _fold(self, key: Key, group: Polled) -> Fold:
        with self._metrics.stage_seconds.labels("fold").time():
            return self._assignment.owned[key].windows.fold_decoded(group.batch())

    def _told_before(self, key: Key, fold: Fold) -> int:
        return self._generations.told_before(key) if fold.dead or fold.late else 0

    def _notify(self, windows: PartitionWindows, item_ids: list[str] | None = None) -> None:
        """Readers of another generation have no use for what is being built."""
        if not self._generations.building:
            self._outbox.notify(windows, item_ids)

    def _apply(self, key: Key, messages: list[Message], fold: Fold) -> None:
        owned = self._assignment.owned[key]
        with self._metrics.stage_seconds.labels("apply").time():
            outcome = owned.windows.apply(fold)
        if self._lost(key, outcome):
            return
        owned.position, owned.at_end_since_s = fold.next_offset, None
        owned.newest_timestamp_ms = messages[-1].timestamp()[1]
        self._metrics.batch_applied(key[0], fold.counts)
        failpoint("before_notice")
        self._notify(owned.windows, fold.touched_item_ids)

    def _lost(self, key: Key, outcome: Outcome) -> bool:
        """Whether this process may not go on as it was: fenced by a newer owner, or Redis went back
        in time.
        """
        place = {"topic": key[0], "partition": key[1]}
        if outcome is Outcome.FENCED:
            self._metrics.fenced.inc()
            log.warning("fenced", **place, hint="another process has claimed this partition since")
            self._assignment.drop(key)
        elif outcome is Outcome.GAP:
            self._metrics.gaps.inc()
            log.warning(
                "gap",
                **place,
                hint="Redis holds another offset than expected; reading on from there",
            )
            self._behind[key] = self._assignment.owned[key].position
            self._assignment.claim_again(key)
        return outcome in (Outcome.FENCED, Outcome.GAP)

    # Once a second --------------------------------------------------------------------------------

    def _survey(self) -> None:
        """Where the logs end, asked of the broker: lag, idleness, and proof that the broker is
        there at all.
        """
        ends = self._logs.ends(self._assignment.owned)
        now_s, now_ms = time.monotonic(), self._clock.now_ms()
        self._identity.check(now_s)
        for key, end in ends.items():
            owned = self._assignment.owned[key]
            self._metrics.stands(key, owned, end, now_ms, self._settings.windows.out_of_order_ms)
            if owned.position < end:
                owned.at_end_since_s = None
                continue
            owned.at_end_since_s = now_s if owned.at_end_since_s is None else owned.at_end_since_s
            if now_s - owned.at_end_since_s >= self._settings.windows.idle_ms / 1_000:
                self._declare_idle(key, owned, now_ms)
        self._metrics.owned.set(len(self._assignment.owned))
        self._metrics.items.set(
            sum(owned.windows.header.items for owned in self._assignment.owned.values())
        )
        self._metrics.redis_bytes.set(self._store.memory_bytes())
        self._assignment.commit(wait=False)

    def _declare_idle(self, key: Key, owned: Owned, now_ms: int) -> None:
        if not self._lost(key, owned.windows.declare_idle(now_ms)):
            self._notify(owned.windows)

    def _follow_generations(self) -> None:
        """Switch readers to what was built once it held what the logs held a survey ago; end when
        superseded.
        """
        if self._generations.building:
            if caught_up(self._positions(self._ends_before), self._ends_before):
                self._generations.switch()
                for owned in self._assignment.owned.values():
                    self._outbox.notify(owned.windows)
            self._ends_before = self._logs.ends(self._everything)
        elif (current := self._generations.superseded_by()) is not None:
            log.warning("superseded", generation=self._store.generation, current=current)
            self.stop()

    def _positions(self, keys: Collection[Key]) -> dict[Key, int]:
        return self._assignment.positions(keys, self._store.header)

    # Trouble --------------------------------------------------------------------------------------

    def _recover(self, error: FreshetError) -> None:
        """Wait until Redis and the broker answer, then read again from the last record applied."""
        now_s = time.monotonic()
        if now_s - self._failed_at_s >= CALM_S:
            self._back_off.reset()
        self._failed_at_s = now_s
        log.warning("waiting", reason=str(error), wait_s=self._back_off.next_s)
        self._troubles["servers"] = str(error)
        self._hold(self._servers_answer, self._back_off)
        self._troubles.pop("servers", None)
        log.info("going_on", after_s=round(time.monotonic() - now_s, 1))

    def _servers_answer(self) -> bool:
        try:
            self._store.partitions()
            self._logs.ends(self._everything)
            self._identity.check(time.monotonic(), at_once=True)
        except (StoreUnavailableError, BrokerError) as error:
            self._troubles["servers"] = str(error)
            return False
        return True

    def _hold(self, until: Callable[[], bool], back_off: BackOff) -> None:
        """Stay in the group without reading until a condition holds or we are told to stop."""
        self._assignment.suspend()
        while back_off.pause() and not until():
            pass
        self._assignment.resume()

    def _new_back_off(self) -> BackOff:
        return BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, self._stay)

    def _stay(self, wait_s: float) -> bool:
        """Serve the group for so long, without reading; whether we were told to stop."""
        end_s = time.monotonic() + wait_s
        while not self._stop.is_set() and time.monotonic() < end_s:
            self._beat_s = time.monotonic()
            try:
                take(self._consumer, 1, SLICE_MS)
            except BrokerError as error:
                log.debug("while_waiting", error=str(error))
                self._stop.wait(SLICE_MS / 1_000)
        return self._stop.is_set()
