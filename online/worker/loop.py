"""The worker: receive, read, forecast, publish; then score what has become final, and look back.

One round forecasts all items of this worker at one cutoff with one version of the weights. Durable
effects of a turn, in this order:

1. forecasts of a portion of the items are acknowledged by the broker (`publish`);
2. only then do they wait to be scored; 1 and 2 repeat until the round is complete;
3. the scores and drift alerts of a final bucket are acknowledged (`score`);
4. only then is the bucket closed; 3 and 4 repeat for each bucket.

A crash before 1 or 3 repeats what was not acknowledged. After them it repeats nothing: the next
worker reads forecasts, scores and alerts back from the topics (`online/worker/recovery.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import redis

from freshet.online.weights.swap import WeightsSwitch
from freshet.online.worker.group import Membership
from freshet.online.worker.metrics import WorkerMetrics
from freshet.online.worker.publish import Origin, forecast_items, issued_of
from freshet.online.worker.rounds import Round, plan_round, portions
from freshet.online.worker.scorer import ScoredBucket
from freshet.online.worker.shard import OwnedShards, take_over
from freshet.online.worker.side_inputs import SideInputs
from freshet.stream.clock import Clock, latest_ms
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, StoreUnavailableError
from freshet.stream.failpoints import failpoint
from freshet.stream.health import Health, Watch
from freshet.stream.kafka import Delivery, Outgoing
from freshet.stream.process import Stop
from freshet.stream.schemas import Forecast
from freshet.stream.telemetry import get_logger

LOOK_S = 1.0  # notices are hints: Redis is looked at this often without one
PUBLISH_ROWS = 2_048  # forecasts that may wait for one acknowledgement; they are held in memory
MAX_BUCKETS_A_TURN = 24  # scored before the next round may begin

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of."""

    redis: redis.Redis
    clock: Clock
    switch: WeightsSwitch
    side_inputs: SideInputs
    membership: Membership
    delivery: Delivery
    health: Health
    watch: Watch


