"""One record of an event topic as the recount reads it: plain JSON, then the map, then the rules.

It shares no code with those who decode. Pure, but where a registry is asked for a schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from freshet.stream.config import Settings
from freshet.stream.verify.formats import NothingToSayError, opened
from freshet.stream.verify.map import Headers, Map, Place, header, ours
from freshet.stream.verify.orders import OrderVersion, key_is
from freshet.stream.verify.values import BadRecordError, time_ms

__all__ = ["BadRecordError", "Event", "Kind", "Line", "SkippedRecordError", "read_event", "time_ms"]

Kind = Literal["orders", "clicks"]

MAX_KEY_BYTES = 256
MAX_AMOUNT = 1e12
MAX_WORTH = 2.0**62  # of thousandths times ten-thousandths
MAX_ORDER = 2.0**61  # of all lines of an order that is a state
MAX_INTEGER_DIGITS = 300  # of numbers that still fit a float

CLICKS = {"view": "views", "cart": "carts", "favourite": "favourites", "checkout": "checkouts"}


class SkippedRecordError(Exception):
    """This record is none of ours."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one line of an event adds: amounts by channel, in stored integers.

    `said` is quantity and price in these integers, or the kind of click.
    """

    item_id: str
    amounts: dict[str, int]
    said: tuple[int | str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Event:
    """A good record; of an order that is a state, `version` says what it is, and no line is.

    `bad_lines` are the places of lines that it has to do without.
    """

    event_id: str
    event_time_ms: int
    lines: list[Line]
    version: OrderVersion | None = None
    bad_lines: tuple[int, ...] = ()

    @property
    def content(self) -> tuple[object, ...]:
        """What it says, whatever the order of its lines."""
        return self.event_time_ms, *sorted((line.item_id, line.said) for line in self.lines)


def read_event(
    kind: Kind,
    key: bytes | None,
    value: bytes | None,
    settings: Settings,
    timestamp_ms: int = 0,
    headers: Headers = (),
) -> Event:
    """A record as an event.

    Raises:
        BadRecordError: It is a dead letter, whatever the clock says.
        SkippedRecordError: It is none of ours.
    """
    if header(headers, "freshet-fields") == "own":
        settings = settings.model_copy(update={"events": settings.events.in_own_fields()})
    place = _place(kind, key, value, settings, timestamp_ms, headers)
    section = settings.events.section(kind)
    if section.skip_when and ours(section.skip_when, place.record, every=False):
        raise SkippedRecordError("skip_when")
    if section.keep_when and not ours(section.keep_when, place.record, every=True):
        raise SkippedRecordError("keep_when")
    reader = _Reader(kind, settings, place)
    if kind == "clicks":
        return reader.click()
    return reader.state() if settings.events.orders.mode == "state" else reader.order()


def _place(
    kind: Kind,
    key: bytes | None,
    value: bytes | None,
    settings: Settings,
    timestamp_ms: int,
    headers: Headers,
) -> Place:
    """The record as JSON, with what it came with."""
    section = settings.events.section(kind)
    complete = (header(headers, "freshet-history") or "").endswith(":complete")
    told_complete = value == b"" and complete
    skips_tombstones = settings.events.orders.mode == "state" and kind == "orders"
    skips_tombstones |= getattr(section, "tombstones", "dead") == "skip"
    if not told_complete:
        try:
            key, value = opened(section, settings, key, value, headers)
        except NothingToSayError as why:
            raise SkippedRecordError(str(why)) from None
    if key is not None and len(key) > MAX_KEY_BYTES:
        raise BadRecordError("a key that is too long")
    if told_complete or (value is None and skips_tombstones):
        raise SkippedRecordError("nothing is said")
    if value is None:
        raise BadRecordError("a null value")
    return Place(_parse(value, settings), key, headers, timestamp_ms)


def _parse(value: bytes, settings: Settings) -> dict[str, Any]:
    if len(value) > settings.kafka.max_record_bytes:
        raise BadRecordError("the value is too large")
    try:
        text = value.decode("utf-8")
        _check_depth(text, settings.events.max_depth)
        record = json.loads(text, parse_constant=_no_constant, parse_int=_integer)
        if "\\u" in text:  # Half a surrogate pair is no text.
            json.dumps(record, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise BadRecordError(str(error)) from None
    if not isinstance(record, dict):
        raise BadRecordError("not an object")
    return record


def _check_depth(text: str, deepest: int) -> None:
    if text.count("[") + text.count("{") <= deepest:
        return
    depth, inside, escaped = 0, False, False
    for letter in text:
        if inside:
            inside = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            inside = True
        elif letter in "[{":
            depth += 1
            if depth > deepest:
                raise BadRecordError("nested too deep")
        elif letter in "]}":
            depth -= 1


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float("inf")


# What a record says -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Amounts:
    """One line: its item, thousandths and ten-thousandths of money, and these before rounding."""

    item_id: str
    thousandths: int
    price: int
    size: float
    worth: float


class _Reader:
    """Reads the event that one record is."""

    def __init__(self, kind: Kind, settings: Settings, place: Place) -> None:
        self._kind = kind
        self._settings = settings
        self._events = settings.events
        self._place = place
        self._map = Map(kind, settings.events)
        self._lines_map = Map(kind, settings.events, "lines.")

    def click(self) -> Event:
        event_id, at_ms = self._needed_text("event_id"), self._event_time_ms()
        channel = CLICKS.get(self._needed_text("kind"))
        if channel is None:
            raise BadRecordError("unknown kind of click")
        said = (channel,)
        if "lines" not in self._events.fields_of("clicks"):
            return Event(event_id, at_ms, [Line(self._item(), {channel: 1}, said)])
        event_id, good, bad = self._some_lines(event_id)
        lines = [Line(line.item_id, {channel: 1}, said) for line in good]
        return Event(event_id, at_ms, lines, bad_lines=bad)

    def order(self) -> Event:
        event_id, at_ms = self._needed_text("event_id"), self._event_time_ms()
        event_id, good, bad = self._some_lines(event_id)
        if bad and self._events.orders.bad_lines == "whole":
            raise BadRecordError("a line is not good")
        return Event(event_id, at_ms, [_added(line) for line in good], bad_lines=bad)

    def _some_lines(self, event_id: str) -> tuple[str, list[_Amounts], tuple[int, ...]]:
        """The id, the good lines and the places of the others; or the one line that is meant."""
        alone = header(self._place.headers, "freshet-line")
        bad: list[int] = []
        if alone is None:
            good = []
            for number, line in enumerate(self._lines()):
                if isinstance(line, BadRecordError):
                    bad.append(number)
                else:
                    good.append(line)
            if not good:
                raise BadRecordError("no line is good")
        else:
            line = self._line_alone(alone)
            event_id, good = f"{event_id}#{int(alone)}", [line]
        return event_id, good, tuple(bad)

    def state(self) -> Event:
        order_id, created_ms = self._needed_text("order_id"), self._event_time_ms()
        version = self._map.version("version", self._place)
        if version is None:
            raise BadRecordError("no version")
        number, version_ms = version
        changed_ms = self._map.time_ms("changed_at", self._place)
        if changed_ms is None:
            changed_ms = self._place.timestamp_ms if version_ms is None else version_ms
        lines: list[_Amounts] = []
        given_back = [self._map.flag(name, self._place) for name in ("cancelled", "deleted")]
        if not any(given_back):
            for line in self._lines():
                if isinstance(line, BadRecordError):
                    raise line
                lines.append(line)
        lines = [line for line in lines if line.thousandths > 0]
        self._check_state(order_id, created_ms, changed_ms, lines)
        items: dict[str, tuple[int, int]] = {}
        for line in lines:
            quantity, worth = items.get(line.item_id, (0, 0))
            worth += line.thousandths * line.price
            items[line.item_id] = quantity + line.thousandths, worth
        # Of one number, what is given back comes after what was there.
        number = 2 * number + any(given_back)
        return Event(order_id, changed_ms, [], OrderVersion(order_id, number, created_ms, items))

    def _check_state(
        self, order_id: str, created_ms: int, changed_ms: int, lines: list[_Amounts]
    ) -> None:
        if created_ms - changed_ms > self._settings.windows.max_future_ms:
            raise BadRecordError("an order that was made after it changed")
        if sum(line.worth for line in lines) >= MAX_ORDER:
            raise BadRecordError("an order that is worth too much")
        if sum(line.size for line in lines) >= MAX_ORDER:
            raise BadRecordError("an order of too many")
        if self._events.orders.key != "any" and not key_is(order_id, self._place.key):
            raise BadRecordError("a key that is not the order's id")

    # Fields ---------------------------------------------------------------------------------------

    def _needed_text(self, name: str) -> str:
        found = self._map.text(name, self._place)
        if found is None:
            raise BadRecordError(f"no {name}")
        return found

    def _event_time_ms(self) -> int:
        found = self._map.time_ms("event_time", self._place)
        if found is None:
            raise BadRecordError("no event_time")
        return found

    def _lines(self) -> Iterator[_Amounts | BadRecordError]:
        """Each line, or what is wrong with it.

        Raises:
            BadRecordError: The order has no lines to look at.
        """
        whole = self._whole_lines()
        if whole is None:
            yield self._flat()
            return
        if not isinstance(whole, list):
            raise BadRecordError("lines is no list")
        if not whole and (self._kind == "clicks" or self._events.orders.mode != "state"):
            raise BadRecordError("an order without lines")
        for line in whole:
            try:
                yield self._line(line)
            except BadRecordError as error:
                yield error

    def _whole_lines(self) -> Any:
        """The lines as they are; where they are JSON inside a text, what that says."""
        whole = self._map.value("lines", self._place)
        if isinstance(whole, str):
            try:
                found = json.loads(whole, parse_constant=_no_constant, parse_int=_integer)
                json.dumps(found, ensure_ascii=False).encode("utf-8")
                return found
            except (ValueError, RecursionError):
                return whole
        return whole

    def _line_alone(self, said: str) -> _Amounts:
        whole = self._whole_lines()
        if not (said.isascii() and said.isdigit() and len(said) < MAX_KEY_BYTES):
            raise BadRecordError("a header that names no line")
        if not isinstance(whole, list) or int(said) >= len(whole):
            raise BadRecordError("an order without that line")
        return self._line(whole[int(said)])

    def _flat(self) -> _Amounts:
        return self._amounts(self._map, self._place, self._item())

    def _item(self) -> str:
        return _item_id([self._needed_text(name) for name in self._events.series_by])

    def _line(self, line: Any) -> _Amounts:
        if not isinstance(line, dict):
            raise BadRecordError("a line that is no object")
        place = self._place.line(line)
        series = []
        for name in self._events.series_by:
            said = self._lines_map.text(name, place)
            if said is None and name != "sku":
                said = self._map.text(name, self._place)
            if said is None:
                raise BadRecordError(f"no {name}")
            series.append(said)
        return self._amounts(self._lines_map, place, _item_id(series))

    def _amounts(self, of: Map, place: Place, item_id: str) -> _Amounts:
        if self._kind == "clicks":
            return _Amounts(item_id, 0, 0, 0.0, 0.0)
        quantity, price = of.number("quantity", place), of.number("unit_price", place)
        if quantity is None or price is None:
            raise BadRecordError("no quantity or unit_price")
        state = self._events.orders.mode == "state"
        if not (quantity >= 0 if state else quantity != 0) or not abs(quantity) < MAX_AMOUNT:
            raise BadRecordError("quantity out of range")
        if not 0 <= price < MAX_AMOUNT:
            raise BadRecordError("unit_price out of range")
        thousandths, ten_thousandths = round(quantity * 1_000), round(price * 10_000)
        if float(abs(thousandths)) * float(ten_thousandths) >= MAX_WORTH:
            raise BadRecordError("a line that is worth too much")
        size = quantity * 1_000
        return _Amounts(item_id, thousandths, ten_thousandths, size, size * price * 10_000)


def _added(line: _Amounts) -> Line:
    """What a line of an order adds, without what is 0."""
    if line.size < 0:
        amounts = {"returns": -line.thousandths}
    else:
        revenue = (line.thousandths * line.price + 500) // 1_000
        amounts = {"units": line.thousandths, "revenue": revenue, "orders": 1}
    stored = {name: amount for name, amount in amounts.items() if amount}
    return Line(line.item_id, stored, (line.thousandths, line.price))


def _item_id(series: list[str]) -> str:
    item_id = "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in series)
    if len(item_id.encode()) > MAX_KEY_BYTES:
        raise BadRecordError("the item_id is too long")
    return item_id
