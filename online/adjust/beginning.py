"""What a segment's past is taken for after it broke: hidden, or brought to what it now is.

Dimensions: N series, T context steps, P phases of a cycle, B buckets since the onset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats, Ints

# Units that stand beside what was sold and what was expected, so that an hour of three sales moves
# little. (Chosen in simulated shops of 250 to 440 units an hour a segment.)
DOUBT_UNITS = 20.0
# A level that seems to have moved further than this has not: a moved day looks so at its first
# hours, and a factor of nine there tripled the error.
LEVEL_MAX = np.log(3.0)
# Half of a level's move is enough, since the network sees the newest hours itself: with all of it
# the loss of hours 6 to 12 was .90 of what it is without, with half of it .81; of hours 12 to 24,
# 1.17 and .92 (four shops whose level moved by 2.2, which was known).
LEVEL_SHARE = 0.5
PHASE_MAX = np.log(8.0)
DIGITS = 3


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where what a series now is begins, and what becomes of what lies before it.

    Attributes:
        begins_ms: start of its first bucket.
        moved_P: log units by which the past is moved, by phase (number of the bucket modulo P);
            empty: it is hidden.
    """

    begins_ms: int
    moved_P: tuple[float, ...] = ()


def begun(window: Window, beginnings: Sequence[Beginning | None]) -> Window:
    """The window whose series begin where they are said to; None leaves one as it is."""
    T = window.context_length
    target_NT = window.target_NT.copy()
    past_NTP = window.past_NTP.copy()
    for row, beginning in enumerate(beginnings):
        if beginning is None:
            continue
        time_ms_T = window.time_ms_NS[row, :T]
        before_T = time_ms_T < beginning.begins_ms
        if beginning.moved_P:
            factor_P = np.exp(np.array(beginning.moved_P))
            phase_T = time_ms_T // window.resolution_ms % len(factor_P)
            target_NT[row, before_T] *= factor_P[phase_T[before_T]]
        else:
            target_NT[row, before_T] = np.nan
            past_NTP[row, before_T] = np.nan
    return replace(window, target_NT=target_NT, past_NTP=past_NTP)


def by_phase(bucket_B: Ints, units_B: Floats, period: int) -> Floats:
    """Units of each phase: [P].

    >>> by_phase(np.array([4, 5, 6]), np.array([1.0, 2.0, 3.0]), 2).tolist()
    [4.0, 2.0]
    """
    return np.bincount(bucket_B % period, units_B, period).astype(np.float64)


def level_moved(sold_P: Floats, expected_P: Floats) -> tuple[float, ...]:
    """Half of what the level moved by, the same at each phase; drawn to nothing, and bounded.

    >>> level_moved(np.array([100.0, 20.0]), np.array([30.0, 10.0]))
    (0.424, 0.424)
    """
    sold, expected = sold_P.sum(), expected_P.sum()
    ratio = np.log((sold + DOUBT_UNITS) / (expected + DOUBT_UNITS))
    bounded = LEVEL_SHARE * np.clip(ratio, -LEVEL_MAX, LEVEL_MAX)
    level = round(float(bounded), DIGITS)
    return (level,) * len(sold_P)


def profile_moved(sold_P: Floats, expected_P: Floats) -> tuple[float, ...]:
    """By how much each phase moved; one that has not come since the onset did not.

    >>> profile_moved(np.array([100.0, 0.0]), np.array([20.0, 0.0]))
    (1.099, 0.0)
    """
    ratio_P = np.log((sold_P + DOUBT_UNITS) / (expected_P + DOUBT_UNITS))
    bounded_P = np.clip(ratio_P, -PHASE_MAX, PHASE_MAX).round(DIGITS) + 0.0
    return tuple(bounded_P.tolist())
