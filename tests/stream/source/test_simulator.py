"""The simulated shop: reproducible bytes, honest rates, the faults and drifts asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.config import EventSettings
from freshet.stream.errors import InvalidInputError
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.schemas import InventoryLevel, Promotion
from freshet.stream.source.simulator import (
    DEFAULT_ITEMS,
    DEFAULT_START_MS,
    Faults,
    PlantedDrift,
    Scenario,
    SimulatedShop,
    find_scenario,
)
from freshet.stream.source.simulator.demand import Demand, _lead_shares
from freshet.stream.source.simulator.faults import BREAKS, break_value
from freshet.stream.source.simulator.stock import Stock
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

PLAIN = Scenario("plain")
Record = tuple[str, bytes, bytes | None, int]


def records(shop: SimulatedShop, hours: int, slice_ms: int = HOUR_MS) -> list[Record]:
    """Everything that arrives in the first hours."""
    end_ms, found = shop.start_ms + hours * HOUR_MS, []
    for batch in shop.batches(slice_ms):
        rows = zip(batch.kinds, batch.keys, batch.values, batch.timestamps_ms, strict=True)
        found += [row for row in rows if row[3] < end_ms]
        if batch.end_ms >= end_ms:
            return found
    raise AssertionError("the shop's stream ended")


@lru_cache(maxsize=4)
def plain_week(seed: int = 3, items: int = 48) -> tuple[SimulatedShop, list[Record]]:
    shop = SimulatedShop(seed, items, PLAIN)
    return shop, records(shop, 7 * 24)


def events(rows: list[Record], kind: str) -> list[dict[str, Any]]:
    return [
        msgspec.json.decode(value) for k, _, value, _ in rows if k == kind and value is not None
    ]


def order_lines(rows: list[Record]) -> list[dict[str, Any]]:
    """Each line with its order's id, region and time."""
    lines = []
    for event in events(rows, "orders"):
        lines += [{**event, **line} for line in event.get("lines") or [event]]
    return lines


def hourly_units(shop: SimulatedShop, rows: list[Record], hours: int) -> np.ndarray:
    row_of = {item_id: i for i, item_id in enumerate(shop.item_ids)}
    units = np.zeros((len(row_of), hours))
    for line in order_lines(rows):
        hour = (line["event_time"] - shop.start_ms) // HOUR_MS
        if line["quantity"] > 0 and hour < hours:
            units[row_of[f"{line['sku']}|{line['region']}"], hour] += line["quantity"]
    return units


# The same seed ------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_however_they_are_sliced() -> None:
    faulty = find_scenario("drift")
    first = records(SimulatedShop(5, 24, faulty), 40, slice_ms=7 * MINUTE_MS)
    again = records(SimulatedShop(5, 24, faulty), 40, slice_ms=3 * HOUR_MS)
    assert len(first) > 1_000
    assert first == again


def test_one_shop_can_be_played_twice() -> None:
    shop = SimulatedShop(5, 24, find_scenario("calm"))
    assert records(shop, 10) == records(shop, 10)


def test_another_seed_gives_another_shop() -> None:
    assert records(SimulatedShop(5, 24, PLAIN), 10) != records(SimulatedShop(6, 24, PLAIN), 10)


def test_batches_hold_their_own_time_in_order_and_leave_no_gap() -> None:
    shop = SimulatedShop(2, 24, find_scenario("calm"))
    expected_start = shop.start_ms
    for _, batch in zip(range(200), shop.batches(10 * MINUTE_MS), strict=False):
        assert batch.start_ms == expected_start
        assert batch.timestamps_ms == sorted(batch.timestamps_ms)
        assert all(batch.start_ms <= time_ms < batch.end_ms for time_ms in batch.timestamps_ms)
        assert len(batch) == len(batch.keys) == len(batch.values) == len(batch.timestamps_ms)
        expected_start = batch.end_ms


# What is sold -------------------------------------------------------------------------------------


def test_units_sold_match_the_ground_truth_where_stock_lasts() -> None:
    shop, rows = plain_week()
    hours = 7 * 24
    empty = {
        f"{level['sku']}|{level['region']}"
        for level in events(rows, "inventory")
        if level["on_hand"] == 0
    }
    stocked = np.array([item_id not in empty for item_id in shop.item_ids])
    units, truth = hourly_units(shop, rows, hours), shop.expected_units(shop.start_ms, hours)
    assert stocked.sum() > 20
    # The first hour has no visits before it, so fewer orders.
    sold, expected = units[stocked, 1:].sum(axis=1), truth[stocked, 1:].sum(axis=1)
    assert sold.sum() == pytest.approx(expected.sum(), rel=0.05)
    packs = np.repeat(shop.catalogue.mean_quantity_S, 4)[stocked]
    # Counts of lines vary by their root, the weather and the hour's noise by a few percent.
    tolerance = 5 * packs * np.sqrt(expected / packs + 1) + 0.15 * expected
    assert (np.abs(sold - expected) < tolerance).all()


