"""What changed, once something did: how much is sold, when in the day, or how unevenly.

Each explanation says what the hours since the onset would look like: a level lifts every hour by
the same share, a moved day profile lifts and lowers them as that day's shape says, a wider spread
leaves the level alone and sets the items apart. Their sizes are unknown, so each is weighed by the
mean likelihood over a grid of sizes: what can explain anything explains nothing well (Occam).

Dimensions: T hours since the onset, G sizes of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.schemas import DriftKind

# In doublings of sales: from nothing sold to three times more.
SHIFTS_G = np.array([-0.9, -0.7, -0.5, -0.35, -0.2, 0.2, 0.35, 0.5, 0.75, 1.0, 1.4, 2.0, 3.0])
HOURS_G = np.array([hours for hours in range(-12, 13) if abs(hours) >= 2])
# Of the pooled spread, in its standard deviations an hour. What moves items alike still moves some
# more than others, so a shifted level or profile comes with some spread, a wide spread with more.
BESIDE_G = np.array([0.0, 1.0, 2.0])
SPREADS_G = np.array([1.0, 2.0, 3.0, 4.0, 6.0])
# Before anything was seen; from what a shop's alarms mostly are.
PRIOR: dict[DriftKind, float] = {"level": 0.5, "timing": 0.25, "spread": 0.25}
MOST_RATIO = 4.0  # an hour that is nearly closed is not expected to sell a hundred times more
LEAST_SHARE = 0.02  # of the day's mean: profiles are not known to less


@dataclass(frozen=True, slots=True)
class Evidence:
    """The hours since an onset of one segment.

    Attributes:
        level_T: Departures of the pooled level.
        weight_T: What a doubling of sales adds to it.
        spread_T: Departures of the pooled spread.
        hour_T: Hour of the day.
        profile_H: What is sold in each hour of the day, in any unit.
        level_variance: Of one departure, with what hours have in common.
        spread_variance: The same of the spread.
    """

    level_T: Floats
    weight_T: Floats
    spread_T: Floats
    hour_T: Ints
    profile_H: Floats
    level_variance: float
    spread_variance: float


def chances(seen: Evidence) -> dict[DriftKind, float]:
    """How likely each explanation is, given that one of the three is right."""
    level_G = _likelihood(seen.level_T, SHIFTS_G[:, None] * seen.weight_T, seen.level_variance)
    timing_G = _likelihood(seen.level_T, _moved(seen), seen.level_variance)
    still = _likelihood(seen.level_T, np.zeros((1, len(seen.level_T))), seen.level_variance)
    beside_G = _likelihood(
        seen.spread_T, BESIDE_G[:, None] * np.ones(len(seen.spread_T)), seen.spread_variance
    )
    spread_G = _likelihood(
        seen.spread_T, SPREADS_G[:, None] * np.ones(len(seen.spread_T)), seen.spread_variance
    )
    log: dict[DriftKind, float] = {
        "level": _mean(level_G) + _mean(beside_G),
        "timing": _mean(timing_G) + _mean(beside_G),
        "spread": float(still[0]) + _mean(spread_G),
    }
    best = max(log.values())
    weighed = {kind: PRIOR[kind] * float(np.exp(value - best)) for kind, value in log.items()}
    return {kind: value / sum(weighed.values()) for kind, value in weighed.items()}


def _moved(seen: Evidence) -> Floats:
    """What each hour would show if the day's profile had moved by so many hours: [G, T]."""
    profile_H = np.maximum(seen.profile_H, LEAST_SHARE * max(seen.profile_H.mean(), 1e-12))
    now_T = profile_H[seen.hour_T]
    then_GT = profile_H[(seen.hour_T - HOURS_G[:, None]) % len(profile_H)]
    ratio_GT = np.minimum(then_GT / now_T, MOST_RATIO)
    return np.asarray((ratio_GT - 1.0) * seen.weight_T)


def _likelihood(value_T: Floats, mean_GT: Floats, variance: float) -> Floats:
    """Log likelihood of each row of means; departures are clipped, so means are too."""
    most = 4.0 * variance**0.5
    miss_GT = value_T - np.clip(mean_GT, -most, most)
    return np.asarray(-(miss_GT**2).sum(1) / (2.0 * variance))


def _mean(log_G: Floats) -> float:
    """Logarithm of the mean of likelihoods."""
    best = log_G.max()
    return float(best + np.log(np.exp(log_G - best).mean()))
