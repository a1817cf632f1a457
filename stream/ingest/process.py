"""The ingest process: orders and clicks from Kafka into the windows in Redis, exactly once.

The shop's tables go beside them, each record as a version: after their dead letters are sent, one
atomic call per partition appends versions and offset.

A turn of its loop polls records, folds them, sends what is unfit, applies what is left, and gives
notice. Durable effects, in this order:

1. send: dead letters and late records are acknowledged by the broker;
2. apply: one atomic call per partition writes windows, offset, frontier and books to Redis;
3. notify: notices go to the windows topic;
4. commit: the group's offsets, for lag graphs only: nothing reads them back.

A crash between any two of them repeats from 1 at the offset that 2 wrote last.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Collection, Mapping

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, LogLostError, OtherFormatError, StoreUnavailableError
from freshet.stream.failpoints import failpoint
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.health import Watch
from freshet.stream.ingest.claims import say_gap
from freshet.stream.ingest.generations import caught_up
from freshet.stream.ingest.keep import Keeper
from freshet.stream.ingest.losses import Report
from freshet.stream.ingest.outbox import FoldedBatch
from freshet.stream.ingest.parts import Parts, build
from freshet.stream.ingest.poll import Decode, Polled, poll
from freshet.stream.ingest.unseen import tell
from freshet.stream.kafka import Key, Taken, broker_question, take
from freshet.stream.process import on_signals
from freshet.stream.store.connection import redis_question
from freshet.stream.store.generation import NEW_GENERATION_HINT
from freshet.stream.store.layout import Answer, Header
from freshet.stream.store.versions import VersionHeader, forget_hint
from freshet.stream.telemetry import get_logger, serve_http

SURVEY_S = 1.0
GC_THRESHOLDS = (100_000, 20, 100)

log = get_logger(__name__)


def run(settings: Settings, *, until_end: bool = False, into: int | None = None) -> Report:
    """Ingest until SIGTERM or SIGINT, or the log ends seen at the start; the books of this run.

    SIGHUP lets records pass again after too many dead letters made it pause.

    Args:
        settings: All of them.
        until_end: Return when everything that was in the logs at the start is in Redis.
        into: Build this generation from the log's beginning, and make it current once it has caught
            up; until then the tables are left to the ingest that is current.

    Raises:
        BrokerError, StoreError: At the start something is missing or unfit.
        LogLostError: The stored offset is no longer in the log, or the log is another one.
        FingerprintError: The stored windows were folded under other settings.
    """
    ingest = Ingest(settings, into)
    # Decoding makes no cycles, and a collection every 700 objects cost 1.2 us an event
    # (bench/fold.py).
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    actions = {
        signal.SIGTERM: ingest.stop,
        signal.SIGINT: ingest.stop,
        signal.SIGHUP: ingest.lift_guard,
    }
    try:
        with on_signals(actions):
            ingest.run(until_end=until_end)
    finally:
        ingest.close()
    return ingest.parts.losses.report()


class Ingest:
    """The loop; `run` drives it."""

    def __init__(self, settings: Settings, into: int | None = None) -> None:
        self._settings = settings
        self.parts: Parts = build(settings, into)
        self._keeper = Keeper(self.parts, self._lost)
        # Where a partition was when Redis was found behind it: up to there records are replayed.
        self._behind: dict[Key, int] = {}
        # Where all logs ended at the last survey, while another generation is built.
        self._ends_before: dict[Key, int] = {}
        self.http_port = serve_http(
            settings.ingest.http_port,
            self.parts.health.live,
            self.ready,
            registry=self.parts.registry,
            host=settings.telemetry.http_host,
        )
        questions = {"kafka": broker_question(settings), "store": redis_question(settings.redis)}
        self._watch = Watch(self.parts.health, questions)

    # What others may ask or order -----------------------------------------------------------------

    def stop(self) -> None:
        """Finish the batch in hand, leave the group, return from `run`."""
        self.parts.health.stop.set()

    def lift_guard(self) -> None:
        """A person says: go on in spite of the dead letters."""
        self.parts.pause.lifted = True

    def ready(self) -> str | None:
        """None while records flow, else what they wait for."""
        return self.parts.health.ready()

    # The loop -------------------------------------------------------------------------------------

    def run(self, *, until_end: bool = False) -> None:
        """See the function `run`."""
        parts = self.parts
        # Before joining the group, so that a lost log is said at once and by whoever is started.
        if not self._check(wait=not until_end and not parts.generations.building):
            return
        goal = parts.logs.ends(parts.keys) if until_end else None
        self._join()
        log.info("started", topics=parts.topics, http_port=self.http_port, until_end=until_end)
        with self._watch:
            self._turns(goal)
        stopped = parts.health.stop.is_set()
        log.info("ended", reason="stopped" if stopped else "reached the end")

    def _check(self, *, wait: bool) -> bool:
        """Whether what is stored can be gone on with; False where we were told to stop before.

        What another version wrote is waited for, until readers go over to windows of this one.

        Raises:
            OtherFormatError: Another version wrote it, and nobody waits.
        """
        parts, health = self.parts, self.parts.health
        while not health.stop.is_set():
            try:
                parts.claims.check(parts.logs)
                if not parts.generations.building:
                    parts.tables.check(parts.logs)
                health.over("format")
                return True
            except OtherFormatError as error:
                if not wait:
                    raise
                health.wait_out(error)
                self._end_where_superseded()
        return False

    def _join(self) -> None:
        """Ask the group for our share of what is read."""
        parts = self.parts
        if not parts.generations.building:
            parts.tables.store.name(parts.tables.keys)
        parts.assignment.join(parts.topics)

    def _turns(self, goal: dict[Key, int] | None) -> None:
        """Until told to stop, or until all positions are at the goal."""
        parts = self.parts
        period_s = min(SURVEY_S, self._settings.windows.idle_ms / 2_000)
        survey_s = 0.0
        while not parts.health.stop.is_set():
            parts.health.beat()
            try:
                self._turn()
                if time.monotonic() < survey_s:
                    continue
                survey_s = time.monotonic() + period_s
                self._survey()
                parts.assignment.commit(wait=False)
                if goal is not None and caught_up(self._positions(goal), goal):
                    parts.generations.switch()
                    break
                self._follow_generations()
            except (StoreUnavailableError, BrokerError) as error:
                parts.waiting.for_servers(error)

    def close(self) -> None:
        """Commit, send what is queued, leave the group."""
        parts = self.parts
        try:
            parts.assignment.commit(wait=True)
            parts.assignment.settle(2 * self._settings.kafka.session_timeout_ms)
        finally:
            parts.losses.close()
            parts.outbox.close()
            parts.consumer.close()

    def _turn(self) -> None:
        """One batch of every partition that has records.

        Nothing is kept of a batch that fails half way: its records are read again.
        """
        self._claim()
        polled, ends = self._poll()
        self._keeper.keep()
        batches = self._fold(polled)
        if batches:
            if not self._send(batches):
                return
            failpoint("after_dead_letters")
        for batch in batches:
            if self._apply(batch):
                failpoint("before_notice")
                self._notify(batch.windows, batch.fold.touched_item_ids)
        self.parts.assignment.reached(ends)

    def _claim(self) -> None:
        """Take over what the group has assigned, and tell all workers how far it is."""
        parts = self.parts
        parts.assignment.rejoin_when_fenced()
        for key in parts.assignment.claim_waiting():
            owned = parts.assignment.owned[key]
            if owned.windows is None:
                continue
            if key in self._behind:
                again = max(0, self._behind.pop(key) - owned.position)
                parts.metrics.replayed.inc(again)
                say_gap(key, owned.windows.header, owned.position, again)
            self._notify(owned.windows)

    def _poll(self) -> tuple[dict[Key, Polled], dict[Key, int]]:
        """The next records of each partition, decoded, and the log ends that were met."""
        parts, limits = self.parts, self._settings.ingest
        try:
            with parts.metrics.timed("read"):
                return poll(
                    self._take_events,
                    self._decoder_of,
                    max_records=limits.batch_max_records,
                    max_wait_ms=limits.batch_max_wait_ms,
                    now_ms=lambda: time.monotonic() * 1_000,
                )
        except LogLostError as error:
            topic, _, _ = error.message.partition(":")
            of_table = topic in parts.tables.topics
            hint = forget_hint(topic) if of_table else NEW_GENERATION_HINT
            raise LogLostError(error.message, hint=hint) from None

    def _take_events(self, max_records: int, max_wait_ms: int) -> Taken:
        """The next events; what is of the shop's tables is set aside."""
        parts = self.parts
        return parts.tables.sift(take(parts.consumer, max_records, max_wait_ms))

    def _decoder_of(self, key: Key) -> Decode | None:
        windows = self._windows_of(key)
        return None if windows is None else windows.decode

    def _windows_of(self, key: Key) -> PartitionWindows | None:
        owned = self.parts.assignment.owned.get(key)
        return None if owned is None else owned.windows

    def _fold(self, polled: Mapping[Key, Polled]) -> list[FoldedBatch]:
        """Judge and add up; pure, but that partitions remember the items they have named."""
        batches = []
        for key, records in polled.items():
            windows = self._windows_of(key)
            if windows is None:
                # It may have gone to another process while later slices were read.
                continue
            with self.parts.metrics.timed("fold"):
                fold = windows.fold_decoded(records.batch())
            unfit = bool(fold.dead or fold.too_late)
            told_before = self.parts.generations.told_before(key) if unfit else 0
            batches.append(FoldedBatch(key, windows, records.messages, fold, told_before))
        return batches

    def _send(self, batches: list[FoldedBatch]) -> bool:
        """Publish dead letters and late records; False after a pause, which sends none of them."""
        parts = self.parts
        read = sum(batch.fold.counts.read for batch in batches)
        dead = sum(batch.num_dead for batch in batches)
        reason = parts.pause.judge(read=read, dead=dead)
        if reason is not None:
            parts.pause.wait(reason, parts.waiting.until)
            return False
        with parts.metrics.timed("publish"):
            parts.outbox.publish_unfit(batches)
        return True

    def _apply(self, batch: FoldedBatch) -> bool:
        """Write one partition's batch; False where the partition is no longer ours, or behind."""
        parts = self.parts
        with parts.metrics.timed("apply"):
            answer = batch.windows.apply(batch.fold)
        if self._lost(batch.key, answer):
            return False
        owned = parts.assignment.owned[batch.key]
        owned.position = batch.fold.next_offset
        owned.at_end_since_s = None
        owned.newest_timestamp_ms = batch.messages[-1].timestamp()[1]
        parts.losses.applied(batch)
        tell(batch.key[0], batch.windows.never_seen(), parts.metrics)
        return True

    def _notify(self, windows: PartitionWindows, item_ids: list[str] | None = None) -> None:
        """Readers of another generation have no use for what is being built."""
        if not self.parts.generations.building:
            self.parts.outbox.notify(windows, item_ids)

    def _lost(self, key: Key, answer: Answer) -> bool:
        """Whether we may not go on as before: a newer owner fenced us, or Redis went back."""
        parts, (topic, partition) = self.parts, key
        if answer is Answer.FENCED:
            parts.metrics.fenced.inc()
            hint = "another process has claimed this partition since"
            log.warning("fenced", topic=topic, partition=partition, hint=hint)
            parts.assignment.drop(key)
        elif answer is Answer.GAP:
            parts.metrics.gaps.inc()
            self._behind[key] = parts.assignment.owned[key].position
            parts.assignment.claim_again(key)
        return answer in (Answer.FENCED, Answer.GAP)

    # Once a second --------------------------------------------------------------------------------

    def _survey(self) -> None:
        """Ask the broker where the logs end: lag, idleness, and proof that it is there at all."""
        parts, windows = self.parts, self._settings.windows
        ends = parts.logs.ends(parts.assignment.owned)
        now_s, now_ms = time.monotonic(), parts.clock.now_ms()
        parts.identity.check(now_s)
        for key, end in ends.items():
            owned = parts.assignment.owned[key]
            parts.metrics.stands(key, owned, end, now_ms, windows.out_of_order_ms)
            idle = owned.at_end_for_s(end, now_s) >= windows.idle_ms / 1_000
            if idle and owned.windows is not None:
                self._declare_idle(key, owned.windows, now_ms)
        parts.losses.look()
        parts.metrics.holds(parts.assignment.owned.values())
        parts.metrics.redis_bytes.set(parts.store.memory_bytes())
        self._keeper.survey(ends)

    def _declare_idle(self, key: Key, windows: PartitionWindows, now_ms: int) -> None:
        answer = windows.declare_idle(now_ms)
        if not self._lost(key, answer):
            self._notify(windows)

    def _follow_generations(self) -> None:
        """Switch readers to what was built once it has caught up; end where we are superseded.

        It has caught up when it holds what the logs held a survey ago.
        """
        parts = self.parts
        if parts.generations.building:
            if caught_up(self._positions(self._ends_before), self._ends_before):
                parts.generations.switch()
                for owned in parts.assignment.owned.values():
                    if owned.windows is not None:
                        self._notify(owned.windows)
                # From now on the tables are ours too.
                parts.tables.check(parts.logs)
                self._join()
            self._ends_before = parts.logs.ends(parts.keys)
            return
        self._end_where_superseded()

    def _end_where_superseded(self) -> None:
        """Readers have gone over to a later generation: what we would write nobody reads."""
        parts = self.parts
        current = parts.generations.superseded_by()
        if current is not None:
            log.warning("superseded", generation=parts.store.generation, current=current)
            self.stop()

    def _positions(self, keys: Collection[Key]) -> dict[Key, int]:
        return self.parts.assignment.positions(keys, self._stored_header)

    def _stored_header(self, topic: str, partition: int) -> Header | VersionHeader | None:
        parts = self.parts
        store = parts.tables.store if topic in parts.tables.topics else parts.store
        return store.header(topic, partition)
