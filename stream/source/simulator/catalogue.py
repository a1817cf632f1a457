"""The items of one simulated shop: titles, prices, how well each sells where, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.schemas import item_id_of
from freshet.stream.source.simulator.goods import CATEGORIES, REGION_SHARES, REGIONS
from freshet.stream.source.simulator.seeds import generator

UNITS_PER_HOUR_RANGE = (0.05, 300.0)
LINES_PER_HOUR_PER_ITEM = 1.78
RATE_SIGMA = 1.45
LARGEST_RATE = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """Columns over skus `[S]` and over items `[I]` (item = sku in one region, regions fastest).

    `lines_per_hour` is the mean number of order lines of an item; a line is `pack * (1 +
    Poisson(extra_packs))` units.
    """

    skus: list[str]
    titles: list[str]
    brands: list[str]
    attributes: list[dict[str, str]]
    category_S: Ints
    price_S: Floats
    elasticity_S: Floats
    return_share_S: Floats
    pack_S: Ints
    extra_packs_S: Floats
    cart_share_S: Floats
    conversion_S: Floats
    growth_S: Floats
    lines_per_hour_I: Floats

    @property
    def num_skus(self) -> int:
        """How many articles there are."""
        return len(self.skus)

    @property
    def sku_I(self) -> Ints:
        """The sku index of each item."""
        return np.repeat(np.arange(self.num_skus), len(REGIONS))

    @property
    def lines_per_hour_S(self) -> Floats:
        """Mean number of order lines of each sku, in all regions together."""
        lines_S: Floats = self.lines_per_hour_I.reshape(self.num_skus, -1).sum(axis=1)
        return lines_S

    @property
    def item_ids(self) -> list[str]:
        """The id of each series, sku and region."""
        return [item_id_of([sku, region]) for sku in self.skus for region in REGIONS]

    @property
    def mean_quantity_S(self) -> Floats:
        """Units in an average order line."""
        quantity: Floats = self.pack_S * (1.0 + self.extra_packs_S)
        return quantity

    def category_of(self, sku: int) -> str:
        """The category's name."""
        return CATEGORIES[int(self.category_S[sku])].name


def make_catalogue(seed: int, items: int) -> Catalogue:
    """Draw a catalogue of at least `items` series (rounded up to whole skus)."""
    rng = generator(seed, "catalogue")
    num_skus = max(1, -(-items // len(REGIONS)))
    category_S = np.arange(num_skus) % len(CATEGORIES)
    names = _Names(rng)
    articles = [names.next(int(category)) for category in category_S]
    pack_S = np.array([article.pack for article in articles])
    extra_packs_S = np.where(pack_S > 1, 0.35, 0.12) * rng.uniform(0.6, 1.4, num_skus)
    lines_per_hour_I = _order_rates(rng, pack_S, pack_S * (1.0 + extra_packs_S))
    return Catalogue(
        skus=[article.sku for article in articles],
        titles=[article.title for article in articles],
        brands=[article.brand for article in articles],
        attributes=[article.attributes for article in articles],
        category_S=category_S,
        price_S=np.array([article.price for article in articles]),
        elasticity_S=_of(category_S, "elasticity") * rng.uniform(0.75, 1.25, num_skus),
        return_share_S=_of(category_S, "return_share"),
        pack_S=pack_S,
        extra_packs_S=extra_packs_S,
        cart_share_S=rng.uniform(0.08, 0.18, num_skus),
        conversion_S=rng.uniform(0.28, 0.48, num_skus),
        growth_S=np.clip(rng.normal(0.10, 0.35, num_skus), -0.6, 0.9),
        lines_per_hour_I=lines_per_hour_I,
    )


def _of(category_S: Ints, field: str) -> Floats:
    by_category = np.array([getattr(category, field) for category in CATEGORIES], np.float64)
    return by_category[category_S]


@dataclass(frozen=True, slots=True)
class _Article:
    sku: str
    title: str
    brand: str
    attributes: dict[str, str]
    price: float
    pack: int


class _Names:
    """Hands out articles; none twice until all products and variants of its category were used."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._used = [0] * len(CATEGORIES)

    def next(self, category: int) -> _Article:
        spec = CATEGORIES[category]
        turn = self._used[category]
        self._used[category] += 1
        product = spec.products[turn % len(spec.products)]
        variant = product.variants[turn // len(spec.products) % len(product.variants)]
        brand = spec.brands[int(self._rng.integers(len(spec.brands)))]
        price = round(product.price * float(self._rng.uniform(0.9, 1.15)), 2)
        sku = f"{spec.name[:3].upper()}-{1001 + turn}"
        return _Article(
            sku=sku,
            title=f"{brand} {product.title} {variant}",
            brand=brand,
            attributes={spec.attribute: variant},
            price=price,
            pack=product.pack,
        )


def _order_rates(rng: np.random.Generator, pack_S: Ints, quantity_S: Floats) -> Floats:
    """Order lines per hour of each item: few articles sell most, split by region.

    The lognormal tail is spread evenly over its quantiles rather than drawn, so that every seed's
    shop is about as busy; its end is bent, so that no article is most of the shop.
    """
    num_skus = len(pack_S)
    quantile_S = (np.arange(num_skus) + 0.5) / num_skus
    normal_S = np.array([NormalDist().inv_cdf(quantile) for quantile in quantile_S.tolist()])
    tail_S = np.exp(RATE_SIGMA * normal_S)
    tail_S = tail_S / (1.0 + tail_S / LARGEST_RATE)
    # Articles bought in packs sell best: each sku gets the rate of its rank in popularity.
    popularity_S = np.log(pack_S) + rng.normal(0.0, 0.5, num_skus)
    rank_S = np.argsort(np.argsort(popularity_S))
    rate_S = tail_S[rank_S]
    share_SR = np.array(REGION_SHARES) * rng.lognormal(0.0, 0.25, (num_skus, len(REGIONS)))
    lines_SR = rate_S[:, None] * share_SR / share_SR.sum(axis=1, keepdims=True)
    lines_SR *= LINES_PER_HOUR_PER_ITEM / lines_SR.mean()
    low, high = UNITS_PER_HOUR_RANGE
    within_SR = np.clip(lines_SR, low / quantity_S[:, None], high / quantity_S[:, None])
    lines_I: Floats = within_SR.reshape(-1)
    return lines_I
