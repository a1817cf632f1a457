"""What networks do on windows that neither learnt from: losses, coverage, latency.

Dimensions: N windows, H steps, Q quantile levels, I items, T buckets, A anchor windows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from freshet.model.forecaster import BatchForecaster
from freshet.model.network import FreshetNetwork
from freshet.model.quantiles.metrics import pinball
from freshet.online.trials.pools import History, Pool, build_pool
from freshet.online.trials.windows import (
    MAX_GATE_WINDOWS,
    select_held_out,
    select_items,
    starts_within,
)
from freshet.online.weights.assignment import Assignment
from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError

FORECAST_ROWS = 256
LATENCY_PASSES_MIN = 3
LATENCY_PASSES_MAX = 40
LATENCY_ROWS = 32
LATENCY_AGREEMENT = 1.2


Served = Callable[[str], bool]
"""Whether a segment is served by the version that is judged, or that it would take the place of."""


def everybody(segment: str) -> bool:
    """One version serves all segments."""
    del segment
    return True


def served_by(assignment: Assignment, version: str) -> Served:
    """Which segments a version serves."""
    return lambda segment: assignment.of(segment) == version


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
        first_covered_IT, second_covered_IT: Share of forecasts whose 80 % interval held the label.
        finite: No forecast of the second network is NaN or infinite.
    """

    pool: Pool
    rows_I: Ints
    first_IT: Floats
    second_IT: Floats
    first_covered_IT: Floats
    second_covered_IT: Floats
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
    seed: int = 0,
    rows: Ints | None = None,
    maximum: int = MAX_GATE_WINDOWS,
) -> Comparison:
    """Both networks on the same windows, about `maximum`, with labels in [start, end).

    Args:
        history: The past.
        first, second: The networks.
        start_ms, end_ms: Where labels lie.
        seed: Of the choice of items, where there are more than may be.
        rows: The items, where they are chosen already.
        maximum: More windows are built only where every item or bucket would not be seen else.

    Raises:
        InvalidInputError: There is no window.
    """
    every = starts_within(history.grid, start_ms, end_ms)
    if rows is None:
        rows = items_for(history, seed=seed, maximum=maximum)
    # A forecast that ends before the part does leaves labels unseen.
    maximum = max(maximum, len(rows) * math.ceil(len(every) / history.steps))
    selections = select_held_out(rows, every, maximum=maximum)
    pool = build_pool(history, selections, label_end_ms=end_ms)
    if pool is None:
        raise InvalidInputError("there are no held-out windows to compare on")
    one, other = evaluate(first, pool), evaluate(second, pool)
    num_buckets = len(every)
    bucket_N = history.grid.buckets(pool.cutoffs_N) - history.grid.bucket(start_ms)
    values = (one.loss_NH, other.loss_NH, one.covered_NH, other.covered_NH)
    first_IT, second_IT, first_covered_IT, second_covered_IT = (
        by_item_and_bucket(value_NH, pool.rows_N, bucket_N, num_buckets)[1] for value_NH in values
    )
    return Comparison(
        pool=pool,
        rows_I=np.unique(pool.rows_N),
        first_IT=first_IT,
        second_IT=second_IT,
        first_covered_IT=first_covered_IT,
        second_covered_IT=second_covered_IT,
        finite=other.finite,
    )


def items_for(
    history: History,
    *,
    seed: int,
    maximum: int,
    affected: Collection[str] = (),
    served: Served = everybody,
) -> Ints:
    """The rows on which versions are compared: all that are served, or a draw, affected ones first.

    Another stream of chance than the pools': what is held out does not hang on how many those are.
    """
    rng = np.random.default_rng(seed + 1)
    segments = history.segments()
    rows = np.flatnonzero([served(segment) for segment in segments])
    named = np.flatnonzero([segments[row] in affected for row in rows])
    return rows[select_items(rng, len(rows), maximum, first=named)]


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


def losses_on(network: FreshetNetwork, pool: Pool | None) -> Floats:
    """What a network loses on a pool; nothing where there is none."""
    return np.zeros(0) if pool is None else evaluate(network, pool).loss_NH


def _forecaster(network: FreshetNetwork) -> BatchForecaster:
    """The network where it is, in float32: versions are compared, not how fast they may be."""
    device = str(next(network.parameters()).device)
    return BatchForecaster(network, device=device, dtype="float32")
