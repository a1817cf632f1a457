"""A request for new weights, from the question to its answer and to the end of the probation.

    request -> fine-tune -> gate -> registry -> announcement -> probation

One request at a time, and its answer is in the models topic before the next one is looked at. The
durable effects of a promotion, in this order:

1. the version's directory (`VersionedNetworks.register`);
2. the alias `challenger`;
3. the aliases `previous` and `champion` (`Registry.serve`);
4. the `promoted` event.

Killed before 1, the request is done again. Killed between 1 and 4, the version that answers it is
found in the registry by the request's id, and the rest is made up for. A rollback is 3 and 4 with
the parent of the version that the last event names, so that doing 3 twice goes back no further.

Without the version that serves, nothing of this is done: the registry is lost, and what the workers
have loaded serves on until it is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import msgspec

from freshet.online.learn.announcer import Announcer
from freshet.online.learn.evaluation import compare, try_on_holdout
from freshet.online.learn.finetune import make_challenger
from freshet.online.learn.gate import Report, judge
from freshet.online.learn.guard import Guard, try_guards
from freshet.online.learn.ledger import Ledger
from freshet.online.learn.networks import Candidate, VersionedNetworks, report_of
from freshet.online.learn.pools import History, build_pools, split_history
from freshet.online.learn.probation import Probation, judge_probation, probation_of
from freshet.online.learn.windows import buckets_needed, final_since
from freshet.online.weights.announced import MAX_SHOWN, announcement
from freshet.online.weights.lineage import serve_parent_of
from freshet.online.weights.registry import BASE, CHALLENGER, Manifest, Registry
from freshet.stream.config import LearnSettings
from freshet.stream.errors import FreshetError, RegistryError, WeightsError
from freshet.stream.failpoints import failpoint
from freshet.stream.schemas import ModelEvent, RetrainRequest
from freshet.stream.telemetry import get_logger

# A request waits for final buckets no longer than so many times the clock time they take.
MAX_WAIT_FACTOR = 2

log = get_logger(__name__)


class Stopped(Exception):
    """The process was asked to end while it trained; the next one does the request again."""


@dataclass(slots=True)
class Learner:
    """Decides what to do next and does it; Kafka, Redis and time come from outside.

    Args:
        settings: How to train, judge and watch.
        history: The window store's past.
        networks: Versions of weights, in and out of the registry.
        announcer: What was said of training, and a voice.
        guards: Opens the pasts of the other resolutions that are served.
        stopped: Raises `Stopped` when the process is to end.
        phase: What it is at, for people.
    """

    settings: LearnSettings
    history: History
    networks: VersionedNetworks
    announcer: Announcer
    guards: Callable[[], Iterable[Guard]] = tuple
    stopped: Callable[[], None] = lambda: None
    phase: str = "idle"

    @property
    def ledger(self) -> Ledger:
        """What the topics say."""
        return self.announcer.ledger

    @property
    def registry(self) -> Registry:
        """Where versions are kept."""
        return self.networks.registry

    def step(self) -> None:
        """Do the next thing there is to do, if any; blocks while it trains.

        A rollback goes before everything else, and a probation before new training: its verdict
        says what training starts from.

        Raises:
            FreshetError: Redis, the broker or the registry failed; call again later.
        """
        self._hear()
        for old in self.ledger.requests.superseded():
            self.announcer.rejected(old, reason="superseded by a newer request")
        rollback = self.ledger.requests.open_rollback()
        promotion = self.ledger.on_probation()
        request = self.ledger.requests.open_training()
        if rollback is not None or promotion is not None or request is not None:
            self._check_registry()
        if rollback is not None:
            self._roll_back("asked for", request_id=rollback.request_id)
        elif promotion is not None and self._probation(promotion).keeps_waiting(self._now_ms()):
            self._end_probation(promotion)
        elif request is not None:
            self._answer(request)
        else:
            self.phase = "idle"

    def _hear(self) -> None:
        """Say which announcements do not count, and see whether one does by now."""
        while (refused := self.ledger.next_refusal()) is not None:
            version, reason = refused.event.version[:MAX_SHOWN], refused.reason
            log.error("announcement_refused", version=version, reason=reason)
        self.ledger.reconsider()

    def _check_registry(self) -> None:
        """See that the version that serves is there.

        Raises:
            RegistryError: It is not: the registry is lost, or another one.
        """
        serving = self.ledger.serving
        if serving is not None and serving.version != BASE:
            try:
                self.registry.manifest(serving.version)
            except RegistryError as error:
                hint = "it serves on; bring learn.registry back"
                raise RegistryError(
                    f"the version that serves is lost: {error.message}", hint=hint
                ) from None

    # From the request to the gate -----------------------------------------------------------------

    def _answer(self, request: RetrainRequest) -> None:
        """Answer a request, or leave it for later while there are not enough final buckets."""
        done = self._made_for(request)
        if done is not None:
            log.info("promotion_resumed", version=done.version, request_id=request.request_id)
            self._promote(done)
            return
        self.history.refresh()
        if not self._ready(request):
            self.phase = f"waiting for final buckets for {request.request_id}"
            return
        try:
            self._train(request)
        except (FreshetError, RuntimeError, MemoryError) as error:
            if isinstance(error, FreshetError) and error.retriable:
                raise
            # Training that cannot succeed is answered, or it would be tried for ever.
            log.error("training_failed", request_id=request.request_id, error=str(error))
            self.announcer.rejected(request, reason=f"training failed: {error}")

    def _made_for(self, request: RetrainRequest) -> Manifest | None:
        """The version that answers a request, of a process that died before it was announced."""
        done = self.registry.find(request.request_id)
        if done is None:
            return None
        try:
            return self.registry.verify(done.version)
        except RegistryError as error:
            log.error("version_skipped", name=done.version, reason=str(error))
            return None

    def _ready(self, request: RetrainRequest) -> bool:
        """Enough buckets since the onset are final, or it waited so long that the gate shall say.

        Nothing may ever sell again in a shop that asks for training; the request is answered even
        then.
        """
        grid = self.history.grid
        needed = buckets_needed(self.settings.holdout_buckets)
        longest_wait_ms = MAX_WAIT_FACTOR * needed * grid.resolution_ms
        if self._now_ms() >= request.requested_at_ms + longest_wait_ms:
            return True
        final_ms, first_ms = self.history.final_ms(), self.history.first_ms()
        if final_ms is None or first_ms is None:
            return False
        onset_ms = self.ledger.onset_ms(request)
        start_ms = first_ms if onset_ms is None else max(first_ms, onset_ms)
        return final_since(grid, start_ms, final_ms) >= needed

    def _train(self, request: RetrainRequest) -> None:
        """Fine-tune the champion, judge the result once, and promote or reject it."""
        self.phase = f"training for {request.request_id}"
        # Raises where there is too little, before anybody is told that training begins.
        split = split_history(self.history, self.settings, self.ledger.onset_ms(request))
        parent = self.registry.champion()
        self.announcer.training(request, parent)

        started = time.perf_counter()
        champion = self.networks.load(parent)
        pools = build_pools(self.history, split, request.segments, self.settings.seed)
        challenger = make_challenger(champion, pools, settings=self.settings, stopped=self.stopped)
        failpoint("learn_trained")

        # What became final meanwhile is seen by neither, and makes the hold-out longer.
        self.history.refresh()
        seed = self.settings.seed
        trial = try_on_holdout(
            self.history,
            split,
            pools.anchors,
            champion,
            challenger.network,
            affected=request.segments,
            seed=seed,
        )
        guards = try_guards(self._guards(), champion, challenger.network, seed=seed)
        trial = replace(trial, guards=guards)
        verdict = judge(
            trial, margin=self.settings.gate_margin, confidence=self.settings.gate_confidence
        )
        report = report_of(verdict, challenger, pools, total_s=time.perf_counter() - started)
        log.info("gate", request_id=request.request_id, reason=verdict.reason, **report)
        if not verdict.promote:
            self.announcer.rejected(request, reason=verdict.reason, parent=parent, gate=report)
            return
        candidate = Candidate(request, parent, challenger, report, self.history.offsets())
        self._promote(self._register(candidate))

    def _guards(self) -> Iterator[Guard]:
        """The other resolutions one by one; raises between two when the process is to end."""
        for guard in self.guards():
            self.stopped()
            yield guard

    # Versions: registered, served, announced ------------------------------------------------------

    def _register(self, candidate: Candidate) -> Manifest:
        """Effects 1 and 2."""
        manifest = self.networks.register(candidate, created_at_ms=self._now_ms())
        self.registry.move_alias(CHALLENGER, manifest.version)
        failpoint("learn_registered")
        return manifest

    def _promote(self, manifest: Manifest) -> None:
        """Effects 3 and 4; doing them twice is doing them once."""
        self.registry.serve(manifest.version)
        failpoint("learn_served")
        told = announcement(self.registry, "promoted", manifest.version, self._now_ms())
        self.announcer.say(
            msgspec.structs.replace(
                told,
                parent=manifest.parent,
                request_id=manifest.request_id,
                gate=manifest.gate,
            )
        )
        failpoint("learn_announced")

    def _roll_back(self, reason: str, *, request_id: str = "", gate: Report | None = None) -> None:
        """Serve the parent of what was last announced; doing it twice is doing it once."""
        # Not the champion: a crash after effect 3 has moved that already.
        serving = self.ledger.serving
        current = serving.version if serving is not None else self.registry.champion()
        if current == BASE:
            self.announcer.say(
                ModelEvent(
                    kind="rejected",
                    version=BASE,
                    at_ms=self._now_ms(),
                    request_id=request_id,
                    reason="there is nothing to roll back to: the shipped weights are served",
                )
            )
            return
        target = serve_parent_of(self.registry, current)
        log.warning("rolled_back", version=target, instead_of=current, reason=reason)
        told = announcement(self.registry, "rolled_back", target, self._now_ms())
        self.announcer.say(
            msgspec.structs.replace(
                told, parent=current, request_id=request_id, reason=reason, gate=gate or {}
            )
        )

    # Probation ------------------------------------------------------------------------------------

    def _probation(self, promotion: ModelEvent) -> Probation:
        return probation_of(
            promotion,
            num_buckets=self.settings.probation_buckets,
            grid=self.history.grid,
        )

    def _end_probation(self, promotion: ModelEvent) -> None:
        """Confirm or roll back once all of its buckets are final."""
        version, parent = promotion.version, promotion.parent or BASE
        self.phase = f"probation of {version}"
        probation = self._probation(promotion)
        self.history.refresh()
        if (self.history.final_ms() or 0) < probation.end_ms:
            return
        try:
            after = self.networks.load(version)
        except (WeightsError, RegistryError) as error:
            self._roll_back(f"the version on probation cannot be used: {error}")
            return
        try:
            before = self.networks.load(parent)
        except (WeightsError, RegistryError) as error:
            # It has passed the gate, and what it should be held against is gone.
            self._confirm(promotion, {}, f"there is no parent to compare with: {error}")
            return
        both = compare(
            self.history,
            before,
            after,
            start_ms=probation.start_ms,
            end_ms=probation.end_ms,
            seed=self.settings.seed,
        )
        verdict = judge_probation(both, self.history.grid.resolution_ms, self.settings)
        log.info("probation", version=version, **verdict.report)
        if not verdict.holds:
            buckets = self.settings.probation_buckets
            reason = f"{-verdict.gain:.1%} worse than {parent} on {buckets} buckets"
            self._roll_back(reason, gate=verdict.report)
            return
        self._confirm(promotion, verdict.report)

    def _confirm(self, promotion: ModelEvent, report: Report, reason: str = "") -> None:
        """The version stays."""
        self.announcer.say(
            ModelEvent(
                kind="confirmed",
                version=promotion.version,
                at_ms=self._now_ms(),
                sha256=promotion.sha256,
                manifest_sha256=promotion.manifest_sha256,
                parent=promotion.parent,
                reason=reason,
                gate=report,
            )
        )

    def _now_ms(self) -> int:
        return self.announcer.now_ms()
