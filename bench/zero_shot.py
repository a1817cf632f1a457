"""How well the shipped weights forecast shops that they have never seen, beside seasonal naive.

Plays simulated shops (four weeks of history and some live days), folds their events into hours, and
forecasts from several cutoffs. Run: python -m bench.zero_shot [--weights DIR] [--seeds 11,12,13]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from bench.report import write_result
from freshet.model.baselines.yardsticks import moving_average, seasonal_naive
from freshet.model.batch import PAST_SLOTS, Batch
from freshet.model.forecaster import BatchForecaster
from freshet.model.quantiles.metrics import coverage, wql
from freshet.model.text import static_features
from freshet.stream.arrays import Bools, Reals
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.schemas import ClickEvent, OrderEvent, OrderLine
from freshet.stream.source.simulator import SimulatedShop, find_scenario
from freshet.stream.units import DAY_MS, HOUR_MS

HORIZON = 48
HISTORY_HOURS = 28 * 24
CUTOFF_HOURS = (0, 30, 60)  # after the history, at different hours of the day
WEEK_HOURS = 168
KINDS = ("view", "cart", "favourite", "checkout")


@dataclass(frozen=True, slots=True)
class Played:
    """One shop's hours: units [I, N], clicks [I, N, 4], and what its topics said."""

    shop: SimulatedShop
    state: ShopTables
    units_IN: Reals
    clicks_INC: Reals


def play(seed: int, items: int) -> Played:
    """Play a shop and fold its orders and clicks into hours by event time."""
    shop = SimulatedShop(seed, items, find_scenario("flash_sale"))
    hours = HISTORY_HOURS + CUTOFF_HOURS[-1] + HORIZON
    rows = {item_id: row for row, item_id in enumerate(shop.item_ids)}
    played = Played(
        shop, ShopTables(), np.zeros((len(rows), hours)), np.zeros((len(rows), hours, len(KINDS)))
    )
    seen: set[str] = set()
    for batch in shop.batches(HOUR_MS):
        if batch.start_ms >= shop.start_ms + (hours + 2) * HOUR_MS:
            return played
        for kind, key, value, time_ms in zip(
            batch.kinds, batch.keys, batch.values, batch.timestamps_ms, strict=True
        ):
            if kind == "orders" or kind == "clicks":
                _count(played, rows, seen, kind, value or b"")
            else:
                played.state.apply(kind, key, value, time_ms)
    raise AssertionError("the shop is endless")


ORDERS, CLICKS = msgspec.json.Decoder(OrderEvent), msgspec.json.Decoder(ClickEvent)


def _count(played: Played, rows: dict[str, int], seen: set[str], kind: str, value: bytes) -> None:
    """Add one event to its hour; broken bytes and repeats are left out, as ingest would."""
    try:
        event = (ORDERS if kind == "orders" else CLICKS).decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    hour = (int(event.event_time) - played.shop.start_ms) // HOUR_MS
    if event.event_id in seen or not 0 <= hour < played.units_IN.shape[1]:
        return
    seen.add(event.event_id)
    if isinstance(event, ClickEvent):
        row = rows.get(f"{event.sku}|{event.region}")
        if row is not None:
            played.clicks_INC[row, hour, KINDS.index(event.kind)] += 1
        return
    lines: Sequence[OrderEvent | OrderLine] = event.lines or [event]
    for line in lines:
        row = rows.get(f"{line.sku}|{line.region or event.region}")
        if row is not None and line.quantity is not None and line.quantity > 0:
            played.units_IN[row, hour] += line.quantity


