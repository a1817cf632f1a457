"""How well conversion is forecast on shops never seen before, against plain ratios in the same run.

Plays the shops of `bench.zero_shot`. A forecast's rates are held against what came: the views that
really came, times the rate, should give the units that really came. Run: python -m bench.conversion
[--seeds 11,12,13]
"""

from __future__ import annotations

import argparse

import numpy as np

from bench.report import write_result
from bench.zero_shot import CUTOFF_HOURS, HISTORY_HOURS, HORIZON, context, play
from freshet.model.forecaster import BatchForecaster
from freshet.model.quantiles.conversion import conversion, conversion_rates
from freshet.stream.arrays import Reals

BLOCK_HOURS = 12
MIN_VIEWS = 20
PAST_HOURS = (24, 168, HISTORY_HOURS)


def ratios(units_IN: Reals, views_IN: Reals, hours: int) -> Reals:
    """Units over views of the last hours, of all items together where an item has no views: [I]."""
    units, views = np.nansum(units_IN[:, -hours:], 1), views_IN[:, -hours:].sum(1)
    return np.where(views > 0, units / np.maximum(views, 1), units.sum() / views.sum())


def measure(forecaster: BatchForecaster, seeds: list[int], items: int) -> dict[str, float]:
    """Absolute error of units in blocks of hours over these units, by each way to a rate.

    Views are taken as given.
    """
    middle = forecaster.quantile_levels.index(0.5)
    wrong: dict[str, float] = {}
    sold = 0.0
    for seed in seeds:
        played = play(seed, items)
        for later in CUTOFF_HOURS:
            cutoff = HISTORY_HOURS + later
            batch, history, actual = context(played, cutoff, forecaster.context_length)
            views = played.clicks_INC[:, : cutoff + HORIZON, 0]
            found = {
                "freshet": conversion(forecaster, batch)[..., middle].cpu().numpy(),
                "shrunken_mean": conversion_rates(batch)[1].numpy()[:, None],
            }
            found |= {
                f"last_{hours}_h": ratios(history, views[:, :cutoff], hours)[:, None]
                for hours in PAST_HOURS
            }
            # Items that nobody viewed before the cutoff have no conversion to be forecast.
            seen = np.isfinite(actual) & np.isfinite(found["freshet"])
            ahead = in_blocks(np.where(seen, views[:, cutoff:], 0.0))
            units = in_blocks(np.where(seen, actual, 0.0))
            enough = ahead >= MIN_VIEWS
            sold += float(units[enough].sum())
            for name, rates in found.items():
                expected = in_blocks(np.where(seen, views[:, cutoff:] * np.nan_to_num(rates), 0.0))
                wrong[name] = wrong.get(name, 0.0) + float(np.abs(expected - units)[enough].sum())
    return {name: round(total / sold, 4) for name, total in wrong.items()}


def in_blocks(values_IH: Reals) -> Reals:
    """Sums over blocks of hours: [I, blocks]."""
    blocks: Reals = values_IH.reshape(len(values_IH), -1, BLOCK_HOURS).sum(2)
    return blocks


def main() -> None:
    """Measure, print and write bench/results/conversion.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="11,12,13")
    parser.add_argument("--items", type=int, default=144)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    forecaster = BatchForecaster.from_pretrained(device="cpu", dtype="float32")
    table = measure(forecaster, seeds, arguments.items)
    best = min(value for name, value in table.items() if name != "freshet")
    for name, value in table.items():
        print(f"{name:16} {value:.4f}")
    print(f"over the best ratio's: {table['freshet'] / best:.3f}")
    numbers = {
        "what": f"simulated shops, blocks of {BLOCK_HOURS} h with at least {MIN_VIEWS} views, "
        f"up to {HORIZON} h ahead",
        "seeds": seeds,
        "items": arguments.items,
        "weights_sha256": forecaster.sha256,
        "absolute_error_over_units": table,
        "over_best_ratio": round(table["freshet"] / best, 4),
    }
    print(write_result("conversion", numbers, ["numpy", "torch", "transformers"]))


if __name__ == "__main__":
    main()
