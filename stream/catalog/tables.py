"""What the shop's tables say about items, now and as it was known at any time.

Dimensions: I items, S buckets (steps), K known slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from freshet.stream.arrays import Floats, Singles
from freshet.stream.catalog.covariates import Covariates
from freshet.stream.catalog.entries import Entries
from freshet.stream.catalog.fill import filled
from freshet.stream.catalog.hours import ShopCalendar
from freshet.stream.catalog.promotions import Announced, Promotions
from freshet.stream.catalog.records import announced_ms, usable
from freshet.stream.catalog.scopes import Items
from freshet.stream.catalog.stock import RegionStock, Series, StockTable
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.catalog.translate import Headers, Told, Translator
from freshet.stream.catalog.versions import NEWEST_MS, Keys, Known, order_of
from freshet.stream.codec import MAX_TIME_MS, time_ms
from freshet.stream.config import CalendarSettings, CovariateSettings, Settings
from freshet.stream.errors import EventError
from freshet.stream.schemas import (
    SHOP_TABLES,
    CatalogEntry,
    Covariate,
    InventoryLevel,
    Promotion,
    Record,
    ShopTable,
    item_id_parts,
)
from freshet.stream.slots import PRICE_RATIO, covariate_slots
from freshet.stream.telemetry import get_logger

MAX_DELETED_KEYS = 1_000_000
NOWHERE = 2**31

log = get_logger(__name__)


class ShopTables:
    """Every version of the shop's records, fed one by one.

    Unknown is NaN or empty, never 0. Methods that take `as_of_ms` answer with what was known then,
    the others with the newest records. A record is known from its `announced_at` on, else from its
    Kafka timestamp; of two of one millisecond the one of the higher offset holds. So an answer
    depends on the records that were known by then alone, not on what came later, nor in which order
    records are taken in.

    Nothing is forgotten but what `forget_before` is told to, and what goes beyond a limit: that is
    logged once a table and counted in `forgotten`.

    Args:
        series_by: The fields that an item id is made of.
        latest_ms: When a record may say that something happened at the latest.
        covariates: Names of covariates.
        calendar: Public holidays and opening hours.
        translator: Of records as the shop sends them; without it they are ours already.

    Raises:
        ConfigError: A country of the calendar is not known.
    """

    def __init__(
        self,
        series_by: Sequence[str] = ("sku", "region"),
        *,
        latest_ms: Callable[[], int] = lambda: MAX_TIME_MS,
        covariates: CovariateSettings | None = None,
        calendar: CalendarSettings | None = None,
        translator: Translator | None = None,
    ) -> None:
        self._translator = translator
        places = {name: place for place, name in enumerate(series_by)}
        self._sku_place = places.get("sku", NOWHERE)
        self._region_place = places.get("region", NOWHERE)
        self.latest_ms = latest_ms
        names = covariates or CovariateSettings()
        self._slots = covariate_slots(names.flags, names.numbers)
        self._by_region = "region" in places
        self._calendar = ShopCalendar(calendar or CalendarSettings())
        self.malformed: dict[str, int] = dict.fromkeys(SHOP_TABLES, 0)
        self.forgotten: dict[str, int] = dict.fromkeys(SHOP_TABLES, 0)
        self.version = 0
        self._begin()

    @classmethod
    def of(
        cls, settings: Settings, *, latest_ms: Callable[[], int] = lambda: MAX_TIME_MS
    ) -> ShopTables:
        """Empty tables of the shop that the settings describe."""
        return cls(
            settings.events.series_by,
            latest_ms=latest_ms,
            covariates=settings.covariates,
            calendar=settings.calendar,
            translator=Translator(settings),
        )

    def start_over(self) -> None:
        """Forget every record: all of them come again."""
        self._begin()
        self.version += 1

    def _begin(self) -> None:
        self._entries = Entries()
        self._promotions = Promotions()
        self._stock = StockTable(by_region=self._by_region)
        self._covariates = Covariates(self._slots, self._calendar)
        self._keys: dict[ShopTable, Keys[Any]] = {table: Keys() for table in SHOP_TABLES}
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
        """Take in one record, or raise; it may come again, and in any order.

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
        order = order_of(self.version if offset is None else offset, partition)
        if value is not None:
            latest_ms = self.latest_ms()
            record = usable(table, value, latest_ms=latest_ms, slots=self._slots)
            self._take(table, key, record, Known(announced_ms(record, timestamp_ms), order))
        elif key is None:
            raise EventError("a tombstone without a key says nothing")
        else:
            self._delete(table, key, Known(timestamp_ms, order))
        self.version += 1
        self.newest_ms = max(self.newest_ms, timestamp_ms)

    def tell(
        self,
        table: ShopTable,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> None:
        """Take in one record of the shop's own topic, as the shop sends it; see `take`.

        Raises:
            EventError: It cannot be used, and changed nothing.
        """
        told: Told | None = Told(key, value)
        if self._translator is not None:
            told = self._translator.read(table, key, value, timestamp_ms, headers)
        if told is not None:
            self.take(table, told.key, told.value, timestamp_ms)

    def _take(self, table: ShopTable, key: bytes | None, record: Record, known: Known) -> None:
        identity: Any
        match record:
            case CatalogEntry():
                identity, forgotten = record.sku, self._entries.take(record, known)
            case Promotion():
                identity, forgotten = record.promotion_id, self._promotions.take(record, known)
            case InventoryLevel():
                identity, forgotten = (record.sku, record.region), self._stock.take(record, known)
            case Covariate():
                identity, forgotten = record.covariate_id, self._covariates.take(record, known)
        self._forgot(table, forgotten)
        if key is not None:
            for deleted in self._keys[table].name(key, identity, known):
                self._table(table).delete(identity, deleted)

    def _delete(self, table: ShopTable, key: bytes, known: Known) -> None:
        keys = self._keys[table]
        for identity in keys.delete(key, known):
            self._table(table).delete(identity, known)
        if keys.num_deleted > MAX_DELETED_KEYS:
            self._forgot(table, keys.forget_before(known.ms))

    def _table(self, table: ShopTable) -> Any:
        return {
            "catalog": self._entries,
            "promotions": self._promotions,
            "inventory": self._stock,
            "covariates": self._covariates,
        }[table]

    def forget_before(self, before_ms: int) -> int:
        """Drop versions that no question needs of which neither span nor as-of lies before.

        What is in force at that time stays.

        Returns:
            How many versions went.
        """
        dropped: int = sum(self._table(table).forget_before(before_ms) for table in SHOP_TABLES)
        for keys in self._keys.values():
            keys.forget_before(before_ms)
        return dropped

    def _forgot(self, table: ShopTable, count: int) -> None:
        if count and not self.forgotten[table]:
            log.warning("shop_versions_forgotten", table=table, count=count)
        self.forgotten[table] += count

    # What is known now ----------------------------------------------------------------------------

    def entry(self, sku: str) -> CatalogEntry | None:
        """The newest catalogue entry of a sku."""
        return self._entries.whole(sku)

    def on_hand(self, item_ids: Sequence[str]) -> Floats:
        """Units on hand by the newest records, float64[I]; NaN where unknown."""
        series = [self._series(item_id) for item_id in item_ids]
        return np.array([self._stock.on_hand(one) for one in series], np.float64)

    def stock_levels(self, item_id: str) -> list[RegionStock]:
        """Units on hand of an item and as of when, by the newest record of each of its regions."""
        return self._stock.levels(self._series(item_id))

    def promotions(self) -> Promotions:
        """Every promotion that stands, with its times, in no order."""
        return self._promotions

    def promotions_of(self, sku: str, from_ms: int, to_ms: int) -> list[Announced]:
        """Promotions of a sku or its category that touch [from_ms, to_ms), by start and id."""
        entry = self._entries.at(sku)
        return self._promotions.covering(sku, entry.category if entry else "", from_ms, to_ms)

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
        skus = self._entries.skus()
        return [sku for sku in sorted(skus) if self._category(sku) == promotion.category]

    # What was known then --------------------------------------------------------------------------

    def skus(self, *, as_of_ms: int = NEWEST_MS) -> list[str]:
        """Every sku of the catalogue, in the order in which they were first heard of."""
        return self._entries.skus(as_of_ms)

    def texts(self, item_ids: Sequence[str], *, as_of_ms: int = NEWEST_MS) -> list[str]:
        """Title, category, brand and attributes of each item as one text; empty where unknown."""
        return [_text(self._entries.at(self._sku(item_id), as_of_ms)) for item_id in item_ids]

    def categories(self, item_ids: Sequence[str], *, as_of_ms: int = NEWEST_MS) -> list[str]:
        """The category of each item; empty where unknown."""
        return [self._category(self._sku(item_id), as_of_ms) for item_id in item_ids]

    def regions(self, item_ids: Sequence[str]) -> list[str]:
        """The region of each item; empty where ids name none."""
        return [self._series(item_id)[1] or "" for item_id in item_ids]

    def launched_ms(self, item_ids: Sequence[str], *, as_of_ms: int = NEWEST_MS) -> Floats:
        """When each item was launched, epoch ms as float64[I]; NaN where unknown."""
        entries = [self._entries.at(self._sku(item_id), as_of_ms) for item_id in item_ids]
        times = [entry.launched_at if entry else None for entry in entries]
        return np.array([np.nan if time is None else time_ms(time) for time in times], np.float64)

    def unit_prices(self, item_ids: Sequence[str], *, as_of_ms: int | None = None) -> Singles:
        """The price of each item, float32[I]; NaN where unknown."""
        at_ms = NEWEST_MS if as_of_ms is None else as_of_ms
        prices = [self._entries.price(self._sku(item_id), at_ms) for item_id in item_ids]
        return np.array(prices, np.float32)

    def known(
        self, item_ids: Sequence[str], span: BucketSpan, *, as_of_ms: int | None = None
    ) -> Singles:
        """What is known in advance of each item and bucket, float32[I, S, K] by `KNOWN_SLOTS`.

        * price_ratio: the price at the bucket's start over the price now (`as_of_ms`); NaN before
          the first known one.
        * promotion: the share of the bucket under a promotion of the sku or its category, 0 to 1.
        * discount: the deepest discount, as a share of the price, times the share of the bucket
          that it covers.
        * event, closed, free_1 to free_6: covariates, and where none holds the calendar.
        * effect: NaN.

        A future price is the current one; promotions are not in it.
        """
        at_ms = NEWEST_MS if as_of_ms is None else as_of_ms
        series = [self._series(item_id) for item_id in item_ids]
        skus = [sku or "" for sku, _ in series]
        categories = [self._category(sku, at_ms) for sku in skus]
        items = Items(skus, categories, [region for _, region in series])
        fillings = self._promotions.cover(items, span, at_ms)
        fillings += self._covariates.cover(items, span, at_ms)
        known_ISK = filled(fillings, num_items=len(item_ids), steps=span.steps)
        known_ISK[..., PRICE_RATIO] = self._entries.price_ratios(skus, span, at_ms)
        return known_ISK

    def in_stock(
        self, item_ids: Sequence[str], span: BucketSpan, *, as_of_ms: int | None = None
    ) -> Singles:
        """The share of each bucket for which the item was in stock, float32[I, S], 0 to 1.

        NaN where that was not known throughout the bucket, and for buckets that end after
        `as_of_ms` (default: the newest record of the shop's tables).
        """
        series = [self._series(item_id) for item_id in item_ids]
        at_ms = NEWEST_MS if as_of_ms is None else as_of_ms
        share_IS = self._stock.in_stock(series, span, at_ms)
        until_ms = self.newest_ms if as_of_ms is None else as_of_ms
        share_IS[:, span.edges()[1:] > until_ms] = np.nan
        return share_IS.astype(np.float32)

    # Items ----------------------------------------------------------------------------------------

    def _series(self, item_id: str) -> Series:
        # Hardly any id holds an escaped bar, and splitting is many times faster than parsing.
        parts = item_id_parts(item_id) if "\\" in item_id else item_id.split("|")
        count = len(parts)
        sku = parts[self._sku_place] if self._sku_place < count else None
        return sku, parts[self._region_place] if self._region_place < count else None

    def _sku(self, item_id: str) -> str:
        return self._series(item_id)[0] or ""

    def _category(self, sku: str, as_of_ms: int = NEWEST_MS) -> str:
        entry = self._entries.at(sku, as_of_ms)
        return entry.category if entry else ""


def _text(entry: CatalogEntry | None) -> str:
    if entry is None:
        return ""
    attributes = [f"{name} {value}" for name, value in sorted(entry.attributes.items())]
    parts = (entry.title, entry.category, entry.brand, *attributes)
    return " ".join(part for part in parts if part)
