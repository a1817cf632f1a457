"""What each forecast is made from: a ring of windows resident on the device, dressed with what the
shop knows.

Dimensions: I items, B rows of a batch, N buckets of the ring, T context steps, S = T + H, P past
slots, K known slots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.text import NUM_TEXT, encode_texts, static_features
from freshet.stream.arrays import Bools, Floats, Ints, Singles
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.read.reader import Delta, WindowReader
from freshet.stream.schemas import CHANNELS, UNIT_SCALES

UNITS = CHANNELS.index("units")
CLICKS = slice(CHANNELS.index("views"), len(CHANNELS))
NUM_CLICKS = len(CHANNELS) - CLICKS.start
IN_STOCK = PAST_SLOTS.index("in_stock")
MIN_OBSERVED = 24  # with less history than this a forecast rests on the catalogue
NEVER = 2**62
COPY_ROWS = 512  # rows copied at once, which bounds the memory of a first read
FIRST_CAPACITY = 256
MAX_TEXTS = 200_000


class Contexts:
    """The newest buckets of every item on the device, and batches of them as of any cutoff that
    they cover.

    Only cells that changed are copied. Rows are the reader's; `cold_batch` serves items that have
    no row yet.

    Args:
        reader: Holds at least `context_length` buckets, and more for older cutoffs.
        shop: Catalogue, promotions and inventory.
        context_length: Steps before the cutoff.
        prediction_length: Steps after it.
        device: Where the ring lives and batches come out.
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
        self.reader, self.shop = reader, shop
        self.context_length, self.prediction_length = context_length, prediction_length
        self.device = torch.device(device)
        self._head: int | None = None
        self._units_IN = torch.zeros(FIRST_CAPACITY, reader.num_buckets, device=self.device)
        self._clicks_INC = torch.zeros(
            FIRST_CAPACITY, reader.num_buckets, NUM_CLICKS, device=self.device
        )
        self._first_I: Ints = np.full(FIRST_CAPACITY, NEVER, np.int64)
        self._texts: dict[str, Singles] = {}

    @property
    def item_ids(self) -> list[str]:
        """Item of each row."""
        return self.reader.item_ids

    def refresh(self) -> Delta:
        """Read what changed in Redis and copy it to the device.

        Raises:
            StoreUnavailableError: Redis does not answer; what is here stays as it is.
        """
        delta = self.reader.refresh()
        self._grow(self.reader.num_items)
        self._advance()
        resolution_ms = self.reader.resolution_ms
        for first in range(0, len(delta.changed_rows), COPY_ROWS):
            rows = delta.changed_rows[first : first + COPY_ROWS]
            for start, stop in _runs(delta.changed_buckets_ms // resolution_ms):
                self._copy(rows, start, stop)
        return delta

    # Batches --------------------------------------------------------------------------------------

    def batch(self, rows: Sequence[int] | Ints, cutoff_ms: int) -> Batch:
        """Contexts of some rows that end at the cutoff; nothing after it is used, whatever else is
        known by now.
        """
        rows = np.asarray(rows, np.int64)
        item_ids = [self.item_ids[row] for row in rows]
        first = cutoff_ms // self.reader.resolution_ms - self.context_length
        begin_B = self._begin(item_ids, rows)
        in_stock_BT = self._in_stock(item_ids, first, self.context_length, cutoff_ms)
        target_BT = self._target(rows, first, self.context_length, begin_B, in_stock_BT)
        past_BTP = self._past(rows, first, begin_B, in_stock_BT)
        return self._dress(item_ids, target_BT, past_BTP, cutoff_ms)

    def cold_batch(self, item_ids: list[str], cutoff_ms: int) -> Batch:
        """The same for items of which no window has anything yet: all history is missing."""
        B, T = len(item_ids), self.context_length
        target_BT = torch.full((B, T), torch.nan, device=self.device)
        past_BTP = torch.full((B, T, len(PAST_SLOTS)), torch.nan, device=self.device)
        return self._dress(item_ids, target_BT, past_BTP, cutoff_ms)

    def target(self, rows: Sequence[int] | Ints, end_ms: int, steps: int) -> Floats:
        """Units of the steps that end at `end_ms`, as a context sees them: float64[B, steps], NaN
        where missing.
        """
        rows = np.asarray(rows, np.int64)
        item_ids = [self.item_ids[row] for row in rows]
        first = end_ms // self.reader.resolution_ms - steps
        in_stock_BT = self._in_stock(item_ids, first, steps, end_ms)
        units_BT = self._target(rows, first, steps, self._begin(item_ids, rows), in_stock_BT)
        return np.asarray(units_BT.double().cpu().numpy())

    def actuals(self, item_ids: list[str], start_ms: int, steps: int) -> tuple[Floats, Bools]:
        """What was sold: units float64[B, steps], NaN where not observed, and whether the item was
        in stock throughout.

        An item without a row sold nothing. Stock that is unknown counts as in stock.
        """
        resolution_ms = self.reader.resolution_ms
        first = start_ms // resolution_ms
        found = [self.reader.row(item_id) for item_id in item_ids]
        units_BS = np.zeros((len(item_ids), steps))
        has_row = np.array([row is not None for row in found], bool)
        rows = np.array([row for row in found if row is not None], np.int64)
        if len(rows):
            units_BS[has_row] = (
                self._cells(self._units_IN, rows, first, steps).double().cpu().numpy()
            )
        units_BS[:, ~self._observed(first, steps)[UNITS]] = np.nan
        in_stock_BS = self._in_stock(item_ids, first, steps, start_ms + steps * resolution_ms)
        return units_BS, ~(in_stock_BS < 1.0)

    def _dress(
        self, item_ids: list[str], target_BT: Tensor, past_BTP: Tensor, cutoff_ms: int
    ) -> Batch:
        resolution_ms = self.reader.resolution_ms
        start_ms = cutoff_ms - self.context_length * resolution_ms
        steps = self.context_length + self.prediction_length
        known_BSK = torch.full((len(item_ids), steps, len(KNOWN_SLOTS)), torch.nan)
        known = self.shop.known(item_ids, start_ms, steps, resolution_ms, as_of_ms=cutoff_ms)
        known_BSK[..., : known.shape[2]] = torch.from_numpy(known)
        return Batch(
            target_BT=target_BT,
            past_BTP=past_BTP,
            known_BSK=known_BSK.to(self.device),
            static_BF=torch.from_numpy(self._static(item_ids, cutoff_ms)).to(self.device),
            start_ms_B=torch.full(
                (len(item_ids),), start_ms, dtype=torch.int64, device=self.device
            ),
            resolution_ms=resolution_ms,
        )

    def _target(
        self, rows: Ints, first: int, steps: int, begin_B: Ints, in_stock_BT: Singles
    ) -> Tensor:
        """Missing are: what was not observed, what was before the launch, and buckets without stock
        and sales.
        """
        units_BT = self._cells(self._units_IN, rows, first, steps)
        seen_BT = self._seen(first, steps, UNITS, begin_B)
        empty_BT = torch.from_numpy(in_stock_BT == 0.0).to(self.device) & (units_BT == 0.0)
        return torch.where(seen_BT & ~empty_BT, units_BT, torch.nan)

    def _past(self, rows: Ints, first: int, begin_B: Ints, in_stock_BT: Singles) -> Tensor:
        past_BTP = torch.full(
            (len(rows), self.context_length, len(PAST_SLOTS)), torch.nan, device=self.device
        )
        clicks_BTC = self._cells(self._clicks_INC, rows, first, self.context_length)
        seen_BT = self._seen(first, self.context_length, CLICKS.start, begin_B)
        past_BTP[..., :NUM_CLICKS] = torch.where(seen_BT[..., None], clicks_BTC, torch.nan)
        past_BTP[..., IN_STOCK] = torch.from_numpy(in_stock_BT).to(self.device)
        return past_BTP

    def _seen(self, first: int, steps: int, channel: int, begin_B: Ints) -> Tensor:
        bucket_T = np.arange(first, first + steps)
        seen_BT = self._observed(first, steps)[channel] & (bucket_T >= begin_B[:, None])
        return torch.from_numpy(seen_BT).to(self.device)

    def _observed(self, first: int, steps: int) -> Bools:
        """Which channels were observed in which buckets, the same for every item: bool[C,
        steps].
        """
        if not self.reader.num_items:
            return np.zeros((len(CHANNELS), steps), bool)
        end_ms = (first + steps) * self.reader.resolution_ms
        view = self.reader.window(end_ms, steps, np.zeros(1, np.int64))
        return np.asarray(view.observed_ICB[0])

    def _begin(self, item_ids: list[str], rows: Ints) -> Ints:
        """The bucket from which on an item was there: its launch, or its first event where that is
        earlier.
        """
        launched_ms = self.shop.launched_ms(item_ids)
        known = np.isfinite(launched_ms)
        launch_B = np.where(known, np.nan_to_num(launched_ms), NEVER) // self.reader.resolution_ms
        return np.minimum(launch_B.astype(np.int64), self._first_I[rows])

    def _in_stock(self, item_ids: list[str], first: int, steps: int, as_of_ms: int) -> Singles:
        resolution_ms = self.reader.resolution_ms
        return self.shop.in_stock(
            item_ids, first * resolution_ms, steps, resolution_ms, as_of_ms=as_of_ms
        )

    def _static(self, item_ids: list[str], cutoff_ms: int) -> Singles:
        texts = self.shop.texts(item_ids)
        prices = self.shop.unit_prices(item_ids, as_of_ms=cutoff_ms)
        static_BF = static_features(
            [""] * len(texts), prices, cutoff_ms - self.shop.launched_ms(item_ids)
        )
        new = list(dict.fromkeys(text for text in texts if text not in self._texts))
        if len(self._texts) + len(new) > MAX_TEXTS:
            self._texts.clear()
            new = list(dict.fromkeys(texts))
        self._texts.update(zip(new, encode_texts(new), strict=True))
        for row, text in enumerate(texts):
            static_BF[row, :NUM_TEXT] = self._texts[text]
        return static_BF

    # The ring -------------------------------------------------------------------------------------

    def _cells(self, ring: Tensor, rows: Ints, first: int, steps: int) -> Tensor:
        """Cells of some rows and buckets; 0 where the ring holds nothing."""
        num_buckets, head = self.reader.num_buckets, -1 if self._head is None else self._head
        bucket_T = np.arange(first, first + steps)
        held_T = (bucket_T > head - num_buckets) & (bucket_T <= head)
        slot_T = torch.from_numpy(bucket_T % num_buckets).to(self.device)
        cells = ring[torch.from_numpy(rows).to(self.device)[:, None], slot_T]
        cells[:, torch.from_numpy(~held_T).to(self.device)] = 0.0
        return cells

    def _grow(self, num_items: int) -> None:
        capacity = len(self._first_I)
        if num_items <= capacity:
            return
        more = max(num_items, 2 * capacity) - capacity
        self._units_IN = torch.cat(
            [self._units_IN, self._units_IN.new_zeros(more, *self._units_IN.shape[1:])]
        )
        self._clicks_INC = torch.cat(
            [self._clicks_INC, self._clicks_INC.new_zeros(more, *self._clicks_INC.shape[1:])]
        )
        self._first_I = np.concatenate([self._first_I, np.full(more, NEVER, np.int64)])

    def _advance(self) -> None:
        """Clear the slots of buckets that enter the ring."""
        frontiers = [
            state.frontier_ms
            for state in self.reader.inputs.values()
            if state.frontier_ms is not None
        ]
        if not frontiers:
            return
        head = max(frontiers) // self.reader.resolution_ms
        if self._head is not None and head <= self._head:
            return
        num_buckets = self.reader.num_buckets
        entering = num_buckets if self._head is None else min(head - self._head, num_buckets)
        slots = torch.arange(head - entering + 1, head + 1, device=self.device) % num_buckets
        self._units_IN[:, slots] = 0.0
        self._clicks_INC[:, slots] = 0.0
        self._head = head

    def _copy(self, rows: Ints, start: int, stop: int) -> None:
        """Copy buckets [start, stop) of some rows from the reader to the device."""
        values_RCS = self.reader.sums(stop * self.reader.resolution_ms, stop - start, rows)
        slot_S = torch.arange(start, stop, device=self.device) % self.reader.num_buckets
        row_R = torch.from_numpy(rows).to(self.device)[:, None]
        units_RS = (values_RCS[:, UNITS] / UNIT_SCALES["units"]).astype(np.float32)
        clicks_RSC = values_RCS[:, CLICKS].transpose(0, 2, 1).astype(np.float32)
        self._units_IN[row_R, slot_S] = torch.from_numpy(units_RS).to(self.device)
        self._clicks_INC[row_R, slot_S] = torch.from_numpy(clicks_RSC).to(self.device)
        any_RS: Bools = np.any(values_RCS, axis=1)
        first_R = np.where(np.any(any_RS, axis=1), start + any_RS.argmax(axis=1), NEVER)
        self._first_I[rows] = np.minimum(self._first_I[rows], first_R)


def cold_rows(batch: Batch) -> Bools:
    """Rows with too little history, or without any sale in it, to call the forecast more than a
    cold start.
    """
    observed_BT = torch.isfinite(batch.target_BT)
    sold_B = torch.where(observed_BT, batch.target_BT, 0.0).sum(1)
    return np.asarray(((observed_BT.sum(1) < MIN_OBSERVED) | (sold_B <= 0)).cpu().numpy())


def context_sha256(batch: Batch) -> list[str]:
    """The sha256 of every number that each row's forecast is made from, whatever device it is on.

    Each row's bytes in order: target, past, known, static (float32, little-endian, one spelling of
    NaN and of 0), then start and resolution (int64).
    """
    arrays = [
        _canonical(tensor)
        for tensor in (batch.target_BT, batch.past_BTP, batch.known_BSK, batch.static_BF)
    ]
    start_ms = batch.start_ms_B.cpu().tolist()
    hashes = []
    for row in range(len(batch)):
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(array[row])
        digest.update(np.array([start_ms[row], batch.resolution_ms], "<i8").data)
        hashes.append(digest.hexdigest())
    return hashes


def _canonical(tensor: Tensor) -> Singles:
    array = tensor.float().cpu().numpy()
    canonical: Singles = np.where(np.isnan(array), np.float32("nan"), array + np.float32(0.0))
    return np.ascontiguousarray(canonical.astype("<f4", copy=False))


def _runs(numbers: Ints) -> list[tuple[int, int]]:
    """Rising numbers as runs [start, stop) without gaps.

    >>> _runs(np.array([3, 4, 5, 9]))
    [(3, 6), (9, 10)]
    """
    if not len(numbers):
        return []
    cuts = np.flatnonzero(np.diff(numbers) > 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(numbers, cuts)]
