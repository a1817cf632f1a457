"""What contexts begin with where a segment drifts, by hand."""

from __future__ import annotations

import numpy as np

from freshet.model.tables.panel import Window
from freshet.online.adjust.beginning import Beginning, begun, level_moved, profile_moved
from freshet.online.adjust.record import beginning_of, hashed, with_beginnings
from freshet.stream.schemas import Adjustments

NAN = float("nan")


def window_of(target_NT: list[list[float]]) -> Window:
    """From bucket 10 of 100 ms on, with clicks of 1 and one step of horizon."""
    target = np.array(target_NT)
    N, T = target.shape
    return Window(
        item_ids=tuple("abc"[:N]),
        frequency="s",
        resolution_ms=100,
        season_length=1,
        time_ms_NS=np.broadcast_to(1_000 + 100 * np.arange(T + 1), (N, T + 1)),
        target_NT=target,
        known_NSK=np.zeros((N, T + 1, 1)),
        past_NTP=np.ones((N, T, 1)),
        known_names=("k",),
        past_names=("p",),
        static={},
    )


def test_the_past_is_hidden_or_moved_by_phase_and_others_are_left() -> None:
    window = window_of([[1.0, 2.0, 3.0, NAN, 5.0]] * 3)
    moved = Beginning(1_300, (round(float(np.log(2.0)), 3), 0.0))
    found = begun(window, [Beginning(1_200), None, moved])
    np.testing.assert_allclose(
        found.target_NT,
        [
            [NAN, NAN, 3.0, NAN, 5.0],
            [1.0, 2.0, 3.0, NAN, 5.0],
            # Buckets 10, 11 and 12 lie before it: the even ones sold half as much as now.
            [2.0 * np.exp(0.693) / 2.0, 2.0, 3.0 * np.exp(0.693), NAN, 5.0],
        ],
    )
    np.testing.assert_array_equal(found.past_NTP[0, :, 0], [NAN, NAN, 1.0, 1.0, 1.0])
    assert (found.past_NTP[1:] == 1.0).all(), "clicks of a moved past stay"
    np.testing.assert_array_equal(window.target_NT[0], [1.0, 2.0, 3.0, NAN, 5.0])


def test_a_level_is_drawn_to_nothing_by_twenty_units_and_bounded_by_three() -> None:
    # (44 + 20) / (20 + 20) = 1.6, half of whose logarithm is .235.
    assert level_moved(np.array([4.0, 40.0]), np.array([10.0, 10.0])) == (0.235, 0.235)
    # 970 against 3 would be more than fifty times as much, and the other way round.
    many, few = np.array([970.0]), np.array([3.0])
    assert level_moved(many, few) == (0.549,) and level_moved(few, many) == (-0.549,)


def test_each_phase_is_moved_by_its_own_sales_and_an_unseen_one_not() -> None:
    # (40 + 20) / (10 + 20) = 2, (0 + 20) / (30 + 20) = .4, and a bound of eight times.
    sold, expected = np.array([40.0, 0.0, 0.0, 9e9]), np.array([10.0, 30.0, 0.0, 1.0])
    assert profile_moved(sold, expected) == (0.693, -0.916, 0.0, 2.079)


def test_a_record_says_from_which_beginning_a_forecast_is_and_who_decided_it() -> None:
    own = {1: Adjustments(sums_from="f00d")}
    beginnings = [Beginning(7), Beginning(8, (0.5, 0.5)), None, Beginning(9, (0.5, 0.1))]
    found = with_beginnings(own, beginnings, "d")
    assert found == {
        0: Adjustments(begins_at_ms=7, decision_sha256="d"),
        1: Adjustments(sums_from="f00d", begins_at_ms=8, moved=[0.5, 0.5], decision_sha256="d"),
        3: Adjustments(begins_at_ms=9, moved=[0.5, 0.1], decision_sha256="d"),
    }
    assert [beginning_of(found.get(row, Adjustments())) for row in range(4)] == beginnings


def test_ids_of_forecasts_without_a_beginning_are_made_of_what_they_always_were() -> None:
    assert hashed(Adjustments(sums_from="f00d")) == {
        "level_factor": 1.0,
        "calibration_id": None,
        "sums_from": "f00d",
        "mixed_with": None,
    }
    adjusted = hashed(Adjustments(begins_at_ms=7, moved=[0.5], decision_sha256="d"))
    assert (adjusted["moved"], adjusted["decision_sha256"]) == ([0.5], "d")
