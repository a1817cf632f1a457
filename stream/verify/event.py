"""One record of an event topic as the recount reads it: plain JSON, then the rules. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from freshet.stream.config import Settings
from freshet.stream.verify.orders import OrderVersion

Kind = Literal["orders", "clicks"]

MAX_KEY_BYTES = 256
MAX_QUANTITY = 1_000_000
MAX_UNIT_PRICE = 900_000
LAST_TIME_MS = 253_402_300_799_999  # the end of the year 9999
MAX_INTEGER_DIGITS = 300  # of numbers that still fit a float

CLICKS = {"view": "views", "cart": "carts", "favourite": "favourites", "checkout": "checkouts"}
NUMBERS = ("quantity", "unit_price")
FIELDS = {
    "orders": ("event_id", "order_id", "event_time", "sku", "region", "quantity", "unit_price"),
    "clicks": ("event_id", "session_id", "event_time", "sku", "region", "kind"),
}
LINE_FIELDS = ("sku", "region", "quantity", "unit_price")

_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))"
)
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
    record = _parse(value, settings)
    events = settings.events
    mapping = events.orders_fields if kind == "orders" else events.clicks_fields
    names = (*FIELDS[kind], *(name for name in events.series_by if name not in FIELDS[kind]))
    fields = {name: _field(record, name, mapping.get(name, name)) for name in names}
    event_id, event_time = fields["event_id"], fields["event_time"]
    if event_id is None or event_time is None:
        raise BadRecordError("no event_id or event_time")
    if kind == "clicks":
        if fields["kind"] not in CLICKS:
            raise BadRecordError("unknown kind of click")
        channel = CLICKS[fields["kind"]]
        lines = [Line(_item_id(fields, events.series_by), {channel: 1}, (channel,))]
    else:
        lines = _order_lines(record, fields, settings)
    return Event(event_id, time_ms(event_time, events.time_unit), lines)


def _parse(value: bytes, settings: Settings) -> dict[str, Any]:
    if len(value) > settings.kafka.max_record_bytes:
        raise BadRecordError("the value is too large")
    try:
        text = value.decode("utf-8")
        _check_depth(text, settings.events.max_depth)
        record = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer
        )
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


class _Repeating(dict[str, Any]):
    """An object that names a field twice: the last one counts, but all must be well-typed."""

    pairs: list[tuple[str, Any]]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    repeating = _Repeating(record)
    repeating.pairs = pairs
    return repeating


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float("inf")


def _values(record: Any, path: list[str]) -> list[Any]:
    """Every value given at a path, the one that counts last; None where there is none."""
    if record is None:
        return [None]
    if not isinstance(record, dict):
        raise BadRecordError("a value where an object was expected")
    pairs = record.pairs if isinstance(record, _Repeating) else record.items()
    found = [value for name, value in pairs if name == path[0]]
    if len(path) == 1:
        return found or [None]
    return [value for inner in found for value in _values(inner, path[1:])] or [None]


def _field(record: Any, name: str, path: str) -> Any:
    """One of our fields, typed; None where it is missing."""
    values = _values(record, path.split("."))
    for value in values:
        if value is None:
            continue
        if not _well_typed(name, value):
            raise BadRecordError(f"{name} is mistyped")
    return values[-1]


def _well_typed(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if name == "event_time":
        return isinstance(value, str | int)
    if name in NUMBERS:
        return isinstance(value, int | float) and abs(value) < float("inf")
    return isinstance(value, str) and (name != "kind" or value in CLICKS)


def _order_lines(record: Any, fields: dict[str, Any], settings: Settings) -> list[Line]:
    mapping, series_by = settings.events.orders_fields, settings.events.series_by
    whole: list[Any] | None = None
    for given in _values(record, mapping.get("lines", "lines").split(".")):
        if given is not None and not isinstance(given, list):
            raise BadRecordError("lines is not a list")
        whole = None
        if given is not None:
            whole = [_line_fields(line, mapping, series_by) for line in given]
    if whole is None:
        return [_order_line(fields, series_by)]
    if not whole:
        raise BadRecordError("an order without lines")
    lines = []
    for own in whole:
        above = {name: fields[name] for name in series_by if name != "sku" and own[name] is None}
        lines.append(_order_line({**own, **above}, series_by))
    return lines


def _line_fields(line: Any, mapping: dict[str, str], series_by: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(line, dict):
        raise BadRecordError("a line that is not an object")
    names = (*LINE_FIELDS, *(name for name in series_by if name not in LINE_FIELDS))
    return {name: _field(line, name, mapping.get(f"lines.{name}", name)) for name in names}


def _order_line(fields: dict[str, Any], series_by: tuple[str, ...]) -> Line:
    quantity, unit_price = fields["quantity"], fields["unit_price"]
    if quantity is None or unit_price is None:
        raise BadRecordError("no quantity or unit_price")
    if not 0 < abs(quantity) <= MAX_QUANTITY or not 0 <= unit_price <= MAX_UNIT_PRICE:
        raise BadRecordError("quantity or unit_price out of range")
    thousandths = round(float(quantity) * 1_000)
    price = round(float(unit_price) * 10_000)
    revenue = (thousandths * price + 500) // 1_000
    if quantity < 0:
        amounts = {"returns": -thousandths}
    else:
        amounts = {"units": thousandths, "revenue": revenue, "orders": 1}
    stored = {name: amount for name, amount in amounts.items() if amount}
    return Line(_item_id(fields, series_by), stored, (thousandths, price))


def _item_id(fields: dict[str, Any], series_by: tuple[str, ...]) -> str:
    parts = [fields[name] for name in series_by]
    if None in parts:
        raise BadRecordError("a field of series_by is missing")
    item_id = "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)
    if len(item_id.encode()) > MAX_KEY_BYTES:
        raise BadRecordError("the item_id is too long")
    return item_id


def time_ms(value: int | str, unit: str) -> int:
    """Epoch milliseconds of a time.

    Raises:
        BadRecordError: It is none, or before 1970, or after 9999.
    """
    if isinstance(value, str):
        value = _rfc_3339_ms(value)
    elif unit == "s":
        value = value * 1_000
    elif unit == "us":
        value = value // 1_000
    if not 0 <= value <= LAST_TIME_MS:
        raise BadRecordError("a time before 1970 or after 9999")
    return value


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
