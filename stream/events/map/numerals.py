"""Raw columns to numbers: numerals in a declared style, differences, scales, currencies, signs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from freshet.stream.arrays import Bools, Floats
from freshet.stream.errors import ConfigError
from freshet.stream.events.map.levels import BLANKS, Column, Level, Source, Wrong, nothing
from freshet.stream.events.map.texts import ANY_WORD, kind_name, text_of_value

_PLAIN = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NUMERAL = re.compile(r"[0-9](?:.*[0-9])?", re.DOTALL)
_GROUPS: Final = ".,' "
_ALIKE: Final = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2019": "'", "\u2212": "-"})
_NUMBERS: Final = frozenset((int, float))
_MAYBE_NUMBERS: Final = frozenset((int, float, type(None)))


@dataclass(frozen=True, slots=True)
class Style:
    """How numbers are written: the decimal sign, the groups' sign, and whether words are around."""

    decimal: str = "."
    group: str = ""
    words: bool = False

    @classmethod
    def of(cls, example: str, setting: str) -> Style:
        """The style of an example.

        Raises:
            ConfigError: It is no number, or its only sign may be either.

        >>> Style.of("1.299,00", ""), Style.of("12,5", "")
        (Style(decimal=',', group='.', words=False), Style(decimal=',', group='', words=False))
        """
        bare = example.translate(_ALIKE).strip(BLANKS)
        match = _NUMERAL.search(bare)
        signs = [] if match is None else [c for c in match[0] if not c.isdigit()]
        if match is None or not set(signs) <= set(_GROUPS):
            hint = 'write one as the records do, such as "1,299.00"'
            raise ConfigError(f"{setting} is {example!r}, which is no number", hint=hint)
        words = bare[: match.start()].lstrip("+-") + bare[match.end() :] != ""
        last = signs[-1] if signs else "."
        rest = match[0].rpartition(last)[2] if signs else ""
        if len(set(signs)) == 1 and len(rest) == 3:
            if len(signs) == 1 and last in ".,":
                hint = 'show both signs, such as "1,299.00"'
                raise ConfigError(f"{setting} is {example!r}, which may mean two", hint=hint)
            return cls("," if last == "." else ".", last, words)
        if last not in ".," or signs.count(last) > 1:
            return cls("," if "." in signs else ".", last, words)
        return cls(last, signs[0] if len(set(signs)) > 1 else "", words)

    def parse(self, text: str) -> float:
        """The number that a text says; NaN where it says none.

        >>> Style(",", ".").parse("1.299,50"), Style().parse(" -3 "), Style().parse("1,2")
        (1299.5, -3.0, nan)
        """
        bare = text.translate(_ALIKE).strip(BLANKS)
        if self.words:
            bare = self._without_words(bare)
        if self.group:
            whole, decimal, rest = bare.partition(self.decimal)
            bare = self._ungrouped(whole) + decimal.replace(self.decimal, ".") + rest
        elif self.decimal != ".":
            bare = bare.replace(".", "?").replace(self.decimal, ".")
        if _PLAIN.fullmatch(bare) is None:
            return math.nan
        number = float(bare)
        return number if math.isfinite(number) else math.nan

    def _ungrouped(self, whole: str) -> str:
        group = re.escape(self.group)
        if self.group in whole:
            if re.fullmatch(rf"[+-]?[0-9]{{1,3}}({group}[0-9]{{2,3}})*{group}[0-9]{{3}}", whole):
                return whole.replace(self.group, "")
            return "?"
        return whole if "." not in whole else "?"

    def _without_words(self, text: str) -> str:
        match = _NUMERAL.search(text)
        if match is None or "(" in text[: match.start()]:  # Perhaps a minus: nobody can say.
            return text
        before = text[: match.start()]
        sign = "-" if "-" in before or text[match.end() :].strip(BLANKS) == "-" else ""
        return sign + match[0]


PLAIN: Final = Style()


