"""Stock of every item: sold down, replenished at five in the morning, sometimes too late."""

from __future__ import annotations

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.source.simulator.seeds import generator
from freshet.stream.units import DAY_MS, HOUR_MS

DELIVERY_HOUR = 5
COVER_DAYS = 6.0
REORDER_DAYS = 4.0
SCARCE_SHARE = 0.15
SCARCE_COVER_DAYS = 1.6
LATE_DELIVERY_SHARE = 0.30
SALES_MEMORY = 0.3


class Stock:
    """Units on hand per item; changes in place.

    Args:
        daily_units_I: Expected sales of a day, from which the first order is made.
        pack_I: Units that are bought at once; no item's cover is below a few packs.
    """

    def __init__(self, seed: int, daily_units_I: Floats, pack_I: Ints) -> None:
        self._seed = seed
        self._pack_I = pack_I
        self._daily_I = daily_units_I.copy()
        self._sold_today_I = np.zeros(len(pack_I))
        self._empty_today_I = np.zeros(len(pack_I), dtype=bool)
        self._scarce_I = generator(seed, "scarce").random(len(pack_I)) < SCARCE_SHARE
        self.on_hand_I: Ints = self._target()

    def sell(self, item: Ints, quantity: Ints) -> Ints:
        """Take from stock in the given order; what is sold, cut where an item runs out."""
        # Each line finds the stock less what the lines of its item before it wanted.
        by_item = np.argsort(item, kind="stable")
        sorted_item, wanted = item[by_item], quantity[by_item]
        wanted_before = np.cumsum(wanted) - wanted
        first_of_item = np.searchsorted(sorted_item, sorted_item, side="left")
        if len(item):
            wanted_before = wanted_before - wanted_before[first_of_item]
        sold = np.empty_like(quantity)
        sold[by_item] = np.clip(self.on_hand_I[sorted_item] - wanted_before, 0, wanted)
        units_I = np.bincount(item, sold, len(self.on_hand_I)).astype(np.int64)
        self.on_hand_I = self.on_hand_I - units_I
        self._sold_today_I += units_I
        self._empty_today_I |= self.on_hand_I == 0
        return sold

    def deliver(self, hour_start_ms: int) -> Ints:
        """Replenish if the lorry comes at this hour; the items whose stock rose.

        A scarce item's lorry stays away on some days, and its cover is short, so it runs out now
        and then.
        """
        if hour_start_ms // HOUR_MS % 24 != DELIVERY_HOUR:
            return np.empty(0, dtype=np.int64)
        self._remember_sales()
        rng = generator(self._seed, "deliveries", hour_start_ms // DAY_MS)
        luck_I = rng.random(len(self._pack_I))
        comes_I = ~self._scarce_I | (luck_I >= LATE_DELIVERY_SHARE)
        target_I = self._target()
        low_I = self.on_hand_I < np.maximum(target_I * REORDER_DAYS / COVER_DAYS, 1)
        raised_I = comes_I & low_I & (target_I > self.on_hand_I)
        self.on_hand_I = np.where(raised_I, target_I, self.on_hand_I)
        return np.flatnonzero(raised_I)

    def allot(self, items: Ints, units: Ints) -> None:
        """Set the stock of some items, as for a flash sale."""
        self.on_hand_I = self.on_hand_I.copy()
        self.on_hand_I[items] = units

    def _remember_sales(self) -> None:
        """A day on which an item was sold out says little about its demand."""
        seen = ~self._empty_today_I
        blend = self._daily_I + SALES_MEMORY * (self._sold_today_I - self._daily_I)
        self._daily_I = np.where(seen, blend, np.maximum(blend, self._daily_I))
        self._sold_today_I[:] = 0.0
        self._empty_today_I = self.on_hand_I == 0

    def _target(self) -> Ints:
        cover_I = np.where(self._scarce_I, SCARCE_COVER_DAYS, COVER_DAYS)
        target: Ints = np.ceil(self._daily_I * cover_I + 3 * self._pack_I).astype(np.int64)
        return target
