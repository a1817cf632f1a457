"""The steps after a table's end: when they are, and what is known of them in advance.

Dimensions: N series, S context and horizon steps, H horizon steps, K covariate columns, R rows.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshet.model.tables import encode
from freshet.model.tables.calendar import Calendar
from freshet.model.tables.files import PLAIN, need, read_table
from freshet.model.tables.items import rows_of
from freshet.model.tables.panel import Panel, Window
from freshet.model.tables.table import Columns, TableSettings, panel_of, read_rows
from freshet.model.tables.told import tell
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.read import FileStyle
from freshet.stream.files.times import Times, clock_of, times_of

if TYPE_CHECKING:
    import pandas as pd

UTC_NAMES = {"UTC", "Z", "UTC+00:00", "Etc/UTC"}


def read_past(
    source: Path | pd.DataFrame,
    settings: TableSettings,
    future: pd.DataFrame | None = None,
) -> tuple[Panel, pd.DataFrame | None]:
    """The series of a table, and its rows that lie ahead: after the last target of all series.

    Where a table of the steps ahead begins after them, such rows are a past that is not known.

    Raises:
        InvalidInputError: as `read_panel`.
    """
    rows = read_rows(source, settings)
    sold_R = np.isfinite(rows.target_R)
    ahead_R = np.zeros(len(sold_R), bool)
    if sold_R.any():
        ahead_R = rows.step_R > rows.step_R[sold_R].max()
    if not ahead_R.any() or _begins_after(future, settings, rows.times):
        return panel_of(rows, settings), None
    # A series that has only rows ahead begins with the last step of all.
    past = rows.only(~ahead_R)
    code_R, last = rows.items.code_R, int(rows.step_R[sold_R].max())
    new = np.setdiff1d(code_R, past.items.code_R)
    first_R = np.array([int(np.argmax(code_R == code)) for code in new], np.int64)
    if len(first_R):
        kept_R = ~ahead_R
        kept_R[first_R] = True
        step_R = rows.step_R.copy()
        step_R[first_R] = last
        past = rows._replace(step_R=step_R).only(kept_R)
    return panel_of(past, settings), rows.frame[ahead_R]


def _begins_after(future: pd.DataFrame | None, settings: TableSettings, times: Times) -> bool:
    name = settings.columns.time
    if future is None or name not in future.columns or not len(future):
        return False
    first = times_of(future[name].dropna(), dayfirst=settings.dayfirst)
    return bool(first.clock_ms_R.min() > times.clock_ms_R.max())


def window_ahead(
    panel: Panel,
    horizon: int,
    columns: Columns,
    future: Path | pd.DataFrame | None = None,
    style: FileStyle = PLAIN,
) -> Window:
    """What a forecast is made from: all up to each series' own end, and the steps after it.

    Args:
        panel: the past.
        horizon: H, steps to forecast.
        columns: which column of `future` is what; of its roles only item, time and known are looked
            at.
        future: a table of the known covariates of these steps. What it does not give is missing; a
            category that the panel has not seen is 0 in each of its columns. Rows that mean none of
            these steps are counted in a `TableWarning`.
        style: how a file of them is written, where it does not tell.

    Raises:
        InvalidInputError: no row of `future` means any of these steps, its columns or times are
            named otherwise than the panel's, or two rows say different things of one step.
    """
    ahead_NH, clock_NH = _ahead(panel, horizon)
    ahead_NHK = known_ahead(panel, future, columns, horizon, style)
    local_ms_NS = None
    if panel.clock_ms_NL is not None and clock_NH is not None:
        local_ms_NS = np.hstack([panel.clock_ms_NL, clock_NH])
    return replace(
        panel.whole(),
        time_ms_NS=np.hstack([panel.time_ms_NL, ahead_NH]),
        known_NSK=np.concatenate([panel.known_NLK, ahead_NHK], axis=1),
        local_ms_NS=local_ms_NS,
    )


def known_ahead(
    panel: Panel,
    future: Path | pd.DataFrame | None,
    columns: Columns,
    horizon: int,
    style: FileStyle = PLAIN,
) -> Floats:
    """The known covariates of the steps after each series' end: [N, H, K], see `window_ahead`."""
    ahead_NHK = np.full((len(panel), horizon, len(panel.known_names)), np.nan)
    if future is None or not columns.known:
        return ahead_NHK
    frame: pd.DataFrame = (
        read_table(
            future,
            (columns.item_id, columns.time),
            columns.item_id,
            optional=columns.known,
            time=columns.time,
            style=style,
        )
        if isinstance(future, Path)
        else future
    )
    given = _given(frame, columns)
    row_R = rows_of(frame[columns.item_id], panel.keys or panel.item_ids)
    _some_item(frame, row_R, columns, panel)
    step_R = np.full(len(frame), -1, np.int64)
    named_R = row_R >= 0
    step_R[named_R] = _steps(panel, frame[columns.time][named_R], row_R[named_R])
    used_R = (step_R >= 0) & (step_R < horizon)
    if not used_R.any():
        raise _no_step(frame, panel, columns, horizon)
    cells = len(np.unique(row_R[used_R] * horizon + step_R[used_R]))
    _tell_unused(named_R, used_R, len(panel) * horizon - cells)
    frame, row_R, step_R = frame[used_R], row_R[used_R], step_R[used_R]
    values = encode.covariates(frame, given, panel.categories)
    _tell_strange(frame, given, panel)
    _refuse_two_stories(frame, row_R * horizon + step_R, values, columns)
    for index, name in enumerate(panel.known_names):
        if name in values:
            ahead_NHK[row_R, step_R, index] = values[name]
    return ahead_NHK


