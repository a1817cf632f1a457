"""How many series a second the network forecasts, beside a T5 of Chronos-Bolt-tiny's shape.

The T5 gets covariates as rows.

Context 512, all 64 steps, from tensors to sorted quantiles in units; all that is compared takes
turns in one run. Run: python -m bench.inference
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import T5Config, T5Model

from bench.report import write_result
from freshet.model.batch import Batch
from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.forecaster import DTYPES, BatchForecaster
from freshet.model.network import FreshetNetwork, ResidualMLP
from freshet.model.synthetic.mixture import random_starts, to_batch
from freshet.model.synthetic.retail import retail
from freshet.model.synthetic.seeded import Seeded
from freshet.model.weights import verify_weights
from freshet.stream.units import HOUR_MS

ROWS = 128
PATCH = 16


class BoltShaped(nn.Module):
    """The shape of Chronos-Bolt-tiny with random weights.

    Patches, a T5 encoder, one decoder step, 64 x 9 quantiles.
    """

    def __init__(self, horizon: int, num_levels: int = 9) -> None:
        super().__init__()
        config = T5Config(
            vocab_size=2,
            d_model=256,
            d_kv=64,
            d_ff=1024,
            num_layers=4,
            num_decoder_layers=4,
            num_heads=4,
            use_cache=False,
        )
        self.horizon, self.num_levels = horizon, num_levels
        self.embed = ResidualMLP(2 * PATCH, config.d_ff, config.d_model)
        self.body = T5Model(config)
        self.head = ResidualMLP(config.d_model, config.d_ff, horizon * num_levels)
        self.train(mode=False)

    @torch.inference_mode()
    def forward(self, target_BT: Tensor) -> Tensor:
        """Sorted quantiles in units: [B, H, Q]."""
        seen_BT = torch.isfinite(target_BT)
        filled_BT = torch.where(seen_BT, target_BT, 0.0)
        count_B1 = seen_BT.sum(1, keepdim=True).clamp(min=1)
        loc_B1 = filled_BT.sum(1, keepdim=True) / count_B1
        scale_B1 = (
            (((filled_BT - loc_B1) * seen_BT).square().sum(1, keepdim=True) / count_B1)
            .sqrt()
            .clamp(min=1e-5)
        )
        z_BT = (filled_BT - loc_B1) / scale_B1 * seen_BT
        patches_BNX = torch.stack([z_BT, seen_BT.float()], -1).reshape(
            len(target_BT), -1, 2 * PATCH
        )
        hidden_BND = self.embed(patches_BNX.to(next(self.parameters()).dtype))
        # The last vector stands for the mark that ends the context, as in the original.
        tokens_BLD = torch.cat([hidden_BND, torch.zeros_like(hidden_BND[:, :1])], 1)
        answer = self.body(
            inputs_embeds=tokens_BLD, decoder_inputs_embeds=torch.zeros_like(hidden_BND[:, :1])
        )
        z_BHQ = (
            self.head(answer.last_hidden_state).float().reshape(-1, self.horizon, self.num_levels)
        )
        return cast(Tensor, (z_BHQ * scale_B1[..., None] + loc_B1[..., None]).sort(-1).values)


def shop_batch(rows: int, forecaster: BatchForecaster) -> Batch:
    """Rows of hourly synthetic shops at the full context and horizon."""
    generator = torch.Generator().manual_seed(5)
    context, horizon = forecaster.context_length, forecaster.prediction_length_max
    starts = random_starts(Seeded(generator, rows), HOUR_MS)
    series = retail(Seeded(generator, rows), starts, context + horizon, HOUR_MS)
    return to_batch(Seeded(generator, rows), series, starts, HOUR_MS, context)[0]


def num_covariates(batch: Batch) -> int:
    """Known and past slots that any of the rows fills."""
    return sum(
        int(values.isfinite().any(0).any(0).sum()) for values in (batch.known_BSK, batch.past_BTP)
    )


def best_ms(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Wall and CPU ms of the fastest run of each job.

    Jobs take turns, so that a busy machine slows all alike.
    """
    best = dict.fromkeys(jobs, (float("inf"), float("inf")))
    for job in jobs.values():
        job()  # What is compiled or allocated the first time is not counted.
    for _ in range(repeats):
        for name, job in jobs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            job()
            spent = (time.perf_counter() - wall, time.process_time() - cpu)
            best[name] = (min(best[name][0], 1e3 * spent[0]), min(best[name][1], 1e3 * spent[1]))
    return best


