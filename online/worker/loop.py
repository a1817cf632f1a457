"""The worker: receive, read, forecast, publish; then score what has become final, and look back.

A round forecasts the items of this worker at one resolution and cutoff; who serves whom does not
change within it, and each micro-batch is of one version of the weights. Finer steps go first, and
may interrupt a round of coarser ones. Durable effects of a turn, in this order:

1. a portion of a round's forecasts becomes visible together with how far the round has come, in one
   transaction that Kafka takes only from the shards' present owner (`publish`);
2. only then do they wait to be scored; 1 and 2 repeat until the round is complete;
3. the scores of a final bucket are acknowledged (`score`);
4. only then is the bucket closed; 3 and 4 repeat for each bucket;
5. only then is it said how far they are scored, for the owner who looks for drift in them.

A crash before 1 leaves nothing; after it the next worker goes on behind the portion. A crash before
3 repeats what was not acknowledged; after it the next worker reads scores and alerts back from the
topics (`online/worker/recovery.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import redis

from freshet.online.forecast.publish import Origin, issued_of
from freshet.online.weights.loaded import Serving
from freshet.online.weights.swap import WeightsSwitch
from freshet.online.worker.group import Membership
from freshet.online.worker.marks import Mark
from freshet.online.worker.metrics import WorkerMetrics
from freshet.online.worker.outgoing import (
    origin_of,
    outgoing_forecasts,
    outgoing_rounds,
    outgoing_scored,
    outgoing_shadow,
)
from freshet.online.worker.owner import OwnerKeeper
from freshet.online.worker.pace import newest
from freshet.online.worker.passing import Pass
from freshet.online.worker.rounds import Round, portions
from freshet.online.worker.scorer import ScoredBucket
from freshet.online.worker.served import Served
from freshet.online.worker.shard import OwnedShards, take_over
from freshet.online.worker.side_inputs import SideInputs
from freshet.online.worker.whose import Made, by_weights
from freshet.stream.clock import Clock, latest_ms
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, StoreUnavailableError
from freshet.stream.failpoints import failpoint
from freshet.stream.health import Health, Watch
from freshet.stream.kafka import Commits, Delivery, NotTheOwnerError, Outgoing
from freshet.stream.process import Stop
from freshet.stream.schemas import ForecastRound
from freshet.stream.telemetry import get_logger

PORTION = 2_048  # forecasts of one transaction; with the table of the newest 4,096 records
MAX_BUCKETS_A_TURN = 24  # scored before the next round may begin
WITHOUT_SHARDS_S = 30.0  # joining takes three, and half a minute where the group shares anew

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of."""

    redis: redis.Redis
    clock: Clock
    switch: WeightsSwitch
    side_inputs: SideInputs
    membership: Membership
    commits: Commits
    delivery: Delivery
    health: Health
    watch: Watch
    owner: OwnerKeeper | None = None
    """Starts the estimates of shared effects where nobody makes them."""


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
        self._had_shards_s = time.monotonic()
        self.published_ms: int | None = None
        """The newest cutoff of the main resolution whose forecasts are out."""
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
                except NotTheOwnerError as error:
                    # Somebody else forecasts these shards now, or nobody until we join again.
                    log.warning("shards_lost", error=str(error))
                    self._owned = None
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
        if self._parts.owner is not None:
            self._parts.owner.close()
        self._parts.commits.close()
        self._parts.delivery.close()
        self._parts.side_inputs.close()
        self._parts.membership.close()

    def _turn(self) -> None:
        self._look_after_owner()
        owned = self._receive()
        if owned is None:
            return
        for served in owned.served:
            self._read(owned, served)
            self._serve_due(owned, served)
        for served in owned.served:
            self._score(owned, served)
        self._parts.health.turned()

    # Receive --------------------------------------------------------------------------------------

    def _receive(self) -> OwnedShards | None:
        """Serve the group, take in side inputs, swap weights; None while there is nothing to do."""
        membership, side_inputs = self._parts.membership, self._parts.side_inputs
        poll_ms = self._settings.worker.poll_ms
        notices = newest(membership.poll(self._wait_ms()))
        side_inputs.poll(0 if side_inputs.caught_up else poll_ms)
        if not side_inputs.caught_up:
            if side_inputs.waits_for:
                self._parts.health.say("tables", side_inputs.waits_for)
            return None
        self._parts.health.over("tables")
        self._swap()
        self._hear()
        if not self._has_shards():
            return None
        if self._owned is None or self._owned.membership_version != membership.version:
            self._owned = self._take_over()
        for served in self._owned.served:
            served.pace.take(notices)
        return self._owned

    def _has_shards(self) -> bool:
        """Whether there is work; a worker that is given none for long says so."""
        now_s = time.monotonic()
        if self._parts.membership.shards:
            self._had_shards_s = now_s
            self._parts.health.over("shards")
            return True
        if now_s - self._had_shards_s > WITHOUT_SHARDS_S:
            number = self._parts.membership.num_shards
            text = f"none of the {number} shards is this worker's: others have them, or it waits"
            self._parts.health.say("shards", text)
        return False

    def _wait_ms(self) -> int:
        """How long to wait for notices: until a read is due that no notice asks for."""
        now_s = time.monotonic()
        due_ms = (
            [served.pace.wait_ms(now_s) for served in self._owned.served] if self._owned else []
        )
        return min([self._settings.worker.poll_ms, *due_ms])

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

    def _hear(self) -> None:
        """Between two rounds: what the owner says of drift. Whoever begins reads all of it."""
        news = self._parts.side_inputs.alarms.news()
        if self._owned is None:
            return
        for alert in news:
            self.metrics.alerts.labels(alert.state, alert.kind).inc()

    def _take_over(self) -> OwnedShards:
        self._parts.commits.renew()
        return take_over(
            self._settings,
            self._parts.redis,
            self._parts.side_inputs.shop,
            self._parts.membership,
            device=self._parts.switch.current.default.forecaster.device,
            now_ms=self._parts.clock.now_ms(),
            latest_ms=latest_ms(self._parts.clock),
            effects=self._parts.side_inputs.effects,
            decisions=self._parts.side_inputs.decisions,
        )

    def _look_after_owner(self) -> None:
        if self._parts.owner is not None:
            self._parts.owner.look()

    # Read -----------------------------------------------------------------------------------------

    def _read(self, owned: OwnedShards, served: Served) -> None:
        """Take in what changed in Redis, where a bucket may have ended."""
        if not served.pace.due(time.monotonic()):
            return
        now_ms = self._parts.clock.now_ms()
        with self.metrics.stage_seconds.labels("read").time():
            served.refresh(now_ms)
        newest_ms = served.reader.live_cutoff_ms()
        self._tell_of_history(owned)
        if newest_ms is not None and served is owned.main:
            self.metrics.lag_seconds.set((now_ms - newest_ms) / 1_000)

    def _tell_of_history(self, owned: OwnedShards) -> None:
        """While history is loaded nothing is forecast, which probes and the log say.

        One reader may not have looked yet when another one has.
        """
        loading = [one.reader.loading() for one in owned.served]
        of_some = next(filter(None, loading), None)
        if of_some is None:
            self._parts.health.over("history")
        else:
            self._parts.health.say("history", str(of_some))

    # Serve ----------------------------------------------------------------------------------------

    def _serve_due(self, owned: OwnedShards, served: Served, within: Served | None = None) -> None:
        """Forecast where a round is due; look back when its forecasts are out.

        Days go before the hours of the same midnight, which do not break into them, and wait with
        them for shared effects.
        """
        days = owned.days_before(served)
        if days is not None:
            if days is within:
                return
            self._let_days_go_first(owned, days)
            if days.waits(owned.marks_of(days).values()):
                return
        due = served.due(owned.marks_of(served).values())
        if due is None or not self._serve(owned, served, due):
            return
        weights = self._parts.switch.current.default
        if not self._stop.is_set() and served.sums.learn(served.contexts, weights, due.cutoff_ms):
            dependence = asdict(served.sums.dependence)
            log.info("learnt_how_steps_move", resolution_ms=served.resolution_ms, **dependence)

    def _let_days_go_first(self, owned: OwnedShards, days: Served) -> None:
        with self.metrics.stage_seconds.labels("read").time():
            # No notice may have asked for this look, or none has come yet.
            days.refresh(self._parts.clock.now_ms())
        self._serve_due(owned, days)

    def _serve(self, owned: OwnedShards, served: Served, due: Round) -> bool:
        """One round; False when told to stop before its end."""
        began_s = time.monotonic()
        before = owned.marks_of(served)
        work, marks = served.begin(due.cutoff_ms, before)
        one_pass = Pass(
            work,
            marks,
            before,
            grid=served.reader.rules.grid,
            num_shards=self._parts.membership.num_shards,
        )
        serving = self._parts.switch.current
        owned.tie(served, due.cutoff_ms)
        self._adjust(served, due.cutoff_ms)
        now_ms = self._parts.clock.now_ms()
        origin = origin_of(
            self._settings,
            served,
            serving,
            cutoff_ms=due.cutoff_ms,
            now_ms=now_ms,
            side_offsets=self._parts.side_inputs.offsets(),
        )
        for part, moved in one_pass.steps(PORTION):
            made = self._forecast(owned, served, one_pass, part, origin, serving)
            if made is None:
                return False
            rounds = one_pass.records(moved, origin.issued_at_ms, origin.weights_version)
            if not self._publish(owned, served, made, rounds, moved):
                return False
        served.rests_after(time.monotonic() - began_s)
        if not origin.warming_up:
            served.effects.note(due.cutoff_ms)
            self._note_effects(owned)
        self._note_round(owned, served, due, len(work))
        return True

    def _adjust(self, served: Served, cutoff_ms: int) -> None:
        """How this round is served differently: what is decided during it changes nothing."""
        if served.calibrated is not None:
            served.calibrated.begin(cutoff_ms)
        if served.adjusted is None:
            return
        served.adjusted.begin(cutoff_ms)
        for name, segments in served.adjusted.counts().items():
            self.metrics.adjusted.labels(name).set(segments)

    def _forecast(
        self,
        owned: OwnedShards,
        served: Served,
        one_pass: Pass,
        part: range,
        origin: Origin,
        serving: Serving,
    ) -> Made | None:
        """A portion of a round, in micro-batches; None when told to stop."""
        made = Made([], [])
        for weights, places in by_weights(
            serving, one_pass.work, part, served.reader.item_ids, served.segments_of
        ):
            for few in portions(len(places), self._settings.worker.micro_batch):
                rows, cold = one_pass.work.items(places[few.start : few.stop])
                with self.metrics.stage_seconds.labels("forecast").time():
                    made.forecast(served, origin, weights, rows, cold)
                self._stay_alive(owned)
                if self._stop.is_set():
                    return None
                self._let_finer_steps_go_first(owned, served)
        return made

    def _let_finer_steps_go_first(self, owned: OwnedShards, served: Served) -> None:
        """In a long round or scoring: what is due by finer steps, for at most half of the time."""
        for finer in owned.served[: owned.served.index(served)]:
            if finer.rested():
                self._read(owned, finer)
                self._serve_due(owned, finer, within=served)

    # Publish --------------------------------------------------------------------------------------

    def _publish(
        self,
        owned: OwnedShards,
        served: Served,
        made: Made,
        rounds: list[ForecastRound],
        moved: Mapping[int, Mark],
    ) -> bool:
        """Commit forecasts, then have them wait for scores; False when told to stop."""
        marks = owned.marks_with(served, moved)
        forecasts = made.served
        failpoint("before_forecasts")
        with self.metrics.stage_seconds.labels("publish").time():
            outgoing = outgoing_forecasts(self._topics, forecasts)
            outgoing += outgoing_shadow(self._topics, made.shadow)
            outgoing += outgoing_rounds(self._topics, rounds)
            offsets = self._parts.membership.offsets(marks)
            if not self._parts.commits.commit(outgoing, offsets):
                return False
        failpoint("after_forecasts")
        owned.marks |= marks
        owned.published(served, forecasts)
        said = [record for record in forecasts if record.quantiles]
        if said and served.pending.score_steps:
            for issued in issued_of(said, served.pending.score_steps):
                served.pending.add(issued)
        if made.shadow and served.shadow.score_steps:
            for issued in issued_of(made.shadow, served.shadow.score_steps):
                served.shadow.add(issued)
            self.metrics.shadow.inc(len(made.shadow))
        for record in forecasts:
            self.metrics.forecasts.labels(record.status).inc()
        return True

    def _note_effects(self, owned: OwnedShards) -> None:
        amiss = list(filter(None, (served.effects.amiss for served in owned.served)))
        if amiss:
            self._parts.health.say("effects", "; ".join(amiss))
        else:
            self._parts.health.over("effects")

    def _note_round(self, owned: OwnedShards, served: Served, due: Round, num_items: int) -> None:
        took_s = time.monotonic() - served.looked_s
        if served is owned.main:
            self.published_ms = due.cutoff_ms
            self.metrics.items.set(num_items)
        self.metrics.coalesced.inc(due.skipped)
        self.metrics.latency_seconds.observe(took_s)
        gaps = served.whole_days.gaps() if served.whole_days else {}
        for name, gap in gaps.items():
            self.metrics.day_gap.labels(name).set(gap)
        log.info(
            "forecast",
            resolution_ms=served.resolution_ms,
            cutoff_ms=due.cutoff_ms,
            items=num_items,
            skipped=due.skipped,
            s=took_s,
            version=str(self._parts.switch.current.assignment),
            **{f"day_gap_{name}": gap for name, gap in gaps.items()},
        )

    # Score ----------------------------------------------------------------------------------------

    def _score(self, owned: OwnedShards, served: Served) -> None:
        """Score buckets that have become final, oldest first; the rest waits for the next turn."""
        if not served.has_news:
            return
        final_ms = served.reader.final_ms()
        buckets_ms = served.pending.due_buckets(final_ms)
        for bucket_ms in buckets_ms[:MAX_BUCKETS_A_TURN]:
            with self.metrics.stage_seconds.labels("score").time():
                found = served.scorer.score(bucket_ms, self._parts.clock.now_ms())
            if not self._publish_scores(served, found):
                return
            self._stay_alive(owned)
            self._let_finer_steps_go_first(owned, served)
        served.has_news = len(buckets_ms) > MAX_BUCKETS_A_TURN
        if served is owned.main and final_ms is not None:
            grid = served.reader.rules.grid
            left_ms = buckets_ms[MAX_BUCKETS_A_TURN:] or [grid.start_ms(grid.bucket(final_ms))]
            self._say_scored(owned, left_ms[0])

    def _say_scored(self, owned: OwnedShards, until_ms: int) -> None:
        """Tell the owner of drift that no score follows of a bucket that ends by then."""
        if until_ms <= owned.scored_until_ms:
            return
        said = outgoing_scored(
            self._topics,
            owned,
            until_ms=until_ms,
            num_shards=self._parts.membership.num_shards,
            now_ms=self._parts.clock.now_ms(),
        )
        if self._parts.delivery.deliver(said):
            owned.scored_until_ms = until_ms

    def _publish_scores(self, served: Served, found: ScoredBucket) -> bool:
        """Send scores until acknowledged, then close the bucket; False when stopped."""
        outgoing = [
            Outgoing(self._topics.scores, score.item_id.encode(), encode(score))
            for score in found.scores
        ]
        failpoint("before_scores")
        if not self._parts.delivery.deliver(outgoing):
            return False
        failpoint("after_scores")
        served.pending.close_bucket(found.bucket_ms)
        served.shadow.close_bucket(found.bucket_ms)
        self.metrics.scores.inc(len(found.scores))
        self.metrics.unscored.inc(found.unknown)
        return True

    def _stay_alive(self, owned: OwnedShards) -> None:
        """In a long turn: tell the group and the probes that the loop still turns.

        Raises:
            NotTheOwnerError: Other shards are ours now. Kafka refuses a member that is gone, not
                one whose shards went to another; nobody has them before the poll that tells us.
        """
        membership = self._parts.membership
        notices = newest(membership.poll(0))
        self._parts.health.beat()
        self._look_after_owner()
        if membership.version != owned.membership_version:
            raise NotTheOwnerError("the shards changed in the middle of a round")
        for served in owned.served:
            served.pace.take(notices)

    def _age_s(self) -> float:
        newest_ms = self.published_ms
        if newest_ms is None:
            return float("nan")
        return (self._parts.clock.now_ms() - newest_ms) / 1_000
