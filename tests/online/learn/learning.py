"""A small past and a small network for tests of learning."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.text import NUM_STATIC
from freshet.model.training.train import FineTuneSettings, fine_tune
from freshet.online.trials.pools import Pool, build_pool
from freshet.online.trials.windows import Selection
from freshet.stream.arrays import Floats, Ints
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS

CONTEXT, STEPS, ITEMS = 64, 16, 12
START_MS = 20_000 * DAY_MS
BY_HOUR = Grid(HOUR_MS)


class PastInMemory:
    """A `History` over an array of units, newest bucket last: four segments, a day of 24 hours."""

    steps = STEPS

    def __init__(
        self,
        num_buckets: int,
        onset: int | None = None,
        seed: int = 0,
        grid: Grid = BY_HOUR,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.grid, self.first = grid, grid.bucket(START_MS)
        hours = np.arange(num_buckets)
        level_I1 = np.exp(rng.normal(2.0, 0.6, (ITEMS, 1)))
        rate_IN = level_I1 * (1.0 + 0.8 * np.sin(2 * np.pi * (hours % 24) / 24.0))
        if onset is not None:
            # From the onset on every third hour sells five times as much, the others a quarter.
            comb_N = np.where(hours % 3 == 0, 5.0, 0.25)
            rate_IN[:, onset:] = (level_I1 * comb_N)[:, onset:]
        self.units_IN = rng.poisson(rate_IN).astype(np.float64)
        self.known_buckets = num_buckets
        self.refreshes = 0

    def refresh(self) -> None:
        self.refreshes += 1

    def final_ms(self) -> int | None:
        return self.grid.start_ms(self.first + self.known_buckets)

    def first_ms(self) -> int | None:
        return self.grid.start_ms(self.first)

    @property
    def item_ids(self) -> list[str]:
        return [f"item{row}" for row in range(ITEMS)]

    def segments(self) -> list[str]:
        return [f"s{row % 4}" for row in range(ITEMS)]

    def mean_units(self) -> Floats:
        mean_units_I: Floats = self.units_IN[:, : self.known_buckets].mean(1)
        return mean_units_I

    def offsets(self) -> dict[str, int]:
        return {"orders:0": self.known_buckets}

    def batch(self, rows: Ints, cutoff_ms: int) -> Batch:
        B, start = len(rows), self.grid.bucket(cutoff_ms) - CONTEXT
        return Batch(
            torch.from_numpy(self.target(rows, cutoff_ms, CONTEXT)).float(),
            torch.full((B, CONTEXT, len(PAST_SLOTS)), math.nan),
            torch.full((B, CONTEXT + STEPS, len(KNOWN_SLOTS)), math.nan),
            torch.full((B, NUM_STATIC), math.nan),
            torch.full((B,), self.grid.start_ms(start), dtype=torch.int64),
            self.grid.resolution_ms,
        )

    def target(self, rows: Ints, end_ms: int, steps: int) -> Floats:
        stop = self.grid.bucket(end_ms) - self.first
        bucket_H = np.arange(stop - steps, stop)
        held_H = (bucket_H >= 0) & (bucket_H < self.known_buckets)
        units_IH: Floats = self.units_IN[:, np.where(held_H, bucket_H, 0)][rows]
        return np.where(held_H, units_IH, np.nan)


def pool_at(past: PastInMemory, hours: range, end: int) -> Pool:
    """Windows of all items whose cutoffs lie at these hours, with labels before hour `end`."""
    rows = np.arange(ITEMS)
    selections = [Selection(START_MS + hour * HOUR_MS, rows) for hour in hours]
    pool = build_pool(past, selections, label_end_ms=START_MS + end * HOUR_MS)
    assert pool is not None
    return pool


def small_network(seed: int = 0, context_length: int = CONTEXT) -> FreshetNetwork:
    torch.manual_seed(seed)
    config = FreshetConfig(
        width=32,
        num_layers=1,
        num_heads=2,
        patch_length=8,
        context_length=context_length,
        prediction_length=STEPS,
    )
    network = FreshetNetwork(config)
    network.train(False)
    return network


def network_that_says(units: float) -> FreshetNetwork:
    """A small network that keeps a number where it can be stored and found again."""
    config = FreshetConfig(
        width=8,
        num_layers=1,
        num_heads=1,
        patch_length=8,
        context_length=CONTEXT,
        prediction_length=STEPS,
    )
    torch.manual_seed(0)
    network = FreshetNetwork(config)
    with torch.no_grad():
        network.final_norm.weight.fill_(units)
    network.train(False)
    return network


def said_by(network: FreshetNetwork) -> float:
    return float(network.final_norm.weight.detach()[0])


@functools.cache
def taught_network() -> FreshetNetwork:
    """A network that knows `PastInMemory` as it was before the onset. Do not change it."""
    pool = pool_at(PastInMemory(400), range(70, 380, 4), end=400)

    def sampler(generator: torch.Generator) -> tuple[Batch, torch.Tensor]:
        index = torch.randint(len(pool), (16,), generator=generator)
        return pool.batch.rows(index), pool.actual_NH[index]

    settings = FineTuneSettings(steps=100, batch_size=16, learning_rate=5e-3)
    return fine_tune(small_network(), sampler, settings=settings).network
