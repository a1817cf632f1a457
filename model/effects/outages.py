"""Long silences in the middle of a series that its own sales do not explain: nothing could be sold.

A shop that is rebuilt, an article that was not delivered, a log that lost half a year: windows hold
zeros there, which say nothing of the demand before and after. Dimensions: N series, T context
steps, C cycles of P steps.
"""

from __future__ import annotations

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS

# So unlikely must a silence be at the rate at which the series sells in other cycles, and so many
# times as long as any other one: a shop that closes each winter is no outage.
UNLIKELY = np.log(1e-4)
LONGER = 1.5
FEWEST_CYCLES = 4
# What was sold before must have lasted half as long as the silence: goods of one season are silent
# for the rest of the year, and will be again. And it must be back.
LASTED = 0.5
BACK_FOR = 2


def outages(target_NT: Floats, resolution_ms: int) -> Bools:
    """Steps of the longest silence of each series, where it was an outage: [N, T].

    >>> weekly = np.r_[np.ones(60), np.zeros(30), np.ones(10)]
    >>> np.flatnonzero(outages(weekly[None], 7 * 86_400_000)).tolist() == list(range(60, 90))
    True
    >>> outages(np.r_[np.ones(8), np.zeros(40), np.ones(8)][None], 7 * 86_400_000).any()
    np.False_
    """
    N, T = target_NT.shape
    P = _cycle(resolution_ms)
    C = T // P
    if C < 3 * FEWEST_CYCLES:
        return np.zeros((N, T), bool)
    # Whole cycles, the newest one complete.
    first = T - C * P
    cycles_NCP = target_NT[:, first:].reshape(N, C, P)
    sold_NC: Bools = np.any(cycles_NCP > 0, axis=2)
    begin_N, length_N, next_N = _longest_silences(sold_NC)

    cycle_C = np.arange(C)
    before_N = (sold_NC & (cycle_C < begin_N[:, None])).sum(1)
    after_N = (sold_NC & (cycle_C >= (begin_N + length_N)[:, None])).sum(1)
    seen_NC = np.isfinite(cycles_NCP).any(2)
    others_N = seen_NC.sum(1) - length_N
    # Half a cycle without a sale stands beside those that were seen.
    rate_N = sold_NC.sum(1) / (others_N + 0.5)
    unlikely_N = length_N * np.log1p(-rate_N.clip(0.0, 1.0 - 1e-9)) < UNLIKELY
    outage_N = (
        (length_N >= FEWEST_CYCLES)
        & (length_N > LONGER * next_N)
        & (before_N >= LASTED * length_N)
        & (after_N >= BACK_FOR)
        & unlikely_N
    )
    return _between_sales(target_NT, outage_N, first + P * begin_N)


def _cycle(resolution_ms: int) -> int:
    """Steps of a cycle in which something usually sells: a day of hours, a week of days, a week."""
    if resolution_ms <= HOUR_MS:
        return max(DAY_MS // resolution_ms, 1)
    return max(WEEK_MS // resolution_ms, 1)


def _longest_silences(sold_NC: Bools) -> tuple[Ints, Ints, Ints]:
    """First cycle and length of the longest silence between two sales, length of the next: [N]."""
    N, C = sold_NC.shape
    cycle_C = np.arange(C)
    # For each cycle with a sale, how many cycles lie between it and the sale before.
    last_NC = np.maximum.accumulate(np.where(sold_NC, cycle_C, -1), 1)
    before_NC = np.concatenate([np.full((N, 1), -1), last_NC[:, :-1]], 1)
    gap_NC = np.where(sold_NC & (before_NC >= 0), cycle_C - before_NC - 1, 0)
    end_N = gap_NC.argmax(1)
    rows = np.arange(N)
    length_N = gap_NC[rows, end_N]
    gap_NC[rows, end_N] = 0
    return end_N - length_N, length_N, gap_NC.max(1, initial=0)


def _between_sales(target_NT: Floats, outage_N: Bools, inside_N: Ints) -> Bools:
    """The steps between the sale before a step inside and the one after it: [N, T]."""
    T = target_NT.shape[1]
    step_T = np.arange(T)
    sold_NT = target_NT > 0
    earlier_NT = sold_NT & (step_T < inside_N[:, None])
    later_NT = sold_NT & (step_T >= inside_N[:, None])
    last_N = T - 1 - earlier_NT[:, ::-1].argmax(1)
    next_N = later_NT.argmax(1)
    between_NT = (step_T > last_N[:, None]) & (step_T < next_N[:, None])
    return np.asarray(between_NT & outage_N[:, None])
