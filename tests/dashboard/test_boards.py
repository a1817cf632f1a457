"""Flash sales, drift cards and versions, each from a handful of records."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.dashboard import boards, sales
from freshet.stream.schemas import (
    Alert,
    AlertData,
    CatalogEntry,
    InventoryLevel,
    Promotion,
    RetrainRequest,
)
from freshet.stream.units import HOUR_MS


def sale(
    name: str = "rush", first: float = 95, last: float = 105, **more: Any
) -> tuple[Any, Promotion]:
    values: dict[str, Any] = {"sku": "A", "discount": 0.3, "kind": "flash_sale"}
    times: dict[str, Any] = {"starts_at": round(first * HOUR_MS), "ends_at": round(last * HOUR_MS)}
    return "promotions", Promotion(promotion_id=name, **times, **values | more)


def stock(on_hand: float, sku: str = "A", region: str = "north") -> tuple[Any, InventoryLevel]:
    return "inventory", InventoryLevel(sku=sku, region=region, on_hand=on_hand, as_of=0)


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


def test_a_segment_has_one_card_with_its_newest_state_and_the_trouble_behind_it(make: Any) -> None:
    topics = make.topics(
        ("drift", make.drift(state="warning", detected_at_ms=108 * HOUR_MS, size=0.4)),
        ("drift", make.drift(alert_id="a2", size=0.9)),
        (
            "drift",
            make.drift(
                alert_id="a3", state="stable", size=0.1, kind="data", detected_at_ms=130 * HOUR_MS
            ),
        ),
        ("drift", make.drift(alert_id="b1", segment="Tents", detected_at_ms=120 * HOUR_MS)),
        ("scores", make.score(hour=104)),
        ("scores", make.score(hour=105)),
    )
    tents, boots = boards.drift(topics)["cards"]
    assert (tents["segment"], tents["state"]) == ("Tents", "drift")
    assert (boots["state"], boots["kind"], boots["size"]) == ("stable", "level", 0.9)
    assert [step["state"] for step in boots["history"]] == ["warning", "drift", "stable"]
    assert boots["error"]["at_ms"] == [105 * HOUR_MS, 106 * HOUR_MS]
    assert boots["error"]["wql"] == [0.2, 0.2]


def test_resolved_alerts_are_not_shown(make: Any) -> None:
    def alert(subject: str, state: Any) -> Alert:
        data = AlertData(
            state=state,
            severity="warning",
            title=subject,
            description="",
            starts_at_ms=1,
            updated_at_ms=2,
        )
        return Alert(
            id=subject, source="/x", type="io.freshet.model", subject=subject, time="", data=data
        )

    topics = make.topics(("alerts", alert("over", "resolved")), ("alerts", alert("on", "firing")))
    assert [alert["title"] for alert in boards.drift(topics)["alerts"]] == ["on"]


# Weights ------------------------------------------------------------------------------------------


def test_a_promoted_version_serves_and_shows_the_error_before_and_after(make: Any) -> None:
    topics = make.topics(
        (
            "retrain",
            RetrainRequest(request_id="r1", requested_at_ms=0, reason="drift", segments=["Boots"]),
        ),
        ("models", make.model("training", "v2", 99, parent="base", request_id="r1")),
        (
            "models",
            make.model(
                "promoted", "v2", 100, parent="base", gate={"gain_low": 0.1, "gain_low.ok": True}
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
    assert (version["error"]["wql_before"], version["error"]["wql_after"]) == (0.4, 0.1)
    assert version["swaps"] == [{"worker": "w0", "at_ms": round(100.1 * HOUR_MS), "pause_ms": 0.2}]
    assert version["gate"] == [{"name": "gain_low", "value": 0.1, "threshold": None, "ok": True}]


def test_before_is_the_day_up_to_a_promotion_and_after_two_days_of_its_own_forecasts(
    make: Any,
) -> None:
    at = {75: 100.0, 76: 1.0, 99: 2.0, 100: 4.0, 147: 8.0, 148: 100.0}
    scores = [
        ("scores", make.score(f"{version}|n", hour, weights_version=version, pinball=times * loss))
        for hour, loss in at.items()
        for version, times in (("base", 1.0), ("v2", 3.0))
    ]
    promoted = ("models", make.model("promoted", "v2", 100, parent="base"))
    [version] = boards.models(make.topics(*scores, promoted))["versions"]
    # Hours 76 and 99 of both versions, 12 over four times 10; hours 100 and 147 of the new one.
    assert version["error"] == {
        "wql_before": (1 + 3 + 2 + 6) / 40,
        "seasonal_naive_before": 0.4,
        "wql_after": (12 + 24) / 20,
        "seasonal_naive_after": 0.4,
    }
    undone = ("models", make.model("rolled_back", "base", 147, parent="v2"))
    [version] = boards.models(make.topics(*scores, promoted, undone))["versions"]
    assert version["error"]["wql_after"] == 12 / 10, "until it was rolled back"
    assert version["rolled_back_at_ms"] == 147 * HOUR_MS


def test_a_roll_back_ends_the_promotion_before_it_and_none_after_it(make: Any) -> None:
    topics = make.topics(
        ("models", make.model("rolled_back", "base", 1, parent="v2", reason="an older one")),
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
    topics = make.topics(("models", make.model("promoted", "base", 1)), before, promoted)
    statuses = {
        version["version"]: version["status"] for version in boards.models(topics)["versions"]
    }
    assert statuses == {"base": "serving", "v2": "promoted"}
    topics.book.apply(make.forecast(hour=10, weights_version="v2"))
    statuses = {
        version["version"]: version["status"] for version in boards.models(topics)["versions"]
    }
    assert statuses == {"base": "retired", "v2": "serving"}


def test_a_request_waits_until_an_event_names_it(make: Any) -> None:
    def request(name: str, at_ms: int) -> tuple[Any, RetrainRequest]:
        return "retrain", RetrainRequest(
            request_id=name, requested_at_ms=at_ms, reason="drift", segments=["Boots"]
        )

    topics = make.topics(
        request("r1", 1),
        request("r2", 2),
        ("models", make.model("training", "v2", 1, request_id="r1")),
    )
    assert boards.models(topics)["pending"] == [
        {"reason": "drift", "segments": ["Boots"], "requested_at_ms": 2}
    ]


def test_before_any_promotion_the_version_of_the_forecasts_serves(make: Any) -> None:
    topics = make.topics(("forecasts", make.forecast(weights_version="base")))
    assert boards.models(topics) == {
        "serving": "base",
        "versions": [],
        "rollbacks": [],
        "pending": [],
    }


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
