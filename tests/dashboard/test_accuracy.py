"""Scores are counted once, summed by bucket, and a day's sums are a day's sums."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.dashboard import accuracy
from freshet.dashboard.accuracy import Accuracy, ErrorSums, last_day, rolling, total
from freshet.stream.units import DAY_MS, HOUR_MS


def test_wql_is_pinball_over_what_was_sold(make: Any) -> None:
    known = Accuracy(HOUR_MS)
    known.apply(make.score(pinball=3.0, seasonal_naive_pinball=6.0, actual=10.0))
    known.apply(
        make.score("B|n", pinball=1.0, seasonal_naive_pinball=6.0, actual=30.0, covered_80=False)
    )
    sums = known.overall[100 * HOUR_MS]
    assert (sums.wql(), sums.naive_wql(), sums.coverage()) == (0.1, 0.3, 0.5)


def test_a_score_counts_once_however_often_it_is_read(make: Any) -> None:
    known = Accuracy(HOUR_MS)
    assert known.apply(make.score())
    assert not known.apply(make.score())
    assert known.matured == 1
    assert known.overall[100 * HOUR_MS].steps == 1


def test_the_model_is_held_against_naive_on_the_same_steps_only(make: Any) -> None:
    known = Accuracy(HOUR_MS)
    known.apply(make.score("new|n", pinball=9.0, seasonal_naive_pinball=None, actual=1.0))
    known.apply(make.score("old|n", pinball=1.0, seasonal_naive_pinball=2.0, actual=10.0))
    sums = known.overall[100 * HOUR_MS]
    assert (sums.wql(), sums.naive_wql()) == (0.1, 0.2)


def test_without_any_naive_the_model_stands_alone_and_nothing_sold_has_no_error(make: Any) -> None:
    known = Accuracy(HOUR_MS)
    known.apply(make.score(pinball=2.0, seasonal_naive_pinball=None, actual=4.0))
    assert (known.overall[100 * HOUR_MS].wql(), known.overall[100 * HOUR_MS].naive_wql()) == (
        0.5,
        None,
    )
    assert ErrorSums().wql() is None and ErrorSums().coverage() is None


def test_segments_and_versions_have_sums_of_their_own(make: Any) -> None:
    known = Accuracy(HOUR_MS)
    known.apply(make.score("A|n", segment="Boots", weights_version="base"))
    known.apply(make.score("B|n", segment="Tents", weights_version="v2"))
    assert {name: set(buckets) for name, buckets in known.by_segment.items()} == {
        "Boots": {100 * HOUR_MS},
        "Tents": {100 * HOUR_MS},
    }
    assert set(known.by_version) == {"base", "v2"}


def test_only_the_newest_buckets_are_kept_and_older_scores_are_refused(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MAX_BUCKETS", 3)
    known = Accuracy(HOUR_MS)
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
    known = Accuracy(HOUR_MS)
    for hour, segment in ((10, "a"), (12, "b"), (13, "c")):
        known.apply(make.score(hour=hour, segment=segment))
    assert set(known.by_segment) == {"b", "c"}


def test_items_beyond_the_maximum_are_not_scored(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MAX_SCORED_ITEMS", 1)
    known = Accuracy(HOUR_MS)
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
    buckets = {hour * HOUR_MS: ErrorSums(steps=1) for hour in range(5)}
    assert total(buckets, HOUR_MS, 3 * HOUR_MS).steps == 2
    assert last_day({}).steps == 0
