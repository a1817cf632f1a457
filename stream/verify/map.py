"""What a shop's map says of one record, by its rules as they are written: one value at a time.

Nothing is compiled, and nothing is shared with the code that decodes. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from freshet.stream.config import EventSettings
from freshet.stream.event_settings import MappedKind, Rule
from freshet.stream.verify import values
from freshet.stream.verify.values import BadRecordError

Headers = Sequence[tuple[str, bytes | None]]

DEBEZIUM = {
    "version": Rule(path="debezium.version"),
    "deleted": Rule(path="debezium.deleted"),
    "changed_at": Rule(path="debezium.ts_ms", time="ms"),
}
"""What stands where orders come from Debezium and the shop says nothing else."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where values are looked for: a record or one of its lines, and what the record came with."""

    record: Mapping[str, Any]
    key: bytes | None
    headers: Headers
    timestamp_ms: int
    above: Mapping[str, Any] | None = None

    def line(self, line: Mapping[str, Any]) -> Place:
        """The same of one line."""
        return replace(self, record=line, above=self.record)


@dataclass(frozen=True, slots=True)
class Map:
    """The rules of one topic; `prefix` is "lines." for the fields of lines."""

    kind: MappedKind
    events: EventSettings
    prefix: str = ""

    def rule(self, name: str) -> Rule:
        """The rule of a field; what is not mapped has our own name."""
        rules: dict[str, Any] = dict(self.events.fields_of(self.kind))
        if self.kind == "orders" and self.events.orders.envelope == "debezium":
            rules = {**DEBEZIUM, **rules}
        return _whole(rules.get(self.prefix + name, name))

    def value(self, name: str, place: Place) -> Any:
        """A field as it is; None where it is missing."""
        return self._raw(self.rule(name), place)

    def text(self, name: str, place: Place) -> str | None:
        """A field that is text; None where it is missing.

        Raises:
            BadRecordError: It is there, and no text or no known word.
        """
        return self._text(self.rule(name), place)

    def number(self, name: str, place: Place) -> float | None:
        """A field that is a number: (value - all of minus) / per x scale x rate x sign.

        Raises:
            BadRecordError: It is there, and no number.
        """
        return self._amount(self.rule(name), place)

    def _amount(self, rule: Rule, place: Place) -> float | None:
        found = self._worked_out(rule, place)
        if found is None and rule.otherwise is not None:
            found = self._amount(_whole(rule.otherwise), place)
        if found is None and rule.default is not None:
            return values.number(str(rule.default))
        return found

    def _worked_out(self, rule: Rule, place: Place) -> float | None:
        value = _worded(_there(self._raw(rule, place)), rule.words)
        if value is None:
            return None
        amount = values.number(value, rule.number)
        for path in _several(rule.minus):
            part = _there(found_at(place.record, path))
            amount -= 0.0 if part is None else values.number(part, rule.number)
        if rule.per:
            parts = _there(self._raw(Rule(path=rule.per), place))
            parts = None if parts is None else values.number(parts, rule.number)
            if not parts:
                return None
            amount /= parts
        if rule.scale != 1.0:
            amount *= rule.scale
        if rule.currency:
            amount *= self._rate(rule, place)
        sign = self._sign(rule, place)
        return amount if sign == 1.0 else amount * sign

    def time_ms(self, name: str, place: Place) -> int | None:
        """A field that is a time, as epoch milliseconds.

        Raises:
            BadRecordError: It is there, and no time.
        """
        rule = self.rule(name)
        value = _there(self._raw(rule, place))
        zone = rule.zone or self.events.time_zone
        if value is None:
            if rule.default is None:
                return None
            return values.time_ms(rule.default, self.events.time_unit, zone=zone)
        return values.time_ms(value, self._unit(rule), rule.time, zone)

    def flag(self, name: str, place: Place) -> bool:
        """A field that is a claim: anything but null, "", and false and 0, also as texts."""
        rule = self.rule(name)
        value = _there(_worded(self._raw(rule, place), rule.words))
        value = rule.default if value is None else value
        return value is not None and value not in (0, "", "0", "false", "False")

    def version(self, name: str, place: Place) -> tuple[int, int | None] | None:
        """A field that is a version, and the time that it is, if it is one.

        Raises:
            BadRecordError: It is there, and neither a whole number nor a time.
        """
        rule = self.rule(name)
        value = _there(self._raw(rule, place))
        if value is None:
            return None
        counted = values.counted(value) if isinstance(value, str) else value
        is_number = isinstance(counted, int | float) and not isinstance(counted, bool)
        if is_number and rule.time == "":
            return _whole_number(counted), None
        zone = rule.zone or self.events.time_zone
        at_ms = values.time_ms(value, self._unit(rule), rule.time, zone)
        return (_whole_number(counted) if is_number and rule.time in ("us", "ns") else at_ms), at_ms

    # Rules ----------------------------------------------------------------------------------------

    def _unit(self, rule: Rule) -> str:
        return "ms" if rule.timestamp else self.events.time_unit

    def _text(self, rule: Rule, place: Place) -> str | None:
        value = _there(self._raw(rule, place))
        if value is None:
            return None if rule.default is None else values.text(rule.default, flags=True)
        if not rule.words:
            return values.text(value)
        said = values.text(value, flags=True)
        if said not in rule.words and "*" not in rule.words:
            raise BadRecordError(f"{said:.40} is none of the words")
        return values.text(rule.words.get(said, rule.words.get("*")), flags=True)

    def _raw(self, rule: Rule, place: Place) -> Any:
        if rule.value is not None:
            return rule.value
        if rule.header:
            return header(place.headers, rule.header)
        if rule.key is True:
            return None if place.key is None else place.key.decode("utf-8", "replace")
        if isinstance(rule.key, str):
            return _in_key(place.key, rule.key)
        if rule.timestamp:
            return place.timestamp_ms
        if rule.jmespath:
            return searched(rule.jmespath, place.record)
        if rule.join:
            return self._joined(rule, place)
        found = [found_at(place.record, path) for path in _several(rule.path)]
        return next((value for value in found if _there(value) is not None), found[-1])

    def _joined(self, rule: Rule, place: Place) -> str | None:
        try:
            parts = [self._text(_whole(part), place) for part in rule.join]
        except BadRecordError:
            return None
        there = [part for part in parts if part is not None]
        return rule.by.join(there) if len(there) == len(parts) else None

    def _either(self, rule: Rule, place: Place) -> Any:
        """What the line says, or else its record."""
        own = self._raw(rule, place)
        if _there(own) is None and place.above is not None:
            return self._raw(rule, replace(place, record=place.above))
        return own

    def _rate(self, rule: Rule, place: Place) -> float:
        code = self._either(Rule(path=rule.currency), place)
        rates = {name.upper(): rate for name, rate in self.events.rates.items()}
        if not isinstance(code, str) or code.strip().upper() not in rates:
            raise BadRecordError("a currency without a rate")
        return rates[code.strip().upper()]

    def _sign(self, rule: Rule, place: Place) -> float:
        if isinstance(rule.sign, int):
            return float(rule.sign)
        of = _whole(rule.sign)
        value = _worded(_there(self._either(of, place)), of.words)
        sign = of.default if value is None else values.number(value)
        if sign is None or abs(float(sign)) != 1.0:
            raise BadRecordError("a sign that is neither 1 nor -1")
        return float(sign)


