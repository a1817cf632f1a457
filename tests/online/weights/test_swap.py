"""Weights are swapped whole or not at all, and what cannot be served is refused with a reason."""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import torch

from freshet.model.batch import Batch
from freshet.model.forecaster import BatchForecaster
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.weights import golden_batch, save_weights
from freshet.online.weights import swap
from freshet.online.weights.announced import announcement, checker
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.loaded import (
    Load,
    LoadedWeights,
    Serving,
    first_weights,
    load_weights,
    loader,
)
from freshet.online.weights.registry import BASE, Registry
from freshet.online.weights.swap import WeightsSwitch, open_switch
from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, FreshetError, RegistryError, WeightsError
from freshet.stream.schemas import ModelEvent, ServingVersion
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS


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

    def load(self, version: str, sha256: str, manifest_sha256: str) -> LoadedWeights:
        assert self.gate.wait(60)
        self.loaded.append(version)
        if version in self.broken:
            raise self.broken[version]
        return weights(version)


def believe(event: ModelEvent) -> None:
    """Every announcement counts."""


def switch_of(serving: LoadedWeights, load: Load, worker: str) -> WeightsSwitch:
    return WeightsSwitch(Serving(serving), load, worker, check=believe)


def settle(switch: WeightsSwitch, now_ms: int = 99) -> list[ModelEvent]:
    """Turn the loop until nothing is on its way."""
    events = []
    for _ in range(20):
        event = switch.settle(now_ms)
        if event is not None:
            events.append(event)
        if not switch.loading:
            break
        assert switch.wait(60)
    final = switch.settle(now_ms)
    return events + ([final] if final is not None else [])


def test_an_announced_version_serves_after_the_loop_settled_and_not_before() -> None:
    shelf = Shelf()
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    assert switch.settle(60) is None and switch.wait(60)
    held = switch.current
    assert held.default.version == "base"
    (event,) = settle(switch)
    assert (event.kind, event.version, event.parent, event.worker) == (
        "swapped",
        "v1",
        "base",
        "w1",
    )
    assert event.pause_ms is not None and event.pause_ms < 5
    # Whoever took the reference before the swap still holds the old weights, whole.
    assert held.default.version == "base" and switch.current.default.version == "v1"


def test_how_long_a_swap_took_is_told_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks_s = iter([7.0, 7.0 + 0.000_012_345_678])
    switch = switch_of(weights("base"), Shelf().load, "w1")
    monkeypatch.setattr(swap, "time", SimpleNamespace(perf_counter=lambda: next(ticks_s)))
    switch.offer(promoted("v1", 10))
    (event,) = settle(switch)
    assert event.pause_ms == 0.012346


def test_going_back_to_the_weights_before_needs_no_loading() -> None:
    shelf = Shelf()
    switch = switch_of(weights("base"), shelf.load, "w1")
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
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    (event,) = settle(switch)
    assert (
        event.kind == "swap_failed"
        and str(error) in event.reason
        and switch.current.default.version == "base"
    )
    assert settle(switch) == [] and shelf.loaded == ["v1"]


def test_of_several_announcements_only_the_newest_is_served() -> None:
    shelf = Shelf()
    switch = switch_of(weights("base"), shelf.load, "w1")
    for version, at_ms in (("v2", 20), ("v1", 10), ("v3", 30)):
        switch.offer(promoted(version, at_ms))
    switch.offer(promoted("v9", 90, kind="rejected"))
    assert [event.version for event in settle(switch)] == ["v3"] and shelf.loaded == ["v3"]


def test_an_older_announcement_that_comes_later_is_not_served() -> None:
    shelf = Shelf()
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v2", 20))
    switch.offer(promoted("v1", 19))
    assert [event.version for event in settle(switch)] == ["v2"]
    switch.offer(promoted("base", 19, kind="rolled_back"))
    assert settle(switch) == [] and switch.current.default.version == "v2"


def test_what_was_taken_back_at_the_same_moment_while_it_loads_serves_no_longer() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    switch.begin()
    switch.offer(promoted("base", 10, kind="rolled_back"))
    shelf.gate.set()
    settle(switch)
    settle(switch)
    assert switch.current.default.version == "base"


def test_a_version_that_is_overtaken_while_it_loads_never_serves() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    switch.settle(0)
    switch.offer(promoted("v2", 20))
    shelf.gate.set()
    assert [event.version for event in settle(switch)] == ["v2"]
    assert switch.current.default.version == "v2" and shelf.loaded == ["v1", "v2"]


