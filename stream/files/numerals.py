"""Numbers as people write them: which sign is the decimal one, and what a numeral then is.

`1,234` is a thousand to some and little more than one to others. What the column has besides
decides, then what the file has, and where nothing does it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from freshet.stream.errors import InvalidInputError

Decimal = Literal[".", ","]

# Currency signs, and what some write between thousands.
_DRESS: Final = re.compile(r"[\s\u00a0\u202f€$£¥']")
_COMMA_SURE: Final = re.compile(
    r"[+-]?(\d{1,3}(\.\d{3})+,\d+|(0|\d{4,}),\d+|\d+,(\d{1,2}|\d{4,})|\d{1,3}(\.\d{3}){2,})"
)
_DOT_SURE: Final = re.compile(
    r"[+-]?(\d{1,3}(,\d{3})+\.\d+|(0|\d{4,})?\.\d+|\d+\.(\d{1,2}|\d{4,})?|\d{1,3}(,\d{3}){2,})"
)
_EITHER: Final = re.compile(r"[+-]?\d{1,3}[.,]\d{3}")
ZERO_AHEAD: Final = r"^[+-]?0\d+$"
_SHAPES: Final = {
    ".": re.compile(r"[+-]?(\d+|\d{1,3}(,\d{3})+)?(\.\d*)?([eE][+-]?\d+)?"),
    ",": re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)?(,\d*)?([eE][+-]?\d+)?"),
}
NOTHING: Final = frozenset(("", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "NULL", "null", "None"))
"""Texts that stand for no number."""


class Evidence(NamedTuple):
    """Numerals that only one of the two signs explains, and one that both do."""

    comma: str | None
    dot: str | None
    either: str | None


def evidence_of(texts: Iterable[str]) -> Evidence:
    """What distinct texts of a column say of its decimal sign.

    >>> evidence_of(["12,50", "1,299", "3"])
    Evidence(comma='12,50', dot=None, either='1,299')
    """
    comma = dot = either = None
    for text in texts:
        bare = _DRESS.sub("", text)
        if _EITHER.fullmatch(bare) and not bare.lstrip("+-").startswith("0"):
            either = either or text
        elif _COMMA_SURE.fullmatch(bare):
            comma = comma or text
        elif _DOT_SURE.fullmatch(bare):
            dot = dot or text
    return Evidence(comma, dot, either)


def decimal_of(own: Evidence, file: Evidence, separator: str, place: str) -> Decimal:
    """The decimal sign of a column.

    Args:
        own: What it says itself.
        file: What the whole file says.
        separator: Between fields; with a comma there `1.299` is never in doubt.
        place: For messages.

    Raises:
        InvalidInputError: It has both, or one that may be either and nothing that decides.
    """
    if own.comma and own.dot:
        raise InvalidInputError(
            f"{place} has {own.comma!r} and {own.dot!r}", hint="write its numbers in one way"
        )
    if own.comma:
        return ","
    if own.dot or own.either is None:
        return "."
    if bool(file.comma) != bool(file.dot):
        return "," if file.comma else "."
    if "." in own.either and separator != ";":
        return "."
    low, high = (re.sub("[.,]", sign, own.either) for sign in (".", ""))
    raise InvalidInputError(
        f"{place}: {own.either!r} may be {low} or {high}", hint='--decimal "," or "." says it'
    )


def number_of(text: str, decimal: Decimal) -> float | None:
    """The number that a text is; None: it is none. What stands for nothing is NaN.

    >>> number_of("€ 1.299,50", ","), number_of("1,299.5", "."), number_of("12,50", ".")
    (1299.5, 1299.5, None)
    """
    bare = _DRESS.sub("", text)
    if bare in NOTHING:
        return float("nan")
    if not _SHAPES[decimal].fullmatch(bare):
        return None
    group = "," if decimal == "." else "."
    try:
        return float(bare.replace(group, "").replace(decimal, "."))
    except ValueError:
        return None


def led_by_zero(text: str) -> bool:
    """Whether a text is rather a name than a number: `00123`, and not `0.5`."""
    return re.match(ZERO_AHEAD, text) is not None


def like_number(text: str) -> bool:
    """Whether a text may be a number.

    >>> [like_number(text) for text in ("7", "1,5", "-0.5", "2024-01-01", "a")]
    [True, True, True, False, False]
    """
    bare = _DRESS.sub("", text)
    return bare in NOTHING or any(shape.fullmatch(bare) for shape in _SHAPES.values())
