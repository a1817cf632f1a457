"""The lines of orders, and of clicks on several items; records of one line are their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.event_settings import EventSettings
from freshet.stream.events.item_names import ItemNames
from freshet.stream.events.map.compiler import Compiler
from freshet.stream.events.map.levels import Column, Level, LineLevel, Wrong
from freshet.stream.events.map.missing import Watch, lines_of, missing, record_of
from freshet.stream.events.map.names import AMOUNTS, LINE_PREFIX, LINES
from freshet.stream.events.map.numerals import NumberField
from freshet.stream.events.map.paths import dig
from freshet.stream.events.map.shapes import Row, Shape
from freshet.stream.events.map.texts import TextField, kind_name

MAX_AMOUNT: Final = 1e12
"""Of a quantity and of a price, exclusive."""
MAX_REVENUE: Final = 2.0**62
"""Of thousandths times ten-thousandths, exclusive: half of what an int64 holds."""
ITSELF: Final = -1
"""The number of a line that is its order itself."""

Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines in log order: `record` is a position among the records, `number` their place in it.

    `wrong` is what is wrong with some of them, by their place among all lines.
    """

    record: Index
    number: Ints
    name: Ints
    quantity: Floats
    unit_price: Floats
    wrong: Mapping[int, Wrong]

    def where(self, chosen: Bools) -> Lines:
        """Some of the lines, none of which is wrong."""
        return Lines(
            record=self.record[chosen],
            number=self.number[chosen],
            name=self.name[chosen],
            quantity=self.quantity[chosen] if len(self.quantity) else self.quantity,
            unit_price=self.unit_price[chosen] if len(self.unit_price) else self.unit_price,
            wrong={},
        )


class _Part:
    """The fields of lines at one level: the records themselves, or the lines in them."""

    def __init__(
        self, compiler: Compiler, series_by: Sequence[str], amounts: Sequence[str]
    ) -> None:
        self.compiler = compiler
        self.amounts: list[NumberField] = [compiler.number(name) for name in amounts]
        self.series: list[TextField] = [compiler.text(name) for name in series_by]


