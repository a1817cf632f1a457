"""Raw columns of records, or of their lines, and the sources that a rule takes its values from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.events.map.paths import Steps, dig
from freshet.stream.events.map.shapes import Row, Shape
from freshet.stream.events.redrive import Headers

Column = Sequence[Any]
"""One value a record, or a line; None where there is none."""

Wrong = tuple[str, str]
"""An error's class, and its text."""


BLANKS: Final = " \t\r\n\u00a0\u202f"


def nothing(value: Any) -> bool:
    """Whether there is nothing: null, or the blank text with which shops say so.

    >>> [nothing(value) for value in (None, "", " ", 0, "a")]
    [True, True, True, False, False]
    """
    return value is None or (isinstance(value, str) and not value.strip(BLANKS))


@dataclass(frozen=True, slots=True)
class Envelopes:
    """What records come with: their places in a call, and by place key, timestamp and headers."""

    places: Sequence[int]
    keys: Sequence[bytes | None]
    timestamps_ms: Ints | None
    headers: Mapping[int, Headers]


class Level:
    """The raw columns of some records; each is made when it is first asked for."""

    def __init__(self, rows: Sequence[Row], shape: Shape, envelopes: Envelopes) -> None:
        self.size = len(rows)
        self._columns: Sequence[Column] = list(zip(*rows, strict=True))
        self._shape = shape
        self._envelopes = envelopes
        self._dug: dict[int, Column] = {}

    def column(self, slot: int) -> Column:
        """The values at a slot of the shape."""
        head, rest = self._shape.of_slot[slot]
        if not self.size:
            return ()
        if rest == ():
            return self._columns[head]
        if slot not in self._dug:
            self._dug[slot] = _below(self._columns[head], rest)
        return self._dug[slot]

    def header(self, name: str) -> Column:
        """The last header of a name, as text."""
        found = map(self._envelopes.headers.get, self._envelopes.places)
        return [_header(headers, name) for headers in found]

    def key(self, steps: Steps | None) -> Column:
        """The key as text, or what is at a path in a key that is JSON."""
        keys = [self._envelopes.keys[place] for place in self._envelopes.places]
        return [_key_text(key) if steps is None else _in_key(key, steps) for key in keys]

    def timestamp(self) -> Column:
        """Kafka's timestamps, epoch ms."""
        stamps = self._envelopes.timestamps_ms
        assert stamps is not None, "this map needs the records' timestamps"
        return [int(stamps[place]) for place in self._envelopes.places]

    def where(self, chosen: Bools) -> Level:
        """Some of the records alone."""
        return _Chosen(self, chosen)


class _Chosen(Level):
    """Some records of a level; a column is cut when it is asked for."""

    def __init__(self, whole: Level, chosen: Bools) -> None:
        self.size = int(np.count_nonzero(chosen))
        self._whole = whole
        self._chosen = chosen.tobytes()  # A byte a record, which is cheaper to go through.
        self._dug = {}

    def column(self, slot: int) -> Column:
        if slot not in self._dug:
            self._dug[slot] = self._cut(self._whole.column(slot))
        return self._dug[slot]

    def header(self, name: str) -> Column:
        return self._cut(self._whole.header(name))

    def key(self, steps: Steps | None) -> Column:
        return self._cut(self._whole.key(steps))

    def timestamp(self) -> Column:
        return self._cut(self._whole.timestamp())

    def _cut(self, column: Column) -> Column:
        return list(compress(column, self._chosen))


class LineLevel(Level):
    """The raw columns of lines; what a line cannot have, its record has."""

    def __init__(
        self, rows: Sequence[Row], shape: Shape, above: Level, record: Sequence[int]
    ) -> None:
        self.size = len(rows)
        self._columns = list(zip(*rows, strict=True))
        self._shape = shape
        self._dug = {}
        self.above = above
        self.record = record

    def repeated(self, column: Column) -> Column:
        """A column of the records as one of their lines."""
        return [column[n] for n in self.record]

    def header(self, name: str) -> Column:
        return self.repeated(self.above.header(name))

    def key(self, steps: Steps | None) -> Column:
        return self.repeated(self.above.key(steps))

    def timestamp(self) -> Column:
        return self.repeated(self.above.timestamp())


def _below(column: Column, rest: Steps | Callable[[Any], Any]) -> Column:
    if callable(rest):
        return list(map(rest, column))
    return [dig(value, rest) for value in column]


def _header(headers: Headers | None, name: str) -> str | None:
    for header, value in reversed(headers or ()):
        if header == name and value is not None:
            return value if isinstance(value, str) else value.decode("utf-8", "replace")
    return None


def _key_text(key: bytes | None) -> str | None:
    return None if key is None else key.decode("utf-8", "replace")


def _in_key(key: bytes | None, steps: Steps) -> Any:
    try:
        return dig(msgspec.json.decode(key or b"null"), steps)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


# Sources ------------------------------------------------------------------------------------------


class Source(Protocol):
    """Where raw values come from."""

    def column(self, level: Level) -> Column:
        """One value for each record or line of a level."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The first of several slots at which there is something."""

    slots: tuple[int, ...]

    def column(self, level: Level) -> Column:
        found = level.column(self.slots[0])
        for slot in self.slots[1:]:
            found = _first(found, level.column(slot))
        return found


@dataclass(frozen=True, slots=True)
class LineOrRecord:
    """What a line says, else what its record says."""

    line: Source
    record: Source

    def column(self, level: Level) -> Column:
        assert isinstance(level, LineLevel)
        found = self.line.column(level)
        return _first(found, level.repeated(self.record.column(level.above)))


@dataclass(frozen=True, slots=True)
class Constant:
    """One value for all."""

    value: Any

    def column(self, level: Level) -> Column:
        return [self.value] * level.size


@dataclass(frozen=True, slots=True)
class Header:
    """A header, as text."""

    name: str

    def column(self, level: Level) -> Column:
        return level.header(self.name)


@dataclass(frozen=True, slots=True)
class Key:
    """The key as text, or a value in it."""

    steps: Steps | None

    def column(self, level: Level) -> Column:
        return level.key(self.steps)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Kafka's timestamp."""

    def column(self, level: Level) -> Column:
        return level.timestamp()


@dataclass(frozen=True, slots=True)
class Joined:
    """Texts put together; none where one of them is missing or wrong."""

    parts: tuple[Any, ...]  # Text fields: each reads a level.
    by: str

    def column(self, level: Level) -> Column:
        columns = [part.read(level).values for part in self.parts]
        rows = zip(*columns, strict=True)
        return [None if None in row else self.by.join(row) for row in rows]


def _first(column: Column, other: Column) -> Column:
    return [b if nothing(a) else a for a, b in zip(column, other, strict=True)]
