"""`transformers.AutoModel` finds the network, whoever is imported first; forecasts do without."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModel

from freshet.model.automodel import FreshetModel
from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.network import FreshetConfig
from freshet.model.weights import golden_forecast, verify_weights

LOAD = f"print(type(transformers.AutoModel.from_pretrained({str(BASE_WEIGHTS)!r})).__name__)"


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=240
    ).stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    ["import freshet, transformers", "from transformers import AutoModel\nimport freshet"],
)
def test_import_freshet_alone_is_enough(imports: str) -> None:
    assert run(f"{imports}\nimport transformers\n{LOAD}") == "FreshetModel"


def test_import_freshet_loads_neither_torch_nor_transformers() -> None:
    heavy = "sorted({'torch', 'transformers'} & set(sys.modules))"
    assert run(f"import freshet, sys\nprint({heavy})") == "[]"


@pytest.mark.slow
def test_forecasting_loads_neither_the_compiler_nor_sklearn() -> None:
    heavy = "sorted({'torch._dynamo', 'sklearn', 'transformers.modeling_utils'} & set(sys.modules))"
    assert run(f"import freshet, sys\nfreshet.Forecaster\nprint({heavy})") == "[]"


def test_saved_and_loaded_by_name_it_computes_the_same(tiny_network, tmp_path) -> None:
    network = FreshetModel(tiny_network.config)
    network.load_state_dict(tiny_network.state_dict())
    network.save_pretrained(tmp_path)
    automatic = AutoModel.from_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), FreshetConfig)
    assert isinstance(automatic, FreshetModel)
    assert torch.equal(golden_forecast(automatic), golden_forecast(tiny_network))


def test_it_loads_a_directory_of_weights() -> None:
    loaded = FreshetModel.from_pretrained(BASE_WEIGHTS, dtype=torch.float32)
    verified = verify_weights(BASE_WEIGHTS).network
    assert torch.equal(golden_forecast(loaded), golden_forecast(verified))
