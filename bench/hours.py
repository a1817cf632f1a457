"""Sales by the hour of shops whose lines are known to the minute, and of some that are made up.

Dimensions: N series, L hours, D days.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import torch

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.synthetic.retail import retail
from freshet.model.synthetic.seeded import Seeded
from freshet.model.text import NUM_STATIC
from freshet.stream.arrays import Singles
from freshet.stream.source.simulator import Scenario, SimulatedShop
from freshet.stream.units import DAY_MS, HOUR_MS

FIRST_MS = 1_735_689_600_000  # 2025-01-01
DAYS, ROWS = 160, 400


@dataclass(frozen=True, slots=True)
class Shop:
    """Units of every hour, from a midnight on."""

    name: str
    hours_NL: Singles
    first_ms: int

    @property
    def days_ND(self) -> Singles:
        """Units of every day."""
        days_ND: Singles = self.hours_NL.reshape(len(self.hours_NL), -1, 24).sum(2)
        return days_ND

    def some(self, most: int) -> Shop:
        """As many items, drawn with the same seed each time."""
        rows = np.random.default_rng(1).permutation(len(self.hours_NL))[:most]
        return Shop(self.name, self.hours_NL[rows], self.first_ms)


def shops(folder: Path) -> Iterator[Shop]:
    """Online Retail by article, dunnhumby by category and by department, the simulator's shop, and
    synthetic series.
    """
    lines = pd.read_parquet(folder / "online_retail" / "online_retail_II.parquet")
    sold = ~lines.in_overlap & (lines.quantity > 0) & (lines.unit_price > 0)
    yield _shop("online_retail", lines[sold], ("ts", "sku", "quantity"), 100)

    sample = folder / "dunnhumby_complete_journey_sample"
    products = pd.read_parquet(sample / "products.parquet")
    lines = pd.read_parquet(sample / "transactions_sample.parquet").merge(products, on="product_id")
    # Litres of fuel are thousands to a line.
    lines = lines[lines.quantity < 100]
    time = "transaction_timestamp"
    for column in ("product_category", "department"):
        known = lines[lines[column].notna()]
        yield _shop(f"dunnhumby_{column}", known, (time, column, "quantity"), 50)

    yield _simulated()

    draw = Seeded(torch.Generator().manual_seed(91), ROWS)
    series = retail(draw, torch.full((ROWS,), FIRST_MS), DAYS * 24, HOUR_MS)
    hours_NL = torch.nan_to_num(series.target_BS).numpy()
    yield Shop("synthetic", hours_NL[hours_NL.mean(1) < 2_000], FIRST_MS)


def batch_of(target_BT: Singles, horizon: int, cutoff_ms: int, resolution_ms: int) -> Batch:
    """Contexts that end at the cutoff and know nothing but what was sold."""
    B, T = target_BT.shape
    start_ms_B = torch.full((B,), cutoff_ms - T * resolution_ms)
    return Batch(
        target_BT=torch.from_numpy(np.ascontiguousarray(target_BT, np.float32)),
        past_BTP=torch.full((B, T, len(PAST_SLOTS)), torch.nan),
        known_BSK=torch.full((B, T + horizon, len(KNOWN_SLOTS)), torch.nan),
        static_BF=torch.full((B, NUM_STATIC), torch.nan),
        start_ms_B=start_ms_B,
        resolution_ms=resolution_ms,
    )


def _simulated() -> Shop:
    """What the shop of the demo orders, without drift and faults."""
    shop = SimulatedShop(
        1, ROWS, Scenario("without faults"), start_ms=FIRST_MS, backfill_ms=DAYS * DAY_MS
    )
    row_of = {item_id: row for row, item_id in enumerate(shop.item_ids)}
    hours_NL = np.zeros((len(row_of), DAYS * 24), np.float32)
    for records in islice(shop.hours(), DAYS * 24):
        for kind, value in zip(records.kinds, records.values, strict=True):
            if kind == "orders" and value is not None:
                order = msgspec.json.decode(value)
                hour = (order["event_time"] - FIRST_MS) // HOUR_MS
                for line in order.get("lines", [order]):
                    region = line.get("region", order["region"])
                    if line["quantity"] > 0 and hour < DAYS * 24:
                        row = row_of[f"{line['sku']}|{region}"]
                        hours_NL[row, hour] += line["quantity"]
    return Shop("simulated", hours_NL, FIRST_MS)


def _shop(name: str, lines: pd.DataFrame, columns: tuple[str, str, str], least: int) -> Shop:
    """Items of at least so many lines, from the first midnight to the last."""
    time, item, units = columns
    count = lines.groupby(item)[item].transform("size")
    lines = lines[count >= least]
    times = pd.to_datetime(lines[time])
    first, last = times.min().ceil("D"), times.max().floor("D")
    hour_R = ((times - first) // pd.Timedelta(hours=1)).to_numpy()
    inside_R = (hour_R >= 0) & (times < last).to_numpy()
    code_R, names = pd.factorize(lines[item])
    hours_NL = np.zeros((len(names), int((last - first) / pd.Timedelta(hours=1))), np.float32)
    place_R = (code_R[inside_R], hour_R[inside_R])
    np.add.at(hours_NL, place_R, lines[units].to_numpy(float)[inside_R])
    return Shop(name, hours_NL, int(first.timestamp()) * 1_000)
