"""Debezium's change events: the row as it is now, with what happened to it beside it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from freshet.stream.errors import EventError

BESIDE: Final = "debezium"
ONLY_KEY: Final = (
    "the row was deleted, and the record has its key alone: ALTER TABLE ... REPLICA IDENTITY FULL "
    "has Postgres tell the whole row"
)
UNCHANGING: Final = {"t": "truncate", "m": "message"}
"""Operations that say nothing of a row, and why they are skipped."""

_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_SCALED: Final = "io.debezium.data.VariableScaleDecimal"
_JSON: Final = "io.debezium.data.Json"


class SkippedError(Exception):
    """Nothing happened to a row; the text says what else it was."""


def opened(record: Any, decimals: Mapping[str, int]) -> dict[str, Any]:
    """The columns of `after`, or of `before` where the row was deleted, and an object `debezium`.

    That object holds `op`, `deleted`, `ts_ms` (of the change in the database), `version` (rising
    with every change of a row) and `source`.

    Args:
        record: An envelope, with or without the Connect `schema` around it.
        decimals: Column = scale of a decimal that comes as base64 text without a schema.

    Raises:
        SkippedError: A tombstone, a truncate or a message.
        EventError: It is no envelope, or has no row.

    >>> row = {"id": 1, "price": "BNI="}
    >>> found = opened({"op": "c", "ts_ms": 5, "before": None, "after": row}, {"price": 2})
    >>> found["price"], found["debezium"]["version"]
    (Decimal('12.34'), 5)
    """
    schema, change = without_schema(record)
    if change is None:
        raise SkippedError("tombstone")
    if not isinstance(change, dict) or not isinstance(change.get("op"), str):
        raise EventError("no Debezium envelope: the field 'op' is missing")
    operation = change["op"]
    if operation in UNCHANGING:
        raise SkippedError(UNCHANGING[operation])
    deleted = operation == "d"
    where = "before" if deleted else "after"
    row = _row(change.get(where), where)
    types = _types(schema, where)
    columns = {
        name: _converted(name, value, types.get(name), decimals) for name, value in row.items()
    }
    return {BESIDE: _beside(change, operation, deleted), **columns}


def only_key(value: bytes | None, key: bytes | None) -> bool:
    """Whether a delete says nothing but its key, as Postgres tells it unless it is told otherwise.

    Args:
        value: The record as `opened` gives it, in JSON.
        key: The record's key, in JSON where it is a row.

    >>> only_key(b'{"debezium": {"deleted": true}, "id": 7, "price": null}', b'{"id": 7}')
    True
    """
    try:
        row, names = msgspec.json.decode(value or b"null"), msgspec.json.decode(key or b"null")
    except msgspec.DecodeError:
        return False
    if not isinstance(row, dict) or not (row.pop(BESIDE, None) or {}).get("deleted"):
        return False
    said = {name for name, column in row.items() if column is not None}
    return said <= names.keys() if isinstance(names, dict) else len(said) <= 1


def deletes(record: Any) -> bool:
    """Whether an envelope says that its row was deleted.

    >>> deletes({"op": "d", "before": {"id": 1}}), deletes({"schema": {}, "payload": {"op": "c"}})
    (True, False)
    """
    change = without_schema(record)[1]
    return isinstance(change, dict) and change.get("op") == "d"


def without_schema(record: Any) -> tuple[Any, Any]:
    """The Connect schema around a key or value and what it is around; None where there is none.

    >>> without_schema({"schema": {"type": "struct"}, "payload": {"id": 1}})
    ({'type': 'struct'}, {'id': 1})
    """
    if isinstance(record, dict) and record.keys() == {"schema", "payload"}:
        return record["schema"], record["payload"]
    return None, record


def _row(row: Any, where: str) -> dict[str, Any]:
    if isinstance(row, str):  # MongoDB's documents come as text.
        try:
            row = msgspec.json.decode(row)
        except (msgspec.DecodeError, RecursionError) as error:
            raise EventError(f"'{where}' is no row: {error}") from None
    if isinstance(row, dict):
        return row
    if where == "before":
        raise EventError(
            "a delete without its row ('before' is null): set the table's REPLICA IDENTITY to FULL"
        )
    raise EventError(f"the Debezium envelope has no row: '{where}' is no object")


def _beside(change: dict[str, Any], operation: str, deleted: bool) -> dict[str, Any]:
    source = change.get("source")
    source = source if isinstance(source, dict) else {}
    ts_ms = source.get("ts_ms") if source.get("ts_ms") is not None else change.get("ts_ms")
    return {
        "op": operation,
        "deleted": deleted,
        "ts_ms": ts_ms,
        "version": _version(source, ts_ms),
        "source": source,
    }


def _version(source: dict[str, Any], ts_ms: Any) -> Any:
    """A number that rises with every change of a row; a millisecond may see several."""
    if "lsn" in source:
        return source["lsn"] or 0
    name, place = source.get("file"), source.get("pos")
    if isinstance(name, str) and isinstance(place, int):
        number = name.rpartition(".")[2]
        if number.isascii() and number.isdigit() and len(number) <= 9:
            return (int(number) << 32) | place
    return ts_ms


def _types(schema: Any, where: str) -> dict[str, dict[str, Any]]:
    """The Connect type of each column, by the schema around the record."""
    for part in _fields(schema):
        if part.get("field") == where:
            return {str(column.get("field")): column for column in _fields(part)}
    return {}


def _fields(schema: Any) -> list[dict[str, Any]]:
    fields = schema.get("fields") if isinstance(schema, dict) else None
    return [part for part in fields or [] if isinstance(part, dict)]


def _converted(
    name: str, value: Any, kind: dict[str, Any] | None, decimals: Mapping[str, int]
) -> Any:
    """A column's value with its decimal or JSON read."""
    called = kind.get("name") if kind else None
    if isinstance(value, dict) and value.keys() == {"scale", "value"}:
        return _decimal(name, value["value"], value["scale"])
    if value is None or not isinstance(value, str):
        return value
    if called == _DECIMAL and kind:
        return _decimal(name, value, (kind.get("parameters") or {}).get("scale"))
    if called == _JSON:
        return msgspec.Raw(value.encode())
    if kind is None and name in decimals:
        return _decimal(name, value, decimals[name])
    return value


def _decimal(name: str, value: Any, scale: Any) -> Decimal:
    """A number from its unscaled value: a big-endian integer, as bytes or base64 text."""
    try:
        unscaled = value if isinstance(value, bytes) else base64.b64decode(value, validate=True)
        digits = int.from_bytes(unscaled, "big", signed=True)
        return Decimal(f"{digits}E{-int(scale)}")  # Exact, whatever the context's precision.
    except (binascii.Error, ValueError, TypeError, ArithmeticError):
        raise EventError(f"the column {name!r} is no decimal of scale {scale}") from None
