"""Bytes of the two event topics to columns, with no Python object an event that outlives its slice.

What a record must be to be an event, in the order it is checked; the first thing wrong makes it a
dead letter: a key of at most 256 bytes and a value (not null) of at most `max_record_bytes`, nested
at most `max_depth` deep, UTF-8 and JSON throughout; an object whose known fields have their types
(null counts as missing); with `event_id`, `event_time` (epoch in `events.time_unit`, or RFC 3339
with an offset; 1970 to 9999), and every `series_by` field, and an item_id of at most 256 bytes;
clicks with a known `kind`; orders either with `quantity` and `unit_price`, or with `lines`, at
least one, each with its own (and its own sku; the other `series_by` fields may stand in the order);
0 < |quantity| <= 1,000,000 and 0 <= unit_price <= 900,000.

Every check is made once for a slice of records, and record by record only where a slice fails it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from freshet.stream.arrays import Floats, Hashes, Ints
from freshet.stream.codec import UNITS, longest_time, time_ms
from freshet.stream.config import EventSettings, TimeUnit
from freshet.stream.errors import EventError
from freshet.stream.events.columns import Decoded, concatenate, without
from freshet.stream.events.fieldmap import click_shape, order_shapes
from freshet.stream.events.limits import MAX_KEY_BYTES, ByteLimits, Refusal
from freshet.stream.events.rfc3339 import NOT_PLAIN, plain_times_ms
from freshet.stream.schemas import CHANNEL_OF_CLICK, CHANNELS, item_id_of

__all__ = ["Decoded", "EventDecoder", "EventKind"]

EventKind = Literal["orders", "clicks"]
MAX_QUANTITY: Final = 1_000_000
MAX_UNIT_PRICE: Final = 900_000
MAX_CACHED_ITEM_IDS: Final = 500_000
# What a slice makes stays in a core's cache until it is columns: 20,000 records at once cost each
# twice as much.
SLICE_RECORDS: Final = 2_048

Index = npt.NDArray[np.intp]
Fields = Sequence[Sequence[Any]]
"""One sequence a field, all of one length."""

_UNFIT: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_UNNAMED: Final = -1
_CHANNEL_NUMBER: Final = {
    kind: CHANNELS.index(channel) for kind, channel in CHANNEL_OF_CLICK.items()
}


class _Refused:
    """Collects refusals; the first one of a record stands."""

    def __init__(self) -> None:
        self.by_index: dict[int, Refusal] = {}

    def add(self, index: int, error_class: str, message: str) -> None:
        self.by_index.setdefault(index, Refusal(index, error_class, message))


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines while they are checked; `record` is a position among the decoded ones, the amounts None
    where missing.
    """

    record: Index
    series: Fields
    quantity: Sequence[float | None] = ()
    unit_price: Sequence[float | None] = ()


