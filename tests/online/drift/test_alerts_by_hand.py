"""A shop of four items a segment: which alerts a monitor raises, and what they say."""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest

from freshet.online.drift.monitor import DriftMonitor
from freshet.online.drift.plain import State
from freshet.online.drift.words import ALL
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import DriftAlert, Score, ScoredStep
from freshet.stream.units import DAY_MS, HOUR_MS

# Anything is calm that is as often here as there; two deviations hour after hour are not.
PLACES = np.random.default_rng(0).random((400, 40)).tolist()
ITEMS = 4
ABOVE, USUAL = 0.841344746, 0.5
HIGH, LOW = 0.977249868, 1 - 0.977249868
CALM_HOURS = 96
# Nobody needs that many hours of two deviations each to be sure.
AT_MOST = 24


def score(
    segment: str,
    hour: int,
    pit: float,
    *,
    item: int = 0,
    version: str = "v1",
    actual: float = 5.0,
) -> Score:
    step = ScoredStep(
        forecast_id="f",
        weights_version=version,
        step=1,
        pinball=1.0,
        seasonal_naive_pinball=None,
        pit=pit,
        residual=0.5,
        covered_80=True,
        median=4.0,
    )
    return Score(
        item_id=f"item {item} of {segment}",
        segment=segment,
        resolution_ms=HOUR_MS,
        bucket_start_ms=hour * HOUR_MS,
        scored_at_ms=0,
        actual=actual,
        steps=[step],
    )


def scores_of(segment: str, hour: int, pit: float | None, **told: Any) -> list[Score]:
    """All items of a segment at one place of their forecasts, or (None) anywhere."""
    first = ITEMS * (ord(segment[-1]) % 10)
    places = PLACES[hour % 400][first : first + ITEMS] if pit is None else [pit] * ITEMS
    return [score(segment, hour, place, item=item, **told) for item, place in enumerate(places)]


def fed(monitor: DriftMonitor, hours: range, **pits: float | None) -> list[DriftAlert]:
    """The alerts of some hours in which each segment fell at one place of its forecasts, or (None)
    was calm.
    """
    found = []
    for hour in hours:
        scores = [each for segment, pit in pits.items() for each in scores_of(segment, hour, pit)]
        found += monitor.update(hour * HOUR_MS, scores, now_ms=hour * HOUR_MS + 7)
    return found


def calm_monitor(*names: str, settings: DriftSettings | None = None) -> DriftMonitor:
    monitor = DriftMonitor(settings or DriftSettings(), HOUR_MS)
    monitor.restore(calm_state(*names))
    return monitor


@cache
def calm_state(*names: str) -> State:
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    assert fed(monitor, range(CALM_HOURS), **dict.fromkeys(names)) == []
    return monitor.state()


def until_alarm(monitor: DriftMonitor, **pits: float | None) -> tuple[DriftAlert, int]:
    """The first alert after the calm hours, and the hour after it."""
    for hour in range(CALM_HOURS, CALM_HOURS + AT_MOST):
        found = fed(monitor, range(hour, hour + 1), **pits)
        if found:
            return found[0], hour + 1
    raise AssertionError("no alarm")


@pytest.mark.parametrize(("pit", "side"), [(HIGH, 1), (LOW, -1)])
def test_an_alert_says_since_when_and_by_how_much_and_on_which_side(pit: float, side: int) -> None:
    alert, hour = until_alarm(calm_monitor("a"), a=pit)
    assert (alert.segment, alert.state, alert.detector) == ("a", "drift", "scan")
    assert alert.kind == "level"
    assert abs(alert.onset_ms - CALM_HOURS * HOUR_MS) <= 2 * HOUR_MS
    assert alert.detected_at_ms == (hour - 1) * HOUR_MS + 7
    assert alert.weights_version == "v1" and alert.resolution_ms == HOUR_MS
    assert alert.description.startswith("a: ") and alert.action
    assert alert.size * side > 0


def test_it_takes_at_least_two_buckets_and_no_single_one_is_enough() -> None:
    monitor = calm_monitor("a")
    assert fed(monitor, range(CALM_HOURS, CALM_HOURS + 1), a=1.0) == []
    assert monitor.tensions()["a"] < 1.0


def test_a_stream_of_which_little_is_known_needs_more_but_may_alarm() -> None:
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    found = fed(monitor, range(60), a=HIGH)
    assert found and found[0].onset_ms <= 4 * HOUR_MS
    late, hour = until_alarm(calm_monitor("a"), a=HIGH)
    assert found[0].detected_at_ms // HOUR_MS > hour - CALM_HOURS, late


