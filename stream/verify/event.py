"""One record of an event topic as the recount reads it: plain JSON, then the rules. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from freshet.stream.config import Settings
from freshet.stream.verify.orders import OrderVersion

Kind = Literal["orders", "clicks"]

MAX_KEY_BYTES = 256
MAX_AMOUNT = 1e12
MAX_WORTH = 2.0**62  # of thousandths times ten-thousandths
MAX_FLOAT = float("inf")
LAST_TIME_MS = 253_402_300_799_999  # the end of the year 9999
MAX_INTEGER_DIGITS = 300  # of numbers that still fit a float

CLICKS = {"view": "views", "cart": "carts", "favourite": "favourites", "checkout": "checkouts"}
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))"
)
BLANKS = " \t\r\n\u00a0\u202f"
NUMERAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_EPOCH = datetime(1970, 1, 1)


class BadRecordError(Exception):
    """This record is a dead letter."""


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
    """A good record; of an order that is a state, `version` says what it is, and no line is."""

    event_id: str
    event_time_ms: int
    lines: list[Line]
    version: OrderVersion | None = None
    bad_lines: tuple[int, ...] = ()

    @property
    def content(self) -> tuple[object, ...]:
        """What it says, whatever the order of its lines."""
        return self.event_time_ms, *sorted((line.item_id, line.said) for line in self.lines)


def read_event(kind: Kind, key: bytes | None, value: bytes | None, settings: Settings) -> Event:
    """A record as an event.

    Raises:
        BadRecordError: It is a dead letter, whatever the clock says.
    """
    if value is None or (key is not None and len(key) > MAX_KEY_BYTES):
        raise BadRecordError("null value, or a key that is too long")
    record = parse(value, settings)
    events = settings.events
    mapping = events.fields_of(kind)
    event_id = text_of(value_at(record, "event_id", mapping))
    event_time = value_at(record, "event_time", mapping)
    if event_id is None or event_time is None:
        raise BadRecordError("no event_id or event_time")
    event_time_ms = time_ms(event_time, events.time_unit)
    if kind == "clicks":
        channel = CLICKS.get(text_of(value_at(record, "kind", mapping)) or "")
        if channel is None:
            raise BadRecordError("unknown kind of click")
        series = [text_of(value_at(record, name, mapping)) for name in events.series_by]
        return Event(event_id, event_time_ms, [Line(item_id_of(series), {channel: 1}, (channel,))])
    lines, bad = _order_lines(record, settings)
    return Event(event_id, event_time_ms, lines, bad_lines=bad)


def parse(value: bytes, settings: Settings) -> dict[str, Any]:
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


def value_at(record: Any, name: str, mapping: Mapping[str, Any], prefix: str = "") -> Any:
    """One of our fields as it stands there; None where a path leads to nothing."""
    for part in str(mapping.get(prefix + name, name)).split("."):
        record = record.get(part) if isinstance(record, dict) else None
    if isinstance(record, str) and not record.strip(BLANKS) and name != "lines":
        return None  # So shops say that there is none.
    return record


def text_of(value: Any) -> str | None:
    """An id: text, or a whole number."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecordError("a field that should be text")
    if isinstance(value, float) and (abs(value) >= 2**53 or value % 1):
        raise BadRecordError("a number that is not whole, for text")
    return str(int(value))


def number_of(value: Any) -> float | None:
    """An amount: a number, or a plain numeral."""
    if value is None:
        return None
    if isinstance(value, str) and NUMERAL.fullmatch(value.strip(BLANKS)):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecordError("a field that should be a number")
    if abs(value) >= MAX_FLOAT:
        raise BadRecordError("a number out of range")
    return float(value)


