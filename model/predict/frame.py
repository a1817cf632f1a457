"""The public `Forecaster`: a frame in, a long frame of forecasts out.

Dimensions: N series, H horizon steps, S context and horizon steps, Q quantile levels, R rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.devices import pick_device
from freshet.model.forecaster import BatchForecaster, device_of, dtype_of
from freshet.model.predict.cluster import Cluster, here, spread_like, spread_out
from freshet.model.predict.coherent import forecasts_needed
from freshet.model.predict.given import Given, clear_errors, like, plain
from freshet.model.predict.out import Teller, future_frame
from freshet.model.predict.reading import Reading, check_length, check_levels, length_told, read
from freshet.model.tables.ahead import read_past, window_ahead
from freshet.model.tables.hierarchy import Grouping, groupings_of
from freshet.model.tables.panel import Panel, Rolling
from freshet.model.tables.table import Columns, read_panel
from freshet.model.tables.told import TableWarning
from freshet.model.weights import load_weights, save_weights
from freshet.stream import bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Forecaster(BatchForecaster):
    """A network ready to forecast batches on one device, and whole frames."""

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str | None = None,
        device: str = "auto",
        dtype: Any = "auto",
        *,
        compiled: bool = False,
        device_map: Any = None,
        torch_dtype: Any = None,
    ) -> Self:
        """Load a directory of weights; without a path the ones that ship with freshet.

        What it forecasts is checked where the directory says what it should; one that
        `save_pretrained` of transformers wrote does not.

        Args:
            path: a directory that `save` or `save_pretrained` wrote.
            device: "auto", "cpu", "cuda", ...
            dtype: "auto" (float32 on a CPU, elsewhere as for the class), "float32" or "bfloat16",
                or torch's own.
            compiled: as for the class.
            device_map: what transformers calls the device.
            torch_dtype: what transformers called the dtype.

        Raises:
            WeightsError: the weights are missing, corrupt or do not compute what they should.
            InvalidInputError: there is no such device or dtype.
        """
        verified = load_weights(BASE_WEIGHTS if path is None else Path(path))
        place = pick_device(device_of(device if device_map is None else device_map))
        kind = dtype_of(dtype if torch_dtype is None else torch_dtype)
        if (place, kind) == ("cpu", "auto"):
            # Which is faster is no question for a table: how busy a CPU is would say whether its
            # forecasts have three digits or seven.
            kind = "float32"
        return cls(
            verified.network,
            device=place,
            dtype=kind,
            sha256=verified.sha256,
            compiled=compiled,
        )

    def save(self, directory: Path | str) -> None:
        """Write the weights, in bfloat16, with what they forecast beside them."""
        save_weights(self.network, Path(directory), card="# Weights of freshet\n")

    def save_pretrained(self, directory: Path | str) -> None:
        """`save`, by the name that it has in transformers."""
        self.save(directory)

    def predict(
        self,
        df: Any,
        prediction_length: int | None = None,
        *,
        future_df: Any = None,
        quantile_levels: Sequence[float] = LEVELS,
        levels: Sequence[str] = (),
        engine: Any = None,
        progress_bar: bool = False,
        **reading: Unpack[Reading],
    ) -> Any:
        """Forecast every series of a frame, from where its target ends.

        Args:
            df: pandas, polars, pyarrow or another frame that narwhals knows; long (an item, a time
                and a target a row, in any order) or with an index of times and a column a series.
                Rows after the last target of all lie ahead: what they say is known in advance.
            prediction_length: steps to forecast, at most 1,024; None: as many as are told ahead.
            future_df: items, times and known columns of the steps ahead; what it does not give is
                unknown.
            quantile_levels: between 0 and 1, rising; beyond the network's own outermost levels the
                tails are exponential (`model/levels.py`).
            levels: columns by which series are added up, each series in one group: "store", or
                "store/dept" for both; "total" is all together. Groups are forecast too, and all is
                brought to one distribution in which items add up to groups: so do the means, not
                the quantiles. Series end together; takes six times as long or so.
            engine: where portions of series are computed: a Dask client, a Spark session, or
                "dask", "ray", "spark"; None: where the frame is, if it is spread over one of them,
                else here. Numbers are the same to the last digit of float32.
            progress_bar: show on standard error, where that is a terminal, how far it is.
            **reading: which column is what, and how the frame is read: see `Reading`.

        Returns:
            A frame of the same kind: one row an item and step, sorted by both, with the columns of
            item and time as they were given; "predictions", the median; a column a level ("0.1",
            ...); "mean"; and "status": "ok", or the first that is true of "cold_start" (no target
            of its own: its siblings' sales), "short_history" (fewer than two seasons of it),
            "future_unknown" (known columns that nobody told for this step) and "beyond_horizon"
            (farther ahead than the network was trained for). Amounts are in units and >= 0. The
            mean is that of the quantile function, flat beyond the network's outermost levels. With
            `levels` there is "level" too, and rows of groups come before those of items.

        Raises:
            InvalidInputError: frames or arguments cannot be used, or do not fit together.
        """
        check_length(prediction_length)
        at = check_levels(quantile_levels)
        cluster = Cluster.of(engine, df)
        with clear_errors():
            found, settings = read(here(df), here(future_df), reading, levels)
            columns = settings.columns
            panel, rest = read_past(found.frame, settings, found.future)
            future = rest if found.future is None else found.future
            length = prediction_length or length_told(future, columns)
            window = window_ahead(panel, length, columns, future)
            groupings = _groupings(found, panel, columns, levels)
        teller = Teller(self, panel, columns, at, groupings, cluster)
        series = forecasts_needed(window, groupings)
        with bars.progress_bar(series, "series", shown=progress_bar) as bar:
            made = teller.ahead(window, bar.done)
        return spread_like(made, df) if spread_out(df) else like(made, df)

    def cross_validation(
        self,
        df: Any,
        prediction_length: int,
        *,
        n_windows: int = 1,
        step_size: int | None = None,
        quantile_levels: Sequence[float] = LEVELS,
        levels: Sequence[str] = (),
        engine: Any = None,
        **reading: Unpack[Reading],
    ) -> Any:
        """What would have been forecast at earlier cutoffs, beside what came.

        Args:
            df: as for `predict`; known columns must be named.
            prediction_length: steps to forecast at each cutoff.
            n_windows: cutoffs, the last one a horizon before each series' end.
            step_size: steps between them; None: a horizon.
            quantile_levels: as for `predict`.
            levels: as for `predict`; what came of a group is the sum of its items, where some are
                missing that of the others and what these usually sell.
            engine: as for `predict`.
            **reading: see `Reading`.

        Returns:
            As `predict`, with "cutoff", the last time that was seen, and the target.

        Raises:
            InvalidInputError: as `predict`, or no series is long enough.
        """
        check_length(prediction_length)
        check_length(n_windows, "n_windows")
        check_length(step_size, "step_size")
        at = check_levels(quantile_levels)
        cluster = Cluster.of(engine, df)
        with clear_errors():
            found, settings = read(here(df), None, reading, levels)
            panel = read_panel(found.frame, settings)
            groupings = _groupings(found, panel, settings.columns, levels)
        teller = Teller(self, panel, settings.columns, at, groupings, cluster)
        made = teller.earlier(Rolling(prediction_length, n_windows, step_size))
        return spread_like(made, df) if spread_out(df) else like(made, df)

    def make_future_frame(self, df: Any, prediction_length: int, **reading: Unpack[Reading]) -> Any:
        """Items and times of the steps ahead, to be filled with known columns.

        Raises:
            InvalidInputError: as `predict`.
        """
        check_length(prediction_length)
        with clear_errors():
            found, settings = read(df, None, reading)
            panel, _ = read_past(found.frame, settings)
            ahead = future_frame(panel, prediction_length, settings.columns)
        return like(ahead, df)

    def plot(
        self,
        df: Any,
        forecasts: Any,
        *,
        items: Sequence[object] | None = None,
        path: Path | str | None = None,
        **reading: Unpack[Reading],
    ) -> Figure:
        """What sold, and what `predict` gave: a panel a series.

        Args:
            df: the frame that was forecast.
            forecasts: what `predict` gave for it.
            items: which series, of groups as "store 7"; None: the first six.
            path: a picture to write: .png, .svg or .pdf.
            **reading: see `Reading`.

        Raises:
            InvalidInputError: the frames cannot be used.
        """
        from freshet.model.predict.plot import by_level, draw

        place = Path(path) if path else None
        with clear_errors(), warnings.catch_warnings():
            # What is odd about the frame was said when it was forecast.
            warnings.simplefilter("ignore", TableWarning)
            ahead = plain(forecasts)
            named = list(ahead["level"].drop_duplicates()) if "level" in ahead.columns else []
            found, settings = read(df, None, reading, named)
            columns = settings.columns
            panel, _ = read_past(found.frame, settings)
            levels = [name for name in named if name != columns.item_id]
            groupings = _groupings(found, panel, columns, levels)
            past = Teller(self, panel, columns, LEVELS, groupings).past()
            if groupings:
                past, ahead = by_level(past, columns), by_level(ahead, columns)
            return draw(past, ahead, columns, items, place)


def _groupings(
    found: Given, panel: Panel, columns: Columns, levels: Sequence[str]
) -> tuple[Grouping, ...]:
    """How a frame's items are grouped."""
    keys = panel.keys or panel.item_ids
    return groupings_of(found.frame, columns.item_id, keys, levels)
