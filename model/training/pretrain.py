"""Pre-training on the synthetic mixture: resumable, deterministic by seed, on any device."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from freshet.model.baselines.yardsticks import seasonal_naive
from freshet.model.batch import Batch
from freshet.model.features import calendar_periods
from freshet.model.forecaster import pick_device
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.quantiles.metrics import wql
from freshet.model.synthetic.mixture import sample
from freshet.model.training.loss import network_loss
from freshet.model.weights import save_weights
from freshet.stream.arrays import Reals

CHECKPOINT = "checkpoint.safetensors"
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """What one pre-training run does; the same settings give the same weights.

    Attributes:
        output: folder for checkpoints, the log and, in `weights/`, the weights.
        steps: optimiser steps in all; the learning rate decays over the last `decay_share` of them.
        batch_size: windows a step.
        learning_rate: the plateau of warm-up, stable, decay.
        averaging: share of the old weights in the running average, per step.
        checkpoint_every_s: wall seconds between checkpoints.
        minutes: stop (resumable) after so many minutes; None runs to the end.
        device: "auto", "cpu", "cuda", ...; the data are made there too.
        mixed_precision: compute in bfloat16 where that is safe: twice as fast on CPUs that know it.
        threads: CPU threads, or None for torch's own choice.
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
    threads: int | None = None
    checkpoint_every_s: float = 180.0
    report_every_steps: int = 250
    minutes: float | None = None


def learning_rate_at(step: int, settings: PretrainSettings) -> float:
    """Warm-up, stable, then square-root decay to zero over the last share of the steps.

    >>> settings = PretrainSettings(Path("."), steps=100, learning_rate=1.0, warmup_steps=10,
    ...     decay_share=0.5)
    >>> [round(learning_rate_at(step, settings), 2) for step in (0, 9, 49, 100)]
    [0.1, 1.0, 1.0, 0.0]
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    left = (settings.steps - step) / max(settings.steps * settings.decay_share, 1.0)
    return settings.learning_rate * min(1.0, 1.0 - math.sqrt(max(1.0 - left, 0.0)))


class Pretraining:
    """Network, optimiser, averaged weights and random state of one run, saved and restored
    together.
    """

    def __init__(self, settings: PretrainSettings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.device = pick_device(settings.device)
        self.config: FreshetConfig = getattr(FreshetConfig, settings.size)()
        self.network = FreshetNetwork(self.config)
        self.network.train()
        self.network.to(self.device)
        self.average = {
            name: value.detach().clone() for name, value in self.network.named_parameters()
        }
        self.optimiser = torch.optim.AdamW(
            _parameter_groups(self.network, settings.weight_decay), betas=(0.9, 0.98), foreach=True
        )
        self.levels_Q = torch.tensor(self.config.quantile_levels, device=self.device)
        self.step = 0
        self.wall_s = 0.0
        # A GPU waits for whoever launches its kernels: the next windows are drawn while gradients
        # are computed.
        self._ahead = ThreadPoolExecutor(1) if torch.device(self.device).type == "cuda" else None
        self._coming: dict[int, Future[tuple[Batch, Tensor]]] = {}

    def advance(self) -> Tensor:
        """One optimiser step; returns its loss, on the device. Data depend on seed and step
        alone.
        """
        coming = self._coming.pop(self.step, None)
        batch, actual_BH = self._windows(self.step) if coming is None else coming.result()
        if self._ahead is not None:
            self._coming[self.step + 1] = self._ahead.submit(self._windows, self.step + 1)
        with torch.autocast(
            torch.device(self.device).type, torch.bfloat16, enabled=self.settings.mixed_precision
        ):
            output = self.network(*batch.arguments())
        loss = network_loss(output, actual_BH, self.levels_Q)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(self.step, self.settings)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        return loss.detach()

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
        """Write a checkpoint: tensors first, then by atomic rename the state that names it."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for index, slots in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v.clone() for k, v in slots.items()}
        directory = self.settings.output
        directory.mkdir(parents=True, exist_ok=True)
        facts = {"step": str(self.step), "wall_s": str(self.wall_s)}
        save_file(
            {k: v.contiguous() for k, v in tensors.items()}, directory / "new.tmp", metadata=facts
        )
        os.replace(directory / "new.tmp", directory / CHECKPOINT)
        state = {"step": self.step, "wall_s": self.wall_s, "settings": _plain(self.settings)}
        (directory / STATE).write_text(json.dumps(state, indent=1))

    def restore(self) -> bool:
        """Continue from the directory's checkpoint; False when there is none."""
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
    matrices = [p for p in network.parameters() if p.ndim >= 2]
    others = [p for p in network.parameters() if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _plain(settings: PretrainSettings) -> dict[str, object]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}


def held_out(
    settings: PretrainSettings, config: FreshetConfig, batches: int = 6
) -> list[tuple[Batch, Tensor]]:
    """Batches of the mixture that no training step draws."""
    generator = torch.Generator(pick_device(settings.device)).manual_seed(2**40 + settings.seed)
    lengths = {
        "context_length": config.context_length,
        "prediction_length": config.prediction_length,
    }
    return [sample(generator, 256, **lengths) for _ in range(batches)]


