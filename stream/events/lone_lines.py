"""Records that are more, or other, than the map says, by their headers.

One line of an order, the end of a history, and records that have our own fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from freshet.stream.events.limits import LINE_HEADER, MAX_KEY_BYTES
from freshet.stream.events.map.levels import Wrong
from freshet.stream.events.redrive import Headers

HISTORY_HEADER: Final = "freshet-history"
FIELDS_HEADER: Final = "freshet-fields"
_COMPLETE: Final = re.compile(rb"[A-Za-z0-9._-]{1,100}:complete")


def header_of(headers: Headers, name: str) -> bytes | None:
    """The last header of a name.

    >>> header_of([("a", b"1"), ("a", "2")], "a")
    b'2'
    """
    for header, value in reversed(headers):
        if header == name and value is not None:
            return value.encode() if isinstance(value, str) else value
    return None


def told_complete(value: bytes | None, headers: Headers) -> bool:
    """Whether a record says that a history is complete.

    >>> told_complete(b"", [("freshet-history", b"load-1:complete")])
    True
    """
    said = header_of(headers, HISTORY_HEADER) if value == b"" else None
    return said is not None and _COMPLETE.fullmatch(said) is not None


def in_own_fields(headers: Headers) -> bool:
    """Whether a record has our own fields, so that no map is for it.

    >>> in_own_fields([("freshet-fields", b"own")]), in_own_fields([("freshet-fields", b"x")])
    (True, False)
    """
    return header_of(headers, FIELDS_HEADER) == b"own"


def line_alone(headers: Headers) -> int | Wrong | None:
    """Which line of its order a record stands for; None where it stands for all of it.

    >>> line_alone([("freshet-line", b"2")]), line_alone([("freshet-line", b"two")])
    (2, ('InvalidHeader', "the header freshet-line is 'two', expected a line's number"))
    """
    said = header_of(headers, LINE_HEADER)
    if said is None:
        return None
    if said.isdigit() and len(said) < MAX_KEY_BYTES:
        return int(said)
    shown = repr(said[:40].decode("utf-8", "replace"))
    return "InvalidHeader", f"the header {LINE_HEADER} is {shown}, expected a line's number"


def lines_alone(headers: Mapping[int, Headers]) -> tuple[dict[int, int], dict[int, Wrong]]:
    """Which records stand for one line of their order, by their place, and which wrongly."""
    only: dict[int, int] = {}
    wrong: dict[int, Wrong] = {}
    for place, own in headers.items():
        found = line_alone(own)
        if isinstance(found, int):
            only[place] = found
        elif found is not None:
            wrong[place] = found
    return only, wrong
