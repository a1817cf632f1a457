"""What the catalogue, promotions and inventory topics say about items, now and through time.

Dimensions: I items, R distinct skus, S buckets (steps), K known slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from freshet.stream.arrays import Floats, Singles
from freshet.stream.catalog.promotions import Announced, Promotions
from freshet.stream.catalog.records import usable
from freshet.stream.catalog.stock import RegionStock, Series, StockTable
from freshet.stream.catalog.timeline import (
    BucketSpan,
    Changes,
    columns_of,
    share_of_buckets,
    value_at_starts,
)
from freshet.stream.codec import MAX_TIME_MS, decode, time_ms
from freshet.stream.errors import EventError
from freshet.stream.schemas import (
    SHOP_TABLES,
    CatalogEntry,
    Covariate,
    InventoryLevel,
    Promotion,
    ShopTable,
    item_id_parts,
)
from freshet.stream.slots import DISCOUNT, KNOWN_SLOTS, PRICE_RATIO, PROMOTION
from freshet.stream.telemetry import get_logger

MAX_PRICE_CHANGES = 512
FOREVER_MS = 2**62

log = get_logger(__name__)


class ShopTables:
    """State of the three shop topics, fed record by record in the order of the log.

    Unknown is NaN or empty, never 0. Methods that take `as_of_ms` answer with what was known then:
    prices in force later are the price in force at that time, promotions announced later are left
    out, and stock is unknown past it.

    Args:
        series_by: The fields that an item id is made of.
        latest_ms: When a record may say that something happened at the latest.
    """

    def __init__(
        self,
        series_by: Sequence[str] = ("sku", "region"),
        *,
        latest_ms: Callable[[], int] = lambda: MAX_TIME_MS,
    ) -> None:
        self._series_by = tuple(series_by)
        self._latest_ms = latest_ms
        self._catalog: dict[str, CatalogEntry] = {}
        self._prices: dict[str, Changes] = {}
        self._promotions = Promotions()
        self._stock = StockTable(by_region="region" in self._series_by)
        # A tombstone has a key only; this says what the records under that key were about.
        self._identity_of: dict[tuple[str, bytes], Any] = {}
        self.malformed: dict[str, int] = dict.fromkeys(SHOP_TABLES, 0)
        self.version = 0
        self.newest_ms = 0

    # Records in -----------------------------------------------------------------------------------

    def apply(
        self,
        table: ShopTable,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        **place: int,
    ) -> bool:
        """Take in one record as `take` does; a null value is a tombstone.

        A record that cannot be used is counted in `malformed`, logged, and changes nothing.

        Returns:
            Whether it was usable.
        """
        try:
            self.take(table, key, value, timestamp_ms, **place)
        except EventError as error:
            self.malformed[table] += 1
            log.warning(
                "shop_record_skipped",
                table=table,
                key=repr(key)[:200],
                error=str(error)[:500],
            )
            return False
        return True

    def take(
        self,
        table: ShopTable,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        *,
        offset: int | None = None,
        partition: int = 0,
    ) -> None:
        """Take in one record, or raise; it may come again, and in any order of its time.

        Args:
            table: Whose record it is.
            key: Its key.
            value: Its bytes, None for a tombstone.
            timestamp_ms: Kafka's; it is known from then on, unless it says `announced_at`.
            offset: Where it lies; of two that are known from one time on, the later one holds.
                None counts as behind all that were taken in.
            partition: Where it lies.

        Raises:
            EventError: It cannot be used, and changed nothing.
        """
        if value is None:
            self._forget(table, key)
        else:
            self._take(table, key, value, timestamp_ms)
        self.version += 1
        self.newest_ms = max(self.newest_ms, timestamp_ms)

    def _take(self, table: ShopTable, key: bytes | None, value: bytes, timestamp_ms: int) -> None:
        take: Callable[[bytes, int], Any] = {
            "catalog": self._take_entry,
            "promotions": self._take_promotion,
            "inventory": self._take_stock,
            "covariates": self._take_covariate,
        }[table]
        identity = take(value, timestamp_ms)
        if key is not None:
            self._identity_of[table, key] = identity

    def _take_entry(self, value: bytes, timestamp_ms: int) -> str:
        entry = usable("catalog", value, latest_ms=self._latest_ms())
        assert isinstance(entry, CatalogEntry)
        price = entry.unit_price
        self._catalog[entry.sku] = entry
        if price is not None:
            prices = self._prices.setdefault(entry.sku, Changes(MAX_PRICE_CHANGES))
            prices.set_from(timestamp_ms, price)
        return entry.sku

    def _take_promotion(self, value: bytes, timestamp_ms: int) -> str:
        promotion = decode(Promotion, value, latest_ms=self._latest_ms())
        return self._promotions.take(promotion, timestamp_ms)

    def _take_stock(self, value: bytes, _: int) -> tuple[Series, str | None]:
        return self._stock.take(decode(InventoryLevel, value, latest_ms=self._latest_ms()))

    def _take_covariate(self, value: bytes, _: int) -> str:
        covariate = usable("covariates", value, latest_ms=self._latest_ms())
        assert isinstance(covariate, Covariate)
        return covariate.covariate_id

    def _forget(self, table: ShopTable, key: bytes | None) -> None:
        if key is None:
            raise EventError("a tombstone without a key says nothing")
        identity = self._identity_of.pop((table, key), None)
        if identity is None:
            return
        if table == "catalog":
            self._catalog.pop(identity, None)
            self._prices.pop(identity, None)
        elif table == "promotions":
            self._promotions.drop(identity)
        elif table == "inventory":
            self._stock.drop(*identity)

    # What is known now ----------------------------------------------------------------------------

    def entry(self, sku: str) -> CatalogEntry | None:
        """The newest catalogue entry of a sku."""
        return self._catalog.get(sku)

    def skus(self) -> list[str]:
        """Every sku of the catalogue, in the order in which they were first named."""
        return list(self._catalog)

    def texts(self, item_ids: Sequence[str]) -> list[str]:
        """Title, category, brand and attributes of each item as one text; empty where unknown."""
        return [_text(self._entry_of(item_id)) for item_id in item_ids]

    def categories(self, item_ids: Sequence[str]) -> list[str]:
        """The category of each item; empty where unknown."""
        entries = [self._entry_of(item_id) for item_id in item_ids]
        return [entry.category if entry else "" for entry in entries]

    def launched_ms(self, item_ids: Sequence[str]) -> Floats:
        """When each item was launched, epoch ms as float64[I]; NaN where unknown."""
        entries = [self._entry_of(item_id) for item_id in item_ids]
        times = [entry.launched_at if entry else None for entry in entries]
        return np.array([np.nan if time is None else time_ms(time) for time in times], np.float64)

    def on_hand(self, item_ids: Sequence[str]) -> Floats:
        """Units on hand by the newest records, float64[I]; NaN where unknown."""
        series = [self._series(item_id) for item_id in item_ids]
        return np.array([self._stock.on_hand(one) for one in series], np.float64)

    def stock_levels(self, item_id: str) -> list[RegionStock]:
        """Units on hand of an item and as of when, by the newest record of each of its regions."""
        return self._stock.levels(self._series(item_id))

    def promotions(self) -> Iterable[Announced]:
        """Every known promotion with its times, in no order."""
        return self._promotions

    def promotions_of(self, sku: str, from_ms: int, to_ms: int) -> list[Announced]:
        """Promotions of a sku or its category that touch [from_ms, to_ms), by start and id."""
        entry = self._catalog.get(sku)
        covering = self._promotions.covering(sku, entry.category if entry else "")
        found = [known for known in covering if known.starts_ms < to_ms and known.ends_ms > from_ms]
        return sorted(found, key=lambda known: (known.starts_ms, known.promotion.promotion_id))

    def active_promotions(self, now_ms: int) -> list[Promotion]:
        """Promotions running at a time, by start and id."""
        return self._promotions.running(now_ms)

    def promotion_times(self, promotion_id: str) -> tuple[int, int]:
        """When a known promotion starts and ends, epoch ms, end exclusive."""
        known = self._promotions[promotion_id]
        return known.starts_ms, known.ends_ms

    def promoted_skus(self, promotion: Promotion) -> list[str]:
        """The skus that a promotion is for, sorted."""
        if promotion.sku is not None:
            return [promotion.sku]
        entries = self._catalog.items()
        return sorted(sku for sku, entry in entries if entry.category == promotion.category)

    # What was known then --------------------------------------------------------------------------

    def unit_prices(self, item_ids: Sequence[str], *, as_of_ms: int | None = None) -> Singles:
        """The price of each item, float32[I]; NaN where unknown."""
        at_ms = FOREVER_MS if as_of_ms is None else as_of_ms
        histories = [self._prices.get(self._sku(item_id)) for item_id in item_ids]
        prices = [history.at(at_ms) if history else np.nan for history in histories]
        return np.array(prices, np.float32)

    def known(
        self,
        item_ids: Sequence[str],
        span: BucketSpan,
        *,
        as_of_ms: int | None = None,
    ) -> Singles:
        """What is known in advance of each item and bucket, float32[I, S, K] by `KNOWN_SLOTS`.

        * price_ratio: the price at the bucket's start over the price now (`as_of_ms`); NaN before
          the first known one.
        * promotion: the share of the bucket under a promotion of the sku or its category, 0 to 1.
        * discount: the deepest discount, as a share of the price, times the share of the bucket
          that it covers.
        * event, closed, free_1 to free_6: covariates and the calendar.
        * effect: NaN.

        A future price is the current one; promotions are not in it.
        """
        at_ms = FOREVER_MS if as_of_ms is None else as_of_ms
        # Prices and promotions belong to skus, and many items share one: each is worked out once.
        sku_of_item = [self._sku(item_id) for item_id in item_ids]
        skus, row_I = np.unique(sku_of_item, return_inverse=True)
        known_RSK = self._known_of_skus(list(skus), span, at_ms)
        one_item_each = len(skus) == len(item_ids)
        if one_item_each and (row_I[:-1] < row_I[1:]).all():
            return known_RSK  # The rows are the items already; no copy.
        return known_RSK[row_I]

    def _known_of_skus(self, skus: list[str], span: BucketSpan, as_of_ms: int) -> Singles:
        entries = [self._catalog.get(sku) for sku in skus]
        categories = [entry.category if entry else "" for entry in entries]
        promoted_RS, discount_RS = self._promotions.cover(skus, categories, span, as_of_ms)
        known_RSK = np.full((len(skus), span.steps, len(KNOWN_SLOTS)), np.nan, np.float32)
        known_RSK[..., PRICE_RATIO] = self._price_ratios(skus, span, as_of_ms)
        known_RSK[..., PROMOTION] = promoted_RS
        known_RSK[..., DISCOUNT] = discount_RS
        return known_RSK

    def _price_ratios(self, skus: list[str], span: BucketSpan, as_of_ms: int) -> Floats:
        """The price at each bucket's start over the price at `as_of_ms`, float64[R, S].

        Changes after `as_of_ms` are cut off, so that every later bucket has the price of then.
        """
        histories = [self._prices.get(sku) for sku in skus]
        until_ms = min(span.end_ms, as_of_ms + 1)
        changes = columns_of(histories, span.start_ms, until_ms)
        price_RS = value_at_starts(*changes, num_rows=len(skus), span=span)
        now_R = np.array([history.at(as_of_ms) if history else np.nan for history in histories])
        ratio_RS: Floats = price_RS / now_R[:, None]
        return ratio_RS

    def in_stock(
        self,
        item_ids: Sequence[str],
        span: BucketSpan,
        *,
        as_of_ms: int | None = None,
    ) -> Singles:
        """The share of each bucket for which the item was in stock, float32[I, S], 0 to 1.

        NaN where no stock was known at the bucket's start, and for buckets that end after
        `as_of_ms` (default: the newest record of the shop topics).
        """
        histories = [self._stock.changes(self._series(item_id)) for item_id in item_ids]
        changes = columns_of(histories, span.start_ms, span.end_ms)
        share_IS = share_of_buckets(*changes, num_rows=len(item_ids), span=span)
        known_until_ms = self.newest_ms if as_of_ms is None else as_of_ms
        share_IS[:, span.edges()[1:] > known_until_ms] = np.nan
        return share_IS.astype(np.float32)

    # Items ----------------------------------------------------------------------------------------

    def _series(self, item_id: str) -> Series:
        # Hardly any id holds an escaped bar, and splitting is many times faster than parsing.
        parts = item_id_parts(item_id) if "\\" in item_id else item_id.split("|")
        values = dict(zip(self._series_by, parts, strict=False))
        return values.get("sku"), values.get("region")

    def _sku(self, item_id: str) -> str:
        return self._series(item_id)[0] or ""

    def _entry_of(self, item_id: str) -> CatalogEntry | None:
        return self._catalog.get(self._sku(item_id))


def _text(entry: CatalogEntry | None) -> str:
    if entry is None:
        return ""
    attributes = [f"{name} {value}" for name, value in sorted(entry.attributes.items())]
    parts = (entry.title, entry.category, entry.brand, *attributes)
    return " ".join(part for part in parts if part)
