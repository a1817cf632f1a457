"""Raw columns to texts: ids that came as numbers, and words that stand for ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from freshet.stream.events.map.levels import BLANKS, Column, Level, Source, Wrong, nothing

NOTHING_WRONG: Final[Mapping[int, Wrong]] = {}
MAX_WHOLE: Final = 2.0**53
"""Below it a float says one whole number."""
ANY_WORD: Final = "*"

_TEXTS: Final = frozenset((str, type(None)))
_NAMES: Final = {bool: "true or false", str: "text", dict: "an object", list: "an array"}


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts, None where one is missing or wrong, and what is wrong."""

    values: Sequence[str | None]
    wrong: Mapping[int, Wrong]
    complete: bool = False

    @property
    def lacking(self) -> list[int]:
        """Where there is none."""
        # Looking for None compares each text with it, which takes as long as hashing it.
        if self.complete:
            return []
        return [n for n, value in enumerate(self.values) if value is None]


def kind_name(value: Any) -> str:
    """What a JSON value is, for people."""
    return _NAMES.get(type(value), "a number")


def text_of_value(value: Any, *, flags: bool = False) -> str | None:
    """A value as text; None where it cannot be one.

    >>> [text_of_value(value) for value in ("a", 5, 5.0, 5.5, True)]
    ['a', '5', '5', None, None]
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower() if flags else None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and abs(value) < MAX_WHOLE and value == int(value):
        return str(int(value))
    return None


def all_texts(column: Column) -> bool:
    """Whether a column surely holds texts alone, none of them blank; the cheapest way to ask."""
    try:
        joined = "".join(column)
    except TypeError:
        return False
    return all(column) and not any(blank in joined for blank in BLANKS)


@dataclass(frozen=True, slots=True)
class TextField:
    """A field that is text."""

    name: str
    source: Source
    words: Mapping[str, str] | None = None
    default: str | None = None

    def read(self, level: Level) -> Texts:
        """The texts of a level."""
        column = self.source.column(level)
        if self.words is None and all_texts(column):
            return Texts(column, NOTHING_WRONG, complete=True)
        wrong: dict[int, Wrong] = {}
        column = [None if nothing(value) else value for value in column]
        if self.words is not None or not set(map(type, column)) <= _TEXTS:
            column = [self._text(n, value, wrong) for n, value in enumerate(column)]
        if self.default is not None:
            column = [
                self.default if value is None and n not in wrong else value
                for n, value in enumerate(column)
            ]
        return Texts(column, wrong)

    def _text(self, n: int, value: Any, wrong: dict[int, Wrong]) -> str | None:
        if value is None:
            return None
        text = text_of_value(value, flags=self.words is not None)
        if text is None:
            why = f"the field {self.name!r} is {kind_name(value)}, expected text"
            wrong[n] = ("InvalidField", why)
        elif self.words is not None:
            word = self.words.get(text, self.words.get(ANY_WORD))
            if word is None:
                why = f"the field {self.name!r} is {text[:40]!r}, which its words lack"
                wrong[n] = ("InvalidField", why)
            return word
        return text
