"""Contexts hold what was known at the cutoff, copied exactly, with missing kept apart from zero."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS
from freshet.model.text import NUM_TEXT, encode_texts
from freshet.online.forecast.context import age_of
from freshet.online.forecast.provenance import context_sha256
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.read.progress import ReadRules
from freshet.stream.schemas import CatalogEntry, InventoryLevel, Promotion
from freshet.stream.units import HOUR_MS
from tests.online.worker.windows import FIRST, UNITS, VIEWS, FakeReader, contexts_of, tell


@pytest.fixture
def reader() -> FakeReader:
    """One item: 2 units at hour 0, 3 at hour 4, views at hours 0 and 5; orders reached hour 8,
    clicks hour 6.
    """
    reader = FakeReader(reached=FIRST + 8, clicked=FIRST + 6)
    reader.add("a|n", FIRST, UNITS, 2_000)
    reader.add("a|n", FIRST + 4, UNITS, 3_000)
    reader.add("a|n", FIRST, VIEWS, 7)
    reader.add("a|n", FIRST + 5, VIEWS, 9)
    reader.head = FIRST + 8
    return reader


def test_units_and_clicks_are_copied_zero_is_zero_and_unobserved_is_missing(
    reader: FakeReader,
) -> None:
    batch = contexts_of(reader).batch([0], (FIRST + 8) * HOUR_MS).validate()
    assert batch.target_BT[0].tolist() == [2, 0, 0, 0, 3, 0, 0, 0]
    views = batch.past_BTP[0, :, PAST_SLOTS.index("views")].numpy()
    np.testing.assert_array_equal(views, [7, 0, 0, 0, 0, 9, np.nan, np.nan])
    assert batch.start_ms_B.tolist() == [FIRST * HOUR_MS] and batch.prediction_length == 4


def test_nothing_after_the_cutoff_is_in_a_context(reader: FakeReader) -> None:
    contexts = contexts_of(reader)
    before = contexts.batch([0], (FIRST + 4) * HOUR_MS)
    assert (
        before.target_BT[0, -4:].tolist() == [2, 0, 0, 0] and before.target_BT[0, :4].isnan().all()
    )
    reader.add("a|n", FIRST + 4, UNITS, 50_000)
    reader.add("a|n", FIRST + 7, UNITS, 9_000)
    contexts.refresh()
    assert context_sha256(contexts.batch([0], (FIRST + 4) * HOUR_MS)) == context_sha256(before)


def test_a_bucket_without_stock_and_sales_is_missing_and_one_with_sales_is_not(
    reader: FakeReader,
) -> None:
    shop = ShopTables()
    for hour, on_hand in ((0, 5), (2, 0), (6, 5)):
        level = InventoryLevel(sku="a", region="n", on_hand=on_hand, as_of=(FIRST + hour) * HOUR_MS)
        tell(shop, "inventory", level, (FIRST + hour) * HOUR_MS)
    contexts = contexts_of(reader, shop)
    batch = contexts.batch([0], (FIRST + 8) * HOUR_MS)
    np.testing.assert_array_equal(
        batch.target_BT[0].numpy(), [2, 0, np.nan, np.nan, 3, np.nan, 0, 0]
    )
    in_stock = batch.past_BTP[0, :, PAST_SLOTS.index("in_stock")]
    assert in_stock.tolist() == [1, 1, 0, 0, 0, 0, 1, 1]
    units, stocked = contexts.actuals(["a|n", "never|n"], FIRST * HOUR_MS, 8)
    assert units.tolist() == [[2, 0, 0, 0, 3, 0, 0, 0], [0] * 8]
    assert (
        stocked[0].tolist() == [True, True, False, False, False, False, True, True]
        and stocked[1].all()
    )


def test_before_the_launch_is_missing_and_without_a_launch_before_the_first_event(
    reader: FakeReader,
) -> None:
    reader.add("late|n", FIRST + 5, UNITS, 1_000)
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="a", launched_at=(FIRST - 90) * HOUR_MS))
    target = contexts_of(reader, shop).batch([0, 1], (FIRST + 8) * HOUR_MS).target_BT
    assert target[0].tolist() == [2, 0, 0, 0, 3, 0, 0, 0]
    np.testing.assert_array_equal(target[1].numpy(), [np.nan] * 5 + [1, 0, 0])
    reader.changed = {(1, FIRST + 5)}
    launched = ShopTables()
    tell(launched, "catalog", CatalogEntry(sku="late", launched_at=(FIRST + 3) * HOUR_MS))
    target = contexts_of(reader, launched).batch([1], (FIRST + 8) * HOUR_MS).target_BT
    np.testing.assert_array_equal(target[0].numpy(), [np.nan] * 3 + [0, 0, 1, 0, 0])


def test_promotions_reach_into_the_horizon_only_if_they_were_announced_by_the_cutoff(
    reader: FakeReader,
) -> None:
    shop, cutoff_ms = ShopTables(), (FIRST + 8) * HOUR_MS
    times = {"starts_at": cutoff_ms + HOUR_MS, "ends_at": cutoff_ms + 3 * HOUR_MS}
    known = Promotion(promotion_id="p", sku="a", discount=0.3, **times)  # type: ignore[arg-type]
    secret = Promotion(promotion_id="q", sku="a", discount=0.9, **times)  # type: ignore[arg-type]
    tell(shop, "promotions", known, cutoff_ms - 1)
    tell(shop, "promotions", secret, cutoff_ms + 1)
    batch = contexts_of(reader, shop).batch([0], cutoff_ms)
    np.testing.assert_allclose(
        batch.known_BSK[0, 8:, KNOWN_SLOTS.index("discount")], [0, 0.3, 0.3, 0], rtol=1e-6
    )


def test_static_features_are_text_log_price_and_log_age_in_days_of_each_item(
    reader: FakeReader,
) -> None:
    shop, cutoff_ms = ShopTables(), (FIRST + 8) * HOUR_MS
    reader.add("b|n", FIRST, UNITS, 1_000)
    shoe = CatalogEntry(sku="a", title="Red shoe", category="shoes", unit_price=20.0)
    lamp = CatalogEntry(sku="b", title="Desk lamp", launched_at=cutoff_ms - 9 * 24 * HOUR_MS)
    for entry in (shoe, lamp):
        tell(shop, "catalog", entry)
    static_BF = contexts_of(reader, shop).batch([1, 0], cutoff_ms).static_BF.numpy()
    texts = encode_texts(["Desk lamp", "Red shoe shoes"])
    np.testing.assert_array_equal(static_BF[:, :NUM_TEXT], texts)
    assert not np.array_equal(texts[0], texts[1])
    numbers = static_BF[:, NUM_TEXT : NUM_TEXT + 2]
    expected = [[np.nan, math.log(1 + 9)], [math.log(20.0), np.nan]]
    np.testing.assert_allclose(numbers, expected, rtol=1e-6)
    assert np.isnan(static_BF[:, NUM_TEXT + 2 :]).all()


def test_items_without_windows_get_a_batch_of_missing_history_with_text_and_price() -> None:
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="new", title="Lamp", unit_price=9.0))
    contexts = contexts_of(FakeReader(), shop)
    batch = contexts.cold_batch(["new|n"], (FIRST + 8) * HOUR_MS).validate()
    assert batch.target_BT.isnan().all() and bool(batch.static_BF[0, :256].any())
    assert age_of(batch).cold.tolist() == [True]


def test_an_item_whose_row_comes_after_the_cutoff_has_the_context_that_it_had_without() -> None:
    shop, cutoff_ms = ShopTables(), (FIRST + 6) * HOUR_MS
    tell(shop, "catalog", CatalogEntry(sku="b", launched_at=(FIRST + 1) * HOUR_MS))
    level = InventoryLevel(sku="b", region="n", on_hand=5, as_of=(FIRST + 2) * HOUR_MS)
    tell(shop, "inventory", level)
    reader = FakeReader(reached=FIRST + 9)
    reader.add("a|n", FIRST, UNITS, 3_000)
    cold = contexts_of(reader, shop).cold_batch(["b|n"], cutoff_ms)
    # It was there since its launch, and nobody bought it; its stock was known from FIRST + 2 on.
    np.testing.assert_array_equal(cold.target_BT[0], [np.nan] * 3 + [0.0] * 5)
    in_stock = cold.past_BTP[0, :, PAST_SLOTS.index("in_stock")]
    np.testing.assert_array_equal(in_stock, [np.nan] * 4 + [1.0] * 4)
    reader.add("b|n", FIRST + 7, UNITS, 1_000)
    with_row = contexts_of(reader, shop).batch([1], cutoff_ms)
    assert context_sha256(with_row) == context_sha256(cold)


def test_who_never_sold_is_a_cold_start_and_who_sold_shortly_has_a_short_history() -> None:
    reader = FakeReader(reached=FIRST + 40, num_buckets=64)
    reader.add("old|n", FIRST, UNITS, 1_000)
    reader.add("young|n", FIRST + 35, UNITS, 1_000)
    reader.add("seen|n", FIRST, VIEWS, 1)
    reader.add("new|n", FIRST + 35, VIEWS, 1)
    reader.head = FIRST + 40
    # Half of a context of 40 hours is enough.
    batch = contexts_of(reader, context_length=40).batch([0, 1, 2, 3], (FIRST + 40) * HOUR_MS)
    cold, short, silent = age_of(batch)
    assert cold.tolist() == [False, False, False, True]
    assert short.tolist() == [False, True, False, False]
    assert silent.tolist() == [False, False, True, False], "it was looked at for long"


def test_a_cell_that_was_copied_while_its_bucket_was_open_is_right_once_it_is_observed() -> None:
    reader = FakeReader(reached=FIRST)
    reader.add("a|n", FIRST, UNITS, 4_000)
    contexts = contexts_of(reader)
    reader.reached = FIRST + 1
    contexts.refresh()
    assert contexts.batch([0], (FIRST + 1) * HOUR_MS).target_BT[0, -1].item() == 4.0


def test_the_hash_tells_every_input_apart_and_nothing_else(reader: FakeReader) -> None:
    contexts = contexts_of(reader)
    batch = contexts.batch([0], (FIRST + 8) * HOUR_MS)
    assert context_sha256(batch) == context_sha256(contexts.batch([0], (FIRST + 8) * HOUR_MS))
    for name in ("target_BT", "past_BTP", "known_BSK", "static_BF"):
        changed = contexts.batch([0], (FIRST + 8) * HOUR_MS)
        getattr(changed, name)[0, 3] = 0.125
        assert context_sha256(changed) != context_sha256(batch), name
    negative = contexts.batch([0], (FIRST + 8) * HOUR_MS)
    negative.target_BT[negative.target_BT == 0] = -0.0
    assert context_sha256(negative) == context_sha256(batch)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.integers(0, 90),
            st.sampled_from([UNITS, VIEWS]),
            st.integers(1, 9),
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([1, 3, 40]),
)
def test_copying_changes_bit_by_bit_equals_copying_all_at_once(
    events: list[tuple[str, int, int, int]], every: int
) -> None:
    reader = FakeReader(num_buckets=20)
    stepwise = contexts_of(reader)
    for number, (item, hour, channel, value) in enumerate(events):
        if FIRST + hour > reader.head - reader.num_buckets:
            reader.add(f"{item}|n", FIRST + hour, channel, value * 1_000)
        if number % every == 0:
            stepwise.refresh()
    stepwise.refresh()
    reader.reached = reader.clicked = reader.head + 1
    reader.changed = {(row, bucket) for row, _, bucket in reader.cells}
    whole = contexts_of(reader)
    rows, cutoff_ms = list(range(reader.num_items)), (reader.head + 1) * HOUR_MS
    np.testing.assert_array_equal(
        stepwise.target(rows, cutoff_ms, 8) > 0, whole.target(rows, cutoff_ms, 8) > 0
    )
    sums = reader.sums(cutoff_ms, 8)[:, UNITS] / 1_000
    np.testing.assert_array_equal(np.nan_to_num(stepwise.target(rows, cutoff_ms, 8)), sums)


def test_what_the_shop_tells_after_the_cutoff_changes_no_context_that_ends_there(
    reader: FakeReader,
) -> None:
    cutoff_ms = (FIRST + 8) * HOUR_MS
    known, later = ShopTables(), ShopTables()
    times = {"starts_at": cutoff_ms, "ends_at": cutoff_ms + 2 * HOUR_MS}
    for shop in (known, later):
        entry = CatalogEntry(sku="a", title="Red shoe", unit_price=8.0, launched_at=0)
        tell(shop, "catalog", entry, (FIRST - 5) * HOUR_MS)
        tell(shop, "catalog", msgspec.structs.replace(entry, unit_price=10.0), cutoff_ms - HOUR_MS)
        level = InventoryLevel(sku="a", region="n", on_hand=5, as_of=(FIRST - 5) * HOUR_MS)
        tell(shop, "inventory", level, (FIRST - 5) * HOUR_MS)
    renamed = CatalogEntry(sku="a", title="Shoe", unit_price=99.0, launched_at=cutoff_ms - HOUR_MS)
    tell(later, "catalog", renamed, cutoff_ms + 1)
    promotion = Promotion(promotion_id="p", sku="a", discount=0.5, **times)  # type: ignore[arg-type]
    tell(later, "promotions", promotion, cutoff_ms + 1)
    gone = InventoryLevel(sku="a", region="n", on_hand=0, as_of=cutoff_ms + 1)
    tell(later, "inventory", gone, cutoff_ms + 1)
    as_it_was = contexts_of(reader, known).batch([0], cutoff_ms)
    reader.changed = {(0, bucket) for _, _, bucket in reader.cells}
    seen_later = contexts_of(reader, later).batch([0], cutoff_ms)
    for batch in (as_it_was, seen_later):
        # The price rose from its usual 8 to 10 an hour before the cutoff; known steps go on.
        ratio = batch.known_BSK[0, :, KNOWN_SLOTS.index("price_ratio")]
        np.testing.assert_allclose(ratio, [1.0] * 7 + [1.25] * 5, rtol=1e-6)
        assert batch.known_BSK[0, :, KNOWN_SLOTS.index("promotion")].tolist() == [0.0] * 12
        assert batch.past_BTP[0, :, PAST_SLOTS.index("in_stock")].tolist() == [1.0] * 8
        assert batch.static_BF[0, NUM_TEXT].item() == pytest.approx(math.log(10.0))
        texts = encode_texts(["Red shoe"])
        np.testing.assert_array_equal(batch.static_BF[:, :NUM_TEXT].numpy(), texts)
    assert context_sha256(seen_later) == context_sha256(as_it_was)


def test_what_the_reader_no_longer_holds_is_missing_and_not_zero() -> None:
    reader = FakeReader(num_buckets=10, reached=FIRST + 21, clicked=FIRST + 21)
    for hour in range(21):
        reader.add("a|n", FIRST + hour, UNITS, 1_000)
        reader.add("a|n", FIRST + hour, VIEWS, 4)
    reader.head = FIRST + 20
    contexts = contexts_of(reader)
    # Buckets 11 to 20 are held; of the eight before the cutoff the newest three.
    batch = contexts.batch([0], (FIRST + 14) * HOUR_MS)
    expected = np.array([np.nan] * 5 + [1.0] * 3)
    np.testing.assert_array_equal(batch.target_BT[0], expected)
    views = batch.past_BTP[0, :, PAST_SLOTS.index("views")]
    np.testing.assert_array_equal(views, 4 * expected)
    units, _ = contexts.actuals(["a|n", "never|n"], (FIRST + 6) * HOUR_MS, 8)
    np.testing.assert_array_equal(units, [expected, 0 * expected])


def test_before_any_item_has_a_row_nothing_is_known_of_what_was_sold() -> None:
    units, in_stock = contexts_of(FakeReader()).actuals(["a|n"], FIRST * HOUR_MS, 2)
    assert np.isnan(units).all() and units.shape == (1, 2) and in_stock.all()


def test_actuals_are_in_the_order_that_was_asked_for_with_zero_for_items_without_a_row(
    reader: FakeReader,
) -> None:
    reader.add("b|n", FIRST + 4, UNITS, 8_000)
    contexts = contexts_of(reader)
    units, _ = contexts.actuals(["b|n", "never|n", "a|n"], (FIRST + 3) * HOUR_MS, 2)
    assert units.tolist() == [[0, 8], [0, 0], [0, 3]]
    np.testing.assert_array_equal(contexts.target([1, 0], (FIRST + 5) * HOUR_MS, 1), [[8], [3]])


@pytest.mark.parametrize(("hours", "short"), [(47, True), (48, False)])
def test_two_days_of_observed_hours_are_enough_history_and_an_hour_less_is_not(
    hours: int, short: bool
) -> None:
    reader = FakeReader(num_buckets=256, reached=FIRST + hours)
    reader.add("a|n", FIRST, UNITS, 1_000)
    reader.head = FIRST + hours
    batch = contexts_of(reader, context_length=200).batch([0], (FIRST + hours) * HOUR_MS)
    cold_B, short_B, silent_B = age_of(batch)
    assert (cold_B.tolist(), short_B.tolist(), silent_B.tolist()) == ([False], [short], [False])


@pytest.mark.parametrize(("sold_hours", "silent"), [(1, False), (30, True)])
def test_who_sold_every_hour_and_then_nothing_for_days_is_silent_and_who_sold_once_is_not(
    sold_hours: int, silent: bool
) -> None:
    hours = 100 + sold_hours
    reader = FakeReader(num_buckets=256, reached=FIRST + hours)
    for hour in range(sold_hours):
        reader.add("a|n", FIRST + hour, UNITS, 5_000)
    reader.add("a|n", FIRST + hours - 1, VIEWS, 1)
    reader.head = FIRST + hours
    batch = contexts_of(reader, context_length=200).batch([0], (FIRST + hours) * HOUR_MS)
    assert age_of(batch).silent.tolist() == [silent]


class BerlinReader(FakeReader):
    """A reader of a shop in Berlin, two hours ahead in summer."""

    @property
    def rules(self) -> ReadRules:
        return replace(super().rules, time_zone="Europe/Berlin")


def test_a_shop_in_berlin_sees_its_own_clock_and_one_in_greenwich_needs_none() -> None:
    shown_S = contexts_of(BerlinReader())._shown(FIRST, 3)
    assert shown_S is not None
    assert shown_S.tolist() == [(FIRST + 2 + hour) * HOUR_MS for hour in range(3)]
    assert contexts_of(FakeReader())._shown(FIRST, 3) is None
