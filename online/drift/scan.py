"""How far the newest stretches of many streams lie outside what such stretches do by chance.

For each of several lengths the newest values are added up and held against the measured variance
of such sums in that stream, which holds whatever keeps neighbouring hours alike: autocorrelation,
good and bad days, a level that wanders. So nothing is assumed of the noise. A variance of which
little is known is drawn towards that of the other streams of the shop, and the score is that of a
t-distribution with as few degrees of freedom: an early alarm needs more, but is not forbidden.

Dimensions: N streams, K lengths, T buckets that are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import ndtri

from freshet.stream.arrays import Bools, Floats, Ints, Singles

# Lengths in buckets. The first is only measured: no single bucket raises an alarm, however odd.
LENGTHS = (1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48, 72)
LENGTHS_K1 = np.array(LENGTHS)[:, None]
LONGEST = LENGTHS[-1]
STREAMS_AT_A_TIME = 4_096
# A variance is learnt so many buckets late: a shift must not explain itself.
LEARNT_AFTER = 12
KEPT = LONGEST + LEARNT_AFTER + 1
# What base weights' own residuals show before a shop has shown anything (bench/drift.py), and how
# many degrees of freedom that and the average of the shop's other streams are worth.
LEVEL_VARIANCE = np.array([1.0, 1.15, 1.25, 1.4, 1.6, 1.85, 2.1, 2.4, 2.6, 2.8, 3.0, 3.3])
SPREAD_VARIANCE = np.array([1.0, 1.05, 1.1, 1.13, 1.2, 1.3, 1.4, 1.6, 1.75, 1.95, 2.1, 2.4])
PRIOR_FREEDOM, SHOP_FREEDOM = 10.0, 60.0
# Other streams have their own ways: of what all of them have shown together half counts.
SHOP_SHARE = 0.5
# Overlapping sums of L values tell of their variance what 1.5 a length of independent ones do; each
# is looked at in every other bucket.
FREEDOM_K1 = np.minimum(3.0 / LENGTHS_K1, 1.0).astype(np.float32)
# How fast the usual weight of a sum is followed, and how much heavier than that one may count.
SQUARE_GAIN, HEAVIEST = np.float32(0.05), np.float32(3.0)
MEMORY = 672.0  # buckets: four weeks of hours
# An odder sum than this, in standard deviations, counts as this odd for the variance.
ODDEST = 4.0
# Pooled scores vary by about 1 by their making; less than this was luck.
LEAST_VARIANCE = 0.7
# Under other weights a variance is worth so much of what it was.
LOOSENED = 0.5
# As many independent looks would pass such heights as often as the scores of a stream do in ten
# days of hours, of the made-up shops that constants are chosen on (bench/drift.py --choose).
LOOKS = 2_000.0


def height(false_alerts: float, num_streams: int) -> float:
    """The score that `false_alerts` of all shops pass within ten days by chance.

    >>> round(height(0.0125, 18), 2)
    5.1
    """
    per_look = false_alerts / max(num_streams, 1) / LOOKS
    return float(-ndtri(per_look / 2))


def unskewed(sum_KN: Singles, variance_KN: Singles, shape: float) -> Singles:
    """Skewed sums as normal ones of the same variance (Wilson and Hilferty 1931).

    A sum of L buckets is taken for a gamma variable of the shape L * `shape`, centred and scaled;
    of a higher one, and so nearer to normal, where what they have in common adds to its variance.
    """
    shape_KN = (shape * LENGTHS_K1 * variance_KN).astype(np.float32)
    root_KN, deviation_KN = np.sqrt(shape_KN), np.sqrt(variance_KN)
    ratio_KN = np.maximum(1.0 + sum_KN / (deviation_KN * root_KN), 0.0)
    normal_KN = 3.0 * root_KN * (np.cbrt(ratio_KN) - 1.0 + 1.0 / (9.0 * shape_KN))
    return np.asarray(normal_KN * deviation_KN, np.float32)


class Scan:
    """Sums of the newest values of N streams over K lengths; a plain value of arrays.

    Args:
        num_streams: N.
        prior_K: The variances of sums that are expected of a stream nobody has seen.
        shape: Of the gamma distribution that skewed values are like; 0 where they are not skewed.
    """

    def __init__(self, num_streams: int, prior_K: Floats, shape: float = 0.0) -> None:
        self.prior_K = prior_K
        self.shape = shape
        # Running sums: a sum of L is a difference.
        self.sum_TN = np.zeros((KEPT, num_streams), np.float32)
        self.square_TN = np.zeros((KEPT, num_streams), np.float32)
        self.newest = 0
        self.age_N = np.zeros(num_streams, np.int64)
        self.own_KN = np.zeros((len(LENGTHS), num_streams), np.float32)
        self.usual_square_KN = np.zeros((len(LENGTHS), num_streams), np.float32)
        self.freedom_KN = np.zeros((len(LENGTHS), num_streams), np.float32)
        self.variance_KN = np.repeat(prior_K[:, None].astype(np.float32), num_streams, axis=1)
        self.shop_freedom_K = np.zeros(len(LENGTHS))

    def push(self, weight_N: Floats, value_N: Floats) -> None:
        """Add a bucket; one of weight 0 says nothing."""
        before = self.newest
        self.newest = (before + 1) % KEPT
        if not self.newest:
            # Sums stay small, so that single precision will do for ever.
            self.sum_TN -= self.sum_TN[before].copy()
            self.square_TN -= self.square_TN[before].copy()
        self.sum_TN[self.newest] = self.sum_TN[before] + weight_N * value_N
        self.square_TN[self.newest] = self.square_TN[before] + weight_N**2
        self.age_N += 1

    def scores(self) -> Singles:
        """The newest sum of each length as a normal score: [K, N], 0 where it is not whole yet.

        A t-score becomes a normal one by Wallace's approximation (1959).
        """
        score_KN = np.zeros_like(self.variance_KN)
        drawn_K1 = (PRIOR_FREEDOM + self.shop_freedom_K)[:, None].astype(np.float32)
        for part in self._parts():
            sum_KN, _, whole_KN = self._sums(part)
            freedom_KN = self.freedom_KN[:, part] + drawn_K1
            variance_KN = self.variance_KN[:, part]
            if self.shape:
                sum_KN = unskewed(sum_KN, variance_KN, self.shape)
            inner_KN = freedom_KN * np.log1p(sum_KN**2 / (variance_KN * freedom_KN))
            fit_KN = 1.0 - 2.0 / (8 * freedom_KN + 3)
            # No single bucket is enough.
            whole_KN[0] = False
            score_KN[:, part] = np.copysign(fit_KN * np.sqrt(inner_KN), sum_KN) * whole_KN
        return score_KN

    def learn(self, learnt_N: Bools) -> None:
        """Measure the variances of sums that ended a while ago, of streams that are calm."""
        # Every other length in turn: neighbouring sums tell nearly the same.
        turn = slice(self.newest % 2, None, 2)
        for part in self._parts():
            sum_KN, square_KN, whole_KN = self._sums(part, ago=LEARNT_AFTER, which=turn)
            own_KN, freedom_KN = self.own_KN[turn, part], self.freedom_KN[turn, part]
            squared_KN = np.minimum(sum_KN**2, ODDEST**2 * self.variance_KN[turn, part])
            # A night or a closed day is calm in its own way: each sum counts by its weight, as it
            # does where it would raise an alarm.
            usual_KN = self.usual_square_KN[turn, part]
            gain_KN = np.where(usual_KN > 0, SQUARE_GAIN, np.float32(1.0))
            usual_KN += np.where(whole_KN, (square_KN - usual_KN) * gain_KN, 0.0)
            heavy_KN = np.minimum(square_KN / np.maximum(usual_KN, 1e-3), HEAVIEST)
            told_KN = FREEDOM_K1[turn] * heavy_KN * (whole_KN & learnt_N[part])
            freedom_KN += told_KN
            np.minimum(freedom_KN, FREEDOM_K1[turn] * MEMORY / 2, out=freedom_KN)
            own_KN += (squared_KN - own_KN) * told_KN / np.maximum(freedom_KN, 1e-9)
        self._settle()

    def restart(self, rows: Ints) -> None:
        """Begin the sums of some streams anew; the variances stay."""
        self.age_N[rows] = 0

    def forget(self, row: int) -> None:
        """A stream has changed for good: its sums begin anew, its variances tell less."""
        self.age_N[row] = 0
        self.freedom_KN[:, row] *= LOOSENED

    def loosen(self, rows: Ints) -> None:
        """Other weights serve some streams."""
        self.freedom_KN[:, rows] *= LOOSENED
        self.age_N[rows] = 0

    def _settle(self) -> None:
        """The variance of one length: the shop's, drawn to the prior; each stream's, to that."""
        alone = self.own_KN.shape[1] < 2
        told_K = np.einsum("kn,kn->k", self.own_KN, self.freedom_KN)
        all_freedom_K = self.freedom_KN.sum(1)
        shop_K = (PRIOR_FREEDOM * self.prior_K + told_K) / (PRIOR_FREEDOM + all_freedom_K)
        # Of a stream that is alone the shop says nothing that it does not say itself.
        towards_K = self.prior_K if alone else shop_K
        self.shop_freedom_K = np.minimum(all_freedom_K * SHOP_SHARE * (not alone), SHOP_FREEDOM)
        drawn_K1 = (PRIOR_FREEDOM + self.shop_freedom_K)[:, None].astype(np.float32)
        towards_K1 = towards_K[:, None].astype(np.float32)
        for part in self._parts():
            own_KN, freedom_KN = self.own_KN[:, part], self.freedom_KN[:, part]
            told_KN = drawn_K1 * towards_K1 + freedom_KN * own_KN
            drawn_KN = told_KN / (drawn_K1 + freedom_KN)
            self.variance_KN[:, part] = np.maximum(drawn_KN, LEAST_VARIANCE)

    def _parts(self) -> Iterator[slice]:
        """Some streams at a time, as many as a processor's cache holds."""
        num_streams = self.own_KN.shape[1]
        for begin in range(0, num_streams, STREAMS_AT_A_TIME):
            yield slice(begin, begin + STREAMS_AT_A_TIME)

    def _sums(
        self, part: slice, *, ago: int = 0, which: slice = slice(None)
    ) -> tuple[Singles, Singles, Bools]:
        """The sums that ended some buckets ago, each scaled to the variance of one value if values
        were independent; the squares of their weights; and whether all of it is there.
        """
        lengths_K1 = LENGTHS_K1[which]
        last, before_K = (self.newest - ago) % KEPT, (self.newest - ago - lengths_K1[:, 0]) % KEPT
        square_KN = self.square_TN[last, part] - self.square_TN[before_K, part]
        whole_KN = (self.age_N[part] >= lengths_K1 + ago) & (square_KN > 1e-3)
        sum_KN = self.sum_TN[last, part] - self.sum_TN[before_K, part]
        norm_KN = np.sqrt(np.where(whole_KN, square_KN, np.float32(1.0)))
        return np.asarray(sum_KN / norm_KN, np.float32), square_KN, whole_KN
