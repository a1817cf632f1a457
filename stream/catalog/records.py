"""Bytes of the shop's tables to records that can be used, and from when on each was known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from freshet.stream.codec import MAX_TIME_MS, decode, time_ms
from freshet.stream.errors import EventError
from freshet.stream.schemas import (
    RECORDS,
    CatalogEntry,
    Covariate,
    InventoryLevel,
    Promotion,
    Record,
    ShopTable,
)
from freshet.stream.slots import TOLD_OTHERWISE, Slot, covariate_slots

OWN_SLOTS: Final = covariate_slots({}, {})

AnyRecord = TypeVar("AnyRecord", bound=Record)


def usable(
    table: ShopTable,
    value: bytes,
    *,
    latest_ms: int = MAX_TIME_MS,
    slots: Mapping[str, Slot] = OWN_SLOTS,
) -> Record:
    """A record of one of the shop's tables.

    Args:
        table: Whose record it is.
        value: Its bytes.
        latest_ms: When it may say that something happened at the latest.
        slots: What covariates may be called.

    Raises:
        EventError: It cannot be used.
    """
    record = decode(RECORDS[table], value, latest_ms=latest_ms)
    match record:
        case CatalogEntry():
            _check_entry(record)
        case Promotion():
            _check_promotion(record)
        case InventoryLevel():
            time_ms(record.as_of)
        case Covariate():
            _check_covariate(record, slots)
    announced_ms(record, 0)
    return record


def announced_ms(record: Record, timestamp_ms: int) -> int:
    """From when on a record is known: what it says itself, else its Kafka timestamp.

    >>> entry = CatalogEntry(sku="a", announced_at="1970-01-01T00:00:02Z")
    >>> announced_ms(entry, 5_000), announced_ms(CatalogEntry(sku="a"), 5_000)
    (2000, 5000)
    """
    said = getattr(record, "announced_at", None)
    return timestamp_ms if said is None else time_ms(said)


def _check_entry(entry: CatalogEntry) -> None:
    price = entry.unit_price
    if price is not None and price <= 0:
        raise EventError(
            f"catalogue entry {entry.sku!r} has unit_price {price}; expected a positive number"
        )
    if entry.launched_at is not None:
        time_ms(entry.launched_at)  # Raises where it is no time.


def _check_promotion(promotion: Promotion) -> None:
    name = f"promotion {promotion.promotion_id!r}"
    _check_interval(name, promotion)
    if not 0 <= promotion.discount <= 1:
        raise EventError(f"{name} has discount {promotion.discount}; expected a share, 0 to 1")
    # Items without a category have the empty one.
    if promotion.sku is None and not promotion.category:
        raise EventError(f"{name} names neither a sku nor a category")


def _check_covariate(covariate: Covariate, slots: Mapping[str, Slot]) -> None:
    name = f"covariate {covariate.covariate_id!r}"
    _check_interval(name, covariate)
    if covariate.name in TOLD_OTHERWISE:
        raise EventError(f"{name} is called {covariate.name!r}, which no covariate may tell")
    slot = slots.get(covariate.name)
    if slot is None:
        expected = ", ".join(sorted(slots))
        raise EventError(f"{name} is called {covariate.name[:80]!r}; expected one of {expected}")
    if slot.flag and not 0 <= covariate.value <= 1:
        raise EventError(f"{name} has value {covariate.value}; expected a share, 0 to 1")


def _check_interval(name: str, record: Promotion | Covariate) -> None:
    starts_ms, ends_ms = time_ms(record.starts_at), time_ms(record.ends_at)
    if not starts_ms < ends_ms:
        raise EventError(f"{name} ends at {ends_ms}, not after its start {starts_ms}")
