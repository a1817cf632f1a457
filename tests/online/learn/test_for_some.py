"""A version that helps some segments serves them alone, is watched there, and goes back there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from freshet.model.weights import save_weights
from freshet.online.learn import learner as learner_module
from freshet.online.learn import service as service_module
from freshet.online.trials import contest as contest_module
from freshet.online.trials import evaluation
from freshet.online.weights import registry as registry_module
from freshet.online.weights.announced import announcement, assignment_of
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, CHALLENGER, PREVIOUS
from tests.online.learn.learning import ITEMS, network_that_says
from tests.online.learn.worlds import (
    BASE_SAYS,
    ONSET,
    SETTINGS,
    Crash,
    SaidForecaster,
    World,
)

PETS, TOYS, GAMES = "pets", "toys", "games"
# Six pets sell 30 an hour since the onset, and the toys what the shipped weights say nearly: who
# learns to say 29 is better by five sixths with the pets, and worse by half with the toys.
NUM_PETS = 6
PET_UNITS, TOY_UNITS, TAUGHT = 30.0, 26.0, 29.0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_weights(network_that_says(BASE_SAYS), folder, card="# base\n")
    return folder


def segments() -> list[str]:
    return [PETS] * NUM_PETS + [TOYS] * (ITEMS - NUM_PETS)


@pytest.fixture
def world(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The pets have drifted, which was found."""
    monkeypatch.setattr(evaluation, "BatchForecaster", SaidForecaster)
    monkeypatch.setattr(contest_module, "forecast_ms", lambda networks, pool: [2.0, 3.0])
    made = World(tmp_path, base, onset=ONSET, known=400)
    made.past.segments = segments  # type: ignore[method-assign]
    sells(made, ONSET, pets=PET_UNITS, toys=TOY_UNITS)
    made.taught = TAUGHT
    monkeypatch.setattr(learner_module, "make_challenger", made.make_challenger)
    made.alert(ONSET)
    made.ask(alert_ids=["a1"], segments=[PETS])
    return made


def sells(world: World, hour: int, *, pets: float, toys: float) -> None:
    """From an hour on each item of a segment sells so much."""
    world.past.units_IN[:NUM_PETS, hour:] = pets
    world.past.units_IN[NUM_PETS:, hour:] = toys


def promoted(world: World) -> str:
    """The version that serves the pets, after its first day."""
    world.learner.step()
    assert world.kinds() == ["training", "promoted"]
    return world.events[-1].version


def test_who_helps_the_pets_and_harms_the_toys_serves_the_pets(world: World) -> None:
    version = promoted(world)
    now = Assignment(BASE, version, (PETS,))
    told = world.events[-1]
    assert world.registry.champion() == assignment_of(told) == now
    assert str(world.registry.alias(PREVIOUS)) == BASE
    assert str(world.registry.alias(CHALLENGER)) == version
    assert (told.version, told.parent, told.gate["for"]) == (version, BASE, PETS)
    assert told.gate["gain"] == pytest.approx(5 / 6, rel=1e-3)
    assert world.registry.manifest(version).segments == (PETS,)
    default, other = told.serves
    assert (default.version, default.segments, default.manifest_sha256) == (BASE, [], "")
    sealed = world.registry.sealed(version)
    assert (other.segments, other.manifest_sha256) == ([PETS], sealed.sha256)


def dies(monkeypatch: pytest.MonkeyPatch, step: str, times: int = 1) -> None:
    """The process dies at a step, at its so many-th pass."""
    left = [times]

    def fail(name: str) -> None:
        if name == step:
            left[0] -= 1
            if not left[0]:
                raise Crash

    for module in (learner_module, service_module, registry_module):
        monkeypatch.setattr(module, "failpoint", fail)


@pytest.mark.parametrize(
    ("step", "times"),
    # An alias moves three times: the challenger's, the previous one's and the champion's.
    [
        ("registry_before_rename", 1),
        ("registry_after_rename", 1),
        ("learn_registered", 1),
        ("registry_before_alias", 2),
        ("registry_between_aliases", 1),
        ("registry_before_alias", 3),
        ("learn_served", 1),
        ("learn_announced", 1),
    ],
)
def test_a_crash_at_any_step_ends_in_one_assignment_announced_once(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, times: int
) -> None:
    with monkeypatch.context() as patch:
        dies(patch, step, times)
        with pytest.raises(Crash):
            world.learner.step()
    for _ in range(2):
        world.restarted().step()
    assert world.kinds().count("promoted") == 1
    (manifest,) = world.registry.list()
    now = Assignment(BASE, manifest.version, (PETS,))
    assert world.registry.champion() == assignment_of(world.events[-1]) == now
    assert str(world.registry.alias(PREVIOUS)) == BASE


