"""JSON in one place: records to bytes and back, and the times that events carry."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Any, Final, TypeVar, cast

import msgspec

from freshet.stream.config import TimeUnit
from freshet.stream.errors import EventError
from freshet.stream.schemas import LAST_MS, Record, Time
from freshet.stream.units import DAY_MS

MAX_TIME_MS: Final = LAST_MS
PLAN_AHEAD_MS: Final = 10 * 366 * DAY_MS
UNITS: Final[dict[TimeUnit, tuple[int, int]]] = {
    "s": (1_000, 1),
    "ms": (1, 1),
    "us": (1, 1_000),
    "ns": (1, 1_000_000),
}
"""By what a whole number is multiplied, then divided, to become milliseconds."""

_UNIT_NAMES: Final[dict[TimeUnit, str]] = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}

AnyRecord = TypeVar("AnyRecord")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# msgspec rounds below a microsecond, and so could reach the next millisecond.
_BELOW_MS = re.compile(r"(\.[0-9]{3})[0-9]+")
# Databases write +00 and +0000 where RFC 3339 has +00:00.
_SHORT_OFFSET = re.compile(r"(:[0-9.]+[+-][0-9]{2})([0-9]{2})?$")
_ENCODER = msgspec.json.Encoder()


@cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast(type[Any], kind))


def encode(record: msgspec.Struct) -> bytes:
    """A record as it stands on its topic."""
    return _ENCODER.encode(record)


def decode(kind: type[AnyRecord], data: bytes, *, latest_ms: int = MAX_TIME_MS) -> AnyRecord:
    """A record from its topic.

    Args:
        kind: What it is.
        data: Its bytes.
        latest_ms: When it may say that something happened at the latest; see
            `freshet.stream.clock.latest_ms`. Plans reach ten years further.

    Raises:
        EventError: The bytes are not such a record, or it is of a time that has not come.
    """
    try:
        record: AnyRecord = _decoder(cast(Hashable, kind)).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"not a {kind.__name__}: {error}") from None
    if latest_ms < MAX_TIME_MS and isinstance(record, Record):
        whole: Record = record
        for part in (whole, *_records_in(whole)):
            _check_times(part, latest_ms)
    return record


def _records_in(record: Record) -> Iterator[Record]:
    """Records that a record holds as a field."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, Record):
            yield value


def _check_times(record: Record, latest_ms: int) -> None:
    for names, bound_ms, what in (
        (record.happened, latest_ms, "that the clock has not reached"),
        (record.planned, min(latest_ms + PLAN_AHEAD_MS, MAX_TIME_MS), "over ten years ahead"),
    ):
        for name in names:
            value = getattr(record, name)
            if value is not None and time_ms(value) > bound_ms:
                kind = type(record).__name__
                raise EventError(f"{name} of this {kind} is {str(value)[:40]}, a time {what}")


def longest_time(unit: TimeUnit) -> int:
    """The last moment of the year 9999 in a unit.

    >>> longest_time("s")
    253402300799
    """
    multiplier, divisor = UNITS[unit]
    return (MAX_TIME_MS * divisor + divisor - 1) // multiplier


def time_ms(value: Time, unit: TimeUnit = "ms", zone: tzinfo | None = None) -> int:
    """Epoch milliseconds of a time as events carry it; anything below a millisecond is cut off.

    Args:
        value: RFC 3339 text, also with +00 or +0000 for +00:00, or a whole number of units since
            1970.
        unit: Of a whole number.
        zone: Of a text that names no offset.

    Raises:
        EventError: It is before 1970, after 9999, or not RFC 3339 with an offset.

    >>> time_ms("1970-01-01T01:00:01.5+01:00"), time_ms(1500), time_ms(2, "s")
    (1500, 1500, 2000)
    """
    if isinstance(value, str):
        try:
            text = _SHORT_OFFSET.sub(_whole_offset, _BELOW_MS.sub(r"\1", value))
            moment = msgspec.convert(text, datetime)
        except (msgspec.ValidationError, OverflowError, ValueError):
            raise EventError(f"{value[:40]!r} is not an RFC 3339 time") from None
        value, unit = moment_ms(moment, zone, value), "ms"
    if not 0 <= value <= longest_time(unit):
        raise EventError(
            f"time {_short(value)} is not within 1970 to 9999 in epoch {_UNIT_NAMES[unit]}"
        )
    multiplier, divisor = UNITS[unit]
    return value * multiplier // divisor


def _whole_offset(match: re.Match[str]) -> str:
    return f"{match[1]}:{match[2] or '00'}"


def moment_ms(moment: datetime, zone: tzinfo | None, text: str) -> int:
    """Epoch milliseconds of a moment, in a zone where it has none itself.

    Raises:
        EventError: There is no zone; `text` is how it was written.
    """
    if moment.tzinfo is None:
        if zone is None:
            raise EventError(f"{text!r} has no offset from UTC")
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH) // _MILLISECOND


def rfc3339(time_ms: int) -> str:
    """A time as records of ours carry it.

    >>> rfc3339(1_500)
    '1970-01-01T00:00:01.500Z'
    """
    text = datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _short(value: int) -> str:
    return str(value) if abs(value) < 10**20 else "with more than 20 digits"
