"""Weights are swapped whole or not at all, and what cannot be served is refused with a reason."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from freshet.model.forecaster import BatchForecaster
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.weights import golden_batch, save_weights
from freshet.online.weights.registry import BASE, Registry
from freshet.online.weights.swap import (
    LoadedWeights,
    WeightsSwitch,
    first_weights,
    load_weights,
    loader,
)
from freshet.stream.errors import FreshetError, RegistryError, WeightsError
from freshet.stream.schemas import ModelEvent


def save(folder: Path, seed: int = 0) -> str:
    torch.manual_seed(seed)
    config = FreshetConfig(
        width=16, num_layers=1, num_heads=1, context_length=32, prediction_length=16
    )
    return save_weights(FreshetNetwork(config), folder, card="random")


def weights(version: str) -> LoadedWeights:
    return LoadedWeights(version, f"sha-{version}", cast(BatchForecaster, object()))


def promoted(version: str, at_ms: int, *, kind: Any = "promoted") -> ModelEvent:
    return ModelEvent(kind=kind, version=version, at_ms=at_ms, sha256=f"sha-{version}")


@dataclass
class Shelf:
    """Loads weights by name when it is let; some are broken."""

    broken: dict[str, Exception] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def load(self, version: str, sha256: str, uri: str) -> LoadedWeights:
        assert self.gate.wait(10)
        self.loaded.append(version)
        if version in self.broken:
            raise self.broken[version]
        return weights(version)


def settle(switch: WeightsSwitch, now_ms: int = 99) -> list[ModelEvent]:
    """Turn the loop until nothing is on its way."""
    events = []
    for _ in range(20):
        event = switch.settle(now_ms)
        if event is not None:
            events.append(event)
        if not switch.loading:
            break
        assert switch.wait(10)
    final = switch.settle(now_ms)
    return events + ([final] if final is not None else [])


def test_an_announced_version_serves_after_the_loop_settled_and_not_before() -> None:
    shelf = Shelf()
    switch = WeightsSwitch(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    assert switch.settle(5) is None and switch.wait(10)
    held = switch.current
    assert held.version == "base"
    (event,) = settle(switch)
    assert (event.kind, event.version, event.parent, event.worker) == (
        "swapped",
        "v1",
        "base",
        "w1",
    )
    assert event.pause_ms is not None and event.pause_ms < 5
    # Whoever took the reference before the swap still holds the old weights, whole.
    assert held.version == "base" and switch.current.version == "v1"


def test_going_back_to_the_weights_before_needs_no_loading() -> None:
    shelf = Shelf()
    switch = WeightsSwitch(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    settle(switch)
    switch.offer(promoted("base", 20, kind="rolled_back"))
    events = settle(switch)
    assert [event.version for event in events] == ["base"] and shelf.loaded == ["v1"]


@pytest.mark.parametrize(
    "error", [WeightsError("bad sha"), RegistryError("altered"), ValueError("odd file")]
)
def test_a_version_that_cannot_be_proven_is_refused_and_the_old_one_serves_on(
    error: Exception,
) -> None:
    shelf = Shelf(broken={"v1": error})
    switch = WeightsSwitch(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    (event,) = settle(switch)
    assert (
        event.kind == "swap_failed"
        and str(error) in event.reason
        and switch.current.version == "base"
    )
    assert settle(switch) == [] and shelf.loaded == ["v1"]


def test_of_several_announcements_only_the_newest_is_served() -> None:
    shelf = Shelf()
    switch = WeightsSwitch(weights("base"), shelf.load, "w1")
    for version, at_ms in (("v2", 20), ("v1", 10), ("v3", 30)):
        switch.offer(promoted(version, at_ms))
    switch.offer(promoted("v9", 90, kind="rejected"))
    assert [event.version for event in settle(switch)] == ["v3"] and shelf.loaded == ["v3"]


def test_a_version_that_is_overtaken_while_it_loads_never_serves() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    switch = WeightsSwitch(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    switch.settle(0)
    switch.offer(promoted("v2", 20))
    shelf.gate.set()
    assert [event.version for event in settle(switch)] == ["v2"]
    assert switch.current.version == "v2" and shelf.loaded == ["v1", "v2"]


def test_the_version_in_service_is_not_loaded_again() -> None:
    shelf = Shelf()
    switch = WeightsSwitch(weights("v1"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    assert settle(switch) == [] and shelf.loaded == []


def test_rounds_that_take_the_reference_once_never_mix_versions_through_many_swaps() -> None:
    shelf = Shelf()
    switch = WeightsSwitch(weights("v0"), shelf.load, "w1")
    rounds = []
    for number in range(1, 200):
        switch.offer(promoted(f"v{number}", number))
        switch.settle(number)
        serving = switch.current
        rounds.append(set())
        for part in range(8):
            # The swap falls into the middle of the round.
            if part == 4:
                switch.wait(10)
                switch.settle(number)
            rounds[-1].add(f"{serving.version}/{serving.sha256}")
    assert all(
        len(seen) == 1 and "sha-" + next(iter(seen)).split("/")[0] in next(iter(seen))
        for seen in rounds
    )
    assert len({next(iter(seen)) for seen in rounds}) > 100


# Real files ---------------------------------------------------------------------------------------


def test_a_swapped_bank_forecasts_exactly_like_freshly_loaded_weights(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    first = registry.add(lambda folder: save(folder, 1) and None, parent=BASE, created_at_ms=1)
    second = registry.add(lambda folder: save(folder, 2) and None, parent=BASE, created_at_ms=2)
    load = loader(registry, "cpu", "float32")
    switch = WeightsSwitch(load(first.version, "", ""), load, "w1")
    event = ModelEvent(
        kind="promoted", version=second.version, at_ms=5, sha256=second.weights_sha256
    )
    switch.offer(event)
    assert [found.kind for found in settle(switch)] == ["swapped"]
    fresh = BatchForecaster.from_pretrained(registry.path(second.version), "cpu", "float32")
    batch = golden_batch(fresh.network.config)
    assert torch.equal(switch.current.forecaster.forecast(batch), fresh.forecast(batch))
    assert switch.current.sha256 == second.weights_sha256


@pytest.mark.parametrize("damage", ["flip", "cut", "sha", "other config"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    sha256 = save(tmp_path)
    weights, expected = tmp_path / "model.safetensors", sha256
    data = bytearray(weights.read_bytes())
    if damage == "flip":
        data[-101] ^= 0x40
    elif damage == "cut":
        del data[-9:]
        expected = ""
    elif damage == "sha":
        expected = "0" * 64
    else:
        config = tmp_path / "config.json"
        config.write_text(config.read_text().replace('"width": 16', '"width": 32'))
    weights.write_bytes(bytes(data))
    with pytest.raises(WeightsError):
        load_weights("v1", tmp_path, expected, device="cpu", dtype="float32")


def test_an_altered_champion_is_replaced_by_the_base_which_says_why() -> None:
    shelf = Shelf(broken={"v1": RegistryError("model.safetensors was altered")})
    found = first_weights(shelf.load, lambda: "v1", "", device="cpu", dtype="float32")
    assert found.version == BASE and "altered" in found.fallback


def test_without_champion_the_base_serves_and_a_pinned_folder_comes_first(tmp_path: Path) -> None:
    assert (
        first_weights(Shelf().load, lambda: BASE, "", device="cpu", dtype="float32").fallback == ""
    )
    save(tmp_path / "mine")
    assert (
        first_weights(
            Shelf().load, lambda: "v1", str(tmp_path / "mine"), device="cpu", dtype="float32"
        ).version
        == "mine"
    )


def test_with_nothing_to_serve_it_stops() -> None:
    def load(version: str, sha256: str, uri: str) -> LoadedWeights:
        raise WeightsError(f"no weights at {version}")

    with pytest.raises(FreshetError, match="no weights at base"):
        first_weights(load, lambda: "v1", "", device="cpu", dtype="float32")
