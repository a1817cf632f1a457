"""Fine-tuning: a tuned copy of a network from matured windows, and the way back to the base."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from freshet.model.adapter import Adapter, mean_adapter
from freshet.model.batch import Batch
from freshet.model.network import FreshetNetwork
from freshet.model.training import lora
from freshet.model.training.loss import network_loss
from freshet.model.training.together import team
from freshet.stream.errors import InvalidInputError

Sampler = Callable[[torch.Generator], tuple[Batch, Tensor]]
"""Draws training windows: contexts and their actuals [B, H], NaN where not observed."""
Evaluate = Callable[[FreshetNetwork], float]
"""The loss of a network, in evaluation mode, on windows that no step learns from."""

Tune = Literal["full", "top", "lora"]
Advanced = Callable[[int, float], None]
"""Hears of every step of all runs: how many were made, and the loss of the last one."""

# Low-rank additions start at zero and are few: they want larger steps than the weights themselves.
LEARNING_RATES = {"full": 5e-4, "top": 5e-4, "lora": 2e-3}
HELD_OUT_ROWS = 128  # that pass through the network at once


@dataclass(frozen=True, slots=True)
class FineTuneSettings:
    """How one fine-tuning run goes; the same settings, network and sampler give the same weights.

    Attributes:
        steps: optimiser steps.
        batch_size: rows that pass through the network at once; a larger draw is accumulated.
        learning_rate: reached after the warm-up, falling linearly to a tenth at the last step.
        gradient_norm_max: longer gradients are shortened to it.
        tune: "full" updates everything, "top" the last encoder layer and the head, "lora" low-rank
            additions to the matrices of `freshet.model.training.lora`, which are part of them
            afterwards.
        dropout: share of each layer's output dropped while training.
        mixed_precision: compute in bfloat16 where that is safe; the weights stay float32.
        check_every_steps: steps between two looks at a hold-out, where one is given.
        patience: looks in a row without a better loss after which training stops.
        num_seeds: runs with seeds one after the other, whose weights are averaged
            (Wortsman et al. 2022, "Model soups").
    """

    steps: int = 60
    batch_size: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    warmup_steps: int = 5
    seed: int = 0
    gradient_norm_max: float = 1.0
    tune: Tune = "full"
    dropout: float = 0.0
    mixed_precision: bool = False
    check_every_steps: int = 10
    patience: int = 3
    num_seeds: int = 1

    @classmethod
    def of(cls, tune: Tune, steps: int, learning_rate: float | None, **others: Any) -> Self:
        """Settings as people ask for them, with what suits the kind of tuning where they do not.

        Args:
            tune: what learns.
            steps: at most; the first ten of them warm up.
            learning_rate: None: the one of LEARNING_RATES.
            **others: attributes.
        """
        rate = LEARNING_RATES[tune] if learning_rate is None else learning_rate
        return cls(
            steps=steps, learning_rate=rate, warmup_steps=min(10, steps), tune=tune, **others
        )


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """What came of it.

    Attributes:
        network: the tuned copy.
        losses: the training loss of each step of one run after the other.
        adapter: what low-rank tuning added to the matrices; None for the other kinds.
    """

    network: FreshetNetwork
    losses: tuple[float, ...]
    adapter: Adapter | None = None


def fine_tune(
    network: FreshetNetwork,
    sampler: Sampler,
    *,
    settings: FineTuneSettings,
    evaluate: Evaluate | None = None,
    advanced: Advanced = lambda steps, loss: None,
) -> FineTuneResult:
    """Return a tuned float32 copy of `network`, in evaluation mode; the given one is not touched.

    Blocks for the whole run. A step whose draw holds no observed actual changes no weight; its loss
    is 0.

    Args:
        evaluate: a hold-out to stop early at: the weights of each run's best look are kept. None:
            all steps are made.
        advanced: called after every step.

    Raises:
        InvalidInputError: the settings make no sense, the loss is no longer finite, or peft is
            missing.
    """
    _check(settings)
    losses: list[float] = []

    def noted(loss: float) -> None:
        losses.append(loss)
        advanced(len(losses), loss)

    runs = [
        _run(network, sampler, replace(settings, seed=settings.seed + number), evaluate, noted)
        for number in range(settings.num_seeds)
    ]
    adapters = [adapter for _, adapter in runs if adapter is not None]
    adapter = mean_adapter(adapters) if adapters else None
    return FineTuneResult(average([tuned for tuned, _ in runs]), tuple(losses), adapter)


def _run(
    network: FreshetNetwork,
    sampler: Sampler,
    settings: FineTuneSettings,
    evaluate: Evaluate | None,
    noted: Callable[[float], None],
) -> tuple[FreshetNetwork, Adapter | None]:
    """One run with one seed."""
    tuned = copy.deepcopy(network)
    tuned.train()
    tuned.to(dtype=torch.float32)
    # Dropout and the low-rank additions draw from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        finish = _choose(tuned, settings.tune)
        _set_dropout(tuned, settings.dropout)
        _optimise(tuned, sampler, settings, evaluate, noted)
    _set_dropout(tuned, tuned.config.dropout)
    tuned, adapter = finish()
    tuned.requires_grad_(True)
    tuned.train(mode=False)
    return tuned, adapter


def _optimise(
    network: FreshetNetwork,
    sampler: Sampler,
    settings: FineTuneSettings,
    evaluate: Evaluate | None,
    noted: Callable[[float], None],
) -> None:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(settings.seed)
    best = None if evaluate is None else _Best(network, evaluate, settings.patience)
    for step in range(settings.steps):
        optimiser.param_groups[0]["lr"] = learning_rate_at(step, settings)
        noted(_step(network, sampler(generator), optimiser, settings))
        due = (step + 1) % settings.check_every_steps == 0 or step + 1 == settings.steps
        if best is not None and due and best.enough():
            break
    if best is not None:
        best.restore()


class _Best:
    """The weights that did best on the hold-out so far, and for how many looks they have."""

    def __init__(self, network: FreshetNetwork, evaluate: Evaluate, patience: int) -> None:
        self.network = network
        self.evaluate = evaluate
        self.patience = self.left = patience
        self.loss = float("inf")
        self.weights: list[Tensor] = []

    def enough(self) -> bool:
        """Look once more; True when nothing got better for `patience` looks in a row."""
        self.network.train(mode=False)
        loss = team().agreed(self.evaluate(self.network), self._trained()[0].device)
        self.network.train()
        if loss < self.loss:
            self.loss, self.left = loss, self.patience
            self.weights = [parameter.detach().clone() for parameter in self._trained()]
        else:
            self.left -= 1
        return self.left == 0

    @torch.no_grad()
    def restore(self) -> None:
        """Give the network the best weights back."""
        for parameter, best in zip(self._trained(), self.weights or self._trained(), strict=True):
            parameter.copy_(best)

    def _trained(self) -> list[Tensor]:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]


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
    """Mean pinball loss on the network's own scale, each row counting alike.

    Comparable between networks, not between batches. Some rows at a time, wherever the network is.
    """
    device = next(network.parameters()).device
    total = 0.0
    for part in torch.split(torch.arange(len(batch)), HELD_OUT_ROWS):
        loss = _loss(network, batch.rows(part).to(device), actual_BH[part].to(device))
        total += float(loss) * len(part)
    return total / len(batch)


@torch.no_grad()
def interpolate(base: FreshetNetwork, tuned: FreshetNetwork, factor: float) -> FreshetNetwork:
    """Return a new network with weights base + factor * (tuned - base); factor in [0, 1].

    Halfway between base and tuned keeps most of what was learnt and more of what was known
    (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
    """
    if not 0.0 <= factor <= 1.0:
        raise InvalidInputError(
            f"the interpolation factor is {factor}; expected 0 (base) to 1 (tuned)"
        )
    mixed = copy.deepcopy(base)
    mixed.train(mode=False)
    mixed.to(dtype=torch.float32)
    theirs = dict(tuned.named_parameters())
    for name, parameter in mixed.named_parameters():
        parameter.lerp_(theirs[name].to(parameter), factor)
    return mixed


def choose_factor(
    factors: Sequence[float], loss_of: Callable[[float], float], *, prudence: float = 0.0
) -> tuple[float, dict[float, float]]:
    """How far to go from base to tuned: the factor that loses least on a hold-out; every loss.

    Args:
        factors: for `interpolate`; where two lose alike, the earlier one is chosen.
        loss_of: the loss of a factor on windows that no step learnt from, above zero.
        prudence: relative gain that a factor of one must show over a factor of zero, and smaller
            ones in proportion.

    >>> choose_factor((0.0, 1.0), {0.0: 10.0, 1.0: 9.9}.__getitem__, prudence=0.04)
    (0.0, {0.0: 10.0, 1.0: 9.9})
    """
    losses = {factor: loss_of(factor) for factor in factors}
    return min(factors, key=lambda factor: losses[factor] * (1.0 + prudence * factor)), losses


@torch.no_grad()
def average(networks: list[FreshetNetwork]) -> FreshetNetwork:
    """A network whose weights are the mean of those given; a single one is itself."""
    if len(networks) == 1:
        return networks[0]
    mean = copy.deepcopy(networks[0])
    columns = zip(*(network.parameters() for network in networks), strict=True)
    for parameter, theirs in zip(mean.parameters(), columns, strict=True):
        parameter.copy_(torch.stack(theirs).mean(0))
    return mean


def _check(settings: FineTuneSettings) -> None:
    names = ("steps", "batch_size", "learning_rate", "check_every_steps", "patience", "num_seeds")
    wrong = [name for name in names if not getattr(settings, name) > 0]
    if wrong:
        told = ", ".join(f"{name}={getattr(settings, name)}" for name in wrong)
        raise InvalidInputError(f"fine-tuning with {told}; expected a number above zero")
    if not 0.0 <= settings.dropout < 1.0:
        raise InvalidInputError(
            f"fine-tuning with dropout={settings.dropout}; expected 0 to below 1"
        )


def _choose(
    network: FreshetNetwork, tune: str
) -> Callable[[], tuple[FreshetNetwork, Adapter | None]]:
    """Let only the chosen weights learn; what to call afterwards to get a plain network."""
    if tune == "lora":
        return lora.attach(network)
    if tune == "top":
        network.requires_grad_(False)
        for part in (network.layers[-1], network.final_norm, network.head):
            part.requires_grad_(True)
    return lambda: (network, None)


def _set_dropout(network: FreshetNetwork, share: float) -> None:
    for module in network.modules():
        if type(module) is nn.Dropout:
            module.p = share


def _step(
    network: FreshetNetwork,
    drawn: tuple[Batch, Tensor],
    optimiser: torch.optim.Optimizer,
    settings: FineTuneSettings,
) -> float:
    """One update from one draw, in chunks of `batch_size` rows weighted by their observed steps.

    Of several processes each computes a share of the rows.
    """
    device = next(network.parameters()).device
    batch, actual_BH = drawn[0].to(device), drawn[1].to(device)
    observed = int(torch.isfinite(actual_BH).sum())
    if observed == 0:
        return 0.0
    summed = torch.zeros((), device=device)
    optimiser.zero_grad(set_to_none=True)
    mine = team().share(len(batch), device)
    for index in torch.split(mine, settings.batch_size) if len(mine) else ():
        share = int(torch.isfinite(actual_BH[index]).sum()) / observed
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.mixed_precision):
            loss = _loss(network, batch.rows(index), actual_BH[index]) * share
        torch.autograd.backward(loss)
        summed += loss.detach()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    total = float(team().add_up(learning, summed))
    if not total < float("inf"):
        raise InvalidInputError(
            f"the fine-tuning loss became {total}", hint="lower the learning rate"
        )
    torch.nn.utils.clip_grad_norm_(learning, settings.gradient_norm_max)
    optimiser.step()
    return total


def _loss(network: FreshetNetwork, batch: Batch, actual_BH: Tensor) -> Tensor:
    levels_Q = torch.tensor(network.config.quantile_levels, device=actual_BH.device)
    return network_loss(network(*batch.arguments()), actual_BH, levels_Q)
