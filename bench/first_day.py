"""The first hours of a new item and of a shop: how wrong forecasts are, and how unsure.

Items are held out of the simulator's shop (whole skus, all their regions) and of dunnhumby (product
types, among the others of their commodity and department). Each begins to sell with a number of own
steps that are known, from none on, among siblings whose past is known; it is forecast by
`Forecaster.predict` and by the empirical quantiles of its siblings (those of its category, five at
least, else all) by hour of day or weekday. `--before` adds the figures of an earlier run, such as
of an earlier version of freshet: nothing but `predict` is asked.

WQL is over the levels .1 to .9, of all held-out items, launches and steps together.

Run: FRESHET_DATA=... python -m bench.first_day [--before FILE] [--shops N]
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.report import write_result
from freshet import Forecaster
from freshet.stream.source.simulator.plan import Scenario
from freshet.stream.source.simulator.shop import DEFAULT_ITEMS, SimulatedShop
from freshet.stream.units import HOUR_MS

LEVELS = np.arange(1, 10) / 10
ASKED = (*LEVELS.tolist(), 0.99)
FOLDS = 3
FEWEST_SIBLINGS = 5
PAST_DAYS = 28
QUIET = Scenario("first day", promotions_go_on=True)


@dataclass(frozen=True)
class Sales:
    """Units of items by step, what is known of each, and which are held out together."""

    units_NT: np.ndarray
    items: pd.DataFrame
    start: pd.Timestamp
    frequency: str
    past: int
    horizon: int
    launches: tuple[int, ...]
    own: tuple[int, ...]
    season: int
    parts: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def frame(self, rows: np.ndarray, first: int, end: int, own: int | None = None) -> pd.DataFrame:
        """Rows of a table; of new items all but the newest `own` steps are one missing one."""
        steps = np.arange(first, end)
        if own is not None:
            steps = steps[-max(own, 1) :]
        units = self.units_NT[rows][:, steps]
        if own == 0:
            units = np.full_like(units, np.nan)
        times = pd.date_range(self.start, periods=end, freq=self.frequency)[steps]
        table = self.items.iloc[np.repeat(rows, len(steps))].reset_index(drop=True)
        return table.assign(timestamp=np.tile(times, len(rows)), target=units.ravel())


def shop(seed: int, days: int = PAST_DAYS + 9) -> Sales:
    """The simulator's shop, by the hour."""
    shop = SimulatedShop(seed, DEFAULT_ITEMS, QUIET)
    place = {item: row for row, item in enumerate(shop.item_ids)}
    units_NT = np.zeros((len(place), days * 24))
    hours = shop.hours()
    for _ in range(days * 24):
        records = next(hours)
        for kind, value in zip(records.kinds, records.values, strict=True):
            if kind == "orders":
                order = json.loads(value)
                hour = (int(order["event_time"]) - shop.start_ms) // HOUR_MS
                for line in order.get("lines", [order]):
                    row = place[f"{line['sku']}|{line.get('region', order.get('region'))}"]
                    units_NT[row, min(hour, days * 24 - 1)] += line["quantity"]
    sku_N = shop.catalogue.sku_I
    items = pd.DataFrame(
        {
            "item_id": shop.item_ids,
            "category": [shop.catalogue.category_of(sku) for sku in sku_N],
            "region": [item.split("|")[1] for item in shop.item_ids],
            "unit_price": shop.catalogue.price_S[sku_N],
        }
    )
    return Sales(
        np.maximum(units_NT, 0.0),
        items,
        pd.Timestamp(shop.start_ms, unit="ms"),
        "h",
        past=PAST_DAYS * 24,
        horizon=24,
        launches=(PAST_DAYS * 24 + 9,),
        own=(0, 1, 3, 6, 12, 24, 96),
        season=24,
        parts=_parts(sku_N, seed),
    )


