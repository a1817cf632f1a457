"""Limits on a record's raw bytes, checked before any JSON decoder sees them: size, depth of nesting, UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final, cast

import numpy as np

MAX_KEY_BYTES: Final = 256

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one record of a batch is a dead letter."""

    index: int
    error_class: str
    message: str


@dataclass(frozen=True, slots=True)
class ByteLimits:
    """What a value may be at most; a key has at most 256 bytes."""

    max_depth: int
    max_record_bytes: int

    def refusals(self, values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> Iterator[Refusal]:
        """What is wrong with a batch, keys first; one in which nothing is costs a few calls, and none a record."""
        if any(map(MAX_KEY_BYTES.__lt__, map(len, filter(None, keys)))):
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
        brackets = (max(map(bytes.count, values, repeat(bracket)), default=0) for bracket in (b"[", b"{"))
        return (
            max(map(len, values), default=0) <= self.max_record_bytes
            and all(map(bytes.isascii, values))
            and sum(brackets) <= self.max_depth
        )

    def _wrong(self, value: bytes | None) -> tuple[str, str] | None:
        if value is None:
            return "NullValue", "the value is null"
        if len(value) > self.max_record_bytes:
            return "OversizedValue", f"the value has {len(value)} bytes, expected at most {self.max_record_bytes}"
        if value.count(b"[") + value.count(b"{") > self.max_depth:
            depth = nesting(value)
            if depth > self.max_depth:
                return "DeepNesting", f"the value is nested {depth} deep, expected at most {self.max_depth}"
        try:
            value.decode()
        except UnicodeDecodeError as error:
            return "Undecodable", f"not UTF-8: {error.reason} at byte {error.start}"
        return None


def nesting(value: bytes) -> int:
    """How deep objects and arrays are nested, brackets inside strings left out.

    >>> nesting(b'{"a": [1, {"b": "]]["}]}')
    3
    """
    brackets = np.frombuffer(_STRINGS.sub(b"", value).translate(None, _NO_BRACKETS), np.uint8)
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opens, 1, -1)).max(initial=0))
