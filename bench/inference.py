"""How many series a second the shipped weights forecast, by threads, number format and batch size.

Context 512, all 64 steps, all 21 levels, from tensors to sorted quantiles in units. Run: python -m bench.inference
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from bench.report import write_result
from model.batch import Batch
from model.forecaster import Forecaster
from model.synthetic.draw import Draw
from model.synthetic.mixture import random_starts, to_batch
from model.synthetic.retail import retail

HOUR_MS = 3_600_000


def shop_batch(rows: int, forecaster: Forecaster) -> Batch:
    """Rows of hourly synthetic shops at the full context and horizon."""
    generator = torch.Generator().manual_seed(5)
    context, horizon = forecaster.context_length, forecaster.prediction_length_max
    starts = random_starts(Draw(generator, rows), HOUR_MS)
    series = retail(Draw(generator, rows), starts, context + horizon, HOUR_MS)
    return to_batch(Draw(generator, rows), series, starts, HOUR_MS, context)[0]


def best_s(forecaster: Forecaster, batch: Batch, repeats: int) -> float:
    """The fastest of some runs: what the machine can do when nobody else uses it."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        forecaster.forecast(batch, max_rows=len(batch))
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Measure, print and write bench/results/inference.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", default="1,2", help="on busy cores two threads wait for each other: then use 1")
    arguments = parser.parse_args()
    rows = []
    for dtype in ("float32", "bfloat16"):
        forecaster = Forecaster.from_pretrained(arguments.weights, device="cpu", dtype=dtype)
        for threads in map(int, arguments.threads.split(",")):
            torch.set_num_threads(threads)
            for size in (1, 32, 128, 512):
                seconds = best_s(forecaster, shop_batch(size, forecaster), arguments.repeats)
                rows.append({"dtype": dtype, "threads": threads, "rows": size, "ms": round(1e3 * seconds, 2)})
                rows[-1]["rows_per_s"] = round(size / seconds, 1)
                print(rows[-1])
    numbers = {"context": forecaster.context_length, "horizon": forecaster.prediction_length_max, "runs": rows}
    print(write_result("inference", numbers, ["torch", "transformers"]))


if __name__ == "__main__":
    main()
