"""Forecasts of a long pandas frame as another: one row an item and step, a column a quantile level,
and the mean.

Dimensions: N series, T context steps, H horizon steps, Q quantile levels, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from freshet.model.effects.slots import dress
from freshet.model.forecaster import Forecaster
from freshet.model.tables.panel import Floats, Ints
from freshet.model.tables.table import TableSettings, read_panel, window_ahead
from freshet.model.training.tuned import at_levels, forecast
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """What is asked of a frame.

    Attributes:
        table: which column is what, and the frequency.
        prediction_length: H, steps after each item's last row.
        quantile_levels: between 0 and 1, rising; what lies beyond the network's own outermost is
            given as these.
        future: known covariates of these steps, in the columns of `table`; None: nothing is known.
    """

    table: TableSettings
    prediction_length: int
    quantile_levels: tuple[float, ...] = LEVELS
    future: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if self.prediction_length < 1:
            raise InvalidInputError(
                f"prediction_length is {self.prediction_length}; expected at least 1 step"
            )
        levels = list(self.quantile_levels)
        if not levels or sorted(set(levels)) != levels or not 0.0 < levels[0] <= levels[-1] < 1.0:
            raise InvalidInputError(
                f"quantile_levels are {levels}; expected numbers between 0 and 1, rising",
                hint="such as 0.1, 0.5, 0.9",
            )


def predict(forecaster: Forecaster, frame: pd.DataFrame, request: FrameRequest) -> pd.DataFrame:
    """The frame of forecasts: item and time as the given columns are named, "0.1" ... "0.9" and
    "mean", in units.

    Rows are sorted by item and time. Times are UTC without a zone; where the given ones have a
    zone, they have it too. `Forecaster.predict` says the rest.

    Raises:
        InvalidInputError: the frame or the request cannot be used.
    """
    import pandas as pd

    columns = request.table.columns
    panel = read_panel(frame, request.table)
    window = window_ahead(panel, request.prediction_length, columns, request.future)
    own_Q = np.array(forecaster.quantile_levels)
    own_NHQ = forecast(forecaster, dress(window), window.horizon, forecaster.quantile_levels)
    quantiles_NHQ = at_levels(own_NHQ, own_Q, np.array(request.quantile_levels))
    N, H, Q = quantiles_NHQ.shape
    given = frame[columns.item_id].drop_duplicates()
    names = dict(zip(given.astype(str), given, strict=True))
    found = {
        columns.item_id: np.repeat(np.array([names[item] for item in window.item_ids]), H),
        columns.time: _times(
            window.time_ms_NS[:, window.context_length :].ravel(), frame[columns.time]
        ),
    }
    for level, values_R in zip(
        request.quantile_levels, quantiles_NHQ.reshape(N * H, Q).T, strict=True
    ):
        found[str(float(level))] = values_R
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


def _times(time_ms_R: Ints, like: pd.Series) -> pd.Series:
    import pandas as pd

    times = pd.Series(pd.to_datetime(time_ms_R, unit="ms"))
    zone = (
        getattr(like.dt, "tz", None) if pd.api.types.is_datetime64_any_dtype(like.dtype) else None
    )
    return times if zone is None else times.dt.tz_localize("UTC").dt.tz_convert(zone)
