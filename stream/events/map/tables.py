"""A record of one of the shop's tables as a dict of our fields, by the table's map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from freshet.stream.errors import EventError
from freshet.stream.event_settings import EventSettings, MappedKind
from freshet.stream.events.map.compiler import Compiler
from freshet.stream.events.map.conditions import conditions
from freshet.stream.events.map.levels import Envelopes, Level, Source, Wrong
from freshet.stream.events.map.missing import missing
from freshet.stream.events.map.names import ATTRIBUTE_PREFIX, Sort, fields_of
from freshet.stream.events.map.numerals import NumberField
from freshet.stream.events.map.shapes import plain_json
from freshet.stream.events.map.texts import TextField, kind_name, text_of_value
from freshet.stream.events.map.times import MISSING, TimeField
from freshet.stream.events.redrive import Headers

OBJECT = "attributes"


class TableMap:
    """Reads records of one table.

    Raises ConfigError where the map cannot be.
    """

    def __init__(self, kind: MappedKind, events: EventSettings) -> None:
        compiler = Compiler(kind, events)
        section = events.section(kind)
        self._compiler = compiler
        fields = fields_of(kind, events)
        own = [name for name in events.fields_of(kind) if name.startswith(ATTRIBUTE_PREFIX)]
        self._fields = {name: _field(compiler, name, sort) for name, sort in fields.items()}
        self._own = {name.removeprefix(ATTRIBUTE_PREFIX): compiler.text(name) for name in own}
        self._skip = conditions(section.skip_when, compiler.slots, f"events.{kind}.skip_when")
        self._keep = conditions(section.keep_when, compiler.slots, f"events.{kind}.keep_when")
        self._shape = compiler.slots.shape("Table")

    def read(
        self,
        value: bytes,
        key: bytes | None = None,
        timestamp_ms: int = 0,
        headers: Headers = (),
    ) -> dict[str, Any] | None:
        """The fields that a record has; None where it is none of ours. Not checked any further.

        Raises:
            EventError: It is no JSON object, or a field is not what it should be.
        """
        record = _object(value)
        stamps = np.array([timestamp_ms], np.int64)
        envelopes = Envelopes([0], [key], stamps, {0: headers} if headers else {})
        level = Level([self._shape.loose_row(record)], self._shape, envelopes)
        if self._skip is not None and self._skip.any(level)[0]:
            return None
        if self._keep is not None and not self._keep.all(level)[0]:
            return None
        found = {name: _value(field, level) for name, field in self._fields.items()}
        if OBJECT in found or self._own:
            found[OBJECT] = self._attributes(found.get(OBJECT), level)
        return {name: value for name, value in found.items() if value is not None}

    def lacks(self, name: str, value: bytes) -> Wrong:
        """What to say of a field that a record lacks."""
        return missing(self._compiler, name, _object(value))

    def _attributes(self, whole: Any, level: Level) -> dict[str, str] | None:
        if whole is not None and not isinstance(whole, dict):
            raise EventError(f"the field 'attributes' is {kind_name(whole)}, expected an object")
        found = {name: text_of_value(value, flags=True) for name, value in (whole or {}).items()}
        found |= {name: _value(field, level) for name, field in self._own.items()}
        texts = {name: text for name, text in found.items() if text is not None}
        return texts or None


def _object(value: bytes) -> dict[str, Any]:
    try:
        record = plain_json(value)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise EventError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise EventError(f"the value is {kind_name(record)}, expected an object")
    return record


def _field(compiler: Compiler, name: str, sort: Sort) -> Any:
    makers: Mapping[str, Any] = {
        "text": compiler.text,
        "number": compiler.number,
        "time": compiler.time,
        "object": compiler.value,
    }
    return makers[sort](name)


def _value(field: TextField | NumberField | TimeField | Source, level: Level) -> Any:
    if not isinstance(field, TextField | NumberField | TimeField):
        return field.column(level)[0]
    found = field.read(level)
    if found.wrong:
        raise EventError(found.wrong[0][1])
    value: Any = found.values[0]
    if isinstance(field, TextField):
        return value
    if isinstance(field, TimeField):
        return None if value == MISSING else int(value)
    return None if np.isnan(value) else float(value)
