"""Single JSON values as texts, numbers and times, as the rules of a map say. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

LAST_TIME_MS = 253_402_300_799_999  # the end of the year 9999
UNITS = ("s", "ms", "us", "ns")
WHOLE_BELOW = 2**53
"""Below it a float says one whole number."""

BLANKS = " \t\r\n\u00a0\u202f"

_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"([Zz]|([+-])([0-9]{2})(?::?([0-9]{2}))?)?"
)
_SLASH_DATE = re.compile(r"/Date\((-?[0-9]{1,16})([+-][0-9]{4})?\)/")
_EPOCH = datetime(1970, 1, 1)
_MS = timedelta(milliseconds=1)
_TO_MICROSECONDS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_CORE = re.compile(r"[0-9](?:.*[0-9])?", re.DOTALL)
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2019": "'", "\u2212": "-"})


class BadRecordError(Exception):
    """This record is a dead letter."""


# Texts --------------------------------------------------------------------------------------------


def text(value: Any, *, flags: bool = False) -> str:
    """A value as text: ids may be numbers, and for words also true and false.

    Raises:
        BadRecordError: It cannot be text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        if flags:
            return "true" if value else "false"
    elif isinstance(value, int):
        return str(value)
    elif isinstance(value, float) and abs(value) < WHOLE_BELOW and value.is_integer():
        return str(int(value))
    raise BadRecordError(f"{value!r:.40} is no text")


# Numbers ------------------------------------------------------------------------------------------


def number(value: Any, example: str = "") -> float:
    """A value as a number; a text is read in the style of an example.

    Raises:
        BadRecordError: It is none.
    """
    if isinstance(value, str):
        found = numeral(value, example)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecordError(f"{value!r:.40} is no number")
    else:
        try:
            found = float(value)
        except OverflowError:
            found = None
    if found is None or not abs(found) < float("inf"):
        raise BadRecordError(f"{value!r:.40} is no number")
    return found


def numeral(said: str, example: str = "") -> float | None:
    """The number that a text says in the style of an example; None where it says none."""
    decimal, group, decorated = style(example)
    bare = said.translate(_SPACES).strip(BLANKS)
    core = _CORE.search(bare) if decorated else None
    if core is not None and "(" in bare[: core.start()]:
        return None
    if core is not None:
        minus = "-" in bare[: core.start()] or bare[core.end() :].strip(BLANKS) == "-"
        bare = "-" * minus + core[0]
    point, three = re.escape(decimal), "[0-9]{3}"
    whole = "[0-9]+"
    if group:
        whole = (
            rf"(?:[0-9]{{1,3}}(?:{re.escape(group)}[0-9]{{2,3}})*{re.escape(group)}{three}|{whole})"
        )
    shape = rf"[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"
    if re.fullmatch(shape, bare) is None:
        return None
    return float((bare.replace(group, "") if group else bare).replace(decimal, "."))


def style(example: str) -> tuple[str, str, bool]:
    """The decimal sign, the sign between groups, and whether words may be around.

    >>> style("1.299,00"), style("1,299"), style("12.50 EUR"), style("")
    ((',', '.', False), ('.', ',', False), ('.', '', True), ('.', '', False))
    """
    bare = example.translate(_SPACES).strip(BLANKS)
    core = _CORE.search(bare)
    if core is None:
        return ".", "", False
    decorated = (bare[: core.start()].lstrip("+-") + bare[core.end() :]) != ""
    signs = re.sub("[0-9]", "", core[0])
    if not signs:
        return ".", "", decorated
    last = signs[-1]
    digits_after = len(core[0]) - core[0].rindex(last) - 1
    groups_alone = len(set(signs)) == 1 and digits_after == 3
    if groups_alone or last not in ".," or signs.count(last) > 1:
        others = signs.replace(last, "") if not groups_alone else last
        return ("," if "." in others else "."), last, decorated
    return last, (signs[0] if len(set(signs)) > 1 else ""), decorated


# Times --------------------------------------------------------------------------------------------


def time_ms(value: Any, unit: str, form: str = "", zone: str = "") -> int:
    """Epoch milliseconds of a time.

    Args:
        value: As the record has it.
        unit: Of a number.
        form: A unit, rfc3339, date or a strptime format; empty takes numbers and RFC 3339.
        zone: Of a text that names none.

    Raises:
        BadRecordError: It is none, or before 1970, or after 9999.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRecordError(f"{value!r:.40} is no time")
    numbers = form in ("", *UNITS)
    slash = _SLASH_DATE.fullmatch(value) if isinstance(value, str) else None
    if slash is not None and form in ("", "rfc3339"):
        value, unit, form = int(slash[1]), "ms", "ms"
        numbers = True
    if isinstance(value, str) and numbers:
        value = counted(value)
    if not isinstance(value, str):
        if not numbers:
            raise BadRecordError("a number where a text was expected")
        found = _number_ms(value, form or unit)
    elif form in ("", "rfc3339"):
        found = _rfc_3339_ms(value, zone)
    elif form in UNITS:
        raise BadRecordError(f"{value:.40} is no number")
    else:
        found = _written_ms(value, "%Y-%m-%d" if form == "date" else form, zone)
    if not 0 <= found <= LAST_TIME_MS:
        raise BadRecordError("a time before 1970 or after 9999")
    return found


def counted(said: str) -> int | float | str:
    """A text that is a numeral as its number."""
    bare = said.strip()
    if re.fullmatch("-?[0-9]+", bare, re.ASCII) and len(bare) < 40:
        return int(bare)
    found = numeral(said)
    return said if found is None or abs(found) == float("inf") else found


def _number_ms(value: int | float, unit: str) -> int:
    if isinstance(value, float):
        last = LAST_TIME_MS * _TO_MICROSECONDS["ms"] / _TO_MICROSECONDS[unit]
        if not abs(value) <= 2 * last:
            raise BadRecordError("a time before 1970 or after 9999")
        return round(value * _TO_MICROSECONDS[unit]) // 1_000
    return {"s": value * 1_000, "ms": value, "us": value // 1_000, "ns": value // 1_000_000}[unit]


def _rfc_3339_ms(said: str, zone: str) -> int:
    match = _RFC_3339.fullmatch(said)
    if match is None:
        raise BadRecordError("not an RFC 3339 time")
    day, time, fraction, offset, sign, hours, minutes = match.groups()
    try:
        moment = datetime.strptime(f"{day} {time}", "%Y-%m-%d %H:%M:%S")
        ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        timezone(ahead)  # raises where the offset is a day or more
    except ValueError:
        raise BadRecordError("no such time") from None
    if int(minutes or 0) > 59:
        raise BadRecordError("no such offset")
    cut_ms = int(f"{fraction or ''}000"[:3])
    if offset is None:
        return _local_ms(moment, zone) + cut_ms
    return (moment - _EPOCH) // _MS + cut_ms + (ahead if sign == "-" else -ahead) // _MS


def _written_ms(said: str, form: str, zone: str) -> int:
    try:
        moment = datetime.strptime(said, form)
    except (ValueError, OverflowError):
        raise BadRecordError(f"no time as {form}") from None
    if moment.tzinfo is None:
        return _local_ms(moment, zone)
    return _utc_ms(moment)


def _local_ms(moment: datetime, zone: str) -> int:
    if not zone:
        raise BadRecordError("a time without a zone")
    return _utc_ms(moment.replace(tzinfo=ZoneInfo(zone)))


def _utc_ms(moment: datetime) -> int:
    try:
        return (moment.astimezone(UTC).replace(tzinfo=None) - _EPOCH) // _MS
    except OverflowError:
        raise BadRecordError("no such time") from None
