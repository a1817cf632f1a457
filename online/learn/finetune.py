"""From a champion and drawn windows to a challenger, and what both forecast on windows that neither
trained on.

Dimensions: N windows, H steps, Q quantile levels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.forecaster import BatchForecaster, newest, padded
from freshet.model.network import FreshetNetwork
from freshet.model.quantiles.metrics import pinball
from freshet.model.training.train import FineTuneSettings, fine_tune, interpolate
from freshet.online.learn.windows import Draw
from freshet.stream.config import LearnSettings

FACTORS = (1.0, 0.5)
FORECAST_ROWS = 256
LATENCY_PASSES_MIN, LATENCY_PASSES_MAX, LATENCY_ROWS = 3, 40, 32
LATENCY_AGREEMENT = 1.2
Floats = NDArray[np.float64]


class Windows(Protocol):
    """Where contexts and actuals come from: `freshet.online.worker.context.Contexts`, or a fake."""

    def batch(self, rows: NDArray[np.int64], cutoff_ms: int) -> Batch:
        """Contexts that end at the cutoff, and what was known then of the steps after it."""

    def target(self, rows: NDArray[np.int64], end_ms: int, steps: int) -> Floats:
        """Units of the steps that end at `end_ms`, [rows, steps]; NaN where not observed or out of
        stock.
        """


@dataclass(frozen=True, slots=True)
class Pool:
    """Windows with their labels.

    Attributes:
        batch: N contexts.
        actual_NH: Labels, NaN where not observed or past the end that was set.
        rows_N: Row of each window.
        cutoffs_N: Cutoff of each window.
    """

    batch: Batch
    actual_NH: Tensor
    rows_N: NDArray[np.int64]
    cutoffs_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows_N)


@dataclass(frozen=True, slots=True)
class Challenger:
    """A candidate as it would be stored (its numbers rounded to bf16), and how it came about."""

    network: FreshetNetwork
    factor: float
    validation: dict[float, float]
    train_losses: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a network did on a pool: losses in units and whether the 80 % interval held, NaN where
    there is no label.
    """

    loss_NH: Floats
    covered_NH: Floats

    @property
    def coverage(self) -> float:
        """Share of labels within the interval; NaN without labels."""
        return (
            float(np.nanmean(self.covered_NH)) if np.isfinite(self.covered_NH).any() else math.nan
        )

    @property
    def finite(self) -> bool:
        """No forecast with a label is NaN or infinite."""
        return not bool(np.isinf(self.loss_NH).any())