class OrderLines:
    """Reads the lines of orders, or of clicks, whose lines have no amounts.

    Args:
        kind: Which of them.
        records: Of the records' own fields.
        events: What a shop's records are.
        names: Gives each line its item.
    """

    def __init__(
        self,
        kind: Literal["orders", "clicks"],
        records: Compiler,
        events: EventSettings,
        names: ItemNames,
    ) -> None:
        self._names = names
        self._state = kind == "orders" and events.orders.mode == "state"
        self._noun = "order" if kind == "orders" else "click"
        self._amounts = tuple(AMOUNTS) if kind == "orders" else ()
        self._records = records
        self._own = _Part(records, events.series_by, self._amounts)
        compiler = Compiler(kind, events, LINE_PREFIX, records.slots)
        self._nested = _Part(compiler, events.series_by, self._amounts)
        self._source, slot = records.lines(LINES)
        self.line_shape: Shape = compiler.slots.shape("Line")
        kinds: dict[int, Any] = {}
        if slot is not None and not self.line_shape.loose:
            line: Any = self.line_shape.struct
            kinds[slot] = list[line] | None
        self.shape: Shape = records.slots.shape("Order", kinds)
        self._typed = slot in self.shape.typed
        self.watch = Watch(compiler, LINE_PREFIX)

    def read(
        self, level: Level, values: Sequence[bytes | None], only: Mapping[int, int]
    ) -> tuple[Lines, dict[int, Wrong]]:
        """The lines of some records, and what is wrong with records as a whole.

        Args:
            level: The orders.
            values: Their bytes, to say what was seen where a field is missing.
            only: Of some orders the one line that counts.
        """
        whole = self._source.column(level)
        if not only and whole.count(None) == len(whole):
            return self._settled([self._flat(level, np.arange(level.size), values)]), {}
        wrong: dict[int, Wrong] = {}
        asked = [n for n, lines in enumerate(whole) if lines is not None or n in only]
        nested = self._inside(level, asked, whole, values, only, wrong)
        flat = np.ones(level.size, np.bool_)
        flat[asked] = False
        own = self._flat(level.where(flat), np.flatnonzero(flat), values)
        return self._settled([own, nested]), wrong

    def some_lines(self, records: Sequence[Any]) -> list[Any]:
        """The first line of each of some records that are plain JSON and have lines."""
        steps = self._records.paths(LINES)
        found = (dig(record, path) for record in records for path in steps)
        return [line for line in map(lines_of, found) if line is not None]

    # Orders of one line ---------------------------------------------------------------------------

    def _flat(self, level: Level, record: Index, values: Sequence[bytes | None]) -> _Raw:
        """The orders at some places that are their own lines."""

        def seen(line: int) -> Any:
            return record_of(values[record[line]])

        wrong: dict[int, Wrong] = {}
        series = [field.read(level) for field in self._own.series]
        for field, found in zip(self._own.series, series, strict=True):
            _note(wrong, found.wrong)
            for n in found.lacking:
                if n not in wrong:
                    wrong[n] = missing(self._records, field.name, seen(n))
        raw = _Raw(record, np.full(len(record), ITSELF), [found.values for found in series], wrong)
        raw.amounts(self._own, level, seen)
        return raw

    # Lines of whole orders ------------------------------------------------------------------------

    def _inside(
        self,
        level: Level,
        asked: Sequence[int],
        whole: Column,
        values: Sequence[bytes | None],
        only: Mapping[int, int],
        wrong: dict[int, Wrong],
    ) -> _Raw:
        record: list[int] = []
        number: list[int] = []
        given: list[Any] = []
        for n in asked:
            lines = whole[n] if not isinstance(whole[n], str) else _of_text(whole[n])
            why = self._no_lines(lines, only.get(n))
            if why is not None:
                wrong[n] = why
            else:
                chosen = range(len(lines)) if n not in only else (only[n],)
                number += chosen
                record += [n] * len(chosen)
                given += lines if n not in only else [lines[only[n]]]
        bad: dict[int, Wrong] = {}
        rows = self._rows(given, bad)
        inside = LineLevel(rows, self.line_shape, level, record)

        def seen(line: int) -> Any:
            lines = self._plain_lines(values[record[line]])
            return lines[number[line]] if isinstance(lines, list) else None

        self.watch.see(inside, lambda: lines_of([seen(0)]))
        series = [self._series(field, own, inside, bad, seen) for field, own in self._pairs()]
        raw = _Raw(np.array(record, np.intp), np.array(number, np.int64), series, bad)
        raw.amounts(self._nested, inside, seen)
        return raw

    def _pairs(self) -> list[tuple[TextField, TextField]]:
        return list(zip(self._nested.series, self._own.series, strict=True))

    def _no_lines(self, lines: Any, only: int | None) -> Wrong | None:
        """Why a record has no lines to look at, if so."""
        if only is not None and not (isinstance(lines, list) and 0 <= only < len(lines)):
            return "InvalidHeader", f"the {self._noun} has no line {only}"
        if isinstance(lines, list) and (lines or self._state):
            return None
        if isinstance(lines, list):
            return "MissingField", f"the {self._noun} has no lines"
        return "InvalidField", f"the field 'lines' is {kind_name(lines)}, expected an array"

    def _rows(self, given: Sequence[Any], bad: dict[int, Wrong]) -> list[Row]:
        shape = self.line_shape
        if self._typed:
            try:
                return list(map(shape.get, given))
            except (AttributeError, TypeError):  # Something is null, or a record that is loose.
                pass
        return [self._row(n, line, bad) for n, line in enumerate(given)]

    def _row(self, n: int, line: Any, bad: dict[int, Wrong]) -> Row:
        if isinstance(line, dict):
            return self.line_shape.loose_row(line)
        if self._typed and isinstance(line, self.line_shape.struct):
            return self.line_shape.row(line)
        found = "null" if line is None else kind_name(line)
        bad[n] = ("InvalidField", f"the line is {found}, expected an object")
        return self.line_shape.loose_row(None)

    def _plain_lines(self, value: bytes | None) -> Any:
        record = record_of(value)
        found = (dig(record, steps) for steps in self._records.paths(LINES))
        lines = next((lines for lines in found if lines is not None), None)
        return _of_text(lines) if isinstance(lines, str) else lines

    def _series(
        self, field: TextField, own: TextField, inside: LineLevel, bad: dict[int, Wrong], seen: Any
    ) -> Column:
        """A field of the series: what a line does not say, its order says, but for the sku."""
        found = field.read(inside)
        if found.complete:
            return found.values
        column, wrong = found.values, dict(found.wrong)
        if field.name != "sku":
            above = own.read(inside.above)
            column = [
                above.values[inside.record[n]] if value is None and n not in wrong else value
                for n, value in enumerate(column)
            ]
            for n in _places_of_none(column):
                why = above.wrong.get(inside.record[n])
                if why is not None:
                    wrong.setdefault(n, why)
        _note(bad, wrong)
        for n in _places_of_none(column):
            if n not in bad:
                bad[n] = missing(self._nested.compiler, field.name, seen(n))
        return column

    # All of them ----------------------------------------------------------------------------------

    def _settled(self, parts: Sequence[_Raw]) -> Lines:
        """Lines of both sorts in log order, with their items, and their amounts checked."""
        wrong: dict[int, Wrong] = {}
        start = 0
        for part in parts:
            wrong |= {start + n: why for n, why in part.wrong.items()}
            start += len(part.record)
        record = np.concatenate([part.record for part in parts])
        number = np.concatenate([part.number for part in parts])
        series = parts[0].series
        if len(parts) > 1:
            columns = zip(*(part.series for part in parts), strict=True)
            series = [[*flat, *nested] for flat, nested in columns]
        name = self._names.places(series, wrong)
        quantity = np.concatenate([part.quantity for part in parts])
        unit_price = np.concatenate([part.unit_price for part in parts])
        if self._amounts:
            self._check(quantity, unit_price, wrong)
        if len(parts) == 1:
            return Lines(record, number, name, quantity, unit_price, wrong)
        order = np.argsort(record, kind="stable")
        place = np.empty(len(order), np.intp)
        place[order] = np.arange(len(order))
        moved = {int(place[n]): why for n, why in wrong.items()}
        if self._amounts:
            quantity, unit_price = quantity[order], unit_price[order]
        return Lines(record[order], number[order], name[order], quantity, unit_price, moved)

    def _check(self, quantity: Floats, unit_price: Floats, wrong: dict[int, Wrong]) -> None:
        for n in np.flatnonzero(~fitting(quantity, unit_price, state=self._state)).tolist():
            why = _why_unfit(float(quantity[n]), float(unit_price[n]), state=self._state)
            wrong.setdefault(n, ("OutOfRange", why))


