"""Bytes of the two event topics to columns; no Python object of an event outlives its slice.

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

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
import xxhash

from freshet.stream.arrays import Floats, Hashes, Ints
from freshet.stream.codec import UNITS, longest_time, time_ms
from freshet.stream.config import EventSettings, TimeUnit
from freshet.stream.errors import EventError
from freshet.stream.events.columns import Decoded, concatenate, without
from freshet.stream.events.fieldmap import click_shape, order_shapes
from freshet.stream.events.item_names import Fields, Index, ItemNames, Lines
from freshet.stream.events.limits import ByteLimits, Refusals
from freshet.stream.events.redrive import NO_HEADERS, Headers
from freshet.stream.events.rfc3339 import NOT_PLAIN, plain_times_ms
from freshet.stream.schemas import CHANNEL_OF_CLICK, CHANNELS

__all__ = ["Decoded", "EventDecoder", "EventKind"]

EventKind = Literal["orders", "clicks"]
MAX_QUANTITY: Final = 1_000_000
MAX_UNIT_PRICE: Final = 900_000
# What a slice makes stays in a core's cache until it is columns: 20,000 records at once cost each
# twice as much.
SLICE_RECORDS: Final = 2_048

_UNFIT: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_CHANNEL_NUMBER: Final = {
    kind: CHANNELS.index(channel) for kind, channel in CHANNEL_OF_CLICK.items()
}


class EventDecoder:
    """Decodes and validates one kind of event; a bad record never fails its batch."""

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
        self._items = ItemNames(events.series_by)

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        timestamps_ms: Ints | None = None,
        headers: Mapping[int, Headers] = NO_HEADERS,
    ) -> Decoded:
        """Columns of the good records; pure but for a bounded cache of item ids.

        Args:
            values: Of each record.
            keys: Of each record.
            timestamps_ms: Of each record, Kafka's; for maps that ask for them, and states.
            headers: Those of the records that have any, by their place.
        """
        self._items.forget_when_full()
        starts = range(0, max(len(values), 1), SLICE_RECORDS)
        slices = [slice(start, start + SLICE_RECORDS) for start in starts]
        return concatenate([self._decode_slice(values[own], keys[own]) for own in slices])

    def _decode_slice(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None]
    ) -> Decoded:
        refused = Refusals()
        for refusal in self._limits.refusals(values, keys):
            refused.by_index.setdefault(refusal.index, refusal)
        index, rows = self._rows(values, refused)
        fields = self._fields(rows)
        # The first thing wrong stands, so the order of these checks is part of what is promised.
        hashes = _hashes(fields[0], index, refused)
        times_ms = _times(fields[1], self._unit, index, refused)
        channel = np.empty(0, np.int64)
        quantity = unit_price = np.empty(0)
        if self._orders:
            lines = self._order_lines(index, fields, refused)
            names = self._items.places(lines, index, refused)
            quantity, unit_price = _amounts(lines, index, refused)
        else:
            channel = _channels(fields[2], index, refused)
            lines = Lines(np.arange(len(index)), fields[3:])
            names = self._items.places(lines, index, refused)
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
        self, values: Sequence[bytes | None], refused: Refusals
    ) -> tuple[Index, list[tuple[Any, ...]]]:
        """The fields of each record that decodes as a tuple, and its place in the slice."""
        index = np.arange(len(values))
        if refused.by_index:
            index = np.delete(index, list(refused.by_index))
            values = [values[n] for n in index.tolist()]
        rows: list[tuple[Any, ...] | None] = []
        reading = map(self._read, map(self._decode, cast(Sequence[bytes], values)))
        while True:
            # The iterator goes on after the record that raised: a good one costs no try of its own.
            try:
                rows.extend(reading)
                break
            except AttributeError:  # An object on a nested path is null.
                event = self._decode(cast(bytes, values[len(rows)]))
                rows.append(tuple(self._shape.dig(event, name) for name in self._names))
            except _UNFIT as error:
                mistyped = isinstance(error, msgspec.ValidationError)
                wrong = "InvalidField" if mistyped else "Undecodable"
                refused.add(int(index[len(rows)]), wrong, str(error))
                rows.append(None)
        good = [row for row in rows if row is not None]
        if len(good) < len(rows):
            index = index[[row is not None for row in rows]]
        return index, good

    def _fields(self, rows: list[tuple[Any, ...]]) -> Fields:
        """The rows as one sequence a field, in the order of `self._names`."""
        if not rows:
            return [()] * len(self._names)
        columns = list(zip(*rows, strict=True))
        return [columns[place] for place in self._places]

    def _order_lines(self, index: Index, fields: Fields, refused: Refusals) -> Lines:
        whole, quantity, unit_price, *series = fields[2:]
        record = np.arange(len(index))
        if whole.count(None) == len(whole):
            return Lines(record, series, quantity, unit_price)
        columns: Fields = (record.tolist(), quantity, unit_price, *series)
        flat: list[list[Any]] = [[] for _ in columns]
        done = 0
        for n in [n for n, lines in enumerate(whole) if lines is not None]:
            # Orders of one line are copied in stretches, up to the next whole order.
            _extend(flat, columns, slice(done, n))
            done = n + 1
            if not whole[n]:
                refused.add(int(index[n]), "MissingField", "the order has no lines")
            above = [column[n] for column in series]
            for line in whole[n]:
                own_quantity, own_price, *own = self._line_values(line)
                row = (n, own_quantity, own_price, *self._line_series(own, above))
                for column, value in zip(flat, row, strict=True):
                    column.append(value)
        _extend(flat, columns, slice(done, None))
        records, quantities, prices, *flat_series = flat
        return Lines(np.array(records, np.intp), flat_series, quantities, prices)

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


def _extend(columns: Sequence[list[Any]], source: Fields, part: slice) -> None:
    for column, values in zip(columns, source, strict=True):
        column += values[part]


def _hashes(event_ids: Sequence[Any], index: Index, refused: Refusals) -> Hashes:
    if None in event_ids:
        for i, event_id in zip(index.tolist(), event_ids, strict=True):
            if event_id is None:
                refused.add(i, "MissingField", "the field 'event_id' is missing")
        event_ids = ["" if event_id is None else event_id for event_id in event_ids]
    digests = b"".join(map(xxhash.xxh3_64_digest, map(str.encode, event_ids)))
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def _times(times: Sequence[Any], unit: TimeUnit, index: Index, refused: Refusals) -> Ints:
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


def _channels(kinds: Sequence[Any], index: Index, refused: Refusals) -> Ints:
    channel = np.fromiter(map(_CHANNEL_NUMBER.get, kinds, repeat(0)), np.int64, len(kinds))
    for n in np.flatnonzero(channel == 0).tolist():
        refused.add(int(index[n]), "MissingField", "the field 'kind' is missing")
    return channel


def _amounts(lines: Lines, index: Index, refused: Refusals) -> tuple[Floats, Floats]:
    quantity, unit_price = _numbers(lines.quantity), _numbers(lines.unit_price)
    size = np.abs(quantity)
    good = (size > 0) & (size <= MAX_QUANTITY) & (unit_price >= 0) & (unit_price <= MAX_UNIT_PRICE)
    for n in np.flatnonzero(~good).tolist():
        wrong = _wrong_amount(lines.quantity[n], lines.unit_price[n])
        refused.add(int(index[lines.record[n]]), *wrong)
    return quantity, unit_price


def _numbers(column: Sequence[float | None]) -> Floats:
    try:
        return np.fromiter(cast(Sequence[float], column), np.float64, len(column))
    except TypeError:
        return np.array(column, np.float64)  # None becomes NaN, which JSON itself cannot say.


def _wrong_amount(quantity: float | None, unit_price: float | None) -> tuple[str, str]:
    if quantity is None:
        return "MissingField", "the field 'quantity' is missing"
    if unit_price is None:
        return "MissingField", "the field 'unit_price' is missing"
    if quantity == 0 or abs(quantity) > MAX_QUANTITY:
        return "OutOfRange", f"quantity is {quantity}, expected not zero and at most {MAX_QUANTITY}"
    return "OutOfRange", f"unit_price is {unit_price}, expected 0 to {MAX_UNIT_PRICE}"
