"""Columns of a table as numbers: flags, categories, and one static value a series."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from freshet.model.tables.told import Oddities, tell
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.times import row_of

if TYPE_CHECKING:
    import pandas as pd

Categories = dict[str, tuple[str, ...]]

MAX_CATEGORIES = 12
_NUMBERS = {"integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty"}


def numbers(column: pd.Series, odd: Oddities | None = None) -> Floats:
    """A column of numbers or flags as float64 with NaN where missing: [R].

    Args:
        column: of any kind.
        odd: how many values that cannot be used are taken for missing; None: none.

    Raises:
        InvalidInputError: it holds dates, or more text that is no number, or more infinite values.
    """
    import pandas as pd

    odd = Oddities(strict=True) if odd is None else odd
    if column.dtype.kind in "Mmc":
        what = {"M": "dates", "m": "durations", "c": "complex numbers"}[column.dtype.kind]
        raise InvalidInputError(
            f"column {column.name!r} holds {what}", hint="give numbers, flags or text"
        )
    if pd.api.types.is_numeric_dtype(column):
        found: Floats = column.to_numpy(np.float64, na_value=np.nan)
    else:
        values = pd.to_numeric(column, errors="coerce")
        wrong_R = values.isna() & column.notna() & (column.astype(str).str.lower() != "nan")
        if wrong_R.any():
            first = f"{column[wrong_R].iloc[0]!r} in column {column.name!r}"
            message = f"{first} is no number{row_of(column, wrong_R.to_numpy(bool))}"
            hint = "write numbers as 1234.5, and leave unknown ones empty"
            _tolerate(odd, wrong_R.to_numpy(bool), message, hint)
        found = values.astype("Float64").to_numpy(np.float64, na_value=np.nan)
    infinite_R = np.isinf(found)
    if infinite_R.any():
        message = f"column {column.name!r} holds an infinite value"
        _tolerate(odd, infinite_R, message, "leave unknown values empty")
        found = np.where(infinite_R, np.nan, found)
    return found


def _tolerate(odd: Oddities, odd_R: Bools, message: str, hint: str) -> None:
    done = f"{int(odd_R.sum())} such of {len(odd_R)} taken for missing"
    odd.tolerate(odd_R, message, done=done, hint=hint)


def categories(frame: pd.DataFrame, columns: Iterable[str]) -> Categories:
    """The most frequent values, at most 12 and then by name, of each column that holds text."""
    found: Categories = {}
    for name in columns:
        if _holds_text(frame[name]):
            counts = frame[name].dropna().astype(str).value_counts()
            ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_CATEGORIES]
            found[name] = tuple(sorted(value for value, _ in ranked))
    return found


def covariates(
    frame: pd.DataFrame,
    columns: Iterable[str],
    known: Categories,
    odd: Oddities | None = None,
) -> dict[str, Floats]:
    """Named number columns: [R] each; of a text column one for each category, "column=value".

    A value that is not in `known` is 0 in all of them.

    A text column that is not in `known` is refused; a missing text is missing in each of its
    columns.
    """
    found: dict[str, Floats] = {}
    for name in columns:
        if name not in known:
            found[name] = numbers(frame[name], odd)
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
    by_series = ordered.groupby(np.sort(code_R), sort=True)
    first = by_series.first()
    changes = by_series.nunique() > 1
    if changes.any(axis=None):
        what = ", ".join(map(repr, changes.columns[changes.any()]))
        tell(
            f"the static {what} changes within {int(changes.any(axis=1).sum())} of {len(changes)} "
            "series: the first value of each counts; what changes is known or past"
        )
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
