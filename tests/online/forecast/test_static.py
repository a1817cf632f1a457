"""Static features of items: each text is encoded once, and what is forgotten is encoded again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from freshet.model.text import NUM_TEXT, encode_texts
from freshet.online.forecast import static as module
from freshet.online.forecast.static import StaticFeatures
from freshet.stream.arrays import Singles
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.schemas import CatalogEntry
from tests.online.worker.windows import tell

DAY_MS = 86_400_000


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts that were encoded, call by call."""
    asked: list[list[str]] = []

    def encode(texts: list[str]) -> Singles:
        asked.append(list(texts))
        return encode_texts(texts)

    monkeypatch.setattr(module, "encode_texts", encode)
    return asked


def shop_of(*titles: str) -> ShopTables:
    shop = ShopTables()
    for title in titles:
        tell(shop, "catalog", CatalogEntry(sku=title, title=title))
    return shop


def texts_of(features: StaticFeatures, *item_ids: str) -> Singles:
    return features.of(list(item_ids), 0)[:, :NUM_TEXT]


def test_each_text_is_encoded_once_and_stands_in_the_row_of_its_item(
    encoded: list[list[str]],
) -> None:
    features = StaticFeatures(shop_of("shoe", "lamp", "cup"))
    found = texts_of(features, "lamp|n", "shoe|n", "lamp|s")
    np.testing.assert_array_equal(found, encode_texts(["lamp", "shoe", "lamp"]))
    np.testing.assert_array_equal(
        texts_of(features, "cup|n", "lamp|n"), encode_texts(["cup", "lamp"])
    )
    assert encoded == [["lamp", "shoe"], ["cup"]]


def test_when_too_many_texts_are_kept_all_are_forgotten_and_nothing_is_mixed_up(
    encoded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TEXTS", 3)
    features = StaticFeatures(shop_of("shoe", "lamp", "cup", "hat"))
    texts_of(features, "shoe|n", "lamp|n", "cup|n")
    found = texts_of(features, "cup|n", "hat|n")
    np.testing.assert_array_equal(found, encode_texts(["cup", "hat"]))
    texts_of(features, "hat|n", "shoe|n")
    assert encoded == [["shoe", "lamp", "cup"], ["cup", "hat"], ["shoe"]]


def test_a_text_that_changed_price_and_age_are_those_of_the_time_that_is_asked_for() -> None:
    shop = ShopTables()
    entry = CatalogEntry(sku="a", title="Shoe", unit_price=8.0, launched_at=DAY_MS)
    tell(shop, "catalog", entry, DAY_MS)
    features = StaticFeatures(shop)
    before = features.of(["a|n"], 4 * DAY_MS)
    tell(shop, "catalog", CatalogEntry(sku="a", title="Boot", unit_price=9.0), 8 * DAY_MS)
    after = features.of(["a|n"], 9 * DAY_MS)
    np.testing.assert_array_equal(before[:, :NUM_TEXT], encode_texts(["Shoe"]))
    np.testing.assert_array_equal(after[:, :NUM_TEXT], encode_texts(["Boot"]))
    np.testing.assert_allclose(
        before[0, NUM_TEXT : NUM_TEXT + 2], [math.log(8.0), math.log(1 + 3)], rtol=1e-6
    )
    assert after[0, NUM_TEXT] == pytest.approx(math.log(9.0))
