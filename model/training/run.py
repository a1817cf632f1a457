"""One pre-training run: network, optimiser, averaged weights and checkpoint.

Dimensions: B rows, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.devices import pick_device
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.synthetic.mixture import sample
from freshet.model.training.loss import network_loss
from freshet.model.training.together import team

# What `--size` names: the weights that ship are of the default one.
SIZES: dict[str, dict[str, Any]] = {
    "edge": {"width": 64, "num_layers": 3, "num_heads": 2},
    "default": {},
    "quality": {"width": 256, "num_layers": 6, "num_heads": 8, "mlp_ratio": 4},
}
CHECKPOINT = "checkpoint.safetensors"
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """What one pre-training run does; the same settings give the same weights.

    Attributes:
        output: folder for checkpoints, the log and, in `weights/`, the weights.
        size: of the network, one of SIZES.
        steps: optimiser steps in all; the learning rate decays over the last `decay_share` of them.
        batch_size: windows a step.
        learning_rate: the plateau of warm-up, stable, decay.
        averaging: share of the old weights in the running average, per step.
        checkpoint_every_s: wall seconds between checkpoints.
        minutes: stop (resumable) after so many minutes; None runs to the end.
        device: "auto", "cpu", "cuda", ...; the data are made there too.
        mixed_precision: compute in bfloat16 where that is safe: twice as fast on CPUs that know it.
    """

    output: Path
    size: str = "default"
    steps: int = 12_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_steps: int = 300
    decay_share: float = 0.3
    averaging: float = 0.998
    seed: int = 0
    device: str = "auto"
    mixed_precision: bool = False
    checkpoint_every_s: float = 180.0
    report_every_steps: int = 250
    minutes: float | None = None

    def as_dict(self) -> dict[str, object]:
        """Plain values by name, for files."""
        return asdict(self) | {"output": str(self.output)}


def learning_rate_at(step: int, settings: PretrainSettings) -> float:
    """Warm-up, stable, then square-root decay to zero over the last share of the steps.

    >>> settings = PretrainSettings(
    ...     Path("."), steps=100, learning_rate=1.0, warmup_steps=10, decay_share=0.5
    ... )
    >>> [round(learning_rate_at(step, settings), 2) for step in (0, 9, 49, 100)]
    [0.1, 1.0, 1.0, 0.0]
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    left = (settings.steps - step) / max(settings.steps * settings.decay_share, 1.0)
    return settings.learning_rate * min(1.0, 1.0 - math.sqrt(max(1.0 - left, 0.0)))


class Pretraining:
    """Network, optimiser and averaged weights of one run, saved and restored together."""

    def __init__(self, settings: PretrainSettings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.device = pick_device(settings.device)
        self.config = FreshetConfig(**SIZES[settings.size])
        self.network = FreshetNetwork(self.config)
        self.network.train()
        self.network.to(self.device)
        self.average = {
            name: value.detach().clone() for name, value in self.network.named_parameters()
        }
        groups = _parameter_groups(self.network, settings.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), foreach=True)
        self.levels_Q = torch.tensor(self.config.quantile_levels, device=self.device)
        self.step = 0
        self.wall_s = 0.0
        # A GPU waits for whoever launches its kernels: the next windows are drawn while gradients
        # are computed.
        self._ahead = ThreadPoolExecutor(1) if torch.device(self.device).type == "cuda" else None
        self._coming: dict[int, Future[tuple[Batch, Tensor]]] = {}

    def advance(self) -> Tensor:
        """One optimiser step; its loss, on the device. Data depend on seed and step alone."""
        batch, actual_BH = self._next_windows()
        loss = team().add_up(list(self.network.parameters()), self._backward(batch, actual_BH))
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(self.step, self.settings)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        return loss

    def _backward(self, batch: Batch, actual_BH: Tensor) -> Tensor:
        """Leave the gradients of this process's share of the windows; its part of their loss."""
        kind = torch.device(self.device).type
        observed = torch.isfinite(actual_BH).sum()
        if team().size > 1:
            index = team().share(len(batch), self.device)
            if not len(index):
                return torch.zeros((), device=self.device)
            batch, actual_BH = batch.rows(index), actual_BH[index]
        part = torch.isfinite(actual_BH).sum() / observed.clamp(min=1)
        with torch.autocast(kind, torch.bfloat16, enabled=self.settings.mixed_precision):
            output = self.network(*batch.arguments())
        loss = network_loss(output, actual_BH, self.levels_Q) * part
        torch.autograd.backward(loss)
        return loss.detach()

    def _next_windows(self) -> tuple[Batch, Tensor]:
        coming = self._coming.pop(self.step, None)
        drawn = self._windows(self.step) if coming is None else coming.result()
        if self._ahead is not None:
            self._coming[self.step + 1] = self._ahead.submit(self._windows, self.step + 1)
        return drawn

    def _windows(self, step: int) -> tuple[Batch, Tensor]:
        generator = torch.Generator(self.device)
        generator.manual_seed(self.settings.seed * 1_000_003 + step)
        return sample(
            generator,
            self.settings.batch_size,
            context_length=self.config.context_length,
            prediction_length=self.config.prediction_length,
        )

    def _update_average(self) -> None:
        # A short memory at first, or the random start would linger in the average.
        keep = min(self.settings.averaging, self.step / (self.step + 10.0))
        values = {name: value.detach() for name, value in self.network.named_parameters()}
        torch._foreach_lerp_(
            [self.average[name] for name in values], list(values.values()), 1.0 - keep
        )

    def averaged(self) -> FreshetNetwork:
        """A copy of the network that carries the averaged weights, in evaluation mode."""
        network = FreshetNetwork(self.config)
        network.train(mode=False)
        network.to(self.device)
        network.load_state_dict(self.average)
        return network

    def save(self) -> None:
        """Write a checkpoint: tensors first, then by atomic rename the state that names it.

        Of several processes the first one does.
        """
        if not team().first:
            return
        folder = self.settings.output
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / "new.tmp"
        facts = {"step": str(self.step), "wall_s": str(self.wall_s)}
        save_file(self._tensors(), draft, metadata=facts)
        os.replace(draft, folder / CHECKPOINT)
        state = {"step": self.step, "wall_s": self.wall_s, "settings": self.settings.as_dict()}
        (folder / STATE).write_text(json.dumps(state, indent=1))

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        found |= {f"average.{name}": value for name, value in self.average.items()}
        for index, slots in self.optimiser.state_dict()["state"].items():
            for name, value in slots.items():
                found[f"optimiser.{index}.{name}"] = value.clone()
        return {name: value.contiguous() for name, value in found.items()}

    def restore(self) -> bool:
        """Continue from the folder's checkpoint; False when there is none."""
        path = self.settings.output / CHECKPOINT
        if not path.exists():
            return False
        tensors = load_file(path, device=self.device)
        self.network.load_state_dict(_under(tensors, "network."))
        self.average = _under(tensors, "average.")
        state = self.optimiser.state_dict()
        for key, value in _under(tensors, "optimiser.").items():
            index, name = key.split(".")
            state["state"].setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict(state)
        facts = json.loads((self.settings.output / STATE).read_text())
        self.step, self.wall_s = int(facts["step"]), float(facts["wall_s"])
        return True


def _parameter_groups(network: FreshetNetwork, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; gains and biases do not, since nothing else holds them near one and zero."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in network.parameters() if parameter.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
