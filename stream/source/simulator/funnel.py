"""One hour of customers: visits become carts, orders and returns, as columns.

Dimensions: I items, S skus, Q quarters of an hour, V visits, D order lines that are due.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.source.simulator.catalogue import Catalogue
from freshet.stream.source.simulator.demand import (
    QUARTER_MS,
    QUARTERS,
    Demand,
    HourDemand,
    draw_leads,
)
from freshet.stream.source.simulator.goods import REGIONS
from freshet.stream.source.simulator.seeds import generator
from freshet.stream.source.simulator.stock import Stock
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

VIEW, CART, FAVOURITE, CHECKOUT = range(4)
HOUR_NOISE_SHAPE = 12.0
FAVOURITE_SHARE = 0.07
CHECKOUT_SHARE = 0.6
BASKET_SHARE = 0.12
BASKET_GAP_MS = 10 * MINUTE_MS
RETURN_DELAY_DAYS = (1.0, 12.0)


@dataclass(frozen=True, slots=True)
class Clicks:
    """Clicks as columns; `session` numbers visits over the whole run."""

    item: Ints
    kind: Ints
    time_ms: Ints
    session: Ints

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True, slots=True)
class OrderLines:
    """Order lines as columns, in time order.

    Lines of one order are neighbours and share `order` and `time_ms`.
    """

    item: Ints
    time_ms: Ints
    quantity: Ints
    price: Floats
    order: Ints

    def __len__(self) -> int:
        return len(self.item)

    def take(self, which: Ints) -> OrderLines:
        """Only those lines, in that order."""
        return OrderLines(
            self.item[which],
            self.time_ms[which],
            self.quantity[which],
            self.price[which],
            self.order[which],
        )


@dataclass(frozen=True, slots=True)
class ShopHour:
    """What happened in one hour; clicks may fall into the next.

    Attributes:
        sold_out: When an item ran out of stock, by item, where it did.
    """

    start_ms: int
    clicks: Clicks
    lines: OrderLines
    returns: OrderLines
    sold_out: dict[int, int]


class Funnel:
    """Plays hour after hour; holds orders that are still to come, and sales that will come back."""

    def __init__(self, seed: int, catalogue: Catalogue, demand: Demand, stock: Stock) -> None:
        self._seed = seed
        self._catalogue = catalogue
        self._demand = demand
        self._stock = stock
        self._sku_I = catalogue.sku_I
        # Who decided to buy but has not ordered yet: the item, and when the order will come.
        self._open_item = np.empty(0, dtype=np.int64)
        self._open_ms = np.empty(0, dtype=np.int64)
        self._returns: dict[int, list[OrderLines]] = defaultdict(list)
        self._sessions = 0
        self._orders = 0

    def play(self, start_ms: int) -> ShopHour:
        """The hour from `start_ms`; call once for each hour, in order."""
        demand = self._demand.hour(start_ms)
        clicks = self._visit(start_ms, demand)
        lines, sold_out = self._order(start_ms, demand)
        returns = _concat(self._returns.pop(start_ms, []))
        return ShopHour(start_ms, clicks, lines, returns, sold_out)

    def _visit(self, start_ms: int, demand: HourDemand) -> Clicks:
        """The hour's visits and what they click; who buys is put down for an order to come."""
        rng = generator(self._seed, "visits", start_ms // HOUR_MS)
        item, quarter = self._visitors(rng, start_ms, demand)
        num = len(item)
        visit_ms = start_ms + quarter * QUARTER_MS + rng.integers(0, QUARTER_MS, num)
        # Every draw is made for every visit, whoever needs it, so that one does not move the next.
        sku = self._sku_I[item]
        buys = rng.random(num) < demand.conversion_SQ[sku, quarter]
        carts = buys | (rng.random(num) < self._catalogue.cart_share_S[sku])
        likes = rng.random(num) < FAVOURITE_SHARE
        checks_out = buys & (rng.random(num) < CHECKOUT_SHARE)
        lead_ms = draw_leads(rng, num).astype(np.int64)
        early = rng.uniform(0.1, 0.6, num)
        late = rng.uniform(0.8, 0.95, num)
        self._open_item = np.concatenate([self._open_item, item[buys]])
        self._open_ms = np.concatenate([self._open_ms, visit_ms[buys] + lead_ms[buys]])
        session = self._sessions + np.arange(num)
        self._sessions += num
        # Each click comes at its part of the time between the visit and the order.
        stages = [
            (VIEW, np.ones(num, dtype=bool), np.zeros(num)),
            (CART, carts, lead_ms * early),
            (FAVOURITE, likes, lead_ms * (early * 0.5)),
            (CHECKOUT, checks_out, lead_ms * late),
        ]
        return _join_clicks(item, visit_ms, session, stages)

    def _visitors(
        self, rng: np.random.Generator, start_ms: int, demand: HourDemand
    ) -> tuple[Ints, Ints]:
        """The item and the quarter of each visit.

        Counts are Poisson around a rate that is itself drawn from a gamma, so they spread wider
        than Poisson counts do, as real counts of visitors are.
        """
        num_items = len(self._sku_I)
        noise_I = rng.gamma(HOUR_NOISE_SHAPE, 1.0 / HOUR_NOISE_SHAPE, num_items)
        noise_I *= self._demand.day_noise(start_ms)[self._sku_I]
        counts = rng.poisson(demand.visits_IQ * noise_I[:, None]).reshape(-1)
        cell_V = np.repeat(np.arange(num_items * QUARTERS), counts)
        return cell_V // QUARTERS, cell_V % QUARTERS

    def _order(self, start_ms: int, demand: HourDemand) -> tuple[OrderLines, dict[int, int]]:
        """Orders whose time has come, as far as stock goes; and when which item sold out."""
        item, time_ms = self._take_due(start_ms + HOUR_MS)
        rng = generator(self._seed, "orders", start_ms // HOUR_MS)
        sku = self._sku_I[item]
        packs = 1 + rng.poisson(self._catalogue.extra_packs_S[sku])
        price = demand.price_SQ[sku, (time_ms - start_ms) // QUARTER_MS]
        before_I = self._stock.on_hand_I
        quantity = self._stock.sell(item, self._catalogue.pack_S[sku] * packs)
        # No line has an order yet; `_baskets` gives it one.
        asked = OrderLines(item, time_ms, quantity, price, order=item)
        sold = asked.take(np.flatnonzero(quantity > 0))
        gone_I = (before_I > 0) & (self._stock.on_hand_I == 0)
        sold_out = {}
        for one in np.flatnonzero(gone_I).tolist():
            sold_out[one] = int(sold.time_ms[sold.item == one].max())
        lines = self._baskets(rng, sold)
        self._plan_returns(rng, lines)
        return lines, sold_out

    def _take_due(self, end_ms: int) -> tuple[Ints, Ints]:
        """Item and time of every order to come before `end_ms`, in order of time; taken out."""
        due = self._open_ms < end_ms
        item, time_ms = self._open_item[due], self._open_ms[due]
        self._open_item = self._open_item[~due]
        self._open_ms = self._open_ms[~due]
        by_time = np.argsort(time_ms, kind="stable")
        return item[by_time], time_ms[by_time]

    def _baskets(self, rng: np.random.Generator, lines: OrderLines) -> OrderLines:
        """Let some lines join the one before them in their region, as one order at the last's time.

        Two neighbours may be one customer's when they are near in time and of different items.
        """
        region_of_line = lines.item % len(REGIONS)
        apart = lines.take(np.lexsort((lines.time_ms, region_of_line)))
        same_region = np.diff(apart.item % len(REGIONS)) == 0
        near = np.diff(apart.time_ms) < BASKET_GAP_MS
        other_item = np.diff(apart.item) != 0
        joins = np.zeros(len(apart), dtype=bool)
        joins[1:] = same_region & near & other_item
        joins &= rng.random(len(apart)) < BASKET_SHARE
        basket = np.cumsum(~joins) - 1
        last_ms = np.zeros(len(apart), dtype=np.int64)
        np.maximum.at(last_ms, basket, apart.time_ms)
        order = self._orders + basket
        self._orders += int(basket[-1]) + 1 if len(apart) else 0
        joined = replace(apart, time_ms=last_ms[basket], order=order)
        return joined.take(np.lexsort((order, joined.time_ms)))

    def _plan_returns(self, rng: np.random.Generator, lines: OrderLines) -> None:
        """Some lines come back days later: the whole or a part, as a negative quantity."""
        back = rng.random(len(lines)) < self._catalogue.return_share_S[self._sku_I[lines.item]]
        days = rng.uniform(*RETURN_DELAY_DAYS, len(lines))
        share = rng.random(len(lines))
        time_ms = lines.time_ms + (days * DAY_MS).astype(np.int64)
        quantity = -np.maximum(1, np.ceil(share * lines.quantity)).astype(np.int64)
        returned = OrderLines(lines.item, time_ms, quantity, lines.price, lines.order)
        for line in np.flatnonzero(back):
            hour_ms = int(time_ms[line]) // HOUR_MS * HOUR_MS
            self._returns[hour_ms].append(returned.take(np.array([line])))


def _join_clicks(
    item: Ints, visit_ms: Ints, session: Ints, stages: list[tuple[int, Bools, Floats]]
) -> Clicks:
    """Clicks of all stages: each its kind, which visits make it, and how long after their start."""
    kinds = [np.full(int(who.sum()), kind) for kind, who, _ in stages]
    times_ms = [(visit_ms + after_ms.astype(np.int64))[who] for _, who, after_ms in stages]
    return Clicks(
        item=np.concatenate([item[who] for _, who, _ in stages]),
        kind=np.concatenate(kinds),
        time_ms=np.concatenate(times_ms),
        session=np.concatenate([session[who] for _, who, _ in stages]),
    )


def _concat(parts: list[OrderLines]) -> OrderLines:
    if not parts:
        empty = np.empty(0, dtype=np.int64)
        return OrderLines(empty, empty, empty, np.empty(0), empty)
    return OrderLines(
        item=np.concatenate([part.item for part in parts]),
        time_ms=np.concatenate([part.time_ms for part in parts]),
        quantity=np.concatenate([part.quantity for part in parts]),
        price=np.concatenate([part.price for part in parts]),
        order=np.concatenate([part.order for part in parts]),
    )
