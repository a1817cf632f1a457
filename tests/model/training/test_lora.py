"""Low-rank tuning leaves a plain network behind that forecasts what the adapted one did."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from freshet.model.adapter import write_adapter
from freshet.model.network import FreshetNetwork
from freshet.model.training import lora
from freshet.model.training.train import FineTuneSettings, fine_tune, held_out_loss
from freshet.model.weights import load_weights, save_weights, verify_weights
from freshet.stream.errors import InvalidInputError, WeightsError

pytest.importorskip("peft", reason="peft comes with freshet[train]")
SETTINGS = FineTuneSettings(steps=12, learning_rate=1e-2, warmup_steps=2, tune="lora")


def test_merged_weights_forecast_what_the_adapted_network_did(tiny_network, drawn) -> None:
    batch, _ = drawn
    adapted = copy.deepcopy(tiny_network)
    finish = lora.attach(adapted)
    with torch.no_grad():
        base = tiny_network(*batch.arguments()).z_BHQ
        torch.testing.assert_close(
            adapted(*batch.arguments()).z_BHQ, base
        )  # The additions start at zero.
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        expected = adapted(*batch.arguments()).z_BHQ
        merged, _ = finish()
        found = merged(*batch.arguments()).z_BHQ
    assert type(merged) is FreshetNetwork
    assert merged.state_dict().keys() == tiny_network.state_dict().keys()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - base).abs().max() > 0.01


def test_it_learns_and_changes_the_matrices_alone(tiny_network, drawn) -> None:
    before = copy.deepcopy(tiny_network.state_dict())
    result = fine_tune(tiny_network, lambda generator: drawn, settings=SETTINGS)
    assert held_out_loss(result.network, *drawn) < held_out_loss(tiny_network, *drawn)
    after = result.network.state_dict()
    assert after.keys() == before.keys()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert "layers.0.attention.qkv.weight" in moved and "layers.1.down.weight" in moved
    assert {name.split(".")[-2] for name in moved} <= set(lora.MATRICES)
    assert all(
        torch.equal(value, before[name]) for name, value in tiny_network.state_dict().items()
    )
    assert all(parameter.requires_grad for parameter in result.network.parameters())


def test_the_same_seed_gives_the_same_weights(tiny_network, drawn) -> None:
    first, second = (
        fine_tune(
            tiny_network, lambda generator: drawn, settings=replace(SETTINGS, steps=2)
        ).network.state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("seeds", "factor"), [(1, 1.0), (1, 0.5), (2, 1.0)])
def test_its_files_are_read_as_peft_reads_them(
    tiny_network, drawn, tmp_path: Path, seeds: int, factor: float
) -> None:
    from peft import PeftModel

    settings = replace(SETTINGS, steps=3, num_seeds=seeds)
    tuned = fine_tune(tiny_network, lambda generator: drawn, settings=settings)
    assert tuned.adapter is not None
    sha256 = save_weights(tiny_network, tmp_path / "base", card="")
    base = str(tmp_path / "base")
    adapter = tuned.adapter.times(factor)
    write_adapter(adapter, tmp_path / "added", base=base, base_sha256=sha256)

    stored = verify_weights(tmp_path / "base").network
    peft = PeftModel.from_pretrained(copy.deepcopy(stored), tmp_path / "added")
    expected = peft.merge_and_unload().state_dict()
    found = load_weights(tmp_path / "added").network.state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    # What was written is as far from the base as the tuned network is, times the factor.
    name = "layers.0.attention.qkv.weight"
    moved = tuned.network.state_dict()[name] - tiny_network.state_dict()[name]
    assert moved.abs().max() > 1e-4
    torch.testing.assert_close(
        found[name] - stored.state_dict()[name], factor * moved, rtol=1e-3, atol=1e-6
    )


def test_additions_to_other_weights_or_of_another_kind_are_refused(
    tiny_network, drawn, tmp_path: Path
) -> None:
    tuned = fine_tune(tiny_network, lambda generator: drawn, settings=replace(SETTINGS, steps=1))
    assert tuned.adapter is not None
    save_weights(tiny_network, tmp_path / "base", card="")
    base = str(tmp_path / "base")
    write_adapter(tuned.adapter, tmp_path / "added", base=base, base_sha256="0" * 64)
    with pytest.raises(WeightsError, match=f"expected {'0' * 64}"):
        load_weights(tmp_path / "added")
    config = json.loads((tmp_path / "added" / "adapter_config.json").read_text())
    (tmp_path / "added" / "adapter_config.json").write_text(
        json.dumps(config | {"peft_type": "IA3"})
    )
    with pytest.raises(WeightsError, match="describes a 'IA3' adapter"):
        load_weights(tmp_path / "added")


def test_without_peft_it_says_what_to_install(tiny_network, drawn, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InvalidInputError, match=r"freshet\[train\]"):
        fine_tune(tiny_network, lambda generator: drawn, settings=SETTINGS)


@pytest.mark.slow
def test_the_network_can_be_exported(tiny_network, drawn) -> None:
    batch, _ = drawn
    program = torch.export.export(tiny_network, batch.arguments())
    with torch.no_grad():
        found, expected = (
            program.module()(*batch.arguments())[0],
            tiny_network(*batch.arguments()).z_BHQ,
        )
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_the_network_can_be_compiled(tiny_network, drawn) -> None:
    batch, _ = drawn
    with torch.no_grad():
        # Tracing is what may fail; the code that a backend makes of it needs a compiler that not
        # every machine has.
        found = torch.compile(tiny_network, backend="eager")(*batch.arguments()).z_BHQ
        torch.testing.assert_close(found, tiny_network(*batch.arguments()).z_BHQ)
