"""Bytes of the two event topics to columns, a batch at a time, with no Python object a line beyond its strings.

What a record must be to be an event, in the order it is checked; the first thing wrong makes it a dead letter:
a key of at most 256 bytes and a value (not null) of at most `max_record_bytes`, nested at most `max_depth` deep, UTF-8
and JSON throughout; an object whose known fields have their types (null counts as missing); with `event_id`,
`event_time` (epoch ms, or RFC 3339 with an offset; 1970 to 9999), and every `series_by` field, and an item_id of at
most 256 bytes; clicks with a known `kind`; orders either with `quantity` and `unit_price`, or with `lines`, at least
one, each with its own (and its own sku; the other `series_by` fields may stand in the order);
0 < |quantity| <= 1,000,000 and 0 <= unit_price <= 900,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, Literal, TypeVar, cast

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from stream.codec import MAX_TIME_MS, time_ms
from stream.config import EventSettings
from stream.errors import EventError
from stream.fieldmap import Shape, click_shape, order_shapes
from stream.limits import MAX_KEY_BYTES, ByteLimits, Refusal
from stream.schemas import item_id_of
from stream.windows import CLICK_CHANNELS

EventKind = Literal["orders", "clicks"]
MAX_QUANTITY: Final = 1_000_000
MAX_UNIT_PRICE: Final = 900_000
MAX_CACHED_ITEM_IDS: Final = 500_000

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
AnyColumn = TypeVar("AnyColumn", npt.NDArray[np.int64], npt.NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class Decoded:
    """The good records of a batch as columns, in log order, and a refusal for each other one.

    `index` is the record's place in the batch. Lines are flat: `line_record` is the line's record (a position in
    `index`, rising), `line_item` its item_id. Orders fill `quantity` and `unit_price`, clicks fill `channel`.
    """

    index: npt.NDArray[np.intp]
    event_hash: npt.NDArray[np.uint64]
    event_time_ms: Int64
    line_record: npt.NDArray[np.intp]
    line_item: list[str]
    quantity: Float64
    unit_price: Float64
    channel: Int64
    refusals: list[Refusal]


class _Refused:
    """Collects refusals; the first one of a record stands."""

    def __init__(self) -> None:
        self.by_index: dict[int, Refusal] = {}

    def add(self, index: int, error_class: str, message: str) -> None:
        self.by_index.setdefault(index, Refusal(index, error_class, message))


@dataclass(slots=True)
class _Lines:
    """Lines while they are checked; `record` is the place in the batch."""

    record: list[int]
    keys: list[tuple[Any, ...]]
    quantity: list[Any]
    unit_price: list[Any]
    channel: list[int]


class EventDecoder:
    """Decodes and validates one kind of event, a batch at a time; a bad record never fails its batch."""

    def __init__(self, kind: EventKind, events: EventSettings, max_record_bytes: int = 1_000_000) -> None:
        self._orders = kind == "orders"
        self._series_by = events.series_by
        self._limits = ByteLimits(events.max_depth, max_record_bytes)
        self._line: Shape | None = None
        if self._orders:
            self._shape, self._line = order_shapes(events.orders_fields, events.series_by)
            self._names: tuple[str, ...] = ("event_id", "event_time", "lines", "quantity", "unit_price")
            line_names = ("quantity", "unit_price", *events.series_by)
            self._get_line = self._line.getter(line_names)
            self._line_names = line_names
        else:
            self._shape = click_shape(events.clicks_fields, events.series_by)
            self._names = ("event_id", "event_time", "kind")
        self._names += events.series_by
        self._get = self._shape.getter(self._names)
        self._decode = msgspec.json.Decoder(self._shape.struct).decode
        self._item_ids: dict[tuple[Any, ...], str] = {}

    def decode(self, values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> Decoded:
        """Columns of the good records; pure but for a bounded cache of item ids."""
        refused = _Refused()
        for refusal in self._limits.refusals(values, keys):
            refused.by_index.setdefault(refusal.index, refusal)
        index, rows = self._rows(values, refused)
        fields = list(zip(*rows, strict=True)) if rows else [()] * len(self._names)
        hashes = _hashes(fields[0], index, refused)
        times_ms = _times(fields[1], index, refused)
        lines = (self._order_lines if self._orders else self._click_lines)(index, fields, refused)
        items = self._items(lines, refused)
        quantity, unit_price = _amounts(lines, refused) if self._orders else (np.empty(0), np.empty(0))
        columns = Decoded(
            index=np.array(index, np.intp),
            event_hash=hashes,
            event_time_ms=times_ms,
            line_record=np.searchsorted(np.array(index, np.intp), np.array(lines.record, np.intp)),
            line_item=items,
            quantity=quantity,
            unit_price=unit_price,
            channel=np.array(lines.channel, np.int64),
            refusals=[],
        )
        return _only_good(columns, refused.by_index)

    def _rows(self, values: Sequence[bytes | None], refused: _Refused) -> tuple[list[int], list[tuple[Any, ...]]]:
        """One typed decode a record, then its fields as a tuple; with the place of each in the batch."""
        index = [i for i in range(len(values)) if i not in refused.by_index] if refused.by_index else range(len(values))
        events: list[Any] = []
        decoding = map(self._decode, cast(Iterable[bytes], (values[i] for i in index)))
        while True:
            # The iterator goes on after the record that raised, so good records cost no try of their own.
            try:
                events.extend(decoding)
                break
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                wrong = "InvalidField" if isinstance(error, msgspec.ValidationError) else "Undecodable"
                refused.add(index[len(events)], wrong, str(error))
                events.append(None)
        good = [event is not None for event in events]
        if not all(good):
            index, events = list(compress(index, good)), list(compress(events, good))
        rows: list[tuple[Any, ...]] = []
        reading = map(self._get, events)
        while True:
            try:
                rows.extend(reading)
                return list(index), rows
            except AttributeError:
                rows.append(tuple(self._shape.dig(events[len(rows)], name) for name in self._names))

    def _click_lines(self, index: list[int], columns: list[tuple[Any, ...]], refused: _Refused) -> _Lines:
        kinds = columns[2]
        if None in kinds:
            for i, kind in zip(index, kinds, strict=True):
                if kind is None:
                    refused.add(i, "MissingField", "the field 'kind' is missing")
        channel = [CLICK_CHANNELS.get(kind, 0) for kind in kinds]
        return _Lines(index, list(zip(*columns[3:], strict=True)), [], [], channel)

    def _order_lines(self, index: list[int], columns: list[tuple[Any, ...]], refused: _Refused) -> _Lines:
        whole, quantity, unit_price = columns[2:5]
        keys = list(zip(*columns[5:], strict=True))
        if not any(lines is not None for lines in whole):
            return _Lines(index, keys, list(quantity), list(unit_price), [])
        flat = _Lines([], [], [], [], [])
        done = 0
        for n in [n for n, lines in enumerate(whole) if lines is not None] + [len(whole)]:
            # Orders of one line are copied in stretches, up to the next whole order.
            flat.record += index[done:n]
            flat.keys += keys[done:n]
            flat.quantity += quantity[done:n]
            flat.unit_price += unit_price[done:n]
            done = n + 1
            if n < len(whole):
                self._add_lines(flat, index[n], whole[n], keys[n], refused)
        return flat

    def _add_lines(
        self, flat: _Lines, record: int, lines: list[Any], order_key: tuple[Any, ...], refused: _Refused
    ) -> None:
        if not lines:
            refused.add(record, "MissingField", "the order has no lines")
        for line in lines:
            quantity, unit_price, *own = self._line_values(line)
            flat.record.append(record)
            flat.keys.append(self._line_key(own, order_key))
            flat.quantity.append(quantity)
            flat.unit_price.append(unit_price)

    def _line_values(self, line: Any) -> tuple[Any, ...]:
        try:
            return self._get_line(line)
        except AttributeError:
            assert self._line is not None
            return tuple(self._line.dig(line, name) for name in self._line_names)

    def _line_key(self, own: list[Any], order: tuple[Any, ...]) -> tuple[Any, ...]:
        """The line's series: what the line itself does not say, its order says, but for the sku."""
        if None not in own:
            return tuple(own)
        pairs = zip(self._series_by, own, order, strict=True)
        return tuple(above if mine is None and name != "sku" else mine for name, mine, above in pairs)

    def _items(self, lines: _Lines, refused: _Refused) -> list[str]:
        items = list(map(self._item_ids.get, lines.keys))
        if None in items:
            for n, item in enumerate(items):
                if item is None:
                    items[n] = self._new_item(lines.record[n], lines.keys[n], refused)
        return items  # type: ignore[return-value]

    def _new_item(self, record: int, key: tuple[Any, ...], refused: _Refused) -> str:
        known = self._item_ids.get(key)
        if known is not None:
            return known
        if None in key:
            refused.add(record, "MissingField", f"the field {self._series_by[key.index(None)]!r} is missing")
            return ""
        item_id = item_id_of(list(key))
        size = len(item_id.encode())
        if size > MAX_KEY_BYTES:
            refused.add(record, "OversizedKey", f"the item_id has {size} bytes, expected at most {MAX_KEY_BYTES}")
            return ""
        if len(self._item_ids) >= MAX_CACHED_ITEM_IDS:
            self._item_ids.clear()
        self._item_ids[key] = item_id
        return item_id


