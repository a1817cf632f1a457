"""Weights that were trained elsewhere are judged like learn's own, and become a version or not."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.network import FreshetNetwork
from freshet.model.weights import save_weights
from freshet.online.learn import adopt as module
from freshet.online.learn.adopt import Adopted, adopt, judged
from freshet.online.learn.networks import VersionedNetworks
from freshet.online.trials import evaluation
from freshet.online.trials.guard import Guard
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, CHALLENGER, Registry
from freshet.stream.config import LearnSettings, Settings, WorkerSettings
from freshet.stream.errors import InvalidInputError, WeightsError
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS
from tests.online.learn.learning import ITEMS, STEPS, PastInMemory, network_that_says, said_by

# Every item sells 30 an hour; a network's loss is the distance of what it says from that.
SELLS, BASE_SAYS = 30.0, 24.0


class SaidForecaster:
    """Forecasts what its network says, in place of `BatchForecaster`."""

    quantile_levels = (0.1, 0.5, 0.9)

    def __init__(self, network: FreshetNetwork, device: str, dtype: str) -> None:
        self.said = said_by(network)

    def forecast(self, batch: Batch, max_rows: int = 0) -> Tensor:
        return torch.full((len(batch.target_BT), STEPS, 3), self.said)


class HeldEffects:
    """What the effects' table is told."""

    def __init__(self, country: str | None) -> None:
        self.country = country
        self.taken: list[tuple[bytes, bytes]] = []

    def take(self, key: bytes, value: bytes) -> None:
        self.taken.append((key, value))


class World:
    """A registry whose champion is learn's, a past, and folders of weights beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(folder / "registry")
        self.past = PastInMemory(400)
        self.past.units_IN[:] = SELLS
        self.networks = VersionedNetworks(self.registry, "cpu", self.trained(BASE_SAYS))
        self.settings = LearnSettings(registry=self.registry.folder, device="cpu", seed=5)
        self.effects: HeldEffects | None = None

    def trained(self, units: float) -> Path:
        """What `freshet train` leaves."""
        folder = self.folder / f"trained{units:g}"
        save_weights(network_that_says(units), folder, card=f"# says {units:g}\n")
        return folder

    def open_past(self, effects: HeldEffects) -> PastInMemory:
        self.effects = effects
        return self.past

    def judge(self, folder: Path, guards: Sequence[Guard] = ()) -> Adopted:
        return judged(folder, self.past, self.networks, self.settings, guards)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(evaluation, "BatchForecaster", SaidForecaster)
    monkeypatch.setattr(evaluation, "forecast_ms", lambda networks, pool: [2.0, 2.0])
    return World(tmp_path)


def test_weights_are_held_against_the_champion_on_the_hold_out(world: World) -> None:
    better = world.judge(world.trained(29.0))
    # 1 an hour, where the champion is off by 6.
    assert (better.parent, better.reason, better.gate["gain"]) == (BASE, "", 0.833333)
    assert better.gate["verdict"] == "promote"
    worse = world.judge(world.trained(18.0))
    assert (worse.gate["verdict"], worse.gate["gain"]) == ("reject", -1.0)
    assert "gain_low -1 against 0.01" in worse.reason
    assert world.registry.list() == ()


def test_the_champion_is_whoever_serves(world: World) -> None:
    version = world.networks.adopt(
        world.trained(28.0), parent=BASE, created_at_ms=1, report={}, offsets={}
    ).version
    world.registry.serve(Assignment(version))
    found = world.judge(world.trained(29.0))
    # 1 against 2.
    assert (found.parent, found.gate["gain"]) == (version, 0.5)


def test_of_two_that_serve_it_is_held_against_the_default_where_that_serves(world: World) -> None:
    other = world.networks.adopt(
        world.trained(30.0), parent=BASE, created_at_ms=1, report={}, offsets={}
    ).version
    world.registry.serve(Assignment(BASE, other, ("s1", "s2")))
    world.past.units_IN[[row for row in range(ITEMS) if row % 4 in (1, 2)]] = 1_000.0
    found = world.judge(world.trained(29.0))
    assert (found.parent, found.gate["gain"]) == (BASE, 0.833333), "the others sell what they sell"


def test_weights_that_are_worse_at_another_resolution_are_not_added(world: World) -> None:
    """On days of 23 the champion is off by 1, and the other one by 6."""
    days = PastInMemory(60, grid=Grid(DAY_MS))
    days.units_IN[:] = BASE_SAYS - 1.0
    found = world.judge(world.trained(29.0), [Guard(days, season_length=7)])
    assert found.reason == "guard_86400000 5 against 0.2083"
    assert (found.gate["verdict"], found.gate["gain"]) == ("reject", 0.833333)


def test_damaged_weights_and_a_short_past_are_not_judged(world: World) -> None:
    folder = world.trained(29.0)
    world.past.known_buckets = 5
    with pytest.raises(InvalidInputError, match="5 buckets are final"):
        world.judge(folder)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(WeightsError):
        world.judge(folder)


def adopting(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path, country: str = ""
) -> Adopted:
    """The command, over the world's past in place of servers."""
    settings = Settings(
        learn=world.settings,
        worker=WorkerSettings(prediction_length=STEPS),
        calendar={"country": country},
    )
    effects = [SimpleNamespace(key=b"one", value=b"1"), SimpleNamespace(key=b"two", value=b"2")]
    monkeypatch.setattr(module, "connect", lambda redis: None)
    monkeypatch.setattr(module, "open_clock", lambda client: SimpleNamespace(now_ms=lambda: 7_000))
    monkeypatch.setattr(module, "EffectsTable", HeldEffects)
    monkeypatch.setattr(module, "open_history", lambda *given: world.open_past(given[-1]))
    reader = contextlib.nullcontext(SimpleNamespace(read_to_end=lambda: effects))
    monkeypatch.setattr(module, "TableReader", lambda *given: reader)
    done = SimpleNamespace(read_to_end=lambda: None)
    monkeypatch.setattr(module, "ShopFeed", lambda *given: done)
    monkeypatch.setattr(module, "VersionedNetworks", lambda *given: world.networks)
    return adopt(settings, folder)


