"""What a segment's past is taken for after it broke: hidden, or brought to what it now is.

Dimensions: N series, T context steps, P phases of a cycle, K = P shifts of it, B buckets since the
onset.
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
# Half of a level's move is enough, since the network sees the newest hours itself: with all of it
# the loss of hours 6 to 12 was .90 of what it is without, with half of it .81; of hours 12 to 24,
# 1.17 and .92 (four shops whose level moved by 2.2, which was known).
LEVEL_SHARE = 0.5
PHASE_MAX = np.log(8.0)
# That the day has not moved is as likely beforehand as that it has, by any number of hours.
STAYS = 0.5
# By how much a segment's hours differ from what is expected, in log units; and its level, where the
# day has moved, and where it has not.
HOUR_NOISE = 0.25
MOVED_LEVEL_NOISE = 0.3
LEVEL_NOISE = 0.8
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


def profile_moved(sold_P: Floats, expected_P: Floats) -> tuple[float, ...]:
    """By how much each phase moved; one that has not come since the onset did not.

    >>> profile_moved(np.array([100.0, 0.0]), np.array([20.0, 0.0]))
    (1.099, 0.0)
    """
    ratio_P = np.log((sold_P + DOUBT_UNITS) / (expected_P + DOUBT_UNITS))
    return _bounded(ratio_P)


def _bounded(ratio_P: Floats) -> tuple[float, ...]:
    bounded_P = np.clip(ratio_P, -PHASE_MAX, PHASE_MAX).round(DIGITS) + 0.0
    return tuple(bounded_P.tolist())


def shifted_moved(sold_P: Floats, came_P: Floats, usual_P: Floats) -> tuple[float, ...]:
    """By how much each phase moved, if all that happened is a new level, or a day that comes later.

    A few hours tell which of the day's hours they now are, and with it what all others are, also
    those that have not come yet. Every shift counts by how likely it is: Bayes' rule, with normal
    errors of logarithms, a level of each shift's own, and even odds that the day stayed.

    Args:
        sold_P: units since the onset.
        came_P: how often each phase came since.
        usual_P: units of a whole cycle, as they were expected at the onset.

    >>> usual = np.array([4000.0, 1000.0, 1000.0, 1000.0])
    >>> a_phase_late = np.array([1000.0, 4000.0, 0.0, 0.0])
    >>> moved = shifted_moved(a_phase_late, np.array([1.0, 1.0, 0.0, 0.0]), usual)
    >>> np.round(moved, 2).tolist()
    [-1.37, 1.37, 0.0, 0.0]
    """
    shift_K = np.arange(len(usual_P))
    usual_KP = np.stack([np.roll(usual_P, shift) for shift in shift_K])
    expected_KP = came_P * usual_KP
    ratio_KP = np.log((sold_P + DOUBT_UNITS) / (expected_KP + DOUBT_UNITS))
    sure_KP = 1.0 / (HOUR_NOISE**2 + 1.0 / (expected_KP + DOUBT_UNITS))
    sure_KP = np.where(came_P > 0, sure_KP, 0.0)
    # The level that fits each shift best, drawn to the one that was.
    noise_K = np.where(shift_K == 0, LEVEL_NOISE, MOVED_LEVEL_NOISE)
    level_K = (sure_KP * ratio_KP).sum(1) / (sure_KP.sum(1) + 1.0 / noise_K**2)
    off_K = (sure_KP * (ratio_KP - level_K[:, None]) ** 2).sum(1) + (level_K / noise_K) ** 2
    chance_K = np.where(shift_K == 0, STAYS, (1.0 - STAYS) / max(len(shift_K) - 1, 1))
    chance_K = chance_K * np.exp(-0.5 * (off_K - off_K.min()))
    chance_K /= chance_K.sum()
    # Where the day has not moved the network follows the level itself, as above.
    moved_K = np.where(shift_K == 0, LEVEL_SHARE * level_K, level_K)
    now_P = (chance_K * np.exp(moved_K)) @ usual_KP
    return _bounded(np.log((now_P + DOUBT_UNITS) / (usual_P + DOUBT_UNITS)))
