"""What each forecast is made from: windows on the device, dressed with what the shop knows.

Dimensions: B rows of a batch, T context steps, H horizon steps, S = T + H, P past slots, C click
channels, K known slots, F static features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.effects.closed import Closing
from freshet.model.effects.columns import Place
from freshet.model.effects.newcomers import own_share
from freshet.model.effects.shared import SharedEffects
from freshet.model.effects.slots import dress
from freshet.model.tables.panel import Window
from freshet.online.adjust.beginning import Beginning, begun
from freshet.online.effects.table import Known
from freshet.online.forecast.device_ring import CLICKS, NEVER, NUM_CLICKS, UNITS, DeviceRing
from freshet.online.forecast.static import StaticFeatures
from freshet.stream import slots
from freshet.stream.arrays import Bools, Floats, Ints, Singles
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.config import UTC
from freshet.stream.read.reader import Delta, WindowReader
from freshet.stream.schemas import CHANNELS
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

IN_STOCK = PAST_SLOTS.index("in_stock")
# Clicks are copied side by side: a kind without a slot of its name would land in another's.
assert PAST_SLOTS[:NUM_CLICKS] == CHANNELS[CLICKS.start :]
assert slots.KNOWN_SLOTS == KNOWN_SLOTS
NAMED_PLACES = [KNOWN_SLOTS.index(name) for name in slots.NAMED_SLOTS]
FREQUENCIES = {MINUTE_MS: "min", HOUR_MS: "h", DAY_MS: "D"}
UNTAUGHT = SharedEffects(
    slots.NAMED_SLOTS,
    closing=Closing(states=((slots.NAMED_SLOTS.index("closed"), 1.0),)),
    places=tuple(
        Place(column, KNOWN_SLOTS.index(name))
        for column, name in enumerate(slots.NAMED_SLOTS)
        if name != "closed"
    ),
)
"""Each slot is what it is called, and nothing is known to be alike."""
CLOSED = KNOWN_SLOTS.index("closed")


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
        taught: What all items do alike, as it is to be used for a cutoff; None where nobody knows.
        country: Whose public holidays are known; empty: nobody's.
    """

    def __init__(
        self,
        reader: WindowReader,
        shop: ShopTables,
        *,
        context_length: int,
        prediction_length: int,
        device: torch.device | str = "cpu",
        taught: Callable[[int], Known | None] = lambda cutoff_ms: None,
        country: str = "",
    ) -> None:
        self._taught = taught
        self._country = country or None
        self.reader = reader
        self.shop = shop
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.device = torch.device(device)
        self.grid = reader.rules.grid
        self._shown_S: dict[tuple[int, int], Ints] = {}
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

    def windowed(self, rows: Sequence[int] | Ints, cutoff_ms: int) -> Window:
        """What batches are dressed from: the same rows as a table has them."""
        item_ids = [self.item_ids[row] for row in rows]
        return self._window(
            item_ids, self._past_of(rows, cutoff_ms, self.context_length), cutoff_ms
        )

    # Batches --------------------------------------------------------------------------------------

    def batch(
        self,
        rows: Sequence[int] | Ints,
        cutoff_ms: int,
        beginnings: Sequence[Beginning | None] = (),
    ) -> Batch:
        """Contexts of some rows that end at the cutoff; nothing after it is used.

        That holds for what is known by now of buckets, stock, prices and promotions alike.
        `beginnings` say which contexts begin at a drift, of all rows or of none.
        """
        item_ids = [self.item_ids[row] for row in rows]
        past = self._past_of(rows, cutoff_ms, self.context_length)
        return self._dressed(item_ids, past, cutoff_ms, beginnings)

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

    def _dressed(
        self,
        item_ids: list[str],
        past: _Past,
        cutoff_ms: int,
        beginnings: Sequence[Beginning | None] = (),
    ) -> Batch:
        """With what is known in advance, what all items share, and what each of them is."""
        window = self._window(item_ids, past, cutoff_ms)
        begin_B = None
        if any(beginnings):
            window = begun(window, beginnings)
            # Nobody looks for another beginning than the one that is known.
            begin_B = np.array([-1 if beginning is None else 0 for beginning in beginnings])
        taught = self._taught(cutoff_ms)
        shared = UNTAUGHT if taught is None else taught.shared
        dressed = dress(window, shared, begin_N=begin_B)
        rows, T = np.arange(len(item_ids)), self.context_length
        batch, _ = dressed.batch(
            rows,
            np.full(len(rows), T),
            context=T,
            horizon=self.prediction_length,
            # Effects that were learnt later know how this very horizon went.
            train=taught is not None and taught.as_of_ms > cutoff_ms,
        )
        factor_B = torch.from_numpy(dressed.factor_N.astype(np.float32))
        static_BF = torch.from_numpy(self._static.of(item_ids, cutoff_ms))
        scaled = bool((factor_B != 1.0).any())
        batch = replace(batch, static_BF=static_BF, factor_B=factor_B if scaled else None)
        return batch.to(self.device)

    def _window(self, item_ids: list[str], past: _Past, cutoff_ms: int) -> Window:
        """The same as a table has it, with what is known in advance of all S steps."""
        N = len(item_ids)
        steps = past.steps + self.prediction_length
        span = self._span(past.first, steps)
        starts_S = span.edges()[:-1]
        known_NSK = self.shop.known(item_ids, span, as_of_ms=cutoff_ms)
        local_ms_S = self._shown(past.first, steps)
        return Window(
            item_ids=tuple(item_ids),
            frequency=FREQUENCIES.get(self.reader.resolution_ms, "s"),
            resolution_ms=self.reader.resolution_ms,
            season_length=1,
            time_ms_NS=np.broadcast_to(starts_S, (N, steps)),
            target_NT=self._target(past).cpu().numpy().astype(np.float64),
            known_NSK=known_NSK[..., NAMED_PLACES].astype(np.float64),
            past_NTP=self._covariates(past).cpu().numpy().astype(np.float64),
            known_names=slots.NAMED_SLOTS,
            past_names=PAST_SLOTS,
            static=self._kinds(item_ids, cutoff_ms),
            country=self._country,
            local_ms_NS=None if local_ms_S is None else np.broadcast_to(local_ms_S, (N, steps)),
        )

    def _kinds(self, item_ids: list[str], as_of_ms: int) -> dict[str, Floats | NDArray[np.object_]]:
        """By what siblings are told apart, as it was known then: [N] each."""
        categories = self.shop.categories(item_ids, as_of_ms=as_of_ms)
        regions = self.shop.regions(item_ids)
        return {
            "category": np.array([text or None for text in categories], object),
            "region": np.array([text or None for text in regions], object),
            "unit_price": self.shop.unit_prices(item_ids, as_of_ms=as_of_ms).astype(np.float64),
        }

    def _shown(self, first: int, steps: int) -> Ints | None:
        """What the shop's clock shows at each step: [S]; None where it shows UTC."""
        if self.grid.time_zone == UTC:
            return None
        key = (first, steps)
        if key not in self._shown_S:
            # All batches of a round ask for the same steps.
            self._shown_S = {key: self.grid.shown_ms(self.grid.span_edges(first, steps)[:-1])}
        return self._shown_S[key]

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


class Age(NamedTuple):
    """How much of a past the rows of a batch have: bool[B] each, at most one is true.

    Attributes:
        cold: they have sold nothing that is known of, and were not there for long.
        short: they have sold, but for too short a time to be forecast by it alone.
        silent: they have sold nothing for so long that this is what they are forecast by.
    """

    cold: Bools
    short: Bools
    silent: Bools


def age_of(batch: Batch) -> Age:
    """How much of a past each row has."""
    closed_BT = batch.known_BSK[:, : batch.context_length, CLOSED] == 1.0
    share_B = own_share(
        batch.target_BT.double().cpu().numpy(), closed_BT.cpu().numpy(), batch.resolution_ms
    )
    sold_B = (batch.target_BT > 0).any(1).cpu().numpy()
    enough_B = share_B >= 1.0
    return Age(cold=~sold_B & ~enough_B, short=sold_B & ~enough_B, silent=~sold_B & enough_B)
