"""Selected windows as tensors, contexts with labels: what networks learn and are judged on.

Dimensions: N windows, H steps, I items, B rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.online.trials.windows import (
    MAX_VALIDATION_WINDOWS,
    Selection,
    Split,
    buckets_needed,
    final_since,
    first_whole,
    select_anchors,
    select_held_out,
    select_items,
    select_recent,
    select_replay,
    split_time,
    starts_within,
)
from freshet.stream.arrays import Floats, Ints
from freshet.stream.config import LearnSettings
from freshet.stream.errors import InvalidInputError
from freshet.stream.store.grid import Grid

# A day: with less of it the time of day cannot be told from the item.
MIN_CONTEXT_BUCKETS = 24


class History(Protocol):
    """What the window store holds of the past at one resolution, as training needs it."""

    steps: int

    @property
    def grid(self) -> Grid:
        """Its buckets."""

    def refresh(self) -> None:
        """Take in what is new."""

    def batch(self, rows: Ints, cutoff_ms: int) -> Batch:
        """Contexts that end at the cutoff, and what was known then of the steps after it."""

    def target(self, rows: Ints, end_ms: int, steps: int) -> Floats:
        """Units of the steps that end at `end_ms`, [rows, steps].

        NaN where not observed or out of stock.
        """

    def final_ms(self) -> int | None:
        """Buckets that end at or before it are final."""

    def first_ms(self) -> int | None:
        """Start of the oldest bucket that was observed and is held."""

    @property
    def item_ids(self) -> list[str]:
        """The item of each row."""

    def segments(self) -> list[str]:
        """The segment of each row."""

    def mean_units(self) -> Floats:
        """Mean units of each row."""

    def offsets(self) -> dict[str, int]:
        """What of the log has been folded."""


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
    rows_N: Ints
    cutoffs_N: Ints

    def __len__(self) -> int:
        return len(self.rows_N)


@dataclass(frozen=True, slots=True)
class Pools:
    """Windows of one training; replay and anchors are None where the past is too short for them."""

    recent: Pool
    replay: Pool | None
    validation: Pool
    anchors: Pool | None

    @property
    def num_training_windows(self) -> int:
        """Windows that a step may learn from."""
        return len(self.recent) + len(self.replay or ())


def split_history(history: History, settings: LearnSettings, onset_ms: int | None) -> Split:
    """Divide the final windows.

    Raises:
        InvalidInputError: There are too few of them.
    """
    grid = history.grid
    final_ms, first_ms = history.final_ms(), history.first_ms()
    if final_ms is None or first_ms is None or not history.segments():
        raise InvalidInputError("there are no final windows to learn from")
    found, needed = final_since(grid, first_ms, final_ms), buckets_needed(settings.holdout_buckets)
    if found < needed:
        raise InvalidInputError(
            f"{found} buckets are final; training, validation and hold-out need {needed}"
        )
    return split_time(
        final_ms,
        first_ms=grid.start_ms(first_whole(grid, first_ms) + MIN_CONTEXT_BUCKETS),
        onset_ms=onset_ms,
        grid=grid,
        recent_buckets=settings.recent_buckets,
        holdout_buckets=settings.holdout_buckets,
    )


def build_pools(history: History, split: Split, affected: Collection[str], seed: int) -> Pools:
    """Select and build the windows of one training; the same past and seed give the same windows.

    Args:
        history: The past.
        split: Which part of it is for what.
        affected: Segments that a drift named; their items make half of the recent windows.
        seed: Of the one generator that all choices share, in the order in which they stand here.
    """
    rng = np.random.default_rng(seed)
    mean_units_I = history.mean_units()
    num_items, steps = len(mean_units_I), history.steps
    named = np.flatnonzero([segment in affected for segment in history.segments()])
    recent = select_recent(rng, split, num_items=num_items, affected=named)
    replay = select_replay(rng, split, mean_units_I=mean_units_I, steps=steps)
    anchors = select_anchors(rng, split, mean_units_I=mean_units_I, steps=steps, taken=replay)
    validation = select_held_out(
        select_items(rng, num_items, MAX_VALIDATION_WINDOWS),
        starts_within(split.grid, split.train_end_ms, split.holdout_start_ms),
        maximum=MAX_VALIDATION_WINDOWS,
    )
    # A label that crossed the end of its part would be learnt here and judged there.
    return Pools(
        recent=_built(history, recent, split.train_end_ms),
        replay=build_pool(history, replay, label_end_ms=split.recent_start_ms),
        validation=_built(history, validation, split.holdout_start_ms),
        anchors=build_pool(history, anchors, label_end_ms=split.recent_start_ms),
    )


def build_pool(
    history: History, selections: Sequence[Selection], *, label_end_ms: int
) -> Pool | None:
    """The windows selected, or None where there are none; labels from `label_end_ms` on are NaN."""
    if not selections:
        return None
    batches, actuals, cutoffs = [], [], []
    for selection in selections:
        rows, cutoff_ms = selection.rows, selection.cutoff_ms
        batch, actual_NH = (
            history.batch(rows, cutoff_ms).to("cpu"),
            _labels(history, selection, label_end_ms),
        )
        if batch.factor_B is not None:
            # Networks learn amounts in the size in which they see them.
            actual_NH *= batch.factor_B[:, None]
        batches.append(replace(batch, factor_B=None, own_B=None, pooled_BHQ=None))
        actuals.append(actual_NH)
        cutoffs.append(np.full(len(rows), cutoff_ms, np.int64))
    return Pool(
        batch=concatenated(batches),
        actual_NH=torch.cat(actuals),
        rows_N=np.concatenate([selection.rows for selection in selections]),
        cutoffs_N=np.concatenate(cutoffs),
    )


def concatenated(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows, without groups: rows of different cutoffs are not related."""
    first = replace(batches[0], group_B=None)
    names = [field.name for field in fields(first)]
    names = [name for name in names if isinstance(getattr(first, name), Tensor)]
    joined: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in batches]) for name in names
    }
    return replace(first, **joined)


def _built(history: History, selections: Sequence[Selection], label_end_ms: int) -> Pool:
    pool = build_pool(history, selections, label_end_ms=label_end_ms)
    assert pool is not None, "a split leaves room for at least one window in each part"
    return pool


def _labels(history: History, selection: Selection, label_end_ms: int) -> Tensor:
    """Units of the steps after the cutoff that end by `label_end_ms`; NaN for later steps."""
    grid, steps = history.grid, history.steps
    first = grid.bucket(selection.cutoff_ms)
    known_steps = min(steps, grid.bucket(label_end_ms) - first)
    actual_NH = torch.full((len(selection.rows), steps), math.nan)
    if known_steps:
        end_ms = grid.start_ms(first + known_steps)
        known_NK = history.target(selection.rows, end_ms, known_steps)
        actual_NH[:, :known_steps] = torch.from_numpy(known_NK)
    return actual_NH
