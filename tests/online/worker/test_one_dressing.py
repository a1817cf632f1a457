"""What a worker dresses is, to the last bit, what `predict` dresses from the exported windows."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from freshet.model.batch import KNOWN_SLOTS, Batch
from freshet.model.effects.shared import SharedEffects, find_shared
from freshet.model.effects.slots import dressed_for
from freshet.model.tables.ahead import window_ahead
from freshet.model.tables.panel import Window
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.online.effects.table import Known
from freshet.online.forecast.context import Contexts
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.schemas import (
    CHANNELS,
    CatalogEntry,
    Covariate,
    CovariateScope,
    InventoryLevel,
    Promotion,
)
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.online.worker.windows import UNITS, VIEWS, FakeReader, tell

CONTEXT, AHEAD, ITEMS = 60, 7, 9
CLICKS = CHANNELS[VIEWS:]
FREQUENCIES = {DAY_MS: "D", HOUR_MS: "h", MINUTE_MS: "min"}
BEGIN_MS = 19_800 * DAY_MS


class Log:
    """A shop drawn at random: what was sold and looked at, and what its tables say."""

    def __init__(self, seed: int, resolution_ms: int, steps: int = 150) -> None:
        self.random = np.random.default_rng(seed)
        self.resolution_ms, self.steps = resolution_ms, steps
        self.first = BEGIN_MS // resolution_ms
        self.cutoff_ms = BEGIN_MS + steps * resolution_ms
        end = self.first + steps
        self.reader = FakeReader(
            num_buckets=steps + 5, resolution_ms=resolution_ms, reached=end, clicked=end - 2
        )
        self.reader.first, self.reader.head = self.first, end
        self.shop = ShopTables(("sku",))
        for item in range(ITEMS):
            self._tables(f"s{item}", item)
        self._covariates()
        for item in range(ITEMS):
            self._events(f"s{item}")

    def at(self, step: float) -> int:
        return BEGIN_MS + round(step * self.resolution_ms)

    def _tables(self, sku: str, item: int) -> None:
        for price, step in ((5.0 + item, -1), (4.0 + item, 40), (6.0, 100)):
            entry = CatalogEntry(sku=sku, category=f"c{item % 2}", unit_price=price)
            tell(self.shop, "catalog", entry, self.at(step))
        for number in range(3):
            begin = int(self.random.integers(0, self.steps))
            promotion = Promotion(
                promotion_id=f"{sku}-{number}",
                sku=sku,
                discount=0.3,
                starts_at=self.at(begin),
                ends_at=self.at(begin + 3 + 0.5 * number),
            )
            tell(self.shop, "promotions", promotion, self.at(begin - 5))
        for on_hand, step in ((9, 0), (0, 30 + item), (20, 33 + item)):
            level = InventoryLevel(sku=sku, on_hand=on_hand, as_of=self.at(step))
            tell(self.shop, "inventory", level, self.at(step))

    def _covariates(self) -> None:
        for step in range(6, self.steps + AHEAD, 7):
            closed = Covariate(
                covariate_id=f"c{step}",
                name="closed",
                starts_at=self.at(step),
                ends_at=self.at(step + 1),
            )
            rain = Covariate(
                covariate_id=f"r{step}",
                name="free_2",
                value=float(self.random.integers(1, 9)),
                starts_at=self.at(step - 3),
                ends_at=self.at(step),
                scope=CovariateScope(category="c1"),
            )
            for record in (closed, rain):
                tell(self.shop, "covariates", record, self.at(-1))

    def _events(self, sku: str) -> None:
        rate = self.random.gamma(2.0, 3.0)
        begin = int(self.random.integers(0, 40))
        if sku == "s0":
            begin = self.steps - 6  # a new one
        for step in range(begin, self.steps):
            if step % 7 == 6:
                continue
            units = int(self.random.poisson(rate))
            # A first sale in whatever was drawn; a broken one is beyond every context.
            first = 1_000 * (units == 0) if sku == "s0" else 1
            self.reader.add(sku, self.first + step, UNITS, 1_000 * units + (step == begin) * first)
            self.reader.add(sku, self.first + step, VIEWS, units + 3)
        self.reader.head = self.first + self.steps

    # Exported -------------------------------------------------------------------------------------

    def frame(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The windows and the tables of every item and step: the past, and what is known ahead."""
        span = BucketSpan(BEGIN_MS, self.steps + AHEAD, self.resolution_ms)
        skus = sorted(self.reader.rows)
        known = self.shop.known(skus, span, as_of_ms=self.cutoff_ms)
        stock = self.shop.in_stock(skus, span, as_of_ms=self.cutoff_ms)
        rows = [
            self._row(sku, step, known[place, step], stock[place, step])
            for place, sku in enumerate(skus)
            for step in range(self.steps + AHEAD)
        ]
        table = pd.DataFrame(rows)
        return table[table.step < self.steps], table[table.step >= self.steps]

    def _row(self, sku: str, step: int, known: np.ndarray, stock: float) -> dict[str, Any]:
        row, bucket = self.reader.rows[sku], self.first + step
        cells = self.reader.cells
        begun = any((row, UNITS, self.first + before) in cells for before in range(step + 1))
        told: dict[str, Any] = {
            "item": sku,
            "step": step,
            "time": pd.Timestamp(self.at(step), unit="ms"),
            "units": cells.get((row, UNITS, bucket), 0) / 1_000 if begun else np.nan,
            "in_stock": stock,
        }
        seen = begun and bucket < self.reader.clicked
        for channel, name in enumerate(CLICKS, VIEWS):
            told[name] = float(cells.get((row, channel, bucket), 0)) if seen else np.nan
        named = {name: known[KNOWN_SLOTS.index(name)] for name in NAMED_SLOTS}
        return told | named | self._kind(sku)

    def _kind(self, sku: str) -> dict[str, Any]:
        """By what siblings are told apart, as it is known at the cutoff."""
        (category,) = self.shop.categories([sku], as_of_ms=self.cutoff_ms)
        (price,) = self.shop.unit_prices([sku], as_of_ms=self.cutoff_ms)
        return {"category": category, "region": None, "unit_price": float(price)}

    def window(self) -> Window:
        past, ahead = self.frame()
        kinds = ("category", "region", "unit_price")
        columns = Columns("item", "time", "units", NAMED_SLOTS, (*CLICKS, "in_stock"), kinds)
        table = TableSettings(columns, FREQUENCIES[self.resolution_ms])
        return window_ahead(read_panel(past, table), AHEAD, columns, ahead)


