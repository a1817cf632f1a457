"""The learner answers every request once, through crashes, and takes back what turns out bad."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from freshet.model.network import FreshetNetwork
from freshet.model.weights import save_weights
from freshet.online.learn import learner as learner_module
from freshet.online.learn.announcer import Announcer
from freshet.online.learn.finetune import Challenger, make_challenger
from freshet.online.learn.gate import Trial
from freshet.online.learn.learner import Learner, Stopped
from freshet.online.learn.ledger import Ledger
from freshet.online.learn.networks import VersionedNetworks
from freshet.online.learn.pools import Pools
from freshet.online.weights import registry as registry_module
from freshet.online.weights.registry import BASE, CHALLENGER, CHAMPION, PREVIOUS, Registry
from freshet.stream.config import LearnSettings
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest
from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import START_MS, PastInMemory, small_network, taught_network

SETTINGS = LearnSettings(
    steps=40,
    batch_size=32,
    learning_rate=2e-3,
    recent_buckets=48,
    holdout_buckets=12,
    probation_buckets=12,
    device="cpu",
)
ONSET = 300


class Crash(Exception):
    """The process died here."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_weights(taught_network(), folder, card="# base\n")
    return folder


class World:
    """A past, a clock and the three topics; a learner may be made of them again and again."""

    def __init__(self, folder: Path, base: Path, *, onset: int | None, known: int) -> None:
        self.past = PastInMemory(600, onset=onset)
        self.past.known_buckets = known
        self.registry = Registry(folder / "registry")
        self.base = base
        self.requests: list[RetrainRequest] = []
        self.alerts: list[DriftAlert] = []
        self.events: list[ModelEvent] = []
        self.stopped: Callable[[], None] = lambda: None
        self.learner = self.restarted()

    def restarted(self) -> Learner:
        """A new process that reads the topics from their start."""
        ledger = Ledger()
        for request in self.requests:
            ledger.take_request(request)
        for event in self.events:
            ledger.take_event(event)
        for alert in self.alerts:
            ledger.take_drift(alert)
        self.learner = Learner(
            SETTINGS,
            self.past,
            VersionedNetworks(self.registry, SETTINGS.device, self.base),
            Announcer(self.events.append, lambda: self.now_ms, ledger),
            stopped=lambda: self.stopped(),
        )
        return self.learner

    @property
    def now_ms(self) -> int:
        return START_MS + self.past.known_buckets * HOUR_MS

    def ask(
        self, request_id: str = "r1", reason: Any = "drift", hour: int | None = None, **over: Any
    ) -> None:
        at_ms = self.now_ms if hour is None else START_MS + hour * HOUR_MS
        request = RetrainRequest(
            request_id=request_id, requested_at_ms=at_ms, reason=reason, **over
        )
        self.requests.append(request)
        self.learner.ledger.take_request(request)

    def alert(self, onset: int) -> None:
        alert = DriftAlert(
            alert_id="a1",
            segment="s1",
            state="drift",
            kind="timing",
            detector="cusum",
            detected_at_ms=self.now_ms,
            onset_ms=START_MS + onset * HOUR_MS,
            size=1.0,
            weights_version=BASE,
            description="",
            action="",
        )
        self.alerts.append(alert)
        self.learner.ledger.take_drift(alert)

    def pass_hours(self, hours: int) -> None:
        self.past.known_buckets += hours

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


Made = dict[tuple[str, ...], Challenger]


@pytest.fixture(scope="module")
def made() -> Made:
    """Challengers of this module by the champion and the labels that they were made of."""
    return {}


