"""Items that nobody has bought or looked at yet get forecasts from their text and price."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from freshet.stream.catalog.tables import ShopTables
from freshet.stream.schemas import item_id_of, item_id_parts

MAX_COLD_ITEMS = 1_000
COLD_FIELDS = {"sku", "region"}


class ColdStart:
    """Names the cold items of a shop: skus without any window, in every known region.

    Regions are known from items that have windows.

    Args:
        series_by: The fields of an item id; with others than sku and region nothing can be named in
            advance.
        owns: Which items are this worker's.
        max_items: Beyond it the newest launches come first.
        regions: Of the shop, as far as anybody saw them; shared with others who see items.
    """

    def __init__(
        self,
        series_by: Sequence[str],
        owns: Callable[[str], bool],
        max_items: int = MAX_COLD_ITEMS,
        regions: set[str] | None = None,
    ) -> None:
        self._series_by = tuple(series_by)
        self._owns = owns
        self._max_items = max_items
        self._skus: set[str] = set()
        self._regions = set() if regions is None else regions
        self._possible = "sku" in self._series_by and set(self._series_by) <= COLD_FIELDS

    def saw(self, item_ids: Sequence[str]) -> None:
        """These have windows. To be told of all items, whoever owns them."""
        if not self._possible:
            return
        for item_id in item_ids:
            fields = dict(zip(self._series_by, item_id_parts(item_id), strict=False))
            self._skus.add(fields["sku"])
            self._regions.add(fields.get("region", "-"))

    def item_ids(self, shop: ShopTables, cutoff_ms: int, horizon_ms: int) -> list[str]:
        """Cold items that are on sale before the horizon's end; sorted, at most `max_items`."""
        skus = [sku for sku in shop.skus() if sku not in self._skus]
        # Without a region in the ids, all regions name one item.
        items = dict.fromkeys(
            self._item(sku, region) for sku in skus for region in sorted(self._regions)
        )
        mine = [item_id for item_id in items if self._owns(item_id)]
        # An unknown launch counts as long ago.
        launched_ms = np.nan_to_num(shop.launched_ms(mine)).tolist()
        on_sale = [
            (-launch_ms, item_id)
            for launch_ms, item_id in zip(launched_ms, mine, strict=True)
            if launch_ms < cutoff_ms + horizon_ms
        ]
        newest_first = sorted(on_sale)[: self._max_items]
        return sorted(item_id for _, item_id in newest_first)

    def _item(self, sku: str, region: str) -> str:
        values = {"sku": sku, "region": region}
        return item_id_of([values[field] for field in self._series_by])
