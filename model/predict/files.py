"""A file in, files out: the forecasts as a table or as a picture, by the suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshet.model.predict.frame import Forecaster
from freshet.model.predict.given import ITEM_NAMES
from freshet.model.predict.plot import SUFFIXES as PICTURES
from freshet.model.tables.files import columns_in, read_table
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".parquet", ".csv")


def predict_file(
    forecaster: Forecaster,
    source: Path,
    prediction_length: int | None,
    *,
    future: Path | None,
    levels: Sequence[Any],
    outputs: Sequence[Path],
    reading: dict[str, Any],
) -> pd.DataFrame:
    """The forecasts of a file, written to each of `outputs`.

    Raises:
        InvalidInputError: a file cannot be read, or written as it is named, or the table cannot be
            used; nothing is written then.
    """
    for path in outputs:
        _check(path)
    item_id = reading.get("id_column")
    frame = _read(source, item_id)
    ahead = None if future is None else _read(future, item_id)
    found: pd.DataFrame = forecaster.predict(
        frame, prediction_length, future_df=ahead, quantile_levels=levels, **reading
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


def _read(path: Path, item_id: str | None) -> pd.DataFrame:
    """All columns; names of items stay text."""
    columns = columns_in(path)
    names = [item_id] if item_id else [name for name in ITEM_NAMES if name in columns]
    return read_table(path, columns, names[0] if names else "")