def test_an_alarm_is_over_with_the_id_it_began_with() -> None:
    monitor = calm_monitor("a")
    begun, hour = until_alarm(monitor, a=HIGH)
    found = fed(monitor, range(hour, hour + 60), a=None)
    ended = [alert for alert in found if alert.state == "stable"]
    assert begun.alert_id in {alert.alert_id for alert in ended}
    assert all(alert.action == "nothing" for alert in ended)
    assert "right again" in ended[0].description and monitor.active() == {}
    # One that is taken over later has to be quiet for as long.
    monitor.adopt(begun)
    first = hour + 60
    assert fed(monitor, range(first, first + 11), a=None) == []
    (over,) = fed(monitor, range(first + 11, first + 12), a=None)
    assert (over.alert_id, over.state) == (begun.alert_id, "stable")


def test_how_long_it_must_be_quiet_is_a_setting() -> None:
    monitor = calm_monitor("a", settings=DriftSettings(clear_buckets=3))
    begun, hour = until_alarm(monitor, a=HIGH)
    monitor.restore(calm_monitor("a").state())
    monitor.adopt(begun)
    assert fed(monitor, range(hour, hour + 2), a=None) == []
    assert len(fed(monitor, range(hour + 2, hour + 3), a=None)) == 1


def test_scores_of_another_resolution_are_as_if_they_were_not_there() -> None:
    monitor = calm_monitor("a")
    for hour in range(CALM_HOURS, CALM_HOURS + AT_MOST):
        hourly = scores_of("a", hour, HIGH)
        others = [msgspec.structs.replace(one, resolution_ms=DAY_MS) for one in hourly]
        assert monitor.update(hour * HOUR_MS, others, now_ms=0) == []
    # Nor do they take the place of the hours that they name.
    until_alarm(monitor, a=HIGH)


@pytest.mark.parametrize(("resolution_ms", "taken"), [(None, True), (HOUR_MS, True), (1, False)])
def test_an_alarm_of_another_resolution_is_not_taken_over(
    resolution_ms: int | None, taken: bool
) -> None:
    begun, _ = until_alarm(calm_monitor("a"), a=HIGH)
    after = calm_monitor("a")
    after.adopt(msgspec.structs.replace(begun, resolution_ms=resolution_ms))
    assert after.active() == ({"a": [begun.kind]} if taken else {})


def test_an_alarm_from_before_a_restart_does_not_replace_one_of_now() -> None:
    monitor = calm_monitor("a", "b")
    begun, _ = until_alarm(monitor, a=HIGH, b=None)
    monitor.adopt(msgspec.structs.replace(begun, alert_id="older"))
    (held,) = monitor.segments.active["a"].values()
    assert held.alert_id == begun.alert_id
    monitor.adopt(msgspec.structs.replace(begun, segment="b", state="stable"))
    assert set(monitor.active()) == {"a"}
    monitor.adopt(msgspec.structs.replace(begun, segment=ALL))
    assert set(monitor.active()) == {"a", ALL} and monitor.tensions()[ALL] == 1.0


def test_two_segments_make_a_shop_and_the_one_in_alarm_is_left_out_of_it() -> None:
    assert set(calm_monitor("a").shop.names) == {ALL}
    monitor = calm_monitor("a", "b")
    assert set(monitor.tensions()) == {"a", "b", ALL}
    alert, hour = until_alarm(monitor, a=HIGH, b=None)
    assert alert.segment == "a"
    found = fed(monitor, range(hour, hour + 24), a=HIGH, b=None)
    assert {alert.segment for alert in found} <= {"a"}


def test_the_shop_as_a_whole_alarms_when_all_are_a_little_off() -> None:
    names = [f"s{number}" for number in range(9)]
    monitor = calm_monitor(*names)
    alert, _ = until_alarm(monitor, **dict.fromkeys(names, 0.85))
    assert alert.segment == ALL and alert.description.startswith("the whole shop: ")


def test_a_bucket_that_is_known_or_older_or_empty_changes_nothing() -> None:
    monitor = calm_monitor("a")
    fed(monitor, range(CALM_HOURS, CALM_HOURS + 1), a=HIGH)
    tension = monitor.tensions()["a"]
    assert 0.0 < tension < 1.0
    fed(monitor, range(CALM_HOURS + 1), a=HIGH)
    assert monitor.update(999 * HOUR_MS, [], now_ms=0) == []
    assert monitor.tensions() == {"a": tension, ALL: 0.0}
    fed(monitor, range(CALM_HOURS + 1, CALM_HOURS + 2), a=HIGH)
    assert monitor.tensions()["a"] > tension


def test_an_item_on_promotion_moves_nothing() -> None:
    monitor = calm_monitor("a")
    before = monitor.segments.tensions()
    for hour in range(CALM_HOURS, CALM_HOURS + 100):
        scores, left_out = scores_of("a", hour, HIGH), {f"item {item} of a" for item in range(4)}
        assert monitor.update(hour * HOUR_MS, scores, now_ms=0, left_out=left_out) == []
    assert monitor.segments.tensions()["a"] <= before["a"]


