"""When a read of Redis is worth it: once a bucket may have ended, and now and then. Pure.

Notices come with every batch that ingest writes, hundreds a second, and buckets end once a minute.
A notice says how far its partition is, so it takes no read to see that nothing can have ended. One
`Pace` for each resolution, in the worker's loop:

    notices = newest(membership.poll(pace.wait_ms(now_s)))
    pace.take(notices)
    if pace.due(now_s):
        delta = contexts.refresh()
        pace.read(reader.inputs, started_s=now_s, ended_s=time.monotonic())

Notices are hints. One that is lost, and whatever else no notice tells (another generation, a Redis
that came back older), is found by the look that comes every `LOOK_S`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from freshet.stream.codec import decode
from freshet.stream.errors import EventError
from freshet.stream.read.progress import Input, InputState, ReadRules
from freshet.stream.schemas import WindowsAdvanced

LOOK_S = 1.0  # Redis is read this often whatever notices say
GAP_S = 0.1  # between two reads: simulated minutes end sixty times a second
MAX_SHARE = 0.05  # of the time goes into reading, as long as that keeps a read every LOOK_S
WAIT_S = 0.05  # for notices at a time: how much later the end of a bucket may be seen
MAY_BE_ANYWHERE = 2**62


class Pace:
    """Says when the windows of one resolution are due to be read.

    Args:
        rules: The resolution, its grid and what makes a bucket final.
    """

    def __init__(self, rules: ReadRules) -> None:
        self._rules = rules
        self._reached_ms: dict[Input, int] = {}
        self._offsets: dict[Input, int] = {}
        self._cutoff_due_ms: int | None = None
        self._final_due_ms: int | None = None
        self._look_at_s = -math.inf
        self._free_at_s = -math.inf

    def take(self, notices: Mapping[Input, WindowsAdvanced]) -> None:
        """Take note of how far partitions are."""
        for at, notice in notices.items():
            known = self._offsets.get(at, -1)
            if notice.offset > known:
                self._reached_ms[at] = max(notice.frontier_ms, self._reached_ms.get(at, 0))
                self._offsets[at] = notice.offset
            elif notice.offset == known:
                # Nothing new and said again: it is idle, past any time up to the clock's.
                self._reached_ms[at] = MAY_BE_ANYWHERE

    def read(self, inputs: Mapping[Input, InputState], *, started_s: float, ended_s: float) -> None:
        """Take note of what a read found, and of how long it took on the monotonic clock."""
        states = {at: state for at, state in inputs.items() if state.frontier_ms is not None}
        self._offsets = {at: state.offset for at, state in states.items()}
        self._reached_ms = {at: _live_ms(state) for at, state in states.items()}
        self._cutoff_due_ms = self._next_end_ms([self._rules.orders_topic])
        self._final_due_ms = self._next_end_ms(self._rules.topics, self._slack_ms)
        self._look_at_s = started_s + LOOK_S
        costs_s = (ended_s - started_s) / MAX_SHARE
        self._free_at_s = started_s + min(max(costs_s, GAP_S), LOOK_S)

    def due(self, now_s: float) -> bool:
        """Whether to read now."""
        if now_s < self._free_at_s:
            return False
        return now_s >= self._look_at_s or self._has_ended()

    def wait_ms(self, now_s: float) -> int:
        """How long to wait for notices before `due` is asked again."""
        until_s = self._free_at_s if self._has_ended() else self._look_at_s
        return math.ceil(1_000 * min(max(until_s - now_s, 0.0), WAIT_S))

    def _has_ended(self) -> bool:
        """Whether a cutoff or the finality of a bucket has been passed since the last read."""
        cutoff_ms = self._least_ms([self._rules.orders_topic])
        final_ms = self._least_ms(self._rules.topics)
        return _passed(cutoff_ms, self._cutoff_due_ms) or _passed(final_ms, self._final_due_ms)

    @property
    def _slack_ms(self) -> int:
        return self._rules.out_of_order_ms + self._rules.allowed_lateness_ms

    def _next_end_ms(self, topics: Iterable[str], slack_ms: int = 0) -> int | None:
        """What all partitions of these topics must reach for the next bucket to end."""
        least_ms = self._least_ms(topics)
        if least_ms is None:
            return None
        grid = self._rules.grid
        return grid.end_ms(grid.bucket(least_ms - slack_ms)) + slack_ms

    def _least_ms(self, topics: Iterable[str]) -> int | None:
        reached_ms = [at_ms for (topic, _), at_ms in self._reached_ms.items() if topic in topics]
        return min(reached_ms, default=None)


def newest(values: Iterable[bytes | None]) -> dict[Input, WindowsAdvanced]:
    """The newest notice of each partition; what cannot be read is no notice.

    >>> value = b'{"topic": "o", "partition": 2, "epoch": 1, "offset": 7, "frontier_ms": 60000}'
    >>> newest([value, b"?"])["o", 2].frontier_ms
    60000
    """
    found: dict[Input, WindowsAdvanced] = {}
    for value in values:
        try:
            notice = decode(WindowsAdvanced, value or b"")
        except EventError:
            continue
        found[notice.topic, notice.partition] = notice
    return found


def _live_ms(state: InputState) -> int:
    assert state.frontier_ms is not None
    return max(state.frontier_ms, state.idle_frontier_ms or state.frontier_ms)


def _passed(reached_ms: int | None, due_ms: int | None) -> bool:
    if reached_ms is None or reached_ms >= MAY_BE_ANYWHERE:
        # Where all are idle nothing but the clock ends a bucket, and the next look sees it.
        return False
    return due_ms is not None and reached_ms >= due_ms