def test_the_day_has_the_shape_of_the_ground_truth() -> None:
    shop, rows = plain_week()
    units, truth = (
        hourly_units(shop, rows, 168).sum(axis=0),
        shop.expected_units(shop.start_ms, 168).sum(axis=0),
    )
    by_hour, expected = units.reshape(7, 24).sum(axis=0), truth.reshape(7, 24).sum(axis=0)
    assert expected.max() > 5 * expected.min()
    assert np.corrcoef(by_hour, expected)[0, 1] > 0.97


def test_every_visit_s_order_falls_into_the_hours_after_it() -> None:
    shares = _lead_shares()
    assert shares[:4] + shares[4:] == pytest.approx(np.ones(4), abs=1e-9)
    assert (shares[4:] < 1).all() and (np.diff(shares[4:]) < 0).all()


def test_the_default_shop_is_about_a_million_events_in_four_weeks() -> None:
    shop = SimulatedShop(1, DEFAULT_ITEMS, find_scenario("calm"))
    two_days = records(shop, 48)
    assert 120 <= len(shop.item_ids) <= 160
    assert 800_000 < len(two_days) * 14 < 1_200_000
    assert shop.start_ms == DEFAULT_START_MS and (shop.live_start_ms - shop.start_ms) == 28 * DAY_MS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_levels_span_sparse_to_brisk_items(seed: int) -> None:
    shop = SimulatedShop(seed, DEFAULT_ITEMS, PLAIN)
    level = shop.catalogue.lines_per_hour_I * np.repeat(shop.catalogue.mean_quantity_S, 4)
    assert level.min() < 0.15 and level.max() > 100
    assert level.min() >= 0.05 - 1e-9 and level.max() <= 300 + 1e-9
    assert 0.3 < np.mean(level < 1.0) < 0.7


def test_titles_prices_and_categories_are_told_before_anything_is_sold() -> None:
    shop, rows = plain_week()
    told: set[str] = set()
    for kind, key, value, _ in rows:
        if kind == "catalog":
            entry = msgspec.json.decode(value or b"")
            assert entry["title"] and entry["category"] and entry["unit_price"] > 0
            told.add(key.decode())
        elif kind in ("orders", "clicks"):
            assert key.decode() in told
    assert len(set(shop.catalogue.titles)) == shop.catalogue.num_skus


def test_views_lead_to_orders_within_minutes_to_an_hour() -> None:
    _, rows = plain_week()
    views = defaultdict(list)
    for click in events(rows, "clicks"):
        if click["kind"] == "view":
            views[click["sku"], click["region"]].append(click["event_time"])
    for times in views.values():
        times.sort()
    single = [order for order in events(rows, "orders") if "sku" in order and order["quantity"] > 0]
    assert len(single) > 1_000
    for order in single:
        seen = views[order["sku"], order["region"]]
        oldest = bisect_left(seen, order["event_time"] - 60 * MINUTE_MS)
        assert oldest < len(seen) and seen[oldest] <= order["event_time"] - 3 * MINUTE_MS


def test_the_funnel_narrows() -> None:
    _, rows = plain_week()
    counts = Counter(click["kind"] for click in events(rows, "clicks"))
    orders = len(order_lines(rows))
    assert counts["view"] > counts["cart"] > orders > counts["checkout"] > counts["favourite"] > 0


def test_some_orders_have_several_lines_of_one_region() -> None:
    _, rows = plain_week()
    orders = events(rows, "orders")
    whole = [order for order in orders if "lines" in order]
    assert 0.03 < len(whole) / len(orders) < 0.25
    assert all(len(order["lines"]) >= 2 for order in whole)
    assert all("sku" not in order for order in whole)


def test_returns_name_an_order_of_that_article_from_days_before() -> None:
    _, rows = plain_week()
    sold: dict[tuple[str, str], dict[str, Any]] = {}
    returned = []
    for line in order_lines(rows):
        if line["quantity"] > 0:
            sold[line["order_id"], line["sku"]] = line
        else:
            returned.append(line)
    assert len(returned) > 20
    for line in returned:
        sale = sold[line["order_id"], line["sku"]]
        assert line["event_time"] - sale["event_time"] >= DAY_MS - HOUR_MS
        assert 0 < -line["quantity"] <= sale["quantity"]
        assert (line["unit_price"], line["region"]) == (sale["unit_price"], sale["region"])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16 - 1), items=st.integers(1, 60))
