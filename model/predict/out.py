"""Forecasts as a long frame: quantiles, a median, a mean, and how far to trust each row.

Dimensions: N series, H horizon steps, S context and horizon steps, Q quantile levels, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from freshet.model.forecaster import BatchForecaster
from freshet.model.levels import at_levels
from freshet.model.predict.cluster import Cluster
from freshet.model.predict.coherent import coherent_forecast, levels_of
from freshet.model.predict.groups import with_groups
from freshet.model.predict.windows import forecast_window
from freshet.model.tables.ahead import times_ahead
from freshet.model.tables.hierarchy import Grouping, members_of
from freshet.model.tables.panel import Panel, Rolling, Window
from freshet.model.tables.table import Columns
from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.times import utc_of

if TYPE_CHECKING:
    import pandas as pd

Done = Callable[[int], None]

# A history says something of its own from two seasons on, and from so many steps.
SEASONS = 2
FEW_STEPS = 8


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells forecasts of one panel's windows, and what sold before them, as long frames.

    Attributes:
        forecaster: whose forecasts.
        panel: what windows are cut from.
        columns: what item and time are called.
        levels: of the quantiles.
        groupings: the levels above the items; where there are some, all series are brought to one
            distribution in which items add up to groups, and frames have the column "level".
        cluster: computes forecasts; None: this process.
    """

    forecaster: BatchForecaster
    panel: Panel
    columns: Columns
    levels: tuple[float, ...]
    groupings: tuple[Grouping, ...] = ()
    cluster: Cluster | None = None

    def ahead(self, window: Window, done: Done = lambda series: None) -> pd.DataFrame:
        """The forecast of a window of items: a row a series and step, items after groups.

        `done` hears how many series are forecast.
        """
        self._refuse_taken(())
        members_GN = members_of(self.groupings) if self.groupings else None
        parts = levels_of(window, self.groupings)
        return self._sorted([self._told(parts, members_GN, done=done)])

    def earlier(self, rolling: Rolling) -> pd.DataFrame:
        """The forecasts at earlier cutoffs, beside what came."""
        self._refuse_taken((self.columns.target, "cutoff"))
        whole, hierarchy = self.panel, None
        if self.groupings:
            whole, hierarchy = with_groups(self.panel, self.groupings, self.columns.item_id)
        made = []
        for index in range(rolling.num_windows):
            window = rolling.window(whole, index)
            came_XH = rolling.actual(whole, index)
            if hierarchy is None:
                made.append(self._told([window], None, came_XH))
                continue
            parts = hierarchy.parts(window)
            made.append(self._told(parts.windows, parts.members_GN, came_XH[parts.row_X]))
        return self._sorted(made)

    def past(self) -> pd.DataFrame:
        """What items and groups sold: a row a series and step."""
        import pandas as pd

        frames = []
        for name, part in self._named(levels_of(self.panel.whole(), self.groupings)):
            sold = self._keys(name, part, part.time_ms_NS)
            sold[self.columns.target] = part.target_NT.ravel()
            frames.append(pd.DataFrame(sold))
        return pd.concat(frames, ignore_index=True)

    def _refuse_taken(self, others: tuple[str, ...]) -> None:
        """Refuse columns of the table that are called as those of the answer are."""
        level = ("level",) if self.groupings else ()
        own = (*level, "predictions", *map(str, self.levels), "mean", "status")
        names = [self.columns.item_id, self.columns.time, *others, *own]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InvalidInputError(
                f"the answer has a column {twice[0]!r} of its own", hint="rename the table's"
            )

    def _told(
        self,
        parts: Sequence[Window],
        members_GN: csr_array | None,
        came_XH: Floats | None = None,
        done: Done = lambda series: None,
    ) -> pd.DataFrame:
        """The forecast of windows of each level up to one cutoff, and what came, where that is."""
        import pandas as pd

        quantiles_XHQ, mean_XH = self._forecast(parts, members_GN, done)
        own_Q = np.array(self.forecaster.quantile_levels)
        trained_for = self.forecaster.prediction_length_max
        frames, first = [], 0
        for name, part in self._named(parts):
            rows = slice(first, first + len(part))
            first += len(part)
            T = part.context_length
            frame = self._keys(name, part, part.time_ms_NS[:, T:])
            if came_XH is not None:
                cutoff_NH = np.repeat(part.time_ms_NS[:, T - 1 : T], part.horizon, axis=1)
                frame["cutoff"] = _times(self.panel, cutoff_NH)
                frame[self.columns.target] = came_XH[rows].ravel()
            frame |= said(quantiles_XHQ[rows], mean_XH[rows], own_Q, self.levels)
            frame["status"] = statuses(part, trained_for).ravel()
            frames.append(pd.DataFrame(frame))
        return pd.concat(frames, ignore_index=True)

    def _forecast(
        self, parts: Sequence[Window], members_GN: csr_array | None, done: Done
    ) -> tuple[Floats, Floats]:
        """Quantiles at the network's own levels [X, H, Q], and means [X, H], of all levels."""
        own_Q = self.forecaster.quantile_levels
        made = 0

        def quantiles(_: int, part: Window, levels: tuple[float, ...]) -> Floats:
            nonlocal made
            before, made = made, made + len(part)
            return forecast_window(
                self.forecaster,
                part,
                levels,
                done=lambda series: done(before + series),
                cluster=self.cluster,
            )

        if members_GN is None:
            own_NHQ = quantiles(0, parts[0], own_Q)
            return own_NHQ, own_NHQ @ mean_weights(np.array(own_Q))
        found = coherent_forecast(quantiles, parts, members_GN, own_Q)
        return found.quantiles_XHQ, found.mean_XH

    def _named(self, parts: Sequence[Window]) -> Iterator[tuple[str, Window]]:
        """The windows of all levels with their levels' names, that of items last."""
        names = [*(grouping.name for grouping in self.groupings), self.columns.item_id]
        return zip(names, parts, strict=True)

    def _keys(self, level: str, part: Window, time_ms_NX: Ints) -> dict[str, Any]:
        """The columns that say of which series and step each row is."""
        steps = time_ms_NX.shape[1]
        times = _times(self.panel, time_ms_NX)
        if not self.groupings:
            items = _items(self.panel, part.item_ids, steps)
            return {self.columns.item_id: items, self.columns.time: times}
        items_R = np.repeat(np.array(part.item_ids, object), steps)
        return {"level": level, self.columns.item_id: items_R, self.columns.time: times}

    def _sorted(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """All rows by level, series, cutoff and time."""
        import pandas as pd

        names = [*(grouping.name for grouping in self.groupings), self.columns.item_id]
        place = {name: index for index, name in enumerate(names)}
        frame = pd.concat(frames, ignore_index=True)
        keys = ("level", self.columns.item_id, "cutoff", self.columns.time)
        return frame.sort_values(
            [key for key in keys if key in frame.columns],
            ignore_index=True,
            key=lambda column: column.map(place) if column.name == "level" else column,
        )


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
