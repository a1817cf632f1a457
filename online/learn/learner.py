"""New weights from what the shop did lately: request -> fine-tune -> gate -> registry ->
announcement -> probation.

One request at a time, and the answer is in the models topic before the next one is looked at. Order
of durable effects of a promotion: 1. the version's directory, 2. the aliases, 3. the `promoted`
event. Killed before 1, the request is done again; between 1 and 3, the version that answers it is
found in the registry and the rest is made up for.

Probation: after `probation_buckets` final buckets the new version and its parent both forecast them
from the same contexts (a shadow run), and the version is rolled back when it is worse by more than
the margin. The scores of served forecasts cannot decide that: they tell how the parent did before
the drift and the version after it, which are different days.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from freshet.model.forecaster import pick_device
from freshet.model.network import FreshetNetwork
from freshet.model.weights import BASE_WEIGHTS, save_weights, verify_weights
from freshet.online.learn.evaluation import compare, try_on_holdout
from freshet.online.learn.finetune import Challenger, make_challenger
from freshet.online.learn.gate import Gain, judge, relative_gain
from freshet.online.learn.ledger import Ledger
from freshet.online.learn.pools import History, build_pools, split_history
from freshet.online.learn.windows import ready_ms
from freshet.online.weights.registry import BASE, CHALLENGER, Manifest, Registry
from freshet.stream.config import LearnSettings
from freshet.stream.errors import FreshetError, RegistryError, WeightsError
from freshet.stream.failpoints import failpoint
from freshet.stream.schemas import ModelEvent, RetrainRequest
from freshet.stream.telemetry import get_logger

MAX_WAIT_FACTOR = 2

log = get_logger(__name__)


class Stopped(Exception):
    """The process was asked to end while it trained; the request stays unanswered and is done
    again.
    """


@dataclass(slots=True)
class Learner:
    """Decides what to do next and does it; Kafka, Redis and time come from outside.

    Args:
        publish: Puts an event into the models topic and returns once it is acknowledged.
        now_ms: The clock.
        stopped: Raises `Stopped` when the process is to end.
        base: Folder of the shipped weights.
    """

    settings: LearnSettings
    registry: Registry
    history: History
    publish: Callable[[ModelEvent], None]
    now_ms: Callable[[], int]
    stopped: Callable[[], None] = lambda: None
    base: Path = BASE_WEIGHTS
    ledger: Ledger = field(default_factory=Ledger)
    phase: str = "idle"

    def step(self) -> None:
        """Do the next thing there is to do, if any; blocks while it trains.

        Raises:
            FreshetError: Redis or the broker failed; call again later.
        """
        for request in self.ledger.requests.superseded():
            self._answer(
                "rejected", _candidate(request), request, reason="superseded by a newer request"
            )
        if (wanted := self.ledger.requests.open_rollback()) is not None:
            self._roll_back(wanted.request_id, "asked for")
        elif (event := self.ledger.on_probation()) is not None and self._probation_runs(event):
            self._judge_probation(event)
        elif (wanted := self.ledger.requests.open_training()) is not None:
            self._handle(wanted)
        else:
            self.phase = "idle"

    # Requests -------------------------------------------------------------------------------------

    def _handle(self, request: RetrainRequest) -> None:
        """Answer a request, or leave it for later when there are not enough final buckets yet."""
        done = self.registry.find(request.request_id)
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
            log.error("training_failed", request_id=request.request_id, error=str(error))
            self._answer(
                "rejected", _candidate(request), request, reason=f"training failed: {error}"
            )

    def _ready(self, request: RetrainRequest) -> bool:
        """Enough final buckets since the onset; or the wait has been long enough, and the gate
        shall say so.
        """
        holdout, width_ms = self.settings.holdout_buckets, self.history.resolution_ms
        final_ms, first_ms = self.history.final_ms(), self.history.first_ms()
        needed_ms = ready_ms(0, resolution_ms=width_ms, holdout_buckets=holdout)
        waited = self.now_ms() >= request.requested_at_ms + MAX_WAIT_FACTOR * needed_ms
        if final_ms is None or first_ms is None:
            return waited
        onset_ms = self.ledger.onset_ms(request)
        start_ms = first_ms if onset_ms is None else max(first_ms, onset_ms)
        return waited or final_ms >= ready_ms(
            start_ms, resolution_ms=width_ms, holdout_buckets=holdout
        )

    def _train(self, request: RetrainRequest) -> None:
        self.phase = f"training for {request.request_id}"
        split = split_history(self.history, self.settings, self.ledger.onset_ms(request))
        parent = self.registry.champion()
        self._answer("training", _candidate(request), request, parent=parent)
        started = time.perf_counter()
        champion = self._network(parent)
        pools = build_pools(self.history, split, request.segments, self.settings.seed)
        challenger = make_challenger(champion, pools, settings=self.settings, stopped=self.stopped)
        failpoint("learn_trained")
        self.history.refresh()
        trial = try_on_holdout(
            self.history,
            split,
            pools.anchors,
            champion,
            challenger.network,
            affected=request.segments,
            seed=self.settings.seed,
        )
        verdict = judge(
            trial, margin=self.settings.gate_margin, confidence=self.settings.gate_confidence
        )
        report: dict[str, float | str | bool] = {
            **verdict.report(),
            "factor": challenger.factor,
            "tune_s": round(challenger.seconds, 3),
            "total_s": round(time.perf_counter() - started, 3),
            "windows": float(pools.num_training_windows),
        }
        log.info("gate", request_id=request.request_id, reason=verdict.reason, **report)
        if not verdict.promote:
            self._answer(
                "rejected",
                _candidate(request),
                request,
                parent=parent,
                reason=verdict.reason,
                gate=report,
            )
            return
        self._promote(self._register(request, challenger, parent, report))

    # Versions -------------------------------------------------------------------------------------

    def _network(self, version: str) -> FreshetNetwork:
        if version == BASE:
            folder = self.base
        else:
            self.registry.verify(version)
            folder = self.registry.path(version)
        network = verify_weights(folder).network
        torch.nn.Module.to(network, pick_device(self.settings.device))
        return network

    def _register(
        self,
        request: RetrainRequest,
        challenger: Challenger,
        parent: str,
        report: dict[str, float | str | bool],
    ) -> Manifest:
        def build(folder: Path) -> None:
            save_weights(
                challenger.network.cpu(), folder, card=_card(request, challenger, parent, report)
            )
            (folder / "gate.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")

        manifest = self.registry.add(
            build,
            parent=parent,
            created_at_ms=self.now_ms(),
            request_id=request.request_id,
            offsets=self.history.offsets(),
            gate=report,
        )
        self.registry.move_alias(CHALLENGER, manifest.version)
        failpoint("learn_registered")
        return manifest

    def _promote(self, manifest: Manifest) -> None:
        self.registry.serve(manifest.version)
        failpoint("learn_served")
        self._say(
            ModelEvent(
                kind="promoted",
                version=manifest.version,
                at_ms=self.now_ms(),
                sha256=manifest.weights_sha256,
                uri=str(self.registry.path(manifest.version).resolve()),
                parent=manifest.parent,
                request_id=manifest.request_id,
                gate=manifest.gate,
            )
        )
        failpoint("learn_announced")

    def _roll_back(
        self, request_id: str, reason: str, gate: dict[str, float | str | bool] | None = None
    ) -> None:
        """Serve the parent of what was last announced; doing it twice is doing it once."""
        current = (
            self.ledger.serving.version
            if self.ledger.serving is not None
            else self.registry.champion()
        )
        if current == BASE:
            self._say(
                ModelEvent(
                    kind="rejected",
                    version=BASE,
                    at_ms=self.now_ms(),
                    request_id=request_id,
                    reason="there is nothing to roll back to: the shipped weights are served",
                )
            )
            return
        target = self.registry.serve(self.registry.manifest(current).parent)
        sha256, uri = "", ""
        if target != BASE:
            manifest = self.registry.verify(target)
            sha256, uri = manifest.weights_sha256, str(self.registry.path(target).resolve())
        log.warning("rolled_back", version=target, instead_of=current, reason=reason)
        self._say(
            ModelEvent(
                kind="rolled_back",
                version=target,
                at_ms=self.now_ms(),
                sha256=sha256,
                uri=uri,
                parent=current,
                request_id=request_id,
                reason=reason,
                gate=gate or {},
            )
        )

    # Probation ------------------------------------------------------------------------------------

    def _probation_end_ms(self, event: ModelEvent) -> int:
        return (
            self._probation_start_ms(event)
            + self.settings.probation_buckets * self.history.resolution_ms
        )

    def _probation_start_ms(self, event: ModelEvent) -> int:
        width_ms = self.history.resolution_ms
        return -(-event.at_ms // width_ms) * width_ms

    def _probation_runs(self, event: ModelEvent) -> bool:
        """Whether it still keeps requests waiting: no longer than twice its length of clock
        time.
        """
        start_ms = self._probation_start_ms(event)
        return self.now_ms() < start_ms + MAX_WAIT_FACTOR * (
            self._probation_end_ms(event) - start_ms
        )

    def _judge_probation(self, event: ModelEvent) -> None:
        """Confirm or roll back once all of its buckets are final."""
        self.phase = f"probation of {event.version}"
        self.history.refresh()
        start_ms, end_ms = self._probation_start_ms(event), self._probation_end_ms(event)
        if (self.history.final_ms() or 0) < end_ms:
            return
        try:
            pair = self._network(event.parent or BASE), self._network(event.version)
        except (WeightsError, RegistryError) as error:
            self._roll_back("", f"the version on probation cannot be used: {error}")
            return
        both = compare(
            self.history, *pair, start_ms=start_ms, end_ms=end_ms, seed=self.settings.seed
        )
        gain = relative_gain(
            both.first_IT,
            both.second_IT,
            resolution_ms=self.history.resolution_ms,
            confidence=self.settings.gate_confidence,
        )
        report = _probation_report(gain, self.settings.probation_margin)
        log.info("probation", version=event.version, **report)
        if -gain.gain > self.settings.probation_margin or not both.finite:
            reason = (
                f"{-gain.gain:.1%} worse than {event.parent or BASE} on "
                f"{self.settings.probation_buckets} buckets"
            )
            self._roll_back("", reason, report)
            return
        self._say(
            ModelEvent(
                kind="confirmed",
                version=event.version,
                at_ms=self.now_ms(),
                sha256=event.sha256,
                parent=event.parent,
                gate=report,
            )
        )

    # Saying so ------------------------------------------------------------------------------------

    def _answer(
        self,
        kind: Literal["training", "rejected"],
        version: str,
        request: RetrainRequest,
        *,
        parent: str = "",
        reason: str = "",
        gate: dict[str, float | str | bool] | None = None,
    ) -> None:
        event = ModelEvent(
            kind=kind,
            version=version,
            at_ms=self.now_ms(),
            parent=parent,
            request_id=request.request_id,
            reason=reason or request.reason,
            gate=gate or {},
        )
        self._say(event)

    def _say(self, event: ModelEvent) -> None:
        self.publish(event)
        self.ledger.take_event(event)
        log.info(
            event.kind, version=event.version, request_id=event.request_id, reason=event.reason
        )


def _candidate(request: RetrainRequest) -> str:
    """What a version is called before it has a name."""
    return f"candidate-{request.request_id}"


def _probation_report(gain: Gain, margin: float) -> dict[str, float | str | bool]:
    return {
        "gain": float(f"{gain.gain:.6g}"),
        "loss_margin": margin,
        "blocks": float(gain.num_blocks),
        "items": float(gain.num_items),
    }


def _card(
    request: RetrainRequest,
    challenger: Challenger,
    parent: str,
    report: dict[str, float | str | bool],
) -> str:
    """The model card of a fine-tuned version."""
    lines = "\n".join(f"| {name} | {value} |" for name, value in report.items())
    return (
        "---\nlibrary_name: transformers\npipeline_tag: time-series-forecasting\n---\n\n"
        f"# freshet weights fine-tuned from {parent}\n\n"
        f"Asked for by `{request.request_id}` ({request.reason}; segments: "
        f"{', '.join(request.segments) or 'all'}).\n"
        f"{len(challenger.train_losses)} steps, then {challenger.factor:g} of the way from the "
        "parent to the tuned "
        "weights, chosen on validation windows.\n\n## Gate\n\n| line | value "
        f"|\n|---|---|\n{lines}\n"
    )