def groceries() -> Sales:
    """dunnhumby's product types by the day."""
    folder = Path(os.environ.get("FRESHET_DATA", "../shared/data"))
    raw = folder / "dunnhumby_complete_journey_sample"
    products = pd.read_parquet(raw / "products.parquet").astype(str)
    lines = pd.read_parquet(raw / "transactions_sample.parquet")
    lines = lines.assign(product_id=lines.product_id.astype(str)).merge(products, on="product_id")
    lines["day"] = lines.transaction_timestamp.dt.normalize()
    goods = ~lines.department.isin(["FUEL", "MISCELLANEOUS"]) & (lines.quantity > 0)
    lines = lines[goods & (lines.day < "2018-01-01") & ~lines.product_type.isin(["None", "nan"])]
    lines = lines[lines.groupby("product_type").product_type.transform("size") >= 100]
    days = pd.date_range(lines.day.min(), lines.day.max(), freq="D")
    units = lines.pivot_table(index="product_type", columns="day", values="quantity", aggfunc="sum")
    of_type = lines.groupby("product_type")
    items = pd.DataFrame(
        {
            "commodity": of_type.product_category.first(),
            "department": of_type.department.first(),
            "unit_price": of_type.sales_value.sum() / of_type.quantity.sum(),
        }
    )
    items = items.rename_axis("item_id").reset_index()
    return Sales(
        units.reindex(columns=days).fillna(0.0).to_numpy(),
        items,
        days[0],
        "D",
        past=180,
        horizon=14,
        launches=(200, 290),
        own=(0, 1, 3, 7, 14),
        season=7,
        parts=_parts(np.arange(len(items)), 1),
    )


def _parts(kind_N: np.ndarray, seed: int) -> np.ndarray:
    """Which fold each item is held out in; those of one kind are together."""
    shuffled = np.random.default_rng(seed).permutation(kind_N.max() + 1)
    return shuffled[kind_N] % FOLDS


def forecast(forecaster: Forecaster, sales: Sales, frame: pd.DataFrame) -> pd.DataFrame:
    """What `predict` says."""
    return forecaster.predict(
        frame,
        sales.horizon,
        frequency=sales.frequency,
        static=[name for name in sales.items.columns if name != "item_id"],
        quantile_levels=ASKED,
    )


def siblings(sales: Sales, new: np.ndarray, old: np.ndarray, cut: int) -> np.ndarray:
    """Empirical quantiles of what siblings sold at the same hour or weekday: [N, H, Q]."""
    category = sales.items.iloc[:, 1].to_numpy()
    slot_T = np.arange(cut + sales.horizon) % sales.season
    found = np.empty((len(new), sales.horizon, len(LEVELS)))
    for place, row in enumerate(new):
        kin = old[category[old] == category[row]]
        kin = old if len(kin) < FEWEST_SIBLINGS else kin
        past_NT = sales.units_NT[kin, cut - sales.past : cut]
        of_slot = {
            slot: np.quantile(past_NT[:, slot_T[cut - sales.past : cut] == slot], LEVELS)
            for slot in range(sales.season)
        }
        found[place] = [of_slot[slot] for slot in slot_T[cut:]]
    return found


def pinball(quantiles_NHQ: np.ndarray, actual_NH: np.ndarray) -> float:
    """Twice the pinball loss, the mean over levels, the sum over the rest."""
    error = actual_NH[..., None] - quantiles_NHQ
    return float((2 * np.maximum(LEVELS * error, (LEVELS - 1) * error)).sum() / len(LEVELS))


