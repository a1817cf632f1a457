"""Columns to records: the JSON bytes of clicks, orders, catalogue, promotions and inventory."""

from __future__ import annotations

import msgspec
import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.schemas import CatalogEntry, InventoryLevel, Promotion
from freshet.stream.source.simulator.catalogue import Catalogue
from freshet.stream.source.simulator.funnel import Clicks, OrderLines
from freshet.stream.source.simulator.goods import REGIONS
from freshet.stream.source.simulator.records import Records
from freshet.stream.source.simulator.seeds import generator
from freshet.stream.units import HOUR_MS

KINDS = ("view", "cart", "favourite", "checkout")
MEAN_DELAY_MS = 400
MAX_DELAY_MS = 4_000
ID_STEP = np.uint64(0x9E3779B97F4A7C15)

Line = tuple[int, int, float]
"""An order line: item, quantity, unit price."""


class Renderer:
    """Writes one shop's records; event ids follow from the seed and the records written before."""

    def __init__(self, seed: int, catalogue: Catalogue) -> None:
        self._seed = seed
        self._catalogue = catalogue
        self._keys = [sku.encode() for sku in catalogue.skus for _ in REGIONS]
        self._places = [
            f'"sku":"{sku}","region":"{region}"' for sku in catalogue.skus for region in REGIONS
        ]
        self._skus = [sku for sku in catalogue.skus for _ in REGIONS]
        self._written = 0

    def clicks(self, hour_ms: int, clicks: Clicks) -> Records:
        """One record a click."""
        columns = zip(
            self._event_ids(len(clicks)),
            clicks.session.tolist(),
            clicks.item.tolist(),
            clicks.time_ms.tolist(),
            clicks.kind.tolist(),
            strict=True,
        )
        values: list[bytes | None] = []
        for event_id, session, item, time_ms, kind in columns:
            ids = f'"event_id":"{event_id:016x}","session_id":"s{session:09d}"'
            rest = f'"event_time":{time_ms},"kind":"{KINDS[kind]}"'
            values.append(f"{{{ids},{self._places[item]},{rest}}}".encode())
        keys = [self._keys[i] for i in clicks.item.tolist()]
        arrival = self._arrival(hour_ms, "click delays", clicks.time_ms)
        return Records(["clicks"] * len(values), keys, values, arrival)

    def orders(self, hour_ms: int, lines: OrderLines, purpose: str = "order delays") -> Records:
        """One record an order, keyed by the sku of its first line.

        An order of one line is flat, one of several carries them as `lines`.
        """
        first = np.flatnonzero(np.diff(lines.order, prepend=-1))
        stop = np.append(first, len(lines))[1:]
        columns = zip(
            lines.item.tolist(), lines.quantity.tolist(), lines.price.tolist(), strict=True
        )
        rows: list[Line] = list(columns)
        orders = zip(
            self._event_ids(len(first)),
            lines.order[first].tolist(),
            lines.time_ms[first].tolist(),
            first.tolist(),
            stop.tolist(),
            strict=True,
        )
        values: list[bytes | None] = []
        for event_id, order, time_ms, start, end in orders:
            ids = f'"event_id":"{event_id:016x}","order_id":"A{order:08d}"'
            write = self._flat if end - start == 1 else self._whole
            values.append(write(ids, time_ms, rows[start:end]))
        keys = [self._keys[item] for item in lines.item[first].tolist()]
        arrival = self._arrival(hour_ms, purpose, lines.time_ms[first])
        return Records(["orders"] * len(values), keys, values, arrival)

    def _flat(self, ids: str, time_ms: int, lines: list[Line]) -> bytes:
        ((item, quantity, price),) = lines
        head = f'{{{ids},{self._places[item]},"event_time":{time_ms}'
        return f'{head},"quantity":{quantity},"unit_price":{price:.2f}}}'.encode()

    def _whole(self, ids: str, time_ms: int, lines: list[Line]) -> bytes:
        region = REGIONS[lines[0][0] % len(REGIONS)]
        inner = ",".join(
            f'{{"sku":"{self._skus[item]}","quantity":{quantity},"unit_price":{price:.2f}}}'
            for item, quantity, price in lines
        )
        head = f'{{{ids},"region":"{region}","event_time":{time_ms}'
        return f'{head},"lines":[{inner}]}}'.encode()

    def catalog(self, sku: int, price: float, launched_ms: float) -> tuple[bytes, bytes]:
        """Key and value of a catalogue entry; articles older than the history tell no launch."""
        catalogue = self._catalogue
        entry = CatalogEntry(
            sku=catalogue.skus[sku],
            title=catalogue.titles[sku],
            category=catalogue.category_of(sku),
            brand=catalogue.brands[sku],
            attributes=catalogue.attributes[sku],
            unit_price=price,
            launched_at=int(launched_ms) if np.isfinite(launched_ms) else None,
        )
        return catalogue.skus[sku].encode(), msgspec.json.encode(entry)

    def promotion(self, promotion: Promotion) -> tuple[bytes, bytes]:
        """Key and value of a promotion."""
        return promotion.promotion_id.encode(), msgspec.json.encode(promotion)

    def inventory(self, item: int, on_hand: int, as_of_ms: int) -> tuple[bytes, bytes]:
        """Key and value of an item's stock."""
        region = REGIONS[item % len(REGIONS)]
        level = InventoryLevel(sku=self._skus[item], region=region, on_hand=on_hand, as_of=as_of_ms)
        return f"{self._skus[item]}|{region}".encode(), msgspec.json.encode(level)

    def _event_ids(self, num: int) -> list[int]:
        """Distinct 64-bit numbers: an odd multiplier and a xor-shift are both one to one."""
        count = np.arange(self._written + 1, self._written + num + 1, dtype=np.uint64)
        self._written += num
        mixed = (count + np.uint64(self._seed << 40)) * ID_STEP
        ids: list[int] = ((mixed ^ (mixed >> np.uint64(29))) * ID_STEP).tolist()
        return ids

    def _arrival(self, hour_ms: int, purpose: str, time_ms: Ints) -> list[int]:
        """When each event reaches the topic: a little late, so that neighbours swap places."""
        rng = generator(self._seed, purpose, hour_ms // HOUR_MS)
        delay = np.minimum(rng.exponential(MEAN_DELAY_MS, len(time_ms)), MAX_DELAY_MS)
        arrival: list[int] = (time_ms + delay.astype(np.int64)).tolist()
        return arrival
