"""How often sums over the first steps fall into their forecast range, and what making it costs.

The shipped weights forecast synthetic series they have not seen; one half of them teaches how steps
move together, the other half judges: steps taken as independent, the defaults of
`model/quantiles/dependence.py`, and what the first half taught. Run: python -m bench.cumulative
[--weights DIR] [--batches N]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.report import write_result
from freshet.model.forecaster import BatchForecaster
from freshet.model.quantiles.cumulative import Paths
from freshet.model.quantiles.dependence import (
    INDEPENDENT,
    Dependence,
    default_dependence,
    estimate_dependence,
)
from freshet.model.quantiles.marginal import whole_rows
from freshet.model.synthetic.mixture import sample
from freshet.stream.units import HOUR_MS

STEPS = [1, 6, 12, 24]
HORIZON = STEPS[-1]
FIRST_SEED = 77_000_000
ROWS = 256
RANGES = {"coverage_50": (0.25, 0.75), "coverage_80": (0.1, 0.9), "coverage_98": (0.01, 0.99)}


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Forecasts of one resolution and what came: rows with some history only."""

    quantiles_BHQ: Tensor
    actual_BH: Tensor
    whole_B: Tensor

    def rows(self, index: slice) -> Forecasts:
        return Forecasts(self.quantiles_BHQ[index], self.actual_BH[index], self.whole_B[index])


def forecasts(forecaster: BatchForecaster, batches: int) -> dict[int, Forecasts]:
    """By resolution, forecasts of batches that the weights were not trained on."""
    found: dict[int, list[Forecasts]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + batches):
        generator = torch.Generator().manual_seed(seed)
        longest = forecaster.context_length, forecaster.prediction_length_max
        batch, actual_BH = sample(
            generator, ROWS, context_length=longest[0], prediction_length=longest[1]
        )
        if batch.prediction_length < HORIZON:
            continue
        seen_B = torch.isfinite(batch.target_BT).any(1)
        quantiles_BHQ = forecaster.forecast(batch)[seen_B, :HORIZON]
        part = Forecasts(
            quantiles_BHQ, actual_BH[seen_B, :HORIZON], whole_rows(batch.target_BT)[seen_B]
        )
        # Kinds of series stand in order within a batch: shuffled, both halves hold all of them.
        order = torch.randperm(len(part.whole_B), generator=generator)
        found.setdefault(batch.resolution_ms, []).append(
            Forecasts(part.quantiles_BHQ[order], part.actual_BH[order], part.whole_B[order])
        )
    return {
        resolution_ms: Forecasts(
            torch.cat([part.quantiles_BHQ for part in parts]),
            torch.cat([part.actual_BH for part in parts]),
            torch.cat([part.whole_B for part in parts]),
        )
        for resolution_ms, parts in sorted(found.items())
    }


def judge(
    held: Forecasts, dependence: Dependence, levels: tuple[float, ...]
) -> dict[str, list[float]]:
    """Coverage of three ranges, and pinball loss over the sum's size, at each of STEPS."""
    sums_BKQ = (
        Paths(dependence, levels, HORIZON)
        .cumulative(held.quantiles_BHQ, STEPS, held.whole_B)
        .double()
        .numpy()
    )
    index = np.array(STEPS) - 1
    actual_BK = held.actual_BH.double().numpy().cumsum(1)[:, index]
    expected_BK = held.quantiles_BHQ.double().mean(-1).numpy().cumsum(1)[:, index]
    seen_BK = np.isfinite(actual_BK)
    found: dict[str, list[float]] = {}
    for name, (low, high) in RANGES.items():
        low_BK, high_BK = sums_BKQ[..., _at(levels, low)], sums_BKQ[..., _at(levels, high)]
        inside_BK = (actual_BK >= low_BK - 1e-6) & (actual_BK <= high_BK + 1e-6)
        found[name] = [
            round(float(inside_BK[seen_BK[:, k], k].mean()), 4) for k in range(len(STEPS))
        ]
    error_BKQ = actual_BK[..., None] - sums_BKQ
    loss_BK = np.maximum(np.array(levels) * error_BKQ, (np.array(levels) - 1) * error_BKQ).mean(-1)
    # Over the larger of what was expected and what came: one wild row must not be the mean.
    scaled_BK = np.where(
        seen_BK, loss_BK / np.maximum(np.fmax(expected_BK, actual_BK), 1.0), np.nan
    )
    found["pinball_over_sum"] = [
        round(float(np.nanmean(scaled_BK[:, k])), 4) for k in range(len(STEPS))
    ]
    return found


def _at(levels: tuple[float, ...], level: float) -> int:
    return int(np.argmin(np.abs(np.array(levels) - level)))


def speed(levels: tuple[float, ...]) -> dict[str, float]:
    """Milliseconds of one processor, best of some runs, for 2,000 items and 24 steps."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(3)
    quantiles_BHQ = (
        (torch.rand(2_000, HORIZON, len(levels), generator=generator) * 20).sort(-1).values
    )
    whole_B, found = torch.ones(2_000, dtype=torch.bool), {}
    started = time.process_time()
    paths = Paths(default_dependence(HOUR_MS), levels, HORIZON)
    found["paths_made_once"] = round(1e3 * (time.process_time() - started), 1)
    for name, steps in (("all_24_sums", list(range(1, 25))), ("sums_at_4_steps", STEPS)):
        times = []
        for _ in range(7):
            started = time.process_time()
            paths.cumulative(quantiles_BHQ, steps, whole_B)
            times.append(time.process_time() - started)
        found[name] = round(1e3 * min(times), 1)
    return found


def main() -> None:
    """Measure, print and write bench/results/cumulative.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--batches", type=int, default=48)
    arguments = parser.parse_args()
    forecaster = BatchForecaster.from_pretrained(arguments.weights, device="cpu", dtype="float32")
    levels, table = forecaster.quantile_levels, []
    for resolution_ms, both in forecasts(forecaster, arguments.batches).items():
        taught, held = both.rows(slice(0, None, 2)), both.rows(slice(1, None, 2))
        prior = default_dependence(resolution_ms)
        learnt = estimate_dependence(taught.actual_BH, taught.quantiles_BHQ, levels, prior=prior)
        ways = {"independent": INDEPENDENT, "default": prior, "learnt": learnt}
        for name, dependence in ways.items():
            scores = judge(held, dependence, levels)
            row: dict[str, Any] = {
                "resolution_ms": resolution_ms,
                "rows": len(held.whole_B),
                "way": name,
            }
            table.append(row | {"dependence": asdict(dependence), **scores})
            print(
                resolution_ms,
                name,
                *dependence_of(dependence),
                *(f"{key} {value}" for key, value in scores.items()),
            )
    numbers = {
        "what": "synthetic mixture, series not trained on; sums over the first steps against "
        "their forecast ranges",
        "steps": STEPS,
        "weights_sha256": forecaster.sha256,
        "cpu_ms_2000_items_24_steps": speed(levels),
        "runs": table,
    }
    print(numbers["cpu_ms_2000_items_24_steps"])
    print(write_result("cumulative", numbers, ["numpy", "torch"]))


def dependence_of(dependence: Dependence) -> tuple[float, float, float]:
    """Its numbers, for a line of print."""
    return dependence.common, dependence.persistent, dependence.decay


if __name__ == "__main__":
    main()
