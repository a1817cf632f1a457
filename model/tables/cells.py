"""Where each row of a table goes in arrays of series by steps, and the values there.

Dimensions: R rows of the table, N series, L steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

MAX_CELLS = 200_000_000


class Cells(NamedTuple):
    """Where each row of the table goes in a flat [N, L] array."""

    flat_R: Ints
    shape: tuple[int, int]
    aggregate: str | None


def cells_of(
    step_R: Ints, code_R: Ints, last_N: Ints, length_N: Ints, aggregate: str | None
) -> Cells:
    """The cell of each row: one line a series, all of them ending in the last column."""
    longest = int(length_N.max())
    if len(last_N) * longest > MAX_CELLS:
        raise InvalidInputError(
            f"{len(last_N)} series of up to {longest} steps are more than the {MAX_CELLS:,} "
            "cells that fit",
            hint="check the frequency and the times, or choose fewer series",
        )
    column_R = longest - 1 - (last_N[code_R] - step_R)
    flat_R = code_R * longest + column_R
    return Cells(flat_R, (len(last_N), longest), aggregate)


def refuse_duplicates(cells: Cells, frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise InvalidInputError, naming the first row whose cell another row has.

    Args:
        cells: of the rows.
        frame: the rows.
        names: of the columns that are read, item and time first.
    """
    taken = np.zeros(cells.shape[0] * cells.shape[1], bool)
    taken[cells.flat_R] = True
    if int(taken.sum()) == len(cells.flat_R):
        return
    _, first = np.unique(cells.flat_R, return_index=True)
    first_R = np.zeros(len(cells.flat_R), bool)
    first_R[first] = True
    second = int(np.argmin(first_R))
    row = frame.iloc[second]
    item, time = row[names[0]], row[names[1]]
    pair = frame[cells.flat_R == cells.flat_R[second]][:2]
    others = [name for name in frame.columns if name not in names]
    differ = [repr(name) for name in others if pair[name].astype(str).nunique() > 1]
    apart = f" (rows differ in {', '.join(differ)})" if differ else ""
    raise InvalidInputError(
        f"item {item!r} has more than one row for the step of {time}{apart}",
        hint="combine them with aggregate= (--aggregate) sum or mean, choose a finer frequency, or "
        "make an item's name of several columns",
    )


def scatter(values_R: Floats, cells: Cells, how: str | None) -> Floats:
    """Values at their cells, NaN elsewhere: [N, L]. Missing values add nothing to a sum or mean."""
    size = cells.shape[0] * cells.shape[1]
    if how is None:
        found = np.full(size, np.nan)
        found[cells.flat_R] = values_R
        return found.reshape(cells.shape)
    seen_R = np.isfinite(values_R)
    count = np.bincount(cells.flat_R[seen_R], minlength=size)
    found = np.bincount(cells.flat_R[seen_R], weights=values_R[seen_R], minlength=size)
    if how == "mean":
        found = found / np.maximum(count, 1)
    return np.where(count > 0, found, np.nan).reshape(cells.shape)
