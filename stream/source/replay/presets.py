"""How four well-known data sets become events.

Each preset takes the file the user named (or its folder) and finds what else it needs beside it.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from freshet.stream.arrays import Floats
from freshet.stream.schemas import CatalogEntry
from freshet.stream.source.replay.rows import (
    CART,
    FAVOURITE,
    ORDER,
    VIEW,
    FileEvents,
    ReplayFile,
    TextColumn,
    first_prices,
    split,
)
from freshet.stream.source.replay.table import Table
from freshet.stream.units import DAY_MS

RETAIL_COLUMNS = [
    "ts",
    "invoice",
    "sku",
    "description",
    "quantity",
    "unit_price",
    "country",
    "row",
    "in_overlap",
]
JOURNEY_COLUMNS = [
    "store_id",
    "basket_id",
    "product_id",
    "quantity",
    "sales_value",
    "transaction_timestamp",
]
PRODUCT_COLUMNS = [
    "product_id",
    "department",
    "brand",
    "product_category",
    "product_type",
    "package_size",
]
RETAIL_PRODUCT = re.compile(r"\d{5}|DCGS|SP\d|PADS")
TAOBAO_KINDS = {"pv": VIEW, "cart": CART, "fav": FAVOURITE, "buy": ORDER}
TAOBAO_WINDOW_MS = (1_511_539_200_000, 1_511_539_200_000 + 9 * DAY_MS)


def online_retail(path: Path) -> ReplayFile:
    """Online Retail I + II: one event a line, in London's time; a cancellation is a return.

    Skipped: the second copy of the nine days that both sheets hold; postage, fees, vouchers, manual
    lines and tests; lines without a price (samples, stock corrections).
    """
    table = Table(_in_folder(path, "online_retail_II.parquet"))
    table.need(RETAIL_COLUMNS, "--preset online_retail")
    time_ms, _ = table.times_ms("ts", "Europe/London")
    sku = table.texts("sku")
    rows = FileEvents(
        time_ms=time_ms,
        row=np.arange(len(table)),
        kind=np.full(len(table), ORDER),
        sku=sku,
        region=table.texts("country", "-"),
        quantity=table.numbers("quantity"),
        unit_price=table.numbers("unit_price"),
        order_id=table.texts("invoice"),
    )
    goods = np.array([bool(RETAIL_PRODUCT.match(name)) for name in sku.names])
    kept, skipped = split(
        rows,
        {
            "second copy of days in both sheets": table.flags("in_overlap"),
            "postage, fees, vouchers and corrections, not goods": ~goods[sku.codes],
            "no price: samples and stock corrections": ~(rows.unit_price > 0),
            "no quantity": ~(rows.quantity != 0),
        },
    )
    kept = kept.by_time()
    titles = _most_common(table.texts("description"), sku)
    catalog = {
        name: CatalogEntry(sku=name, title=titles.get(name, ""), unit_price=price)
        for name, price in first_prices(kept).items()
    }
    return ReplayFile("online_retail", kept, catalog, skipped)


def taobao(path: Path) -> ReplayFile:
    """Taobao user behaviour: clicks, and purchases of one unit whose price is unknown (0)."""
    table = Table(_in_folder(path, "dense_slice.parquet"))
    table.need(("item_id", "category_id", "behavior", "ts"), "--preset taobao")
    time_ms, _ = table.times_ms("ts")
    num = len(table)
    behaviour = table.texts("behavior")
    sku = table.texts("item_id")
    kinds = np.array([TAOBAO_KINDS.get(name, -1) for name in behaviour.names])
    rows = FileEvents(
        time_ms=time_ms,
        row=np.arange(num),
        kind=kinds[behaviour.codes],
        sku=sku,
        region=TextColumn.constant("-", num),
        quantity=np.ones(num),
        unit_price=np.zeros(num),
    )
    low_ms, high_ms = TAOBAO_WINDOW_MS
    inside = (low_ms <= time_ms) & (time_ms < high_ms)
    kept, skipped = split(
        rows,
        {
            "stray time outside 25 November to 3 December 2017": ~inside,
            "unknown behaviour": rows.kind < 0,
        },
    )
    categories = _most_common(table.texts("category_id"), sku)
    catalog = {s: CatalogEntry(sku=s, category=category) for s, category in categories.items()}
    return ReplayFile(f"taobao-{table.path.stem}", kept.by_time(), catalog, skipped)


def olist(path: Path) -> ReplayFile:
    """Olist: one event an order item at its purchase, of one unit, by the customer's state."""
    folder = path if path.is_dir() else path.parent
    items = Table(folder / "order_items.parquet")
    orders = Table(folder / "orders.parquet")
    items.need(("order_id", "order_item_id", "product_id", "price"), "--preset olist")
    orders.need(("order_id", "order_status", "order_purchase_timestamp"), "--preset olist")
    order = items.texts("order_id")
    known = orders.texts("order_id")
    # Where each item's order stands among the orders; -1 where it does not.
    place = {known.names[code]: row for row, code in enumerate(known.codes.tolist())}
    found = np.array([place.get(name, -1) for name in order.names])[order.codes]
    bought_ms, no_time = orders.times_ms("order_purchase_timestamp", "America/Sao_Paulo")
    status = orders.texts("order_status")
    undone = [name in ("canceled", "unavailable") for name in status.names]
    cancelled = np.array(undone)[status.codes]
    states = orders.texts("customer_state", "-") if "customer_state" in orders.columns else None
    num = len(items)
    rows = FileEvents(
        time_ms=bought_ms[found],
        row=np.arange(num),
        kind=np.full(num, ORDER),
        sku=items.texts("product_id"),
        region=states.take(found) if states else TextColumn.constant("-", num),
        quantity=np.ones(num),
        unit_price=items.numbers("price"),
        order_id=order,
    )
    kept, skipped = split(
        rows,
        {
            "item of an order that is not in the file": found < 0,
            "order without a time": no_time[found],
            "order cancelled or unavailable": cancelled[found],
        },
    )
    kept = kept.by_time()
    return ReplayFile("olist", kept, _olist_catalog(folder, first_prices(kept)), skipped)