def test_the_version_in_service_is_not_loaded_again() -> None:
    shelf = Shelf()
    switch = switch_of(weights("v1"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    assert settle(switch) == [] and shelf.loaded == []


def test_only_settling_moves_the_reference_through_many_swaps() -> None:
    switch = switch_of(weights("v0"), Shelf().load, "w1")
    for number in range(1, 100):
        before = switch.current
        assert (before.default.version, before.default.sha256) == (
            f"v{number - 1}",
            f"sha-v{number - 1}",
        )
        switch.offer(promoted(f"v{number}", number))
        assert switch.current is before
        switch.begin()
        assert switch.loading and switch.wait(60)
        assert switch.current is before, "loaded, and not yet served"
        (event,) = settle(switch, now_ms=1_000 + number)
        assert (event.kind, event.version, event.sha256, event.parent, event.at_ms) == (
            "swapped",
            f"v{number}",
            f"sha-v{number}",
            f"v{number - 1}",
            1_000 + number,
        )
        assert not switch.loading


def test_weights_that_stand_in_for_others_are_not_what_was_announced() -> None:
    """A fallback says so for ever, unless the version is loaded anew when it is announced."""
    shelf = Shelf()
    switch = switch_of(replace(weights("base"), fallback="v1 is broken"), shelf.load, "w1")
    switch.offer(promoted("base", 10, kind="rolled_back"))
    assert [event.version for event in settle(switch)] == ["base"]
    assert shelf.loaded == ["base"]
    assert switch.current.fallback == ""
    # The ones set aside are no way back either.
    switch.offer(promoted("v1", 20))
    settle(switch)
    assert shelf.loaded == ["base", "v1"]


def test_idle_weights_of_that_name_and_another_checksum_are_not_served() -> None:
    shelf = Shelf()
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    settle(switch)
    switch.offer(msgspec.structs.replace(promoted("base", 20), sha256="another"))
    settle(switch)
    assert shelf.loaded == ["v1", "base"]


def test_the_version_in_service_is_loaded_again_when_its_checksum_is_another() -> None:
    shelf = Shelf()
    switch = switch_of(weights("v1"), shelf.load, "w1")
    switch.offer(msgspec.structs.replace(promoted("v1", 10), sha256="another"))
    settle(switch)
    assert shelf.loaded == ["v1"]


def test_an_announcement_without_a_checksum_names_the_version_alone() -> None:
    shelf = Shelf()
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(msgspec.structs.replace(promoted("base", 10, kind="rolled_back"), sha256=""))
    assert settle(switch) == [] and shelf.loaded == []


def test_what_was_announced_is_loaded_by_name_and_both_checksums() -> None:
    asked = []

    def load(version: str, sha256: str, manifest_sha256: str) -> LoadedWeights:
        asked.append((version, sha256, manifest_sha256))
        return weights(version)

    switch = switch_of(weights("base"), load, "w1")
    switch.offer(msgspec.structs.replace(promoted("v1", 10), uri="/far", manifest_sha256="m"))
    settle(switch)
    assert asked == [("v1", "sha-v1", "m")]


def test_a_refusal_says_what_was_refused_and_what_serves() -> None:
    shelf = Shelf(broken={"v2": WeightsError("bad sha")})
    switch = switch_of(weights("v1"), shelf.load, "w7")
    switch.offer(promoted("v2", 10))
    assert settle(switch, now_ms=44) == [
        ModelEvent(
            kind="swap_failed",
            version="v2",
            at_ms=44,
            sha256="sha-v2",
            parent="v1",
            worker="w7",
            reason="bad sha",
        )
    ]


def test_of_two_announcements_of_one_moment_the_later_one_is_served() -> None:
    switch = switch_of(weights("base"), Shelf().load, "w1")
    switch.offer(promoted("v1", 10))
    switch.offer(promoted("v2", 10))
    assert [event.version for event in settle(switch)] == ["v2"]


def test_a_version_that_was_taken_back_before_it_was_loaded_is_not_loaded() -> None:
    shelf = Shelf()
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    switch.offer(promoted("base", 20, kind="rolled_back"))
    assert settle(switch) == [] and shelf.loaded == []


def test_one_version_is_loaded_at_a_time() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    switch.begin()
    switch.offer(promoted("v2", 20))
    switch.begin()
    assert not switch.wait(0.0), "it still loads"
    shelf.gate.set()
    settle(switch)
    assert shelf.loaded == ["v1", "v2"]
    assert switch.current.default.version == "v2"


# Announcements that do not count ------------------------------------------------------------------


def but_not_v9(event: ModelEvent) -> None:
    """Every announcement counts but that of one version."""
    if event.version == "v9":
        raise RegistryError("no version v9")


def test_a_refused_announcement_changes_nothing_but_is_reported_once() -> None:
    shelf = Shelf()
    switch = WeightsSwitch(Serving(weights("base")), shelf.load, "w7", check=but_not_v9)
    switch.offer(promoted("v9", 90))
    assert settle(switch, now_ms=44) == [
        ModelEvent(
            kind="swap_failed",
            version="v9",
            at_ms=44,
            sha256="sha-v9",
            parent="base",
            worker="w7",
            reason="no version v9",
        )
    ]
    assert settle(switch) == [] and shelf.loaded == []
    # It says to be newer than this one, and is not listened to.
    switch.offer(promoted("v1", 10))
    assert [event.version for event in settle(switch)] == ["v1"]
    assert switch.current.default.version == "v1"


def test_a_version_that_is_refused_only_when_it_is_loaded_does_not_outdate_others() -> None:
    shelf = Shelf(broken={"v9": WeightsError("bad sha")})
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(promoted("v1", 10))
    settle(switch)
    switch.offer(promoted("v9", 90))
    assert [event.kind for event in settle(switch)] == ["swap_failed"]
    switch.offer(promoted("v2", 20))
    assert [event.version for event in settle(switch)] == ["v2"]
    # What is older than the announcement by which v1 served stays overtaken.
    switch.offer(promoted("v3", 5))
    assert settle(switch) == []


def test_a_refusal_that_was_overtaken_is_not_reported() -> None:
    switch = WeightsSwitch(Serving(weights("base")), Shelf().load, "w1", check=but_not_v9)
    switch.offer(promoted("v9", 10))
    switch.offer(promoted("v1", 20))
    assert [event.kind for event in settle(switch)] == ["swapped"]


def test_what_was_refused_serves_once_the_registry_has_it() -> None:
    missing, now_s = [True], [0.0]

    def check(event: ModelEvent) -> None:
        if missing[0]:
            raise RegistryError("the registry is away")

    switch = WeightsSwitch(
        Serving(weights("base")), Shelf().load, "w1", check=check, now_s=lambda: now_s[0]
    )
    switch.offer(promoted("v1", 10))
    assert [event.kind for event in settle(switch)] == ["swap_failed"]
    missing[0] = False
    now_s[0] = 9.9
    assert settle(switch) == []
    now_s[0] = 10.0
    assert [event.kind for event in settle(switch)] == ["swapped"]
    assert switch.current.default.version == "v1"


def test_a_registry_that_is_away_at_the_start_serves_once_it_is_back(tmp_path: Path) -> None:
    registry, now_s = Registry(tmp_path / "registry"), [0.0]
    added = registry.add(lambda folder: save(folder, 1) and None, parent=BASE, created_at_ms=1)
    told = announcement(registry, "promoted", added.version, 5, Assignment(added.version))
    registry.folder.rename(tmp_path / "away")
    switch = WeightsSwitch(
        Serving(weights(BASE)),
        loader(registry, "cpu", "float32"),
        "w1",
        check=checker(registry),
        now_s=lambda: now_s[0],
    )
    switch.offer(told)
    assert [event.kind for event in settle(switch)] == ["swap_failed"]
    (tmp_path / "away").rename(registry.folder)
    now_s[0] = 10.0
    assert [event.kind for event in settle(switch)] == ["swapped"]
    assert switch.current.default.version == added.version


def test_an_announced_folder_is_not_loaded_from(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    added = registry.add(lambda folder: save(folder, 1) and None, parent=BASE, created_at_ms=1)
    foreign = tmp_path / "v0009-20231114T221320Z-00000000"
    sha256 = save(foreign, 2)
    load = loader(registry, "cpu", "float32")
    switch = WeightsSwitch(
        Serving(load(added.version, "", "")), load, "w1", check=checker(registry)
    )
    event = ModelEvent(
        kind="promoted", version=foreign.name, at_ms=5, sha256=sha256, uri=str(foreign)
    )
    switch.offer(event)
    (told,) = settle(switch)
    assert told.kind == "swap_failed" and "names another folder" in told.reason
    assert switch.current.default.version == added.version


# Real files ---------------------------------------------------------------------------------------


def test_a_swapped_bank_forecasts_exactly_like_freshly_loaded_weights(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    first = registry.add(lambda folder: save(folder, 1) and None, parent=BASE, created_at_ms=1)
    second = registry.add(lambda folder: save(folder, 2) and None, parent=BASE, created_at_ms=2)
    load = loader(registry, "cpu", "float32")
    switch = switch_of(load(first.version, "", ""), load, "w1")
    event = ModelEvent(
        kind="promoted", version=second.version, at_ms=5, sha256=second.weights_sha256
    )
    switch.offer(event)
    assert [found.kind for found in settle(switch)] == ["swapped"]
    fresh = BatchForecaster.from_pretrained(registry.path(second.version), "cpu", "float32")
    batch = golden_batch(fresh.network.config)
    assert torch.equal(switch.current.default.forecaster.forecast(batch), fresh.forecast(batch))
    assert switch.current.default.sha256 == second.weights_sha256


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


def test_a_checksum_that_was_announced_is_held_against_the_file(tmp_path: Path) -> None:
    sha256 = save(tmp_path)
    with pytest.raises(WeightsError, match="expected 0000"):
        load_weights("v1", tmp_path, "0" * 64, device="cpu", dtype="float32")
    found = load_weights("v1", tmp_path, "", device="cpu", dtype="float32")
    by_hand = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert found.sha256 == found.forecaster.sha256 == sha256 == by_hand
    assert (found.version, found.fallback) == ("v1", "")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_forecast_on_the_device_that_is_not_finite_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """As float16 overflows where float32 does not."""
    save(tmp_path)
    forecast = BatchForecaster.forecast

    def overflowing(self: BatchForecaster, batch: Batch, **named: Any) -> torch.Tensor:
        quantiles_BHQ = forecast(self, batch, **named).clone()
        quantiles_BHQ[1, 2, 0] = value
        return quantiles_BHQ

    monkeypatch.setattr(BatchForecaster, "forecast", overflowing)
    with pytest.raises(WeightsError, match=r"not finite as torch\.float32"):
        load_weights("v1", tmp_path, "", device="cpu", dtype="float32")


def test_weights_are_proven_in_the_type_in_which_they_serve(tmp_path: Path) -> None:
    save(tmp_path)
    found = load_weights("v1", tmp_path, "", device="cpu", dtype="bfloat16")
    assert found.forecaster.dtype == torch.bfloat16


def test_a_registered_version_is_checked_file_by_file_before_it_is_loaded(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    added = registry.add(lambda folder: save(folder) and None, parent=BASE, created_at_ms=1)
    load = loader(registry, "cpu", "float32")
    assert load(added.version, added.weights_sha256, "").sha256 == added.weights_sha256
    with pytest.raises(WeightsError, match="expected 0000"):
        load(added.version, "0" * 64, "")
    (registry.path(added.version) / "README.md").write_text("altered")
    with pytest.raises(RegistryError, match=r"README\.md was altered"):
        load(added.version, "", "")


def test_weights_are_loaded_from_the_registry_alone_by_what_was_announced(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    added = registry.add(lambda folder: save(folder) and None, parent=BASE, created_at_ms=1)
    load = loader(registry, "cpu", "float32")
    manifest = (registry.path(added.version) / "manifest.json").read_bytes()
    announced = hashlib.sha256(manifest).hexdigest()
    assert load(added.version, "", announced).version == added.version
    with pytest.raises(RegistryError, match="00000000 was announced"):
        load(added.version, "", "0" * 64)
    with pytest.raises(RegistryError, match="has no version"):
        load("v0009-20231114T221320Z-00000000", "", announced)
    with pytest.raises(RegistryError, match="has no version"):
        load(str(registry.path(added.version)), "", announced)


def pinned(folder: Path) -> Settings:
    settings = Settings()
    pin = {"weights": str(folder), "device": "cpu", "dtype": "float32"}
    worker = settings.worker.model_copy(update=pin)
    learn = settings.learn.model_copy(update={"registry": folder.parent / "registry"})
    return settings.model_copy(update={"worker": worker, "learn": learn})


def test_a_folder_that_is_pinned_serves_whatever_it_was_trained_to_reach(tmp_path: Path) -> None:
    """Sixteen steps here: a forecast goes on from there."""
    save(tmp_path / "mine")
    switch = open_switch(pinned(tmp_path / "mine"), "w1")
    assert switch.current.default.version == "mine"


@pytest.mark.parametrize("resolution_ms", [MINUTE_MS, DAY_MS])
def test_a_horizon_beyond_any_weights_at_any_resolution_is_a_mistake(
    tmp_path: Path, resolution_ms: int
) -> None:
    save(tmp_path / "mine")
    asked = [
        {
            "resolution_ms": width_ms,
            "prediction_length": 1_025 if width_ms == resolution_ms else 1_024,
            "season_length": 7,
            "score_steps": [1],
        }
        for width_ms in (MINUTE_MS, HOUR_MS, DAY_MS)
    ]
    worker = {"weights": str(tmp_path / "mine"), "device": "cpu", "resolutions": asked}
    told = f"by {resolution_ms} ms are to reach 1025 steps; the most is 1024"
    with pytest.raises(ConfigError, match=told):
        open_switch(Settings.model_validate({"worker": worker}), "w1")


def test_a_worker_on_a_gpu_that_is_not_there_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    learn = {"registry": str(tmp_path / "registry")}
    settings = Settings.model_validate({"worker": {"device": "cuda"}, "learn": learn})
    with pytest.raises(ConfigError, match="'cuda' was asked for, and PyTorch finds no GPU"):
        open_switch(settings, "w1")


def test_later_weights_serve_on_the_device_and_in_the_type_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "mine", 1)
    asked: list[tuple[str, str]] = []

    def watched(registry: Registry, device: str, dtype: str) -> Load:
        asked.append((device, dtype))
        return loader(registry, device, dtype)

    def first(*_: object, device: str, dtype: str) -> Serving:
        assert (device, dtype) == ("auto", "auto")
        return Serving(load_weights("mine", tmp_path / "mine", "", device="cpu", dtype="float32"))

    monkeypatch.setattr(swap, "loader", watched)
    monkeypatch.setattr(swap, "first_weights", first)
    settings = pinned(tmp_path / "mine")
    worker = settings.worker.model_copy(update={"device": "auto", "dtype": "auto"})
    switch = open_switch(settings.model_copy(update={"worker": worker}), "w1")
    registry = Registry(tmp_path / "registry")
    added = registry.add(lambda folder: save(folder, 2) and None, parent=BASE, created_at_ms=1)
    switch.offer(announcement(registry, "promoted", added.version, 5, Assignment(added.version)))
    assert [event.kind for event in settle(switch)] == ["swapped"]
    assert switch.current.default.forecaster.dtype == torch.float32
    assert asked == [("auto", "auto"), ("cpu", "float32")], "what was found serves again"


def test_an_altered_champion_is_replaced_by_the_base_which_says_why() -> None:
    shelf = Shelf(broken={"v1": RegistryError("model.safetensors was altered")})
    found = first_weights(shelf.load, lambda: Assignment("v1"), "", device="cpu", dtype="float32")
    assert found.default.version == BASE and "altered" in found.fallback


def test_the_champion_serves_from_the_start() -> None:
    shelf = Shelf()
    found = first_weights(shelf.load, lambda: Assignment("v3"), "", device="cpu", dtype="float32")
    assert (found.default.version, found.fallback, shelf.loaded) == ("v3", "", ["v3"])


def test_a_registry_that_cannot_be_read_leaves_the_base_which_says_why() -> None:
    def champion() -> Assignment:
        raise RegistryError("the alias cannot be read")

    found = first_weights(Shelf().load, champion, "", device="cpu", dtype="float32")
    assert found.default.version == BASE and "alias cannot be read" in found.fallback


def test_without_champion_the_base_serves_and_a_pinned_folder_comes_first(tmp_path: Path) -> None:
    assert (
        first_weights(
            Shelf().load, lambda: Assignment(), "", device="cpu", dtype="float32"
        ).fallback
        == ""
    )
    save(tmp_path / "mine")
    assert (
        first_weights(
            Shelf().load,
            lambda: Assignment("v1"),
            str(tmp_path / "mine"),
            device="cpu",
            dtype="float32",
        ).default.version
        == "mine"
    )


def test_with_nothing_to_serve_it_stops() -> None:
    def load(version: str, sha256: str, manifest_sha256: str) -> LoadedWeights:
        raise WeightsError(f"no weights at {version}")

    with pytest.raises(FreshetError, match="no weights at base"):
        first_weights(load, lambda: Assignment("v1"), "", device="cpu", dtype="float32")


# Two that serve -----------------------------------------------------------------------------------


def both(default: str, other: str, *segments: str, at_ms: int = 10, **over: Any) -> ModelEvent:
    """That another version serves some segments from now on."""
    parts = [
        ServingVersion(version=default, sha256=f"sha-{default}"),
        ServingVersion(version=other, sha256=f"sha-{other}", segments=list(segments)),
    ]
    return msgspec.structs.replace(promoted(other, at_ms), serves=parts, **over)


def test_two_versions_are_swapped_in_as_one() -> None:
    shelf = Shelf()
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(both("v1", "v2", "pets", "toys"))
    before = switch.current
    switch.begin()
    assert switch.wait(60) and switch.current is before
    (event,) = settle(switch)
    assert (event.kind, event.version, event.parent) == ("swapped", "v2", "base")
    assert event.sha256 == "sha-v2"
    now = switch.current
    assert now.assignment == Assignment("v1", "v2", ("pets", "toys"))
    assert [now.of(name).version for name in ("pets", "toys", "games", "-")] == [
        "v2",
        "v2",
        "v1",
        "v1",
    ]
    assert shelf.loaded == ["v1", "v2"]


@pytest.mark.parametrize("broken", ["v1", "v2"])
def test_where_either_cannot_be_loaded_neither_serves(broken: str) -> None:
    shelf = Shelf(broken={broken: WeightsError(f"{broken} is broken")})
    switch = switch_of(weights("base"), shelf.load, "w1")
    switch.offer(both("v1", "v2", "pets"))
    (event,) = settle(switch)
    assert (event.kind, event.version, event.parent) == ("swap_failed", "v2", "base")
    assert event.reason == f"{broken} is broken"
    assert switch.current.assignment == Assignment()


def test_what_serves_or_served_is_not_loaded_again() -> None:
    shelf = Shelf()
    switch = switch_of(weights("v1"), shelf.load, "w1")
    switch.offer(both("v1", "v2", "pets"))
    (added,) = settle(switch)
    assert (added.version, added.parent) == ("v2", "v1"), "nobody gave way"
    switch.offer(both("v1", "v2", "pets", "toys", at_ms=20))
    (more,) = settle(switch)
    assert switch.current.of("toys").version == "v2" and more.version == "v2"
    switch.offer(promoted("v1", 30, kind="rolled_back"))
    (back,) = settle(switch)
    assert (back.version, back.parent) == ("v1", "v2")
    assert switch.current.assignment == Assignment("v1")
    assert shelf.loaded == ["v2"]


def test_what_is_announced_as_it_serves_is_not_swapped() -> None:
    switch = switch_of(weights("v1"), Shelf().load, "w1")
    for at_ms in (10, 20):
        switch.offer(both("v1", "v2", "pets", at_ms=at_ms))
    assert len(settle(switch)) == 1
    switch.offer(both("v1", "v2", "pets", at_ms=30))
    assert settle(switch) == []


def test_a_champion_of_two_versions_serves_from_the_start() -> None:
    shelf = Shelf()
    found = first_weights(
        shelf.load,
        lambda: Assignment("v1", "v2", ("pets",)),
        "",
        device="cpu",
        dtype="float32",
    )
    assert found.assignment == Assignment("v1", "v2", ("pets",)) and found.fallback == ""
    assert shelf.loaded == ["v1", "v2"]


def test_a_champion_of_which_one_is_altered_is_replaced_by_the_base_for_everybody() -> None:
    shelf = Shelf(broken={"v2": RegistryError("v2 was altered")})
    found = first_weights(
        shelf.load,
        lambda: Assignment("v1", "v2", ("pets",)),
        "",
        device="cpu",
        dtype="float32",
    )
    assert found.assignment == Assignment() and "v2 was altered" in found.fallback
    # And is served as soon as it can be.
    switch = WeightsSwitch(found, Shelf().load, "w1", check=believe)
    switch.offer(both("v1", "v2", "pets"))
    settle(switch)
    assert switch.current.assignment == Assignment("v1", "v2", ("pets",))
