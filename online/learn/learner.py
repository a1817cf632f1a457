"""A request for new weights, from the question to its answer and to the end of the probation.

    request -> fine-tune -> gate [-> trial, day by day] -> registry -> announcement -> probation

One request at a time, and its answer is in the models topic before the next one is looked at. The
durable effects of a promotion, in this order:

1. the version's directory (`VersionedNetworks.register`);
2. the alias `challenger`;
3. and 4. what serves and the word of it (`online/learn/service.py`).

Where the gate can say neither yes nor no, 1 and 2 are done with the terms of the trial beside the
weights, and 3 and 4 follow when a later look says yes. Killed before 1, the request is done again.
Killed later, the version that answers it is found in the registry by the request's id; with terms
it goes on with the trial, through the same looks, without them the rest is made up for.

Without the version that serves, nothing of this is done: the registry is lost, and what the workers
have loaded serves on until it is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from freshet.model.network import FreshetNetwork
from freshet.online.control.requests import SUPERSEDED
from freshet.online.judge.verdict import Report
from freshet.online.learn.announcer import Announcer
from freshet.online.learn.attempt import Attempt, Tuned
from freshet.online.learn.finetune import Challenger, make_challenger
from freshet.online.learn.ledger import Ledger
from freshet.online.learn.networks import Candidate, VersionedNetworks, report_of
from freshet.online.learn.service import Service
from freshet.online.learn.watching import Watching
from freshet.online.trials.contest import Contest, Terms
from freshet.online.trials.evaluation import served_by
from freshet.online.trials.guard import Guard
from freshet.online.trials.pools import History, build_pools, split_history
from freshet.online.trials.shadow import Shadow
from freshet.online.trials.windows import buckets_needed, final_since
from freshet.online.weights.announced import MAX_SHOWN
from freshet.online.weights.registry import BASE, CHALLENGER, Manifest, Registry
from freshet.stream.config import LearnSettings
from freshet.stream.errors import FreshetError, InvalidInputError, RegistryError
from freshet.stream.failpoints import failpoint
from freshet.stream.schemas import RetrainRequest
from freshet.stream.telemetry import get_logger

# A request waits for final buckets no longer than so many times the clock time they take.
MAX_WAIT_FACTOR = 2
FIRST_DAY = "its first day is not over"

log = get_logger(__name__)


class Stopped(Exception):
    """The process was asked to end while it trained; the next one does the request again."""


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A challenger that is watched, and the request that it would answer."""

    request: RetrainRequest
    manifest: Manifest
    contest: Contest


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
    _trial: OpenTrial | None = field(default=None, init=False)
    _watching: Watching = field(init=False)

    def __post_init__(self) -> None:
        self._watching = Watching(
            self.settings,
            self.history,
            self.networks,
            self.service,
            now_ms=self.announcer.now_ms,
            stopped=self.stopped,
        )

    @property
    def service(self) -> Service:
        """What serves."""
        return Service(self.registry, self.announcer)

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
        rollback = self.ledger.requests.open_rollback()
        promotion = self.ledger.on_probation()
        request = self.ledger.requests.open_training()
        if rollback is not None or promotion is not None or request is not None:
            self.service.check()
        self._tell_superseded(self._open_trial())
        trial = self._open_trial()
        if rollback is not None:
            self.service.roll_back("asked for", request_id=rollback.request_id)
        elif promotion is not None:
            self.phase = f"probation of {promotion.version}"
            self._watching.look(promotion)
        elif trial is not None:
            self._look(trial)
        elif request is not None:
            self._answer(request)
        else:
            self.phase = "idle"

    def _tell_superseded(self, trial: OpenTrial | None) -> None:
        """Answer what another request makes needless; the watched yield to who is in a hurry."""
        requests = self.ledger.requests
        watched = None if trial is None else trial.request
        for old in requests.superseded():
            if old != watched or requests.yields(old):
                self.announcer.rejected(old, reason=SUPERSEDED)

    def _hear(self) -> None:
        """Say which announcements do not count, and see whether one does by now."""
        while (refused := self.ledger.next_refusal()) is not None:
            version, reason = refused.event.version[:MAX_SHOWN], refused.reason
            log.error("announcement_refused", version=version, reason=reason)
        self.ledger.reconsider()

    # From the request to the gate -----------------------------------------------------------------

    def _answer(self, request: RetrainRequest) -> None:
        """Answer a request, or leave it for later while there are not enough final buckets."""
        done = self._made_for(request)
        if done is not None:
            log.info("promotion_resumed", version=done.version, request_id=request.request_id)
            self._promote(request, done, done.gate, done.segments)
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
        lesson_ms, holdout = self.ledger.lesson_ms, self.settings.holdout_buckets
        if lesson_ms is not None and final_since(grid, lesson_ms, final_ms) < holdout:
            return False
        return final_since(grid, start_ms, final_ms) >= needed

    def _train(self, request: RetrainRequest) -> None:
        """Fine-tune the champion and judge the result: promote, reject, or open a trial."""
        self.phase = f"training for {request.request_id}"
        # Raises where there is too little, before anybody is told that training begins.
        attempt = self._attempt(request)
        self.announcer.training(request, attempt.parent)

        started = time.perf_counter()
        tuned = self._tuned(attempt)
        failpoint("learn_trained")

        # What became final meanwhile is seen by neither: the first days of the shadow.
        self.history.refresh()
        standing = tuned.standing(self._guards(), self.settings.seed)
        error = self.ledger.error_of(request, 1.0 - self.settings.gate_confidence)
        terms = attempt.terms(self.history, self.settings, standing=standing, error=error)
        contest = self._contest(terms, tuned.champion, tuned.challenger.network)
        verdict = contest.proceed()
        total_s = time.perf_counter() - started
        report = report_of(verdict, tuned.challenger, tuned.pools, total_s=total_s)
        report["begun"] = tuned.begun
        self._conclude(request, tuned.challenger, contest, report)

    def _attempt(self, request: RetrainRequest) -> Attempt:
        """What a training would begin with.

        Raises:
            InvalidInputError: The past is too short, or all of it was seen by a version that was
                rolled back.
        """
        onset_ms = self.ledger.onset_ms(request)
        split = split_history(self.history, self.settings, onset_ms)
        if split.holdout_start_ms < (self.ledger.lesson_ms or 0):
            raise InvalidInputError("no hold-out is final since the last version was rolled back")
        return Attempt(request, self.registry.champion(), onset_ms, split)

    def _tuned(self, attempt: Attempt) -> Tuned:
        """Fine-tune; blocks for minutes."""
        request, parent = attempt.request, attempt.parent
        begun = self._begun(request, parent)
        champion, start = map(self.networks.load, (parent, begun))
        pools = build_pools(self.history, attempt.split, request.segments, self.settings.seed)
        base = self.networks.load(BASE)
        challenger = make_challenger(
            start, pools, settings=self.settings, base=base, stopped=self.stopped
        )
        return Tuned(begun, champion, base, pools, challenger)

    def _conclude(
        self, request: RetrainRequest, challenger: Challenger, contest: Contest, report: Report
    ) -> None:
        """Do what the looks so far say; where they say nothing yet, a trial goes on."""
        parent, verdict = contest.terms.parent, contest.verdict
        reason = FIRST_DAY if verdict is None else verdict.reason
        log.info("gate", request_id=request.request_id, reason=reason, **report)
        if verdict is not None and verdict.decision == "reject":
            self.announcer.rejected(request, reason=reason, parent=parent, gate=report)
            return
        offsets = self.history.offsets()
        candidate = Candidate(request, parent, challenger, report, offsets)
        if verdict is not None and verdict.promote:
            manifest = self._register(replace(candidate, segments=verdict.segments))
            self._promote(request, manifest, report, verdict.segments)
            return
        manifest = self._register(replace(candidate, terms=contest.terms))
        self._trial = OpenTrial(request, manifest, contest)
        self.announcer.on_trial(request, reason=reason, parent=parent, gate=report)
        failpoint("learn_trial_told")

    def _begun(self, request: RetrainRequest, parent: str) -> str:
        """The version that training goes on from: the champion, or where the schedule's last ended.

        If that was better than the champion, though not surely: begun from the champion each week
        would teach the same little anew, and never enough to be sure of.
        """
        before = self.ledger.requests.scheduled_before(request)
        if request.reason != "schedule" or before is None:
            return parent
        made = self._made_for(before)
        better = self.ledger.requests.gain(before) > 0.0
        return made.version if made is not None and made.parent == parent and better else parent

    def _contest(
        self, terms: Terms, champion: FreshetNetwork, challenger: FreshetNetwork
    ) -> Contest:
        served = served_by(self.registry.champion(), terms.parent)
        shadow = Shadow(self.history, terms.item_ids, champion, challenger, self.stopped, served)
        return Contest(terms, shadow, self.settings.gate_margin)

    def _guards(self) -> Iterator[Guard]:
        """The other resolutions one by one; raises between two when the process is to end."""
        for guard in self.guards():
            self.stopped()
            yield guard

    def _promote(
        self, request: RetrainRequest, manifest: Manifest, gate: Report, segments: tuple[str, ...]
    ) -> None:
        """Effects 3 and 4, where there is a place for the version still."""
        assignment = self.service.placed(manifest, segments)
        if assignment is None:
            reason = f"{manifest.parent} is the champion no longer, or not alone"
            self.announcer.rejected(request, reason=reason, parent=manifest.parent)
            return
        self.service.promote(manifest, gate, assignment)

    def _register(self, candidate: Candidate) -> Manifest:
        """Effects 1 and 2."""
        manifest = self.networks.register(candidate, created_at_ms=self._now_ms())
        self.registry.move_alias(CHALLENGER, manifest.version)
        failpoint("learn_registered")
        return manifest

    # A trial, day by day --------------------------------------------------------------------------

    def _open_trial(self) -> OpenTrial | None:
        """The challenger that is watched, found in the registry after a restart."""
        open_requests = self.ledger.requests.open_trainings()
        if self._trial is not None and self._trial.request in open_requests:
            return self._trial
        self._trial = next(filter(None, map(self._resumed, open_requests)), None)
        return self._trial

    def _resumed(self, request: RetrainRequest) -> OpenTrial | None:
        """The trial of a process before this one; None where the request has none."""
        manifest = self._made_for(request)
        if manifest is None or (terms := self.networks.terms(manifest.version)) is None:
            return None
        champion, challenger = map(self.networks.load, (terms.parent, manifest.version))
        log.info("trial_resumed", version=manifest.version, request_id=request.request_id)
        return OpenTrial(request, manifest, self._contest(terms, champion, challenger))

    def _look(self, trial: OpenTrial) -> None:
        """Take the looks that are due; the first that decides ends the trial."""
        contest, request, parent = trial.contest, trial.request, trial.manifest.parent
        self.phase = f"trial of {trial.manifest.version}"
        gone = contest.terms.champions - set(self.service.current.versions)
        if gone and trial.manifest.version not in self.registry.champion().versions:
            reason = f"{min(gone)} is the champion no longer"
            self.announcer.rejected(request, reason=reason, parent=parent)
            return
        self.history.refresh()
        verdict = contest.proceed()
        report = verdict.report() if verdict is not None else {}
        told = self.ledger.requests.trial_days(request.request_id)
        if verdict is not None and verdict.promote:
            self._promote(request, trial.manifest, report, verdict.segments)
        elif verdict is not None and verdict.decision == "reject":
            self.announcer.rejected(request, reason=verdict.reason, parent=parent, gate=report)
        elif self._now_ms() >= contest.terms.expires_ms:
            reason = "no verdict, and its days did not become final in twice their time"
            self.announcer.rejected(request, reason=reason, parent=parent, gate=report)
        elif verdict is not None and verdict.gain.days > told:
            self.announcer.on_trial(request, reason=verdict.reason, parent=parent, gate=report)

    def _now_ms(self) -> int:
        return self.announcer.now_ms()
