"""The rows of a file as events in time order, and the batches they are sent in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """A file's events as columns.

    Attributes:
        row: Its number in the file.
        kind: ORDER, or the number of a kind of click.
        event_id: None makes ids from the row numbers.
        series: Fields of a series besides sku and region, by their names.
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
    series: Mapping[str, TextColumn] = field(default_factory=dict)

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
            series={name: column.take(which) for name, column in self.series.items()},
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
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
            why = reasons or "the file is empty"
            raise InvalidInputError(f"{self.name}: no events to replay ({why})")

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
        times_ms = self.rows.time_ms
        told: set[int] = set()
        start, start_ms = 0, self.start_ms
        while start < len(times_ms):
            next_ms = int(times_ms[start])
            end_ms = (next_ms // slice_ms + 1) * slice_ms
            if next_ms - start_ms >= slice_ms:
                # Nothing happens for a while: one empty batch up to the next event, but no longer
                # than MAX_EMPTY_MS, so that live it does not seem to hang.
                end_ms = min(next_ms, start_ms + max(slice_ms, MAX_EMPTY_MS))
            stop = int(np.searchsorted(times_ms, end_ms, side="left"))
            part = self.rows.take(np.arange(start, stop))
            yield self._batch(part, start_ms, end_ms, self._new_entries(part, told))
            start, start_ms = stop, end_ms

    def _new_entries(self, part: FileEvents, told: set[int]) -> list[CatalogEntry]:
        """What the file says of the skus that it names for the first time; they are told now."""
        codes = dict.fromkeys(part.sku.codes.tolist())
        names = [part.sku.names[code] for code in codes if code not in told]
        told.update(codes)
        return [self.catalog[name] for name in names if name in self.catalog]

    def _batch(
        self, part: FileEvents, start_ms: int, end_ms: int, entries: list[CatalogEntry]
    ) -> SourceBatch:
        """The catalogue entries first, at the time of the first event that needs them."""
        kinds: list[TopicKind] = ["catalog"] * len(entries)
        kinds += ["orders" if kind == ORDER else "clicks" for kind in part.kind.tolist()]
        keys = [entry.sku.encode() for entry in entries]
        keys += [part.sku.names[code].encode() for code in part.sku.codes.tolist()]
        values: list[bytes | None] = [msgspec.json.encode(entry) for entry in entries]
        values += self._render(part)
        timestamps_ms = part.time_ms.tolist()
        told_ms = timestamps_ms[0] if timestamps_ms else start_ms
        timestamps_ms = [told_ms] * len(entries) + timestamps_ms
        return SourceBatch(start_ms, end_ms, kinds, keys, values, timestamps_ms)

    def _render(self, part: FileEvents) -> Iterator[bytes]:
        skus, regions = _quoted(part.sku), _quoted(part.region)
        series = [
            (f",{msgspec.json.encode(name).decode()}:", _quoted(column))
            for name, column in part.series.items()
        ]
        orders = _quoted(part.order_id) if part.order_id else None
        if part.event_id:
            ids = _quoted(part.event_id)
        else:
            open_name = msgspec.json.encode(self.name).decode()[:-1]
            ids = [f'{open_name}-{row}"' for row in part.row.tolist()]
        quantities, prices = _numbers(part.quantity), _numbers(part.unit_price)
        columns = zip(part.kind.tolist(), part.time_ms.tolist(), strict=True)
        for i, (kind, time_ms) in enumerate(columns):
            item = f'"sku":{skus[i]},"region":{regions[i]}'
            item += "".join(name + texts[i] for name, texts in series)
            head = f'{{"event_id":{ids[i]},{item},"event_time":{time_ms}'
            if kind != ORDER:
                yield f'{head},"kind":"{CLICK_NAMES[kind]}"}}'.encode()
                continue
            order = f',"order_id":{orders[i]}' if orders else ""
            yield f'{head}{order},"quantity":{quantities[i]},"unit_price":{prices[i]}}}'.encode()


def _quoted(texts: TextColumn) -> list[str]:
    """JSON strings, each distinct one escaped once."""
    codes = texts.codes.tolist()
    quoted = {code: msgspec.json.encode(texts.names[code]).decode() for code in set(codes)}
    return [quoted[code] for code in codes]


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


def split(rows: FileEvents, reasons: Mapping[str, Bools]) -> tuple[FileEvents, dict[str, int]]:
    """Events that no reason skips, and the number skipped by each reason; the first that holds."""
    kept = np.ones(len(rows), dtype=bool)
    skipped: dict[str, int] = {}
    for reason, holds in reasons.items():
        hit = kept & holds
        if hit.any():
            skipped[reason] = int(hit.sum())
        kept &= ~hit
    return rows.keep(kept), skipped
