"""Items without any window are named where text and price are enough to forecast them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from freshet.online.forecast.coldstart import ColdStart
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.schemas import CatalogEntry
from freshet.stream.units import HOUR_MS


def cold(owns: Callable[[str], bool] = lambda _: True, *, max_items: int = 9) -> ColdStart:
    return ColdStart(("sku", "region"), owns, max_items)


def tell(shop: ShopTables, entry: CatalogEntry) -> None:
    assert shop.apply("catalog", b"k%d" % shop.version, msgspec.json.encode(entry), 0)


def test_skus_without_windows_are_cold_in_every_known_region() -> None:
    shop, names = ShopTables(), cold()
    for sku in ("sold", "new"):
        tell(shop, CatalogEntry(sku=sku))
    assert names.item_ids(shop, 0, HOUR_MS) == []
    names.saw(["sold|n", "sold|s"])
    assert names.item_ids(shop, 0, HOUR_MS) == ["new|n", "new|s"]
    names.saw(["new|n"])
    assert names.item_ids(shop, 0, HOUR_MS) == []


def test_items_named_by_more_fields_than_now_count_as_sold() -> None:
    shop, names = ShopTables(), cold()
    for sku in ("sold", "new"):
        tell(shop, CatalogEntry(sku=sku))
    names.saw(["sold|n|web"])
    assert names.item_ids(shop, 0, HOUR_MS) == ["new|n"]


def test_cold_items_of_others_or_launched_later_are_left_and_the_newest_come_first() -> None:
    shop = ShopTables()
    for sku, launched in (
        ("soon", 5 * HOUR_MS),
        ("new", HOUR_MS),
        ("old", 0),
        ("far", 99 * HOUR_MS),
    ):
        tell(shop, CatalogEntry(sku=sku, launched_at=launched))
    mine = cold(lambda item: not item.startswith("soon"))
    mine.saw(["x|n"])
    assert mine.item_ids(shop, 2 * HOUR_MS, 8 * HOUR_MS) == ["new|n", "old|n"]
    few = cold(max_items=2)
    few.saw(["x|n"])
    assert few.item_ids(shop, 2 * HOUR_MS, 8 * HOUR_MS) == ["new|n", "soon|n"]


def test_with_other_fields_in_the_key_no_cold_item_can_be_named() -> None:
    names = ColdStart(("sku", "channel"), lambda _: True)
    names.saw(["a|web"])
    shop = ShopTables()
    tell(shop, CatalogEntry(sku="new"))
    assert names.item_ids(shop, 0, HOUR_MS) == []


def test_an_unknown_launch_counts_as_long_ago_and_of_one_moment_the_first_name_counts() -> None:
    shop = ShopTables()
    for sku, launched in (("b", HOUR_MS), ("a", HOUR_MS), ("unknown", None), ("c", HOUR_MS)):
        tell(shop, CatalogEntry(sku=sku, launched_at=launched))
    names = cold(max_items=2)
    names.saw(["x|n"])
    assert names.item_ids(shop, 2 * HOUR_MS, 0) == ["a|n", "b|n"]
    names = cold(max_items=4)
    names.saw(["x|n"])
    assert names.item_ids(shop, HOUR_MS, 0) == ["unknown|n"], "a launch at the end is after it"


def test_ids_are_written_and_read_in_the_order_of_the_fields_with_odd_names_escaped() -> None:
    shop, names = ShopTables(("region", "sku")), ColdStart(("region", "sku"), lambda _: True)
    for sku in ("o|d", "new"):
        tell(shop, CatalogEntry(sku=sku))
    names.saw(["s|sold", "n|o\\|d"])
    assert names.item_ids(shop, 0, HOUR_MS) == ["n|new", "s|new"]
    names.saw(["w|new"])
    assert names.item_ids(shop, 0, HOUR_MS) == []


def test_without_regions_in_the_key_each_sku_is_one_item() -> None:
    shop, names = ShopTables(("sku",)), ColdStart(("sku",), lambda _: True)
    for sku in ("sold", "new"):
        tell(shop, CatalogEntry(sku=sku))
    names.saw(["sold"])
    assert names.item_ids(shop, 0, HOUR_MS) == ["new"]


def test_items_of_others_do_not_take_the_places_of_mine() -> None:
    shop = ShopTables()
    for sku in ("a", "b", "xa", "xb"):
        tell(shop, CatalogEntry(sku=sku))
    names = cold(lambda item: not item.startswith("x"), max_items=2)
    names.saw(["z|n"])
    assert names.item_ids(shop, 0, HOUR_MS) == ["a|n", "b|n"]


def test_a_thousand_cold_items_are_forecast_at_most_unless_other_is_asked() -> None:
    shop, names = ShopTables(("sku",)), ColdStart(("sku",), lambda _: True)
    for number in range(1_002):
        tell(shop, CatalogEntry(sku=f"s{number:04d}"))
    names.saw(["s0500"])
    named = names.item_ids(shop, 0, HOUR_MS)
    assert (len(named), named[0], named[-1]) == (1_000, "s0000", "s1000")
