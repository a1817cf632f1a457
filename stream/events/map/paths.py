"""Paths into a record: from their text, along decoded JSON, and which seen one is most alike."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from freshet.stream.errors import ConfigError

Steps = tuple[str | int, ...]
"""Names of fields, and places in arrays, from 0 or from the end."""

MAX_SEEN: Final = 500
MAX_DEPTH: Final = 8

_STEP = re.compile(r"((?:\\.|[^.\[\]\\])+)|\[(-?[0-9]+)\]")
_KEPT = re.compile(r"\\(.)")
_SPECIAL = re.compile(r"([.\[\]\\])")


def steps_of(path: str, setting: str) -> Steps:
    """The steps of a path as it is written in a setting.

    >>> steps_of("a.b[0].c", ""), steps_of(r"a\\.b[-1]", "")
    (('a', 'b', 0, 'c'), ('a.b', -1))
    """
    steps: list[str | int] = []
    at = 0
    while at < len(path) or not steps:
        if steps and path[at] == ".":
            at += 1
        elif steps and path[at] != "[":
            raise _unread(path, setting)
        match = _STEP.match(path, at)
        named = match is not None and match[1] is not None
        if match is None or named != (not steps or path[at - 1] == "."):
            raise _unread(path, setting)
        steps.append(_KEPT.sub(r"\1", match[1]) if named else int(match[2]))
        at = match.end()
    return tuple(steps)


def _unread(path: str, setting: str) -> ConfigError:
    return ConfigError(f"{setting} is {path!r}, expected names joined by dots, such as a.b[0].c")


def text_of(steps: Iterable[str | int]) -> str:
    """A path as it is written.

    >>> text_of(("a.b", 0, "c"))
    'a\\\\.b[0].c'
    """
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += "." * bool(text) + _SPECIAL.sub(r"\\\1", step)
    return text


def dig(value: Any, steps: Steps) -> Any:
    """What is at a path; None where it is null, or the path leads through nothing.

    >>> dig({"a": [{"b": 1}]}, ("a", -1, "b")), dig({"a": "text"}, ("a", "b"))
    (1, None)
    """
    for step in steps:
        if isinstance(step, str):
            if not isinstance(value, dict):
                return None
            value = value.get(step)
        elif isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def paths_in(value: Any, depth: int = MAX_DEPTH) -> Iterator[str]:
    """The paths of a record's values, one way into each array: its first place."""
    if depth and isinstance(value, dict):
        for name, inner in value.items():
            own = text_of((name,))
            yield own
            yield from (
                own + "." * (below[0] != "[") + below for below in paths_in(inner, depth - 1)
            )
    elif depth and isinstance(value, list) and value:
        yield from (
            f"[0]{'.' * (below[0] != '[')}{below}" for below in paths_in(value[0], depth - 1)
        )


def nearest(path: str, record: Any) -> str | None:
    """The path in a record that is most like one that is not there.

    >>> nearest("order.totl", {"order": {"total": 1, "id": 2}})
    'order.total'
    """
    seen = []
    for found in paths_in(record):
        seen.append(found)
        if len(seen) == MAX_SEEN:
            break
    return _nearest(path, tuple(seen))


@lru_cache(1_024)
def _nearest(path: str, seen: tuple[str, ...]) -> str | None:
    alike = difflib.get_close_matches(path, [one for one in seen if one != path], n=1)
    if not alike:
        by_case = {one.casefold().rpartition(".")[2]: one for one in reversed(seen) if one != path}
        alike = [one for one in [by_case.get(path.casefold().rpartition(".")[2])] if one]
    return alike[0] if alike else None
