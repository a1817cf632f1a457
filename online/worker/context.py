"""What each forecast is made from: windows on the device, dressed with what the shop knows.

Dimensions: B rows of a batch, T context steps, H horizon steps, S = T + H, P past slots, C click
channels, K known slots, F static features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.online.worker.device_ring import CLICKS, NEVER, NUM_CLICKS, UNITS, DeviceRing
from freshet.online.worker.static import StaticFeatures
from freshet.stream import slots
from freshet.stream.arrays import Bools, Floats, Ints, Singles
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.config import UTC
from freshet.stream.read.reader import Delta, WindowReader
from freshet.stream.schemas import CHANNELS

IN_STOCK = PAST_SLOTS.index("in_stock")
# Clicks are copied side by side: a kind without a slot of its name would land in another's.
assert PAST_SLOTS[:NUM_CLICKS] == CHANNELS[CLICKS.start :]
assert slots.KNOWN_SLOTS == KNOWN_SLOTS
MIN_OBSERVED = 24  # with less history than this a forecast rests on the catalogue


@dataclass(frozen=True, slots=True)
class _Past:
    """Some items over some buckets of the past, and what was known of them.

    Attributes:
        units_BT: Units sold, 0 where nothing is held.
        clicks_BTC: Clicks likewise.
        first: The first bucket.
        begin_B: The bucket from which on each item was there.
        in_stock_BT: The share of each bucket in stock, NaN where unknown.
    """

    units_BT: Tensor
    clicks_BTC: Tensor
    first: int
    begin_B: Ints
    in_stock_BT: Singles

    @property
    def steps(self) -> int:
        return self.units_BT.shape[1]


class Contexts:
    """Batches of any items as of any cutoff that the newest buckets cover.

    Rows are the reader's; `cold_batch` serves items that have no row yet.

    Args:
        reader: Holds at least `context_length` buckets, and more for older cutoffs.
        shop: Catalogue, promotions and inventory.
        context_length: Steps before the cutoff.
        prediction_length: Steps after it.
        device: Where the windows live and batches come out.
    """

    def __init__(
        self,
        reader: WindowReader,
        shop: ShopTables,
        *,
        context_length: int,
        prediction_length: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.reader = reader
        self.shop = shop
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.device = torch.device(device)
        self.grid = reader.rules.grid
        self._shown_S: dict[tuple[int, int], Tensor] = {}
        self._ring = DeviceRing(reader, self.device)
        self._static = StaticFeatures(shop)

    @property
    def item_ids(self) -> list[str]:
        """Item of each row."""
        return self.reader.item_ids

    def before(self, cutoff_ms: int, steps: int) -> int:
        """The cutoff that lies so many steps before another."""
        return self.grid.start_ms(self.grid.bucket(cutoff_ms) - steps)

    def refresh(self) -> Delta:
        """Read what changed in Redis and copy it to the device.

        Raises:
            StoreUnavailableError: Redis does not answer; batches are right again after the next
                refresh that ends well, and none may be asked for before.
        """
        delta = self.reader.refresh()
        self._ring.copy(delta)
        return delta

    # Batches --------------------------------------------------------------------------------------

    def batch(self, rows: Sequence[int] | Ints, cutoff_ms: int) -> Batch:
        """Contexts of some rows that end at the cutoff; nothing after it is used.

        That holds for what is known by now of buckets, stock, prices and promotions alike.
        """
        item_ids = [self.item_ids[row] for row in rows]
        past = self._past_of(rows, cutoff_ms, self.context_length)
        return self._dressed(item_ids, past, cutoff_ms)

    def cold_batch(self, item_ids: list[str], cutoff_ms: int) -> Batch:
        """The same for items of which no window has anything yet.

        They sold nothing since their launch, as one does whose row came after the cutoff.
        """
        return self._dressed(item_ids, self._empty_past(item_ids, cutoff_ms), cutoff_ms)

    def target(self, rows: Sequence[int] | Ints, end_ms: int, steps: int) -> Floats:
        """Units of the steps that end at `end_ms`, as a context sees them.

        float64[B, steps], NaN where missing.
        """
        units_BT = self._target(self._past_of(rows, end_ms, steps))
        return np.asarray(units_BT.double().cpu().numpy())

    def actuals(self, item_ids: list[str], start_ms: int, steps: int) -> tuple[Floats, Bools]:
        """What was sold, and whether the item was in stock throughout: [B, steps] each.

        Units are NaN where not observed. An item without a row sold nothing. Stock that is unknown
        counts as in stock.
        """
        first = self.grid.bucket(start_ms)
        found = [self.reader.row(item_id) for item_id in item_ids]
        has_row_B = np.array([row is not None for row in found], bool)
        rows = np.array([row for row in found if row is not None], np.int64)
        units_BS = np.zeros((len(item_ids), steps))
        if len(rows):
            units_BS[has_row_B] = self._ring.units(rows, first, steps).double().cpu().numpy()
        units_BS[:, ~self._observed(first, steps)[UNITS]] = np.nan
        in_stock_BS = self._in_stock(item_ids, first, steps, self.grid.start_ms(first + steps))
        return units_BS, ~(in_stock_BS < 1.0)

    # What the windows say -------------------------------------------------------------------------

    def _past_of(self, rows: Sequence[int] | Ints, end_ms: int, steps: int) -> _Past:
        """The steps that end at `end_ms`, with stock as it was known then."""
        rows = np.asarray(rows, np.int64)
        item_ids = [self.item_ids[row] for row in rows]
        first = self.grid.bucket(end_ms) - steps
        return _Past(
            self._ring.units(rows, first, steps),
            self._ring.clicks(rows, first, steps),
            first,
            np.minimum(self._launch(item_ids, end_ms), self._ring.first_buckets(rows)),
            self._in_stock(item_ids, first, steps, end_ms),
        )

    def _empty_past(self, item_ids: list[str], cutoff_ms: int) -> _Past:
        """The context of items without a row."""
        B, T = len(item_ids), self.context_length
        first = self.grid.bucket(cutoff_ms) - T
        return _Past(
            torch.zeros(B, T, device=self.device),
            torch.zeros(B, T, NUM_CLICKS, device=self.device),
            first,
            self._launch(item_ids, cutoff_ms),
            self._in_stock(item_ids, first, T, cutoff_ms),
        )

    def _target(self, past: _Past) -> Tensor:
        """Units sold: float32[B, T], NaN where nothing can be said of the demand.

        That is what was not observed, what was before the launch, and buckets without stock and
        sales: there nobody could buy. A sale in a bucket out of stock is one all the same.
        """
        seen_BT = self._seen(past, UNITS)
        sold_out_BT = torch.from_numpy(past.in_stock_BT == 0.0).to(self.device)
        empty_BT = sold_out_BT & (past.units_BT == 0.0)
        return torch.where(seen_BT & ~empty_BT, past.units_BT, torch.nan)

    def _covariates(self, past: _Past) -> Tensor:
        """Clicks and stock beside the target: float32[B, T, P], NaN where not observed."""
        shape = (*past.units_BT.shape, len(PAST_SLOTS))
        past_BTP = torch.full(shape, torch.nan, device=self.device)
        # Clicks come on a topic of their own, which may lag behind the orders.
        seen_BT1 = self._seen(past, CLICKS.start)[..., None]
        past_BTP[..., :NUM_CLICKS] = torch.where(seen_BT1, past.clicks_BTC, torch.nan)
        past_BTP[..., IN_STOCK] = torch.from_numpy(past.in_stock_BT).to(self.device)
        return past_BTP

    def _seen(self, past: _Past, channel: int) -> Tensor:
        """Where a channel was observed and the item was there: bool[B, T]."""
        bucket_T = np.arange(past.first, past.first + past.steps)
        there_BT = bucket_T >= past.begin_B[:, None]
        seen_BT = self._observed(past.first, past.steps)[channel] & there_BT
        return torch.from_numpy(seen_BT).to(self.device)

    def _observed(self, first: int, steps: int) -> Bools:
        """Which channels were observed in which buckets: bool[channels, steps], of every item."""
        return self.reader.observed(self.grid.start_ms(first + steps), steps)

    # What the shop says ---------------------------------------------------------------------------

    def _dressed(self, item_ids: list[str], past: _Past, cutoff_ms: int) -> Batch:
        """With what is known in advance of all S steps, and of the items themselves."""
        B, steps = len(item_ids), self.context_length + self.prediction_length
        first = self.grid.bucket(cutoff_ms) - self.context_length
        span = self._span(first, steps)
        known_BSK = torch.from_numpy(self.shop.known(item_ids, span, as_of_ms=cutoff_ms))
        static_BF = torch.from_numpy(self._static.of(item_ids, cutoff_ms))
        return Batch(
            target_BT=self._target(past),
            past_BTP=self._covariates(past),
            known_BSK=known_BSK.to(self.device),
            static_BF=static_BF.to(self.device),
            start_ms_B=torch.full((B,), span.start_ms, dtype=torch.int64, device=self.device),
            resolution_ms=self.reader.resolution_ms,
            local_ms_BS=self._shown(first, steps, B),
        )

    def _shown(self, first: int, steps: int, num_rows: int) -> Tensor | None:
        """What the shop's clock shows at each step: int64[B, S]; None where it shows UTC."""
        if self.grid.time_zone == UTC:
            return None
        key = (first, steps)
        if key not in self._shown_S:
            starts_S = self.grid.span_edges(first, steps)[:-1]
            # All batches of a round ask for the same steps.
            self._shown_S = {key: torch.from_numpy(self.grid.shown_ms(starts_S)).to(self.device)}
        return self._shown_S[key].expand(num_rows, -1)

    def _span(self, first: int, steps: int) -> BucketSpan:
        if self.grid.even:
            resolution_ms = self.reader.resolution_ms
            return BucketSpan(first * resolution_ms, steps, resolution_ms)
        return BucketSpan.between(self.grid.span_edges(first, steps))

    def _launch(self, item_ids: list[str], as_of_ms: int) -> Ints:
        """The bucket of each item's launch, as it was known then: [B].

        An item was there earlier where something happened to it: catalogues are filled in late.
        """
        launched_ms_B = self.shop.launched_ms(item_ids, as_of_ms=as_of_ms)
        launched_ms_B = np.where(np.isfinite(launched_ms_B), launched_ms_B, NEVER)
        return self.grid.buckets(launched_ms_B.astype(np.int64))

    def _in_stock(self, item_ids: list[str], first: int, steps: int, as_of_ms: int) -> Singles:
        """The share of each bucket in stock: float32[B, steps], NaN where unknown."""
        return self.shop.in_stock(item_ids, self._span(first, steps), as_of_ms=as_of_ms)


def cold_rows(batch: Batch) -> Bools:
    """Rows whose forecast is a cold start: too little history, or not a single sale in it."""
    observed_BT = torch.isfinite(batch.target_BT)
    sold_B = torch.where(observed_BT, batch.target_BT, 0.0).sum(1)
    return np.asarray(((observed_BT.sum(1) < MIN_OBSERVED) | (sold_B <= 0)).cpu().numpy())
