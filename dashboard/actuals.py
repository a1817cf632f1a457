"""What was sold, read from Redis in a thread and handed to the page as immutable snapshots.

Dimensions: I items, B buckets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from freshet.stream.arrays import Ints, Singles
from freshet.stream.config import UTC, Settings
from freshet.stream.read.few import FewCells, FewItems
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowCells, WindowReader
from freshet.stream.schemas import CHANNELS, UNIT_SCALES
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import BESIDE, OUTCOMES
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import HOUR_MS

KEPT_BUCKETS = 192
FEW_BUCKETS = 480
"""Of buckets shorter than an hour: eight hours of minutes, longer than most flash sales."""
Wanted = Mapping[int, frozenset[str]]
"""Which items are looked at, by resolution."""
# Stopping waits for a look that is under way, so a stalled Redis may hold one for this long only.
MAX_TIMEOUT_MS = 1_500
SHOWN_CHANNELS = ("units", "revenue", "views", "carts")
EMPTY: Singles = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Books:
    """Ingest's own counts over all partitions.

    `read` is the sum of the outcomes; beside them are dead lines of applied orders, and duplicates
    that say otherwise than what was applied.
    """

    read: int = 0
    applied: int = 0
    duplicate: int = 0
    late_dropped: int = 0
    dead_letter: int = 0
    skipped: int = 0
    lines_dead: int = 0
    conflicting: int = 0


@dataclass(frozen=True, slots=True)
class Actuals:
    """One consistent look at the windows; NaN where nothing was observed.

    Attributes:
        start_ms: Start of the first bucket; the last one ends at `end_ms`, the live cutoff.
        values: For each of `SHOWN_CHANNELS` float32[I, B], in units and currency.
    """

    resolution_ms: int
    start_ms: int = 0
    num_buckets: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, Singles] = field(
        default_factory=lambda: dict.fromkeys(SHOWN_CHANNELS, EMPTY)
    )
    books: Books = Books()
    time_zone: str = UTC

    @classmethod
    def of(cls, cells: FewCells) -> Actuals:
        """The units of a few items up to the last bucket that is observed."""
        known = np.flatnonzero(cells.observed_B)
        num_buckets = int(known[-1]) + 1 if len(known) else 0
        units_IB = np.zeros((len(cells.units), num_buckets), np.float32)
        for row, units_B in enumerate(cells.units.values()):
            units_IB[row] = units_B[:num_buckets] / UNIT_SCALES["units"]
        units_IB[:, ~cells.observed_B[:num_buckets]] = np.nan
        return cls(
            resolution_ms=cells.grid.resolution_ms,
            start_ms=cells.grid.start_ms(cells.first),
            num_buckets=num_buckets,
            rows={item_id: row for row, item_id in enumerate(cells.units)},
            values={"units": units_IB},
            time_zone=cells.grid.time_zone,
        )

    @property
    def grid(self) -> Grid:
        """Its buckets."""
        return Grid(self.resolution_ms, self.time_zone)

    @property
    def end_ms(self) -> int:
        """End of the last bucket."""
        return self.grid.start_ms(self.grid.bucket(self.start_ms) + self.num_buckets)

    def edges_ms(self, from_ms: int) -> Ints:
        """When the bucket that holds `from_ms` and those after it begin, and the last one ends."""
        first = self.grid.bucket(self.start_ms)
        skip = self._buckets_before(from_ms)
        return self.grid.starts_ms(range(first + skip, first + self.num_buckets + 1))

    def _buckets_before(self, at_ms: int) -> int:
        buckets = self.grid.bucket(at_ms) - self.grid.bucket(self.start_ms)
        return min(max(0, buckets), self.num_buckets)

    def series(self, item_id: str, channel: str, from_ms: int) -> tuple[int, Singles]:
        """An item's buckets from the one that holds `from_ms` on: its start, and their values."""
        row = self.rows.get(item_id)
        skip = self._buckets_before(from_ms)
        start_ms = self.grid.start_ms(self.grid.bucket(self.start_ms) + skip)
        if row is None:
            return start_ms, np.full(self.num_buckets - skip, np.nan, np.float32)
        return start_ms, self.values[channel][row, skip:]

    def total(self, channel: str, from_ms: int) -> Singles:
        """Each item's sum from the bucket that holds `from_ms` on; NaN where none was observed."""
        part_IB = self.values[channel][:, self._buckets_before(from_ms) :]
        sums: Singles = np.nansum(part_IB, axis=1)
        sums[np.isnan(part_IB).all(axis=1)] = np.nan
        return sums


