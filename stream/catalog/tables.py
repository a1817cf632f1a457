"""What the catalogue, promotions and inventory topics say about items, now and through time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.catalog.timeline import (
    BucketSpan,
    Changes,
    overlaps,
    share_of_buckets,
    value_at_starts,
)
from freshet.stream.codec import decode, time_ms
from freshet.stream.errors import EventError
from freshet.stream.schemas import CatalogEntry, InventoryLevel, Promotion, item_id_parts
from freshet.stream.telemetry import get_logger

ShopTopic = Literal["catalog", "promotions", "inventory"]

MAX_PRICE_CHANGES = 512
MAX_STOCK_CHANGES = 2_048
MAX_PROMOTIONS = 100_000
FOREVER_MS = 2**62

log = get_logger(__name__)

Series = tuple[str | None, str | None]


class Announced(NamedTuple):
    """A promotion with its times as milliseconds and the timestamp of the first record that named
    it.
    """

    promotion: Promotion
    starts_ms: int
    ends_ms: int
    announced_ms: int


class RegionStock(NamedTuple):
    """Units on hand in one region."""

    as_of_ms: int
    on_hand: float


class ShopTables:
    """State of the three shop topics, fed record by record in the order of the log.

    Unknown is NaN or empty, never 0. Methods that take `as_of_ms` answer with what was known then:
    prices in force later are the price in force at that time, promotions announced later are left
    out, and stock is unknown past it.
    """

    def __init__(self, series_by: Sequence[str] = ("sku", "region")) -> None:
        self._series_by = tuple(series_by)
        self._catalog: dict[str, CatalogEntry] = {}
        self._prices: dict[str, Changes] = {}
        self._promotions: dict[str, Announced] = {}
        self._promotions_of: dict[tuple[str, str], set[str]] = {}
        self._levels: dict[Series, dict[str | None, RegionStock]] = {}
        self._stock: dict[Series, Changes] = {}
        self._identity_of: dict[tuple[str, bytes], Any] = {}
        self.malformed: dict[str, int] = {"catalog": 0, "promotions": 0, "inventory": 0}
        self.version = 0
        self.newest_ms = 0

    def apply(
        self, topic_kind: ShopTopic, key: bytes | None, value: bytes | None, timestamp_ms: int
    ) -> bool:
        """Take in one record; a null value is a tombstone.

        A record that cannot be used is counted in `malformed`, logged, and changes nothing.

        Returns:
            Whether it was usable.
        """
        try:
            if value is None:
                self._forget(topic_kind, key)
            else:
                identity = self._takes(topic_kind)(value, timestamp_ms)
                if key is not None:
                    self._identity_of[topic_kind, key] = identity
        except EventError as error:
            self.malformed[topic_kind] += 1
            log.warning(
                "shop_record_skipped",
                topic_kind=topic_kind,
                key=repr(key)[:200],
                error=str(error)[:500],
            )
            return False
        self.version += 1
        self.newest_ms = max(self.newest_ms, timestamp_ms)
        return True

    def entry(self, sku: str) -> CatalogEntry | None:
        """The newest catalogue entry of a sku."""
        return self._catalog.get(sku)

    def skus(self) -> list[str]:
        """Every sku of the catalogue, in the order in which they were first named."""
        return list(self._catalog)

    def known(
        self,
        item_ids: Sequence[str],
        start_ms: int,
        steps: int,
        resolution_ms: int,
        *,
        as_of_ms: int | None = None,
    ) -> Singles:
        """What is known in advance of each item and bucket, float32[I, steps, 3].

        * price_ratio: the price at the bucket's start over the price now (`as_of_ms`); NaN before
          the first known one.
        * promotion: the share of the bucket under a promotion of the sku or its category, 0 to 1.
        * discount: the deepest discount, as a share of the price, times the share of the bucket
          that it covers.

        A future price is the current one; promotions are not in it.
        """
        span = BucketSpan(start_ms, steps, resolution_ms)
        skus, row_I = np.unique(
            [self._series(item_id)[0] or "" for item_id in item_ids], return_inverse=True
        )
        known_RSK = np.empty((len(skus), steps, 3), dtype=np.float32)
        as_of_ms = FOREVER_MS if as_of_ms is None else as_of_ms
        known_RSK[..., 0] = self._price_ratios(list(skus), span, as_of_ms)
        known_RSK[..., 1], known_RSK[..., 2] = self._discounts(list(skus), span, as_of_ms)
        return (
            known_RSK
            if len(skus) == len(item_ids) and (row_I[:-1] < row_I[1:]).all()
            else known_RSK[row_I]
        )

    def in_stock(
        self,
        item_ids: Sequence[str],
        start_ms: int,
        steps: int,
        resolution_ms: int,
        *,
        as_of_ms: int | None = None,
    ) -> Singles:
        """The share of each bucket for which the item was in stock, float32[I, steps], 0 to 1.

        NaN where no level was known at the bucket's start, and for buckets that end after
        `as_of_ms` (default: the newest record of the shop topics).
        """
        span = BucketSpan(start_ms, steps, resolution_ms)
        rows: list[int] = []
        times: list[int] = []
        states: list[float] = []
        for row, item_id in enumerate(item_ids):
            changes = self._stock_of(self._series(item_id))
            if changes is not None:
                part = changes.slice(start_ms, span.end_ms)
                times += changes.times_ms[part]
                states += changes.values[part]
                rows += [row] * (len(times) - len(rows))
        change_N = (
            np.array(rows, dtype=np.int64),
            np.array(times, dtype=np.int64),
            np.array(states, dtype=np.float64),
        )
        share_IS = share_of_buckets(*change_N, num_rows=len(item_ids), span=span)
        as_of_ms = self.newest_ms if as_of_ms is None else as_of_ms
        share_IS[:, span.bucket_starts() + resolution_ms > as_of_ms] = np.nan
        return share_IS.astype(np.float32)

    def on_hand(self, item_ids: Sequence[str]) -> Floats:
        """Units on hand by the newest records, float64[I]; NaN where unknown."""
        levels = [self._levels.get(self._stocked(self._series(item_id))) for item_id in item_ids]
        return np.array(
            [sum(level.on_hand for level in by.values()) if by else np.nan for by in levels],
            np.float64,
        )

    def active_promotions(self, now_ms: int) -> list[Promotion]:
        """Promotions running at a time, by start and id."""
        active = [
            known
            for known in self._promotions.values()
            if known.starts_ms <= now_ms < known.ends_ms
        ]
        active.sort(key=lambda known: (known.starts_ms, known.promotion.promotion_id))
        return [known.promotion for known in active]

    def promotion_times(self, promotion_id: str) -> tuple[int, int]:
        """When a known promotion starts and ends, epoch ms, end exclusive."""
        known = self._promotions[promotion_id]
        return known.starts_ms, known.ends_ms

    def promoted_skus(self, promotion: Promotion) -> list[str]:
        """The skus that a promotion is for, sorted."""
        if promotion.sku is not None:
            return [promotion.sku]
        return sorted(
            sku for sku, entry in self._catalog.items() if entry.category == promotion.category
        )

    def texts(self, item_ids: Sequence[str]) -> list[str]:
        """Title, category, brand and attributes of each item as one text; empty where unknown."""
        return [_text(self._entry_of(item_id)) for item_id in item_ids]

    def categories(self, item_ids: Sequence[str]) -> list[str]:
        """The category of each item; empty where unknown."""
        entries = [self._entry_of(item_id) for item_id in item_ids]
        return [entry.category if entry else "" for entry in entries]

    def unit_prices(self, item_ids: Sequence[str], *, as_of_ms: int | None = None) -> Singles:
        """The price of each item, float32[I]; NaN where unknown."""
        time_ms = FOREVER_MS if as_of_ms is None else as_of_ms
        histories = [self._prices.get(self._series(item_id)[0] or "") for item_id in item_ids]
        return np.array(
            [prices.at(time_ms) if prices else np.nan for prices in histories], dtype=np.float32
        )

    def launched_ms(self, item_ids: Sequence[str]) -> Floats:
        """When each item was launched, epoch ms as float64[I]; NaN where unknown."""
        entries = [self._entry_of(item_id) for item_id in item_ids]
        times = [entry.launched_at if entry else None for entry in entries]
        return np.array(
            [np.nan if time is None else time_ms(time) for time in times], dtype=np.float64
        )

    # Records in -----------------------------------------------------------------------------------

    def _takes(self, topic_kind: ShopTopic) -> Callable[[bytes, int], Any]:
        takes = {
            "catalog": self._take_entry,
            "promotions": self._take_promotion,
            "inventory": self._take_level,
        }
        return takes[topic_kind]

    def _take_entry(self, value: bytes, timestamp_ms: int) -> str:
        entry = decode(CatalogEntry, value)
        price = entry.unit_price
        if price is not None and not 0 < price < float("inf"):
            raise EventError(
                f"catalogue entry {entry.sku!r} has unit_price {price}; expected a positive number"
            )
        if entry.launched_at is not None:
            time_ms(entry.launched_at)
        self._catalog[entry.sku] = entry
        if price is not None:
            self._prices.setdefault(entry.sku, Changes(MAX_PRICE_CHANGES)).set_from(
                timestamp_ms, price
            )
        return entry.sku

    def _take_promotion(self, value: bytes, timestamp_ms: int) -> str:
        promotion = decode(Promotion, value)
        name, starts_ms, ends_ms = (
            promotion.promotion_id,
            time_ms(promotion.starts_at),
            time_ms(promotion.ends_at),
        )
        if not starts_ms < ends_ms:
            raise EventError(
                f"promotion {name!r} ends at {ends_ms}, not after its start {starts_ms}"
            )
        if not 0 <= promotion.discount <= 1:
            raise EventError(
                f"promotion {name!r} has discount {promotion.discount}; expected a share, 0 to 1"
            )
        if promotion.sku is None and promotion.category is None:
            raise EventError(f"promotion {name!r} names neither a sku nor a category")
        before = self._promotions.get(name)
        announced_ms = timestamp_ms if before is None else min(before.announced_ms, timestamp_ms)
        self._drop_promotion(name)
        self._promotions[name] = Announced(promotion, starts_ms, ends_ms, announced_ms)
        self._promotions_of.setdefault(_promoted(promotion), set()).add(name)
        if len(self._promotions) > MAX_PROMOTIONS:
            self._drop_promotion(
                min(self._promotions, key=lambda other: self._promotions[other].ends_ms)
            )
        return name

    def _take_level(self, value: bytes, timestamp_ms: int) -> tuple[Series, str | None]:
        level = decode(InventoryLevel, value)
        as_of_ms = time_ms(level.as_of)
        if not abs(level.on_hand) < float("inf"):
            raise EventError(
                f"inventory of {level.sku!r} has on_hand {level.on_hand}; expected a finite number"
            )
        series = (level.sku, level.region if "region" in self._series_by else None)
        levels = self._levels.setdefault(series, {})
        before = levels.get(level.region)
        if before is None or as_of_ms >= before.as_of_ms:
            levels[level.region] = RegionStock(as_of_ms, level.on_hand)
            self._note_stock(series)
        return series, level.region

    def _note_stock(self, series: Series) -> None:
        """A series is in stock while any region of it has units on hand."""
        levels = self._levels[series].values()
        newest_ms = max(level.as_of_ms for level in levels)
        changes = self._stock.setdefault(series, Changes(MAX_STOCK_CHANGES))
        changes.set_from(newest_ms, float(any(level.on_hand > 0 for level in levels)))

    def _forget(self, topic_kind: ShopTopic, key: bytes | None) -> None:
        if key is None:
            raise EventError("a tombstone without a key says nothing")
        identity = self._identity_of.pop((topic_kind, key), None)
        if identity is None:
            return
        if topic_kind == "catalog":
            self._catalog.pop(identity, None)
            self._prices.pop(identity, None)
        elif topic_kind == "promotions":
            self._drop_promotion(identity)
        else:
            series, region = identity
            levels = self._levels.get(series, {})
            levels.pop(region, None)
            if levels:
                self._note_stock(series)
            else:
                self._levels.pop(series, None)
                self._stock.pop(series, None)

    def _drop_promotion(self, promotion_id: str) -> None:
        known = self._promotions.pop(promotion_id, None)
        if known is not None:
            self._promotions_of[_promoted(known.promotion)].discard(promotion_id)

    # Matrices out ---------------------------------------------------------------------------------

    def _series(self, item_id: str) -> Series:
        parts = item_id_parts(item_id) if "\\" in item_id else item_id.split("|")
        values = dict(zip(self._series_by, parts, strict=False))
        return values.get("sku"), values.get("region")

    def _entry_of(self, item_id: str) -> CatalogEntry | None:
        return self._catalog.get(self._series(item_id)[0] or "")

    def _stocked(self, series: Series) -> Series:
        """The series under which levels are kept: the item's own, else the sku's where no region
        was named.
        """
        return series if series in self._levels else (series[0], None)

    def _stock_of(self, series: Series) -> Changes | None:
        return self._stock.get(self._stocked(series))

    def _price_ratios(self, skus: list[str], span: BucketSpan, as_of_ms: int) -> Floats:
        rows: list[int] = []
        times: list[int] = []
        values: list[float] = []
        now_R = np.full(len(skus), np.nan)
        for row, sku in enumerate(skus):
            prices = self._prices.get(sku)
            if prices is not None:
                now_R[row] = prices.at(as_of_ms)
                part = prices.slice(span.start_ms, min(span.end_ms, as_of_ms + 1))
                times += prices.times_ms[part]
                values += prices.values[part]
                rows += [row] * (len(times) - len(rows))
        change_N = (
            np.array(rows, dtype=np.int64),
            np.array(times, dtype=np.int64),
            np.array(values, dtype=np.float64),
        )
        ratio_RS: Floats = (
            value_at_starts(*change_N, num_rows=len(skus), span=span) / now_R[:, None]
        )
        return ratio_RS

    def _discounts(self, skus: list[str], span: BucketSpan, as_of_ms: int) -> tuple[Floats, Floats]:
        rows, promotions = [], []
        for row, sku in enumerate(skus):
            for known in self._promotions_for(sku):
                if (
                    known.announced_ms <= as_of_ms
                    and known.starts_ms < span.end_ms
                    and known.ends_ms > span.start_ms
                ):
                    rows.append(row)
                    promotions.append(known)
        row_N: Ints = np.array(rows, dtype=np.int64)
        starts_N = np.array([known.starts_ms for known in promotions], dtype=np.int64)
        ends_N = np.array([known.ends_ms for known in promotions], dtype=np.int64)
        depth_N = np.array([known.promotion.discount for known in promotions], dtype=np.float64)
        number_M, step_M, share_M = overlaps(starts_N, ends_N, span)
        promoted_RS, discount_RS = np.zeros((2, len(skus), span.steps))
        np.maximum.at(promoted_RS, (row_N[number_M], step_M), share_M)
        np.maximum.at(discount_RS, (row_N[number_M], step_M), share_M * depth_N[number_M])
        return promoted_RS, discount_RS

    def _promotions_for(self, sku: str) -> list[Announced]:
        names = self._promotions_of.get(("sku", sku), set())
        entry = self._catalog.get(sku)
        if entry is not None and entry.category:
            names = names | self._promotions_of.get(("category", entry.category), set())
        return [self._promotions[name] for name in names]


def _promoted(promotion: Promotion) -> tuple[str, str]:
    return (
        ("sku", promotion.sku)
        if promotion.sku is not None
        else ("category", promotion.category or "")
    )


def _text(entry: CatalogEntry | None) -> str:
    if entry is None:
        return ""
    attributes = [f"{name} {value}" for name, value in sorted(entry.attributes.items())]
    return " ".join(
        part for part in (entry.title, entry.category, entry.brand, *attributes) if part
    )
