"""What two versions really lose on the same days of real shops: the noise that a gate must bear.

A shop's hours, the shipped weights, and what learn's fine-tuning makes of them on days before.
Trials are drawn from the days after that, in blocks, without the versions' mean difference.

Dimensions: I items, T hours, D days.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from bench.hours import Shop, batch_of, shops
from freshet.model.batch import Batch
from freshet.model.weights import BASE_WEIGHTS, verify_weights
from freshet.online.learn.finetune import make_challenger
from freshet.online.trials.evaluation import compare
from freshet.online.trials.pools import build_pools, split_history
from freshet.stream.arrays import Floats, Ints
from freshet.stream.config import LearnSettings
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS

CONTEXT, STEPS, NUM_SEGMENTS = 512, 48, 8
NUM_ITEMS, DAYS_TUNED, DAYS_PAIRED, BLOCK_DAYS = 144, 60, 28, 4
NAMES = ("online_retail", "dunnhumby_product_category")


class Past:
    """A `History` over a shop's hours."""

    steps = STEPS

    def __init__(self, shop: Shop) -> None:
        often_N = (shop.hours_NL > 0).sum(1)
        rows = np.sort(np.argsort(-often_N, kind="stable")[:NUM_ITEMS])
        rows = rows[: len(rows) // NUM_SEGMENTS * NUM_SEGMENTS]
        self.units_IT = shop.hours_NL[rows].astype(np.float64)
        self.grid = Grid(HOUR_MS)
        self.first = self.grid.bucket(shop.first_ms)
        self.known = DAYS_TUNED * 24

    @property
    def item_ids(self) -> list[str]:
        return [f"item{row}" for row in range(len(self.units_IT))]

    def refresh(self) -> None: ...

    def final_ms(self) -> int:
        return self.grid.start_ms(self.first + self.known)

    def first_ms(self) -> int:
        return self.grid.start_ms(self.first)

    def segments(self) -> list[str]:
        return segment_names(len(self.units_IT))

    def mean_units(self) -> Floats:
        means_I: Floats = self.units_IT[:, : self.known].mean(1)
        return means_I

    def offsets(self) -> dict[str, int]:
        return {}

    def batch(self, rows: Ints, cutoff_ms: int) -> Batch:
        context = self.target(rows, cutoff_ms, CONTEXT)
        return batch_of(context.astype(np.float32), STEPS, cutoff_ms, HOUR_MS)

    def target(self, rows: Ints, end_ms: int, steps: int) -> Floats:
        stop = self.grid.bucket(end_ms) - self.first
        hours = np.arange(stop - steps, stop)
        held = (hours >= 0) & (hours < self.known)
        return np.where(held, self.units_IT[:, np.where(held, hours, 0)][rows], math.nan)


def segment_names(num_items: int) -> list[str]:
    """As many segments of as many items each."""
    return [f"s{row * NUM_SEGMENTS // num_items}" for row in range(num_items)]


def real_pairs(data: Path) -> dict[str, tuple[Floats, Floats]]:
    """Losses of the shipped and of the tuned weights on real days, [I, D, 24]."""
    torch.set_num_threads(2)
    return {shop.name: _pair(Past(shop)) for shop in shops(data) if shop.name in NAMES}


def _pair(past: Past) -> tuple[Floats, Floats]:
    settings = LearnSettings(device="cpu")
    base = verify_weights(BASE_WEIGHTS).network
    split = split_history(past, settings, None)
    tuned = make_challenger(base, build_pools(past, split, (), 0), settings=settings).network
    past.known = (DAYS_TUNED + DAYS_PAIRED) * 24
    losses = []
    for day in range(DAYS_TUNED, DAYS_TUNED + DAYS_PAIRED):
        start_ms = past.first_ms() + day * DAY_MS
        both = compare(
            past, base, tuned, start_ms=start_ms, end_ms=start_ms + DAY_MS, maximum=NUM_ITEMS
        )
        losses.append((both.first_IT, both.second_IT))
    first, second = (np.nan_to_num(np.stack(each, axis=1)) for each in zip(*losses, strict=True))
    return first, second


def resampled(pair: tuple[Floats, Floats], gains_S: Floats, num_days: int, seed: int) -> Floats:
    """Hours of both versions over days drawn in blocks, [2, I, T], with a gain in each segment.

    Over all days that may be drawn the gain of each segment is just that.
    """
    first_IDH, second_IDH = pair
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, first_IDH.shape[1], -(-num_days // BLOCK_DAYS))
    days = (starts[:, None] + np.arange(BLOCK_DAYS)).ravel()[:num_days] % first_IDH.shape[1]
    segment_I = np.arange(len(first_IDH)) * NUM_SEGMENTS // len(first_IDH)
    first_S, second_S = (
        np.bincount(segment_I, x.sum((1, 2)), NUM_SEGMENTS) for x in (first_IDH, second_IDH)
    )
    factor_I = ((1.0 - gains_S) * first_S / second_S)[segment_I]
    second_IDH = second_IDH * factor_I[:, None, None]
    return np.stack([x[:, days].reshape(len(x), -1) for x in (first_IDH, second_IDH)])


def daily_sd(pair: tuple[Floats, Floats]) -> float:
    """The sd of a segment's paired daily relative difference, as the gate reckons it; the mean."""
    segment_I = np.arange(len(pair[0])) * NUM_SEGMENTS // len(pair[0])
    first_SD, second_SD = (
        np.stack([x[segment_I == number].sum((0, 2)) for number in range(NUM_SEGMENTS)])
        for x in pair
    )
    # Of a segment that sold nothing no version lost anything.
    sold_S = first_SD.sum(1) > 0
    first_SD, second_SD = first_SD[sold_S], second_SD[sold_S]
    ratio_S1 = second_SD.sum(1, keepdims=True) / first_SD.sum(1, keepdims=True)
    residual_SD = (ratio_S1 * first_SD - second_SD) / first_SD.mean(1, keepdims=True)
    return float(residual_SD.std(1, ddof=1).mean())
