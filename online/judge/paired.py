"""Two versions on the same items and days: by how much one is better, and how much days differ.

Dimensions: R rows (segments, and sets of them), I items, K blocks of time (days, or a part of one).

Losses of one day move together, so a day is one observation, however many items and hours it has:
what a trial is judged by is how much the *relative difference of a day* differs from day to day.
One half day says nothing of that. But the same two versions can be run on days from before the
trial, whose differences differ as much: the noise is known before the trial's first day is. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from freshet.stream.arrays import Bools, Floats
from freshet.stream.units import DAY_MS

# A segment's own days are few: its variance is drawn towards that of all segments, which counts
# for so many days (moderated t, Smyth 2004).
SHARED_FREEDOM = 4.0
TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Noise:
    """How much the relative difference of a day differs from its mean.

    Attributes:
        squares_R: Sums of squared residuals.
        loss_R: What the first version lost.
        days: On so many days.
        freedom_R: Their degrees of freedom; 0 where nothing was sold.
    """

    squares_R: Floats
    freedom_R: Floats
    loss_R: Floats
    days: float = 0.0

    def __add__(self, other: Noise) -> Noise:
        return Noise(
            self.squares_R + other.squares_R,
            self.freedom_R + other.freedom_R,
            self.loss_R + other.loss_R,
            self.days + other.days,
        )

    @staticmethod
    def unknown(num_rows: int) -> Noise:
        """Nothing is known."""
        return Noise(*np.zeros((3, num_rows)))


@dataclass(frozen=True, slots=True)
class Estimate:
    """The relative gain of each row, its standard error, and the freedom that rests on."""

    gain_R: Floats
    error_R: Floats
    freedom_R: Floats

    def low_R(self, level: float) -> Floats:
        """Lower ends of one-sided intervals that miss with a chance of `level`."""
        return self.gain_R - self._reach_R(level)

    def high_R(self, level: float) -> Floats:
        """Upper ends of such intervals."""
        return self.gain_R + self._reach_R(level)

    def _reach_R(self, level: float) -> Floats:
        known_R = self.freedom_R > 0
        quantile_R = stdtrit(np.where(known_R, self.freedom_R, 1.0), 1.0 - level)
        return np.where(known_R, quantile_R * self.error_R, np.inf)


def blocks_of(num_buckets: int, resolution_ms: int) -> tuple[list[int], Floats]:
    """Where the blocks of a stretch begin, and how many days each is: a rest first, then days.

    >>> starts, days_K = blocks_of(36, 3_600_000)
    >>> starts, days_K.tolist()
    ([0, 12], [0.5, 1.0])
    """
    length = max(1, DAY_MS // resolution_ms)
    rest = num_buckets % length
    starts = ([0] if rest else []) + list(range(rest, num_buckets, length))
    buckets_K = np.diff([*starts, num_buckets])
    return starts, buckets_K * (resolution_ms / DAY_MS)


def by_block(loss_IT: Floats, starts: list[int]) -> Floats:
    """Losses of each item summed over blocks, [I, K]; NaN counts for nothing."""
    return np.add.reduceat(np.nan_to_num(loss_IT), starts, axis=1)


def noise_of(first_RK: Floats, second_RK: Floats, days_K: Floats) -> Noise:
    """How much days differ, in a stretch in which the difference is the same on average.

    Args:
        first_RK, second_RK: Losses of both versions.
        days_K: Length of each block; of a part of a day the difference differs more.
    """
    gain_R = _gain_R(first_RK, second_RK)
    # To first order (the delta method) the error of a ratio of sums is the mean of these. Over the
    # mean day's loss, not that day's own: a day on which hardly anything sells is no wild day.
    loss_of_a_day_R = first_RK.sum(1) / days_K.sum()
    influence_RK = (1.0 - gain_R)[:, None] * first_RK - second_RK
    residual_RK = influence_RK / days_K / np.maximum(loss_of_a_day_R, TINY)[:, None]
    num_sold_R = (first_RK > 0).sum(1)
    freedom_R = np.maximum(num_sold_R - 1.0, 0.0)
    squares_R = (days_K * residual_RK**2).sum(1)
    return Noise(squares_R, freedom_R, first_RK.sum(1), float(days_K.sum()))


def estimate(
    first_RK: Floats, second_RK: Floats, days_K: Floats, before: Noise, segments_R: Bools
) -> Estimate:
    """The gain of the second version over the first, with the noise of these days and of others.

    Args:
        first_RK, second_RK: Losses of both versions.
        days_K: Length of each block.
        before: What is known of the noise from days before these.
        segments_R: Which rows are segments; they share what is known of the noise. A set of
            segments is calmer than each, by as much as they do not move together: it has its own.
    """
    noise = before + noise_of(first_RK, second_RK, days_K)
    squares, freedom = (
        float(values_R[segments_R].sum()) for values_R in (noise.squares_R, noise.freedom_R)
    )
    shared = squares / max(freedom, 1.0)
    others = segments_R & (segments_R.sum() > 1)
    weight_R = np.where(others, min(SHARED_FREEDOM, freedom), 0.0)
    freedom_R = weight_R + noise.freedom_R
    variance_R = (weight_R * shared + noise.squares_R) / np.maximum(freedom_R, 1.0)
    error_R = np.sqrt(variance_R / days_K.sum()) * _quietness_R(noise, first_RK, days_K)
    return Estimate(_gain_R(first_RK, second_RK), error_R, freedom_R)


def _quietness_R(noise: Noise, first_RK: Floats, days_K: Floats) -> Floats:
    """How much more a usual day loses than these days do, at least 1.

    The noise is that of usual days. On a Saturday on which a shop is closed, a version that
    forecasts a little less is better by half, and that says nothing.
    """
    usual_R = noise.loss_R / noise.days
    these_R = np.maximum(first_RK.sum(1) / days_K.sum(), TINY)
    quietness_R: Floats = np.maximum(usual_R / these_R, 1.0)
    return quietness_R


def _gain_R(first_RK: Floats, second_RK: Floats) -> Floats:
    """One minus the ratio of summed losses; 0 where there are none."""
    total_R = first_RK.sum(1)
    ratio_R = second_RK.sum(1) / np.where(total_R > 0, total_R, 1.0)
    return np.where(total_R > 0, 1.0 - ratio_R, 0.0)
