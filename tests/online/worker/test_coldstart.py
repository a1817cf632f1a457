"""Items without any window are named where text and price are enough to forecast them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from freshet.online.worker.coldstart import ColdStart
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
