"""What was usual while forecasts were right, and how far a sum of departures from it may climb by
chance.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.units import HOUR_MS

STABLE_BUCKETS = 336  # two weeks of hours
PRIOR_BUCKETS = 4.0
PHASE_PRIOR_BUCKETS = 3.0
SMALLEST_SPREAD = 0.7
STEP_CAP = (
    3.0  # the most that one bucket may add to a sum, so that no single bucket raises an alarm
)
BOOTSTRAP_BLOCK = 24
BOOTSTRAP_PATHS = 200
BOOTSTRAP_LENGTH = 720
BOOTSTRAP_QUANTILE = 0.9
BOOTSTRAP_MARGIN = 1.25


class Baseline:
    """Mean, spread and the bias of each hour of the day (of each weekday for daily buckets) of one
    stream.

    Starts from a prior of a few buckets at mean 0 and spread 1, so that the first day is not taken
    too seriously.
    """

    def __init__(self, phase_of_ms: int) -> None:
        self._phase_of_ms = phase_of_ms
        self._num_phases = 24 if phase_of_ms == HOUR_MS else 7
        self._values: deque[tuple[int, float]] = deque(maxlen=STABLE_BUCKETS)
        self.mean, self.spread = 0.0, 1.0
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
        """The whole baseline, oldest first."""
        phases, values = self._columns()
        return np.asarray((values - self.mean - self._bias[phases]) / self.spread)

    def forget(self) -> None:
        """Other weights err in other ways: only the spread is kept."""
        self._values.clear()
        self.mean, self._bias = 0.0, np.zeros(self._num_phases)

    def _phase(self, bucket_ms: int) -> int:
        return bucket_ms // self._phase_of_ms % self._num_phases

    def _columns(self) -> tuple[Ints, Floats]:
        return np.array([p for p, _ in self._values], np.int64), np.array(
            [v for _, v in self._values], np.float64
        )

    def _fit(self) -> None:
        phases, values = self._columns()
        self.mean = float(values.sum() / (len(values) + PRIOR_BUCKETS))
        rest = values - self.mean
        total = np.bincount(phases, rest, minlength=self._num_phases)
        count = np.bincount(phases, minlength=self._num_phases)
        self._bias = np.where(count > 1, total / (count + PHASE_PRIOR_BUCKETS), 0.0)
        rest = rest - self._bias[phases]
        variance = ((rest**2).sum() + PRIOR_BUCKETS) / (len(values) + PRIOR_BUCKETS)
        self.spread = max(float(variance**0.5), SMALLEST_SPREAD)


@dataclass(slots=True)
class Cusum:
    """One-sided cumulative sum of what exceeds a slack (Page 1954).

    >>> cusum = Cusum()
    >>> [cusum.update(hour, value, slack=1.0) for hour, value in enumerate([0.5, 3.0, 9.0, 0.0])]
    [0.0, 2.0, 5.0, 4.0]
    >>> cusum.onset_ms, cusum.mean
    (1, 4.0)
    """

    total: float = 0.0
    onset_ms: int = 0
    sum: float = 0.0
    count: int = 0

    def update(self, bucket_ms: int, value: float, *, slack: float) -> float:
        """Add one bucket and return the sum; the onset is the bucket at which the present climb
        began.
        """
        if self.total == 0.0:
            self.onset_ms, self.sum, self.count = bucket_ms, 0.0, 0
        self.sum, self.count = self.sum + value, self.count + 1
        self.total = max(0.0, self.total + min(value - slack, STEP_CAP))
        return self.total

    @property
    def mean(self) -> float:
        """Mean value since the onset."""
        return self.sum / max(self.count, 1)


def chance_height(stable: Floats, *, slack: float, two_sided: bool, seed: int) -> float:
    """The height that a CUSUM of such values passes within 30 days of hours with a chance of one
    in ten.

    Blocks of a day are drawn with replacement, so that the bootstrap keeps whatever neighbouring
    hours have in common; independent noise of the same size would promise a calm that never comes.
    """
    rng = np.random.default_rng(seed)
    num_blocks = -(-BOOTSTRAP_LENGTH // BOOTSTRAP_BLOCK)
    starts = rng.integers(0, len(stable) - BOOTSTRAP_BLOCK + 1, (BOOTSTRAP_PATHS, num_blocks))
    paths = stable[(starts[..., None] + np.arange(BOOTSTRAP_BLOCK)).reshape(BOOTSTRAP_PATHS, -1)]
    highest = np.zeros(BOOTSTRAP_PATHS)
    for sign in (1.0, -1.0) if two_sided else (1.0,):
        total = np.zeros(BOOTSTRAP_PATHS)
        for column in (sign * paths).T:
            total = np.maximum(0.0, total + np.minimum(column - slack, STEP_CAP))
            np.maximum(highest, total, out=highest)
    return BOOTSTRAP_MARGIN * float(np.quantile(highest, BOOTSTRAP_QUANTILE))


def block_noise(stable: Floats, length: int) -> float:
    """Standard deviation of the mean of `length` neighbouring values, never below that of
    independent ones.
    """
    block = min(length, max(len(stable) // 6, 1))
    num_blocks = len(stable) // block
    if num_blocks < 3:
        return 1.0
    means = stable[-num_blocks * block :].reshape(num_blocks, block).mean(1)
    return float(max(means.std() * (block / length) ** 0.5, length**-0.5))
