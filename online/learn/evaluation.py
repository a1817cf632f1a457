"""The windows of one training and the trial that the gate judges, built from the window store's
past.

Dimensions: I items, T buckets.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from freshet.model.network import FreshetNetwork
from freshet.online.learn.finetune import (
    Pool,
    Windows,
    build_pool,
    by_item_and_bucket,
    evaluate,
    forecast_ms,
)
from freshet.online.learn.gate import Trial
from freshet.online.learn.windows import (
    MAX_VALIDATION_WINDOWS,
    MIN_RECENT_BUCKETS,
    Split,
    anchor_draws,
    holdout_draws,
    ready_ms,
    recent_draws,
    replay_draws,
    split_time,
)
from freshet.stream.config import LearnSettings
from freshet.stream.errors import InvalidInputError

ALL_SEGMENTS = "all"
MIN_CONTEXT_BUCKETS = 24
MAX_HOLDOUT_FACTOR = 2

Floats = NDArray[np.float64]


class History(Windows, Protocol):
    """What the window store holds of the past, as training needs it."""

    resolution_ms: int
    steps: int

    def refresh(self) -> None:
        """Take in what is new."""

    def final_ms(self) -> int | None:
        """Buckets that end at or before it are final."""

    def first_ms(self) -> int | None:
        """Start of the oldest bucket that was observed and is held."""

    def segments(self) -> list[str]:
        """The segment of each row."""

    def levels(self) -> Floats:
        """Mean units of each row."""

    def offsets(self) -> dict[str, int]:
        """What of the log has been folded."""


@dataclass(frozen=True, slots=True)
class Pools:
    """Windows of one training; replay and anchors are None where the past is too short for them."""

    recent: Pool
    replay: Pool | None
    validation: Pool
    anchors: Pool | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two networks on the same windows.

    Attributes:
        pool: The windows.
        rows_I: Row of each item.
        first_IT, second_IT: Loss in units per item and bucket, NaN without a label.
        first_coverage, second_coverage: Share of labels within the 80 % interval.
        finite: No forecast of the second network is NaN or infinite.
    """

    pool: Pool
    rows_I: NDArray[np.int64]
    first_IT: Floats
    second_IT: Floats
    first_coverage: float
    second_coverage: float
    finite: bool


def split_of(history: History, settings: LearnSettings, onset_ms: int | None) -> Split:
    """Divide the final windows.

    Raises:
        InvalidInputError: There are too few of them.
    """
    final_ms, first_ms, width_ms = history.final_ms(), history.first_ms(), history.resolution_ms
    holdout = settings.holdout_buckets
    if final_ms is None or first_ms is None or not history.segments():
        raise InvalidInputError("there are no final windows to learn from")
    if final_ms < ready_ms(first_ms, resolution_ms=width_ms, holdout_buckets=holdout):
        raise InvalidInputError(
            f"{(final_ms - first_ms) // width_ms} buckets are final; training, validation and "
            "hold-out "
            f"need {ready_ms(0, resolution_ms=1, holdout_buckets=holdout)}"
        )
    return split_time(
        final_ms,
        first_ms=first_ms + MIN_CONTEXT_BUCKETS * width_ms,
        onset_ms=onset_ms,
        resolution_ms=width_ms,
        recent_buckets=max(MIN_RECENT_BUCKETS, settings.recent_buckets),
        holdout_buckets=holdout,
    )


def pools_of(history: History, split: Split, affected: Collection[str], seed: int) -> Pools:
    """Draw and build the windows of one training; the same past and seed give the same windows.

    Args:
        affected: Segments that a drift named; their items make half of the recent windows.
    """
    rng, steps, levels = np.random.default_rng(seed), history.steps, history.levels()
    named = np.flatnonzero([segment in affected for segment in history.segments()])
    newest = recent_draws(rng, split, len(levels), named if len(named) else None)
    recent = build_pool(history, newest, steps=steps, label_end_ms=split.train_end_ms)
    older = replay_draws(rng, split, levels, steps)
    spared = anchor_draws(rng, split, levels, steps, older)
    ends_ms = split.train_end_ms, split.holdout_start_ms
    newer = holdout_draws(rng, *ends_ms, split.resolution_ms, len(levels), MAX_VALIDATION_WINDOWS)
    validation = build_pool(history, newer, steps=steps, label_end_ms=split.holdout_start_ms)
    assert recent is not None and validation is not None, split
    replay = build_pool(history, older, steps=steps, label_end_ms=split.recent_start_ms)
    anchors = build_pool(history, spared, steps=steps, label_end_ms=split.recent_start_ms)
    return Pools(recent, replay, validation, anchors)


def compare(
    history: History,
    first: FreshetNetwork,
    second: FreshetNetwork,
    *,
    start_ms: int,
    end_ms: int,
    seed: int,
) -> Comparison:
    """Both networks on the same windows, with labels in [start, end).

    Raises:
        InvalidInputError: There is no window.
    """
    rng = np.random.default_rng(seed + 1)
    draws = holdout_draws(rng, start_ms, end_ms, history.resolution_ms, len(history.segments()))
    pool = build_pool(history, draws, steps=history.steps, label_end_ms=end_ms)
    if pool is None:
        raise InvalidInputError("there are no held-out windows to compare on")
    one, other = evaluate(first, pool), evaluate(second, pool)
    num_buckets = (end_ms - start_ms) // history.resolution_ms
    rows_I, first_IT = by_item_and_bucket(one.loss_NH, pool, start_ms, num_buckets)
    _, second_IT = by_item_and_bucket(other.loss_NH, pool, start_ms, num_buckets)
    return Comparison(pool, rows_I, first_IT, second_IT, one.coverage, other.coverage, other.finite)


def trial_of(
    history: History,
    split: Split,
    pools: Pools,
    champion: FreshetNetwork,
    challenger: FreshetNetwork,
    *,
    affected: Collection[str],
    seed: int,
) -> Trial:
    """Champion and challenger on the hold-out; what became final while the challenger was trained
    belongs to it.
    """
    latest_ms = (
        split.holdout_start_ms + MAX_HOLDOUT_FACTOR * split.holdout_buckets * split.resolution_ms
    )
    final_ms = (
        max(history.final_ms() or 0, split.final_ms) // split.resolution_ms * split.resolution_ms
    )
    both = compare(
        history,
        champion,
        challenger,
        start_ms=split.holdout_start_ms,
        end_ms=min(final_ms, latest_ms),
        seed=seed,
    )
    segments = history.segments()
    before, after = (_losses(network, pools.anchors) for network in (champion, challenger))
    champion_ms, challenger_ms = forecast_ms([champion, challenger], both.pool)
    return Trial(
        champion_IT=both.first_IT,
        challenger_IT=both.second_IT,
        segments=[segments[row] for row in both.rows_I],
        affected=frozenset(segments if ALL_SEGMENTS in affected else affected),
        resolution_ms=split.resolution_ms,
        champion_coverage=both.first_coverage,
        challenger_coverage=both.second_coverage,
        champion_anchor_A=before,
        challenger_anchor_A=after,
        champion_ms=champion_ms,
        challenger_ms=challenger_ms,
        finite=both.finite and all(bool(torch.isfinite(p).all()) for p in challenger.parameters()),
    )


def _losses(network: FreshetNetwork, pool: Pool | None) -> Floats:
    return np.zeros(0) if pool is None else evaluate(network, pool).loss_NH
