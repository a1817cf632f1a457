"""Forecasts as a long frame: quantiles, a median, a mean, and how far to trust each row.

Dimensions: N series, H horizon steps, S context and horizon steps, Q quantile levels, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from freshet.model.forecaster import BatchForecaster
from freshet.model.levels import at_levels
from freshet.model.predict.cluster import Cluster
from freshet.model.predict.coherent import coherent_forecast, levels_of
from freshet.model.predict.windows import forecast_window
from freshet.model.tables.ahead import times_ahead
from freshet.model.tables.hierarchy import Grouping, members_of
from freshet.model.tables.panel import Panel, Window
from freshet.model.tables.table import Columns
from freshet.stream.arrays import Floats, Ints
from freshet.stream.files.times import utc_of

if TYPE_CHECKING:
    import pandas as pd

# A history says something of its own from two seasons on, and from so many steps.
SEASONS = 2
FEW_STEPS = 8


def forecast_frame(
    forecaster: BatchForecaster,
    panel: Panel,
    window: Window,
    levels: tuple[float, ...],
    columns: Columns,
    *,
    actual_NH: Floats | None = None,
    done: Callable[[int], None] = lambda series: None,
    cluster: Cluster | None = None,
) -> pd.DataFrame:
    """The forecast of a window: one row an item and step, sorted by both.

    Args:
        forecaster: whose forecast.
        panel: what the window was cut from.
        window: what is known at the cutoff.
        levels: of the quantiles.
        columns: what item and time are called.
        actual_NH: what came; then the cutoff is given too.
        done: hears how many series are forecast.
        cluster: computes them; None: this process.
    """
    import pandas as pd

    own_Q = np.array(forecaster.quantile_levels)
    own_NHQ = forecast_window(
        forecaster, window, forecaster.quantile_levels, done=done, cluster=cluster
    )
    T, H = window.context_length, window.horizon
    found = {
        columns.item_id: _items(panel, window.item_ids, H),
        columns.time: _times(panel, window.time_ms_NS[:, T:]),
    }
    if actual_NH is not None:
        cutoff_NH = np.repeat(window.time_ms_NS[:, T - 1 : T], H, axis=1)
        found["cutoff"] = _times(panel, cutoff_NH)
        found[columns.target] = pd.Series(actual_NH.ravel())
    mean_NH = own_NHQ @ mean_weights(own_Q)
    frame = pd.DataFrame(found | said(own_NHQ, mean_NH, own_Q, levels))
    frame["status"] = statuses(window, forecaster.prediction_length_max).ravel()
    return frame.sort_values([columns.item_id, columns.time], ignore_index=True)


def coherent_frame(
    forecaster: BatchForecaster,
    panel: Panel,
    window: Window,
    groupings: Sequence[Grouping],
    levels: tuple[float, ...],
    columns: Columns,
    *,
    done: Callable[[int], None] = lambda series: None,
    cluster: Cluster | None = None,
) -> pd.DataFrame:
    """The forecast of a window's items and groups, which add up: each level's rows, items last.

    Args:
        forecaster: whose forecast.
        panel: what the window was cut from.
        window: what is known of the items at the cutoff.
        groupings: the levels above the items.
        levels: of the quantiles.
        columns: what item and time are called; beside them the frame has "level".
        done: hears how many series are forecast.
        cluster: computes them; None: this process.
    """
    import pandas as pd

    parts = levels_of(window, groupings)
    own_Q = np.array(forecaster.quantile_levels)
    made = 0

    def quantiles(_: int, part: Window, levels: tuple[float, ...]) -> Floats:
        nonlocal made
        before, made = made, made + len(part)
        return forecast_window(
            forecaster,
            part,
            levels,
            done=lambda series: done(before + series),
            cluster=cluster,
        )

    found = coherent_forecast(quantiles, parts, members_of(groupings), tuple(own_Q))
    names = [*(grouping.name for grouping in groupings), columns.item_id]
    frames, first = [], 0
    for name, part in zip(names, parts, strict=True):
        rows = slice(first, first + len(part))
        first += len(part)
        frame = {
            "level": name,
            columns.item_id: np.repeat(np.array(part.item_ids, object), part.horizon),
            columns.time: _times(panel, part.time_ms_NS[:, part.context_length :]),
        }
        frame |= said(found.quantiles_XHQ[rows], found.mean_XH[rows], own_Q, levels)
        frame["status"] = statuses(part, forecaster.prediction_length_max).ravel()
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


def past_of_levels(
    panel: Panel, window: Window, groupings: Sequence[Grouping], columns: Columns
) -> pd.DataFrame:
    """What items and groups sold: a row a series and step, with its level."""
    import pandas as pd

    names = [*(grouping.name for grouping in groupings), columns.item_id]
    frames = []
    for name, part in zip(names, levels_of(window, groupings), strict=True):
        T = part.context_length
        sold = {
            "level": name,
            columns.item_id: np.repeat(np.array(part.item_ids, object), T),
            columns.time: _times(panel, part.time_ms_NS[:, :T]),
            columns.target: part.target_NT.ravel(),
        }
        frames.append(pd.DataFrame(sold))
    return pd.concat(frames, ignore_index=True)


def said(
    own_NHQ: Floats, mean_NH: Floats, own_Q: Floats, levels: tuple[float, ...]
) -> dict[str, Floats]:
    """The columns of a forecast; all levels come from the network's own."""
    median_NH = at_levels(own_NHQ, own_Q, np.array([0.5]))[..., 0]
    quantiles_NHQ = at_levels(own_NHQ, own_Q, np.array(levels))
    of_level = {str(level): quantiles_NHQ[..., place] for place, level in enumerate(levels)}
    found = {"predictions": median_NH, **of_level, "mean": mean_NH}
    return {name: values_NH.ravel() for name, values_NH in found.items()}


