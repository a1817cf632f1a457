"""What a comparison found: a table for people, JSON for programs, forecasts for other scorers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshet.model.backtest.compare import Results, WindowResult
from freshet.model.backtest.score import METRICS, Scores, mean_over_windows

if TYPE_CHECKING:
    from rich.table import Table

_TITLES = {
    "sql": "SQL",
    "wql": "WQL",
    "mase": "MASE",
    "wape": "WAPE",
    "coverage_80": "cover 80 %",
    "bias": "bias",
}


def rows(results: Results) -> list[dict[str, Any]]:
    """One row a model: metrics and strata as means over the windows, seconds as sums.

    A model that failed in any window has no metrics, since means over other windows would compare
    unlike things.
    """
    return [_row(name, found) for name, found in results.of_model.items()]


def _row(name: str, found: list[WindowResult]) -> dict[str, Any]:
    failures = [window.forecast for window in found if window.forecast.error]
    scores = [window.scores for window in found if window.scores is not None]
    row: dict[str, Any] = {"model": name}
    row |= (
        dict.fromkeys(METRICS)
        if failures
        else mean_over_windows([entry.overall for entry in scores])
    )
    row["fit_s"] = sum(window.forecast.fit_s for window in found)
    row["predict_s"] = sum(window.forecast.predict_s for window in found)
    row["series"] = max((entry.series for entry in scores), default=0)
    row["forecasts"] = sum(entry.series for entry in scores)
    row["error"] = (
        f"in {len(failures)} of {len(found)} windows: {failures[0].error}" if failures else ""
    )
    row["strata"] = {} if failures else _strata(scores)
    row["windows"] = [
        {"window": window.forecast.index, **window.scores.overall, "series": window.scores.series}
        if window.scores
        else {"window": window.forecast.index, "error": window.forecast.error}
        for window in found
    ]
    return row


def _strata(scores: list[Scores]) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics, and the number of series, of each group as means over the windows that have it."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind in scores[0].strata if scores else ():
        of_group: dict[str, list[dict[str, float]]] = {}
        for entry in scores:
            for group, measured in entry.strata[kind].items():
                of_group.setdefault(group, []).append(measured)
        found[kind] = {group: mean_over_windows(rows) for group, rows in of_group.items()}
    return found


def table(found: list[dict[str, Any]]) -> Table:
    """The rows for a terminal, best SQL first, failures last."""
    from rich.table import Table

    title = "Means over all windows, lower is better; coverage should be 80 %"
    shown = Table(title=title, title_justify="left")
    shown.add_column("model", no_wrap=True)
    for name in (*_TITLES.values(), "fit s", "predict s", "series"):
        shown.add_column(name, justify="right")
    for place, row in enumerate(ranked(found)):
        numbers = ["-"] * (len(METRICS) + 2)
        style = "bold" if place == 0 else None
        if row["error"]:
            style = "red"
        else:
            numbers = [_number(name, row[name]) for name in METRICS]
            numbers += [f"{row['fit_s']:.1f}", f"{row['predict_s']:.1f}"]
        shown.add_row(row["model"], *numbers, str(row["series"]), style=style)
    return shown


def level_table(found: list[dict[str, Any]]) -> Table | None:
    """Scores at each level of a hierarchy, best SQL over all series first; None without levels."""
    from rich.table import Table

    levels = [row for row in ranked(found) if row["strata"].get("level")]
    if not levels:
        return None
    shown = Table(title="By level", title_justify="left")
    for name in ("level", "model"):
        shown.add_column(name, no_wrap=True)
    for name in _TITLES.values():
        shown.add_column(name, justify="right")
    for level in levels[0]["strata"]["level"]:
        for row in levels:
            scores = row["strata"]["level"][level]
            numbers = [_number(name, scores[name]) for name in METRICS]
            shown.add_row(level, row["model"], *numbers, end_section=row is levels[-1])
    return shown


def ranked(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by SQL, by WQL where no series has a seasonal error, and failures last."""

    def key(row: dict[str, Any]) -> tuple[float, float]:
        values = [row["sql"], row["wql"]]
        sql, wql = (np.inf if value is None or np.isnan(value) else value for value in values)
        return sql, wql

    return sorted(found, key=key)


def _number(name: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    if name == "coverage_80":
        return f"{100 * value:.1f} %"
    return f"{value:+.4f}" if name == "bias" else f"{value:.4f}"


def write_json(results: Results, data: str, path: Path) -> None:
    """Everything but the forecasts as JSON: how it was run, and a row a model."""
    import orjson

    settings, panel = results.settings, results.panel
    written = {
        "data": data,
        "frequency": panel.frequency,
        "season_length": panel.season_length,
        "prediction_length": settings.rolling.horizon,
        "windows": settings.rolling.num_windows,
        "window_step": settings.rolling.window_step or settings.rolling.horizon,
        "quantile_levels": list(settings.levels),
        "fine_tune": settings.fine_tune,
        "series": len(panel),
        "models": rows(results),
    }
    path.write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2) + b"\n")


def write_forecasts(results: Results, path: Path) -> None:
    """Every forecast as parquet: model, item_id, timestamp, cutoff, and a column a quantile level.

    Levels are named as in "0.1". The cutoff is the time of the last step that the model saw. Times
    are UTC.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    levels = [str(level) for level in results.settings.levels]
    stamp = pa.timestamp("ms")
    names = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema(
        [("model", names), ("item_id", names), ("timestamp", stamp), ("cutoff", stamp)]
        + [(level, pa.float64()) for level in levels]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for found in results.of_model.values():
            for window in found:
                if window.forecast.quantiles_NHQ is not None:
                    writer.write_table(_forecast_table(results, window, schema))


def _forecast_table(results: Results, found: WindowResult, schema: Any) -> Any:
    import pyarrow as pa

    forecast = found.forecast
    assert forecast.quantiles_NHQ is not None
    N, H, Q = forecast.quantiles_NHQ.shape
    window = results.settings.rolling.window(results.panel, forecast.index)
    times_NH, cutoff_N = window.time_ms_NS[:, -H:], window.time_ms_NS[:, -H - 1]
    item_NH = np.repeat(np.arange(N, dtype=np.int32), H)
    columns = [
        pa.DictionaryArray.from_arrays(np.zeros(N * H, np.int32), [forecast.model]),
        pa.DictionaryArray.from_arrays(item_NH, list(window.item_ids)),
        pa.array(times_NH.ravel(), schema.field("timestamp").type),
        pa.array(np.repeat(cutoff_N, H), schema.field("cutoff").type),
        *forecast.quantiles_NHQ.reshape(N * H, Q).T,
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema)
