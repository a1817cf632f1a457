"""Two networks on the same windows, stretch by stretch, and on days before that: paired losses.

The scores of served forecasts cannot compare versions: they tell how one did before and another
after, which are different days.

Dimensions: I items, T buckets in time order, K days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from freshet.model.network import FreshetNetwork
from freshet.online.judge.rows import Before
from freshet.online.trials.evaluation import Comparison, Served, compare, everybody
from freshet.online.trials.pools import MIN_CONTEXT_BUCKETS, History
from freshet.online.trials.windows import first_whole
from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS

# Days before say how much days differ; fewer items than are judged say it as well, only louder.
MAX_DAYS_BEFORE = 7
MAX_WINDOWS_BEFORE = 1_024


@dataclass(frozen=True, slots=True)
class SoFar:
    """What both networks did on all stretches.

    Attributes:
        segments: The segment of each item.
        first_IT, second_IT: Losses; NaN without a label.
        first_covered_IT, second_covered_IT: Share of forecasts whose 80 % interval held the label.
        finite: All forecasts of the second are.
        unseen: Share of the items that are served so that are not among these.
    """

    segments: list[str]
    first_IT: Floats
    second_IT: Floats
    first_covered_IT: Floats
    second_covered_IT: Floats
    finite: bool
    unseen: float


@dataclass(slots=True)
class Shadow:
    """Runs both networks wherever it is asked to, on the same items.

    Args:
        history: The past.
        item_ids: The items; the same wherever their rows are after a restart.
        first, second: The networks.
        stopped: Called before each stretch; raises when the process is to end.
        served: The segments that the items are of.
    """

    history: History
    item_ids: Iterable[str]
    first: FreshetNetwork
    second: FreshetNetwork
    stopped: Callable[[], None] = lambda: None
    served: Served = everybody
    _rows: Ints | None = field(default=None, init=False)
    _parts: list[Comparison] = field(default_factory=list, init=False)
    _before: Before | None = field(default=None, init=False)

    def final_until(self, end_ms: int) -> bool:
        """Whether all buckets before a time are final."""
        return (self.history.final_ms() or 0) >= end_ms

    def extend(self, start_ms: int, end_ms: int, *, maximum: int) -> None:
        """Run both on another stretch, on so many windows.

        Raises:
            InvalidInputError: There is no window.
        """
        self.stopped()
        rows = self._known_rows()
        self._parts.append(self._compared(start_ms, end_ms, rows, maximum))

    def so_far(self) -> SoFar:
        """All stretches in a row."""
        parts, segments = self._parts, self.history.segments()

        def joined(name: str) -> Floats:
            return np.hstack([getattr(part, name) for part in parts])

        return SoFar(
            segments=[segments[row] for row in parts[0].rows_I],
            first_IT=joined("first_IT"),
            second_IT=joined("second_IT"),
            first_covered_IT=joined("first_covered_IT"),
            second_covered_IT=joined("second_covered_IT"),
            finite=all(part.finite for part in parts),
            unseen=1.0 - len(parts[0].rows_I) / max(sum(map(self.served, segments)), 1),
        )

    def before(self, end_ms: int, onset_ms: int | None = None) -> Before | None:
        """Both on whole days before a time, computed once; not on the day of an onset."""
        if self._before is None:
            days = days_before(self.history, end_ms, onset_ms)
            self._before = self._on_days(days, onset_ms) if days else None
        return self._before

    def _on_days(self, days: list[tuple[int, int]], onset_ms: int | None) -> Before:
        rows = self._known_rows()
        # Spread over the items; what the others lose is not known, and counts for nothing.
        every = -(-len(rows) * len(days) // MAX_WINDOWS_BEFORE)
        few = np.arange(0, len(rows), every)
        losses = np.full((2, len(rows), len(days)), np.nan)
        for place, (start_ms, end_ms) in enumerate(days):
            self.stopped()
            both = self._compared(start_ms, end_ms, rows[few], len(few))
            losses[:, few, place] = np.nansum([both.first_IT, both.second_IT], axis=2)
        since = [onset_ms is not None and start_ms >= onset_ms for start_ms, _ in days]
        return Before(losses[0], losses[1], np.array(since, np.int64))

    def _known_rows(self) -> Ints:
        if self._rows is None:
            self._rows = rows_of(self.history, self.item_ids)
        return self._rows

    def _compared(self, start_ms: int, end_ms: int, rows: Ints, maximum: int) -> Comparison:
        return compare(
            self.history,
            self.first,
            self.second,
            start_ms=start_ms,
            end_ms=end_ms,
            rows=rows,
            maximum=maximum,
        )


def rows_of(history: History, item_ids: Iterable[str]) -> Ints:
    """The rows of items by now; those that are no more are left out.

    Raises:
        InvalidInputError: None of them is there.
    """
    place = {item_id: row for row, item_id in enumerate(history.item_ids)}
    rows = np.array(sorted(place[name] for name in item_ids if name in place), np.int64)
    if not len(rows):
        raise InvalidInputError("there are no held-out windows to compare on")
    return rows


def days_from(grid: Grid, start_ms: int, number: int) -> int:
    """When so many days from a bucket on are over (before it, where negative), in whole buckets.

    A day is as many buckets as make 24 hours, wherever clocks change.

    >>> days_from(Grid(3_600_000), 7_200_000, 1), days_from(Grid(3_600_000), 86_400_000, -1)
    (93600000, 0)
    """
    length = max(1, DAY_MS // grid.resolution_ms)
    return grid.start_ms(grid.bucket(start_ms) + number * length)


def days_before(history: History, end_ms: int, onset_ms: int | None) -> list[tuple[int, int]]:
    """[start, end) of the newest whole days before a time that are held with a context."""
    first_ms = history.first_ms()
    if first_ms is None:
        return []
    grid = history.grid
    oldest_ms = grid.start_ms(first_whole(grid, first_ms) + MIN_CONTEXT_BUCKETS)
    spans = [
        (days_from(grid, end_ms, -number), days_from(grid, end_ms, 1 - number))
        for number in range(MAX_DAYS_BEFORE, 0, -1)
    ]
    return [
        (start_ms, stop_ms)
        for start_ms, stop_ms in spans
        if start_ms >= oldest_ms and not (onset_ms is not None and start_ms < onset_ms < stop_ms)
    ]
