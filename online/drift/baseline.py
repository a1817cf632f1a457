"""What was usual in one stream while forecasts were right: mean, spread, bias by time of day."""

from __future__ import annotations

from collections import deque

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.units import HOUR_MS

# Two weeks of hours: every hour of the day fourteen times, weekends twice.
STABLE_BUCKETS = 336
# A new stream is taken for standard normal, with the weight of so many buckets.
PRIOR_BUCKETS = 4.0
# An hour's own bias is drawn towards none with this weight; two weeks show it fourteen times.
PHASE_PRIOR_BUCKETS = 3.0
# Pooled scores have a spread of about 1 by their making; less than this was luck.
SMALLEST_SPREAD = 0.7
# The noise of a mean is measured on blocks; from fewer than three nothing can be told of it.
FEWEST_BLOCKS = 3
MOST_BLOCKS = 6


class Baseline:
    """Mean, spread and bias of each phase of one stream.

    A phase is an hour of the day, or a weekday for daily buckets. Starts from a prior of a few
    buckets at mean 0 and spread 1, so that the first day is not taken too seriously.

    Args:
        phase_of_ms: An hour, or a day for daily buckets.
    """

    def __init__(self, phase_of_ms: int) -> None:
        self._phase_of_ms = phase_of_ms
        self._num_phases = 24 if phase_of_ms == HOUR_MS else 7
        self._values: deque[tuple[int, float]] = deque(maxlen=STABLE_BUCKETS)
        self.mean = 0.0
        self.spread = 1.0
        self._bias = np.zeros(self._num_phases)

    def __len__(self) -> int:
        return len(self._values)

    def learn(self, bucket_ms: int, value: float) -> None:
        """Take in a bucket that nobody objected to."""
        self._values.append((self._phase(bucket_ms), value))
        self._fit()

    def standardise(self, bucket_ms: int, value: float) -> float:
        """The value in standard deviations from what is usual at this time of the day."""
        return float(value - self.mean - self._bias[self._phase(bucket_ms)]) / self.spread

    def standardised(self) -> Floats:
        """All values that were learnt, oldest first."""
        phases, values = self._columns()
        return np.asarray((values - self.mean - self._bias[phases]) / self.spread)

    def forget(self) -> None:
        """Other weights err in other ways: only the spread is kept."""
        self._values.clear()
        self.mean = 0.0
        self._bias = np.zeros(self._num_phases)

    def _phase(self, bucket_ms: int) -> int:
        return bucket_ms // self._phase_of_ms % self._num_phases

    def _columns(self) -> tuple[Ints, Floats]:
        phases = np.array([phase for phase, _ in self._values], np.int64)
        values = np.array([value for _, value in self._values], np.float64)
        return phases, values

    def _fit(self) -> None:
        """Shrunk estimates: the prior's buckets add nothing to the sums but to the counts."""
        phases, values = self._columns()
        self.mean = float(values.sum() / (len(values) + PRIOR_BUCKETS))

        rest = values - self.mean
        total = np.bincount(phases, rest, minlength=self._num_phases)
        count = np.bincount(phases, minlength=self._num_phases)
        # A phase seen once has no bias: it would call its only value exactly usual.
        self._bias = np.where(count > 1, total / (count + PHASE_PRIOR_BUCKETS), 0.0)

        rest = rest - self._bias[phases]
        variance = ((rest**2).sum() + PRIOR_BUCKETS) / (len(values) + PRIOR_BUCKETS)
        self.spread = max(float(variance**0.5), SMALLEST_SPREAD)


def block_noise(stable: Floats, length: int) -> float:
    """Standard deviation of the mean of `length` neighbouring values.

    Neighbouring hours have much in common, so their mean is noisier than that of independent ones.
    It is measured on the means of whole blocks, and never taken for less than independence gives.

    Args:
        stable: Standardised values, oldest first.
        length: How many neighbours are averaged; longer blocks than a sixth of the values are
            taken for several shorter ones that are independent of each other.
    """
    block = min(length, max(len(stable) // MOST_BLOCKS, 1))
    num_blocks = len(stable) // block
    if num_blocks < FEWEST_BLOCKS:
        return 1.0
    means = stable[-num_blocks * block :].reshape(num_blocks, block).mean(1)
    return float(max(means.std() * (block / length) ** 0.5, length**-0.5))
