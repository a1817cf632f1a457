"""What sold and what is forecast, as a picture: a panel a series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshet.model.picture import date_axis, drawing, save
from freshet.model.predict.given import plain
from freshet.model.tables.table import Columns
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 6
SHOWN_HORIZONS = 5
FEWEST_SHOWN = 40
SUFFIXES = (".png", ".svg", ".pdf")
SOLD = "#4a5764"
FAN = "#1f6f9f"


def by_level(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """A frame of several levels, where groups are called by their level and name."""
    names = frame[columns.item_id].astype(str)
    plain = (frame["level"] == columns.item_id) | (frame["level"] == names)
    called = names.where(plain, frame["level"] + " " + names)
    return frame.assign(**{columns.item_id: called})


def draw(
    frame: pd.DataFrame,
    forecasts: Any,
    columns: Columns,
    items: Sequence[object] | None = None,
    path: Path | None = None,
) -> Figure:
    """A figure of some series; written where there is a path.

    Raises:
        InvalidInputError: no series of the forecasts is asked for, or the path is no picture.
    """
    from matplotlib.figure import Figure

    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise InvalidInputError(
            f"{path} is no picture that can be drawn", hint=f"end it in {', '.join(SUFFIXES)}"
        )
    ahead = plain(forecasts)
    there = list(ahead[columns.item_id].drop_duplicates())
    chosen = there[:MOST_PANELS] if items is None else list(items)
    strange = [item for item in chosen if item not in there]
    if strange or not chosen:
        which = repr(strange[0]) if strange else "none"
        raise InvalidInputError(f"item {which} is not forecast", hint=f"there is {there[0]!r}")
    with drawing():
        figure = Figure(figsize=(10, 2.6 * len(chosen)), layout="constrained")
        panels = figure.subplots(len(chosen), 1, squeeze=False).ravel()
        for axes, item in zip(panels, chosen, strict=True):
            _draw_item(axes, item, frame, ahead, columns)
        if path is not None:
            save(figure, path, dpi=144)
    return figure


def _draw_item(
    axes: Axes, item: object, frame: pd.DataFrame, ahead: pd.DataFrame, columns: Columns
) -> None:
    rows = ahead[ahead[columns.item_id] == item]
    past = frame[(frame[columns.item_id] == item) & frame[columns.target].notna()]
    times = _naive(past[columns.time])
    past = past.assign(**{columns.time: times}).sort_values(columns.time)
    past = past.tail(max(SHOWN_HORIZONS * len(rows), FEWEST_SHOWN))
    axes.plot(past[columns.time], past[columns.target], color=SOLD, linewidth=1.1, label="sold")
    fans = rows.groupby("cutoff") if "cutoff" in rows.columns else [(None, rows)]
    for place, (_, fan) in enumerate(fans):
        _draw_fan(axes, fan, columns, named=place == 0)
    axes.set_title(str(item), loc="left", fontsize=10)
    # Room for the legend above the highest sale.
    axes.set_ylim(0.0, 1.2 * axes.get_ylim()[1])
    axes.legend(loc="upper left", frameon=False, fontsize=8, ncols=3)
    date_axis(axes, fewest=3, most=9)


def _draw_fan(axes: Axes, rows: pd.DataFrame, columns: Columns, *, named: bool) -> None:
    """One forecast: its median, and a band between any two levels that lie as far from it."""
    levels = sorted(float(name) for name in rows.columns if _level(name) is not None)
    when = _naive(rows[columns.time])
    for low, high in zip(levels, reversed(levels), strict=True):
        if low < 0.5:
            label = f"{low:g} to {high:g}" if named and low == levels[0] else None
            low_R, high_R = rows[str(low)], rows[str(high)]
            style: dict[str, Any] = {"color": FAN, "alpha": 0.15, "linewidth": 0, "label": label}
            axes.fill_between(when, low_R, high_R, **style)
    label = "median" if named else None
    axes.plot(when, rows["predictions"], color=FAN, linewidth=1.8, label=label)


def _naive(times: pd.Series) -> pd.Series:
    """Times as the clock shows them."""
    import pandas as pd

    if isinstance(times.dtype, pd.PeriodDtype):
        return times.dt.to_timestamp()
    stamps = pd.to_datetime(times)
    return stamps if stamps.dt.tz is None else stamps.dt.tz_localize(None)


def _level(name: object) -> float | None:
    try:
        level = float(str(name))
    except ValueError:
        return None
    return level if 0.0 < level < 1.0 else None
