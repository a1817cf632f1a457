"""Tables in files: parquet or CSV, the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd


def columns_in(path: Path) -> list[str]:
    """The names of the columns of a parquet or CSV file.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    with _readable(path):
        if _parquet(path):
            return list(pq.read_schema(path).names)
        return [str(name) for name in pd.read_csv(path, nrows=0).columns]


def read_table(
    path: Path, columns: Iterable[str], names: str = "", optional: Iterable[str] = ()
) -> pd.DataFrame:
    """The named columns of a parquet or CSV file, and those `optional` ones that it has.

    The column `names` is read as text, so that "007" stays "007".

    Raises:
        InvalidInputError: the file cannot be read or lacks a column.
    """
    import pandas as pd

    found = columns_in(path)
    wanted = list(columns)
    need(wanted, found, str(path))
    wanted += [name for name in optional if name in found]
    with _readable(path):
        if _parquet(path):
            return pd.read_parquet(path, columns=wanted)
        return pd.read_csv(path, usecols=wanted, dtype={names: str}, low_memory=False)


def _parquet(path: Path) -> bool:
    return path.suffix.lower() in {".parquet", ".pq"}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What pandas and pyarrow say of a file that is no table, as an error of our own."""
    import pandas as pd

    try:
        yield
    except pd.errors.EmptyDataError:
        raise InvalidInputError(
            f"{path} is empty", hint="give a table with a header and rows"
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"{path} cannot be read as a table: {error}", hint="give parquet or CSV"
        ) from error


def need(wanted: Iterable[str], found: list[str], place: str) -> None:
    """Raise InvalidInputError where a column is missing."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InvalidInputError(
            f"{place} has no column {', '.join(map(repr, missing))}",
            hint=f"it has {', '.join(map(str, found))}",
        )
