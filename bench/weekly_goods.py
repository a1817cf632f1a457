"""How well weeks of goods are forecast whose prices and deals are known, and by whom.

Five tables (`bench/weekly_sets.py`), several cutoffs, histories from half a year on, the next 13
weeks scored as steps 1 to 4, 1 to 8 and 1 to 13: ours as it is and without its second forecast
(`model/effects/second.py`), ours told nothing ahead, LightGBM that is told the same, a log-log
regression around ours, AutoETS, and the last value. Products are those that nothing was chosen on.
Run: python -m bench.weekly_goods --journey DIR [--from DIR] [--tables chain,...] [--cutoff 0]
     [--choosing]

Dimensions: N series, T context steps, H horizon steps, S = T + H, Q levels, K covariates.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.report import RESULTS, write_result
from bench.weekly_learner import Learner, covariates, elasticities
from bench.weekly_sets import KEEP, LEVELS, TABLES, Table
from freshet.model.effects.shared import find_shared
from freshet.model.effects.slots import dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.predict.windows import forecast
from freshet.model.quantiles import metrics
from freshet.model.tables.ahead import window_ahead
from freshet.model.tables.panel import Window
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.stream.arrays import Floats

HORIZON = 13
SPANS = (4, 8, 13)


def window_at(table: Table, end: int, told: int, known: tuple[str, ...]) -> tuple[Window, Floats]:
    """What is known after `end` weeks, of which `told` are, and what came: [N, H]."""
    times = np.sort(table.frame.timestamp.unique())
    frame = table.frame[[*KEEP, *known, *table.static]]
    past = frame[frame.timestamp.isin(times[end - told : end])]
    # Of what sold less than three pieces there is nothing to tell models apart by.
    sold = past.groupby("item_id").target.sum()
    enough = sold[sold >= 3].index
    past = past[past.item_id.isin(enough)]
    ahead = frame[frame.timestamp.isin(times[end : end + HORIZON])]
    ahead = ahead[ahead.item_id.isin(enough)]
    columns = Columns("item_id", "timestamp", "target", known, (), table.static)
    panel = read_panel(past, TableSettings(columns))
    length = ahead.timestamp.nunique()
    future = ahead.drop(columns=["target", *table.static]) if known else None
    window = window_ahead(panel, length, columns, future)
    came = ahead.pivot(index="item_id", columns="timestamp", values="target")
    came = came.loc[list(window.item_ids)]
    return window, np.asarray(came, np.float64)


# Who forecasts ------------------------------------------------------------------------------------


def ours(forecaster: BatchForecaster, window: Window, *, second: bool = True) -> Floats:
    shared = find_shared(window)
    shared = shared if second else replace(shared, second=None)
    return forecast(forecaster, dress(window, shared), window.horizon, LEVELS)


def last_value(window: Window) -> Floats:
    shape = (len(window), window.horizon, len(LEVELS))
    last_N = window.target_NT[:, -1]
    return np.broadcast_to(last_N[:, None, None], shape)


def auto_ets(window: Window) -> Floats:
    from statsforecast import StatsForecast
    from statsforecast.models import AutoETS

    N, T = window.target_NT.shape
    columns = {
        "unique_id": np.repeat(np.arange(N), T),
        "ds": np.tile(np.arange(T), N),
        "y": window.target_NT.ravel(),
    }
    frame = pd.DataFrame(columns)
    models = StatsForecast([AutoETS(model="ZNZ")], freq=1)
    # The interval of 80 % is between the levels .1 and .9, and so on.
    made = models.forecast(df=frame.dropna(), h=window.horizon, level=[20, 40, 60, 80])
    low = [made[f"AutoETS-lo-{level}"] for level in (80, 60, 40, 20)]
    high = [made[f"AutoETS-hi-{level}"] for level in (20, 40, 60, 80)]
    quantiles = np.stack([*low, made["AutoETS"], *high], -1)
    quantiles_NHQ = quantiles.reshape(N, window.horizon, len(LEVELS))
    return np.asarray(np.maximum(quantiles_NHQ, 0.0))


def regression(forecaster: BatchForecaster, window: Window) -> Floats:
    """Our forecast of what such a regression leaves, times what it says."""
    T = window.context_length
    effect_NS = elasticities(window, covariates(window))
    left_NT = window.target_NT * np.exp(-effect_NS[:, :T])
    nothing_NS0 = window.known_NSK[..., :0]
    bare = replace(window, target_NT=left_NT, known_NSK=nothing_NS0, known_names=())
    made_NHQ = ours(forecaster, bare)
    return made_NHQ * np.exp(effect_NS[:, T:, None])


# The comparison -----------------------------------------------------------------------------------


def scores(window: Window, came_NH: Floats, quantiles_NHQ: Floats, span: int) -> dict[str, float]:
    """Of the first `span` steps; SQL is over the error of the last value, one step on."""
    levels_Q = np.array(LEVELS)
    came_NH, quantiles_NHQ = came_NH[:, :span], quantiles_NHQ[:, :span]
    error_N = np.asarray(metrics.seasonal_error(window.target_NT, 1), np.float64)
    low_NH, high_NH = quantiles_NHQ[..., 0], quantiles_NHQ[..., -1]
    return {
        "wql": metrics.wql(came_NH, quantiles_NHQ, levels_Q),
        "sql": metrics.sql(came_NH, quantiles_NHQ, levels_Q, error_N),
        "coverage_80": metrics.coverage(came_NH, low_NH, high_NH),
    }


def compared(
    table: Table, forecaster: BatchForecaster, end: int, told: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of each model at one cutoff, by span of steps ahead."""
    window, came_NH = window_at(table, end, told, table.known)
    bare, _ = window_at(table, end, told, ())
    models: dict[str, Callable[[], Floats]] = {
        "freshet": partial(ours, forecaster, window),
        "freshet, no second forecast": partial(ours, forecaster, window, second=False),
        "freshet, nothing known": partial(ours, forecaster, bare),
        "lightgbm": Learner(window).forecast,
        "log-log regression": partial(regression, forecaster, window),
        "auto_ets": partial(auto_ets, window),
        "last value": partial(last_value, window),
    }
    spans = [span for span in SPANS if span <= came_NH.shape[1]]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, model in models.items():
        made_NHQ = model()
        found[name] = {}
        for span in spans:
            row = scores(window, came_NH, made_NHQ, span)
            found[name][str(span)] = _rounded(row)
        print(end, told, len(window), name, found[name]["4"], flush=True)
    return found