class _Raw:
    """Lines of one sort before they are put in order."""

    def __init__(
        self, record: Index, number: Ints, series: Sequence[Column], wrong: dict[int, Wrong]
    ) -> None:
        self.record = record
        self.number = number
        self.series = series
        self.wrong = wrong
        self.quantity: Floats = np.empty(0)
        self.unit_price: Floats = np.empty(0)

    def amounts(self, part: _Part, level: Level, seen: Any) -> None:
        """Read what each line adds, if it has amounts; `seen` gives a line as plain JSON."""
        read = [field.read(level) for field in part.amounts]
        if read:
            self.quantity, self.unit_price = (found.values for found in read)
        for field, found in zip(part.amounts, read, strict=True):
            _note(self.wrong, found.wrong)
            for n in np.flatnonzero(np.isnan(found.values)).tolist():
                if n not in self.wrong:
                    self.wrong[n] = missing(part.compiler, field.name, seen(n))


def fitting(quantity: Floats, unit_price: Floats, *, state: bool) -> Bools:
    """Which amounts fit what is stored: revenue is a product of integers in an int64."""
    size = np.minimum(np.abs(quantity), MAX_AMOUNT)
    price = np.clip(unit_price, -1.0, MAX_AMOUNT)
    signed = quantity >= 0 if state else size > 0
    within = (size < MAX_AMOUNT) & (price >= 0) & (price < MAX_AMOUNT)
    revenue = np.rint(size * 1_000) * np.rint(price * 10_000)
    good: Bools = signed & within & (revenue < MAX_REVENUE)
    return good


def _why_unfit(quantity: float, unit_price: float, *, state: bool) -> str:
    if state and quantity < 0:
        return f"quantity is {quantity:g}, expected 0 or more of an order's state"
    if (quantity == 0 and not state) or not abs(quantity) < MAX_AMOUNT:
        return f"quantity is {quantity:g}, expected not zero and below {MAX_AMOUNT:.0f}"
    if not 0 <= unit_price < MAX_AMOUNT:
        return f"unit_price is {unit_price:g}, expected 0 or more and below {MAX_AMOUNT:.0f}"
    return f"{quantity:g} at {unit_price:g} is more than an order line can be worth"


def _of_text(text: str) -> Any:
    """An array that came as JSON inside a text, as of a column of a database; else the text."""
    lines = record_of(text.encode("utf-8", "surrogatepass"))
    return lines if isinstance(lines, list) else text


def _note(wrong: dict[int, Wrong], more: Mapping[int, Wrong]) -> None:
    for n, why in more.items():
        wrong.setdefault(n, why)


def _places_of_none(column: Column) -> list[int]:
    return [n for n, value in enumerate(column) if value is None] if None in column else []