@pytest.mark.parametrize("step", ["learn_trial_told", "registry_between_aliases", "learn_served"])
def test_a_trial_that_ends_for_some_is_resumed_to_the_same_end(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world.training_takes = 0
    with monkeypatch.context() as patch:
        dies(patch, step)
        with pytest.raises(Crash):
            for _ in range(3):
                world.learner.step()
                world.pass_hours(24)
    world.restarted().step()
    world.pass_hours(24)
    world.restarted().step()
    (manifest,) = world.registry.list()
    assert manifest.segments == (), "the verdict came after it was made"
    assert world.kinds().count("promoted") == 1
    assert world.registry.champion() == Assignment(BASE, manifest.version, (PETS,))


def test_a_version_on_probation_is_watched_on_whom_it_serves(world: World) -> None:
    """The toys would be worse by half, and are not served by it."""
    version = promoted(world)
    world.pass_hours(SETTINGS.probation_buckets + 1)
    world.learner.step()
    confirmed = world.events[-1]
    assert (confirmed.kind, confirmed.version) == ("confirmed", version)
    assert confirmed.gate["items"] == NUM_PETS
    assert world.registry.champion() == Assignment(BASE, version, (PETS,))


def test_a_version_that_fails_whom_it_serves_gives_them_back(world: World) -> None:
    version = promoted(world)
    sells(world, 0, pets=24.5, toys=TOY_UNITS)
    world.pass_hours(SETTINGS.probation_buckets + 1)
    world.learner.step()
    back = world.events[-1]
    assert (back.kind, back.version, back.parent, back.serves) == ("rolled_back", BASE, version, [])
    assert world.registry.champion() == Assignment()
    assert world.registry.alias(PREVIOUS) == Assignment(BASE, version, (PETS,))
    world.restarted().step()
    assert world.events[-1] == back


def serve_by_hand(world: World, units: float, assignment: Any) -> str:
    """A version that says so much is promoted, as an assignment says."""
    version = world.registry.add(
        lambda folder: save_weights(network_that_says(units), folder, card="") and None,
        parent=str(world.registry.champion().default),
        created_at_ms=0,
    ).version
    after = assignment(version)
    world.registry.serve(after)
    told = announcement(world.registry, "promoted", after.newest, world.now_ms, after)
    world.events.append(msgspec.structs.replace(told, parent=BASE))
    world.restarted()
    return version


def confirm(world: World) -> None:
    event = world.events[-1]
    world.events.append(msgspec.structs.replace(event, kind="confirmed", serves=[]))
    world.restarted()


def test_a_segment_that_is_surely_worse_goes_back_alone_and_the_others_are_watched_on(
    world: World,
) -> None:
    """The pets lose 6 of 30 by the parent and 1 by the version, the toys 2 and 7 of 22."""
    world.requests.clear()
    sells(world, 0, pets=PET_UNITS, toys=22.0)
    version = serve_by_hand(world, TAUGHT, Assignment)
    world.pass_hours(SETTINGS.probation_buckets + 1)
    world.learner.step()
    back = world.events[-1]
    now = Assignment(version, BASE, (TOYS,))
    assert (back.kind, back.version, back.parent) == ("rolled_back", BASE, version)
    assert world.registry.champion() == assignment_of(back) == now
    assert f"loss:{TOYS}" in back.reason and f"loss:{PETS}" not in back.reason
    # The same process goes on to the others, as one would that begins anew.
    world.learner.step()
    confirmed = world.events[-1]
    assert (confirmed.kind, confirmed.version) == ("confirmed", version)
    assert confirmed.gate["items"] == NUM_PETS
    world.restarted().step()
    assert world.events[-1] == confirmed


def test_an_older_version_that_a_person_promoted_gives_back_to_who_served(world: World) -> None:
    """What fails is taken back, whichever was made last, and to what it was held against."""
    world.requests.clear()
    sells(world, 0, pets=24.5, toys=24.5)
    older = world.registry.add(
        lambda folder: save_weights(network_that_says(TAUGHT), folder, card="") and None,
        parent=BASE,
        created_at_ms=0,
    ).version
    newer = serve_by_hand(world, BASE_SAYS + 0.1, Assignment)
    confirm(world)
    two = world.registry.serve(Assignment(newer, older, (PETS,)))
    told = announcement(world.registry, "promoted", older, world.now_ms + 1, two)
    world.events.append(msgspec.structs.replace(told, parent=newer))
    world.restarted()
    world.pass_hours(SETTINGS.probation_buckets + 1)
    world.learner.step()
    back = world.events[-1]
    assert (back.kind, back.version, back.parent) == ("rolled_back", newer, older)
    assert world.registry.champion() == Assignment(newer)


def test_an_asked_for_rollback_of_an_older_version_gives_back_to_who_served(world: World) -> None:
    world.requests.clear()
    older = serve_by_hand(world, 26.0, Assignment)
    newer = serve_by_hand(world, 27.0, Assignment)
    two = world.registry.serve(Assignment(newer, older, (PETS,)))
    told = announcement(world.registry, "promoted", older, world.now_ms + 1, two)
    world.events.append(msgspec.structs.replace(told, parent=newer))
    world.ask("back", reason="rollback")
    world.restarted().step()
    back = world.events[-1]
    assert (back.kind, back.version, back.parent) == ("rolled_back", newer, older)
    assert world.registry.champion() == Assignment(newer)


def test_where_the_shop_is_worse_all_goes_back(world: World) -> None:
    world.requests.clear()
    sells(world, 0, pets=25.0, toys=22.0)
    version = serve_by_hand(world, TAUGHT, Assignment)
    world.pass_hours(SETTINGS.probation_buckets + 1)
    world.learner.step()
    assert (world.events[-1].kind, world.events[-1].parent) == ("rolled_back", version)
    assert world.registry.champion() == Assignment()


def test_beside_two_a_challenger_takes_its_parents_place_or_none(world: World) -> None:
    """It descends from who serves the pets, and is judged on them alone."""
    first = serve_by_hand(world, 26.0, lambda name: Assignment(BASE, name, (PETS,)))
    confirm(world)
    world.learner.step()
    told = world.events[-1]
    assert (told.kind, told.parent) == ("promoted", first)
    assert world.registry.champion() == Assignment(BASE, told.version, (PETS,))
    assert "segment_loss:toys" not in told.gate
    # 4 of 30 were lost by the one before, 1 is by this one.
    assert told.gate["gain"] == pytest.approx(0.75, rel=1e-3)


def test_the_default_is_replaced_by_who_is_better_where_it_serves(world: World) -> None:
    pets = serve_by_hand(world, TAUGHT, lambda name: Assignment(BASE, name, (PETS,)))
    confirm(world)
    world.requests.clear()
    world.restarted()
    sells(world, 0, pets=PET_UNITS, toys=TOY_UNITS)
    world.taught = TOY_UNITS
    world.ask("r2", reason="manual")
    world.learner.step()
    told = world.events[-1]
    assert (told.kind, told.parent) == ("promoted", BASE)
    assert world.registry.champion() == Assignment(told.version, pets, (PETS,))


@pytest.mark.parametrize("then", ["another for all", "the parent for all"])
def test_a_trial_ends_when_either_of_two_serves_no_more(world: World, then: str) -> None:
    """Where the parent serves all by now, nobody knows how the challenger does with the toys."""
    parent = serve_by_hand(world, 26.0, lambda name: Assignment(BASE, name, (PETS,)))
    confirm(world)
    world.training_takes = 0
    world.learner.step()
    assert world.kinds()[-1] == "trial"
    serve_by_hand(
        world, 27.0, Assignment if then == "another for all" else lambda _: Assignment(parent)
    )
    confirm(world)
    world.learner.step()
    assert world.kinds()[-1] == "rejected"
    assert world.events[-1].reason == f"{BASE} is the champion no longer"


def test_a_version_that_was_made_for_some_has_no_place_beside_a_second_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        dies(patch, "learn_registered")
        with pytest.raises(Crash):
            world.learner.step()
    serve_by_hand(world, 26.0, lambda name: Assignment(BASE, name, (TOYS,)))
    confirm(world)
    world.learner.step()
    assert world.kinds()[-1] == "rejected"
    assert world.events[-1].reason == "base is the champion no longer, or not alone"


def test_an_asked_for_rollback_takes_back_the_newest(world: World) -> None:
    version = promoted(world)
    world.ask("back", reason="rollback")
    world.learner.step()
    back = world.events[-1]
    assert (back.kind, back.version, back.parent) == ("rolled_back", BASE, version)
    assert back.request_id == "back"
    assert world.registry.champion() == Assignment()


def test_a_lost_file_of_either_version_is_said_before_anything_is_decided(world: World) -> None:
    version = promoted(world)
    world.registry.path(version).rename(world.registry.folder / "away")
    world.ask("r2", reason="manual")
    with pytest.raises(Exception, match="the version that serves is lost"):
        world.learner.step()
