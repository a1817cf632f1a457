"""Reads a long table (parquet, CSV, a frame) into a `Panel`: one row an item and time, any order.

Dimensions: R rows of the table, N series, L steps, H horizon steps, K covariate columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from freshet.model.tables import encode
from freshet.model.tables.calendar import Calendar, resolution_ms, season_length
from freshet.model.tables.panel import Panel, Window
from freshet.stream.arrays import Floats, Ints
from freshet.stream.catalog.holidays import public_holidays
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

MAX_CELLS = 200_000_000


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a table is what; covariates and static columns may be none."""

    item_id: str
    time: str
    target: str
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = self.all()
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise InvalidInputError(
                f"the column {twice[0]!r} has two roles",
                hint="a column is item, time, target, known, past or static",
            )

    def all(self) -> list[str]:
        """Every column that is read."""
        return [self.item_id, self.time, self.target, *self.known, *self.past, *self.static]


@dataclass(frozen=True, slots=True)
class TableSettings:
    """How a long table becomes series on a regular grid.

    Attributes:
        columns: which column is what.
        frequency: pandas offset alias of a step.
        season_length: steps of the season that yardsticks use; None: what the frequency suggests.
        missing: what a step without a value means between the first and the last row of a series:
            "keep" unknown, or "zero" nothing sold.
        aggregate: how several rows of one item and step are combined; None: that is an error.
            Covariates are averaged.
        country: ISO code whose public holidays are known, besides Christmas and Easter; None: no
            other.
    """

    columns: Columns
    frequency: str
    season_length: int | None = None
    missing: Literal["keep", "zero"] = "keep"
    aggregate: Literal["sum", "mean"] | None = None
    country: str | None = None


class _Cells(NamedTuple):
    """Where each row of the table goes in a flat [N, L] array."""

    flat_R: Ints
    shape: tuple[int, int]
    aggregate: str | None