def _worker(log: Log, shared: SharedEffects) -> Contexts:
    contexts = Contexts(
        log.reader,  # type: ignore[arg-type]
        log.shop,
        context_length=CONTEXT,
        prediction_length=AHEAD,
        taught=lambda cutoff_ms: Known("sha", cutoff_ms, shared),
    )
    log.reader.changed = {(row, bucket) for row, _, bucket in log.reader.cells}
    contexts.refresh()
    return contexts


def _predicted(log: Log, shared: SharedEffects) -> tuple[list[str], Batch]:
    window = log.window()
    dressed = dressed_for(window, CONTEXT, shared)
    N = len(window)
    batch, _ = dressed.batch(np.arange(N), np.full(N, CONTEXT), context=CONTEXT, horizon=AHEAD)
    factor_B = torch.from_numpy(dressed.factor_N.astype(np.float32))
    scaled = bool((factor_B != 1.0).any())
    return list(window.item_ids), replace(batch, factor_B=factor_B if scaled else None)


@pytest.mark.parametrize("resolution_ms", [DAY_MS, HOUR_MS, MINUTE_MS])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_worker_dresses_what_predict_dresses(seed: int, resolution_ms: int) -> None:
    log = Log(seed, resolution_ms)
    # Effects of another log: whoever made them, both are given the same.
    shared = find_shared(Log(seed + 100, resolution_ms, steps=180).window())
    assert shared.closing.states and shared.places
    item_ids, expected = _predicted(log, shared)
    # It is no agreement about nothing.
    by_minute = resolution_ms == MINUTE_MS  # nothing is shared: each is of a sale of its own
    if not by_minute:
        assert expected.own_B is not None and 0 < expected.own_B[0] < 1 and expected.own_B[1] == 1
        assert expected.pooled_BHQ is not None and expected.pooled_BHQ[0].any()
    for name in (
        "closed",
        "promotion",
        "price_ratio",
        "free_2",
        *([] if by_minute else ["effect"]),
    ):
        assert bool((expected.known_BSK[..., KNOWN_SLOTS.index(name)] > 0).any()), name
    contexts = _worker(log, shared)
    for some in (item_ids, item_ids[4:5], item_ids[::-2]):
        found = contexts.batch([log.reader.rows[item] for item in some], log.cutoff_ms)
        asked = torch.tensor([item_ids.index(item) for item in some])
        _same(found, expected.rows(asked))


def _same(found: Batch, expected: Batch) -> None:
    for field in fields(Batch):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "static_BF":
            continue  # texts and ages are told by other columns of the catalogue
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype, field.name
            assert one.numpy().tobytes() == other.numpy().tobytes(), field.name
        else:
            assert one == other, field.name
