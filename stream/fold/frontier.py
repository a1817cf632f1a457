"""How far a partition's events have come: its frontier, moved by one of two rules.

Where Kafka stamps records (`LogAppendTime`), an event that claims to be later than its record is
refused, and the frontier is the largest event time. Where producers do (`CreateTime`), one wrong
clock would carry that away and make everybody else late. So the frontier is then the k-th largest
event time, which k - 1 events cannot move; and an event far beyond it moves nothing, unless for a
while nobody says otherwise: then the shop slept, and the frontier goes on where it woke up.

All of what a rule knows is kept (`Reach`), so a frontier depends on the log before it and not on
how that was batched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.config import WindowSettings

NEVER_MS: Final = -(2**61)
"""A frontier before the first event: earlier than any event, and still an int64 after subtraction.
"""
AHEAD_EVENTS: Final = 20
# A batch of one producer is a row of its events, and may follow another one. Ten minutes (of the
# hour that max_step_ms is) are longer than most, and short for a shop that slept.
_ROWS_A_STEP: Final = 6
# Twenty orders are half a day of a small shop. Where no row ended otherwise, five that span half a
# step will do: one clock that a quarter of all events has makes such a row once in 256.
FEW_EVENTS: Final = 5
_FEW_A_STEP: Final = 2


@dataclass(frozen=True, slots=True)
class AheadRow:
    """Events far beyond the frontier that came in a row, and the span of their times."""

    events: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def with_event(self, time_ms: int) -> AheadRow:
        """One more."""
        if not self.events:
            return AheadRow(1, time_ms, time_ms)
        first_ms, last_ms = min(self.first_ms, time_ms), max(self.last_ms, time_ms)
        return AheadRow(self.events + 1, first_ms, last_ms)


NO_ROW: Final = AheadRow()


@dataclass(frozen=True, slots=True)
class Reach:
    """The frontier, and what its rule goes on from.

    `top_ms` are the largest event times that counted, falling; empty where the largest is all.
    `doubted_ms` is where the frontier was when somebody last said otherwise than a row ahead of it.
    """

    frontier_ms: int = NEVER_MS
    top_ms: tuple[int, ...] = ()
    ahead: AheadRow = NO_ROW
    doubted_ms: int = NEVER_MS


@dataclass(frozen=True, slots=True)
class Followed:
    """A rule's answer: the frontier before each event, which are too far ahead, the reach after."""

    before_ms: Ints
    too_far: Bools
    reach: Reach


class FrontierRule(Protocol):
    """Moves a frontier by the events that count; it never falls."""

    def begin(self, time_ms: int) -> Reach:
        """As if everything up to a time had come."""
        ...

    def follow(self, event_time_ms: Ints, counts: Bools, reach: Reach) -> Followed:
        """Move on by events in log order; those that do not count move nothing."""
        ...


class LargestTime:
    """The frontier is the largest event time.

    >>> moved = LargestTime().follow(np.array([5, 3, 9]), np.array([True, True, False]), Reach())
    >>> moved.before_ms.tolist() == [NEVER_MS, 5, 5], moved.reach.frontier_ms
    (True, 5)
    """

    def begin(self, time_ms: int) -> Reach:
        return Reach(time_ms)

    def follow(self, event_time_ms: Ints, counts: Bools, reach: Reach) -> Followed:
        times_ms = np.where(counts, event_time_ms, NEVER_MS)
        running = np.maximum.accumulate(np.concatenate(([reach.frontier_ms], times_ms)))
        return Followed(running[:-1], np.zeros(len(counts), np.bool_), Reach(int(running[-1])))


