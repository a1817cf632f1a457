"""Whole days as their hours and as they themselves are forecast, brought to say the same. Pure.

Forecasts of one day differ: the day's own rests on more weeks and needs no guess of how 24 errors
move together, the hours' on the newest trend. Weighed against each other by quantiles, as temporal
hierarchies are reconciled (Athanasopoulos et al. 2017), the day's own counts the more days it has
seen, and after four weeks alone. Sums over the first hours then end in it.

Dimensions: B rows, K sums over first steps, D whole days, W quantile levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints

# Chosen on shops seen for 7 and 28 days, by WQL of days and of sums of hours (bench/coherence.py):
# what the hours say of a day counts as much as so many days that the day's forecast has seen ...
HOURS_WORTH_DAYS = 4.0
# ... and from so many days on, where it would be a seventh at most, it is not asked for.
YOUNG_DAYS = 28
# How late in a day its sums are brought to the day's: with this power of the time that is over.
# Early hours are known better by the hour (2 to 8 were alike within 1 %, 1 was worse).
LATE = 3.0


def young(seen_B: Ints) -> Bools:
    """Whose days were seen, but too few of them to be believed alone: [B]."""
    return np.asarray((seen_B > 0) & (seen_B < YOUNG_DAYS))


def mixed(of_days_BDW: Floats, of_hours_BDW: Floats, seen_B: Ints) -> Floats:
    """Sums over the first whole days, from what days and hours say of them, level by level.

    >>> mixed(np.array([[[8.0]]]), np.array([[[4.0]]]), np.array([12])).tolist()  # 12 : 4
    [[[7.0]]]
    """
    share_B = seen_B / (seen_B + HOURS_WORTH_DAYS)
    share_B11 = share_B[:, None, None]
    return np.asarray(share_B11 * of_days_BDW + (1.0 - share_B11) * of_hours_BDW)


def moved_sums(
    sums_BKW: Floats, steps: Sequence[int], ends: Sequence[int], goal_BDW: Floats
) -> Floats:
    """Sums over the first steps that are the goal where whole days end: [B, K, W].

    What is missing there comes in within the day, most of it late, and what comes after carries it
    on. Sums rise with levels and steps, and none within a day passes the goal at its end.

    Args:
        sums_BKW: Quantiles of the sums, rising with levels and steps.
        steps: K rising numbers of steps, among them all `ends`.
        ends: D rising numbers of steps, after which days end.
        goal_BDW: What the sums shall be there, rising with levels and days.

    >>> sums = np.array([[[1.0], [2.0], [4.0]]])
    >>> moved_sums(sums, [1, 2, 3], [2], np.array([[[10.0]]]))[0, :, 0].tolist()  # 1 + 8 / 2 ** 3
    [2.0, 10.0, 12.0]
    """
    at_D = [list(steps).index(end) for end in ends]
    none_B1W = np.zeros_like(sums_BKW[:, :1])
    due_BXW = np.concatenate([none_B1W, goal_BDW - sums_BKW[:, at_D]], 1)
    least_BXW = np.concatenate([none_B1W, goal_BDW], 1)
    most_BXW = np.concatenate([goal_BDW, np.full_like(none_B1W, np.inf)], 1)
    begins = [0, *ends]
    found_BKW = np.empty_like(sums_BKW)
    for place, step in enumerate(steps):
        day = sum(step > end for end in ends)
        moved_BW = sums_BKW[:, place] + due_BXW[:, day]
        if day < len(ends):
            over = (step - begins[day]) / (begins[day + 1] - begins[day])
            moved_BW += over**LATE * (due_BXW[:, day + 1] - due_BXW[:, day])
        moved_BW = np.clip(moved_BW, least_BXW[:, day], most_BXW[:, day])
        found_BKW[:, place] = np.sort(moved_BW, -1)
    found_BKW = np.maximum.accumulate(found_BKW, 1)
    found_BKW[:, at_D] = goal_BDW
    return found_BKW