def read_table(path: Path, columns: Iterable[str], names: str = "") -> pd.DataFrame:
    """The named columns of a parquet or CSV file.

    The column `names` is read as text, so that "007" stays "007".

    Raises:
        InvalidInputError: the file cannot be read or lacks a column.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    wanted = list(columns)
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            found = list(pq.read_schema(path).names)
            _need(wanted, found, str(path))
            return pd.read_parquet(path, columns=wanted)
        found = list(pd.read_csv(path, nrows=0).columns)
        _need(wanted, found, str(path))
        return pd.read_csv(path, usecols=wanted, dtype={names: str}, low_memory=False)
    except pd.errors.EmptyDataError:
        raise InvalidInputError(
            f"{path} is empty", hint="give a table with a header and rows"
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"{path} cannot be read as a table: {error}", hint="give parquet or CSV"
        ) from error


def read_panel(source: Path | pd.DataFrame, settings: TableSettings) -> Panel:
    """The series of a table, each on a regular grid from its first to its last row.

    Times are UTC; those with a time zone are converted, whole numbers are epoch milliseconds. A
    time between two steps belongs to the step it lies in. Text covariates become "column=value"
    columns of their 12 most frequent values. A static column takes the value of a series' first row
    that has one.

    Raises:
        InvalidInputError: columns are missing, the table is empty, times or numbers cannot be read,
            a target is negative or infinite, an item has two rows for one step without `aggregate`,
            or the country is not known.
    """
    columns = settings.columns
    if settings.country is not None:
        # An unknown one is refused at once and not first where events are learnt.
        public_holidays(settings.country, range(2024, 2025))
    frame = _frame_of(source, columns)
    item_ids, code_R = _items(frame[columns.item_id])
    time_ms_R = encode.times_ms(frame[columns.time])
    target_R = _targets(frame, columns)
    calendar = Calendar.of(settings.frequency, int(time_ms_R.min()))
    phase_N = calendar.phases(time_ms_R, code_R, len(item_ids))
    step_R = calendar.steps(time_ms_R, phase_N[code_R])
    first_N, last_N = _spans(step_R, code_R, len(item_ids))
    length_N = last_N - first_N + 1
    cells = _cells(step_R, code_R, last_N, length_N, settings.aggregate)
    if settings.aggregate is None:
        _refuse_duplicates(cells, frame, columns)
    target_NL = _scatter(target_R, cells, settings.aggregate)
    # Counted from each series' own end: 0 is its last step, and before its first lies padding.
    L = target_NL.shape[1]
    place_L = np.arange(1 - L, 1)
    if settings.missing == "zero":
        inside_NL = place_L > -length_N[:, None]
        target_NL[inside_NL & np.isnan(target_NL)] = 0.0
    categories = encode.categories(frame, (*columns.known, *columns.past))
    known_names, known_NLK = _covariates(frame, columns.known, categories, cells)
    past_names, past_NLP = _covariates(frame, columns.past, categories, cells)
    return Panel(
        item_ids=item_ids,
        frequency=settings.frequency,
        resolution_ms=resolution_ms(settings.frequency),
        season_length=settings.season_length or season_length(settings.frequency),
        length_N=length_N,
        time_ms_NL=calendar.times(last_N[:, None] + place_L, phase_N[:, None]),
        target_NL=target_NL,
        known_NLK=known_NLK,
        past_NLP=past_NLP,
        known_names=known_names,
        past_names=past_names,
        static=encode.statics(frame, columns.static, code_R, step_R),
        categories=categories,
        country=settings.country,
    )


def _frame_of(source: Path | pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """A table that has every column and at least one row."""
    frame = source
    if isinstance(frame, Path):
        frame = read_table(frame, columns.all(), columns.item_id)
    _need(columns.all(), list(frame.columns), "the table")
    if not len(frame):
        raise InvalidInputError(
            "the table has no rows", hint="check the file, or the filter that made it"
        )
    return frame


def window_ahead(
    panel: Panel, horizon: int, columns: Columns, future: Path | pd.DataFrame | None = None
) -> Window:
    """What a forecast is made from: all up to each series' own end, and the steps after it.

    Args:
        panel: the past.
        horizon: H, steps to forecast.
        columns: which column of `future` is what; of its roles only item, time and known are looked
            at.
        future: a table of the known covariates of these steps. What it does not give is missing:
            all of them when it is None, columns or rows that it lacks; rows of unknown items or
            other times are left out. A category that the panel has not seen is 0 in each of its
            columns.
    """
    ahead_NH = times_ahead(panel, horizon)
    ahead_NHK = known_ahead(panel, future, columns, horizon)
    return Window(
        item_ids=panel.item_ids,
        frequency=panel.frequency,
        resolution_ms=panel.resolution_ms,
        season_length=panel.season_length,
        time_ms_NS=np.hstack([panel.time_ms_NL, ahead_NH]),
        target_NT=panel.target_NL,
        known_NSK=np.concatenate([panel.known_NLK, ahead_NHK], axis=1),
        past_NTP=panel.past_NLP,
        known_names=panel.known_names,
        past_names=panel.past_names,
        static=panel.static,
        length_N=panel.length_N,
        country=panel.country,
    )


def known_ahead(
    panel: Panel, future: Path | pd.DataFrame | None, columns: Columns, horizon: int
) -> Floats:
    """The known covariates of the steps after each series' end: [N, H, K], see `window_ahead`."""
    ahead_NHK = np.full((len(panel), horizon, len(panel.known_names)), np.nan)
    if future is None:
        return ahead_NHK
    named = (columns.item_id, columns.time)
    frame: pd.DataFrame = (
        read_table(future, (*named, *columns.known), columns.item_id)
        if isinstance(future, Path)
        else future
    )
    _need(named, list(frame.columns), "the table of known covariates")
    rows = {item_id: row for row, item_id in enumerate(panel.item_ids)}
    row_R = np.array([rows.get(str(value), -1) for value in frame[columns.item_id]], np.int64)
    frame = frame[row_R >= 0]
    row_R = row_R[row_R >= 0]
    if not len(frame):
        return ahead_NHK
    calendar, phase_N, last_N = _calendar_of(panel)
    step_R = (
        calendar.steps(encode.times_ms(frame[columns.time]), phase_N[row_R]) - last_N[row_R] - 1
    )
    used = np.flatnonzero((step_R >= 0) & (step_R < horizon))
    given = [name for name in columns.known if name in frame.columns]
    values = encode.covariates(frame, given, panel.categories)
    for index, name in enumerate(panel.known_names):
        if name in values:
            ahead_NHK[row_R[used], step_R[used], index] = values[name][used]
    return ahead_NHK


