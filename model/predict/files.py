"""A file in, files out: the forecasts as a table or as a picture, by the suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshet.model.predict.frame import Forecaster
from freshet.model.predict.given import ITEM_NAMES, TIME_NAMES
from freshet.model.predict.plot import SUFFIXES as PICTURES
from freshet.model.tables.files import PLAIN, frame_of, opened
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.read import FileStyle

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".parquet", ".csv")


def predict_file(
    forecaster: Forecaster,
    source: Path,
    prediction_length: int | None,
    *,
    future: Path | None,
    outputs: Sequence[Path],
    reading: dict[str, Any],
    style: FileStyle = PLAIN,
    **asked: Any,
) -> pd.DataFrame:
    """The forecasts of a file, written to each of `outputs`; `asked` are words of `predict`.

    Raises:
        InvalidInputError: a file cannot be read, or written as it is named, or the table cannot be
            used; nothing is written then.
    """
    for path in outputs:
        _check(path)
    frame = whole_frame(source, reading, style)
    ahead = None if future is None else whole_frame(future, reading, style)
    found: pd.DataFrame = forecaster.predict(
        frame,
        prediction_length,
        future_df=ahead,
        progress_bar=True,
        **asked,
        **reading,
    )
    for path in outputs:
        if path.suffix.lower() == ".parquet":
            found.to_parquet(path, index=False)
        elif path.suffix.lower() == ".csv":
            found.to_csv(path, index=False)
        else:
            forecaster.plot(frame, found, path=path, **reading)
    return found


def _check(path: Path) -> None:
    if path.suffix.lower() not in (*TABLES, *PICTURES):
        raise InvalidInputError(
            f"{path} is neither a table nor a picture",
            hint=f"end it in {', '.join((*TABLES, *PICTURES))}",
        )
    if not path.absolute().parent.is_dir():
        raise InvalidInputError(f"{path.parent} is no folder, so {path.name} cannot be written")


def whole_frame(path: Path, reading: dict[str, Any], style: FileStyle = PLAIN) -> pd.DataFrame:
    """All columns of a file; names of items stay text.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    file = opened(path, style)
    file.need(file.names)

    def named(option: str, usual: Sequence[str]) -> str:
        found = reading.get(option)
        return found or next((name for name in usual if name in file.names), "")

    names = named("id_column", ITEM_NAMES)
    return frame_of(file, file.names, names, named("timestamp_column", TIME_NAMES))