def context(played: Played, cutoff: int, length: int) -> tuple[Batch, Reals, Reals]:
    """A batch that ends at an hour, all history behind it, the actuals; stock-outs are missing."""
    shop, state, ids = played.shop, played.state, played.shop.item_ids
    first = cutoff - length
    end = cutoff + HORIZON
    cutoff_ms = shop.start_ms + cutoff * HOUR_MS
    end_ms = shop.start_ms + end * HOUR_MS
    in_stock = state.in_stock(ids, BucketSpan(shop.start_ms, end, HOUR_MS), as_of_ms=end_ms)
    sold = played.units_IN[:, :end]
    units = np.where((in_stock == 0) & (sold == 0), np.nan, sold)
    age_h = (cutoff_ms - np.nan_to_num(state.launched_ms(ids))) / HOUR_MS
    units[np.arange(units.shape[1]) < (cutoff - age_h)[:, None]] = np.nan
    span = BucketSpan(shop.start_ms + first * HOUR_MS, length + HORIZON, HOUR_MS)
    known = state.known(ids, span, as_of_ms=cutoff_ms)
    past = np.full((len(ids), length, len(PAST_SLOTS)), np.nan, np.float32)
    past[..., :4] = played.clicks_INC[:, first:cutoff]
    past[..., 4] = in_stock[:, first:cutoff]
    static = static_features(
        state.texts(ids),
        state.unit_prices(ids, as_of_ms=cutoff_ms),
        cutoff_ms - state.launched_ms(ids),
    )
    batch = Batch(
        torch.tensor(units[:, first:cutoff], dtype=torch.float32),
        torch.tensor(past),
        torch.tensor(known),
        torch.tensor(static),
        torch.full((len(ids),), span.start_ms),
        HOUR_MS,
    )
    # Actuals of hours that were sold out part of the time are no demand either.
    actual = np.where(in_stock[:, cutoff:] < 1, np.nan, units[:, cutoff:])
    return batch, units[:, :cutoff], actual


def scores(
    actual: Reals, quantiles: Reals, levels: Reals, groups: dict[str, Bools]
) -> dict[str, float]:
    """WQL overall and by group of rows, coverage of 80 %, and the sum of medians over actuals."""
    low, middle, high = (int(np.argmin(np.abs(levels - level))) for level in (0.1, 0.5, 0.9))
    found = {"wql": wql(actual, quantiles, levels)}
    found |= {
        f"wql_{name}": wql(actual[rows], quantiles[rows], levels) for name, rows in groups.items()
    }
    found["wql_first_24"] = wql(actual[:, :24], quantiles[:, :24], levels)
    found["coverage_80"] = coverage(actual, quantiles[..., low], quantiles[..., high])
    seen = np.isfinite(actual)
    found["median_over_actual"] = float(quantiles[..., middle][seen].sum() / actual[seen].sum())
    return found


def measure(
    forecaster: BatchForecaster, seeds: list[int], items: int
) -> dict[str, dict[str, float]]:
    """Mean scores over shops and cutoffs, on rows that network and yardsticks can forecast."""
    levels = np.array(forecaster.quantile_levels)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        played = play(seed, items)
        for later in CUTOFF_HOURS:
            cutoff = HISTORY_HOURS + later
            batch, history, actual = context(played, cutoff, forecaster.context_length)
            rows = np.isfinite(history).sum(1) >= WEEK_HOURS
            history, actual = history[rows], actual[rows]
            mean = np.nanmean(history, 1)
            groups = {
                "below_1_an_hour": mean < 1,
                "1_to_10": (mean >= 1) & (mean < 10),
                "above_10": mean >= 10,
            }
            forecasts = {
                "freshet": forecaster.forecast(batch).cpu().numpy()[rows],
                "seasonal_naive_168": seasonal_naive(history, HORIZON, WEEK_HOURS, levels),
                "seasonal_naive_24": seasonal_naive(history, HORIZON, 24, levels),
                "moving_average_168": moving_average(history, HORIZON, WEEK_HOURS, levels),
            }
            for name, quantiles in forecasts.items():
                found.setdefault(name, []).append(scores(actual, quantiles, levels, groups))
    return {
        name: {key: round(float(np.mean([run[key] for run in runs])), 4) for key in runs[0]}
        for name, runs in found.items()
    }


def main() -> None:
    """Measure, print and write bench/results/zero_shot.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--seeds", default="11,12,13")
    parser.add_argument("--items", type=int, default=144)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    forecaster = BatchForecaster.from_pretrained(arguments.weights, device="cpu", dtype="float32")
    table = measure(forecaster, seeds, arguments.items)
    ratio = table["freshet"]["wql"] / table["seasonal_naive_168"]["wql"]
    for name, row in table.items():
        print(f"{name:20} " + "  ".join(f"{key} {value:.4f}" for key, value in row.items()))
    print(f"WQL over seasonal naive's: {ratio:.3f}")
    numbers = {
        "what": f"simulated shops, hourly, {HISTORY_HOURS} h of history, horizon {HORIZON} h, "
        "zero-shot",
        "seeds": seeds,
        "items": arguments.items,
        "days_of_history": HISTORY_HOURS * HOUR_MS // DAY_MS,
        "weights_sha256": forecaster.sha256,
        "scores": table,
        "wql_over_seasonal_naive": round(ratio, 4),
    }
    print(write_result("zero_shot", numbers, ["numpy", "torch", "transformers"]))


if __name__ == "__main__":
    main()
