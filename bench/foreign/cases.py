"""The tables that are served and measured, and what a shop would announce of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

FRESHET = [sys.executable, "-m", "freshet"]


@dataclass(frozen=True, slots=True)
class Case:
    """A table with columns id (sku, or sku|region), timestamp and target, and what goes with it.

    `flags` and `numbers` name the covariate as which a column is announced. `shut_where_missing`:
    a series without rows for a while was shut, and its shop says so and until when; the backtest
    sees that the rows are missing.
    """

    make: Callable[[Path], pd.DataFrame]
    horizon: int
    cutoffs: int
    frequency: str = "D"
    season: int = 7
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    category: str = ""
    promotion: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    retained: int = 0
    shut_where_missing: bool = False

    @property
    def step(self) -> pd.Timedelta:
        """The width of a bucket."""
        return pd.Timedelta(1, self.frequency)

    def cuts(self, frame: pd.DataFrame) -> list[pd.Timestamp]:
        """The cutoffs, counted back from the table's end."""
        end = frame.timestamp.max() + self.step
        return [end - self.step * self.horizon * back for back in range(self.cutoffs, 0, -1)]


# Tables -------------------------------------------------------------------------------------------


def prepared(preset: str) -> Callable[[Path], pd.DataFrame]:
    """A table of `freshet data prepare`."""

    def make(folder: Path) -> pd.DataFrame:
        path = folder / f"{preset}.parquet"
        if not path.exists():
            freshet("data", "prepare", preset, "-o", path)
        return pd.read_parquet(path)

    return make


def rossmann(folder: Path) -> pd.DataFrame:
    """Shops a day, with what would be announced: closed days and two kinds of holidays."""
    frame = prepared("rossmann_1D")(folder)
    frame["closed"] = 1.0 - frame.Open
    state = frame.StateHoliday.astype("string").fillna("0")
    frame["public_holiday"] = (state != "0").astype(float)
    return frame


def pasta(folder: Path) -> pd.DataFrame:
    """118 products a day; the shop was closed where no product has a value."""
    raw = pd.read_parquet(raw_folder() / "hierarchical_sales" / "daily.parquet")
    frame = raw.rename(columns={"item_id": "id"})
    shut = frame.target.isna().groupby(frame.timestamp).transform("all")
    return frame.assign(closed=shut.astype(float))


def groceries(keys: list[str], min_lines: int) -> Callable[[Path], pd.DataFrame]:
    """Units a day of the sampled baskets by some columns; a day without any is 0."""

    def make(folder: Path) -> pd.DataFrame:
        raw = raw_folder() / "dunnhumby_complete_journey_sample"
        products = pd.read_parquet(raw / "products.parquet").dropna(subset="product_category")
        lines = pd.read_parquet(raw / "transactions_sample.parquet").merge(products)
        lines["timestamp"] = lines.transaction_timestamp.dt.normalize()
        goods = ~lines.department.isin(["FUEL", "MISCELLANEOUS"]) & (lines.quantity > 0)
        lines = lines[goods & (lines.timestamp < "2018-01-01")]
        lines["id"] = lines[keys].astype(str).agg("|".join, axis=1)
        lines = lines[lines.groupby("id").id.transform("size") >= min_lines]
        days = pd.date_range(lines.timestamp.min(), lines.timestamp.max(), freq="D")
        units = lines.pivot_table(index="timestamp", columns="id", values="quantity", aggfunc="sum")
        frame = units.reindex(days).fillna(0.0).rename_axis("timestamp").unstack()
        table = frame.rename("target").reset_index()
        table["department"] = table.id.map(lines.groupby("id").department.first())
        offered = table[["id", "timestamp"]].merge(coupons(raw, products), how="left")
        shut = table.groupby("timestamp").target.transform("sum") == 0
        return table.assign(
            closed=shut.astype(float), coupons=offered.coupons.fillna(0.0).to_numpy()
        )

    return make