@dataclass(frozen=True, slots=True)
class RankedTime:
    """The frontier is the k-th largest event time; there is none before k events.

    An event more than `max_step_ms` beyond it is *ahead*: it moves nothing, until `AHEAD_EVENTS`
    came in a row that span a sixth of `max_step_ms`, or `FEW_EVENTS` that span half of it; then the
    frontier is the smallest of them. Where a row ended otherwise within the last `max_ahead_ms`
    a clock is wrong, and `AHEAD_EVENTS` must span a whole step. An event more than `max_ahead_ms`
    beyond the frontier is not to be believed, unless it stands at `begin_ms`, where history ends:
    that may be long before the first event.

    >>> rule = RankedTime(rank=2, max_step_ms=100, max_ahead_ms=1_000)
    >>> times = np.array([5, 9, 8, 109, 300, 2_000])
    >>> moved = rule.follow(times, np.ones(6, bool), Reach())
    >>> moved.reach.frontier_ms, moved.reach.ahead.events, moved.too_far.tolist()[-1]
    (8, 3, True)
    """

    rank: int
    max_step_ms: int
    max_ahead_ms: int
    begin_ms: int = NEVER_MS

    def begin(self, time_ms: int) -> Reach:
        return Reach(time_ms, (time_ms,) * self.rank)

    def follow(self, event_time_ms: Ints, counts: Bools, reach: Reach) -> Followed:
        # Where nobody is ahead, which is nearly always, whole columns are judged at once.
        followed = None
        if not reach.ahead.events:
            followed = self._if_none_is_ahead(event_time_ms, counts, reach)
        before_ms, after = followed or self._one_by_one(event_time_ms, counts, reach)
        settled = (before_ms != NEVER_MS) & (before_ms != self.begin_ms)
        too_far = settled & (event_time_ms > before_ms + self.max_ahead_ms)
        return Followed(before_ms, too_far, after)

    def _if_none_is_ahead(
        self, event_time_ms: Ints, counts: Bools, reach: Reach
    ) -> tuple[Ints, Reach] | None:
        """The frontier before each event and the reach after all; None where one is ahead."""
        top_ms = [*reach.top_ms, *[NEVER_MS] * (self.rank - len(reach.top_ms))]
        displaced = np.where(counts, event_time_ms, NEVER_MS)
        after = []
        for largest_ms in top_ms:
            # What is not larger than the largest so far goes on to the next rank, as does what it
            # displaces.
            running = np.maximum.accumulate(np.concatenate(([largest_ms], displaced)))
            displaced = np.minimum(displaced, running[:-1])
            after.append(int(running[-1]))
        before_ms = running[:-1]
        begun = counts & (before_ms != NEVER_MS)
        if (begun & (event_time_ms > before_ms + self.max_step_ms)).any():
            return None
        known = tuple(time_ms for time_ms in after if time_ms != NEVER_MS)
        return before_ms, replace(reach, frontier_ms=after[-1], top_ms=known)

    def _one_by_one(self, event_time_ms: Ints, counts: Bools, reach: Reach) -> tuple[Ints, Reach]:
        """The same, whoever is ahead."""
        before_ms = np.empty(len(event_time_ms), np.int64)
        frontier_ms, ahead, doubted_ms = reach.frontier_ms, reach.ahead, reach.doubted_ms
        rising = sorted(reach.top_ms)
        events = zip(event_time_ms.tolist(), counts.tolist(), strict=True)
        for n, (time_ms, count) in enumerate(events):
            before_ms[n] = frontier_ms
            if not count:
                continue
            if frontier_ms != NEVER_MS and time_ms > frontier_ms + self.max_step_ms:
                ahead = ahead.with_event(time_ms)
                if not self._has_woken(ahead, doubted=frontier_ms - doubted_ms < self.max_ahead_ms):
                    continue
                rising = [ahead.first_ms] * self.rank
            else:
                rising = sorted([*rising, time_ms])[-self.rank :]
                doubted_ms = frontier_ms if ahead.events else doubted_ms
            ahead = NO_ROW
            if len(rising) == self.rank:
                frontier_ms = rising[0]
        return before_ms, Reach(frontier_ms, tuple(reversed(rising)), ahead, doubted_ms)

    def _has_woken(self, ahead: AheadRow, *, doubted: bool) -> bool:
        """Whether a row is so long that the shop slept and nobody's clock is wrong."""
        span_ms = ahead.last_ms - ahead.first_ms
        if doubted:
            return ahead.events >= AHEAD_EVENTS and span_ms >= self.max_step_ms
        if ahead.events >= AHEAD_EVENTS:
            return span_ms >= self.max_step_ms // _ROWS_A_STEP
        return ahead.events >= FEW_EVENTS and span_ms >= self.max_step_ms // _FEW_A_STEP


def rule_of(windows: WindowSettings, timestamp_type: str) -> FrontierRule:
    """The rule of a topic; one whose timestamps nobody knows is taken for one that Kafka stamps."""
    if timestamp_type != "CreateTime" or windows.frontier_rank == 1:
        return LargestTime()
    begin_ms = NEVER_MS if windows.history_before is None else windows.history_before
    return RankedTime(windows.frontier_rank, windows.max_step_ms, windows.max_ahead_ms, begin_ms)
