"""From a champion and pools of windows to a challenger: fine-tune, then go back part of the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.forecaster import newest, padded
from freshet.model.local_clock import even
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.training.train import (
    FineTuneSettings,
    Sampler,
    choose_factor,
    fine_tune,
    interpolate,
)
from freshet.online.learn.tether import tethered
from freshet.online.trials.evaluation import evaluate
from freshet.online.trials.pools import Pool, Pools, concatenated
from freshet.stream.config import LearnSettings

# How far to go from the champion to the tuned weights; the further one where both do alike. Not 0:
# that is the champion, and whether it stays is for the gate to say, on windows of its own. And not
# finer: every factor is another look at few validation windows, all from the same hours, while the
# gate sees the one that is chosen only once.
FACTORS = (1.0, 0.5)


@dataclass(frozen=True, slots=True)
class Challenger:
    """A candidate as it would be stored (its numbers rounded to bf16), and how it came about.

    Attributes:
        network: The candidate.
        factor: How far it went from the champion to the tuned weights.
        validation: Summed loss in units of every factor that was tried.
        train_losses: Loss of each step.
        seconds: Wall time that it took.
        kept: How much of the way from the shipped weights is left (`online/learn/tether.py`).
    """

    network: FreshetNetwork
    factor: float
    validation: dict[float, float]
    train_losses: tuple[float, ...]
    seconds: float
    kept: float = 1.0


def make_challenger(
    champion: FreshetNetwork,
    pools: Pools,
    *,
    settings: LearnSettings,
    base: FreshetNetwork | None = None,
    stopped: Callable[[], None] = lambda: None,
) -> Challenger:
    """Fine-tune a copy of the champion and choose on validation how far to go towards it.

    Blocks for seconds. The gate's hold-out is not seen here.

    Args:
        champion: Is not changed.
        pools: Windows to learn from and to choose on.
        settings: How many steps, how fast, how much of each step is replay.
        base: The shipped weights, from which it may go only so far; None: as far as it likes.
        stopped: Called before every step; may raise to give up.
    """
    started = time.perf_counter()
    sampler = _mixed(pools, champion.config, settings, stopped)
    tuning = FineTuneSettings(
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )
    tuned = fine_tune(champion, sampler, settings=tuning)

    def candidate(factor: float) -> FreshetNetwork:
        return as_stored(interpolate(champion, tuned.network, factor))

    def validation_loss(factor: float) -> float:
        stopped()
        return float(np.nansum(evaluate(candidate(factor), pools.validation).loss_NH))

    factor, losses = choose_factor(FACTORS, validation_loss)
    network, kept = candidate(factor), 1.0
    if base is not None:
        network, kept = tethered(network, champion, base, stopped=stopped)
    return Challenger(
        network=network,
        factor=factor,
        validation=losses,
        train_losses=tuned.losses,
        seconds=time.perf_counter() - started,
        kept=kept,
    )


def as_stored(network: FreshetNetwork) -> FreshetNetwork:
    """The network as it will be read back: its numbers rounded to bf16. Changes the given one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.bfloat16())
    return network


def _mixed(
    pools: Pools, config: FreshetConfig, settings: LearnSettings, stopped: Callable[[], None]
) -> Sampler:
    """Draws batches of recent and older windows, the older ones making `replay_share` of each.

    A drift leaves too few windows to learn from alone: the network would learn them by heart and
    forget the rest of the shop (experience replay, Rolnick et al. 2019).
    """
    num_replay = 0
    if pools.replay is not None:
        num_replay = round(settings.replay_share * settings.batch_size)
    shares = [(pools.recent, settings.batch_size - num_replay), (pools.replay, num_replay)]
    drawn = [(by_clock(pool), num_rows) for pool, num_rows in shares if pool and num_rows]
    # Where clocks change one of them may be a step longer.
    steps = max(pool.batch.prediction_length for pool, _ in drawn)
    parts = [(_fitted(pool, config, steps), num_rows) for pool, num_rows in drawn]

    def draw(generator: torch.Generator) -> tuple[Batch, Tensor]:
        stopped()
        batches, actuals = [], []
        for pool, num_rows in parts:
            index = torch.randint(len(pool), (num_rows,), generator=generator)
            batches.append(pool.batch.rows(index))
            actuals.append(pool.actual_NH[index])
        return concatenated(batches), torch.cat(actuals)

    return draw


def by_clock(pool: Pool) -> Pool:
    """The pool in even steps of the shop's clock, as forecasts are made, labels at their steps.

    Where a clock leaves out an hour its label is missing; of one that it shows twice the later one
    is learnt.
    """
    batch, place_NH = even(pool.batch)
    if place_NH is None:
        return replace(pool, batch=batch)
    actual_NE = torch.full((len(pool), batch.prediction_length), math.nan)
    for step in range(place_NH.shape[1]):
        here = slice(step, step + 1)
        actual_NE.scatter_(1, place_NH[:, here], pool.actual_NH[:, here])
    return replace(pool, batch=batch, actual_NH=actual_NE)


def _fitted(pool: Pool, config: FreshetConfig, steps: int) -> Pool:
    """The pool with a context, and a horizon of `steps`, as long as the network's patches need."""
    batch = newest(pool.batch, config.context_length)
    left = -batch.context_length % config.patch_length
    right = steps + -steps % config.patch_length - batch.prediction_length
    batch = padded(batch, left=left, right=right)
    missing = batch.prediction_length - pool.actual_NH.shape[1]
    return replace(pool, batch=batch, actual_NH=F.pad(pool.actual_NH, (0, missing), value=math.nan))