class EventDecoder:
    """Decodes and validates one kind of event, a batch at a time; a bad record never fails its
    batch.
    """

    def __init__(
        self, kind: EventKind, events: EventSettings, max_record_bytes: int = 1_000_000
    ) -> None:
        self._orders = kind == "orders"
        self._series_by = events.series_by
        self._unit: TimeUnit = events.time_unit
        self._limits = ByteLimits(events.max_depth, max_record_bytes)
        own: tuple[str, ...] = ("kind",)
        if self._orders:
            self._shape, self._line = order_shapes(events.orders_fields, events.series_by)
            own = ("lines", "quantity", "unit_price")
            self._line_names = ("quantity", "unit_price", *events.series_by)
            self._get_line = self._line.getter(self._line_names)
        else:
            self._shape = click_shape(events.clicks_fields, events.series_by)
        self._names = ("event_id", "event_time", *own, *events.series_by)
        self._read, self._places = self._shape.reader(self._names)
        self._decode = msgspec.json.Decoder(self._shape.struct).decode
        self._items = _ItemNames(events.series_by)

    def decode(self, values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> Decoded:
        """Columns of the good records; pure but for a bounded cache of item ids."""
        self._items.forget_when_full()
        starts = range(0, max(len(values), 1), SLICE_RECORDS)
        return concatenate(
            [
                self._slice(values[n : n + SLICE_RECORDS], keys[n : n + SLICE_RECORDS])
                for n in starts
            ]
        )

    def _slice(self, values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> Decoded:
        refused = _Refused()
        for refusal in self._limits.refusals(values, keys):
            refused.by_index.setdefault(refusal.index, refusal)
        index, rows = self._rows(values, refused)
        columns_read = list(zip(*rows, strict=True))
        fields: Fields = (
            [columns_read[place] for place in self._places] if rows else [()] * len(self._names)
        )
        hashes = _hashes(fields[0], index, refused)
        times_ms = _times(fields[1], self._unit, index, refused)
        channel, empty = np.empty(0, np.int64), np.empty(0)
        if self._orders:
            lines = self._order_lines(index, fields, refused)
        else:
            channel = _channels(fields[2], index, refused)
            lines = _Lines(np.arange(len(index)), fields[3:])
        names = self._items.places(lines, index, refused)
        quantity, unit_price = _amounts(lines, index, refused) if self._orders else (empty, empty)
        columns = Decoded(
            num_records=len(values),
            index=index,
            event_hash=hashes,
            event_time_ms=times_ms,
            line_record=lines.record,
            line_name=names,
            quantity=quantity,
            unit_price=unit_price,
            channel=channel,
            refusals=[],
            item_ids=self._items.item_ids,
        )
        found = refused.by_index
        return without(columns, [found[n] for n in sorted(found)]) if found else columns

    def _rows(
        self, values: Sequence[bytes | None], refused: _Refused
    ) -> tuple[Index, list[tuple[Any, ...]]]:
        """One typed decode a record, then its fields as a tuple; with the place of each in the
        slice.
        """
        index = np.arange(len(values))
        if refused.by_index:
            index = np.delete(index, list(refused.by_index))
            values = [values[n] for n in index.tolist()]
        rows: list[tuple[Any, ...] | None] = []
        reading = map(self._read, map(self._decode, cast(Sequence[bytes], values)))
        while True:
            # The iterator goes on after the record that raised, so good records cost no try of
            # their own.
            try:
                rows.extend(reading)
                break
            except AttributeError:
                event = self._decode(cast(bytes, values[len(rows)]))
                rows.append(
                    tuple(self._shape.dig(event, name) for name in self._names)
                )  # Where paths are nested.
            except _UNFIT as error:
                wrong = (
                    "InvalidField" if isinstance(error, msgspec.ValidationError) else "Undecodable"
                )
                refused.add(int(index[len(rows)]), wrong, str(error))
                rows.append(None)
        good = [row for row in rows if row is not None]
        return index if len(good) == len(rows) else index[[row is not None for row in rows]], good

    def _order_lines(self, index: Index, fields: Fields, refused: _Refused) -> _Lines:
        whole, quantity, unit_price, *series = fields[2:]
        record = np.arange(len(index))
        if whole.count(None) == len(whole):
            return _Lines(record, series, quantity, unit_price)
        columns: Fields = (record.tolist(), quantity, unit_price, *series)
        flat: list[list[Any]] = [[] for _ in columns]
        done = 0
        for n in [*(n for n, lines in enumerate(whole) if lines is not None), len(whole)]:
            # Orders of one line are copied in stretches, up to the next whole order.
            for column, values in zip(flat, columns, strict=True):
                column += values[done:n]
            done = n + 1
            if n == len(whole):
                break
            if not whole[n]:
                refused.add(int(index[n]), "MissingField", "the order has no lines")
            above = [column[n] for column in series]
            for line in whole[n]:
                own_quantity, own_price, *own = self._line_values(line)
                row = (n, own_quantity, own_price, *self._line_series(own, above))
                for column, value in zip(flat, row, strict=True):
                    column.append(value)
        return _Lines(np.array(flat[0], np.intp), flat[3:], flat[1], flat[2])

    def _line_values(self, line: Any) -> tuple[Any, ...]:
        try:
            return self._get_line(line)
        except AttributeError:
            return tuple(self._line.dig(line, name) for name in self._line_names)

    def _line_series(self, own: list[Any], order: list[Any]) -> list[Any]:
        """The line's series: what the line itself does not say, its order says, but for the sku."""
        if None not in own:
            return own
        pairs = zip(self._series_by, own, order, strict=True)
        return [above if mine is None and name != "sku" else mine for name, mine, above in pairs]


class _ItemNames:
    """Item ids, each with its place in a table; bounded."""

    def __init__(self, series_by: tuple[str, ...]) -> None:
        self._series_by = series_by
        self.item_ids: list[str] = []
        self._place_of: dict[str, int] = {}

    def forget_when_full(self) -> None:
        """Begin another table; whoever holds the old one keeps it."""
        if len(self.item_ids) >= MAX_CACHED_ITEM_IDS:
            self.item_ids, self._place_of = [], {}

    def places(self, lines: _Lines, index: Index, refused: _Refused) -> Ints:
        """The place of each line's item_id; that of a refused record means nothing."""
        item_ids = self._joined(lines, index, refused)
        places = np.fromiter(
            map(self._place_of.get, item_ids, repeat(_UNNAMED)), np.int64, len(item_ids)
        )
        for n in np.flatnonzero(places == _UNNAMED).tolist():
            places[n] = self._place(item_ids[n], int(index[lines.record[n]]), refused)
        return places

    def _joined(self, lines: _Lines, index: Index, refused: _Refused) -> list[str]:
        try:
            item_ids = list(map("|".join, zip(*lines.series, strict=True)))
        except TypeError:
            return [self._checked(n, lines, index, refused) for n in range(len(lines.record))]
        text = "".join(item_ids)
        if "\\" in text or text.count("|") != (len(self._series_by) - 1) * len(item_ids):
            return [item_id_of(list(values)) for values in zip(*lines.series, strict=True)]
        return item_ids

    def _checked(self, line: int, lines: _Lines, index: Index, refused: _Refused) -> str:
        """The item_id of a line that may lack a field."""
        values = [column[line] for column in lines.series]
        if None in values:
            missing = self._series_by[values.index(None)]
            refused.add(
                int(index[lines.record[line]]), "MissingField", f"the field {missing!r} is missing"
            )
        return item_id_of([value or "" for value in values])

    def _place(self, item_id: str, index: int, refused: _Refused) -> int:
        """The place of an item_id that was new a moment ago."""
        size = len(item_id.encode())
        if size > MAX_KEY_BYTES:
            refused.add(
                index,
                "OversizedKey",
                f"the item_id has {size} bytes, expected at most {MAX_KEY_BYTES}",
            )
        elif index not in refused.by_index:
            place = self._place_of.setdefault(item_id, len(self.item_ids))
            if place == len(self.item_ids):
                self.item_ids.append(item_id)
            return place
        return _UNNAMED


def _hashes(event_ids: Sequence[Any], index: Index, refused: _Refused) -> Hashes:
    if None in event_ids:
        for i, event_id in zip(index.tolist(), event_ids, strict=True):
            if event_id is None:
                refused.add(i, "MissingField", "the field 'event_id' is missing")
        event_ids = ["" if event_id is None else event_id for event_id in event_ids]
    digests = b"".join(map(xxhash.xxh3_64_digest, map(str.encode, event_ids)))
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def _times(times: Sequence[Any], unit: TimeUnit, index: Index, refused: _Refused) -> Ints:
    kinds = set(map(type, times))
    if kinds == {int}:
        times_ms = _whole_times_ms(times, unit)
    elif kinds == {str}:
        times_ms = plain_times_ms(times)
    else:
        times_ms = np.full(len(times), NOT_PLAIN, np.int64)
    for n in np.flatnonzero(times_ms == NOT_PLAIN).tolist():
        try:
            if times[n] is None:
                refused.add(int(index[n]), "MissingField", "the field 'event_time' is missing")
            else:
                times_ms[n] = time_ms(times[n], unit)
        except EventError as error:
            refused.add(int(index[n]), "InvalidTime", error.message)
    return times_ms


def _whole_times_ms(times: Sequence[int], unit: TimeUnit) -> Ints:
    multiplier, divisor = UNITS[unit]
    try:
        values = np.fromiter(times, np.int64, len(times))
    except OverflowError:
        return np.full(len(times), NOT_PLAIN, np.int64)
    good = (values >= 0) & (values <= longest_time(unit))
    return np.where(good, np.where(good, values, 0) * multiplier // divisor, NOT_PLAIN)


def _channels(kinds: Sequence[Any], index: Index, refused: _Refused) -> Ints:
    channel = np.fromiter(map(_CHANNEL_NUMBER.get, kinds, repeat(0)), np.int64, len(kinds))
    for n in np.flatnonzero(channel == 0).tolist():
        refused.add(int(index[n]), "MissingField", "the field 'kind' is missing")
    return channel


def _amounts(lines: _Lines, index: Index, refused: _Refused) -> tuple[Floats, Floats]:
    quantity, unit_price = _numbers(lines.quantity), _numbers(lines.unit_price)
    size = np.abs(quantity)
    good = (size > 0) & (size <= MAX_QUANTITY) & (unit_price >= 0) & (unit_price <= MAX_UNIT_PRICE)
    for n in np.flatnonzero(~good).tolist():
        refused.add(
            int(index[lines.record[n]]), *_wrong_amount(lines.quantity[n], lines.unit_price[n])
        )
    return quantity, unit_price


def _numbers(column: Sequence[float | None]) -> Floats:
    try:
        return np.fromiter(cast(Sequence[float], column), np.float64, len(column))
    except TypeError:
        return np.array(column, np.float64)  # None becomes NaN, which JSON itself cannot say.


def _wrong_amount(quantity: float | None, unit_price: float | None) -> tuple[str, str]:
    if quantity is None or unit_price is None:
        return (
            "MissingField",
            f"the field {'quantity' if quantity is None else 'unit_price'!r} is missing",
        )
    if quantity == 0 or abs(quantity) > MAX_QUANTITY:
        return "OutOfRange", f"quantity is {quantity}, expected not zero and at most {MAX_QUANTITY}"
    return "OutOfRange", f"unit_price is {unit_price}, expected 0 to {MAX_UNIT_PRICE}"