def times_ahead(panel: Panel, horizon: int) -> Ints:
    """The starts of the `horizon` steps after each series' end, as in the panel: [N, H]."""
    return _ahead(panel, horizon)[0]


def _ahead(panel: Panel, horizon: int) -> tuple[Ints, Ints | None]:
    """The starts of the steps ahead, and what the clock shows where that is another time."""
    calendar, phase_N, last_N = _calendar_of(panel)
    time_ms_NH = calendar.times(last_N[:, None] + np.arange(1, horizon + 1), phase_N[:, None])
    if panel.clock_ms_NL is None or panel.zone is None:
        return time_ms_NH, None
    return time_ms_NH, clock_of(time_ms_NH, panel.zone)


def _calendar_of(panel: Panel) -> tuple[Calendar, Ints, Ints]:
    """The calendar of a panel's series, their phases and the numbers of their last steps."""
    last_ms_N = panel.time_ms_NL[:, -1]
    calendar = Calendar.of(panel.frequency, int(last_ms_N.min()))
    phase_N = last_ms_N % calendar.step_ms if calendar.step_ms else np.zeros_like(last_ms_N)
    return calendar, phase_N, calendar.steps(last_ms_N, phase_N)


def _given(frame: pd.DataFrame, columns: Columns) -> list[str]:
    """The known columns that the table has.

    One that it lacks is said, and refused where another name comes near it or none is there.
    """
    place = "the table of known covariates"
    need((columns.item_id, columns.time), list(frame.columns), place)
    if not len(frame):
        raise InvalidInputError(f"{place} has no rows", hint="leave it out, or fill it")
    given = [name for name in columns.known if name in frame.columns]
    lacking = [name for name in columns.known if name not in frame.columns]
    others = [str(name) for name in frame.columns if name not in columns.all()]
    near = [name for name in lacking if name.lower() in {other.strip().lower() for other in others}]
    if near or not given:
        need(near or lacking, list(frame.columns), place)
    if lacking:
        tell(f"{place} has no column {', '.join(map(repr, lacking))}: unknown ahead")
    return given


def _some_item(frame: pd.DataFrame, row_R: Ints, columns: Columns, panel: Panel) -> None:
    if (row_R >= 0).any():
        return
    there = frame[columns.item_id].iloc[0]
    near = difflib.get_close_matches(str(there).strip(), panel.item_ids, 1, 0.0)
    raise InvalidInputError(
        f"no item of the table of known covariates is one of the table: it has {there!r}",
        hint=f"the table has {(near or panel.item_ids)[0]!r}; write items alike in both",
    )


def _steps(panel: Panel, column: pd.Series, row_R: Ints) -> Ints:
    """Which step after its series' end each row lies in, from 0."""
    times = times_of(column)
    ours, theirs = _utc_or_name(panel.zone), _utc_or_name(times.zone)
    if (ours is None) != (theirs is None) and "UTC" not in (ours, theirs):
        raise InvalidInputError(
            f"the times of the table have {_zone(panel.zone)}, those of the table of known "
            f"covariates {_zone(times.zone)}",
            hint="write them alike: both with the zone, or both without",
        )
    calendar, phase_N, last_N = _calendar_of(panel)
    time_ms_R = times.utc_ms_R
    if panel.clock_ms_NL is None and panel.zone is not None and times.zone is not None:
        # The panel's steps are those of its zone's clock.
        time_ms_R = clock_of(times.utc_ms_R, panel.zone)
    return calendar.steps(time_ms_R, phase_N[row_R]) - last_N[row_R] - 1


