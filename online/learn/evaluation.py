"""What networks do on windows that neither learnt from: losses, coverage, latency, and the trial.

Dimensions: N windows, H steps, Q quantile levels, I items, T buckets, A anchor windows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from freshet.model.forecaster import BatchForecaster
from freshet.model.network import FreshetNetwork
from freshet.model.quantiles.metrics import pinball
from freshet.online.learn.gate import Trial
from freshet.online.learn.pools import History, Pool, build_pool
from freshet.online.learn.windows import (
    MAX_GATE_WINDOWS,
    Split,
    select_held_out,
    starts_within,
)
from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError

ALL_SEGMENTS = "all"
FORECAST_ROWS = 256
# What became final while the challenger was trained belongs to the hold-out, up to this many times
# its length: how long a training took must not decide what it is judged on.
MAX_HOLDOUT_FACTOR = 2
LATENCY_PASSES_MIN = 3
LATENCY_PASSES_MAX = 40
LATENCY_ROWS = 32
LATENCY_AGREEMENT = 1.2


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a network did on a pool, NaN where there is no label.

    Attributes:
        loss_NH: Losses in units.
        covered_NH: Whether the 80 % interval held the label.
    """

    loss_NH: Floats
    covered_NH: Floats

    @property
    def coverage(self) -> float:
        """Share of labels within the interval; NaN without labels."""
        labelled = np.isfinite(self.covered_NH).any()
        return float(np.nanmean(self.covered_NH)) if labelled else math.nan

    @property
    def finite(self) -> bool:
        """No forecast with a label is NaN or infinite."""
        return not bool(np.isinf(self.loss_NH).any())


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
    rows_I: Ints
    first_IT: Floats
    second_IT: Floats
    first_coverage: float
    second_coverage: float
    finite: bool


def evaluate(network: FreshetNetwork, pool: Pool) -> Evaluation:
    """Twice the pinball loss in units, mean over quantile levels, of every label.

    Infinite where a forecast is not finite: such a network loses every comparison, and is not
    merely left out of it.
    """
    forecaster = _forecaster(network)
    quantiles_NHQ = forecaster.forecast(pool.batch, max_rows=FORECAST_ROWS).cpu().double().numpy()
    levels_Q = np.array(forecaster.quantile_levels)
    actual_NH = pool.actual_NH.double().numpy()
    observed_NH = np.isfinite(actual_NH)
    # A forecast reaches to the end of its last patch, a label does not.
    quantiles_NHQ = quantiles_NHQ[:, : actual_NH.shape[1]]

    # Twice the pinball loss of the median is the absolute error: units that people know.
    loss_NH = 2.0 * pinball(actual_NH, quantiles_NHQ, levels_Q).mean(-1)
    loss_NH = np.where(observed_NH & ~np.isfinite(loss_NH), np.inf, loss_NH)

    low, high = (int(np.abs(levels_Q - level).argmin()) for level in (0.1, 0.9))
    above_low_NH = actual_NH >= quantiles_NHQ[..., low]
    below_high_NH = actual_NH <= quantiles_NHQ[..., high]
    return Evaluation(
        loss_NH=np.where(observed_NH, loss_NH, np.nan),
        covered_NH=np.where(observed_NH, above_low_NH & below_high_NH, np.nan),
    )


def compare(
    history: History,
    first: FreshetNetwork,
    second: FreshetNetwork,
    *,
    start_ms: int,
    end_ms: int,
    seed: int,
    maximum: int = MAX_GATE_WINDOWS,
) -> Comparison:
    """Both networks on the same windows, `maximum` at most, with labels in [start, end).

    Raises:
        InvalidInputError: There is no window.
    """
    every = starts_within(history.grid, start_ms, end_ms)
    # Another stream of chance than the pools': the windows held out do not hang on how many those
    # are.
    rng = np.random.default_rng(seed + 1)
    num_items = len(history.segments())
    selections = select_held_out(rng, every, num_items=num_items, maximum=maximum)
    pool = build_pool(history, selections, label_end_ms=end_ms)
    if pool is None:
        raise InvalidInputError("there are no held-out windows to compare on")
    one, other = evaluate(first, pool), evaluate(second, pool)
    num_buckets = len(every)
    bucket_N = history.grid.buckets(pool.cutoffs_N) - history.grid.bucket(start_ms)
    rows_I, first_IT = by_item_and_bucket(one.loss_NH, pool.rows_N, bucket_N, num_buckets)
    _, second_IT = by_item_and_bucket(other.loss_NH, pool.rows_N, bucket_N, num_buckets)
    return Comparison(
        pool=pool,
        rows_I=rows_I,
        first_IT=first_IT,
        second_IT=second_IT,
        first_coverage=one.coverage,
        second_coverage=other.coverage,
        finite=other.finite,
    )


