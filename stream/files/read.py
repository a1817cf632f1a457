"""The door for files of rows: parquet, separated texts or lines of JSON as columns.

What is read is the same for `freshet replay`, `freshet history load` and the commands on tables.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from freshet.stream.arrays import Bools, Floats
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.numerals import (
    ZERO_AHEAD,
    Decimal,
    Evidence,
    decimal_of,
    evidence_of,
    led_by_zero,
    like_number,
    number_of,
)
from freshet.stream.files.opened import Content, opened, unreadable
from freshet.stream.files.separated import read_separated
from freshet.stream.files.times import Times, times_of

if TYPE_CHECKING:
    import pandas as pd

_EXCEL_TEXT: Final = re.compile(r'="(.*)"', re.DOTALL)
_NULLS: Final = frozenset(("NULL", "null", "NaN", "nan", "None", "#N/A"))
_FLAGS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class FileStyle:
    """How a file is written, where it does not tell.

    Attributes:
        separator: Between fields; None: the one under which header and rows agree.
        decimal: The decimal sign; None: the one that the numbers show.
        encoding: Of texts; None: what the bytes show.
        zone: IANA name of the clock of times without a zone; None: UTC.
        dayfirst: Whether 03/04/2024 is in April; None: what all times together say.
    """

    separator: str | None = None
    decimal: Decimal | None = None
    encoding: str | None = None
    zone: str | None = None
    dayfirst: bool | None = None


class Distinct(NamedTuple):
    """A column of texts as numbers into its distinct texts; -1 where there is none."""

    codes: Any
    texts: list[str]

    def map(self, function: Callable[[str], Any], nothing: Any) -> list[Any]:
        """A value of each row."""
        found = [function(text) for text in self.texts] + [nothing]
        return [found[code] for code in self.codes.tolist()]


@dataclass
class FileTable:
    """A file in memory.

    Attributes:
        data: An Arrow table; of separated files all of it texts.
        first_row: The number of the first row in messages; a header is row 1.
        missing_rows: Numbers of rows that were left out.
        notes: What a person should know of how it was read.
    """

    path: Path
    data: Any
    style: FileStyle
    separator: str = ","
    first_row: int = 1
    missing_rows: Sequence[int] = ()
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return int(self.data.num_rows)

    @property
    def names(self) -> list[str]:
        """The columns, as in the file."""
        return list(self.data.column_names)

    def need(self, names: Iterable[str], what: str = "") -> None:
        """Refuse the file unless it has all of these columns, each once.

        Raises:
            InvalidInputError: Names the first such column and those that are there.
        """
        wanted_by = f", which {what} needs" if what else ""
        for name in names:
            count = self.names.count(name)
            if not count:
                raise InvalidInputError(
                    f"{self.path} has no column {name!r}{wanted_by}",
                    hint=f"its columns are {', '.join(self.names)}",
                )
            if count > 1:
                raise InvalidInputError(
                    f"{self.path} has {count} columns {name!r}", hint="give each its own name"
                )

    def raw(self, name: str) -> Any:
        """One column, Arrow's own.

        Raises:
            InvalidInputError: It is not there, or there twice.
        """
        import pyarrow as pa

        self.need([name])
        column = self.data.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], "null")
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column

    def texts(self, name: str) -> Distinct:
        """One column as texts; whole numbers without a fraction, `="007"` as `007`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.raw(name)
        try:
            encoded = pc.dictionary_encode(column)
            texts = [_text(value) for value in encoded.dictionary.to_pylist()]
        except (pa.ArrowException, TypeError) as error:
            raise self._wrong(name, f"is no text: {error}") from None
        codes = np.asarray(pc.fill_null(encoded.indices, -1), np.int64)
        absent = [code for code, text in enumerate(texts) if text in _NULLS]
        codes[np.isin(codes, absent)] = -1
        return Distinct(codes, texts)

    def numbers(self, name: str) -> Floats:
        """One column as float64; nulls become NaN.

        Raises:
            InvalidInputError: It holds something else, or numbers that may be read in two ways.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.raw(name)
        if not _is_text(column.type):
            try:
                plain = pc.cast(column, pa.float64(), safe=False)
            except (pa.ArrowException, NotImplementedError) as error:
                raise self._wrong(name, f"is not numeric: {error}") from None
            return np.asarray(plain.to_numpy(zero_copy_only=False), np.float64)
        plain = self._plain_numbers(column)
        if plain is not None:
            return np.asarray(plain.to_numpy(zero_copy_only=False), np.float64)
        distinct = self.texts(name)
        decimal = self._decimal(name, distinct.texts)
        found = distinct.map(lambda text: number_of(text, decimal), float("nan"))
        if None in found:
            place = found.index(None)
            text = distinct.texts[distinct.codes[place]]
            raise self._wrong(name, f"is not numeric: {text!r}", place)
        return np.array(found, np.float64)

    def series(self, name: str) -> pd.Series:
        """One column as pandas would have it: numbers where it holds numbers, else what it is."""
        import pandas as pd
        import pyarrow.compute as pc

        column = self.raw(name)
        if not _is_text(column.type):
            return pd.Series(column.to_pandas(), name=name)
        plain = self._plain_numbers(column)
        if plain is not None and not pc.any(pc.match_substring_regex(column, ZERO_AHEAD)).as_py():
            return _whole(pd.Series(plain.to_numpy(zero_copy_only=False), name=name))
        distinct = self.texts(name)
        counts = np.bincount(distinct.codes[distinct.codes >= 0], minlength=len(distinct.texts))
        flags = [_FLAGS.get(text.lower()) for text in distinct.texts]
        if distinct.texts and None not in flags:
            values = distinct.map(lambda text: _FLAGS[text.lower()], None)
            return pd.Series(values, name=name, dtype="boolean" if None in values else bool)
        like = np.array([like_number(text) for text in distinct.texts], bool)
        names = any(map(led_by_zero, distinct.texts))
        if names or not counts.sum() or counts[like].sum() < counts.sum() / 2:
            return pd.Series(distinct.map(str, None), name=name, dtype=object)
        decimal = self._decimal(name, distinct.texts)
        read = {text: number_of(text, decimal) for text in distinct.texts}
        if None not in read.values():
            return _whole(pd.Series(distinct.map(read.__getitem__, np.nan), name=name))

        def written(text: str) -> Any:
            number = read[text]
            return text if number is None else None if np.isnan(number) else repr(number)

        return pd.Series(distinct.map(written, None), name=name, dtype=object)

    def names_of(self, name: str) -> pd.Series:
        """One column of names: texts where the file holds texts."""
        import pandas as pd

        if not _is_text(self.raw(name).type):
            return self.series(name)
        return pd.Series(self.texts(name).map(str, None), name=name, dtype=object)

    def _plain_numbers(self, column: Any) -> Any:
        """Texts as numbers where all are plain ones and none may be read in two ways."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.separator == ";" or self.style.decimal == "," or not pc.count(column).as_py():
            return None
        try:
            found = pc.cast(column, pa.float64())
        except pa.ArrowException:
            return None
        return found if pc.all(pc.is_finite(found)).as_py() else None

    def times(self, name: str) -> tuple[Times, Bools]:
        """One column as times, and where there is none: those of the other rows alone.

        Raises:
            InvalidInputError: A text is no time, or may be two.
        """
        column = self.series(name)
        column.index = self.rows
        missing = column.isna().to_numpy(bool)
        try:
            found = times_of(column[~missing], dayfirst=self.style.dayfirst, zone=self.style.zone)
        except InvalidInputError as error:
            raise InvalidInputError(f"{self.path}: {error.message}", hint=error.hint) from None
        return found, missing

    @cached_property
    def rows(self) -> Any:
        """The number of each row in the file."""
        numbers = np.arange(len(self)) + self.first_row
        for missing in self.missing_rows:
            numbers += missing <= numbers
        return numbers

    def _decimal(self, name: str, texts: list[str]) -> Decimal:
        if self.style.decimal is not None:
            return self.style.decimal
        own = evidence_of(texts)
        place = f"{self.path}: column {name!r}"
        if own.either and not own.comma and not own.dot:
            return decimal_of(own, self._evidence, self.separator, place)
        return decimal_of(own, own, self.separator, place)

    @cached_property
    def _evidence(self) -> Evidence:
        """What all texts of the file say of its decimal sign."""
        columns = [name for name in dict.fromkeys(self.names) if self.names.count(name) == 1]
        own = [
            evidence_of(self.texts(name).texts)
            for name in columns
            if _is_text(self.data.column(name).type)
        ]
        comma = next((one.comma for one in own if one.comma), None)
        dot = next((one.dot for one in own if one.dot), None)
        return Evidence(comma, dot, None)

    def _wrong(self, name: str, why: str, place: int | None = None) -> InvalidInputError:
        at = "" if place is None else f"row {self.rows[place]}: "
        return InvalidInputError(f"{self.path}: {at}column {name!r} {why}")


