"""Versions are stored with all that is known of them, and come back as they were judged."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from freshet.model.weights import golden_batch, save_weights
from freshet.online.learn.finetune import Challenger
from freshet.online.learn.networks import Candidate, VersionedNetworks, report_of
from freshet.online.weights.registry import BASE, Manifest, Registry
from freshet.stream.errors import RegistryError
from freshet.stream.schemas import RetrainRequest
from tests.online.learn.learning import network_that_says, said_by

CARD = """---
library_name: transformers
pipeline_tag: time-series-forecasting
---

# freshet weights fine-tuned from base

Asked for by `r1` (drift; segments: shoes, lamps).
3 steps, then 0.5 of the way from the parent to the tuned weights, chosen on validation windows, \
and 0.25 of the way from the shipped weights to that.

## Gate

| line | value |
|---|---|
| verdict | promote |
| gain | 0.25 |
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_weights(network_that_says(24.0), folder, card="# base\n")
    return folder


@pytest.fixture
def networks(tmp_path: Path, base: Path) -> VersionedNetworks:
    return VersionedNetworks(Registry(tmp_path / "registry"), "cpu", base)


def registered(networks: VersionedNetworks, segments: tuple[str, ...] = ()) -> Manifest:
    request = RetrainRequest(
        request_id="r1", requested_at_ms=3, reason="drift", segments=list(segments)
    )
    challenger = Challenger(
        network=network_that_says(29.0),
        factor=0.5,
        validation={1.0: 3.0, 0.5: 2.0},
        train_losses=(3.0, 2.0, 1.0),
        seconds=7.0,
        kept=0.25,
    )
    report: dict[str, float | str | bool] = {"verdict": "promote", "gain": 0.25}
    candidate = Candidate(request, BASE, challenger, report, {"orders:0": 17})
    return networks.register(candidate, created_at_ms=1_000)


def test_before_each_pass_of_a_network_or_its_copy_it_may_be_told_to_stop(
    networks: VersionedNetworks,
) -> None:
    told: list[bool] = []

    def stopped() -> None:
        if told:
            raise StopIteration

    asking = replace(networks, stopped=stopped).load(BASE)
    batch = golden_batch(asking.config).arguments()
    copied = copy.deepcopy(asking)
    asking(*batch)
    told.append(True)
    for network in (asking, copied):
        with pytest.raises(StopIteration):
            network(*batch)
    networks.load(BASE)(*batch)


def test_a_version_keeps_where_it_comes_from_and_why_it_passed(
    networks: VersionedNetworks,
) -> None:
    manifest = registered(networks, ("shoes", "lamps"))
    assert networks.registry.list() == (manifest,)
    assert (manifest.parent, manifest.request_id, manifest.created_at_ms) == (BASE, "r1", 1_000)
    assert manifest.offsets == {"orders:0": 17}
    assert manifest.gate == {"verdict": "promote", "gain": 0.25}
    folder = networks.registry.path(manifest.version)
    assert json.loads((folder / "gate.json").read_text()) == manifest.gate
    assert (folder / "README.md").read_text() == CARD


def test_a_card_of_no_segment_speaks_of_all(networks: VersionedNetworks) -> None:
    folder = networks.registry.path(registered(networks).version)
    assert "(drift; segments: all)" in (folder / "README.md").read_text()


def test_each_version_comes_back_as_it_was_stored(networks: VersionedNetworks) -> None:
    version = registered(networks).version
    assert said_by(networks.load(version)) == 29.0
    assert said_by(networks.load(BASE)) == 24.0


def test_weights_that_were_trained_elsewhere_become_a_version_of_the_same_files(
    networks: VersionedNetworks, tmp_path: Path
) -> None:
    folder = tmp_path / "trained"
    save_weights(network_that_says(27.0), folder, card="# trained elsewhere\n")
    (folder / "notes.txt").write_text("nobody needs these")
    report: dict[str, float | str | bool] = {"verdict": "promote", "gain": 0.5}
    manifest = networks.adopt(
        folder, parent=BASE, created_at_ms=7, report=report, offsets={"orders:0": 3}
    )
    assert networks.registry.list() == (manifest,)
    assert (manifest.parent, manifest.created_at_ms, manifest.request_id) == (BASE, 7, "")
    assert (manifest.gate, manifest.offsets) == (report, {"orders:0": 3})
    made = networks.registry.path(manifest.version)
    assert json.loads((made / "gate.json").read_text()) == report
    same = {"model.safetensors", "config.json", "golden.safetensors", "README.md"}
    assert {path.name for path in made.iterdir()} == same | {"gate.json", "manifest.json"}
    for name in same:
        assert (made / name).read_bytes() == (folder / name).read_bytes()
    assert said_by(networks.load(manifest.version)) == 27.0


def test_an_altered_version_does_not_come_back(networks: VersionedNetworks) -> None:
    version = registered(networks).version
    (networks.registry.path(version) / "gate.json").write_text("{}")
    with pytest.raises(RegistryError, match=r"gate.json was altered"):
        networks.load(version)
    with pytest.raises(RegistryError):
        networks.load("v0009-nowhere")


def test_a_report_holds_the_verdict_and_how_long_it_took_to_the_millisecond() -> None:
    verdict: Any = SimpleNamespace(report=lambda: {"verdict": "promote"})
    challenger: Any = SimpleNamespace(factor=0.5, kept=0.75, seconds=1.23451)
    pools: Any = SimpleNamespace(num_training_windows=12)
    assert report_of(verdict, challenger, pools, total_s=6.78949) == {
        "verdict": "promote",
        "factor": 0.5,
        "kept": 0.75,
        "tune_s": 1.235,
        "total_s": 6.789,
        "windows": 12.0,
    }