def future_frame(panel: Panel, horizon: int, columns: Columns) -> pd.DataFrame:
    """Items and times of the steps ahead."""
    import pandas as pd

    found = {
        columns.item_id: _items(panel, panel.item_ids, horizon),
        columns.time: _times(panel, times_ahead(panel, horizon)),
    }
    frame = pd.DataFrame(found)
    return frame.sort_values([columns.item_id, columns.time], ignore_index=True)


def statuses(window: Window, trained_for: int) -> NDArray[np.object_]:
    """How far to trust each step, the gravest first: [N, H]."""
    T, H = window.context_length, window.horizon
    found_NH = np.full((len(window), H), "ok", object)
    found_NH[:, trained_for:] = "beyond_horizon"
    if window.known_names:
        unknown_NH = np.isnan(window.known_NSK[:, T:]).any(-1)
        found_NH[unknown_NH] = "future_unknown"
    seen_N = np.isfinite(window.target_NT).sum(1)
    found_NH[seen_N < max(SEASONS * window.season_length, FEW_STEPS)] = "short_history"
    found_NH[seen_N == 0] = "cold_start"
    return found_NH


def mean_weights(levels_Q: Floats) -> Floats:
    """How much each value of a quantile function counts in its mean.

    The function is straight between two levels and flat beyond the outermost, so that its integral
    is a weighted sum.

    >>> mean_weights(np.array([0.1, 0.5, 0.7])).tolist()
    [0.3, 0.3, 0.4]
    """
    middles = (levels_Q[1:] + levels_Q[:-1]) / 2
    return np.diff(middles, prepend=0.0, append=1.0)


def _items(panel: Panel, item_ids: tuple[str, ...], horizon: int) -> pd.Series:
    """The item of each row, as it was given rather than as text: [R]."""
    import pandas as pd

    key = dict(zip(panel.item_ids, panel.keys or panel.item_ids, strict=True))
    given = pd.Series([key[item] for item in item_ids])
    return given.repeat(horizon).reset_index(drop=True)


def _times(panel: Panel, time_ms_NH: Ints) -> pd.Series:
    """The time of each row, in the zone of the given ones: [R]."""
    import pandas as pd

    time_ms_R = time_ms_NH.ravel()
    if panel.zone is not None and panel.clock_ms_NL is None:
        # Steps of the zone's own clock.
        time_ms_R = utc_of(time_ms_R, panel.zone)
    times = pd.Series(pd.to_datetime(time_ms_R, unit="ms"))
    if panel.zone is None:
        return times
    return times.dt.tz_localize("UTC").dt.tz_convert(panel.zone)
