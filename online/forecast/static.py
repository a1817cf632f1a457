"""What an item is, whatever sells: its text, price and age as the network's static features."""

from __future__ import annotations

from freshet.model.text import NUM_TEXT, encode_texts, static_features
from freshet.stream.arrays import Singles
from freshet.stream.catalog.tables import ShopTables

MAX_TEXTS = 200_000  # encoded texts that are kept, 200 MB at most


class StaticFeatures:
    """Static features of items; each text is encoded once, since that costs most.

    Args:
        shop: Texts, prices and launches.
    """

    def __init__(self, shop: ShopTables) -> None:
        self._shop = shop
        self._encoded: dict[str, Singles] = {}

    def of(self, item_ids: list[str], as_of_ms: int) -> Singles:
        """float32[B, F], the text's features first, as of a time."""
        texts = self._shop.texts(item_ids, as_of_ms=as_of_ms)
        prices_B = self._shop.unit_prices(item_ids, as_of_ms=as_of_ms)
        age_ms_B = as_of_ms - self._shop.launched_ms(item_ids, as_of_ms=as_of_ms)
        # Without texts here: theirs are filled in from those that were encoded before.
        static_BF = static_features([""] * len(texts), prices_B, age_ms_B)
        self._encode(texts)
        for row, text in enumerate(texts):
            static_BF[row, :NUM_TEXT] = self._encoded[text]
        return static_BF

    def _encode(self, texts: list[str]) -> None:
        distinct = dict.fromkeys(texts)
        new = [text for text in distinct if text not in self._encoded]
        if len(self._encoded) + len(new) > MAX_TEXTS:
            self._encoded.clear()
            new = list(distinct)
        self._encoded.update(zip(new, encode_texts(new), strict=True))
