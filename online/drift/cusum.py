"""A sum of departures from what is usual, and how far it may climb by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Floats

# The most that one bucket may add to a sum: no single bucket raises an alarm, however odd.
STEP_CAP = 3.0
# Hours are drawn in blocks of a day: neighbouring hours have a mood in common, and one by one they
# promised a calm that never came (docs/experiments.md, 2026-11-23).
BOOTSTRAP_BLOCK = 24
BOOTSTRAP_LENGTH = 720  # 30 days of hours
# So many paths tell a 90 % quantile to about 2 percentage points.
BOOTSTRAP_PATHS = 200
# One calm month in ten may raise an alarm; the margin is for months unlike the one learnt from.
BOOTSTRAP_QUANTILE = 0.9
BOOTSTRAP_MARGIN = 1.25


@dataclass(slots=True)
class Cusum:
    """One-sided cumulative sum of what exceeds a slack (Page 1954).

    Attributes:
        total: The sum, 0 or above.
        onset_ms: The bucket at which the present climb began.
        climb: Sum of the values since then.
        count: How many those are.

    >>> cusum = Cusum()
    >>> [cusum.update(hour, value, slack=1.0) for hour, value in enumerate([0.5, 3.0, 9.0, 0.0])]
    [0.0, 2.0, 5.0, 4.0]
    >>> cusum.onset_ms, cusum.mean
    (1, 4.0)
    """

    total: float = 0.0
    onset_ms: int = 0
    climb: float = 0.0
    count: int = 0

    def update(self, bucket_ms: int, value: float, *, slack: float) -> float:
        """Add one bucket and return the sum."""
        if self.total == 0.0:
            self.onset_ms = bucket_ms
            self.climb = 0.0
            self.count = 0
        self.climb += value
        self.count += 1
        self.total = max(0.0, self.total + min(value - slack, STEP_CAP))
        return self.total

    @property
    def mean(self) -> float:
        """Mean value since the onset."""
        return self.climb / max(self.count, 1)


def chance_height(stable: Floats, *, slack: float, two_sided: bool, seed: int) -> float:
    """The height that a CUSUM of such values passes within 30 days of hours once in ten times.

    Args:
        stable: Standardised values of calm buckets, oldest first, a day or more.
        slack: Of the CUSUM.
        two_sided: Sums of departures downwards are kept too.
        seed: Of the draws.
    """
    paths = _paths(stable, seed)
    if two_sided:
        paths = np.concatenate([paths, -paths])
    total = np.zeros(len(paths))
    highest = np.zeros(len(paths))
    for step in paths.T:
        total = np.maximum(0.0, total + np.minimum(step - slack, STEP_CAP))
        np.maximum(highest, total, out=highest)
    # Both sides of a path count as one: either may raise the alarm.
    highest = highest.reshape(-1, BOOTSTRAP_PATHS).max(0)
    return BOOTSTRAP_MARGIN * float(np.quantile(highest, BOOTSTRAP_QUANTILE))


def _paths(stable: Floats, seed: int) -> Floats:
    """Months of whole days drawn with replacement: [BOOTSTRAP_PATHS, BOOTSTRAP_LENGTH]."""
    num_blocks = -(-BOOTSTRAP_LENGTH // BOOTSTRAP_BLOCK)
    num_starts = len(stable) - BOOTSTRAP_BLOCK + 1
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, num_starts, (BOOTSTRAP_PATHS, num_blocks))
    hours = starts[..., None] + np.arange(BOOTSTRAP_BLOCK)
    return np.asarray(stable[hours.reshape(BOOTSTRAP_PATHS, -1)])
