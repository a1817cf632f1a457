"""Opens a file for replay: by the name of a preset, or by a map from our fields to its columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.read import FileStyle
from freshet.stream.source.replay.presets import dunnhumby, olist, online_retail, taobao
from freshet.stream.source.replay.rows import (
    CART,
    CLICK_NAMES,
    FAVOURITE,
    ORDER,
    VIEW,
    FileEvents,
    ReplayFile,
    TextColumn,
    split,
)
from freshet.stream.source.replay.table import Table

PRESETS = {"online_retail": online_retail, "taobao": taobao, "olist": olist, "dunnhumby": dunnhumby}


@dataclass(frozen=True, slots=True)
class Export:
    """A shop system's own export of orders.

    Attributes:
        columns: Our field -> its column.
        nameless: Our field -> what live records of that system are called where they say nothing.
        optional: Fields whose column an export may lack.
    """

    columns: Mapping[str, str]
    nameless: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


NO_EXPORT = Export({})
# They agree with the maps of live records in stream/presets: one shop, one series.
EXPORTS = {
    "shopify_csv": Export(
        columns={
            "event_time": "Created at",
            "order_id": "Id",
            "sku": "Lineitem sku",
            "quantity": "Lineitem quantity",
            "unit_price": "Lineitem price",
            "cancelled": "Cancelled at",
            "region": "Shipping Country|Billing Country",
        },
        nameless={"sku": "no-sku"},
        optional=frozenset({"region", "cancelled"}),
    )
}
# 5.80134E+12: what a spreadsheet makes of a long number, and many of one.
_SHORTENED = re.compile(r"-?\d([.,]\d+)?[eE]\+\d+")
FIELDS = (
    *("event_time", "sku", "quantity", "unit_price", "region"),
    *("order_id", "event_id", "kind", "cancelled"),
)
NEEDED = ("event_time", "sku")
ORDER_WORDS = ("order", "buy", "purchase", "sale", "transaction")
CLICK_WORDS = {name: number for number, name in enumerate(CLICK_NAMES) if name}
CLICK_WORDS |= {"pv": VIEW, "fav": FAVOURITE, "addtocart": CART}


def parse_map(text: str) -> dict[str, str]:
    """`field=column,field=column` as a dictionary.

    >>> parse_map("event_time=ts,sku=item")
    {'event_time': 'ts', 'sku': 'item'}

    Raises:
        InvalidInputError: A part has no `=`, or names an unknown field.
    """
    mapping = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or name not in FIELDS or not column:
            raise InvalidInputError(
                f"--map: {part!r} is not field=column", hint=f"the fields are {', '.join(FIELDS)}"
            )
        mapping[name] = column
    return mapping


def open_replay(
    path: Path,
    *,
    preset: str | None = None,
    mapping: Mapping[str, str] | None = None,
    style: FileStyle | None = None,
    whole_orders: bool = False,
    series: Sequence[str] = (),
) -> ReplayFile:
    """Read a whole file and bring its rows into time order.

    Args:
        path: A parquet or CSV file; a preset also takes the folder.
        preset: One of `PRESETS`, or of `EXPORTS`, whose columns a map may add to.
        mapping: Our field -> the file's column, `A|B` for the first of two that says something
            (of texts); `event_time` and `sku` are needed. Without `kind`
            every row is an order; without `quantity` it is of one unit; without `unit_price` it is
            free; without `region` it is in "-".
        style: How a mapped file is written, where it does not tell.
        whole_orders: Whether rows of one `order_id` are one order; rows without one then belong to
            the order above them, whose time, region and cancellation they share.
        series: Fields besides ours that a map must name too: what a series is.

    Raises:
        InvalidInputError: Neither or both ways are given, the file cannot be read, or it lacks a
            column.
    """
    if preset in EXPORTS:
        return _mapped(path, mapping or {}, style, whole_orders, series, EXPORTS[preset])
    if (preset is None) == (mapping is None):
        raise InvalidInputError(
            "a table of events needs either a preset or a map",
            hint=f"--preset {', '.join((*EXPORTS, *PRESETS))}, or --map field=column,...",
        )
    if preset is None:
        return _mapped(path, mapping or {}, style, whole_orders, series)
    if preset not in PRESETS:
        raise InvalidInputError(
            f"unknown preset {preset!r}; expected one of {', '.join((*EXPORTS, *PRESETS))}"
        )
    return PRESETS[preset](path)


def _mapped(
    path: Path,
    mapping: Mapping[str, str],
    style: FileStyle | None,
    whole_orders: bool,
    series: Sequence[str],
    export: Export = NO_EXPORT,
) -> ReplayFile:
    extra = [name for name in series if name not in FIELDS]
    table = Table(path, style)
    mapping = _columns(table, mapping, extra, export)
    num = len(table)
    time_ms, no_time = table.times_ms(mapping["event_time"])
    kind, unknown = _kinds(table, mapping.get("kind"))

    def texts(name: str) -> TextColumn | None:
        if name not in mapping:
            return None
        found = _first(table, mapping[name], export.nameless.get(name, ""))
        _refuse_shortened(found, mapping[name], path)
        return found

    def numbers(field: str, otherwise: float) -> Floats:
        return table.numbers(mapping[field]) if field in mapping else np.full(num, otherwise)

    region = TextColumn.constant("-", num)
    if "region" in mapping:
        region = _first(table, mapping["region"], "-")
    sku, orders = texts("sku"), texts("order_id")
    assert sku is not None, "the map was looked at for what is needed"
    cancelled = None
    if "cancelled" in mapping:
        cancelled = _claims(table, mapping["cancelled"])
    if whole_orders and orders is not None:
        owner = _owners(orders)
        orders, region = orders.take(owner), region.take(owner)
        time_ms, no_time = time_ms[owner], no_time[owner]
        cancelled = None if cancelled is None else cancelled[owner]
    rows = FileEvents(
        time_ms=time_ms,
        row=np.arange(num),
        kind=kind,
        sku=sku,
        region=region,
        quantity=numbers("quantity", otherwise=1.0),
        unit_price=numbers("unit_price", otherwise=0.0),
        order_id=orders,
        event_id=texts("event_id"),
        series={name: table.texts(mapping[name]) for name in extra},
    )
    blank = np.array([name == "" for name in rows.sku.names])
    order = rows.kind == ORDER
    kept, skipped = split(
        rows,
        {
            "no time": no_time,
            "no sku": blank[rows.sku.codes],
            "unknown kind": unknown,
            "no quantity": order & ~(np.abs(rows.quantity) > 0),
            "no price": order & ~(rows.unit_price >= 0),
            "cancelled": np.zeros(num, bool) if cancelled is None else order & cancelled,
            **({"no order": ~_named(orders)} if whole_orders and orders is not None else {}),
        },
    )
    return ReplayFile(path.stem, kept.by_time(), {}, skipped)


def _columns(
    table: Table, mapping: Mapping[str, str], extra: Sequence[str], export: Export
) -> dict[str, str]:
    """The column of each field: as the map says, else as the export has it.

    Raises:
        InvalidInputError: A field is none of ours, is needed and missing, or its column is.
    """
    fields = (*FIELDS, *extra)
    unknown = [name for name in mapping if name not in fields]
    if unknown:
        raise InvalidInputError(
            f"--map: there is no field {unknown[0]!r}", hint=f"the fields are {', '.join(fields)}"
        )
    own = {
        name: column
        for name, column in export.columns.items()
        if name not in export.optional or set(column.split("|")) & set(table.columns)
    }
    found = {**own, **mapping}
    missing = [name for name in (*NEEDED, *extra) if name not in found]
    if missing:
        raise InvalidInputError(
            f"--map does not say which column of {table.path.name} is {missing[0]!r}; "
            f"its columns are {', '.join(table.columns)}"
        )
    table.need([name for said in found.values() for name in _either(table, said)], "--map")
    return found


def _either(table: Table, said: str) -> list[str]:
    """The columns that a map names: one, or those of `A|B` that are there."""
    names = [said] if said in table.columns else said.split("|")
    return [name for name in names if name in table.columns] or [said]


def _first(table: Table, said: str, missing: str = "") -> TextColumn:
    """Of several columns what the first says that says something."""
    names = _either(table, said)
    found = table.texts(names[0])
    for name in names[1:]:
        other = table.texts(name)
        codes = np.where(_named(found), found.codes, other.codes + len(found.names))
        found = TextColumn(codes, [*found.names, *other.names])
    codes = np.where(_named(found), found.codes, len(found.names))
    return TextColumn(codes, [*found.names, missing])


def _refuse_shortened(column: TextColumn, name: str, path: Path) -> None:
    """Refuse names that a spreadsheet has made numbers of: many have become one."""
    for text in column.names:
        if _SHORTENED.fullmatch(text):
            raise InvalidInputError(
                f"{path.name}: column {name!r} holds {text}: a spreadsheet has shortened long "
                "names, and many are one now",
                hint="export it again and do not save it from a spreadsheet, or name another "
                "column, such as order_id=Name",
            )


def _owners(orders: TextColumn) -> Ints:
    """The row of each row's order: itself, or the one above where it names no order."""
    named = _named(orders)
    rows = np.where(named, np.arange(len(named)), 0)
    return np.maximum.accumulate(rows) if len(rows) else rows


def _named(column: TextColumn) -> Bools:
    return np.array([name != "" for name in column.names], bool)[column.codes]


def _claims(table: Table, column: str) -> Bools:
    """Where a column says something other than no."""
    texts = table.texts(column)
    said = [name.strip().lower() not in ("", "0", "false", "no", "n") for name in texts.names]
    return np.array(said, bool)[texts.codes]


def _kinds(table: Table, column: str | None) -> tuple[Ints, Bools]:
    """The kind of each row, and where the file names one that we do not know."""
    if column is None:
        return np.full(len(table), ORDER), np.zeros(len(table), dtype=bool)
    texts = table.texts(column)
    number_of_name = [_kind(name) for name in texts.names]
    kind = np.array(number_of_name, np.int64)[texts.codes]
    return kind, kind < 0


def _kind(name: str) -> int:
    """The number of a kind as people write it, in the singular or the plural; -1 if unknown.

    >>> _kind("Orders") == ORDER, CLICK_NAMES[_kind(" addtocart")], _kind("refund")
    (True, 'cart', -1)
    """
    word = name.strip().lower().rstrip("s")
    return ORDER if word in ORDER_WORDS else CLICK_WORDS.get(word, -1)