def _order_lines(record: Any, settings: Settings) -> tuple[list[Line], tuple[int, ...]]:
    """The good lines of an order, and the places of its bad ones."""
    events = settings.events
    mapping = events.fields_of("orders")
    whole = value_at(record, "lines", mapping)
    if whole is None:
        series = [text_of(value_at(record, name, mapping)) for name in events.series_by]
        return [_order_line(record, series, mapping, "")], ()
    if not isinstance(whole, list):
        raise BadRecordError("lines is not a list")
    lines, bad = [], []
    for place, line in enumerate(whole):
        try:
            lines.append(_line_inside(line, record, settings))
        except BadRecordError:
            bad.append(place)
    if not lines or (bad and events.orders.bad_lines == "whole"):
        raise BadRecordError("an order without good lines")
    return lines, tuple(bad)


def _line_inside(line: Any, record: Any, settings: Settings) -> Line:
    if not isinstance(line, dict):
        raise BadRecordError("a line that is not an object")
    mapping = settings.events.fields_of("orders")
    series = []
    for name in settings.events.series_by:
        value = text_of(value_at(line, name, mapping, "lines."))
        if value is None and name != "sku":
            value = text_of(value_at(record, name, mapping))
        series.append(value)
    return _order_line(line, series, mapping, "lines.")


def _order_line(
    line: Any, series: list[str | None], mapping: Mapping[str, Any], prefix: str
) -> Line:
    item_id = item_id_of(series)
    quantity = number_of(value_at(line, "quantity", mapping, prefix))
    unit_price = number_of(value_at(line, "unit_price", mapping, prefix))
    if quantity is None or unit_price is None:
        raise BadRecordError("no quantity or unit_price")
    if quantity == 0 or abs(quantity) >= MAX_AMOUNT or not 0 <= unit_price < MAX_AMOUNT:
        raise BadRecordError("quantity or unit_price out of range")
    thousandths = round(quantity * 1_000)
    price = round(unit_price * 10_000)
    if float(abs(thousandths)) * float(price) >= MAX_WORTH:
        raise BadRecordError("a line that is worth too much")
    revenue = (thousandths * price + 500) // 1_000
    if quantity < 0:
        amounts = {"returns": -thousandths}
    else:
        amounts = {"units": thousandths, "revenue": revenue, "orders": 1}
    stored = {name: amount for name, amount in amounts.items() if amount}
    return Line(item_id, stored, (thousandths, price))


def item_id_of(parts: Sequence[str | None]) -> str:
    if None in parts:
        raise BadRecordError("a field of series_by is missing")
    escaped = [(part or "").replace("\\", "\\\\").replace("|", "\\|") for part in parts]
    item_id = "|".join(escaped)
    if len(item_id.encode()) > MAX_KEY_BYTES:
        raise BadRecordError("the item_id is too long")
    return item_id


def time_ms(value: Any, unit: str) -> int:
    """Epoch milliseconds of a time.

    Raises:
        BadRecordError: It is none, or before 1970, or after 9999.
    """
    if isinstance(value, str) and NUMERAL.fullmatch(value.strip(BLANKS)):
        bare = value.strip()
        value = int(bare) if bare.lstrip("-").isdigit() else float(bare)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRecordError("no time")
    if isinstance(value, str):
        value = _rfc_3339_ms(value)
    elif isinstance(value, float):
        if not abs(value) < 1e20:
            raise BadRecordError("a time before 1970 or after 9999")
        value = round(value * {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}[unit]) // 1_000
    elif unit == "s":
        value = value * 1_000
    else:
        value = value // {"ms": 1, "us": 1_000, "ns": 1_000_000}[unit]
    if not 0 <= value <= LAST_TIME_MS:
        raise BadRecordError("a time before 1970 or after 9999")
    return int(value)


def _rfc_3339_ms(text: str) -> int:
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise BadRecordError("not an RFC 3339 time")
    day, time, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.strptime(f"{day} {time}", "%Y-%m-%d %H:%M:%S")
        ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        timezone(ahead)  # raises where the offset is a day or more
    except ValueError:
        raise BadRecordError("no such time") from None
    if int(minutes or 0) > 59:
        raise BadRecordError("no such offset")
    local_ms = (moment - _EPOCH) // timedelta(milliseconds=1) + int(f"{fraction or ''}000"[:3])
    ahead_ms = ahead // timedelta(milliseconds=1)
    return local_ms + ahead_ms if sign == "-" else local_ms - ahead_ms