class Worker:
    """The loop; `online/worker/process.py` makes it."""

    def __init__(
        self, settings: Settings, parts: Parts, metrics: WorkerMetrics, stop: Stop
    ) -> None:
        self._settings = settings
        self._topics = settings.kafka.topics
        self._parts = parts
        self._stop = stop
        self._owned: OwnedShards | None = None
        self._looked_s = 0.0
        self._rolled_back = False
        self.published_ms: int | None = None
        """The newest cutoff whose forecasts are out."""
        self.metrics = metrics
        self.metrics.forecast_age_seconds.set_function(self._age_s)
        self.metrics.degraded.set_function(lambda: float(self.ready() is not None))

    def run(self) -> None:
        """Turn until told to stop; a server that is away is waited for."""
        health = self._parts.health
        with self._parts.watch:
            while not self._stop.is_set():
                health.beat()
                try:
                    self._turn()
                    health.answered()
                except (StoreUnavailableError, BrokerError) as error:
                    health.wait_out(error)
        log.info("ended")

    def stop(self) -> None:
        """Finish the portion in hand and return from `run`."""
        self._stop.set()

    def ready(self) -> str | None:
        """None while forecasts flow from the weights that should serve, else what is amiss."""
        return self._parts.health.ready()

    def close(self) -> None:
        """Send what is queued and leave the group."""
        self._parts.delivery.close()
        self._parts.side_inputs.close()
        self._parts.membership.close()

    def _turn(self) -> None:
        owned = self._receive()
        if owned is None:
            return
        due = self._read(owned)
        if due is not None:
            self._serve(owned, due)
        self._score(owned)
        self._parts.health.turned()
        if due is not None and not self._stop.is_set():
            self._look_back(owned, due)

    def _serve(self, owned: OwnedShards, due: Round) -> None:
        num_items = 0
        for records in self._forecast(owned, due):
            if not self._publish(owned, records):
                return
            num_items += len(records)
        if not self._stop.is_set():
            self._note_round(owned, due, num_items)

    # Receive --------------------------------------------------------------------------------------

    def _receive(self) -> OwnedShards | None:
        """Serve the group, take in side inputs, swap weights; None while there is nothing to do."""
        membership, side_inputs = self._parts.membership, self._parts.side_inputs
        poll_ms = self._settings.worker.poll_ms
        noticed = membership.poll(poll_ms)
        side_inputs.poll(0 if side_inputs.caught_up else poll_ms)
        if not side_inputs.caught_up:
            return None
        self._swap()
        if not membership.shards:
            return None
        if self._owned is None or self._owned.membership_version != membership.version:
            self._owned = self._take_over()
        elif not noticed and time.monotonic() - self._looked_s < LOOK_S:
            return None
        return self._owned

    def _swap(self) -> None:
        """Between two rounds: serve what has been loaded meanwhile, and say so."""
        event = self._parts.switch.settle(self._parts.clock.now_ms())
        if event is None:
            return
        self.metrics.swaps.labels(event.kind).inc()
        if event.pause_ms is not None:
            self.metrics.swap_pause_seconds.observe(event.pause_ms / 1_000)
        key = f"{event.kind}:{event.version}:{event.worker}"
        self._parts.delivery.deliver([Outgoing(self._topics.models, key.encode(), encode(event))])

    def _take_over(self) -> OwnedShards:
        return take_over(
            self._settings,
            self._parts.redis,
            self._parts.side_inputs.shop,
            self._parts.membership,
            device=self._parts.switch.current.forecaster.device,
            now_ms=self._parts.clock.now_ms(),
            latest_ms=latest_ms(self._parts.clock),
        )

    # Read -----------------------------------------------------------------------------------------

    def _read(self, owned: OwnedShards) -> Round | None:
        """Take in what changed in Redis; returns the round that is due, if any."""
        self._looked_s = time.monotonic()
        with self.metrics.stage_seconds.labels("read").time():
            delta = owned.contexts.refresh()
        owned.cold.saw(delta.new_items)
        self._rolled_back = bool(delta.rolled_back)
        newest_ms = owned.reader.live_cutoff_ms()
        if newest_ms is not None:
            self.metrics.lag_seconds.set((self._parts.clock.now_ms() - newest_ms) / 1_000)
        return plan_round(owned.previous_ms, newest_ms, self._settings.worker.resolution_ms)

    # Forecast -------------------------------------------------------------------------------------

    def _forecast(self, owned: OwnedShards, due: Round) -> Iterator[list[Forecast]]:
        """Every item without a forecast at this cutoff yet, in portions to publish.

        All by the version that serves now. Ends early when told to stop.
        """
        weights = self._parts.switch.current
        origin = self._origin(owned, due.cutoff_ms)
        rows, cold = owned.unforecast(due.cutoff_ms)
        self.metrics.items.set(owned.reader.num_items + len(cold))
        waiting: list[Forecast] = []
        total = len(rows) + len(cold)
        for part in portions(total, self._settings.worker.micro_batch):
            with self.metrics.stage_seconds.labels("forecast").time():
                waiting += forecast_items(
                    owned.contexts,
                    weights,
                    origin,
                    owned.sums,
                    rows=rows[part.start : part.stop],
                    # Cold items are numbered on after the rows.
                    cold=cold[max(part.start - len(rows), 0) : max(part.stop - len(rows), 0)],
                )
            if len(waiting) >= PUBLISH_ROWS or part.stop == total:
                yield waiting
                waiting = []
            self._stay_alive()
            if self._stop.is_set():
                return

    def _origin(self, owned: OwnedShards, cutoff_ms: int) -> Origin:
        weights = self._parts.switch.current
        worker = self._settings.worker
        return Origin(
            resolution_ms=worker.resolution_ms,
            cutoff_ms=cutoff_ms,
            issued_at_ms=self._parts.clock.now_ms(),
            weights_version=weights.version,
            weights_sha256=weights.sha256,
            offsets=owned.reader.offsets(),
            series_by=self._settings.events.series_by,
            degraded=bool(weights.fallback) or self._rolled_back,
            conversion=worker.conversion,
        )

    # Publish --------------------------------------------------------------------------------------

    def _publish(self, owned: OwnedShards, records: list[Forecast]) -> bool:
        """Send forecasts until acknowledged, then have them wait for scores; False when stopped."""
        outgoing = self._outgoing(records)
        failpoint("before_forecasts")
        with self.metrics.stage_seconds.labels("publish").time():
            if not self._parts.delivery.deliver(outgoing):
                return False
        failpoint("after_forecasts")
        if records and owned.pending.score_steps:
            owned.pending.add(issued_of(records, owned.pending.score_steps))
        for record in records:
            self.metrics.forecasts.labels(record.status).inc()
        return True

    def _outgoing(self, records: list[Forecast]) -> list[Outgoing]:
        """Each forecast for the log, and for the table of the newest where there is one."""
        latest = self._topics.forecasts_latest
        outgoing = []
        for record in records:
            key, value = record.item_id.encode(), encode(record)
            outgoing.append(Outgoing(self._topics.forecasts, key, value))
            if latest:
                outgoing.append(Outgoing(latest, key, value))
        return outgoing

    def _note_round(self, owned: OwnedShards, due: Round, num_items: int) -> None:
        owned.previous_ms = due.cutoff_ms
        self.published_ms = due.cutoff_ms
        took_s = time.monotonic() - self._looked_s
        self.metrics.coalesced.inc(due.skipped)
        self.metrics.latency_seconds.observe(took_s)
        log.info(
            "forecast",
            cutoff_ms=due.cutoff_ms,
            items=num_items,
            skipped=due.skipped,
            s=took_s,
            version=self._parts.switch.current.version,
        )

    # Score ----------------------------------------------------------------------------------------

    def _score(self, owned: OwnedShards) -> None:
        """Score buckets that have become final, oldest first; the rest waits for the next turn."""
        final_ms = owned.reader.final_ms()
        for bucket_ms in owned.pending.due_buckets(final_ms)[:MAX_BUCKETS_A_TURN]:
            with self.metrics.stage_seconds.labels("score").time():
                found = owned.scorer.score(bucket_ms, self._parts.clock.now_ms())
            if not self._publish_scores(owned, found):
                return
            self._stay_alive()
        for segment, tension in owned.monitor.tensions().items():
            self.metrics.drift_score.labels(segment).set(tension)

    def _publish_scores(self, owned: OwnedShards, found: ScoredBucket) -> bool:
        """Send scores and alerts until acknowledged, then close the bucket; False when stopped."""
        scores, drift = self._topics.scores, self._topics.drift
        outgoing = [
            Outgoing(scores, score.item_id.encode(), encode(score)) for score in found.scores
        ]
        outgoing += [
            Outgoing(drift, alert.segment.encode(), encode(alert)) for alert in found.alerts
        ]
        failpoint("before_scores")
        if not self._parts.delivery.deliver(outgoing):
            return False
        failpoint("after_scores")
        owned.pending.close_bucket(found.bucket_ms)
        self.metrics.scores.inc(len(found.scores))
        self.metrics.unscored.inc(found.unknown)
        for alert in found.alerts:
            self.metrics.alerts.labels(alert.state, alert.kind).inc()
            log.warning("drift", segment=alert.segment, state=alert.state, text=alert.description)
        return True

    # Look back ------------------------------------------------------------------------------------

    def _look_back(self, owned: OwnedShards, due: Round) -> None:
        """Learn now and then how steps move together, when a round's forecasts are out."""
        if owned.sums.learn(owned.contexts, self._parts.switch.current, due.cutoff_ms):
            log.info("learnt_how_steps_move", **asdict(owned.sums.dependence))

    def _stay_alive(self) -> None:
        """In a long turn: tell the group and the probes that the loop still turns."""
        self._parts.membership.poll(0)
        self._parts.health.beat()

    def _age_s(self) -> float:
        newest_ms = self.published_ms
        if newest_ms is None:
            return float("nan")
        return (self._parts.clock.now_ms() - newest_ms) / 1_000