def means(cutoffs: dict[str, dict[str, dict[str, dict[str, float]]]]) -> dict[str, Any]:
    """Mean scores over the cutoffs that have a span, by model and span."""
    found: dict[str, Any] = {}
    for model in next(iter(cutoffs.values())):
        for span in map(str, SPANS):
            rows = [one[model][span] for one in cutoffs.values() if span in one[model]]
            if rows:
                mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
                found.setdefault(model, {})[span] = _rounded(mean)
    return found


def _rounded(row: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journey", type=Path, required=True)
    parser.add_argument("--from", dest="source", type=Path, default=os.environ.get("FRESHET_DATA"))
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--choosing", action="store_true")
    parser.add_argument("--cutoff", type=int, help="only this one of each table, from 0")
    arguments = parser.parse_args()
    half = "chosen on" if arguments.choosing else "reported"
    forecaster = BatchForecaster.from_pretrained(dtype="float32")
    for name in arguments.tables.split(","):
        folder = arguments.journey if name in ("chain", "shops") else Path(arguments.source)
        table = TABLES[name](folder, not arguments.choosing)
        for place, (end, told) in enumerate(table.cutoffs):
            if arguments.cutoff in (None, place):
                found = compared(table, forecaster, end, told)
                keep(half, name, f"{told} weeks told, after {end}", found)


def keep(half: str, name: str, cutoff: str, found: dict[str, Any]) -> None:
    """Write one cutoff beside those that were run before."""
    path = RESULTS / "weekly_goods.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    tables = before["tables"] if before.get("half") == half else {}
    others = tables.get(name, {}).get("cutoffs", {})
    cutoffs = {**others, cutoff: found}
    tables[name] = {"means": means(cutoffs), "cutoffs": cutoffs}
    packages = ["freshet", "torch", "lightgbm", "statsforecast"]
    write_result("weekly_goods", {"half": half, "tables": tables}, packages)


if __name__ == "__main__":
    main()
