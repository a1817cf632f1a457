"""What `Forecaster.predict` costs: processor time and memory of whole tables.

A table of daily sales with a promotion and a price, 730 days a series; 28 days are asked for. Each
size runs in a process of its own, so that its peak of memory is its own. One series is timed after
a first call, which reads libraries and weights.
Run: python -m bench.predict [--sizes 1 1000 4000 30000] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pandas as pd

from bench.report import write_result

DAYS, HORIZON, REPEATS = 730, 28, 9
BASELINE = {
    "what": "before effects and dressing were shared, on this kind of machine",
    "cpu_s_of_1000": 30.0,
    "gib_of_30000": 7.4,
    "ms_of_one": 279.0,
}


def table(series: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Past and future of so many series: a week's profile, noise, a promotion one day in ten."""
    draw = np.random.default_rng(1)
    steps = DAYS + HORIZON
    times = pd.date_range("2023-01-02", periods=steps, freq="D")
    level_N1 = draw.gamma(2.0, 5.0, (series, 1))
    promo_NS = draw.random((series, steps)) < 0.1
    rate_NS = level_N1 * (1.0 + 0.5 * (np.arange(steps) % 7 > 4)) * (1.0 + 0.6 * promo_NS)
    frame = pd.DataFrame(
        {
            "item_id": np.repeat(np.arange(series), steps),
            "timestamp": np.tile(times, series),
            "target": draw.poisson(rate_NS).ravel().astype(np.float32),
            "promo": promo_NS.ravel().astype(np.int8),
            "price": np.repeat(draw.gamma(4.0, 3.0, series), steps).astype(np.float32),
        }
    )
    ahead = frame.timestamp > times[DAYS - 1]
    return frame[~ahead], frame[ahead].drop(columns="target")


def measured(series: int, threads: int) -> dict[str, Any]:
    """Processor seconds, wall seconds and the peak of memory of one size."""
    import torch

    from freshet import Forecaster

    torch.set_num_threads(threads)
    forecaster = Forecaster.from_pretrained(dtype="float32")
    past, future = table(series)
    before_gib = _peak_gib()

    def once() -> tuple[float, float]:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        forecaster.predict(past, HORIZON, known=["promo", "price"], future=future)
        return time.process_time() - cpu_s, time.perf_counter() - wall_s

    if series == 1:
        once()
        took = [once() for _ in range(REPEATS)]
        cpu_s, wall_s = np.median(np.array(took), 0).tolist()
    else:
        cpu_s, wall_s = once()
    return {
        "series": series,
        "cpu_s": round(cpu_s, 4),
        "wall_s": round(wall_s, 4),
        "cpu_ms_a_series": round(1_000 * cpu_s / series, 2),
        "peak_gib": round(_peak_gib(), 2),
        "of_which_before_gib": round(before_gib, 2),
    }


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure each size and write bench/results/predict.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 1_000, 4_000, 30_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measured(arguments.only, arguments.threads)))
        return
    sizes = []
    for series in arguments.sizes:
        command = [sys.executable, "-m", "bench.predict", "--only", str(series)]
        command += ["--threads", str(arguments.threads)]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        sizes.append(json.loads(found.stdout.splitlines()[-1]))
        print(sizes[-1], flush=True)
    result = {"threads": arguments.threads, "baseline": BASELINE, "sizes": sizes}
    print(write_result("predict", result, ["numpy", "torch", "pandas"]))


if __name__ == "__main__":
    main()
