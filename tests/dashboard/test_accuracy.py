"""Scores are counted once, summed by bucket, and a day's sums are a day's sums."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.dashboard import accuracy
from freshet.dashboard.accuracy import Accuracy, ErrorSums, last_day, rolling, total
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS


def test_wql_is_pinball_over_what_was_sold(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    known.apply(make.score(pinball=3.0, seasonal_naive_pinball=6.0, actual=10.0))
    known.apply(
        make.score("B|n", pinball=1.0, seasonal_naive_pinball=6.0, actual=30.0, covered_80=False)
    )
    sums = known.overall[100 * HOUR_MS]
    assert (sums.wql(), sums.naive_wql(), sums.coverage()) == (0.1, 0.3, 0.5)


def test_a_score_counts_once_however_often_it_is_read(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    assert known.apply(make.score())
    assert not known.apply(make.score())
    assert known.matured == 1
    assert known.overall[100 * HOUR_MS].steps == 1


def test_an_item_that_comes_later_does_not_let_an_earlier_one_count_again(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    names = ("A|n", "B|n", "C|n", "A|n", "B|n", "C|n")
    assert [known.apply(make.score(name)) for name in names] == [True] * 3 + [False] * 3
    # An item known from elsewhere counts in a bucket of its own.
    assert known.apply(make.score("C|n", hour=101)) and known.apply(make.score("A|n", hour=101))
    assert [sums.steps for sums in known.overall.values()] == [3, 2]


def test_three_weeks_of_hours_are_kept(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    for hour in range(21 * 24 + 1):
        known.apply(make.score(hour=hour))
    assert (min(known.overall), len(known.overall)) == (HOUR_MS, 21 * 24)


def test_the_model_is_held_against_naive_on_the_same_steps_only(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    known.apply(make.score("new|n", pinball=9.0, seasonal_naive_pinball=None, actual=1.0))
    known.apply(make.score("old|n", pinball=1.0, seasonal_naive_pinball=2.0, actual=10.0))
    sums = known.overall[100 * HOUR_MS]
    assert (sums.wql(), sums.naive_wql()) == (0.1, 0.2)


def test_without_any_naive_the_model_stands_alone_and_nothing_sold_has_no_error(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    known.apply(make.score(pinball=2.0, seasonal_naive_pinball=None, actual=4.0))
    assert (known.overall[100 * HOUR_MS].wql(), known.overall[100 * HOUR_MS].naive_wql()) == (
        0.5,
        None,
    )
    assert ErrorSums().wql() is None and ErrorSums().coverage() is None


def test_segments_have_sums_of_their_own(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    known.apply(make.score("A|n", segment="Boots", weights_version="base"))
    known.apply(make.score("B|n", segment="Tents", weights_version="v2"))
    assert {name: set(buckets) for name, buckets in known.by_segment.items()} == {
        "Boots": {100 * HOUR_MS},
        "Tents": {100 * HOUR_MS},
    }


def test_only_the_newest_buckets_are_kept_and_older_scores_are_refused(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MAX_BUCKETS", 3)
    known = Accuracy(Grid(HOUR_MS))
    for hour in (10, 11, 12, 13):
        known.apply(make.score(hour=hour))
    assert (
        sorted(known.overall)
        == sorted(known.by_segment["Boots"])
        == [h * HOUR_MS for h in (11, 12, 13)]
    )
    assert not known.apply(make.score("B|n", hour=9))
    assert known.apply(make.score("B|n", hour=11))


def test_groups_beyond_the_maximum_push_out_the_one_longest_silent(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MAX_GROUPS", 2)
    known = Accuracy(Grid(HOUR_MS))
    for hour, segment in ((10, "a"), (12, "b"), (13, "c")):
        known.apply(make.score(hour=hour, segment=segment))
    assert set(known.by_segment) == {"b", "c"}


def test_64_segments_are_kept(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    for number in range(65):
        known.apply(make.score(hour=number, segment=f"s{number}"))
    assert list(known.by_segment) == [f"s{number}" for number in range(1, 65)]


def test_items_beyond_the_maximum_are_not_scored(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MAX_SCORED_ITEMS", 1)
    known = Accuracy(Grid(HOUR_MS))
    assert known.apply(make.score("A|n"))
    assert not known.apply(make.score("B|n"))


hours_and_losses = st.dictionaries(st.integers(0, 80), st.integers(1, 50), min_size=1)


@given(hours_and_losses)
def test_each_point_of_the_curve_is_the_sum_of_the_day_that_ends_there(
    losses: dict[int, int],
) -> None:
    buckets = {
        hour * HOUR_MS: ErrorSums(pinball=loss, actual=100.0, steps=1)
        for hour, loss in losses.items()
    }
    for start_ms, sums in rolling(buckets):
        naive = sum(b.pinball for at, b in buckets.items() if start_ms - DAY_MS < at <= start_ms)
        assert sums.pinball == pytest.approx(naive)
    assert [start for start, _ in rolling(buckets)] == sorted(buckets)
    assert rolling(buckets)[-1][1].pinball == pytest.approx(last_day(buckets).pinball)


def test_a_total_includes_its_start_and_excludes_its_end() -> None:
    buckets = {hour * HOUR_MS: ErrorSums(steps=10**hour) for hour in range(5)}
    assert total(buckets, HOUR_MS, 3 * HOUR_MS).steps == 10 + 100
    assert last_day({}).steps == 0


def with_steps(score: Any, *changes: dict[str, Any]) -> Any:
    """A score of several forecasts of the same bucket."""
    steps = [msgspec.structs.replace(score.steps[0], **change) for change in changes]
    return msgspec.structs.replace(score, steps=steps)


def test_every_sum_is_that_of_its_own_steps(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    score = with_steps(
        make.score(actual=10.0),
        {"pinball": 1.0, "seasonal_naive_pinball": 4.0, "covered_80": True},
        {"pinball": 2.0, "seasonal_naive_pinball": None, "covered_80": False},
        {"pinball": 5.0, "seasonal_naive_pinball": 7.0, "weights_version": "v2"},
    )
    assert known.apply(score)
    assert known.matured == 3
    at = 100 * HOUR_MS
    both = ErrorSums(8.0, 30.0, 6.0, 11.0, 20.0, covered=2, steps=3)
    assert known.overall == {at: both}
    assert known.by_segment == {"Boots": {at: both}}


def test_a_score_of_another_resolution_changes_nothing(make: Any) -> None:
    known = Accuracy(Grid(HOUR_MS))
    assert not known.apply(make.score(resolution_ms=DAY_MS))
    assert (known.matured, known.overall, known.by_segment) == (0, {}, {})
    assert known.apply(make.score()), "it has not taken the place of the right one"


def test_the_oldest_kept_bucket_still_takes_scores_of_other_items(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MAX_BUCKETS", 2)
    known = Accuracy(Grid(HOUR_MS))
    known.apply(make.score(hour=10))
    assert known.apply(make.score(hour=9)), "there is room for an older one"
    assert known.apply(make.score("B|n", hour=9))
    known.apply(make.score(hour=11))
    assert set(known.overall) == set(known.by_segment["Boots"]) == {10 * HOUR_MS, 11 * HOUR_MS}
    assert not known.apply(make.score("C|n", hour=9))


def test_an_item_of_the_maximum_goes_on_being_scored(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MAX_SCORED_ITEMS", 2)
    known = Accuracy(Grid(HOUR_MS))
    names = ("A|n", "B|n", "C|n", "A|n", "B|n")
    hours = (100, 100, 100, 101, 101)
    taken = [
        known.apply(make.score(name, hour=hour)) for name, hour in zip(names, hours, strict=True)
    ]
    assert taken == [True, True, False, True, True]


def test_a_group_that_is_known_pushes_none_out(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "MAX_GROUPS", 2)
    known = Accuracy(Grid(HOUR_MS))
    for hour, segment in ((12, "a"), (10, "b"), (11, "b"), (13, "c")):
        known.apply(make.score(hour=hour, segment=segment))
    # Last scored in hour 12 and 11: b was silent for longer, though it came later.
    assert set(known.by_segment) == {"a", "c"}
    known.apply(make.score(hour=14, segment="a"))
    assert {name: set(buckets) for name, buckets in known.by_segment.items()} == {
        "a": {12 * HOUR_MS, 14 * HOUR_MS},
        "c": {13 * HOUR_MS},
    }
    known.apply(make.score(hour=15, segment="d"))
    assert set(known.by_segment) == {"a", "d"}, "a began before c, and was scored after it"


def test_a_group_whose_buckets_are_all_forgotten_goes_first(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MAX_GROUPS", 2)
    monkeypatch.setattr(accuracy, "MAX_BUCKETS", 1)
    known = Accuracy(Grid(HOUR_MS))
    for hour, segment in ((10, "a"), (11, "b"), (12, "a"), (13, "c")):
        known.apply(make.score(hour=hour, segment=segment))
    assert {name: set(buckets) for name, buckets in known.by_segment.items()} == {
        "a": set(),
        "c": {13 * HOUR_MS},
    }


def test_the_last_day_holds_the_newest_bucket_and_not_the_one_a_day_before() -> None:
    buckets = {hour * HOUR_MS: ErrorSums(steps=10**hour_place) for hour_place, hour in
               enumerate((5, 6, 7, 29))}  # fmt: skip
    # A day that ends with hour 29 begins with hour 6.
    assert last_day(buckets).steps == 10 + 100 + 1_000
    assert [sums.steps for _, sums in rolling(buckets)] == [1, 11, 111, 1_110]
    # Each point is a sum of its own, that later ones do not change.
    assert [sums.steps for _, sums in rolling(buckets, 2 * HOUR_MS)] == [1, 11, 110, 1_000]


def test_nothing_sold_has_no_error_and_something_sold_has_one() -> None:
    assert ErrorSums(pinball=1.0, steps=1).wql() is None
    assert ErrorSums(pinball=1.0, actual=0.5, steps=1).wql() == 2.0
    assert ErrorSums(paired_naive=1.0).naive_wql() is None
    assert ErrorSums(paired_pinball=1.0, paired_naive=3.0, paired_actual=0.5).naive_wql() == 6.0
    # Eight out of ten, whatever else was paired.
    assert ErrorSums(covered=8, steps=10, paired_actual=3.0).coverage() == 0.8
