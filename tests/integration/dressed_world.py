"""A shop's log in the order in which it arrives, and the contexts of a worker that follows it.

Records go through the code of ingest into a real Redis, and come out through that of a worker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, cast

import redis
import torch

from freshet.model.batch import Batch
from freshet.online.forecast.context import Contexts
from freshet.online.forecast.provenance import context_sha256
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import MAX_TIME_MS
from freshet.stream.config import Settings
from freshet.stream.ingest.versions import PartitionVersions
from freshet.stream.kafka import Message
from freshet.stream.read.shop import ShopFeed
from freshet.stream.schemas import ShopTable
from freshet.stream.store.layout import Answer
from freshet.stream.store.versions import VersionStore
from freshet.stream.units import HOUR_MS
from tests.integration.side import Told
from tests.integration.windows_world import CLICKS, ORDERS, SETTINGS, World, reader_of

CONTEXT, AHEAD = 6, 3
SHOP_SETTINGS = Settings.model_validate(
    {
        "windows": {"resolutions": SETTINGS.windows.resolutions},
        "worker": {
            "resolution_ms": HOUR_MS,
            "context_length": CONTEXT,
            "prediction_length": AHEAD,
            "season_length": 4,
            "score_steps": (1,),
        },
        "calendar": {"country": "DE", "opening_hours": {"mon": "09:00-17:00"}},
    }
)
SKUS = ("a", "b", "never")
ITEMS = tuple(f"{sku}|-" for sku in SKUS)

Row = tuple[str, dict[str, bytes]]
"""An item's context: its sha256, and the bytes of every tensor."""


class SideTold(NamedTuple):
    """A record of one of the shop's tables, as its producer sends it at a time."""

    table: ShopTable
    key: bytes
    fields: dict[str, Any] | None
    arrives_ms: int

    @property
    def known_ms(self) -> int:
        """From when on it is known."""
        said = (self.fields or {}).get("announced_at")
        return self.arrives_ms if said is None else int(said)


@dataclass
class ShopLog:
    """Writes windows and versions as ingest does; two partitions a table."""

    client: redis.Redis
    settings: Settings = SHOP_SETTINGS
    told: list[SideTold] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.events = World(self.client)
        self._store = VersionStore(self.client)
        self._writers: dict[tuple[str, int], PartitionVersions] = {}
        for table in ("catalog", "promotions", "inventory", "covariates"):
            for partition in range(2):
                versions = self._writer(table, partition)  # type: ignore[arg-type]
                versions.stand_at(0)

    def tell(self, record: SideTold) -> None:
        """One record of a table; all of a key lie on one partition."""
        versions = self._writer(record.table, sum(record.key) % 2)
        value = None if record.fields is None else json.dumps(record.fields).encode()
        message = Told(record.key, value, versions.next_offset, record.arrives_ms)
        batch = versions.judge([cast(Message, message)])
        assert not batch.dead, batch.dead
        assert versions.append(batch) is Answer.APPLIED
        self.told.append(record)

    def sell(self, sku: str, at_ms: int) -> None:
        self.events.write(ORDERS, 0, [(sku, at_ms)])

    def look(self, sku: str, at_ms: int) -> None:
        self.events.write(CLICKS, 0, [(sku, at_ms)])

    def pass_to(self, at_ms: int) -> None:
        """Somebody buys and looks at something else: all buckets before are observed."""
        self.sell("other", at_ms)
        self.look("other", at_ms)

    def _writer(self, table: ShopTable, partition: int) -> PartitionVersions:
        topic = self.settings.kafka.topics.model_dump()[table]
        place = (topic, partition)
        if place not in self._writers:
            header = self._store.claim(*place)
            self._writers[place] = PartitionVersions(
                self._store, table, place, self.settings, lambda: MAX_TIME_MS, header
            )
            self._writers[place].start_at(0)
        return self._writers[place]


class Dresser:
    """What a worker holds of windows and tables; `until` as an audit reads them."""

    def __init__(
        self,
        client: redis.Redis,
        items: Sequence[str] = ITEMS,
        *,
        until: Mapping[str, int] | None = None,
        settings: Settings = SHOP_SETTINGS,
    ) -> None:
        self.items = items
        self._shop = ShopTables.of(settings)
        self._feed = ShopFeed(client, settings, self._shop, until=until)
        self.contexts = Contexts(
            reader_of(client, 40, lambda item: item in items),
            self._shop,
            context_length=CONTEXT,
            prediction_length=AHEAD,
        )
        self.follow()

    def follow(self) -> None:
        """Take in all there is."""
        self._feed.poll()
        assert self._feed.caught_up, self._feed.waits_for
        self.contexts.refresh()

    def offsets(self) -> dict[str, int]:
        return self._feed.offsets()

    def dress(self, cutoff_ms: int) -> dict[str, Row]:
        """The context of every item, with or without a row."""
        contexts = self.contexts
        found = {item_id: contexts.reader.row(item_id) for item_id in self.items}
        rows = {item_id: row for item_id, row in found.items() if row is not None}
        cold = [item_id for item_id in self.items if item_id not in rows]
        dressed: dict[str, Row] = {}
        if rows:
            dressed |= _rows(list(rows), contexts.batch(list(rows.values()), cutoff_ms))
        if cold:
            dressed |= _rows(cold, contexts.cold_batch(cold, cutoff_ms))
        return dressed


def _rows(item_ids: list[str], batch: Batch) -> dict[str, Row]:
    hashes = context_sha256(batch)
    tensors = {one.name: getattr(batch, one.name) for one in fields(batch)}
    return {
        item_id: (
            hashes[place],
            {name: _bytes(value, place) for name, value in tensors.items() if value is not None},
        )
        for place, item_id in enumerate(item_ids)
    }


def _bytes(value: Any, place: int) -> bytes:
    """One row of a tensor; a NaN is a NaN."""
    if isinstance(value, int):
        return b"%d" % value
    row = value[place].cpu()
    if row.is_floating_point():
        row = torch.where(row.isnan(), torch.tensor(torch.nan, dtype=row.dtype), row)
    return bytes(row.contiguous().numpy().tobytes())
