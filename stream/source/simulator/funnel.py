"""One hour of customers: visits become carts, orders and returns, as columns before they are
written as records.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Floats, Ints
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
    """Order lines as columns, in time order; lines of one order are neighbours and share `order`
    and `time_ms`.
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
    """What happened in one hour; clicks may fall into the next."""

    start_ms: int
    clicks: Clicks
    lines: OrderLines
    returns: OrderLines
    sold_out: dict[int, int]


class Funnel:
    """Plays hour after hour; holds visits whose orders are still to come, and sales that will come
    back.
    """

    def __init__(self, seed: int, catalogue: Catalogue, demand: Demand, stock: Stock) -> None:
        self._seed = seed
        self._catalogue = catalogue
        self._demand = demand
        self._stock = stock
        self._sku_I = catalogue.sku_I
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
        rng = generator(self._seed, "visits", start_ms // HOUR_MS)
        num_items = len(self._sku_I)
        noise_I = rng.gamma(HOUR_NOISE_SHAPE, 1.0 / HOUR_NOISE_SHAPE, num_items)
        noise_I *= self._demand.day_noise(start_ms)[self._sku_I]
        counts = rng.poisson(demand.visits_IQ * noise_I[:, None]).reshape(-1)
        cell = np.repeat(np.arange(num_items * QUARTERS), counts)
        item, quarter = cell // QUARTERS, cell % QUARTERS
        visit_ms = start_ms + quarter * QUARTER_MS + rng.integers(0, QUARTER_MS, len(item))
        sku = self._sku_I[item]
        buys = rng.random(len(item)) < demand.conversion_SQ[sku, quarter]
        carts = buys | (rng.random(len(item)) < self._catalogue.cart_share_S[sku])
        likes = rng.random(len(item)) < FAVOURITE_SHARE
        checks_out = buys & (rng.random(len(item)) < CHECKOUT_SHARE)
        lead_ms = draw_leads(rng, len(item)).astype(np.int64)
        early, late = rng.uniform(0.1, 0.6, len(item)), rng.uniform(0.8, 0.95, len(item))
        self._open_item = np.concatenate([self._open_item, item[buys]])
        self._open_ms = np.concatenate([self._open_ms, visit_ms[buys] + lead_ms[buys]])
        session = self._sessions + np.arange(len(item))
        self._sessions += len(item)
        stages = (
            (VIEW, np.ones(len(item), dtype=bool), 0.0 * early),
            (CART, carts, early),
            (FAVOURITE, likes, early * 0.5),
            (CHECKOUT, checks_out, late),
        )
        return _join_clicks(
            item, visit_ms, session, [(kind, who, lead_ms * part) for kind, who, part in stages]
        )

    def _order(self, start_ms: int, demand: HourDemand) -> tuple[OrderLines, dict[int, int]]:
        """Orders whose time has come, as far as stock goes; and when which item sold out."""
        due = self._open_ms < start_ms + HOUR_MS
        by_time = np.argsort(self._open_ms[due], kind="stable")
        item, time_ms = self._open_item[due][by_time], self._open_ms[due][by_time]
        self._open_item, self._open_ms = self._open_item[~due], self._open_ms[~due]
        rng = generator(self._seed, "orders", start_ms // HOUR_MS)
        sku = self._sku_I[item]
        packs = 1 + rng.poisson(self._catalogue.extra_packs_S[sku])
        price = demand.price_SQ[sku, (time_ms - start_ms) // QUARTER_MS]
        before_I = self._stock.on_hand_I
        quantity = self._stock.sell(item, self._catalogue.pack_S[sku] * packs)
        sold = quantity > 0
        lines = self._baskets(
            rng, OrderLines(item[sold], time_ms[sold], quantity[sold], price[sold], item[sold])
        )
        gone = np.flatnonzero((before_I > 0) & (self._stock.on_hand_I == 0))
        sold_out = {int(i): int(time_ms[sold][item[sold] == i].max()) for i in gone}
        self._plan_returns(rng, lines)
        return lines, sold_out

    def _baskets(self, rng: np.random.Generator, lines: OrderLines) -> OrderLines:
        """Let some lines join the line before them in the same region, as one order at the later
        one's time.
        """
        region = lines.item % len(REGIONS)
        by_region = np.lexsort((lines.time_ms, region))
        item, time_ms = lines.item[by_region], lines.time_ms[by_region]
        joins = np.zeros(len(item), dtype=bool)
        joins[1:] = (
            (np.diff(region[by_region]) == 0)
            & (np.diff(time_ms) < BASKET_GAP_MS)
            & (np.diff(item) != 0)
        )
        joins &= rng.random(len(item)) < BASKET_SHARE
        group = np.cumsum(~joins) - 1
        last_ms = np.zeros(len(item), dtype=np.int64)
        np.maximum.at(last_ms, group, time_ms)
        order = self._orders + group
        self._orders += int(group[-1]) + 1 if len(item) else 0
        grouped = OrderLines(
            item, last_ms[group], lines.quantity[by_region], lines.price[by_region], order
        )
        return grouped.take(np.lexsort((order, grouped.time_ms)))

    def _plan_returns(self, rng: np.random.Generator, lines: OrderLines) -> None:
        back = rng.random(len(lines)) < self._catalogue.return_share_S[self._sku_I[lines.item]]
        days = rng.uniform(*RETURN_DELAY_DAYS, len(lines))
        share = rng.random(len(lines))
        time_ms = lines.time_ms + (days * DAY_MS).astype(np.int64)
        quantity = -np.maximum(1, np.ceil(share * lines.quantity)).astype(np.int64)
        returned = OrderLines(lines.item, time_ms, quantity, lines.price, lines.order)
        for i in np.flatnonzero(back):
            self._returns[int(time_ms[i]) // HOUR_MS * HOUR_MS].append(returned.take(np.array([i])))


def _join_clicks(
    item: Ints, visit_ms: Ints, session: Ints, stages: list[tuple[int, np.ndarray, Floats]]
) -> Clicks:
    return Clicks(
        item=np.concatenate([item[who] for _, who, _ in stages]),
        kind=np.concatenate([np.full(int(who.sum()), kind) for kind, who, _ in stages]),
        time_ms=np.concatenate(
            [(visit_ms + after_ms.astype(np.int64))[who] for _, who, after_ms in stages]
        ),
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
