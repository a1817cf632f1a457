"""The learner answers every request once, through crashes, and takes back what turns out bad."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from freshet.model.weights import save_weights
from freshet.online.control.requests import SUPERSEDED
from freshet.online.learn import learner as learner_module
from freshet.online.learn import service as service_module
from freshet.online.learn.learner import Stopped
from freshet.online.trials import contest as contest_module
from freshet.online.trials import evaluation
from freshet.online.trials.contest import Contest, Terms
from freshet.online.trials.guard import Guard
from freshet.online.trials.pools import Pools
from freshet.online.weights import registry as registry_module
from freshet.online.weights.announced import announcement
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, CHALLENGER, CHAMPION, PREVIOUS
from freshet.stream.errors import FreshetError, RegistryError
from freshet.stream.schemas import ModelEvent
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.online.learn.learning import (
    START_MS,
    PastInMemory,
    network_that_says,
    said_by,
)
from tests.online.learn.worlds import (
    BASE_SAYS,
    HIGH,
    ONSET,
    SETTINGS,
    TAUGHT_SAYS,
    Crash,
    SaidForecaster,
    World,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_weights(network_that_says(BASE_SAYS), folder, card="# base\n")
    return folder


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecasts are known, and take a known time."""
    monkeypatch.setattr(evaluation, "BatchForecaster", SaidForecaster)
    monkeypatch.setattr(contest_module, "forecast_ms", lambda networks, pool: [2.0, 3.0])


@pytest.fixture
def drifted(tmp_path: Path, base: Path, steady: None, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, base, onset=ONSET, known=400)
    monkeypatch.setattr(learner_module, "make_challenger", world.make_challenger)
    world.alert(ONSET)
    world.ask(alert_ids=["a1"], segments=["all"])
    return world


def wavering(world: World, spread: float = 3.0) -> None:
    """From the onset on each half day sells another number around 30, so that days differ.

    What says 25 is better than the champion's 24 by a sixth on average, and nobody can be sure of
    that within a day.
    """
    rng = np.random.default_rng(3)
    half_days = np.clip(rng.normal(HIGH, spread, 100), 26.0, 40.0)
    world.past.units_IN[:, ONSET:] = half_days.repeat(12)[: world.past.units_IN.shape[1] - ONSET]


@pytest.fixture
def calm(tmp_path: Path, base: Path, steady: None, monkeypatch: pytest.MonkeyPatch) -> World:
    """A shop that always sold 30, and of which there is nothing to learn."""
    world = World(tmp_path, base, onset=0, known=400)
    world.taught = BASE_SAYS
    monkeypatch.setattr(learner_module, "make_challenger", world.make_challenger)
    return world


def test_a_drift_is_learnt_gated_registered_and_announced(drifted: World) -> None:
    drifted.learner.step()
    assert drifted.learner.phase == "training for r1"
    training, promoted = drifted.events
    assert training == ModelEvent(
        kind="training",
        version="candidate-r1",
        at_ms=drifted.now_ms - 12 * HOUR_MS,
        parent=BASE,
        request_id="r1",
        reason="drift",
    )
    manifest = drifted.registry.verify(promoted.version)
    assert promoted == ModelEvent(
        kind="promoted",
        version=manifest.version,
        at_ms=drifted.now_ms,
        sha256=manifest.weights_sha256,
        manifest_sha256=drifted.registry.sealed(manifest.version).sha256,
        uri=str(drifted.registry.path(promoted.version).resolve()),
        parent=BASE,
        request_id="r1",
        gate=manifest.gate,
    )
    assert (manifest.parent, manifest.request_id) == (BASE, "r1")
    assert (manifest.created_at_ms, manifest.offsets) == (drifted.now_ms, {"orders:0": 412})
    aliases = [str(drifted.registry.alias(name)) for name in (CHAMPION, PREVIOUS, CHALLENGER)]
    assert aliases == [promoted.version, BASE, promoted.version]
    assert set(manifest.sha256) == {
        "model.safetensors",
        "config.json",
        "golden.safetensors",
        "README.md",
        "gate.json",
    }
    # What was tried is what serves.
    assert drifted.served() == TAUGHT_SAYS


def test_the_gate_judges_the_challenger_by_what_the_champion_lost(drifted: World) -> None:
    began_s = time.perf_counter()
    drifted.learner.step()
    took_s = time.perf_counter() - began_s
    gate = drifted.events[-1].gate
    # 6 an hour before and 1 after, of every item, in a day.
    assert (gate["verdict"], gate["gain"], gate["gain_low"]) == ("promote", 0.833333, 0.833333)
    assert (gate["gain_low.threshold"], gate["days"]) == (SETTINGS.gate_margin, 1.0)
    # The drift named all four segments, of three items each: the test is of the shop.
    assert (gate["items"], gate["gain_of"]) == (12.0, "all")
    # Of the seven days before one has the onset in it; three are from before that, three since.
    assert gate["freedom"] == 4.0
    assert gate["anchor_loss"] == 0.0
    assert (gate["latency_ratio"], gate["finite"]) == (1.5, 1.0)
    assert (gate["factor"], gate["tune_s"]) == (0.5, 1.234)
    assert 0.0 <= float(gate["total_s"]) <= took_s + 0.001
    # Of 12 items 16 cutoffs before and after the onset each.
    assert gate["windows"] == 2 * 16 * 12


