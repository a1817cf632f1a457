"""Flash sales, drift cards and versions, each from a handful of records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from freshet.dashboard import boards, sales
from freshet.dashboard.serving import serving_now
from freshet.dashboard.state import TopicState
from freshet.stream.codec import encode
from freshet.stream.config import EventSettings, Settings
from freshet.stream.read.few import FewCells
from freshet.stream.schemas import (
    Alert,
    AlertData,
    CatalogEntry,
    InventoryLevel,
    Promotion,
    RetrainRequest,
    ServingVersion,
)
from freshet.stream.store.grid import Grid
from freshet.stream.units import HOUR_MS, MINUTE_MS


def sale(
    name: str = "rush", first: float = 95, last: float = 105, **more: Any
) -> tuple[Any, Promotion]:
    values: dict[str, Any] = {"sku": "A", "discount": 0.3, "kind": "flash_sale"}
    times: dict[str, Any] = {"starts_at": round(first * HOUR_MS), "ends_at": round(last * HOUR_MS)}
    return "promotions", Promotion(promotion_id=name, **times, **values | more)


def stock(
    on_hand: float, sku: str = "A", region: str = "north", hour: float = 100
) -> tuple[Any, InventoryLevel]:
    as_of = round(hour * HOUR_MS)
    return "inventory", InventoryLevel(sku=sku, region=region, on_hand=on_hand, as_of=as_of)


def board(
    make: Any, *records: Any, units: list[float] | None = None, now_hour: float = 100
) -> list[dict[str, Any]]:
    topics = make.topics(*records)
    actuals = make.actuals({"A|north": units or [4.0] * 10})
    shown = sales.flash_sales(topics, actuals, round(now_hour * HOUR_MS))
    found: list[dict[str, Any]] = shown["sales"]
    return found


# Flash sales --------------------------------------------------------------------------------------


def test_every_kind_that_alarms_as_a_flash_sale_is_shown(make: Any) -> None:
    kinds = ("flash_sale", "flash", "weekend-flash", "promotion")
    shown = board(make, *(sale(kind, kind=kind) for kind in kinds))
    assert {found["promotion_id"] for found in shown} == set(kinds[:3])


def test_a_running_sale_counts_what_was_sold_since_its_start(make: Any) -> None:
    [found] = board(make, sale(), stock(20), ("forecasts", make.forecast()))
    assert (found["state"], found["sold"], found["on_hand"], found["sell_through"]) == (
        "running",
        20.0,
        20.0,
        0.5,
    )
    # Two units an hour are likely, five hours are left: ten of twenty.
    [row] = found["items"]
    assert row["expected_units"] == pytest.approx(10.0)
    assert row["chance"] == 0.0
    assert row["eta_ms"][1] == 110 * HOUR_MS


def test_a_sale_that_starts_within_a_bucket_takes_its_share_of_it(make: Any) -> None:
    [found] = board(make, sale(first=97.75), stock(20), ("forecasts", make.forecast()))
    assert found["sold"] == 4.0 * 0.25 + 4.0 + 4.0


def test_a_sale_that_will_surely_sell_out_says_so(make: Any) -> None:
    [found] = board(make, sale(), stock(3), ("forecasts", make.forecast()))
    assert found["items"][0]["chance"] == 1.0
    assert 100 * HOUR_MS < found["items"][0]["eta_ms"][1] < 105 * HOUR_MS


def test_without_stock_or_forecast_nothing_is_made_up(make: Any) -> None:
    [found] = board(make, sale())
    [row] = found["items"]
    assert (row["chance"], row["eta_ms"], row["on_hand"], row["sell_through"]) == (
        None,
        None,
        None,
        None,
    )


def test_sales_are_announced_then_running_then_ended_then_gone(make: Any) -> None:
    states = {
        hour: [s["state"] for s in board(make, sale(), now_hour=hour)]
        for hour in (40, 60, 100, 105, 110, 112)
    }
    assert states == {
        40: [],
        60: ["announced"],
        100: ["running"],
        105: ["ended"],
        110: ["ended"],
        112: [],
    }


def test_the_running_sale_comes_first_and_coupons_are_no_flash_sales(make: Any) -> None:
    found = board(
        make,
        sale("later", 101, 103),
        sale("now"),
        sale("over", 90, 99),
        sale("paper", kind="coupon"),
    )
    assert [s["promotion_id"] for s in found] == ["now", "later", "over"]


def test_a_category_sale_covers_its_items_the_likeliest_to_sell_out_first(make: Any) -> None:
    [found] = board(
        make,
        ("catalog", CatalogEntry(sku="A", category="Boots")),
        ("catalog", CatalogEntry(sku="B", category="Boots")),
        ("forecasts", make.forecast("A|north")),
        ("forecasts", make.forecast("B|south")),
        stock(500),
        stock(1, "B", "south"),
        sale(sku=None, category="Boots"),
    )
    assert found["title"] == "Boots"
    assert [row["item_id"] for row in found["items"]] == ["B|south", "A|north"]


def test_a_sale_is_running_from_its_start_on_and_ended_from_its_end_on(make: Any) -> None:
    states = {
        round(hour * HOUR_MS) + ms: board(make, sale(), now_hour=hour + ms / HOUR_MS)
        for hour in (47, 95, 105, 111)
        for ms in (-1, 0, 1)
    }
    found = {
        (at_ms // HOUR_MS, (at_ms + 1) % HOUR_MS - 1): [one["state"] for one in shown]
        for at_ms, shown in states.items()
    }
    assert found == {
        (46, -1): [],
        (47, 0): [],  # two days before its start it is not announced yet
        (47, 1): ["announced"],
        (94, -1): ["announced"],
        (95, 0): ["running"],
        (95, 1): ["running"],
        (104, -1): ["running"],
        (105, 0): ["ended"],
        (105, 1): ["ended"],
        (110, -1): ["ended"],
        (111, 0): [],
        (111, 1): [],
    }


def test_an_ended_sale_sold_up_to_its_end_and_estimates_nothing(make: Any) -> None:
    records = (sale(first=91.5, last=94.25), stock(20), ("forecasts", make.forecast()))
    units = [float(hour) for hour in range(10)]  # hours 90 to 99
    [found] = board(make, *records, units=units)
    assert found["state"] == "ended"
    # Half of hour 91, all of 92 and 93, a quarter of 94.
    assert found["sold"] == found["items"][0]["sold"] == 0.5 + 2.0 + 3.0 + 1.0
    assert found["sell_through"] == round(6.5 / 26.5, 4)
    assert (found["items"][0]["chance"], found["items"][0]["eta_ms"]) == (None, None)


def test_what_was_not_observed_is_not_sold_and_not_nothing(make: Any) -> None:
    gap = float("nan")
    [some] = board(make, sale(first=97), stock(20), units=[9.0] * 7 + [gap, 2.0, 3.0])
    assert some["sold"] == 5.0
    [none] = board(make, sale(first=97), stock(20), units=[9.0] * 7 + [gap] * 3)
    assert (none["sold"], none["sell_through"]) == (None, None)
    [announced] = board(make, sale(first=101), stock(20))
    assert (announced["sold"], announced["sell_through"]) == (0.0, 0.0)
    [below] = board(make, sale(first=97), stock(-4))
    assert (below["on_hand"], below["sell_through"]) == (0.0, 1.0)


def test_a_sale_adds_up_its_items_and_shows_those_likeliest_to_sell_out(make: Any) -> None:
    regions = [f"r{number}" for number in range(9)]
    records = [sale(first=98), ("catalog", CatalogEntry(sku="A", title="Boot", category="x"))]
    for number, region in enumerate(regions):
        records.append(stock(10.0 * (9 - number), region=region))
    topics = make.topics(*records)
    actuals = make.actuals({f"A|{region}": [100.0, 1.0 + number, 1.0 + number]
                            for number, region in enumerate(regions)})  # fmt: skip
    [found] = sales.flash_sales(topics, actuals, 100 * HOUR_MS)["sales"]
    assert (found["title"], found["num_items"]) == ("Boot", 9)
    assert found["sold"] == 2 * sum(range(1, 10)) and found["on_hand"] == 10 * sum(range(1, 10))
    assert found["sell_through"] == round(90 / 540, 4)
    # Without forecasts the one that sold most is first, and the ninth is not shown.
    assert [row["item_id"] for row in found["items"]] == [f"A|r{n}" for n in range(8, 0, -1)]
    assert [row["sold"] for row in found["items"]] == [2.0 * n for n in range(9, 1, -1)]


def test_sales_are_ordered_by_state_and_time_and_no_more_than_a_dozen_are_shown(
    make: Any,
) -> None:
    records = [sale(f"run{n}", 90 + n, 120) for n in range(9)]
    records += [sale("soon", 110, 120), sale("later", 111, 120)]
    records += [sale("long over", 80, 96), sale("just over", 85, 99)]
    shown = sales.flash_sales(make.topics(*records), make.actuals({}), 100 * HOUR_MS)
    assert (shown["total"], shown["now_ms"]) == (13, 100 * HOUR_MS)
    names = [found["promotion_id"] for found in shown["sales"]]
    assert names == [*(f"run{n}" for n in range(9)), "soon", "later", "just over"]


def test_a_sale_and_its_items_are_told_whole(make: Any) -> None:
    # Two units an hour for sure, ten on hand, 3.25 hours of the sale left from 100:30 on.
    forecast = make.forecast("A|north", quantiles=[[2.0, 2.0, 2.0]] * 24)
    in_stock = stock(10, hour=100.5)
    records = (sale(first=98.5, last=103.75), in_stock, ("forecasts", forecast))
    shown = sales.flash_sales(
        make.topics(*records), make.actuals({"A|north": [4.0] * 10}), 100 * HOUR_MS + HOUR_MS // 2
    )
    [found] = shown["sales"]
    [row] = found.pop("items")
    assert found == {
        "promotion_id": "rush",
        "state": "running",
        "title": "A",
        "discount": 0.3,
        "starts_ms": round(98.5 * HOUR_MS),
        "ends_ms": round(103.75 * HOUR_MS),
        "sold": 6.0,
        "by_minute_from_ms": None,
        "on_hand": 10.0,
        "sell_through": 0.375,
        "num_items": 1,
    }
    assert (row["item_id"], row["region"], row["sold"], row["on_hand"]) == (
        *("A|north", "north", 6.0, 10.0),
    )
    assert (row["sell_through"], row["chance"], row["expected_units"]) == (0.375, 0.0, 6.5)
    assert row["until_ms"] == round(103.75 * HOUR_MS)
    low, middle, high = row["eta_ms"]
    assert low <= middle <= high and middle == round(105.5 * HOUR_MS)


def test_items_are_found_by_the_sku_in_their_forecast_or_else_in_their_name(make: Any) -> None:
    topics = TopicState(Settings(events=EventSettings(series_by=("region", "sku"))))
    for kind, record in (
        sale(first=98),
        ("forecasts", make.forecast("north|A", sku="A", region="north")),
        ("forecasts", make.forecast("south|B", sku="A", region="south")),
    ):
        assert topics.apply(kind, b"key", encode(record), 0)
    actuals = make.actuals({"west|A": [9.0, 9.0], "A|east": [1.0, 1.0]})
    [found] = sales.flash_sales(topics, actuals, 100 * HOUR_MS)["sales"]
    rows = [(row["item_id"], row["region"], row["sold"]) for row in found["items"]]
    assert rows == [("west|A", "", 18.0), ("north|A", "north", None), ("south|B", "south", None)]
    assert (found["sold"], found["on_hand"], found["title"]) == (18.0, None, "A")


def test_a_sale_covers_every_region_of_its_sku_and_a_nameless_entry_gives_no_title(
    make: Any,
) -> None:
    topics = make.topics(sale(first=98), ("catalog", CatalogEntry(sku="A", category="x")))
    actuals = make.actuals({"A|north": [1.0, 2.0], "A|south": [3.0, 4.0], "B|north": [9.0, 9.0]})
    [found] = sales.flash_sales(topics, actuals, 100 * HOUR_MS)["sales"]
    assert (found["title"], found["num_items"], found["sold"]) == ("A", 2, 10.0)


# By the minute ------------------------------------------------------------------------------------


def minutes(
    units: list[float], *, item_id: str = "A|north", to_hour: float = 100.5, open_buckets: int = 1
) -> FewCells:
    """Minutes that end at an hour, the newest of them open."""
    grid = Grid(MINUTE_MS)
    observed_B = np.ones(len(units), bool)
    observed_B[len(units) - open_buckets :] = False
    return FewCells(
        grid,
        first=grid.bucket(round(to_hour * HOUR_MS)) - len(units),
        units={item_id: np.array([round(1_000 * amount) for amount in units])},
        observed_B=observed_B,
        offsets={"orders:0": 7},
        reached_ms=round(to_hour * HOUR_MS) - 20_000,
    )


def minute_forecast(make: Any, hour: float = 100.5, **more: Any) -> tuple[Any, Any]:
    """Two units a minute for sure, over two hours."""
    values: dict[str, Any] = {
        "resolution_ms": MINUTE_MS,
        "cutoff_ms": round(hour * HOUR_MS),
        "quantiles": [[2.0, 2.0, 2.0]] * 120,
    }
    return "forecasts", make.forecast(**values | more)


def board_by_minute(
    make: Any, *records: Any, cells: FewCells, units: list[float] | None = None
) -> dict[str, Any]:
    topics, actuals = make.topics(*records), make.actuals({"A|north": units or [4.0] * 10})
    shown = sales.flash_sales(topics, actuals, round(100.5 * HOUR_MS), cells)
    assert (shown["offsets"], shown["counted_to_ms"]) == (cells.offsets, cells.reached_ms)
    [found] = shown["sales"]
    return dict(found)


def test_a_sale_is_counted_by_the_minute_the_open_one_too(make: Any) -> None:
    cells = minutes([5.0] * 28 + [7.0, 1.0])
    found = board_by_minute(make, sale(first=100.25), cells=cells)
    # From 100:15 on: minutes 15 to 27 of five, then seven, and one in the open minute.
    assert (found["sold"], found["by_minute_from_ms"]) == (13 * 5.0 + 7.0 + 1.0, None)


def test_a_start_within_a_minute_takes_its_share_of_it(make: Any) -> None:
    cells = minutes([8.0] + [0.0] * 29)
    found = board_by_minute(make, sale(first=100 + 15 / 3_600), cells=cells)
    assert found["sold"] == 6.0


def test_before_the_minutes_that_are_held_hours_are_counted_and_it_is_said(make: Any) -> None:
    # Minutes from 99:30 on, so hours up to 100: half of hour 97, and 98 and 99.
    cells = minutes([1.0] * 60)
    found = board_by_minute(make, sale(first=97.5), cells=cells, units=[4.0] * 10)
    assert (found["sold"], found["by_minute_from_ms"]) == (2.0 + 8.0 + 30.0, 100 * HOUR_MS)


def test_where_the_hour_is_not_over_minutes_are_counted_from_the_first_one(make: Any) -> None:
    # The shop's first order came at 100:20.
    cells = minutes([1.0] * 10)
    found = board_by_minute(make, sale(first=100.1), cells=cells)
    assert (found["sold"], found["by_minute_from_ms"]) == (
        10.0,
        100 * HOUR_MS + 20 * MINUTE_MS,
    )


def test_an_ended_sale_has_what_was_sold_before_its_end(make: Any) -> None:
    found = board_by_minute(make, sale(first=100.25, last=100.3), cells=minutes([5.0] * 30))
    assert (found["state"], found["sold"]) == ("ended", 15.0)


def test_what_is_left_is_what_was_there_less_what_sold_since(make: Any) -> None:
    cells = minutes([5.0] * 30)
    found = board_by_minute(make, sale(first=100), stock(400, hour=100.1), cells=cells)
    [row] = found["items"]
    assert (found["sold"], row["on_hand"]) == (150.0, 400.0 - 24 * 5.0)
    assert row["stock_as_of_ms"] == round(100.1 * HOUR_MS)
    assert row["sell_through"] == round(150 / 430, 4)
    [gone] = board_by_minute(make, sale(first=100), stock(100, hour=100.1), cells=cells)["items"]
    assert gone["on_hand"] == 0.0


def test_all_that_is_counted_of_the_minute_that_runs_is_gone(make: Any) -> None:
    cells = minutes([0.0] * 30 + [8.0], to_hour=100.5 + 1 / 60)
    topics = make.topics(sale(first=100), stock(400, hour=100.1))
    now_ms = round(100.5 * HOUR_MS) + 30_000
    shown = sales.flash_sales(topics, make.actuals({"A|north": [4.0]}), now_ms, cells)
    [row] = shown["sales"][0]["items"]
    assert (row["sold"], row["on_hand"]) == (8.0, 392.0)


def test_an_item_that_has_not_sold_yet_sold_nothing(make: Any) -> None:
    cells = minutes([5.0] * 30, item_id="B|north")
    assert board_by_minute(make, sale(first=100.25), cells=cells)["sold"] == 0.0


def test_the_minute_forecast_says_when_it_is_gone_where_it_is_the_later_one(make: Any) -> None:
    cells = minutes([0.0] * 30)
    hourly = ("forecasts", make.forecast(hour=100, quantiles=[[60.0, 60.0, 60.0]] * 24))
    records = (sale(first=100), stock(90, hour=100.5), hourly)
    by_hour = round(102 * HOUR_MS)
    [row] = board_by_minute(make, *records, cells=cells)["items"]
    assert row["eta_ms"] == [by_hour] * 3
    [row] = board_by_minute(make, *records, minute_forecast(make), cells=cells)["items"]
    assert row["eta_ms"] == [round(100.5 * HOUR_MS) + 45 * MINUTE_MS] * 3
    # An older one by the minute does not count for more than a newer one by the hour.
    [row] = board_by_minute(make, *records, minute_forecast(make, 99.9), cells=cells)["items"]
    assert row["eta_ms"] == [by_hour] * 3


def test_what_the_minutes_do_not_see_any_more_the_hours_say(make: Any) -> None:
    cells = minutes([0.0] * 30)
    hourly = ("forecasts", make.forecast(hour=100, quantiles=[[60.0, 60.0, 60.0]] * 24))
    records = (sale(first=100, last=110), stock(300, hour=100.5), hourly, minute_forecast(make))
    [row] = board_by_minute(make, *records, cells=cells)["items"]
    # 240 in the two hours of minutes; by the hour 300 are gone five hours from now.
    assert row["eta_ms"] == [round(105.5 * HOUR_MS)] * 3
    assert row["until_ms"] == 110 * HOUR_MS


def test_a_time_that_has_passed_since_sales_were_counted_is_now(make: Any) -> None:
    # Counted up to 20 s before now; half a unit would be gone 15 s after that.
    records = (sale(first=100), stock(0.5, hour=100.4), minute_forecast(make, 100.4))
    [row] = board_by_minute(make, *records, cells=minutes([0.0] * 30))["items"]
    assert row["eta_ms"] == [round(100.5 * HOUR_MS)] * 3


def test_a_shop_that_warms_up_and_days_say_nothing_about_the_minute(make: Any) -> None:
    young = make.forecast(status="warming_up", quantiles=[])
    day = make.forecast(resolution_ms=24 * HOUR_MS, hour=96)
    records = (sale(first=100), stock(9), ("forecasts", young), ("forecasts", day))
    [row] = board_by_minute(make, *records, cells=minutes([0.0] * 30))["items"]
    assert (row["eta_ms"], row["chance"]) == (None, None)


def test_only_items_of_sales_that_began_are_counted_by_the_minute(make: Any) -> None:
    records = [sale("now", sku="A"), sale("soon", 101, 103, sku="B"), sale("over", 90, 99, sku="C")]
    names = {f"{sku}|north": [1.0] * 9 for sku in "ABCD"}
    topics = make.topics(*records)
    found = sales.items_on_sale(topics, make.actuals(names), 100 * HOUR_MS)
    assert found == {"A|north", "C|north"}


# Drift --------------------------------------------------------------------------------------------


def test_a_card_shows_the_six_days_before_its_newest_score_and_the_last_eight_alerts(
    make: Any,
) -> None:
    alerts = [
        ("drift", make.drift(alert_id=f"a{n}", detected_at_ms=n * HOUR_MS, size=0.1 * n))
        for n in range(1, 11)
    ]
    scores = [("scores", make.score(hour=hour)) for hour in (55, 56, 200)]
    [card] = boards.drift(make.topics(*alerts, *scores))["cards"]
    assert [step["at_ms"] for step in card["history"]] == [n * HOUR_MS for n in range(3, 11)]
    # Six days before hour 200 is hour 56; a point is shown at its bucket's end.
    assert card["error"]["at_ms"] == [57 * HOUR_MS, 201 * HOUR_MS]
    assert card["error"]["seasonal_naive_wql"] == [0.4, 0.4]


def test_cards_in_drift_come_before_warnings_and_the_newest_of_each_first(make: Any) -> None:
    cards = [
        ("old", "drift", 1),
        ("warned", "warning", 9),
        ("calm", "stable", 10),
        ("new", "drift", 5),
    ]
    alerts = [
        make.drift(alert_id=name, segment=name, state=state, detected_at_ms=hour * HOUR_MS)
        for name, state, hour in cards
    ]
    shown = boards.drift(make.topics(*(("drift", alert) for alert in alerts)))["cards"]
    assert [card["segment"] for card in shown] == ["new", "old", "warned", "calm"]


def test_a_card_tells_the_newest_state_of_a_segment_beside_the_last_trouble(make: Any) -> None:
    drifted = make.drift(alert_id="a1", detected_at_ms=100, onset_ms=90, size=0.9)
    warned = make.drift(
        alert_id="a2",
        state="warning",
        kind="spread",
        detector="cusum",
        detected_at_ms=110,
        onset_ms=80,
        size=0.4,
        weights_version="v2",
        description="wider",
        action="wait",
    )
    calm = make.drift(
        alert_id="a3",
        state="stable",
        kind="data",
        detected_at_ms=130,
        onset_ms=85,
        size=0.1,
        weights_version="v3",
        description="right again",
        action="nothing",
    )
    tents = make.drift(alert_id="b1", segment="Tents", state="stable", detected_at_ms=120)
    scores = [
        make.score(hour=104, pinball=1.0, seasonal_naive_pinball=3.0),
        make.score("B|n", hour=104, segment="Tents", pinball=9.0),
        make.score("A|north", hour=105, pinball=3.0, seasonal_naive_pinball=5.0),
    ]
    records = [("drift", alert) for alert in (drifted, warned, tents, calm)]
    topics = make.topics(*records, *(("scores", score) for score in scores))
    card, other = boards.drift(topics)["cards"]
    assert other["segment"] == "Tents" and other["error"]["wql"] == [0.9]
    assert card == {
        "segment": "Boots",
        "state": "stable",
        "kind": "spread",
        "detector": "cusum",
        "detected_at_ms": 130,
        "onset_ms": 80,
        "size": 0.4,
        "weights_version": "v2",
        "description": "right again",
        "action": "nothing",
        "history": [
            {"state": "drift", "at_ms": 100, "size": 0.9},
            {"state": "warning", "at_ms": 110, "size": 0.4},
            {"state": "stable", "at_ms": 130, "size": 0.1},
        ],
        "error": {
            "resolution_ms": HOUR_MS,
            "at_ms": [105 * HOUR_MS, 106 * HOUR_MS],
            "wql": [0.1, 0.2],
            "seasonal_naive_wql": [0.3, 0.4],
        },
        # It was found at 110, and began at 80.
        "ladder": {"found_after_ms": 30, "served": None, "training": []},
    }


def test_a_segment_without_trouble_or_scores_has_a_card_too(make: Any) -> None:
    calm = make.drift(state="stable", kind="data", detected_at_ms=9)
    [card] = boards.drift(make.topics(("drift", calm)))["cards"]
    assert (card["state"], card["kind"], card["detected_at_ms"]) == ("stable", "data", 9)
    assert card["ladder"] is None
    assert card["error"] == {
        "resolution_ms": HOUR_MS,
        "at_ms": [],
        "wql": [],
        "seasonal_naive_wql": [],
    }


def alert(subject: str, state: Any, *, starts_at_ms: int = 1, updated_at_ms: int = 2) -> Any:
    data = AlertData(
        state=state,
        severity="critical",
        title=f"title of {subject}",
        description=f"why {subject}",
        starts_at_ms=starts_at_ms,
        updated_at_ms=updated_at_ms,
    )
    type_ = "io.freshet.model"
    return "alerts", Alert(
        id=f"id of {subject}", source="/x", type=type_, subject=subject, time="", data=data
    )


def test_alerts_that_are_not_resolved_are_told_the_latest_change_first(make: Any) -> None:
    topics = make.topics(
        alert("over", "resolved", updated_at_ms=99),
        alert("old", "firing", starts_at_ms=9, updated_at_ms=10),
        alert("new", "updated", starts_at_ms=5, updated_at_ms=20),
    )
    shown = boards.drift(topics)["alerts"]
    assert shown[0] == {
        "fingerprint": "new",
        "type": "io.freshet.model",
        "severity": "critical",
        "title": "title of new",
        "description": "why new",
        "starts_at_ms": 5,
    }
    assert [one["fingerprint"] for one in shown] == ["new", "old"]


def test_two_dozen_cards_and_alerts_are_shown_the_newest(make: Any) -> None:
    segments = [
        ("drift", make.drift(alert_id=f"a{n}", segment=f"s{n}", detected_at_ms=n))
        for n in range(30)
    ]
    alerts = [alert(f"f{n}", "firing", updated_at_ms=n) for n in range(30)]
    shown = boards.drift(make.topics(*segments, *alerts))
    assert [card["segment"] for card in shown["cards"]] == [f"s{n}" for n in range(29, 5, -1)]
    assert [one["fingerprint"] for one in shown["alerts"]] == [f"f{n}" for n in range(29, 5, -1)]


# Weights ------------------------------------------------------------------------------------------


def test_a_promoted_version_serves_and_shows_what_it_gained_over_its_parent(make: Any) -> None:
    topics = make.topics(
        (
            "retrain",
            RetrainRequest(request_id="r1", requested_at_ms=0, reason="drift", segments=["Boots"]),
        ),
        ("models", make.model("training", "v2", 99, parent="base", request_id="r1")),
        (
            "models",
            make.model(
                "promoted",
                "v2",
                100,
                parent="base",
                gate={"gain_low": 0.1, "gain_low.ok": True, "gain": 0.12, "days": 3.0},
            ),
        ),
        ("models", make.model("swapped", "v2", 100.1, worker="w0", pause_ms=0.2)),
        ("scores", make.score(hour=99, pinball=4.0)),
        ("scores", make.score(hour=101, pinball=1.0, weights_version="v2")),
        ("scores", make.score("B|n", hour=101, pinball=9.0)),
    )
    found = boards.models(topics)
    [version] = found["versions"]
    assert (found["serving"], version["status"], version["parent"]) == ("v2", "serving", "base")
    assert version["asked"] == {"reason": "drift", "segments": ["Boots"]}
    assert version["gain"] == {"gain": 0.12, "days": 3.0}
    assert version["swaps"] == [{"worker": "w0", "at_ms": round(100.1 * HOUR_MS), "pause_ms": 0.2}]
    assert version["gate"] == [{"name": "gain_low", "value": 0.1, "threshold": None, "ok": True}]


@pytest.mark.parametrize("hour", [1, 2])
def test_a_roll_back_ends_the_promotion_before_it_and_none_after_it(make: Any, hour: int) -> None:
    topics = make.topics(
        ("models", make.model("rolled_back", "base", hour, parent="v2", reason="an older one")),
        ("models", make.model("promoted", "v2", 2, parent="base")),
        ("models", make.model("rolled_back", "base", 3, parent="v9", reason="another's")),
    )
    [version] = boards.models(topics)["versions"]
    assert (version["rolled_back_at_ms"], version["rolled_back_because"]) == (None, "")
    assert [event["reason"] for event in boards.models(topics)["rollbacks"]] == [
        "another's",
        "an older one",
    ]


def test_a_swap_that_failed_and_then_worked_is_no_failure(make: Any) -> None:
    topics = make.topics(
        ("models", make.model("promoted", "v2", 1, parent="base")),
        ("models", make.model("swap_failed", "v2", 2)),
        ("models", make.model("swapped", "v2", 3, worker="w0")),
        ("models", make.model("confirmed", "v2", 4)),
    )
    [version] = boards.models(topics)["versions"]
    assert (version["status"], version["confirmed_at_ms"]) == ("serving", 4 * HOUR_MS)
    assert version["at_ms"] == 4 * HOUR_MS


def test_a_candidate_s_training_belongs_to_the_version_it_became(make: Any) -> None:
    topics = make.topics(
        ("models", make.model("training", "candidate-r1", 1, parent="base", request_id="r1")),
        ("models", make.model("promoted", "v2", 2, parent="base", request_id="r1")),
        ("models", make.model("training", "candidate-r2", 3, parent="v2", request_id="r2")),
    )
    versions = boards.models(topics)["versions"]
    assert [(version["version"], version["status"]) for version in versions] == [
        ("candidate-r2", "training"),
        ("v2", "serving"),
    ]
    assert [step["kind"] for step in versions[1]["steps"]] == ["training", "promoted"]


def test_the_life_of_versions_ends_in_the_right_words(make: Any) -> None:
    topics = make.topics(
        ("models", make.model("rejected", "v1", 1, parent="base", reason="gain_low")),
        ("models", make.model("promoted", "v2", 2, parent="base")),
        ("models", make.model("confirmed", "v2", 3, parent="base")),
        ("models", make.model("promoted", "v3", 4, parent="v2")),
        ("models", make.model("rolled_back", "v2", 5, parent="v3", reason="worse than its parent")),
        ("models", make.model("promoted", "v4", 6, parent="v2")),
        ("models", make.model("swap_failed", "v4", 6.1, parent="v2", reason="sha256")),
        ("models", make.model("training", "v5", 7, parent="v4")),
    )
    found = boards.models(topics)
    assert {version["version"]: version["status"] for version in found["versions"]} == {
        "v1": "rejected",
        "v2": "retired",
        "v3": "rolled_back",
        "v4": "swap_failed",
        "v5": "training",
    }
    assert [version["version"] for version in found["versions"]] == ["v5", "v4", "v3", "v2", "v1"]
    undone = next(version for version in found["versions"] if version["version"] == "v3")
    assert (undone["rolled_back_at_ms"], undone["rolled_back_because"]) == (
        5 * HOUR_MS,
        "worse than its parent",
    )
    assert [event["version"] for event in found["rollbacks"]] == ["v2"]


def test_a_promotion_serves_only_once_forecasts_name_it(make: Any) -> None:
    before = ("forecasts", make.forecast(hour=9, weights_version="base"))
    promoted = ("models", make.model("promoted", "v2", 10, parent="base"))
    older = ("models", make.model("promoted", "v1", 5, parent="base"))
    topics = make.topics(("models", make.model("promoted", "base", 1)), before, older, promoted)
    statuses = {
        version["version"]: version["status"] for version in boards.models(topics)["versions"]
    }
    assert statuses == {"base": "serving", "v1": "retired", "v2": "promoted"}
    topics.book.apply(make.forecast(hour=10, weights_version="v2"))
    statuses = {
        version["version"]: version["status"] for version in boards.models(topics)["versions"]
    }
    assert statuses == {"base": "retired", "v1": "retired", "v2": "serving"}


def test_a_request_waits_until_an_event_names_it(make: Any) -> None:
    topics = make.topics(
        request("r1", 1),
        request("r2", 2),
        ("models", make.model("training", "v2", 1, request_id="r1")),
    )
    assert boards.models(topics)["pending"] == [
        {"reason": "drift", "segments": ["of r2"], "requested_at_ms": 2}
    ]


def request(name: str, at_ms: int, reason: Any = "drift") -> tuple[Any, RetrainRequest]:
    return "retrain", RetrainRequest(
        request_id=name, requested_at_ms=at_ms, reason=reason, segments=[f"of {name}"]
    )


def test_a_version_tells_its_whole_life(make: Any) -> None:
    gate = {"gain": 0.2, "gain.threshold": 0.01, "gain.ok": True}
    topics = make.topics(
        request("r1", 1, "manual"),
        ("models", make.model("swapped", "base", 0.5, worker="w0")),
        ("models", make.model("training", "candidate-r1", 1, request_id="r1", reason="begun")),
        (
            "models",
            make.model(
                "promoted", "v2", 3, parent="base", request_id="r1", reason="better", gate=gate
            ),
        ),
        ("models", make.model("swapped", "v2", 3.5, worker="w0", pause_ms=0.2)),
        ("models", make.model("confirmed", "v2", 4, reason="held")),
        ("models", make.model("swapped", "v2", 5, worker="w1", pause_ms=0.3)),
        ("models", make.model("rolled_back", "base", 6, parent="v2", reason="worse")),
    )
    found = boards.models(topics)
    v2, base = found["versions"]
    assert v2 == {
        "version": "v2",
        "parent": "base",
        "status": "rolled_back",
        "segments": [],
        "at_ms": 4 * HOUR_MS,
        "steps": [
            {"kind": "training", "at_ms": HOUR_MS},
            {"kind": "promoted", "at_ms": 3 * HOUR_MS},
            {"kind": "confirmed", "at_ms": 4 * HOUR_MS},
        ],
        "swaps": [
            {"worker": "w0", "at_ms": round(3.5 * HOUR_MS), "pause_ms": 0.2},
            {"worker": "w1", "at_ms": 5 * HOUR_MS, "pause_ms": 0.3},
        ],
        "reason": "better",
        "asked": {"reason": "manual", "segments": ["of r1"]},
        "gate": [{"name": "gain", "value": 0.2, "threshold": 0.01, "ok": True}],
        "gain": {"gain": 0.2, "days": None},
        "confirmed_at_ms": 4 * HOUR_MS,
        "rolled_back_at_ms": 6 * HOUR_MS,
        "rolled_back_because": "worse",
    }
    assert (base["version"], base["status"], base["at_ms"]) == ("base", "serving", HOUR_MS // 2)
    assert found["serving"] == "base", "what was rolled back to"
    back = {"version": "base", "segments": [], "at_ms": 6 * HOUR_MS, "reason": "worse"}
    assert found["rollbacks"] == [back]


def test_a_rejected_candidate_tells_why_and_who_asked(make: Any) -> None:
    gate = {"gain": -0.1, "gain.ok": False}
    topics = make.topics(
        request("r7", 1),
        ("models", make.model("training", "candidate-r7", 1, parent="base", request_id="r7")),
        ("models", make.model("rejected", "candidate-r7", 2, reason="no gain", gate=gate)),
    )
    [version] = boards.models(topics)["versions"]
    assert (version["status"], version["reason"]) == ("rejected", "no gain")
    assert version["asked"] == {"reason": "drift", "segments": ["of r7"]}
    assert version["gate"] == [{"name": "gain", "value": -0.1, "threshold": None, "ok": False}]
    assert (version["gain"]["gain"], version["confirmed_at_ms"]) == (-0.1, None)
    assert version["parent"] == "base"


def test_before_a_verdict_the_last_word_of_a_version_is_its_reason(make: Any) -> None:
    topics = make.topics(
        ("models", make.model("training", "v2", 1, reason="begun")),
        ("models", make.model("training", "v2", 2, reason="again")),
    )
    [version] = boards.models(topics)["versions"]
    assert (version["reason"], version["gate"], version["asked"]) == ("again", [], None)


def test_two_dozen_versions_and_rollbacks_and_three_requests_are_shown_the_newest(
    make: Any,
) -> None:
    records: list[Any] = [request(f"r{n}", n) for n in range(5)]
    for n in range(30):
        records.append(("models", make.model("promoted", f"v{n}", 2 * n, parent="base")))
        back = make.model("rolled_back", "base", 2 * n + 1, parent=f"v{n}", reason=f"of v{n}")
        records.append(("models", back))
    found = boards.models(make.topics(*records))
    newest = range(29, 5, -1)
    assert [version["version"] for version in found["versions"]] == [f"v{n}" for n in newest]
    assert [event["reason"] for event in found["rollbacks"]] == [f"of v{n}" for n in newest]
    assert [one["segments"] for one in found["pending"]] == [["of r4"], ["of r3"], ["of r2"]]


def test_before_any_promotion_the_version_of_the_forecasts_serves(make: Any) -> None:
    topics = make.topics(("forecasts", make.forecast(weights_version="base")))
    assert boards.models(topics) == {
        "serving": "base",
        "beside": "",
        "versions": [],
        "rollbacks": [],
        "pending": [],
    }


def two(default: str, other: str, *segments: str) -> list[ServingVersion]:
    return [
        ServingVersion(version=default),
        ServingVersion(version=other, segments=list(segments)),
    ]


def test_of_two_versions_both_serve_and_the_second_says_whom(make: Any) -> None:
    records = [
        ("models", make.model("promoted", "v2", 1, parent="base")),
        ("models", make.model("promoted", "v3", 2, serves=two("v2", "v3", "Boots"))),
    ]
    for seen in ([], ["v2"], ["v3"], ["v2", "v3"]):
        made = [
            ("forecasts", make.forecast(f"{n}|n", weights_version=version))
            for n, version in enumerate(seen)
        ]
        topics = make.topics(*records, *made)
        found = boards.models(topics)
        assert (found["serving"], found["beside"]) == ("v2", "v3")
        told = {one["version"]: (one["status"], one["segments"]) for one in found["versions"]}
        assert told == {"v2": ("serving", []), "v3": ("serving", ["Boots"])}
        assert serving_now(topics).default == "v2", "whatever was heard of last"


def test_what_forecasts_name_serves_whatever_two_were_announced(make: Any) -> None:
    topics = make.topics(
        ("models", make.model("promoted", "v3", 2, serves=two("v2", "v3", "Boots"))),
        ("forecasts", make.forecast(weights_version="base")),
    )
    found = boards.models(topics)
    assert (found["serving"], found["beside"]) == ("base", "")
    assert found["versions"][0]["segments"] == ["Boots"], "for whom it was promoted"


def test_a_version_that_was_taken_back_for_some_serves_on(make: Any) -> None:
    back = make.model(
        "rolled_back", "base", 3, parent="v2", reason="worse", serves=two("v2", "base", "Boots")
    )
    found = boards.models(
        make.topics(("models", make.model("promoted", "v2", 2, parent="base")), ("models", back))
    )
    [version] = found["versions"]
    assert (version["status"], version["rolled_back_at_ms"]) == ("serving", None)
    [told] = found["rollbacks"]
    assert (told["version"], told["segments"], told["reason"]) == ("base", ["Boots"], "worse")


def test_gate_lines_put_the_failed_first() -> None:
    gate: dict[str, Any] = {
        "verdict": "reject",
        "a": 1.0,
        "a.ok": True,
        "b": "-inf",
        "b.threshold": 0.0,
        "b.ok": False,
    }
    assert [(line["name"], line["ok"]) for line in boards.gate_lines(gate)] == [
        ("b", False),
        ("a", True),
    ]


def test_of_a_single_unit_that_was_sold_all_is_sold() -> None:
    assert (sales._share(1.0, 0.0), sales._share(0.0, 1.0), sales._share(0.0, 0.0)) == (1, 0, None)