def test_every_event_is_valid_and_no_quantity_is_zero(seed: int, items: int) -> None:
    rows = records(SimulatedShop(seed, items, PLAIN), 24)
    ids = Counter(
        event["event_id"] for kind in ("orders", "clicks") for event in events(rows, kind)
    )
    assert not ids or max(ids.values()) == 1
    assert all(line["quantity"] != 0 and line["unit_price"] > 0 for line in order_lines(rows))
    for kind in ("orders", "clicks"):
        mine = [row for row in rows if row[0] == kind]
        decoded = EventDecoder(kind, EventSettings()).decode(
            [row[2] for row in mine], [row[1] for row in mine]
        )
        assert not decoded.refusals


# Stock --------------------------------------------------------------------------------------------


def test_nothing_is_sold_while_stock_is_out() -> None:
    _, rows = plain_week()
    known: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for level in (
        msgspec.json.decode(v or b"", type=InventoryLevel)
        for k, _, v, _ in rows
        if k == "inventory"
    ):
        assert level.on_hand >= 0
        known[f"{level.sku}|{level.region}"].append((int(level.as_of), level.on_hand))
    gaps = {
        item_id: [(start, end) for (start, on_hand), (end, _) in pairwise(levels) if on_hand == 0]
        for item_id, levels in known.items()
    }
    assert sum(end - start for spans in gaps.values() for start, end in spans) > 10 * HOUR_MS
    # Lines of whole orders are dated by the order's last one: only single ones are exact.
    for order in events(rows, "orders"):
        if "sku" in order and order["quantity"] > 0:
            spans = gaps.get(f"{order['sku']}|{order['region']}", [])
            assert not any(start < order["event_time"] < end for start, end in spans)


def test_the_order_that_empties_the_shelf_takes_what_is_left() -> None:
    stock = Stock(1, np.array([1.0, 1.0]), np.array([1, 1]))
    stock.allot(np.array([0, 1]), np.array([5, 100]))
    sold = stock.sell(np.array([0, 1, 0, 0]), np.array([4, 7, 3, 2]))
    assert sold.tolist() == [4, 7, 1, 0]
    assert stock.on_hand_I.tolist() == [0, 93]


def test_lorries_come_at_five_and_only_for_low_stock() -> None:
    stock = Stock(1, np.full(200, 10.0), np.ones(200, dtype=np.int64))
    full = stock.on_hand_I.copy()
    assert stock.deliver(4 * HOUR_MS).tolist() == []
    assert stock.deliver(5 * HOUR_MS).tolist() == []
    stock.allot(np.arange(200), np.zeros(200, dtype=np.int64))
    raised = stock.deliver(29 * HOUR_MS)
    assert 150 < len(raised) <= 200
    assert (stock.on_hand_I[raised] > 0).all() and (full > 0).all()


# Promotions ---------------------------------------------------------------------------------------


def test_promotions_are_announced_hours_before_they_start() -> None:
    rows = records(SimulatedShop(1, 24, PLAIN), 21 * 24)
    told = [
        (at, msgspec.json.decode(v or b"", type=Promotion))
        for k, _, v, at in rows
        if k == "promotions"
    ]
    assert {promotion.kind for _, promotion in told} == {"flash_sale", "coupon"}
    assert len({promotion.promotion_id for _, promotion in told}) == len(told) > 5
    assert all(int(promotion.starts_at) - at >= 6 * HOUR_MS for at, promotion in told)