def selling(units: float, resolution_ms: int) -> Guard:
    """Another resolution of the shop, at which every bucket sells as much."""
    past = PastInMemory(200, grid=Grid(resolution_ms))
    past.units_IN[:] = units
    return Guard(past, season_length=7)


def test_what_is_better_by_the_hour_and_worse_by_the_day_is_not_promoted(drifted: World) -> None:
    """Days of 24 the champion foresees to 1, minutes of 60 neither does."""
    drifted.guards = [selling(60.0, MINUTE_MS), selling(BASE_SAYS + 1.0, DAY_MS)]
    drifted.learner.step()
    answer = drifted.events[-1]
    assert (answer.kind, answer.gate["verdict"]) == ("rejected", "reject")
    # Off by 4 instead of 1, where a fifth more might have been lost.
    assert answer.reason == "guard_86400000 3 against 0.2083"
    assert answer.gate["guard_60000.ok"] is True
    # Off by 31 instead of 36.
    assert answer.gate["guard_60000"] == pytest.approx(31 / 36 - 1, rel=1e-5)
    assert drifted.registry.list() == ()


def test_what_is_worse_at_no_resolution_is_promoted(drifted: World) -> None:
    drifted.guards = [selling(60.0, MINUTE_MS), selling(HIGH, DAY_MS)]
    drifted.learner.step()
    assert drifted.kinds() == ["training", "promoted"]
    manifest = drifted.registry.manifest(drifted.events[-1].version)
    assert manifest.gate["guard_86400000.ok"] is manifest.gate["guard_60000.ok"] is True


def test_between_two_resolutions_it_may_be_told_to_end(drifted: World) -> None:
    drifted.guards = [selling(60.0, MINUTE_MS), selling(HIGH, DAY_MS)]
    calls = iter([None, None, Stopped()])

    def stop() -> None:
        error = next(calls)
        if error is not None:
            raise error

    drifted.stopped = stop
    with pytest.raises(Stopped):
        drifted.learner.step()
    minutes, days = (guard.history for guard in drifted.guards)
    assert (minutes.refreshes, days.refreshes) == (1, 0)  # type: ignore[attr-defined]
    assert drifted.kinds() == ["training"]