def ours(said: Mapping[str, Any] | str, record: Mapping[str, Any], *, every: bool) -> bool:
    """Whether the conditions of keep_when (every) or skip_when (any) hold."""
    if isinstance(said, str):
        found = searched(said, record)
        return found is not None and found is not False and found not in ("", [], {})
    held = [_is_one_of(found_at(record, path), wanted) for path, wanted in said.items()]
    return all(held) if every else any(held)


def _is_one_of(value: Any, wanted: Any) -> bool:
    several = wanted if isinstance(wanted, tuple | list) else (wanted,)
    return any(_is(value, one) for one in several)


def _is(value: Any, wanted: Any) -> bool:
    if wanted == "*":
        return value is not None
    if isinstance(wanted, bool):
        return value is wanted or (wanted is False and value is None)
    if isinstance(wanted, str):
        return isinstance(value, str) and value == wanted
    return isinstance(value, int | float) and not isinstance(value, bool) and value == wanted


# Where values are ---------------------------------------------------------------------------------


def found_at(value: Any, path: str) -> Any:
    """What is at a path such as `a.b[0].c`; None where it is null or nothing.

    >>> found_at({"a.b": [{"c": 1}]}, r"a\\.b[-1].c")
    1
    """
    for step in _steps(path):
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        elif isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    name, letters = "", iter(path)
    for letter in letters:
        if letter == "\\":
            name += next(letters)
        elif letter == "[":
            if name:
                steps.append(name)
            digits = "".join(iter(lambda: next(letters), "]"))
            steps.append(int(digits))
            name = ""
        elif letter == ".":
            if name:
                steps.append(name)
            name = ""
        else:
            name += letter
    return [*steps, name] if name else steps


def header(headers: Headers, name: str) -> str | None:
    """The last header of a name, as text."""
    said = [value for own, value in headers if own == name and value is not None]
    return said[-1].decode("utf-8", "replace") if said else None


def searched(expression: str, record: Any) -> Any:
    """What a JMESPath finds; None where the record does not suit it."""
    try:
        return jmespath.search(expression, record)
    except (JMESPathError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _in_key(key: bytes | None, path: str) -> Any:
    try:
        return found_at(json.loads(key or b"null"), path)
    except (ValueError, RecursionError):
        return None


def _whole(said: Any) -> Rule:
    return said if isinstance(said, Rule) else Rule(path=said)


def _several(said: str | Sequence[str]) -> Sequence[str]:
    return (said,) if isinstance(said, str) else said


def _there(value: Any) -> Any:
    """A value, or None where it is a blank text: so shops say that there is none."""
    return None if isinstance(value, str) and not value.strip(values.BLANKS) else value


def _worded(value: Any, words: Mapping[str, Any]) -> Any:
    """A value that may be a word for another one."""
    if value is None or not words:
        return value
    try:
        said = values.text(value, flags=True)
    except BadRecordError:
        return value
    return words.get(said, words.get("*", value))


def _whole_number(value: Any) -> int:
    if isinstance(value, float):
        if not (abs(value) < values.WHOLE_BELOW and value.is_integer()):
            raise BadRecordError("a version that is no whole number")
        value = int(value)
    if not -(2**62) <= value < 2**62:
        raise BadRecordError("a version that is out of range")
    return int(value)
