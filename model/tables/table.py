"""Reads a long table (parquet, CSV, a frame) into a `Panel`: one row an item and time, any order.

Dimensions: R rows of the table, N series, L steps, H horizon steps, K covariate columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from freshet.model.tables import encode
from freshet.model.tables.calendar import resolution_ms, season_length
from freshet.model.tables.cells import Cells, cells_of, refuse_duplicates, scatter
from freshet.model.tables.files import PLAIN, need, read_table
from freshet.model.tables.frequency import frequency_of
from freshet.model.tables.grid import Grid
from freshet.model.tables.items import Items, items_of
from freshet.model.tables.panel import Panel
from freshet.model.tables.sold import (
    tell_if_never_sold,
    tell_if_only_sold,
    tell_if_sparse,
    tell_if_unfinished,
)
from freshet.model.tables.told import NEGATIVE_SHARE, ODD_ROWS_OFF, Oddities, tell
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.catalog.holidays import public_holidays
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.read import FileStyle
from freshet.stream.files.times import WRITE_TIMES, Times, times_of, unreadable

if TYPE_CHECKING:
    import pandas as pd


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
        frequency: pandas offset alias of a step; None: what the rows tell.
        season_length: steps of the season that yardsticks use; None: what the frequency suggests.
        missing: what a step without a value means between the first and the last step of a series:
            "keep" unknown, or "zero" nothing sold.
        aggregate: how several rows of one item and step are combined; None: that is an error.
            Covariates are averaged.
        country: ISO code whose public holidays are known, besides Christmas and Easter; None: no
            other.
        end: where a series ends: at its "own" last row, or at the "common" last one of all; None:
            "common" where missing steps are zero, since what sells nothing has no rows then.
        dayfirst: whether 03.04.2024 is in April; None: what all times together say.
        strict: refuse negative targets and odd rows instead of clipping or leaving out a few.
        file: how a file is written, where it does not tell.
    """

    columns: Columns
    frequency: str | None = None
    season_length: int | None = None
    missing: Literal["keep", "zero"] = "keep"
    aggregate: Literal["sum", "mean"] | None = None
    country: str | None = None
    end: Literal["own", "common"] | None = None
    dayfirst: bool | None = None
    strict: bool = False
    file: FileStyle = PLAIN

    @property
    def one_end(self) -> bool:
        """Whether all series end together."""
        return (self.end or ("common" if self.missing == "zero" else "own")) == "common"


class Rows(NamedTuple):
    """A table's rows, each with its series, its target and the step that it lies in."""

    frame: pd.DataFrame
    items: Items
    times: Times
    grid: Grid
    step_R: Ints
    target_R: Floats

    def only(self, kept_R: Bools) -> Rows:
        """Some of the rows; series that lose all of theirs keep their place."""
        return self._replace(
            frame=self.frame[kept_R],
            items=self.items._replace(code_R=self.items.code_R[kept_R]),
            times=self.times.rows(kept_R),
            step_R=self.step_R[kept_R],
            target_R=self.target_R[kept_R],
        )


def read_panel(source: Path | pd.DataFrame, settings: TableSettings) -> Panel:
    """The series of a table, each on a regular grid from its first to its last row.

    Days, weeks and months are those of the column's own zone; times without one are taken as they
    are, whole numbers are epoch milliseconds. A time between two steps belongs to the step it lies
    in. Text covariates become "column=value" columns of their 12 most frequent values. A static
    column takes the value of a series' first row that has one. What is left out or changed, a few
    odd rows or negative targets, is said in a `TableWarning`.

    Raises:
        InvalidInputError: columns are missing, the table is empty, times or numbers cannot be read,
            many targets are negative, an item has two rows for one step without `aggregate`, the
            rows do not bear out the frequency, or the country is not known.
    """
    return panel_of(read_rows(source, settings), settings)


def read_rows(source: Path | pd.DataFrame, settings: TableSettings) -> Rows:
    """Every row that can be used; raises as `read_panel`, and names a file."""
    try:
        return _rows_of(source, settings)
    except InvalidInputError as error:
        if isinstance(source, Path) and str(source) not in error.message:
            raise InvalidInputError(f"{source}: {error.message}", hint=error.hint) from None
        raise


