"""What a final bucket says of the forecasts of it: loss, place in the distribution, coverage.

Dimensions: I items, Q quantile levels. `levels_Q` are probabilities, `quantiles_IQ` units sold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isnan

import numpy as np
import xxhash
from msgspec.structs import replace

from freshet.online.drift.pending import Due
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.schemas import NetworkStep, Score, ScoredStep

# Standard deviations between the 10 % and the 90 % quantile of a normal distribution.
NORMAL_SPREAD_80 = 2.5631031310892007
# A median of 0 with no spread is common for sparse items; below half a unit, counts look alike.
SMALLEST_SCALE = 0.5
# Divides where two quantiles are equal; far below the four digits that are published.
SMALLEST_WIDTH = 1e-12
RANDOM_BITS = 53  # what a double holds exactly


@dataclass(frozen=True, slots=True)
class StepScores:
    """What one step of I forecasts turned out to be worth; arrays over the rows of a `Due`."""

    pinball_I: Floats
    pit_I: Floats
    residual_I: Floats
    covered_I: Bools
    median_I: Floats
    naive_pinball_I: Floats
    network: Placed
    """As the network forecast it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where actuals fell in distributions; arrays over their rows."""

    pit_I: Floats
    residual_I: Floats
    median_I: Floats
    low_I: Floats
    high_I: Floats


def judge(
    due: Due,
    actual_I: Floats,
    naive_IQ: Floats | None = None,
    levels_of: Mapping[int, Sequence[float]] = {},
) -> StepScores:
    """Score one step of many forecasts, as served and as the network forecast it.

    Args:
        due: The step with its published quantiles.
        actual_I: Units sold in the bucket.
        naive_IQ: Quantiles of the seasonal naive yardstick at the same levels; NaN or None where
            there is none.
        levels_of: By the number of a map, the network's level behind each published quantile.
    """
    levels_Q = np.asarray(due.quantile_levels)
    quantiles_IQ = np.asarray(due.quantiles_IQ, np.float64)
    uniform_I = uniform(due.forecast_ids, due.step)
    placed = place(actual_I, quantiles_IQ, levels_Q, uniform_I)
    if naive_IQ is None:
        naive_pinball_I = np.full(len(actual_I), np.nan)
    else:
        naive_pinball_I = mean_pinball(actual_I, naive_IQ, levels_Q)
    return StepScores(
        pinball_I=mean_pinball(actual_I, quantiles_IQ, levels_Q),
        pit_I=placed.pit_I,
        residual_I=placed.residual_I,
        covered_I=(placed.low_I <= actual_I) & (actual_I <= placed.high_I),
        median_I=placed.median_I,
        naive_pinball_I=naive_pinball_I,
        network=_by_network(due, actual_I, uniform_I, placed, levels_of),
    )


def place(actual_I: Floats, quantiles_IQ: Floats, levels_Q: Floats, uniform_I: Floats) -> Placed:
    """Where actuals fell, given quantiles at rising levels."""
    low_I = _quantile_at(0.1, levels_Q, quantiles_IQ)
    median_I = _quantile_at(0.5, levels_Q, quantiles_IQ)
    high_I = _quantile_at(0.9, levels_Q, quantiles_IQ)
    scale_I = np.maximum((high_I - low_I) / NORMAL_SPREAD_80, SMALLEST_SCALE)
    return Placed(
        pit_I=randomised_pit(actual_I, quantiles_IQ, levels_Q, scale_I, uniform_I),
        residual_I=(actual_I - median_I) / scale_I,
        median_I=median_I,
        low_I=low_I,
        high_I=high_I,
    )


def _by_network(
    due: Due,
    actual_I: Floats,
    uniform_I: Floats,
    served: Placed,
    levels_of: Mapping[int, Sequence[float]],
) -> Placed:
    """The same numbers, each at the level at which the network forecast it.

    What a map moved are levels, never the quantiles that belong to them.
    """
    if due.maps_I is None or not due.maps_I.any():
        return served
    found = {field.name: getattr(served, field.name).copy() for field in fields(Placed)}
    for number, levels in levels_of.items():
        rows = np.flatnonzero(due.maps_I == number)
        if len(rows):
            quantiles_IQ = np.asarray(due.quantiles_IQ[rows], np.float64)
            own = place(actual_I[rows], quantiles_IQ, np.asarray(levels), uniform_I[rows])
            for name, value_I in found.items():
                value_I[rows] = getattr(own, name)
    return Placed(**found)


def mean_pinball(actual_I: Floats, quantiles_IQ: Floats, levels_Q: Floats) -> Floats:
    """Mean over the levels of twice the pinball loss, in units.

    Its sum over the sum of actuals is WQL.

    >>> quantiles, levels = np.array([[3.0, 5.0]]), np.array([0.5, 0.9])
    >>> mean_pinball(np.array([4.0]), quantiles, levels).round(2).tolist()
    [0.6]
    """
    error_IQ = actual_I[:, None] - quantiles_IQ
    pinball_IQ = np.maximum(levels_Q * error_IQ, (levels_Q - 1.0) * error_IQ)
    return np.asarray(2.0 * pinball_IQ.mean(1))


def randomised_pit(
    actual_I: Floats, quantiles_IQ: Floats, levels_Q: Floats, scale_I: Floats, uniform_I: Floats
) -> Floats:
    """Where the actual fell in its forecast: uniform on [0, 1] when the forecast is right.

    A whole number stands for the half unit on either side of it and is spread over that interval's
    probability (Czado, Gneiting and Held 2009), or the many zeros of sparse items would pile up at
    one value.

    >>> three = np.array([[0.0, 0.0, 2.0]]), np.array([0.1, 0.5, 0.9]), np.array([0.5])
    >>> randomised_pit(np.array([0.0]), *three, np.array([0.5])).round(2).tolist()
    [0.3]
    """
    whole_I = np.abs(actual_I - np.rint(actual_I)) < 1e-9
    half_I = np.where(whole_I, 0.5, 0.0)
    lower_I = _wide_cdf(actual_I - half_I, quantiles_IQ, levels_Q, scale_I, included=False)
    upper_I = _wide_cdf(actual_I + half_I, quantiles_IQ, levels_Q, scale_I, included=True)
    # Nothing sells below 0, whatever the straight line to 0 says of it.
    lower_I = np.where(actual_I - half_I < 0, 0.0, lower_I)
    return np.asarray(lower_I + uniform_I * (upper_I - lower_I))


def _wide_cdf(
    value_I: Floats, quantiles_IQ: Floats, levels_Q: Floats, scale_I: Floats, *, included: bool
) -> Floats:
    """P(Y <= value), or P(Y < value) where the value itself is not included.

    Linear between the levels and down to 0 below the first; above the last, exponential with the
    scale of the middle 80 %.
    """
    # These tails are wider than those of `model.quantiles.marginal.distribution`, which go through
    # the two outermost levels: of a normal forecast of 100 +- 20, 160 sold stand at .9949 here and
    # at .9980 there. Each published PIT, and so what detectors hold for usual, is defined by this.
    first_I, last_I = quantiles_IQ[:, 0], quantiles_IQ[:, -1]
    share_I = np.clip(value_I / np.maximum(first_I, SMALLEST_WIDTH), 0.0, 1.0)
    under_I = levels_Q[0] * share_I
    beyond_I = np.maximum(value_I - last_I, 0.0)
    over_I = 1.0 - (1.0 - levels_Q[-1]) * np.exp(-beyond_I / scale_I)

    value_I1 = value_I[:, None]
    below_IQ = quantiles_IQ <= value_I1 if included else quantiles_IQ < value_I1
    count_I = below_IQ.sum(1)
    inside_I = _between_levels(value_I, quantiles_IQ, levels_Q, count_I)
    found_I = np.where(count_I == len(levels_Q), over_I, inside_I)
    return np.asarray(np.where(count_I == 0, under_I, found_I))


def _between_levels(
    value_I: Floats, quantiles_IQ: Floats, levels_Q: Floats, count_I: Ints
) -> Floats:
    """The straight line between the last level at or below a value and the next one."""
    left_I = np.clip(count_I - 1, 0, None)
    right_I = np.clip(count_I, None, len(levels_Q) - 1)
    rows_I = np.arange(len(value_I))
    q_left_I, q_right_I = quantiles_IQ[rows_I, left_I], quantiles_IQ[rows_I, right_I]
    width_I = np.maximum(q_right_I - q_left_I, SMALLEST_WIDTH)
    rise_I = levels_Q[right_I] - levels_Q[left_I]
    return np.asarray(levels_Q[left_I] + (value_I - q_left_I) / width_I * rise_I)


def uniform(forecast_ids: list[str], step: int) -> Floats:
    """A number in [0, 1) for each forecast step, the same in every process."""
    suffix = f":{step}".encode()
    bits = [
        xxhash.xxh3_64_intdigest(forecast_id.encode() + suffix) >> (64 - RANDOM_BITS)
        for forecast_id in forecast_ids
    ]
    return np.asarray(bits, np.float64) / 2.0**RANDOM_BITS


def _quantile_at(quantile_level: float, levels_Q: Floats, quantiles_IQ: Floats) -> Floats:
    """Quantiles at one level, from the nearest published levels on either side."""
    right = min(int(np.searchsorted(levels_Q, quantile_level - 1e-9)), len(levels_Q) - 1)
    left = right if levels_Q[right] <= quantile_level + 1e-9 else max(right - 1, 0)
    if left == right:
        return quantiles_IQ[:, right]
    share = (quantile_level - levels_Q[left]) / (levels_Q[right] - levels_Q[left])
    return np.asarray((1 - share) * quantiles_IQ[:, left] + share * quantiles_IQ[:, right])


@dataclass(frozen=True, slots=True)
class Actual:
    """What became known about one item's bucket."""

    units: float
    in_stock: bool
    segment: str
    promoted: bool = False