def style_name(style: Style) -> str:
    """The style as canonical text."""
    return f"{style.decimal}{style.group}{'w' * style.words}"


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column of numbers, NaN where one is missing or wrong, and what is wrong."""

    values: Floats
    wrong: Mapping[int, Wrong]


def numbers(column: Column, style: Style, name: str) -> Numbers:
    """Raw values as numbers."""
    kinds = set(map(type, column))
    try:
        if kinds <= _NUMBERS:
            return Numbers(np.fromiter(column, np.float64, len(column)), {})
        if kinds <= _MAYBE_NUMBERS:
            return Numbers(np.array(column, np.float64), {})  # None becomes NaN.
    except OverflowError:
        pass
    values = np.full(len(column), np.nan)
    wrong: dict[int, Wrong] = {}
    for n, value in enumerate(column):
        if nothing(value):
            continue
        values[n] = _number(value, style)
        if np.isnan(values[n]):
            wrong[n] = ("InvalidField", _why_no_number(value, style, name))
    return Numbers(values, wrong)


def _number(value: Any, style: Style) -> float:
    if isinstance(value, str):
        return style.parse(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _why_no_number(value: Any, style: Style, name: str) -> str:
    if not isinstance(value, str):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"the field {name!r} is a number out of range"
        return f"the field {name!r} is {kind_name(value)}, expected a number"
    text = f"the field {name!r} is {value[:40]!r}, expected a number"
    if style == PLAIN and any(c.isdigit() for c in value):
        text += '; say how it is written, as in number = "1.299,00"'
    return text


@dataclass(frozen=True, slots=True)
class Currency:
    """By what amounts are multiplied: the rate of the currency that a record names."""

    source: Source
    rates: Mapping[str, float]

    def factors(self, level: Level, name: str) -> Numbers:
        """A factor for each record or line."""
        codes = self.source.column(level)
        found = [None if nothing(code) else self._rate(code) for code in codes]
        wrong: dict[int, Wrong] = {}
        for n, rate in enumerate(found):
            if nothing(codes[n]):
                wrong[n] = ("MissingField", f"the currency of {name!r} is missing")
            elif rate is None:
                code = str(codes[n])[:40]
                text = f"the currency of {name!r} is {code!r}, which events.rates lacks"
                wrong[n] = ("InvalidField", text)
        return Numbers(np.array(found, np.float64), wrong)

    def _rate(self, code: Any) -> float | None:
        return self.rates.get(code.strip().upper()) if isinstance(code, str) else None


@dataclass(frozen=True, slots=True)
class NumberField:
    """A field that is a number: (value - all of minus) / per x scale x rate x sign.

    What `per` has nothing for, or 0, is missing; `otherwise` stands where it is.
    """

    name: str
    source: Source
    style: Style = PLAIN
    minus: Sequence[Source] = ()
    scale: float = 1.0
    currency: Currency | None = None
    sign: float | Any = 1.0  # Or a number field, which reads 1 or -1.
    words: Mapping[str, Any] | None = None
    default: float | None = None
    per: Source | None = None
    otherwise: NumberField | None = None

    def read(self, level: Level) -> Numbers:
        """The numbers of a level."""
        column = self.source.column(level)
        if self.words is not None:
            column = [_word(value, self.words) for value in column]
        found = numbers(column, self.style, self.name)
        if not self._plain:
            with np.errstate(over="ignore", invalid="ignore"):  # What is too large is refused.
                found = self._worked_out(found, level)
        if self.otherwise is not None:
            found = _or_else(found, self.otherwise, level)
        if self.default is not None:
            missing = _missing(found)
            found = Numbers(np.where(missing, self.default, found.values), found.wrong)
        return found

    @property
    def _plain(self) -> bool:
        factors = self.scale == 1.0 and self.currency is None and self.sign == 1.0
        return factors and not self.minus and self.per is None

    def _worked_out(self, found: Numbers, level: Level) -> Numbers:
        values, wrong = found.values, dict(found.wrong)
        given = ~np.isnan(values)

        def note(other: Mapping[int, Wrong]) -> None:
            for n, why in other.items():
                if given[n]:
                    wrong.setdefault(n, why)

        for source in self.minus:
            part = numbers(source.column(level), self.style, self.name)
            note(part.wrong)
            values = values - np.where(np.isnan(part.values), 0.0, part.values)
        if self.per is not None:
            parts = numbers(self.per.column(level), self.style, self.name)
            note(parts.wrong)
            values = values / np.where(parts.values == 0, np.nan, parts.values)
            given &= ~np.isnan(values)
        if self.scale != 1.0:
            values = values * self.scale
        if self.currency is not None:
            factors = self.currency.factors(level, self.name)
            note(factors.wrong)
            values = values * factors.values
        if isinstance(self.sign, NumberField):
            signs = self.sign.read(level)
            note(signs.wrong)
            off = np.flatnonzero(given & (np.abs(signs.values) != 1)).tolist()
            text = f"the sign of {self.name!r} is neither 1 nor -1"
            note(dict.fromkeys(off, ("InvalidField", text)))
            values = values * signs.values
        elif self.sign != 1.0:
            values = values * self.sign
        values[list(wrong)] = np.nan
        return Numbers(values, wrong)


def _missing(found: Numbers) -> Bools:
    """Where there is nothing, and nothing wrong either."""
    missing: Bools = np.isnan(found.values)
    missing[list(found.wrong)] = False
    return missing


def _or_else(found: Numbers, otherwise: NumberField, level: Level) -> Numbers:
    """The same numbers, those that are missing as another rule has them."""
    missing = _missing(found)
    if not missing.any():
        return found
    other = otherwise.read(level)
    wrong = {n: why for n, why in other.wrong.items() if missing[n]}
    values = np.where(missing, other.values, found.values)
    return Numbers(values, {**found.wrong, **wrong})


def _word(value: Any, words: Mapping[str, Any]) -> Any:
    if nothing(value):
        return None
    text = text_of_value(value, flags=True)
    return words.get(text, words.get(ANY_WORD, value)) if text is not None else value
