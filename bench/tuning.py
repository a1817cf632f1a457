"""What each way of fine-tuning costs and gains: all of it, the top, low-rank additions, averages.

At each cutoff a copy of the base weights is tuned on what lies before it and asked for what comes
after, on Rossmann's weekly sales.
Run: freshet data prepare rossmann_1W -o FILE; python -m bench.tuning FILE [--windows 2,4,6,8]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import write_result
from freshet.model.backtest.score import measure
from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.effects.slots import Dressed, dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.network import FreshetNetwork
from freshet.model.predict.windows import forecast
from freshet.model.quantiles.metrics import seasonal_error
from freshet.model.tables.panel import Panel, Rolling
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.model.training import lora
from freshet.model.training.train import FineTuneSettings
from freshet.model.training.tuned import SETTINGS, tune
from freshet.model.weights import verify_weights

LEVELS = tuple(round(0.1 * step, 1) for step in range(1, 10))
COLUMNS = Columns(
    *("id", "timestamp", "target"),
    known=("Open", "Promo", "StateHoliday", "SchoolHoliday"),
    past=("Customers",),
    static=("StoreType", "Assortment", "CompetitionDistance", "Promo2", "PromoInterval"),
)
ROLLING = Rolling(13, 8)
WAYS: dict[str, FineTuneSettings | None] = {
    "base": None,
    "full": SETTINGS,
    "top": replace(SETTINGS, tune="top"),
    "lora": replace(SETTINGS, tune="lora", learning_rate=2e-3),
    "full, three seeds averaged": replace(SETTINGS, num_seeds=3),
}


def learning(network: FreshetNetwork, way: str) -> int:
    """How many numbers a way of tuning changes."""
    if way == "top":
        parts = (network.layers[-1], network.final_norm, network.head)
        return sum(p.numel() for part in parts for p in part.parameters())
    if way == "lora":
        return sum(
            lora.RANK * sum(module.weight.shape)
            for name, module in network.named_modules()
            if name.rpartition(".")[2] in lora.MATRICES
        )
    return sum(p.numel() for p in network.parameters())


def tuned_once(
    base: FreshetNetwork, dressed: Dressed, settings: FineTuneSettings | None
) -> tuple[BatchForecaster, float]:
    """The weights of one way, and how far they go from the base."""
    if settings is None:
        return BatchForecaster(base, device="cpu", dtype="float32"), 0.0
    found = tune(base, dressed, ROLLING.horizon, settings=settings)
    return BatchForecaster(found.network, device="cpu", dtype="float32"), found.factor


def measure_ways(panel: Panel, windows: list[int]) -> list[dict[str, Any]]:
    """One row a way: seconds, how far, and means over the cutoffs."""
    base = verify_weights(BASE_WEIGHTS).network
    found: dict[str, list[tuple[float, float, dict[str, float]]]] = {way: [] for way in WAYS}
    for index in windows:
        window, actual = ROLLING.window(panel, index), ROLLING.actual(panel, index)
        dressed = dress(window)
        error = np.asarray(seasonal_error(window.target_NT, window.season_length), float)
        for way, settings in WAYS.items():
            started = time.perf_counter()
            forecaster, factor = tuned_once(base, dressed, settings)
            seconds = time.perf_counter() - started
            quantiles = forecast(forecaster, dressed, window.horizon, LEVELS)
            scores = measure(actual, quantiles, LEVELS, error)
            found[way].append((seconds, factor, scores))
            told = f"cutoff {index + 1} {way:28} {seconds:6.1f} s  SQL {scores['sql']:.4f}"
            print(told, flush=True)
    return [_row(base, way, runs) for way, runs in found.items()]


def _row(
    base: FreshetNetwork, way: str, runs: list[tuple[float, float, dict[str, float]]]
) -> dict[str, Any]:
    seconds, factors, scores = zip(*runs, strict=True)
    metrics = {
        name: round(float(np.mean([score[name] for score in scores])), 4)
        for name in ("sql", "wql", "coverage_80")
    }
    return {
        "way": way,
        "learning": 0 if way == "base" else learning(base, way),
        "seconds_a_cutoff": round(float(np.mean(seconds)), 1),
        "mean_factor": round(float(np.mean(factors)), 2),
        **metrics,
    }


def main() -> None:
    """Measure, print and write bench/results/tuning.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="as `freshet data prepare rossmann_1W` writes it")
    parser.add_argument("--windows", default="2,4,6,8", help="cutoffs, from 1")
    arguments = parser.parse_args()
    panel = read_panel(arguments.table, TableSettings(COLUMNS, "W-SUN"))
    rows = measure_ways(panel, [int(window) - 1 for window in arguments.windows.split(",")])
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    numbers = {
        "what": "Rossmann by week, 13 weeks ahead",
        "cutoffs": arguments.windows,
        "rows": rows,
    }
    print(write_result("tuning", numbers, ["numpy", "torch", "transformers", "peft"]))


if __name__ == "__main__":
    main()