def score_records(
    judged: list[tuple[Due, StepScores]],
    actuals: dict[str, Actual],
    *,
    bucket_start_ms: int,
    resolution_ms: int,
    scored_at_ms: int,
    unadjusted: list[tuple[Due, StepScores]] | None = None,
) -> list[Score]:
    """One record an item, with every step that was due in order; none without an actual.

    `unadjusted` are steps of forecasts that were made without adjustments besides.
    """
    steps = _by_item(judged, actuals)
    besides = _by_item(unadjusted or [], actuals)
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
            promoted=actuals[item_id].promoted,
            unadjusted=besides.get(item_id, []),
        )
        for item_id, scored in steps.items()
    ]


def without_adjustments(scores: Iterable[Score]) -> list[Score]:
    """What the scores say of forecasts as they would have been without adjustments.

    Else the cure would end the alarm that called for it. A step that was adjusted, and not forecast
    without besides, says nothing.
    """
    plain = []
    for score in scores:
        steps = [step for step in score.steps if not step.adjusted] + score.unadjusted
        if len(steps) == len(score.steps) and not score.unadjusted:
            plain.append(score)
        elif steps:
            steps.sort(key=lambda step: step.step)
            plain.append(replace(score, steps=steps, unadjusted=[]))
    return plain


def _by_item(
    judged: list[tuple[Due, StepScores]], actuals: Collection[str]
) -> dict[str, list[ScoredStep]]:
    """Steps of each item whose actual is known, in order."""
    steps: dict[str, list[ScoredStep]] = {}
    for due, scores in sorted(judged, key=lambda pair: pair[0].step):
        for item_id, step in zip(due.item_ids, _scored_steps(due, scores), strict=True):
            if item_id in actuals:
                steps.setdefault(item_id, []).append(step)
    return steps


