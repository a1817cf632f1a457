"""How far a partition's events have come, and which of them are from the future or too late.

Every judgement uses the watermark as it stood before the record, so it cannot depend on how the log
was batched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.config import WindowSettings

NEVER_MS: Final = -(2**61)
"""A frontier before the first event: earlier than any event, and still an int64 after subtraction.
"""


@dataclass(frozen=True, slots=True)
class TimeRules:
    """How far an event may be out of order, late, or ahead, in milliseconds."""

    out_of_order_ms: int
    allowed_lateness_ms: int
    max_future_ms: int

    @classmethod
    def of(cls, windows: WindowSettings) -> TimeRules:
        """As configured."""
        return cls(windows.out_of_order_ms, windows.allowed_lateness_ms, windows.max_future_ms)


@dataclass(frozen=True, slots=True)
class TimeVerdicts:
    """One verdict a record; `watermark_ms` is the one before it, `frontier_ms` the one after the
    last.

    `first_ms` is the event time of the first record that counts for the frontier, None without one.
    """

    future: Bools
    too_late: Bools
    watermark_ms: Ints
    frontier_ms: int
    first_ms: int | None


def time_verdicts(
    event_time_ms: Ints,
    timestamp_ms: Ints,
    frontier_ms: int,
    rules: TimeRules,
    redriven: Bools | None = None,
) -> TimeVerdicts:
    """Judge records in log order.

    A record is *future* when its event time is past its own timestamp by more than
    `max_future_ms`; it then leaves the frontier alone. It is *too late* when its event time plus
    `allowed_lateness_ms` is before the watermark. The frontier is the running maximum of event
    time over all records that are not future, and the watermark trails it by `out_of_order_ms`.
    Records in `redriven` are never too late and leave the frontier alone.

    >>> times = np.array([10_000, 2_000, 99_000_000])
    >>> verdict = time_verdicts(times, np.array([10_000, 10_000, 10_000]), NEVER_MS,
    ...     TimeRules(5_000, 1_000, 60_000))
    >>> verdict.too_late.tolist(), verdict.future.tolist(), verdict.frontier_ms
    ([False, True, False], [False, False, True], 10000)
    """
    future = event_time_ms > timestamp_ms + rules.max_future_ms
    aside = future if redriven is None else future | redriven
    running = np.maximum.accumulate(
        np.concatenate(([frontier_ms], np.where(aside, NEVER_MS, event_time_ms)))
    )
    watermark_ms = running[:-1] - rules.out_of_order_ms
    too_late = ~aside & (event_time_ms + rules.allowed_lateness_ms < watermark_ms)
    first = int(aside.argmin()) if len(aside) else 0
    first_ms = None if aside[first : first + 1].all() else int(event_time_ms[first])
    return TimeVerdicts(future, too_late, watermark_ms, int(running[-1]), first_ms)
