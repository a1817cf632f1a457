"""How long explaining one forecast takes on one thread, and how exactly the parts add up.

Context 512, a day of hours ahead, synthetic shops. Run: python -m bench.explain [--weights DIR]
[--rows N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.inference import shop_batch
from bench.report import write_result
from freshet.model.batch import Batch
from freshet.model.explain.attention import looked_at
from freshet.model.explain.gradients import integrated_gradients
from freshet.model.explain.plan import PlannedPromotion
from freshet.model.explain.shapley import shapley
from freshet.model.explain.whatif import what_if
from freshet.model.forecaster import BatchForecaster

HORIZON = 24
REPEATS = 5


def best_ms(run: Callable[[], Any]) -> float:
    """Processor milliseconds of the fastest of some runs, the first of which warms up."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return round(1e3 * min(times), 1)


def measure(forecaster: BatchForecaster, batch: Batch, row: int) -> dict[str, Any]:
    """Times of one row, and by how much of the forecast its parts miss it."""
    apart, carried = shapley(forecaster, batch, row), integrated_gradients(forecaster, batch, row)
    missed = apart.full_L - apart.empty_L - sum(part.units_L for part in apart.contributions)
    size = max(float(apart.full_L[0]), 1.0)
    promotion = PlannedPromotion(range(0, 6), 0.2)
    return {
        "groups": len(apart.contributions),
        "forecast": round(float(apart.full_L[0]), 2),
        "shapley_ms": best_ms(lambda: shapley(forecaster, batch, row)),
        "integrated_gradients_ms": best_ms(lambda: integrated_gradients(forecaster, batch, row)),
        "attention_ms": best_ms(lambda: looked_at(forecaster, batch, row)),
        "what_if_ms": best_ms(lambda: what_if(forecaster, batch, row, promotion)),
        "shapley_missed_percent": float(100 * abs(missed).max() / size),
        "integrated_gradients_missed_percent": round(100 * abs(carried.gap) / size, 4),
    }


def main() -> None:
    """Measure, print and write bench/results/explain.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--rows", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    forecaster = BatchForecaster.from_pretrained(arguments.weights, device="cpu", dtype="float32")
    batch = shop_batch(arguments.rows, forecaster)
    batch = replace(batch, known_BSK=batch.known_BSK[:, : batch.context_length + HORIZON])
    runs = [measure(forecaster, batch, row) for row in range(arguments.rows)]
    for run in runs:
        print(run)
    by_groups: dict[int, list[float]] = {}
    for run in runs:
        by_groups.setdefault(run["groups"], []).append(run["shapley_ms"])
    summary = {
        "shapley_ms_by_groups": {
            str(groups): min(times) for groups, times in sorted(by_groups.items())
        },
        **{
            name: min(run[name] for run in runs)
            for name in ("integrated_gradients_ms", "attention_ms", "what_if_ms")
        },
        **{
            name: max(run[name] for run in runs)
            for name in runs[0]
            if name.endswith("missed_percent")
        },
    }
    print(summary)
    numbers = {
        "what": "processor milliseconds for one forecast, one thread",
        "weights_sha256": forecaster.sha256,
    }
    print(
        write_result(
            "explain",
            {**numbers, "context": batch.context_length, **summary, "runs": runs},
            ["torch", "captum"],
        )
    )


if __name__ == "__main__":
    main()
