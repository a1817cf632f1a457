"""Low-rank additions to a network's matrices (Hu et al. 2021): trained alone, then part of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from freshet.model.adapter import PREFIX, Adapter
from freshet.model.network import FreshetNetwork
from freshet.stream.errors import InvalidInputError

RANK = 8
SCALE = 16  # an addition counts SCALE / RANK times
MATRICES = ("qkv", "out", "up", "down")


def attach(network: FreshetNetwork) -> Callable[[], tuple[FreshetNetwork, Adapter]]:
    """Give the attention's and the MLPs' matrices additions of rank 8; nothing else can learn then.

    They start at zero. Changes the network in place and draws from torch's global generator.

    Returns:
        What to call after training: it makes the additions part of the matrices and returns a
            plain network, and the additions.

    Raises:
        InvalidInputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise InvalidInputError(
            "tuning with lora needs the package peft, which is not installed",
            hint="pip install 'freshet[train]'",
        ) from None
    config = LoraConfig(r=RANK, lora_alpha=SCALE, target_modules=list(MATRICES))
    adapted = get_peft_model(network, config)

    def finish() -> tuple[FreshetNetwork, Adapter]:
        # "base_model.model.layers.0.up.lora_A.default.weight", without the adapter's own name.
        tensors = {
            name.removeprefix(PREFIX).replace(".default.", "."): parameter.detach().clone()
            for name, parameter in adapted.named_parameters()
            if ".lora_" in name
        }
        return cast(FreshetNetwork, adapted.merge_and_unload()), Adapter(RANK, SCALE, tensors)

    return finish
