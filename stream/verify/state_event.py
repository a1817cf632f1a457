"""A record that says what an order is, as the recount reads it: plain JSON, then rules. Pure."""

from __future__ import annotations

from typing import Any

from freshet.stream.config import Settings
from freshet.stream.verify.event import (
    MAX_AMOUNT,
    MAX_KEY_BYTES,
    MAX_WORTH,
    NUMERAL,
    BadRecordError,
    Event,
    item_id_of,
    number_of,
    parse,
    text_of,
    time_ms,
    value_at,
)
from freshet.stream.verify.orders import OrderVersion, key_is

MAX_TOGETHER = 2.0**61
"""Of an order's thousandths, and of these times ten-thousandths of money."""
INT64 = range(-(2**63), 2**63)


class SkippedRecordError(Exception):
    """This record is none of ours, and counted as such."""


def read_state(
    key: bytes | None, value: bytes | None, settings: Settings, timestamp_ms: int
) -> Event:
    """A record as an event without lines, whose `version` says what the order is.

    Its time is when the order changed.

    Raises:
        BadRecordError: It is a dead letter, whatever the clock says.
        SkippedRecordError: It is a tombstone.
    """
    if key is not None and len(key) > MAX_KEY_BYTES:
        raise BadRecordError("the key is too long")
    if value is None:
        raise SkippedRecordError
    record = parse(value, settings)
    events = settings.events
    mapping = events.fields_of("orders")
    order_id = text_of(value_at(record, "order_id", mapping))
    created = value_at(record, "event_time", mapping)
    version = value_at(record, "version", mapping)
    if order_id is None or created is None or version is None:
        raise BadRecordError("no order_id, event_time or version")
    created_ms = time_ms(created, events.time_unit)
    number, told_ms = _version(version, settings)
    changed = value_at(record, "changed_at", mapping)
    changed_ms = timestamp_ms if told_ms is None else told_ms
    if changed is not None:
        changed_ms = time_ms(changed, events.time_unit)
    flags = [value_at(record, name, mapping) for name in ("cancelled", "deleted")]
    given_back = any(flag not in (None, False, 0, "", "false") for flag in flags)
    items = {} if given_back else _items(record, settings)
    if created_ms > changed_ms + settings.windows.max_future_ms:
        raise BadRecordError("made after it changed")
    if events.orders.key == "order_id" and not key_is(order_id, key):
        raise BadRecordError("under another key")
    told = OrderVersion(order_id, number, created_ms, items)
    return Event(order_id, changed_ms, [], version=told)


def _version(value: Any, settings: Settings) -> tuple[int, int | None]:
    """Its number, and its time where it is one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRecordError("the version is neither a number nor a time")
    if isinstance(value, str):
        if not NUMERAL.fullmatch(value.strip()):
            moment_ms = time_ms(value, settings.events.time_unit)
            return moment_ms, moment_ms
        bare = value.strip()
        value = int(bare) if bare.lstrip("+-").isdigit() else float(bare)
    if isinstance(value, float):
        if abs(value) >= 2**53 or value % 1:
            raise BadRecordError("the version is not whole")
        value = int(value)
    if value not in INT64:
        raise BadRecordError("the version is out of range")
    return value, None


def _items(record: Any, settings: Settings) -> dict[str, tuple[int, int]]:
    """Thousandths and their worth by item, in the order of the lines."""
    mapping, series_by = settings.events.fields_of("orders"), settings.events.series_by
    whole = value_at(record, "lines", mapping)
    if whole is not None and not isinstance(whole, list):
        raise BadRecordError("lines is not a list")
    items: dict[str, tuple[int, int]] = {}
    for line in [record] if whole is None else whole:
        if not isinstance(line, dict):
            raise BadRecordError("a line that is not an object")
        prefix = "" if whole is None else "lines."
        series = []
        for name in series_by:
            own = text_of(value_at(line, name, mapping, prefix))
            if own is None and name != "sku":
                own = text_of(value_at(record, name, mapping))
            series.append(own)
        item_id = item_id_of(series)
        quantity = number_of(value_at(line, "quantity", mapping, prefix))
        unit_price = number_of(value_at(line, "unit_price", mapping, prefix))
        thousandths, price = _amounts(quantity, unit_price)
        if thousandths:
            held, worth = items.get(item_id, (0, 0))
            items[item_id] = (held + thousandths, worth + thousandths * price)
    for together in (sum(held for held, _ in items.values()), sum(w for _, w in items.values())):
        if together >= MAX_TOGETHER:
            raise BadRecordError("the lines are together more than can be stored")
    return items


def _amounts(quantity: float | None, unit_price: float | None) -> tuple[int, int]:
    """Thousandths, and ten-thousandths of money."""
    if quantity is None or unit_price is None:
        raise BadRecordError("no quantity or unit_price")
    if not 0 <= quantity < MAX_AMOUNT or not 0 <= unit_price < MAX_AMOUNT:
        raise BadRecordError("quantity or unit_price out of range")
    thousandths, price = round(quantity * 1_000), round(unit_price * 10_000)
    if float(thousandths) * float(price) >= MAX_WORTH:
        raise BadRecordError("a line that is worth too much")
    return thousandths, price
