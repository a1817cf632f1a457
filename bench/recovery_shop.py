"""A simulated shop with drift planted in its events, as windows that a worker's parts can read.

Dimensions: I items, C channels, L hours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.read.progress import InputState, ReadRules
from freshet.stream.read.reader import Delta
from freshet.stream.read.ring import Span
from freshet.stream.schemas import CHANNEL_OF_CLICK, CHANNELS, SHOP_TABLES, UNIT_SCALES
from freshet.stream.source.simulator import Scenario, SimulatedShop
from freshet.stream.source.simulator.demand import Demand
from freshet.stream.source.simulator.goods import CATEGORIES
from freshet.stream.source.simulator.plan import PlantedDrift
from freshet.stream.units import DAY_MS, HOUR_MS

START_MS = 1_767_571_200_000  # Monday, 2026-01-05 00:00 UTC
UNITS = CHANNELS.index("units")
HELD = 700  # buckets that a reader holds
KEPT = 4  # categories of a shop that are forecast, those that sell most


@dataclass(frozen=True, slots=True)
class World:
    """What a shop sold, hour by hour, and what it said of itself.

    Attributes:
        cells_ICL: thousandths of units and clicks.
        told: Records of the shop's tables, in the order they came: kind, key, value, time.
        drifted: The category of each planted drift.
    """

    item_ids: list[str]
    cells_ICL: Ints
    told: list[tuple[str, bytes, bytes | None, int]]
    drifted: dict[str, str]

    def shop(self) -> ShopTables:
        """Tables that know all of it; each answer depends on what was known at its time."""
        tables = ShopTables()
        for kind, key, value, at_ms in self.told:
            tables.apply(kind, key, value, at_ms)  # type: ignore[arg-type]
        return tables


def play(seed: int, items: int, *, hours: int, onset: int | None) -> World:
    """The four busiest categories of a shop over so many hours.

    From hour `onset` on the second sells 2.2 times as much, and the third nine hours later in the
    day.
    """
    shop = SimulatedShop(
        seed, items, Scenario("planted"), start_ms=START_MS, backfill_ms=hours * HOUR_MS
    )
    drifted: dict[str, str] = {}
    lines_S = shop.catalogue.lines_per_hour_S
    order = np.argsort(-np.bincount(shop.catalogue.category_S, lines_S))
    names = [CATEGORIES[int(place)].name for place in order]
    if onset is not None:
        drifted = {"level": names[1], "profile": names[2]}
        at_ms = START_MS + onset * HOUR_MS
        drifts = (
            PlantedDrift(at_ms, (names[1],), level=2.2),
            PlantedDrift(at_ms, (names[2],), hours_later=9.0),
        )
        shop.plan = replace(shop.plan, drifts=drifts)
        shop.demand = Demand(shop.catalogue, shop.plan)
    catalogue = shop.catalogue
    kept_I = np.isin(catalogue.category_S, order[:KEPT])[catalogue.sku_I]
    item_ids = [shop.item_ids[item] for item in np.flatnonzero(kept_I)]
    return _folded(shop, item_ids, hours, drifted)


def _folded(shop: SimulatedShop, item_ids: list[str], hours: int, drifted: dict[str, str]) -> World:
    row_of = {item_id: row for row, item_id in enumerate(item_ids)}
    cells_ICL = np.zeros((len(row_of), len(CHANNELS), hours), np.int64)
    told: list[tuple[str, bytes, bytes | None, int]] = []
    played = shop.hours()
    for _ in range(hours):
        records = next(played)
        columns = (records.kinds, records.keys, records.values, records.timestamps_ms)
        for kind, key, value, at_ms in zip(*columns, strict=True):
            if kind in SHOP_TABLES:
                told.append((kind, key, value, at_ms))
            elif value is not None:
                _add(cells_ICL, row_of, kind, msgspec.json.decode(value))
    told.sort(key=lambda one: one[3])
    return World(item_ids, cells_ICL, told, drifted)


def _add(cells_ICL: Ints, row_of: dict[str, int], kind: str, event: dict[str, Any]) -> None:
    hour = (event["event_time"] - START_MS) // HOUR_MS
    if not 0 <= hour < cells_ICL.shape[2]:
        return
    if kind == "clicks":
        channel = CHANNELS.index(CHANNEL_OF_CLICK[event["kind"]])
        row = row_of.get(f"{event['sku']}|{event['region']}")
        if row is not None:
            cells_ICL[row, channel, hour] += 1
        return
    for line in event.get("lines", [event]):
        row = row_of.get(f"{line['sku']}|{line.get('region', event.get('region'))}")
        if line["quantity"] > 0 and row is not None:
            cells_ICL[row, UNITS, hour] += line["quantity"] * UNIT_SCALES["units"]


class WorldReader:
    """What a reader of the windows would hold at an hour that is moved on by hand."""

    resolution_ms = HOUR_MS
    num_buckets = HELD

    def __init__(self, world: World) -> None:
        self._world = world
        self._first = START_MS // HOUR_MS
        self._hour = 0
        self._read = 0
        self.item_ids = world.item_ids
        self._rows = {item_id: row for row, item_id in enumerate(world.item_ids)}

    def pass_to(self, hour: int) -> None:
        """Everything of the hours before it has come."""
        self._hour = hour

    @cached_property
    def rules(self) -> ReadRules:
        return ReadRules(HOUR_MS, HELD)

    @property
    def capacity(self) -> int:
        return len(self.item_ids)

    @property
    def span(self) -> Span:
        return Span(HELD, self._first + max(self._hour - 1, 0))

    @property
    def inputs(self) -> dict[tuple[str, int], InputState]:
        return {("orders", 0): InputState(1, 0, self.cutoff_ms, None, START_MS)}

    @property
    def cutoff_ms(self) -> int:
        return START_MS + self._hour * HOUR_MS

    def row(self, item_id: str) -> int | None:
        return self._rows.get(item_id)

    def refresh(self) -> Delta:
        hours = np.arange(max(self._read, self._hour - HELD), self._hour)
        self._read = self._hour
        rows = np.arange(len(self.item_ids))
        return Delta(rows, START_MS + hours * HOUR_MS, [], True, ())

    def sums(self, end_ms: int, num_buckets: int, rows: Ints) -> Ints:
        end = (end_ms - START_MS) // HOUR_MS
        assert end - num_buckets >= 0 and end <= self._hour, "nothing of the future is read"
        return self._world.cells_ICL[rows][..., end - num_buckets : end]

    def observed(self, end_ms: int, num_buckets: int) -> Bools:
        end = (end_ms - START_MS) // HOUR_MS
        hours = np.arange(end - num_buckets, end)
        held_B = (hours >= max(0, self._hour - HELD)) & (hours < self._hour)
        return np.broadcast_to(held_B, (len(CHANNELS), num_buckets))


__all__ = ["DAY_MS", "START_MS", "World", "WorldReader", "play"]
