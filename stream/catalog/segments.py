"""Which segment of the shop an item belongs to, as drift and its weights are told apart."""

from __future__ import annotations

from collections.abc import Sequence

from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import item_id_parts

NO_SEGMENT = "-"


def segments_of(
    item_ids: Sequence[str], settings: DriftSettings, shop: ShopTables, series_by: Sequence[str]
) -> list[str]:
    """The segment of each item; `-` where its category or field is unknown."""
    if settings.segment_by == "category":
        return [category or NO_SEGMENT for category in shop.categories(item_ids)]
    if settings.segment_by not in series_by:
        return [NO_SEGMENT] * len(item_ids)
    place = series_by.index(settings.segment_by)
    return [item_id_parts(item_id)[place] for item_id in item_ids]
