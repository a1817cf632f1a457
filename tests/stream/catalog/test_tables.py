"""Records of the three tables through time: what is known of each item, and when."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from freshet.stream.catalog import covariates, entries, promotions, stock
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.codec import time_ms
from freshet.stream.units import HOUR_MS


def put(shop: ShopTables, topic_kind: Any, at_ms: int, /, *, key: str, **fields: Any) -> bool:
    return shop.apply(topic_kind, key.encode(), json.dumps(fields).encode(), at_ms)


def entry(shop: ShopTables, at_ms: int, sku: str = "a", **fields: Any) -> bool:
    return put(shop, "catalog", at_ms, key=sku, sku=sku, **fields)


def promotion(
    shop: ShopTables, at_ms: int, name: str, starts: int, ends: int, discount: float, **fields: Any
) -> bool:
    values = {
        "promotion_id": name,
        "starts_at": starts,
        "ends_at": ends,
        "discount": discount,
        **fields,
    }
    return put(shop, "promotions", at_ms, key=name, **values)


def covariate(
    shop: ShopTables, at_ms: int, name: str, starts: int, ends: int, **fields: Any
) -> bool:
    values = {"covariate_id": name, "name": "closed", "starts_at": starts, "ends_at": ends}
    return put(shop, "covariates", at_ms, key=name, **values | fields)


def level(
    shop: ShopTables, as_of: int, on_hand: float, sku: str = "a", region: str | None = "n"
) -> bool:
    return put(
        shop,
        "inventory",
        as_of,
        key=f"{sku}/{region}",
        sku=sku,
        region=region,
        on_hand=on_hand,
        as_of=as_of,
    )


def hours(start_ms: int, steps: int) -> BucketSpan:
    return BucketSpan(start_ms, steps, HOUR_MS)


def test_prices_change_from_the_records_time_on_and_are_relative_to_the_price_now() -> None:
    shop = ShopTables()
    entry(shop, 1 * HOUR_MS, unit_price=4.0)
    entry(shop, 3 * HOUR_MS, unit_price=2.0)
    ratio = shop.known(["a|n"], hours(0, 6))[0, :, 0]
    assert np.isnan(ratio[0])
    assert ratio[1:].tolist() == [2.0, 2.0, 1.0, 1.0, 1.0]
    assert shop.unit_prices(["a|n", "b|n"])[0] == 2.0 and np.isnan(shop.unit_prices(["b|n"])[0])


def test_what_is_known_comes_in_the_order_of_the_items_however_they_share_skus() -> None:
    shop = ShopTables()
    for sku, discount in (("a", 0.25), ("b", 0.5), ("c", 0.75)):
        promotion(shop, 0, sku, 0, HOUR_MS, discount, sku=sku)
    discount_of = {"a|n": 0.25, "a|s": 0.25, "b|n": 0.5, "c|n": 0.75}
    for text in ("a|n b|n c|n", "a|n c|n b|n", "c|n b|n a|n", "b|n a|n a|s", "a|n a|s b|n"):
        items = text.split()
        known = shop.known(items, hours(0, 1))
        assert known[:, 0, 2].tolist() == [discount_of[item] for item in items]


def test_the_tables_are_as_new_as_their_newest_record_and_each_makes_a_version() -> None:
    shop = ShopTables()
    assert (shop.version, shop.newest_ms) == (0, 0)
    entry(shop, 7)
    level(shop, 5, 1)
    assert (shop.version, shop.newest_ms) == (2, 7)
    shop.apply("catalog", b"a", None, 9)
    assert (shop.version, shop.newest_ms) == (3, 9)


def test_tables_that_start_over_know_nothing_and_that_is_a_new_version() -> None:
    shop = ShopTables()
    entry(shop, 7)
    level(shop, 5, 1)
    shop.start_over()
    assert (shop.version, shop.newest_ms, shop.skus()) == (3, 0, [])
    assert np.isnan(shop.on_hand(["a|n"])).all()
    entry(shop, 7)
    assert shop.skus() == ["a"]


def test_a_price_as_of_a_time_is_that_of_then() -> None:
    shop = ShopTables()
    entry(shop, 3, unit_price=4.0)
    entry(shop, 7, unit_price=2.0)
    prices = [shop.unit_prices(["a|n"], as_of_ms=at_ms)[0] for at_ms in (2, 3, 6, 7)]
    assert np.isnan(prices[0]) and prices[1:] == [4.0, 4.0, 2.0]


def test_at_a_cutoff_a_later_price_is_not_known() -> None:
    shop = ShopTables()
    entry(shop, 0, unit_price=4.0)
    entry(shop, 3 * HOUR_MS, unit_price=2.0)
    assert shop.known(["a|n"], hours(0, 5), as_of_ms=3 * HOUR_MS - 1)[0, :, 0].tolist() == [1.0] * 5
    assert shop.known(["a|n"], hours(0, 5), as_of_ms=3 * HOUR_MS)[0, :, 0].tolist() == [
        2.0,
        2.0,
        2.0,
        1.0,
        1.0,
    ]


def test_promotions_of_a_sku_and_of_its_category_appear_in_future_steps() -> None:
    shop = ShopTables()
    entry(shop, 0, category="shoes", unit_price=1.0)
    entry(shop, 0, sku="b", category="hats", unit_price=1.0)
    promotion(shop, 0, "p1", 2 * HOUR_MS, 4 * HOUR_MS, 0.3, category="shoes")
    promotion(
        shop, 0, "p2", 3 * HOUR_MS, 3 * HOUR_MS + HOUR_MS // 2, 0.5, sku="a", kind="flash_sale"
    )
    known = shop.known(["a|n", "b|n", "c|n"], hours(0, 5))
    assert known[0, :, 1].tolist() == [0, 0, 1, 1, 0]
    np.testing.assert_allclose(known[0, :, 2], [0, 0, 0.3, 0.3, 0])
    assert not known[1:, :, 1:3].any()


def test_a_promotion_that_covers_part_of_a_bucket_counts_in_part() -> None:
    shop = ShopTables()
    promotion(shop, 0, "p", HOUR_MS + HOUR_MS // 4, 2 * HOUR_MS + HOUR_MS // 2, 0.4, sku="a")
    known = shop.known(["a|n"], hours(0, 4))
    np.testing.assert_allclose(known[0, :, 1], [0, 0.75, 0.5, 0])
    np.testing.assert_allclose(known[0, :, 2], [0, 0.3, 0.2, 0], rtol=1e-6)


def test_a_promotion_announced_after_the_cutoff_is_not_known_at_it() -> None:
    shop = ShopTables()
    promotion(shop, 5 * HOUR_MS, "p", 6 * HOUR_MS, 7 * HOUR_MS, 0.4, sku="a")
    promotion(shop, 8 * HOUR_MS, "p", 6 * HOUR_MS, 7 * HOUR_MS, 0.5, sku="a")
    assert not shop.known(["a|n"], hours(0, 8), as_of_ms=4 * HOUR_MS)[0, :, 1].any()
    for as_of_h, discount in ((5, 0.4), (7, 0.4), (8, 0.5)):
        known = shop.known(["a|n"], hours(0, 8), as_of_ms=as_of_h * HOUR_MS)
        np.testing.assert_allclose(known[0, 6, :3], [np.nan, 1, discount])


def test_an_updated_promotion_replaces_the_old_one_and_a_tombstone_deletes_it() -> None:
    shop = ShopTables()
    promotion(shop, 0, "p", 0, HOUR_MS, 0.4, sku="a")
    promotion(shop, 0, "p", HOUR_MS, 2 * HOUR_MS, 0.4, sku="b")
    assert not shop.known(["a|n"], hours(0, 3))[0, :, 1].any()
    assert shop.known(["b|n"], hours(0, 3))[0, :, 1].tolist() == [0, 1, 0]
    assert [p.promotion_id for p in shop.active_promotions(HOUR_MS)] == ["p"]
    assert shop.promotion_times("p") == (HOUR_MS, 2 * HOUR_MS)
    assert shop.apply("promotions", b"p", None, 5)
    assert shop.active_promotions(HOUR_MS) == []
    assert not shop.known(["b|n"], hours(0, 3))[0, :, 1].any()


def test_active_promotions_are_those_running_now_end_exclusive() -> None:
    shop = ShopTables()
    promotion(shop, 0, "late", 10, 20, 0.1, category="x")
    promotion(shop, 0, "early", 5, 20, 0.1, sku="s")
    assert [p.promotion_id for p in shop.active_promotions(10)] == ["early", "late"]
    assert [p.promotion_id for p in shop.active_promotions(9)] == ["early"]
    assert shop.active_promotions(20) == []
    entry(shop, 0, sku="b", category="x")
    entry(shop, 0, sku="a", category="x")
    assert shop.promoted_skus(shop.active_promotions(10)[1]) == ["a", "b"]
    assert shop.promoted_skus(shop.active_promotions(10)[0]) == ["s"]


def test_promotions_of_a_sku_touch_a_span_whose_start_is_inclusive_and_its_end_exclusive() -> None:
    shop = ShopTables()
    entry(shop, 0, category="x")
    promotion(shop, 0, "mine", 10, 20, 0.1, sku="a")
    promotion(shop, 0, "early", 5, 12, 0.1, category="x")
    promotion(shop, 0, "also", 10, 20, 0.1, sku="a")
    promotion(shop, 0, "other", 10, 20, 0.1, category="y")

    def named(sku: str, from_ms: int, to_ms: int) -> list[str]:
        found = shop.promotions_of(sku, from_ms, to_ms)
        return [known.promotion.promotion_id for known in found]

    assert named("a", 0, 99) == ["early", "also", "mine"]
    assert named("a", 0, 10) == ["early"] and named("a", 0, 5) == []
    assert named("a", 11, 12) == ["early", "also", "mine"]
    assert named("a", 12, 13) == named("a", 19, 20) == ["also", "mine"]
    assert named("a", 20, 30) == [] == named("b", 0, 99)


def test_stock_is_a_share_of_the_bucket_unknown_before_the_first_level_and_past_the_cutoff() -> (
    None
):
    shop = ShopTables()
    level(shop, HOUR_MS // 2, 5)
    level(shop, 2 * HOUR_MS + HOUR_MS // 4, 0)
    level(shop, 4 * HOUR_MS, -1)
    level(shop, 4 * HOUR_MS + HOUR_MS // 2, 7)
    shares = shop.in_stock(["a|n", "b|n"], hours(0, 7), as_of_ms=6 * HOUR_MS)
    np.testing.assert_allclose(shares[0], [np.nan, 1, 0.25, 0, 0.5, 1, np.nan])
    assert np.isnan(shares[1]).all()
    assert shop.on_hand(["a|n"]).tolist() == [7.0] and np.isnan(shop.on_hand(["b|n"])[0])
    assert np.isnan(shop.in_stock(["a|n"], hours(0, 7))[0]).tolist() == [
        True,
        *[False] * 3,
        *[True] * 3,
    ]


def test_a_stale_level_changes_nothing() -> None:
    shop = ShopTables()
    level(shop, 2 * HOUR_MS, 5)
    level(shop, HOUR_MS, 0)
    assert shop.on_hand(["a|n"]).tolist() == [5.0]
    assert shop.in_stock(["a|n"], hours(2 * HOUR_MS, 1), as_of_ms=9 * HOUR_MS).tolist() == [[1.0]]


def test_a_level_without_region_is_for_every_region_that_has_none_of_its_own() -> None:
    shop = ShopTables()
    level(shop, 0, 3, region=None)
    level(shop, 0, 0, region="s")
    assert shop.in_stock(["a|n", "a|s"], hours(0, 1), as_of_ms=HOUR_MS).tolist() == [[1.0], [0.0]]
    assert shop.on_hand(["a|n", "a|s"]).tolist() == [3.0, 0.0]


def test_a_series_over_all_regions_is_in_stock_while_any_region_is() -> None:
    shop = ShopTables(series_by=("sku",))
    level(shop, 0, 3, region="n")
    level(shop, HOUR_MS, 4, region="s")
    level(shop, 2 * HOUR_MS, 0, region="n")
    level(shop, 3 * HOUR_MS, 0, region="s")
    assert shop.in_stock(["a"], hours(0, 4), as_of_ms=9 * HOUR_MS).tolist() == [
        [1.0, 1.0, 1.0, 0.0]
    ]
    assert shop.on_hand(["a"]).tolist() == [0.0]


def test_tombstones_forget_entries_and_levels() -> None:
    shop = ShopTables()
    entry(shop, 0, title="T", unit_price=3)
    level(shop, 0, 4)
    level(shop, 0, 4, region="s")
    assert shop.apply("catalog", b"a", None, 9) and shop.apply("inventory", b"a/n", None, 9)
    assert (
        shop.entry("a") is None
        and shop.texts(["a|n"]) == [""]
        and np.isnan(shop.unit_prices(["a|n"])[0])
    )
    assert np.isnan(shop.on_hand(["a|n"])[0]) and shop.on_hand(["a|s"]).tolist() == [4.0]
    assert shop.apply("catalog", b"never seen", None, 9)


def test_texts_categories_and_launches() -> None:
    shop = ShopTables()
    entry(
        shop,
        0,
        title="Red shoe",
        category="shoes",
        brand="Acme",
        attributes={"size": "9", "colour": "red"},
    )
    entry(shop, 0, sku="b", title="Hat", launched_at="1970-01-01T00:00:01Z")
    assert shop.texts(["a|n", "b|x", "c|n"]) == ["Red shoe shoes Acme colour red size 9", "Hat", ""]
    assert shop.categories(["a|n", "b|n", "c|n"]) == ["shoes", "", ""]
    launched = shop.launched_ms(["a|n", "b|n", "c|n"])
    assert launched[1] == 1_000 and np.isnan(launched[[0, 2]]).all()


def test_an_entry_holds_from_when_it_is_known_on_until_the_next_one_or_its_tombstone() -> None:
    shop = ShopTables()
    red = {"title": "Red", "category": "shoes", "launched_at": 5}
    entry(shop, 90, **red, announced_at=10)
    entry(shop, 20, title="Blue", unit_price=3.0)
    entry(shop, 30, title="Blue", unit_price=4.0)
    shop.apply("catalog", b"a", None, 40)
    texts = [shop.texts(["a|n"], as_of_ms=at_ms)[0] for at_ms in (9, 10, 20, 30, 39, 40)]
    assert texts == ["", "Red shoes", "Blue", "Blue", "Blue", ""]
    assert [shop.categories(["a|n"], as_of_ms=at_ms) for at_ms in (9, 10, 20)] == [
        [""],
        ["shoes"],
        [""],
    ]
    launched = [shop.launched_ms(["a|n"], as_of_ms=at_ms)[0] for at_ms in (9, 10, 20)]
    np.testing.assert_equal(launched, [np.nan, 5.0, np.nan])
    prices = [shop.unit_prices(["a|n"], as_of_ms=at_ms)[0] for at_ms in (19, 20, 30, 40)]
    np.testing.assert_equal(prices, np.array([np.nan, 3.0, 4.0, np.nan], np.float32))
    assert [shop.skus(as_of_ms=at_ms) for at_ms in (9, 10, 39, 40)] == [[], ["a"], ["a"], []]
    assert shop.skus() == [] and shop.entry("a") is None
    entry(shop, 50, title="Green", unit_price=7.0)
    found = shop.entry("a")
    assert found is not None and (found.title, found.unit_price) == ("Green", 7.0)
    entry(shop, 51, title="Green")
    assert shop.entry("a") is not None and np.isnan(shop.unit_prices(["a|n"])[0])


def test_a_promotion_of_a_category_is_for_what_was_in_it_at_the_time() -> None:
    shop = ShopTables()
    promotion(shop, 0, "p", 0, 9 * HOUR_MS, 0.5, category="x")
    entry(shop, 10, category="x")
    entry(shop, 20, category="y")
    found = [shop.known(["a|n"], hours(0, 1), as_of_ms=at_ms)[0, 0, 1] for at_ms in (9, 10, 20)]
    assert found == [0, 1, 0]


def test_what_a_later_offset_says_of_one_millisecond_holds_in_whichever_order_they_come() -> None:
    told = ShopTables()
    for offset in (8, 7, 9, 8):
        value = json.dumps({"sku": "a", "title": f"title {offset}"}).encode()
        told.take("catalog", b"a", value, 50, offset=offset, partition=3)
    assert told.texts(["a|n"]) == ["title 9"]
    told.take("catalog", b"a", None, 50, offset=10, partition=3)
    assert told.texts(["a|n"]) == [""] and told.skus(as_of_ms=50) == []


def test_a_tombstone_that_comes_before_what_it_deletes_deletes_it_all_the_same() -> None:
    shop = ShopTables()
    shop.take("catalog", b"key", None, 50, offset=9)
    shop.take("catalog", b"key", b'{"sku": "a", "title": "T"}', 40, offset=8)
    shop.take("catalog", b"key", b'{"sku": "b", "title": "U"}', 60, offset=10)
    assert [shop.texts(["a|n", "b|n"], as_of_ms=at_ms) for at_ms in (49, 50, 60)] == [
        ["T", ""],
        ["", ""],
        ["", "U"],
    ]


def test_what_no_later_question_needs_is_dropped_and_counted() -> None:
    shop = ShopTables()
    for at_ms, price in ((10, 1.0), (20, 2.0), (30, 3.0)):
        entry(shop, at_ms, unit_price=price)
    entry(shop, 5, sku="b", title="gone")
    shop.apply("catalog", b"b", None, 15)
    promotion(shop, 0, "p", 0, 9, 0.1, sku="a")
    level(shop, 3, 5)
    level(shop, 4, 0)
    covariate(shop, 0, "c", 0, 9)
    covariate(shop, 1, "c", 0, 8)
    span = BucketSpan(25, 4, 5)
    before = shop.known(["a|n"], span, as_of_ms=40)
    # Two prices are older than the one in force, the promotion ended, and so on.
    assert shop.forget_before(25) == 1 + 2 + 1 + 1 + 1
    np.testing.assert_array_equal(shop.known(["a|n"], span, as_of_ms=40), before)
    assert shop.unit_prices(["a|n"], as_of_ms=25)[0] == 2.0
    assert shop.in_stock(["a|n"], BucketSpan(25, 1, 5), as_of_ms=40).tolist() == [[0.0]]
    assert shop.forgotten == dict.fromkeys(shop.forgotten, 0)
    entry(shop, 40, sku="b", title="back")
    assert shop.texts(["b|n"]) == ["back"]


def test_an_item_id_with_escaped_bars_finds_its_sku() -> None:
    shop = ShopTables()
    entry(shop, 0, sku="x|y", title="Odd")
    assert shop.texts(["x\\|y|n"]) == ["Odd"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("catalog", b"{"),
        ("catalog", b"[" * 100_000),
        ("catalog", b'{"sku": "\xff"}'),
        ("catalog", b'{"title": "no sku"}'),
        ("catalog", b'{"sku": "a", "unit_price": 0}'),
        ("catalog", b'{"sku": "a", "unit_price": -1}'),
        ("catalog", b'{"sku": "a", "launched_at": "yesterday"}'),
        (
            "promotions",
            b'{"promotion_id": "p", "starts_at": 5, "ends_at": 5, "discount": 0.1, "sku": "a"}',
        ),
        (
            "promotions",
            b'{"promotion_id": "p", "starts_at": 5, "ends_at": 6, "discount": 1.1, "sku": "a"}',
        ),
        ("promotions", b'{"promotion_id": "p", "starts_at": 5, "ends_at": 6, "discount": 0.1}'),
        (
            "promotions",
            b'{"promotion_id": "p", "starts_at": 5, "ends_at": 6, "discount": 0.1, "category": ""}',
        ),
        (
            "promotions",
            b'{"promotion_id": "p", "starts_at": "soon", "ends_at": 6, "discount": 0.1, "sku": '
            b'"a"}',
        ),
        ("inventory", b'{"sku": "a", "on_hand": "many", "as_of": 5}'),
        ("covariates", b'{"covariate_id": "c", "name": "effect", "starts_at": 1, "ends_at": 2}'),
        ("covariates", b'{"covariate_id": "c", "name": "rain", "starts_at": 1, "ends_at": 2}'),
        ("inventory", b'{"sku": "a", "on_hand": 1, "as_of": -1}'),
    ],
)
def test_a_malformed_record_is_counted_and_changes_nothing(kind: Any, value: bytes) -> None:
    shop = ShopTables()
    assert not shop.apply(kind, b"k", value, 7)
    assert shop.malformed[kind] == 1 and shop.version == 0
    assert (
        shop.entry("a") is None
        and shop.active_promotions(5) == []
        and np.isnan(shop.on_hand(["a|n"])[0])
    )


def test_a_tombstone_without_a_key_is_malformed() -> None:
    shop = ShopTables()
    assert not shop.apply("catalog", None, None, 7)
    assert shop.malformed["catalog"] == 1


def test_what_goes_beyond_a_limit_is_counted_and_logged_once_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(promotions, "MAX_PROMOTIONS", 2)
    monkeypatch.setattr(covariates, "MAX_COVARIATES", 2)
    monkeypatch.setattr(stock, "MAX_STOCK_CHANGES", 4)
    monkeypatch.setattr(entries, "MAX_PRICE_CHANGES", 4)
    shop = ShopTables()
    for n in range(4):
        promotion(shop, n, f"p{n}", n, n + 10, 0.1, sku="a")
        covariate(shop, n, f"c{n}", n, n + 10)
    for n in range(10):
        level(shop, n * HOUR_MS, n % 2)
        entry(shop, n * HOUR_MS, unit_price=n + 1)
    assert [p.promotion_id for p in shop.active_promotions(9)] == ["p2", "p3"]
    shares = shop.in_stock(["a|n"], hours(0, 10), as_of_ms=99 * HOUR_MS)[0]
    assert np.isnan(shares).tolist() == [True] * 6 + [False] * 4
    assert shares[6:].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert shop.forgotten == {"catalog": 6, "promotions": 2, "inventory": 6, "covariates": 2}
    logged = capsys.readouterr().out + capsys.readouterr().err
    assert logged.count("shop_versions_forgotten") == 4


def test_a_price_said_again_makes_room_before_one_that_changed_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entries, "MAX_PRICE_CHANGES", 4)
    shop = ShopTables()
    for n, price in enumerate([3.0, 3.0, 3.0, 4.0, 4.0]):
        entry(shop, n * HOUR_MS, unit_price=price)
    assert shop.forgotten["catalog"] == 0
    known = shop.known(["a|n"], hours(0, 5))[0, :, 0]
    assert known.tolist() == [0.75, 0.75, 0.75, 1, 1]


def test_times_are_milliseconds_or_rfc_3339() -> None:
    assert time_ms("1970-01-01T01:00:00+01:00") == 0


def test_no_items_give_empty_arrays() -> None:
    shop = ShopTables()
    assert shop.known([], hours(0, 5)).shape == (0, 5, 12)
    assert shop.in_stock([], hours(0, 5)).shape == (0, 5)
    assert shop.unit_prices([]).shape == shop.on_hand([]).shape == (0,)