def test_a_flash_sale_cuts_the_price_and_multiplies_demand() -> None:
    shop = SimulatedShop(
        1, 48, replace(find_scenario("flash_sale"), faults=Faults()), backfill_ms=2 * DAY_MS
    )
    (sale,) = shop.plan.planted
    hours = (sale.ends_ms - shop.start_ms) // HOUR_MS + 1
    lines = [
        line
        for line in order_lines(records(shop, hours))
        if line["sku"] == shop.catalogue.skus[sale.sku]
    ]
    shelf = shop.demand.shelf_prices(sale.starts_ms)[sale.sku]
    during = [
        line
        for line in lines
        if sale.starts_ms <= line["event_time"] < sale.ends_ms and line["quantity"] > 0
    ]
    assert {line["unit_price"] for line in during} == {
        round(shelf * (1 - sale.promotion.discount), 2)
    }
    without = SimulatedShop(1, 48, PLAIN, backfill_ms=2 * DAY_MS)
    span = (sale.starts_ms + HOUR_MS, (sale.ends_ms - sale.starts_ms) // HOUR_MS - 1)
    mine = slice(4 * sale.sku, 4 * sale.sku + 4)
    assert shop.expected_units(*span)[mine].sum() > 2 * without.expected_units(*span)[mine].sum()


@pytest.mark.parametrize("name", ["flash_sale", "drift"])
@pytest.mark.parametrize("seed", range(5))
def test_the_planted_flash_sale_starts_early_in_the_live_part(name: str, seed: int) -> None:
    live_ms = 150 * HOUR_MS
    shop = SimulatedShop(seed, DEFAULT_ITEMS, find_scenario(name), live_ms=live_ms)
    (sale,) = shop.plan.planted
    assert 0.08 <= (sale.starts_ms - shop.live_start_ms) / live_ms <= 0.21
    assert sale.announced_ms <= sale.starts_ms - 6 * HOUR_MS
    drifting = {category for drift in shop.plan.drifts for category in drift.categories}
    assert shop.catalogue.category_of(sale.sku) not in drifting


def test_calm_has_no_promotion_and_no_drift_in_its_live_part() -> None:
    shop = SimulatedShop(4, DEFAULT_ITEMS, find_scenario("calm"))
    assert shop.plan.promotions(shop.live_start_ms, shop.live_start_ms + 60 * DAY_MS) == []
    assert shop.plan.promotions(shop.start_ms, shop.live_start_ms)
    assert shop.plan.drifts == () and shop.plan.drift_at_ms is None


# Drift --------------------------------------------------------------------------------------------


def drifting_pair() -> tuple[SimulatedShop, SimulatedShop]:
    live_ms = 100 * HOUR_MS
    calm = SimulatedShop(7, 48, PLAIN, backfill_ms=2 * DAY_MS, live_ms=live_ms)
    return calm, SimulatedShop(
        7, 48, Scenario("drift only", drift=True), backfill_ms=2 * DAY_MS, live_ms=live_ms
    )


def test_drift_changes_the_stream_after_its_time_only() -> None:
    calm, drifting = drifting_pair()
    at_ms = drifting.plan.drift_at_ms
    assert at_ms == drifting.live_start_ms + 15 * HOUR_MS
    hours = (at_ms - calm.start_ms) // HOUR_MS
    assert records(calm, hours) == records(drifting, hours)
    assert records(calm, hours + 3) != records(drifting, hours + 3)


def test_drift_multiplies_the_level_of_its_category_and_leaves_others_alone() -> None:
    calm, drifting = drifting_pair()
    level = next(drift for drift in drifting.plan.drifts if drift.level == 2.2)
    hit = np.repeat(
        [
            drifting.catalogue.category_of(s) in level.categories
            for s in range(calm.catalogue.num_skus)
        ],
        4,
    )
    touched = {name for drift in drifting.plan.drifts for name in drift.categories}
    others = np.repeat(
        [drifting.catalogue.category_of(s) not in touched for s in range(calm.catalogue.num_skus)],
        4,
    )
    span = (level.at_ms + HOUR_MS, 24)
    before, after = calm.expected_units(*span), drifting.expected_units(*span)
    assert after[hit] == pytest.approx(2.2 * before[hit])
    assert after[others] == pytest.approx(before[others])
    sold = hourly_units(drifting, records(drifting, 63 + 12), 63 + 12)[hit][:, 64:].sum()
    assert sold > 1.5 * calm.expected_units(level.at_ms + HOUR_MS, 11)[hit].sum()


def test_a_new_day_profile_moves_the_peak() -> None:
    calm, drifting = drifting_pair()
    moved = next(drift for drift in drifting.plan.drifts if drift.hours_later)
    hit = np.repeat(
        [
            drifting.catalogue.category_of(s) in moved.categories
            for s in range(calm.catalogue.num_skus)
        ],
        4,
    )
    day = moved.at_ms // DAY_MS * DAY_MS + 2 * DAY_MS
    peak = int(np.argmax(calm.expected_units(day, 24)[hit].sum(axis=0)))
    new_peak = int(np.argmax(drifting.expected_units(day, 24)[hit].sum(axis=0)))
    assert (new_peak - peak) % 24 == moved.hours_later


def test_an_elasticity_drift_changes_what_a_price_cut_does() -> None:
    calm = SimulatedShop(7, 48, PLAIN)
    sale = next(
        sale for sale in calm.plan.promotions(calm.start_ms, calm.live_start_ms) if sale.flash
    )
    category = calm.catalogue.category_of(sale.sku)
    drift = PlantedDrift(calm.start_ms, (category,), elasticity=1.5)
    steep = Demand(calm.catalogue, replace(calm.plan, drifts=(drift,)))
    mine = slice(4 * sale.sku, 4 * sale.sku + 4)
    within_ms = sale.starts_ms + HOUR_MS
    before, after = (
        calm.demand.expected_units(within_ms)[mine].sum(),
        steep.expected_units(within_ms)[mine].sum(),
    )
    assert after > 1.2 * before


# Faults -------------------------------------------------------------------------------------------


def test_faults_come_in_the_shares_asked_for() -> None:
    faults = Faults(duplicates=0.05, late=0.04, too_late=0.03, future=0.02, broken=0.06)
    clean = records(SimulatedShop(2, 48, PLAIN), 72)
    rows = records(SimulatedShop(2, 48, Scenario("faulty", faults=faults)), 75)
    total = sum(kind in ("orders", "clicks") for kind, *_ in clean)
    good, refused, future, late, too_late = Counter[bytes](), 0, 0, 0, 0
    end_ms = DEFAULT_START_MS + 72 * HOUR_MS
    for kind in ("orders", "clicks"):
        mine = [row for row in rows if row[0] == kind]
        decoded = EventDecoder(kind, EventSettings()).decode(
            [r[2] for r in mine], [r[1] for r in mine]
        )
        dead = {letter.index for letter in decoded.refusals}
        refused += sum(mine[i][3] < end_ms for i in dead)
        for i, (_, _, value, arrival) in enumerate(mine):
            if i in dead:
                continue
            event_time = msgspec.json.decode(value or b"")["event_time"]
            if event_time >= end_ms and event_time - arrival < 20 * MINUTE_MS:
                continue
            future += event_time > arrival + 10 * MINUTE_MS
            if event_time > arrival or event_time >= end_ms:
                continue
            good[value or b""] += 1
            if good[value or b""] == 1:
                late += 20_000 < arrival - event_time <= 15 * MINUTE_MS
                too_late += arrival - event_time > 15 * MINUTE_MS
    assert sum(count > 1 for count in good.values()) / total == pytest.approx(0.05, rel=0.15)
    assert late / total == pytest.approx(0.04, rel=0.15)
    assert too_late / total == pytest.approx(0.03, rel=0.15)
    assert future / total == pytest.approx(0.02, rel=0.2)
    assert refused / total == pytest.approx(0.06, rel=0.15)
    assert len(good) == pytest.approx(total, rel=0.002)


def test_faults_do_not_change_what_was_sold() -> None:
    clean = SimulatedShop(2, 24, PLAIN)
    noisy = SimulatedShop(
        2, 24, Scenario("noisy", faults=Faults(duplicates=0.5, broken=0.5, future=0.5))
    )
    clean_ids = {event["event_id"] for event in events(records(clean, 12), "orders")}
    noisy_values = [value for kind, _, value, _ in records(noisy, 12) if kind == "orders"]
    for event_id in clean_ids:
        assert any(event_id.encode() in (value or b"") for value in noisy_values)


@pytest.mark.parametrize("way", range(len(BREAKS)), ids=list(BREAKS))
@pytest.mark.parametrize("kind", ["orders", "clicks"])
def test_a_broken_value_is_never_a_valid_event(kind: Any, way: int) -> None:
    rows = [row for row in plain_week()[1][:20_000] if row[0] == kind][:200]
    broken = [break_value(value or b"", way) for _, _, value, _ in rows]
    decoded = EventDecoder(kind, EventSettings()).decode(broken, [row[1] for row in rows])
    assert len(decoded.refusals) == len(broken) == 200


@pytest.mark.parametrize(
    "make",
    [
        lambda: find_scenario("storm"),
        lambda: Faults(late=1.5),
        lambda: SimulatedShop(-1, 10, PLAIN),
        lambda: SimulatedShop(1, 0, PLAIN),
        lambda: SimulatedShop(1, 10, PLAIN, start_ms=5),
        lambda: SimulatedShop(1, 10, PLAIN, live_ms=0),
    ],
)
def test_impossible_wishes_are_refused(make: Any) -> None:
    with pytest.raises(InvalidInputError):
        make()
