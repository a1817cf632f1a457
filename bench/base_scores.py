"""Forecasts by the base weights of shops by the hour, calm and with a drift planted in the events.

Of each shop every hour is a cutoff, as a worker has it; what is scored of a bucket are the
forecasts made 1, 3, 6, 12 and 24 hours before its end. Of the simulator's shop promotions are known
and a bucket in which an item was sold out is missing; of the others nothing but sales is known.

A drift changes what was sold from its onset on, and forecasts are made anew from that:
every unit is sold again with a chance (level), four units at once are bought a quarter as often
(spread), or all is sold so many hours later (timing). Each segment has an onset of its own.

Dimensions: N items, L hours, K scored steps, Q quantile levels.

Run: FRESHET_DATA=... python -m bench.base_scores [NAME ...]   (about 4 minutes each on one core)
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from bench.hours import FIRST_MS, batch_of, shops
from freshet.model.batch import KNOWN_SLOTS
from freshet.model.forecaster import BatchForecaster
from freshet.stream.arrays import Bools, Ints, Singles
from freshet.stream.schemas import WIRE_LEVELS
from freshet.stream.source.simulator import Scenario, SimulatedShop
from freshet.stream.units import DAY_MS, HOUR_MS

CACHE = Path("build/base_scores")
STEPS = (1, 3, 6, 12, 24)
CONTEXT = 512
CALM_DAYS = {"online_retail": 56, "dunnhumby": 56}
SIMULATED_DAYS = 24
SEEDS = range(1, 5)
NAMES = ("online_retail", "dunnhumby", *(f"demo_{seed}" for seed in SEEDS))
MOST_ITEMS = 120
DRIFT_HOURS = 72
# What is planted: kind, and how much of it.
PLANTED = {
    "level_60": ("level", 0.6),
    "level_25": ("level", 0.25),
    "less_40": ("level", -0.4),
    "spread_4": ("spread", 4.0),
    "timing_6": ("timing", 6.0),
}
PROMOTION = KNOWN_SLOTS.index("promotion")


@dataclass(frozen=True, slots=True)
class World:
    """Sales of a shop; the last of its hours are forecast."""

    units_NL: Singles
    promoted_NL: Bools
    in_stock_NL: Bools
    segment_N: Ints
    first_ms: int
    days: int


def world(name: str) -> World:
    """One of the shops."""
    if name.startswith("demo_"):
        return simulated(int(name[5:]))
    wanted = {"online_retail": "online_retail", "dunnhumby": "dunnhumby_product_category"}[name]
    shop = next(one for one in shops(Path(os.environ["FRESHET_DATA"])) if one.name == wanted)
    hours_NL = shop.hours_NL[:, -200 * 24 :]
    rows = np.argsort(-hours_NL.sum(1), kind="stable")[:MOST_ITEMS]
    none = np.zeros((len(rows), hours_NL.shape[1]), bool)
    first_ms = shop.first_ms + (shop.hours_NL.shape[1] - hours_NL.shape[1]) * HOUR_MS
    # These have no categories of like size: every eighth by sales.
    segment_N = np.arange(len(rows)) % 8
    return World(hours_NL[rows], none, ~none, segment_N, first_ms, CALM_DAYS[name])


def simulated(seed: int, days: int = SIMULATED_DAYS + 32) -> World:
    """The demo's shop without a drift."""
    calm = Scenario("calm", promotions_go_on=True)
    shop = SimulatedShop(seed, 144, calm, start_ms=FIRST_MS, backfill_ms=days * DAY_MS)
    row_of = {item_id: row for row, item_id in enumerate(shop.item_ids)}
    shape = (len(row_of), days * 24)
    units_NL = np.zeros(shape, np.float32)
    on_hand_NL = np.ones(shape, bool)
    for records in islice(shop.hours(), shape[1]):
        for kind, value in zip(records.kinds, records.values, strict=True):
            if value is None or kind not in ("orders", "inventory"):
                continue
            said = msgspec.json.decode(value)
            at_ms = said["event_time"] if kind == "orders" else said["as_of"]
            hour = (at_ms - FIRST_MS) // HOUR_MS
            if kind == "orders":
                for line in said.get("lines", [said]):
                    row = row_of[f"{line['sku']}|{line.get('region', said['region'])}"]
                    units_NL[row, hour : hour + 1] += max(line["quantity"], 0)
                continue
            row = row_of[f"{said['sku']}|{said['region']}"]
            # A bucket counts as in stock when nothing was missing in all of it.
            since = hour + 1 if said["on_hand"] > 0 else hour
            on_hand_NL[row, since:] = said["on_hand"] > 0
    promoted_SL = np.zeros((shop.catalogue.num_skus, shape[1]), bool)
    for hour in range(shape[1]):
        for sale in shop.plan.active(FIRST_MS + hour * HOUR_MS):
            promoted_SL[:, hour] |= sale.covers(shop.catalogue) > 0
    repeats = shape[0] // shop.catalogue.num_skus
    return World(
        units_NL,
        np.repeat(promoted_SL, repeats, 0),
        on_hand_NL,
        np.repeat(shop.catalogue.category_S, repeats),
        FIRST_MS,
        SIMULATED_DAYS,
    )


