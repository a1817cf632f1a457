"""What the scores of one final bucket say of each segment: many items in two numbers at rest.

Sales themselves change with the hour, the season and every promotion, and a detector on them never
rests. Where each actual fell in its own forecast distribution (PIT), as a normal score, is stable
while the forecasts are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from freshet.stream.arrays import Floats
from freshet.stream.schemas import Score, ScoredStep

CLIP = 2.5  # one flash sale or one bulk order may not move a segment
STEP_CORRELATION = 0.8  # of the normal scores of older and newer forecasts of the same bucket
LEAST_WEIGHT = 0.1  # sparse items tell little each, but there are many
SMALLEST_RESIDUAL = 1e-6  # the last digit of a published residual


@dataclass(frozen=True, slots=True)
class Item:
    """One item in one bucket.

    Attributes:
        z: Its normal score.
        leverage: How far a doubling of its sales would move that.
        actual: Units sold.
        expected: Units forecast (median).
    """

    z: float
    leverage: float
    actual: float
    expected: float


@dataclass(frozen=True, slots=True)
class PooledStatistics:
    """One segment in one final bucket.

    Attributes:
        bucket_ms: Start of the bucket.
        level: Pooled normal score, about standard normal while forecasts are right, above 0 when
            more is sold.
        spread: Pooled squares of the normal scores, less what is usual; above 0 when forecasts are
            too sure.
        leverage: How much a doubling of all sales would add to `level`.
        actual: Units sold.
        expected: Units forecast (sum of medians).
    """

    bucket_ms: int
    level: float
    spread: float
    leverage: float
    actual: float
    expected: float


def serving_version(scores: Iterable[Score]) -> str:
    """The version behind the newest forecasts of a bucket, empty without any."""
    count: Counter[tuple[int, str]] = Counter()
    for score in scores:
        for step in score.steps:
            count[step.step, step.weights_version] += 1
    if not count:
        return ""
    # The fewest steps ahead is the newest cutoff; of several versions there, the most frequent.
    _, version = min(count, key=lambda pair: (pair[0], -count[pair]))
    return version


def items_by_segment(
    scores: Iterable[Score], version: str, *, left_out: Collection[str] = ()
) -> dict[str, list[Item]]:
    """The items of a bucket that can be held against the version in service.

    Stocked-out items say nothing, nor do those in `left_out` (on promotion), nor forecasts of other
    versions.
    """
    kept: list[tuple[Score, list[ScoredStep]]] = []
    for score in scores:
        steps = [step for step in score.steps if step.weights_version == version]
        if steps and score.in_stock and score.item_id not in left_out:
            kept.append((score, steps))
    z_of_kept = normal_scores([steps for _, steps in kept]).tolist()
    items: dict[str, list[Item]] = {}
    for (score, steps), z in zip(kept, z_of_kept, strict=True):
        items.setdefault(score.segment, []).append(_item(score, steps, z))
    return items


def _item(score: Score, steps: list[ScoredStep], z: float) -> Item:
    """The mean over the steps that were due."""
    medians = [step.median or 0.0 for step in steps]
    leverages = [
        leverage_of(score.actual, median, step.residual)
        for median, step in zip(medians, steps, strict=True)
    ]
    return Item(z, sum(leverages) / len(steps), score.actual, sum(medians) / len(steps))


def leverage_of(actual: float, median: float, residual: float) -> float:
    """How far a doubling would lift an actual, in standard deviations of its forecast.

    The record names no standard deviation, but `residual` is the distance of actual and median in
    it. Where the two are equal, counts are taken for Poisson: the root of the median.

    >>> leverage_of(actual=14.0, median=10.0, residual=0.8)
    2.0
    """
    if abs(residual) < SMALLEST_RESIDUAL or actual == median:
        return float(min(median / max(median, 1.0) ** 0.5, CLIP))
    return float(min(median * residual / (actual - median), CLIP))


def normal_scores(steps: list[list[ScoredStep]]) -> Floats:
    """One clipped normal score an item, of about unit variance however many steps were due."""
    if not steps:
        return np.zeros(0)
    count_I = np.array([len(of_item) for of_item in steps])
    first_I = np.cumsum(count_I) - count_I
    pit = np.array([step.pit for of_item in steps for step in of_item])
    z = ndtri(pit).clip(-CLIP, CLIP)  # normal scores of 0 and 1 are infinite
    mean_I = np.add.reduceat(z, first_I) / count_I
    # The variance of a mean of scores that correlate; of independent ones it would be 1 / count.
    variance_I = (1 + (count_I - 1) * STEP_CORRELATION) / count_I
    return np.asarray(mean_I / np.sqrt(variance_I))


def pool(bucket_ms: int, items: list[Item]) -> PooledStatistics:
    """Sum of the items' normal scores, each weighed by what it can tell, scaled to unit variance.

    >>> pooled = pool(0, [Item(1.0, 2.0, 8.0, 4.0), Item(1.0, 2.0, 7.0, 4.0)])
    >>> round(pooled.level, 3), pooled.actual
    (1.414, 15.0)
    """
    z_I = np.array([item.z for item in items])
    leverage_I = np.array([item.leverage for item in items])
    # A shift of all sales moves each item by its leverage, so this weighing finds it soonest.
    weight_I = np.maximum(leverage_I, LEAST_WEIGHT)
    norm = float(np.sqrt((weight_I**2).sum()))
    return PooledStatistics(
        bucket_ms=bucket_ms,
        level=float((weight_I * z_I).sum()) / norm,
        # The square of a standard normal has mean 1 and variance 2.
        spread=float((weight_I * (z_I**2 - 1.0)).sum()) / norm / 2**0.5,
        leverage=float((weight_I * leverage_I).sum()) / norm,
        actual=sum(item.actual for item in items),
        expected=sum(item.expected for item in items),
    )
