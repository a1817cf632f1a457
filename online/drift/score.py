"""Forecasts held against what then happened: which steps wait for their bucket, and what a final
bucket says of them.

Dimensions: I items, K scored steps, Q quantile levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash

from freshet.stream.arrays import Bools, Floats, Singles
from freshet.stream.schemas import Score, ScoredStep

# The spread between the 10 % and the 90 % quantile of a normal distribution, in standard
# deviations.
NORMAL_SPREAD_80 = 2.5631031310892007
# A median of 0 with no spread is common for sparse items; below half a unit counts cannot be told
# apart.
SMALLEST_SCALE = 0.5
RANDOM_BITS = 53


@dataclass(frozen=True, slots=True)
class Issued:
    """The scored steps of forecasts that share cutoff and weights.

    Attributes:
        cutoff_ms: Step s (from 1) is about the bucket that starts at `cutoff_ms + (s - 1) *
            resolution`.
        weights_version: Who made them.
        levels: The published quantile levels, rising.
        item_ids: I items.
        forecast_ids: I ids, as published.
        quantiles_IKQ: The published, rounded values for the steps that are scored.
    """

    cutoff_ms: int
    weights_version: str
    levels: tuple[float, ...]
    item_ids: list[str]
    forecast_ids: list[str]
    quantiles_IKQ: Singles


@dataclass(frozen=True, slots=True)
class Due:
    """One step of some forecasts of one cutoff, to be scored on one bucket."""

    step: int
    cutoff_ms: int
    weights_version: str
    levels: tuple[float, ...]
    item_ids: list[str]
    forecast_ids: list[str]
    quantiles_IQ: Singles


@dataclass(slots=True)
class _Block:
    issued: Issued
    open_IK: Bools


class PendingForecasts:
    """Forecast steps that wait for their bucket to become final; each leaves exactly once.

    Args:
        score_steps: Steps ahead that are scored, from 1.
        resolution_ms: Length of a bucket.
        max_cutoffs: Beyond it the oldest cutoff is dropped unscored and counted in `dropped`.
    """

    def __init__(self, score_steps: tuple[int, ...], resolution_ms: int, max_cutoffs: int) -> None:
        self.score_steps = tuple(sorted(set(score_steps)))
        self.resolution_ms = resolution_ms
        self.max_cutoffs = max_cutoffs
        self.dropped = 0
        self._blocks: dict[int, list[_Block]] = {}
        self._places: dict[str, tuple[_Block, int]] = {}
        self._made: dict[int, set[tuple[str, str]]] = {}

    @property
    def cutoffs(self) -> list[int]:
        """Cutoffs with open steps, oldest first."""
        return sorted(self._blocks)

    def items_at(self, cutoff_ms: int) -> set[str]:
        """Items with a forecast at a cutoff that still has open steps."""
        return {item_id for item_id, _ in self._made.get(cutoff_ms, ())}

    def add(self, issued: Issued) -> None:
        """Keep these until they are scored; of several for one item, cutoff and version the first
        wins.
        """
        made = self._made.setdefault(issued.cutoff_ms, set())
        new = []
        for row, item_id in enumerate(issued.item_ids):
            if (item_id, issued.weights_version) not in made:
                made.add((item_id, issued.weights_version))
                new.append(row)
        if not new:
            return
        if len(new) < len(issued.item_ids):
            issued = _rows_of(issued, new)
        block = _Block(issued, np.ones(issued.quantiles_IKQ.shape[:2], bool))
        self._blocks.setdefault(issued.cutoff_ms, []).append(block)
        for row, forecast_id in enumerate(issued.forecast_ids):
            self._places[forecast_id] = (block, row)
        while len(self._blocks) > self.max_cutoffs:
            oldest = min(self._blocks)
            self.dropped += int(sum(block.open_IK.sum() for block in self._blocks[oldest]))
            self._forget(oldest)

    def close(self, forecast_id: str, step: int) -> None:
        """This step was scored before (by the process that ran here earlier)."""
        place = self._places.get(forecast_id)
        if place is not None and step in self.score_steps:
            place[0].open_IK[place[1], self.score_steps.index(step)] = False

    def due_buckets(self, final_ms: int | None) -> list[int]:
        """Starts of the buckets, oldest first, that are final and have an open step."""
        if final_ms is None:
            return []
        due = set()
        for cutoff_ms, blocks in self._blocks.items():
            for column, step in enumerate(self.score_steps):
                bucket_ms = cutoff_ms + (step - 1) * self.resolution_ms
                if bucket_ms + self.resolution_ms <= final_ms and any(
                    b.open_IK[:, column].any() for b in blocks
                ):
                    due.add(bucket_ms)
        return sorted(due)

    def due(self, bucket_ms: int) -> list[Due]:
        """The open steps about one bucket; they stay open until `close_bucket`."""
        found = []
        for column, step in enumerate(self.score_steps):
            for block in self._blocks.get(bucket_ms - (step - 1) * self.resolution_ms, []):
                rows = np.flatnonzero(block.open_IK[:, column]).tolist()
                if rows:
                    part = _rows_of(block.issued, rows)
                    quantiles_IQ = part.quantiles_IKQ[:, column]
                    head = (step, part.cutoff_ms, part.weights_version, part.levels)
                    found.append(Due(*head, part.item_ids, part.forecast_ids, quantiles_IQ))
        return found

    def close_bucket(self, bucket_ms: int) -> None:
        """Every step about this bucket is done, scored or not; cutoffs without an open step are let
        go.
        """
        for column, step in enumerate(self.score_steps):
            cutoff_ms = bucket_ms - (step - 1) * self.resolution_ms
            for block in self._blocks.get(cutoff_ms, []):
                block.open_IK[:, column] = False
        for cutoff_ms, blocks in list(self._blocks.items()):
            if not any(block.open_IK.any() for block in blocks):
                self._forget(cutoff_ms)

    def _forget(self, cutoff_ms: int) -> None:
        self._made.pop(cutoff_ms, None)
        for block in self._blocks.pop(cutoff_ms):
            for forecast_id in block.issued.forecast_ids:
                self._places.pop(forecast_id, None)


def _rows_of(issued: Issued, rows: list[int]) -> Issued:
    items = [issued.item_ids[row] for row in rows]
    ids = [issued.forecast_ids[row] for row in rows]
    head = (issued.cutoff_ms, issued.weights_version, issued.levels)
    return Issued(*head, items, ids, issued.quantiles_IKQ[rows])


@dataclass(frozen=True, slots=True)
class StepScores:
    """What one step of I forecasts turned out to be worth; arrays over the rows of a `Due`."""

    pinball_I: Floats
    pit_I: Floats
    residual_I: Floats
    covered_I: Bools
    median_I: Floats
    naive_pinball_I: Floats


def judge(due: Due, actual_I: Floats, naive_IQ: Floats | None = None) -> StepScores:
    """Score one step of many forecasts.

    Args:
        due: The step with its published quantiles.
        actual_I: Units sold in the bucket.
        naive_IQ: Quantiles of the seasonal naive yardstick at the same levels; NaN or None where
            there is none.
    """
    levels_Q = np.asarray(due.levels)
    quantiles_IQ = np.asarray(due.quantiles_IQ, np.float64)
    low_I, median_I, high_I = (_at(level, levels_Q, quantiles_IQ) for level in (0.1, 0.5, 0.9))
    scale_I = np.maximum((high_I - low_I) / NORMAL_SPREAD_80, SMALLEST_SCALE)
    uniform_I = uniform(due.forecast_ids, due.step)
    nothing = np.full(len(actual_I), np.nan)
    return StepScores(
        pinball_I=mean_pinball(actual_I, quantiles_IQ, levels_Q),
        pit_I=randomised_pit(actual_I, quantiles_IQ, levels_Q, scale_I, uniform_I),
        residual_I=(actual_I - median_I) / scale_I,
        covered_I=(low_I <= actual_I) & (actual_I <= high_I),
        median_I=median_I,
        naive_pinball_I=nothing if naive_IQ is None else mean_pinball(actual_I, naive_IQ, levels_Q),
    )


def mean_pinball(actual_I: Floats, quantiles_IQ: Floats, levels_Q: Floats) -> Floats:
    """Mean over the levels of twice the pinball loss, in units: its sum over the sum of actuals is
    WQL.

    >>> mean_pinball(np.array([4.0]), np.array([[3.0, 5.0]]),
    ...     np.array([0.5, 0.9])).round(2).tolist()
    [0.6]
    """
    error_IQ = actual_I[:, None] - quantiles_IQ
    return np.asarray(2.0 * np.maximum(levels_Q * error_IQ, (levels_Q - 1.0) * error_IQ).mean(1))


def randomised_pit(
    actual_I: Floats, quantiles_IQ: Floats, levels_Q: Floats, scale_I: Floats, uniform_I: Floats
) -> Floats:
    """Where the actual fell in its forecast distribution, uniform on [0, 1] when the forecast is
    right.

    A whole number stands for the half unit on either side of it and is spread over that interval's
    probability (Czado, Gneiting and Held 2009), or the many zeros of sparse items would pile up at
    one value.

    >>> three = np.array([[0.0, 0.0, 2.0]]), np.array([0.1, 0.5, 0.9]), np.array([0.5])
    >>> randomised_pit(np.array([0.0]), *three, np.array([0.5])).round(2).tolist()
    [0.3]
    """
    whole_I = np.abs(actual_I - np.rint(actual_I)) < 1e-9
    half_I = np.where(whole_I, 0.5, 0.0)
    lower_I = _distribution(actual_I - half_I, quantiles_IQ, levels_Q, scale_I, strict=True)
    upper_I = _distribution(actual_I + half_I, quantiles_IQ, levels_Q, scale_I, strict=False)
    lower_I = np.where(actual_I - half_I < 0, 0.0, lower_I)
    return np.asarray(lower_I + uniform_I * (upper_I - lower_I))


def _distribution(
    y_I: Floats, quantiles_IQ: Floats, levels_Q: Floats, scale_I: Floats, *, strict: bool
) -> Floats:
    """P(Y < y) if strict, else P(Y <= y): linear between the levels, linear to 0 below, exponential
    above.
    """
    below_IQ = quantiles_IQ < y_I[:, None] if strict else quantiles_IQ <= y_I[:, None]
    count_I = below_IQ.sum(1)
    left_I, right_I = np.clip(count_I - 1, 0, None), np.clip(count_I, None, len(levels_Q) - 1)
    rows_I = np.arange(len(y_I))
    q_left_I, q_right_I = quantiles_IQ[rows_I, left_I], quantiles_IQ[rows_I, right_I]
    width_I = np.maximum(q_right_I - q_left_I, 1e-12)
    inside_I = levels_Q[left_I] + (y_I - q_left_I) / width_I * (
        levels_Q[right_I] - levels_Q[left_I]
    )
    first_I, last_I = quantiles_IQ[:, 0], quantiles_IQ[:, -1]
    under_I = levels_Q[0] * np.clip(y_I / np.maximum(first_I, 1e-12), 0.0, 1.0)
    over_I = 1.0 - (1.0 - levels_Q[-1]) * np.exp(-np.maximum(y_I - last_I, 0.0) / scale_I)
    return np.asarray(
        np.where(count_I == 0, under_I, np.where(count_I == len(levels_Q), over_I, inside_I))
    )


def uniform(forecast_ids: list[str], step: int) -> Floats:
    """A number in [0, 1) for each forecast step, the same in every process."""
    suffix = f":{step}".encode()
    bits = [
        xxhash.xxh3_64_intdigest(forecast_id.encode() + suffix) >> (64 - RANDOM_BITS)
        for forecast_id in forecast_ids
    ]
    return np.asarray(bits, np.float64) / 2.0**RANDOM_BITS


def _at(level: float, levels_Q: Floats, quantiles_IQ: Floats) -> Floats:
    """Quantiles at one level, from the nearest published levels on either side."""
    right = int(np.clip(np.searchsorted(levels_Q, level - 1e-9), 0, len(levels_Q) - 1))
    left = right if levels_Q[right] <= level + 1e-9 else max(right - 1, 0)
    if left == right:
        return quantiles_IQ[:, right]
    share = (level - levels_Q[left]) / (levels_Q[right] - levels_Q[left])
    return np.asarray((1 - share) * quantiles_IQ[:, left] + share * quantiles_IQ[:, right])


@dataclass(frozen=True, slots=True)
class Actual:
    """What became known about one item's bucket."""

    units: float
    in_stock: bool
    segment: str