def read_file(path: Path, style: FileStyle | None = None) -> FileTable:
    """A whole file.

    Raises:
        InvalidInputError: It is missing, no table of a kind that is known, or has no rows; the
            text names file and row.
    """
    style = style or FileStyle()
    content = opened(path, style.encoding)
    read = {"parquet": _parquet, "lines": _lines, "separated": _separated}[content.kind]
    table = read(path, content, style)
    table.notes[:0] = content.notes
    return table


def _separated(path: Path, content: Content, style: FileStyle) -> FileTable:
    found = read_separated(path, content.data, style.separator)
    return FileTable(
        path, found.data, style, found.separator, 2, sorted(found.odd_rows), found.notes
    )


def _parquet(path: Path, content: Content, style: FileStyle) -> FileTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = pq.read_table(io.BytesIO(content.data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unreadable(path, str(error).splitlines()[0], "is it whole?") from None
    return FileTable(path, data, style)


def _lines(path: Path, content: Content, style: FileStyle) -> FileTable:
    """Lines of JSON, or one array of objects; what is nested becomes `outer.inner`."""
    import pyarrow as pa

    decode = msgspec.json.decode
    blank: list[int] = []
    records: list[Any] = []
    whole = content.data.lstrip()[:1] == b"["
    try:
        if whole:
            records = decode(content.data)
        for number, line in enumerate([] if whole else content.data.splitlines(), start=1):
            if line.strip():
                records.append(decode(line))
            else:
                blank.append(number)
    except (msgspec.DecodeError, RecursionError) as error:
        at = "" if whole else f"line {len(records) + len(blank) + 1}: "
        raise unreadable(path, f"{at}{error}", "write one JSON object a line") from None
    flat: list[dict[str, Any]] = []
    for record in records:
        if not isinstance(record, dict):
            raise unreadable(path, f"line {len(flat) + 1} is no object", "write objects")
        flat.append(_flat(record))
    names = list(dict.fromkeys(name for record in flat for name in record))
    columns = {name: _column([record.get(name) for record in flat]) for name in names}
    return FileTable(path, pa.table(columns), style, missing_rows=blank)


def _flat(record: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[above + name] = json.dumps(value) if isinstance(value, list) else value
    return found


def _column(values: list[Any]) -> Any:
    """An Arrow column; values of several kinds become texts."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds == {int, float}:
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):
            pass
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        found = _EXCEL_TEXT.fullmatch(value)
        return found[1] if found else value
    if isinstance(value, bool) or not hasattr(value, "__int__"):
        return str(value)
    return str(int(value)) if np.isfinite(float(value)) and value == int(value) else str(value)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
    )


def _whole(column: pd.Series) -> pd.Series:
    """Whole numbers as such, so that times in milliseconds lose nothing."""
    values: Bools = np.isfinite(column) & (column == np.rint(column)) & (abs(column) < 2**53)
    return column.astype(np.int64) if len(column) and values.all() else column
