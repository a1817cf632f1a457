"""Columns of a table as numbers: times, flags, categories, and one static value a series."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

Categories = dict[str, tuple[str, ...]]

MAX_CATEGORIES = 12
# A whole number below this would be a time before 1973: a year, a day number or seconds, rather.
_LEAST_EPOCH_MS = 100_000_000_000
_NUMBERS = {"integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty"}
_ZONED = re.compile(r"\d:\d{2}.*(?:Z|[+-]\d{2}:?\d{2})$")


def times_ms(column: pd.Series) -> Ints:
    """A column of times as UTC milliseconds: [R].

    Times without a zone are UTC, whole numbers epoch milliseconds.

    Raises:
        InvalidInputError: a time is missing or unreadable, or only some have a time zone.
    """
    import pandas as pd

    missing = int(column.isna().sum())
    if missing:
        raise InvalidInputError(
            f"{missing} of {len(column)} rows have no time in column {column.name!r}",
            hint="fill or drop them",
        )
    if pd.api.types.is_numeric_dtype(column):
        return _epoch_ms(column)
    if not pd.api.types.is_datetime64_any_dtype(column):
        column = _parsed(column)
    if column.dt.tz is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    stamps: Ints = column.dt.as_unit("ms").to_numpy().astype(np.int64)
    return stamps


def _epoch_ms(column: pd.Series) -> Ints:
    values = column.to_numpy(np.float64)
    if not (np.isfinite(values).all() and (values >= _LEAST_EPOCH_MS).all()):
        raise InvalidInputError(
            f"the time {column.iloc[int(np.argmin(values))]} in column {column.name!r} is no "
            "time in milliseconds since 1970",
            hint="write dates as 2024-05-31 or 2024-05-31T13:00:00Z",
        )
    stamps: Ints = column.to_numpy(np.int64)
    return stamps


def _parsed(column: pd.Series) -> pd.Series:
    import pandas as pd

    texts = column.astype(str)
    zoned = texts.str.contains(_ZONED)
    if zoned.any() and not zoned.all():
        raise InvalidInputError(
            f"some times in column {column.name!r} have a time zone ({texts[zoned].iloc[0]}) "
            f"and some have none ({texts[~zoned].iloc[0]})",
            hint="write all of them in UTC, or all with their zone",
        )
    stamps = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
    if stamps.isna().any():
        stamps = pd.to_datetime(texts, utc=True, errors="coerce", format=_guessed(texts))
    if stamps.isna().any():
        wrong = texts[stamps.isna()].iloc[0]
        raise InvalidInputError(
            f"{wrong!r} in column {column.name!r} is no time",
            hint="write dates as 2024-05-31 or 2024-05-31T13:00:00Z",
        )
    return stamps


def _guessed(texts: pd.Series) -> str:
    """The format of the first time, which all others must follow.

    Mixed formats would swap days and months.
    """
    from pandas.tseries.api import guess_datetime_format

    return guess_datetime_format(texts.iloc[0]) or "ISO8601"


def numbers(column: pd.Series) -> Floats:
    """A column of numbers or flags as float64 with NaN where missing: [R].

    Raises:
        InvalidInputError: a value is text that is no number, a date, or infinite.
    """
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        raise InvalidInputError(
            f"column {column.name!r} holds dates", hint="give numbers, flags or text"
        )
    if pd.api.types.is_numeric_dtype(column):
        found: Floats = column.to_numpy(np.float64, na_value=np.nan)
    else:
        values = pd.to_numeric(column, errors="coerce")
        wrong = values.isna() & column.notna() & (column.astype(str).str.lower() != "nan")
        if wrong.any():
            raise InvalidInputError(
                f"{column[wrong].iloc[0]!r} in column {column.name!r} is no number"
            )
        found = values.astype("Float64").to_numpy(np.float64, na_value=np.nan)
    if np.isinf(found).any():
        raise InvalidInputError(
            f"column {column.name!r} holds an infinite value", hint="leave unknown values empty"
        )
    return found


def categories(frame: pd.DataFrame, columns: Iterable[str]) -> Categories:
    """The most frequent values, at most 12 and then by name, of each column that holds text."""
    found: Categories = {}
    for name in columns:
        if _holds_text(frame[name]):
            counts = frame[name].dropna().astype(str).value_counts()
            ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_CATEGORIES]
            found[name] = tuple(sorted(value for value, _ in ranked))
    return found


def covariates(frame: pd.DataFrame, columns: Iterable[str], known: Categories) -> dict[str, Floats]:
    """Named number columns: [R] each; of a text column one for each category, "column=value".

    A value that is not in `known` is 0 in all of them.

    A text column that is not in `known` is refused; a missing text is missing in each of its
    columns.
    """
    found: dict[str, Floats] = {}
    for name in columns:
        if name not in known:
            found[name] = numbers(frame[name])
            continue
        missing = frame[name].isna().to_numpy()
        texts = frame[name].astype(str).to_numpy()
        for value in known[name]:
            found[f"{name}={value}"] = np.where(
                missing, np.nan, (texts == value).astype(np.float64)
            )
    return found


def statics(
    frame: pd.DataFrame, columns: Iterable[str], code_R: Ints, step_R: Ints
) -> dict[str, Floats | NDArray[np.object_]]:
    """Each series' first value in time of each column: [N] each.

    float64, or object (str or None) for text.
    """
    names = list(columns)
    if not names:
        return {}
    ordered = frame[names].iloc[np.lexsort((step_R, code_R))]
    first = ordered.groupby(np.sort(code_R), sort=True).first()
    return {
        name: _texts(first[name]) if _holds_text(frame[name]) else numbers(first[name])
        for name in names
    }


def _texts(column: pd.Series) -> NDArray[np.object_]:
    texts: NDArray[np.object_] = column.astype(object).map(str, na_action="ignore").to_numpy(object)
    texts[column.isna().to_numpy()] = None
    return texts


def _holds_text(column: pd.Series) -> bool:
    """Whether a column is text or categories.

    Numbers, flags and objects that are all numbers are none.
    """
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        return _holds_text(pd.Series(column.cat.categories))
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return False
    return pd.api.types.infer_dtype(column, skipna=True) not in _NUMBERS
