"""Many streams of one pooled number: what is usual is learnt, what departs from it is scored.

Dimensions: N streams, T buckets that wait.
"""

from __future__ import annotations

import numpy as np

from freshet.online.drift.scan import LEARNT_AFTER, Scan
from freshet.online.drift.usual import Usual
from freshet.stream.arrays import Bools, Floats, Ints

# What is usual is not learnt while a stream is this near an alarm.
SUSPICIOUS = 0.6
# What the middle one of so many streams does in a bucket, the shop does: a good hour, a holiday, a
# forecast that all of them share. It is not held against each; the shop as a whole is watched too.
FEWEST_ALIKE = 5
ALIKE_AT_FIRST, ALIKE_MEMORY = 1.0, 24.0
# One bucket departs by so many standard deviations at most, and teaches by fewer.
ODDEST_BUCKET, ODDEST_LEARNT = 4.0, 3.0


class Streams:
    """N streams; a plain value of arrays.

    Args:
        num_streams: N.
        prior_K: As of `Scan`.
        shape: As of `Scan`.
    """

    def __init__(self, num_streams: int, prior_K: Floats, shape: float = 0.0) -> None:
        self.usual = Usual(num_streams)
        self.scan = Scan(num_streams, prior_K, shape)
        self.turn = 0
        self.alike = ALIKE_AT_FIRST
        self.waiting_ms_T = np.full(LEARNT_AFTER, -1, np.int64)
        self.waiting_TN = np.zeros((LEARNT_AFTER, num_streams))
        self.waiting_heard_TN = np.zeros((LEARNT_AFTER, num_streams), bool)

    def take(
        self, bucket_ms: int, value_N: Floats, weight_N: Floats, heard_N: Bools
    ) -> tuple[Floats, Floats]:
        """Add a bucket; returns how far each is from what is usual at this hour, and what a weight
        of it is worth then: both in the noise of the hour, 0 where nothing was heard.
        """
        most_N = ODDEST_BUCKET * np.sqrt(self.scan.variance_KN[0])
        rough_N = self.usual.roughness(bucket_ms)
        odd_N = (value_N - self.usual.expected(bucket_ms)) / rough_N
        if int(heard_N.sum()) >= FEWEST_ALIKE:
            odd_N = odd_N - self._shared(odd_N[heard_N], self.scan.variance_KN[0, heard_N])
        odd_N = np.where(heard_N, np.clip(odd_N, -most_N, most_N), 0.0)
        weight_N = np.where(heard_N, weight_N / rough_N, 0.0)
        self.scan.push(weight_N, odd_N)
        return odd_N, weight_N

    def _shared(self, odd_H: Floats, variance_H: Floats) -> float:
        """What the middle one of the streams did, as far as lately that was more than chance."""
        middle = float(np.median(odd_H))
        self.alike += (middle**2 - self.alike) / ALIKE_MEMORY
        by_chance = float(variance_H.mean()) * np.pi / (2 * len(odd_H))
        return middle * max(1.0 - by_chance / self.alike, 0.0)

    def learn(
        self, bucket_ms: int, value_N: Floats, heard_N: Bools, calm_N: Bools, tension_N: Floats
    ) -> None:
        """Measure the noise of calm streams, and take in what has waited long enough.

        A bucket becomes usual once LEARNT_AFTER others followed without alarm.
        """
        self.scan.learn(calm_N)
        place = self.turn
        self.turn = (place + 1) % LEARNT_AFTER
        at_ms = int(self.waiting_ms_T[place])
        if at_ms >= 0:
            learnt_N = self.waiting_heard_TN[place] & calm_N & (tension_N < SUSPICIOUS)
            learnt_N &= self.scan.age_N > LEARNT_AFTER
            limit_N = ODDEST_LEARNT * np.sqrt(self.scan.variance_KN[0])
            limit_N = limit_N * self.usual.roughness(at_ms)
            self.usual.learn(at_ms, self.waiting_TN[place], limit_N, learnt_N)
        self.waiting_ms_T[place] = bucket_ms
        self.waiting_TN[place] = value_N
        self.waiting_heard_TN[place] = heard_N

    def loosen(self, rows: Ints) -> None:
        """Other weights serve some streams."""
        self.usual.loosen(rows)
        self.scan.loosen(rows)