def _only_good(columns: Decoded, by_index: dict[int, Refusal]) -> Decoded:
    """Leave out every record that was refused, with all its lines."""
    refusals = [by_index[i] for i in sorted(by_index)]
    if not refusals:
        return columns
    bad = np.isin(columns.index, [refusal.index for refusal in refusals])
    bad_line = bad[columns.line_record]
    new_place = np.cumsum(~bad) - 1
    return Decoded(
        index=columns.index[~bad],
        event_hash=columns.event_hash[~bad],
        event_time_ms=columns.event_time_ms[~bad],
        line_record=new_place[columns.line_record[~bad_line]],
        line_item=list(compress(columns.line_item, (~bad_line).tolist())),
        quantity=_chosen(columns.quantity, ~bad_line),
        unit_price=_chosen(columns.unit_price, ~bad_line),
        channel=_chosen(columns.channel, ~bad_line),
        refusals=refusals,
    )


def _chosen(column: AnyColumn, lines: npt.NDArray[np.bool_]) -> AnyColumn:
    """The chosen lines of a column; one that the other kind of event fills stays empty."""
    return column[lines] if len(column) else column


def _hashes(event_ids: Sequence[Any], index: list[int], refused: _Refused) -> npt.NDArray[np.uint64]:
    if None in event_ids:
        for i, event_id in zip(index, event_ids, strict=True):
            if event_id is None:
                refused.add(i, "MissingField", "the field 'event_id' is missing")
        event_ids = ["" if event_id is None else event_id for event_id in event_ids]
    return np.fromiter(map(xxhash.xxh3_64_intdigest, map(str.encode, event_ids)), np.uint64, len(event_ids))


