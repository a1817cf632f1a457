"""The newest forecast wins, a repeat changes nothing, and past ones stay findable by bucket."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.dashboard import forecasts
from freshet.dashboard.forecasts import PAST_BUCKETS, ForecastBook, mean_weights
from freshet.stream.errors import EventError
from freshet.stream.schemas import Cumulative
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS


def test_a_newer_cutoff_replaces_and_an_older_one_does_not(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    assert book.apply(make.forecast(hour=10))
    assert book.apply(make.forecast(hour=11, weights_version="v2"))
    assert book.apply(make.forecast(hour=9)), "what it said of past hours is kept"
    assert not book.apply(make.forecast(hour=9))
    assert book.items["A|north"].newest.cutoff_ms == 11 * HOUR_MS
    assert (book.seen, book.newest_cutoff_ms, book.weights_version) == (3, 11 * HOUR_MS, "v2")


def test_what_replaces_a_forecast_replaces_all_of_it(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    book.apply(make.forecast(hour=10))
    newer = make.forecast(hour=11, quantiles=[[4.0, 5.0, 6.0]])
    book.apply(newer)
    entry = book.items["A|north"]
    assert entry.newest == msgspec.structs.replace(newer, quantiles=[])
    assert entry.quantiles_SL.tolist() == [[4.0, 5.0, 6.0]]
    assert entry.expected_S.tolist() == pytest.approx([5.0])


def test_the_newest_cutoff_of_any_item_says_which_weights_serve(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    book.apply(make.forecast("A|n", hour=11, weights_version="v2"))
    assert book.apply(make.forecast("B|n", hour=10, weights_version="v1"))
    assert (book.newest_cutoff_ms, book.weights_version) == (11 * HOUR_MS, "v2")


def test_of_an_item_and_cutoff_the_first_forecast_counts_whatever_the_weights(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    book.apply(make.forecast(issued_at_ms=50))
    again = make.forecast(issued_at_ms=51, weights_version="v2", quantiles=[[9.0, 9.0, 9.0]])
    assert not book.apply(again)
    assert (book.seen, book.weights_version) == (1, "base")
    assert book.items["A|north"].quantiles_SL[0].tolist() == [1.0, 2.0, 3.0]


def test_an_older_forecast_is_kept_as_a_past_one_and_a_newer_past_one_stays(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    book.apply(make.forecast(hour=200, quantiles=[[7.0, 7.0, 7.0]]))
    book.apply(make.forecast(hour=199, quantiles=[[6.0, 6.0, 6.0]]))
    # 192 hours are kept, so hour 8 would lie where hour 200 is.
    assert not book.apply(make.forecast(hour=8, quantiles=[[1.0, 1.0, 1.0]]))
    buckets, quantiles_BQ = book.items["A|north"].past("step")
    assert (buckets.tolist(), quantiles_BQ[:, 1].tolist()) == ([199, 200], [6.0, 7.0])


def test_sums_that_fit_are_kept_with_the_forecast(make: Any) -> None:
    # The forecast has 24 steps.
    book, sums = (
        ForecastBook(Grid(HOUR_MS)),
        Cumulative(steps=[1, 24], quantiles=[[1.0, 2.0, 3.0]] * 2),
    )
    assert book.apply(make.forecast(cumulative=sums))
    entry = book.items["A|north"]
    assert entry.sums_KL is not None
    assert (entry.sum_steps, entry.sums_KL.tolist()) == ([1, 24], sums.quantiles)
    assert book.apply(make.forecast(hour=101))
    assert book.items["A|north"].sums_KL is None


def test_forecasts_of_another_resolution_are_left_out(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    assert not book.apply(make.forecast(resolution_ms=60_000))
    assert not book.items


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantiles": []},
        {"quantiles": [[1.0, 2.0]]},
        {"quantiles": [[1.0, 2.0, 3.0], [1.0]]},
        {"quantile_levels": [0.5, 0.1, 0.9]},
        {"quantile_levels": [0.0, 0.5, 0.9]},
        {"quantile_levels": [0.1, 0.5, 1.0]},
        {"quantile_levels": [0.1, 0.5, 0.5]},
        {"quantile_levels": []},
        {"quantiles": [[1.0, 2.0, 1e39]]},
        {"cumulative": Cumulative(steps=[], quantiles=[])},
        {"cumulative": Cumulative(steps=[1, 1], quantiles=[[1.0, 2.0, 3.0]] * 2)},
        {"cumulative": Cumulative(steps=[0], quantiles=[[1.0, 2.0, 3.0]])},
        {"cumulative": Cumulative(steps=[25], quantiles=[[1.0, 2.0, 3.0]])},
        {"cumulative": Cumulative(steps=[1, 2], quantiles=[[1.0, 2.0, 3.0]])},
        {"cumulative": Cumulative(steps=[1], quantiles=[[1.0, 2.0]])},
        {"cumulative": Cumulative(steps=[1], quantiles=[[1.0, 2.0, 1e39]])},
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_table_that_is_no_forecast_is_refused_and_changes_nothing(
    make: Any, wrong: dict[str, Any]
) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    with pytest.raises(EventError):
        book.apply(make.forecast(**wrong))
    assert not book.items and book.seen == 0


def test_items_beyond_the_maximum_are_counted_not_kept(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "MAX_ITEMS", 2)
    book = ForecastBook(Grid(HOUR_MS))
    for name in ("A|n", "B|n", "C|n"):
        book.apply(make.forecast(name))
    assert sorted(book.items) == ["A|n", "B|n"]
    assert book.refused == 1
    assert book.apply(make.forecast("A|n", hour=101)), "one that is known goes on"


def test_expected_units_are_the_mean_of_the_quantiles(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    book.apply(make.forecast(quantiles=[[0.0, 0.0, 5.0]]))
    # Weights of .1, .5, .9 are .3, .4, .3: the median says 0, the mean does not.
    assert book.items["A|north"].expected_S.tolist() == pytest.approx([1.5])


def test_what_was_forecast_a_step_and_a_day_before_is_kept_by_bucket(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    table = [[s, s + 1.0, s + 2.0] for s in range(24)]
    book.apply(make.forecast(hour=50, issued_at_ms=55 * HOUR_MS, quantiles=table))
    entry = book.items["A|north"]
    step_bucket, step_BQ = entry.past("step")
    day_bucket, day_BQ = entry.past("day")
    assert (step_bucket.tolist(), step_BQ.tolist()) == ([50], [[0.0, 1.0, 2.0]])
    assert (day_bucket.tolist(), day_BQ.tolist()) == ([73], [[23.0, 24.0, 25.0]])


def test_a_forecast_has_512_steps_at_most(make: Any) -> None:
    table = [[1.0, 2.0, 3.0]] * 513
    assert ForecastBook(Grid(HOUR_MS)).apply(make.forecast(quantiles=table[:512]))
    with pytest.raises(EventError, match="found 513 steps"):
        ForecastBook(Grid(HOUR_MS)).apply(make.forecast(quantiles=table))


def test_what_was_forecast_for_eight_days_of_hours_is_kept(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    for hour in range(8 * 24 + 1):
        book.apply(make.forecast(hour=hour, quantiles=[[1.0, 2.0, 3.0]]))
    assert book.items["A|north"].past("step")[0].tolist() == list(range(1, 8 * 24 + 1))


def test_of_any_levels_those_of_10_50_and_90_percent_are_kept(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    book.apply(make.forecast(quantile_levels=levels, quantiles=[[0.0, 4.0, 10.0, 20.0, 40.0]]))
    _, kept_BQ = book.items["A|north"].past("step")
    # A quarter of the way from .05 to .25, and three quarters from .75 to .95.
    assert kept_BQ.tolist() == [pytest.approx([1.0, 10.0, 35.0])]


@pytest.mark.parametrize(
    ("resolution_ms", "lead", "steps"),
    [(MINUTE_MS, "hour", 60), (6 * HOUR_MS, "day", 4), (DAY_MS, "week", 7)],
)
def test_the_longer_lead_is_an_hour_of_minutes_a_day_of_hours_a_week_of_days(
    make: Any, resolution_ms: int, lead: str, steps: int
) -> None:
    book = ForecastBook(Grid(resolution_ms))
    table = [[s, s, s] for s in range(60)]
    book.apply(
        make.forecast(cutoff_ms=8 * resolution_ms, resolution_ms=resolution_ms, quantiles=table)
    )
    found, kept_BQ = book.items["A|north"].past(lead)
    assert (found.tolist(), kept_BQ.tolist()) == ([7 + steps], [[float(steps - 1)] * 3])


# Uneven days --------------------------------------------------------------------------------------

# Midnights in Berlin around 29 March 2026, a day of 23 hours.
MIDNIGHTS_MS = [1_774_652_400_000, 1_774_738_800_000, 1_774_821_600_000, 1_774_908_000_000]


def uneven(make: Any, **more: Any) -> Any:
    values = {
        "resolution_ms": DAY_MS,
        "cutoff_ms": MIDNIGHTS_MS[0],
        "step_starts_ms": MIDNIGHTS_MS[:3],
        "ends_at_ms": MIDNIGHTS_MS[3],
        "quantiles": [[1.0, 2.0, 3.0]] * 3,
    }
    return make.forecast(**values | more)


def test_steps_of_uneven_days_lie_where_the_record_says(make: Any) -> None:
    book = ForecastBook(Grid(DAY_MS, "Europe/Berlin"))
    assert book.apply(uneven(make))
    entry = book.items["A|north"]
    assert (entry.edges_ms.tolist(), entry.end_ms) == (MIDNIGHTS_MS, MIDNIGHTS_MS[3])
    # Bucket numbers of days are local dates: 28 March 2026 is day 20,540.
    assert entry.past("step")[0].tolist() == [20_540]


def test_even_steps_follow_the_cutoff(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    book.apply(make.forecast(hour=5, quantiles=[[1.0, 2.0, 3.0]] * 2))
    edges_ms = book.items["A|north"].edges_ms.tolist()
    assert edges_ms == [5 * HOUR_MS, 6 * HOUR_MS, 7 * HOUR_MS]


@pytest.mark.parametrize(
    "wrong",
    [
        {"step_starts_ms": MIDNIGHTS_MS[:2]},
        {"step_starts_ms": MIDNIGHTS_MS[2::-1]},
        {"ends_at_ms": MIDNIGHTS_MS[2]},
        {"step_starts_ms": []},
    ],
)
def test_steps_that_do_not_follow_each_other_are_refused(make: Any, wrong: Any) -> None:
    with pytest.raises(EventError, match="expected rising starts of 3 steps"):
        ForecastBook(Grid(DAY_MS, "Europe/Berlin")).apply(uneven(make, **wrong))


# Warming up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [[], [0.1, 0.5, 0.9]])
def test_a_shop_that_warms_up_has_items_without_numbers(make: Any, levels: list[float]) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    young = make.forecast(status="warming_up", quantiles=[], quantile_levels=levels)
    assert book.apply(young)
    entry = book.items["A|north"]
    assert (entry.quantiles_SL.shape, len(entry.expected_S), entry.end_ms) == (
        (0, 9),
        0,
        100 * HOUR_MS,
    )
    assert book.apply(make.forecast(hour=101))
    assert book.items["A|north"].quantiles_SL.shape == (24, 3)


def test_a_longer_forecast_after_a_short_one_is_kept_for_both(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    book.apply(make.forecast(hour=50, quantiles=[[1.0, 2.0, 3.0]]))
    book.apply(make.forecast(hour=51))
    entry = book.items["A|north"]
    assert [entry.past(lead)[0].tolist() for lead in ("step", "day")] == [[50, 51], [74]]


def test_a_short_forecast_says_nothing_about_the_day_after(make: Any) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    book.apply(make.forecast(quantiles=[[1.0, 2.0, 3.0]]))
    assert len(book.items["A|north"].past("day")[0]) == 0


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60, unique=True).map(sorted))
def test_the_ring_holds_the_last_forecasts_as_a_dictionary_would(
    make: Any, hours: list[int]
) -> None:
    book = ForecastBook(Grid(HOUR_MS))
    naive: dict[int, float] = {}
    for hour in hours:
        book.apply(make.forecast(hour=hour, quantiles=[[hour, hour, hour]]))
        naive = {
            kept: value
            for kept, value in naive.items()
            if kept % PAST_BUCKETS != hour % PAST_BUCKETS
        }
        naive[hour] = float(hour)
    buckets, quantiles = book.items["A|north"].past("step")
    assert buckets.tolist() == sorted(naive)
    assert dict(zip(buckets.tolist(), quantiles[:, 1].tolist(), strict=True)) == dict(
        sorted(naive.items())
    )


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=9, unique=True).map(sorted))
def test_mean_weights_are_shares_of_one(levels: list[float]) -> None:
    weights = mean_weights(np.array(levels))
    assert (weights >= 0).all()
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
