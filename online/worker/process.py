"""The worker: receive, read, forecast, publish; then score what has become final, and look back now
and then.

One round forecasts all items of this worker at one cutoff with one version of the weights. Durable
effects of a turn:

1. the round's forecasts are acknowledged by the broker, portion by portion;
2. only then do they wait to be scored;
3. the scores and drift alerts of a final bucket are acknowledged;
4. only then is the bucket closed.

A crash between any two repeats what was not acknowledged; what was is read back at the start and
not made again.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import asdict

import torch

from freshet.online.weights.swap import open_switch
from freshet.online.worker.group import Membership
from freshet.online.worker.metrics import WorkerMetrics
from freshet.online.worker.publish import Origin, forecast_items, issued_of
from freshet.online.worker.rounds import Round, plan_round, portions
from freshet.online.worker.shard import OwnedShards, num_buckets
from freshet.online.worker.side_inputs import SideInputs
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, StoreUnavailableError
from freshet.stream.failpoints import failpoint
from freshet.stream.kafka import Publisher, partitions_of
from freshet.stream.process import BackOff, Stop, on_signals
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import Forecast, ModelEvent
from freshet.stream.store.clock import open_clock
from freshet.stream.store.redis import check_fit, connect
from freshet.stream.telemetry import get_logger, new_registry, serve_http

LOOK_S = 1.0
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
STUCK_S = 120.0
PUBLISH_ROWS = 2_048
MAX_BUCKETS_A_TURN = 24

log = get_logger(__name__)

Outgoing = list[tuple[str, str, bytes]]
"""Topic, key and value of each record."""


def run(settings: Settings) -> None:
    """Forecast until SIGTERM or SIGINT.

    Raises:
        BrokerError, StoreError: At the start something is missing or unfit.
        WeightsError: There are no weights to forecast with.
    """
    worker = Worker(settings)
    try:
        with on_signals({signal.SIGTERM: worker.stop, signal.SIGINT: worker.stop}):
            worker.run()
    finally:
        worker.close()


class Worker:
    """The loop and what it needs; the composition root of the process."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topics = settings, settings.kafka.topics
        worker = settings.worker
        partitions_of(settings, [self._topics.forecasts, self._topics.scores, self._topics.drift])
        self._redis = connect(settings.redis)
        check_fit(self._redis)
        self._clock = open_clock(self._redis)
        if worker.threads:
            torch.set_num_threads(worker.threads)
        self.switch = open_switch(settings, f"{socket.gethostname()}:{os.getpid()}")
        self._side_inputs = SideInputs(settings, self._offer)
        self._membership = Membership(settings)
        self._publisher = Publisher(settings)
        self._owned: OwnedShards | None = None
        self._stop = Stop()
        self._troubles: dict[str, str] = {
            "start": "reading the catalogue and joining the worker group"
        }
        self._back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, self._stop.wait)
        self._beat_s = time.monotonic()
        self._looked_s = self._seen_s = 0.0
        self._published_ms: int | None = None
        self._rolled_back = False
        registry = new_registry()
        self.metrics = WorkerMetrics(registry)
        self.metrics.forecast_age_seconds.set_function(self._age_s)
        self.metrics.degraded.set_function(lambda: float(self.ready() is not None))
        host = settings.telemetry.http_host
        self.http_port = serve_http(
            worker.http_port, self.live, self.ready, registry=registry, host=host
        )

    # What others may ask or order -----------------------------------------------------------------

    def stop(self) -> None:
        """Finish the portion in hand and return from `run`."""
        self._stop.set()

    def live(self) -> str | None:
        """None while the loop turns."""
        silent_s = time.monotonic() - self._beat_s
        return f"the loop has not turned for {silent_s:.0f} s" if silent_s > STUCK_S else None

    def ready(self) -> str | None:
        """None while forecasts flow from the weights that should serve, else what is amiss."""
        return (
            next(iter(list(self._troubles.values())), None) or self.switch.current.fallback or None
        )

    # The loop -------------------------------------------------------------------------------------

    def run(self) -> None:
        """See the function `run`."""
        weights = self.switch.current
        log.info(
            "started",
            version=weights.version,
            device=str(weights.forecaster.device),
            http_port=self.http_port,
        )
        while not self._stop.is_set():
            self._beat_s = time.monotonic()
            try:
                self._turn()
                self._back_off.reset()
            except (StoreUnavailableError, BrokerError) as error:
                self._trouble_with(error)
        log.info("ended")

    def close(self) -> None:
        """Send what is queued and leave the group."""
        self._publisher.close()
        self._side_inputs.close()
        self._membership.close()

    def _turn(self) -> None:
        owned = self._receive()
        if owned is None:
            return
        newest_ms = self._read(owned)
        due = plan_round(owned.previous_ms, newest_ms, self._settings.worker.resolution_ms)
        if due is not None:
            self._forecast(owned, due)
        self._score(owned)
        self._troubles.clear()
        if (
            due is not None
            and not self._stop.is_set()
            and owned.sums.learn(owned.contexts, self.switch.current, due.cutoff_ms)
        ):
            log.info("learnt_how_steps_move", **asdict(owned.sums.dependence))

    # Receive and read -----------------------------------------------------------------------------

    def _receive(self) -> OwnedShards | None:
        """Serve the group and the tables; None until there are shards and the tables have been
        read.
        """
        noticed = self._membership.poll(self._settings.worker.poll_ms)
        self._side_inputs.poll(0 if self._side_inputs.caught_up else self._settings.worker.poll_ms)
        self._swap()
        if not self._side_inputs.caught_up or not self._membership.shards:
            return None
        if self._owned is None or self._owned.membership_version != self._membership.version:
            self._owned = self._hold()
        elif not noticed and time.monotonic() - self._looked_s < LOOK_S:
            return None
        return self._owned

    def _hold(self) -> OwnedShards:
        worker = self._settings.worker
        rules = ReadRules.of(self._settings, worker.resolution_ms)
        generation = self._settings.redis.generation
        reader = WindowReader(
            self._redis,
            generation,
            worker.resolution_ms,
            num_buckets(self._settings),
            owns=self._membership.owns,
            rules=rules,
        )
        device = self.switch.current.forecaster.device
        owned = OwnedShards(
            self._settings, reader, self._side_inputs.shop, self._membership, device
        )
        owned.cold.saw(owned.contexts.refresh().new_items)
        owned.recover(self._settings, self._membership, self._clock.now_ms())
        if owned.previous_ms is not None:
            # The last round of the worker before may be unfinished: look at its cutoff once more.
            owned.previous_ms -= worker.resolution_ms
        return owned

    def _read(self, owned: OwnedShards) -> int | None:
        """Take in what changed in Redis; returns the newest cutoff."""
        self._looked_s = time.monotonic()
        with self.metrics.stage_seconds.labels("read").time():
            delta = owned.contexts.refresh()
        owned.cold.saw(delta.new_items)
        self._rolled_back = bool(delta.rolled_back)
        cutoff_ms = owned.reader.live_cutoff_ms()
        if cutoff_ms is not None:
            self.metrics.lag_seconds.set((self._clock.now_ms() - cutoff_ms) / 1_000)
        return cutoff_ms

    # Forecast and publish -------------------------------------------------------------------------

    def _forecast(self, owned: OwnedShards, due: Round) -> None:
        """One round: every item that has no forecast at this cutoff yet, all by the version that
        serves now.
        """
        weights, cutoff_ms = self.switch.current, due.cutoff_ms
        origin = Origin(
            resolution_ms=self._settings.worker.resolution_ms,
            cutoff_ms=cutoff_ms,
            issued_at_ms=self._clock.now_ms(),
            weights_version=weights.version,
            weights_sha256=weights.sha256,
            offsets=owned.reader.offsets(),
            series_by=self._settings.events.series_by,
            degraded=bool(weights.fallback) or self._rolled_back,
            conversion=self._settings.worker.conversion,
        )
        done = owned.pending.items_at(cutoff_ms)
        rows = [row for row, item_id in enumerate(owned.contexts.item_ids) if item_id not in done]
        horizon_ms = self._settings.worker.prediction_length * origin.resolution_ms
        cold = [
            i
            for i in owned.cold.item_ids(self._side_inputs.shop, cutoff_ms, horizon_ms)
            if i not in done
        ]
        self.metrics.items.set(owned.reader.num_items + len(cold))
        waiting: list[Forecast] = []
        for part in portions(len(rows) + len(cold), self._settings.worker.micro_batch):
            bare = cold[max(part.start - len(rows), 0) : max(part.stop - len(rows), 0)]
            with self.metrics.stage_seconds.labels("forecast").time():
                some = rows[part.start : part.stop]
                waiting += forecast_items(
                    owned.contexts, weights, origin, owned.sums, rows=some, cold=bare
                )
            if len(waiting) >= PUBLISH_ROWS or part.stop == len(rows) + len(cold):
                if not self._publish(owned, waiting):
                    return
                waiting = []
            self._membership.poll(0)
            self._beat_s = time.monotonic()
            if self._stop.is_set():
                return
        self._note_round(owned, due, len(rows) + len(cold))

    def _publish(self, owned: OwnedShards, records: list[Forecast]) -> bool:
        """Send forecasts until they are acknowledged, then have them wait for their scores; False
        when stopped.
        """
        outgoing: Outgoing = []
        for record in records:
            value = encode(record)
            outgoing.append((self._topics.forecasts, record.item_id, value))
            if self._topics.forecasts_latest:
                outgoing.append((self._topics.forecasts_latest, record.item_id, value))
        failpoint("before_forecasts")
        with self.metrics.stage_seconds.labels("publish").time():
            if not self._insist(outgoing):
                return False
        failpoint("after_forecasts")
        if records and owned.pending.score_steps:
            owned.pending.add(issued_of(records, owned.pending.score_steps))
        for record in records:
            self.metrics.forecasts.labels(record.status).inc()
        return True

    def _note_round(self, owned: OwnedShards, due: Round, num_items: int) -> None:
        owned.previous_ms = self._published_ms = due.cutoff_ms
        took_s = time.monotonic() - self._looked_s
        self.metrics.coalesced.inc(due.skipped)
        self.metrics.latency_seconds.observe(took_s)
        version = self.switch.current.version
        log.info(
            "forecast",
            cutoff_ms=due.cutoff_ms,
            items=num_items,
            skipped=due.skipped,
            s=took_s,
            version=version,
        )

    # Score ----------------------------------------------------------------------------------------

    def _score(self, owned: OwnedShards) -> None:
        """Score buckets that have become final, oldest first; the rest waits for the next turn."""
        for bucket_ms in owned.pending.due_buckets(owned.reader.final_ms())[:MAX_BUCKETS_A_TURN]:
            with self.metrics.stage_seconds.labels("score").time():
                found = owned.scorer.score(bucket_ms, self._clock.now_ms())
            outgoing: Outgoing = [
                (self._topics.scores, score.item_id, encode(score)) for score in found.scores
            ]
            outgoing += [
                (self._topics.drift, alert.segment, encode(alert)) for alert in found.alerts
            ]
            failpoint("before_scores")
            if not self._insist(outgoing):
                return
            failpoint("after_scores")
            owned.pending.close_bucket(bucket_ms)
            self.metrics.scores.inc(len(found.scores))
            self.metrics.unscored.inc(found.unknown)
            for alert in found.alerts:
                self.metrics.alerts.labels(alert.state, alert.kind).inc()
                log.warning(
                    "drift", segment=alert.segment, state=alert.state, text=alert.description
                )
            self._membership.poll(0)
            self._beat_s = time.monotonic()
        for segment, tension in owned.monitor.tensions().items():
            self.metrics.drift_score.labels(segment).set(tension)

    # Weights --------------------------------------------------------------------------------------

    def _offer(self, event: ModelEvent) -> None:
        if not self._settings.worker.weights:
            self.switch.offer(event)

    def _swap(self) -> None:
        """Between two rounds: serve what has been loaded meanwhile, and say so."""
        event = self.switch.settle(self._clock.now_ms()) if self._side_inputs.caught_up else None
        if event is None:
            return
        self.metrics.swaps.labels(event.kind).inc()
        if event.pause_ms is not None:
            self.metrics.swap_pause_seconds.observe(event.pause_ms / 1_000)
        key = f"{event.kind}:{event.version}:{event.worker}"
        self._insist([(self._topics.models, key, encode(event))])

    # Trouble --------------------------------------------------------------------------------------

    def _insist(self, outgoing: Outgoing) -> bool:
        """Send these until all are acknowledged; False when told to stop before that."""
        while outgoing:
            try:
                for topic, key, value in outgoing:
                    self._publisher.produce(topic, value, key=key)
                self._publisher.flush()
                self._back_off.reset()
                return True
            except BrokerError as error:
                self._trouble_with(error)
                if self._stop.is_set():
                    return False
        return True

    def _trouble_with(self, error: BrokerError | StoreUnavailableError) -> None:
        """Say it once, count it, and wait a little longer each time; forecasts keep their
        timestamps meanwhile.
        """
        what = "broker" if isinstance(error, BrokerError) else "redis"
        if what not in self._troubles:
            log.error("degraded", what=what, error=str(error), newest_cutoff_ms=self._published_ms)
        self._troubles[what] = str(error)
        self.metrics.troubles.labels(what).inc()
        self._beat_s = time.monotonic()
        self._back_off.pause()

    def _age_s(self) -> float:
        newest_ms = self._published_ms
        return float("nan") if newest_ms is None else (self._clock.now_ms() - newest_ms) / 1_000