def coupons(raw: Path, products: pd.DataFrame) -> pd.DataFrame:
    """Of each commodity and day, how many products have a coupon in a campaign that runs."""
    offers = pd.read_parquet(raw / "coupons.parquet").merge(products)
    sizes = offers.groupby(["campaign_id", "product_category"]).product_id.nunique()
    campaigns = pd.read_parquet(raw / "campaign_descriptions.parquet")
    campaigns["timestamp"] = [
        list(pd.date_range(row.start_date, row.end_date)) for row in campaigns.itertuples()
    ]
    days = campaigns.explode("timestamp").merge(sizes.rename("coupons").reset_index())
    days["timestamp"] = pd.to_datetime(days.timestamp)
    days["id"] = days.product_category
    return days.groupby(["id", "timestamp"], as_index=False).coupons.sum()


def freshet(*arguments: object, environ: Mapping[str, str] | None = None) -> None:
    """Run one of the commands to its end."""
    command = [*FRESHET, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **(environ or {})}, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr.decode()[-2_000:]}")


def raw_folder() -> Path:
    """Where the raw files lie."""
    return Path(os.environ.get("FRESHET_DATA", "../shared/data"))


SHOP = (
    *("StoreType", "Assortment", "CompetitionDistance", "CompetitionOpenSinceMonth"),
    *("CompetitionOpenSinceYear", "Promo2", "Promo2SinceWeek", "Promo2SinceYear"),
)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri")
GIFTS = {
    "FRESHET_CALENDAR__COUNTRY": "GB",
    "FRESHET_CALENDAR__OPENING_HOURS": json.dumps(
        {**dict.fromkeys(WEEKDAYS, "07:00-21:00"), "sun": "09:00-17:00"}
    ),
}
CASES = {
    "rossmann_daily": Case(
        rossmann,
        horizon=48,
        cutoffs=10,
        known=("Open", "Promo", "StateHoliday", "SchoolHoliday", "DayOfWeek"),
        past=("Customers",),
        static=(*SHOP, "PromoInterval"),
        category="StoreType",
        promotion="Promo",
        flags={
            "closed": "closed",
            "public_holiday": "holiday",
            "SchoolHoliday": "school_holiday",
        },
        settings={"FRESHET_COVARIATES__FLAGS": '{"school_holiday": "free_1"}'},
        shut_where_missing=True,
    ),
    "online_retail_daily": Case(
        prepared("online_retail_daily"),
        horizon=28,
        cutoffs=4,
        past=("unit_price",),
        static=("description",),
        settings=GIFTS,
    ),
    "dunnhumby_daily": Case(
        groceries(["product_category"], min_lines=100),
        horizon=28,
        cutoffs=4,
        known=("coupons", "closed"),
        static=("department",),
        category="department",
        flags={"closed": "closed"},
        numbers={"coupons": "coupons"},
        settings={
            "FRESHET_COVARIATES__NUMBERS": '{"coupons": "free_1"}',
            "FRESHET_CALENDAR__COUNTRY": "US",
        },
    ),
    "online_retail_hourly": Case(
        prepared("online_retail_hourly"),
        horizon=48,
        cutoffs=2,
        frequency="h",
        season=24,
        past=("unit_price",),
        static=("description",),
        settings=GIFTS,
        retained=1_344,
    ),
    "hierarchical_sales_daily": Case(
        pasta,
        horizon=28,
        cutoffs=10,
        known=("promotion", "closed"),
        static=("brand",),
        category="brand",
        promotion="promotion",
        flags={"closed": "closed"},
        settings={"FRESHET_CALENDAR__COUNTRY": "IT"},
    ),
    "store_department_daily": Case(
        groceries(["department", "store_id"], min_lines=100),
        horizon=28,
        cutoffs=4,
        known=("closed",),
        static=("department",),
        category="department",
        flags={"closed": "closed"},
        settings={"FRESHET_CALENDAR__COUNTRY": "US"},
    ),
}
