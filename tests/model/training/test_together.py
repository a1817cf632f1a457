"""Two processes, as `accelerate launch` starts them, train to the weights of one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.training.together import Team, joined, team

# What `accelerate launch --multi_gpu --num_processes 2` runs; here without a GPU.
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]


def launched(*arguments: str) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [*TORCHRUN, f"--master-port={port}", "-m", "freshet", *arguments]


def call(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=300
    )


def distance(first: Path, second: Path) -> float:
    """How far weights lie apart in all."""
    ours, theirs = load_file(first), load_file(second)
    parts = [(theirs[name].float() - values.float()).ravel() for name, values in ours.items()]
    return float(torch.cat(parts).norm())


def test_alone_nothing_is_waited_for() -> None:
    with joined({}) as alone:
        assert (alone, team()) == (Team(), Team())
    loss = torch.tensor(3.0)
    assert alone.add_up([torch.zeros(2)], loss) is loss and alone.agreed(2.5) == 2.5
    assert alone.share(3, "cpu").tolist() == [0, 1, 2]


def test_every_row_is_computed_once() -> None:
    for rows in (1, 7, 8):
        shares = [Team(place, 3).share(rows, "cpu") for place in range(3)]
        assert sorted(torch.cat(shares).tolist()) == list(range(rows))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Sales every fifth day, which nobody told the network of before."""
    day = pd.date_range("2024-01-01", periods=120)
    parts = []
    for item in range(4):
        sold = np.where((np.arange(120) + item) % 5 == 0, 40.0, 2.0)
        parts.append(pd.DataFrame({"sku": f"s{item}", "day": day, "sold": sold}))
    pd.concat(parts).to_csv(tmp_path / "sales.csv", index=False)
    return tmp_path / "sales.csv"


@pytest.mark.slow
def test_two_processes_tune_to_the_weights_of_one(table: Path, tmp_path: Path) -> None:
    words = f"train --data {table} --item-id sku --time day --target sold --prediction-length 7"
    options = [*words.split(), "--steps", "4", "-o"]
    one = call([sys.executable, "-m", "freshet", *options, str(tmp_path / "one")])
    two = call(launched(*options, str(tmp_path / "two")))
    # The first process speaks for both.
    assert two.stdout.count("steps on 4 series") == one.stdout.count("steps on 4 series") == 1
    weights = tmp_path / "one/model.safetensors"
    moved = distance(BASE_WEIGHTS / "model.safetensors", weights)
    apart = distance(tmp_path / "two/model.safetensors", weights)
    # Some numbers are rounded the other way after another order of additions.
    assert moved > 0.1 and apart < 1e-3 * moved


@pytest.mark.slow
def test_two_processes_pretrain_to_the_weights_of_one(tmp_path: Path) -> None:
    words = "pretrain --size edge --steps 3 --batch-size 6 --device cpu"
    options = [*words.split(), "-o"]
    call([sys.executable, "-m", "freshet", *options, str(tmp_path / "one")])
    two = call(launched(*options, str(tmp_path / "two")))
    assert len(two.stdout.splitlines()) == 1, "one report, of the first process"
    name = "checkpoint.safetensors"
    ours, theirs = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(theirs[key], ours[key], rtol=1e-3, atol=1e-5)