def new_items(forecaster: Forecaster, sales: Sales) -> dict[str, Any]:
    """WQL after so many own steps, and what is said of the held-out item of middle size."""
    rows: list[dict[str, Any]] = []
    middle: list[dict[str, Any]] = []
    for own in sales.own:
        lost, lost_siblings, sold = 0.0, 0.0, 0.0
        for part in range(FOLDS):
            new, old = np.flatnonzero(sales.parts == part), np.flatnonzero(sales.parts != part)
            for launch in sales.launches:
                cut = launch + own
                past = sales.frame(old, cut - sales.past, cut)
                asked = sales.frame(new, cut - sales.past, cut, own)
                said = forecast(forecaster, sales, pd.concat([past, asked]))
                said = said.set_index("item_id").loc[sales.items.item_id[new]]
                shape = (len(new), sales.horizon, -1)
                said_NHQ = said[[str(level) for level in ASKED]].to_numpy().reshape(shape)
                actual_NH = sales.units_NT[new, cut : cut + sales.horizon]
                lost += pinball(said_NHQ[..., :9], actual_NH)
                lost_siblings += pinball(siblings(sales, new, old, cut), actual_NH)
                sold += actual_NH.sum()
                if part == 0 and launch == sales.launches[0]:
                    size = sales.units_NT[new].mean(1)
                    row = int(np.argsort(size)[len(new) // 2])
                    mean_NH = said["mean"].to_numpy().reshape(shape[:2])
                    middle.append(_said(own, said_NHQ[row], mean_NH[row], actual_NH[row]))
        of_siblings = round(float(lost_siblings / sold), 4)
        wql = {"wql": round(float(lost / sold), 4), "wql_siblings": of_siblings}
        rows.append({"own_steps": own, **wql})
        print(rows[-1], flush=True)
    return {"by_own_steps": rows, "middle_item": middle}


def _said(
    own: int, said_HQ: np.ndarray, mean_H: np.ndarray, actual_H: np.ndarray
) -> dict[str, Any]:
    """What is said of an item: the mean over the steps ahead."""
    p50, p90, p99 = said_HQ[:, [4, 8, 9]].mean(0).round(3).tolist()
    mean, actual = float(mean_H.mean()), float(actual_H.mean())
    numbers = {"p50": p50, "mean": round(mean, 3), "p90": p90, "p99": p99}
    return {"own_steps": own, **numbers, "actual": round(actual, 3)}


def a_shop_begins(forecaster: Forecaster, sales: Sales) -> list[dict[str, Any]]:
    """WQL over the next day of all items, so many hours after the shop's start."""
    rows = []
    everyone = np.arange(len(sales.items))
    begin = PAST_DAYS * 12
    middle = int(np.argsort(sales.units_NT.mean(1))[len(everyone) // 2])
    for hours in (3, 6, 12, 24, 48, 96):
        cut = begin + hours
        said = forecast(forecaster, sales, sales.frame(everyone, begin, cut))
        said = said.set_index("item_id").loc[sales.items.item_id]
        shape = (len(everyone), sales.horizon, -1)
        said_NHQ = said[[str(level) for level in ASKED]].to_numpy().reshape(shape)
        actual_NH = sales.units_NT[:, cut : cut + sales.horizon]
        wql = pinball(said_NHQ[..., :9], actual_NH) / actual_NH.sum()
        mean_NH = said["mean"].to_numpy().reshape(shape[:2])
        of_item = _said(hours, said_NHQ[middle], mean_NH[middle], actual_NH[middle])
        rows.append({"wql": round(float(wql), 4), **of_item})
        print(rows[-1], flush=True)
    return rows


def one_among_equals(forecaster: Forecaster) -> list[dict[str, Any]]:
    """A new item among a hundred siblings that sell ten a day, as it does."""
    rng = np.random.default_rng(1)
    items = pd.DataFrame({"item_id": [f"i{row:03d}" for row in range(101)], "category": "tea"})
    units_NT = rng.poisson(10.0, (101, 100)).astype(float)
    own = (0, 1, 2, 3, 7, 14, 28)
    sales = Sales(units_NT, items, pd.Timestamp("2024-01-01"), "D", 56, 14, (56,), own, 7)
    said = []
    for steps in own:
        cut = 56 + steps
        past = sales.frame(np.arange(100), cut - 56, cut)
        frame = pd.concat([past, sales.frame(np.array([100]), cut - 56, cut, steps)])
        found = forecast(forecaster, sales, frame)
        of_new = found[found.item_id == "i100"]
        said_HQ = of_new[[str(level) for level in ASKED]].to_numpy()
        said.append(_said(steps, said_HQ, of_new["mean"].to_numpy(), units_NT[100, cut : cut + 14]))
        print(said[-1], flush=True)
    return said


def main() -> None:
    """Measure and write bench/results/first_day.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="figures of an earlier run")
    parser.add_argument("--shops", type=int, default=3, help="seeds of the simulator from 1 on")
    options = parser.parse_args()
    forecaster = Forecaster.from_pretrained(device="cpu", dtype="float32")
    found: dict[str, Any] = {"one_among_equals": one_among_equals(forecaster)}
    for seed in range(1, options.shops + 1):
        sales = shop(seed)
        found[f"shop_{seed}_begins"] = a_shop_begins(forecaster, sales)
        found[f"shop_{seed}"] = new_items(forecaster, sales)
    found["dunnhumby"] = new_items(forecaster, groceries())
    if options.before:
        before = json.loads(options.before.read_text("utf-8"))
        found["before"] = {name: before[name] for name in found if name in before}
    write_result("first_day", found, ["numpy", "torch", "pandas"])


if __name__ == "__main__":
    main()
