"""Which of a partition's events are from the future or too late.

Every judgement uses the watermark as it stood before the record, so it cannot depend on how the log
was batched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.config import WindowSettings
from freshet.stream.fold.frontier import NEVER_MS, FrontierRule, LargestTime, Reach


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
    """One verdict a record; `watermark_ms` is the one before it, `reach` the one after the last.

    `first_ms` is the first frontier there was, None before it.
    """

    future: Bools
    too_late: Bools
    watermark_ms: Ints
    reach: Reach
    first_ms: int | None

    @property
    def frontier_ms(self) -> int:
        """The one after the last record."""
        return self.reach.frontier_ms


@dataclass(frozen=True, slots=True)
class Aside:
    """Which records go by other rules of time: both are never late and leave the frontier alone.

    `redriven` are sent again by a person, `history` are old and loaded in whatever order; those are
    never from the future either.
    """

    redriven: Bools
    history: Bools

    @property
    def patient(self) -> Bools:
        """Those that are never too late."""
        return self.redriven | self.history

    @classmethod
    def none(cls, num_records: int) -> Aside:
        """Of a batch in which no record is."""
        nobody = np.zeros(num_records, np.bool_)
        return cls(nobody, nobody)


def time_verdicts(
    event_time_ms: Ints,
    timestamp_ms: Ints,
    reach: Reach,
    rules: TimeRules,
    aside: Aside | None = None,
    rule: FrontierRule | None = None,
) -> TimeVerdicts:
    """Judge records in log order.

    A record is *future* when its event time is past its own timestamp by more than
    `max_future_ms`, or too far ahead of the frontier; it is *too late* when its event time plus
    `allowed_lateness_ms` is before the watermark, which trails the frontier by `out_of_order_ms`.
    All others move the frontier as its rule says.

    >>> times = np.array([10_000, 2_000, 99_000_000])
    >>> verdict = time_verdicts(times, np.array([10_000, 10_000, 10_000]), Reach(),
    ...     TimeRules(5_000, 1_000, 60_000))
    >>> verdict.too_late.tolist(), verdict.future.tolist(), verdict.frontier_ms
    ([False, True, False], [False, False, True], 10000)
    """
    aside = aside or Aside.none(len(event_time_ms))
    unlike_its_record = event_time_ms > timestamp_ms + rules.max_future_ms
    unmoving = unlike_its_record | aside.patient
    moved = (rule or LargestTime()).follow(event_time_ms, ~unmoving, reach)
    future = (unlike_its_record | moved.too_far) & ~aside.history
    watermark_ms = moved.before_ms - rules.out_of_order_ms
    behind = event_time_ms + rules.allowed_lateness_ms < watermark_ms
    too_late = behind & ~(future | aside.patient)
    first_ms = None
    if moved.reach.frontier_ms != NEVER_MS:
        known = moved.before_ms[moved.before_ms != NEVER_MS]
        first_ms = int(known[0]) if len(known) else moved.reach.frontier_ms
    return TimeVerdicts(future, too_late, watermark_ms, moved.reach, first_ms)