def _rows_of(source: Path | pd.DataFrame, settings: TableSettings) -> Rows:
    columns, odd = settings.columns, Oddities(settings.strict)
    if settings.country is not None:
        # An unknown one is refused at once and not first where events are learnt.
        public_holidays(settings.country, range(2024, 2025))
    frame = _frame_of(source, settings)
    for name, what in ((columns.item_id, "item"), (columns.time, "time")):
        empty_R = frame[name].isna().to_numpy(bool)
        message = f"{int(empty_R.sum())} of {len(frame)} rows have no {what} in column {name!r}"
        frame = odd.without(frame, empty_R, message, "fill or drop them")
    frame, times = _timed(frame, settings, odd)
    items = items_of(frame[columns.item_id])
    target_R = _targets(frame, columns, odd)
    frequency = frequency_of(
        times, items.code_R, settings.frequency, gaps_are_zero=settings.missing == "zero"
    )
    grid = Grid.of(times, items, frequency)
    rows = Rows(frame, items, times, grid, grid.steps_of(times, items.code_R), target_R)
    if settings.aggregate == "sum":
        tell_if_unfinished(rows.step_R, times.clock_ms_R, frequency)
    return _on_grid(rows, settings, odd)


def panel_of(rows: Rows, settings: TableSettings) -> Panel:
    """The series of rows; raises as `read_panel`."""
    columns, odd = settings.columns, Oddities(settings.strict)
    frame, items, grid = rows.frame, rows.items, rows.grid
    first_N, last_N = _spans(rows.step_R, items.code_R, len(items.names))
    if settings.one_end:
        last_N = np.full_like(last_N, last_N.max())
    length_N = last_N - first_N + 1
    cells = cells_of(rows.step_R, items.code_R, last_N, length_N, settings.aggregate)
    if settings.aggregate is None:
        refuse_duplicates(cells, frame, columns.all())
    target_NL = scatter(rows.target_R, cells, settings.aggregate)
    # Counted from each series' own end: 0 is its last step, and before its first lies padding.
    L = target_NL.shape[1]
    place_L = np.arange(1 - L, 1)
    inside_NL = place_L > -length_N[:, None]
    if settings.missing == "zero":
        target_NL[inside_NL & np.isnan(target_NL)] = 0.0
    categories = encode.categories(frame, (*columns.known, *columns.past))
    known_names, known_NLK = _covariates(frame, columns.known, categories, cells, odd)
    past_names, past_NLP = _covariates(frame, columns.past, categories, cells, odd)
    time_ms_NL, clock_ms_NL = grid.times(last_N[:, None] + place_L)
    if settings.missing == "keep":
        tell_if_only_sold(target_NL, inside_NL, time_ms_NL)
        shown_ms_NL = time_ms_NL if clock_ms_NL is None else clock_ms_NL
        if not tell_if_sparse(target_NL, inside_NL, time_ms_NL, grid.frequency):
            tell_if_never_sold(target_NL, inside_NL, shown_ms_NL, grid.frequency)
    return Panel(
        item_ids=items.names,
        frequency=grid.frequency,
        resolution_ms=resolution_ms(grid.frequency),
        season_length=settings.season_length or season_length(grid.frequency),
        length_N=length_N,
        time_ms_NL=time_ms_NL,
        target_NL=target_NL,
        known_NLK=known_NLK,
        past_NLP=past_NLP,
        known_names=known_names,
        past_names=past_names,
        static=encode.statics(frame, columns.static, items.code_R, rows.step_R),
        categories=categories,
        country=settings.country,
        keys=items.keys,
        zone=rows.times.zone,
        clock_ms_NL=clock_ms_NL,
    )


def _frame_of(source: Path | pd.DataFrame, settings: TableSettings) -> pd.DataFrame:
    """A table that has every column and at least one row."""
    frame, columns = source, settings.columns
    if isinstance(frame, Path):
        frame = read_table(
            frame, columns.all(), columns.item_id, time=columns.time, style=settings.file
        )
    need(columns.all(), list(frame.columns), "the table")
    if not len(frame):
        raise InvalidInputError(
            "the table has no rows", hint="check the file, or the filter that made it"
        )
    return frame


