"""Tells what a table's gaps may mean: rows only where something sold, days that nobody trades on.

Dimensions: N series, L steps.
"""

from __future__ import annotations

import numpy as np

from freshet.model.tables.told import tell
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, HOUR_MS

GAPS = 0.1
FEW = 30
# Of the steps from the first to the last row, so many have no row of any series in a table that
# has another frequency than is thought.
EMPTY = 0.6
# The last step of a sum has rows on fewer days than others have, by more than months differ.
FEWER_DAYS = 0.9
# A weekday that passed so often without a row is one on which there is none.
PASSED = 6
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS = tuple(f"{hour}:00" for hour in range(24))


def tell_if_only_sold(target_NL: Floats, inside_NL: Bools, time_ms_NL: Ints) -> None:
    """Warn where rows seem to be there only if something was sold.

    No target is 0, though of the steps on which others have one, a series lacks many: a forecast of
    the steps that sold is no forecast of sales.
    """
    seen_NL = np.isfinite(target_NL)
    if seen_NL.sum() < FEW or (target_NL[seen_NL] == 0.0).any():
        return
    sold_ms = np.unique(time_ms_NL[seen_NL])
    sells_N1 = seen_NL.any(1, keepdims=True)
    traded_NL = inside_NL & sells_N1 & np.isin(time_ms_NL, sold_ms)
    share = float((traded_NL & ~seen_NL).sum()) / max(int(traded_NL.sum()), 1)
    if share > GAPS:
        tell(
            f"{100 * share:.0f} % of the steps of a series have no target while others sold, and "
            "no target is 0: these steps count as unknown; where rows exist only for steps that "
            "sold anything, say that missing ones are zero"
        )


def tell_if_sparse(target_NL: Floats, inside_NL: Bools, time_ms_NL: Ints, frequency: str) -> bool:
    """Warn of a table most of whose steps have no target of any series; whether it is one."""
    steps = len(np.unique(time_ms_NL[inside_NL]))
    told = len(np.unique(time_ms_NL[np.isfinite(target_NL)]))
    sparse = steps >= FEW and told < (1.0 - EMPTY) * steps
    if sparse:
        tell(
            f"{steps - told} of {steps} steps of {frequency!r} have no target of any series: they "
            "count as unknown; is the frequency another one? Where nothing was sold on them, say "
            "that missing ones are zero"
        )
    return sparse


def tell_if_never_sold(
    target_NL: Floats, inside_NL: Bools, clock_ms_NL: Ints, frequency: str
) -> None:
    """Warn of weekdays, or hours of the day, on which no series ever has a target.

    A shop that is closed on Sundays has no rows on them, but they are steps all the same, and a
    forecast of theirs is that of a day like the others.
    """
    if frequency == "D":
        # The first of January 1970 was a Thursday.
        word, first, step_ms = "on", 3, DAY_MS
    elif frequency == "h":
        word, first, step_ms = "at", 0, HOUR_MS
    else:
        return
    names = WEEKDAYS if frequency == "D" else HOURS

    def passed(clock_ms: Ints) -> Ints:
        return np.bincount((clock_ms // step_ms + first) % len(names), minlength=len(names))

    sold = passed(clock_ms_NL[np.isfinite(target_NL)])
    if sold.all() or not sold.any():
        return
    longest = int(np.argmax(inside_NL.sum(1)))
    steps = passed(clock_ms_NL[longest, inside_NL[longest]])
    never = [names[phase] for phase in np.flatnonzero((sold == 0) & (steps >= PASSED))]
    if never:
        tell(
            f"no row has a target {word} {', '.join(never)}: a forecast of such a step is that of "
            "the steps beside it; where nothing is sold then, leave these steps of the answer out, "
            "or give rows of 0"
        )


def tell_if_unfinished(step_R: Ints, clock_ms_R: Ints, frequency: str) -> None:
    """Warn where rows of days are added up, and the last step has rows on fewer days than others.

    A month that has only begun would be taken for one in which little was sold.
    """
    step_D, _ = np.unique(np.stack([step_R, clock_ms_R // DAY_MS]), axis=1)
    _, days_S = np.unique(step_D, return_counts=True)
    if len(days_S) > 1 and days_S[-1] < FEWER_DAYS * float(np.median(days_S[:-1])):
        tell(
            f"the last step of {frequency!r} has rows on {days_S[-1]} days, others usually on "
            f"{int(np.median(days_S[:-1]))}: it counts as if it were over; leave its rows out"
        )