def measure(
    network: FreshetNetwork, dtypes: list[str], *, threads: int, repeats: int, compiled: bool
) -> tuple[list[dict[str, Any]], int]:
    """One row per model, number format and batch size, and how many covariates the batch fills."""
    torch.set_num_threads(threads)
    jobs: dict[str, Callable[[], object]] = {}
    for dtype in dtypes:
        forecaster = BatchForecaster(copy.deepcopy(network), device="cpu", dtype=dtype)
        bolt = BoltShaped(forecaster.prediction_length_max).to(DTYPES[dtype])
        many = shop_batch(ROWS, forecaster)
        covariates = num_covariates(many)
        for rows, batch in ((1, many.rows(slice(0, 1))), (ROWS, many)):
            jobs[f"freshet {dtype} {rows}"] = partial(forecaster.forecast, batch)
            jobs[f"bolt-tiny-shaped {dtype} {rows}"] = partial(bolt, batch.target_BT)
            if compiled:
                fast = BatchForecaster(
                    copy.deepcopy(network), device="cpu", dtype=dtype, compiled=True
                )
                jobs[f"freshet-compiled {dtype} {rows}"] = partial(fast.forecast, batch)
                fast_bolt = torch.compile(copy.deepcopy(bolt), dynamic=False)
                jobs[f"bolt-tiny-shaped-compiled {dtype} {rows}"] = partial(
                    fast_bolt, batch.target_BT
                )
        # A lower bound: the attention between an item's rows, which such a network needs, is left
        # out.
        spread = many.rows(torch.arange(ROWS // 8).repeat_interleave(1 + covariates))
        jobs[f"covariates-as-rows {dtype} {ROWS // 8}"] = partial(forecaster.forecast, spread)
    results = []
    for name, (ms, cpu_ms) in best_ms(jobs, repeats).items():
        model, dtype, items = name.split()
        results.append(
            {
                "model": model,
                "dtype": dtype,
                "threads": threads,
                "items": int(items),
                "ms": round(ms, 2),
            }
        )
        results[-1]["cpu_ms"] = round(cpu_ms, 2)
        results[-1]["items_per_s"] = round(1e3 * int(items) / ms, 1)
        print(results[-1])
    return results, covariates


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as many items a second freshet forecasts as the T5.

    In float32, and each in its best number format.
    """

    def speed(model: str, dtypes: tuple[str, ...]) -> float:
        return float(
            max(r["items_per_s"] for r in rows if r["model"] == model and r["dtype"] in dtypes)
        )

    exact, any_dtype = ("float32",), tuple(DTYPES)
    found = {
        "over_bolt_float32": round(speed("freshet", exact) / speed("bolt-tiny-shaped", exact), 2),
        "over_bolt_best": round(
            speed("freshet", any_dtype) / speed("bolt-tiny-shaped", any_dtype), 2
        ),
        "over_rows_float32": round(speed("freshet", exact) / speed("covariates-as-rows", exact), 2),
        "over_rows_best": round(
            speed("freshet", any_dtype) / speed("covariates-as-rows", any_dtype), 2
        ),
    }
    if any(row["model"] == "freshet-compiled" for row in rows):
        fast = speed("freshet-compiled", exact) / speed("bolt-tiny-shaped-compiled", exact)
        found["over_bolt_float32_both_compiled"] = round(fast, 2)
    return found


def main() -> None:
    """Measure, print and write bench/results/inference.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=BASE_WEIGHTS)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--threads", default="2,1", help="on busy cores two threads wait for each other: then use 1"
    )
    parser.add_argument(
        "--compiled", action="store_true", help="both networks through torch.compile too; minutes"
    )
    parser.add_argument(
        "--dtypes", default=",".join(DTYPES), help="float32 and, where it is fast, bfloat16"
    )
    arguments = parser.parse_args()
    dtypes = ["float32", *(name for name in arguments.dtypes.split(",") if name != "float32")]
    torch.manual_seed(0)
    network = verify_weights(arguments.weights).network
    runs: list[dict[str, Any]] = []
    numbers: dict[str, Any] = {
        "context": network.config.context_length,
        "horizon": network.config.prediction_length,
    }
    for threads in map(int, arguments.threads.split(",")):
        rows, numbers["covariates"] = measure(
            network, dtypes, threads=threads, repeats=arguments.repeats, compiled=arguments.compiled
        )
        numbers[f"ratios_{threads}_threads"] = ratios(rows)
        print(numbers[f"ratios_{threads}_threads"])
        runs += rows
    bolt = BoltShaped(network.config.prediction_length)
    models = {"freshet": network, "bolt-tiny-shaped": bolt}
    numbers["parameters"] = {
        name: sum(p.numel() for p in model.parameters()) for name, model in models.items()
    }
    print(
        write_result(
            "inference",
            {**numbers, "repeats": arguments.repeats, "runs": runs},
            ["torch", "transformers"],
        )
    )


if __name__ == "__main__":
    main()
