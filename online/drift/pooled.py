"""What the scores of one final bucket say of each segment: many items pooled into two numbers that
should be at rest.

Sales themselves change with the hour, the season and every promotion, and a detector on them never
rests. Where each actual fell in its own forecast distribution (PIT), as a normal score, is stable
while the forecasts are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from freshet.stream.arrays import Floats
from freshet.stream.schemas import Score, ScoredStep

CLIP = 2.5  # one flash sale or one bulk order may not move a segment
STEP_CORRELATION = 0.8  # of the normal scores of older and newer forecasts of the same bucket
LEAST_WEIGHT = 0.1  # sparse items tell little each, but there are many


@dataclass(frozen=True, slots=True)
class Item:
    """One item in one bucket: its normal score, how far a doubling would move that, units sold and
    expected.
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
    newest: Counter[tuple[int, str]] = Counter()
    for score in scores:
        for step in score.steps:
            newest[step.step, step.weights_version] += 1
    return min(newest, key=lambda pair: (pair[0], -newest[pair]))[1] if newest else ""


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
    items: dict[str, list[Item]] = {}
    for (score, steps), z in zip(
        kept, normal_scores([steps for _, steps in kept]).tolist(), strict=True
    ):
        leverage = sum(
            leverage_of(score.actual, step.median or 0.0, step.residual) for step in steps
        ) / len(steps)
        expected = sum(step.median or 0.0 for step in steps) / len(steps)
        items.setdefault(score.segment, []).append(Item(z, leverage, score.actual, expected))
    return items


def leverage_of(actual: float, median: float, residual: float) -> float:
    """How far a doubling would lift an actual, in standard deviations of its forecast.

    >>> leverage_of(actual=14.0, median=10.0, residual=0.8)
    2.0
    """
    if abs(residual) < 1e-6:
        return float(min(median / max(median, 1.0) ** 0.5, CLIP))
    return float(min(median * residual / (actual - median), CLIP))


def normal_scores(steps: list[list[ScoredStep]]) -> Floats:
    """One clipped normal score an item, of about unit variance however many steps were due."""
    if not steps:
        return np.zeros(0)
    counts = np.array([len(of_item) for of_item in steps])
    pit = torch.tensor([step.pit for of_item in steps for step in of_item], dtype=torch.float64)
    z = torch.special.ndtri(pit.clamp(1e-6, 1 - 1e-6)).clamp(-CLIP, CLIP).numpy()
    mean = np.add.reduceat(z, np.concatenate([[0], np.cumsum(counts)[:-1]])) / counts
    return np.asarray(mean / np.sqrt((1 + (counts - 1) * STEP_CORRELATION) / counts))


def pool(bucket_ms: int, items: list[Item]) -> PooledStatistics:
    """Sum of the items' normal scores, each weighed by what it can tell, scaled to unit variance.

    >>> pooled = pool(0, [Item(1.0, 2.0, 8.0, 4.0), Item(1.0, 2.0, 7.0, 4.0)])
    >>> round(pooled.level, 3), pooled.actual
    (1.414, 15.0)
    """
    z = np.array([item.z for item in items])
    leverage = np.array([item.leverage for item in items])
    weight = np.maximum(leverage, LEAST_WEIGHT)
    norm = float(np.sqrt((weight**2).sum()))
    return PooledStatistics(
        bucket_ms=bucket_ms,
        level=float((weight * z).sum()) / norm,
        spread=float((weight * (z**2 - 1.0)).sum()) / norm / 2**0.5,
        leverage=float((weight * leverage).sum()) / norm,
        actual=sum(item.actual for item in items),
        expected=sum(item.expected for item in items),
    )
