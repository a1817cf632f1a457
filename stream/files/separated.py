"""Rows of separated fields, as texts: the separator by itself, and rows that do not fit counted."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from freshet.stream.errors import InvalidInputError
from freshet.stream.files.opened import unreadable

SEPARATORS: Final = (",", ";", "\t", "|")
NAMES: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", "tab": "\t", "\\t": "\t"}
SAMPLE_ROWS: Final = 200
SAMPLE_CHARACTERS: Final = 1_000_000
MAX_ODD_SHARE: Final = 0.02
"""Of rows that have more or fewer fields than the header: a slip of the pen, or another file."""
MAX_ROW_BYTES: Final = 32_000_000
_END: Final = "\x1e"


class Shape(NamedTuple):
    """How a file separates its fields, and what its first row names them."""

    separator: str
    names: list[str]
    trailing: bool
    """Whether rows, but not the header, end in one separator more."""


@dataclass
class Odd:
    """Rows that do not have as many fields as the header."""

    numbers: list[int] = field(default_factory=list)
    first: str = ""

    def __call__(self, row: Any) -> str:
        if not self.numbers:
            self.first = f"has {row.actual_columns} fields, expected {row.expected_columns}"
        self.numbers.append(row.number)
        return "skip"


class Separated(NamedTuple):
    """A table of texts; `odd_rows` are the numbers of rows left out, the header being row 1."""

    data: Any
    separator: str
    odd_rows: list[int]
    notes: list[str]


def read_separated(path: Path, data: bytes, separator: str | None = None) -> Separated:
    """All columns as texts; an empty field is null.

    Args:
        path: For messages.
        data: UTF-8.
        separator: One character, or `tab`; None: the one under which header and rows agree.

    Raises:
        InvalidInputError: No separator fits, a quotation never ends, or many rows do not fit.
    """
    data, said = _without_hint(data)
    shape = _shape(path, data, separator_of(separator) or said)
    width = len(shape.names) + shape.trailing
    odd = Odd()
    table = _parsed(path, data, shape.separator, width, odd)
    last = table.num_rows - 1
    if last < 0 or table.column(0)[last].as_py() != _END:
        seen = table.num_rows + len(odd.numbers)
        row = seen + (seen not in odd.numbers)
        raise unreadable(
            path, f"a quotation that begins in row {row} never ends", "close it, or double it"
        )
    if shape.trailing and 1 in odd.numbers:
        odd.numbers.remove(1)
        table = table.slice(0, last)
    else:
        table = table.slice(1, last - 1)
    table = table.select(list(range(len(shape.names))))
    notes = _tell_odd(path, odd, table.num_rows, shape)
    return Separated(table.rename_columns(shape.names), shape.separator, odd.numbers, notes)


def separator_of(text: str | None) -> str | None:
    r"""A separator as people name it.

    >>> separator_of("tab"), separator_of(";")
    ('\t', ';')

    Raises:
        InvalidInputError: It is not one character.
    """
    if text is None:
        return None
    found = NAMES.get(text, text) if len(text) != 1 else text
    if len(found) != 1 or found in '"\r\n':
        raise InvalidInputError(f"--separator: {text!r} is not one character or tab")
    return found


def _without_hint(data: bytes) -> tuple[bytes, str | None]:
    """Excel's first line `sep=;` says the separator and is no row."""
    line, _, rest = data.partition(b"\n")
    said = line.strip()
    if said[:4].lower() == b"sep=" and len(said) == 5:
        return rest, said[4:].decode()
    return data, None


def _shape(path: Path, data: bytes, separator: str | None) -> Shape:
    sample = data[: 4 * SAMPLE_CHARACTERS].decode("utf-8", "ignore")[:SAMPLE_CHARACTERS]
    whole = len(sample) < SAMPLE_CHARACTERS
    candidates = [separator] if separator else SEPARATORS
    found = [(one, _rows(sample, one, whole)) for one in candidates]
    best = max(found, key=lambda pair: _agreement(pair[1]))
    header, *rows = best[1]
    names = [name.strip() for name in header]
    longer = sum(len(row) == len(names) + 1 and not row[-1] for row in rows)
    trailing = longer > len(rows) / 2
    return Shape(best[0], names, trailing)


def _rows(sample: str, separator: str, whole: bool) -> list[list[str]]:
    """The first rows; blank lines are none, and the last one of a sample may be broken off."""
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=separator)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) > SAMPLE_ROWS:
                return rows
    except csv.Error:
        # A field too long to be one: what came before tells enough.
        return rows or [[""]]
    return rows if whole or len(rows) < 2 else rows[:-1]


def _agreement(rows: list[list[str]]) -> tuple[float, int]:
    """How many rows are as wide as the header, and how wide; one column agrees with anything."""
    header, *others = rows
    width = len(header)
    if width == 1:
        return 0.0, 1
    widths = Counter(len(row) - (not row[-1] and len(row) == width + 1) for row in others)
    return (widths[width] / len(others) if others else 1.0), width


def _parsed(path: Path, data: bytes, separator: str, width: int, odd: Odd) -> Any:
    import pyarrow as pa
    import pyarrow.csv

    names = [str(number) for number in range(width)]
    ending = (b"" if data.endswith((b"\n", b"\r")) else b"\n") + separator.join(
        [_END] * width
    ).encode()
    try:
        return pa.csv.read_csv(
            io.BytesIO(data + ending),
            pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=MAX_ROW_BYTES),
            pa.csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=odd
            ),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowException, ValueError) as error:
        why = str(error).splitlines()[0]
        raise unreadable(path, why, "is it CSV? --separator says what is between fields") from None


def _tell_odd(path: Path, odd: Odd, num_rows: int, shape: Shape) -> list[str]:
    if not odd.numbers:
        return []
    count = len(odd.numbers)
    text = f"row {odd.numbers[0]} {odd.first}"
    total = num_rows + count
    if count > max(1.0, MAX_ODD_SHARE * total) or count == total:
        raise unreadable(
            path,
            f"{text}, so do {count - 1} more of {total}" if count > 1 else text,
            f"fields are separated by {NAMES.get(shape.separator, repr(shape.separator))}; "
            "--separator says another, and a text that has one stands in quotation marks",
        )
    return [f"{path.name}: {text}: {count} such of {total} left out"]