class SnapshotSource(Protocol):
    """Where snapshots come from; all calls block, for a thread."""

    def read(self) -> Actuals | None:
        """A new snapshot, or None when nothing changed."""

    def clock(self) -> tuple[int, float]:
        """The shop's time in epoch ms and its speed."""

    def few(self, wanted: Wanted) -> dict[int, FewCells]:
        """The units of those items at those resolutions."""


class RedisSource:
    """Snapshots of the windows at the main resolution, and of a few items at others."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._resolution_ms = settings.main.resolution_ms
        rules = ReadRules.of(settings, self._resolution_ms)
        timeout_ms = min(settings.redis.timeout_ms, MAX_TIMEOUT_MS)
        client = connect(settings.redis.model_copy(update={"timeout_ms": timeout_ms}))
        self._clock = open_clock(client)
        self._client = client
        self._store = WindowStore(client, settings.redis.generation)
        self._reader = WindowReader(
            client, settings.redis.generation, self._resolution_ms, KEPT_BUCKETS, rules=rules
        )
        self._few: dict[int, FewItems] = {}
        self._books = Books()
        self._end_ms: int | None = None

    def clock(self) -> tuple[int, float]:
        """The shop's time in epoch ms and its speed."""
        return self._clock.now_ms(), self._clock.speed

    def read(self) -> Actuals | None:
        """A new snapshot, or None when neither the windows nor their books moved."""
        delta = self._reader.refresh()
        books = self._read_books()
        end_ms = self._reader.live_cutoff_ms()
        if not delta.moved and books == self._books and end_ms == self._end_ms:
            return None
        self._books, self._end_ms = books, end_ms
        if end_ms is None:
            return Actuals(self._resolution_ms, books=books)
        view = self._reader.window(end_ms, KEPT_BUCKETS)
        rows = {item_id: row for row, item_id in enumerate(self._reader.item_ids)}
        return snapshot(view, rows, self._reader.rules.grid, books)

    def few(self, wanted: Wanted) -> dict[int, FewCells]:
        """The units of those items; what nobody looks at any more is not held."""
        for resolution_ms in self._few.keys() - wanted.keys():
            del self._few[resolution_ms]
        for resolution_ms in wanted.keys() - self._few.keys():
            self._few[resolution_ms] = self._begin_few(resolution_ms)
        return {width_ms: self._few[width_ms].read(items) for width_ms, items in wanted.items()}

    def _begin_few(self, resolution_ms: int) -> FewItems:
        rules = ReadRules.of(self._settings, resolution_ms)
        most = FEW_BUCKETS if resolution_ms < HOUR_MS else KEPT_BUCKETS
        num_buckets = min(most, rules.retained_buckets)
        return FewItems(self._client, self._reader.generation, rules, num_buckets)

    def _read_books(self) -> Books:
        if self._store.generation != self._reader.generation:
            self._store = WindowStore(self._client, self._reader.generation)
        headers = [
            self._store.header(topic, partition) for topic, partition in self._store.partitions()
        ]
        names = ("read", *OUTCOMES, *BESIDE)
        return Books(
            **{name: sum(getattr(header, name) for header in headers if header) for name in names}
        )


def snapshot(view: WindowCells, rows: Mapping[str, int], grid: Grid, books: Books) -> Actuals:
    """Integers of the tiles to units and currency; unobserved cells to NaN."""
    values = {}
    for channel in SHOWN_CHANNELS:
        index = CHANNELS.index(channel)
        cells_IB = (view.values_ICB[:, index] / UNIT_SCALES.get(channel, 1)).astype(np.float32)
        cells_IB[~view.observed_ICB[:, index]] = np.nan
        values[channel] = cells_IB
    num_buckets = int(view.values_ICB.shape[2])
    return Actuals(
        grid.resolution_ms,
        int(view.start_ms),
        num_buckets,
        rows,
        values,
        books,
        time_zone=grid.time_zone,
    )


class Rate:
    """Events per second of wall time, over about the last `window_s` seconds.

    >>> rate = Rate(window_s=10.0)
    >>> [rate.note(at_s, count) for at_s, count in ((0.0, 0), (1.0, 100), (2.0, 300))]
    [0.0, 100.0, 150.0]
    """

    def __init__(self, window_s: float = 10.0) -> None:
        self._window_s = window_s
        self._points: list[tuple[float, int]] = []

    def note(self, at_s: float, count: int) -> float:
        """Record a running count and return the rate."""
        self._points.append((at_s, count))
        while len(self._points) > 2 and self._points[0][0] < at_s - self._window_s:
            self._points.pop(0)
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        return max(0.0, (last - first) / (last_s - first_s)) if last_s > first_s else 0.0
