"""Columns of a file as the replay wants them: texts by number, floats, epoch milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.files.read import FileStyle, FileTable, read_file
from freshet.stream.source.replay.rows import TextColumn
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


class Table:
    """One file in memory.

    Raises:
        InvalidInputError: It does not exist or cannot be read.
    """

    def __init__(self, path: Path, style: FileStyle | None = None) -> None:
        self.path = path
        self.file: FileTable = read_file(path, style)
        for note in self.file.notes:
            log.warning("file_read_as", note=note)

    def __len__(self) -> int:
        return len(self.file)

    @property
    def columns(self) -> list[str]:
        """Names as in the file."""
        return self.file.names

    def need(self, names: Sequence[str], what: str) -> None:
        """Refuse the file unless it has all of these columns.

        Raises:
            InvalidInputError: Names the first missing column and those that are there.
        """
        self.file.need(names, what)

    def raw(self, name: str) -> Any:
        """One column, Arrow's own."""
        return self.file.raw(name)

    def texts(self, name: str, missing: str = "") -> TextColumn:
        """One column as texts; nulls become `missing`."""
        found = self.file.texts(name)
        codes = np.where(found.codes < 0, len(found.texts), found.codes)
        return TextColumn(codes, [*found.texts, missing])

    def numbers(self, name: str) -> Floats:
        """One column as float64; nulls become NaN.

        Raises:
            InvalidInputError: It holds something else.
        """
        return self.file.numbers(name)

    def flags(self, name: str) -> Bools:
        """One column as booleans; nulls are False."""
        return np.asarray(self.file.series(name).fillna(False).to_numpy(bool), dtype=bool)

    def times_ms(self, name: str, zone: str | None = None) -> tuple[Ints, Bools]:
        """One column as epoch milliseconds, and where there is none.

        Args:
            name: The column.
            zone: Whose clock shows times without a zone; None: as the file's style says.

        Raises:
            InvalidInputError: It holds something else.
        """
        file = self.file
        if zone is not None:
            file = replace(file, style=replace(file.style, zone=zone))
        found, missing = file.times(name)
        time_ms = np.zeros(len(self), np.int64)
        time_ms[~missing] = found.utc_ms_R
        return time_ms, missing
