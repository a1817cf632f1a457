"""A reader over a dictionary of cells, for tests of what forecasts are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from freshet.online.forecast.context import Contexts
from freshet.stream.arrays import Bools, Ints
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.read.progress import InputState, ReadRules
from freshet.stream.read.reader import Delta, WindowCells
from freshet.stream.read.ring import Span
from freshet.stream.schemas import CHANNELS
from freshet.stream.units import HOUR_MS

FIRST = 480_000  # the bucket of the first event
UNITS, VIEWS = CHANNELS.index("units"), CHANNELS.index("views")


@dataclass
class FakeReader:
    """A reader over a dictionary of cells; orders are observed from `first` up to `reached`, clicks
    up to `clicked`.
    """

    num_buckets: int = 40
    resolution_ms: int = HOUR_MS
    item_ids: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    cells: dict[tuple[int, int, int], int] = field(default_factory=dict)
    changed: set[tuple[int, int]] = field(default_factory=set)
    reached: int = FIRST
    clicked: int = FIRST
    head: int = FIRST
    first: int = FIRST

    @property
    def rules(self) -> ReadRules:
        return ReadRules(
            self.resolution_ms, self.num_buckets, orders_topic="orders", clicks_topic="clicks"
        )

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def capacity(self) -> int:
        return len(self.item_ids) + 3

    @property
    def span(self) -> Span:
        return Span(self.num_buckets, self.head)

    @property
    def inputs(self) -> dict[tuple[str, int], InputState]:
        return {
            ("orders", 0): InputState(1, 0, self._ms(self.head) + 5, None, self._ms(self.first))
        }

    def row(self, item_id: str) -> int | None:
        return self.rows.get(item_id)

    def add(self, item_id: str, bucket: int, channel: int, value: int) -> None:
        if item_id not in self.rows:
            self.rows[item_id] = len(self.item_ids)
            self.item_ids.append(item_id)
        row = self.rows[item_id]
        self.cells[row, channel, bucket] = self.cells.get((row, channel, bucket), 0) + value
        self.changed.add((row, bucket))
        self.head = max(self.head, bucket)

    def refresh(self) -> Delta:
        rows = np.array(sorted({row for row, _ in self.changed}), np.int64)
        buckets = np.array(sorted({bucket for _, bucket in self.changed}), np.int64)
        self.changed.clear()
        return Delta(rows, self._ms(buckets), [], True, ())

    def sums(self, end_ms: int, num_buckets: int, rows: Ints | None = None) -> Ints:
        rows = np.arange(self.num_items) if rows is None else rows
        first = end_ms // self.resolution_ms - num_buckets
        values = np.zeros((len(rows), len(CHANNELS), num_buckets), np.int64)
        place_of = {int(row): place for place, row in enumerate(rows)}
        oldest = max(first, self.head - self.num_buckets + 1)
        for (row, channel, bucket), value in self.cells.items():
            if row in place_of and oldest <= bucket < first + num_buckets:
                values[place_of[row], channel, bucket - first] = value
        return values

    def window(self, end_ms: int, num_buckets: int, rows: Ints | None = None) -> WindowCells:
        values = self.sums(end_ms, num_buckets, rows)
        observed = np.broadcast_to(self.observed(end_ms, num_buckets), values.shape)
        return WindowCells(values, observed, end_ms - num_buckets * self.resolution_ms)

    def observed(self, end_ms: int, num_buckets: int) -> Bools:
        end = end_ms // self.resolution_ms
        buckets = np.arange(end - num_buckets, end)
        observed = np.zeros((len(CHANNELS), num_buckets), bool)
        held = (buckets >= self.first) & (buckets > self.head - self.num_buckets)
        observed[:VIEWS] = held & (buckets < self.reached)
        observed[VIEWS:] = held & (buckets < self.clicked)
        return observed

    def _ms(self, bucket: Any) -> Any:
        return bucket * self.resolution_ms


def contexts_of(
    reader: FakeReader, shop: ShopTables | None = None, context_length: int = 8
) -> Contexts:
    made = Contexts(
        reader, shop or ShopTables(), context_length=context_length, prediction_length=4
    )  # type: ignore[arg-type]
    made.refresh()
    return made


def tell(shop: ShopTables, kind: str, record: msgspec.Struct, at_ms: int = 0) -> None:
    assert shop.apply(kind, b"k%d" % shop.version, msgspec.json.encode(record), at_ms)  # type: ignore[arg-type]