@pytest.fixture(autouse=True)
def each_challenger_is_made_once(monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    """The same champion, windows and seed give the same challenger (test_finetune says so)."""

    def remembered(
        champion: FreshetNetwork,
        pools: Pools,
        *,
        settings: LearnSettings,
        stopped: Callable[[], None],
    ) -> Challenger:
        stopped()
        seen = (pools.recent, pools.replay, pools.validation)
        actuals = [pool.actual_NH for pool in seen if pool is not None]
        key = tuple(digest(tensor) for tensor in (*champion.parameters(), *actuals))
        if key not in made:
            made[key] = make_challenger(champion, pools, settings=settings, stopped=stopped)
        return copy.deepcopy(made[key])

    monkeypatch.setattr(learner_module, "make_challenger", remembered)


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()


@pytest.fixture
def drifted(tmp_path: Path, base: Path) -> World:
    world = World(tmp_path, base, onset=ONSET, known=400)
    world.alert(ONSET)
    world.ask(alert_ids=["a1"], segments=["all"])
    return world


@pytest.fixture
def calm(tmp_path: Path, base: Path) -> World:
    return World(tmp_path, base, onset=None, known=400)


def test_a_drift_is_learnt_gated_registered_and_announced(drifted: World) -> None:
    drifted.learner.step()
    assert drifted.kinds() == ["training", "promoted"]
    promoted = drifted.events[-1]
    manifest = drifted.registry.verify(promoted.version)
    assert (promoted.sha256, promoted.parent, promoted.request_id) == (
        manifest.weights_sha256,
        BASE,
        "r1",
    )
    assert Path(promoted.uri) == drifted.registry.path(promoted.version).resolve()
    assert promoted.gate["verdict"] == "promote"
    assert float(promoted.gate["gain_low"]) > SETTINGS.gate_margin
    aliases = [drifted.registry.alias(name) for name in (CHAMPION, PREVIOUS, CHALLENGER)]
    assert aliases == [promoted.version, BASE, promoted.version]
    assert set(manifest.sha256) >= {
        "model.safetensors",
        "config.json",
        "golden.safetensors",
        "README.md",
        "gate.json",
    }
    assert manifest.offsets == {"orders:0": 400}


def test_the_trial_is_of_the_champion_and_the_challenger_on_what_training_did_not_see(
    drifted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[FreshetNetwork, Pools]] = []
    tried: list[tuple[Any, ...]] = []
    make, attempt = learner_module.make_challenger, learner_module.try_on_holdout

    def recorded_make(champion: FreshetNetwork, pools: Pools, **named: Any) -> Challenger:
        trained.append((champion, pools))
        return make(champion, pools, **named)

    def recorded_attempt(*given: Any, **named: Any) -> Trial:
        tried.append((*given, named))
        return attempt(*given, **named)

    monkeypatch.setattr(learner_module, "make_challenger", recorded_make)
    monkeypatch.setattr(learner_module, "try_on_holdout", recorded_attempt)
    drifted.learner.step()
    ((trained_from, pools),) = trained
    ((_, split, anchors, champion, challenger, named),) = tried
    # 400 hours are final: 12 are held out, 6 validate, and 48 before them are recent.
    assert (split.recent_start_ms, split.train_end_ms, split.holdout_start_ms, split.final_ms) == (
        *(START_MS + hour * HOUR_MS for hour in (334, 382, 388, 400)),
    )
    assert anchors is pools.anchors
    assert anchors is not None and pools.replay is not None
    assert not set(anchors.cutoffs_N) & set(pools.replay.cutoffs_N)
    assert max(pools.recent.cutoffs_N) < split.train_end_ms
    assert champion is trained_from
    assert named == {"affected": ["all"], "seed": SETTINGS.seed}
    # What was tried is what serves.
    stored = drifted.learner.networks.load(drifted.registry.champion())
    theirs = dict(stored.named_parameters())
    assert theirs and all(
        torch.equal(parameter.bfloat16().float(), theirs[name].float())
        for name, parameter in challenger.named_parameters()
    )
    assert any(
        not torch.equal(parameter, theirs[name]) for name, parameter in champion.named_parameters()
    )


def test_without_a_change_the_challenger_is_rejected(calm: World) -> None:
    calm.ask(reason="schedule")
    calm.learner.step()
    assert calm.kinds() == ["training", "rejected"]
    assert "gain_low" in calm.events[-1].reason
    assert calm.registry.list() == ()
    assert calm.registry.champion() == BASE


def test_an_answered_request_is_not_done_again(drifted: World) -> None:
    drifted.learner.step()
    drifted.restarted().step()
    drifted.ask(alert_ids=["a1"])
    drifted.learner.step()
    assert drifted.kinds() == ["training", "promoted"]


STEPS = [
    "learn_trained",
    "registry_files_written",
    "registry_before_rename",
    "registry_after_rename",
    "registry_before_alias",
    "learn_registered",
    "registry_between_aliases",
    "learn_served",
    "learn_announced",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_ends_in_one_version_announced_once(
    drifted: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(name: str) -> None:
        if name == step:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(learner_module, "failpoint", fail)
        patch.setattr(registry_module, "failpoint", fail)
        with pytest.raises(Crash):
            drifted.learner.step()
    drifted.restarted().step()
    drifted.restarted().step()
    assert drifted.kinds().count("promoted") == 1
    (manifest,) = drifted.registry.list()
    assert (
        drifted.registry.verify(manifest.version).version
        == drifted.events[-1].version
        == drifted.registry.champion()
    )


def test_a_request_waits_for_final_buckets_after_the_onset(calm: World) -> None:
    calm.alert(onset=395)
    calm.ask(alert_ids=["a1"], segments=["s1"])
    for _ in range(24):
        calm.learner.step()
        calm.pass_hours(1)
    assert calm.events == []
    calm.pass_hours(1)
    calm.learner.step()
    assert calm.kinds() == ["training", "rejected"]


def test_a_request_does_not_wait_for_ever(tmp_path: Path, base: Path) -> None:
    young = World(tmp_path, base, onset=None, known=5)
    young.ask(reason="manual", hour=5)
    young.learner.step()
    assert young.events == []
    young.past.final_ms = lambda: START_MS + 6 * HOUR_MS  # type: ignore[method-assign]
    young.pass_hours(200)
    young.learner.step()
    assert young.kinds() == ["rejected"]
    assert "6 buckets are final" in young.events[0].reason


def test_older_requests_are_answered_without_training(calm: World) -> None:
    calm.ask("r1", reason="schedule", hour=380)
    calm.ask("r2", reason="schedule", hour=390)
    calm.learner.step()
    assert [(event.kind, event.request_id) for event in calm.events] == [
        ("rejected", "r1"),
        ("training", "r2"),
        ("rejected", "r2"),
    ]
    assert "superseded" in calm.events[0].reason


def test_a_rollback_serves_the_parent_and_redelivery_does_not_go_further(drifted: World) -> None:
    drifted.learner.step()
    first = drifted.events[-1].version
    drifted.ask("back", reason="rollback")
    drifted.learner.step()
    assert (drifted.events[-1].kind, drifted.events[-1].version, drifted.events[-1].parent) == (
        "rolled_back",
        BASE,
        first,
    )
    assert drifted.registry.champion() == BASE
    drifted.restarted().step()
    drifted.ask("back", reason="rollback")
    drifted.learner.step()
    assert drifted.kinds() == ["training", "promoted", "rolled_back"]
    drifted.ask("again", reason="rollback")
    drifted.learner.step()
    assert (drifted.events[-1].kind, drifted.events[-1].request_id) == ("rejected", "again")


def untaught(seed: int) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        save_weights(small_network(seed), folder, card="# untaught\n")

    return build


def test_a_crash_between_the_aliases_and_the_word_rolls_back_once(drifted: World) -> None:
    drifted.learner.step()
    first = drifted.events[-1].version
    second = drifted.registry.add(untaught(0), parent=first, created_at_ms=0)
    drifted.registry.serve(second.version)
    drifted.events.append(
        ModelEvent(kind="promoted", version=second.version, at_ms=drifted.now_ms + 1, parent=first)
    )
    drifted.ask("back", reason="rollback")

    def crash(event: ModelEvent) -> None:
        raise Crash

    learner = drifted.restarted()
    learner.announcer.publish = crash
    with pytest.raises(Crash):
        learner.step()
    assert drifted.registry.champion() == first
    drifted.restarted().step()
    assert drifted.registry.champion() == first
    assert (drifted.events[-1].kind, drifted.events[-1].version) == ("rolled_back", first)
    assert drifted.events[-1].sha256 == drifted.registry.manifest(first).weights_sha256


def test_probation_ends_in_a_confirmation_when_the_version_holds(drifted: World) -> None:
    drifted.learner.step()
    drifted.pass_hours(SETTINGS.probation_buckets - 1)
    drifted.learner.step()
    assert drifted.kinds()[-1] == "promoted"
    drifted.pass_hours(1)
    drifted.restarted().step()
    assert drifted.kinds()[-1] == "confirmed"
    assert float(drifted.events[-1].gate["gain"]) > 0
    drifted.learner.step()
    assert drifted.kinds().count("confirmed") == 1


def promote_untaught(world: World) -> str:
    manifest = world.registry.add(untaught(7), parent=BASE, created_at_ms=0)
    world.registry.serve(manifest.version)
    event = ModelEvent(kind="promoted", version=manifest.version, at_ms=world.now_ms, parent=BASE)
    world.events.append(event)
    world.learner.ledger.take_event(event)
    return manifest.version


def test_probation_ends_in_a_rollback_when_the_version_is_worse(calm: World) -> None:
    version = promote_untaught(calm)
    calm.ask(reason="schedule")
    calm.pass_hours(SETTINGS.probation_buckets - 1)
    calm.learner.step()
    assert calm.kinds() == ["promoted"], "the request waits for the end of the probation"
    calm.pass_hours(1)
    calm.learner.step()
    rolled_back = calm.events[-1]
    assert (rolled_back.kind, rolled_back.version, rolled_back.parent) == (
        "rolled_back",
        BASE,
        version,
    )
    assert "worse than base" in rolled_back.reason
    assert calm.registry.champion() == BASE
    calm.learner.step()
    assert calm.kinds()[-2:] == ["training", "rejected"]


def test_a_version_that_was_altered_is_rolled_back(calm: World) -> None:
    version = promote_untaught(calm)
    (calm.registry.path(version) / "README.md").write_text("altered")
    calm.pass_hours(SETTINGS.probation_buckets)
    calm.learner.step()
    assert calm.events[-1].kind == "rolled_back"
    assert "README.md was altered" in calm.events[-1].reason


def test_training_that_fails_is_an_answer(drifted: World) -> None:
    drifted.base = drifted.base / "nowhere"
    drifted.restarted().step()
    assert drifted.kinds() == ["training", "rejected"]
    assert "training failed: no weights at" in drifted.events[-1].reason


def test_a_process_that_is_to_end_leaves_the_request_to_the_next_one(drifted: World) -> None:
    def stop() -> None:
        raise Stopped

    drifted.stopped = stop
    with pytest.raises(Stopped):
        drifted.learner.step()
    assert drifted.kinds() == ["training"]
    drifted.stopped = lambda: None
    drifted.restarted().step()
    assert drifted.kinds() == ["training", "training", "promoted"]