def test_nothing_sold_though_sales_were_forecast_is_a_matter_of_the_data() -> None:
    monitor = calm_monitor("a")
    found = []
    for hour in range(CALM_HOURS, CALM_HOURS + AT_MOST):
        scores = scores_of("a", hour, LOW, actual=0.0)
        found += monitor.update(hour * HOUR_MS, scores, now_ms=0)
    assert found[0].kind == "data" and "nothing was sold" in found[0].description
    assert {alert.kind for alert in found} == {"data"}


def test_other_weights_begin_with_clean_sums_and_what_is_usual_by_the_hour() -> None:
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    for hour in range(24 * 14):
        pit = 0.7 if hour % 24 == 5 else USUAL
        monitor.update(hour * HOUR_MS, scores_of("a", hour, pit), now_ms=0)
    at_5, at_6 = (monitor.segments.usual_level(hour * HOUR_MS)["a"] for hour in (5, 6))
    fed(monitor, range(24 * 14, 24 * 14 + 1), a=HIGH)
    hour = 24 * 14 + 1
    monitor.update(hour * HOUR_MS, scores_of("a", hour, USUAL, version="v2"), now_ms=0)
    assert monitor.version == "v2" and monitor.tensions()["a"] == 0.0
    later = [monitor.segments.usual_level(hour * HOUR_MS)["a"] for hour in (5, 6)]
    assert at_5 - at_6 > 0.3
    assert later[0] - later[1] == pytest.approx(at_5 - at_6)


def test_what_sells_far_beyond_its_forecast_again_and_again_is_a_rise() -> None:
    monitor = calm_monitor("a", "b", "c", "d")
    found: list[DriftAlert] = []
    for hour in range(CALM_HOURS, CALM_HOURS + 18):
        # Another item each hour, and the others about usual: normal scores add up to 1 an hour,
        # which 18 hours do not tell from chance. Savage's add up to 2.3.
        places = [0.999 if item == hour % ITEMS else 0.45 for item in range(ITEMS)]
        scores = [score("a", hour, place, item=item) for item, place in enumerate(places)]
        scores += [each for other in "bcd" for each in scores_of(other, hour, None)]
        found += monitor.update(hour * HOUR_MS, scores, now_ms=0)
    assert [(alert.kind, alert.size > 0) for alert in found] == [("level", True)]


def test_hours_are_those_of_the_shops_clock_in_summer_and_winter() -> None:
    monitor = DriftMonitor(DriftSettings(), HOUR_MS, time_zone="Europe/Berlin")
    # 2026-03-22T00:00 UTC: a week of Berlin's winter, then one of its summer.
    first = 1_774_137_600_000 // HOUR_MS
    summer = first + 24 * 7 + 1
    for hour in range(first, first + 24 * 14):
        at_nine = hour % 24 == (7 if hour >= summer else 8)
        pit = 0.8 if at_nine else USUAL
        monitor.update(hour * HOUR_MS, scores_of("a", hour, pit), now_ms=0)
    by_hour = [monitor.segments.usual_level(hour * HOUR_MS)["a"] for hour in range(24)]
    assert by_hour[9] > 3 * max(by_hour[:9] + by_hour[10:])


def test_buckets_follow_each_other_by_their_own_time_whenever_they_are_scored() -> None:
    monitor = calm_monitor("a")
    found: list[DriftAlert] = []
    for hour in range(CALM_HOURS, CALM_HOURS + AT_MOST):
        found += monitor.update(hour * HOUR_MS, scores_of("a", hour, HIGH), now_ms=999 * HOUR_MS)
    assert {alert.detected_at_ms for alert in found} == {999 * HOUR_MS}


def test_the_newest_forecasts_say_which_weights_serve_whatever_comes_first() -> None:
    monitor = calm_monitor("a")
    both = score("a", CALM_HOURS, USUAL)
    (old,) = both.steps
    new = msgspec.structs.replace(old, weights_version="v2", step=1)
    both = msgspec.structs.replace(both, steps=[msgspec.structs.replace(old, step=24), new])
    monitor.update(CALM_HOURS * HOUR_MS, [both], now_ms=0)
    assert monitor.version == "v2"


def test_a_bucket_without_any_forecast_says_nothing_of_the_weights() -> None:
    monitor = calm_monitor("a")
    bare = msgspec.structs.replace(score("a", CALM_HOURS, USUAL), steps=[])
    assert monitor.update(CALM_HOURS * HOUR_MS, [bare], now_ms=0) == []
    assert monitor.version == "v1"


