"""Answers to the page's questions, by hand-checked numbers."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from freshet.dashboard import api, figures, items
from freshet.dashboard.actuals import Actuals, Books
from freshet.dashboard.api import Moment
from freshet.dashboard.items import ItemQuery
from freshet.dashboard.state import TopicState
from freshet.stream.config import CalendarSettings, Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.read.few import FewCells
from freshet.stream.schemas import Adjustments, CatalogEntry, InventoryLevel, Promotion
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

NOW = Moment(now_ms=100 * HOUR_MS + 1_000, speed=900.0, events_per_s=12.34, forecasts_per_s=5.0)


@pytest.fixture
def topics(make: Any) -> Any:
    return make.topics(
        (
            "catalog",
            CatalogEntry(
                sku="A", title="Trail boot", category="Boots", brand="Larch", unit_price=99.0
            ),
        ),
        ("catalog", CatalogEntry(sku="B", title="Tent", category="Camping")),
        ("inventory", InventoryLevel(sku="A", region="north", on_hand=7, as_of=0)),
        (
            "promotions",
            Promotion(promotion_id="p", sku="A", starts_at=0, ends_at=101 * HOUR_MS, discount=0.3),
        ),
        ("forecasts", make.forecast("A|north", 100)),
        (
            "forecasts",
            make.forecast("B|south", 100, quantiles=[[0.0, 1.0, 2.0]] * 24, status="cold_start"),
        ),
        ("scores", make.score(hour=99, pinball=2.0, seasonal_naive_pinball=4.0, actual=10.0)),
        ("drift", make.drift(detected_at_ms=99 * HOUR_MS)),
    )


def test_the_overview_counts_and_compares(topics: Any, make: Any) -> None:
    actuals = make.actuals(
        {"A|north": [1, 2], "C|west": [4, math.nan]}, books=Books(read=9, applied=8, duplicate=1)
    )
    found = api.overview(topics, actuals, NOW)
    assert found["clock"] == {"now_ms": NOW.now_ms, "speed": 900.0}
    assert found["events"] == {
        "read": 9, "applied": 8, "duplicate": 1, "late_dropped": 0, "dead_letter": 0, "skipped": 0,
        "lines_dead": 0, "conflicting": 0, "per_s": 12.3,
    }  # fmt: skip
    assert found["forecasts"]["items"] == 2 and found["items"] == 2
    assert (found["units_day"], found["revenue_day"]) == (7.0, 70.0)
    assert found["scores"] == {
        "matured": 1,
        "wql": 0.2,
        "seasonal_naive_wql": 0.4,
        "coverage_80": 1.0,
    }
    assert found["weights_version"] == "base" and found["drift"] == {"active": 1, "warning": 0}


def test_an_empty_view_answers_with_nothing_not_with_zero(make: Any) -> None:
    topics, actuals = make.topics(), Actuals(HOUR_MS)
    found = api.overview(topics, actuals, NOW)
    assert found["units_day"] is None and found["scores"]["wql"] is None
    assert found["forecasts"]["newest_cutoff_ms"] is None
    assert api.errors(topics, "", 100)["at_ms"] == []
    assert items.list_items(topics, actuals, ItemQuery())["items"] == []
    assert items.show_item(topics, actuals, NOW, "A|north") is None


def test_a_segment_that_is_stable_again_no_longer_counts_as_drifting(
    topics: Any, make: Any
) -> None:
    topics.drift.append(make.drift(alert_id="a2", state="stable", detected_at_ms=100 * HOUR_MS))
    assert api.overview(topics, make.actuals({}), NOW)["drift"] == {"active": 0, "warning": 0}


def test_the_list_sorts_searches_and_turns_pages(topics: Any, make: Any) -> None:
    actuals = make.actuals({"A|north": [1.0] * 24, "B|south": [3.0] * 24, "C|west": [2.0] * 24})

    def listed(**query: Any) -> list[str]:
        return [
            row["item_id"] for row in items.list_items(topics, actuals, ItemQuery(**query))["items"]
        ]

    assert listed() == ["B|south", "C|west", "A|north"]
    assert listed(sort="units", descending=False) == ["A|north", "C|west", "B|south"]
    assert listed(sort="expected") == ["A|north", "B|south", "C|west"]
    assert listed(sort="title", descending=False) == ["C|west", "B|south", "A|north"]
    assert listed(text="BOOT north") == ["A|north"]
    assert listed(text="cold") == ["B|south"]
    assert listed(category="Boots") == ["A|north"]
    assert listed(page_size=2, page=1) == ["A|north"]
    assert listed(page_size=2, page=9) == ["A|north"]
    found = items.list_items(topics, actuals, ItemQuery(page_size=2))
    assert (found["total"], found["categories"]) == (3, ["Boots", "Camping"])


def test_a_row_holds_two_days_of_sales_and_a_day_of_forecast(topics: Any, make: Any) -> None:
    actuals = make.actuals({"A|north": [1.0] * 60})
    row = items.list_items(topics, actuals, ItemQuery(text="boot"))["items"][0]
    assert (row["title"], row["category"], row["region"], row["status"]) == (
        "Trail boot",
        "Boots",
        "north",
        "ok",
    )
    assert row["spark"] == {"start_ms": 52 * HOUR_MS, "units": [1.0] * 48}
    assert row["units_day"] == 24.0
    assert row["expected_day"] == 48.0  # 24 steps with quantiles 1, 2, 3: mean 2
    assert row["change"] == 1.0
    assert row["forecast"] == {
        "cutoff_ms": 100 * HOUR_MS,
        "p10": [1.0] * 24,
        "p50": [2.0] * 24,
        "p90": [3.0] * 24,
    }


@pytest.mark.parametrize(
    ("adjustments", "served"),
    [
        (Adjustments(), None),
        (Adjustments(begins_at_ms=7), {"begins_at_ms": 7, "before": "hidden"}),
        (Adjustments(begins_at_ms=7, moved=[0.1]), {"begins_at_ms": 7, "before": "moved"}),
    ],
)
def test_the_item_says_from_when_on_the_past_counts(
    make: Any, adjustments: Adjustments, served: dict[str, Any] | None
) -> None:
    topics = make.topics(("forecasts", make.forecast("A|north", 100, adjustments=adjustments)))
    found = items.show_item(topics, make.actuals({}), NOW, "A|north")
    assert found is not None and found["forecast"]["served"] == served
    assert not found["forecast"]["calibrated"]


def test_the_item_says_whether_quantiles_are_served_at_other_levels(make: Any) -> None:
    calibrated = Adjustments(calibration_id="calibration:d", calibrated=[0, 2])
    topics = make.topics(("forecasts", make.forecast("A|north", 100, adjustments=calibrated)))
    found = items.show_item(topics, make.actuals({}), NOW, "A|north")
    assert found is not None and found["forecast"]["calibrated"]


def test_the_item_has_fan_history_past_forecasts_and_promotions(topics: Any, make: Any) -> None:
    actuals = make.actuals({"A|north": [1.0, math.nan, 2.0]})
    found = items.show_item(topics, actuals, NOW, "A|north")
    assert found is not None
    assert found["about"] == {
        "title": "Trail boot",
        "category": "Boots",
        "brand": "Larch",
        "attributes": {},
        "unit_price": 99.0,
        "on_hand": 7.0,
    }
    assert found["actuals"]["units"] == [1.0, None, 2.0]
    assert found["forecast"]["levels"] == [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
    # Straight between levels, flat beyond the outermost.
    assert [row[0] for row in found["forecast"]["quantiles"]] == [
        1.0,
        1.0,
        1.375,
        2.0,
        2.625,
        3.0,
        3.0,
    ]
    assert found["past"]["step"] == {
        "start_ms": [100 * HOUR_MS],
        "p10": [1.0],
        "p50": [2.0],
        "p90": [3.0],
    }
    assert found["past"]["day"]["start_ms"] == [123 * HOUR_MS]
    assert [band["discount"] for band in found["promotions"]] == [0.3]


def test_an_item_is_shown_by_the_resolution_that_is_asked_for(topics: Any, make: Any) -> None:
    day = make.forecast("A|north", 96, resolution_ms=DAY_MS, quantiles=[[24.0, 48.0, 72.0]] * 3)
    assert topics.books[DAY_MS].apply(day)
    days = Actuals(DAY_MS, 0, 4, {"A|north": 0}, {"units": np.full((1, 4), 50, np.float32)})
    found = items.show_item(topics, days, NOW, "A|north", DAY_MS)
    assert found is not None
    assert found["resolution_ms"] == DAY_MS
    assert found["actuals"] == {"start_ms": 0, "units": [50.0] * 4}
    assert found["forecast"]["starts_ms"] == [hour * HOUR_MS for hour in (96, 120, 144)]
    assert found["forecast"]["ends_at_ms"] == 168 * HOUR_MS
    assert list(found["past"]) == ["step", "week"]
    assert found["past"]["step"]["start_ms"] == [96 * HOUR_MS]
    # Who has none at that resolution is shown all the same.
    south = items.show_item(topics, days, NOW, "B|south", DAY_MS)
    assert south is not None and (south["forecast"], south["region"]) == (None, "south")


def test_minutes_are_there_to_see_while_their_forecast_reaches_beyond_now(
    topics: Any, make: Any
) -> None:
    def shown() -> list[int]:
        found = items.show_item(topics, make.actuals({}), NOW, "A|north")
        assert found is not None
        return [one["resolution_ms"] for one in found["resolutions"]]

    assert shown() == [HOUR_MS, DAY_MS]
    table = [[1.0, 2.0, 3.0]] * 60
    over = make.forecast("A|north", 99, resolution_ms=MINUTE_MS, quantiles=table)
    topics.books[MINUTE_MS].apply(over)
    assert shown() == [HOUR_MS, DAY_MS]
    topics.books[MINUTE_MS].apply(msgspec.structs.replace(over, cutoff_ms=100 * HOUR_MS))
    assert shown() == [MINUTE_MS, HOUR_MS, DAY_MS]


def test_uneven_days_are_shown_where_they_lie(make: Any) -> None:
    settings = Settings(calendar=CalendarSettings(time_zone="Europe/Berlin"))
    # Midnights in Berlin around 29 March 2026, a day of 23 hours.
    midnights_ms = [1_774_652_400_000, 1_774_738_800_000, 1_774_821_600_000, 1_774_908_000_000]
    topics = TopicState(settings)
    topics.books[DAY_MS].apply(
        make.forecast(
            resolution_ms=DAY_MS,
            cutoff_ms=midnights_ms[1],
            step_starts_ms=midnights_ms[1:3],
            ends_at_ms=midnights_ms[3],
            quantiles=[[1.0, 2.0, 3.0]] * 2,
        )
    )
    grid = Grid(DAY_MS, "Europe/Berlin")
    cells = FewCells(
        grid,
        grid.bucket(midnights_ms[0]),
        {"A|north": np.array([5_000, 7_000, 1_000])},
        np.array([True, True, False]),
    )
    moment = Moment(now_ms=midnights_ms[2])
    found = items.show_item(topics, Actuals.of(cells), moment, "A|north", DAY_MS)
    assert found is not None and found["time_zone"] == "Europe/Berlin"
    assert found["actuals"] == {
        "start_ms": midnights_ms[0],
        "units": [5.0, 7.0],
        "starts_ms": midnights_ms[:2],
    }
    assert found["forecast"]["starts_ms"] == midnights_ms[1:3]
    assert found["past"]["step"]["start_ms"] == midnights_ms[1:2]


def test_while_the_shop_warms_up_there_is_no_line_and_no_number(make: Any) -> None:
    young = make.forecast("A|north", 100, status="warming_up", quantiles=[])
    topics, actuals = make.topics(("forecasts", young)), make.actuals({"A|north": [0.0] * 24})
    [row] = items.list_items(topics, actuals, ItemQuery())["items"]
    assert (row["status"], row["expected_day"], row["change"], row["forecast"]) == (
        *("warming_up", None, None),
        None,
    )
    found = items.show_item(topics, actuals, NOW, "A|north")
    assert found is not None
    fan = found["forecast"]
    assert (fan["status"], fan["steps"], fan["expected"], fan["starts_ms"]) == (
        *("warming_up", 0, []),
        [],
    )
    assert fan["quantiles"] == [[]] * 7


def test_errors_and_scores_are_told_by_resolution(topics: Any, make: Any) -> None:
    day = make.score(hour=72, resolution_ms=DAY_MS, pinball=3.0, actual=10.0)
    assert topics.accuracies[DAY_MS].apply(day)
    assert topics.accuracies[DAY_MS].apply(msgspec.structs.replace(day, bucket_start_ms=DAY_MS))
    found = api.errors(topics, "", 100, DAY_MS)
    # Each day by itself.
    assert (found["resolution_ms"], found["at_ms"], found["wql"]) == (
        DAY_MS,
        [2 * DAY_MS, 4 * DAY_MS],
        [0.3, 0.3],
    )
    assert api.errors(topics, "", 100)["resolution_ms"] == HOUR_MS
    assert api.errors(topics, "", 100)["scored"] == [HOUR_MS, DAY_MS]
    told = {
        one["resolution_ms"]: one
        for one in api.overview(topics, make.actuals({}), NOW)["resolutions"]
    }
    assert list(told) == [MINUTE_MS, HOUR_MS, DAY_MS]
    assert [told[width]["scores"]["wql"] for width in told] == [None, 0.2, 0.3]
    assert (told[HOUR_MS]["items"], told[HOUR_MS]["newest_cutoff_ms"]) == (2, 100 * HOUR_MS)
    assert (told[DAY_MS]["round"], told[DAY_MS]["newest_cutoff_ms"]) == (None, None)


def test_a_url_asks_for_a_resolution_that_is_forecast(topics: Any) -> None:
    assert items.parse_resolution(topics, {}) == HOUR_MS
    assert items.parse_resolution(topics, {"resolution_ms": "60000"}) == MINUTE_MS
    for wrong in ("1000", "x", "-60000"):
        with pytest.raises(InvalidInputError, match="resolution_ms"):
            items.parse_resolution(topics, {"resolution_ms": wrong})


def test_an_item_with_sales_but_no_forecast_is_shown_waiting(topics: Any, make: Any) -> None:
    found = items.show_item(topics, make.actuals({"C\\|1|west": [1.0]}), NOW, "C\\|1|west")
    assert found is not None
    assert (found["sku"], found["region"], found["forecast"], found["past"]) == (
        "C|1",
        "west",
        None,
        {},
    )
    assert found["about"]["unit_price"] is None and found["about"]["on_hand"] is None


def test_the_error_has_a_point_for_each_bucket_and_marks_what_happened(
    topics: Any, make: Any
) -> None:
    topics.models.extend([make.model("training", "v2", 99.5), make.model("promoted", "v2", 99.6)])
    found = api.errors(topics, "", 100)
    assert (found["at_ms"], found["wql"], found["seasonal_naive_wql"]) == (
        [100 * HOUR_MS],
        [0.2],
        [0.4],
    )
    assert [(mark["kind"], mark["label"]) for mark in found["markers"]] == [
        ("drift", "Boots"),
        ("promoted", "v2"),
    ]
    assert found["segments"] == ["Boots"]
    tents = api.errors(topics, "Tents", 100)
    assert tents["at_ms"] == [] and [mark["kind"] for mark in tents["markers"]] == ["promoted"]


def test_the_error_never_has_more_points_than_asked_for(make: Any) -> None:
    topics = make.topics(*[("scores", make.score(hour=hour)) for hour in range(25)])
    assert len(api.errors(topics, "", 10)["at_ms"]) <= 10
    assert len(api.errors(topics, "", 25)["at_ms"]) == 25


def test_numbers_keep_four_digits_and_say_none_for_nan() -> None:
    assert figures.numbers(np.array([1234.56, np.nan, 0.00012345], np.float32)) == [
        1235.0,
        None,
        0.0001234,
    ]


@pytest.mark.parametrize(
    "wrong", [{"sort": "x"}, {"page": "-1"}, {"page": "1e9"}, {"page_size": "٣"}, {"page": ""}]
)
def test_parameters_that_are_none_are_refused_in_words(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        items.parse_query(wrong)


def test_parameters_of_a_url_become_a_query() -> None:
    parameters = {
        "q": "boot",
        "sort": "title",
        "order": "asc",
        "page": "2",
        "page_size": "10",
        "category": "Boots",
    }
    assert items.parse_query(parameters) == ItemQuery("boot", "Boots", "title", False, 2, 10)
