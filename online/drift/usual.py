"""What is usual in many streams at once: mean, bias of each hour and weekday, noise of each hour.

Dimensions: N streams.
"""

from __future__ import annotations

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, HOUR_MS

# A mean over n values moves by 1 / (n + prior): so many values of nothing unusual are taken for
# seen before the first. Base weights are right on average, and a bias of an hour or of a weekday
# must show on several days before it is believed.
MEAN_PRIOR, HOUR_PRIOR, DAY_PRIOR = 8.0, 4.0, 72.0
# Older values fade: two weeks of hours, three weeks of an hour of the day, five of a weekday.
MEAN_MEMORY, HOUR_MEMORY, DAY_MEMORY = 336.0, 21.0, 120.0
# The noise of an hour is believed like its bias, and never to be next to nothing.
NOISE_PRIOR, LEAST_NOISE = 16.0, 0.1
# What is left of them under new weights, which err alike by the hour but not in their level.
MEAN_KEPT, PHASES_KEPT = 0.1, 0.5


class Usual:
    """Mean and biases of N streams; a plain value of arrays."""

    def __init__(self, num_streams: int) -> None:
        self.mean_N = np.zeros(num_streams)
        self.hour_HN = np.zeros((24, num_streams))
        self.day_DN = np.zeros((7, num_streams))
        self.seen_N = np.zeros(num_streams)
        self.hours_seen_HN = np.zeros((24, num_streams))
        self.days_seen_DN = np.zeros((7, num_streams))
        self.noise_HN = np.ones((24, num_streams))

    def expected(self, bucket_ms: int) -> Floats:
        """What each stream usually shows at this time."""
        hour, day = _phases(bucket_ms)
        return np.asarray(self.mean_N + self.hour_HN[hour] + self.day_DN[day])

    def roughness(self, bucket_ms: int) -> Floats:
        """Standard deviation of each stream at this hour: a closed shop is calm in its own way."""
        return np.asarray(np.sqrt(self.noise_HN[_phases(bucket_ms)[0]]))

    def learn(self, bucket_ms: int, value_N: Floats, limit_N: Floats, learnt_N: Bools) -> None:
        """Take in a bucket; of what is odder than `limit_N` only so much."""
        hour, day = _phases(bucket_ms)
        odd_N = np.where(learnt_N, value_N - self.expected(bucket_ms), 0.0)
        odd_N = np.clip(odd_N, -limit_N, limit_N)
        for mean_N, seen_N, prior, memory in (
            (self.mean_N, self.seen_N, MEAN_PRIOR, MEAN_MEMORY),
            (self.hour_HN[hour], self.hours_seen_HN[hour], HOUR_PRIOR, HOUR_MEMORY),
            (self.day_DN[day], self.days_seen_DN[day], DAY_PRIOR, DAY_MEMORY),
        ):
            seen_N += learnt_N
            np.minimum(seen_N, memory, out=seen_N)
            mean_N += odd_N / (seen_N + prior)
        noise_N = self.noise_HN[hour]
        told_N = learnt_N / (self.hours_seen_HN[hour] + NOISE_PRIOR)
        noise_N += (np.maximum(odd_N**2, LEAST_NOISE) - noise_N) * told_N

    def loosen(self, rows: Ints) -> None:
        """Other weights serve some streams."""
        self.mean_N[rows] *= 0.5
        self.seen_N[rows] *= MEAN_KEPT
        self.hours_seen_HN[:, rows] *= PHASES_KEPT
        self.days_seen_DN[:, rows] *= PHASES_KEPT

    def forget(self, row: int) -> None:
        """A stream has changed for good: its level is learnt anew, its phases too."""
        for array_N in (self.mean_N, self.seen_N):
            array_N[row] = 0.0
        self.noise_HN[:, row] = 1.0
        for array_PN in (self.hour_HN, self.day_DN, self.hours_seen_HN, self.days_seen_DN):
            array_PN[:, row] = 0.0


def _phases(bucket_ms: int) -> tuple[int, int]:
    """Hour of the day and day of the week."""
    return bucket_ms // HOUR_MS % 24, bucket_ms // DAY_MS % 7