def score_records(
    judged: list[tuple[Due, StepScores]],
    actuals: dict[str, Actual],
    *,
    bucket_start_ms: int,
    resolution_ms: int,
    scored_at_ms: int,
) -> list[Score]:
    """One record an item with every step that was due, in the order of steps; items without an
    actual are left out.
    """
    steps: dict[str, list[ScoredStep]] = {}
    for due, outcome in sorted(judged, key=lambda pair: pair[0].step):
        for row, item_id in enumerate(due.item_ids):
            if item_id in actuals:
                steps.setdefault(item_id, []).append(_scored_step(due, outcome, row))
    return [
        Score(
            item_id=item_id,
            segment=actuals[item_id].segment,
            resolution_ms=resolution_ms,
            bucket_start_ms=bucket_start_ms,
            scored_at_ms=scored_at_ms,
            actual=actuals[item_id].units,
            steps=scored,
            in_stock=actuals[item_id].in_stock,
        )
        for item_id, scored in steps.items()
    ]


def _scored_step(due: Due, outcome: StepScores, row: int) -> ScoredStep:
    naive = float(outcome.naive_pinball_I[row])
    return ScoredStep(
        forecast_id=due.forecast_ids[row],
        weights_version=due.weights_version,
        step=due.step,
        pinball=_short(outcome.pinball_I[row]),
        seasonal_naive_pinball=None if np.isnan(naive) else _short(naive),
        pit=_short(outcome.pit_I[row]),
        residual=_short(outcome.residual_I[row]),
        covered_80=bool(outcome.covered_I[row]),
        median=_short(outcome.median_I[row]),
    )


def _short(value: float) -> float:
    return round(float(value), 6)