def plant(calm: World, kind: str, size: float, onset_N: Ints, seed: int) -> World:
    """The same shop with every item's sales changed from its own onset on."""
    rng = np.random.default_rng(seed)
    whole_NL = np.rint(calm.units_NL).astype(np.int64)
    if kind == "level":
        changed_NL = whole_NL + int(np.sign(size)) * rng.binomial(whole_NL, abs(size))
    elif kind == "spread":
        changed_NL = int(size) * rng.binomial(whole_NL, 1 / size)
    else:
        changed_NL = np.roll(whole_NL, int(size), axis=1)
    after_NL = np.arange(whole_NL.shape[1]) >= onset_N[:, None]
    units_NL = np.where(after_NL, changed_NL, calm.units_NL).astype(np.float32)
    return replace(calm, units_NL=units_NL)


def quantiles(
    one: World,
    forecaster: BatchForecaster,
    first_N: Ints,
    last_N: Ints,
    at_levels: Sequence[float] = WIRE_LEVELS,
) -> Singles:
    """Forecasts of each item's buckets from its first to its last hour (exclusive): [N, h, K, Q].

    Cutoffs before the first hour are made too, 24 hours back.
    """
    span = int((last_N - first_N).max())
    shape = (len(first_N), span, len(STEPS), len(at_levels))
    found_NhKQ = np.full(shape, np.nan, np.float32)
    levels = [forecaster.quantile_levels.index(level) for level in at_levels]
    target_NL = np.where(one.in_stock_NL, one.units_NL, np.nan).astype(np.float32)
    for cutoff in range(int(first_N.min()) - STEPS[-1] + 1, int(last_N.max())):
        rows = np.flatnonzero((cutoff > first_N - STEPS[-1]) & (cutoff < last_N))
        if not len(rows):
            continue
        begin = max(cutoff - CONTEXT, 0)
        cutoff_ms = one.first_ms + cutoff * HOUR_MS
        batch = batch_of(target_NL[rows, begin:cutoff], STEPS[-1], cutoff_ms, HOUR_MS)
        promoted = one.promoted_NL[rows, begin : cutoff + STEPS[-1]]
        known_BSK = batch.known_BSK.clone()
        flags = torch.from_numpy(promoted.astype(np.float32))
        known_BSK[:, : promoted.shape[1], PROMOTION] = flags
        made = forecaster.forecast(replace(batch, known_BSK=known_BSK))
        made_BHQ = made.numpy()[..., levels]
        for column, step in enumerate(STEPS):
            place = cutoff + step - 1 - first_N[rows]
            inside = (place >= 0) & (cutoff + step - 1 < last_N[rows])
            found_NhKQ[rows[inside], place[inside], column] = made_BHQ[inside, step - 1]
    return found_NhKQ


def make(name: str) -> Path:
    """Forecast a shop, calm and drifted, and keep it; only what is not there yet."""
    path = CACHE / f"{name}.npz"
    kept = dict(np.load(path)) if path.exists() else {}
    missing = [label for label in PLANTED if f"{label}_quantiles" not in kept]
    if kept and not missing:
        return path
    forecaster = BatchForecaster.from_pretrained(device="cpu")
    calm = world(name)
    num_items, length = calm.units_NL.shape
    first_N = np.full(num_items, length - calm.days * 24)
    if not kept:
        kept = _calm(calm, forecaster, first_N)
    for label in missing:
        kind, size = PLANTED[label]
        rng = np.random.default_rng([NAMES.index(name), *label.encode()])
        onset_S = length - DRIFT_HOURS - rng.integers(0, 48, int(calm.segment_N.max()) + 1)
        onset_N = onset_S[calm.segment_N]
        drifted = plant(calm, kind, size, onset_N, NAMES.index(name))
        kept[f"{label}_onset"] = onset_S - first_N[0]
        kept[f"{label}_units"] = drifted.units_NL[:, first_N[0] :]
        kept[f"{label}_quantiles"] = quantiles(drifted, forecaster, onset_N, onset_N + DRIFT_HOURS)
    CACHE.mkdir(parents=True, exist_ok=True)
    np.savez(path, **kept)
    return path


def _calm(calm: World, forecaster: BatchForecaster, first_N: Ints) -> dict[str, Any]:
    part = slice(int(first_N[0]), None)
    last_N = np.full_like(first_N, calm.units_NL.shape[1])
    return {
        "units": calm.units_NL[:, part],
        "promoted": calm.promoted_NL[:, part],
        "in_stock": calm.in_stock_NL[:, part],
        "segment": calm.segment_N,
        "first_ms": np.array(calm.first_ms + first_N[0] * HOUR_MS),
        "quantiles": quantiles(calm, forecaster, first_N, last_N),
    }


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    for name in parser.parse_args().names or NAMES:
        print(make(name), flush=True)


if __name__ == "__main__":
    main()
