"""A shop's hours as learn sees them on some day: what is retained then, and nothing newer.

Dimensions: N items, L hours, B rows, T context, K channels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from bench.base_scores import PROMOTION, World
from bench.hours import batch_of
from freshet.model.batch import Batch
from freshet.stream.arrays import Floats, Ints
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS

CONTEXT, STEPS = 512, 48
RETAINED = 1_344  # as `windows.resolutions` keeps hours
MEAN_HOURS = 168


class Past:
    """A `History` over the hours of a shop, `known` of which have happened."""

    steps = STEPS

    def __init__(self, shop: World, days: int) -> None:
        self.units_NL = np.where(shop.in_stock_NL, shop.units_NL, np.nan).astype(np.float32)
        self.promoted_NL = shop.promoted_NL
        self.names = [f"s{number}" for number in shop.segment_N]
        self.grid = Grid(HOUR_MS)
        self.first = self.grid.bucket(shop.first_ms)
        self.known = days * 24

    @property
    def item_ids(self) -> list[str]:
        """The item of each row."""
        return [f"item{row}" for row in range(len(self.units_NL))]

    @property
    def num_days(self) -> int:
        """Days that there are, known or not."""
        return self.units_NL.shape[1] // 24

    def at(self, day: int) -> int:
        """When a day begins."""
        return self.grid.start_ms(self.first) + day * DAY_MS

    def refresh(self) -> None:
        """Nothing is read."""

    def final_ms(self) -> int:
        """The end of what has happened."""
        return self.grid.start_ms(self.first + self.known)

    def first_ms(self) -> int:
        """Start of the oldest bucket that is retained."""
        return self.grid.start_ms(self.first + self._oldest)

    def segments(self) -> list[str]:
        """The segment of each row."""
        return self.names

    def mean_units(self) -> Floats:
        """Mean units of each row over the newest week."""
        week_NT = self.units_NL[:, max(self.known - MEAN_HOURS, 0) : self.known]
        seen_N = np.isfinite(week_NT).sum(1)
        means_N: Floats = np.nansum(week_NT, axis=1) / np.maximum(seen_N, 1)
        return means_N

    def offsets(self) -> dict[str, int]:
        """There is no log."""
        return {}

    def batch(self, rows: Ints, cutoff_ms: int) -> Batch:
        """Contexts that end at the cutoff, with the promotions that are known after it."""
        target_BT = self.target(rows, cutoff_ms, CONTEXT).astype(np.float32)
        batch = batch_of(target_BT, STEPS, cutoff_ms, HOUR_MS)
        if not self.promoted_NL.any():
            return batch
        known_BSK = batch.known_BSK.clone()
        hours, inside = self._hours(cutoff_ms, CONTEXT, ahead=STEPS)
        promoted = self.promoted_NL[:, np.where(inside, hours, 0)][rows] & inside
        known_BSK[:, :, PROMOTION] = torch.from_numpy(promoted.astype(np.float32))
        return replace(batch, known_BSK=known_BSK)

    def target(self, rows: Ints, end_ms: int, steps: int) -> Floats:
        """Units of the steps that end at `end_ms`; NaN where not retained, or not yet known."""
        hours, _ = self._hours(end_ms, steps)
        held = (hours >= self._oldest) & (hours < self.known)
        return np.where(held, self.units_NL[:, np.where(held, hours, 0)][rows], math.nan)

    @property
    def _oldest(self) -> int:
        return max(0, self.known - RETAINED)

    def _hours(self, end_ms: int, steps: int, ahead: int = 0) -> tuple[Ints, Ints]:
        stop = self.grid.bucket(end_ms) - self.first
        hours = np.arange(stop - steps, stop + ahead)
        return hours, (hours >= 0) & (hours < self.units_NL.shape[1])
