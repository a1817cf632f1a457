"""One partition's stored windows, each resolution as it was at one offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from freshet.stream.config import Resolution, Settings
from freshet.stream.errors import StoreError
from freshet.stream.read.follow import Look, PartitionFollower, TileId
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.connection import translated
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Header, Keys
from freshet.stream.store.tiles import CHUNK_ITEMS, decode
from freshet.stream.verify.recount import Cell

MAX_RETRIES = 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One partition's windows of one resolution as they were at one offset."""

    grid: Grid
    header: Header
    item_ids: list[str]
    tiles: dict[TileId, bytes | None]

    @property
    def offset(self) -> int:
        """Everything before it is in."""
        assert self.header.next_offset is not None
        return self.header.next_offset

    def cells(self, oldest_bucket: int | None) -> dict[Cell, int]:
        """Every stored cell that is not 0, from a bucket on; None is from the first."""
        cells: dict[Cell, int] = {}
        for (bucket, chunk), data in self.tiles.items():
            if data is None or (oldest_bucket is not None and bucket < oldest_bucket):
                continue
            values_CN = decode(data)
            for channel, column in np.argwhere(values_CN).tolist():
                item_id = self._item_in(chunk * CHUNK_ITEMS + column)
                cells[bucket, item_id, CHANNELS[channel]] = int(values_CN[channel, column])
        return cells

    def _item_in(self, slot: int) -> str:
        return self.item_ids[slot] if slot < len(self.item_ids) else f"(no item in slot {slot})"


def read_snapshots(client: Any, keys: Keys, settings: Settings) -> list[Snapshot]:
    """Every resolution of a partition, in the order of their offsets."""
    with translated(client):
        snapshots = [
            _snapshot(client, keys, width, settings) for width in settings.windows.resolutions
        ]
    return sorted(snapshots, key=lambda snapshot: snapshot.offset)


def _snapshot(client: Any, keys: Keys, resolution: Resolution, settings: Settings) -> Snapshot:
    grid = Grid(resolution.resolution_ms, settings.calendar.time_zone)
    follower = PartitionFollower(client, keys, grid)
    for _ in range(MAX_RETRIES):
        pipe = client.pipeline(transaction=False)
        follower.ask(pipe)
        look = Look.of(*pipe.execute())
        if look.header is None:
            continue
        wanted = _wanted(look.header, grid, resolution.buckets, settings.windows.out_of_order_ms)
        change = follower.read(look, wanted)
        if change is not None:
            return Snapshot(grid, change.header, change.item_ids, change.tiles)
    raise StoreError(
        f"the windows of {keys.topic}:{keys.partition} would not hold still in {MAX_RETRIES} reads",
        hint="verify again when ingest has caught up with the log",
    )


def _wanted(header: Header, grid: Grid, count: int, out_of_order_ms: int) -> range:
    """Every bucket that may be stored: from the oldest retained, or the first of all, on."""
    newest_ms = header.newest_ms
    if newest_ms is None or header.first_event_ms is None:
        return range(0)
    first = grid.bucket(header.first_event_ms)
    if header.frontier_ms is not None:
        first = max(first, grid.first_retained(header.frontier_ms - out_of_order_ms, count))
    return range(first, grid.bucket(newest_ms) + 1)
