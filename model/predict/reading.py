"""How the frames of a call are read: the caller's words, in one place for all calls."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from freshet.model.predict.given import Given, Named, given
from freshet.model.tables.table import Columns, TableSettings
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

# What the first version called them.
OLD_NAMES = {"item_id": "id_column", "timestamp": "timestamp_column"}
# What Nixtla's libraries and Chronos call what we have too.
OTHER_NAMES = {
    "h": "prediction_length",
    "horizon": "prediction_length",
    "freq": "frequency",
    "level": "quantile_levels (a level of 80 is 0.1 and 0.9)",
    "quantiles": "quantile_levels",
    "id_col": "id_column",
    "time_col": "timestamp_column",
    "target_col": "target",
    "target_column": "target",
    "X_df": "future_df",
    "X": "future_df",
    "hist_exog_list": "past",
    "futr_exog_list": "known",
    "stat_exog_list": "static",
}


class Reading(TypedDict, total=False):
    """Which column of a frame is what, and how rows become steps.

    Attributes:
        id_column: the name of a series; default "item_id" or "unique_id". A frame without one holds
            a single series.
        timestamp_column: the time; default "timestamp" or "ds".
        target: what is forecast, at least 0, missing where unknown; default "target" or "y".
        known: columns known in advance, such as promotions and prices; default those that the frame
            of the steps ahead, or rows ahead, share with the past.
        past: columns known up to the last row only.
        static: columns that do not change within a series.
        frequency: pandas offset alias of a step; default what the rows tell.
        country: ISO code whose public holidays are known; Christmas and Easter always are.
        missing: what a step without a row is: "keep" unknown, or "zero" nothing sold.
        aggregate: "sum" or "mean" of several rows of a step; default refused.
        season_length: steps of a season; default by frequency.
        end: series end at their "own" last row, or at the "common" one, as with `missing="zero"`.
        dayfirst: whether 03.04.2024 is in April; default what all times together say.
        strict: refuse odd rows and negative targets, however few.
        item_id: an older name of `id_column`.
        timestamp: an older name of `timestamp_column`.
        future: an older name of `future_df`.
    """

    id_column: str | None
    timestamp_column: str | None
    target: str | None
    known: Sequence[str] | None
    past: Sequence[str]
    static: Sequence[str]
    frequency: str | None
    country: str | None
    missing: Literal["keep", "zero"]
    aggregate: Literal["sum", "mean"] | None
    season_length: int | None
    end: Literal["own", "common"] | None
    dayfirst: bool | None
    strict: bool
    item_id: str
    timestamp: str
    future: Any


def read(
    df: Any, future_df: Any, reading: Reading, levels: Sequence[str] = ()
) -> tuple[Given, TableSettings]:
    """The frames, and how they become series; those of a hierarchy end together.

    Raises:
        InvalidInputError: an argument is unknown, or the frames cannot be used.
    """
    options: dict[str, Any] = dict(reading)
    for old, new in OLD_NAMES.items():
        if old in options:
            options[new] = options.pop(old)
    future = options.pop("future", None) if future_df is None else future_df
    _check_names(options)
    named = Named(
        options.pop("id_column", None),
        options.pop("timestamp_column", None),
        options.pop("target", None),
        known=options.pop("known", None),
        past=options.pop("past", ()),
        static=options.pop("static", ()),
    )
    found = given(df, named, future)
    frequency = options.pop("frequency", None)
    check_length(options.get("season_length"), "season_length")
    if frequency is not None and not isinstance(frequency, str):
        frequency = _alias(frequency)
    if levels:
        found = _without_levels(found, levels)
        if options.get("end") == "own":
            raise InvalidInputError(
                "series that end each on its own do not add up", hint='leave end="own" out'
            )
        options["end"] = "common"
    return found, TableSettings(found.columns, frequency, **options)


def _alias(frequency: Any) -> str:
    """The alias of an offset of pandas, or of a length of time."""
    from pandas.tseries.frequencies import to_offset

    try:
        return str(to_offset(frequency).freqstr)
    except (TypeError, ValueError, AttributeError):
        raise InvalidInputError(
            f"{frequency!r} is no frequency", hint="give a pandas alias such as h, D, W-SUN or MS"
        ) from None


def _without_levels(found: Given, levels: Sequence[str]) -> Given:
    """Columns that make groups are no covariates, though a frame of the steps ahead has them."""
    columns = found.columns
    if "level" in (columns.item_id, columns.time):
        raise InvalidInputError(
            "the column 'level' is where the answer names a row's level", hint="rename it"
        )
    parts = {part for level in levels for part in (level, *level.split("/"))}
    known = tuple(name for name in columns.known if name not in parts)
    return replace(found, columns=replace(columns, known=known))


def _check_names(options: dict[str, Any]) -> None:
    known = Reading.__annotations__.keys()
    for name in options:
        if name not in known:
            near = [OTHER_NAMES.get(name), *difflib.get_close_matches(name, known, 1)]
            meant = next((each for each in near if each is not None), None)
            raise InvalidInputError(
                f"there is no argument {name!r}", hint=f"did you mean {meant}?" if meant else ""
            )
    choices = {
        "missing": ("keep", "zero"),
        "aggregate": ("sum", "mean", None),
        "end": ("own", "common", None),
    }
    for name, allowed in choices.items():
        if options.get(name, allowed[0]) not in allowed:
            raise InvalidInputError(
                f"{name} is {options[name]!r}; expected {' or '.join(map(repr, allowed))}"
            )
    for name in ("known", "past", "static"):
        if isinstance(options.get(name), str):
            options[name] = [options[name]]


def check_length(steps: Any, name: str = "prediction_length") -> None:
    """Raise InvalidInputError where it is no number of steps; None is another way to say so."""
    whole = isinstance(steps, numbers.Integral) and not isinstance(steps, bool)
    if steps is not None and (not whole or steps < 1):
        raise InvalidInputError(
            f"{name} is {steps!r}; expected a whole number of steps, at least 1",
            hint="what is known ahead goes to future_df=" if name == "prediction_length" else "",
        )


def check_levels(quantile_levels: Any) -> tuple[float, ...]:
    """The levels, or InvalidInputError where they are none."""
    try:
        levels = [float(level) for level in quantile_levels]
    except (TypeError, ValueError):
        levels = []
    rising = sorted(set(levels)) == levels
    if not levels or not rising or not 0.0 < levels[0] <= levels[-1] < 1.0:
        raise InvalidInputError(
            f"quantile_levels are {quantile_levels}; expected numbers between 0 and 1, rising",
            hint="such as 0.1, 0.5, 0.9",
        )
    return tuple(levels)


def length_told(future: pd.DataFrame | None, columns: Columns) -> int:
    """The most steps that are told of one series.

    Raises:
        InvalidInputError: nothing is told ahead.
    """
    if future is None or not len(future):
        raise InvalidInputError(
            "prediction_length is missing", hint="say how many steps to forecast"
        )
    return int(future.groupby(columns.item_id, observed=True)[columns.time].nunique().max())