@torch.no_grad()
def skill(network: FreshetNetwork, batches: list[tuple[Batch, Tensor]]) -> dict[str, float]:
    """Held-out loss, and 1 - WQL / WQL of seasonal naive as the median over the batches."""
    levels = np.array(network.config.quantile_levels)
    losses, skills = [], []
    for batch, actual_BH in batches:
        output = network(*batch.arguments())
        levels_Q = torch.tensor(levels, dtype=torch.float32, device=actual_BH.device)
        losses.append(float(network_loss(output, actual_BH, levels_Q)))
        ours_BHQ = output.units().cpu().numpy()
        skills.append(row_skill(batch, actual_BH.cpu().numpy(), ours_BHQ, levels))
    return {"held_out_loss": float(np.mean(losses)), "held_out_skill": float(np.median(skills))}


def row_skill(batch: Batch, actual_BH: Reals, quantiles_BHQ: Reals, levels: Reals) -> float:
    """1 - WQL / WQL of seasonal naive with every row brought to size one, or the largest alone
    would decide.
    """
    target_BT = batch.target_BT.cpu().numpy()
    naive_BHQ = seasonal_naive(target_BT, actual_BH.shape[1], season_length(batch), levels)
    rows = np.isfinite(naive_BHQ).all((1, 2)) & np.isfinite(actual_BH).any(1)
    size_B1 = np.maximum(np.nanmean(actual_BH[rows], 1, keepdims=True), 0.1)
    ours, naive = (
        wql(actual_BH[rows] / size_B1, forecast_BHQ[rows] / size_B1[..., None], levels)
        for forecast_BHQ in (quantiles_BHQ, naive_BHQ)
    )
    return 1.0 - ours / naive


def season_length(batch: Batch) -> int:
    """The longest calendar season of which the context holds two cycles, else 1."""
    periods = [int(p) for p in calendar_periods(batch.resolution_ms)]
    return max([p for p in periods if 2 * p <= batch.context_length], default=1)


def reports(
    settings: PretrainSettings, advanced: Callable[[int, Tensor], None] = lambda step, loss: None
) -> Iterator[dict[str, float]]:
    """Train to the end or to the time limit, yielding a report every so many steps.

    Durable effects: a checkpoint every `checkpoint_every_s` seconds and at the end, where the
    averaged weights are written too; a killed run repeats what came after the last checkpoint and
    arrives at the same weights.

    Args:
        advanced: called after every step with the steps made so far and the step's loss; asking for
            its number makes a GPU wait.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    run = Pretraining(settings)
    run.restore()
    batches = held_out(settings, run.config)
    started = saved = time.monotonic()
    wall_before, losses = run.wall_s, []
    while run.step < settings.steps:
        losses.append(run.advance())
        advanced(run.step, losses[-1])
        now = time.monotonic()
        run.wall_s = wall_before + now - started
        if now - saved > settings.checkpoint_every_s:
            run.save()
            saved = now
        if run.step % settings.report_every_steps == 0 or run.step == settings.steps:
            yield _report(run, losses, batches)
            losses = []
        if settings.minutes is not None and now - started > 60.0 * settings.minutes:
            break
    run.save()
    save_weights(run.averaged(), settings.output / "weights", card=_card(run))


def _report(
    run: Pretraining, losses: list[Tensor], batches: list[tuple[Batch, Tensor]]
) -> dict[str, float]:
    report = {
        "step": float(run.step),
        "loss": float(torch.stack(losses).mean()),
        "windows": float(run.step * run.settings.batch_size),
        "wall_s": round(run.wall_s, 1),
        "learning_rate": learning_rate_at(run.step, run.settings),
    }
    return report | skill(run.averaged(), batches)


def _card(run: Pretraining) -> str:
    lines = [
        f"* {name}: {value}" for name, value in _plain(run.settings).items() if name != "output"
    ]
    return "\n".join(
        [
            "# Weights pre-trained on synthetic series",
            "",
            f"{run.step} steps of {run.settings.batch_size} windows; no real data. Settings:",
            "",
            *lines,
            "",
        ]
    )


def pretrain(settings: PretrainSettings) -> None:
    """Train, resuming from the folder's checkpoint; each report is printed and appended to
    `log.jsonl`.

    A terminal gets a progress bar on standard error, and TensorBoard its scalars in the folder,
    where it is installed.
    """
    from freshet.model.training.watch import board, progress_bar

    settings.output.mkdir(parents=True, exist_ok=True)
    with (
        (settings.output / "log.jsonl").open("a") as log,
        board(settings.output) as scalars,
        progress_bar(settings.steps) as bar,
    ):
        for report in reports(settings, bar.advanced):
            line = json.dumps({k: round(v, 6) for k, v in report.items()})
            log.write(line + "\n")
            log.flush()
            scalars(report)
            bar.reported(report)
            print(line, flush=True)
