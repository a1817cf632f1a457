"""How right the forecasts were: scores summed by bucket, for all and by segment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from freshet.stream.errors import EventError
from freshet.stream.schemas import Score
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS

MAX_BUCKETS = 24 * 21
MAX_GROUPS = 64
MAX_SCORED_ITEMS = 20_000
SILENT_BUCKETS = 48


@dataclass(slots=True)
class ErrorSums:
    """ErrorSums over scored steps. `paired_*` are those that seasonal naive could forecast too."""

    pinball: float = 0.0
    actual: float = 0.0
    paired_pinball: float = 0.0
    paired_naive: float = 0.0
    paired_actual: float = 0.0
    covered: int = 0
    steps: int = 0

    def add(self, other: ErrorSums, sign: int = 1) -> None:
        """Add (or with -1 take away) another's sums."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + sign * getattr(other, part.name))

    def wql(self) -> float | None:
        """Weighted quantile loss of the model; None where nothing was sold.

        Over the paired steps where there are any, so that it can be held against seasonal naive.
        """
        if self.paired_actual > 0:
            return self.paired_pinball / self.paired_actual
        return self.pinball / self.actual if self.actual > 0 else None

    def naive_wql(self) -> float | None:
        """The same of seasonal naive."""
        return self.paired_naive / self.paired_actual if self.paired_actual > 0 else None

    def coverage(self) -> float | None:
        """Share of scored steps within the 80 % interval."""
        return self.covered / self.steps if self.steps else None


Buckets = dict[int, ErrorSums]


class Accuracy:
    """Sums by bucket start: the newest `MAX_BUCKETS`; `MAX_GROUPS` segments.

    Starts are those of real buckets and not ahead of the clock (whoever decodes sees to that), so
    no flood can push the newest ones out. Of items beyond `MAX_SCORED_ITEMS`, a new one takes the
    place of one that was silent for `SILENT_BUCKETS`.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.resolution_ms = grid.resolution_ms
        self.overall: Buckets = {}
        self.by_segment: dict[str, Buckets] = {}
        self.matured = 0
        self._rows: dict[str, int] = {}
        self._scored: dict[int, bytearray] = {}

    def apply(self, score: Score) -> bool:
        """Count a score once; False for one that changes nothing.

        That is a repeat, another resolution, or a bucket older than those kept.

        Raises:
            EventError: It is about no bucket of ours.
        """
        if score.resolution_ms != self.resolution_ms:
            return False
        if self.grid.start_ms(self.grid.bucket(score.bucket_start_ms)) != score.bucket_start_ms:
            raise EventError(f"no bucket of {self.resolution_ms} ms starts at the score's start")
        if not self._first(score):
            return False
        self.matured += len(score.steps)
        sums = ErrorSums()
        for step in score.steps:
            sums.pinball += step.pinball
            sums.actual += score.actual
            sums.covered += step.covered_80
            sums.steps += 1
            if step.seasonal_naive_pinball is not None:
                sums.paired_pinball += step.pinball
                sums.paired_naive += step.seasonal_naive_pinball
                sums.paired_actual += score.actual
        for buckets in (self.overall, _group(self.by_segment, score.segment)):
            buckets.setdefault(score.bucket_start_ms, ErrorSums()).add(sums)
        self._forget()
        return True

    def ends_ms(self, start_ms: int) -> int:
        """When the bucket that starts then ends."""
        return self.grid.end_ms(self.grid.bucket(start_ms))

    def rolling(self, buckets: Buckets) -> list[tuple[int, ErrorSums]]:
        """The error over the day that ends with each bucket; of days each by itself."""
        return rolling(buckets, DAY_MS if self.resolution_ms < DAY_MS else 1)

    def _first(self, score: Score) -> bool:
        """Whether this item's bucket was not scored before; from now on it was."""
        if len(self._scored) >= MAX_BUCKETS and score.bucket_start_ms < min(self._scored):
            return False
        row = self._row_of(score.item_id)
        if row is None:
            return False
        # One byte an item and bucket, by the item's row, is far less than a set of pairs takes.
        flags = self._scored.setdefault(score.bucket_start_ms, bytearray())
        if len(flags) <= row:
            flags.extend(bytes(row + 1 - len(flags)))
        first = not flags[row]
        flags[row] = 1
        return first

    def _row_of(self, item_id: str) -> int | None:
        """An item's row, from now on that of who was heard of last; None without room."""
        row = self._rows.pop(item_id, None)
        if row is None:
            row = self._free_row()
        if row is not None:
            self._rows[item_id] = row
        return row

    def _free_row(self) -> int | None:
        if len(self._rows) < MAX_SCORED_ITEMS:
            return len(self._rows)
        longest_silent, row = next(iter(self._rows.items()))
        newest_ms = max(self._scored)
        silent_from_ms = newest_ms - SILENT_BUCKETS * self.resolution_ms
        recent = [flags for start, flags in self._scored.items() if start > silent_from_ms]
        if any(row < len(flags) and flags[row] for flags in recent):
            return None
        del self._rows[longest_silent]
        for flags in self._scored.values():
            if row < len(flags):
                flags[row] = 0
        return row

    def _forget(self) -> None:
        while len(self._scored) > MAX_BUCKETS:
            oldest = min(self._scored)
            del self._scored[oldest]
            for buckets in (self.overall, *self.by_segment.values()):
                buckets.pop(oldest, None)


def _group(groups: dict[str, Buckets], name: str) -> Buckets:
    """The buckets of a group; a new one takes the place of the one that was scored longest ago."""
    if name not in groups and len(groups) >= MAX_GROUPS:
        groups.pop(min(groups, key=lambda known: max(groups[known], default=0)))
    return groups.setdefault(name, {})


def total(buckets: Buckets, from_ms: int, to_ms: int) -> ErrorSums:
    """ErrorSums over the buckets that start in [from_ms, to_ms)."""
    return _summed(sums for start, sums in buckets.items() if from_ms <= start < to_ms)


def last_day(buckets: Buckets) -> ErrorSums:
    """ErrorSums over the newest day that has scores."""
    newest = max(buckets, default=0)
    return total(buckets, newest - DAY_MS + 1, newest + 1)


def rolling(buckets: Buckets, width_ms: int = DAY_MS) -> list[tuple[int, ErrorSums]]:
    """For each bucket start, in order, the sums over the `width_ms` that end with that bucket.

    A whole day at each point takes the daily season out of the curve.
    """
    starts = sorted(buckets)
    points = []
    running, oldest = ErrorSums(), 0
    for start in starts:
        running.add(buckets[start])
        while starts[oldest] <= start - width_ms:
            running.add(buckets[starts[oldest]], -1)
            oldest += 1
        points.append((start, _summed([running])))
    return points


def _summed(parts: Iterable[ErrorSums]) -> ErrorSums:
    result = ErrorSums()
    for part in parts:
        result.add(part)
    return result