def _times(times: Sequence[Any], index: list[int], refused: _Refused) -> Int64:
    try:
        times_ms = np.fromiter(times, np.int64, len(times))
        if not len(times_ms) or (times_ms.min() >= 0 and times_ms.max() <= MAX_TIME_MS):
            return times_ms
    except (TypeError, ValueError, OverflowError):
        pass
    times_ms = np.zeros(len(times), np.int64)
    for n, (i, value) in enumerate(zip(index, times, strict=True)):
        try:
            if value is None:
                refused.add(i, "MissingField", "the field 'event_time' is missing")
            else:
                times_ms[n] = time_ms(value)
        except EventError as error:
            refused.add(i, "InvalidTime", error.message)
    return times_ms


def _amounts(lines: _Lines, refused: _Refused) -> tuple[Float64, Float64]:
    quantity = np.array(lines.quantity, np.float64)  # None becomes NaN, which JSON itself cannot say.
    unit_price = np.array(lines.unit_price, np.float64)
    size = np.abs(quantity)
    good = (size > 0) & (size <= MAX_QUANTITY) & (unit_price >= 0) & (unit_price <= MAX_UNIT_PRICE)
    for n in np.flatnonzero(~good).tolist():
        refused.add(lines.record[n], *_wrong_amount(lines.quantity[n], lines.unit_price[n]))
    return np.where(good, quantity, 1.0), np.where(good, unit_price, 0.0)


def _wrong_amount(quantity: float | None, unit_price: float | None) -> tuple[str, str]:
    if quantity is None or unit_price is None:
        return "MissingField", f"the field {'quantity' if quantity is None else 'unit_price'!r} is missing"
    if quantity == 0 or abs(quantity) > MAX_QUANTITY:
        return "OutOfRange", f"quantity is {quantity}, expected not zero and at most {MAX_QUANTITY}"
    return "OutOfRange", f"unit_price is {unit_price}, expected 0 to {MAX_UNIT_PRICE}"
