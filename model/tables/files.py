"""Tables in files: the columns that are asked for, as pandas knows them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from freshet.model.tables.told import tell
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.read import FileStyle, FileTable, read_file

if TYPE_CHECKING:
    import pandas as pd

PLAIN = FileStyle()


def read_table(
    path: Path,
    columns: Iterable[str],
    names: str = "",
    optional: Iterable[str] = (),
    *,
    time: str = "",
    style: FileStyle = PLAIN,
) -> pd.DataFrame:
    """The named columns of a file, and those `optional` ones that it has.

    The column `names` is read as text, so that "007" stays "007", the column `time` as the style
    says where it does. The index numbers the file's rows.

    Raises:
        InvalidInputError: the file cannot be read or lacks a column.
    """
    file = opened(path, style)
    wanted = list(columns)
    file.need(wanted)
    return frame_of(
        file, [*wanted, *(name for name in optional if name in file.names)], names, time
    )


def opened(path: Path, style: FileStyle = PLAIN) -> FileTable:
    """A file, after saying what was guessed of it."""
    file = read_file(path, style)
    for note in file.notes:
        tell(note)
    return file


def frame_of(
    file: FileTable, columns: Iterable[str], names: str = "", time: str = ""
) -> pd.DataFrame:
    """Columns of a file as a frame; raises as `read_table`."""
    import pandas as pd

    found = {name: file.names_of(name) if name == names else file.series(name) for name in columns}
    if time in found and (file.style.zone or file.style.dayfirst is not None):
        found[time] = _timed(file, time)
    return pd.DataFrame(found).set_axis(file.rows, axis=0)


def _timed(file: FileTable, name: str) -> pd.Series:
    """A column of times as the file's style says they are meant."""
    import pandas as pd

    times, missing = file.times(name)
    zone = times.zone or ("UTC" if times.counted else None)
    stamps = pd.to_datetime(pd.Series(times.utc_ms_R), unit="ms", utc=True)
    stamps = stamps.dt.tz_convert(zone) if zone else stamps.dt.tz_localize(None)
    return stamps.set_axis(np.flatnonzero(~missing)).reindex(range(len(missing)))


def need(wanted: Iterable[str], found: list[str], place: str) -> None:
    """Raise InvalidInputError where a column is missing."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InvalidInputError(
            f"{place} has no column {', '.join(map(repr, missing))}",
            hint=f"it has {', '.join(map(str, found))}",
        )
