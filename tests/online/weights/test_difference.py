"""How two versions differ, by numbers that can be checked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.weights import save_weights
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.difference import difference
from freshet.online.weights.registry import BASE, CHAMPION, Registry
from freshet.stream.config import LearnSettings, Settings
from freshet.stream.errors import RegistryError, WeightsError


def network() -> FreshetNetwork:
    """Eight ones, and zeros."""
    torch.manual_seed(0)
    config = FreshetConfig(
        width=8, num_layers=1, num_heads=1, context_length=32, prediction_length=16
    )
    made = FreshetNetwork(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.final_norm.weight.fill_(1.0)
    return made


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def settings_of(registry: Registry) -> Settings:
    return Settings(learn=LearnSettings(registry=registry.folder))


def added(registry: Registry, made: FreshetNetwork, parent: str, gain: float) -> str:
    def build(folder: Path) -> None:
        save_weights(made, folder, card="# test\n")

    gate: dict[str, float | str | bool] = {"gain": gain, "verdict": "promote"}
    return registry.add(build, parent=parent, created_at_ms=0, gate=gate).version


def test_parents_gates_and_weights_are_held_against_each_other(registry: Registry) -> None:
    first = added(registry, network(), BASE, 0.25)
    moved = network()
    with torch.no_grad():
        # Two of eight ones move by one half: by sqrt(2 / 4) of a length of sqrt(8), a quarter.
        moved.final_norm.weight[:2] = 1.5
    second = added(registry, moved, first, 0.5)
    registry.serve(Assignment(second))
    found = difference(settings_of(registry), first, CHAMPION)
    assert (found.first, found.second) == (first, second)
    assert found.facts == {
        "version": (first, second),
        "parent": (BASE, first),
        "gate.gain": (0.25, 0.5),
    }
    assert found.distance == pytest.approx(0.25)
    assert found.moved == {"final_norm.weight": pytest.approx(0.25)}
    assert found.as_text().splitlines()[-2:] == [
        "weights moved by 25.000%; furthest:",
        "  final_norm.weight  25.000%",
    ]
    assert difference(settings_of(registry), first, first).as_dict() == {
        "first": first,
        "second": first,
        "facts": {},
        "distance": 0.0,
        "moved": {},
    }


def test_the_shipped_weights_are_compared_too_and_another_network_is_not(
    registry: Registry,
) -> None:
    version = added(registry, network(), BASE, 0.25)
    with pytest.raises(WeightsError, match="differ in shape"):
        difference(settings_of(registry), BASE, version)
    same = difference(settings_of(registry), BASE, BASE)
    assert (same.facts, same.distance) == ({}, 0.0)


def test_what_was_altered_is_not_compared(registry: Registry) -> None:
    version = added(registry, network(), BASE, 0.25)
    (registry.path(version) / "README.md").write_text("altered")
    with pytest.raises(RegistryError, match="altered"):
        difference(settings_of(registry), BASE, version)
