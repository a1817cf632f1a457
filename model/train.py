"""Fine-tuning: a tuned copy of a network from matured windows, and the way back towards the base."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.batch import Batch
from model.loss import network_loss
from model.network import FreshetNetwork, place
from stream.errors import InvalidInputError

Sampler = Callable[[torch.Generator], tuple[Batch, Tensor]]
"""Draws training windows with the given generator: contexts and their actuals [B, H], NaN = not observed."""


@dataclass(frozen=True, slots=True)
class FineTuneSettings:
    """How one fine-tuning run goes; the same settings, network and sampler give the same weights.

    Attributes:
        steps: optimiser steps.
        batch_size: rows that pass through the network at once; a larger draw is accumulated.
        learning_rate: reached after the warm-up, falling linearly to a tenth at the last step.
        gradient_norm_max: longer gradients are shortened to it.
        freeze: "none" updates everything, "top" only the last encoder layer and the head.
    """

    steps: int = 60
    batch_size: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    warmup_steps: int = 5
    seed: int = 0
    gradient_norm_max: float = 1.0
    freeze: Literal["none", "top"] = "none"


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """The tuned copy and the training loss of each step."""

    network: FreshetNetwork
    losses: tuple[float, ...]


def fine_tune(network: FreshetNetwork, sampler: Sampler, *, settings: FineTuneSettings) -> FineTuneResult:
    """Return a tuned float32 copy of `network`, in evaluation mode; the given one is not touched.

    Blocks for the whole run. A step whose draw holds no observed actual changes no weight; its loss is 0.

    Raises:
        InvalidInputError: the settings make no sense, or the loss is no longer finite.
    """
    _check(settings)
    tuned = copy.deepcopy(network)
    tuned.train()
    place(tuned, dtype=torch.float32)
    parameters = _choose(tuned, settings.freeze)
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(settings.seed)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # Dropout draws from the global generator.
        for step in range(settings.steps):
            optimiser.param_groups[0]["lr"] = learning_rate_at(step, settings)
            losses.append(_step(tuned, sampler(generator), optimiser, settings))
    for parameter in tuned.parameters():
        parameter.requires_grad_(True)
    tuned.train(mode=False)
    return FineTuneResult(tuned, tuple(losses))


def learning_rate_at(step: int, settings: FineTuneSettings) -> float:
    """Linear warm-up, then linear decay to a tenth.

    >>> settings = FineTuneSettings(steps=11, warmup_steps=1, learning_rate=1.0)
    >>> [round(learning_rate_at(step, settings), 2) for step in (0, 1, 6, 11)]
    [1.0, 1.0, 0.55, 0.1]
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return settings.learning_rate * (1.0 - 0.9 * share)


@torch.no_grad()
def held_out_loss(network: FreshetNetwork, batch: Batch, actual_BH: Tensor) -> float:
    """Mean pinball loss on the network's own scale: comparable between networks, not between batches."""
    return float(_loss(network, batch, actual_BH))


@torch.no_grad()
def interpolate(base: FreshetNetwork, tuned: FreshetNetwork, factor: float) -> FreshetNetwork:
    """Return a new network with weights base + factor * (tuned - base); factor in [0, 1].

    Halfway between base and tuned keeps most of what was learnt and more of what was known
    (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
    """
    if not 0.0 <= factor <= 1.0:
        raise InvalidInputError(f"the interpolation factor is {factor}; expected 0 (base) to 1 (tuned)")
    mixed = copy.deepcopy(base)
    mixed.train(mode=False)
    place(mixed, dtype=torch.float32)
    theirs = dict(tuned.named_parameters())
    for name, parameter in mixed.named_parameters():
        parameter.lerp_(theirs[name].to(parameter), factor)
    return mixed


def _check(settings: FineTuneSettings) -> None:
    if settings.steps < 1 or settings.batch_size < 1 or settings.learning_rate <= 0:
        raise InvalidInputError(
            f"fine-tuning with steps={settings.steps}, batch_size={settings.batch_size}, "
            f"learning_rate={settings.learning_rate}; expected all of them above zero"
        )


def _choose(network: FreshetNetwork, freeze: str) -> list[Tensor]:
    if freeze == "top":
        network.requires_grad_(False)
        for part in (network.layers[-1], network.final_norm, network.head):
            part.requires_grad_(True)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _step(
    network: FreshetNetwork, drawn: tuple[Batch, Tensor], optimiser: torch.optim.Optimizer, settings: FineTuneSettings
) -> float:
    """One update from one draw, in chunks of `batch_size` rows weighted by their observed steps."""
    device = next(network.parameters()).device
    batch, actual_BH = drawn[0].to(device), drawn[1].to(device)
    observed = int(torch.isfinite(actual_BH).sum())
    if observed == 0:
        return 0.0
    total = 0.0
    optimiser.zero_grad(set_to_none=True)
    for index in torch.split(torch.arange(len(batch), device=device), settings.batch_size):
        share = int(torch.isfinite(actual_BH[index]).sum()) / observed
        loss = _loss(network, batch.rows(index), actual_BH[index]) * share
        torch.autograd.backward(loss)
        total += float(loss.detach())
    if not total < float("inf"):
        raise InvalidInputError(f"the fine-tuning loss became {total}", hint="lower the learning rate")
    torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], settings.gradient_norm_max)
    optimiser.step()
    return total


def _loss(network: FreshetNetwork, batch: Batch, actual_BH: Tensor) -> Tensor:
    levels_Q = torch.tensor(network.config.quantile_levels, device=actual_BH.device)
    return network_loss(network(*batch.arguments()), actual_BH, levels_Q)
