"""The rows of a file as events in time order, and the batches they are sent in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import CatalogEntry
from freshet.stream.source.batches import SourceBatch, TopicKind
from freshet.stream.units import HOUR_MS, MINUTE_MS

ORDER, VIEW, CART, FAVOURITE, CHECKOUT = range(5)
CLICK_NAMES = ("", "view", "cart", "favourite", "checkout")
DEFAULT_SLICE_MS = 5 * MINUTE_MS
MAX_EMPTY_MS = HOUR_MS


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A column of texts as numbers into a list of the distinct ones."""

    codes: Ints
    names: list[str]

    def take(self, rows: Ints) -> TextColumn:
        """Only those rows, in that order."""
        return TextColumn(self.codes[rows], self.names)

    @classmethod
    def constant(cls, name: str, num: int) -> TextColumn:
        """The same text everywhere."""
        return cls(np.zeros(num, dtype=np.int64), [name])


@dataclass(frozen=True, slots=True)
class FileEvents:
    """Events as columns; `kind` is ORDER or a click's number, `event_id` None makes ids from the
    file's row numbers.
    """

    time_ms: Ints
    row: Ints
    kind: Ints
    sku: TextColumn
    region: TextColumn
    quantity: Floats
    unit_price: Floats
    order_id: TextColumn | None = None
    event_id: TextColumn | None = None

    def __len__(self) -> int:
        return len(self.time_ms)

    def take(self, which: Ints) -> FileEvents:
        """Only those rows, in that order."""
        return FileEvents(
            time_ms=self.time_ms[which],
            row=self.row[which],
            kind=self.kind[which],
            sku=self.sku.take(which),
            region=self.region.take(which),
            quantity=self.quantity[which],
            unit_price=self.unit_price[which],
            order_id=self.order_id.take(which) if self.order_id else None,
            event_id=self.event_id.take(which) if self.event_id else None,
        )

    def keep(self, which: Bools) -> FileEvents:
        """Only those rows, as they stand."""
        return self.take(np.flatnonzero(which))

    def by_time(self) -> FileEvents:
        """Oldest first, rows of the same time as the file has them."""
        return self.take(np.lexsort((self.row, self.time_ms)))


@dataclass(frozen=True)
class ReplayFile:
    """A file ready to be sent.

    Attributes:
        name: Of the file or preset; part of the event ids.
        rows: In time order.
        catalog: What the file says about its articles, told when each is first seen.
        skipped: How many rows of the file are not events, by reason.
    """

    name: str
    rows: FileEvents
    catalog: dict[str, CatalogEntry] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.rows):
            reasons = (
                ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
                or "the file is empty"
            )
            raise InvalidInputError(f"{self.name}: no events to replay ({reasons})")

    @property
    def start_ms(self) -> int:
        """The first event's time."""
        return int(self.rows.time_ms[0])

    @property
    def end_ms(self) -> int:
        """Just after the last event."""
        return int(self.rows.time_ms[-1]) + 1

    def batches(self, slice_ms: int = DEFAULT_SLICE_MS) -> Iterator[SourceBatch]:
        """All events, in slices aligned to `slice_ms`; where nothing happens they are longer."""
        times, known = self.rows.time_ms, set[int]()
        start, start_ms = 0, self.start_ms
        while start < len(times):
            end_ms = (int(times[start]) // slice_ms + 1) * slice_ms
            if int(times[start]) - start_ms >= slice_ms:
                end_ms = min(int(times[start]), start_ms + max(slice_ms, MAX_EMPTY_MS))
            stop = int(np.searchsorted(times, end_ms, side="left"))
            yield self._batch(start, stop, start_ms, end_ms, known)
            start, start_ms = stop, end_ms

    def _batch(
        self, start: int, stop: int, start_ms: int, end_ms: int, known: set[int]
    ) -> SourceBatch:
        part = self.rows.take(np.arange(start, stop))
        kinds: list[TopicKind] = [
            "orders" if kind == ORDER else "clicks" for kind in part.kind.tolist()
        ]
        keys = [part.sku.names[code].encode() for code in part.sku.codes.tolist()]
        values: list[bytes | None] = list(self._render(part))
        timestamps = part.time_ms.tolist()
        new = [code for code in dict.fromkeys(part.sku.codes.tolist()) if code not in known]
        known.update(new)
        entries = [
            self.catalog[part.sku.names[code]]
            for code in new
            if part.sku.names[code] in self.catalog
        ]
        told: list[TopicKind] = ["catalog"] * len(entries)
        told_ms = timestamps[0] if timestamps else start_ms
        return SourceBatch(
            start_ms,
            end_ms,
            [*told, *kinds],
            [*(entry.sku.encode() for entry in entries), *keys],
            [*(msgspec.json.encode(entry) for entry in entries), *values],
            [*([told_ms] * len(entries)), *timestamps],
        )

    def _render(self, part: FileEvents) -> Iterator[bytes]:
        skus, regions = _quoted(part.sku), _quoted(part.region)
        orders = _quoted(part.order_id) if part.order_id else None
        name = msgspec.json.encode(self.name).decode()[:-1]
        ids = (
            _quoted(part.event_id)
            if part.event_id
            else [f'{name}-{row}"' for row in part.row.tolist()]
        )
        quantities, prices = map(_numbers, (part.quantity, part.unit_price))
        for i, (kind, time_ms) in enumerate(
            zip(part.kind.tolist(), part.time_ms.tolist(), strict=True)
        ):
            item = f'"sku":{skus[i]},"region":{regions[i]}'
            head = f'{{"event_id":{ids[i]},{item},"event_time":{time_ms}'
            if kind != ORDER:
                yield f'{head},"kind":"{CLICK_NAMES[kind]}"}}'.encode()
                continue
            order = f',"order_id":{orders[i]}' if orders else ""
            yield f'{head}{order},"quantity":{quantities[i]},"unit_price":{prices[i]}}}'.encode()


def _quoted(texts: TextColumn) -> list[str]:
    """JSON strings, each distinct one escaped once."""
    quoted = {
        code: msgspec.json.encode(texts.names[code]).decode() for code in set(texts.codes.tolist())
    }
    return [quoted[code] for code in texts.codes.tolist()]


def _numbers(values: Floats) -> list[str]:
    """JSON numbers; whole ones without a fraction."""
    return [str(int(value)) if value.is_integer() else repr(value) for value in values.tolist()]


def first_prices(rows: FileEvents) -> dict[str, float]:
    """The first unit price above 0 of each sku, in the order of `rows`."""
    priced = rows.keep((rows.kind == ORDER) & (rows.unit_price > 0))
    codes, first = np.unique(priced.sku.codes, return_index=True)
    return {
        priced.sku.names[code]: float(priced.unit_price[i])
        for code, i in zip(codes.tolist(), first, strict=True)
    }


def split(
    rows: FileEvents, reasons: Sequence[tuple[str, Bools]]
) -> tuple[FileEvents, dict[str, int]]:
    """Events that no reason skips, and the number skipped by each reason; the first that holds."""
    kept, skipped = np.ones(len(rows), dtype=bool), {}
    for reason, holds in reasons:
        hit = kept & holds
        if hit.any():
            skipped[reason] = int(hit.sum())
        kept &= ~hit
    return rows.keep(kept), skipped
