"""Contexts hold what was known at the cutoff, copied exactly, with missing kept apart from zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS
from freshet.model.text import static_features
from freshet.online.worker.context import cold_rows
from freshet.online.worker.provenance import context_sha256
from freshet.stream.catalog.tables import ShopTables
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


def test_static_features_are_those_of_the_model(reader: FakeReader) -> None:
    shop, cutoff_ms = ShopTables(), (FIRST + 8) * HOUR_MS
    tell(
        shop,
        "catalog",
        CatalogEntry(sku="a", title="Red shoe", category="shoes", unit_price=20.0, launched_at=0),
    )
    batch = contexts_of(reader, shop).batch([0], cutoff_ms)
    expected = static_features(
        shop.texts(["a|n"]), shop.unit_prices(["a|n"]), np.array([float(cutoff_ms)])
    )
    np.testing.assert_array_equal(batch.static_BF.numpy(), expected)


def test_items_without_windows_get_a_batch_of_missing_history_with_text_and_price() -> None:
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="new", title="Lamp", unit_price=9.0))
    contexts = contexts_of(FakeReader(), shop)
    batch = contexts.cold_batch(["new|n"], (FIRST + 8) * HOUR_MS).validate()
    assert batch.target_BT.isnan().all() and bool(batch.static_BF[0, :256].any())
    assert cold_rows(batch).tolist() == [True]


def test_a_short_or_saleless_history_is_a_cold_start() -> None:
    reader = FakeReader(reached=FIRST + 40, num_buckets=64)
    reader.add("old|n", FIRST, UNITS, 1_000)
    reader.add("young|n", FIRST + 35, UNITS, 1_000)
    reader.add("seen|n", FIRST, VIEWS, 1)
    reader.head = FIRST + 40
    batch = contexts_of(reader, context_length=40).batch([0, 1, 2], (FIRST + 40) * HOUR_MS)
    assert cold_rows(batch).tolist() == [False, True, True]


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
