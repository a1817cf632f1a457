"""The public `Forecaster`: a long pandas frame in, a frame of quantiles and means out.

Dimensions: N series, H horizon steps, S context and horizon steps, Q quantile levels, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from freshet.model.forecaster import BatchForecaster
from freshet.model.levels import at_levels
from freshet.model.predict.windows import forecast_window
from freshet.model.tables.ahead import read_past, window_ahead
from freshet.model.tables.panel import Panel, Window
from freshet.model.tables.table import Columns, TableSettings
from freshet.model.tables.times import utc_of
from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Forecaster(BatchForecaster):
    """A network ready to forecast batches on one device, and whole frames."""

    def predict(
        self,
        frame: pd.DataFrame,
        prediction_length: int,
        *,
        frequency: str | None = None,
        item_id: str = "item_id",
        timestamp: str = "timestamp",
        target: str = "target",
        known: Sequence[str] = (),
        past: Sequence[str] = (),
        static: Sequence[str] = (),
        country: str | None = None,
        future: pd.DataFrame | None = None,
        quantile_levels: Sequence[float] = LEVELS,
        missing: Literal["keep", "zero"] = "keep",
        aggregate: Literal["sum", "mean"] | None = None,
        season_length: int | None = None,
        end: Literal["own", "common"] | None = None,
        dayfirst: bool | None = None,
        strict: bool = False,
    ) -> pd.DataFrame:
        """Forecast a long frame, with the argument names of other libraries.

        Times are UTC without a zone; where the given ones have a zone, they have it too.

        Args:
            frame: the past, rows in any order; each item's forecast starts one step after its own
                last row.
            prediction_length: steps to forecast, at most 1,024.
            frequency: pandas offset alias of a step, such as "h", "D", "W-SUN", "MS".
            item_id: column with the name of a series.
            timestamp: column with the time, UTC unless it names a zone.
            target: column with what is forecast; at least 0, NaN where unknown.
            known: columns known in advance, such as promotions and prices.
            past: columns known up to the last row only.
            static: columns that do not change within a series.
            country: ISO code whose public holidays are known, such as "DE"; Christmas and Easter
                always are.
            future: `item_id`, `timestamp` and known columns of the steps ahead; what it does not
                give is unknown.
            quantile_levels: between 0 and 1, rising; beyond the network's own outermost levels the
                tails are exponential, through its last two quantiles (`model/levels.py`).
            missing: what follows is as in `TableSettings`, and on the command line.
            aggregate: likewise.
            season_length: likewise.
            end: likewise.
            dayfirst: likewise.
            strict: likewise.

        Returns:
            One row an item and step, sorted by both: `item_id`, `timestamp`, a column a level
            ("0.1", ...) and "mean", in units and >= 0. The mean is that of the whole quantile
            function, flat beyond the outermost levels.

        Raises:
            InvalidInputError: columns are missing, cannot be read or have two rows for one step, or
                levels and length make no sense, or the country is not known.
        """
        columns = Columns(item_id, timestamp, target, tuple(known), tuple(past), tuple(static))
        table = TableSettings(
            columns,
            frequency,
            season_length=season_length,
            missing=missing,
            aggregate=aggregate,
            country=country,
            end=end,
            dayfirst=dayfirst,
            strict=strict,
        )
        request = _Request(table, prediction_length, tuple(quantile_levels), future)
        return _predict(self, frame, request)


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked of a frame: its columns, H steps, Q levels, and what is known ahead."""

    table: TableSettings
    prediction_length: int
    quantile_levels: tuple[float, ...]
    future: pd.DataFrame | None

    def __post_init__(self) -> None:
        if self.prediction_length < 1:
            raise InvalidInputError(
                f"prediction_length is {self.prediction_length}; expected at least 1 step"
            )
        levels = list(self.quantile_levels)
        rising = sorted(set(levels)) == levels
        if not levels or not rising or not 0.0 < levels[0] <= levels[-1] < 1.0:
            raise InvalidInputError(
                f"quantile_levels are {levels}; expected numbers between 0 and 1, rising",
                hint="such as 0.1, 0.5, 0.9",
            )


def _predict(forecaster: BatchForecaster, frame: pd.DataFrame, request: _Request) -> pd.DataFrame:
    import pandas as pd

    columns = request.table.columns
    panel, rest = read_past(frame, request.table, request.future)
    future = rest if request.future is None else request.future
    window = window_ahead(panel, request.prediction_length, columns, future)
    own_levels = forecaster.quantile_levels
    own_NHQ = forecast_window(forecaster, window, own_levels)
    found = {
        columns.item_id: _items(panel, window.horizon),
        columns.time: _times(panel, window),
    }
    # All levels come from the network's own, and the mean from all of those.
    own_Q = np.array(own_levels)
    quantiles_NHQ = at_levels(own_NHQ, own_Q, np.array(request.quantile_levels))
    for place, level in enumerate(request.quantile_levels):
        found[str(float(level))] = quantiles_NHQ[..., place].ravel()
    found["mean"] = (own_NHQ @ mean_weights(own_Q)).ravel()
    return pd.DataFrame(found).sort_values([columns.item_id, columns.time], ignore_index=True)


def mean_weights(levels_Q: Floats) -> Floats:
    """How much each value of a quantile function counts in its mean.

    The function is straight between two levels and flat beyond the outermost, so that its integral
    is a weighted sum.

    >>> mean_weights(np.array([0.1, 0.5, 0.7])).tolist()
    [0.3, 0.3, 0.4]
    """
    middles = (levels_Q[1:] + levels_Q[:-1]) / 2
    return np.diff(middles, prepend=0.0, append=1.0)


def _items(panel: Panel, horizon: int) -> pd.Series:
    """The item of each row, as it was given rather than as text: [R]."""
    import pandas as pd

    given = pd.Series(panel.keys or panel.item_ids)
    return given.repeat(horizon).reset_index(drop=True)


def _times(panel: Panel, window: Window) -> pd.Series:
    """The time of each row, in the zone of the given ones: [R]."""
    import pandas as pd

    ahead_ms_R: Ints = window.time_ms_NS[:, window.context_length :].ravel()
    if panel.zone is not None and panel.clock_ms_NL is None:
        # Steps of the zone's own clock.
        ahead_ms_R = utc_of(ahead_ms_R, panel.zone)
    times = pd.Series(pd.to_datetime(ahead_ms_R, unit="ms"))
    if panel.zone is None:
        return times
    return times.dt.tz_localize("UTC").dt.tz_convert(panel.zone)