def build_pool(
    windows: Windows, draws: Sequence[Draw], *, steps: int, label_end_ms: int
) -> Pool | None:
    """Build windows from draws; labels at or after `label_end_ms` are NaN. None where there is no
    draw.
    """
    if not draws:
        return None
    batches, actuals = [], []
    for draw in draws:
        batch = windows.batch(draw.rows, draw.cutoff_ms)
        known_steps = min(steps, max(0, (label_end_ms - draw.cutoff_ms) // batch.resolution_ms))
        actual_NH = torch.full((len(draw.rows), steps), math.nan)
        if known_steps:
            end_ms = draw.cutoff_ms + known_steps * batch.resolution_ms
            actual_NH[:, :known_steps] = torch.from_numpy(
                windows.target(draw.rows, end_ms, known_steps)
            )
        batches.append(batch.to("cpu"))
        actuals.append(actual_NH)
    return Pool(
        concatenated(batches),
        torch.cat(actuals),
        np.concatenate([draw.rows for draw in draws]),
        np.concatenate([np.full(len(draw.rows), draw.cutoff_ms, np.int64) for draw in draws]),
    )


def concatenated(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows; groups are dropped, since rows of different cutoffs are not
    related.
    """
    return Batch(
        torch.cat([batch.target_BT for batch in batches]),
        torch.cat([batch.past_BTP for batch in batches]),
        torch.cat([batch.known_BSK for batch in batches]),
        torch.cat([batch.static_BF for batch in batches]),
        torch.cat([batch.start_ms_B for batch in batches]),
        batches[0].resolution_ms,
    )


def make_challenger(
    champion: FreshetNetwork,
    *,
    recent: Pool,
    replay: Pool | None,
    validation: Pool,
    settings: LearnSettings,
    stopped: Callable[[], None] = lambda: None,
) -> Challenger:
    """Fine-tune a copy of the champion and choose how far to go from one to the other on the
    validation pool.

    Blocks for seconds. The gate's hold-out is not seen here.

    Args:
        stopped: Called before every step; may raise to give up.
    """
    started = time.perf_counter()
    fitted = [_fitted(pool, champion) for pool in (recent, replay) if pool is not None]
    num_replay = round(settings.replay_share * settings.batch_size) if replay is not None else 0
    sizes = [settings.batch_size - num_replay, num_replay][: len(fitted)]

    def sampler(generator: torch.Generator) -> tuple[Batch, Tensor]:
        stopped()
        parts = []
        for pool, size in zip(fitted, sizes, strict=True):
            if size:
                index = torch.randint(len(pool), (size,), generator=generator)
                parts.append((pool.batch.rows(index), pool.actual_NH[index]))
        return concatenated([batch for batch, _ in parts]), torch.cat(
            [actual for _, actual in parts]
        )

    tuning = FineTuneSettings(
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )
    tuned = fine_tune(champion, sampler, settings=tuning)
    candidates, losses = {}, {}
    for factor in FACTORS:
        stopped()
        candidates[factor] = as_stored(interpolate(champion, tuned.network, factor))
        losses[factor] = float(np.nansum(evaluate(candidates[factor], validation).loss_NH))
    factor = min(FACTORS, key=lambda one: losses[one])
    return Challenger(
        candidates[factor], factor, losses, tuned.losses, time.perf_counter() - started
    )


def as_stored(network: FreshetNetwork) -> FreshetNetwork:
    """The network as it will be read back: its numbers rounded to bf16. Changes the given one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.bfloat16())
    return network


def evaluate(network: FreshetNetwork, pool: Pool) -> Outcome:
    """Twice the pinball loss in units, mean over levels, of every label; infinite where a forecast
    is not finite.
    """
    forecaster = BatchForecaster(
        network, device=str(next(network.parameters()).device), dtype="float32"
    )
    quantiles_NHQ = forecaster.forecast(pool.batch, max_rows=FORECAST_ROWS).cpu().double().numpy()
    levels_Q = np.array(forecaster.quantile_levels)
    actual_NH = pool.actual_NH.double().numpy()
    observed_NH = np.isfinite(actual_NH)
    quantiles_NHQ = quantiles_NHQ[:, : actual_NH.shape[1]]
    loss_NH = 2.0 * pinball(actual_NH, quantiles_NHQ, levels_Q).mean(-1)
    loss_NH = np.where(observed_NH & ~np.isfinite(loss_NH), np.inf, loss_NH)
    low, high = (int(np.abs(levels_Q - level).argmin()) for level in (0.1, 0.9))
    inside_NH = (actual_NH >= quantiles_NHQ[..., low]) & (actual_NH <= quantiles_NHQ[..., high])
    return Outcome(np.where(observed_NH, loss_NH, np.nan), np.where(observed_NH, inside_NH, np.nan))


def forecast_ms(networks: Sequence[FreshetNetwork], pool: Pool) -> list[float]:
    """Wall milliseconds of each network's fastest forecast of the same rows.

    They take turns, and go on until they are alike: a busy machine makes any one pass slow, but not
    forty.
    """
    batch = pool.batch.rows(slice(0, LATENCY_ROWS))
    forecasters = [
        BatchForecaster(network, device=str(next(network.parameters()).device), dtype="float32")
        for network in networks
    ]
    fastest_s = [math.inf] * len(networks)
    for number in range(LATENCY_PASSES_MAX):
        if number >= LATENCY_PASSES_MIN and max(fastest_s) <= LATENCY_AGREEMENT * min(fastest_s):
            break
        for index, forecaster in enumerate(forecasters):
            started = time.perf_counter()
            forecaster.forecast(batch).sum().item()
            fastest_s[index] = min(fastest_s[index], time.perf_counter() - started)
    return [1_000.0 * seconds for seconds in fastest_s]


def by_item_and_bucket(
    values_NH: Floats, pool: Pool, start_ms: int, num_buckets: int
) -> tuple[NDArray[np.int64], Floats]:
    """Mean over the windows that speak of the same item and bucket: rows int64[I], values float[I,
    T].

    >>> pool = Pool(None, torch.zeros(2, 2), np.array([7, 7]), np.array([0, 1]))
    >>> pool = Pool(Batch(*[torch.zeros(0)] * 5, resolution_ms=1),
    ...     *[pool.actual_NH, pool.rows_N, pool.cutoffs_N])
    >>> by_item_and_bucket(np.array([[1.0, 2.0], [4.0, np.nan]]), pool, 0, 2)[1].tolist()
    [[1.0, 3.0]]
    """
    rows_I, item_N = np.unique(pool.rows_N, return_inverse=True)
    first_N = (pool.cutoffs_N - start_ms) // pool.batch.resolution_ms
    bucket_NH = first_N[:, None] + np.arange(values_NH.shape[1])
    keep_NH = np.isfinite(values_NH) & (bucket_NH >= 0) & (bucket_NH < num_buckets)
    item_NH = np.broadcast_to(item_N[:, None], keep_NH.shape)
    sums_IT, counts_IT = np.zeros((2, len(rows_I), num_buckets))
    np.add.at(sums_IT, (item_NH[keep_NH], bucket_NH[keep_NH]), values_NH[keep_NH])
    np.add.at(counts_IT, (item_NH[keep_NH], bucket_NH[keep_NH]), 1.0)
    return rows_I, np.where(counts_IT > 0, sums_IT / np.maximum(counts_IT, 1.0), np.nan)


def _fitted(pool: Pool, network: FreshetNetwork) -> Pool:
    """The pool with context and horizon as long as the network's patches need."""
    config = network.config
    batch = newest(pool.batch, config.context_length)
    right = -batch.prediction_length % config.patch_length
    batch = padded(batch, left=-batch.context_length % config.patch_length, right=right)
    missing = batch.prediction_length - pool.actual_NH.shape[1]
    return Pool(
        batch, F.pad(pool.actual_NH, (0, missing), value=math.nan), pool.rows_N, pool.cutoffs_N
    )
