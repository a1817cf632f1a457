"""Who serves a drifting segment: evidence to begin, less to stay, and back by itself."""

from __future__ import annotations

import pytest

from freshet.online.adjust.choice import NEWEST_BUCKETS, Candidate, Trial, choose

NAMES: tuple[Candidate, ...] = ("as_it_is", "hidden", "profile", "shifted")


def trials(*losses: tuple[float, float, float, float]) -> list[Trial]:
    return [Trial(hour, dict(zip(NAMES, row, strict=True))) for hour, row in enumerate(losses)]


def test_without_two_final_buckets_nothing_is_known_and_all_is_as_it_is() -> None:
    one = trials((100.0, 1.0, 1.0, 1.0))
    assert choose([], "hidden") == "as_it_is"
    assert choose(one, "as_it_is") == choose(one, "hidden") == "as_it_is"
    assert choose(one + one, "as_it_is") != "as_it_is"


@pytest.mark.parametrize(("hidden", "serves"), [(89.9, "hidden"), (90.1, "as_it_is")])
def test_to_leave_as_it_is_takes_a_tenth_less(hidden: float, serves: str) -> None:
    found = trials(*[(100.0, hidden, 200.0, 200.0)] * 3)
    assert choose(found, "as_it_is") == serves


@pytest.mark.parametrize(("hidden", "serves"), [(99.9, "hidden"), (100.0, "as_it_is")])
def test_who_serves_stays_until_as_it_is_would_have_lost_less(hidden: float, serves: str) -> None:
    found = trials(*[(100.0, hidden, 200.0, 200.0)] * 3)
    assert choose(found, "hidden") == serves


@pytest.mark.parametrize(("profile", "serves"), [(75.9, "profile"), (76.1, "hidden")])
def test_between_two_adjustments_a_twentieth_decides(profile: float, serves: str) -> None:
    found = trials(*[(100.0, 80.0, profile, 200.0)] * 3)
    assert choose(found, "hidden") == serves


def test_one_lucky_bucket_is_no_evidence() -> None:
    # Over all five, 560 against 1,400; but better in one of them alone.
    unlucky = (100.0, 110.0, 900.0, 900.0)
    lucky = (1_000.0, 120.0, 9_000.0, 9_000.0)
    assert choose(trials(unlucky, unlucky, unlucky, unlucky, lucky), "as_it_is") == "as_it_is"
    # Better in three of five.
    better = (100.0, 80.0, 900.0, 900.0)
    assert choose(trials(better, better, unlucky, unlucky, lucky), "as_it_is") == "hidden"


def test_six_buckets_later_a_bucket_counts_half() -> None:
    # Six buckets apart: 100 x .5 + 85 = 135 against 80 x .5 + 100 = 140.
    old, new = (100.0, 80.0, 999.0, 999.0), (85.0, 100.0, 999.0, 999.0)
    none = (0.0, 0.0, 0.0, 0.0)
    assert choose(trials(old, *[none] * 5, new), "hidden") == "as_it_is"
    # One bucket apart it is 100 x .891 + 85 = 174.1 against 80 x .891 + 100 = 171.3.
    assert choose(trials(old, new), "hidden") == "hidden"


def test_what_is_older_than_the_newest_buckets_does_not_count() -> None:
    old = [(1e9, 1.0, 1.0, 1.0)]
    new = [(100.0, 101.0, 101.0, 101.0)] * NEWEST_BUCKETS
    assert choose(trials(*old, *new), "hidden") == "as_it_is"
    assert choose(trials(*old, *new[1:]), "hidden") == "hidden"


def test_of_two_equal_ones_the_choice_does_not_depend_on_their_order() -> None:
    one = {"shifted": 5.0, "profile": 5.0, "hidden": 5.0, "as_it_is": 10.0}
    other = dict(reversed(one.items()))
    found = [choose([Trial(0, row), Trial(1, row)], "as_it_is") for row in (one, other)]  # type: ignore[arg-type]
    assert found == ["hidden", "hidden"]
