"""The newest forecast wins, a repeat changes nothing, and past ones stay findable by bucket."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.dashboard import forecasts
from freshet.dashboard.forecasts import PAST_BUCKETS, ForecastBook, mean_weights
from freshet.stream.errors import EventError
from freshet.stream.schemas import Cumulative
from freshet.stream.units import DAY_MS, HOUR_MS


def test_a_newer_cutoff_replaces_and_an_older_one_does_not(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    assert book.apply(make.forecast(hour=10))
    assert book.apply(make.forecast(hour=11, weights_version="v2"))
    assert not book.apply(make.forecast(hour=9))
    assert book.items["A|north"].newest.cutoff_ms == 11 * HOUR_MS
    assert (book.seen, book.newest_cutoff_ms, book.weights_version) == (2, 11 * HOUR_MS, "v2")


def test_what_replaces_a_forecast_replaces_all_of_it(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    book.apply(make.forecast(hour=10))
    newer = make.forecast(hour=11, quantiles=[[4.0, 5.0, 6.0]])
    book.apply(newer)
    entry = book.items["A|north"]
    assert entry.newest == newer
    assert entry.quantiles_SL.tolist() == [[4.0, 5.0, 6.0]]
    assert entry.expected_S.tolist() == pytest.approx([5.0])


def test_the_newest_cutoff_of_any_item_says_which_weights_serve(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    book.apply(make.forecast("A|n", hour=11, weights_version="v2"))
    assert book.apply(make.forecast("B|n", hour=10, weights_version="v1"))
    assert (book.newest_cutoff_ms, book.weights_version) == (11 * HOUR_MS, "v2")


def test_of_two_weights_at_one_cutoff_those_that_were_issued_later_win(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    book.apply(make.forecast(issued_at_ms=50))
    assert not book.apply(make.forecast(issued_at_ms=49, weights_version="v2"))
    assert not book.apply(make.forecast(issued_at_ms=51)), "the same weights"
    assert book.apply(make.forecast(issued_at_ms=50, weights_version="v2"))


def test_the_same_cutoff_and_weights_again_is_a_repeat(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    book.apply(make.forecast())
    assert not book.apply(make.forecast(quantiles=[[9.0, 9.0, 9.0]]))
    assert book.seen == 1
    assert book.items["A|north"].quantiles_SL[0].tolist() == [1.0, 2.0, 3.0]


def test_sums_that_fit_are_kept_with_the_forecast(make: Any) -> None:
    # The forecast has 24 steps.
    book, sums = ForecastBook(HOUR_MS), Cumulative(steps=[1, 24], quantiles=[[1.0, 2.0, 3.0]] * 2)
    assert book.apply(make.forecast(cumulative=sums))
    assert book.items["A|north"].newest.cumulative == sums
    one = Cumulative(steps=[24], quantiles=[[1.0, 2.0, 3.0]])
    assert book.apply(make.forecast(cumulative=one, weights_version="v2"))
    assert book.items["A|north"].newest.cumulative == one


def test_new_weights_at_the_same_cutoff_replace(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    book.apply(make.forecast())
    assert book.apply(make.forecast(weights_version="v2"))
    assert book.weights_version == "v2"


def test_forecasts_of_another_resolution_are_left_out(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
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
    book = ForecastBook(HOUR_MS)
    with pytest.raises(EventError):
        book.apply(make.forecast(**wrong))
    assert not book.items and book.seen == 0


def test_items_beyond_the_maximum_are_counted_not_kept(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "MAX_ITEMS", 2)
    book = ForecastBook(HOUR_MS)
    for name in ("A|n", "B|n", "C|n"):
        book.apply(make.forecast(name))
    assert sorted(book.items) == ["A|n", "B|n"]
    assert book.refused == 1
    assert book.apply(make.forecast("A|n", hour=101)), "one that is known goes on"


def test_expected_units_are_the_mean_of_the_quantiles(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    book.apply(make.forecast(quantiles=[[0.0, 0.0, 5.0]]))
    # Weights of .1, .5, .9 are .3, .4, .3: the median says 0, the mean does not.
    assert book.items["A|north"].expected_S.tolist() == pytest.approx([1.5])


def test_what_was_forecast_a_step_and_a_day_before_is_kept_by_bucket(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    table = [[s, s + 1.0, s + 2.0] for s in range(24)]
    book.apply(make.forecast(hour=50, issued_at_ms=55 * HOUR_MS, quantiles=table))
    entry = book.items["A|north"]
    step_bucket, step_BQ = entry.past("step")
    day_bucket, day_BQ = entry.past("day")
    assert (step_bucket.tolist(), step_BQ.tolist()) == ([50], [[0.0, 1.0, 2.0]])
    assert (day_bucket.tolist(), day_BQ.tolist()) == ([73], [[23.0, 24.0, 25.0]])


def test_a_forecast_has_512_steps_at_most(make: Any) -> None:
    table = [[1.0, 2.0, 3.0]] * 513
    assert ForecastBook(HOUR_MS).apply(make.forecast(quantiles=table[:512]))
    with pytest.raises(EventError, match="found 513 steps"):
        ForecastBook(HOUR_MS).apply(make.forecast(quantiles=table))


def test_what_was_forecast_for_eight_days_of_hours_is_kept(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    for hour in range(8 * 24 + 1):
        book.apply(make.forecast(hour=hour, quantiles=[[1.0, 2.0, 3.0]]))
    assert book.items["A|north"].past("step")[0].tolist() == list(range(1, 8 * 24 + 1))


def test_of_any_levels_those_of_10_50_and_90_percent_are_kept(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    book.apply(make.forecast(quantile_levels=levels, quantiles=[[0.0, 4.0, 10.0, 20.0, 40.0]]))
    _, kept_BQ = book.items["A|north"].past("step")
    # A quarter of the way from .05 to .25, and three quarters from .75 to .95.
    assert kept_BQ.tolist() == [pytest.approx([1.0, 10.0, 35.0])]


@pytest.mark.parametrize(("resolution_ms", "buckets"), [(6 * HOUR_MS, 3), (7 * DAY_MS, 0)])
def test_a_day_ahead_is_as_many_buckets_as_a_day_has_and_one_at_least(
    make: Any, resolution_ms: int, buckets: int
) -> None:
    book = ForecastBook(resolution_ms)
    table = [[s, s, s] for s in range(9)]
    book.apply(
        make.forecast(cutoff_ms=8 * resolution_ms, resolution_ms=resolution_ms, quantiles=table)
    )
    found, kept_BQ = book.items["A|north"].past("day")
    assert (found.tolist(), kept_BQ.tolist()) == ([8 + buckets], [[float(buckets)] * 3])


def test_a_longer_forecast_after_a_short_one_is_kept_for_both(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    book.apply(make.forecast(hour=50, quantiles=[[1.0, 2.0, 3.0]]))
    book.apply(make.forecast(hour=51))
    entry = book.items["A|north"]
    assert [entry.past(lead)[0].tolist() for lead in ("step", "day")] == [[50, 51], [74]]


def test_a_short_forecast_says_nothing_about_the_day_after(make: Any) -> None:
    book = ForecastBook(HOUR_MS)
    book.apply(make.forecast(quantiles=[[1.0, 2.0, 3.0]]))
    assert len(book.items["A|north"].past("day")[0]) == 0


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60, unique=True).map(sorted))
def test_the_ring_holds_the_last_forecasts_as_a_dictionary_would(
    make: Any, hours: list[int]
) -> None:
    book = ForecastBook(HOUR_MS)
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
