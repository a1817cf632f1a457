"""Low-rank additions to a base network as files, in the layout of peft, which is not needed here.

A folder holds `adapter_config.json` and `adapter_model.safetensors`, a few hundred kilobytes beside
megabytes of weights; `peft.PeftModel.from_pretrained(base, folder)` reads it as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from freshet.model.network import FreshetNetwork
from freshet.stream.errors import WeightsError

CONFIG_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"
# Before every name that peft writes: the model that it wraps around another one.
PREFIX = "base_model.model."
SHIPPED = "freshet"  # stands for the weights that ship, wherever they lie


@dataclass(frozen=True, slots=True)
class Adapter:
    """Additions of rank r: each named matrix becomes W + alpha / r * B @ A.

    Attributes:
        rank: r, rows of every A and columns of every B.
        alpha: how much they count, r times.
        tensors: "layers.0.up.lora_A.weight" [r, in], "layers.0.up.lora_B.weight" [out, r], ...
    """

    rank: int
    alpha: float
    tensors: dict[str, Tensor]

    def times(self, factor: float) -> Adapter:
        """The additions, a part of the way from the base."""
        return Adapter(self.rank, factor * self.alpha, self.tensors)


def mean_adapter(adapters: list[Adapter]) -> Adapter:
    """Additions that add the mean of what these do: their ranks side by side.

    A mean of products is no product of means, so that the rank grows with their number.
    """
    count = len(adapters)
    if count == 1:
        return adapters[0]
    tensors = {}
    for name in adapters[0].tensors:
        theirs = [adapter.tensors[name] for adapter in adapters]
        tensors[name] = torch.cat(theirs, 0 if ".lora_A." in name else 1)
    # alpha / rank stays what it was, for the sum; the mean is that over the count.
    first = adapters[0]
    return Adapter(count * first.rank, first.alpha, tensors)


def write_adapter(adapter: Adapter, directory: Path, *, base: str, base_sha256: str) -> None:
    """Write the additions, the tensors last.

    Args:
        adapter: what is added.
        directory: is made.
        base: where the weights lie that it adds to, or SHIPPED.
        base_sha256: of those weights; no other ones will do.
    """
    directory.mkdir(parents=True, exist_ok=True)
    modules = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in adapter.tensors}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "revision": base_sha256,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "target_modules": sorted(modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    named = {PREFIX + name: value.contiguous() for name, value in adapter.tensors.items()}
    (directory / TENSORS_FILE).write_bytes(save(named, metadata={"format": "pt"}))


def holds_adapter(directory: Path) -> bool:
    """Whether a folder holds additions to weights rather than weights."""
    return (directory / CONFIG_FILE).is_file()


def base_of(directory: Path) -> tuple[str, str]:
    """Where the weights lie that a folder adds to, or SHIPPED, and their sha256.

    Raises:
        WeightsError: the folder's config cannot be read.
    """
    config = _config(directory)
    return str(config.get("base_model_name_or_path")), str(config.get("revision"))


@torch.no_grad()
def add(network: FreshetNetwork, directory: Path) -> None:
    """Make a folder's additions part of a network's matrices, in place.

    Raises:
        WeightsError: it cannot be read, or does not fit the network.
    """
    config = _config(directory)
    try:
        tensors = load_file(directory / TENSORS_FILE)
        scale = float(config["lora_alpha"]) / int(config["r"])
        for name, first in tensors.items():
            if ".lora_A." in name:
                matrix = network.get_parameter(name.removeprefix(PREFIX).replace(".lora_A", ""))
                matrix.add_(scale * tensors[name.replace(".lora_A.", ".lora_B.")] @ first)
    except (OSError, SafetensorError, KeyError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            f"the additions in {directory} do not fit the weights: {error}",
            hint="they belong to another network, or a file is missing or broken",
        ) from error


def _config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_FILE
    try:
        config = json.loads(path.read_text())
        kind = config.get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} is not a readable config: {error}") from error
    if kind != "LORA":
        raise WeightsError(f"{path} describes a {kind!r} adapter, expected 'LORA'")
    return dict(config)