def times_ahead(panel: Panel, horizon: int) -> Ints:
    """The starts of the `horizon` steps after each series' end, UTC milliseconds: [N, H]."""
    calendar, phase_N, last_N = _calendar_of(panel)
    return calendar.times(last_N[:, None] + np.arange(1, horizon + 1), phase_N[:, None])


def _calendar_of(panel: Panel) -> tuple[Calendar, Ints, Ints]:
    """The calendar of a panel's series, their phases and the numbers of their last steps."""
    last_ms_N = panel.time_ms_NL[:, -1]
    calendar = Calendar.of(panel.frequency, int(last_ms_N.min()))
    phase_N = last_ms_N % calendar.step_ms if calendar.step_ms else np.zeros_like(last_ms_N)
    return calendar, phase_N, calendar.steps(last_ms_N, phase_N)


def _need(wanted: Iterable[str], found: list[str], place: str) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InvalidInputError(
            f"{place} has no column {', '.join(map(repr, missing))}",
            hint=f"it has {', '.join(map(str, found))}",
        )


def _items(column: pd.Series) -> tuple[tuple[str, ...], Ints]:
    """The sorted names of the series, and the number of each row's series."""
    import pandas as pd

    missing = int(column.isna().sum())
    if missing:
        raise InvalidInputError(
            f"{missing} rows have no item in column {column.name!r}", hint="fill or drop them"
        )
    coarse = column.astype("category")
    name_of, names = pd.factorize(coarse.cat.categories.astype(str), sort=True)
    code_R = name_of[coarse.cat.codes.to_numpy()].astype(np.int64)
    used, dense_R = np.unique(code_R, return_inverse=True)
    return tuple(names[used]), dense_R.astype(np.int64)


def _targets(frame: pd.DataFrame, columns: Columns) -> Floats:
    target_R = encode.numbers(frame[columns.target])
    if (target_R < 0).any():
        row = frame.iloc[int(np.argmax(target_R < 0))]
        raise InvalidInputError(
            f"the target {row[columns.target]} of item {row[columns.item_id]!r} at "
            f"{row[columns.time]} is negative",
            hint="sales are at least 0: take returns out of the table, or clip them to 0",
        )
    return target_R


def _spans(step_R: Ints, code_R: Ints, num: int) -> tuple[Ints, Ints]:
    """The first and the last step of each series."""
    first_N = np.full(num, np.iinfo(np.int64).max)
    last_N = np.full(num, np.iinfo(np.int64).min)
    np.minimum.at(first_N, code_R, step_R)
    np.maximum.at(last_N, code_R, step_R)
    return first_N, last_N


def _cells(
    step_R: Ints, code_R: Ints, last_N: Ints, length_N: Ints, aggregate: str | None
) -> _Cells:
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
    return _Cells(flat_R, (len(last_N), longest), aggregate)


def _refuse_duplicates(cells: _Cells, frame: pd.DataFrame, columns: Columns) -> None:
    """Raise InvalidInputError, naming the first row whose cell another row has."""
    taken = np.zeros(cells.shape[0] * cells.shape[1], bool)
    taken[cells.flat_R] = True
    if int(taken.sum()) == len(cells.flat_R):
        return
    _, first = np.unique(cells.flat_R, return_index=True)
    first_R = np.zeros(len(cells.flat_R), bool)
    first_R[first] = True
    row = frame.iloc[int(np.argmin(first_R))]
    raise InvalidInputError(
        f"item {row[columns.item_id]!r} has more than one row for the step of {row[columns.time]}",
        hint="combine them with --aggregate sum or mean, or choose a finer --frequency",
    )


def _scatter(values_R: Floats, cells: _Cells, how: str | None) -> Floats:
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


def _covariates(
    frame: pd.DataFrame, columns: tuple[str, ...], categories: encode.Categories, cells: _Cells
) -> tuple[tuple[str, ...], Floats]:
    """Names and values [N, L, K] of covariate columns; several rows of a step are averaged."""
    values = encode.covariates(frame, columns, categories)
    found_NLK = np.full((*cells.shape, len(values)), np.nan)
    for index, values_R in enumerate(values.values()):
        found_NLK[:, :, index] = _scatter(values_R, cells, cells.aggregate and "mean")
    return tuple(values), found_NLK