def test_the_order_of_scores_within_a_bucket_changes_no_digit() -> None:
    def tensions(step: int) -> dict[str, float]:
        monitor = DriftMonitor(DriftSettings(), HOUR_MS)
        for hour in range(40):
            scores = [each for name in "cabd" for each in scores_of(name, hour, None)]
            monitor.update(hour * HOUR_MS, scores[::step], now_ms=0)
        return monitor.tensions()

    assert tensions(1) == tensions(-1)


def test_a_state_is_a_plain_value_from_which_another_monitor_goes_on() -> None:
    monitor = calm_monitor("a", "b")
    fed(monitor, range(CALM_HOURS, CALM_HOURS + 1), a=HIGH, b=None)
    kept = pickle.dumps(monitor.state())
    hours = range(CALM_HOURS + 1, CALM_HOURS + 60)
    there = fed(monitor, hours, a=HIGH, b=None)
    other = DriftMonitor(DriftSettings(), HOUR_MS)
    other.restore(pickle.loads(kept))
    assert there and fed(other, hours, a=HIGH, b=None) == there
    # What was taken out is a copy: it did not move on.
    again = DriftMonitor(DriftSettings(), HOUR_MS)
    again.restore(pickle.loads(kept))
    assert fed(again, hours, a=HIGH, b=None) == there


def test_a_segment_that_comes_later_is_watched_beside_the_others() -> None:
    monitor = calm_monitor("b")
    fed(monitor, range(CALM_HOURS, CALM_HOURS + 96), a=None, b=None)
    assert set(monitor.segments.tensions()) == {"a", "b"}
    found = fed(monitor, range(CALM_HOURS + 96, CALM_HOURS + 120), a=HIGH, b=None)
    assert found and {alert.segment for alert in found} == {"a"}


# Two versions that serve --------------------------------------------------------------------------


def by_two(monitor: DriftMonitor, hours: range, **pits: float | None) -> list[DriftAlert]:
    """The alerts of hours in which v2 serves the segment a, and v1 the others."""
    found = []
    for hour in hours:
        scores = [
            each
            for segment, pit in pits.items()
            for each in scores_of(segment, hour, pit, version="v2" if segment == "a" else "v1")
        ]
        found += monitor.update(hour * HOUR_MS, scores, now_ms=0)
    return found


def test_a_segment_is_held_against_the_version_that_serves_it_and_named_so() -> None:
    monitor = calm_monitor("a", "b", "c")
    hours = range(CALM_HOURS, CALM_HOURS + AT_MOST)
    found = by_two(monitor, hours, a=HIGH, b=None, c=LOW)
    assert monitor.versions == {"a": "v2", "b": "v1", "c": "v1"}
    named = {(alert.segment, alert.weights_version) for alert in found}
    assert named == {("a", "v2"), ("c", "v1")}


def test_who_is_served_by_the_same_version_as_before_is_watched_as_before() -> None:
    """Fewer items of v1 than of v2 speak in some hours, and the other way round in others."""
    by_one, two = (calm_monitor("a", "b", "c") for _ in range(2))
    hours = range(CALM_HOURS, CALM_HOURS + 12)
    fed(by_one, hours, a=USUAL, b=ABOVE, c=None)
    by_two(two, hours, a=USUAL, b=ABOVE, c=None)
    # Segments share what is known of noise; what is known of a's is believed less.
    for name in "bc":
        assert two.segments.tensions()[name] == pytest.approx(
            by_one.segments.tensions()[name], rel=0.05
        )
    assert two.shop.tensions() == by_one.shop.tensions(), "most segments are v1's still"


def test_other_weights_of_one_segment_begin_with_clean_sums_there_alone() -> None:
    monitor = calm_monitor("a", "b", "c")
    fed(monitor, range(CALM_HOURS, CALM_HOURS + 1), a=HIGH, b=HIGH, c=None)
    before = monitor.segments.tensions()
    by_two(monitor, range(CALM_HOURS + 1, CALM_HOURS + 2), a=USUAL, b=USUAL, c=None)
    after = monitor.segments.tensions()
    assert before["a"] > 0.0 and after["a"] == 0.0 and after["b"] > 0.0


def test_a_silent_segment_is_served_by_what_served_it_while_that_serves_anybody() -> None:
    monitor = calm_monitor("a", "b")
    by_two(monitor, range(CALM_HOURS, CALM_HOURS + 1), a=USUAL, b=USUAL)
    by_two(monitor, range(CALM_HOURS + 1, CALM_HOURS + 2), b=USUAL)
    assert monitor.versions == {"a": "v1", "b": "v1"}, "v2 was heard of no more"
    by_two(monitor, range(CALM_HOURS + 2, CALM_HOURS + 3), a=USUAL)
    assert monitor.versions == {"a": "v2", "b": "v2"}
