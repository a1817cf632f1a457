"""A network small enough to run anywhere, with weights that are not at their silent start."""

from __future__ import annotations

import pytest
import torch

from freshet.model.batch import Batch
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.synthetic.mixture import sample


@pytest.fixture(scope="session")
def tiny_config() -> FreshetConfig:
    return FreshetConfig(
        width=32, num_layers=2, num_heads=2, context_length=128, prediction_length=32, step_width=8
    )


@pytest.fixture
def tiny_network(tiny_config: FreshetConfig) -> FreshetNetwork:
    torch.manual_seed(0)
    network = FreshetNetwork(tiny_config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.1)
    network.train(mode=False)
    return network


@pytest.fixture
def drawn() -> tuple[Batch, torch.Tensor]:
    """Twelve synthetic rows, context 128 at most, horizon 32, with their actuals."""
    return sample(torch.Generator().manual_seed(8), 12, context_length=128, prediction_length=32)
