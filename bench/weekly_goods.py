"""How well weeks of goods are forecast whose prices and deals are known, and by whom.

Five tables (`bench/weekly_sets.py`), several cutoffs, histories from half a year on, the next 13
weeks scored as steps 1 to 4, 1 to 8 and 1 to 13: ours as it is and without its second forecast
(`model/effects/second.py`), ours told nothing ahead, LightGBM that is told the same, a log-log
regression around ours, AutoETS, and the last value. Products are those that nothing was chosen on.
Run: python -m bench.weekly_goods --journey DIR [--from DIR] [--tables chain,...] [--cutoff 0]
     [--choosing]

Dimensions: N series, T context steps, H horizon steps, S = T + H, Q levels, K features, X rows.
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

import lightgbm
import numpy as np
import pandas as pd

from bench.report import RESULTS, write_result
from bench.weekly_sets import KEEP, TABLES, Table
from freshet.model.effects.demand import off_usual
from freshet.model.effects.shared import find_shared
from freshet.model.effects.slots import dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.predict.windows import forecast
from freshet.model.quantiles import metrics
from freshet.model.tables.ahead import window_ahead
from freshet.model.tables.panel import Window
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.stream.arrays import Floats

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
HORIZON = 13
SPANS = (4, 8, 13)
ROWS, TREES = 60_000, 150
PARAMETERS = {
    "objective": "quantile",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 80,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "num_threads": 1,
    "verbose": -1,
}


def window_at(table: Table, end: int, told: int, known: tuple[str, ...]) -> tuple[Window, Floats]:
    """What is known after `end` weeks, of which `told` are, and what came: [N, H]."""
    times = np.sort(table.frame.timestamp.unique())
    frame = table.frame[[*KEEP, *known, *table.static]]
    past = frame[frame.timestamp.isin(times[end - told : end])]
    sold = past.groupby("item_id").target.sum()
    past = past[past.item_id.isin(sold[sold >= 3].index)]
    ahead = frame[frame.timestamp.isin(times[end : end + HORIZON])]
    ahead = ahead[ahead.item_id.isin(past.item_id.unique())]
    columns = Columns("item_id", "timestamp", "target", known, (), table.static)
    panel = read_panel(past, TableSettings(columns))
    length = ahead.timestamp.nunique()
    future = ahead.drop(columns=["target", *table.static]) if known else None
    window = window_ahead(panel, length, columns, future)
    came = ahead.pivot(index="item_id", columns="timestamp", values="target")
    return window, came.loc[list(window.item_ids)].to_numpy(np.float64)


# Who forecasts ------------------------------------------------------------------------------------


def ours(forecaster: BatchForecaster, window: Window, *, second: bool = True) -> Floats:
    shared = find_shared(window)
    shared = shared if second else replace(shared, second=None)
    return forecast(forecaster, dress(window, shared), window.horizon, LEVELS)


def last_value(window: Window) -> Floats:
    shape = (len(window), window.horizon, len(LEVELS))
    return np.broadcast_to(window.target_NT[:, -1, None, None], shape)


def auto_ets(window: Window) -> Floats:
    from statsforecast import StatsForecast
    from statsforecast.models import AutoETS

    N, T = window.target_NT.shape
    item = np.repeat(np.arange(N), T)
    frame = pd.DataFrame({"unique_id": item, "ds": np.tile(np.arange(T), N)})
    frame["y"] = window.target_NT.ravel()
    models = StatsForecast([AutoETS(model="ZNZ")], freq=1)
    made = models.forecast(df=frame.dropna(), h=window.horizon, level=[20, 40, 60, 80])
    low = [made[f"AutoETS-lo-{level}"] for level in (80, 60, 40, 20)]
    high = [made[f"AutoETS-hi-{level}"] for level in (20, 40, 60, 80)]
    quantiles = np.stack([*low, made["AutoETS"], *high], -1)
    return np.maximum(quantiles.reshape(N, window.horizon, len(LEVELS)), 0.0)


def covariates(window: Window) -> Floats:
    """Prices as logarithms of ratios to usual ones, how deep they are cut, the rest as it is."""
    columns = []
    named = dict(zip(window.known_names, np.moveaxis(window.known_NSK, 2, 0), strict=True))
    T = window.context_length
    for name, values_NS in named.items():
        columns.append(off_usual(values_NS, T) if "price" in name else np.nan_to_num(values_NS))
    if "base_price" in named:
        depth_NS = np.maximum(named["price"], 0.01) / np.maximum(named["base_price"], 0.01)
        columns.append(np.log(depth_NS))
    return np.stack(columns, -1)


def elasticities(window: Window, told_NSK: Floats) -> Floats:
    """What one log-log regression of all items, within items, says of each step: [N, S]."""
    T = window.context_length
    log_NT = np.log1p(window.target_NT)
    off_NT = np.nan_to_num(log_NT - np.nanmean(log_NT, 1, keepdims=True))
    centred_NSK = told_NSK - told_NSK[:, :T].mean(1, keepdims=True)
    past_XK = centred_NSK[:, :T].reshape(-1, told_NSK.shape[2])
    squares_KK = past_XK.T @ past_XK + 5.0 * np.eye(past_XK.shape[1])
    slope_K = np.linalg.solve(squares_KK, past_XK.T @ off_NT.ravel())
    return np.clip(centred_NSK @ slope_K, -2.0, 2.0)


def regression(forecaster: BatchForecaster, window: Window) -> Floats:
    """Our forecast of what such a regression leaves, times what it says."""
    T = window.context_length
    effect_NS = elasticities(window, covariates(window))
    left_NT = window.target_NT * np.exp(-effect_NS[:, :T])
    bare = replace(window, target_NT=left_NT, known_NSK=window.known_NSK[..., :0], known_names=())
    return ours(forecaster, bare) * np.exp(effect_NS[:, T:, None])


class Learner:
    """LightGBM by quantile, direct: all origins, steps and series together, newer ones heavier.

    It is told the level lately, by and by and of all, last year, the calendar, covariates of the
    step, of the one before and as they usually are, categories, and what a regression says, which
    is also taken out of what it learns.
    """

    def __init__(self, window: Window) -> None:
        T = window.context_length
        self.window = window
        self.told_NSK = covariates(window)
        self.effect_NS = elasticities(window, self.told_NSK)
        self.log_NT = np.log1p(window.target_NT)
        self.plain_NT = self.log_NT - self.effect_NS[:, :T]
        # A week that is missing sold what weeks sell, as far as features know.
        usual_N1 = np.nanmean(self.plain_NT, 1, keepdims=True)
        self.plain_NT = np.where(np.isfinite(self.plain_NT), self.plain_NT, usual_N1)
        texts = [values for values in window.static.values() if values.dtype == object]
        self.codes = [np.unique(one.astype(str), return_inverse=True)[1] for one in texts]

    def features(self, origin: int, step: int) -> tuple[Floats, Floats]:
        """Features of a step after an origin, and what the answer is added to: [N, K], [N]."""
        past_NT, at = self.plain_NT[:, :origin], origin + step
        base_N = past_NT[:, -13:].mean(1)
        means = [past_NT[:, -weeks:].mean(1) - base_N for weeks in (1, 2, 4, 8, 26, origin)]
        ago = (
            past_NT[:, at - 52] - base_N if 52 <= at < origin + 52 else np.full_like(base_N, np.nan)
        )
        zeros_N = (self.window.target_NT[:, max(origin - 26, 0) : origin] == 0).mean(1)
        lately = [np.full_like(base_N, one.mean()) for one in means[:3]]
        day = self.window.time_ms_NS[:, at] / 86_400_000.0
        year = [np.sin(2 * np.pi * day / 365.25), np.cos(2 * np.pi * day / 365.25)]
        told_NSK = self.told_NSK
        usual_NK = told_NSK[:, max(origin - 13, 0) : origin].mean(1) - told_NSK[:, at]
        steps = [np.full_like(base_N, step), self.effect_NS[:, at], past_NT[:, -26:].std(1)]
        told = [*told_NSK[:, at].T, *told_NSK[:, at - 1].T, *usual_NK.T]
        columns = [*steps, *means, ago, zeros_N, base_N, *lately, *year, *told, *self.codes]
        return np.stack(columns, -1), base_N + self.effect_NS[:, at]

    def lessons(self) -> tuple[Floats, Floats, Floats]:
        """Features, what came, and weights of at most ROWS rows."""
        rng = np.random.default_rng(0)
        T, H, N = self.window.context_length, self.window.horizon, len(self.window)
        pairs = [(origin, step) for origin in range(6, T) for step in range(min(H, T - origin))]
        chosen = rng.permutation(len(pairs))[: max(3 * ROWS // N, 1)]
        parts = []
        for origin, step in (pairs[place] for place in chosen):
            features_NK, base_N = self.features(origin, step)
            came_N = self.log_NT[:, origin + step] - base_N
            weight_N = np.full(N, 0.5 ** ((T - origin) / 39.0))
            parts.append(np.column_stack([came_N, weight_N, features_NK]))
        rows = np.concatenate(parts)
        rows = rows[np.isfinite(rows[:, 0])]
        rows = rows[rng.permutation(len(rows))[:ROWS]]
        return rows[:, 2:], rows[:, 0], rows[:, 1]

    def forecast(self) -> Floats:
        features_XK, came_X, weight_X = self.lessons()
        K, T = features_XK.shape[1], self.window.context_length
        categories = list(range(K - len(self.codes), K))
        data = lightgbm.Dataset(
            features_XK, came_X, weight=weight_X, categorical_feature=categories
        )
        ahead = [self.features(T, step) for step in range(self.window.horizon)]
        columns = []
        for level in LEVELS:
            trees = lightgbm.train({**PARAMETERS, "alpha": level}, data, TREES)
            made = [base_N + trees.predict(one_NK, num_threads=1) for one_NK, base_N in ahead]
            columns.append(np.expm1(np.stack(made, 1)))
        return np.maximum(np.sort(np.stack(columns, -1), -1), 0.0)


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
    found = {}
    for name, model in models.items():
        made_NHQ = model()
        spans = [span for span in SPANS if span <= came_NH.shape[1]]
        found[name] = {
            str(span): _rounded(scores(window, came_NH, made_NHQ, span)) for span in spans
        }
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
                keep(
                    half,
                    name,
                    f"{told} weeks told, after {end}",
                    compared(table, forecaster, end, told),
                )


def keep(half: str, name: str, cutoff: str, found: dict[str, Any]) -> None:
    """Write one cutoff beside those that were run before."""
    path = RESULTS / "weekly_goods.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    tables = before["tables"] if before.get("half") == half else {}
    cutoffs = {**tables.get(name, {}).get("cutoffs", {}), cutoff: found}
    tables[name] = {"means": means(cutoffs), "cutoffs": cutoffs}
    packages = ["freshet", "torch", "lightgbm", "statsforecast"]
    write_result("weekly_goods", {"half": half, "tables": tables}, packages)


if __name__ == "__main__":
    main()