@pytest.mark.parametrize("country", ["", "DE"])
def test_it_is_judged_with_the_effects_that_were_published(
    world: World, monkeypatch: pytest.MonkeyPatch, country: str
) -> None:
    adopting(world, monkeypatch, world.trained(24.0), country)
    assert world.effects is not None
    assert world.effects.country == (country or None)
    assert world.effects.taken == [(b"one", b"1"), (b"two", b"2")]


def test_what_passes_becomes_the_challenger_and_does_not_serve(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.trained(29.0)
    found = adopting(world, monkeypatch, folder)
    (manifest,) = world.registry.list()
    assert world.registry.verify(found.version) == manifest
    assert (manifest.parent, manifest.created_at_ms, manifest.request_id) == (BASE, 7_000, "")
    assert (manifest.gate, manifest.offsets) == (found.gate, {"orders:0": 400})
    assert str(world.registry.alias(CHALLENGER)) == found.version
    assert str(world.registry.champion()) == BASE
    assert world.past.refreshes == 1
    made = world.registry.path(found.version)
    for name in ("model.safetensors", "config.json", "golden.safetensors", "README.md"):
        assert (made / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(manifest.sha256) == [
        "README.md",
        "config.json",
        "gate.json",
        "golden.safetensors",
        "model.safetensors",
    ]
    assert found.as_text() == (
        f"{found.version} is the challenger, 83.3% better than base on the hold-out; "
        "`freshet model promote` lets it serve"
    )


def test_what_does_not_pass_becomes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found = adopting(world, monkeypatch, world.trained(24.0))
    assert (found.version, world.registry.list()) == ("", ())
    assert world.registry.alias(CHALLENGER) is None
    assert found.as_text() == "not added, base stays: gain_low 0 against 0.01"
