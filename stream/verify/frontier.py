"""How far a log has come, event by event, from the rules as they are promised. Pure.

Where Kafka stamps records, the frontier is the largest event time that counted. Where producers do,
it is the k-th largest (`windows.frontier_rank`), and events beyond it by more than
`windows.max_step_ms` are held back until enough came in a row: see docs/guarantees.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from freshet.stream.config import WindowSettings

ROW, SHORT_ROW = 20, 5


@dataclass(slots=True)
class Frontier:
    """What was counted so far; `time_ms` is None before there is a frontier."""

    windows: WindowSettings
    by_producers: bool = False
    time_ms: int | None = None
    largest: list[int] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    doubted_ms: int | None = None

    def too_far(self, event_time_ms: int) -> bool:
        """Whether an event is not to be believed, as of what was counted before it."""
        if not self.by_producers or self.time_ms in (None, self.windows.history_before):
            return False
        assert self.time_ms is not None
        return event_time_ms > self.time_ms + self.windows.max_ahead_ms

    def count(self, event_time_ms: int) -> None:
        """The next event that counts."""
        if not self.by_producers:
            self.time_ms = max(event_time_ms, self.time_ms or 0)
        elif self.time_ms is None or event_time_ms - self.time_ms <= self.windows.max_step_ms:
            self._end_row()
            self.largest.append(event_time_ms)
            self._rank()
        else:
            self.row.append(event_time_ms)
            if self._has_woken():
                self.largest = [min(self.row)] * self.windows.frontier_rank
                self.row = []
                self._rank()

    def begin(self, time_ms: int) -> None:
        """As if all before a time had come."""
        self.time_ms = time_ms
        if self.by_producers:
            self.largest = [time_ms] * self.windows.frontier_rank

    def _rank(self) -> None:
        """Keep the largest times; the least of them is the frontier, once there are enough."""
        self.largest = sorted(self.largest, reverse=True)[: self.windows.frontier_rank]
        if len(self.largest) == self.windows.frontier_rank:
            self.time_ms = self.largest[-1]

    def _end_row(self) -> None:
        if self.row:
            self.doubted_ms = self.time_ms
            self.row = []

    def _has_woken(self) -> bool:
        events, span_ms = len(self.row), max(self.row) - min(self.row)
        hour_ms = self.windows.max_step_ms
        if self._is_doubted():
            return events >= ROW and span_ms >= hour_ms
        many = events >= ROW and span_ms >= hour_ms // 6
        return many or (events >= SHORT_ROW and span_ms >= hour_ms // 2)

    def _is_doubted(self) -> bool:
        assert self.time_ms is not None
        if self.doubted_ms is None:
            return False
        return self.time_ms - self.doubted_ms < self.windows.max_ahead_ms
