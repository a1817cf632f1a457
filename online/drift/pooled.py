"""What the scores of one final bucket say of each segment: many items in few numbers at rest.

Sales themselves change with the hour, the season and every promotion, and a detector on them never
rests. Where each actual fell in its own forecast distribution (PIT), as a normal score, is stable
while the forecasts are right.

Dimensions: I items, R scored steps of these items, S segments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.schemas import Score

HIGHEST_RISE = 6.0  # as Savage's scores go
CLIP = 2.5  # one flash sale or one bulk order may not move a segment
STEP_CORRELATION = 0.8  # of the normal scores of older and newer forecasts of the same bucket
LEAST_WEIGHT = 0.1  # sparse items tell little each, but there are many
SMALLEST_RESIDUAL = 1e-6  # the last digit of a published residual
# Within an hour all items of a segment move together by about this share of a doubling; that much
# is taken for theirs before the spread of the items about each other is measured.
HOURLY_WANDER = 0.3
# Where many items are on promotion or sold out the rest may move too: their buyers go elsewhere.
# A segment of which half is left out counts as so much noisier (in variance: 1 + 3 / 2).
LEFT_OUT_NOISE = 3.0


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """The scores of one final bucket in columns, of any number of segments.

    Attributes:
        segments: S names, in order.
        segment_I: Of each item its segment.
        actual_I: Units sold.
        left_out_I: Sold out or on promotion: such an item says nothing.
        item_R: Of each scored step its item, in order.
        pit_R: Where the actual fell in the forecast.
        median_R: Of the forecast.
        residual_R: Distance of actual and median, in the forecast's standard deviations.
    """

    segments: Sequence[str]
    segment_I: Ints
    actual_I: Floats
    left_out_I: Bools
    item_R: Ints
    pit_R: Floats
    median_R: Floats
    residual_R: Floats


@dataclass(frozen=True, slots=True)
class Pooled:
    """S segments in one final bucket.

    Attributes:
        level_S: Pooled normal score, about standard normal while forecasts are right, above 0 when
            more is sold.
        rise_S: The same of rise scores, which see more sold sooner, and are skewed.
        leverage_S: How much a doubling of all sales would add to it.
        spread_S: How much the items stray beyond what their forecasts and a shared level say, about
            standard normal too.
        actual_S: Units sold.
        expected_S: Units forecast (sum of medians).
        heard_S: Whether any item said something.
    """

    level_S: Floats
    rise_S: Floats
    leverage_S: Floats
    spread_S: Floats
    actual_S: Floats
    expected_S: Floats
    heard_S: Bools


def serving_versions(scores: Iterable[Score], known: Mapping[str, str]) -> dict[str, str]:
    """The version behind the newest forecasts of a bucket, of each segment.

    Args:
        scores: Of the bucket.
        known: What served the segments before; who is silent is served by it still, if anybody is.
    """
    steps = [
        (step.step, score.segment, step.weights_version) for score in scores for step in score.steps
    ]
    if not steps:
        return dict(known)
    # The fewest steps ahead is the newest cutoff; of several versions there, the most frequent.
    newest = min(step for step, _, _ in steps)
    counts: dict[str, Counter[str]] = {}
    for step, segment, version in steps:
        of_segment = counts.setdefault(segment, Counter())
        if step == newest:
            of_segment[version] += 1
    all_counts = sum(counts.values(), Counter())
    most = _most_frequent(all_counts)
    silent = {segment: was if was in all_counts else most for segment, was in known.items()}
    return silent | {
        segment: _most_frequent(count) if count else silent.get(segment, most)
        for segment, count in counts.items()
    }


def of_most(versions: Mapping[str, str]) -> str:
    """The version that serves most segments, which changes only when what serves does; empty: none.

    Not the one behind most scores: of two that serve, that differs from hour to hour.
    """
    count = Counter(versions.values())
    return _most_frequent(count) if count else ""


def _most_frequent(count: Counter[str]) -> str:
    return min(count, key=lambda version: (-count[version], version))


def batch_of(
    scores: Iterable[Score], versions: Mapping[str, str], *, left_out: Collection[str] = ()
) -> ScoreBatch:
    """Columns of what can be held against the versions in service, by segment and item.

    Forecasts of a version that does not serve the segment say nothing. The order of the scores
    changes nothing.
    """
    kept = [
        (score, [step for step in score.steps if step.weights_version == versions[score.segment]])
        for score in sorted(scores, key=lambda score: (score.segment, score.item_id))
    ]
    kept = [(score, steps) for score, steps in kept if steps]
    segments = sorted({score.segment for score, _ in kept})
    place = {segment: number for number, segment in enumerate(segments)}
    # As the network forecast it: served at levels that were right lately, it would hide the drift.
    told = [step.network or step for _, steps in kept for step in steps]
    count_I = np.array([len(steps) for _, steps in kept], np.int64)
    return ScoreBatch(
        segments=segments,
        segment_I=np.array([place[score.segment] for score, _ in kept], np.int64),
        actual_I=np.array([score.actual for score, _ in kept], np.float64),
        left_out_I=np.array(
            [not score.in_stock or score.item_id in left_out for score, _ in kept], bool
        ),
        item_R=np.repeat(np.arange(len(kept)), count_I),
        pit_R=np.array([step.pit for step in told], np.float64),
        median_R=np.array([step.median or 0.0 for step in told], np.float64),
        residual_R=np.array([step.residual for step in told], np.float64),
    )


def rise_score(pit_R: Floats) -> Floats:
    """Savage's score (1956): of all that follow from a place alone, the one that sees best when
    all is multiplied; of mean 0 and variance 1 while forecasts are right, and skewed.

    Above the last quantile a PIT nears 1 exponentially, so there it goes on in a straight line.

    >>> rise_score(np.array([0.0, 1 - np.exp(-1.0), 1.0])).tolist()
    [-1.0, 0.0, 6.0]
    """
    with np.errstate(divide="ignore"):
        return np.asarray(np.minimum(-np.log1p(-pit_R) - 1.0, HIGHEST_RISE))


def leverage_of(actual_R: Floats, median_R: Floats, residual_R: Floats) -> Floats:
    """How far a doubling would lift an actual, in standard deviations of its forecast.

    The record names no standard deviation, but `residual` is the distance of actual and median in
    it. Where the two are equal, counts are taken for Poisson: the root of the median.

    >>> leverage_of(np.array([14.0]), np.array([10.0]), np.array([0.8])).tolist()
    [2.0]
    """
    distance_R = actual_R - median_R
    told_R = (np.abs(residual_R) >= SMALLEST_RESIDUAL) & (distance_R != 0)
    by_residual_R = median_R * residual_R / np.where(told_R, distance_R, 1.0)
    of_count_R = median_R / np.sqrt(np.maximum(median_R, 1.0))
    return np.minimum(np.where(told_R, by_residual_R, of_count_R), CLIP)


def pool(batch: ScoreBatch) -> Pooled:
    """Every segment's numbers.

    Items are weighed by what a shift would move them, and told apart: what all of them do alike is
    level, what is left of their squares is spread.
    """
    num_items, num_segments = len(batch.segment_I), len(batch.segments)
    z_I, rise_I, leverage_I, expected_I = _items(batch)
    kept_I = ~batch.left_out_I
    weight_I = np.where(kept_I, np.maximum(leverage_I, LEAST_WEIGHT), 0.0)
    segment_I = batch.segment_I

    def sums(value_I: Floats) -> Floats:
        return np.asarray(np.bincount(segment_I, value_I, minlength=num_segments), np.float64)

    squares_S = sums(weight_I**2)
    norm_S = np.sqrt(np.maximum(squares_S, LEAST_WEIGHT**2))
    common_S = sums(weight_I * z_I)
    # What is shared this hour, drawn towards nothing; the rest of each item is its own.
    total_S = squares_S + HOURLY_WANDER**-2
    own_I = z_I - (common_S / total_S)[segment_I] * weight_I
    share_I = weight_I**2 / total_S[segment_I]
    usual_I = 1.0 - 2 * share_I + share_I * (squares_S / total_S)[segment_I]
    ratio_S = sums(weight_I * own_I**2) / np.maximum(sums(weight_I * usual_I), LEAST_WEIGHT**2)
    items_S = sums(weight_I) ** 2 / np.maximum(squares_S, LEAST_WEIGHT**2)

    heard_S = squares_S > 0
    left_S = sums(batch.left_out_I.astype(float)) / np.maximum(sums(np.ones(num_items)), 1.0)
    calmer_S = 1.0 / np.sqrt(1.0 + LEFT_OUT_NOISE * left_S)
    return Pooled(
        level_S=calmer_S * common_S / norm_S,
        rise_S=calmer_S * sums(weight_I * rise_I) / norm_S,
        leverage_S=calmer_S * sums(weight_I * leverage_I) / norm_S,
        spread_S=np.where(heard_S, calmer_S * _normal(ratio_S, np.maximum(items_S, 1.0)), 0.0),
        actual_S=sums(np.where(kept_I, batch.actual_I, 0.0)),
        expected_S=sums(np.where(kept_I, expected_I, 0.0)),
        heard_S=heard_S,
    )


def _items(batch: ScoreBatch) -> tuple[Floats, Floats, Floats, Floats]:
    """Of each item a clipped normal score, a rise score, its leverage and what was forecast, over
    the steps due.
    """
    num_items = len(batch.segment_I)
    item_R = batch.item_R
    count_I = np.maximum(np.bincount(item_R, minlength=num_items), 1)

    def means(value_R: Floats) -> Floats:
        return np.bincount(item_R, value_R, minlength=num_items) / count_I

    # Normal scores of 0 and 1 are infinite.
    mean_I = means(ndtri(batch.pit_R).clip(-CLIP, CLIP))
    rise_I = means(rise_score(batch.pit_R))
    # The variance of a mean of scores that correlate; of independent ones it would be 1 / count.
    root_I = np.sqrt((1 + (count_I - 1) * STEP_CORRELATION) / count_I)
    actual_R = batch.actual_I[item_R]
    leverage_I = means(leverage_of(actual_R, batch.median_R, batch.residual_R))
    return mean_I / root_I, rise_I / root_I, leverage_I, means(batch.median_R)


def _normal(ratio_S: Floats, items_S: Floats) -> Floats:
    """A mean of so many squares as a normal score (Wilson and Hilferty 1931)."""
    noise_S = 2.0 / (9.0 * items_S)
    return np.asarray((np.cbrt(ratio_S) - (1.0 - noise_S)) / np.sqrt(noise_S))