def _utc_or_name(zone: Any) -> str | None:
    if zone is None:
        return None
    return "UTC" if str(zone) in UTC_NAMES else str(zone)


def _zone(zone: Any) -> str:
    return "no time zone" if zone is None else f"the time zone {zone}"


def _no_step(frame: pd.DataFrame, panel: Panel, columns: Columns, horizon: int) -> Exception:
    ahead_NH = times_ahead(panel, horizon).astype("datetime64[ms]")
    times = frame[columns.time]
    first, last = (
        str(moment.astype("datetime64[s]")) for moment in (ahead_NH.min(), ahead_NH.max())
    )
    return InvalidInputError(
        f"no row of the table of known covariates lies in a step ahead: its times go from "
        f"{times.min()} to {times.max()}, the steps ahead from {first} to {last}",
        hint="make its rows with make_future_frame",
    )


def _tell_unused(named_R: Bools, used_R: Bools, uncovered: int) -> None:
    """Warn of rows that meant nothing where there are steps that lack one.

    A calendar of all dates and a catalogue of all items have rows to spare, and no harm is done.
    """
    strange, elsewhere = int((~named_R).sum()), int((named_R & ~used_R).sum())
    parts = []
    if strange:
        parts.append(f"{strange} name items that the table does not have")
    if elsewhere:
        parts.append(f"{elsewhere} lie in no step ahead")
    if parts and uncovered:
        tell(
            f"of {len(used_R)} rows of known covariates {strange + elsewhere} are not used "
            f"({', '.join(parts)}), and {uncovered} steps ahead have no row: unknown"
        )


def _tell_strange(frame: pd.DataFrame, given: list[str], panel: Panel) -> None:
    """Warn of texts that the past does not have; refuse those that are written otherwise there.

    Also refused is a column none of whose texts ahead is one of the past, where every step of the
    past has one: a new kind of event may come, another spelling of all steps is a mistake. Where
    the past has more texts than are told apart, nobody knows.
    """
    for name in given:
        seen = panel.categories.get(name, ())
        texts = frame[name].dropna().astype(str)
        strange = texts[~texts.isin(seen)]
        if not len(strange) or not seen or len(seen) == encode.MAX_CATEGORIES:
            continue
        message = (
            f"{strange.iloc[0]!r} in column {name!r} of the table of known covariates is none of "
            f"the table's values ({', '.join(map(repr, seen))})"
        )
        alike = {_folded(text) for text in seen}
        other_spelling = len(strange) == len(texts) and _always_told(panel, f"{name}={seen[0]}")
        if other_spelling or any(_folded(text) in alike for text in strange.unique()):
            raise InvalidInputError(message, hint="write values alike in both")
        tell(f"{message}: {len(strange)} of {len(texts)} such count as none of them")


def _always_told(panel: Panel, column: str) -> bool:
    """Whether a known column has a value wherever something was sold."""
    values_NL = panel.known_NLK[:, :, panel.known_names.index(column)]
    return bool(np.isfinite(values_NL[np.isfinite(panel.target_NL)]).all())


def _folded(text: str) -> str:
    """A text without capitals, blanks around it and the fraction of a whole number."""
    return text.strip().casefold().removesuffix(".0")


def _refuse_two_stories(
    frame: pd.DataFrame, cell_R: Ints, values: dict[str, Floats], columns: Columns
) -> None:
    """Refuse two rows of one step that say different things."""
    order = np.argsort(cell_R, kind="stable")
    twice = np.flatnonzero(np.diff(cell_R[order]) == 0)
    first_R, second_R = order[twice], order[twice + 1]
    for name, value_R in values.items():
        same = (value_R[first_R] == value_R[second_R]) | (
            np.isnan(value_R[first_R]) & np.isnan(value_R[second_R])
        )
        if not same.all():
            row = frame.iloc[int(second_R[np.argmin(same)])]
            raise InvalidInputError(
                f"the table of known covariates says two things of {name!r} for item "
                f"{row[columns.item_id]!r} at {row[columns.time]}",
                hint="leave one row a step",
            )
