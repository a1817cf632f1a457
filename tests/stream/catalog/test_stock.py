"""Stock: units by region, and since when a series has any."""

from __future__ import annotations

import math

import pytest

from freshet.stream.catalog import stock
from freshet.stream.catalog.stock import Series, StockTable
from freshet.stream.errors import EventError
from freshet.stream.schemas import InventoryLevel


def told(table: StockTable, as_of: int, on_hand: float, region: str | None = "n") -> None:
    level = InventoryLevel(sku="a", region=region, on_hand=on_hand, as_of=as_of)
    series, about = table.take(level)
    assert about == region and series[0] == "a"


def changes(table: StockTable, series: Series) -> list[tuple[int, float]]:
    found = table.changes(series)
    assert found is not None
    return list(zip(found.times_ms, found.values, strict=True))


def test_the_newest_record_of_a_region_counts_and_of_two_of_one_time_the_last() -> None:
    table = StockTable(by_region=True)
    told(table, 10, 5)
    told(table, 9, 0)
    assert table.on_hand(("a", "n")) == 5 and changes(table, ("a", "n")) == [(10, 1.0)]
    told(table, 10, 0)
    assert table.on_hand(("a", "n")) == 0 and changes(table, ("a", "n")) == [(10, 0.0)]
    told(table, 11, 3)
    assert changes(table, ("a", "n")) == [(10, 0.0), (11, 1.0)]


def test_regions_are_series_of_their_own_or_one_together() -> None:
    apart, together = StockTable(by_region=True), StockTable(by_region=False)
    for table in (apart, together):
        told(table, 10, 5, "n")
        told(table, 12, 0, "s")
        told(table, 14, 2, "s")
    assert (apart.on_hand(("a", "n")), apart.on_hand(("a", "s"))) == (5, 2)
    assert changes(apart, ("a", "s")) == [(12, 0.0), (14, 1.0)]
    assert together.on_hand(("a", None)) == 7
    assert changes(together, ("a", None)) == [(10, 1.0)]
    told(together, 20, 0, "n")
    assert changes(together, ("a", None)) == [(10, 1.0)], "the other region still has some"
    told(together, 21, -1, "s")
    assert changes(together, ("a", None)) == [(10, 1.0), (21, 0.0)]
    assert together.on_hand(("a", None)) == -1


def test_the_record_without_region_stands_for_those_that_have_none_of_their_own() -> None:
    table = StockTable(by_region=True)
    told(table, 1, 4, None)
    told(table, 1, 9, "n")
    assert [table.on_hand(("a", region)) for region in ("n", "s", None)] == [9, 4, 4]
    assert changes(table, ("a", "s")) == [(1, 1.0)]
    assert math.isnan(table.on_hand(("b", "n"))) and table.changes(("b", "n")) is None


def test_a_region_that_is_deleted_leaves_the_others_and_the_last_one_the_series() -> None:
    table = StockTable(by_region=False)
    told(table, 10, 5, "n")
    told(table, 20, 0, "s")
    table.drop(("a", None), "n")
    assert table.on_hand(("a", None)) == 0
    assert changes(table, ("a", None)) == [(10, 1.0), (20, 0.0)]
    table.drop(("a", None), "s")
    assert math.isnan(table.on_hand(("a", None))) and table.changes(("a", None)) is None
    table.drop(("never", None), "s")


@pytest.mark.parametrize("on_hand", [math.inf, -math.inf, math.nan])
def test_no_number_of_units_is_refused_and_leaves_what_was_known(on_hand: float) -> None:
    table = StockTable(by_region=True)
    told(table, 10, 5)
    with pytest.raises(EventError, match="expected a finite number"):
        told(table, 11, on_hand)
    assert table.on_hand(("a", "n")) == 5


def test_only_the_newest_changes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "MAX_STOCK_CHANGES", 2)
    table = StockTable(by_region=True)
    for time_ms in range(5):
        told(table, time_ms, time_ms % 2)
    assert changes(table, ("a", "n")) == [(3, 1.0), (4, 0.0)]


def test_each_region_tells_its_units_and_as_of_when() -> None:
    table = StockTable(by_region=False)
    told(table, 10, 5, "n")
    told(table, 12, 3, "s")
    told(table, 11, 9, "s")
    assert sorted(table.levels(("a", None))) == [(10, 5), (12, 3)]
    assert table.levels(("b", None)) == []
