"""Limits on a record's raw bytes, checked before any JSON decoder sees them.

They are of size, of the depth of nesting, and that the bytes are UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from freshet.stream.arrays import Ints

MAX_KEY_BYTES: Final = 256
FEW_BRACKETS: Final = 8
LINE_HEADER: Final = "freshet-line"
"""Of a record that stands for one line of an order: which."""

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET_BIT = np.uint8(ord("[") ^ ord("{"))  # the one bit in which they differ
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one record of a batch is a dead letter."""

    index: int
    error_class: str
    message: str


@dataclass(frozen=True, slots=True)
class LineRefusal:
    """Why one line of a record that is used is a dead letter; lines count from 0."""

    index: int
    line: int
    error_class: str
    message: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Why one record of a batch is none of ours."""

    index: int
    reason: str


class Refusals:
    """Why records of a batch are dead letters; the first thing wrong with one stands."""

    def __init__(self) -> None:
        self.by_index: dict[int, Refusal] = {}

    def add(self, index: int, error_class: str, message: str) -> None:
        self.by_index.setdefault(index, Refusal(index, error_class, message))


@dataclass(frozen=True, slots=True)
class ByteLimits:
    """What a value may be at most; a key has at most 256 bytes."""

    max_depth: int
    max_record_bytes: int

    def refusals(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None]
    ) -> Iterator[Refusal]:
        """What is wrong with a batch, keys first.

        A batch in which nothing is wrong costs a few calls, and none a record.
        """
        if max(map(len, filter(None, keys)), default=0) > MAX_KEY_BYTES:
            for i, key in enumerate(keys):
                if key is not None and len(key) > MAX_KEY_BYTES:
                    text = f"the key has {len(key)} bytes, expected at most {MAX_KEY_BYTES}"
                    yield Refusal(i, "OversizedKey", text)
        if None in values or not self._plain(cast(Sequence[bytes], values)):
            for i, value in enumerate(values):
                wrong = self._wrong(value)
                if wrong is not None:
                    yield Refusal(i, *wrong)

    def _plain(self, values: Sequence[bytes]) -> bool:
        """Whether all values are surely within the limits, looking at all of them as one text."""
        # A line feed is no part of a longer character, so good text is good apart too.
        joined = b"\n".join(values)
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        return (
            int(sizes.max(initial=0)) <= self.max_record_bytes
            and _most_brackets(joined, sizes) <= self.max_depth
            and (joined.isascii() or _decodes(joined))
        )

    def _wrong(self, value: bytes | None) -> tuple[str, str] | None:
        if value is None:
            return "NullValue", "the value is null"
        if len(value) > self.max_record_bytes:
            size = f"{len(value)} bytes, expected at most {self.max_record_bytes}"
            return "OversizedValue", f"the value has {size}"
        if value.count(b"[") + value.count(b"{") > self.max_depth:
            depth = nesting(value)
            if depth > self.max_depth:
                text = f"the value is nested {depth} deep, expected at most {self.max_depth}"
                return "DeepNesting", text
        try:
            value.decode()
        except UnicodeDecodeError as error:
            return "Undecodable", f"not UTF-8: {error.reason} at byte {error.start}"
        return None


def _most_brackets(joined: bytes, sizes: Ints) -> int:
    """At least as many as any value has, brackets inside strings too.

    Exact where that takes more than a look.
    """
    if not joined:
        return 0
    ends = np.cumsum(sizes + 1)
    bracket = (np.frombuffer(joined + b"\n", np.uint8) | _BRACKET_BIT) == ord("{")
    further = int(np.count_nonzero(bracket)) - int(np.count_nonzero(bracket[ends - sizes - 1]))
    if further <= FEW_BRACKETS:
        return further + 1
    return int(np.diff(np.searchsorted(np.flatnonzero(bracket), ends), prepend=0).max())


def _decodes(joined: bytes) -> bool:
    try:
        joined.decode()
    except UnicodeDecodeError:
        return False
    return True


def nesting(value: bytes) -> int:
    """How deep objects and arrays are nested, brackets inside strings left out.

    >>> nesting(b'{"a": [1, {"b": "]]["}]}')
    3
    """
    brackets = np.frombuffer(_STRINGS.sub(b"", value).translate(None, _NO_BRACKETS), np.uint8)
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opens, 1, -1)).max(initial=0))
