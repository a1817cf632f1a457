"""What contexts begin with where a segment drifts, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from freshet.model.tables.panel import Window
from freshet.online.adjust.beginning import Beginning, begun, profile_moved, shifted_moved
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


def shifted_by_hand(sold: list[float], came: list[float], usual: list[float]) -> list[float]:
    """Bayes' rule over all shifts, one number after the other."""
    phases = range(len(usual))
    weights, days = [], []
    for shift in phases:
        day = [usual[(phase - shift) % len(usual)] for phase in phases]
        noise = 0.8 if shift == 0 else 0.3
        precision, pull = 1 / noise**2, 0.0
        seen = []
        for phase in phases:
            if came[phase] > 0:
                wanted = came[phase] * day[phase]
                ratio = math.log((sold[phase] + 20) / (wanted + 20))
                seen.append((ratio, 1 / (0.25**2 + 1 / (wanted + 20))))
                precision += seen[-1][1]
                pull += seen[-1][1] * ratio
        level = pull / precision
        off = sum(sure * (ratio - level) ** 2 for ratio, sure in seen) + (level / noise) ** 2
        weights.append((0.5 if shift == 0 else 0.5 / (len(usual) - 1)) * math.exp(-off / 2))
        followed = level / 2 if shift == 0 else level
        days.append([units * math.exp(followed) for units in day])
    now = [sum(w * day[phase] for w, day in zip(weights, days, strict=True)) for phase in phases]
    whole = sum(weights)
    return [math.log((now[phase] / whole + 20) / (usual[phase] + 20)) for phase in phases]


def test_a_day_that_comes_later_tells_after_some_hours_what_the_others_will_be() -> None:
    usual = np.array([40.0, 40.0, 80.0, 160.0, 320.0, 160.0, 80.0, 40.0])
    # Three hours late, of which four have come.
    came = np.where(np.arange(8) < 4, 1.0, 0.0)
    sold = np.array([160.0, 80.0, 40.0, 40.0, 0.0, 0.0, 0.0, 0.0])
    moved = shifted_moved(sold, came, usual)
    # As the day will be from the fifth hour on: (40 + 20) / (320 + 20), 100 / 180, 180 / 100 and
    # 340 / 60.
    np.testing.assert_allclose(moved[4:], np.log([60 / 340, 100 / 180, 1.8, 340 / 60]), atol=0.12)


def test_of_a_level_half_is_taken_and_no_hour_is_moved_by_more_than_eight() -> None:
    # Flat days tell no shift. Of log(620 / 220) = 1.036 in each of six hours 1.018 is believed,
    # half of it taken by .989, and of .011 the .922 of a day that moved: 1.673 x 200 and 20.
    usual, six = np.full(24, 200.0), np.where(np.arange(24) < 6, 1.0, 0.0)
    moved = shifted_moved(600.0 * six, six, usual)
    assert moved == (0.478,) * 24
    late = shifted_moved(np.array([9.0, 9e5]), np.array([1.0, 1.0]), np.array([9e5, 9.0]))
    assert late == (-2.079, 2.079)


@pytest.mark.parametrize("seed", range(5))
def test_shifts_are_weighed_as_bayes_rule_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    usual = rng.gamma(2.0, 50.0, 7) + 5.0
    # Nothing is usually sold in one of them: what is sold there now tells that the day has moved.
    usual[2] = 0.0
    came = rng.integers(0, 3, 7).astype(np.float64)
    sold = rng.poisson(came * np.roll(usual, seed)).astype(np.float64)
    wanted = shifted_by_hand(sold.tolist(), came.tolist(), usual.tolist())
    found = shifted_moved(sold, came, usual)
    np.testing.assert_allclose(found, np.clip(wanted, -math.log(8), math.log(8)), atol=6e-4)


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
