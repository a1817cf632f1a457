"""What to say of a field that is missing: where the map looks for it, and what is most like it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from freshet.stream.events.map.compiler import Compiler
from freshet.stream.events.map.levels import Level, Wrong
from freshet.stream.events.map.paths import nearest, paths_in
from freshet.stream.events.map.shapes import plain_json

ENOUGH_RECORDS: Final = 1_000
"""After so many good records a path that none of them had is spelt wrongly."""


@dataclass(frozen=True, slots=True)
class NeverSeen:
    """A path that no record had."""

    field: str
    path: str
    nearest: str | None


def record_of(value: bytes | None) -> Any:
    """A record as plain JSON; None where it is none."""
    try:
        return plain_json(value or b"null")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def missing(compiler: Compiler, name: str, record: Any) -> Wrong:
    """That a field is missing in a record, or in a line."""
    written = compiler.written(name)
    text = f"the field {name!r} is missing"
    if written:
        text += f" ({compiler.setting}: {written})"
    paths = compiler.rule(name).path
    near = nearest(paths if isinstance(paths, str) else paths[0], record) if paths else None
    text += f"; nearest seen: {near!r}" if near else ""
    if name == "region" and not written:
        text += '; a shop without regions sets events.series_by = ["sku"]'
    return "MissingField", text


class Watch:
    """Which paths of a map no record has had so far."""

    def __init__(self, compiler: Compiler, prefix: str = "") -> None:
        self._compiler = compiler
        self._prefix = prefix
        self._unseen: dict[str, Sequence[int]] = dict(compiler.mapped)
        self._records = 0
        self._told: list[NeverSeen] = []

    def see(self, level: Level, sample: Any) -> None:
        """Take in good records; `sample` makes one of them plain JSON."""
        if not self._unseen or not level.size:
            return
        self._records += level.size
        for name, slots in list(self._unseen.items()):
            columns = map(level.column, slots)
            if any(column.count(None) < len(column) for column in columns):
                del self._unseen[name]
        if self._records >= ENOUGH_RECORDS and self._unseen:
            record = sample()
            self._told += [self._note(name, record) for name in self._unseen]
            self._unseen = {}

    def unseen(self, records: Sequence[Any]) -> list[NeverSeen]:
        """Those that no record has had so far, however few came; a null at a path is one."""
        found = []
        for name in self._unseen if self._records else ():
            paths = self._compiler.rule(name).path
            several = {paths} if isinstance(paths, str) else set(paths)
            seen = any(several & set(paths_in(record)) for record in records)
            if not seen:
                found.append(self._note(name, records[0] if records else None))
        return found

    def _note(self, name: str, record: Any) -> NeverSeen:
        rule = self._compiler.rule(name)
        if rule.jmespath:
            return NeverSeen(self._prefix + name, rule.jmespath, None)
        first = rule.path if isinstance(rule.path, str) else rule.path[0]
        return NeverSeen(self._prefix + name, self._compiler.written(name), nearest(first, record))

    def told(self) -> Iterator[NeverSeen]:
        """What was found since the last call."""
        found, self._told = self._told, []
        yield from found


def lines_of(found: Mapping[str, Any] | Any) -> Any:
    """The first line of several, as plain JSON; None where there is none."""
    return found[0] if isinstance(found, list) and found else None
