"""Weights that were altered in any way are refused, and the message says how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from freshet.model import weights
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.stream.errors import WeightsError


@pytest.fixture
def saved(tiny_network: FreshetNetwork, tmp_path: Path) -> Path:
    weights.save_weights(tiny_network, tmp_path / "v1", card="# a card\n")
    return tmp_path / "v1"


def rewrite(directory: Path, name: str, change: object) -> None:
    tensors = load_file(directory / weights.WEIGHTS_FILE)
    tensors[name] = change(tensors[name])  # type: ignore[operator]
    save_file(tensors, directory / weights.WEIGHTS_FILE)


def test_what_was_saved_is_verified_and_computes_the_same(saved, tiny_network) -> None:
    verified = weights.verify_weights(saved, weights.sha256_of(saved))
    assert verified.num_parameters == sum(p.numel() for p in tiny_network.parameters())
    assert (saved / weights.CARD_FILE).read_text() == "# a card\n"
    for found, original in zip(
        verified.network.parameters(), tiny_network.parameters(), strict=True
    ):
        torch.testing.assert_close(found, original, rtol=0.01, atol=1e-3)


def test_saving_verified_weights_again_gives_the_same_file(saved, tmp_path) -> None:
    again = weights.save_weights(weights.verify_weights(saved).network, tmp_path / "v2", card="")
    assert again == weights.sha256_of(saved)


def test_looking_at_shapes_draws_no_numbers(saved, monkeypatch) -> None:
    """On the meta device that loads torch's compiler: a second that every process would wait."""
    drawn: set[str] = set()

    def init(_: FreshetNetwork, module: torch.nn.Module) -> None:
        drawn.update(parameter.device.type for parameter in module.parameters())

    monkeypatch.setattr(FreshetNetwork, "_init_weights", init)
    weights.verify_weights(saved)
    assert drawn == {"cpu"}


def test_another_sha256_than_expected_is_refused(saved) -> None:
    with pytest.raises(WeightsError, match="expected 0000"):
        weights.verify_weights(saved, "0000")


def test_missing_weights_are_named(tmp_path) -> None:
    with pytest.raises(WeightsError, match="no weights at"):
        weights.verify_weights(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_a_truncated_file_is_refused(saved, keep) -> None:
    path = saved / weights.WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"truncated|safetensors"):
        weights.verify_weights(saved)


def test_a_pickle_is_refused(saved) -> None:
    torch.save({"kind": torch.zeros(3)}, saved / weights.WEIGHTS_FILE)
    with pytest.raises(WeightsError, match="safetensors"):
        weights.verify_weights(saved)


def test_a_wrong_shape_is_named(saved) -> None:
    rewrite(saved, "kind", lambda kind: kind[:2].clone())
    with pytest.raises(WeightsError, match=r"kind with shape \(2, 32\), .*expects \(3, 32\)"):
        weights.verify_weights(saved)


def test_a_missing_tensor_is_named(saved) -> None:
    tensors = load_file(saved / weights.WEIGHTS_FILE)
    del tensors["final_norm.weight"]
    save_file(tensors, saved / weights.WEIGHTS_FILE)
    with pytest.raises(WeightsError, match=r"final_norm.weight with shape None"):
        weights.verify_weights(saved)


def test_a_value_that_is_not_finite_is_refused(saved) -> None:
    rewrite(
        saved,
        "layers.0.up.weight",
        lambda weight: weight.index_fill(0, torch.tensor([0]), torch.nan),
    )
    with pytest.raises(WeightsError, match=r"layers\.0\.up\.weight that is not finite"):
        weights.verify_weights(saved)


def test_weights_that_compute_something_else_are_refused(saved) -> None:
    rewrite(saved, "head.mlp.down.weight", lambda weight: weight * 1.05)
    with pytest.raises(WeightsError, match="golden forecast"):
        weights.verify_weights(saved)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"model_type": "bert"}', '{"model_type": "freshet", "width": "x"}']
)
def test_a_broken_config_is_refused(saved, text) -> None:
    (saved / weights.CONFIG_FILE).write_text(text)
    with pytest.raises(WeightsError):
        weights.verify_weights(saved)


def test_a_missing_golden_forecast_is_refused(saved) -> None:
    (saved / weights.GOLDEN_FILE).unlink()
    with pytest.raises(WeightsError, match="golden"):
        weights.verify_weights(saved)


def test_the_golden_batch_is_the_same_everywhere_and_holds_every_difficulty(
    tiny_config: FreshetConfig,
) -> None:
    batch = weights.golden_batch(tiny_config).validate()
    assert batch.target_BT[0, :4].tolist() == [126.0, 51.0, 83.0, 103.0]
    assert bool(torch.isnan(batch.target_BT[2]).all())
    assert bool(torch.isnan(batch.past_BTP[3]).all())


def test_the_weights_that_ship_are_small_documented_and_verified(tmp_path) -> None:
    verified = weights.verify_weights(weights.BASE_WEIGHTS)
    assert (weights.BASE_WEIGHTS / weights.WEIGHTS_FILE).stat().st_size <= 13e6
    assert (
        json.loads((weights.BASE_WEIGHTS / weights.CONFIG_FILE).read_text())["model_type"]
        == "freshet"
    )
    assert verified.sha256 in (weights.BASE_WEIGHTS / weights.CARD_FILE).read_text()
    copied = shutil.copytree(weights.BASE_WEIGHTS, tmp_path / "copy")
    assert weights.verify_weights(copied).sha256 == verified.sha256
