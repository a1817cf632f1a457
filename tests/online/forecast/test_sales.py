"""Which items are forecast by the minute, by what was known of their sales at each time."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.forecast.sales import SaleSpan, begun_ms, sale_spans, skus_at
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.schemas import CatalogEntry, Promotion
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.online.worker.windows import tell

DAY = 20_000 * DAY_MS
NOON = DAY + 12 * HOUR_MS


def sale(name: str = "p", *, hours: int = 2, kind: str = "flash_sale", **scope: str) -> Promotion:
    """One that starts at noon."""
    return Promotion(
        promotion_id=name,
        starts_at=NOON,
        ends_at=NOON + hours * HOUR_MS,
        discount=0.3,
        kind=kind,
        **(scope or {"sku": "a"}),
    )


def announced(*announcements: tuple[Promotion | None, int]) -> list[SaleSpan]:
    """The spans of sales that were announced one after another under one key; None withdraws."""
    shop = ShopTables()
    for record, at_ms in announcements:
        value = None if record is None else msgspec.json.encode(record)
        assert shop.apply("promotions", b"p", value, at_ms)
    return sorted(sale_spans(shop, DAY, DAY + DAY_MS), key=lambda span: span.from_ms)


def test_the_items_of_a_sale_are_forecast_from_a_day_before_it_until_it_ends() -> None:
    (span,) = announced((sale(), DAY - 5 * DAY_MS))
    assert span == SaleSpan(NOON - DAY_MS, NOON + 2 * HOUR_MS, ("a",))


def test_before_a_sale_was_announced_nobody_knows_of_it() -> None:
    (span,) = announced((sale(), NOON - HOUR_MS))
    assert span == SaleSpan(NOON - HOUR_MS, NOON + 2 * HOUR_MS, ("a",))
    assert announced((sale(), NOON + 2 * HOUR_MS)) == [], "it was over before anybody knew"


def test_other_promotions_are_no_sales() -> None:
    assert announced((sale(kind="promotion"), DAY)) == []


def test_a_sale_of_a_category_is_about_all_skus_of_it() -> None:
    shop = ShopTables()
    for sku, category in (("b", "shoes"), ("a", "shoes"), ("c", "hats")):
        tell(shop, "catalog", CatalogEntry(sku=sku, category=category))
    tell(shop, "promotions", sale(category="shoes"), DAY)
    (span,) = sale_spans(shop, DAY, DAY + DAY_MS)
    assert span.skus == ("a", "b")


def test_a_sale_that_is_announced_again_goes_on_without_a_break() -> None:
    """A changed end does not make it unknown before the change."""
    spans = announced((sale(hours=2), DAY - DAY_MS), (sale(hours=3), NOON + HOUR_MS))
    assert spans == [
        SaleSpan(NOON - DAY_MS, NOON + HOUR_MS, ("a",)),
        SaleSpan(NOON + HOUR_MS, NOON + 3 * HOUR_MS, ("a",)),
    ]
    assert skus_at(spans, NOON + HOUR_MS - 1) == skus_at(spans, NOON + HOUR_MS) == {"a"}
    assert begun_ms(spans, NOON + 2 * HOUR_MS) == NOON - DAY_MS


@pytest.mark.parametrize("after", [None, sale(kind="promotion")])
def test_a_sale_that_is_withdrawn_ends_then(after: Promotion | None) -> None:
    spans = announced((sale(), DAY), (after, NOON + HOUR_MS))
    assert spans == [SaleSpan(DAY, NOON + HOUR_MS, ("a",))]


def test_only_sales_of_the_time_that_is_asked_for_are_looked_at() -> None:
    shop = ShopTables()
    tell(shop, "promotions", sale(), 0)
    end_ms = NOON + 2 * HOUR_MS

    def found(from_ms: int, to_ms: int) -> int:
        return len(sale_spans(shop, from_ms, to_ms))

    assert found(end_ms - 1, end_ms) == 1 and found(end_ms, end_ms + DAY_MS) == 0
    # It is near from a day before its start on.
    assert found(0, NOON - DAY_MS + 1) == 1 and found(0, NOON - DAY_MS) == 0


# Spans --------------------------------------------------------------------------------------------


def test_skus_linger_after_their_sale_for_as_long_as_is_asked() -> None:
    spans = [SaleSpan(10, 20, ("a",)), SaleSpan(15, 30, ("b",))]
    asked = [(9, 0), (10, 0), (19, 0), (20, 0), (24, 5), (25, 5), (34, 5), (35, 5)]
    assert ["".join(sorted(skus_at(spans, at, linger))) for at, linger in asked] == [
        "",
        "a",
        "ab",
        "b",
        "ab",
        "b",
        "b",
        "",
    ]


@pytest.mark.parametrize(
    ("time_ms", "begin_ms"),
    [
        (9, None),
        (10, 10),
        (19, 10),
        # The next span takes over at the very moment.
        (20, 10),
        (29, 10),
        # One within another, and one that reaches further than it.
        (41, 40),
        (55, 40),
        (69, 40),
        (70, None),
        # A gap of a single moment.
        (81, 81),
    ],
)
def test_since_when_without_a_break(time_ms: int, begin_ms: int | None) -> None:
    spans = [
        SaleSpan(20, 30, ("b",)),
        SaleSpan(10, 20, ("a",)),
        SaleSpan(40, 60, ("a",)),
        SaleSpan(45, 50, ("b",)),
        SaleSpan(58, 70, ("b",)),
        SaleSpan(75, 80, ("a",)),
        SaleSpan(81, 90, ("a",)),
    ]
    assert begun_ms(spans, time_ms) == begin_ms


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=8), st.integers(0, 50))
def test_since_when_agrees_with_looking_at_every_moment(
    drawn: list[tuple[int, int]], time_ms: int
) -> None:
    spans = [SaleSpan(start, start + length, ("a",)) for start, length in drawn]
    begin_ms = time_ms
    while skus_at(spans, begin_ms):
        begin_ms -= 1
    assert begun_ms(spans, time_ms) == (None if begin_ms == time_ms else begin_ms + 1)