def _olist_catalog(folder: Path, prices: dict[str, float]) -> dict[str, CatalogEntry]:
    """Category names in English where the folder translates them; the data set has no titles."""
    products = folder / "full_olist_products_dataset.parquet"
    if not products.is_file():
        return {sku: CatalogEntry(sku=sku, unit_price=price) for sku, price in prices.items()}
    table, english = Table(products), _olist_english(folder)
    table.need(("product_id", "product_category_name"), "--preset olist")
    names = table.texts("product_category_name")
    sku = table.texts("product_id")
    pairs = zip(sku.codes.tolist(), names.codes.tolist(), strict=True)
    category_of = {sku.names[code]: names.names[name] for code, name in pairs}
    entries = {}
    for name, price in prices.items():
        category = category_of.get(name, "")
        translated = english.get(category, category)
        entries[name] = CatalogEntry(sku=name, category=translated, unit_price=price)
    return entries


def _olist_english(folder: Path) -> dict[str, str]:
    path = folder / "product_category_name_translation.parquet"
    if not path.is_file():
        return {}
    table = Table(path)
    table.need(("product_category_name", "product_category_name_english"), "--preset olist")
    names = table.raw("product_category_name").to_pylist()
    english = table.raw("product_category_name_english").to_pylist()
    return dict(zip(names, english, strict=True))


def dunnhumby(path: Path) -> ReplayFile:
    """The Complete Journey: one event a basket line, by store, at what was paid for a unit.

    Times have no zone and are taken as UTC. Skipped: lines without a quantity (coupons and
    corrections); a line that cost nothing keeps its units at price 0.
    """
    table = Table(_in_folder(path, "transactions_sample.parquet"))
    table.need(JOURNEY_COLUMNS, "--preset dunnhumby")
    time_ms, no_time = table.times_ms("transaction_timestamp")
    quantity = table.numbers("quantity")
    sales = table.numbers("sales_value")
    with np.errstate(divide="ignore", invalid="ignore"):
        price: Floats = np.round(np.abs(sales / quantity), 4).astype(np.float64)
    rows = FileEvents(
        time_ms=time_ms,
        row=np.arange(len(table)),
        kind=np.full(len(table), ORDER),
        sku=table.texts("product_id"),
        region=table.texts("store_id", "-"),
        quantity=quantity,
        unit_price=price,
        order_id=table.texts("basket_id"),
    )
    kept, skipped = split(
        rows,
        {
            "no quantity": ~(np.abs(quantity) > 0),
            "no time": no_time,
            "no value": ~np.isfinite(price),
        },
    )
    kept = kept.by_time()
    return ReplayFile("dunnhumby", kept, _dunnhumby_catalog(table.path.parent, kept), skipped)


def _dunnhumby_catalog(folder: Path, rows: FileEvents) -> dict[str, CatalogEntry]:
    path = folder / "products.parquet"
    prices = first_prices(rows)
    if not path.is_file():
        return {sku: CatalogEntry(sku=sku, unit_price=price) for sku, price in prices.items()}
    table = Table(path)
    table.need(PRODUCT_COLUMNS, "--preset dunnhumby")
    columns = [table.raw(name).to_pylist() for name in PRODUCT_COLUMNS]
    entries = {}
    for row in zip(*columns, strict=True):
        sku, department, brand, category, kind, size = (value or "" for value in row)
        if sku in prices:
            entries[sku] = CatalogEntry(
                sku=sku,
                title=" ".join(part for part in (kind, size) if part),
                category=category or department,
                brand=brand,
                attributes={"department": department},
                unit_price=prices[sku],
            )
    return entries


def _in_folder(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _most_common(texts: TextColumn, sku: TextColumn) -> dict[str, str]:
    """The text that each sku has most often, blanks left out; the one seen first among equals."""
    together = np.stack([sku.codes, texts.codes])
    pairs, first, counts = np.unique(together, axis=1, return_index=True, return_counts=True)
    best: dict[str, str] = {}
    for pair in np.lexsort((first, -counts)).tolist():
        name = sku.names[int(pairs[0, pair])]
        text = texts.names[int(pairs[1, pair])].strip()
        if text:
            best.setdefault(name, text)
    return best