def test_training_is_of_the_champion_on_what_the_gate_does_not_see(
    drifted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared: list[Terms] = []

    def recorded(terms: Terms, *given: Any) -> Contest:
        declared.append(terms)
        return Contest(terms, *given)

    monkeypatch.setattr(learner_module, "Contest", recorded)
    drifted.learner.step()
    ((trained_from, pools, settings),) = drifted.trained
    (terms,) = declared
    assert settings is SETTINGS
    # 400 hours are final: 12 are held out, 6 validate, and 48 before them are recent.
    assert (pools.recent.cutoffs_N.min(), pools.validation.cutoffs_N.min()) == (
        *(START_MS + hour * HOUR_MS for hour in (334, 382)),
    )
    assert (terms.start_ms, terms.onset_ms) == (START_MS + 388 * HOUR_MS, START_MS + 300 * HOUR_MS)
    assert (terms.request_id, terms.parent, terms.segments) == ("r1", BASE, ("all",))
    assert (terms.first_days, terms.num_looks) == (1, 7)
    assert terms.item_ids == tuple(drifted.past.item_ids)
    # Half of the error of an alert is for its first attempt.
    assert terms.error == pytest.approx(0.025)
    assert pools.anchors is not None and pools.replay is not None
    assert not set(pools.anchors.cutoffs_N) & set(pools.replay.cutoffs_N)
    assert max(pools.recent.cutoffs_N) < START_MS + 382 * HOUR_MS
    assert said_by(trained_from) == BASE_SAYS


def test_a_young_drift_is_learnt_from_its_onset_on(
    drifted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    build = learner_module.build_pools

    def recorded(*given: Any) -> Pools:
        asked.append(given)
        return build(*given)

    monkeypatch.setattr(learner_module, "build_pools", recorded)
    drifted.requests.clear()
    drifted.alerts.clear()
    drifted.restarted()
    drifted.alert(onset=350)
    drifted.ask(alert_ids=["a1"], segments=["s1"])
    drifted.learner.step()
    ((_, pools, _),) = drifted.trained
    assert pools.recent.cutoffs_N.min() == START_MS + 350 * HOUR_MS
    assert [given[2:] for given in asked] == [(["s1"], 5)]


@pytest.mark.parametrize(("hours", "days"), [(11, None), (12, 1.0), (35, 1.0), (36, 2.0)])
def test_days_that_became_final_during_training_are_looked_at_in_their_turn(
    drifted: World, hours: int, days: float
) -> None:
    wavering(drifted, 10.0)
    drifted.taught = 25.0
    drifted.training_takes = hours
    drifted.learner.step()
    assert drifted.past.refreshes == 2
    assert drifted.kinds() == ["training", "trial"]
    trial = drifted.events[-1]
    assert (trial.gate["verdict"], trial.gate.get("days")) == ("not yet", days)
    assert (trial.reason == "its first day is not over") is (days is None)
    assert drifted.registry.list()[0].offsets == {"orders:0": 400 + hours}


def test_the_next_training_starts_from_the_version_that_serves(drifted: World) -> None:
    drifted.learner.step()
    first = drifted.events[-1].version
    drifted.pass_hours(SETTINGS.probation_buckets)
    drifted.learner.step()
    drifted.taught = 30.0
    drifted.ask("r2", alert_ids=["a1"], segments=["all"])
    drifted.learner.step()
    assert drifted.kinds() == ["training", "promoted", "confirmed", "training", "promoted"]
    assert said_by(drifted.trained[1][0]) == TAUGHT_SAYS
    assert drifted.events[-1].parent == drifted.events[-2].parent == first
    assert drifted.events[-1].request_id == "r2"
    assert drifted.served() == 30.0
    assert str(drifted.registry.alias(PREVIOUS)) == first


def test_without_a_change_the_challenger_is_rejected(calm: World) -> None:
    calm.ask(reason="schedule")
    calm.learner.step()
    assert calm.kinds() == ["training", "rejected"]
    rejected = calm.events[-1]
    assert (rejected.version, rejected.parent, rejected.request_id) == ("candidate-r1", BASE, "r1")
    assert rejected.reason == "gain_low 0 against 0.01"
    assert (rejected.gate["verdict"], rejected.gate["gain"]) == ("reject", 0.0)
    assert calm.registry.list() == ()
    assert str(calm.registry.champion()) == BASE


def test_an_answered_request_is_not_done_again(drifted: World) -> None:
    drifted.learner.step()
    drifted.restarted().step()
    drifted.ask(alert_ids=["a1"])
    drifted.learner.step()
    assert drifted.kinds() == ["training", "promoted"]


MOMENTS = [
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


@pytest.mark.parametrize("step", MOMENTS)
def test_a_crash_at_any_step_ends_in_one_version_announced_once(
    drifted: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(name: str) -> None:
        if name == step:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(learner_module, "failpoint", fail)
        patch.setattr(service_module, "failpoint", fail)
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
        == str(drifted.registry.champion())
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


def test_a_request_waits_for_buckets_that_are_held_where_the_drift_is_older(
    tmp_path: Path, base: Path
) -> None:
    young = World(tmp_path, base, onset=0, known=29)
    young.alert(onset=-100)
    young.ask(alert_ids=["a1"])
    assert not young.learner._ready(young.requests[0])
    young.pass_hours(1)
    assert young.learner._ready(young.requests[0])


@pytest.mark.parametrize("missing", ["final_ms", "first_ms"])
def test_a_request_waits_while_nothing_is_final(calm: World, missing: str) -> None:
    calm.ask(reason="manual")
    setattr(calm.past, missing, lambda: None)
    calm.learner.step()
    assert calm.events == []
    assert calm.learner.phase == "waiting for final buckets for r1"
    assert calm.past.refreshes == 1


def test_a_request_does_not_wait_for_ever(tmp_path: Path, base: Path) -> None:
    """Twice the 30 hours that training needs, by the clock."""
    young = World(tmp_path, base, onset=0, known=5)
    young.ask(reason="manual", hour=5)
    young.past.final_ms = lambda: START_MS + 6 * HOUR_MS  # type: ignore[method-assign]
    young.pass_hours(59)
    young.learner.step()
    assert young.events == []
    young.pass_hours(1)
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
    drifted.ask("r2", reason="schedule")
    drifted.ask("back", reason="rollback")
    drifted.learner.step()
    assert drifted.events[-1] == ModelEvent(
        kind="rolled_back",
        version=BASE,
        at_ms=drifted.now_ms,
        parent=first,
        request_id="back",
        reason="asked for",
    )
    assert str(drifted.registry.champion()) == BASE
    drifted.ask("back", reason="rollback")
    drifted.ask("again", reason="rollback")
    drifted.learner.step()
    assert drifted.events[-1] == ModelEvent(
        kind="rejected",
        version=BASE,
        at_ms=drifted.now_ms,
        request_id="again",
        reason="there is nothing to roll back to: the shipped weights are served",
    )
    # Training that was asked for before comes after.
    drifted.restarted().step()
    assert drifted.kinds()[4] == "training"
    assert drifted.events[-1].request_id == "r2"


def test_without_a_word_of_what_serves_the_registrys_champion_is_rolled_back(
    calm: World,
) -> None:
    version = calm.registry.add(that_says(39.0), parent=BASE, created_at_ms=0).version
    calm.registry.serve(Assignment(version))
    calm.ask("back", reason="rollback")
    calm.learner.step()
    assert (calm.events[-1].kind, calm.events[-1].parent) == ("rolled_back", version)
    assert str(calm.registry.champion()) == BASE


def that_says(units: float) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        save_weights(network_that_says(units), folder, card="# told\n")

    return build


def test_a_crash_between_the_aliases_and_the_word_rolls_back_once(drifted: World) -> None:
    drifted.learner.step()
    first = drifted.events[-1].version
    second = drifted.registry.add(that_says(1.0), parent=first, created_at_ms=0)
    drifted.registry.serve(Assignment(second.version))
    drifted.events.append(
        msgspec.structs.replace(
            announcement(
                drifted.registry,
                "promoted",
                second.version,
                drifted.now_ms + 1,
                Assignment(second.version),
            ),
            parent=first,
        )
    )
    drifted.ask("back", reason="rollback")

    def crash(event: ModelEvent) -> None:
        raise Crash

    learner = drifted.restarted()
    learner.announcer.publish = crash
    with pytest.raises(Crash):
        learner.step()
    assert str(drifted.registry.champion()) == first
    drifted.restarted().step()
    assert str(drifted.registry.champion()) == first
    assert drifted.events[-1] == ModelEvent(
        kind="rolled_back",
        version=first,
        at_ms=drifted.now_ms,
        sha256=drifted.registry.manifest(first).weights_sha256,
        manifest_sha256=drifted.registry.sealed(first).sha256,
        uri=str(drifted.registry.path(first).resolve()),
        parent=second.version,
        request_id="back",
        reason="asked for",
    )


def test_probation_ends_in_a_confirmation_when_the_version_holds(drifted: World) -> None:
    drifted.learner.step()
    promoted = drifted.events[-1]
    drifted.pass_hours(SETTINGS.probation_buckets - 1)
    drifted.learner.step()
    assert drifted.kinds()[-1] == "promoted"
    assert drifted.learner.phase == f"probation of {promoted.version}"
    drifted.pass_hours(1)
    drifted.restarted().step()
    assert drifted.events[-1] == ModelEvent(
        kind="confirmed",
        version=promoted.version,
        at_ms=drifted.now_ms,
        sha256=promoted.sha256,
        manifest_sha256=promoted.manifest_sha256,
        parent=BASE,
        gate=drifted.events[-1].gate,
    )
    gate = drifted.events[-1].gate
    # 1 an hour, where its parent would have lost 6, in every segment.
    assert (gate["gain"], gate["days"], gate["items"]) == (0.833333, 0.5, 12.0)
    for row in ("all", "s0", "s1", "s2", "s3"):
        assert (gate[f"loss:{row}"], gate[f"loss:{row}.ok"]) == (-0.833333, True)
        assert gate[f"loss:{row}.threshold"] == SETTINGS.probation_margin
    drifted.learner.step()
    assert drifted.kinds().count("confirmed") == 1
    assert drifted.learner.phase == "idle"


def promote(world: World, units: float) -> str:
    manifest = world.registry.add(that_says(units), parent=BASE, created_at_ms=0)
    world.registry.serve(Assignment(manifest.version))
    told = announcement(
        world.registry, "promoted", manifest.version, world.now_ms, Assignment(manifest.version)
    )
    event = msgspec.structs.replace(told, parent=BASE)
    world.events.append(event)
    world.learner.ledger.take_event(event)
    return manifest.version


def test_probation_ends_in_a_rollback_when_the_version_is_worse(calm: World) -> None:
    version = promote(calm, 39.0)
    calm.ask(reason="schedule")
    calm.pass_hours(SETTINGS.probation_buckets - 1)
    calm.learner.step()
    assert calm.kinds() == ["promoted"], "the request waits for the end of the probation"
    calm.pass_hours(1)
    calm.learner.step()
    assert calm.events[-1] == ModelEvent(
        kind="rolled_back",
        version=BASE,
        at_ms=calm.now_ms,
        parent=version,
        # 9 an hour against 6.
        reason="worse than base: "
        + "; ".join(f"loss:{row} 0.5 against 0.1" for row in ("all", "s0", "s1", "s2", "s3")),
        gate=calm.events[-1].gate,
    )
    assert calm.events[-1].gate["gain"] == -0.5
    assert str(calm.registry.champion()) == BASE
    # What it is judged on next is newer than its failure.
    calm.pass_hours(SETTINGS.holdout_buckets - 1)
    calm.restarted().step()
    assert calm.learner.phase == "waiting for final buckets for r1"
    calm.pass_hours(1)
    calm.learner.step()
    assert calm.kinds()[-2:] == ["training", "rejected"]


def test_a_version_that_is_a_little_worse_stays(calm: World) -> None:
    """6.5 an hour against 6 are 8 % more, and 10 % are allowed."""
    version = promote(calm, 36.5)
    calm.pass_hours(SETTINGS.probation_buckets)
    calm.learner.step()
    assert (calm.kinds()[-1], calm.events[-1].version) == ("confirmed", version)
    assert calm.events[-1].gate["gain"] == -0.0833333
    assert str(calm.registry.champion()) == version


def test_a_probation_is_judged_on_its_own_buckets(calm: World) -> None:
    """In the 12 hours from the promotion on 39 is right, before and after them it is not."""
    calm.past.units_IN[:, 400:412] = 39.0
    promote(calm, 39.0)
    calm.pass_hours(15)
    calm.learner.step()
    assert (calm.kinds()[-1], calm.events[-1].gate["gain"]) == ("confirmed", 1.0)
    assert calm.past.refreshes == 1


def test_a_request_waits_for_a_probation_no_longer_than_twice_its_length(calm: World) -> None:
    """Nothing becomes final any more, while the clock goes on."""
    promote(calm, 39.0)
    calm.ask(reason="schedule")
    calm.past.final_ms = lambda: START_MS + 400 * HOUR_MS  # type: ignore[method-assign]
    calm.pass_hours(23)
    calm.learner.step()
    assert calm.kinds() == ["promoted"]
    calm.pass_hours(1)
    calm.learner.step()
    assert calm.kinds() == ["promoted", "confirmed"], "what cannot be judged is not forgotten"
    assert calm.events[-1].reason == "not all of its buckets became final in twice their time"
    calm.learner.step()
    assert calm.kinds()[2] == "training"
    # What is trained then is what serves.
    assert said_by(calm.trained[0][0]) == 39.0


def test_a_version_that_was_altered_is_rolled_back(calm: World) -> None:
    version = promote(calm, 39.0)
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


class Away(FreshetError):
    """A server that may come back."""

    retriable = True


@pytest.mark.parametrize("error", [RuntimeError("no memory"), MemoryError("no memory")])
def test_training_that_cannot_succeed_is_answered(drifted: World, error: Exception) -> None:
    def stop() -> None:
        raise error

    drifted.stopped = stop
    drifted.learner.step()
    assert drifted.kinds() == ["training", "rejected"]
    rejected = drifted.events[-1]
    assert (rejected.request_id, rejected.reason) == ("r1", "training failed: no memory")


def test_training_that_may_succeed_later_is_not_answered(drifted: World) -> None:
    def stop() -> None:
        raise Away("redis is away")

    drifted.stopped = stop
    with pytest.raises(Away):
        drifted.learner.step()
    assert drifted.kinds() == ["training"]
    drifted.stopped = lambda: None
    drifted.learner.step()
    assert drifted.kinds() == ["training", "training", "promoted"]


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


# A registry that is lost, and announcements that are not of it ------------------------------------


def forged(world: World, version: str = "v0099-20231114T221320Z-00000000") -> ModelEvent:
    """A promotion of somebody's folder, newer than all."""
    event = ModelEvent(
        kind="promoted",
        version=version,
        at_ms=world.now_ms + HOUR_MS,
        uri="/somewhere/else",
        parent=BASE,
    )
    world.events.append(event)
    return event


def test_a_promotion_of_a_foreign_folder_changes_nothing_and_is_said_once(
    drifted: World, capsys: pytest.CaptureFixture[str]
) -> None:
    forged(drifted)
    drifted.restarted().step()
    assert drifted.kinds() == ["promoted", "training", "promoted"]
    promoted = drifted.events[-1]
    assert drifted.learner.ledger.serving == promoted
    drifted.learner.step()
    told = capsys.readouterr().out
    assert told.count("announcement_refused") == 1 and "names another folder" in told
    # Not even after a restart, and its own promotion ends its probation as ever.
    drifted.pass_hours(SETTINGS.probation_buckets)
    drifted.restarted().step()
    assert (drifted.events[-1].kind, drifted.events[-1].version) == ("confirmed", promoted.version)


def test_a_lost_registry_during_probation_leaves_the_version_serving_and_says_so(
    drifted: World,
) -> None:
    drifted.learner.step()
    promoted = drifted.events[-1]
    away = drifted.registry.folder.with_name("away")
    drifted.registry.folder.rename(away)
    drifted.pass_hours(SETTINGS.probation_buckets)
    drifted.ask("r2", reason="schedule")
    drifted.ask("back", reason="rollback")
    for _ in range(3):
        with pytest.raises(RegistryError, match=r"that serves is lost: .*serves on"):
            drifted.learner.step()
    assert drifted.events[-1] == promoted
    assert not drifted.registry.folder.exists(), "nothing begins anew beside it"
    away.rename(drifted.registry.folder)
    drifted.learner.step()
    assert [event.kind for event in drifted.events[2:]] == ["rolled_back"]


@pytest.mark.parametrize("asked", ["probation", "rollback", "schedule", ""])
def test_a_lost_registry_is_said_as_soon_as_there_is_anything_to_do(
    drifted: World, asked: str
) -> None:
    drifted.learner.step()
    drifted.pass_hours(SETTINGS.probation_buckets)
    if asked != "probation":
        drifted.learner.step()
        assert drifted.events[-1].kind == "confirmed"
    drifted.registry.folder.rename(drifted.registry.folder.with_name("away"))
    if not asked:
        drifted.learner.step()
        assert drifted.learner.phase == "idle"
        return
    if asked != "probation":
        drifted.ask("r2", reason=asked)
    with pytest.raises(RegistryError, match="that serves is lost"):
        drifted.learner.step()


def test_a_registry_that_comes_back_after_the_start_counts_then(drifted: World) -> None:
    drifted.learner.step()
    promoted = drifted.events[-1]
    away = drifted.registry.folder.with_name("away")
    drifted.registry.folder.rename(away)
    learner = drifted.restarted()
    learner.step()
    assert learner.ledger.serving is None
    away.rename(drifted.registry.folder)
    learner.step()
    assert learner.ledger.serving == promoted
    drifted.pass_hours(SETTINGS.probation_buckets)
    learner.step()
    assert drifted.kinds() == ["training", "promoted", "confirmed"]


def promoted_in_turn(world: World, *numbers: float) -> list[str]:
    """Versions that each descend from the one before, the last one serving."""
    parent, made = BASE, []
    for units in numbers:
        manifest = world.registry.add(that_says(units), parent=parent, created_at_ms=0)
        world.registry.serve(Assignment(manifest.version))
        told = announcement(
            world.registry, "promoted", manifest.version, world.now_ms, Assignment(manifest.version)
        )
        event = msgspec.structs.replace(told, parent=parent)
        world.events.append(event)
        world.learner.ledger.take_event(event)
        parent = manifest.version
        made.append(parent)
    return made


def damage(world: World, version: str) -> None:
    (world.registry.path(version) / "model.safetensors").write_text("altered")


def test_a_rollback_goes_to_the_nearest_ancestor_that_is_whole(calm: World) -> None:
    first, second, third = promoted_in_turn(calm, 25.0, 26.0, 27.0)
    damage(calm, second)
    calm.ask("back", reason="rollback")
    calm.learner.step()
    told = calm.events[-1]
    assert (told.kind, told.version, told.parent) == ("rolled_back", first, third)
    assert str(calm.registry.champion()) == first


def test_a_rollback_past_ancestors_that_are_gone_ends_at_the_shipped_weights(calm: World) -> None:
    _, second, _ = promoted_in_turn(calm, 25.0, 26.0, 27.0)
    shutil.rmtree(calm.registry.path(second))
    calm.ask("back", reason="rollback")
    calm.learner.step()
    assert (calm.events[-1].kind, calm.events[-1].version) == ("rolled_back", BASE)
    assert str(calm.registry.champion()) == BASE


def test_a_version_whose_parent_is_gone_stays_and_that_is_said(calm: World) -> None:
    first, second = promoted_in_turn(calm, 25.0, 39.0)
    damage(calm, first)
    calm.pass_hours(SETTINGS.probation_buckets)
    calm.learner.step()
    confirmed = calm.events[-1]
    assert (confirmed.kind, confirmed.version, confirmed.gate) == ("confirmed", second, {})
    assert confirmed.reason.startswith("there is no parent to compare with: ")
    assert str(calm.registry.champion()) == second
    calm.learner.step()
    assert calm.kinds().count("confirmed") == 1


def test_a_version_that_was_altered_before_it_was_announced_is_made_anew(
    drifted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        if name == "learn_registered":
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(learner_module, "failpoint", fail)
        with pytest.raises(Crash):
            drifted.learner.step()
    (made,) = drifted.registry.list()
    damage(drifted, made.version)
    drifted.restarted().step()
    assert drifted.kinds() == ["training", "training", "promoted"]
    assert drifted.events[-1].version.startswith("v0002-")


def test_a_half_restored_folder_stops_no_learning(drifted: World) -> None:
    half = drifted.registry.folder / "versions" / "v0001-20231114T221320Z-00000000"
    half.mkdir(parents=True)
    drifted.learner.step()
    assert drifted.kinds() == ["training", "promoted"]
    assert str(drifted.registry.champion()).startswith("v0002-")


# Challengers that are watched day by day ----------------------------------------------------------


@pytest.fixture
def unsure(drifted: World) -> World:
    """The request of `drifted`, whose challenger's gain a day cannot show."""
    wavering(drifted)
    drifted.taught = 25.0
    return drifted


def days_until_verdict(world: World, *, restart: bool = False) -> int:
    """Let days pass, a look each six hours, until the first request is answered."""
    request = world.requests[0]
    for day in range(1, 15):
        for _ in range(4):
            world.pass_hours(6)
            (world.restarted() if restart else world.learner).step()
        if world.learner.ledger.requests.answer(request) is not None:
            return day
    raise AssertionError("no verdict in two weeks")


def test_what_a_day_cannot_show_is_watched_and_then_promoted(unsure: World) -> None:
    unsure.learner.step()
    training, trial = unsure.events
    (manifest,) = unsure.registry.list()
    assert (trial.kind, trial.version, trial.parent) == ("trial", training.version, BASE)
    assert trial.reason.startswith("gain_low ") and trial.gate["verdict"] == "not yet"
    assert manifest.gate == trial.gate and "trial.json" in manifest.sha256
    assert str(unsure.registry.alias(CHALLENGER)) == manifest.version
    assert unsure.served() == BASE_SAYS, "it serves nobody yet"
    days = days_until_verdict(unsure)
    promoted = unsure.events[-1]
    assert (promoted.kind, promoted.version) == ("promoted", manifest.version)
    assert 1 <= days < 7 and promoted.gate["days"] == 1.0 + days
    assert promoted.gate["gain"] == pytest.approx(1 / 6, abs=0.05)
    # Each day is told once, however often it is looked at.
    assert unsure.kinds() == ["training", *["trial"] * days, "promoted"]
    assert unsure.served() == 25.0
    # Its probation begins now.
    unsure.learner.step()
    assert unsure.learner.phase == f"probation of {promoted.version}"


def test_a_restart_at_any_time_goes_on_with_the_trial_to_the_same_verdict(
    unsure: World, tmp_path: Path, base: Path
) -> None:
    unsure.learner.step()
    days = days_until_verdict(unsure, restart=True)
    told = [(event.kind, event.gate.get("days")) for event in unsure.events]
    assert len(unsure.trained) == 1, "what is on trial is not trained again"
    assert told[-1] == ("promoted", 1.0 + days)
    again = World(tmp_path / "again", base, onset=ONSET, known=400)
    wavering(again)
    again.taught = 25.0
    again.alert(ONSET)
    again.ask(alert_ids=["a1"], segments=["all"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner_module, "make_challenger", again.make_challenger)
        again.learner.step()
    assert days_until_verdict(again) == days
    assert again.events[-1].gate == unsure.events[-1].gate


def test_one_that_slept_through_the_days_comes_to_the_same_verdict(unsure: World) -> None:
    """The look that decides is the first that can, not the one at which somebody asks."""
    unsure.learner.step()
    unsure.pass_hours(24 * 6)
    unsure.restarted().step()
    promoted = unsure.events[-1]
    assert promoted.kind == "promoted"
    assert float(promoted.gate["days"]) < 7.0


@pytest.mark.parametrize("step", [*MOMENTS, "learn_trial_told"])
def test_a_crash_at_any_step_of_a_trial_ends_in_one_version_announced_once(
    unsure: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    reached = []

    def fail(name: str) -> None:
        if name == step and not reached:
            reached.append(name)
            raise Crash

    for module in (learner_module, service_module, registry_module):
        monkeypatch.setattr(module, "failpoint", fail)
    for _ in range(8):
        try:
            unsure.restarted().step()
        except Crash:
            unsure.restarted().step()
        unsure.pass_hours(24)
        if "confirmed" in unsure.kinds():
            break
    assert reached == [step]
    assert unsure.kinds().count("promoted") == unsure.kinds().count("confirmed") == 1
    (manifest,) = unsure.registry.list()
    assert manifest.version == str(unsure.registry.champion())
    assert unsure.learner.ledger.requests.open_training() is None


def test_what_turns_out_no_better_is_rejected_before_the_week_is_over(unsure: World) -> None:
    unsure.taught = 24.03
    unsure.learner.step()
    if unsure.kinds()[-1] == "trial":
        assert days_until_verdict(unsure) < 7
    rejected = unsure.events[-1]
    assert (rejected.kind, rejected.gate["verdict"]) == ("rejected", "reject")
    assert unsure.served() == BASE_SAYS


def scheduled_in_vain(world: World, units: float) -> ModelEvent:
    """The schedule's first challenger says so many units, and is rejected within its week."""
    world.requests.clear()
    world.ask("s1", reason="schedule")
    world.taught = units
    world.restarted().step()
    if world.kinds()[-1] == "trial":
        days_until_verdict(world)
    assert world.kinds()[-1] == "rejected"
    return world.events[-1]


def started_from(world: World, request_id: str, reason: str) -> float:
    """What the network says from which training for a new request begins."""
    world.ask(request_id, reason=reason)
    world.restarted().step()
    assert world.events[-1].request_id == request_id
    return said_by(world.trained[-1][0])


def test_the_schedule_goes_on_from_what_was_better_though_not_surely(unsure: World) -> None:
    first = scheduled_in_vain(unsure, 24.125)
    assert float(first.gate["gain"]) > 0.0
    assert unsure.events[1].gate["begun"] == BASE
    (version,) = [manifest.version for manifest in unsure.registry.list()]
    assert started_from(unsure, "s2", "schedule") == 24.125
    told = unsure.events[-1]
    assert (told.gate["begun"], told.parent) == (version, BASE)


@pytest.mark.parametrize("reason", ["drift", "manual"])
def test_who_is_in_a_hurry_begins_with_the_champion(unsure: World, reason: str) -> None:
    scheduled_in_vain(unsure, 24.125)
    assert started_from(unsure, "r2", reason) == BASE_SAYS


@pytest.mark.parametrize(("gain", "begins"), [(-0.01, BASE_SAYS), (0.0, BASE_SAYS), (0.01, 25.0)])
def test_the_schedule_begins_with_the_champion_where_the_last_one_was_no_better(
    calm: World, gain: float, begins: float
) -> None:
    calm.ask("s1", reason="schedule")
    calm.registry.add(that_says(25.0), parent=BASE, created_at_ms=0, request_id="s1")
    rejected = ModelEvent(
        kind="rejected", version="v", at_ms=1, request_id="s1", reason="no", gate={"gain": gain}
    )
    calm.events.append(rejected)
    calm.pass_hours(1)
    assert started_from(calm, "s2", "schedule") == begins


def test_the_schedule_begins_with_a_champion_that_is_new(unsure: World) -> None:
    scheduled_in_vain(unsure, 24.125)
    promote(unsure, 26.0)
    unsure.pass_hours(SETTINGS.probation_buckets)
    unsure.learner.step()
    assert unsure.kinds()[-1] == "confirmed"
    assert started_from(unsure, "s2", "schedule") == 26.0


def test_the_schedule_begins_with_the_champion_where_the_last_one_is_gone_or_altered(
    unsure: World,
) -> None:
    scheduled_in_vain(unsure, 24.125)
    damage(unsure, unsure.registry.list()[0].version)
    assert started_from(unsure, "s2", "schedule") == BASE_SAYS


def test_other_requests_wait_for_the_end_of_a_trial(unsure: World) -> None:
    unsure.learner.step()
    for name in ("r2", "r3"):
        unsure.pass_hours(1)
        unsure.ask(name, reason="schedule")
    unsure.restarted().step()
    assert [(event.kind, event.request_id) for event in unsure.events] == [
        ("training", "r1"),
        ("trial", "r1"),
        ("rejected", "r2"),
    ]
    assert unsure.events[-1].reason == "superseded by a newer request"
    assert unsure.learner.phase.startswith("trial of v0001-")
    days_until_verdict(unsure)
    assert len(unsure.trained) == 1
    unsure.pass_hours(SETTINGS.probation_buckets)
    unsure.learner.step()
    unsure.learner.step()
    (again,) = [event for event in unsure.events[1:] if event.kind == "training"]
    assert again.request_id == "r3"


@pytest.mark.parametrize("reason", ["drift", "manual"])
def test_what_the_schedule_has_on_trial_makes_way_for_who_is_in_a_hurry(
    unsure: World, reason: str
) -> None:
    unsure.requests.clear()
    unsure.ask("s1", reason="schedule")
    unsure.restarted().step()
    assert unsure.kinds() == ["training", "trial"]
    unsure.pass_hours(1)
    unsure.ask("s2", reason="schedule")
    unsure.learner.step()
    assert unsure.kinds() == ["training", "trial"], "a schedule waits for a schedule"
    unsure.pass_hours(1)
    unsure.ask("d", reason=reason)
    unsure.restarted().step()
    told = [(event.kind, event.request_id) for event in unsure.events[2:]]
    assert told == [("rejected", "s1"), ("rejected", "s2"), ("training", "d"), ("trial", "d")]
    assert {event.reason for event in unsure.events[2:4]} == {SUPERSEDED}
    assert unsure.served() == BASE_SAYS


def test_a_trial_against_a_champion_that_serves_no_more_is_over(unsure: World) -> None:
    unsure.learner.step()
    promote(unsure, 26.0)
    unsure.pass_hours(SETTINGS.probation_buckets)
    unsure.learner.step()
    assert unsure.kinds()[-1] == "confirmed"
    unsure.learner.step()
    answer = unsure.events[-1]
    assert (answer.kind, answer.request_id) == ("rejected", "r1")
    assert answer.reason == "base is the champion no longer"


def test_a_trial_whose_days_do_not_become_final_ends_after_twice_its_time(unsure: World) -> None:
    unsure.learner.step()
    unsure.past.final_ms = lambda: START_MS + 412 * HOUR_MS  # type: ignore[method-assign]
    # From hour 388 on, of which 24 have passed.
    unsure.pass_hours(13 * 24 - 1)
    unsure.learner.step()
    assert unsure.kinds() == ["training", "trial"]
    unsure.pass_hours(1)
    unsure.learner.step()
    assert unsure.kinds()[-1] == "rejected"
    assert unsure.events[-1].reason.startswith("no verdict, and its days did not become final")


def test_a_challenger_that_was_altered_on_trial_is_trained_anew(unsure: World) -> None:
    unsure.learner.step()
    (first,) = unsure.registry.list()
    damage(unsure, first.version)
    unsure.restarted().step()
    assert unsure.kinds() == ["training", "trial", "training", "trial"]
    assert len(unsure.trained) == 2


def test_each_attempt_for_an_alert_has_half_of_the_error_that_is_left(drifted: World) -> None:
    drifted.taught = 20.0
    drifted.learner.step()
    drifted.ask("gone", alert_ids=["a1"])
    drifted.pass_hours(1)
    drifted.ask("r2", alert_ids=["a1"])
    drifted.learner.step()
    requests = drifted.learner.ledger.requests
    assert [requests.judged_before(request) for request in drifted.requests] == [1, 2, 1]
    drifted.ask("r3", alert_ids=["a1"])
    # Two were judged; the one that another one made needless was no attempt.
    error = drifted.learner.ledger.error_of(drifted.requests[-1], 0.05)
    assert error == pytest.approx(0.05 / 8)


@pytest.mark.parametrize(("days", "error"), [(1, 1 / 365), (7, 7 / 365), (60, 0.05)])
def test_what_the_schedule_asks_for_promotes_one_equal_challenger_in_a_year(
    calm: World, days: int, error: float
) -> None:
    calm.ask("s1", reason="schedule")
    calm.pass_hours(24 * days)
    calm.ask("s2", reason="schedule")
    first, second = calm.requests
    assert calm.learner.ledger.error_of(first, 0.05) == pytest.approx(7 / 365)
    assert calm.learner.ledger.error_of(second, 0.05) == pytest.approx(error)
    calm.ask("m", reason="manual")
    assert calm.learner.ledger.error_of(calm.requests[-1], 0.05) == 0.05


def test_where_nothing_becomes_final_after_a_rollback_training_is_refused(calm: World) -> None:
    promote(calm, 39.0)
    calm.pass_hours(SETTINGS.probation_buckets)
    calm.learner.step()
    assert calm.kinds()[-1] == "rolled_back"
    known = calm.past.known_buckets
    calm.past.final_ms = lambda: START_MS + known * HOUR_MS  # type: ignore[method-assign]
    calm.ask("r1", reason="manual")
    calm.pass_hours(60)
    calm.learner.step()
    assert calm.events[-1].reason == (
        "training failed: no hold-out is final since the last version was rolled back"
    )
    assert calm.trained == []
