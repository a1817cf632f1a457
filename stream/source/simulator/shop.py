"""The simulated shop: an endless, seeded stream of records in the order they arrive."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.source.batches import SourceBatch
from freshet.stream.source.simulator.catalogue import make_catalogue
from freshet.stream.source.simulator.demand import QUARTER_MS, QUARTERS, Demand
from freshet.stream.source.simulator.faults import add_faults
from freshet.stream.source.simulator.funnel import Funnel, ShopHour
from freshet.stream.source.simulator.goods import REGIONS
from freshet.stream.source.simulator.plan import Scenario, make_plan
from freshet.stream.source.simulator.promotions import ScheduledPromotion
from freshet.stream.source.simulator.records import Records
from freshet.stream.source.simulator.render import Renderer
from freshet.stream.source.simulator.seeds import generator
from freshet.stream.source.simulator.stock import Stock
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

DEFAULT_ITEMS = 144
DEFAULT_START_MS = 1_767_600_000_000  # Monday, 2026-01-05 08:00 UTC
DEFAULT_BACKFILL_MS = 28 * DAY_MS
DEFAULT_LIVE_MS = 75 * HOUR_MS
DEFAULT_SLICE_MS = 5 * MINUTE_MS
SNAPSHOT_HOURS = 6
SALE_STOCK_RANGE = (0.6, 1.5)


class SimulatedShop:
    """A shop with its catalogue and plan; `batches` plays it from the start, as often as asked.

    Args:
        items: Series (sku and region) at least; rounded up to whole skus.
        start_ms: First moment, a full hour.
        backfill_ms: Length of the history before the live part, whole hours.
        live_ms: Meant length of the live part: planted events are placed relative to it. The stream
            itself is endless.
    """

    def __init__(
        self,
        seed: int,
        items: int,
        scenario: Scenario,
        *,
        start_ms: int = DEFAULT_START_MS,
        backfill_ms: int = DEFAULT_BACKFILL_MS,
        live_ms: int = DEFAULT_LIVE_MS,
    ) -> None:
        _check(seed, items, start_ms, backfill_ms, live_ms)
        self.seed = seed
        self.start_ms = start_ms
        self.live_start_ms = start_ms + backfill_ms
        self.scenario = scenario
        self.catalogue = make_catalogue(seed, items)
        self.plan = make_plan(
            seed,
            self.catalogue,
            scenario,
            start_ms=start_ms,
            live_start_ms=self.live_start_ms,
            live_ms=live_ms,
        )
        self.demand = Demand(self.catalogue, self.plan)

    @property
    def item_ids(self) -> list[str]:
        """The id of each series."""
        return self.catalogue.item_ids

    def expected_units(self, start_ms: int, hours: int) -> Floats:
        """Ground truth, float64 [items, hours]: mean units ordered if nothing ever sold out."""
        starts_ms = range(start_ms, start_ms + hours * HOUR_MS, HOUR_MS)
        return np.stack([self.demand.expected_units(hour_ms) for hour_ms in starts_ms], axis=1)

    def batches(self, slice_ms: int = DEFAULT_SLICE_MS) -> Iterator[SourceBatch]:
        """Endless slices of `slice_ms` from `start_ms`; where they are cut changes no record."""
        hours = self.hours()
        waiting = Records()
        start_ms = known_until_ms = self.start_ms
        while True:
            end_ms = start_ms + slice_ms
            while known_until_ms < end_ms:
                waiting.extend(next(hours))
                waiting = waiting.by_time()
                known_until_ms += HOUR_MS
            stop = bisect_left(waiting.timestamps_ms, end_ms)
            now = waiting.cut(0, stop)
            waiting = waiting.cut(stop, len(waiting))
            yield SourceBatch(start_ms, end_ms, now.kinds, now.keys, now.values, now.timestamps_ms)
            start_ms = end_ms

    def hours(self) -> Iterator[Records]:
        """The records of each hour, unsorted; some arrive later than their hour, none earlier."""
        stock = Stock(self.seed, self._daily_units(), self._item_packs())
        play = _Play(self, stock, Funnel(self.seed, self.catalogue, self.demand, stock))
        start_ms = self.start_ms
        while True:
            yield play.hour(start_ms)
            start_ms += HOUR_MS

    def _daily_units(self) -> Floats:
        lines = self.catalogue.lines_per_hour_I * 24
        daily: Floats = lines * np.repeat(self.catalogue.mean_quantity_S, len(REGIONS))
        return daily

    def _item_packs(self) -> Ints:
        return np.repeat(self.catalogue.pack_S, len(REGIONS))


class _Play:
    """One performance of a shop: its stock, and what it last said about prices and stock."""

    def __init__(self, shop: SimulatedShop, stock: Stock, funnel: Funnel) -> None:
        self._shop = shop
        self._stock = stock
        self._funnel = funnel
        self._renderer = Renderer(shop.seed, shop.catalogue)
        self._prices = np.full(shop.catalogue.num_skus, np.nan)
        self._said_I = np.full(len(shop.item_ids), -1, dtype=np.int64)

    def hour(self, start_ms: int) -> Records:
        """All records that belong to the hour, faults among them."""
        facts = self._facts(start_ms)  # Deliveries come before the hour's customers.
        hour = self._funnel.play(start_ms)
        events = self._renderer.clicks(start_ms, hour.clicks)
        events.extend(self._renderer.orders(start_ms, hour.lines))
        events.extend(self._renderer.orders(start_ms, hour.returns, "return delays"))
        facts.extend(self._stock_moves(start_ms, hour))
        facts.extend(add_faults(events, self._shop.scenario.faults, self._shop.seed, start_ms))
        return facts

    def _facts(self, start_ms: int) -> Records:
        """What the shop says at the hour's start: prices, promotions to come, deliveries."""
        records = Records()
        plan = self._shop.plan
        self._tell_prices(records, start_ms)
        for sale in plan.announced(start_ms, start_ms + HOUR_MS):
            key, value = self._renderer.promotion(sale.promotion)
            records.add("promotions", key, value, sale.announced_ms)
        self._tell_stock(records, self._stock.deliver(start_ms), start_ms)
        for sale in plan.promotions(start_ms, start_ms + 1):
            if sale.flash:
                self._tell_stock(records, self._allot(sale), start_ms)
        # Sales alone are not told one by one; now and then all that changed is.
        if start_ms // HOUR_MS % SNAPSHOT_HOURS == 0 or start_ms == self._shop.start_ms:
            changed = np.flatnonzero(self._said_I != self._stock.on_hand_I)
            self._tell_stock(records, changed, start_ms)
        return records

    def _tell_prices(self, records: Records, start_ms: int) -> None:
        """Catalogue entries whose price is new; an article is told of a day before its launch."""
        launch_S = self._shop.plan.launch_S
        price_S = self._shop.demand.shelf_prices(start_ms)
        news_S = (launch_S - DAY_MS <= start_ms) & (price_S != self._prices)
        for sku in np.flatnonzero(news_S).tolist():
            key, value = self._renderer.catalog(sku, float(price_S[sku]), float(launch_S[sku]))
            records.add("catalog", key, value, start_ms)
            self._prices[sku] = price_S[sku]

    def _allot(self, sale: ScheduledPromotion) -> Ints:
        """Set a sale's stock apart: in some regions less than will be asked for."""
        hours = (sale.ends_ms - sale.starts_ms) // HOUR_MS
        items = sale.sku * len(REGIONS) + np.arange(len(REGIONS))
        asked = self._shop.expected_units(sale.starts_ms, hours).sum(axis=1)[items]
        rng = generator(self._shop.seed, "allotments", sale.starts_ms // HOUR_MS)
        factor = rng.permutation(np.linspace(*SALE_STOCK_RANGE, len(REGIONS)))
        self._stock.allot(items, np.ceil(asked * factor).astype(np.int64) + 1)
        return items

    def _stock_moves(self, start_ms: int, hour: ShopHour) -> Records:
        """Items that sold out, at the moment they did; those on flash sale every quarter hour."""
        records = Records()
        for item, time_ms in hour.sold_out.items():
            key, value = self._renderer.inventory(item, 0, time_ms)
            records.add("inventory", key, value, time_ms)
            self._said_I[item] = 0
        for sale in self._shop.plan.active(start_ms):
            if sale.flash:
                self._follow(records, start_ms, hour, sale.sku)
        return records

    def _follow(self, records: Records, start_ms: int, hour: ShopHour, sku: int) -> None:
        """The stock of a sku at the end of each quarter: what is left, and what sold after it."""
        for item in range(sku * len(REGIONS), (sku + 1) * len(REGIONS)):
            mine = hour.lines.item == item
            time_ms = hour.lines.time_ms[mine]
            quantity = hour.lines.quantity[mine]
            for quarter in range(1, QUARTERS + 1):
                at_ms = start_ms + quarter * QUARTER_MS - 1
                on_hand = int(self._stock.on_hand_I[item] + quantity[time_ms > at_ms].sum())
                key, value = self._renderer.inventory(item, on_hand, at_ms)
                records.add("inventory", key, value, at_ms)

    def _tell_stock(self, records: Records, items: Ints, at_ms: int) -> None:
        """The stock of items, where it is not what was last said."""
        for item in items.tolist():
            on_hand = int(self._stock.on_hand_I[item])
            if on_hand != self._said_I[item]:
                key, value = self._renderer.inventory(item, on_hand, at_ms)
                records.add("inventory", key, value, at_ms)
                self._said_I[item] = on_hand


def _check(seed: int, items: int, start_ms: int, backfill_ms: int, live_ms: int) -> None:
    if not 0 <= seed < 2**16:
        raise InvalidInputError(f"the seed is {seed}; expected 0 to {2**16 - 1}")
    if items < 1:
        raise InvalidInputError(f"the shop has {items} items; expected at least 1")
    if start_ms % HOUR_MS or backfill_ms % HOUR_MS or backfill_ms < 0:
        raise InvalidInputError(
            f"start_ms {start_ms} and backfill_ms {backfill_ms} must be full hours"
        )
    if live_ms <= 0:
        raise InvalidInputError(f"live_ms is {live_ms}; expected more than 0")
