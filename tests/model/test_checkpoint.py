"""Weights whose files are not whole are refused by name, without a network."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from freshet.model.checkpoint import BASE_WEIGHTS, check_whole
from freshet.stream.errors import WeightsError


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(BASE_WEIGHTS, tmp_path / "weights")


def test_what_ships_is_whole(copied: Path) -> None:
    sha256 = hashlib.sha256((copied / "model.safetensors").read_bytes()).hexdigest()
    assert check_whole(copied) == sha256


@pytest.mark.parametrize("name", ["model.safetensors", "golden.safetensors"])
@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_file_that_ends_early_is_named(copied: Path, name: str, left: int) -> None:
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[:left])
    with pytest.raises(WeightsError, match=f"{name} cannot be read as safetensors: ."):
        check_whole(copied)


@pytest.mark.parametrize("name", ["model.safetensors", "golden.safetensors", "config.json"])
def test_a_file_that_is_missing_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(WeightsError, match=name):
        check_whole(copied)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_type": "bert"}', "\udcff"])
def test_a_config_that_is_not_ours_is_named(copied: Path, text: str) -> None:
    (copied / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WeightsError, match=r"config\.json"):
        check_whole(copied)