def try_on_holdout(
    history: History,
    split: Split,
    anchors: Pool | None,
    champion: FreshetNetwork,
    challenger: FreshetNetwork,
    *,
    affected: Collection[str],
    seed: int,
) -> Trial:
    """Champion and challenger on the hold-out, for the gate to judge; blocks for seconds.

    Args:
        history: The past, perhaps further than when it was split.
        split: Where the hold-out begins.
        anchors: Windows from before the recent part.
        champion: The network that serves.
        challenger: The network that would replace it.
        affected: Segments that the drift named; "all" is every one.
        seed: Of the choice of windows.
    """
    both = compare(
        history,
        champion,
        challenger,
        start_ms=split.holdout_start_ms,
        end_ms=_holdout_end_ms(history, split),
        seed=seed,
    )
    segments = history.segments()
    champion_ms, challenger_ms = forecast_ms([champion, challenger], both.pool)
    parameters_finite = all(bool(torch.isfinite(one).all()) for one in challenger.parameters())
    return Trial(
        champion_IT=both.first_IT,
        challenger_IT=both.second_IT,
        segments=[segments[row] for row in both.rows_I],
        affected=frozenset(segments if ALL_SEGMENTS in affected else affected),
        resolution_ms=split.grid.resolution_ms,
        champion_coverage=both.first_coverage,
        challenger_coverage=both.second_coverage,
        champion_anchor_A=_losses(champion, anchors),
        challenger_anchor_A=_losses(challenger, anchors),
        champion_ms=champion_ms,
        challenger_ms=challenger_ms,
        finite=both.finite and parameters_finite,
    )


def forecast_ms(networks: Sequence[FreshetNetwork], pool: Pool) -> list[float]:
    """Wall milliseconds of each network's fastest forecast of the same rows.

    They take turns, and go on until they are alike: a busy machine makes any one forecast slow, but
    not forty.
    """
    batch = pool.batch.rows(slice(0, LATENCY_ROWS))
    forecasters = [_forecaster(network) for network in networks]
    fastest_s = [math.inf] * len(networks)
    for number in range(LATENCY_PASSES_MAX):
        alike = max(fastest_s) <= LATENCY_AGREEMENT * min(fastest_s)
        if number >= LATENCY_PASSES_MIN and alike:
            break
        for index, forecaster in enumerate(forecasters):
            started = time.perf_counter()
            forecaster.forecast(batch).sum().item()
            fastest_s[index] = min(fastest_s[index], time.perf_counter() - started)
    return [1_000.0 * seconds for seconds in fastest_s]


def by_item_and_bucket(
    values_NH: Floats, rows_N: Ints, first_N: Ints, num_buckets: int
) -> tuple[Ints, Floats]:
    """Mean over the windows that speak of the same item and bucket: rows [I], values [I, T].

    A bucket is forecast from several cutoffs, and those errors are nearly one error: as a mean they
    count once, so that the gate's blocks of time are blocks of the clock.

    Args:
        values_NH: One for each window and step.
        rows_N: Row of each window.
        first_N: Bucket of each window's first step, 0 is the table's first.
        num_buckets: T; what lies outside of them is left out.

    >>> values = np.array([[1.0, 2.0], [4.0, np.nan]])
    >>> by_item_and_bucket(values, np.array([7, 7]), np.array([0, 1]), 2)[1].tolist()
    [[1.0, 3.0]]
    """
    rows_I, item_N = np.unique(rows_N, return_inverse=True)
    bucket_NH = first_N[:, None] + np.arange(values_NH.shape[1])
    item_NH = np.broadcast_to(item_N[:, None], bucket_NH.shape)

    within_NH = (bucket_NH >= 0) & (bucket_NH < num_buckets)
    keep_NH = np.isfinite(values_NH) & within_NH
    cells = item_NH[keep_NH], bucket_NH[keep_NH]
    sums_IT, counts_IT = np.zeros((2, len(rows_I), num_buckets))
    np.add.at(sums_IT, cells, values_NH[keep_NH])
    np.add.at(counts_IT, cells, 1.0)
    return rows_I, np.where(counts_IT > 0, sums_IT / np.maximum(counts_IT, 1.0), np.nan)


def _holdout_end_ms(history: History, split: Split) -> int:
    """Where the hold-out ends by now."""
    grid, start = split.grid, split.grid.bucket(split.holdout_start_ms)
    newest = grid.bucket(max(history.final_ms() or 0, split.final_ms))
    return grid.start_ms(min(newest, start + MAX_HOLDOUT_FACTOR * split.holdout_buckets))


def _losses(network: FreshetNetwork, pool: Pool | None) -> Floats:
    return np.zeros(0) if pool is None else evaluate(network, pool).loss_NH


def _forecaster(network: FreshetNetwork) -> BatchForecaster:
    """The network where it is, in float32: versions are compared, not how fast they may be."""
    device = str(next(network.parameters()).device)
    return BatchForecaster(network, device=device, dtype="float32")