def _scored_steps(due: Due, scores: StepScores) -> Iterator[ScoredStep]:
    """One for each row, rounded to what is published."""
    network = scores.network
    moved_I = np.zeros(len(due.forecast_ids), bool) if due.maps_I is None else due.maps_I > 0
    for row, forecast_id in enumerate(due.forecast_ids):
        naive = float(scores.naive_pinball_I[row])
        yield ScoredStep(
            forecast_id=forecast_id,
            weights_version=due.weights_version,
            step=due.step,
            pinball=_short(scores.pinball_I[row]),
            seasonal_naive_pinball=None if isnan(naive) else _short(naive),
            pit=_short(scores.pit_I[row]),
            residual=_short(scores.residual_I[row]),
            covered_80=bool(scores.covered_I[row]),
            median=_short(scores.median_I[row]),
            adjusted=due.adjusted_I is not None and bool(due.adjusted_I[row]),
            high=_short(network.high_I[row]),
            network=_network_step(network, row) if moved_I[row] else None,
        )


def _network_step(network: Placed, row: int) -> NetworkStep:
    return NetworkStep(
        pit=_short(network.pit_I[row]),
        residual=_short(network.residual_I[row]),
        median=_short(network.median_I[row]),
    )


def _short(value: float) -> float:
    return round(float(value), 6)