def _timed(
    frame: pd.DataFrame, settings: TableSettings, odd: Oddities
) -> tuple[pd.DataFrame, Times]:
    """The rows whose time can be read, and their times."""
    column = frame[settings.columns.time]
    unread_R = unreadable(column)
    if unread_R.any() and not unread_R.all():
        message = f"{column[unread_R].iloc[0]!r} in column {column.name!r} is no time"
        frame = odd.without(frame, unread_R, message, WRITE_TIMES)
    return frame, times_of(frame[settings.columns.time], dayfirst=settings.dayfirst)


def _on_grid(rows: Rows, settings: TableSettings, odd: Oddities) -> Rows:
    """Where nearly all rows lie on the steps, the others at the nearest one that is free."""
    off_R = rows.grid.off(rows.times, rows.items.code_R)
    share = float(off_R.mean())
    if not off_R.any() or share > ODD_ROWS_OFF:
        if share > 1.0 - ODD_ROWS_OFF and rows.grid.uneven and settings.aggregate is None:
            tell(
                f"steps of {rows.grid.frequency!r} are named by their own first or last day, which "
                "is not that of the rows"
            )
        return rows
    taken = set(zip(rows.items.code_R[~off_R], rows.step_R[~off_R], strict=True))
    step_R = rows.step_R.copy()
    step_R[off_R] = rows.grid.nearest(rows.times.rows(off_R), rows.items.code_R[off_R])
    first = int(np.argmax(off_R))
    clock = rows.times.clock_ms_R[first].astype("datetime64[ms]").item()
    message = (
        f"{int(off_R.sum())} of {len(off_R)} rows lie off the steps of {rows.grid.frequency!r}, "
        f"first item {rows.items.keys[rows.items.code_R[first]]!r} on {clock:%A %Y-%m-%d %H:%M}"
    )
    done = "each taken for the nearest step, or left out where that has a row"
    odd.tolerate(off_R, message, done=done, hint="correct them", share=ODD_ROWS_OFF)
    kept_R = np.ones(len(off_R), bool)
    if settings.aggregate is None:
        for row in np.flatnonzero(off_R):
            cell = (rows.items.code_R[row], step_R[row])
            kept_R[row] = cell not in taken
            taken.add(cell)
    return rows._replace(step_R=step_R).only(kept_R)


def _targets(frame: pd.DataFrame, columns: Columns, odd: Oddities) -> Floats:
    """Targets of at least 0: a few negative ones, weeks in which more came back, count as 0."""
    target_R = encode.numbers(frame[columns.target], odd)
    if np.isnan(target_R).all():
        raise InvalidInputError(
            f"no row has a value in the target column {columns.target!r}",
            hint="give what was sold, at least of some series: others are forecast by theirs",
        )
    negative_R = target_R < 0
    if negative_R.any():
        row = frame.iloc[int(np.argmax(negative_R))]
        message = (
            f"the target {row[columns.target]} of item {row[columns.item_id]!r} at "
            f"{row[columns.time]} is negative"
        )
        done = f"{int(negative_R.sum())} such of {len(target_R)} clipped to 0"
        hint = "sales are at least 0: take returns out of the table, or clip them to 0"
        odd.tolerate(negative_R, message, done=done, hint=hint, share=NEGATIVE_SHARE)
        target_R = np.where(negative_R, 0.0, target_R)
    return target_R


def _spans(step_R: Ints, code_R: Ints, num: int) -> tuple[Ints, Ints]:
    """The first and the last step of each series."""
    first_N = np.full(num, np.iinfo(np.int64).max)
    last_N = np.full(num, np.iinfo(np.int64).min)
    np.minimum.at(first_N, code_R, step_R)
    np.maximum.at(last_N, code_R, step_R)
    return first_N, last_N


def _covariates(
    frame: pd.DataFrame,
    columns: tuple[str, ...],
    categories: encode.Categories,
    cells: Cells,
    odd: Oddities,
) -> tuple[tuple[str, ...], Floats]:
    """Names and values [N, L, K] of covariate columns; several rows of a step are averaged."""
    values = encode.covariates(frame, columns, categories, odd)
    found_NLK = np.full((*cells.shape, len(values)), np.nan)
    for index, values_R in enumerate(values.values()):
        found_NLK[:, :, index] = scatter(values_R, cells, cells.aggregate and "mean")
    return tuple(values), found_NLK
